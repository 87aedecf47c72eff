"""The command line of `scripts/bench`: which benchmarks, where their files go.  Not here: what they measure."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from scripts.benchmarks import (
    apply,
    asking,
    commit,
    failover_kill,
    failover_stop,
    fire,
    handover,
    snapshot,
    timeline,
    webhook,
)
from scripts.benchmarks.report import Report, measured, table

Benchmark = Callable[[Path, argparse.Namespace], Awaitable[Report]]

BENCHMARKS: dict[str, Benchmark] = {
    "apply": apply.run,
    "commit": commit.run,
    "fire": fire.run,
    "failover-kill": failover_kill.run,
    "failover-stop": failover_stop.run,
    "handover": handover.run,
    "read": asking.read,
    "snapshot": snapshot.run,
    "timeline": timeline.run,
    "webhook": webhook.run,
    "write": asking.write,
}


def main(usage: str, arguments: list[str]) -> int:
    """Runs what was asked for, one after the other; prints the table last."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (all by default)")
    parser.add_argument("--rate", type=int, help="fire, webhook: try this rate only, in runs a second")
    parser.add_argument("--kills", type=int, default=20, help="failover-kill, failover-stop: how many of a sort")
    parser.add_argument("--handovers", type=int, default=10, help="handover: how many (default 10)")
    parser.add_argument("--minutes", type=float, default=10, help="failover-stop: with busy cores (default 10)")
    parser.add_argument("--records", type=int, default=1_000_000, help="snapshot: jobs, and runs (default 1,000,000)")
    parser.add_argument("--json", type=Path, default=Path(), help="directory for bench-NAME.json (default: here)")
    parser.add_argument("--keep", type=Path, help="keep the nodes' data and logs in this directory")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")

    names = options.names or list(BENCHMARKS)
    if options.keep and any((options.keep / name).exists() for name in names):
        parser.error(
            f"{options.keep} holds an earlier run: a cluster would go on from its data; name another directory"
        )

    reports: list[Report] = []
    failed = False
    folder = options.keep.resolve() if options.keep else Path(tempfile.mkdtemp(prefix="raftcron-bench-"))
    try:
        for name in names:
            try:
                report = asyncio.run(measured(name, BENCHMARKS[name], folder / name, options))
            except Exception:
                traceback.print_exc()
                print(f"{name}: could not be measured", file=sys.stderr, flush=True)
                failed = True
            else:
                reports.append(report)
                report.save(options.json / f"bench-{name}.json")
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if reports:
        print(table(reports))
    return int(failed)
