"""Strangers that mean harm: what they send changes nothing, costs little, is logged once, and keeps nobody out."""

from __future__ import annotations

import asyncio
import random
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest

from raftcron.raft.handshake import OPENING_BYTES, derive_key, dial
from raftcron.raft.tls import PeerTls
from tests.raft.certificates import Authority
from tests.raft.hostile import MIB, PATIENT, bend, is_unharmed, little, openings, throw, throw_all, victim
from tests.raft.transport_world import QUICK, Node, World, connected, ends, eventually


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


# ---- strangers -----------------------------------------------------------------------------------------------------


async def test_openings_at_random(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Two thousand broken handshakes: each cause is logged once, nothing is kept, and the node has nothing of them."""
    node = await victim(world)
    with little(4 * MIB):
        assert await throw_all(node.port, openings(2000, seed=1)) == 2000
    assert len(caplog.records) == len({record.getMessage().partition(": ")[2][:30] for record in caplog.records}) <= 6
    await is_unharmed(world, node)


async def test_a_cause_is_one_whatever_it_names(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks for a hundred nodes at an address where there is none of them is one line."""
    node = await victim(world)
    for number in range(100):
        opening = next(dial(derive_key(b"secret"), "n1", f"m{number}", bytes(32))).send
        await throw(node.port, opening)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "it expects 'm0' at this address, and this is 'n2'"
    ]
    await is_unharmed(world, node)


