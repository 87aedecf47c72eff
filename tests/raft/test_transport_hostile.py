"""Peers that mean harm: whatever they send changes nothing, costs little, is logged once, and keeps nobody else out."""

from __future__ import annotations

import asyncio
import random
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from raftcron import wire
from raftcron.raft.greeting import HELLO, LIVE, MAX_GREETING_BYTES, PING, READY, REFUSED
from raftcron.raft.handshake import OPENING_BYTES, derive_key, dial
from raftcron.raft.tls import PeerTls
from tests.raft.certificates import Authority
from tests.raft.transport_world import QUICK, Node, World, connected, ends, eventually

PATIENT = replace(QUICK, handshake_seconds=60.0)  # so that nothing below ends by its deadline
MIB = 1 << 20


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def victim(world: World, name: str = "n2", peer: str = "n1", **options: Any) -> Node:
    """A node whose only peer has not come yet."""
    node = world.node(name, **{"settings": PATIENT, **options})
    node.meet(peer, 1)
    await node.start()
    return node


async def is_unharmed(world: World, node: Node, **options: Any) -> None:
    """Nothing came of it all: no call of the handler, nothing left open; and an honest peer gets in and is heard."""
    assert node.events == []
    assert node.turned_away == []
    await eventually(lambda: not node.transport._strangers)
    await eventually(lambda: not node.transport._links)
    honest = world.node("n1" if node.name == "n2" else "n2", **options)
    honest.meet(node.name, node.port)
    await honest.start()
    await connected(honest, node)
    assert honest.transport.send(node.name, "test", "honest")
    await eventually(lambda: node.messages == ["honest"])
    await honest.transport.stop()


async def throw(port: int, data: bytes, pieces: int = 1) -> bytes:
    """Send this and no more; gives back what was answered before the node ended it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with suppress(OSError):
        size = len(data) // pieces + 1
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(60):
            while part := await reader.read(65536):
                answer += part
    writer.close()
    return answer


async def throw_all(port: int, cases: Iterator[bytes]) -> int:
    """A few at a time, fewer than are turned away for their number alone."""
    count = 0

    async def some() -> None:
        nonlocal count
        for case in cases:
            count += 1
            await throw(port, case, pieces=1 + count % 3)

    await asyncio.gather(*(some() for _ in range(8)))
    return count


# ---- strangers -----------------------------------------------------------------------------------------------------


def openings(count: int, seed: int) -> Iterator[bytes]:
    """Bytes that are no handshake, from mere noise to what differs from one in a single bit."""
    rng = random.Random(seed)
    for _ in range(count):
        good = next(dial(derive_key(b"secret"), "n1", "n2", rng.randbytes(32))).send
        bent = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            bent[rng.randrange(len(bent))] = rng.randrange(256)
        yield rng.choice(
            [
                rng.randbytes(rng.randrange(600)),
                b"RAFTCRN1" + rng.randbytes(rng.randrange(400)),
                bytes(bent) + rng.randbytes(rng.randrange(100)),
                good[: rng.randrange(len(good))],
                good + rng.randbytes(rng.randrange(1, 200)),
                good * rng.randrange(2, 5),
                good[:8] + b"\xff" + good[9:],
                b"RAFTCRN2" + good[8:],
                b"\x16\x03\x01" + rng.randbytes(rng.randrange(300)),
                b"GET / HTTP/1.1\r\n\r\n" * rng.randrange(1, 20),
                b"\xff\xff\xff\xff" * rng.randrange(200),
            ]
        )


async def test_openings_at_random(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Two thousand broken handshakes: each cause is logged once, and the node has nothing of them."""
    node = await victim(world)
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
    n2.meet("n1", server.sockets[0].getsockname()[1])
    await eventually(lambda: attempts >= 5)
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
    """Whoever sends a byte now and then, or nothing at all, is closed when its time is over, and logged once."""
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
        await asyncio.gather(*(drip(good if number % 2 else b"") for number in range(10)))
    assert asyncio.get_running_loop().time() - began_at >= 0.4
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "it did not finish the handshake in time"
    ]
    await is_unharmed(world, node, tls=tls.get("n1"))


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


def bend(rng: random.Random, data: bytes) -> bytes:
    """Something that is not `data`, and begins like it more often than not."""
    bent = bytearray(data)
    match rng.randrange(4):
        case 0:
            bent[rng.randrange(len(bent))] ^= 1 << rng.randrange(8)
        case 1:
            at = rng.randrange(len(bent))
            bent[at : at + rng.randrange(1, 40)] = rng.randbytes(rng.randrange(40))
        case 2:
            del bent[rng.randrange(len(bent)) :]
        case _:
            bent[3:5] = rng.randbytes(2)  # the length of the first record
    return bytes(bent) + rng.randbytes(rng.randrange(50))


