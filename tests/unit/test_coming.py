"""The coming fires of a job as people are shown them."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from raftcron.core import definition
from raftcron.core.coming import ahead, coming_of, local_text
from raftcron.core.instant import parse_rfc3339, rfc3339
from raftcron.core.model import Job
from raftcron.core.times import schedules_of, times_of


def shown(after: str, count: int, **fields: Any) -> list[tuple[str, str, list[str]]]:
    """(instant, clock on the wall, codes of notes) of the next times."""
    policy = definition.policy_of(definition.canonical({"executor": {"type": "noop"}, **fields}))
    times = times_of(policy.recurrence, schedules_of(policy), 0)
    found = islice(ahead(policy, times, parse_rfc3339(after)), count)
    return [(rfc3339(one.scheduled_time), one.local, [note.code for note in one.notes]) for one in found]


def test_a_time_that_the_clock_jumps_over_says_so() -> None:
    """On the day itself, not before and not after."""
    assert shown("2026-03-27T12:00:00Z", 3, schedule="30 2 * * *", timezone="Europe/Berlin") == [
        ("2026-03-28T01:30:00Z", "2026-03-28T02:30:00+01:00", []),
        ("2026-03-29T01:00:00Z", "2026-03-29T03:00:00+02:00", ["dst_gap"]),
        ("2026-03-30T00:30:00Z", "2026-03-30T02:30:00+02:00", []),
    ]


def test_a_time_that_comes_twice_says_so() -> None:
    """On its first pass, and on its second where that runs."""
    fields = {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "dst": {"fold": "both"}}
    assert shown("2026-10-24T12:00:00Z", 3, **fields) == [
        ("2026-10-25T00:30:00Z", "2026-10-25T02:30:00+02:00", ["dst_fold"]),
        ("2026-10-25T01:30:00Z", "2026-10-25T02:30:00+01:00", ["dst_fold"]),
        ("2026-10-26T01:30:00Z", "2026-10-26T02:30:00+01:00", []),
    ]


@pytest.mark.parametrize(
    ("timezone", "at", "expected"),
    [
        ("UTC", "2026-03-29T01:00:00.250Z", "2026-03-29T01:00:00.250+00:00"),
        ("America/St_Johns", "2026-01-01T00:00:00Z", "2025-12-31T20:30:00-03:30"),
        ("Europe/Amsterdam", "1890-01-01T00:00:00Z", "1890-01-01T00:17:30+00:17:30"),
    ],
)
def test_local_text(timezone: str, at: str, expected: str) -> None:
    """The clock on the wall with its offset, to the second where clocks showed the sun's time."""
    assert local_text(parse_rfc3339(at), timezone) == expected


def test_what_a_job_has_ahead() -> None:
    """No more runs than it may have, with those that are asked to be skipped between them; jitter by its uid."""
    stored = definition.canonical({"schedule": "@hourly", "jitter": "1h", "max_runs": 3, "executor": {"type": "noop"}})
    policy = definition.policy_of(stored)
    times = times_of(policy.recurrence, schedules_of(policy), 0)
    now = parse_rfc3339("2026-01-01T00:30:00Z")
    hour = 3_600_000
    first = parse_rfc3339("2026-01-01T01:00:00Z")
    job = Job("job", 7 << 12, 1, 0, 0, stored, 0, now, now, fire_count=1, skips=(first + hour,))
    found = coming_of(job, policy, times, now, 10)
    assert [one.scheduled_time for one in found] == [first, first + hour, first + 2 * hour]
    assert [[note.code for note in one.notes] for one in found] == [[], ["skip_requested"], []]
    assert all(one.due_at is not None and 0 < one.due_at - one.scheduled_time < hour for one in found)
    assert next(ahead(policy, times, now)).due_at is None
    assert found[0].due_at is not None
    waiting = coming_of(job, policy, times, found[0].due_at - 1, 1)
    assert [one.scheduled_time for one in waiting] == [first]
    assert [one.scheduled_time for one in coming_of(job, policy, times, found[0].due_at, 1)] == [first + hour]
