"""Writes of tokens."""

from __future__ import annotations

from raftcron.core.access import ANONYMOUS, HASH_BYTES, ROLES, TOKENS_MAX, AccessToken
from raftcron.core.apply.context import Context, remember
from raftcron.core.commands import CreateToken, DeleteToken, Outcome, Refused
from raftcron.core.fields import name_fault
from raftcron.core.state import State


def create(state: State, context: Context, command: CreateToken) -> Outcome:
    """A new token, in the place of the one of that name where `replaces` says so."""
    name = command.name
    if name_fault(name) is not None or name == ANONYMOUS or command.role not in ROLES:
        return Refused("invalid", "no token can have that name or role")
    if len(command.hash) != HASH_BYTES or (command.prefix and name_fault(command.prefix) is not None):
        return Refused("invalid", "no token can have that hash or prefix")
    former = state.tokens.get(name)
    if former is not None and not command.replaces:
        return Refused("exists", f"there is a token {name!r} already: revoke it first, or choose another name")
    if former is None and len(state.tokens) >= TOKENS_MAX:
        return Refused("too_many", f"there are {TOKENS_MAX} tokens: revoke one that nobody uses")
    if former is not None:
        del state.tokens[name]
        state.forget(former)
    token = AccessToken(
        name, command.hash, command.role, command.prefix, context.at, command.created_by, context.log_index
    )
    state.tokens[name] = token
    state.touch(token)
    return remember(state, context, command.key, name, 201)


def delete(state: State, context: Context, command: DeleteToken) -> Outcome:
    """What this token asks for from now on is refused."""
    token = state.tokens.pop(command.name, None)
    if token is None:
        return Refused("not_found", f"there is no token {command.name!r}")
    state.forget(token)
    return remember(state, context, command.key, command.name, 204)
