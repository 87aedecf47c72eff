"""What peers that mean harm do to a node, and how it is seen that nothing came of it; for tests."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from raftcron.raft.handshake import derive_key, dial
from tests.raft.transport_world import QUICK, Node, World, connected, eventually

PATIENT = replace(QUICK, handshake_seconds=60.0)  # so that nothing below ends by its deadline
MIB = 1 << 20


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


@contextmanager
def little(most_bytes: int) -> Iterator[None]:
    """What is done in it holds no more than this at any time beside what was there before; both ends together."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most_bytes, f"{peak} bytes"
