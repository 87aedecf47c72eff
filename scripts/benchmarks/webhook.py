"""webhook: the highest rate of real HTTP calls that three nodes hold, with jobs of `placement: any`.

N jobs `@every 1s`, spread over 100 anchors, owe N calls a second to one receiver, a process of its own.  A rate is
*held* if each time that came due in the window has arrived there once, within a second, by the receiver's own clock and
count; the nodes' records are not asked.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.cluster import BenchCluster, now_ms
from scripts.benchmarks.fire import ALLOWED_LATENESS_MS, ANCHORS, CREATED_PER_SECOND, INTERVAL_MS, due_count, rfc3339
from scripts.benchmarks.receiver import Receiver
from scripts.benchmarks.report import Figure, Report, quantile
from tests.chaos.history import milliseconds

PROBE_SECONDS = 6.0
WINDOW_SECONDS = 20.0
SETTLE_SECONDS = 3.0
FIRST_RATE = 500
GROWTH = 1.5
RESOLUTION = 1.15
TRIALS = 4  # full windows at most
TARGET = 1_500


@dataclass(frozen=True)
class Shortfall:
    """Times due in the window against arrivals; all counts are 0 where the rate is held."""

    missing: int = 0  # did not arrive within ALLOWED_LATENESS_MS
    doubled: int = 0

    @property
    def is_none(self) -> bool:
        return not (self.missing or self.doubled)


def recount(
    arrivals: Iterable[dict[str, Any]], first_at: dict[str, int], after: int, through: int
) -> tuple[Shortfall, list[int]]:
    """What was due in (after, through] and did not arrive in time, or twice; and how late each was, in milliseconds.

    `first_at` is each job's first time, all in milliseconds since 1970.
    """
    seen: Counter[tuple[str, int]] = Counter()
    lateness: list[int] = []
    in_time = 0
    for arrival in arrivals:
        due = milliseconds(arrival["scheduled_time"])
        if arrival["job"] not in first_at or not after < due <= through:
            continue
        seen[arrival["job"], due] += 1
        if seen[arrival["job"], due] == 1:
            lateness.append(arrival["arrived_at"] - due)
            in_time += lateness[-1] <= ALLOWED_LATENESS_MS
    owed = sum(due_count(first, after, through) for first in first_at.values())
    return Shortfall(owed - in_time, sum(count - 1 for count in seen.values())), lateness


@dataclass(frozen=True)
class Trial:
    """One rate on a fresh cluster."""

    rate: int
    seconds: float
    is_held: bool
    arrived_per_second: float
    shortfall: Shortfall
    cpu: dict[str, float]  # node -> cores used over the window
    by_node: dict[str, int]  # arrivals in the window
    leader: str
    lateness_ms: dict[str, float]  # arrival minus due

    def __str__(self) -> str:
        cores = ", ".join(f"{name} {used:.2f}" for name, used in self.cpu.items())
        word = "held" if self.is_held else f"NOT held ({asdict(self.shortfall)})"
        return (
            f"webhook: {self.rate}/s for {self.seconds:.0f} s {word}, {self.arrived_per_second:.0f}/s arrived, "
            f"arrival minus due p50 {self.lateness_ms['p50']:.0f} ms, p99 {self.lateness_ms['p99']:.0f} ms, "
            f"cores {cores} (leader {self.leader}), by node {self.by_node}"
        )


async def run(folder: Path, options: argparse.Namespace) -> Report:
    """The search, or the one rate that was asked for."""
    trials: list[Trial] = []

    async def attempt(rate: int, seconds: float) -> Trial:
        trial = await try_rate(folder / f"{len(trials):02}-{rate}", rate, seconds)
        print(trial, file=sys.stderr, flush=True)
        trials.append(trial)
        return trial

    if options.rate:
        await attempt(options.rate, WINDOW_SECONDS)
    else:
        await _search(attempt)
    return report(trials)


async def _search(attempt: Any) -> None:
    """Grow by short probes until one fails; then full windows between the highest held and the lowest failed."""
    rate = FIRST_RATE
    while (await attempt(rate, PROBE_SECONDS)).is_held:
        rate = round(rate * GROWTH)
    low, high = 0.0, float(rate)
    candidate = rate / GROWTH
    for _ in range(TRIALS):
        if (await attempt(round(candidate), WINDOW_SECONDS)).is_held:
            low = candidate
        else:
            high = candidate
        if low and high / low <= RESOLUTION:
            return
        candidate = math.sqrt(low * high) if low else high / math.sqrt(GROWTH)


async def try_rate(folder: Path, rate: int, seconds: float) -> Trial:
    """One rate on a fresh cluster in the default configuration."""
    async with Receiver(folder) as receiver, BenchCluster(folder) as cluster:
        await cluster.start()
        leader = await cluster.wait_leader()
        names = [f"job-{number:06}" for number in range(rate)]
        start = now_ms() // 1000 * 1000 + 2000 + rate * 1000 // CREATED_PER_SECOND
        first_at = {name: start + place % ANCHORS * (INTERVAL_MS // ANCHORS) for place, name in enumerate(names)}
        await cluster.put_jobs(leader, {name: job(at, receiver.hook()) for name, at in first_at.items()})
        await asyncio.sleep(max(0.0, (start - now_ms()) / 1000) + SETTLE_SECONDS)

        used = {name: cluster.cpu_seconds(name) for name in cluster.nodes}
        began = now_ms()
        await asyncio.sleep(seconds)
        ended = now_ms()
        cpu = {name: round((cluster.cpu_seconds(name) - used[name]) * 1000 / (ended - began), 3) for name in used}
        await asyncio.sleep(ALLOWED_LATENESS_MS / 1000)
        arrivals = await receiver.arrivals()
        shortfall, lateness = recount(arrivals, first_at, began, ended)
        nodes = Counter(one["node"] for one in arrivals if began < one["arrived_at"] <= ended)
        return Trial(
            rate=rate,
            seconds=seconds,
            is_held=shortfall.is_none,
            arrived_per_second=round(nodes.total() * 1000 / (ended - began), 1),
            shortfall=shortfall,
            cpu=cpu,
            by_node=dict(sorted(nodes.items())),
            leader=leader,
            lateness_ms={
                name: quantile(lateness or [math.inf], share) for name, share in (("p50", 0.5), ("p99", 0.99))
            },
        )


def job(first_at: int, url: str) -> dict[str, Any]:
    """A webhook that is due each second from `first_at` on, on any node."""
    anchor = first_at - INTERVAL_MS  # the times of @every are anchor + k * interval, k >= 1
    return {
        "schedule": f"@every {INTERVAL_MS // 1000}s from {rfc3339(anchor)}",
        "executor": {"type": "http", "url": url},
        "placement": {"on": "any"},
        "overlap": {"policy": "allow"},
        "history": {"runs": 1},
    }


def report(trials: list[Trial]) -> Report:
    """The highest full window that was held, and the lowest rate above it that was not."""
    windows = [trial for trial in trials if trial.seconds == WINDOW_SECONDS]
    held = max((trial for trial in windows if trial.is_held), key=lambda trial: trial.rate, default=None)
    failed = min((trial for trial in trials if not trial.is_held), key=lambda trial: trial.rate, default=None)
    figures = [Figure(f"rate held {WINDOW_SECONDS:.0f} s", held.rate if held else 0, "/s", TARGET, True)]
    if held is not None:
        figures.append(Figure("arrival minus due then, p50", held.lateness_ms["p50"], "ms"))
        figures.append(Figure("arrival minus due then, p99", held.lateness_ms["p99"], "ms"))
        for name, used in held.cpu.items():
            role = "leader" if name == held.leader else "follower"
            figures.append(Figure(f"processor of {name}, {role}", used, "cores"))
    if failed is not None:
        figures.append(Figure("rate not held", failed.rate, "/s"))
        figures.append(Figure("arrived a second then", failed.arrived_per_second, "/s"))
    return Report("webhook", figures, {"trials": [asdict(trial) for trial in trials]})
