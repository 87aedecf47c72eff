"""What becomes of a run after its decision: assigned, started, ended, lost, expired, cancelled."""

from __future__ import annotations

from raftcron.core.apply.context import Context, remember
from raftcron.core.commands import (
    Assign,
    Assignment,
    Cancel,
    Done,
    Expire,
    Finish,
    Finished,
    Lose,
    NotStarted,
    Outcome,
    Place,
    Refused,
    Requeue,
    Start,
    Unassign,
)
from raftcron.core.model import (
    ASSIGNED,
    CANCELLED,
    CANCELLING,
    CAUSE_BACKFILL,
    COUNTED_CAUSES,
    ENDED,
    FAILED,
    LOST,
    ON_STICKY,
    QUEUED,
    REASON_CANCELLED,
    REASON_DEADLINE,
    REASON_DELETED,
    REASON_NO_NODE,
    RUNNING,
    SKIPPED,
    STARTED,
    SUCCEEDED,
    TIMED_OUT,
    WAITING_RETRY,
    AttemptRecord,
    Job,
    Move,
    Policy,
    Run,
)
from raftcron.core.placement import is_split
from raftcron.core.policy import backoff_ms, may_retry, start_deadline
from raftcron.core.rows import FAILURES
from raftcron.core.state import State

ATTEMPTS_KEPT = 100  # records of attempts a run keeps; the oldest leave
MOVES_KEPT = 100  # and of what came between them
REPORTABLE = frozenset({SUCCEEDED, FAILED, TIMED_OUT, CANCELLED, LOST})


# ---- handlers -------------------------------------------------------------------------------------------------------


def assign(state: State, context: Context, command: Assign) -> Outcome:
    """Give queued runs to nodes; what no longer fits stays queued."""
    taken = 0
    for assignment in command.assignments:
        run = state.runs.get(assignment.run)
        if run is not None and run.state == QUEUED and run.split is None and _fits(state, context, run, assignment):
            place_run(state, context, run, assignment.place, start=assignment.start)
            taken += 1
    return Done(count=taken)


def start(state: State, context: Context, command: Start) -> Outcome:
    """A worker asks to start what it was assigned: granted under the newest token, before the start deadline."""
    taken = 0
    for token in command.starts:
        run = state.runs.get(token.run)
        if run is None or run.state != ASSIGNED or run.fencing_token != token.fencing_token:
            continue
        if _is_past_deadline(state, run, context.at):
            continue
        _mark_started(state, context, run)
        taken += 1
    return Done(count=taken)


def not_started(state: State, context: Context, command: NotStarted) -> Outcome:
    """The start gate refused these tokens for ever: the runs are queued again, with the same attempt number."""
    taken = 0
    for token in command.tokens:
        run = state.runs.get(token.run)
        if (
            run is None
            or run.fencing_token != token.fencing_token
            or run.answer_by is not None
            or run.split is not None
        ):
            continue
        if run.state in (ASSIGNED, RUNNING):
            unassign(state, context, run)
            taken += 1
        elif run.state == CANCELLING:
            end_attempt(state, context, run, CANCELLED, error="cancelled before it started", error_kind="cancelled")
            taken += 1
    return Done(count=taken)


def take_back(state: State, context: Context, command: Unassign) -> Outcome:
    """Void assignments that have not started: their tokens will never start."""
    taken = 0
    for token in command.tokens:
        run = state.runs.get(token.run)
        if run is not None and run.fencing_token == token.fencing_token and run.state == ASSIGNED:
            unassign(state, context, run)
            taken += 1
    return Done(count=taken)


def finish(state: State, context: Context, command: Finish) -> Outcome:
    """Record what became of attempts; reports under an old token change nothing."""
    taken = 0
    for finished in command.finished:
        run = state.runs.get(finished.run)
        if run is None or run.fencing_token != finished.fencing_token or finished.state not in REPORTABLE:
            continue
        if run.split is not None:
            continue  # it ends with its parts
        if is_attempt_lost(run) and finished.state != LOST and run.late_outcome is None:
            run.late_outcome = finished.state
            state.touch(run)
            state.note(run)
        elif run.state in STARTED:
            _finish(state, context, run, finished)
            taken += 1
    return Done(count=taken)


