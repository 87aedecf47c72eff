"""Peers that know the secret and mean harm: what they send is not believed, costs little, and fills no log."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from raftcron import wire
from raftcron.raft.greeting import HELLO, LIVE, MAX_GREETING_BYTES, PING, READY, REFUSED
from tests.raft.hostile import MIB, PATIENT, bend, is_unharmed, little, victim
from tests.raft.transport_world import HandClock, World, eventually


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


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


async def test_hellos_that_are_none(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A field of another type, out of range or not fit to be shown ends the connection, and nobody hears of it.

    But for one line in the log.
    """
    node = await victim(world)
    asked: list[Any] = []
    node.admit = asked.append  # type: ignore[assignment]
    for message in HELLOS:
        peer = await world.script("n1").dial(node)
        peer.send((HELLO, message), (READY, None), ("test", "in"))
        await peer.ends()
    assert asked == []
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["its hello is not one"]
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


async def test_a_greeting_is_short(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Before a connection lives, only as much is taken as a greeting needs, whatever length is claimed or sent."""
    node = await victim(world)
    sizes = (MAX_GREETING_BYTES + 1, PATIENT.max_frame_bytes, 2**32 - 1)
    for size in sizes:
        for sent in (0, MIB):
            peer = await world.script("n1").dial(node)
            with little(4 * MIB):  # of which some copies of what is sent wait in the sender
                peer.writer.write(struct.pack("<I16s", size, bytes(16)) + bytes(sent))
                await peer.ends()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        f"a frame of {size} bytes is over the limit of {MAX_GREETING_BYTES}" for size in sizes
    ]
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


async def test_frames_at_random_before_it_lives(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Well sealed nonsense instead of the greeting, in every place of it, never makes a connection live.

    Each cause is logged once.
    """
    node = await victim(world, clock=HandClock())
    rng = random.Random(4)
    with little(4 * MIB):
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
    causes = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert 0 < len(causes) == len(set(causes)) <= 100
    assert all(text.isprintable() and len(text) < 200 for text in causes)
    await is_unharmed(world, node)


async def test_a_peer_whose_every_word_is_another_fills_no_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A hundred lines in ten minutes, and one that tells how many were left out; nobody is kept out by it."""
    clock = HandClock()
    node = await victim(world, clock=clock)

    async def call_itself(begin: int) -> list[str]:
        caplog.clear()
        for number in range(begin, begin + 130):
            peer = world.script("n1")
            peer.hello = hello(name=f"x{number}")
            await peer.dial(node)
            peer.send((HELLO, peer.hello))
            while (await peer.receive())[0] != REFUSED:
                pass
            peer.writer.close()
        return [record.getMessage() for record in caplog.records]

    lines = await call_itself(0)
    assert len(lines) == len(set(lines)) == 100
    assert all("calls itself 'x" in line for line in lines)
    assert node.transport.passes["hello refused (another name than was proved)"] > 0
    clock.seconds += 599.0
    assert await call_itself(1000) == []
    clock.seconds += 1.0
    lines = await call_itself(2000)
    assert lines[0] == "peer_complaints_left_out count=160"
    assert len(lines) == len(set(lines)) == 101
    await is_unharmed(world, node)


async def test_frames_at_random_once_it_lives(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Broken frames end the connection that lives: what was whole before them was delivered, and nothing after them.

    What is wrong after a connection has lived is news; so of two hundred such ends a hundred are logged, the most that
    may be in ten minutes.
    """
    node = await victim(world, clock=HandClock())
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
    assert len(caplog.records) == 100
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
