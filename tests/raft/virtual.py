"""Whole engines on virtual time: the real adapter, guard and journal, with clock, sockets and disks in memory.

A `World` runs three or more nodes on a loop whose time jumps to the next timer.  Messages travel FIFO per connection,
as TCP's do: a cut holds them, a break loses what is in flight.  A crash loses what was not synced.  After each step
of 10 ms it checks that

  - all nodes applied one history, and no leader counts on an entry that a follower does not hold durably;
  - no term has two leaders, and a linearizable read misses nothing that was acknowledged before it began;

and at the end that every acknowledged command is there, none that was answered "not written", and that all nodes
stand at one index.  The seed decides everything.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from raftcron import wire
from raftcron.errors import UnavailableError, UnknownOutcomeError
from raftcron.raft import Engine, RaftSettings
from raftcron.raft.transport import Hello
from tests.raft.engine_cluster import Memory

STEP = 0.01
RESOLUTION = 1e-6  # of the clock: a timer may come so much early


class _NoSelector(selectors.SelectSelector):
    """Nothing ever arrives from outside; waiting is moving the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits and no timer is set")
        self._loop.now += max(timeout, 0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on virtual time; its clock serves as the nodes' clock too."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_NoSelector(self))
        self._clock_resolution = RESOLUTION

    def time(self) -> float:
        return self.now

    wall = boot = monotonic = time


class Disk:
    """What one node's device keeps: satisfies `Device`, forgets what was not synced when `crashed` copies it."""

    def __init__(self) -> None:
        self.files: dict[Path, bytearray] = {}
        self.synced: dict[Path, bytes] = {}
        self.open: dict[int, Path] = {}
        self.syncs = 0
        self._handles = itertools.count(1)

    def crashed(self) -> Disk:
        disk = Disk()
        disk.synced = dict(self.synced)
        disk.files = {path: bytearray(data) for path, data in self.synced.items()}
        return disk

    def make_directory(self, path: Path) -> None: ...

    def lock(self, path: Path) -> int:
        return 0

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in self.files]

    def read(self, path: Path, limit: int = -1) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return bytes(self.files[path] if limit < 0 else self.files[path][:limit])

    def create(self, path: Path) -> int:
        self.files[path] = bytearray()
        return self.append(path)

    def append(self, path: Path) -> int:
        handle = next(self._handles)
        self.open[handle] = path
        return handle

    def write(self, handle: int, data: bytes) -> None:
        self.files[self.open[handle]] += data

    def sync(self, handle: int) -> None:
        self.syncs += 1
        path = self.open[handle]
        self.synced[path] = bytes(self.files[path])

    def open_directory(self, path: Path) -> int:
        return next(self._handles)

    def sync_directory(self, directory: Path | int) -> None: ...

    def truncate(self, handle: int, length: int) -> None:
        del self.files[self.open[handle]][length:]

    def remove(self, path: Path) -> None:
        del self.files[path]

    def close(self, handle: int) -> None:
        self.open.pop(handle, None)


class Line:
    """One end of the network: satisfies what the engine uses of `Transport`."""

    def __init__(self, network: Network, **settings: Any) -> None:
        self.network = network
        self.hello: Callable[[], Hello] = settings["hello"]
        self.handler = settings["handler"]
        self.admit: Callable[[Hello], str | None] = settings["admit"]
        self.name = self.hello().name
        self.links: dict[str, int] = {}  # peer -> number of the connection
        self.heard: dict[str, Hello] = {}
        self.refusals: dict[str, str] = {}

    async def start(self) -> None:
        self.network.lines[self.name] = self

    async def stop(self) -> None:
        self.network.leave(self.name)

    def set_peers(self, peers: Any) -> None:
        """Members are static here."""

    def connected(self, peer: str) -> bool:
        return peer in self.links

    def hello_of(self, peer: str) -> Hello | None:
        return self.heard.get(peer) if peer in self.links else None

    def send(self, peer: str, kind: str, message: Any) -> bool:
        if peer not in self.links:
            return False
        self.network.post(self.name, peer, self.links[peer], wire.pack([kind, message]))
        return True