def lose(state: State, context: Context, command: Lose) -> Outcome:
    """The lease of a node has ended: what ran there is lost, what had not started is queued again."""
    taken = 0
    for token in command.tokens:
        run = state.runs.get(token.run)
        if run is None or run.fencing_token != token.fencing_token:
            continue
        if run.state == QUEUED and run.part is not None and run.part.node == command.node:
            run.error = f"node {command.node} has not been heard for a lease, and this part can run nowhere else"
            run.error_kind = "node_lost"  # no attempt of it is under way that could end
            end(state, context, run, LOST)
            taken += 1
        if run.node != command.node:
            continue
        if run.answer_by is not None:
            continue  # the node has nothing of it any more
        if run.state == ASSIGNED:
            unassign(state, context, run)
            taken += 1
        elif run.state in STARTED:
            end_attempt(
                state,
                context,
                run,
                LOST,
                error=f"node {command.node} has not been heard for a lease while the run was in flight",
                error_kind="node_lost",
            )
            taken += 1
    return Done(count=taken)


def expire(state: State, context: Context, command: Expire) -> Outcome:
    """End runs whose attempt could not start before its deadline: skipped, or as the attempt before has ended."""
    taken, unmatched = 0, frozenset(command.unmatched)
    for run_id in command.runs:
        run = state.runs.get(run_id)
        if run is None or run.state not in (QUEUED, ASSIGNED) or not _is_past_deadline(state, run, context.at):
            continue
        reason = REASON_NO_NODE if run_id in unmatched else REASON_DEADLINE
        if run.attempts:
            run.reason = reason
            end(state, context, run, run.attempts[-1].state)
        else:
            skip(state, context, run, reason)
        taken += 1
    return Done(count=taken)


def requeue(state: State, context: Context, command: Requeue) -> Outcome:
    """Queue retries whose back-off is over, and let go of runs whose jitter is."""
    taken = 0
    for run_id in command.runs:
        run = state.runs.get(run_id)
        if run is None or run.not_before > context.at:
            continue
        is_retry = run.state == WAITING_RETRY
        if not is_retry and (run.state != QUEUED or not run.not_before):
            continue
        if is_retry:
            _queue_next_attempt(context, run)  # first: a further attempt waits in another lane than the first one did
        state.release(run)
        if is_retry:
            note_move(context, run)
            _let_pass(state, run)
        taken += 1
    return Done(count=taken)


def cancel(state: State, context: Context, command: Cancel) -> Outcome:
    """Cancel a run: at once where nothing runs, else its worker is told through the state."""
    run = state.runs.get(command.run)
    if run is None:
        return Refused("not_found", f"there is no run {command.run!r}")
    if run.state in ENDED:
        return Refused("conflict", f"run {run.id} has ended already: {run.state}")
    cancel_run(state, context, run)
    return remember(state, context, command.key, run.id, 200)


# ---- steps that other handlers take too ----------------------------------------------------------------------------


def is_attempt_lost(run: Run) -> bool:
    """Whether the run is lost with its newest attempt, whose end is not known; a wait for the next can be lost, too."""
    return run.state == LOST and run.split is None and bool(run.attempts) and run.attempts[-1].state == LOST


def begin_at(state: State, context: Context, run: Run, place: Place, *, start: bool = True) -> None:
    """Assign a run that is not among the state's yet; with `start` also start it."""
    run.fencing_token = state.next_token
    state.next_token += 1
    run.node, run.incarnation = place.node, place.incarnation
    run.state = ASSIGNED
    if start:
        run.state, run.started_at = RUNNING, context.at
        run.attempts = [_record(context, run)]
        _note_node(state, run)
    else:
        note_move(context, run)


def place_run(state: State, context: Context, run: Run, place: Place, *, start: bool) -> None:
    """Assign an indexed, queued run; with `start` also start it.  Every assignment gets a higher token."""
    run.fencing_token = state.next_token
    state.next_token += 1
    run.incarnation = place.incarnation
    policy = state.policies.get(run.uid)
    group = None if policy is None else policy.group
    run.is_process = policy is not None and state.is_process(place.node, policy.process)
    state.move(run, ASSIGNED, place.node, group)
    if start:
        _mark_started(state, context, run)
    else:
        note_move(context, run)


def cancel_run(
    state: State, context: Context, run: Run, reason: str = REASON_CANCELLED, replaced_by: str | None = None
) -> None:
    """End an active run, for good: at once where nothing runs, else its worker is told.  The first reason stands."""
    if run.state == CANCELLING:
        return
    run.replaced_by = replaced_by
    if run.answer_by is not None:  # its target learns of it when it is next heard
        run.reason = reason
        text, status = "cancelled while its target had it", run.status_code
        end_attempt(state, context, run, CANCELLED, error=text, error_kind="cancelled", status_code=status)
        return
    if run.state == RUNNING:
        if not _is_unseen(context, run):
            run.reason = reason
            state.move(run, CANCELLING)
            note_move(context, run)
            for part in list(state.active_parts.get(run.id, {}).values()):
                cancel_run(state, context, part, reason)
            return
        run.attempts, run.started_at = run.attempts[:-1], None
    _end_here(state, context, run, reason)


