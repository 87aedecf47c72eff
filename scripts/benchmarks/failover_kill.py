"""failover-kill: how long no webhook arrives when the leader is killed, by the receiver's clock.

50 jobs `@every 1s` with anchors 20 ms apart, so that an arrival is due each 20 ms.  Each killed node is restarted and
has caught up before the next kill.  At the end every time is recounted from the calendar.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmarks.cluster import BenchCluster, now_ms
from scripts.benchmarks.gaps import calm_gaps, gap_after, history_of, put_jobs, recount
from scripts.benchmarks.receiver import Receiver
from scripts.benchmarks.report import Figure, Report, quantile

WARM_UP_SECONDS = 3.0
DOWN_SECONDS = 2.5  # the killed node stays away so long: its restart must not stand beside the gap
WATCHED_MS = 2_000  # after a kill; longer gaps are found too, they only have to begin within
CALM_SECONDS = (1.2, 2.2)  # between a restarted node being ready and the next kill


@dataclass(frozen=True)
class Kill:
    """One SIGKILL of the leader; instants by the clock that all processes share."""

    node: str
    at: int


async def run(folder: Path, options: argparse.Namespace) -> Report:
    """The kills, then the recount."""
    dice = random.Random(20)
    async with BenchCluster(folder) as cluster, Receiver(folder) as receiver:
        await cluster.start()
        jobs = await put_jobs(cluster, await cluster.wait_leader(), receiver.hook())
        await asyncio.sleep(WARM_UP_SECONDS)
        kills = []
        for _ in range(options.kills):
            kills.append(await kill_leader(cluster))
            await asyncio.sleep(DOWN_SECONDS)
            await cluster.start(kills[-1].node)
            await asyncio.sleep(dice.uniform(*CALM_SECONDS))
        history = await history_of(cluster, await cluster.wait_leader(), jobs)
        arrivals = await receiver.arrivals()
    return report(kills, arrivals, history)


async def kill_leader(cluster: BenchCluster) -> Kill:
    leader = await cluster.wait_leader()
    at = now_ms()
    await cluster.kill(leader)
    return Kill(leader, at)


def report(kills: Sequence[Kill], arrivals: Sequence[dict[str, Any]], history: Sequence[dict[str, Any]]) -> Report:
    """Gaps around the kills, beside those of calm seconds, and the recount."""
    instants = sorted(arrival["arrived_at"] for arrival in arrivals)
    gaps = [gap_after(instants, kill.at, WATCHED_MS) for kill in kills]
    calm = calm_gaps(instants, [kill.at for kill in kills])
    found, counted = recount("failover-kill", arrivals, history)
    figures = [
        Figure(f"longest gap around a kill, p50 of {len(kills)}", median(gaps), "ms", 50),
        Figure("longest gap around a kill, p90", quantile(gaps, 0.9), "ms"),
        Figure("longest gap around a kill, max", max(gaps), "ms", 500),
        Figure("longest gap in the second before a kill, p50", median(calm), "ms"),
        *counted,
    ]
    detail = {"kills": [{**asdict(kill), "gap_ms": gap} for kill, gap in zip(kills, gaps, strict=True)]}
    return Report("failover-kill", figures, {**detail, "calm_gaps_ms": calm, "recount": asdict(found)})
