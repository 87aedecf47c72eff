"""MemoryLog: a replicated log among state machines of one process, without Raft; keeps the promises of ports.Log.

A MemoryCluster holds the entries; each node that joins it gets a MemoryLog.  Nothing is elected by itself and nothing
fails by itself: a test says `elect`, `depose`, `cut`, `lag` or `next_answer`.  Time does not matter here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from raftcron.errors import UnavailableError, UnknownOutcomeError
from raftcron.ports import Applied, LogStatus, Member, Role, StateMachine

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
            members=tuple(
                Member(name, f"{name}:7201", self.cluster.has_quorum, log.applied_index if leads else None)
                for name, log in sorted(self.cluster.logs.items())
            ),
        )

    def send(self, peer: str, kind: str, message: Any) -> bool:
        """Delivered with the loop's next turn."""
        receiver = self.cluster.logs.get(peer)
        handler = None if receiver is None else receiver._handlers.get(kind)
        if handler is None or not self.cluster.has_quorum:
            return False
        asyncio.get_running_loop().call_soon(handler, self.name, message)
        return True

    def on_message(self, kind: str, handler: Callable[[str, Any], None]) -> None:
        self._handlers[kind] = handler

    def on_leadership(self, handler: Callable[[int | None], None]) -> None:
        self._on_leadership.append(handler)

    async def transfer(self, to: str | None = None) -> None:
        """Hand over to `to`, or to the first of the others by name."""
        others = [name for name in sorted(self.cluster.logs) if name != self.name]
        if to is None and not others:
            raise UnavailableError("there is nobody to hand over to")
        self.cluster.elect(to or others[0])
