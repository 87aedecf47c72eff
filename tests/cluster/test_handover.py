"""SIGTERM of the leader under load: it hands over the lead, and fires go on as if nothing had been."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from scripts.benchmarks.gaps import JOBS, gap_after, history_of, put_jobs, recount
from tests.chaos.receiver import Receiver
from tests.cluster.harness import Cluster, eventually

MAX_GAP_MS = 200
CALM_GAP_MS = 100  # a longer gap in the second before the signal, or a longer stall of this process meanwhile, is the
# machine's doing: nothing is judged then
WATCHED_MS = 1_500
HANDOVERS, TRIES = 3, 12
NEVER = {"schedule": "0 0 29 2 *", "executor": {"type": "http", "url": "http://127.0.0.1:9/"}}


async def write(cluster: Cluster, node: str, stop: asyncio.Event, statuses: list[int]) -> None:
    """One write after the other on one node."""
    while not stop.is_set():
        answer = await cluster.request(node, "PUT", f"/v1/jobs/w-{node}-{len(statuses)}", body=NEVER)
        statuses.append(answer.status)
        await asyncio.sleep(0.005)  # a pace: the machine is shared with what is measured


@asynccontextmanager
async def stalls() -> AsyncIterator[list[float]]:
    """How much longer than it should each short sleep of this process takes, in milliseconds."""
    seen = [0.0]

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            seen.append((time.monotonic() - began) * 1000 - 5)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()


async def hand_over(cluster: Cluster, receiver: Receiver) -> tuple[int, int]:
    """SIGTERM of the leader while the others are written to.

    The longest gaps in milliseconds: before it, or of this process at any time; and after it.
    """
    leader = await cluster.wait_leader()
    stop = asyncio.Event()
    statuses: list[int] = []
    others = [node for node in cluster.nodes if node != leader]
    writers = [asyncio.create_task(write(cluster, node, stop, statuses)) for node in others]
    start = len(await receiver.arrivals())
    # Before and after: a second and more to compare with, and to look for the gap in.
    await asyncio.sleep(1.2)
    at, _ = await receiver.open()
    async with stalls() as stalled:
        assert await cluster.stop(leader) == {leader: 0}
        await asyncio.sleep(max(0.0, WATCHED_MS / 1000 + 0.3 - ((await receiver.open())[0] - at) / 1000))
    stop.set()
    await asyncio.gather(*writers)
    assert set(statuses) <= {200, 201}, "a write that waits for the new leader is written"
    instants = sorted(arrival["arrived_at"] for arrival in await receiver.arrivals(start=start))
    await cluster.start(leader)
    return max(gap_after(instants, at - 1_000, 950), round(max(stalled))), gap_after(instants, at, WATCHED_MS)


async def test_fires_go_on_while_the_lead_is_handed_over(tmp_path: Path) -> None:
    """By the receiver's clock no gap over 200 ms; every time is decided once, arrives once, and is not lost."""
    async with Receiver(tmp_path) as receiver, Cluster(tmp_path) as cluster:
        await cluster.start()
        jobs = await put_jobs(cluster, "n1", receiver.hook())

        async def all_fire() -> bool:
            return len({arrival["job"] for arrival in await receiver.arrivals()}) == JOBS

        await eventually(all_fire, within=60, what="every job has fired")
        gaps: list[tuple[int, int]] = []
        for _ in range(TRIES):
            gaps.append(await hand_over(cluster, receiver))
            if sum(calm <= CALM_GAP_MS for calm, _ in gaps) == HANDOVERS:
                break
        print(f"(gap before, gap after) in ms: {gaps}")
        judged = [after for calm, after in gaps if calm <= CALM_GAP_MS]
        assert max(judged, default=0) <= MAX_GAP_MS, gaps

        history = await history_of(cluster, await cluster.wait_leader(), jobs)
        lost = [row for row in history if row["state"] == "lost"]
        assert not lost, "what runs when the lead is handed over gets its end"
        found, _ = recount("handover", await receiver.arrivals(), history)
        assert (found.not_arrived, found.doubled, found.undecided) == ([], [], [])
        if len(judged) < HANDOVERS:
            pytest.skip(f"all but the gaps holds; for those the machine was too busy: {gaps}")
