"""A real node that leads, and strangers at its port: its state, log and term are as before, and it goes on."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from raftcron.raft.greeting import HELLO, REFUSED
from raftcron.raft.handshake import derive_key, dial
from tests.cluster.harness import SECRET, Cluster
from tests.raft.hostile import MIB, openings, throw, throw_all
from tests.raft.transport_world import Node, Scripted, World, ends

NEVER = "0 0 29 2 *"
MAX_GROWTH_BYTES = 24 * MIB


async def recorded(port: int) -> bytes:
    """What somebody sends who knows the secret, from the first byte of a connection to the greeting."""
    async with World() as world:
        road = await world.road(port)
        node = Node("n1", secret=SECRET.encode())
        node.port = road.port
        peer = await Scripted("n2").dial(node)
        peer.send((HELLO, peer.hello))
        while (await peer.receive())[0] != REFUSED:
            pass
        peer.writer.close()
        return bytes(road.pairs[0].carried[0])


async def drip(port: int, data: bytes) -> None:
    """A byte now and then, until the other side ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ended = asyncio.ensure_future(ends(reader))
    for byte in data:
        if ended.done():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)
    await ended
    writer.close()


async def crowd(port: int, count: int) -> None:
    """So many connections at once, of three hosts; each says half of a magic word."""
    opened = await asyncio.gather(
        *(
            asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.0.{number % 3 + 1}", 0))
            for number in range(count)
        )
    )
    for _, writer in opened:
        with suppress(OSError):
            writer.write(b"RAFT")
    for _, writer in opened:
        writer.transport.abort()


async def test_strangers_of_every_sort_change_nothing(tmp_path: Path) -> None:
    """Random bytes, megabytes, replayed handshakes, slow ones, two thousand connections: each is told of once."""
    async with Cluster(tmp_path, size=1) as cluster:
        await cluster.start()
        node = cluster.nodes["n1"]
        port = node.raft_port
        executor = {"type": "http", "url": "http://127.0.0.1:9/"}
        await cluster.put_job("n1", "one", schedule=NEVER, executor=executor)
        replayed = await recorded(port)

        async def state() -> dict[str, Any]:
            status = await cluster.status("n1")
            kept = {key: status[key] for key in ("cluster_id", "leader", "term", "epoch", "commit_index", "digests")}
            kept["jobs"] = await cluster.pages("n1", "/v1/jobs")
            kept["journal"] = {path.name: path.read_bytes() for path in (node.data / "journal").iterdir()}
            return kept

        before, memory = await state(), node.memory_bytes
        said = len(node.err.read_text())
        await throw_all(port, openings(500, seed=7))
        for data in (bytes(8 * MIB), b"RAFTCRN1" + b"\xff" * (8 * MIB), random.Random(8).randbytes(8 * MIB)):
            with suppress(ConnectionError):
                await throw(port, data)
        for pieces in range(1, 21):
            await throw(port, replayed, pieces)
        good = next(dial(derive_key(SECRET.encode()), "n2", "n1", bytes(32))).send
        async with asyncio.timeout(60):
            await asyncio.gather(*(drip(port, good if number % 2 else b"") for number in range(10)))
        for _ in range(25):
            await crowd(port, 80)
        growth = node.memory_bytes - memory
        assert node.alive, node.tail()
        assert await state() == before
        assert growth < MAX_GROWTH_BYTES, f"{growth} bytes"
        told = [re.sub(r":\d+", "", line.split(" ", 5)[5]) for line in node.err.read_text()[said:].splitlines()]
        assert 4 < len(told) == len(set(told)) < 15, told
        await cluster.put_job("n1", "two", schedule=NEVER, executor=executor)
        assert (await cluster.status("n1"))["term"] == before["term"]
    assert "Traceback" not in node.output
