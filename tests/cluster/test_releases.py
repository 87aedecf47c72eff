"""Nodes of two releases in one cluster: what the later one writes ends the others by name, and costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import later_release
from tests.cluster.harness import NO_ANSWER, Cluster, eventually

VERSION = later_release.LATER[0]


class MixedCluster(Cluster):
    """Nodes in `later` are of the later release from their next start on."""

    later: frozenset[str] = frozenset()

    def command(self, name: str, extra: Sequence[str] = ()) -> list[str]:
        python, *rest = super().command(name, extra)
        if name not in self.later:
            return [python, *rest]
        assert rest[:2] == ["-m", "raftcron"], rest
        return [python, str(Path(later_release.__file__)), *rest[2:]]


async def write(cluster: Cluster, stop: asyncio.Event) -> list[str]:
    """Jobs written until `stop`, one after the other, wherever somebody takes them; those that were acknowledged."""
    taken: list[str] = []
    number = 0
    while not stop.is_set():
        number += 1
        job = {"schedule": "@manual", "executor": {"type": "noop"}}
        for node in cluster.nodes:
            try:
                answer = await cluster.request(node, "PUT", f"/v1/jobs/w-{number}", body=job, timeout=15)
            except NO_ANSWER:
                continue
            if answer.status in (200, 201):
                taken.append(f"w-{number}")
                break
        await asyncio.sleep(0.02)  # a pace: the cluster is what shall work
    return taken


async def led_away(cluster: Cluster, name: str, *, to: str) -> bool:
    """Whether a node has ended by what `to` wrote, to whom it gives the lead: an answer to that is not promised."""
    node = cluster.nodes[name]
    if node.alive:
        await cluster.request(name, "POST", "/v1/cluster/transfer", body={"to": to}, timeout=30)
    return not node.alive


async def test_what_a_later_release_writes_ends_a_node_by_name_and_loses_nothing(tmp_path: Path) -> None:
    """Under a load of writes one node is upgraded and leads: the two others end, are upgraded too, and all go on.

    A node of the former release that is started again ends again: it neither guesses nor leaves the entry out.
    """
    async with MixedCluster(tmp_path) as cluster:
        await cluster.start()
        await cluster.put_job("n1", "ticker", schedule="@every 1s", executor={"type": "noop"})
        stop = asyncio.Event()
        writing = asyncio.create_task(write(cluster, stop))
        try:
            await cluster.stop("n3")
            cluster.later = frozenset({"n3"})
            await cluster.start("n3")
            await eventually(lambda: led_away(cluster, "n1", to="n3"), within=60, what="n1 hears the later release")
            for name in ("n1", "n2"):
                assert await cluster.wait_exit(name) == 1
                said = cluster.nodes[name].output
                assert f"a log entry has version {VERSION}" in said, said
                assert "upgrade this node" in said, said
            before = len(cluster.nodes["n1"].output)
            cluster.spawn("n1")
            assert await cluster.wait_exit("n1") == 1
            assert f"a log entry has version {VERSION}" in cluster.nodes["n1"].output[before:]
            cluster.later = frozenset(cluster.nodes)
            await cluster.start("n1", "n2")
            await cluster.wait_leader()
        finally:
            stop.set()
            taken = await writing
        await cluster.wait_converged()
        there = {job["name"] for job in await cluster.pages("n2", "/v1/jobs")}
        assert len(taken) > 20
        assert set(taken) <= there
        stats = (await cluster.request("n1", "GET", "/v1/jobs/ticker")).expect(200).json["stats"]
        assert stats["fired"] + stats["skipped"] > 0
