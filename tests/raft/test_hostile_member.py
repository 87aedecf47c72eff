"""A member that knows the secret and speaks nonsense once its connection lives: the node drops it, and goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from raftcron.raft.greeting import HELLO, LIVE, READY
from tests.cluster.harness import SECRET, Cluster
from tests.raft.transport_world import Node, Scripted

FIELDS = {
    "append_entries": ("term", "commit_index", "prevLogIdx", "prevLogTerm", "probe", "entries"),
    "offer": ("term", "probe", "id", "index", "entry_term", "size", "cluster_id", "configuration"),
    "next_node_idx": ("term", "next_node_idx", "reset", "success", "probe"),
    "request_vote": ("term", "last_log_index", "last_log_term"),
    "response_vote": ("term",),
    "timeout_now": ("term",),
    "apply_command": ("data",),
}
KINDS = ("prevote", "prevoted", "round", "echo", "read", "index", "pull", "piece", "unheard_of", "")
OWN_KINDS = ("heartbeat", "license", "announce", "reports", "ending", "clock", "time")
WHOLE = (0, 1, 2, 3, 7, 2**31, 2**62, 2**63, 2**64 - 1)
STRANGE = (None, True, -1, -(2**63), 0.5, float("nan"), "1", b"1", [], {}, [[[]]], {"a": 1}, "\n\x1b[2J", "x" * 1000)


def messages(count: int, seed: int) -> Iterator[tuple[str, Any]]:
    """Kinds and fields as nodes have them, for the most part, with values that no node would send."""
    rng = random.Random(seed)
    names = [name for fields in FIELDS.values() for name in fields] + ["number", "round", "granted", "offset", "data"]

    def value(name: str) -> Any:
        if rng.random() < 0.2:
            return rng.choice(STRANGE)
        if name == "entries":
            begin, term = rng.choice(WHOLE[:5]), rng.choice(WHOLE[:4])
            return [[rng.choice((b"", b"\x10", b"\x01\x93", b"\x77")), begin + place, term] for place in range(3)]
        if name in {"reset", "success", "granted"}:
            return rng.random() < 0.5
        if name in {"id", "cluster_id"}:
            return rng.choice(("1-1-" + "a" * 32, "../../etc/passwd", ""))
        if name in {"data", "configuration"}:
            return rng.randbytes(rng.randrange(30))
        return rng.choice(WHOLE)

    for _ in range(count):
        if rng.random() < 0.6:
            sort = rng.choice(list(FIELDS))
            content = {"type": sort} | {name: value(name) for name in FIELDS[sort]}
            if rng.random() < 0.2:
                content.pop(rng.choice(list(content)))
            yield "raft", content
        else:
            kind = rng.choice((*KINDS, *OWN_KINDS))
            listed = [value("number") for _ in range(rng.randrange(6))]
            yield kind, rng.choice((listed, {name: value(name) for name in rng.sample(names, 5)}, rng.choice(STRANGE)))


async def introduced(node: Node, choice: int) -> Scripted:
    """A connection of n2 that lives; waits for the node to listen."""
    liar = Scripted("n2")
    async with asyncio.timeout(60):
        while True:
            try:
                await liar.dial(node)
                break
            except ConnectionError:
                await asyncio.sleep(0.05)
    liar.send((HELLO, liar.hello))
    assert (await liar.receive())[0] == HELLO
    assert await liar.receive() == [READY, None]
    liar.send((LIVE, choice))
    return liar


async def test_a_member_that_speaks_nonsense(tmp_path: Path) -> None:
    """Three thousand messages of every kind, none of which a node would send, neither end a real node nor shake it."""
    async with Cluster(tmp_path, size=2) as cluster:
        cluster.spawn("n1")
        process = cluster.nodes["n1"]
        node = Node("n1", secret=SECRET.encode())
        node.port = process.raft_port
        said = messages(3000, seed=6)
        for life in range(30):
            liar = await introduced(node, life + 1)
            for _ in range(100):
                liar.send(next(said))
            with suppress(OSError):
                liar.writer.write_eof()
            await liar.ends()
            assert process.alive, process.tail()
        liar = await introduced(node, 31)
        async with asyncio.timeout(60):
            while not isinstance((await liar.receive())[0], str):
                pass  # it still has something to say to its peer
        liar.writer.close()
        assert process.alive
    assert "Traceback" not in process.output
    assert "raft_fatal" not in process.output
