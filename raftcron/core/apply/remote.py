"""Runs that their targets have taken over: long HTTP jobs, which answer 202 and end with a request (semantics 11).

Such a run holds no node's slot and no node's lease bears on it: a change of leader, or the death of the node that sent
the request, changes nothing.  It ends with the word of its target, which shows the run's newest token; with a cancel;
or when the target was not heard for the job's timeout.
"""

from __future__ import annotations

from raftcron.core.apply.context import Context, remember
from raftcron.core.apply.runs import end_attempt, is_attempt_lost
from raftcron.core.commands import Conclude, Done, Hear, Outcome, Refused, TakeOver, TimeOut
from raftcron.core.instant import MAX_MS, rfc3339
from raftcron.core.model import (
    CANCELLED,
    CANCELLING,
    ENDED,
    FAILED,
    LOST,
    STARTED,
    SUCCEEDED,
    TIMED_OUT,
    Run,
)
from raftcron.core.state import State

CONCLUSIONS = (SUCCEEDED, FAILED, CANCELLED)  # what a target may say of the end
TAKEN_OVER_MAX = 20_000  # runs with their targets at a time: each is looked at once a second, some 5 ms in all
ERROR_CHARACTERS = 1_000


def take_over(state: State, context: Context, command: TakeOver) -> Outcome:
    """The target goes on by itself; it has to be heard within the job's timeout from the start."""
    taken = 0
    for word in command.taken:
        run = state.runs.get(word.run)
        if run is None or run.fencing_token != word.fencing_token or run.state not in STARTED:
            continue
        if run.answer_by is not None or run.split is not None:
            continue
        taken += 1
        state.keep_tail(run, word.output_tail)
        run.status_code = word.status_code
        if run.state == CANCELLING:
            text = "cancelled while its target took it over"
            _end(state, context, run, CANCELLED, text, "cancelled")
        elif len(state.taken_over) >= TAKEN_OVER_MAX:
            text = f"{TAKEN_OVER_MAX} runs are with their targets already: no further one is waited for"
            _end(state, context, run, LOST, text, "too_many")
        else:
            state.hand_over(run, min((run.started_at or context.at) + word.timeout_ms, MAX_MS))
    return Done(count=taken)


def time_out(state: State, context: Context, command: TimeOut) -> Outcome:
    """End those whose target was not heard in time."""
    taken = 0
    for token in command.tokens:
        run = state.runs.get(token.run)
        if run is None or run.fencing_token != token.fencing_token or run.answer_by is None:
            continue
        if context.at > run.answer_by:
            text = f"nothing was heard of its target by {rfc3339(run.answer_by)}"
            _end(state, context, run, TIMED_OUT, text, "timeout")
            taken += 1
    return Done(count=taken)


def conclude(state: State, context: Context, command: Conclude) -> Outcome:
    """The target says how it ended; also before the word of its 202 has come.

    Of a run whose newest attempt is lost the first word is kept as its late outcome, and changes no state.
    """
    if command.state not in CONCLUSIONS:
        return Refused("invalid", f"{command.state!r} is no way to end: there are {', '.join(CONCLUSIONS)}")
    lost = state.runs.get(command.run)
    if lost is not None and lost.fencing_token == command.fencing_token and is_attempt_lost(lost):
        if lost.late_outcome is not None:
            return Refused("conflict", f"run {lost.id} is lost, and its late outcome is on record: {lost.late_outcome}")
        lost.late_outcome = command.state
        state.touch(lost)
        state.note(lost)
        return remember(state, context, command.key, lost.id, 200)
    run = _current(state, command.run, command.fencing_token)
    if isinstance(run, Refused):
        return run
    if command.message:  # else the answer by which the target took it over stays
        state.keep_tail(run, command.message.encode())
    ending = CANCELLED if run.state == CANCELLING and command.state == FAILED else command.state
    error = None if ending == SUCCEEDED else command.message[:ERROR_CHARACTERS] or "its target says so"
    kind = None if ending == SUCCEEDED else "cancelled" if ending == CANCELLED else "reported"
    _end(state, context, run, ending, error, kind)
    return remember(state, context, command.key, run.id, 200)


def hear(state: State, context: Context, command: Hear) -> Outcome:
    """The target is at work: its time begins anew.  Before the word of its 202 has come there is nothing to move."""
    run = _current(state, command.run, command.fencing_token)
    if isinstance(run, Refused):
        return run
    if run.answer_by is not None:
        span = run.answer_by - (run.heard_at or run.started_at or context.at)  # an edit concerns new attempts only
        run.answer_by, run.heard_at = min(context.at + span, MAX_MS), context.at
        state.touch(run)
        state.note(run)
    return remember(state, context, command.key, run.id, 200)


def _end(state: State, context: Context, run: Run, ending: str, error: str | None, kind: str | None) -> None:
    """The attempt is over; the status that its target answered with stays on record."""
    end_attempt(state, context, run, ending, error=error, error_kind=kind, status_code=run.status_code)


def _current(state: State, run_id: str, token: int) -> Run | Refused:
    """The run that somebody who shows this token may speak of."""
    run = state.runs.get(run_id)
    if run is None:
        return Refused("not_found", f"there is no run {run_id!r}, or it is no longer kept")
    if run.split is not None:
        return Refused("conflict", f"run {run.id} ends with the last of its parts: each part has a token of its own")
    if run.fencing_token != token:
        now = f"{run.fencing_token}, of attempt {run.attempt}" if run.fencing_token else "none yet"
        return Refused("conflict", f"token {token} is not current: run {run.id} is {run.state}, its token is {now}")
    if run.state in ENDED:
        return Refused("conflict", f"run {run.id} has ended already: {run.state}")
    if run.state not in STARTED:
        return Refused(
            "conflict", f"the attempt with token {token} is over, or has not begun: run {run.id} is {run.state}"
        )
    policy = state.policies.get(run.uid)
    if run.answer_by is None and (policy is None or not policy.is_async):
        return Refused(
            "conflict",
            f'run {run.id} is ended by its node: only an executor with "async": true leaves that to the target',
        )
    return run
