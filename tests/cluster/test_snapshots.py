"""The log is cut behind snapshots: whatever dies meanwhile, one history; who was away for long comes back by one."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from tests.chaos.campaign import unleash
from tests.chaos.checker import Needs, judge
from tests.chaos.faults import OFTEN, Round
from tests.cluster.harness import Cluster, Node

DEATHS = ("in-snapshot", "in-compaction")
NEVER = "0 0 29 2 *"
BODY_BYTES = 200_000
WRITES = 240  # 48 MB in all, beside a state of 0.8 MB
WRITERS = 4
MAX_DISK_BYTES = 16 << 20
MAX_GROWTH_BYTES = 16 << 20  # of memory, while the last two thirds of the writes pass


async def test_one_history_though_nodes_die_in_snapshots_and_compactions(tmp_path: Path) -> None:
    """kill -9 in the middle of a snapshot, and of a cut of the log, four times each, under load: nothing is lost."""
    began = time.monotonic()
    rounds = [Round(kind, in_flight=False, down_seconds=0, quiet_seconds=0.2) for kind in DEATHS * 4]
    evidence = await unleash(tmp_path, 5, rounds, extra=OFTEN)
    verdict = judge(evidence, Needs.of_faults(DEATHS))
    print(verdict.table())
    print(f"{time.monotonic() - began:.1f} s")
    assert verdict.word == "passed", f"\n{verdict.table()}\nevidence: {tmp_path / 'evidence.json'}"


def disk_bytes(node: Node) -> int:
    """What a node's directory holds; files may go while they are counted."""
    total = 0
    for path in node.data.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


async def test_a_follower_that_was_away_for_long_costs_the_others_nothing_and_comes_back(tmp_path: Path) -> None:
    """Disk and memory of the others stay bounded however much is written; it comes back through a snapshot, whole."""
    async with Cluster(tmp_path, extra=OFTEN) as cluster:
        await cluster.start()
        away, _ = await cluster.followers()
        for name in ("one", "two"):
            await cluster.put_job(away, name, schedule=NEVER, executor={"type": "http", "url": "http://127.0.0.1:9/"})
        await cluster.wait_converged()
        left, _ = await cluster.standing(away)
        await cluster.kill(away)
        others = [cluster.nodes[name] for name in cluster.alive]
        most = 0
        at_first: list[int] = []
        places = iter(range(WRITES))

        async def write() -> None:
            nonlocal most
            for place in places:
                if place == WRITES // 3:
                    at_first.extend(node.memory_bytes for node in others)
                executor = {"type": "http", "url": "http://127.0.0.1:9/", "body": f"{place:06}" * (BODY_BYTES // 6)}
                node = others[place % len(others)]
                await cluster.put_job(node.name, f"large-{place % WRITERS}", schedule=NEVER, executor=executor)
                most = max(most, *(disk_bytes(each) for each in others))

        await asyncio.gather(*(write() for _ in range(WRITERS)))
        growth = [node.memory_bytes - before for node, before in zip(others, at_first, strict=True)]
        print(f"most on disk {most / 1e6:.1f} MB, growth of memory {[round(each / 1e6, 1) for each in growth]} MB")
        assert most <= MAX_DISK_BYTES, f"{most} bytes on disk"
        assert max(growth) <= MAX_GROWTH_BYTES, f"the processes grew by {growth} bytes"

        await cluster.start(away)
        await cluster.wait_converged(within=60)
        assert "raft_installed" in cluster.nodes[away].output, "it came back without a snapshot"
        assert min(await cluster.digests(away)) > left, "it applied entries that it could only have from a log"
        await cluster.kill(*cluster.nodes)
        await cluster.start()
        wanted = {"one", "two", *(f"large-{place}" for place in range(WRITERS))}
        for name in cluster.nodes:
            assert {job["name"] for job in await cluster.pages(name, "/v1/jobs")} == wanted
        await cluster.wait_converged(within=60)
