"""Runs that somebody asks for and that no clock and no parent starts: an ended run once more, a span of the past."""

from __future__ import annotations

from raftcron.core.apply.admission import admit, new_run
from raftcron.core.apply.context import Context, remember
from raftcron.core.commands import Backfill, Outcome, Refused, Rerun
from raftcron.core.model import CAUSE_BACKFILL, CAUSE_MANUAL, ENDED, ON_ALL
from raftcron.core.placement import part_id, part_name
from raftcron.core.state import State

BACKFILL_MAX = 1_000  # times of one request, and runs of one job that have not ended; some 20 ms of apply


def rerun(state: State, context: Context, command: Rerun) -> Outcome:
    """A new run for the same scheduled time and with the same args; judged by overlap as a run by hand is.

    Of a part: a new run that is divided into that part alone.
    """
    old = state.runs.get(command.run)
    if old is None:
        return Refused("not_found", f"there is no run {command.run!r}, or it is no longer kept")
    if old.uid not in state.by_uid:
        return Refused("conflict", f"the job {old.job!r} of run {old.id} was deleted: there is nothing to run again")
    if old.state not in ENDED:
        return Refused("conflict", f"run {old.id} has not ended, it is {old.state}: cancel it first")
    if old.count is not None:
        return Refused("conflict", f"row {old.id} stands for {old.count} skipped times: backfill their span instead")
    job = state.by_uid[old.uid]
    policy = state.policy(job.uid)
    retry_of, part = old.id, old.part
    if part is None and (name := part_name(old.retry_of)) is not None:  # it was one part alone, and is so again
        retry_of = part_id(old.id, name)
        part = None if (row := state.runs.get(retry_of)) is None else row.part
    if part is not None and (part.node is None, part.shard_count or 0) != (policy.placement != ON_ALL, policy.shards):
        text = f"run {retry_of} is a part, and its job {job.name!r} is not divided as it was then"
        return Refused("conflict", f"{text}: run {part.parent} again, as the job is now")
    at, run_id = old.scheduled_time, f"m{context.log_index:x}-0"
    run = new_run(state, context, job, policy, run_id, CAUSE_MANUAL, at, context.at)
    run.args, run.retry_of = old.args, retry_of
    admit(state, context, job, policy, run, command.place, allow_overlap=command.allow_overlap)
    return remember(state, context, command.key, run.id, 202)


def backfill(state: State, context: Context, command: Backfill) -> Outcome:
    """A run for each of these times, in turn whatever the job's overlap policy says: none of them is skipped.

    As many as `max_running` says go on at a time, paced by the catch-up rate.
    """
    job = state.jobs.get(command.name)
    if job is None:
        return Refused("not_found", f"there is no job {command.name!r}")
    if state.revision_of(job) != command.seen_revision:
        return Refused("stale", "the job has changed since the leader looked at it")
    times = command.times
    if len(times) > BACKFILL_MAX or any(not 0 <= at <= context.at for at in times) or times != sorted(set(times)):
        return Refused("invalid", f"a backfill has at most {BACKFILL_MAX} times, all of them past, in order")
    waiting = sum(run.cause == CAUSE_BACKFILL for run in state.active.get(job.uid, {}).values())
    if waiting + len(times) > BACKFILL_MAX:
        text = (
            f"{waiting} runs of a former backfill of job {job.name!r} have not ended, and there may be {BACKFILL_MAX}"
        )
        return Refused("conflict", f"{text}: wait for them or cancel them, or ask for a shorter span")
    policy = state.policy(job.uid)
    run_id = ""
    for place, at in enumerate(times):
        run_id = f"b{context.log_index:x}-{place}"
        run = new_run(state, context, job, policy, run_id, CAUSE_BACKFILL, at, context.at)
        run.previous_time = times[place - 1] if place else None
        admit(state, context, job, policy, run, None, allow_overlap=False)
    return remember(state, context, command.key, run_id, 200)


def give_turns(state: State) -> None:
    """Runs of backfills go on where the entry has made room, and left some."""
    due, state.backfills_due = sorted(state.backfills_due), set()
    for uid in due:
        waiting = state.backfills.get(uid)
        while waiting and state.has_room(uid):
            state.give_turn(next(iter(waiting.values())))
