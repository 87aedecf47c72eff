"""What stands in the place of guards of time while they are switched off."""

from __future__ import annotations

from typing import Any

from raftcron.runtime import clocks


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


_agree = clocks.agree
