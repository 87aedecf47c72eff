"""Writes of groups: how many runs of the jobs that name one may be on nodes at once."""

from __future__ import annotations

from raftcron.core.apply.context import Context, names_of, remember
from raftcron.core.commands import DeleteGroup, Outcome, PutGroup, Refused
from raftcron.core.group import GROUPS_MAX, MAX_RUNNING_MAX
from raftcron.core.model import Group
from raftcron.core.state import State

STALE = Refused("stale", "the group has changed since the leader looked at it")


def put(state: State, context: Context, command: PutGroup) -> Outcome:
    """Create or replace.  An identical definition keeps the revision; runs under way go on under a lower cap."""
    group = state.groups.get(command.name)
    if command.seen_revision != (None if group is None else group.revision):
        return STALE
    if not 1 <= command.max_running <= MAX_RUNNING_MAX:
        return Refused("invalid", f"max_running is {command.max_running}, allowed are 1 to {MAX_RUNNING_MAX}")
    if group is None:
        if len(state.groups) >= GROUPS_MAX:
            return Refused("too_many", f"there are {GROUPS_MAX} groups: delete one that no job names")
        group = Group(command.name, context.log_index, context.at, context.at, command.max_running)
        state.groups[command.name] = group
        state.touch(group)
        return remember(state, context, command.key, command.name, 201)
    if group.max_running != command.max_running:
        group.max_running, group.revision, group.updated_at = command.max_running, context.log_index, context.at
        state.touch(group)
    return remember(state, context, command.key, command.name, 200)


def delete(state: State, context: Context, command: DeleteGroup) -> Outcome:
    """Refused while a job names it."""
    group = state.groups.get(command.name)
    if group is None:
        return Refused("not_found", f"there is no group {command.name!r}")
    if group.revision != command.seen_revision:
        return STALE
    users = state.group_jobs.get(command.name, {})
    if users:
        text = f"group {command.name!r} is named by {names_of(state, users)}: take it out of their `group`"
        return Refused("conflict", text)
    del state.groups[command.name]
    state.forget(group)
    return remember(state, context, command.key, command.name, 204)
