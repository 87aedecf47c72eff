"""Writes of exclusion calendars, each in one entry with the decisions that its jobs owe under what it said before."""

from __future__ import annotations

from raftcron.core import exclusion
from raftcron.core.apply.context import Context, names_of, remember
from raftcron.core.apply.decisions import count_anew, holds, take
from raftcron.core.commands import DeleteCalendar, Outcome, PutCalendar, Refused
from raftcron.core.instant import MAX_MS
from raftcron.core.model import Calendar
from raftcron.core.state import State

STALE = Refused("stale", "the calendar or one of its jobs has changed since the leader looked at it")


def put(state: State, context: Context, command: PutCalendar) -> Outcome:
    """Create or replace.  An identical definition keeps the revision.

    What it said before is over through `holds_from`: its jobs take that in when they are next looked at.
    """
    calendar = state.calendars.get(command.name)
    if command.seen_revision != (None if calendar is None else calendar.revision):
        return STALE
    fault = exclusion.stored_fault(command.definition)
    if fault is not None or not 0 <= command.holds_from <= MAX_MS:
        return Refused("invalid", f"the definition of calendar {command.name!r} cannot be read: {fault or 'its time'}")
    if calendar is None and len(state.calendars) >= exclusion.CALENDARS_MAX:
        return Refused("too_many", f"there are {exclusion.CALENDARS_MAX} calendars: delete one that no job names")
    owed = [
        (job, decision)
        for decision in command.decisions
        if (job := state.by_uid.get(decision.uid)) is not None and decision.through > job.decided_through
    ]
    if any(decision.revision != state.revision_of(job) or not holds(job, decision) for job, decision in owed):
        return STALE
    if command.seen_index is not None and _have_changed(state, command, command.seen_index):
        return STALE
    for job, decision in owed:
        count_anew(state, job)
        if decision.through > job.decided_through:  # no job stands here twice, unless somebody made it up
            take(state, context, job, decision, None)
    status = 200
    if calendar is None:
        state.calendars[command.name] = calendar = Calendar(
            command.name, context.log_index, context.at, context.at, command.definition, command.holds_from
        )
        status = 201
    elif calendar.definition != command.definition:
        calendar.revision, calendar.updated_at = context.log_index, context.at
        calendar.definition = command.definition
        calendar.holds_from = max(calendar.holds_from, command.holds_from)
    else:
        return remember(state, context, command.key, command.name, status)
    state.touch(calendar)
    state.touched_calendars.add(calendar.name)
    return remember(state, context, command.key, command.name, status)


def _have_changed(state: State, command: PutCalendar, seen_index: int) -> bool:
    """Whether a job of the calendar was written since the leader looked, and may owe something until `holds_from`.

    Nobody has decided that under what the calendar said: a job resumed with what it missed, one whose pause is over by
    then and has not been ended yet, or one that is new.
    """
    if state.index <= seen_index:
        return False
    jobs = (state.by_uid[uid] for uid in state.calendar_jobs.get(command.name, ()))
    return any(
        job.revision > seen_index
        and (not job.paused or job.is_pause_over(command.holds_from))
        and job.decided_through < command.holds_from
        for job in jobs
    )


def delete(state: State, context: Context, command: DeleteCalendar) -> Outcome:
    """Refused while a job names it."""
    calendar = state.calendars.get(command.name)
    if calendar is None:
        return Refused("not_found", f"there is no calendar {command.name!r}")
    if calendar.revision != command.seen_revision:
        return STALE
    users = state.calendar_jobs.get(command.name, {})
    if users:
        text = f"calendar {command.name!r} is named by {names_of(state, users)}: take it out of their `exclude` first"
        return Refused("conflict", text)
    del state.calendars[command.name]
    state.forget(calendar)
    state.touched_calendars.add(command.name)
    return remember(state, context, command.key, command.name, 204)
