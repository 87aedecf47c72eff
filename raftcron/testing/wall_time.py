"""WallTime: trusts the wall clock, whatever it says; for tests that are about something else."""

from __future__ import annotations

from raftcron.clock import Clock
from raftcron.runtime.clocks import TrustedTime


class WallTime(TrustedTime):
    """The wall clock, looked at anew each time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.ahead_ms = int((clock.wall() - clock.boot()) * 1000)
        self.may_decide = True
        self._wall = clock

    def now_ms(self) -> int:
        return int(self._wall.wall() * 1000)
