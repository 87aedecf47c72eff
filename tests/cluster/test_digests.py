"""A real node whose disk holds another history, in whole and right bytes: it stops by itself and is replaced (I7)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from raftcron.raft.segment import Kind, decode_header, encode_record, records
from tests.cluster.harness import Cluster, Node, eventually
from tests.cluster.test_membership import Growing

WRITTEN = "as it was written"
NOOP = {"executor": {"type": "noop"}}
DURABLE = slice(8, 12)  # of a record: how much of its segment was known to be synced when it was made


def alter_history(node: Node, text: bytes, other: bytes) -> int:
    """Puts `other` in the place of `text` in each entry of a node's journal, with right checksums; in how many."""
    assert len(text) == len(other)
    altered = 0
    for path in sorted((node.data / "journal").glob("*.segment")):
        whole = path.read_bytes()
        header = decode_header(whole)
        assert header is not None
        data = bytearray(whole)
        for offset, kind, body in records(memoryview(whole), len(whole), header.salt):
            if kind == Kind.ENTRY and text in bytes(body):
                durable = int.from_bytes(whole[offset:][DURABLE], "little")
                record = encode_record(kind, bytes(body).replace(text, other), durable, header.salt)
                data[offset : offset + len(record)] = record
                altered += 1
        path.write_bytes(data)
    return altered


async def goes_on(cluster: Cluster, name: str) -> None:
    """Until this node knows of two more runs of `ticker`."""
    before = len(await cluster.runs(name, "ticker"))

    async def more() -> bool:
        return len(await cluster.runs(name, "ticker")) >= before + 2

    await eventually(more, within=60, what=f"{name} goes on deciding", every=0.1)


async def test_a_node_whose_history_differs_stops_and_is_replaced_as_its_last_words_say(tmp_path: Path) -> None:
    """It names the index and both digests, which are its own and that of the two others, who go on deciding.

    Nothing else finds it out: all its checksums are right, and it starts, follows and applies like any.
    """
    async with Growing(tmp_path) as cluster:
        await cluster.start()
        await cluster.put_job("n1", "ticker", schedule="@every 1s", history={"runs": 500}, **NOOP)
        await cluster.put_job("n1", "told", schedule="@manual", description=WRITTEN, **NOOP)
        await cluster.wait_converged()
        name = (await cluster.followers())[0]
        odd, others = cluster.nodes[name], [other for other in cluster.nodes if other != name]
        await cluster.kill(name)
        assert not any((odd.data / "snapshots").glob("*"))
        assert alter_history(odd, WRITTEN.encode(), WRITTEN.upper().encode()) == 1

        cluster.spawn(name)
        assert await cluster.wait_exit(name) == 1
        said = odd.err.read_text()
        found = re.search(r"at index (\d+) it has the digest (\w{32}), and a majority (\w{32})", said)
        assert found is not None, said
        index, own, theirs = int(found[1]), found[2], found[3]
        assert own != theirs
        assert {(await cluster.digests(other))[index] for other in others} == {theirs}
        await goes_on(cluster, others[0])
        assert [other for other in others if cluster.nodes[other].alive] == others

        advice = re.search(rf"raftcron (cluster replace {name})\b", said)
        assert advice is not None, said
        told = await cluster.done(*shlex.split(advice[1]), on=others[0])
        assert "Start it on an empty data directory" in told.err
        odd.data.rename(tmp_path / "kept for a report")
        await cluster.start(name)
        await cluster.until_voters(*cluster.nodes, on=name, within=60)
        await cluster.wait_converged()
        await goes_on(cluster, name)
        jobs = (await cluster.request(name, "GET", "/v1/jobs?consistency=stale")).expect(200).json["items"]
        assert {job["name"]: job["description"] for job in jobs}["told"] == WRITTEN
