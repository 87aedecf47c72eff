"""How long something held the node's loop: everything of a node shares it, so a long stall is an outage."""

from __future__ import annotations

import asyncio
import logging

from raftcron.clock import Clock

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
WARN_SECONDS = 0.25  # longer than this is worth a line: elections begin at twice as much


class LoopWatch:
    """Measures how late its own timer comes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.longest_seconds = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            expected = self._clock.monotonic() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            stall = self._clock.monotonic() - expected
            self.longest_seconds = max(self.longest_seconds, stall)
            if stall > WARN_SECONDS:
                log.warning("loop_stalled seconds=%.3f", stall)
