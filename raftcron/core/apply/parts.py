"""Parents and their parts: runs that are broadcast or sharded (semantics 10).

A parent is one run for overlap, conservation and statistics; it starts when it is divided and ends with the last of
its parts.  Parts are placed, started, retried and lost each for itself.
"""

from __future__ import annotations

from raftcron.core.apply.context import Context
from raftcron.core.apply.runs import end, note_move, skip
from raftcron.core.commands import Divide, Done, Outcome, Parting
from raftcron.core.model import (
    CANCELLED,
    CANCELLING,
    FAILED,
    LOST,
    QUEUED,
    SKIPPED,
    SUCCEEDED,
    TIMED_OUT,
    Policy,
    Run,
    Split,
)
from raftcron.core.placement import is_split, part_id, part_names, part_of
from raftcron.core.policy import start_deadline
from raftcron.core.state import State

ERROR_KIND = "parts"
WORST_FIRST = (FAILED, TIMED_OUT, LOST, CANCELLED, SKIPPED)  # what a parent's end is called where its parts differ


def divide(state: State, context: Context, command: Divide) -> Outcome:
    """Make parents of queued runs, and queue their parts; what no longer fits stays queued."""
    taken = 0
    for parting in command.partings:
        run = state.runs.get(parting.run)
        policy = None if run is None else state.policies.get(run.uid)
        if run is None or policy is None:
            continue
        names = _names(state, context, run, policy, parting)
        if names:
            _divide(state, context, run, policy, names)
            taken += 1
    return Done(count=taken)


def _names(state: State, context: Context, run: Run, policy: Policy, parting: Parting) -> tuple[str, ...]:
    """What the run's parts are called; none if it cannot be divided now."""
    if run.state != QUEUED or run.not_before or run.split is not None or run.part is not None:
        return ()
    if not is_split(policy) or not state.may_start(run) or context.at > start_deadline(policy, run):
        return ()
    return part_names(policy, run, [node for node in parting.nodes if state.carries(node, policy.tags)])


def _divide(state: State, context: Context, run: Run, policy: Policy, names: tuple[str, ...]) -> None:
    state.divide(run, Split(names, {}))
    run.started_at = context.at
    note_move(context, run)
    for name in names:
        state.add_run(
            Run(
                id=part_id(run.id, name),
                uid=run.uid,
                job=run.job,
                scheduled_time=run.scheduled_time,
                due_at=run.due_at,
                cause=run.cause,
                state=QUEUED,
                log_index=context.log_index,
                epoch=state.epoch,
                queued_at=context.at,
                previous_time=run.previous_time,
                missed_count=run.missed_count,
                missed_first=run.missed_first,
                args=run.args,
                part=part_of(policy, run.id, name),
            )
        )


def join(state: State, context: Context) -> None:
    """Tell the parents of parts that have ended in this entry; the last part ends its parent."""
    ended, state.ended_parts = state.ended_parts, []
    for part in ended:
        assert part.part is not None, "only parts stand there"
        parent = state.runs[part.part.parent]
        split = parent.split
        assert split is not None, "it was divided"
        split.tally[part.state] = split.tally.get(part.state, 0) + 1
        if sum(split.tally.values()) == len(split.names):
            _end(state, context, parent, split, part)
        else:
            state.touch(parent)
            state.note(parent)


def _end(state: State, context: Context, parent: Run, split: Split, last: Run) -> None:
    tally = split.tally
    ending = SUCCEEDED
    if tally.get(SUCCEEDED, 0) < len(split.names):
        worst = next(state for state in WORST_FIRST if state in tally)
        ending = CANCELLED if parent.state == CANCELLING else FAILED if worst == SKIPPED else worst
        counts = ", ".join(f"{count} {word}" for word, count in sorted(tally.items()))
        parent.error, parent.error_kind = f"of {len(split.names)} parts {counts}", ERROR_KIND
    if tally.get(SKIPPED, 0) == len(split.names):  # nothing ever ran
        parent.started_at = None
        skip(state, context, parent, last.reason or ending)
        return
    if ending == SUCCEEDED:  # before a cancel reached one of them
        parent.reason = parent.replaced_by = None
    end(state, context, parent, ending)
