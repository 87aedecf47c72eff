"""failover-stop: how long no webhook arrives when the leader is frozen, and when it is cut off from its peers.

The jobs, the gaps and the recount are those of failover-kill.  A frozen or cut-off leader ends no connection, so that
only silence tells: the election time-out is most of the gap.  Then both cores are kept busy for some minutes at the
same settings, and nobody may be elected.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmarks.cluster import now_ms
from scripts.benchmarks.gaps import calm_gaps, gap_after, history_of, put_jobs, recount
from scripts.benchmarks.receiver import Receiver
from scripts.benchmarks.report import Figure, Report, quantile
from tests.cluster.network import CutCluster, best_cut_cluster

WARM_UP_SECONDS = 3.0
FAULT_SECONDS = 3.5  # longer than any election takes
WATCHED_MS = 3_000
CALM_SECONDS = (1.5, 2.5)  # between the end of one fault, caught up, and the next
BUSY_PROCESSES_A_CORE = 1
LOOK_SECONDS = 0.5
FREEZE, CUT = "frozen", "cut off"


@dataclass(frozen=True)
class Fault:
    """One leader that went silent; `at` by the clock that all processes share."""

    kind: str
    node: str
    at: int


@dataclass(frozen=True)
class Busy:
    """What was seen while all cores were busy: `terms` has a term for each election, the first one included."""

    seconds: float
    terms: list[int]
    load_average: float

    @property
    def elections(self) -> int:
        return len(self.terms) - 1


async def run(folder: Path, options: argparse.Namespace) -> Report:
    """The faults, one of each sort in turn, then the busy minutes, then the recount."""
    dice = random.Random(20)
    faults: list[Fault] = []
    async with best_cut_cluster()(folder) as cluster, Receiver(folder, cluster.place) as receiver:
        await cluster.start()
        jobs = await put_jobs(cluster, await cluster.wait_leader(), receiver.hook())
        await asyncio.sleep(WARM_UP_SECONDS)
        for _ in range(options.kills):
            for kind in (FREEZE, CUT):
                faults.append(await silence(cluster, kind))
                await cluster.wait_ready()
                await asyncio.sleep(dice.uniform(*CALM_SECONDS))
        busy = await keep_busy(cluster, options.minutes * 60)
        history = await history_of(cluster, await cluster.wait_leader(), jobs)
        arrivals = await receiver.arrivals()
    return report(faults, busy, arrivals, history, cluster.not_injected)


async def silence(cluster: CutCluster, kind: str) -> Fault:
    """The leader goes silent and comes back."""
    leader = await cluster.wait_leader()
    fault = Fault(kind, leader, now_ms())
    if kind == FREEZE:
        cluster.sigstop(leader)
    else:
        cluster.isolate(leader)
    await asyncio.sleep(FAULT_SECONDS)
    cluster.sigcont(leader)
    cluster.heal()
    return fault


async def keep_busy(cluster: CutCluster, seconds: float) -> Busy:
    """One endless loop a core beside the cluster; every term that any node names."""
    terms = {await highest_term(cluster)}
    cores = len(os.sched_getaffinity(0))
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL)
        for _ in range(cores * BUSY_PROCESSES_A_CORE)
    ]
    began = time.monotonic()
    try:
        while time.monotonic() - began < seconds:
            await asyncio.sleep(LOOK_SECONDS)
            terms.add(await highest_term(cluster))
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    return Busy(time.monotonic() - began, sorted(terms), os.getloadavg()[0])


async def highest_term(cluster: CutCluster) -> int:
    return max([(await cluster.status(name))["term"] for name in cluster.nodes])


def report(
    faults: Sequence[Fault],
    busy: Busy,
    arrivals: Sequence[dict[str, Any]],
    history: Sequence[dict[str, Any]],
    not_injected: Sequence[str],
) -> Report:
    """Gaps around the faults of each sort, the elections of the busy minutes, and the recount."""
    instants = sorted(arrival["arrived_at"] for arrival in arrivals)
    gaps = [gap_after(instants, fault.at, WATCHED_MS) for fault in faults]
    figures = []
    for kind in (FREEZE, CUT):
        some = [gap for fault, gap in zip(faults, gaps, strict=True) if fault.kind == kind]
        figures += [
            Figure(f"longest gap around a leader that is {kind}, p50 of {len(some)}", median(some), "ms", 1_500),
            Figure(f"longest gap around a leader that is {kind}, p90", quantile(some, 0.9), "ms"),
            Figure(f"longest gap around a leader that is {kind}, max", max(some), "ms", 2_500),
        ]
    calm = calm_gaps(instants, [fault.at for fault in faults])
    found, counted = recount("failover-stop", arrivals, history)
    figures += [
        Figure("longest gap in the second before a fault, p50", median(calm), "ms"),
        Figure(f"elections in {busy.seconds / 60:.1f} minutes with every core busy", busy.elections, "", 0),
        *counted,
    ]
    detail = {
        "faults": [{**asdict(fault), "gap_ms": gap} for fault, gap in zip(faults, gaps, strict=True)],
        "busy": asdict(busy),
        "calm_gaps_ms": calm,
        "recount": asdict(found),
        "not_injected": list(not_injected),
    }
    return Report("failover-stop", figures, detail)
