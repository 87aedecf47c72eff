"""How late the machine is: a process that does next to nothing, and notes each turn that takes too long.

What is measured beside it waits for the same cores and the same disk, so such a time is the machine's and not theirs.
It counts rather less than it was: whoever does nothing is woken first.  Run as a module it probes until it is ended;
imported it gives `Lateness`, which starts, reads and ends that process.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
TURN_MS = 5.0  # of sleep, before a page is written and synced
TOLERATED_MS = 1.0  # a turn that is less late than this is in time: the sync, and the timer's slack

Late = tuple[float, float]  # from when to when the probe should have gone on, in ms since 1970


def late_within(late: Sequence[Late], begin: float, end: float) -> float:
    """For how many of the milliseconds from `begin` to `end` the machine was late."""
    return sum(max(0.0, min(end, until) - max(begin, since)) for since, until in late)


def probe(path: Path) -> None:
    """Append a line with both ends of each late time to `path`, after a first one, until the process is ended."""
    with path.open("w") as file, path.with_suffix(".page").open("wb", buffering=0) as page:
        print("probing", file=file, flush=True)
        while True:
            began = time.monotonic()
            time.sleep(TURN_MS / 1000)
            os.pwrite(page.fileno(), bytes(4096), 0)
            os.fdatasync(page.fileno())
            late = (time.monotonic() - began) * 1000 - TURN_MS
            if late > TOLERATED_MS:
                now = time.time() * 1000
                print(f"{now - late:.1f} {now:.1f}", file=file, flush=True)


class Lateness:
    """The probe's process; its files are in `folder`, which is to be on the disk that is measured."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.resolve() / "lateness.txt"
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.lateness", str(self._path)], cwd=ROOT, stdin=subprocess.DEVNULL
        )
        while not self._path.read_text():
            if self._process.poll() is not None:
                raise RuntimeError(f"the probe of the machine's lateness ended with code {self._process.returncode}")
            await asyncio.sleep(0.02)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def seen(self) -> list[Late]:
        """All so far, in order; a turn that has not ended yet is not among them."""
        lines = self._path.read_text().rpartition("\n")[0].splitlines()[1:]
        return [(float(since), float(until)) for since, until in map(str.split, lines)]


if __name__ == "__main__":
    probe(Path(sys.argv[1]))
