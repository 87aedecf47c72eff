"""apply: 100,000 jobs in one `POST /v1/jobs:apply`, as one JSON object and as a line each, on the leader."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.asking import client, request
from scripts.benchmarks.cluster import BenchCluster
from scripts.benchmarks.report import Figure, Report

JOBS = 100_000
JSON, LINES = "application/json", "application/x-ndjson"
STALL = re.compile(rb"^raftcron_loop_stall_seconds_max\S* ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Trial:
    """One request on a fresh cluster."""

    kind: str
    seconds: float
    leader: str
    cpu_us: dict[str, float]  # node -> of processor a job
    stall_ms: dict[str, float]  # node -> the longest time that something held its loop, from its start on


async def run(folder: Path, options: argparse.Namespace) -> Report:
    trials = [await try_kind(folder / name, kind) for name, kind in (("json", JSON), ("lines", LINES))]
    figures = []
    for name, trial in zip(("JSON", "a line each"), trials, strict=True):
        follower = max(used for node, used in trial.cpu_us.items() if node != trial.leader)
        figures += [
            Figure(f"{name}", JOBS / trial.seconds, "jobs/s", 10_000, True),
            Figure(f"{name}: longest stall, leader", trial.stall_ms[trial.leader], "ms", 50),
            Figure(f"{name}: longest stall of all", max(trial.stall_ms.values()), "ms", 50),
            Figure(f"{name}: processor a job, leader", trial.cpu_us[trial.leader], "us"),
            Figure(f"{name}: processor a job, a follower", follower, "us"),
        ]
    return Report("apply", figures, {"trials": [asdict(trial) for trial in trials]})


def job(number: int) -> dict[str, Any]:
    """Of 1,440 schedules, and labels as teams have them."""
    return {
        "name": f"job-{number:06}",
        "schedule": f"{number % 60} {number // 60 % 24} 29 2 *",
        "executor": {"type": "http", "url": f"http://127.0.0.1:9000/hook/{number % 100}"},
        "labels": {"team": f"t{number % 50}"},
    }


async def try_kind(folder: Path, kind: str) -> Trial:
    jobs = [job(number) for number in range(JOBS)]
    if kind == JSON:
        body = json.dumps({"jobs": jobs}).encode()
    else:
        body = b"".join(json.dumps(one).encode() + b"\n" for one in jobs)
    async with BenchCluster(folder) as cluster:
        await cluster.start()
        leader = await cluster.wait_leader()
        before = {name: cluster.cpu_seconds(name) for name in cluster.nodes}
        async with client(cluster.nodes[leader].url) as asking:
            began = time.monotonic()
            answer = await asking.ask(request("POST", "/v1/jobs:apply", body, kind))
            seconds = time.monotonic() - began
        results = await asyncio.to_thread(json.loads, answer)
        taken = sum(result["status"] == 201 for result in results["results"])
        if taken != JOBS:
            raise RuntimeError(f"{JOBS - taken} of {JOBS} jobs were not taken")
        cpu = {name: (cluster.cpu_seconds(name) - before[name]) * 1e6 / JOBS for name in cluster.nodes}
        stalls = {name: await _stall_ms(node.url) for name, node in cluster.nodes.items()}
        return Trial(kind, seconds, leader, cpu, stalls)


async def _stall_ms(url: str) -> float:
    async with client(url) as asking:
        text = await asking.ask(request("GET", "/metrics"))
    found = STALL.search(text)
    if found is None:
        raise RuntimeError("the node tells of no stalls")
    return float(found[1]) * 1000
