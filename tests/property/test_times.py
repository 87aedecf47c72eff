"""A job's times with all that bounds and thins them, against a plain look at each time that its schedules name."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raftcron.core import definition
from raftcron.core.exclusion import Exclusion
from raftcron.core.instant import parse_rfc3339, rfc3339
from raftcron.core.ledger import count
from raftcron.core.model import Policy
from raftcron.core.schedule import between_of
from raftcron.core.times import SEARCH_DAYS, Times, schedules_of, times_of
from tests.schedules.brute import utc, zone_info

HOUR, DAY = 3_600_000, 86_400_000
SPRING, AUTUMN = parse_rfc3339("2026-03-29T01:00:00Z"), parse_rfc3339("2026-10-25T01:00:00Z")  # of Europe
ZONES = ["UTC", "Europe/Berlin", "Pacific/Apia", "America/New_York", "Asia/Kathmandu"]
SCHEDULES = [
    "*/20 * * * *",
    "30 2 * * *",
    "0 9-17/2 * * MON-FRI",
    "15 30 1,2,3 * * *",
    "@every 37m",
    "@every 1500s from 2026-01-01T00:00:00.250Z",
    "@at 2026-03-29T03:30:00Z",
    "0 0 L * *",
]
RULES = ["* 22-23 * * *", "* * * * SUN", "*/2 * * * *", "*/30 0-29 2 * * *", "* * 29 3 *", "30 2 * * *"]

near_jumps = st.builds(
    lambda jump, hours, ms: jump + hours * HOUR + ms,
    st.sampled_from([SPRING, AUTUMN]),
    st.integers(-60, 60),
    st.sampled_from([0, 1, 250, 999]),
)


def job_policy(schedules: list[str], timezone: str = "UTC", **fields: object) -> Policy:
    written = {"schedule": schedules, "timezone": timezone, "executor": {"type": "noop"}, **fields}
    return definition.policy_of(definition.canonical(written))


def is_excluded(at: int, dates: list[str], rules: list[str], timezone: str) -> bool:
    """By the clock on the wall, as a person would look: each part of each field by itself."""
    wall = utc(at).astimezone(zone_info(timezone))
    if wall.date().isoformat() in dates:
        return True
    midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    shown = int((wall.replace(tzinfo=None) - midnight) / timedelta(milliseconds=1))
    for rule in rules:  # on a clock that never jumps the rule's own times are what it matches
        whole = rule if len(rule.split()) == 6 else f"* {rule}"
        stamp = int((midnight - utc(0).replace(tzinfo=None)) / timedelta(milliseconds=1)) + shown // 1000 * 1000
        if between_of(schedules_of(job_policy([whole])), stamp - 1, stamp, 0, 1):
            return True
    return False


@settings(max_examples=250, deadline=None)
@given(
    st.lists(st.sampled_from(SCHEDULES), min_size=1, max_size=3, unique=True),
    st.sampled_from(ZONES),
    st.sampled_from(ZONES),
    st.lists(st.sampled_from(["2026-03-28", "2026-03-29", "2026-03-30", "2026-10-25"]), max_size=2, unique=True),
    st.lists(st.sampled_from(RULES), max_size=2, unique=True),
    near_jumps,
    st.integers(0, 50),
    st.none() | near_jumps,
    st.none() | near_jumps,
)
@example(["30 2 * * *"], "Europe/Berlin", "Europe/Berlin", [], ["30 2 * * *"], SPRING - 9 * HOUR, 40, None, None)
@example(["*/20 * * * *"], "UTC", "UTC", [], [], SPRING - HOUR, 4, SPRING, SPRING + HOUR)
@example(["*/20 * * * *"], "UTC", "UTC", [], ["* 22-23 * * *"], SPRING - HOUR, 4, SPRING, SPRING + HOUR)
@example(["*/20 * * * *"], "UTC", "Europe/Berlin", [], ["*/30 0-29 2 * * *"], AUTUMN - 9 * HOUR, 20, None, None)
def test_next_previous_summary_and_ledger_agree_with_a_plain_look(
    schedules: list[str],
    timezone: str,
    other: str,
    dates: list[str],
    rules: list[str],
    after: int,
    hours: int,
    start_at: int | None,
    end_at: int | None,
) -> None:
    """Whatever bounds and calendars a job has, near every jump of the clock."""
    policy = job_policy(schedules, timezone)
    anchor = SPRING - 90 * DAY
    exclusion = Exclusion("holidays", {"dates": dates, "schedules": rules, "timezone": other})
    exclusions = [exclusion] if dates or rules else []
    parsed = schedules_of(policy)
    through = after + hours * HOUR
    expected = [
        at
        for at in between_of(parsed, after, through, anchor, 10**6)
        if (start_at is None or at >= start_at)
        and (end_at is None or at <= end_at)
        and not is_excluded(at, dates, rules, other)
    ]
    times = Times(parsed, anchor, start_at=start_at, end_at=end_at, exclusions=exclusions)
    assert times.between(after, through, 10**6) == expected
    assert times.summary(after, through) == ((expected[0], expected[-1], len(expected)) if expected else None)
    backwards, at = [], times.previous(through + 1)
    while at is not None and at > after:
        backwards.append(at)
        at = times.previous(at)
    assert backwards[::-1] == expected
    counted = count(parsed, after, through, anchor, start_at=start_at, end_at=end_at, exclusions=exclusions)
    assert counted == len(expected)
    assert all(times.names(at) for at in expected[:20])


def test_a_date_excludes_the_day_of_the_calendars_zone() -> None:
    """Christmas in Auckland begins half a day before Christmas in London."""
    christmas = Exclusion("christmas", {"dates": ["2026-12-25"], "timezone": "Pacific/Auckland"})
    times = Times(schedules_of(job_policy(["@hourly"])), exclusions=[christmas])
    found = times.between(parse_rfc3339("2026-12-24T09:00:00Z"), parse_rfc3339("2026-12-25T13:00:00Z"), 100)
    assert [rfc3339(at)[8:13] for at in found] == ["24T10", "25T11", "25T12", "25T13"]


def test_five_fields_exclude_whole_minutes_and_six_their_seconds() -> None:
    """A job that fires within the minute is excluded with it."""
    parsed = schedules_of(job_policy(["*/10 * * * * *"]))
    begin = SPRING - HOUR
    for rule, left in (("* * * * *", 0), ("1 * * * *", 354), ("0 * * * * *", 300)):
        times = Times(parsed, exclusions=[Exclusion("x", {"schedules": [rule]})])
        summary = times.summary(begin, begin + HOUR)
        assert (0 if summary is None else summary[2]) == left


def test_a_search_through_calendars_gives_up() -> None:
    """After SEARCH_DAYS days that have times, all of them excluded, the answer is never; one day fewer is found."""
    parsed = schedules_of(job_policy(["0 12 * * *"]))
    always = Exclusion("x", {"schedules": ["* 9-17 * * *"]})
    assert Times(parsed, exclusions=[always]).next(SPRING) is None
    assert Times(parsed, exclusions=[always]).previous(SPRING) is None
    day = SPRING // DAY
    dates = [(utc(0) + timedelta(days=day + n)).date().isoformat() for n in range(SEARCH_DAYS)]
    noon = (day + SEARCH_DAYS - 1) * DAY + 12 * HOUR
    assert Times(parsed, exclusions=[Exclusion("x", {"dates": dates[:-1]})]).next(SPRING) == noon
    assert Times(parsed, exclusions=[Exclusion("x", {"dates": dates})]).next(SPRING) is None


@given(st.integers(1, 1 << 60), st.sampled_from(SCHEDULES), st.integers(0, 200), near_jumps)
def test_jitter_stays_below_the_next_time(uid: int, schedule: str, minutes: int, after: int) -> None:
    """And below the jitter itself; the same job and time give the same instant, wherever it is asked."""
    policy = job_policy([schedule], "Europe/Berlin", jitter=f"{minutes}m")
    times = times_of(policy.recurrence, schedules_of(policy), SPRING - 90 * DAY)
    at = times.next(after)
    if at is None:
        return
    following = times.next(at)
    due_at = times.due_at(uid, at, following)
    assert at <= due_at < at + max(1, minutes * 60_000)
    assert following is None or due_at < following
    assert due_at == times_of(policy.recurrence, schedules_of(policy), SPRING - 90 * DAY).due_at(uid, at, following)


def test_jitter_spreads_the_jobs_of_one_schedule_and_the_times_of_one_job() -> None:
    """Over an hour each minute gets its share: no job keeps a place, no minute is left out."""
    times = Times(schedules_of(job_policy(["@hourly"])), jitter_ms=HOUR)
    of_jobs = {times.due_at(uid << 12, SPRING, SPRING + HOUR) // 60_000 for uid in range(1, 1_000)}
    of_times = {times.due_at(7 << 12, SPRING + n * HOUR, SPRING + (n + 1) * HOUR) % HOUR // 60_000 for n in range(999)}
    assert len(of_jobs) == len(of_times) == 60


@pytest.mark.parametrize(("interval", "expected"), [("90s", 90_000), ("10m", 600_000)])
def test_from_last_end_knows_one_time(interval: str, expected: int) -> None:
    """The interval after the end of the last run; none while it runs; later ones only by whole intervals."""
    policy = job_policy([f"@every {interval} from last_end"])
    parsed = schedules_of(policy)
    times = times_of(policy.recurrence, parsed, 0, last_end=SPRING, since=SPRING)
    assert times.between(SPRING - DAY, SPRING + DAY, 10) == [SPRING + expected]
    assert times_of(policy.recurrence, parsed, 0, last_end=None).next(0) is None
    later = times_of(policy.recurrence, parsed, 0, last_end=SPRING, since=SPRING + 3 * expected)
    assert later.between(0, SPRING + DAY, 10) == [SPRING + 4 * expected]
    sunday = Exclusion("x", {"dates": ["2026-03-29"]})
    thinned = times_of(policy.recurrence, parsed, 0, [sunday], SPRING, SPRING).next(SPRING)
    assert thinned is not None
    assert rfc3339(thinned).startswith("2026-03-30T00:0")
    assert (thinned - SPRING) % expected == 0
