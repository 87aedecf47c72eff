"""Every spelling that a schedule may have, and what each refusal says."""

from __future__ import annotations

import itertools

import pytest

from raftcron.core.cron import parse_cron
from raftcron.core.instant import parse_rfc3339, rfc3339
from raftcron.core.schedule import CronSchedule, Dst, ScheduleError, parse

JANUARY = parse_rfc3339("2026-01-01T00:00:00Z")  # a Thursday


def times(
    text: str, count: int = 3, after: str = "2026-01-01T00:00:00Z", zone: str = "UTC", hash_key: str = ""
) -> list[str]:
    """The next times of a schedule as text, without the Z."""
    found = parse(text, zone, hash_key=hash_key).between(parse_rfc3339(after), 2**53, parse_rfc3339(after), count)
    return [rfc3339(at).removesuffix("Z") for at in found]


@pytest.mark.parametrize(
    ("text", "field", "numbers"),
    [
        ("5-5 * * * *", "minutes", (5,)),
        ("59/1 * * * *", "minutes", (59,)),
        ("50-10/15 * * * *", "minutes", (5, 50)),
        ("*/70 * * * *", "minutes", (0,)),
        ("5,5,007 * * * *", "minutes", (5, 7)),
        ("* 22-3/3 * * *", "hours", (1, 22)),
        ("* 22-2 * * *", "hours", (0, 1, 2, 22, 23)),
        ("* * 28-3 * *", "days", (1, 2, 3, 28, 29, 30, 31)),
        ("* * 25-L/3 * *", "days", (25, 28, 31)),
        ("* * * NOV-feb *", "months", (1, 2, 11, 12)),
        ("* * * DEC/3 *", "months", (12,)),
        ("* * * apr-jan/3 *", "months", (1, 4, 7, 10)),
        ("* * * * 1/2", "weekdays", (0, 1, 3, 5)),
        ("* * * * */2", "weekdays", (0, 2, 4, 6)),
        ("* * * * */7", "weekdays", (0,)),
        ("* * * * 5-7", "weekdays", (0, 5, 6)),
        ("* * * * FRI-MON", "weekdays", (0, 1, 5, 6)),
        ("* * * * 7-2", "weekdays", (0, 1, 2)),
        ("* * * * 7", "weekdays", (0,)),
        ("* * * * Sun-Sun", "weekdays", (0,)),
        ("* * * * 1-tue", "weekdays", (1, 2)),
        ("*/20 * * * * *", "seconds", (0, 20, 40)),
        ("0 0 0 1 1 ? 2026/30", "years", (2026, 2056, 2086)),
    ],
)
def test_fields_expand(text: str, field: str, numbers: tuple[int, ...]) -> None:
    """Lists, ranges, wrapped ranges, steps and names give these numbers."""
    assert getattr(parse_cron(text, ""), field) == numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 0 L * *", ["2026-01-31T00:00:00", "2026-02-28T00:00:00", "2026-03-31T00:00:00"]),
        ("0 0 L-3 * *", ["2026-01-28T00:00:00", "2026-02-25T00:00:00", "2026-03-28T00:00:00"]),
        ("0 0 L-30 * *", ["2026-03-01T00:00:00", "2026-05-01T00:00:00", "2026-07-01T00:00:00"]),
        ("0 0 LW * *", ["2026-01-30T00:00:00", "2026-02-27T00:00:00", "2026-03-31T00:00:00"]),
        ("0 0 L-2W * *", ["2026-01-29T00:00:00", "2026-02-26T00:00:00", "2026-03-30T00:00:00"]),
        ("0 0 1W * *", ["2026-02-02T00:00:00", "2026-03-02T00:00:00", "2026-04-01T00:00:00"]),
        ("0 0 31W * *", ["2026-01-30T00:00:00", "2026-03-31T00:00:00", "2026-05-29T00:00:00"]),
        ("0 0 15W,L * *", ["2026-01-15T00:00:00", "2026-01-31T00:00:00", "2026-02-16T00:00:00"]),
        ("0 0 * * 5L", ["2026-01-30T00:00:00", "2026-02-27T00:00:00", "2026-03-27T00:00:00"]),
        ("0 0 * * friL", ["2026-01-30T00:00:00", "2026-02-27T00:00:00", "2026-03-27T00:00:00"]),
        ("0 0 * * L5", ["2026-01-30T00:00:00", "2026-02-27T00:00:00", "2026-03-27T00:00:00"]),
        ("0 0 * * 7L", ["2026-01-25T00:00:00", "2026-02-22T00:00:00", "2026-03-29T00:00:00"]),
        ("0 0 * * FRI#2", ["2026-01-09T00:00:00", "2026-02-13T00:00:00", "2026-03-13T00:00:00"]),
        ("0 0 * * 5#5", ["2026-01-30T00:00:00", "2026-05-29T00:00:00", "2026-07-31T00:00:00"]),
        ("0 0 ? * 1#1,5L", ["2026-01-05T00:00:00", "2026-01-30T00:00:00", "2026-02-02T00:00:00"]),
        ("0 0 13 * 5", ["2026-01-02T00:00:00", "2026-01-09T00:00:00", "2026-01-13T00:00:00"]),
        ("0 0 */12 * 5", ["2026-02-13T00:00:00", "2026-03-13T00:00:00", "2026-05-01T00:00:00"]),
        ("0 0 13 * */5", ["2026-02-13T00:00:00", "2026-03-13T00:00:00", "2026-09-13T00:00:00"]),
        ("0 0 ? * 5", ["2026-01-02T00:00:00", "2026-01-09T00:00:00", "2026-01-16T00:00:00"]),
        ("0 0 1-31 * 5", ["2026-01-02T00:00:00", "2026-01-03T00:00:00", "2026-01-04T00:00:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00:00", "2032-02-29T00:00:00", "2036-02-29T00:00:00"]),
        ("0 0 29 2 */7", ["2032-02-29T00:00:00", "2060-02-29T00:00:00", "2088-02-29T00:00:00"]),
        ("30 0 12 * * *", ["2026-01-01T12:00:30", "2026-01-02T12:00:30", "2026-01-03T12:00:30"]),
        ("0 0 12 1 1 * 2026", ["2026-01-01T12:00:00"]),
        ("0 0 12 1 1 ? 2026-2027", ["2026-01-01T12:00:00", "2027-01-01T12:00:00"]),
        (" \t0  0 1\t1 * ", ["2027-01-01T00:00:00", "2028-01-01T00:00:00", "2029-01-01T00:00:00"]),
        ("@yearly", ["2027-01-01T00:00:00", "2028-01-01T00:00:00", "2029-01-01T00:00:00"]),
        ("@annually", ["2027-01-01T00:00:00", "2028-01-01T00:00:00", "2029-01-01T00:00:00"]),
        ("@monthly", ["2026-02-01T00:00:00", "2026-03-01T00:00:00", "2026-04-01T00:00:00"]),
        ("@weekly", ["2026-01-04T00:00:00", "2026-01-11T00:00:00", "2026-01-18T00:00:00"]),
        ("@Daily", ["2026-01-02T00:00:00", "2026-01-03T00:00:00", "2026-01-04T00:00:00"]),
        ("@midnight", ["2026-01-02T00:00:00", "2026-01-03T00:00:00", "2026-01-04T00:00:00"]),
        ("@hourly", ["2026-01-01T01:00:00", "2026-01-01T02:00:00", "2026-01-01T03:00:00"]),
        ("@every\t90s", ["2026-01-01T00:01:30", "2026-01-01T00:03:00", "2026-01-01T00:04:30"]),
        ("@at\t2026-01-01T01:00:00Z", ["2026-01-01T01:00:00"]),
        ("@every 90s", ["2026-01-01T00:01:30", "2026-01-01T00:03:00", "2026-01-01T00:04:30"]),
        (
            "@every 1d from 2025-12-31T12:00:00.5Z",
            ["2026-01-01T12:00:00.500", "2026-01-02T12:00:00.500", "2026-01-03T12:00:00.500"],
        ),
        (
            "@every 1h from 2030-01-01T00:00:00+01:00",
            ["2030-01-01T00:00:00", "2030-01-01T01:00:00", "2030-01-01T02:00:00"],
        ),
        ("@at 2026-01-01T01:00:00+01:00", []),
        ("@at 2026-01-01T01:00:00Z", ["2026-01-01T01:00:00"]),
        ("@manual", []),
    ],
)
def test_next_times(text: str, expected: list[str]) -> None:
    """Each spelling names these times after the beginning of 2026."""
    assert times(text) == expected


