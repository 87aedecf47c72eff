"""commit: propose to applied on the leader, one at a time and many in flight; measured inside the leader's process."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmarks import committing_node
from scripts.benchmarks.cluster import BenchCluster
from scripts.benchmarks.report import Figure, Report, quantile
from tests.cluster.harness import eventually


async def run(folder: Path, options: argparse.Namespace) -> Report:
    """Three nodes with journals on disk; nothing else is asked of them meanwhile."""
    async with BenchCluster(folder, program=Path(committing_node.__file__)) as cluster:
        await cluster.start()
        leader = cluster.nodes[await cluster.wait_leader()]
        assert leader.process is not None
        before = {name: cluster.cpu_seconds(name) for name in cluster.nodes}
        os.kill(leader.process.pid, signal.SIGUSR1)
        answer = leader.data / "commit.json"

        async def is_there() -> bool:
            assert leader.alive, leader.tail()
            return answer.exists()

        await eventually(is_there, within=300, what="the leader has measured its commits", every=0.2)
        cpu = {name: round(cluster.cpu_seconds(name) - before[name], 2) for name in cluster.nodes}
        found = json.loads(answer.read_text())
    return report(found, {"cpu_seconds": cpu, "leader": leader.name})


def report(found: dict[str, Any], detail: dict[str, Any]) -> Report:
    """Figures from the leader's own spans."""
    alone, together = found["alone_ms"], found["together_ms"]
    flight = f"{found['in_flight']} in flight"
    figures = [
        Figure("one at a time, p50", quantile(alone, 0.5), "ms", 1.5),
        Figure("one at a time, p99", quantile(alone, 0.99), "ms", 5),
        Figure("one at a time, max", max(alone), "ms"),
        Figure(f"{flight}, median of {len(found['rates'])} rounds", median(found["rates"]), "/s", 35_000, True),
        Figure(f"{flight}, p50", quantile(together, 0.5), "ms"),
        Figure(f"{flight}, p99", quantile(together, 0.99), "ms"),
        Figure(f"{flight}, max", max(together), "ms"),
    ]
    counts = {"alone_count": len(alone), "together_count": len(together), "rates": found["rates"]}
    return Report("commit", figures, {**detail, **counts})
