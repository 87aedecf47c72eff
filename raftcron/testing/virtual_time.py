"""Virtual time: an event loop that never waits, and a clock that reads it.

When nothing is ready the loop jumps to its next timer, so an hour of time-outs passes in milliseconds and in the same
order each time.  Only timers and ready callbacks: real sockets have no place on it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START_WALL = 1_800_000_000.0  # 2027-01-15T08:00:00Z
STUCK_SECONDS = 1e7  # of virtual time: a test that waits longer waits for ever


class _JumpingSelector(selectors.SelectSelector):
    """A selector that spends no time: it tells its loop how far to jump instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("nothing is ready and no timer runs: the test would wait for ever")
            self.now += timeout
            if self.now > STUCK_SECONDS:
                raise RuntimeError(f"{STUCK_SECONDS:g} virtual seconds have passed: the test waits for ever")
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time, from 0 seconds."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class VirtualClock:
    """A node's clocks on a virtual loop; `wall_offset` may be stepped, the others go with the loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.wall_offset = 0.0

    def wall(self) -> float:
        return START_WALL + self._loop.time() + self.wall_offset

    def boot(self) -> float:
        return 1_000.0 + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()


def run_virtual(work: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """Run to the end on a virtual loop, cancel what is left, and close it."""
    try:
        return loop.run_until_complete(work)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:  # gather of nothing would belong to another loop
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