def unassign(state: State, context: Context, run: Run) -> None:
    """Back to the queue: this assignment never started, so its attempt number stays.

    A run whose job was deleted meanwhile has nothing to start any more and ends.
    """
    node = run.node
    if run.attempts and (voided := run.attempts[-1]).fencing_token == run.fencing_token:
        run.attempts = run.attempts[:-1]
        _keep_move(run, Move(RUNNING, voided.started_at or 0, voided.started_index or 0, node))
    run.started_at = run.attempts[-1].started_at if run.attempts else None
    if run.uid in state.by_uid:
        state.move(run, QUEUED)
        note_move(context, run, node)
        _let_pass(state, run)
    else:
        _end_here(state, context, run, REASON_DELETED)


def recount(state: State, context: Context, uid: int) -> None:
    """A job's definition has changed: what is assigned, and starts as another kind of run now, needs another slot."""
    process = state.policies[uid].process
    for run in state.active_with_parts(uid):
        if run.state == ASSIGNED and run.is_process != state.is_process(run.node or "", process):
            unassign(state, context, run)


def end(state: State, context: Context, run: Run, ending: str) -> None:
    """An active run is over, however: it is counted, and others of its job that waited may have their turn."""
    run.finished_at, run.finished_index = context.at, context.log_index
    state.move(run, ending)
    _count_end(state, run)
    give_turns(state, run.uid)


def note_move(context: Context, run: Run, node: str | None = None) -> None:
    """The entry has brought the run to its present state: keep who, when and where in the log (semantics 3).

    For a run that is on no node any more, `node` is the one where it was.
    """
    _keep_move(run, Move(run.state, context.at, context.log_index, run.node or node))


def give_turns(state: State, uid: int) -> None:
    """Runs that wait for others of their job may start as far as there is room now, oldest first.

    Those of a backfill come last of all that the entry brings, see requests.py.
    """
    turns = state.turns.get(uid)
    while turns and state.has_room(uid):
        state.give_turn(next(iter(turns.values())))
    if uid in state.backfills:
        state.backfills_due.add(uid)


def step_back(state: State, context: Context, uid: int) -> None:
    """Make room for another run of the job: those of a backfill of which nothing is under way wait again.

    The newest first, so that they keep their order.  What had been assigned will never start under that token.
    """
    for run in reversed(list(state.active.get(uid, {}).values())):
        if state.has_room(uid):
            return
        if run.cause != CAUSE_BACKFILL or run.waits_turn:
            continue
        if run.state == ASSIGNED:
            unassign(state, context, run)
        if run.state == QUEUED and not run.waits_turn:
            state.take_turn(run)


def skip(state: State, context: Context, run: Run, reason: str) -> None:
    """End a run that never started; it no longer counts as fired, nor among `max_runs` unless its job is over."""
    run.reason = reason
    end(state, context, run, SKIPPED)
    job = state.by_uid.get(run.uid)
    if job is None or run.cause not in COUNTED_CAUSES or run.part is not None:
        return
    if not is_spent(job, state.policies[job.uid]):
        job.fire_count -= 1
    if run.scheduled_time > job.counted_from:
        job.fired -= 1
        job.skipped += 1
    state.touch_job(job)


def is_spent(job: Job, policy: Policy) -> bool:
    """Whether the job has had all the runs that it may have: it is over, whatever becomes of those under way."""
    return bool(policy.max_runs) and job.fire_count >= policy.max_runs


def end_attempt(
    state: State,
    context: Context,
    run: Run,
    ending: str,
    *,
    error: str | None = None,
    error_kind: str | None = None,
    exit_code: int | None = None,
    status_code: int | None = None,
) -> None:
    """Record the end of a started attempt, and whether another follows."""
    if run.attempts:
        record = run.attempts[-1]
        record.state = ending
        record.finished_at = context.at
        record.finished_index = context.log_index
    run.error, run.error_kind = error, error_kind
    run.exit_code, run.status_code = exit_code, status_code
    policy = state.policies.get(run.uid)
    was_cancelled = run.state == CANCELLING
    if policy is not None and not was_cancelled and may_retry(policy, run, ending, error_kind):
        node = run.node
        if ending == LOST:
            _queue_next_attempt(context, run)
            state.move(run, QUEUED)
        else:
            run.not_before = context.at + backoff_ms(policy, run)
            state.move(run, WAITING_RETRY)
        note_move(context, run, node)
        if run.state == QUEUED:
            _let_pass(state, run)
        return
    if ending == SUCCEEDED:  # before the cancel reached it
        run.reason = run.replaced_by = None
    end(state, context, run, ending)


