"""A process that has no file descriptor left for who connects: said once, not a hundred times a second."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from raftcron.clock import Clock
from raftcron.executors.host import SHORTAGE

log = logging.getLogger(__name__)

EPISODE_SECONDS = 5.0  # without a failure: it is over.  asyncio tries again each second


class Shortage:
    """Listens to the loop's complaints about `accept`.

    asyncio makes up to a hundred of them for each second that a port has to wait, each with a traceback; it keeps the
    port, so there is nothing to do but to say it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed_at: float | None = None  # monotonic seconds

    def takes(self, context: Mapping[str, Any]) -> bool:
        """Whether this complaint of the loop is of that kind; then it has been dealt with."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in SHORTAGE or "socket" not in context:
            return False
        now = self._clock.monotonic()
        if self._failed_at is None or now - self._failed_at > EPISODE_SECONDS:
            log.error(
                "accept_failed: %s. Who connects has to wait until something is closed; `ulimit -n`, or LimitNOFILE "
                "in a systemd unit, gives the process more descriptors",
                error.strerror,
            )
        self._failed_at = now
        return True
