"""`apply(state, index, entry) -> outcome`: the one thing that changes replicated state.

Total and deterministic: no clock, no chance, no I/O, no calendar maths.  Each command is two steps: *check* (may
refuse; a refusal changes nothing but the index) then *change* (cannot fail).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftcron.core import commands as c
from raftcron.core.apply import (
    alerts,
    audit,
    calendars,
    chains,
    decisions,
    groups,
    jobs,
    leadership,
    parts,
    remote,
    requests,
    restore,
    runs,
    secrets,
    tokens,
)
from raftcron.core.apply.context import Context, replay
from raftcron.core.commands import Done, Entry, Outcome, Refused
from raftcron.core.instant import MAX_MS
from raftcron.core.state import State

_HANDLERS: dict[type[Any], Callable[[State, Context, Any], Outcome]] = {
    c.Announce: leadership.announce,
    c.PutJob: jobs.put,
    c.DeleteJob: jobs.delete,
    c.PauseJob: jobs.pause,
    c.ResumeJob: jobs.resume,
    c.Trigger: decisions.trigger,
    c.Decide: decisions.decide,
    c.Assign: runs.assign,
    c.Start: runs.start,
    c.NotStarted: runs.not_started,
    c.Finish: runs.finish,
    c.Lose: runs.lose,
    c.Expire: runs.expire,
    c.Requeue: runs.requeue,
    c.Cancel: runs.cancel,
    c.PutCalendar: calendars.put,
    c.DeleteCalendar: calendars.delete,
    c.SkipNext: jobs.skip_next,
    c.Divide: parts.divide,
    c.Unassign: runs.take_back,
    c.PutGroup: groups.put,
    c.DeleteGroup: groups.delete,
    c.Drain: leadership.drain,
    c.ApplyJobs: jobs.apply_many,
    c.TakeOver: remote.take_over,
    c.TimeOut: remote.time_out,
    c.Conclude: remote.conclude,
    c.Hear: remote.hear,
    c.Rerun: requests.rerun,
    c.CreateToken: tokens.create,
    c.DeleteToken: tokens.delete,
    c.Note: audit.note,
    c.KeepKey: secrets.keep_key,
    c.PutSecret: secrets.put,
    c.DeleteSecret: secrets.delete,
    c.Backfill: requests.backfill,
    c.Stage: restore.stage,
    c.Restore: restore.restore,
    c.PutAlertRoute: alerts.put,
    c.DeleteAlertRoute: alerts.delete,
    c.MarkAlerts: alerts.mark,
}


def apply(state: State, index: int, entry: Entry) -> Outcome:
    """Take one entry of the log.  The same entries give the same state, byte for byte, on every node."""
    command = entry.command
    outcome: Outcome
    state.noted_runs.clear()
    state.noted_jobs.clear()
    state.noted_new_jobs.clear()
    state.noted_recoveries.clear()
    if not 0 <= entry.at <= MAX_MS:
        outcome = Refused("time", f"made at {entry.at}, which is no instant")
        state.index = index
        return outcome
    if isinstance(command, c.Lead):
        state.cluster_time = max(state.cluster_time, entry.at)
        outcome = leadership.lead(state, Context(index, state.cluster_time), command)
    elif entry.epoch != state.epoch:
        outcome = Refused("epoch", f"made in epoch {entry.epoch}, the log is in epoch {state.epoch}")
    else:
        state.cluster_time = max(state.cluster_time, entry.at)
        outcome = replay(state, getattr(command, "key", None)) or _HANDLERS[type(command)](
            state, Context(index, state.cluster_time), command
        )
        if entry.origin is not None and isinstance(outcome, Done) and not outcome.replayed:
            audit.record(state, Context(index, state.cluster_time), entry.origin, command, outcome)
    while state.ended_parts or state.ended:  # a parent ends with its parts, and what follows may displace others
        parts.join(state, Context(index, state.cluster_time))
        chains.follow(state, Context(index, state.cluster_time))
    if state.backfills_due:
        requests.give_turns(state)
    if state.staged:
        restore.expire(state)
    state.index = index
    state.seal()
    return outcome


__all__ = ["Context", "Done", "Outcome", "Refused", "apply"]
