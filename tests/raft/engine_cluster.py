"""Whole engines in one process: real sockets on loopback, real disks, a state machine that only remembers."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from raftcron import wire
from raftcron.clock import SystemClock
from raftcron.raft import Engine, RaftSettings, Scribe, SlicedScribe, SystemDevice
from tests.cluster.harness import ReservedPorts

SECRET = b"the cluster's secret"

_LIVES = itertools.count()  # so that no two engines draw the same


class Memory:
    """A state machine that keeps every command it was given, and counts leadership entries."""

    def __init__(self) -> None:
        self.epoch = 0
        self.history: list[tuple[int, bytes]] = []
        self.batches: list[int] = []

    def leadership(self, term: int) -> bytes:
        return b"lead %d" % term

    def apply(self, index: int, body: bytes) -> Any:
        if body.startswith(b"lead "):
            self.epoch += 1
        if body == b"poison":
            raise RuntimeError("cannot apply poison")
        self.history.append((index, body))
        return len(self.history)

    def applied(self, index: int) -> None:
        self.batches.append(index)

    def snapshot(self) -> Iterator[bytes]:
        yield wire.pack(self.epoch)
        for index, body in self.history:
            yield wire.pack([index, body])

    def restoring(self) -> Restored:
        return Restored(self)

    @property
    def commands(self) -> list[bytes]:
        return [body for _, body in self.history if not body.startswith(b"lead ")]


class Restored:
    """A snapshot on its way into a Memory."""

    def __init__(self, machine: Memory) -> None:
        self.machine = machine
        self.blocks: list[Any] = []

    def feed(self, block: bytes) -> None:
        self.blocks.append(wire.unpack(block))

    def install(self) -> None:
        self.machine.epoch, *history = self.blocks
        self.machine.history = [(index, body) for index, body in history]


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until the condition gives something true, and give that."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):
            await asyncio.sleep(0.002)
        return found


class Cluster:
    """Nodes n1, n2, ...: start, crash and start them again."""

    def __init__(self, folder: Path, count: int = 3, **settings: Any) -> None:
        self.folder = folder
        self.names = [f"n{number}" for number in range(1, count + 1)]
        self._ports: list[ReservedPorts] = []
        self.addresses = {name: self.address() for name in self.names}
        # All share a loop: what stalls one stalls all, and the end of a stall must not look like the end of a leader.
        self.settings = {"election_timeout": (1.5, 2.5), "leader_fallback": 1.5} | settings
        self.engines: dict[str, Engine] = {}
        self.machines: dict[str, Memory] = {}
        self.failures: defaultdict[str, list[BaseException]] = defaultdict(list)  # what ended a node
        self.expected: dict[str, list[BaseException]] = {}  # of these

    def address(self) -> tuple[str, int]:
        """A free one, this cluster's until `release`."""
        self._ports.append(ReservedPorts(1))
        return "127.0.0.1", self._ports[-1].numbers[0]

    def release(self) -> None:
        while self._ports:
            self._ports.pop().release()

    def make(self, name: str, scribe: Scribe | None = None, **changes: Any) -> Engine:
        settings = RaftSettings(
            **{
                "name": name,
                "listen": self.addresses.get(name),
                "peers": self.addresses,
                "data_dir": self.folder / name,
                "secret": SECRET,
            }
            | self.settings
            | changes
        )
        self.machines[name] = Memory()
        self.engines[name] = Engine(
            settings,
            self.machines[name],
            SystemClock(),
            SystemDevice(),
            random.Random(f"{name} {next(_LIVES)}"),
            self.failures[name].append,
            scribe or SlicedScribe(),
        )
        return self.engines[name]

    async def start(self, names: Iterable[str] | None = None, **changes: Any) -> None:
        for name in self.names if names is None else names:
            await self.make(name, **changes).start()

    async def stop(self, *names: str) -> None:
        for name in names or tuple(self.engines):
            await self.engines.pop(name).stop()

    def leader(self) -> str | None:
        """Who leads, with its leadership entry applied, in the highest term."""
        leading = [
            (status.term, name)
            for name, engine in self.engines.items()
            if (status := engine.status()).leading_epoch is not None
        ]
        return max(leading)[1] if leading else None

    async def until_led(self) -> Engine:
        return self.engines[await until(self.leader)]

    async def propose(self, *bodies: bytes) -> list[Any]:
        """On the leader, one after the other."""
        engine = await self.until_led()
        return [await engine.propose(body, engine.status().leading_epoch or 0) for body in bodies]

    async def until_same(self) -> None:
        """Until all that run have applied one index, the end of every log."""

        def indices() -> set[int]:
            statuses = [engine.status() for engine in self.engines.values()]
            return {index for status in statuses for index in (status.applied_index, status.last_index)}

        await until(lambda: len(indices()) == 1)

    def followers(self) -> list[str]:
        leader = self.leader()
        return [name for name in sorted(self.engines) if name != leader]


MakeCluster = Callable[..., Cluster]
