"""Events of a real cluster: one reader that loses its nodes one after the other sees each event once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

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


async def test_a_reader_that_has_seen_nothing_yet_misses_nothing(tmp_path: Path) -> None:
    """Its node dies in a quiet hour; what is written before it has found another one is told there."""
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        followers = await cluster.followers()
        urls = [cluster.nodes[name].url for name in (followers[0], await cluster.wait_leader())]
        is_open, told, free = asyncio.Event(), asyncio.Event(), asyncio.Event()

        class Client(AsyncClient):
            async def stream(self, *args: Any, **options: Any) -> AsyncIterator[bytes]:
                async for chunk in super().stream(*args, **options):
                    is_open.set()
                    yield chunk

            async def pause(self, seconds: float) -> None:
                await free.wait()
                await super().pause(seconds)

        async def watch() -> None:
            async with Client(urls, discover=False) as client:
                async for event in client.events():
                    if event.event == "job":
                        assert event.data["name"] == "meanwhile"
                        told.set()

        watching = asyncio.create_task(watch())
        try:
            await asyncio.wait_for(is_open.wait(), 30)
            await cluster.kill(followers[0])
            await cluster.put_job(followers[1], "meanwhile", schedule="@manual", executor={"type": "noop"})
            free.set()
            await asyncio.wait_for(told.wait(), 30)
        finally:
            watching.cancel()
