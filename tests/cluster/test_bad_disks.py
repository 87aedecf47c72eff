"""Disks of real nodes that are slow, full, or fail in a write or a sync: who ends, who goes on, and nothing is lost."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import shims
from tests.cluster.bad_disks import BadDiskCluster, Faults
from tests.cluster.harness import NO_ANSWER

JOB: dict[str, Any] = {"schedule": "@manual", "executor": {"type": "noop"}}
TRIES = 200  # of a write, until the node has met its disk

FAILING = {
    "a sync fails": Faults(sync_errno=errno.EIO),
    "the disk is full": Faults(write_errno=errno.ENOSPC),
    "a write fails": Faults(write_errno=errno.EIO),
    "a write fails halfway": Faults(write_errno=errno.ENOSPC, is_short=1),
}


def needs_shim(folder: Path) -> None:
    if (reason := shims.why_not("disk_shim", folder)) is not None:
        pytest.skip(f"no disk fails: {reason}")


async def write(cluster: BadDiskCluster, node: str, name: str) -> int | None:
    """The status of one write, None without an answer."""
    try:
        return (await cluster.request(node, "PUT", f"/v1/jobs/{name}", body=JOB, timeout=20)).status
    except NO_ANSWER:
        return None


@pytest.mark.parametrize("faults", FAILING.values(), ids=FAILING.keys())
async def test_a_node_whose_disk_fails_ends_and_the_others_go_on(faults: Faults, tmp_path: Path) -> None:
    """The leader's: it tries nothing again, since the kernel may have dropped the pages, and says what failed.

    What was acknowledged before, meanwhile and afterwards is there, on it too once its disk works again.
    """
    needs_shim(tmp_path)
    async with BadDiskCluster(tmp_path) as cluster:
        await cluster.start()
        leader = await cluster.wait_leader()
        taken = [name for name in ("before-1", "before-2") if await write(cluster, leader, name) == 201]
        assert len(taken) == 2
        cluster.set_disk(leader, faults)
        for number in range(TRIES):
            if not cluster.nodes[leader].alive:
                break
            if await write(cluster, leader, f"meanwhile-{number}") == 201:
                taken.append(f"meanwhile-{number}")
        assert await cluster.wait_exit(leader) == 1
        said = cluster.nodes[leader].output
        number = faults.sync_errno or faults.write_errno
        assert errno.errorcode[number] in said or f"Errno {number}" in said, said
        successor = await cluster.wait_leader(other_than=leader)
        assert await write(cluster, successor, "after") == 201
        cluster.set_disk(leader, Faults())
        await cluster.start(leader)
        await cluster.wait_converged()
        there = {job["name"] for job in await cluster.pages(leader, "/v1/jobs")}
        assert {*taken, "after"} <= there


async def test_a_follower_with_a_slow_disk_costs_nobody_the_lead(tmp_path: Path) -> None:
    """Each of its syncs takes 0.4 s: the other two commit without it, the term stays, and it comes after them."""
    needs_shim(tmp_path)
    async with BadDiskCluster(tmp_path) as cluster:
        await cluster.start()

        async def judge() -> None:
            leader = await cluster.wait_leader()
            slow = next(name for name in cluster.nodes if name != leader)
            term = (await cluster.status(leader))["term"]
            cluster.set_disk(slow, Faults(sync_delay_us=400_000))
            for number in range(20):
                assert await write(cluster, leader, f"job-{number}") in (200, 201)
            cluster.set_disk(slow, Faults())
            assert ((status := await cluster.status(leader))["leader"], status["term"]) == (leader, term)
            await cluster.wait_converged()
            assert len(await cluster.pages(slow, "/v1/jobs")) == 20

        await cluster.in_calm(judge)
