"""A control held by hand, attempts with defaults, and waiting for what other processes do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raftcron.clock import SystemClock
from raftcron.executors import processes
from raftcron.ports import Attempt

LICENCE_SECONDS = 60.0


def boot_in(seconds: float) -> float:
    """An instant on the boot clock."""
    return SystemClock().boot() + seconds


class HandControl:
    """A Control whose gate and stop are worked by hand."""

    def __init__(self, licence_seconds: float | None = LICENCE_SECONDS) -> None:
        self.licence_seconds = licence_seconds
        self.asked_count = 0
        self._stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.grace_over = asyncio.Event()

    def may_start(self) -> float | None:
        self.asked_count += 1
        return None if self.licence_seconds is None else boot_in(self.licence_seconds)

    async def stopped(self) -> str:
        return await asyncio.shield(self._stop)

    async def overdue(self) -> None:
        await self.grace_over.wait()

    def stop(self, reason: str) -> None:
        self._stop.set_result(reason)


def make_attempt(executor: Mapping[str, Any], **changes: Any) -> Attempt:
    """An attempt of job `backup`; each has a token of its own unless one is given."""
    make_attempt.token += 1
    values: dict[str, Any] = {
        "job": "backup",
        "run_id": "7-1700000000000",
        "scheduled_time": "2026-01-02T03:04:05Z",
        "attempt": 1,
        "fencing_token": make_attempt.token,
        "node": "n1",
        "executor": executor,
        "timeout_seconds": 30.0,
        "kill_after_seconds": 1.0,
    }
    return Attempt(**(values | changes))


make_attempt.token = 100


async def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The condition's first true value; fails when it is not true in time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not true within {seconds} s"
        await asyncio.sleep(0.005)


def with_marker(marker: str) -> list[int]:
    """Live processes whose environment or command line holds the marker."""
    found = []
    for process in processes.table().values():
        if process.is_dead:
            continue
        for name in ("environ", "cmdline"):
            try:
                text = Path(f"/proc/{process.pid}/{name}").read_bytes()
            except OSError:
                continue
            if marker.encode() in text:
                found.append(process.pid)
                break
    return found
