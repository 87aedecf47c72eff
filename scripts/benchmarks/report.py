"""What a benchmark hands back: figures against targets, the conditions they were taken under, a table and a file."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("pysyncobj", "croniter", "aiohttp", "msgpack", "msgspec", "tzdata")
SYNCS = 300
SYNC_BYTES = 4096


@dataclass(frozen=True)
class Figure:
    """One number with its unit; `bound` is the target, None where performance.md names none."""

    what: str
    value: float
    unit: str
    bound: float | None = None
    is_at_least: bool = False  # the target is a floor, not a ceiling

    @property
    def is_met(self) -> bool | None:
        if self.bound is None:
            return None
        return self.value >= self.bound if self.is_at_least else self.value <= self.bound

    @property
    def target(self) -> str:
        return "" if self.bound is None else f"{'>=' if self.is_at_least else '<='} {number(self.bound)}"


@dataclass
class Report:
    """The figures of one benchmark; `detail` is what they were made from, for the file."""

    name: str
    figures: list[Figure]
    detail: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        figures = [{**asdict(figure), "is_met": figure.is_met} for figure in self.figures]
        content = {"name": self.name, "figures": figures, "conditions": self.conditions, "detail": self.detail}
        path.write_text(json.dumps(content, indent=1) + "\n")


async def measured(
    name: str,
    benchmark: Callable[[Path, argparse.Namespace], Awaitable[Report]],
    folder: Path,
    options: argparse.Namespace,
) -> Report:
    """Run one benchmark in a folder of its own, with the conditions before and after."""
    folder.mkdir(parents=True, exist_ok=True)
    found = conditions(folder)
    began = time.monotonic()
    report = await benchmark(folder, options)
    found["load_average_after"] = os.getloadavg()
    found["seconds"] = round(time.monotonic() - began, 1)
    report.conditions = found
    return report


def conditions(folder: Path) -> dict[str, Any]:
    """The machine, the versions and the disk under `folder`, now."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "versions": {"raftcron": version("raftcron"), **{name: version(name) for name in PACKAGES}},
        "fdatasync_ms": _fdatasync(folder),
        "load_average_before": os.getloadavg(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _fdatasync(folder: Path) -> dict[str, float]:
    """How long appending 4 KiB and fdatasync take on this disk: the floor of a commit."""
    path = folder / "fdatasync"
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        spans = []
        for _ in range(SYNCS):
            began = time.perf_counter()
            os.write(file, b"\0" * SYNC_BYTES)
            os.fdatasync(file)
            spans.append((time.perf_counter() - began) * 1000)
    finally:
        os.close(file)
        path.unlink()
    return {"p50": round(quantile(spans, 0.5), 3), "p99": round(quantile(spans, 0.99), 3), "max": round(max(spans), 3)}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0-1) of all values do not exceed; ValueError where there are none."""
    if not values:
        raise ValueError("no values to take a quantile of")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def number(value: float) -> str:
    """Three digits, thousands apart."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(reports: Sequence[Report]) -> str:
    """All figures, with the conditions below."""
    rows = [("name", "what", "measured", "target", "met")]
    for report in reports:
        for figure in report.figures:
            met = {None: "", True: "yes", False: "NO"}[figure.is_met]
            value = f"{number(figure.value)} {figure.unit}".rstrip()
            rows.append((report.name, figure.what, value, figure.target, met))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-|-".join("-" * width for width in widths))
    return "\n".join([*lines, *(_footnote(report) for report in reports)])


def _footnote(report: Report) -> str:
    at = report.conditions
    before, after = at["load_average_before"][0], at["load_average_after"][0]
    sync = at["fdatasync_ms"]
    versions = ", ".join(f"{name} {text}" for name, text in at["versions"].items())
    return (
        f"{report.name}: {at['cores']} cores ({at['processor']}), {at['memory_gib']} GiB, Linux {at['kernel']}, "
        f"Python {at['python']}, {versions}; fdatasync of 4 KiB p50 {sync['p50']} ms, p99 {sync['p99']} ms; "
        f"load average {before:.1f} before, {after:.1f} after; {at['seconds']} s"
    )
