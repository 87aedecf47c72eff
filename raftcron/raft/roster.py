"""The members in the running engine: what the log says of them reaches all who have to know, and changes go into it.

membership.py knows who belongs; here that is told to engine, elections, reads and transport whenever the log says
something else, and a leader forms the cluster, seats who has come, lets learners vote, and makes changes one by one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from raftcron.errors import DamagedError, FatalError, UnavailableError, UnknownOutcomeError
from raftcron.ports import Member, Standing
from raftcron.raft import guard
from raftcron.raft.configuration import Address, is_configuration
from raftcron.raft.journal import Journal
from raftcron.raft.membership import Ground, Membership
from raftcron.raft.transport import Hello

logger = logging.getLogger(__name__)

MAX_WORD_BYTES = 64 << 10  # of a configuration; 15 members and 64 removed ones take a few KiB
RECENT_SECONDS = 1.0  # who has answered within it counts as living when members change


class Engine(Protocol):
    """What the roster has to know of the engine, and asks of it (seam.py)."""

    @property
    def applied_index(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def is_leader(self) -> bool: ...
    def match_index(self, peer: str) -> int: ...
    def answered_within(self, seconds: float) -> set[str]: ...
    def append(self, command: bytes) -> int: ...


class Roster:
    """One node's members, at work.  `spread(voters, learners, addresses)` tells those who have to know, this node left
    out; `hello_of` is what a connected peer said of itself; `is_confirmed` whether this node leads and its leadership
    entry has applied; `draw` gives random bytes; `complain(about, text)` logs a standing trouble now and then."""

    def __init__(
        self,
        name: str,
        membership: Membership,
        journal: Journal,
        *,
        spread: Callable[[list[str], list[str], dict[str, Address]], None],
        hello_of: Callable[[str], Hello | None],
        is_confirmed: Callable[[], bool],
        kick: Callable[[], None],
        draw: Callable[[int], bytes],
        complain: Callable[[str, str], None],
        send: Callable[[str, str, Any], bool],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._name = name
        self._membership = membership
        self._journal = journal
        self._spread = spread
        self._hello_of = hello_of
        self._is_confirmed = is_confirmed
        self._kick = kick
        self._draw = draw
        self._complain = complain
        self._send = send
        self._loop = loop
        self._changing: tuple[int, asyncio.Future[None]] | None = None  # entry of a change that somebody waits for

    # ---- following the log ---------------------------------------------------------------------------------------

    def recall(self, snapshot: tuple[int, bytes] | None, data_dir: str) -> None:
        """At start: what the snapshot and the journal say.  Raises as membership does, and DamagedError."""
        if snapshot is not None:
            self._membership.restore(*snapshot)
            self._remember()  # the process may have ended between the install and this
        begin = 1 if snapshot is None else snapshot[0] + 1
        self._membership.received(begin, self._entries(begin))
        if self._journal.identity.cluster_id is None:
            return
        if snapshot is None:  # what gave the cluster its id has applied: nobody need wait to hear that it does not fit
            formed = next((index for command, index, _ in self._entries(1) if is_configuration(command)), None)
            if formed is not None:
                self._membership.apply(formed)
        if self._membership.newest is None:
            raise DamagedError(
                f"the journal in {data_dir} belongs to cluster {self._journal.identity.cluster_id}, but neither log "
                f"nor snapshot says who its members are. Keep the directory, and run, on this machine: "
                f"raftcron cluster replace {self._name} --data-dir {data_dir}"
            )

    def _entries(self, begin: int) -> Iterator[tuple[bytes, int, int]]:
        first = self._journal.first_index
        for place in range(max(begin - first, 0), len(self._journal)):
            yield self._journal[place]

    def received(self, begin: int) -> None:
        """The log holds entries of the leader from `begin` on, perhaps in place of others."""
        if self._membership.received(begin, self._entries(begin)):
            self.tell()

    def restored(self, index: int, configuration: bytes) -> None:
        """A snapshot has taken the place of the log up to `index`."""
        self._membership.cut_from(index + 1)
        self._membership.restore(index, configuration)
        self._remember()
        self.tell()

    def applied(self, index: int) -> None:
        """The configuration entry of this index is committed."""
        self._membership.apply(index)
        self._remember()
        self.tell()
        logger.info("raft_members node=%s index=%d voters=%s", self._name, index, ",".join(self._membership.voters))
        for peer in self._membership.addresses:
            self.greet(peer)
        if self._changing is not None and self._changing[0] == index:
            self._end_change(None)

    def greet(self, peer: str) -> None:
        """Tell a peer who the members are: if it is behind, the leader may be one that it does not know."""
        if peer == self._name:
            return
        for index, configuration in self._membership.words:
            self._send(peer, "members", {"index": index, "configuration": configuration})

    def on_members(self, _peer: str, message: Any) -> None:
        """What another one's `greet` says.  Raises BadMessageError."""
        content = guard.fields(message)
        index, configuration = guard.number(content, "index", 1), guard.blob(content, "configuration", MAX_WORD_BYTES)
        try:
            if self._membership.hear(index, configuration):
                self.tell()
        except FatalError as error:
            raise guard.BadMessageError(f"configuration: {error.detail}") from error

    def _remember(self) -> None:
        if (cluster_id := self._membership.cluster_id) is not None:
            self._journal.set_cluster_id(cluster_id)

    def tell(self) -> None:
        """Who votes, who learns and where they are, to all who have to know."""
        membership = self._membership
        self._spread(membership.voters, membership.learners, membership.addresses)

    def members(self, core: Engine, connected: Callable[[str], bool]) -> tuple[Member, ...]:
        """All members as this node sees them now."""
        found = []
        addresses = self._membership.addresses
        is_formed = self._membership.newest is not None
        for name, seat in self._membership.seats.items():
            is_self = name == self._name
            matched = (core.last_index if is_self else core.match_index(name)) if core.is_leader else None
            standing = Standing.VOTER if seat.is_voter else Standing.LEARNER
            if seat.is_awaited and is_formed:
                standing = Standing.AWAITED
            host, port = addresses.get(name, ("", 0))
            found.append(Member(name, f"{host}:{port}", is_self or connected(name), matched, standing, seat.http))
        return tuple(found)

    # ---- a leader's entries --------------------------------------------------------------------------------------

    def form(self, core: Engine) -> bool:
        """The first entry of a cluster that has none; False: not all founders are known yet."""
        if self._membership.newest is None:
            if unknown := self._membership.unknown():
                self._complain("formation", f"leads, and waits for {', '.join(unknown)} to form a cluster")
                return False
            self._append(core, self._membership.form(self._draw(8).hex()))
        return True

    def beat(self, core: Engine) -> None:
        """A heartbeat has passed on the leader: seat who has come, let vote who has caught up."""
        due = self._membership.due(self._ground(core), self._hello_of, core.match_index, core.commit_index)
        if due is not None:
            self._append(core, due)

    def _ground(self, core: Engine) -> Ground:
        """An election, or a seat, counts as an answer for the engine; what somebody acknowledged was said by itself."""
        heard = core.answered_within(RECENT_SECONDS)
        return Ground(self._is_confirmed(), {name for name in heard if core.match_index(name) > 0})

    def _append(self, core: Engine, command: bytes) -> int:
        index = core.append(command)
        self._membership.see(index, command)
        self.tell()
        self._kick()
        return index

    async def change(self, core: Engine, make: Callable[[Ground], bytes | None], seconds: float) -> int:
        """Commit the configuration entry that `make` gives; nothing if it gives none.  The index of it, or of now.

        Raises what `make` raises and UnavailableError: certainly not written.  UnknownOutcomeError: it may be written.
        """
        if self._changing is not None:
            raise UnavailableError("another change of the members is under way; repeat it a little later")
        command = make(self._ground(core))
        if command is None:
            return core.applied_index
        future: asyncio.Future[None] = self._loop.create_future()
        index = self._append(core, command)
        self._changing = (index, future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            raise _unknown() from None
        finally:
            self._changing = None
        return index

    def leads_no_more(self) -> None:
        """Nobody tells any more what becomes of a change that is under way."""
        self._end_change(_unknown())

    def _end_change(self, error: Exception | None) -> None:
        if self._changing is None or self._changing[1].done():
            return
        if error is None:
            self._changing[1].set_result(None)
        else:
            self._changing[1].set_exception(error)


def _unknown() -> UnknownOutcomeError:
    return UnknownOutcomeError(
        "no quorum confirmed the change of the members in time: it may be written, now or later; "
        "look at the members, and repeat it if need be"
    )