def test_kinds() -> None:
    """A schedule says of which kind it is, and whether it counts from the end of the last run."""
    kinds = {
        "* * * * *": "cron",
        "@daily": "cron",
        "@every 5m": "every",
        "@at 2026-01-01T00:00:00Z": "at",
        "@manual": "manual",
    }
    assert {text: parse(text).kind for text in kinds} == kinds
    assert parse("@every 5m from last_end").from_last_end
    assert not any(parse(text).from_last_end for text in kinds)


def test_every_counts_from_the_jobs_anchor() -> None:
    """The job's anchor moves the grid; the first time is one interval after it; the text's own goes before it."""
    schedule = parse("@every 10s")
    assert schedule.next(JANUARY, JANUARY + 3_500) == JANUARY + 13_500
    assert schedule.next(JANUARY + 13_500, JANUARY + 3_500) == JANUARY + 23_500
    assert schedule.previous(JANUARY + 13_500, JANUARY + 3_500) is None
    own = parse("@every 10s from 2026-01-01T00:00:00Z")
    assert own.next(JANUARY, JANUARY + 3_500) == JANUARY + 10_000


def test_at_is_there_once() -> None:
    """@at is strictly after what lies before it, and strictly before what lies after it."""
    schedule = parse("@at 2026-01-01T00:00:00Z")
    assert (schedule.next(JANUARY - 1), schedule.next(JANUARY)) == (JANUARY, None)
    assert (schedule.previous(JANUARY), schedule.previous(JANUARY + 1)) == (None, JANUARY)
    assert schedule.never_fires(JANUARY) and not schedule.never_fires(JANUARY - 1)


