"""snapshot: the state of a million jobs and as many runs as blocks and back; each step in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from scripts.benchmarks import snapshot_process
from scripts.benchmarks.report import Figure, Report


async def run(folder: Path, options: argparse.Namespace) -> Report:
    """Nothing else runs meanwhile, unless somebody else uses the machine."""
    path = folder / "blocks"
    written = await ask("write", path, str(options.records))
    read = {word: await ask("read", path, word) for word in ("on", "off")}
    path.unlink()
    return report(options.records, written, read)


async def ask(*arguments: Any) -> dict[str, Any]:
    """What snapshot_process.py found."""
    program = Path(snapshot_process.__file__)
    child = await asyncio.create_subprocess_exec(
        sys.executable, program, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await child.communicate()
    assert child.returncode == 0, f"{program.name} {arguments[0]} ended with {child.returncode}"
    found: dict[str, Any] = json.loads(said)
    return found


def report(records: int, written: dict[str, Any], read: dict[str, dict[str, Any]]) -> Report:
    """The figures; targets are those of a million."""
    on, off = read["on"], read["off"]
    figures = [
        Figure(f"{records:,} jobs and runs, in memory", written["built_mb"], "MB", 1_200),
        Figure("the same, restored, to what entries have built", off["restored_mb"] / written["built_mb"], "", 1),
        Figure("fork", written["fork_ms"], "ms", 50),
        Figure("encode, in the child", written["encode_seconds"], "s", 10),
        Figure("longest gap between two blocks", written["block_gap_ms"], "ms"),
        Figure("size", written["bytes"] / 1e6, "MB"),
        Figure("read, feed, install", off["restore_seconds"], "s", 10),
        Figure("longest feed", on["feed_ms"][-1], "ms", 50),
        Figure("the same beside a state as large", on["replace_feed_ms"][-1], "ms", 50),
        Figure("the same, without collections", off["replace_feed_ms"][-1], "ms", 50),
        Figure("median feed", off["feed_median_ms"], "ms"),
        Figure("install in place of a state as large", off["replace_install_ms"], "ms", 50),
        Figure("longest turn while that one is let go", off["release_ms"], "ms", 50),
    ]
    return Report("snapshot", figures, {"records": records, "written": written, "read": read})
