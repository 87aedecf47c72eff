"""The use-cases of named secrets: written, deleted, their names listed; nobody is shown one again."""

from __future__ import annotations

from typing import Any

from raftcron.core.commands import Command, DeleteSecret, Done, PutSecret
from raftcron.core.fields import escape, kind_of, name_fault, near
from raftcron.core.model import Key
from raftcron.core.vault import SECRET_BYTES_MAX, Secret
from raftcron.errors import Fault, InvalidError, NotFoundError, TooLargeError
from raftcron.runtime.machine import Machine
from raftcron.runtime.small_bodies import counted
from raftcron.runtime.vault import Vault, place_of
from raftcron.runtime.views import instant
from raftcron.runtime.writes import Writes, taken

FIELDS = ("value",)


class Secrets:
    """All writes of secrets of one node; they run on the leader."""

    def __init__(self, *, machine: Machine, writes: Writes, vault: Vault) -> None:
        self._machine = machine
        self._writes = writes
        self._vault = vault

    async def put(self, name: str, body: Any, key: Key | None) -> Done:
        """Create (201) or replace (200); body `{value}`, a text.  Raises InvalidError, TooLargeError."""
        value = _read(name, body)
        await self._vault.ready_to_seal()

        def look() -> Command:
            known = self._machine.state.secrets.get(name)
            sealed = self._vault.seal_again(value, place_of(name), None if known is None else known.sealed)
            return PutSecret(name, sealed, 0 if known is None else known.revision, key)

        return taken(await self._writes.write(key, look))

    async def delete(self, name: str, key: Key | None) -> Done:
        """Raises NotFoundError."""

        def look() -> Command:
            if name not in self._machine.state.secrets:
                raise NotFoundError(f"there is no secret {name[:200]!r}")
            return DeleteSecret(name, key)

        return taken(await self._writes.write(key, look))


def _read(name: str, body: Any) -> str:
    faults: list[Fault] = []
    if (problem := name_fault(name)) is not None:
        faults.append(Fault("/name", f"of the path: {problem}"))
    value = None
    if not isinstance(body, dict):
        faults.append(Fault("", f'must be an object like {{"value": "..."}}, not {kind_of(body)}'))
    else:
        faults += [
            Fault(f"/{escape(field)}", "is not a field of a secret" + near(field, FIELDS))
            for field in sorted(body.keys() - FIELDS)
        ]
        value = body.get("value")
        if not isinstance(value, str):
            faults.append(Fault("/value", f"must be a string, not {kind_of(value)}"))  # and is not shown
        elif not value:
            faults.append(Fault("/value", "is empty: DELETE removes a secret"))
    if faults:
        raise InvalidError(f"the secret has {counted(len(faults))}; nothing was written", tuple(faults))
    assert isinstance(value, str), "anything else is a fault"
    if len(value.encode()) > SECRET_BYTES_MAX:
        raise TooLargeError(f"the secret takes {len(value.encode())} bytes, at most {SECRET_BYTES_MAX} are taken")
    return value


def secret_view(secret: Secret) -> dict[str, Any]:
    """A secret as a JSON object, without what it holds."""
    return {
        "name": secret.name,
        "revision": secret.revision,
        "created_at": instant(secret.created_at),
        "updated_at": instant(secret.updated_at),
    }
