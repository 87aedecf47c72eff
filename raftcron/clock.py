"""The only file that reads clocks."""

from __future__ import annotations

import ctypes
import time
from typing import Protocol

_STA_UNSYNC = 0x0040


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


class _Timex(ctypes.Structure):
    """The head of Linux's `struct timex`, with more room than what follows takes (adjtimex(2))."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def kernel_says_synchronised() -> bool:
    """Whether the kernel calls the wall clock synchronised; False too where it cannot be asked."""
    answer = _Timex()
    try:
        found = ctypes.CDLL(None).adjtimex(ctypes.byref(answer))
    except (OSError, AttributeError):
        return False
    return found >= 0 and not answer.status & _STA_UNSYNC
