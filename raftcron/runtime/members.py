"""The use-cases that change who belongs to the cluster, or who leads it.  They run on the leader.

What the log allows is the log's to say (ports.Log).  Here a request is read, and one more thing is seen to: as long as
a node may hold a lease, no other takes its name, for what it runs would count as lost at once (semantics 5.6).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple

from raftcron.config.kinds import ADDRESS, TEXT_NAME, Address
from raftcron.core.apply.context import replay
from raftcron.core.commands import Done
from raftcron.core.fields import kind_of
from raftcron.core.instant import shown
from raftcron.core.model import Key
from raftcron.errors import ConflictError, Fault, NotFoundError, UnavailableError
from raftcron.ports import Log, Member, Standing
from raftcron.runtime.machine import Machine
from raftcron.runtime.reads import Reads
from raftcron.runtime.small_bodies import fields_of, refuse_any
from raftcron.runtime.writes import taken


class Addresses(NamedTuple):
    """Where a member is reached: by its peers, and over HTTP (empty: as it announces itself)."""

    raft: tuple[str, int] | None
    http: str


class Members:
    """Changes of the members.

    `lease_left(name)` is for how many seconds more a node of that name may hold a lease; 0 for none.  `note` puts into
    the audit trail what is about to be done: before, since the log may change without our hearing of it.
    """

    def __init__(
        self,
        *,
        node: str,
        log: Log,
        machine: Machine,
        reads: Reads,
        lease_left: Callable[[str], float],
        note: Callable[[str, Key | None], Awaitable[Done]],
    ) -> None:
        self._node = node
        self._log = log
        self._machine = machine
        self._reads = reads
        self._lease_left = lease_left
        self._note = note

    async def add(self, body: Any) -> tuple[str, int]:
        """Await a new member; body `{name, raft, http}`.  Its name, and the index at which it took effect.

        Raises InvalidError, ConflictError, UnavailableError, UnknownOutcomeError, as all of these do.
        """
        fields, faults = fields_of(body, ("name", "raft", "http"))
        name = fields.get("name")
        try:
            TEXT_NAME.read(name)
        except ValueError as error:
            faults.append(Fault("/name", str(error)))
        addresses = _addresses(fields, faults, must_have=("raft",))
        refuse_any(faults)
        assert isinstance(name, str)
        assert addresses.raft is not None, "what must be there and is not is a fault"
        await self._reads.confirm()
        if self._member(name) is None:
            self._wait_for_lease(name)
            await self._note(f"member {name} to be added", None)
        return name, await self._log.add(name, addresses.raft, addresses.http, self._lives(name))

    async def remove(self, name: str) -> int:
        """The member belongs no more; the index at which it took effect.  A leader that is to go hands over first.

        Raises NotFoundError, UnsafeChangeError.
        """
        await self._reads.confirm()
        self._found(name)
        if name == self._node and self._has_other_voters():
            await self._log.transfer()
            raise UnavailableError(f"{name} has handed over the lead, so that it can go; nothing was changed yet")
        await self._note(f"member {name} to be removed", None)
        return await self._log.remove(name)

    async def replace(self, name: str, body: Any) -> int:
        """Await an empty data directory in the member's place; body `{raft, http}`, both may be left out.

        Raises NotFoundError; ConflictError while the member is alive, or may hold a lease.
        """
        fields, faults = fields_of(body, ("raft", "http"))
        addresses = _addresses(fields, faults)
        refuse_any(faults)
        await self._reads.confirm()
        member = self._found(name)
        if member.standing is not Standing.AWAITED:
            if member.connected and self._has_other_voters():
                raise ConflictError(
                    f"{name} runs, and is connected: end it first. What it holds counts no more once it is replaced"
                )
            self._wait_for_lease(name)
        if member.standing is not Standing.AWAITED or fields:
            await self._note(f"member {name} to be replaced", None)
        return await self._log.replace(name, addresses.raft, addresses.http or None, self._lives(name))

    async def transfer(self, body: Any, key: Key | None) -> Done:
        """Hand over the lead; body `{to}`, which may be left out.

        The key is kept before, since then this node can keep none: it counts as soon as another lead has begun.
        """
        fields, faults = fields_of(body, ("to",))
        to = fields.get("to")
        if to is not None and not isinstance(to, str):
            faults.append(Fault("/to", f"must be a member's name, not {kind_of(to)}"))
        refuse_any(faults)
        await self._reads.confirm()
        kept = replay(self._machine.state, key)
        if kept is not None and taken(kept).index < self._machine.state.lead_index:
            return taken(kept)
        if to == self._node:
            if key is None:
                return Done(index=self._machine.state.index)
            return await self._note(f"{to} leads already", key)
        if to is not None and self._found(to).standing is not Standing.VOTER:
            raise ConflictError(f"{to} does not vote yet, so it cannot lead: wait until it has caught up")
        if not self._has_other_voters():
            raise ConflictError(f"{self._node} is the only voter: there is nobody to hand over to")
        successor = "" if to is None else f" to {to}"
        done = await self._note(f"lead to be handed over by {self._node}{successor}", key)
        await self._log.transfer(to)
        return done

    # ---- details

    def _has_other_voters(self) -> bool:
        members = self._log.status().members
        return any(one.standing is Standing.VOTER and one.name != self._node for one in members)

    def _wait_for_lease(self, name: str) -> None:
        seconds = self._lease_left(name) if name in self._machine.state.nodes else 0
        if seconds > 0:
            raise ConflictError(
                f"{name} was heard just now: what it runs may go on for {seconds:.1f} s more. Repeat it then",
                retry_after_seconds=seconds,
            )

    def _lives(self, name: str) -> int:
        known = self._machine.state.nodes.get(name)
        return 0 if known is None else known.incarnation

    def _member(self, name: str) -> Member | None:
        return next((one for one in self._log.status().members if one.name == name), None)

    def _found(self, name: str) -> Member:
        member = self._member(name)
        if member is None:
            names = ", ".join(one.name for one in self._log.status().members)
            raise NotFoundError(f"{name[:64]!r} is not a member; the members are {names}")
        return member


def _addresses(fields: Mapping[str, Any], faults: list[Fault], must_have: Collection[str] = ()) -> Addresses:
    found: dict[str, Address] = {}
    for name in ("raft", "http"):
        value = fields.get(name)
        if value is None and name not in must_have:
            continue
        try:
            found[name] = address = ADDRESS.read(value)
        except ValueError as error:
            faults.append(Fault(f"/{name}", str(error)))
            continue
        if address.is_wildcard:
            faults.append(
                Fault(f"/{name}", f"is {shown(value)}, where nobody can be reached: say the node's own address")
            )
    if len(found) == 2 and found["raft"] == found["http"]:
        faults.append(Fault("/http", "is the address for peers: HTTP has one of its own"))
    raft = (found["raft"].host, found["raft"].port) if "raft" in found else None
    return Addresses(raft, str(found["http"]) if "http" in found else "")
