"""Pure plans: what a leader would decide for a job at this instant (semantics 5.9 and 6).

The planner knows calendar and watermark; overlap and slots are judged in `apply`, at the entry's place in the log.
"""

from __future__ import annotations

from raftcron.core.commands import Decision, Fire, Summary
from raftcron.core.model import CAUSE_CATCH_UP, REASON_COALESCED, REASON_EXPIRED, REASON_PAUSED, Job, Policy
from raftcron.core.schedule import Schedule, summary_of
from raftcron.core.timeline import Group, schedules_of

SETTLED_FIRES = 5_000  # in one entry with an edit: about 100 KiB, and 100 ms of apply at the most


def decide(job: Job, policy: Policy, group: Group, now: int) -> Decision | None:
    """What becomes of the job's undecided instants at or before now; None if there is none.

    Within the grace each fires, late or not.  Older ones speak through the misfire policy `once`: one run for the
    latest, or the first on-time one, stands for all; what is older than the window is one `expired` row.
    """
    first = group.next_after(job.decided_through)
    if first is None or first > now:
        return None
    grace_from = now - policy.grace_ms
    if first >= grace_from:
        on_time = group.moments(job.decided_through, now)
        return Decision(job.uid, job.revision, on_time[-1], [Fire(at, at) for at in on_time])
    return _misfire(job, policy, group, now, grace_from)


def _misfire(job: Job, policy: Policy, group: Group, now: int, grace_from: int) -> Decision:
    schedules, anchor = group.schedules, group.anchor
    window_from = now - policy.window_ms
    summaries: list[Summary] = []
    fires: list[Fire] = []
    expired = summary_of(schedules, job.decided_through, min(window_from, grace_from) - 1, anchor)
    if expired is not None:
        summaries.append(Summary(REASON_EXPIRED, *expired))
    missed = summary_of(schedules, max(job.decided_through, window_from - 1), grace_from - 1, anchor)
    on_time = group.moments(max(job.decided_through, grace_from - 1), now)
    if on_time:
        fires = [Fire(at, at) for at in on_time]
        if missed is not None:
            summaries.append(Summary(REASON_COALESCED, *missed))
            fires[0] = Fire(on_time[0], on_time[0], missed_count=missed[2], missed_first=missed[0])
    elif missed is not None:
        first, last, count = missed
        fires = [Fire(last, last, CAUSE_CATCH_UP, count - 1, first if count > 1 else None)]
        if count > 1:
            before_last = summary_of(schedules, first - 1, last - 1, anchor)
            assert before_last is not None, "count > 1 instants, so one lies before the last"
            summaries.append(Summary(REASON_COALESCED, *before_last))
    ends = [fire.scheduled_time for fire in fires] + [summary.last for summary in summaries]
    return Decision(job.uid, job.revision, max(ends), fires, summaries)


def settle(job: Job, policy: Policy, group: Group | None, now: int) -> list[Decision]:
    """All decisions for instants at or before now, to stand in one entry with an edit, a pause or a delete.

    `group` is None for a job that is paused (it owes nothing) or that this node cannot read.  Beyond SETTLED_FIRES
    the result is only a part, which `is_part` tells: it has to be decided by itself before the rest is looked at.
    """
    if group is None or job.paused:
        return []
    decision = decide(job, policy, group, now)
    if decision is None:
        return []
    fires, through = list(decision.fires), decision.through
    at = group.next_after(through)
    while at is not None and at <= now and len(fires) < SETTLED_FIRES:  # more than one decision of the leader's loop
        fires.append(Fire(at, at))
        through = at
        at = group.next_after(at)
    return [Decision(job.uid, job.revision, through, fires, decision.summaries)]


def is_part(decisions: list[Decision]) -> bool:
    """Whether `settle` stopped at its bound, so that more may be owed."""
    return any(len(decision.fires) >= SETTLED_FIRES for decision in decisions)


def paused_summary(job: Job, policy: Policy, now: int) -> Summary | None:
    """The times that were not owed while the job was paused; None if there were none."""
    found = summary_of(schedules_of(policy, job.name), job.decided_through, now, job.anchor)
    return None if found is None else Summary(REASON_PAUSED, *found)


def first_watermark(schedules: tuple[Schedule, ...], policy: Policy, now: int) -> int | None:
    """Where a new job's watermark begins: None for its creation, else just before an `@at` that is past but in time."""
    if any(schedule.kind != "at" for schedule in schedules):
        return None
    moments = [at for schedule in schedules if (at := schedule.next(now - policy.window_ms - 1)) is not None]
    return min((at - 1 for at in moments if at <= now), default=None)
