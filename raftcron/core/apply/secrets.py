"""Writes of secrets and of the cluster's wrapped key; all of them were sealed before they came into the log."""

from __future__ import annotations

from raftcron.core.apply.context import Context, remember
from raftcron.core.commands import DeleteSecret, Done, KeepKey, Outcome, PutSecret, Refused
from raftcron.core.fields import name_fault
from raftcron.core.state import State
from raftcron.core.vault import SEAL_OVERHEAD, SECRET_BYTES_MAX, SECRETS_MAX, VAULT, Secret, VaultKey

STALE = Refused("stale", "it has changed since the leader looked at it")


def keep_key(state: State, context: Context, command: KeepKey) -> Outcome:
    """The first key stays for ever; it may be wrapped anew."""
    key = state.vault.get(VAULT)
    if command.seen != (0 if key is None else key.index):
        return STALE
    if key is not None:
        state.forget(key)
    key = state.vault[VAULT] = VaultKey(VAULT, command.wrapped, command.salt, context.log_index)
    state.touch(key)
    return Done(VAULT, index=context.log_index)


def put(state: State, context: Context, command: PutSecret) -> Outcome:
    """Create or replace."""
    secret = state.secrets.get(command.name)
    if command.seen != (0 if secret is None else secret.revision):
        return STALE
    if name_fault(command.name) is not None or len(command.sealed) > SECRET_BYTES_MAX + SEAL_OVERHEAD:
        return Refused("invalid", "no secret can have that name or size")
    if VAULT not in state.vault:
        return Refused("conflict", "there is no key yet that it could be sealed with")
    if secret is None and len(state.secrets) >= SECRETS_MAX:
        return Refused("too_many", f"there are {SECRETS_MAX} secrets: delete one that no job needs")
    status = 200 if secret is not None else 201
    if secret is None:
        secret = state.secrets[command.name] = Secret(command.name, b"", 0, context.at, context.at)
    secret.sealed, secret.revision, secret.updated_at = command.sealed, context.log_index, context.at
    state.touch(secret)
    return remember(state, context, command.key, command.name, status)


def delete(state: State, context: Context, command: DeleteSecret) -> Outcome:
    """Runs that refer to it fail from now on, and say so."""
    secret = state.secrets.pop(command.name, None)
    if secret is None:
        return Refused("not_found", f"there is no secret {command.name!r}")
    state.forget(secret)
    return remember(state, context, command.key, command.name, 204)
