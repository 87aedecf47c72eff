"""Whole engines on virtual time whose members come and go, beside all that virtual.py does and checks.

Nodes are added, removed and replaced, also such as run on; disks are lost; and every change may meet crashes, power
cuts and cuts.  A disk is lost only while no other node's loss is open: what is promised is promised for a minority.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from raftcron.errors import ConfigurationError, RaftcronError, UnknownOutcomeError
from raftcron.raft import Engine, RaftSettings
from raftcron.raft.configuration import Configuration
from tests.raft.engine_cluster import Memory
from tests.raft.virtual import STEP, Disk, Line, Network, World

ALL = ["n1", "n2", "n3", "n4", "n5"]
ADDRESSES = {name: (name, 7201) for name in ALL}


class Door(Line):
    """A line that knows its peers by name, as the transport does."""

    def __init__(self, network: Network, **given: Any) -> None:
        super().__init__(network, **given)
        self.peers = set(given["peers"])

    def set_peers(self, peers: Any) -> None:
        self.peers = set(peers)
        for gone in set(self.links) - self.peers:
            self.links.pop(gone)  # it hears nothing itself
            if (other := self.network.lines.get(gone)) is not None and other.links.pop(self.name, None) is not None:
                other.handler.on_disconnected(self.name)


class Doors(Network):
    """Whoever is not let in is told so."""

    def connect(self, a: str, b: str) -> None:
        one, other = self.lines[a], self.lines[b]
        for mine, theirs in ((one, other), (other, one)):
            assert isinstance(mine, Door)
            if (reason := mine.admit(theirs.hello())) is not None:
                if mine.name in theirs.peers:  # type: ignore[attr-defined]
                    theirs.handler.on_turned_away(mine.name, reason)
                return
            if theirs.name not in mine.peers:
                return
        super().connect(a, b)


class Churn(World):
    """A world whose members change."""

    def __init__(self, seed: int, founders: int = 3) -> None:
        super().__init__(seed, founders)
        self.told = {name: list(self.names) for name in self.names}  # whom a node's settings name; all, if not here
        self.resting: set[str] = set()  # whom nobody starts by himself
        self.network = Doors(self.loop, self.rng)
        self.newest = 0  # index of the newest configuration that a leader has applied, and
        self.members: Configuration | None = None
        self.is_changing = False
        self.wounded: str | None = None  # whose disk was lost
        self.ended: list[Engine] = []  # by themselves
        self.lingering: set[str] = set()  # disks that ran on when they had been given up
        self.ends: dict[str, list[BaseException]] = {}

    async def start(self, name: str) -> None:
        self.names = sorted({*self.names, name})
        self.disks.setdefault(name, Disk())
        settings = RaftSettings(
            name=name,
            listen=ADDRESSES[name],
            peers={peer: ADDRESSES[peer] for peer in self.told.get(name, ALL)},
            data_dir=Path("/"),
            secret=b"x",
            request_timeout=5.0,
        )
        self.machines[name], self.seen[name], self.ends[name] = Memory(), 0, []
        engine = Engine(
            settings,
            self.machines[name],
            self.loop,
            self.disks[name],
            random.Random(self.rng.random()),
            self.ends[name].append,
            make_transport=lambda **given: Door(self.network, **given),  # type: ignore[arg-type, return-value]
        )
        await engine.start()
        self.engines[name] = engine

    async def do_harm(self) -> None:
        await super().do_harm()
        if self.is_changing or self.rng.random() > 0.01:
            return
        leader = self.leader()
        if leader is None or self.members is None:
            return
        name, what = self.rng.choice(ALL), self.rng.random()
        seat = self.members.seats.get(name)
        if what < 0.15 and self.wounded is None and self.is_whole(leader):
            name = self.rng.choice(leader._membership.voters)
            self.counts["disks lost"] += 1
            self.wounded = name
            await self.lose_disk(name)
        elif self.wounded is not None:
            self.change("replaced", leader.replace(self.wounded, None, None, 0))
        elif seat is None:
            self.change("added", leader.add(name, ADDRESSES[name], "", 0))
        elif what < 0.6:
            self.change("replaced", leader.replace(name, None, None, 0))
        else:
            self.change("removed", leader.remove(name))

    def is_whole(self, leader: Engine) -> bool:
        """Whether all members vote and know it: then the loss of one disk is that of a minority."""
        newest = leader._membership.newest
        return (
            newest is not None
            and len(newest.voters) == len(newest.seats) > 2
            and all((one := self.engines.get(name)) and one._membership.settled == newest for name in newest.seats)
        )

    def leader(self) -> Engine | None:
        """One that has applied its leadership entry."""
        leading = [one for one in self.engines.values() if one.status().leading_epoch is not None]
        return max(leading, key=lambda one: one.status().term) if leading else None

    def change(self, what: str, asked: Awaitable[int]) -> None:
        async def work() -> None:
            try:
                await asked
                self.counts[what] += 1
            except UnknownOutcomeError:
                self.counts["changes unknown"] += 1
            except RaftcronError as error:
                self.counts[f"refused {error.code}"] += 1
            finally:
                self.is_changing = False

        self.is_changing = True
        self._spawn(work())

    async def step(self, faulty: bool, load: int = 3, heals: bool = True) -> None:
        if heals:
            await super().step(faulty, load)
        else:  # cuts stay as a script has made them
            self.network.step()
            await asyncio.sleep(STEP)
            self.check()
        while self.ended:
            await self.ended.pop().stop()
        if self.leader() is not None and self.members is not None:
            self.tend(self.members)

    def tend(self, members: Configuration) -> None:
        """What operators and supervisors do: whoever belongs to the cluster is started."""
        if self.wounded is not None and (self.wounded not in members.seats or members.seats[self.wounded].is_awaited):
            self.wounded = None
        for name, seat in members.seats.items():
            engine = self.engines.get(name)
            if engine is None and name not in self.resting:
                self.down_until.setdefault(name, self.loop.now + self.rng.uniform(0, 1))
            elif engine is not None and seat.is_awaited and (name, engine._journal.identity.disk_id) in members.removed:
                self.lingering.add(engine._journal.identity.disk_id)  # it goes on until it has been told

    async def rest(self, name: str) -> None:
        """It crashes, and stays down until it is started."""
        self.resting.add(name)
        await self.crash(name)

    async def during(self, work: Awaitable[Any]) -> Any:
        """Let time pass until that is done; what it gave."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await self.step(faulty=False, load=0)
        return task.result()

    async def lose_disk(self, name: str) -> None:
        if name in self.engines:
            await self.crash(name)
        self.disks[name] = Disk()
        self.names = sorted({*self.names, name})
        self.down_until[name] = self.loop.now + self.rng.uniform(0, 1)

    # ---- checks

    def check(self) -> None:
        for name, ends in self.ends.items():
            for error in ends:
                assert isinstance(error, ConfigurationError), f"{name} ends: {error!r}"
                self.counts["ends"] += 1
                self.ended.append(self.engines.pop(name))
                self.network.leave(name)
                if self.members is not None and name in self.members.seats and self.members.seats[name].is_awaited:
                    self.disks[name] = Disk()  # as its last words say
            ends.clear()
        super().check()
        for engine in self.engines.values():
            settled = engine._membership.settled
            index = engine._membership._applied_index
            if settled is None:
                continue
            if index > self.newest:
                self.newest, self.members = index, settled
            status = engine.status()
            if status.role == "leader" and status.leading_epoch is not None:
                assert engine._membership.is_voter, f"{engine._name} leads and is no voter"

    def check_matches(self, leader: str) -> None:
        """Those alone whose disk is the member's: another one under its name is somebody else."""
        seats = self.engines[leader]._membership.seats
        every = self.engines
        self.engines = {
            name: engine
            for name, engine in every.items()
            if name == leader or (name in seats and seats[name].disk == engine._journal.identity.disk_id)
        }
        try:
            super().check_matches(leader)
        finally:
            self.engines = every

    def converged(self) -> bool:
        """The members, all of whom vote, stand at one index."""
        if self.members is None or not all(seat.is_voter for seat in self.members.seats.values()):
            return False
        engines = [self.engines.get(name) for name in self.members.seats]
        indices = {
            index
            for one in engines
            if one is not None
            for index in (one.status().applied_index, one.status().last_index)
        }
        return None not in engines and len(indices) == 1

    async def settle(self, seconds: float = 30.0) -> float:
        """No more faults: whoever is wounded or removed is mended or left alone, and the members are as one."""
        begin = self.loop.now
        while not self.converged() or self.is_changing or self.wounded is not None:
            assert self.loop.now - begin < seconds, f"{self.where()}; {self.members}"
            leader = self.leader()
            if self.wounded is not None and leader is not None and not self.is_changing:
                self.change("replaced", leader.replace(self.wounded, None, None, 0))
            await self.step(faulty=False, load=0)
        needed = self.loop.now - begin
        before = len(self.acknowledged)
        while len(self.acknowledged) == before:
            assert self.loop.now - begin < seconds + 5, "nothing commits after the faults"
            self.propose(1)
            for _ in range(50):
                await self.step(faulty=False, load=0)
        for _ in range(600):
            await self.step(faulty=False, load=0)
        assert not self.tasks
        history = set(self.agreed.values())
        assert self.acknowledged <= history, f"lost: {sorted(self.acknowledged - history)[:10]}"
        assert not self.not_written & history, f"written after all: {sorted(self.not_written & history)[:10]}"
        assert self.members is not None
        histories = [self.machines[name].history for name in self.members.seats]
        assert all(one == histories[0] for one in histories)
        return needed