@pytest.mark.parametrize(
    "text", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 1 1 ? 2025", "0 0 31W 2 *", "0 0 */100 * 1#4"]
)
def test_what_never_fires_says_so(text: str) -> None:
    """A schedule that no date matches has no next time, and says that it never fires."""
    schedule = parse(text, "Europe/Berlin")
    assert schedule.never_fires(JANUARY)
    assert schedule.next(JANUARY) is None
    assert schedule.summary(JANUARY, 2 * JANUARY, 0) is None


def test_the_beginning_of_1970_is_a_time_like_others() -> None:
    """A schedule whose next time is instant 0 fires."""
    assert parse("0 0 1 1 *").next(-1) == 0
    assert not parse("0 0 1 1 *").never_fires(-1)


def test_manual_waits_to_be_asked() -> None:
    """@manual has no times, yet does not count as a schedule that never fires."""
    schedule = parse("@manual")
    assert schedule.next(JANUARY) is None and schedule.previous(JANUARY) is None
    assert not schedule.never_fires(JANUARY)
    assert schedule.summary(0, JANUARY, 0) is None


# ---- H -----------------------------------------------------------------------------------------------------------


def test_hash_is_stable_and_reaches_every_slot() -> None:
    """H depends on the key alone, and over many keys `H H * * *` reaches every minute of the day."""
    assert times("H H * * *", 1, hash_key="backup-db") == ["2026-01-01T08:55:00"]
    slots = set()
    for number in range(20_000):
        fields = parse_cron("H H * * *", f"job-{number}")
        slots.add((fields.hours, fields.minutes))
    assert len(slots) == 1_440


@pytest.mark.parametrize(
    ("text", "field", "allowed"),
    [
        ("H(10-19) * * * *", "minutes", range(10, 20)),
        ("* * H * *", "days", range(1, 29)),
        ("* * * H *", "months", range(1, 13)),
        ("* * * * H", "weekdays", range(7)),
        ("H * * * * *", "seconds", range(60)),
    ],
)
def test_hash_draws_within_its_range(text: str, field: str, allowed: range) -> None:
    """H draws one number of its field's range, and each of them for some key."""
    drawn = {getattr(parse_cron(text, str(key)), field) for key in range(1_000)}
    assert drawn == {(number,) for number in allowed}


def test_hash_with_a_step_keeps_the_step() -> None:
    """H/15 and H(a-b)/n start where the key says and go on in equal steps to the end of the range."""
    for key in range(50):
        minutes = parse_cron("H/15 * * * *", str(key)).minutes
        assert len(minutes) == 4 and {b - a for a, b in itertools.pairwise(minutes)} == {15}
        minutes = parse_cron("H(30-50)/10 * * * *", str(key)).minutes
        assert minutes[0] in range(30, 40) and minutes == tuple(range(minutes[0], 51, 10))


def test_hash_does_not_touch_aliases_or_the_wildcard_rule() -> None:
    """@yearly stays 1 January whatever the key, and H is no wildcard: its job runs once in a repeated hour."""
    assert times("@yearly", 1, hash_key="a") == ["2027-01-01T00:00:00"]
    schedule = parse("H 2 * * *", "Europe/Berlin", hash_key="a")
    assert isinstance(schedule, CronSchedule) and not schedule.fields.wildcard


# ---- sharing -----------------------------------------------------------------------------------------------------


