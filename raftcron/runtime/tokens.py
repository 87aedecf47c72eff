"""The use-cases of tokens: made with chance on the leader, shown once, revoked.  The first one: see bootstrap.py."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

from raftcron.core.access import ANONYMOUS, ROLES, SECRET_BYTES, AccessToken, token_hash, token_text
from raftcron.core.commands import Command, CreateToken, DeleteToken, Done
from raftcron.core.fields import Walk, escape, kind_of, name_fault, near
from raftcron.core.model import Key
from raftcron.errors import Fault, InvalidError, NotFoundError
from raftcron.ports import Entropy
from raftcron.runtime.machine import Machine
from raftcron.runtime.small_bodies import counted
from raftcron.runtime.views import instant
from raftcron.runtime.writes import Writes, taken

FIELDS = ("name", "role", "prefix")


class Made(NamedTuple):
    """A token as it was made; `text` is known here alone, None where the request was a repeat."""

    done: Done
    text: str | None


def new_token(name: str, entropy: Entropy) -> str:
    """The text of a new token."""
    return token_text(name, base64.urlsafe_b64encode(entropy(SECRET_BYTES)).rstrip(b"=").decode())


class Tokens:
    """All writes of tokens of one node; they run on the leader."""

    def __init__(self, *, machine: Machine, writes: Writes, entropy: Entropy) -> None:
        self._machine = machine
        self._writes = writes
        self._entropy = entropy

    async def create(self, body: Any, created_by: str, key: Key | None) -> Made:
        """Body `{name, role, prefix}`.  Raises InvalidError, ConflictError where the name is taken."""
        name, role, prefix = _read(body)
        text = new_token(name, self._entropy)
        done = taken(
            await self._writes.write(
                key, lambda: CreateToken(name, token_hash(text), role, prefix, created_by, False, key)
            )
        )
        return Made(done, None if done.replayed else text)

    async def revoke(self, name: str, key: Key | None) -> Done:
        """Raises NotFoundError."""

        def look() -> Command:
            if name not in self._machine.state.tokens:
                raise NotFoundError(f"there is no token {name[:200]!r}")
            return DeleteToken(name, key)

        return taken(await self._writes.write(key, look))


def _read(body: Any) -> tuple[str, str, str]:
    walk = Walk()
    if not isinstance(body, dict):
        raise InvalidError("nothing was written", (Fault("", f"must be an object, not {kind_of(body)}"),))
    for field in sorted(body.keys() - FIELDS):
        walk.fault(f"/{escape(field)}", "is not a field of a token" + near(field, FIELDS))
    name, role, prefix = body.get("name"), body.get("role"), body.get("prefix")
    walk.name("/name", name)
    if name == ANONYMOUS:
        walk.fault("/name", f"{ANONYMOUS!r} is what callers without a token are called: choose another")
    walk.choice("/role", role, ROLES)
    prefix = "" if prefix is None else prefix
    if prefix != "" and (problem := name_fault(prefix)) is not None:
        walk.fault("/prefix", f"{problem}; it is what the names of jobs begin with, and empty for all")
    if walk.faults:
        raise InvalidError(f"the token has {counted(len(walk.faults))}; nothing was written", tuple(walk.faults))
    return str(name), str(role), str(prefix)


def token_view(token: AccessToken) -> dict[str, Any]:
    """A token as a JSON object, without what proves it."""
    return {
        "name": token.name,
        "role": token.role,
        "prefix": token.prefix,
        "created_at": instant(token.created_at),
        "created_by": token.created_by,
    }
