"""Pure plans: what a leader would decide for a job at this instant (semantics 5.9 and 6).

The planner knows calendar and watermark; overlap and slots are judged in `apply`, at the entry's place in the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from raftcron.core.agreement import Jump
from raftcron.core.commands import Decision, Fire, Summary
from raftcron.core.model import (
    CAUSE_CATCH_UP,
    REASON_COALESCED,
    REASON_EXPIRED,
    REASON_LIMIT,
    REASON_MISFIRE,
    REASON_PAUSED,
    REASON_REQUESTED,
    Job,
    Policy,
)
from raftcron.core.schedule import Schedule
from raftcron.core.timeline import MOMENTS_PER_DECISION, Group
from raftcron.core.times import Times, schedules_of, times_of

SETTLED_FIRES = 5_000  # in one entry with an edit: about 100 KiB, and 100 ms of apply at the most


def decide(job: Job, policy: Policy, group: Group, now: int, jump: Jump | None = None) -> Decision | None:
    """What becomes of the job's undecided times that are due at `now`; None if there is none.

    Within the grace each fires, late or not.  Of older ones the misfire policy speaks; what is older than the window is
    one `expired` row.  What was asked to be skipped is skipped, whatever else holds.

    The times inside a `jump` of trusted time were missed, however short it is (semantics 9).  What was due before it
    is decided by itself first.
    """
    watermark = group.watermark(job)
    first = group.next_after(watermark)
    if first is None or first > now:
        return None
    through, late_through = now, now - policy.grace_ms - 1
    if jump is not None and late_through < jump.through <= now:
        if late_through < jump.after and group.due_at(job.uid, first) <= jump.after:
            through = jump.after
        else:
            late_through = jump.through
    if policy.recurrence.jitter_ms:
        through = group.due_through(job.uid, through, first)
        late_through = group.due_through(job.uid, late_through, first)
        if first > through:
            return None
    if first <= late_through or (job.skips and job.skips[0] <= through):
        return _weigh(job, policy, group, now, through, late_through)
    on_time = group.moments(watermark, through)
    fires = [Fire(at, group.due_at(job.uid, at)) for at in on_time]
    return Decision(job.uid, max(job.revision, group.revision), on_time[-1], fires)


def _weigh(job: Job, policy: Policy, group: Group, now: int, through: int, late_through: int) -> Decision | None:
    """Times that were missed, or that were asked to be skipped, with those on time behind them."""
    times, uid, watermark = group.times, job.uid, group.watermark(job)
    window_from = now - policy.window_ms
    on_time = group.moments(max(watermark, late_through), through)
    if len(on_time) == MOMENTS_PER_DECISION:
        through = on_time[-1]
    requested = [at for at in job.skips if watermark < at <= through and times.names(at)]
    expired = _rows(times, REASON_EXPIRED, watermark, min(window_from - 1, late_through), requested)
    fires = [Fire(at, group.due_at(uid, at)) for at in on_time if at not in requested]
    missed = Span(max(watermark, window_from - 1), late_through, requested)
    caught_up, rows = MISFIRES[policy.misfire](policy, group, uid, missed, fires)
    summaries = [*expired, *rows, *(Summary(REASON_REQUESTED, at, at, 1) for at in requested)]
    summaries.sort(key=_first)
    fires = [*caught_up, *fires]
    ends = [fire.scheduled_time for fire in fires] + [summary.last for summary in summaries]
    return Decision(uid, max(job.revision, group.revision), max(ends), fires, summaries)


class Span(NamedTuple):
    """The missed times in (after, through], but for those that were asked to be skipped."""

    after: int
    through: int
    requested: list[int]


Caught = tuple[list[Fire], list[Summary]]  # what is run of the missed times, and the rows of the rest


def _once(_policy: Policy, group: Group, uid: int, missed: Span, on_time: list[Fire]) -> Caught:
    """One run for the latest missed time, or the first one on time, stands for all."""
    rows = list(_rows(group.times, REASON_COALESCED, *missed))
    if not rows:
        return [], []
    if not on_time:
        return [_catch_up(group, uid, rows)], rows
    first, count = on_time[0], sum(row.count for row in rows)
    on_time[0] = Fire(first.scheduled_time, first.due_at, missed_count=count, missed_first=rows[0].first)
    return [], rows


def _skip(_policy: Policy, group: Group, _uid: int, missed: Span, _on_time: list[Fire]) -> Caught:
    """None is run."""
    return [], list(_rows(group.times, REASON_MISFIRE, *missed))


def _all(policy: Policy, group: Group, uid: int, missed: Span, _on_time: list[Fire]) -> Caught:
    """Each is run, oldest first, up to `misfire.max`; the leader starts them at its catch-up rate."""
    found: list[int] = []
    after = missed.after
    while len(found) < policy.misfire_max:
        at = group.next_after(after)
        if at is None or at > missed.through:
            return _fires(group, uid, found), []
        if at not in missed.requested:
            found.append(at)
        after = at
    rows = _rows(group.times, REASON_LIMIT, after, missed.through, [at for at in missed.requested if at > after])
    return _fires(group, uid, found), list(rows)


MISFIRES = {"once": _once, "skip": _skip, "all": _all}


def _fires(group: Group, uid: int, times: list[int]) -> list[Fire]:
    return [Fire(at, group.due_at(uid, at), CAUSE_CATCH_UP) for at in times]


def _catch_up(group: Group, uid: int, missed: list[Summary]) -> Fire:
    """One run for the latest of the missed times, which leaves their rows."""
    row = missed.pop()
    count = row.count - 1 + sum(other.count for other in missed)
    first = missed[0].first if missed else row.first
    if row.count > 1:
        rest = group.times.summary(row.first - 1, row.last - 1)
        assert rest is not None, "of several times one lies before the last"
        missed.append(Summary(row.reason, *rest))
    return Fire(row.last, group.due_at(uid, row.last), CAUSE_CATCH_UP, count, first if count else None)


def _rows(times: Times, reason: str, after: int, through: int, apart: Iterable[int]) -> Iterator[Summary]:
    """The times in (after, through] as rows, but for some that stand apart: a row ends before each of those."""
    for at in (*apart, None):
        until = through if at is None else min(at - 1, through)
        if until > after and (row := times.summary(after, until)) is not None:
            yield Summary(reason, *row)
        after = after if at is None else max(after, at)


def _first(summary: Summary) -> int:
    return summary.first


def settle(job: Job, policy: Policy, group: Group | None, now: int, jump: Jump | None = None) -> list[Decision]:
    """All decisions for times at or before now, to stand in one entry with an edit, a pause or a delete.

    `group` is None for a job that owes nothing (paused, over) or that this node cannot read.  A time that still waits
    for its jitter becomes a run that is queued until then.  Beyond SETTLED_FIRES the result is only a part, which
    `is_part` tells: it has to be decided by itself before the rest is looked at.
    """
    if group is None or job.paused:
        return []
    first = group.next_after(group.watermark(job))
    if first is None or first > now:
        return []
    revision = max(job.revision, group.revision)
    if jump is not None:
        jump = jump._replace(after=0)  # all in one decision: what was due just before it goes with it
    decision = decide(job, policy, group, now, jump) or Decision(job.uid, revision, group.watermark(job))
    fires, summaries, through = list(decision.fires), list(decision.summaries), decision.through
    at = group.next_after(through)
    while at is not None and at <= now and len(fires) < SETTLED_FIRES:  # more than one decision of the leader's loop
        if at in job.skips:
            summaries.append(Summary(REASON_REQUESTED, at, at, 1))
        else:
            fires.append(Fire(at, group.due_at(job.uid, at)))
        through = at
        at = group.next_after(at)
    if not fires and not summaries:
        return []
    return [Decision(job.uid, revision, through, fires, summaries)]


def is_part(decisions: list[Decision]) -> bool:
    """Whether `settle` stopped at its bound, so that more may be owed."""
    return sum(len(decision.fires) for decision in decisions) >= SETTLED_FIRES


def paused_summary(job: Job, policy: Policy, now: int, times: Times | None = None) -> Summary | None:
    """The times that were not owed while the job was paused; None if there were none.

    `times` are the job's, where the caller's timeline has told them.
    """
    if times is None:
        times = times_of(policy.recurrence, schedules_of(policy, job.name), job.anchor)
    found = times.summary(max(job.decided_through, times.floor), now)
    return None if found is None else Summary(REASON_PAUSED, *found)


def first_watermark(schedules: tuple[Schedule, ...], policy: Policy, now: int) -> int | None:
    """Where a new job's watermark begins: None for its creation, else just before an `@at` that is past but in time."""
    if any(schedule.kind != "at" for schedule in schedules):
        return None
    moments = [at for schedule in schedules if (at := schedule.next(now - policy.window_ms - 1)) is not None]
    return min((at - 1 for at in moments if at <= now), default=None)
