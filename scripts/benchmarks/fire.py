"""fire: the highest rate of runs decided, started, finished and recorded that three nodes hold, with a no-op job.

N jobs `@every 1s`, spread over 100 anchors, owe N runs a second.  A rate is *held* if, at the end of the window, every
time that came due at least a second ago is recorded as succeeded: recounted from the calendar, for every job, from what
a follower shows.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.cluster import BenchCluster, Page, now_ms
from scripts.benchmarks.report import Figure, Report, quantile
from tests.chaos.history import milliseconds

INTERVAL_MS = 1000
ANCHORS = 100
ALLOWED_LATENESS_MS = 1000
PROBE_SECONDS = 8.0
WINDOW_SECONDS = 30.0
SETTLE_SECONDS = 3.0
FIRST_RATE = 1000
GROWTH = 1.5  # from probe to probe, while a rate is held
RESOLUTION = 1.15  # the search ends when what failed is at most this times what held
TRIALS = 5  # full windows at most
CREATED_PER_SECOND = 500  # jobs: what creation is given before the first of them is due; later ones start later
TARGET = 20_000


@dataclass(frozen=True)
class Shortfall:
    """What the recount found, over all jobs: all counts are 0 where the rate is held."""

    missing: int = 0  # due at least ALLOWED_LATENESS_MS ago, and not recorded as succeeded
    skipped: int = 0
    other: int = 0  # failed, timed out, cancelled, lost

    @property
    def is_none(self) -> bool:
        return not (self.missing or self.skipped or self.other)


def due_count(first_at: int, after: int, through: int) -> int:
    """How many times of the grid `first_at + k * INTERVAL_MS`, k >= 0, lie in (after, through]."""

    def until(instant: int) -> int:
        return max(0, (instant - first_at) // INTERVAL_MS + 1)

    return max(0, until(through) - until(after))


def recount(pages: Iterable[Page], first_at: dict[str, int]) -> Shortfall:
    """What the calendar owes against what is recorded; `first_at` is each job's first time."""
    missing = skipped = other = 0
    for page in pages:
        for job in page.items:
            stats = job["stats"]
            through = page.asked_at - ALLOWED_LATENESS_MS
            owed = due_count(first_at[job["name"]], milliseconds(stats["counted_from"]), through)
            missing += max(0, owed - stats["succeeded"])
            skipped += stats["skipped"]
            other += stats["failed"] + stats["timed_out"] + stats["cancelled"] + stats["lost"]
    return Shortfall(missing, skipped, other)


def rate_between(before: Iterable[Page], after: Iterable[Page]) -> float:
    """Runs recorded a second between two looks, each job over its own span."""
    begun = {job["name"]: (page.asked_at, job["stats"]["succeeded"]) for page in before for job in page.items}
    total = 0.0
    for page in after:
        for job in page.items:
            at, count = begun[job["name"]]
            total += (job["stats"]["succeeded"] - count) * 1000 / (page.asked_at - at)
    return total


@dataclass(frozen=True)
class Trial:
    """One rate on a fresh cluster."""

    rate: int
    seconds: float
    is_held: bool
    recorded_per_second: float
    shortfall: Shortfall
    cpu: dict[str, float]  # node -> cores used over the window
    leader: str
    lateness_ms: dict[str, float]  # finish recorded minus due, of each job's last run

    def __str__(self) -> str:
        cores = ", ".join(f"{name} {used:.2f}" for name, used in self.cpu.items())
        word = "held" if self.is_held else f"NOT held ({asdict(self.shortfall)})"
        return (
            f"fire: {self.rate}/s for {self.seconds:.0f} s {word}, {self.recorded_per_second:.0f}/s recorded, "
            f"finish minus due p99 {self.lateness_ms['p99']:.0f} ms, cores {cores} (leader {self.leader})"
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
        await search(attempt)
    return report(trials)


async def search(attempt: Any) -> None:
    """Grow by short probes until one fails; then full windows between the highest held and the lowest failed."""
    rate = FIRST_RATE
    while (await attempt(rate, PROBE_SECONDS)).is_held:
        rate = round(rate * GROWTH)
    low, high = 0.0, float(rate)  # no full window has been held yet
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
    async with BenchCluster(folder) as cluster:
        await cluster.start()
        leader = await cluster.wait_leader()
        follower = next(name for name in cluster.nodes if name != leader)
        names = [f"job-{number:06}" for number in range(rate)]
        start = now_ms() // 1000 * 1000 + 2000 + rate * 1000 // CREATED_PER_SECOND
        first_at = {name: start + place % ANCHORS * (INTERVAL_MS // ANCHORS) for place, name in enumerate(names)}
        await cluster.put_jobs(leader, {name: job(at) for name, at in first_at.items()})
        await asyncio.sleep(max(0.0, (start - now_ms()) / 1000) + SETTLE_SECONDS)

        before = [page async for page in cluster.job_pages(follower)]
        used = {name: cluster.cpu_seconds(name) for name in cluster.nodes}
        began = now_ms()
        await asyncio.sleep(seconds)
        span = (now_ms() - began) / 1000
        cpu = {name: round((cluster.cpu_seconds(name) - used[name]) / span, 3) for name in cluster.nodes}
        after = [page async for page in cluster.job_pages(follower)]
        shortfall = recount(after, first_at)
        ends = [
            milliseconds(last["finished_at"]) - milliseconds(last["scheduled_time"])
            for page in after
            for last in [item["last_run"] for item in page.items]
            if last is not None and last["finished_at"] is not None
        ]
        return Trial(
            rate=rate,
            seconds=seconds,
            is_held=shortfall.is_none,
            recorded_per_second=round(rate_between(before, after), 1),
            shortfall=shortfall,
            cpu=cpu,
            leader=leader,
            lateness_ms={"p50": quantile(ends or [math.inf], 0.5), "p99": quantile(ends or [math.inf], 0.99)},
        )


def job(first_at: int) -> dict[str, Any]:
    """A no-op job that is due each second from `first_at` on."""
    anchor = first_at - INTERVAL_MS  # the times of @every are anchor + k * interval, k >= 1
    return {
        "schedule": f"@every {INTERVAL_MS // 1000}s from {rfc3339(anchor)}",
        "executor": {"type": "noop"},
        "overlap": {"policy": "allow"},
        "history": {"runs": 1},
    }


def rfc3339(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def report(trials: list[Trial]) -> Report:
    """The highest full window that was held, and the lowest rate above it that was not."""
    windows = [trial for trial in trials if trial.seconds == WINDOW_SECONDS]
    held = max((trial for trial in windows if trial.is_held), key=lambda trial: trial.rate, default=None)
    failed = min((trial for trial in trials if not trial.is_held), key=lambda trial: trial.rate, default=None)
    figures = [Figure(f"rate held {WINDOW_SECONDS:.0f} s", held.rate if held else 0, "/s", TARGET, True)]
    if held is not None:
        figures.append(Figure("recorded a second then", held.recorded_per_second, "/s"))
        figures.append(Figure("finish minus due then, p50", held.lateness_ms["p50"], "ms"))
        figures.append(Figure("finish minus due then, p99", held.lateness_ms["p99"], "ms"))
        for name, used in held.cpu.items():
            role = "leader" if name == held.leader else "follower"
            figures.append(Figure(f"processor of {name}, {role}", used, "cores"))
    if failed is not None:
        figures.append(Figure("rate not held", failed.rate, "/s"))
        figures.append(Figure("recorded a second then", failed.recorded_per_second, "/s"))
    return Report("fire", figures, {"trials": [asdict(trial) for trial in trials]})
