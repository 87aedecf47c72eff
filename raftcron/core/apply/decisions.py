"""Decisions: scheduled times become runs or skipped rows, each exactly once; and runs that are asked for by hand."""

from __future__ import annotations

from collections.abc import Sequence

from raftcron.core.apply import admission
from raftcron.core.apply.context import Context, remember
from raftcron.core.apply.runs import is_spent
from raftcron.core.commands import Decide, Decision, Done, Fire, Outcome, Place, Refused, Summary, Trigger
from raftcron.core.instant import MAX_MS
from raftcron.core.model import (
    CAUSE_CATCH_UP,
    CAUSE_MANUAL,
    CAUSE_SCHEDULE,
    REASON_PAUSED,
    SKIPPED,
    Job,
    Policy,
    Run,
)
from raftcron.core.state import State


def decide(state: State, context: Context, command: Decide) -> Outcome:
    """Take each decision of the batch that still holds; the others are refused one by one."""
    taken = 0
    editions_since = state.editions_since
    context = context._replace(live=tuple(command.live))
    for decision in command.decisions:
        job = state.by_uid.get(decision.uid)
        if job is None:
            continue
        is_plain = not state.policies[job.uid].recurrence.exclude
        if decision.revision != (job.revision if is_plain else state.revision_of(job)) or not holds(job, decision):
            continue
        if job.counted_index < editions_since or not is_plain:
            count_anew(state, job)
        take(state, context, job, decision, command.place)
        taken += 1
    return Done(count=taken)


def trigger(state: State, context: Context, command: Trigger) -> Outcome:
    """Run now, judged by the job's overlap policy unless the request overrides it; the watermark does not move."""
    job = state.jobs.get(command.name)
    if job is None:
        return Refused("not_found", f"there is no job {command.name!r}")
    policy = state.policy(job.uid)
    at, run_id = context.at, f"m{context.log_index:x}-0"
    run = admission.new_run(state, context, job, policy, run_id, CAUSE_MANUAL, at, at)
    run.args = command.args
    admission.admit(state, context, job, policy, run, command.place, allow_overlap=command.allow_overlap)
    return remember(state, context, command.key, run.id, 202)


def count_anew(state: State, job: Job) -> None:
    """Begin the job's counters anew if what its times follow from has changed under it since they began.

    A calendar or an edition of the tz data changes for all its jobs in one entry; each takes it in when it is next
    looked at.  What the calendar said before is over: it was decided in the entry that changed it.
    """
    since, through = state.editions_since, job.decided_through
    for name in state.policies[job.uid].recurrence.exclude:
        calendar = state.calendars[name]
        if calendar.revision > job.counted_index:
            since, through = max(since, calendar.revision), max(through, calendar.holds_from)
    if since > job.counted_index:
        if job.paused and through > job.decided_through:
            job.unkept_through = max(job.unkept_through, through)  # no row tells of what the pause has passed by
        job.decided_through = through
        begin_count(job, since)
        state.touch_job(job)


def begin_count(job: Job, index: int) -> None:
    """What was owed under what held before this log index is no longer asked for."""
    job.counted_from = job.decided_through
    job.counted_index = index
    job.fired = job.skipped = 0
    _drop_skips(job)


def holds(job: Job, decision: Decision) -> bool:
    """Whether a decision moves its job's watermark, each time once; its revision is looked at elsewhere."""
    if decision.through <= job.decided_through or job.paused or decision.through > MAX_MS:
        return False
    at = job.decided_through
    for item in _in_order(decision):
        if isinstance(item, Fire):
            first = last = item.scheduled_time
            is_sound = last <= item.due_at <= MAX_MS
        else:
            first, last = item.first, item.last
            is_sound = 1 <= item.count <= MAX_MS
        if not at < first <= last <= decision.through or not is_sound:
            return False
        at = last
    return True


def take(state: State, context: Context, job: Job, decision: Decision, place: Place | None) -> None:
    """Turn a decision that holds into rows, and move the watermark."""
    policy = state.policy(job.uid)
    for item in _in_order(decision):
        if is_spent(job, policy):
            break  # what comes behind the last of all its runs is not owed
        if isinstance(item, Fire):
            _fire(state, context, job, policy, item, place)
            job.decided_through = job.last_decided = item.scheduled_time
        else:
            summarise(state, context, job, item)
            job.decided_through = item.last
    if decision.through > job.decided_through and not is_spent(job, policy):  # else one object: it is a million times
        job.decided_through = decision.through
    _drop_skips(job)
    state.touch_job(job)


def _drop_skips(job: Job) -> None:
    if job.skips:
        job.skips = tuple(at for at in job.skips if at > job.decided_through)


def _in_order(decision: Decision) -> Sequence[Fire | Summary]:
    """What a decision says, as time goes."""
    if not decision.summaries:
        return decision.fires  # nearly always
    return sorted([*decision.summaries, *decision.fires], key=_begin)


def _begin(item: Summary | Fire) -> int:
    return item.first if isinstance(item, Summary) else item.scheduled_time


def summarise(state: State, context: Context, job: Job, summary: Summary) -> None:
    """One skipped row for many scheduled times; `paused` ones were not owed and count on neither side."""
    state.add_run(
        Run(
            id=f"{job.uid:x}-{summary.last}-{summary.reason}",
            uid=job.uid,
            job=job.name,
            scheduled_time=summary.last,
            due_at=summary.last,
            cause=CAUSE_SCHEDULE,
            state=SKIPPED,
            reason=summary.reason,
            log_index=context.log_index,
            epoch=state.epoch,
            queued_at=context.at,
            finished_at=context.at,
            finished_index=context.log_index,
            first=summary.first,
            last=summary.last,
            count=summary.count,
        )
    )
    if summary.reason != REASON_PAUSED:
        job.skipped += summary.count
        job.last_decided = summary.last
    state.touch_job(job)


def _fire(state: State, context: Context, job: Job, policy: Policy, fire: Fire, place: Place | None) -> None:
    at, run_id = fire.scheduled_time, f"{job.uid:x}-{fire.scheduled_time}"
    run = admission.new_run(state, context, job, policy, run_id, fire.cause, at, fire.due_at)
    run.missed_count, run.missed_first = fire.missed_count, fire.missed_first
    if fire.cause == CAUSE_CATCH_UP:
        place = None  # stays queued: the leader starts these at its catch-up rate
    if fire.due_at != fire.scheduled_time and fire.due_at > context.at:
        run.not_before, place = fire.due_at, None  # an edit came before its jitter was over
    if admission.admit(state, context, job, policy, run, place, allow_overlap=False):
        job.fired += 1
        job.fire_count += 1
        job.last_fired = fire.scheduled_time
        if policy.recurrence.end_intervals:
            job.last_end = None
    else:
        job.skipped += 1
