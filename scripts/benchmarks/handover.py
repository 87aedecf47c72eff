"""handover: how long no webhook arrives when the leader is told to end (SIGTERM) while the others are written to.

The jobs, the gaps and the recount are those of failover-kill.  Beside them a process notes how late the machine is, so
that a gap which is the machine's doing can be told from one that the hand-over has made.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmarks.cluster import BenchCluster, now_ms
from scripts.benchmarks.gaps import NEVER, gaps_after, history_of, put_jobs, recount
from scripts.benchmarks.lateness import Late, Lateness, late_within
from scripts.benchmarks.receiver import Receiver
from scripts.benchmarks.report import Figure, Report
from tests.cluster.harness import Cluster

WARM_UP_SECONDS = 3.0
MAX_GAP_MS = 200
CALM_SECONDS = 1.2  # before the signal, under the same writes: a second of it to compare with
WATCHED_MS = 1_500  # after the signal; longer gaps are found too, they only have to begin within
PACE_SECONDS = 0.005  # between two writes on one node: the machine is shared with what is measured
WRITTEN = {"schedule": NEVER, "executor": {"type": "http", "url": "http://127.0.0.1:9/"}}


@dataclass(frozen=True)
class Handover:
    """One leader that was told to end, at `at` by the clock that all processes share; all times in milliseconds."""

    node: str
    at: int
    before: int  # the longest gap in the second before the signal
    after: int  # the longest gap after it
    late: float  # how much of that one the machine was late
    unexplained: float  # the longest of all gaps after it, each less the time that the machine was late in it
    statuses: tuple[int, ...]  # of the writes meanwhile


async def run(folder: Path, options: argparse.Namespace) -> Report:
    """The hand-overs, then the recount."""
    async with BenchCluster(folder) as cluster, Receiver(folder) as receiver, Lateness(folder) as lateness:
        await cluster.start()
        jobs = await put_jobs(cluster, await cluster.wait_leader(), receiver.hook())
        await asyncio.sleep(WARM_UP_SECONDS)
        done = [await hand_over(cluster, receiver, lateness) for _ in range(options.handovers)]
        history = await history_of(cluster, await cluster.wait_leader(), jobs)
        arrivals = await receiver.arrivals()
    return report(done, arrivals, history)


async def hand_over(cluster: Cluster, receiver: Receiver, lateness: Lateness) -> Handover:
    """SIGTERM of the leader while the others are written to; it is started again.  Raises if it does not end well."""
    leader = await cluster.wait_leader()
    stop = asyncio.Event()
    statuses: list[int] = []
    writers = [asyncio.create_task(_write(cluster, node, stop, statuses)) for node in cluster.nodes if node != leader]
    first = len(await receiver.arrivals())
    await asyncio.sleep(CALM_SECONDS)
    at = now_ms()
    ended = await cluster.stop(leader)
    await asyncio.sleep(max(0.0, WATCHED_MS + 300 - (now_ms() - at)) / 1000)
    stop.set()
    await asyncio.gather(*writers)
    instants = sorted(arrival["arrived_at"] for arrival in await receiver.arrivals(start=first))
    late = lateness.seen()
    if ended != {leader: 0}:
        raise RuntimeError(f"the leader did not end well: {ended}")
    await cluster.start(leader)
    return judged(leader, at, instants, late, tuple(statuses))


def judged(leader: str, at: int, instants: Sequence[int], late: Sequence[Late], statuses: tuple[int, ...]) -> Handover:
    """What `instants`, those of the arrivals, and the machine's lateness say about one of them."""
    before = gaps_after(instants, at - 1_000, 950)
    after = [(end - begin, late_within(late, begin, end)) for begin, end in gaps_after(instants, at, WATCHED_MS)]
    longest, its_late = max(after)
    return Handover(
        leader,
        at,
        max(end - begin for begin, end in before),
        longest,
        round(its_late, 1),
        round(max(gap - machine for gap, machine in after), 1),
        statuses,
    )


async def _write(cluster: Cluster, node: str, stop: asyncio.Event, statuses: list[int]) -> None:
    """One write after the other on one node."""
    while not stop.is_set():
        answer = await cluster.request(node, "PUT", f"/v1/jobs/w-{node}-{len(statuses)}", body=WRITTEN)
        statuses.append(answer.status)
        await asyncio.sleep(PACE_SECONDS)


def report(done: Sequence[Handover], arrivals: Sequence[dict[str, Any]], history: Sequence[dict[str, Any]]) -> Report:
    """Gaps around the hand-overs, beside those of the seconds before, and the recount."""
    found, counted = recount("handover", arrivals, history)
    refused = sum(status not in {200, 201} for one in done for status in one.statuses)
    figures = [
        Figure(f"longest gap after SIGTERM, p50 of {len(done)}", median(one.after for one in done), "ms"),
        Figure("longest gap after SIGTERM, max", max(one.after for one in done), "ms", MAX_GAP_MS),
        Figure("the same less the time that the machine was late, max", max(one.unexplained for one in done), "ms"),
        Figure("longest gap in the second before, p50", median(one.before for one in done), "ms"),
        Figure("longest gap in the second before, max", max(one.before for one in done), "ms"),
        Figure("writes meanwhile", sum(len(one.statuses) for one in done), ""),
        Figure("of these refused", refused, "", 0),
        Figure("runs recorded as lost", sum(row["state"] == "lost" for row in history), "", 0),
        *counted,
    ]
    detail = [{key: value for key, value in asdict(one).items() if key != "statuses"} for one in done]
    return Report("handover", figures, {"handovers": detail, "recount": asdict(found)})
