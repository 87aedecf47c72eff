"""failover-kill: how long no webhook arrives when the leader is killed, by the receiver's clock.

50 jobs `@every 1s` with anchors 20 ms apart, so that an arrival is due each 20 ms.  Each killed node is restarted and
has caught up before the next kill.  At the end every time is recounted from the calendar.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmarks.cluster import BenchCluster, now_ms
from scripts.benchmarks.receiver import Receiver
from scripts.benchmarks.report import Figure, Report, quantile
from tests.chaos.history import ACTIVE_STATES, milliseconds
from tests.cluster.harness import eventually

JOBS = 50
INTERVAL_MS = 1000
SPACING_MS = INTERVAL_MS // JOBS
WARM_UP_SECONDS = 3.0
DOWN_SECONDS = 2.5  # the killed node stays away so long: its restart must not stand beside the gap
WATCHED_MS = 2_000  # after a kill; longer gaps are found too, they only have to begin within
CALM_MS = 1_000  # before a kill, to compare with
CALM_SECONDS = (1.2, 2.2)  # between a restarted node being ready and the next kill
HISTORY = 5_000


@dataclass(frozen=True)
class Kill:
    """One SIGKILL of the leader; instants by the clock that all processes share."""

    node: str
    at: int


@dataclass
class Count:
    """What the calendar owed against what arrived and what was recorded."""

    due: int = 0
    arrived: int = 0  # distinct (job, scheduled_time)
    lost_on_record: int = 0  # did not arrive, and the history says lost: what at_most_once promises
    not_arrived: list[str] = field(default_factory=list)  # did not arrive, and the history does not say so
    doubled: list[str] = field(default_factory=list)  # arrived more than once
    undecided: list[str] = field(default_factory=list)  # not exactly one row in the history


def gap_after(arrivals: Sequence[int], at: int, watched_ms: int) -> int:
    """The longest gap between arrivals (sorted, ms) that ends after `at` and begins within `watched_ms` of it."""
    first = bisect_right(arrivals, at)
    if first == 0 or first == len(arrivals):
        raise ValueError("nothing arrived on one side of the kill")
    last = bisect_right(arrivals, at + watched_ms)
    return max(
        later - earlier for earlier, later in zip(arrivals[first - 1 : last], arrivals[first : last + 1], strict=False)
    )


def count(
    owed: Mapping[str, range], arrivals: Sequence[tuple[str, int]], rows: Mapping[tuple[str, int], list[str]]
) -> Count:
    """Recount every (job, scheduled_time) of `owed`; `rows` are the states in the history."""
    seen = Counter(arrivals)
    found = Count()
    for job, times in owed.items():
        for scheduled in times:
            key, shown = (job, scheduled), f"{job} at {scheduled}"
            states = rows.get(key, [])
            found.due += 1
            if len(states) != 1:
                found.undecided.append(f"{shown}: {states}")
            if seen[key]:
                found.arrived += 1
            elif states == ["lost"]:
                found.lost_on_record += 1
            else:
                found.not_arrived.append(f"{shown}: {states}")
            if seen[key] > 1:
                found.doubled.append(f"{shown}: {seen[key]} arrivals")
    return found


async def run(folder: Path, options: argparse.Namespace) -> Report:
    """The kills, then the recount."""
    dice = random.Random(20)
    async with BenchCluster(folder) as cluster, Receiver(folder) as receiver:
        await cluster.start()
        jobs = {f"job-{place:02}": job(place, receiver.hook()) for place in range(JOBS)}
        await cluster.put_jobs(await cluster.wait_leader(), jobs)
        await asyncio.sleep(WARM_UP_SECONDS)
        kills = []
        for _ in range(options.kills):
            kills.append(await kill_leader(cluster))
            await asyncio.sleep(DOWN_SECONDS)
            await cluster.start(kills[-1].node)
            await asyncio.sleep(dice.uniform(*CALM_SECONDS))
        node = await cluster.wait_leader()
        await asyncio.gather(*(stop_job(cluster, node, name) for name in jobs))
        history = [row for name in jobs for row in await settled(cluster, node, name)]
        arrivals = await receiver.arrivals()
    return report(kills, arrivals, history)


def job(place: int, url: str) -> dict[str, Any]:
    """The job that is due `place * SPACING_MS` after each whole second."""
    return {
        "schedule": f"@every {INTERVAL_MS // 1000}s from 2024-01-01T00:00:00.{place * SPACING_MS:03}Z",
        "executor": {"type": "http", "url": url},
        "overlap": {"policy": "allow"},
        "history": {"runs": HISTORY},
    }


async def kill_leader(cluster: BenchCluster) -> Kill:
    leader = await cluster.wait_leader()
    at = now_ms()
    await cluster.kill(leader)
    return Kill(leader, at)


async def stop_job(cluster: BenchCluster, node: str, name: str) -> None:
    (await cluster.request(node, "POST", f"/v1/jobs/{name}/pause", body={})).expect(200)


async def settled(cluster: BenchCluster, node: str, name: str) -> list[dict[str, Any]]:
    """A job's rows, once none of them runs any more."""

    async def ended() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await cluster.runs(node, name)
        assert not any(row["state"] in ACTIVE_STATES for row in rows), f"runs of {name} go on"
        return rows

    return await eventually(ended, within=30, what=f"all runs of {name} have ended", every=0.5)


def report(kills: Sequence[Kill], arrivals: Sequence[dict[str, Any]], history: Sequence[dict[str, Any]]) -> Report:
    """Gaps around the kills, beside those of calm seconds, and the recount."""
    instants = sorted(arrival["arrived_at"] for arrival in arrivals)
    gaps = [gap_after(instants, kill.at, WATCHED_MS) for kill in kills]
    calm = [gap_after(instants, kill.at - CALM_MS, CALM_MS - 2 * SPACING_MS) for kill in kills]
    rows: dict[tuple[str, int], list[str]] = {}
    for row in history:
        rows.setdefault((row["job"], milliseconds(row["scheduled_time"])), []).append(row["state"])
    owed = {}
    for name in sorted({job for job, _ in rows}):
        times = [scheduled for job, scheduled in rows if job == name]
        owed[name] = range(min(times), max(times) + 1, INTERVAL_MS)
    found = count(owed, [(each["job"], milliseconds(each["scheduled_time"])) for each in arrivals], rows)
    for title, faults in asdict(found).items():
        if isinstance(faults, list) and faults:
            print(f"failover-kill: {title}: {len(faults)}, such as {faults[0]}", file=sys.stderr)
    figures = [
        Figure(f"longest gap around a kill, p50 of {len(kills)}", median(gaps), "ms", 50),
        Figure("longest gap around a kill, p90", quantile(gaps, 0.9), "ms"),
        Figure("longest gap around a kill, max", max(gaps), "ms", 500),
        Figure("longest gap in the second before a kill, p50", median(calm), "ms"),
        Figure("times due", found.due, ""),
        Figure("arrived", found.arrived, ""),
        Figure("did not arrive, recorded as lost (at_most_once)", found.lost_on_record, ""),
        Figure("did not arrive, not recorded", len(found.not_arrived), "", 0),
        Figure("doubled", len(found.doubled), "", 0),
        Figure("without exactly one decision", len(found.undecided), "", 0),
    ]
    detail = {"kills": [{**asdict(kill), "gap_ms": gap} for kill, gap in zip(kills, gaps, strict=True)]}
    return Report("failover-kill", figures, {**detail, "calm_gaps_ms": calm, "recount": asdict(found)})
