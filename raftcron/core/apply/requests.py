"""Runs that somebody asks for and that no clock and no parent starts: an ended run once more."""

from __future__ import annotations

from raftcron.core.apply.admission import admit
from raftcron.core.apply.context import Context, remember
from raftcron.core.apply.decisions import PROCESS_EXECUTORS
from raftcron.core.commands import Outcome, Refused, Rerun
from raftcron.core.model import CAUSE_MANUAL, ENDED, QUEUED, Run
from raftcron.core.state import State


def rerun(state: State, context: Context, command: Rerun) -> Outcome:
    """A new run for the same scheduled time and with the same args; judged by overlap as a run by hand is."""
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
    run = Run(
        id=f"m{context.log_index:x}-0",
        uid=job.uid,
        job=job.name,
        scheduled_time=old.scheduled_time,
        due_at=context.at,
        cause=CAUSE_MANUAL,
        state=QUEUED,
        log_index=context.log_index,
        epoch=state.epoch,
        queued_at=context.at,
        previous_time=job.last_fired,
        args=old.args,
        is_process=policy.executor_type in PROCESS_EXECUTORS,
        retry_of=old.id,
    )
    admit(state, context, job, policy, run, command.place, allow_overlap=command.allow_overlap)
    return remember(state, context, command.key, run.id, 202)
