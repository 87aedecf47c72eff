"""MemoryLog: a replicated log among state machines of one process, without Raft; keeps the promises of ports.Log.

A MemoryCluster holds the entries; each node that joins it gets a MemoryLog.  Nothing is elected by itself and nothing
fails by itself: a test says `elect`, `depose`, `cut`, `lag`, `restore` or `next_answer`.  Time does not matter here.
What may change of the members is the shipped rule (raft/membership.py); who is awaited comes, and votes, when a test
says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from raftcron.errors import MalformedError, UnavailableError, UnknownOutcomeError
from raftcron.ports import Applied, LogStatus, Member, Role, Standing, StateMachine
from raftcron.raft.configuration import Configuration, Seat, decode, encode
from raftcron.raft.membership import Ground, Membership

Answer = Literal["applied", "unavailable", "unknown", "unknown_written"]


class MemoryCluster:
    """The entries, and who has applied how many of them.  The first entry has index 1."""

    def __init__(self, cluster_id: str = "memory") -> None:
        self.cluster_id = cluster_id
        self.entries: list[bytes] = []
        self.logs: dict[str, MemoryLog] = {}
        self.leader: str | None = None
        self.term = 0
        self.has_quorum = True
        self.silent: set[str] = set()  # members that do not answer, and are not connected
        self._members: Configuration | None = None  # once they have changed; until then all logs vote

    def join(self, name: str, machine: StateMachine, incarnation: int = 1) -> MemoryLog:
        """A further node, which has applied nothing yet; call `catch_up` on its log to let it."""
        self.logs[name] = log = MemoryLog(self, name, machine, incarnation)
        return log

    def elect(self, name: str) -> None:
        """This node leads in a new term; its leadership entry is committed and applied where nobody lags."""
        self.depose()
        self.term += 1
        self.leader = name
        leader = self.logs[name]
        leader.is_lagging = False
        leader.catch_up()
        self.append(leader.machine.leadership(self.term))
        leader.leads(leader.machine.epoch)

    def depose(self) -> None:
        """Nobody leads."""
        if self.leader is not None:
            former, self.leader = self.logs[self.leader], None
            former.leads(None)

    def cut(self) -> None:
        """No majority is reachable until `heal`: nothing commits, no read is confirmed."""
        self.has_quorum = False

    def heal(self) -> None:
        self.has_quorum = True

    @property
    def members(self) -> Configuration:
        """Who belongs to the cluster."""
        if self._members is not None:
            return self._members
        seats = {name: Seat(f"disk of {name}", (name, 7201), is_voter=True) for name in sorted(self.logs)}
        return Configuration(self.cluster_id, seats)

    def change(self, make: Callable[[Membership, Ground], bytes | None]) -> None:
        """What `make` says, as the leader would do it."""
        if self.leader is None:
            raise UnavailableError("there is no leader")
        peers = {name: (name, 7201) for name in (*self.members.seats, self.leader)}
        membership = Membership(self.leader, peers, f"disk of {self.leader}", None)
        membership.restore(1, encode(self.members))
        answered = set(self.members.seats) - self.silent if self.has_quorum else ()
        command = make(membership, Ground(True, answered))
        if command is not None:
            self._members = decode(command)

    def come(self, name: str) -> None:
        """The awaited member has come with an empty directory, and learns."""
        self._members = self.members.learned(name, f"another disk of {name}")

    def promote(self, name: str) -> None:
        """The learner has caught up, and votes."""
        self._members = self.members.promoted(name)

    def append(self, body: bytes) -> int:
        """Commit an entry; its index."""
        self.entries.append(body)
        for log in self.logs.values():
            log.catch_up()
        return len(self.entries)


class MemoryLog:
    """One node's end of a MemoryCluster; implements ports.Log."""

    def __init__(self, cluster: MemoryCluster, name: str, machine: StateMachine, incarnation: int) -> None:
        self.cluster = cluster
        self.name = name
        self.machine = machine
        self.incarnation = incarnation
        self.applied_index = 0
        self.bad_messages = 0  # that a handler could not read
        self.is_lagging = False  # entries are held back from this node
        self.knows_leader = True
        self.next_answer: Answer = "applied"  # of the next proposal alone
        self.stall: asyncio.Event | None = None  # proposals wait for it before anything is written
        self.proposals = 0
        self._leading_epoch: int | None = None
        self._outcomes: dict[int, Any] = {}
        self._advanced = asyncio.Event()
        self._handlers: dict[str, Callable[[str, Any], None]] = {}
        self._on_leadership: list[Callable[[int | None], None]] = []

    # ---- what tests say

    def lag(self) -> None:
        """From now on this node applies nothing, until `resume`."""
        self.is_lagging = True

    def resume(self) -> None:
        self.is_lagging = False
        self.catch_up()

    def catch_up(self) -> None:
        """Apply what this node has not applied."""
        if self.is_lagging or self.applied_index == len(self.cluster.entries):
            return
        self._outcomes.clear()
        while self.applied_index < len(self.cluster.entries):
            self.applied_index += 1
            self._outcomes[self.applied_index] = self.machine.apply(
                self.applied_index, self.cluster.entries[self.applied_index - 1]
            )
        self.machine.applied(self.applied_index)
        self._tell_waiters()

    def restore(self, other: MemoryLog) -> None:
        """Bring this node, also one that lags, to where another stands: by a snapshot, not by the entries between."""
        restoring = self.machine.restoring()
        for block in other.machine.snapshot():
            restoring.feed(block)
        restoring.install()
        self._outcomes.clear()
        self.applied_index = other.applied_index
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        self._advanced.set()
        self._advanced = asyncio.Event()

    def leads(self, epoch: int | None) -> None:
        self._leading_epoch = epoch
        for handler in self._on_leadership:
            handler(epoch)

    # ---- ports.Log

    @property
    def leading_epoch(self) -> int | None:
        return self._leading_epoch

    async def propose(self, body: bytes, epoch: int) -> Applied:
        self.proposals += 1
        answer, self.next_answer = self.next_answer, "applied"
        if self.stall is not None:
            await self.stall.wait()
        await asyncio.sleep(0)
        if answer == "unavailable" or epoch != self._leading_epoch:
            raise UnavailableError(f"node {self.name} does not lead: nothing was written")
        if answer == "unknown" or not self.cluster.has_quorum:
            raise UnknownOutcomeError("no quorum confirmed the command: it may be written")
        index = self.cluster.append(body)
        outcome = self._outcomes[index]
        if answer == "unknown_written":
            raise UnknownOutcomeError("no quorum confirmed the command in time: it may be written")
        return Applied(index, outcome)

    async def read_index(self) -> int:
        await asyncio.sleep(0)
        if not self.cluster.has_quorum or self.cluster.leader is None or not self.knows_leader:
            raise UnavailableError("no majority confirmed the lead")
        index = len(self.cluster.entries)
        while self.applied_index < index:
            await self._advanced.wait()
        return index

    def status(self) -> LogStatus:
        leader = self.cluster.leader if self.knows_leader else None
        leads = leader == self.name
        return LogStatus(
            cluster_id=self.cluster.cluster_id,
            role=Role.LEADER if leads else Role.FOLLOWER if leader is not None else Role.CANDIDATE,
            leader=leader,
            term=self.cluster.term,
            commit_index=len(self.cluster.entries) if not self.is_lagging else self.applied_index,
            applied_index=self.applied_index,
            last_index=len(self.cluster.entries),
            leading_epoch=self._leading_epoch,
            members=tuple(self._member(name, seat, leads) for name, seat in self.cluster.members.seats.items()),
        )

    def _member(self, name: str, seat: Seat, leads: bool) -> Member:
        log = self.cluster.logs.get(name)
        host, port = seat.raft or ("", 0)
        is_connected = self.cluster.has_quorum and log is not None and name not in self.cluster.silent
        standing = Standing.VOTER if seat.is_voter else Standing.AWAITED if seat.is_awaited else Standing.LEARNER
        match_index = log.applied_index if leads and log is not None else None
        return Member(name, f"{host}:{port}", is_connected, match_index, standing, seat.http)

    def send(self, peer: str, kind: str, message: Any) -> bool:
        """Delivered with the loop's next turn."""
        receiver = self.cluster.logs.get(peer)
        handler = None if receiver is None else receiver._handlers.get(kind)
        if receiver is None or handler is None or not self.cluster.has_quorum:
            return False
        asyncio.get_running_loop().call_soon(receiver._take, handler, self.name, message)
        return True

    def _take(self, handler: Callable[[str, Any], None], peer: str, message: Any) -> None:
        try:
            handler(peer, message)
        except MalformedError:
            self.bad_messages += 1

    def on_message(self, kind: str, handler: Callable[[str, Any], None]) -> None:
        self._handlers[kind] = handler

    def on_leadership(self, handler: Callable[[int | None], None]) -> None:
        self._on_leadership.append(handler)

    async def add(self, name: str, raft: tuple[str, int], http: str, lives: int) -> int:
        return await self._change(lambda members, ground: members.add(name, raft, http, lives, ground))

    async def remove(self, name: str) -> int:
        return await self._change(lambda members, ground: members.remove(name, ground))

    async def replace(self, name: str, raft: tuple[str, int] | None, http: str | None, lives: int) -> int:
        return await self._change(lambda members, ground: members.replace(name, raft, http, lives, ground))

    async def _change(self, make: Callable[[Membership, Ground], bytes | None]) -> int:
        await asyncio.sleep(0)
        if self._leading_epoch is None:
            raise UnavailableError(f"node {self.name} does not lead: nothing was written")
        answer, self.next_answer = self.next_answer, "applied"
        if answer == "unavailable":
            raise UnavailableError("nothing was written")
        if answer != "unknown":
            self.cluster.change(make)
        if answer != "applied":
            raise UnknownOutcomeError("no quorum confirmed the change in time: it may be written")
        return self.applied_index

    async def transfer(self, to: str | None = None) -> None:
        """Hand over to `to`, or to the first of the others by name."""
        others = [name for name in self.cluster.members.voters if name != self.name]
        if to is None and not others:
            raise UnavailableError("there is nobody to hand over to")
        self.cluster.elect(to or others[0])
