"""What tests of the transport are made of: nodes that write down what they hear, roads that break, scripted peers."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from raftcron import wire
from raftcron.clock import Clock, SystemClock
from raftcron.raft.bounds import TransportSettings
from raftcron.raft.greeting import HELLO, READY, Hello
from raftcron.raft.handshake import Seal, Session, derive_key, dial
from raftcron.raft.tls import PeerTls
from raftcron.raft.transport import Transport

QUICK = TransportSettings(retry_min_seconds=0.01, retry_max_seconds=0.05)


async def eventually(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Returns when the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


class Node:
    """A transport with a handler that writes down what it is told."""

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.secret: bytes = options.get("secret", b"secret")
        self.settings: TransportSettings = options.get("settings", QUICK)
        self.tls: PeerTls | None = options.get("tls")
        self.admit: Callable[[Hello], str | None] = options.get("admit", lambda hello: None)
        self.clock: Clock = options.get("clock") or SystemClock()
        self.disk_id: str = options.get("disk_id", f"disk of {name}")
        self.incarnation = 0
        self.peers: dict[str, tuple[str, int]] = {}
        self.port = 0
        self.turned_away: list[tuple[str, str]] = []
        self.events: list[tuple[Any, ...]] = []
        self.batches = 0

    async def start(self) -> None:
        self.incarnation += 1
        self.transport = Transport(
            hello=lambda: Hello(self.name, self.disk_id, None, self.incarnation, True),
            listen=("127.0.0.1", self.port),
            peers=self.peers,
            secret=self.secret,
            handler=self,
            clock=self.clock,
            admit=lambda hello: self.admit(hello),
            draw=os.urandom,
            settings=self.settings,
            tls=self.tls,
        )
        await self.transport.start()
        self.port = self.transport.bound_port

    def meet(self, name: str, port: int, host: str = "127.0.0.1") -> None:
        """Have a peer of this address; port 1 answers nobody."""
        self.peers[name] = (host, port)
        if hasattr(self, "transport"):
            self.transport.set_peers(self.peers)

    def part(self, name: str) -> None:
        """Have this peer no more."""
        del self.peers[name]
        self.transport.set_peers(self.peers)

    @property
    def messages(self) -> list[Any]:
        return [event[2] for event in self.events if event[0] == "message"]

    def count(self, *event: Any) -> int:
        return self.events.count(event)

    def on_connected(self, peer: str) -> None:
        self.events.append(("connected", peer))

    def on_disconnected(self, peer: str) -> None:
        self.events.append(("disconnected", peer))

    def on_refused(self, peer: str) -> None:
        self.events.append(("refused", peer))

    def on_turned_away(self, peer: str, reason: str) -> None:
        self.turned_away.append((peer, reason))

    def on_message(self, peer: str, kind: str, message: Any) -> None:
        assert kind == "test"
        self.events.append(("message", peer, message))

    def on_batch_end(self) -> None:
        self.batches += 1


class Road:
    """A TCP proxy: what travels on it can be held, changed and cut."""

    def __init__(self) -> None:
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.pairs: list[Pair] = []

    async def open(self, port: int) -> None:
        self.target = port
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = Pair(self, writer, far_writer)
        self.pairs.append(pair)
        await asyncio.gather(pair.carry(0, reader, far_writer), pair.carry(1, far_reader, writer))

    async def close(self) -> None:
        self.server.close()
        for pair in self.pairs:
            pair.cut()
        await asyncio.sleep(0)


class Pair:
    """One connection over a road."""

    def __init__(self, road: Road, *writers: asyncio.StreamWriter) -> None:
        self.road = road
        self.writers = writers
        self.carried = bytearray(), bytearray()  # there and back
        self.flows = asyncio.Event()
        self.flows.set()

    async def carry(self, way: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self.flows.wait()
                self.carried[way].extend(data)
                writer.write(self.road.change(data))
                await writer.drain()
        await self.flows.wait()
        writer.close()

    def cut(self) -> None:
        self.flows.set()
        for writer in self.writers:
            writer.transport.abort()


class HandClock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    wall = boot = monotonic


class World:
    """Makes nodes, roads and scripted peers, and ends them."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for script in self.scripts:
            script.writer.close()
        for road in self.roads:
            await road.close()
        for node in self.nodes:
            if hasattr(node, "transport"):
                await node.transport.stop()

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.roads: list[Road] = []
        self.scripts: list[Scripted] = []

    def script(self, name: str, incarnation: int = 1, disk_id: str | None = None) -> Scripted:
        self.scripts.append(Scripted(name, incarnation, disk_id))
        return self.scripts[-1]

    def node(self, name: str, **options: Any) -> Node:
        self.nodes.append(Node(name, **options))
        return self.nodes[-1]

    async def start(self, *nodes: Node) -> None:
        """Start nodes that know each other."""
        pairs = [(node, other) for node in nodes for other in nodes if other is not node]
        for node, other in pairs:
            node.meet(other.name, 1)
        for node in nodes:
            await node.start()
        for node, other in pairs:
            if node.name > other.name:
                node.meet(other.name, other.port)
        with suppress(TimeoutError):  # as at a real start the lesser name waits a little: they rarely cross
            await eventually(lambda: all(node.transport.connected(other.name) for node, other in pairs), seconds=0.05)
        for node, other in pairs:
            node.meet(other.name, other.port)

    async def pair(self, **options: Any) -> tuple[Node, Node]:
        """Two nodes that are connected; the second has the greater name."""
        lesser, greater = self.node("n1", **options), self.node("n2", **options)
        await self.start(lesser, greater)
        await connected(lesser, greater)
        return lesser, greater

    async def road(self, port: int) -> Road:
        road = Road()
        await road.open(port)
        self.roads.append(road)
        return road

    async def one_way(self, **greater_options: Any) -> tuple[Node, Node, Road]:
        """Two connected nodes of which only the lesser dials, over a road."""
        lesser, greater = self.node("n1"), self.node("n2", **greater_options)
        greater.meet("n1", 1)
        await greater.start()
        road = await self.road(greater.port)
        lesser.meet("n2", road.port)
        await lesser.start()
        await connected(lesser, greater)
        return lesser, greater, road


