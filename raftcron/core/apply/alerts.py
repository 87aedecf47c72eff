"""Who is told of what happens, where jobs do not say it themselves; and how far it was told."""

from __future__ import annotations

from raftcron.core.alerts import BEHIND_MAX, KEY_LENGTH, MARK, names_somebody
from raftcron.core.apply.context import Context, remember
from raftcron.core.commands import DeleteAlertRoute, Done, MarkAlerts, Outcome, PutAlertRoute, Refused
from raftcron.core.model import AlertMark, AlertRoute
from raftcron.core.route import DEFAULT_ROUTE, stored_fault
from raftcron.core.state import State

STALE = Refused("stale", "the route has changed since the leader looked at it")


def put(state: State, context: Context, command: PutAlertRoute) -> Outcome:
    """Create or replace.  An identical definition keeps the revision."""
    known = state.alert_routes.get(command.name)
    if command.seen_revision != (None if known is None else known.revision):
        return STALE
    fault = stored_fault(command.name, command.definition)
    if fault is not None:
        return Refused("invalid", f"the route cannot be read: {fault}")
    set_route(state, context, command.definition)
    settle(state, context)
    return remember(state, context, command.key, command.name, 201 if known is None else 200)


def set_route(state: State, context: Context, stored: bytes) -> None:
    """The default route is this from now on."""
    route = state.alert_routes.get(DEFAULT_ROUTE)
    if route is None:
        route = state.alert_routes[DEFAULT_ROUTE] = AlertRoute(DEFAULT_ROUTE, 0, context.at, 0, b"")
    if route.definition != stored:
        route.definition, route.revision, route.updated_at = stored, context.log_index, context.at
        state.touch(route)


def delete(state: State, context: Context, command: DeleteAlertRoute) -> Outcome:
    """From now on nobody is told of the runs of jobs that name nobody."""
    route = state.alert_routes.get(command.name)
    if route is None:
        return Refused("not_found", "there is no default route of alerts")
    if route.revision != command.seen_revision:
        return STALE
    state.forget(state.alert_routes.pop(command.name))
    settle(state, context)
    return remember(state, context, command.key, command.name, 204)


def mark(state: State, context: Context, command: MarkAlerts) -> Outcome:
    """It never goes back, nor past what has happened; for no target does it."""
    known = state.alert_marks.get(MARK)
    if known is None or not known.through <= command.through <= context.log_index:
        return Done()
    if len(command.behind) > BEHIND_MAX or any(len(key) != KEY_LENGTH for key in command.behind):
        return Refused("invalid", f"at most {BEHIND_MAX} targets are behind, each named by {KEY_LENGTH} characters")
    reached = {key: max(at, known.behind.get(key, known.through)) for key, at in sorted(command.behind.items())}
    known.behind = {key: at for key, at in reached.items() if at < command.through}
    known.through = command.through
    state.touch(known)
    return Done()


def settle(state: State, context: Context) -> None:
    """Jobs or the route were written: where somebody is named now, all that comes from here on is looked at."""
    is_wanted = names_somebody(state)
    if is_wanted and MARK not in state.alert_marks:
        made = state.alert_marks[MARK] = AlertMark(MARK, context.log_index)
        state.touch(made)
    elif not is_wanted and MARK in state.alert_marks:
        state.forget(state.alert_marks.pop(MARK))
