"""The only file that reads clocks."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a node knows about time.  All three are seconds."""

    def wall(self) -> float:
        """Seconds since 1970-01-01T00:00:00Z; may jump in both directions."""

    def boot(self) -> float:
        """Seconds since the machine started, suspends included; never goes back.  Leases run on it."""

    def monotonic(self) -> float:
        """Seconds since some instant, suspends not included; never goes back.  Raft's time-outs run on it."""


class SystemClock:
    """The machine's clocks."""

    def wall(self) -> float:
        return time.time()

    def boot(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def monotonic(self) -> float:
        return time.monotonic()