async def connected(first: Node, second: Node) -> None:
    await eventually(lambda: first.transport.connected(second.name) and second.transport.connected(first.name))


async def ends(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while await reader.read(65536):
            pass


class Scripted:
    """A peer that knows the secret and sends what a test tells it to."""

    def __init__(self, name: str, incarnation: int = 1, disk_id: str | None = None) -> None:
        self.name = name
        self.hello = [name, disk_id or f"disk of {name}", None, incarnation, True]

    async def dial(self, node: Node) -> Scripted:
        """Up to the end of the handshake."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", node.port)
        return await self.prove(node)

    async def prove(self, node: Node) -> Scripted:
        """The handshake, over the connection that there is."""
        handshake = dial(derive_key(node.secret), self.name, node.name, os.urandom(32))
        step = next(handshake)
        try:
            while True:
                self.writer.write(step.send)
                step = handshake.send(await self.reader.readexactly(step.wait_for))
        except StopIteration as end:
            self.session: Session = end.value
        self.seal, self.check = Seal(self.session.send_key), Seal(self.session.receive_key)
        return self

    async def greet(self, node: Node) -> Scripted:
        """Up to where the greater name chooses."""
        await self.dial(node)
        self.send((HELLO, self.hello))
        assert (await self.receive())[0] == HELLO
        if self.name < node.name:
            self.send((READY, None))
        else:
            assert await self.receive() == [READY, None]
        return self

    def send(self, *frames: tuple[Any, Any]) -> None:
        """All in one write."""
        self.send_body(*(wire.pack(frame) for frame in frames))

    def send_body(self, *bodies: bytes) -> None:
        """Likewise, whatever they hold."""
        self.writer.write(b"".join(struct.pack("<I16s", len(body), self.seal.tag(body)) + body for body in bodies))

    async def receive(self) -> Any:
        length, tag = struct.unpack("<I16s", await self.reader.readexactly(20))
        body = await self.reader.readexactly(length)
        assert self.check.tag(body) == tag
        return wire.unpack(body)

    async def ends(self) -> None:
        async with asyncio.timeout(60):
            await ends(self.reader)
        self.writer.close()
