"""Clusters whose connections can be cut, in one direction or both: each node in a network namespace, or behind proxies.

    NamespacedCluster   a namespace a node, joined by a bridge in one more, where clients and receivers are.  Whoever is
                        to lose its way to a peer is given a wrong hardware address for it: packets leave and nobody
                        takes them, in that direction alone, for connections that stand and for new ones alike.
    ProxiedCluster      a TCP proxy for each ordered pair of peers, where there is no root; `not_injected` says what
                        that leaves out.

Clients and the receiver reach every node through all cuts: a node that is cut off can still do harm.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster.harness import Cluster, ReservedPorts
from tests.cluster.place import NAMESPACES, Place

PREFIX = "raftcron-test"
SUBNET = "10.77.0"
HUB = f"{SUBNET}.254"
NOBODY = "02:00:00:00:ff:ff"
CHUNK_BYTES = 65_536
UNDER_WAY_CHUNKS = 64  # at most, one way of one connection
HELD_SECONDS = 0.005  # how often a proxy looks whether a cut has been healed

_serial = itertools.count()


class CutCluster(Cluster):
    """A cluster whose nodes can be kept from hearing each other.  Cuts hold until they are healed."""

    def cut(self, sender: str, receiver: str) -> None:
        """From now on nothing goes from one node to the other; what is on its way may be lost or come late."""
        raise NotImplementedError

    def heal(self) -> None:
        """End all cuts."""
        raise NotImplementedError

    def part(self, one: Iterable[str], other: Iterable[str]) -> None:
        """Cut every pair with a node on each side, in both directions."""
        for left, right in itertools.product(one, tuple(other)):
            self.cut(left, right)
            self.cut(right, left)

    def isolate(self, name: str) -> None:
        """Cut one node off from all the others."""
        self.part([name], self.others(name))

    def others(self, name: str) -> list[str]:
        return [peer for peer in self.nodes if peer != name]


# ---- namespaces ----------------------------------------------------------------------------------------------------


def ip(*words: str, lines: Sequence[str] = ()) -> str:
    """One call of ip(8), which takes `lines` as a batch; its output.  RuntimeError with what it said if it failed."""
    command = ["ip", *words, *(["-batch", "-"] if lines else [])]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@cache
def why_no_namespaces() -> str | None:
    """None if this process can make network namespaces and move into them, else the reason."""
    if shutil.which("ip") is None:
        return "there is no ip(8)"
    name = f"{PREFIX}-{os.getpid()}-probe"
    try:
        ip(lines=[f"netns add {name}"])
        try:
            ip("-n", name, lines=["link add br0 type bridge", "link add near type veth peer name far"])
            with Place(namespace=name).entered():
                pass
        finally:
            ip(lines=[f"netns del {name}"])
    except (RuntimeError, OSError) as error:
        return str(error)
    return None


def sweep() -> None:
    """Remove what a test run that was killed has left: its namespaces, and the processes in them."""
    folder = Path(NAMESPACES)
    for path in folder.glob(f"{PREFIX}-*") if folder.exists() else ():
        pid = path.name.removeprefix(f"{PREFIX}-").partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            with suppress(RuntimeError):  # another run sweeps too
                for lost in ip("netns", "pids", path.name).split():
                    with suppress(ProcessLookupError):
                        os.kill(int(lost), signal.SIGKILL)
                ip("netns", "del", path.name)


class NamespacedCluster(CutCluster):
    """Each node in a namespace of its own; `place`, where clients and receivers are, is that of the bridge."""

    def __init__(self, folder: Path, *, size: int = 3, extra: Sequence[str] = (), **options: Any) -> None:
        super().__init__(folder, size=size, extra=["--insecure", *extra], **options)
        self._stem = f"{PREFIX}-{os.getpid()}-{next(_serial)}"
        self.place = Place(HUB, f"{self._stem}-hub")
        for number, node in enumerate(self.nodes.values(), 1):
            node.place = Place(f"{SUBNET}.{number}", f"{self._stem}-{node.name}")
        self._cuts: set[tuple[str, str]] = set()

    async def __aenter__(self) -> Self:
        sweep()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            self._remove()

    def _build(self) -> None:
        places = [self.place, *(node.place for node in self.nodes.values())]
        ip(lines=[f"netns add {place.namespace}" for place in places])
        bridge = ["link add br0 type bridge forward_delay 0", f"addr add {HUB}/24 dev br0"]
        for node in self.nodes.values():
            peer = f"peer name e0 address {self._hardware(node.name)} netns {node.place.namespace}"
            bridge += [f"link add {node.name} type veth {peer}", f"link set {node.name} master br0 up"]
        ip("-n", self.place.namespace or "", lines=[*bridge, "link set br0 up", "link set lo up"])
        for node in self.nodes.values():
            own = ["link set lo up", f"addr add {node.place.host}/24 dev e0", "link set e0 up"]
            ways = [self._way(peer, self._hardware(peer)) for peer in self.others(node.name)]
            ip("-n", node.place.namespace or "", lines=[*own, *ways])

    def _remove(self) -> None:
        for place in (self.place, *(node.place for node in self.nodes.values())):
            if Path(f"{NAMESPACES}/{place.namespace}").exists():
                ip("netns", "del", place.namespace or "")

    def _hardware(self, name: str) -> str:
        return f"02:00:00:00:00:{[*self.nodes].index(name) + 1:02x}"

    def _way(self, to: str, hardware: str) -> str:
        """The line for ip(8) that says where packets to a node go."""
        return f"neigh replace {self.nodes[to].place.host} lladdr {hardware} dev e0 nud permanent"

    def cut(self, sender: str, receiver: str) -> None:
        self._cuts.add((sender, receiver))
        ip("-n", self.nodes[sender].place.namespace or "", lines=[self._way(receiver, NOBODY)])

    def heal(self) -> None:
        while self._cuts:
            sender, receiver = self._cuts.pop()
            ip("-n", self.nodes[sender].place.namespace or "", lines=[self._way(receiver, self._hardware(receiver))])


# ---- proxies -------------------------------------------------------------------------------------------------------


class Proxies:
    """Listens once for each ordered pair, hands on what is not cut, in a thread and loop of its own."""

    def __init__(self) -> None:
        self.cuts: set[tuple[str, str]] = set()  # (from, to): what comes that way is held
        self.delay: Callable[[], float] = float  # so many seconds each chunk is on its way; none overtakes another
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies")
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.StreamWriter, frozenset[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, ways: dict[tuple[str, str], tuple[int, int]]) -> None:
        """`ways`: (dialler, peer) -> (port to listen on, port of the peer)."""
        self._thread.start()
        for (dialler, peer), (port, target) in ways.items():
            self._do(self._listen(dialler, peer, port, target)).result()

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._do(self._end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def break_connections(self, one: str, other: str) -> None:
        """Reset the connections that stand between the two; they may make new ones at once."""
        self._do(self._break(frozenset((one, other)))).result()

    def _do(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _listen(self, dialler: str, peer: str, port: int, target: int) -> None:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._connections[writer] = frozenset((dialler, peer))
            there: asyncio.StreamWriter | None = None
            try:
                await self._open((dialler, peer), (peer, dialler))
                back, there = await asyncio.open_connection("127.0.0.1", target)
                self._connections[there] = frozenset((dialler, peer))
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump((dialler, peer), reader, there))
                    both.create_task(self._pump((peer, dialler), back, writer))
            except (OSError, ExceptionGroup, asyncio.CancelledError):
                pass  # one of the two is gone: the other hears of it
            finally:
                for end in (writer, there):
                    if end is not None:
                        self._connections.pop(end, None)
                        end.transport.abort()

        self._servers.append(await asyncio.start_server(accepted, "127.0.0.1", port))

    async def _pump(self, way: tuple[str, str], source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(UNDER_WAY_CHUNKS)

        async def send() -> None:
            while data := await source.read(CHUNK_BYTES):
                await under_way.put((self._loop.time() + self.delay(), data))
            await under_way.put((0.0, b""))

        async def arrive() -> None:
            while True:
                at, data = await under_way.get()
                await asyncio.sleep(at - self._loop.time())
                await self._open(way)
                if not data:
                    raise ConnectionResetError
                sink.write(data)
                await sink.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(send())
            both.create_task(arrive())

    async def _open(self, *ways: tuple[str, str]) -> None:
        """Until none of these ways is cut."""
        while not self.cuts.isdisjoint(ways):
            await asyncio.sleep(HELD_SECONDS)

    async def _break(self, pair: frozenset[str]) -> None:
        for writer in [writer for writer, ends in self._connections.items() if ends == pair]:
            writer.transport.abort()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class ProxiedCluster(CutCluster):
    """On loopback; each node is told a proxy's address for each of its peers."""

    not_injected = (
        "HTTP between nodes goes on through every cut: writes are handed on to the leader all the same",
        "a connection to a node that is cut off stands, and is silent, instead of not coming about",
        "the port of a dead node takes a connection and ends it, instead of refusing it",
    )

    def __init__(self, folder: Path, *, size: int = 3, **options: Any) -> None:
        super().__init__(folder, size=size, **options)
        pairs = tuple(itertools.permutations(self.nodes, 2))
        self._proxy_ports = ReservedPorts(len(pairs))
        self._ways = dict(zip(pairs, self._proxy_ports.numbers, strict=True))
        self.proxies = Proxies()

    async def __aenter__(self) -> Self:
        targets = {(name, peer): (port, self.nodes[peer].raft_port) for (name, peer), port in self._ways.items()}
        self.proxies.start(targets)
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            self.proxies.stop()
            self._proxy_ports.release()

    def told(self, name: str, peer: str) -> str:
        return self.nodes[name].raft if name == peer else f"127.0.0.1:{self._ways[name, peer]}"

    def cut(self, sender: str, receiver: str) -> None:
        self.proxies.cuts.add((sender, receiver))

    def heal(self) -> None:
        self.proxies.cuts.clear()


def best_cut_cluster() -> type[CutCluster]:
    """What this machine allows."""
    return NamespacedCluster if why_no_namespaces() is None else ProxiedCluster
