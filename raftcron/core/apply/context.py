"""What every handler needs to know of the entry beside its command, and the idempotency keys."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import NamedTuple

from raftcron.core.commands import Done, Outcome, Place, Refused
from raftcron.core.model import Key
from raftcron.core.state import KEY_LIFE_MS, KEYS_KEPT, State

USERS_NAMED = 10  # jobs that a refusal names


class Context(NamedTuple):
    """The entry's place in the log, and cluster time as of it."""

    log_index: int
    at: int
    live: tuple[Place, ...] = ()  # nodes that runs decided in this entry may be assigned to


def replay(state: State, key: Key | None) -> Outcome | None:
    """The stored answer if this idempotency key was used before, a refusal if it is taken or finds no room.

    None: go on.
    """
    if key is None:
        return None
    known = state.keys.get(key.scope)
    if known is None and state.keys_are_full:
        return Refused("too_many", f"{KEYS_KEPT} idempotency keys were used within the last two minutes: slow down")
    if known is None or known.at + KEY_LIFE_MS <= state.cluster_time:
        return None
    if known.body_hash != key.body_hash:
        return Refused(
            "key_conflict", "this Idempotency-Key was used with another body: use a new key for a new request"
        )
    return Done(known.subject, known.status, replayed=True, index=known.index)


def remember(state: State, context: Context, key: Key | None, subject: str, status: int) -> Done:
    """The answer of a write that took effect, kept under its key if it has one."""
    if key is not None:
        state.keep_key(Key(key.scope, key.body_hash, status, context.log_index, context.at, subject))
    return Done(subject, status, index=context.log_index)


def names_of(state: State, uids: Collection[int]) -> str:
    """The names of jobs that stand in the way, for people: the first few, and how many more there are."""
    names = ", ".join(state.by_uid[uid].name for uid in islice(uids, USERS_NAMED))
    return f"{names} and {len(uids) - USERS_NAMED} more" if len(uids) > USERS_NAMED else names
