"""What time a leader may decide on.

This release trusts the machine's wall clock; the agreement of a majority (semantics 9) takes this file's place in the
circle without changing its shape: everything else asks `now_ms` and never a clock.
"""

from __future__ import annotations

from raftcron.clock import Clock


class TrustedTime:
    """The instant up to which this node may decide."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return int(self._clock.wall() * 1000)
