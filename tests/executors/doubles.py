"""A control held by hand, attempts with defaults, and waiting for what other processes do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from raftcron.clock import SystemClock
from raftcron.executors import processes
from raftcron.ports import Attempt

LICENCE_SECONDS = 60.0

T = TypeVar("T")


def boot_in(seconds: float) -> float:
    """An instant on the boot clock."""
    return SystemClock().boot() + seconds


class HandControl:
    """A Control whose gate and stop are worked by hand."""

    def __init__(self, licence_seconds: float | None = LICENCE_SECONDS) -> None:
        self.licence_seconds = licence_seconds
        self.asked_count = 0
        self._stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def may_start(self) -> float | None:
        self.asked_count += 1
        return None if self.licence_seconds is None else boot_in(self.licence_seconds)

    async def stopped(self) -> str:
        return await asyncio.shield(self._stop)

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


async def struck(run: Callable[[float], Awaitable[T]], has_begun: Callable[[], Any], seconds: float) -> T:
    """What `run(seconds)` gives, for an end that comes by the clock: that of the first run that had begun by then.

    A slow machine may not have begun what shall be ended; each run gets four times as long as the one before.
    """
    while seconds < 60:
        running = asyncio.ensure_future(run(seconds))
        begun = False
        while not running.done():
            begun = begun or bool(has_begun())
            await asyncio.sleep(0.005)
        if begun or has_begun():
            return await running
        await running
        seconds *= 4
    raise AssertionError(f"nothing has begun within {seconds / 4:g} s")


async def promptly(begin: Callable[[], Awaitable[None]], act: Callable[[], Awaitable[None]], seconds: float) -> None:
    """`act` takes no longer than this, by the quickest of three: what is slow once may be the machine."""
    taken = []
    for _ in range(3):
        await begin()
        began = time.monotonic()
        await act()
        taken.append(time.monotonic() - began)
        if taken[-1] <= seconds:
            return
    raise AssertionError(f"never within {seconds:g} s: {taken}")


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