async def test_much_more_than_an_opening(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Megabytes from whoever has proved nothing are not kept."""
    node = await victim(world)
    tracemalloc.start()
    try:
        for data in (bytes(16 * MIB), b"RAFTCRN1" + bytes(16 * MIB), random.Random(2).randbytes(16 * MIB)):
            own = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            with suppress(ConnectionError):
                await throw(node.port, memoryview(data))  # type: ignore[arg-type]
            assert tracemalloc.get_traced_memory()[1] - own < 18 * MIB  # of which 16 wait in the sender
    finally:
        tracemalloc.stop()
    assert len(caplog.records) <= 2
    await is_unharmed(world, node)


async def record(world: World, n1: Node, n2: Node) -> tuple[bytes, bytes]:
    """What passes, both ways, from the first byte to the first message between two honest nodes."""
    n2.meet("n1", 1)
    await n2.start()
    road = await world.road(n2.port)
    n1.meet("n2", road.port)
    await n1.start()
    await connected(n1, n2)
    n1.transport.send("n2", "test", "recorded")
    n2.transport.send("n1", "test", "recorded")
    await eventually(lambda: n1.messages and n2.messages)
    pair = road.pairs[-1]
    for node in (n1, n2):
        await node.transport.stop()
        node.events.clear()
    return bytes(pair.carried[0]), bytes(pair.carried[1])


@pytest.mark.parametrize("is_secured", [False, True])
async def test_replayed(
    world: World, certificates: dict[str, PeerTls], is_secured: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A handshake that was recorded, either side of it, opens nothing when it is played again."""
    tls = certificates if is_secured else {}
    n1, n2 = (world.node(name, tls=tls.get(name), settings=PATIENT) for name in ("n1", "n2"))
    there, back = await record(world, n1, n2)
    assert len(there) > OPENING_BYTES + 32
    await n2.start()
    with little(2 * MIB):
        for _ in range(20):
            answer = await throw(n2.port, there, pieces=3)
            assert back.find(answer[-32:]) < 0
    assert len(caplog.records) == 1
    attempts = 0

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.write(back)
        await reader.read(65536)
        writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    with little(2 * MIB):
        n2.meet("n1", server.sockets[0].getsockname()[1])
        await eventually(lambda: attempts >= 20)
    assert len(caplog.records) == 2
    server.close()
    n2.meet("n1", 1)
    await is_unharmed(world, n2, tls=tls.get("n1"))


@pytest.mark.parametrize("swaps_names", [False, True])
async def test_reflected(world: World, swaps_names: bool) -> None:
    """A node that dials is not convinced by its own words, nor by its own listener's, with names exchanged or not."""
    n2 = await victim(world)
    attempts = 0

    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        if attempts % 2:
            with suppress(ConnectionError):
                while data := await reader.read(65536):
                    writer.write(data)
        else:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", n2.port)

            async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                with suppress(ConnectionError):
                    while data := await source.read(65536):
                        if swaps_names and data.startswith(b"RAFTCRN1"):
                            data = data[:8] + data[73:138] + data[8:73] + data[138:]
                        sink.write(data)
                sink.close()

            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
        writer.close()

    server = await asyncio.start_server(mirror, "127.0.0.1", 0)
    n2.meet("n1", server.sockets[0].getsockname()[1])
    await eventually(lambda: attempts >= 6)
    server.close()
    n2.meet("n1", 1)
    await is_unharmed(world, n2)


@pytest.mark.parametrize("is_secured", [False, True])
async def test_slow_and_silent(
    world: World, certificates: dict[str, PeerTls], is_secured: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever sends a byte now and then, or nothing at all, is closed in time, at little cost, and logged once."""
    tls = certificates if is_secured else {}
    node = await victim(world, tls=tls.get("n2"), settings=replace(QUICK, handshake_seconds=0.4))
    good = hello_of_tls(tls["n1"]) if is_secured else next(dial(derive_key(b"secret"), "n1", "n2", bytes(32))).send

    async def drip(data: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        ended = asyncio.ensure_future(ends(reader))
        for byte in data:
            if ended.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
        await ended
        writer.close()

    began_at = asyncio.get_running_loop().time()
    async with asyncio.timeout(60):
        with little(2 * MIB):
            await asyncio.gather(*(drip(good if number % 2 else b"") for number in range(10)))
    assert asyncio.get_running_loop().time() - began_at >= 0.4
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "it did not finish the handshake in time"
    ]
    await is_unharmed(world, node, tls=tls.get("n1"))


async def gets_in_between(world: World, node: Node, tls: PeerTls | None) -> None:
    """A peer is let in and heard, from a host whose places are all taken, while the strangers stand."""
    crowd = 3 * PATIENT.max_strangers_per_host
    await eventually(lambda: len(node.transport._strangers) == crowd)
    peer = world.node("n1", tls=tls)
    peer.meet(node.name, node.port)
    await peer.start()
    await connected(peer, node)
    assert peer.transport.send(node.name, "test", "in between")
    await eventually(lambda: node.messages == ["in between"])
    assert crowd - 2 <= len(node.transport._strangers) <= crowd  # one or two attempts of the peer's took their places
    await peer.transport.stop()
    await eventually(lambda: ("refused", "n1") in node.events)  # the last that is heard of it
    node.events.clear()


@pytest.mark.parametrize("is_secured", [False, True])
async def test_thousands_of_connections(
    world: World, certificates: dict[str, PeerTls], is_secured: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """However many connect and say nothing or half of it, few are held, little is spent, and a peer gets in between."""
    tls = certificates if is_secured else {}
    node = await victim(world, tls=tls.get("n2"))
    half = hello_of_tls(tls["n1"])[:-5] if is_secured else b"RAFTCRN1"
    tracemalloc.start()
    most = 0
    try:
        for burst in range(25):
            sources = [("127.0.0.1", 0), ("127.0.0.2", 0), ("127.0.0.3", 0)]
            opened = await asyncio.gather(
                *(
                    asyncio.open_connection("127.0.0.1", node.port, local_addr=sources[number % 3])
                    for number in range(80)
                )
            )
            for _, writer in opened[burst % 2 :: 2]:
                writer.write(half)
            await eventually(lambda: len(node.transport._links) <= 3 * PATIENT.max_strangers_per_host)
            most = max(most, len(node.transport._links))
            if burst == 12:
                await gets_in_between(world, node, tls=tls.get("n1"))
            for _, writer in opened:
                writer.transport.abort()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most <= PATIENT.max_strangers
    assert peak < (80 + PATIENT.max_strangers) * 64 * 1024  # both ends of each are in this process
    assert sum("too many connections without proof" in record.getMessage() for record in caplog.records) == 3
    assert len(caplog.records) == 3
    await is_unharmed(world, node, tls=tls.get("n1"))


# ---- strangers who speak TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PeerTls]:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    return {name: authority.issue(name) for name in ("n1", "n2")}


class Dialogue:
    """The client's side of TLS, by hand."""

    def __init__(self, tls: PeerTls) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(tls.ca)
        context.load_cert_chain(tls.certificate, tls.key)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing)

    def hear(self, data: bytes) -> bytes:
        """What the client answers."""
        self._incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            self._object.do_handshake()
        return self._outgoing.read()


def hello_of_tls(tls: PeerTls) -> bytes:
    return Dialogue(tls).hear(b"")


async def test_tls_at_random(world: World, certificates: dict[str, PeerTls], caplog: pytest.LogCaptureFixture) -> None:
    """Broken TLS, in its first words or after the node's, comes to nothing, and is logged a few times at most."""
    node = await victim(world, tls=certificates["n2"])
    rng = random.Random(3)
    cases = iter([bend(rng, hello_of_tls(certificates["n1"])) for _ in range(300)])
    with little(4 * MIB):
        await throw_all(node.port, cases)
    for _ in range(100):
        dialogue = Dialogue(certificates["n1"])
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(dialogue.hear(b""))
        answer = b""
        while not (second := dialogue.hear(answer)):
            answer = await reader.read(65536)
        writer.write(bend(rng, second))
        writer.write_eof()
        async with asyncio.timeout(60):
            await ends(reader)
        writer.close()
    assert len(caplog.records) == len({record.getMessage().partition(": ")[2] for record in caplog.records}) < 25
    await is_unharmed(world, node, tls=certificates["n1"])
