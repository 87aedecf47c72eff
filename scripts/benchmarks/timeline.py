"""timeline: a million jobs over 5,000 (schedule, zone) pairs: built, then 100,000 due at one instant; no node runs."""

from __future__ import annotations

import argparse
import gc
import itertools
import time
from pathlib import Path
from statistics import median
from typing import Any

from raftcron.core import definition
from raftcron.core.model import Job, Policy
from raftcron.core.timeline import Timeline
from scripts.benchmarks.report import Figure, Report

JOBS = 1_000_000
PAIRS = 5_000
DUE_PAIRS = PAIRS // 10
BEGAN_MS = 1_798_800_050_000  # 2027-01-01T10:00:50Z
HOUR_MS = 3_600_000
ROUNDS = 9
STEP = 1_000  # jobs that a leader asks for at once

# On the hour in UTC is on the hour in these.
ZONES = (
    "UTC", "Europe/London", "Europe/Berlin", "Europe/Riga", "Europe/Moscow", "Asia/Dubai", "Asia/Karachi", "Asia/Dhaka",
    "Asia/Bangkok", "Asia/Shanghai", "Asia/Tokyo", "Australia/Brisbane", "Pacific/Noumea", "Pacific/Auckland",
    "Atlantic/Azores", "America/Sao_Paulo", "America/New_York", "America/Chicago", "America/Denver", "America/Phoenix",
    "America/Los_Angeles", "America/Anchorage", "Pacific/Honolulu", "Pacific/Pago_Pago", "Africa/Casablanca",
)  # fmt: skip
HOURLY = tuple(f"0{minutes} * * * *" for minutes in ("", *(f",{minute}" for minute in range(1, 20))))


def pairs() -> list[tuple[str, str]]:
    """Every tenth is due on each hour, the others once a day or week and never on the hour."""
    hourly = itertools.product(HOURLY, ZONES)
    daily = ((f"{minute} {hour} * * {day}", zone) for day in ("*", "MON") for minute in range(21, 56)
             for hour in range(0, 24, 5) for zone in ZONES)  # fmt: skip
    return [*itertools.islice(hourly, DUE_PAIRS), *itertools.islice(daily, PAIRS - DUE_PAIRS)]


def job(number: int, stored: bytes) -> Job:
    return Job(
        name=f"job-{number}",
        uid=(number + 1) << 12,
        revision=1,
        created_at=BEGAN_MS,
        updated_at=BEGAN_MS,
        definition=stored,
        anchor=BEGAN_MS,
        decided_through=BEGAN_MS,
        counted_from=BEGAN_MS,
    )


def built() -> tuple[Timeline, dict[int, Job], dict[int, Policy], float, float]:
    """The timeline of all jobs, and how long its making took, in seconds and in those of the processor."""
    stored = [
        definition.canonical({"schedule": text, "timezone": zone, "executor": {"type": "noop"}})
        for text, zone in pairs()
    ]
    assert len(set(stored)) == PAIRS
    policies = [definition.policy_of(one) for one in stored]
    jobs = {one.uid: one for one in (job(number, stored[number % PAIRS]) for number in range(JOBS))}
    by_uid = {uid: policies[place % PAIRS] for place, uid in enumerate(jobs)}
    gc.collect()
    timeline = Timeline({})
    began, worked = time.perf_counter(), time.process_time()
    for uid, one in jobs.items():
        timeline.update(one, by_uid[uid])
    return timeline, jobs, by_uid, time.perf_counter() - began, time.process_time() - worked


def due(timeline: Timeline, jobs: dict[int, Job], now: int) -> tuple[list[int], float, float]:
    """All that is due at an instant, the seconds it took, and those of the longest step."""
    found: list[int] = []
    longest = total = 0.0
    while (at := timeline.next_at()) is not None and at <= now:
        began = time.perf_counter()
        found += timeline.due(now, jobs.get, STEP)
        spent = time.perf_counter() - began
        longest, total = max(longest, spent), total + spent
    return found, total, longest


async def run(folder: Path, options: argparse.Namespace) -> Report:
    """Hour after hour: what is due is popped, and its groups wait for their next instant; then all of it is decided."""
    timeline, jobs, policies, build_seconds, build_work = built()
    popped, worked, longest, applied = [], [], [], []
    for number in range(ROUNDS):
        at = BEGAN_MS - BEGAN_MS % HOUR_MS + HOUR_MS * (number + 1)
        _pass(timeline, jobs, policies, at - 1)
        work = time.process_time()
        uids, seconds, step = due(timeline, jobs, at)
        worked.append((time.process_time() - work) * 1000)
        assert len(set(uids)) == len(uids) == JOBS // 10, len(uids)
        popped.append(seconds * 1000)
        longest.append(step * 1000)
        began = time.perf_counter()
        _decided(timeline, jobs, policies, uids, at)
        applied.append((time.perf_counter() - began) * 1000)
    detail: dict[str, Any] = {"popped_ms": popped, "worked_ms": worked, "step_ms": longest, "applied_ms": applied}
    return Report(
        "timeline",
        [
            Figure(f"{JOBS:,} jobs over {PAIRS:,} pairs: built", build_seconds, "s", 3),
            Figure("the same, processor time", build_work, "s"),
            Figure(f"{JOBS // 10:,} due: popped and rescheduled, median of {ROUNDS}", median(popped), "ms", 50),
            Figure("the same, slowest", max(popped), "ms"),
            Figure("the same, processor time, median", median(worked), "ms"),
            Figure(f"longest step, of {STEP:,} jobs", max(longest), "ms"),
            Figure("their decisions taken in, median", median(applied), "ms"),
        ],
        detail,
    )


def _pass(timeline: Timeline, jobs: dict[int, Job], policies: dict[int, Policy], now: int) -> None:
    """What lies between two hours is decided, unmeasured."""
    uids, _, _ = due(timeline, jobs, now)
    _decided(timeline, jobs, policies, uids, now)


def _decided(
    timeline: Timeline, jobs: dict[int, Job], policies: dict[int, Policy], uids: list[int], through: int
) -> None:
    """As `apply` does it: the watermark moves, and the timeline is told."""
    for uid in uids:
        jobs[uid].decided_through = through
        timeline.update(jobs[uid], policies[uid])