# ---- details -------------------------------------------------------------------------------------------------------


def _end_here(state: State, context: Context, run: Run, reason: str) -> None:
    """End a run of which nothing is under way on any node."""
    if not run.attempts:
        skip(state, context, run, reason)
    else:
        run.reason = reason
        end(state, context, run, CANCELLED)


def _let_pass(state: State, run: Run) -> None:
    """A run of a backfill that is back in the queue gives its turn to others of its job that wait."""
    if run.cause == CAUSE_BACKFILL and run.part is None and run.uid in state.turns:
        state.take_turn(run)
        give_turns(state, run.uid)


def _queue_next_attempt(context: Context, run: Run) -> None:
    run.attempt += 1
    run.requeued_at = context.at


def _keep_move(run: Run, move: Move) -> None:
    run.moves = (*run.moves[1 - MOVES_KEPT :], move)


def _is_unseen(context: Context, run: Run) -> bool:
    """Whether this very entry has started the run: no worker has seen it, since they look at whole entries."""
    return bool(run.attempts) and run.attempts[-1].started_index == context.log_index


def _fits(state: State, context: Context, run: Run, assignment: Assignment) -> bool:
    place = assignment.place
    return (
        not run.not_before
        and state.may_start(run)
        and state.is_alive(place.node, place.incarnation)
        and has_slot_for(state, run, place.node)
        and may_be_at(state, run, place.node)
        and not _is_past_deadline(state, run, context.at)
    )


def has_slot_for(state: State, run: Run, node: str) -> bool:
    """Whether a run fits on this node as what its job says now."""
    policy = state.policies.get(run.uid)
    return policy is not None and state.has_slot(node, process=policy.process)


def may_be_at(state: State, run: Run, node: str) -> bool:
    """Whether a run's demands allow this node, and its group another run."""
    policy = state.policies.get(run.uid)
    if policy is None or (run.part is not None and run.part.node not in (None, node)):
        return False
    is_whole = run.part is None and is_split(policy)
    return not is_whole and state.carries(node, policy.tags) and state.group_room(policy.group) > 0


def _is_past_deadline(state: State, run: Run, at: int) -> bool:
    policy = state.policies.get(run.uid)
    return policy is not None and at > start_deadline(policy, run)


def _mark_started(state: State, context: Context, run: Run) -> None:
    run.started_at = context.at
    record = _record(context, run)
    run.attempts = [*run.attempts[1 - ATTEMPTS_KEPT :], record] if run.attempts else [record]
    state.move(run, RUNNING)
    _note_node(state, run)


def _note_node(state: State, run: Run) -> None:
    """For placement `sticky`: where the job ran last."""
    policy = state.policies.get(run.uid)
    if policy is not None and policy.placement == ON_STICKY:
        job = state.by_uid[run.uid]
        if job.last_node != run.node:
            job.last_node = run.node
            state.count_job(job)


def _record(context: Context, run: Run) -> AttemptRecord:
    return AttemptRecord(
        attempt=run.attempt,
        fencing_token=run.fencing_token,
        node=run.node or "",
        state=RUNNING,
        started_at=context.at,
        started_index=context.log_index,
    )


def _finish(state: State, context: Context, run: Run, finished: Finished) -> None:
    state.keep_tail(run, finished.output_tail)
    ending = CANCELLED if run.state == CANCELLING and finished.state in (FAILED, LOST) else finished.state
    end_attempt(
        state,
        context,
        run,
        ending,
        error=finished.error,
        error_kind=finished.error_kind,
        exit_code=finished.exit_code,
        status_code=finished.status_code,
    )


def _count_end(state: State, run: Run) -> None:
    """Into the job's statistics, where a parent stands for its parts."""
    job = state.by_uid.get(run.uid)
    if job is None or run.part is not None:
        return
    if run.state == SUCCEEDED:
        job.succeeded += 1
    elif run.state == FAILED:
        job.failed += 1
    elif run.state == TIMED_OUT:
        job.timed_out += 1
    elif run.state == CANCELLED:
        job.cancelled += 1
    elif run.state == LOST:
        job.lost += 1
    if run.state == SUCCEEDED:
        if job.failures_in_row:
            state.noted_recoveries.add(run.id)
        job.last_success, job.failures_in_row = run.finished_at, 0
    elif run.state in FAILURES:
        job.last_failure = run.finished_at
        job.failures_in_row += 1
    state.count_job(job)
