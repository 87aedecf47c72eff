"""What is ahead of a job, and what an edit would change of it.

It may be much (a thousand times of sixteen schedules), so it is worked out in turns between which the loop runs.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from raftcron.core import planner
from raftcron.core.apply.jobs import anchored, last_end_of
from raftcron.core.coming import REQUESTED, Coming, ahead, ahead_of
from raftcron.core.exclusion import Exclusion, exclusion_of
from raftcron.core.instant import MAX_MS
from raftcron.core.model import Job, Policy
from raftcron.core.state import State
from raftcron.core.times import Times, schedules_of, times_of

AHEAD_MAX = 1_000  # coming times that one request may ask for
COMPARED = 50  # of each side of an edit; twice as many are looked at
TURN = 2  # times worked out in one turn of the loop: each 0.1 ms a schedule, of which a job has 16 at most

T = TypeVar("T")


class Shift(NamedTuple):
    """What an edit changes of the times to come; all are milliseconds UTC."""

    gained: list[int]
    lost: list[int]
    moved: list[tuple[int, int]]  # from, to; where jitter alone changes, the instants at which it is due
    through: int | None  # until here both were compared; None: to the end of both


UNMOVED = Shift([], [], [], None)


async def in_turns(items: Iterable[T], count: int) -> list[T]:
    """The first `count` items, the loop let run between every few."""
    found: list[T] = []
    for item in itertools.islice(items, count):
        found.append(item)
        if not len(found) % TURN:
            await asyncio.sleep(0)
    return found


def begin(state: State, name: str, policy: Policy, now: int) -> Iterator[Coming]:
    """What would be ahead of a job that does not exist yet.  Raises ScheduleError as `edited` does."""
    schedules, anchor = schedules_of(policy, name), _whole_second(now)
    times = times_of(policy.recurrence, schedules, anchor, _exclusions(state, policy), anchor, now)
    after = planner.first_watermark(schedules, policy, now)
    return itertools.islice(ahead(policy, times, now if after is None else after), policy.max_runs or None)


def edited(state: State, job: Job, policy: Policy, now: int) -> tuple[Job, Times]:
    """A job as an edit to this policy would leave it, and its times then; the job itself is not touched.

    Raises ScheduleError where this node cannot tell the times.
    """
    before, after = state.policy(job.uid).recurrence, policy.recurrence
    anchor, last_end = job.anchor, job.last_end
    if anchored(before) != anchored(after):
        anchor = job.last_decided if job.last_decided is not None else _whole_second(now)
    if not after.end_intervals:
        last_end = None
    elif not before.end_intervals:
        last_end = last_end_of(state, job, now)
    skips = job.skips if before == after else ()
    through = max(job.decided_through, now)
    future = msgspec.structs.replace(
        job, anchor=anchor, last_end=last_end, skips=skips, decided_through=through, counted_from=through, paused=False
    )
    schedules = schedules_of(policy, job.name)
    return future, times_of(after, schedules, anchor, _exclusions(state, policy), last_end, through)


async def shift(old: tuple[Job, Policy, Times] | None, new: tuple[Job, Policy, Times] | None, now: int) -> Shift:
    """What is gained, lost and moved of the times after `now`; None for a side that is paused."""
    sides = [[] if side is None else await in_turns(_fires(*side, now), 2 * COMPARED) for side in (old, new)]
    return compare(sides[0], sides[1])


def _fires(job: Job, policy: Policy, times: Times, now: int) -> Iterator[tuple[int, int]]:
    """(scheduled time, due at) of what is to come and will not be skipped."""
    for one in ahead_of(job, policy, times, now):
        if one.scheduled_time > now and not any(note.code == REQUESTED for note in one.notes):
            assert one.due_at is not None, "the job has its uid"
            yield one.scheduled_time, one.due_at


def compare(old: Sequence[tuple[int, int]], new: Sequence[tuple[int, int]]) -> Shift:
    """What became of the (scheduled time, due at) of `old` in `new`; both ascend, cut at 2 * COMPARED.

    A lost and a gained time that are each other's nearest, with none between them that stays, are one that has moved.
    As they may lie on both sides of the last time that is told of, twice as many are looked at.
    """
    seen, told = _reach(old, new, 2 * COMPARED), _reach(old, new, COMPARED)
    before = {at: due_at for at, due_at in old if at <= seen}
    after = {at: due_at for at, due_at in new if at <= seen}
    lost = [at for at in before if at not in after]
    gained = [at for at in after if at not in before]
    kept = [at for at in before if at in after]
    moved = [
        (at, to)
        for at in lost
        if (to := _nearest(gained, at, later=True)) is not None
        and _nearest(lost, to, later=False) == at
        and bisect.bisect(kept, at) == bisect.bisect(kept, to)
    ]
    told_of = [pair for pair in moved if min(pair) <= told]
    jittered = [(due_at, after[at]) for at, due_at in before.items() if at <= told and after.get(at, due_at) != due_at]
    paired = {at for pair in moved for at in pair}
    return Shift(
        [at for at in gained if at <= told and at not in paired],
        [at for at in lost if at <= told and at not in paired],
        sorted(told_of + jittered),
        None if told >= MAX_MS else told,
    )


def _reach(old: Sequence[tuple[int, int]], new: Sequence[tuple[int, int]], count: int) -> int:
    """Through which instant the first `count` of both sides are known."""
    return min((side[count - 1][0] for side in (old, new) if len(side) >= count), default=MAX_MS)


def _nearest(sorted_times: Sequence[int], at: int, *, later: bool) -> int | None:
    """The nearest of ascending times, the later or the earlier one of two that are equally near."""
    place = bisect.bisect_left(sorted_times, at)
    around = sorted_times[max(place - 1, 0) : place + 1]
    return min(around, key=lambda one: (abs(one - at), -one if later else one), default=None)


def _exclusions(state: State, policy: Policy) -> list[Exclusion]:
    return [exclusion_of(state.calendars[calendar]) for calendar in policy.recurrence.exclude]


def _whole_second(at: int) -> int:
    return -(-at // 1000) * 1000
