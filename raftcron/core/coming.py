"""The coming fires of a job as people are shown them: when, with jitter and on the clock on the wall, and why so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from raftcron.core.explain import Note
from raftcron.core.instant import MAX_MS, MIN_MS, rfc3339
from raftcron.core.model import Job, Policy
from raftcron.core.schedule import CronSchedule
from raftcron.core.times import Times
from raftcron.core.zone import known_zone, zone

REQUESTED = "skip_requested"  # code of a note beside those of an explanation


class Coming(NamedTuple):
    """One of the coming times, milliseconds UTC; `due_at` is None where only the job's uid could tell."""

    scheduled_time: int
    due_at: int | None
    local: str  # RFC 3339 on the clock of the job's zone
    notes: tuple[Note, ...]


def ahead(
    policy: Policy, times: Times, after: int, *, uid: int | None = None, skips: Sequence[int] = ()
) -> Iterator[Coming]:
    """The `times` after an instant, each worked out when it is asked for.

    `uid` is the job's, None for one that is not written yet: its jitter is not known.  `skips` are times that were
    asked to be skipped, which say so.
    """
    at = times.next(after)
    while at is not None:
        following = times.next(at)
        due_at = None if uid is None and times.jitter_ms else times.due_at(uid or 0, at, following)
        yield Coming(at, due_at, local_text(at, policy.recurrence.timezone), tuple(_notes(times, at, skips)))
        at = following


def ahead_of(job: Job, policy: Policy, times: Times, now: int) -> Iterator[Coming]:
    """What is ahead of a job at `now`: undecided times that are not due yet, no more than it may still run.

    A paused job is answered as if it were resumed now.
    """
    watermark = max(job.decided_through, times.floor)
    last = times.previous(now + 1)  # the only one that may still wait for its jitter
    waits = last is not None and last > watermark and times.due_at(job.uid, last, times.next(last)) > now
    after = last - 1 if last is not None and waits and not job.paused else max(now, watermark)
    left = policy.max_runs - job.fire_count
    for one in ahead(policy, times, after, uid=job.uid, skips=job.skips):
        left -= one.scheduled_time not in job.skips
        if policy.max_runs and left < 0:
            return
        yield one


def coming_of(job: Job, policy: Policy, times: Times, now: int, count: int) -> list[Coming]:
    """The first `count` of these."""
    return list(itertools.islice(ahead_of(job, policy, times, now), max(count, 0)))


def local_text(at: int, timezone: str) -> str:
    """An instant on the clock of a zone, `2026-03-29T03:30:00+02:00`.

    UTC where the zone is not known, or its clock shows no year from 1 to 9999.
    """
    offset = zone(timezone).offset(at // 1000) if known_zone(timezone) else 0
    if not MIN_MS <= at + offset * 1000 <= MAX_MS:
        offset = 0
    text = rfc3339(at + offset * 1000).removesuffix("Z")
    minutes, seconds = divmod(abs(offset), 60)
    ending = f":{seconds:02}" if seconds else ""  # before standard time clocks showed the sun's
    return f"{text}{'-' if offset < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}{ending}"


def _notes(times: Times, at: int, skips: Sequence[int]) -> Iterator[Note]:
    if at in skips:
        yield Note(REQUESTED, "it was asked to be skipped")
    second = at // 1000
    for schedule in times.schedules:
        if not isinstance(schedule, CronSchedule) or schedule.next(at - 1) != at:
            continue
        segment = schedule.zone.segment(second)
        wall = second + segment.offset
        if second == segment.start and schedule.gap_before(segment):
            named = schedule.walk.first_from(segment.start + segment.before)
            if named is not None and named < wall:
                yield Note(
                    "dst_gap",
                    f"the clock in {schedule.timezone} jumps over {_clock(named)}: it runs at the first instant after",
                )
        if wall < segment.start + segment.before:
            yield Note("dst_fold", f"the clock in {schedule.timezone} shows {_clock(wall)} for the second time")
        elif wall >= segment.end + segment.after:
            yield Note("dst_fold", f"the clock in {schedule.timezone} will show {_clock(wall)} once more")


def _clock(wall: int) -> str:
    return rfc3339(wall * 1000).partition("T")[2].removesuffix("Z")