async def test_tls_at_random(world: World, certificates: dict[str, PeerTls], caplog: pytest.LogCaptureFixture) -> None:
    """Broken TLS, in its first words or after the node's, comes to nothing, and is logged a few times at most."""
    node = await victim(world, tls=certificates["n2"])
    rng = random.Random(3)
    cases = iter([bend(rng, hello_of_tls(certificates["n1"])) for _ in range(300)])
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


# ---- peers that know the secret ------------------------------------------------------------------------------------


NUMBERS = [None, True, False, -1, -(2**63), 1.0, 0.5, float("inf"), float("nan"), "1", b"1", [1], {}]
TEXTS = [None, 7, b"n1", ["n1"], "n1\n", "\x1b[2J", "x" * 129]


def hello(**changes: Any) -> list[Any]:
    fields = {"name": "n1", "disk_id": "disk", "cluster_id": None, "incarnation": 1, "is_empty": True} | changes
    return list(fields.values())


HELLOS = [
    *(hello(incarnation=number) for number in NUMBERS),
    *(hello(name=text) for text in TEXTS),
    *(hello(disk_id=text) for text in TEXTS),
    *(hello(cluster_id=text) for text in TEXTS[1:]),
    *(hello(is_empty=flag) for flag in (None, 0, 1, "yes")),
    *([], [*hello(), 1], hello()[:4], {}, "n1", None, 7),
]


async def test_hellos_that_are_none(world: World) -> None:
    """A field of another type, out of range or not fit to be shown ends the connection before anybody hears of it."""
    node = await victim(world)
    asked: list[Any] = []
    node.admit = asked.append  # type: ignore[assignment]
    for message in HELLOS:
        peer = await world.script("n1").dial(node)
        peer.send((HELLO, message), (READY, None), ("test", "in"))
        await peer.ends()
    assert asked == []
    node.admit = lambda _: None
    await is_unharmed(world, node)


async def test_choices_that_are_none(world: World) -> None:
    """The greater name's choice is a whole number from 1, and nothing that looks like one."""
    node = await victim(world, "n1", "n2")
    for choice in (0, *NUMBERS):
        peer = await world.script("n2").greet(node)
        peer.send((LIVE, choice), ("test", "in"))
        await peer.ends()
    await is_unharmed(world, node)


async def test_kinds_that_are_none(world: World) -> None:
    """The kind of a frame is a text or one of five whole numbers; true is not 1 and 4.0 is not 4."""
    node = await victim(world)
    for kind in (None, True, False, 0.0, 1.0, 4.0, 5, -1, 2**64 - 1, b"test", [], {}):
        peer = await world.script("n1").dial(node)
        peer.send((kind, hello()), (READY, None), ("test", "in"))
        await peer.ends()
    await is_unharmed(world, node)


async def test_words_of_a_stranger_who_knows_the_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody but a peer can say that this node is none of the cluster's, and no reason spoils the log."""
    node = await victim(world)
    for number in range(20):
        peer = await world.script(f"n{number + 3}").dial(node)
        peer.send((REFUSED, ["you are\nnot \x1b[31mone of us" + "!" * 2000, True]))
        await peer.ends()
    assert not any(char in record.getMessage() for record in caplog.records for char in "\n\x1b")
    assert max(len(record.getMessage()) for record in caplog.records) < 700
    await is_unharmed(world, node)


async def test_a_greeting_is_short(world: World) -> None:
    """Before a connection lives, only as much is taken as a greeting needs."""
    node = await victim(world)
    for size in (MAX_GREETING_BYTES + 1, PATIENT.max_frame_bytes, 2**32 - 1):
        peer = await world.script("n1").dial(node)
        peer.writer.write(struct.pack("<I16s", size, bytes(16)))
        await peer.ends()
    await is_unharmed(world, node)


def values(rng: random.Random, depth: int = 0) -> Any:
    """Anything that msgpack can say."""
    simple: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.choice([-1, 0, 1, 2, 3, 4, 5, 2**31, -(2**63), 2**64 - 1]),
        lambda: rng.choice([0.0, -1.5, float("nan"), float("inf")]),
        lambda: rng.randbytes(rng.randrange(20)),
        lambda: rng.choice(["n1", "n2", "", "\n", "\u202e", "disk of n1"]),
    ]
    if depth > 3 or rng.random() < 0.6:
        return rng.choice(simple)()
    if rng.random() < 0.5:
        return [values(rng, depth + 1) for _ in range(rng.randrange(6))]
    return {rng.choice(["a", "b", 1, None]): values(rng, depth + 1) for _ in range(rng.randrange(4))}


async def test_frames_at_random_before_it_lives(world: World) -> None:
    """Well sealed nonsense instead of the greeting, in every place of it, never makes a connection live."""
    node = await victim(world)
    rng = random.Random(4)
    for _ in range(300):
        peer = await world.script("n1").dial(node)
        if rng.random() < 0.5:
            peer.send((HELLO, peer.hello))
        for _ in range(rng.randrange(1, 4)):
            kind = rng.choice([HELLO, LIVE, PING, 5, values(rng)])
            if rng.random() < 0.7:
                peer.send((kind, values(rng)))
            else:
                peer.send_body(rng.randbytes(rng.randrange(60)))
        peer.writer.write_eof()
        await peer.ends()
    await is_unharmed(world, node)


