"""What stands in the place of guards of time while they are switched off."""

from __future__ import annotations

import asyncio
from typing import Any

from raftcron.runtime import clocks, scheduler, worker


def wall_time(self: Any) -> int:
    """TrustedTime.now_ms, but the wall clock is trusted (semantics 9)."""
    return int(self._clock.wall() * 1000)


def wall_time_at_first(self: Any) -> int:
    """TrustedTime.now_ms, but the wall clock is trusted as long as nothing else is."""
    return wall_time(self) if self.ahead_ms is None else int(self._clock.boot() * 1000) + int(self.ahead_ms)


def own_where_none_agrees(me: str, clocks: Any, voters: Any, skew_ms: int) -> Any:
    """agreement.agree, but where no majority agrees a node's own clock counts."""
    found = _agree(me, clocks, voters, skew_ms)
    return found if found.ahead_ms is not None else found._replace(ahead_ms=clocks[me])


def own_word(former: int | None, own: int, *_: Any) -> int:
    """agreement.trust_alone, but a lone node believes any clock."""
    return own


def rarely(self: Any, now: int) -> float:
    """Scheduler._seconds_to_wait, but the leader looks only now and then for what is due."""
    return 4.0


async def lead_later(self: Any) -> None:
    """Scheduler.run, but a new leader lets some time pass before it looks for what is due or queued."""
    await asyncio.sleep(1.6)
    await _lead(self)


async def attempt_later(self: Any, running: Any) -> None:
    """Worker._attempt, but whatever a node was given waits there."""
    await asyncio.sleep(1.3)
    await _attempt(self, running)


_agree, _lead, _attempt = clocks.agree, scheduler.Scheduler.run, worker.Worker._attempt