def test_equal_arguments_share_one_object() -> None:
    """What is parsed twice is one object; the hash key counts only where an H is."""
    assert parse("*/5 * * * *", "Europe/Berlin") is parse("*/5 * * * *", "Europe/Berlin", hash_key="other")
    assert parse("0 3 * * THU", hash_key="a") is parse("0 3 * * THU", hash_key="b")
    assert parse("H * * * *", hash_key="a") is not parse("H * * * *", hash_key="b")
    assert parse("0 2 * * *", dst=Dst("skip")) is not parse("0 2 * * *")


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("", None, ["5 fields", "not 0"]),
        ("* * * *", None, ["not 4"]),
        ("* * * * * * * *", 14, ["not 8"]),
        ("61 * * * *", 0, ["minute field", "`61`", "0 to 59"]),
        ("* 24 * * *", 2, ["hour field", "0 to 23"]),
        ("* * 0 * *", 4, ["day-of-month field", "1 to 31"]),
        ("* * * 13 *", 6, ["month field", "1 to 12", "JAN to DEC"]),
        ("* * * FOO *", 6, ["`FOO`", "JAN to DEC"]),
        ("* * * * 8", 8, ["day-of-week field", "0 to 7", "SUN to SAT"]),
        ("0 0 0 1 1 ? 2150", 12, ["year field", "1970 to 2099"]),
        ("0 0 0 1 1 ? 2030-2020", 12, ["year", "2020-2030"]),
        ("0 0 0 1 1 ? H", 12, ["`H`", "year"]),
        ("60 * * * * *", 0, ["second field"]),
        ("1,2,99 * * * *", 4, ["`99`"]),
        ("1,,2 * * * *", 2, ["empty"]),
        ("*/0 * * * *", 0, ["step of 0"]),
        ("*/x * * * *", 0, ["step", "`X`"]),
        ("5/ * * * *", 0, ["step"]),
        ("/2 * * * *", 0, ["cannot be read"]),
        ("1//2 * * * *", 0, ["step"]),
        ("-1 * * * *", 0, ["cannot be read"]),
        ("1-2-3 * * * *", 0, ["cannot be read"]),
        ("**/2 * * * *", 0, ["`*`"]),
        ("1_0 * * * *", 0, ["cannot be read"]),
        ("* ? * * *", 2, ["`?`", "use *"]),
        ("* * 1,? * *", 6, ["`?`"]),
        ("R * * * *", 0, ["`R`", "use H"]),
        ("R(0-5) * * * *", 0, ["`R`", "use H"]),
        ("H(5-99) * * * *", 0, ["`99`"]),
        ("H(9-5) * * * *", 0, ["H(5-9)"]),
        ("* * * * L", 8, ["5L"]),
        ("* * 5L * *", 4, ["day-of-week"]),
        ("* * * * 15W", 8, ["day-of-month"]),
        ("* * L-31 * *", 4, ["L-1 to L-30"]),
        ("* * 32W * *", 4, ["1 to 31"]),
        ("* * * * 5#6", 8, ["#1 to #5"]),
        ("* * * * 5#0", 8, ["#1 to #5"]),
        ("* * * * 5#", 8, ["#1 to #5"]),
        ("* * * * 5L#1", 8, []),
        ("* * * * MONDAY", 8, ["SUN to SAT"]),
        ("TZ=UTC * * * * *", 0, ["timezone"]),
        ("CRON_TZ=Asia/Tokyo 0 6 * * *", 0, ["timezone"]),
        ("* * * * \u0661", 8, ["ASCII"]),
        ("*\u00a0* * * *", 1, ["ASCII"]),
        ("*\x00* * * *", 1, ["ASCII"]),
        ("@reboot", 0, ["@reboot", "@manual"]),
        ("@fortnightly", 0, ["@weekly", "@every"]),
        ("@daily 5", 0, ["@daily"]),
        ("@every", 0, ["@every 5m"]),
        ("@every 5", 7, ["5s"]),
        ("@every 500ms", 7, ["1s"]),
        ("@every 5m5m", 7, ["1h30m"]),
        ("@every 5m from", 0, ["last_end"]),
        ("@every 5m from noon", 15, ["RFC 3339", "last_end"]),
        ("@at", 0, ["@at 2030"]),
        ("@at tomorrow", 4, ["RFC 3339"]),
        ("  @at 2026-02-30T00:00:00Z", 6, ["does not exist"]),
        ("* " * 129, None, ["258", "256"]),
    ],
)
def test_refusals_say_where_what_and_what_is_right(text: str, position: int | None, said: list[str]) -> None:
    """A text that cannot be used is refused with field, position, fault and what would be right."""
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert caught.value.position == position
    for part in said:
        assert part in str(caught.value)


def test_what_is_no_text_is_refused() -> None:
    """Numbers, None and unknown knobs and zones get a ScheduleError too, never another exception."""
    for wrong in (None, 5, ["* * * * *"], b"* * * * *"):
        with pytest.raises(ScheduleError, match="is text"):
            parse(wrong)  # type: ignore[arg-type]
    for zone, said in (
        ("Europe/Berln", "IANA"),
        ("europe/berlin", "did you mean Europe/Berlin"),
        ("", "IANA"),
        ("../UTC", "IANA"),
        (None, "IANA"),
    ):
        with pytest.raises(ScheduleError, match=said):
            parse("* * * * *", zone)  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match="run_after or skip"):
        Dst(gap="later")
    with pytest.raises(ScheduleError, match="first, last or both"):
        Dst(fold="never")
