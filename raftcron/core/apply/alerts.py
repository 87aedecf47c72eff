"""Who is told of what happens, where jobs do not say it themselves; and how far it was told."""

from __future__ import annotations

from raftcron.core.alerts import DEFAULT_ROUTE, MARK
from raftcron.core.apply.context import Context, remember
from raftcron.core.commands import DeleteAlertRoute, Done, MarkAlerts, Outcome, PutAlertRoute, Refused
from raftcron.core.model import AlertMark, AlertRoute, Job
from raftcron.core.state import State

STALE = Refused("stale", "the route has changed since the leader looked at it")
BYTES_MAX = 64 << 10  # of a route


def put(state: State, context: Context, command: PutAlertRoute) -> Outcome:
    """Create or replace.  An identical definition keeps the revision."""
    route = state.alert_routes.get(command.name)
    if command.seen_revision != (None if route is None else route.revision):
        return STALE
    if command.name != DEFAULT_ROUTE or len(command.definition) > BYTES_MAX:
        return Refused("invalid", f"the one route is {DEFAULT_ROUTE!r}, of at most {BYTES_MAX} bytes")
    if route is None:
        route = AlertRoute(command.name, context.log_index, context.at, context.at, command.definition)
        state.alert_routes[command.name] = route
        state.touch(route)
        _begin(state, context)
        return remember(state, context, command.key, command.name, 201)
    if route.definition != command.definition:
        route.definition, route.revision, route.updated_at = command.definition, context.log_index, context.at
        state.touch(route)
    return remember(state, context, command.key, command.name, 200)


def delete(state: State, context: Context, command: DeleteAlertRoute) -> Outcome:
    """From now on nobody is told of the runs of jobs that name nobody."""
    route = state.alert_routes.get(command.name)
    if route is None:
        return Refused("not_found", "there is no default route of alerts")
    if route.revision != command.seen_revision:
        return STALE
    del state.alert_routes[command.name]
    state.forget(route)
    return remember(state, context, command.key, command.name, 204)


def mark(state: State, context: Context, command: MarkAlerts) -> Outcome:
    """It never goes back, nor past what has happened."""
    known = state.alert_marks.get(MARK)
    if known is not None and known.through < command.through <= context.log_index:
        known.through = command.through
        state.touch(known)
    return Done()


def begin_for(state: State, context: Context, job: Job) -> None:
    """A job was written: if it names whom to tell, all that comes from now on is looked at."""
    if state.policy(job.uid).has_alerts:
        _begin(state, context)


def _begin(state: State, context: Context) -> None:
    if MARK not in state.alert_marks:
        made = state.alert_marks[MARK] = AlertMark(MARK, context.log_index)
        state.touch(made)