class Network:
    """Connections between the lines that are up, with delays, cuts and breaks."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.lines: dict[str, Line] = {}
        self.cuts: dict[frozenset[str], float] = {}
        self.numbers = itertools.count(1)
        self.queues: dict[tuple[str, str, int], deque[tuple[float, bytes]]] = {}
        self.delivered = 0
        self.delay: Callable[[], float] = self._draw_delay  # of each message, in seconds
        self.ways: dict[frozenset[str], float] = {}  # between these two each message takes so many seconds instead

    def _draw_delay(self) -> float:
        return self.rng.uniform(0.0005, 0.02) * (10 if self.rng.random() < 0.02 else 1)

    def post(self, source: str, target: str, number: int, data: bytes) -> None:
        queue = self.queues.setdefault((source, target, number), deque())
        way = self.ways.get(frozenset((source, target)))
        arrival = max(self.loop.now + (self.delay() if way is None else way), queue[-1][0] if queue else 0.0)
        queue.append((arrival, data))
        self.loop.call_at(arrival if way is None else arrival + RESOLUTION, self.pump, source, target, number)

    def pump(self, source: str, target: str, number: int) -> None:
        """Deliver all that is due on one connection, as one batch."""
        queue = self.queues.get((source, target, number))
        if queue is None or frozenset((source, target)) in self.cuts:
            return
        line = self.lines.get(target)
        delivered = False
        while queue and queue[0][0] <= self.loop.now and line is not None and line.links.get(source) == number:
            kind, message = wire.unpack(queue.popleft()[1])
            self.delivered += 1
            delivered = True
            line.handler.on_message(source, kind, message)
        if delivered and line is not None:
            line.handler.on_batch_end()

    def heal(self) -> None:
        self.cuts.clear()
        for key in list(self.queues):
            self.pump(*key)

    def connect(self, a: str, b: str) -> None:
        """Both greet, and come in if both are admitted; else both know why not."""
        one, other = self.lines[a], self.lines[b]
        for mine, theirs in ((one, other), (other, one)):
            if (reason := mine.admit(theirs.hello())) is not None:
                mine.refusals[theirs.name] = theirs.refusals[mine.name] = reason
                return
        self.disconnect(a, b)
        number = next(self.numbers)
        for mine, theirs in ((one, other), (other, one)):
            mine.heard[theirs.name] = theirs.hello()
            mine.links[theirs.name] = number
        for mine, theirs in ((one, other), (other, one)):
            mine.handler.on_connected(theirs.name)

    def disconnect(self, a: str, b: str) -> None:
        for mine, theirs in ((a, b), (b, a)):
            line = self.lines.get(mine)
            number = line.links.pop(theirs, None) if line is not None else None
            if line is not None and number is not None:
                self.queues.pop((mine, theirs, number), None)
                self.queues.pop((theirs, mine, number), None)
                line.handler.on_disconnected(theirs)

    def leave(self, name: str) -> None:
        """Its process is gone: the others see the end of their connections, and that nobody listens any more."""
        line = self.lines.pop(name, None)
        if line is None:
            return
        for peer in list(line.links):
            self.disconnect(peer, name)
            if peer in self.lines and frozenset((peer, name)) not in self.cuts:
                self.loop.call_later(0.001, self.lines[peer].handler.on_refused, name)

    def step(self) -> None:
        for a, b in itertools.combinations(sorted(self.lines), 2):
            cut_at = self.cuts.get(frozenset((a, b)))
            if cut_at is not None:
                if self.loop.now - cut_at > 3.5:
                    self.disconnect(a, b)
            elif not self.lines[a].connected(b) and self.rng.random() < 0.2:
                self.connect(a, b)


class World:
    """Nodes, faults, load and checks, all from one seed."""

    def __init__(self, seed: int, count: int = 3) -> None:
        self.loop = VirtualLoop()
        self.rng = random.Random(seed)
        self.network = Network(self.loop, self.rng)
        self.names = [f"n{number}" for number in range(1, count + 1)]
        self.disks = {name: Disk() for name in self.names}
        self.engines: dict[str, Engine] = {}
        self.machines: dict[str, Memory] = {}
        self.down_until: dict[str, float] = {}
        self.failures: list[BaseException] = []
        self.agreed: dict[int, bytes] = {}
        self.seen: dict[str, int] = {}
        self.leaders: dict[int, str] = {}
        self.values = itertools.count(1)
        self.acknowledged: set[bytes] = set()
        self.not_written: set[bytes] = set()
        self.unknown: set[bytes] = set()
        self.highest = 0  # index of what has been acknowledged
        self.counts: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()

    def run(self, story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._run(story))
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    async def _run(self, story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        try:
            for name in self.names:
                await self.start(name)
            await story(self)
        finally:
            for engine in self.engines.values():
                self.counts += engine._core.passes
                await engine.stop()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def start(self, name: str) -> None:
        settings = RaftSettings(
            name=name,
            listen=("memory", 1),
            peers=dict.fromkeys(self.names, ("memory", 1)),
            data_dir=Path("/"),
            secret=b"x",
            request_timeout=5.0,
        )
        self.machines[name] = Memory()
        self.seen[name] = 0
        engine = Engine(
            settings,
            self.machines[name],
            self.loop,
            self.disks[name],
            random.Random(self.rng.random()),
            self.failures.append,
            make_transport=lambda **given: Line(self.network, **given),  # type: ignore[arg-type, return-value]
        )
        await engine.start()
        self.engines[name] = engine

    async def crash(self, name: str) -> None:
        """The process is gone; its disk keeps what was synced."""
        self.counts["crashes"] += 1
        engine = self.engines.pop(name)
        self.counts += engine._core.passes
        self.disks[name], old = self.disks[name].crashed(), self.disks[name]
        self.network.leave(name)
        await engine.stop()  # on the old disk, which nobody reads again
        del old

    # ---- one step ------------------------------------------------------------------------------------------------

    async def step(self, faulty: bool, load: int = 3) -> None:
        if faulty:
            await self.do_harm()
        else:
            self.network.heal()
        for name in [name for name, until in self.down_until.items() if until < self.loop.now or not faulty]:
            del self.down_until[name]
            await self.start(name)
        self.network.step()
        self.propose(load)
        if load and self.engines and self.rng.random() < 0.2:
            self._spawn(self._read(self.engines[self.rng.choice(sorted(self.engines))]))
        await asyncio.sleep(STEP)
        self.check()

    async def do_harm(self) -> None:
        rng = self.rng
        if rng.random() < 0.004 and (victim := rng.choice(self.names)) in self.engines:
            await self.crash(victim)
            self.down_until[victim] = self.loop.now + rng.uniform(0.1, 5)
        if rng.random() < 0.001:
            for victim in sorted(self.engines):
                await self.crash(victim)
                self.down_until[victim] = self.loop.now + rng.uniform(0.1, 2)
            self.counts["power cuts"] += 1
        if rng.random() < 0.004:
            self.network.cuts[frozenset(rng.sample(self.names, 2))] = self.loop.now
            self.counts["cuts"] += 1
        if rng.random() < 0.003:
            alone = rng.choice(self.names)
            self.network.cuts.update({frozenset((alone, peer)): self.loop.now for peer in self.names if peer != alone})
            self.counts["isolations"] += 1
        if rng.random() < 0.008:
            self.network.heal()

    def propose(self, count: int) -> None:
        for name in sorted(self.engines):
            epoch = self.engines[name].status().leading_epoch
            if epoch is not None:
                for _ in range(count):
                    self._spawn(self._propose(self.engines[name], b"%d" % next(self.values), epoch))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    async def _read(self, engine: Engine) -> None:
        acknowledged = self.highest
        try:
            index = await engine.read_index()
        except UnavailableError:
            self.counts["reads refused"] += 1
        else:
            self.counts["reads"] += 1
            assert index >= acknowledged, f"a read at {index} misses an earlier acknowledgement at {acknowledged}"
            assert engine.status().applied_index >= index, "a read was answered before its index had applied"

    async def _propose(self, engine: Engine, body: bytes, epoch: int) -> None:
        try:
            applied = await engine.propose(body, epoch)
        except UnavailableError:
            self.not_written.add(body)
        except UnknownOutcomeError:
            self.unknown.add(body)
        else:
            self.acknowledged.add(body)
            self.highest = max(self.highest, applied.index)
            assert self.agreed.setdefault(applied.index, body) == body, f"{body!r} was acknowledged at {applied.index}"

    # ---- checks --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        assert not self.failures, self.failures
        for name, machine in self.machines.items():
            if name in self.engines:
                for index, body in machine.history[self.seen[name] :]:
                    assert self.agreed.setdefault(index, body) == body, f"{name} applied {body!r} at {index}"
                self.seen[name] = len(machine.history)
        statuses = {name: engine.status() for name, engine in self.engines.items()}
        leading = [(status.term, name) for name, status in statuses.items() if status.role == "leader"]
        for term, name in leading:
            assert self.leaders.setdefault(term, name) == name, f"{name} and {self.leaders[term]} lead term {term}"
        if leading:
            self.check_matches(max(leading)[1])

    def check_matches(self, leader: str) -> None:
        log = self.engines[leader]._journal
        for member in self.engines[leader].status().members:
            follower = self.engines.get(member.name)
            if follower is None or member.name == leader or not member.match_index:
                continue
            theirs = follower._journal
            assert theirs.synced_index >= member.match_index, f"{member} is counted for what it has not synced"
            place = member.match_index - 1
            assert theirs[place] == log[place], f"{member} is counted for an entry that it does not hold"

    def converged(self) -> bool:
        indices = {
            i for engine in self.engines.values() for i in (engine.status().applied_index, engine.status().last_index)
        }
        return len(self.engines) == len(self.names) and len(indices) == 1

    async def settle(self, seconds: float = 30.0) -> float:
        """No more faults, no load: the virtual seconds until all stand at one index and have a leader that commits."""
        begin = self.loop.now
        while not (self.converged() and any(e.status().leading_epoch is not None for e in self.engines.values())):
            assert self.loop.now - begin < seconds, self.where()
            await self.step(faulty=False, load=0)
        needed = self.loop.now - begin
        before = len(self.acknowledged)
        self.propose(1)
        for _ in range(100):
            await self.step(faulty=False, load=0)
        assert len(self.acknowledged) > before, "nothing commits after the faults"
        for _ in range(600):  # until all have been answered
            await self.step(faulty=False, load=0)
        assert self.converged(), self.where()
        assert not self.tasks
        history = set(self.agreed.values())
        assert self.acknowledged <= history, f"lost: {sorted(self.acknowledged - history)[:10]}"
        assert not self.not_written & history, f"written after all: {sorted(self.not_written & history)[:10]}"
        assert [m.history for m in self.machines.values()].count(self.machines["n1"].history) == len(self.names)
        return needed

    def where(self) -> str:
        return ", ".join(
            f"{name} {status.role} term {status.term} applied {status.applied_index} of {status.last_index}"
            for name, status in sorted((name, engine.status()) for name, engine in self.engines.items())
        )
