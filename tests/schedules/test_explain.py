"""What a schedule says in words, and what it warns of."""

from __future__ import annotations

import pytest

from raftcron.core.explain import MAX_NEXT, explain
from raftcron.core.instant import parse_rfc3339, rfc3339
from raftcron.core.schedule import Dst, ScheduleError

START = parse_rfc3339("2026-01-10T12:00:00Z")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("* * * * *", "every minute, every day, UTC"),
        ("*/5 * * * *", "every 5 minutes, every day, UTC"),
        ("* * * * * *", "every second, every day, UTC"),
        ("30 9 * * 1-5", "at 09:30, on Monday to Friday, UTC"),
        ("0 9,12 * * SUN,SAT", "at 09:00 and 12:00, on Saturday and Sunday, UTC"),
        ("15 * * * *", "at minute 15 of every hour, every day, UTC"),
        ("*/7 9-17 * * *", "every 7 minutes, in the hours 9 to 17, every day, UTC"),
        ("0 */2 * * *", "at minute 0, every 2 hours, every day, UTC"),
        ("30 0 12 1 * *", "at 12:00:30, on day 1 of the month, UTC"),
        ("0 0 L 3,6,9,12 *", "at 00:00, on the last day of the month, in March, June, September and December, UTC"),
        ("0 0 LW * *", "at 00:00, on the last working day of the month, UTC"),
        ("0 0 15W * *", "at 00:00, on the working day nearest to day 15 of the month, UTC"),
        ("0 0 L-3 * *", "at 00:00, on the day 3 days before the last of the month, UTC"),
        ("0 0 L-3W * *", "at 00:00, on the working day nearest to the day 3 days before the last of the month, UTC"),
        ("0 0 * * 5#2", "at 00:00, on the second Friday of the month, UTC"),
        ("0 0 * * 5L", "at 00:00, on the last Friday of the month, UTC"),
        ("0 0 13 * 5", "at 00:00, on day 13 of the month or on Friday, UTC"),
        ("0 0 */10 * 5", "at 00:00, on every 10 days from day 1 to 31 of the month, but only on Friday, UTC"),
        ("0 0 0 1 1 ? 2027-2030", "at 00:00, on day 1 of the month, in January, in 2027 to 2030, UTC"),
        ("@daily", "at 00:00, every day, UTC"),
        ("H H * * *", "at 04:16, every day, UTC, with H drawn from an empty hash_key"),
        ("@every 90m", "every 1h30m"),
        ("@every 5m from last_end", "every 5m after the end of the last run"),
        ("@every 5m from 2026-01-01T00:00:00Z", "every 5m, counted from 2026-01-01T00:00:00Z"),
        ("@at 2027-01-01T00:00:00Z", "once, at 2027-01-01T00:00:00Z"),
        ("@manual", "only when asked"),
    ],
)
def test_in_words(text: str, words: str) -> None:
    """The description says in English what the schedule does."""
    assert explain(text, "UTC", Dst(), "", START, 0).description == words


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("*/5 * * * *", []),
        ("*/7 * * * *", ["uneven_step"]),
        ("0 */5 * * *", ["uneven_step"]),
        ("10/20 * * * *", []),
        ("0-30/7 * * * *", []),
        ("0 0 */2 * *", ["uneven_step"]),
        ("0 0 13 * 5", ["dom_and_dow"]),
        ("0 0 31 * *", ["short_months"]),
        ("0 0 31 1,3 *", []),
        ("0 0 29 2 *", ["short_months"]),
        ("0 0 L-30 * *", ["short_months"]),
        ("0 0 * * 5#5", ["short_months"]),
        ("0 0 * * 5#4", []),
        ("* * * * * *", ["six_fields", "many_fires"]),
        ("@every 30s", ["many_fires"]),
        ("@every 1m", []),
        ("0 0 30 2 *", ["never_fires"]),
        ("0 0 0 1 1 ? 2020", ["never_fires", "six_fields"]),
        ("@at 2026-01-01T00:00:00Z", ["never_fires"]),
        ("@manual", []),
    ],
)
def test_notes(text: str, codes: list[str]) -> None:
    """Each surprise has its note, and what is plain has none."""
    assert [note.code for note in explain(text, "UTC", Dst(), "", START, 0).notes] == codes


@pytest.mark.parametrize(
    ("text", "dst", "said"),
    [
        ("30 2 * * *", Dst(), {"dst_gap": "runs at 2026-03-29T01:00:00Z", "dst_fold": "first pass only"}),
        ("30 2 * * *", Dst("skip", "last"), {"dst_gap": "does not run", "dst_fold": "last pass only"}),
        ("30 2 * * *", Dst("run_after", "both"), {"dst_gap": "03:00", "dst_fold": "both passes"}),
        ("*/30 2 * * *", Dst(), {"dst_gap": "does not run", "dst_fold": "both passes"}),
        ("*/30 * * * *", Dst(), {}),
        ("30 4 * * *", Dst(), {}),
        ("30 2 1 * *", Dst(), {}),
    ],
)
def test_coming_jumps_of_the_clock(text: str, dst: Dst, said: dict[str, str]) -> None:
    """A schedule that a jump of the next year meets says on which date, and what becomes of its time."""
    notes = {note.code: note.message for note in explain(text, "Europe/Berlin", dst, "", START, 0).notes}
    assert notes.keys() == said.keys()
    for code, part in said.items():
        assert part in notes[code]
        assert {"dst_gap": "2026-03-29", "dst_fold": "2026-10-25"}[code] in notes[code]


def test_next_times_are_listed_and_bounded() -> None:
    """The next times follow `from`; @every counts from it; a huge count is cut."""
    explained = explain("0 12 * * *", "Europe/Berlin", Dst(), "", START, 2)
    assert [rfc3339(at) for at in explained.next] == ["2026-01-11T11:00:00Z", "2026-01-12T11:00:00Z"]
    assert explain("@every 5m", "UTC", Dst(), "", START, 2).next == [START + 300_000, START + 600_000]
    assert len(explain("* * * * *", "UTC", Dst(), "", START, 10**9).next) == MAX_NEXT
    assert explain("* * * * *", "UTC", Dst(), "", START, -1).next == []


def test_faults_are_raised_as_by_parse() -> None:
    """What cannot be parsed cannot be explained."""
    with pytest.raises(ScheduleError, match="minute field"):
        explain("61 * * * *", "UTC", Dst(), "", START, 1)