async def test_frames_at_random_once_it_lives(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Broken frames end the connection that lives: what was whole before them was delivered, and nothing after them."""
    node = await victim(world)
    rng = random.Random(5)
    for number in range(200):
        peer = await world.script("n1").greet(node)
        assert (await peer.receive())[0] == LIVE
        peer.send(("test", number))
        match rng.randrange(5):
            case 0:
                peer.writer.write(rng.randbytes(rng.randrange(20, 200)))  # no seal
            case 1:
                peer.send_body(bend(rng, wire.pack([[1, 2, 3], "x" * 50])))
            case 2:
                peer.send((rng.choice([HELLO, READY, LIVE, 5, -1, None, 1.5, True, []]), values(rng)))
            case 3:
                peer.writer.write(struct.pack("<I16s", rng.randrange(PATIENT.max_frame_bytes + 1, 2**32), bytes(16)))
            case _:
                peer.send((REFUSED, values(rng)))
        peer.send(("test", "after the end"))
        peer.writer.write_eof()
        await peer.ends()
        await eventually(lambda: node.events[-1][0] != "message")
    assert node.messages == list(range(200))
    assert node.count("connected", "n1") == node.count("disconnected", "n1") == 200
    assert 0 < len(caplog.records) <= 100
    node.events.clear()
    await is_unharmed(world, node)


def array(count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count)


def bombs(size: int) -> dict[str, bytes]:
    """Bodies of at most `size` bytes that claim, or make, as much as they can."""
    pair, most = b"\x92\xa4test", size - 20
    long = struct.pack(">I", 2**32 - 1)
    return {
        "deep": pair + b"\x91" * most + b"\xc0",
        "deep enough to be taken": pair + b"\x91" * 900 + b"\xc0",
        "deep maps": pair + b"\x81\xc0" * 900 + b"\xc0",
        "deep after much else": pair + array(9000) + b"\x90" * 8999 + b"\x91" * 100 + b"\xc0",
        "long array": pair + b"\xdd" + long,
        "long map": pair + b"\xdf" + long,
        "long text": pair + b"\xdb" + long,
        "long bytes": pair + b"\xc6" + long,
        "long extension": pair + b"\xc9" + long + b"\x05",
        "long arrays in arrays": pair + array(most // 2) * 900 + bytes(most // 2),
        "many arrays": pair + array(most - 10) + b"\x90" * (most - 10),
        "many maps": pair + array(most - 10) + b"\x80" * (most - 10),
        "extension": pair + b"\xd4\x05\x00",
        "not text": pair + b"\xa2\xff\xfe",
        "a map for a key": pair + b"\x81\x80\xc0",
        "an array for a key": pair + b"\x81\x90\xc0",
        "two values": pair + b"\xc0\xc0",
        "half a value": b"\x92\xa4test",
        "nothing": b"",
        "reserved": pair + b"\xc1",
    }


@pytest.mark.parametrize("name", bombs(1000))
async def test_bombs(world: World, name: str) -> None:
    """A frame that would unfold to much more than it is ends its connection at little cost, and is not delivered."""
    size = MIB
    node = await victim(world, settings=replace(PATIENT, max_frame_bytes=size))
    body = bombs(size)[name]
    assert len(body) <= size
    peer = await world.script("n1").greet(node)
    assert (await peer.receive())[0] == LIVE
    tracemalloc.start()
    try:
        peer.send_body(body)
        await peer.ends()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ahead = 1024 * 10_000 * 8 if name == "long arrays in arrays" else 0  # msgpack's own bounds: open, and room in each
    assert peak < 6 * size + wire.MAX_MESSAGE_CONTAINERS * 100 + ahead  # on its way, in buffers, and what it makes
    await eventually(lambda: node.count("disconnected", "n1"))
    assert node.messages == []
    node.events.clear()
    await is_unharmed(world, node)


def test_bounds_of_a_message() -> None:
    """As deep and as wide as messages may be, they are read; one more and they are not."""
    deep: Any = []
    for _ in range(wire.MAX_MESSAGE_DEPTH - 1):
        deep = [deep]
    assert wire.unpack_message(wire.pack(deep)) == deep
    with pytest.raises(ValueError, match="within each other"):
        wire.unpack_message(wire.pack({"a": deep}))
    wide = [[]] * (wire.MAX_MESSAGE_CONTAINERS - 1)
    assert wire.unpack_message(wire.pack(wide)) == wide
    with pytest.raises(ValueError, match="lists and maps"):
        wire.unpack_message(wire.pack([*wide, {}]))
