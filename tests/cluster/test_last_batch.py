"""Damage that no later record can prove: what a killed node had synced last rots or is lost; the others are up."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, Node

NEVER = "0 0 29 2 *"


def spoil_the_end(node: Node, name: str, damage: str) -> None:
    """Of the journal, in the midst of the entry that names this job last; ValueError if there is none."""
    segment = max((node.data / "journal").glob("*.segment"))
    data = bytearray(segment.read_bytes())
    place = data.rindex(name.encode())
    if damage == "flip":
        data[place] ^= 0x40
    else:
        del data[place:]
    segment.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "cut"])
async def test_a_lost_last_batch_loses_nothing_acknowledged_while_the_others_are_up(
    damage: str, tmp_path: Path
) -> None:
    """What a killed follower had synced last is spoilt: it cuts that, says so, and has it again from the leader."""
    numbers, written = itertools.count(), set()
    async with Cluster(tmp_path) as cluster:
        await cluster.start()

        async def write() -> str:
            name = f"written-{next(numbers):04}"
            await cluster.put_job(leader, name, schedule=NEVER, executor={"type": "http", "url": "http://127.0.0.1:9/"})
            written.add(name)
            return name

        async def judge() -> None:
            nonlocal leader
            leader = await cluster.wait_leader()
            term = (await cluster.status(leader))["term"]
            name = next(name for name in cluster.nodes if name != leader)
            victim = cluster.nodes[name]
            for _ in range(10):
                last = await write()
            await cluster.wait_converged()  # what has applied on the follower is synced there
            await cluster.kill(name)
            said = len(victim.output)
            spoil_the_end(victim, last, damage)
            cluster.spawn(name)
            for _ in range(10):
                await write()
            await cluster.wait_ready(name)
            await cluster.wait_converged()
            assert victim.output[said:].count("journal_tail_cut") == 1
            assert {job["name"] for job in await cluster.pages(name, "/v1/jobs")} == written
            for one in cluster.nodes:
                status = await cluster.status(one)
                assert (status["leader"], status["term"]) == (leader, term)

        leader = await cluster.wait_leader()
        await cluster.in_calm(judge)
