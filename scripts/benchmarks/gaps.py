"""Jobs of which one is due each 20 ms, the gaps between their webhooks, and the recount of every time.

What failover-kill, failover-stop and handover have in common; not here: what happens to the cluster.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scripts.benchmarks.report import Figure
from tests.chaos.history import ACTIVE_STATES, milliseconds
from tests.cluster.harness import Cluster, eventually

JOBS = 50
INTERVAL_MS = 1000
SPACING_MS = INTERVAL_MS // JOBS
CALM_MS = 1_000  # before a fault, to compare with
HISTORY = 5_000
NEVER = "0 0 29 2 *"


@dataclass
class Count:
    """What the calendar owed against what arrived and what was recorded."""

    due: int = 0
    arrived: int = 0  # distinct (job, scheduled_time)
    lost_on_record: int = 0  # did not arrive, and the history says lost: what at_most_once promises
    not_arrived: list[str] = field(default_factory=list)  # did not arrive, and the history does not say so
    doubled: list[str] = field(default_factory=list)  # arrived more than once
    undecided: list[str] = field(default_factory=list)  # not exactly one row in the history


def gaps_after(arrivals: Sequence[int], at: int, watched_ms: int) -> list[tuple[int, int]]:
    """Every gap between arrivals (sorted, ms) that ends after `at` and begins within `watched_ms` of it: its ends."""
    first = bisect_right(arrivals, at)
    if first == 0 or first == len(arrivals):
        raise ValueError("nothing arrived on one side of the fault")
    last = bisect_right(arrivals, at + watched_ms)
    return list(zip(arrivals[first - 1 : last], arrivals[first : last + 1], strict=False))


def gap_after(arrivals: Sequence[int], at: int, watched_ms: int) -> int:
    """The longest of them."""
    return max(later - earlier for earlier, later in gaps_after(arrivals, at, watched_ms))


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


def job(place: int, url: str) -> dict[str, Any]:
    """The job that is due `place * SPACING_MS` after each whole second."""
    return {
        "schedule": f"@every {INTERVAL_MS // 1000}s from 2024-01-01T00:00:00.{place * SPACING_MS:03}Z",
        "executor": {"type": "http", "url": url},
        "overlap": {"policy": "allow"},
        "history": {"runs": HISTORY},
    }


async def put_jobs(cluster: Cluster, node: str, url: str) -> list[str]:
    """Create them all; their names."""
    jobs = {f"job-{place:02}": job(place, url) for place in range(JOBS)}
    for name, body in jobs.items():
        await cluster.put_job(node, name, **body)
    return list(jobs)


async def history_of(cluster: Cluster, node: str, names: Iterable[str]) -> list[dict[str, Any]]:
    """Let these jobs fire no more, and give all their rows once none of them runs."""
    names = list(names)
    await asyncio.gather(*(_close(cluster, node, name) for name in names))
    return [row for name in names for row in await settled(cluster, node, name)]


async def _close(cluster: Cluster, node: str, name: str) -> None:
    """A pause would hold what fell due just before it."""
    headers = {"Content-Type": "application/merge-patch+json"}
    change = b'{"schedule": "%s"}' % NEVER.encode()
    (await cluster.request(node, "PATCH", f"/v1/jobs/{name}", data=change, headers=headers)).expect(200)


async def settled(cluster: Cluster, node: str, name: str) -> list[dict[str, Any]]:
    """A job's rows, once none of them runs any more."""

    async def ended() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await cluster.runs(node, name)
        assert not any(row["state"] in ACTIVE_STATES for row in rows), f"runs of {name} go on"
        return rows

    return await eventually(ended, within=30, what=f"all runs of {name} have ended", every=0.5)


def calm_gaps(instants: Sequence[int], moments: Iterable[int]) -> list[int]:
    """The longest gap in the second before each of these."""
    return [gap_after(instants, at - CALM_MS, CALM_MS - 2 * SPACING_MS) for at in moments]


def recount(
    name: str, arrivals: Sequence[dict[str, Any]], history: Sequence[dict[str, Any]]
) -> tuple[Count, list[Figure]]:
    """Every time that was due against what arrived and what was recorded; faults are said on stderr."""
    rows: dict[tuple[str, int], list[str]] = {}
    for row in history:
        rows.setdefault((row["job"], milliseconds(row["scheduled_time"])), []).append(row["state"])
    owed = {}
    for job_name in sorted({job for job, _ in rows}):
        times = [scheduled for job, scheduled in rows if job == job_name]
        owed[job_name] = range(min(times), max(times) + 1, INTERVAL_MS)
    found = count(owed, [(each["job"], milliseconds(each["scheduled_time"])) for each in arrivals], rows)
    for title, faults in asdict(found).items():
        if isinstance(faults, list) and faults:
            print(f"{name}: {title}: {len(faults)}, such as {faults[0]}", file=sys.stderr)
    return found, [
        Figure("times due", found.due, ""),
        Figure("arrived", found.arrived, ""),
        Figure("did not arrive, recorded as lost (at_most_once)", found.lost_on_record, ""),
        Figure("did not arrive, not recorded", len(found.not_arrived), "", 0),
        Figure("doubled", len(found.doubled), "", 0),
        Figure("without exactly one decision", len(found.undecided), "", 0),
    ]
