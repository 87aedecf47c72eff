"""Events of a real cluster: one reader that loses its nodes one after the other sees each event once, in order."""

from __future__ import annotations

import asyncio
from pathlib import Path

from raftcron.client import AsyncClient, Event
from tests.cluster.harness import Cluster

OFTEN = ("--snapshot-bytes", "64KiB", "--snapshot-entries", "100")  # so that restarts begin with a snapshot
JOBS = 200


async def test_a_reader_goes_on_across_nodes_leaders_and_restarts(tmp_path: Path) -> None:
    """Each node is killed and started again under the reader, the leader too; nothing is missed or comes twice."""
    async with Cluster(tmp_path, extra=OFTEN) as cluster:
        await cluster.start()
        urls = [node.url for node in cluster.nodes.values()]
        seen: list[Event] = []
        there, enough = asyncio.Event(), asyncio.Event()

        async def watch() -> None:
            async with AsyncClient(urls, discover=False) as client:
                async for event in client.events():
                    if event.event != "job":
                        continue
                    if event.data["name"] == "first":
                        there.set()
                    else:
                        seen.append(event)
                        if len(seen) >= 2 * JOBS:
                            enough.set()

        watching = asyncio.create_task(watch())
        try:
            async with AsyncClient(urls, patience_seconds=30) as client:
                # The reader is there once it sees something; more of "first" may come to it later.
                while not there.is_set():
                    await client.put_job("first", {"schedule": "@manual", "executor": {"type": "noop"}})
                    await client.delete_job("first")
                    assert not watching.done(), watching.exception()
                victims = iter([*cluster.nodes] * 2)
                for place in range(JOBS):
                    await client.put_job(f"job-{place}", {"schedule": "@manual", "executor": {"type": "noop"}})
                    await client.delete_job(f"job-{place}")
                    if place % 40 == 20:
                        victim = next(victims)
                        await cluster.kill(victim)
                        await cluster.start(victim)
                    assert not watching.done(), watching.exception()
                await asyncio.wait(
                    {watching, (full := asyncio.create_task(enough.wait()))}, timeout=30, return_when="FIRST_COMPLETED"
                )
                assert full.done(), (watching.done() and watching.exception(), len(seen), seen[-3:])
        finally:
            watching.cancel()
        wanted = [(f"job-{place}", change) for place in range(JOBS) for change in ("created", "deleted")]
        assert [(event.data["name"], event.data["change"]) for event in seen] == wanted
        assert len({event.id for event in seen}) == len(seen)
