"""Whether a new run goes on beside the other runs of its job (semantics 7): now, in its turn, or not at all.

A run is active from its decision until its retries are over, wherever it comes from.  Those that wait for their turn
are queued, and apart from what may start (`State.turns`); each end of a run gives the next ones theirs (`runs.end`).
Runs of backfills wait longer: what of them is not under way lets each newcomer pass, and no newcomer displaces one.
"""

from __future__ import annotations

from raftcron.core.apply.context import Context
from raftcron.core.apply.placing import begin
from raftcron.core.apply.runs import cancel_run, step_back
from raftcron.core.commands import Place
from raftcron.core.model import (
    CANCELLING,
    CAUSE_BACKFILL,
    QUEUED,
    REASON_DEADLINE,
    REASON_LIMIT,
    REASON_OVERLAP,
    REASON_QUEUE_FULL,
    SKIPPED,
    Job,
    Policy,
    Run,
)
from raftcron.core.policy import start_deadline
from raftcron.core.state import State

_BEYOND = {"skip": REASON_OVERLAP, "allow": REASON_LIMIT, "queue": REASON_QUEUE_FULL}  # max_running, and the queue


def new_run(
    state: State,
    context: Context,
    job: Job,
    policy: Policy,
    run_id: str,
    cause: str,
    scheduled_time: int,
    due_at: int,
) -> Run:
    """A run that this entry decides, queued, for `admit`; what others do not have its maker fills in."""
    return Run(
        id=run_id,
        uid=job.uid,
        job=job.name,
        scheduled_time=scheduled_time,
        due_at=due_at,
        cause=cause,
        state=QUEUED,
        log_index=context.log_index,
        epoch=state.epoch,
        queued_at=context.at,
        previous_time=job.last_fired,
    )


def admit(
    state: State, context: Context, job: Job, policy: Policy, run: Run, place: Place | None, *, allow_overlap: bool
) -> bool:
    """Add a new run: it starts at `place` in this entry where it may and fits, else it is queued.

    False: it is a skipped row, with the reason and what was in its way.
    """
    reason = judge(state, context, policy, run, allow_overlap=allow_overlap)
    if reason is not None:
        run.state, run.reason = SKIPPED, reason
        run.finished_at, run.finished_index = context.at, context.log_index
        state.add_run(run)
        return False
    state.set_last_run(job, run)
    if place is not None and not run.waits_turn:
        begin(state, context, job, policy, run, place)
    state.add_run(run)
    return True


def judge(state: State, context: Context, policy: Policy, run: Run, *, allow_overlap: bool) -> str | None:
    """Why a new run is skipped; None: it may go on, perhaps in its turn, and what it displaces has been told to end."""
    if context.at > start_deadline(policy, run):
        return REASON_DEADLINE
    if allow_overlap or state.has_room(run.uid):
        return None
    if run.cause == CAUSE_BACKFILL:
        run.waits_turn = True
        return None
    step_back(state, context, run.uid)
    if state.has_room(run.uid):
        return None
    if policy.overlap == "replace":
        _displace(state, context, policy, run)
        if state.has_room(run.uid):
            return None
    run.blocked_by = next(other.id for other in state.active[run.uid].values() if not other.waits_turn)  # the oldest
    run.waits_turn = policy.overlap == "replace" or (
        policy.overlap == "queue" and len(state.turns.get(run.uid, ())) < policy.queue
    )
    return None if run.waits_turn else _BEYOND[policy.overlap]


def _displace(state: State, context: Context, policy: Policy, newcomer: Run) -> None:
    """Only the newest newcomer waits, and the oldest runs end until there will be room for it; no backfill's does.

    Where those are so many that there would be none, nothing ends, and the newcomer waits for them.
    """
    for run in list(state.turns.get(newcomer.uid, {}).values()):
        cancel_run(state, context, run, REASON_OVERLAP, newcomer.id)
    going_on = [
        run for run in state.active.get(newcomer.uid, {}).values() if run.state != CANCELLING and not run.waits_turn
    ]
    others = [run for run in going_on if run.cause != CAUSE_BACKFILL]
    too_many = len(going_on) - policy.max_running + 1
    if 0 < too_many <= len(others):
        for run in others[:too_many]:
            cancel_run(state, context, run, REASON_OVERLAP, newcomer.id)
