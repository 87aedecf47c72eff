"""What a leader keeps of one follower beside the engine's own indices: what is in flight, which probe is out."""

from __future__ import annotations

from collections import deque

WINDOW_BYTES = 8 << 20  # sent to one follower and not yet answered; what one silent follower costs in memory


class Flow:
    """`probe` counts how often the follower has made the leader rewind; `told_commit` is the last index it was told."""

    __slots__ = ("in_flight", "in_flight_bytes", "probe", "told_commit")

    def __init__(self) -> None:
        self.probe = 0
        self.in_flight: deque[tuple[int, int]] = deque()  # (last index, bytes) of each batch not yet answered
        self.in_flight_bytes = 0
        self.told_commit = -1

    @property
    def is_open(self) -> bool:
        """Whether more entries may be sent before an answer comes."""
        return self.in_flight_bytes < WINDOW_BYTES

    def forget(self) -> None:
        """The connection has gone, or the follower has refused: nothing is in flight."""
        self.in_flight.clear()
        self.in_flight_bytes = 0
        self.told_commit = -1

    def sent(self, last_index: int, size: int) -> None:
        """A batch that ends with this index has left."""
        self.in_flight.append((last_index, size))
        self.in_flight_bytes += size

    def answered(self, match_index: int) -> None:
        """The follower holds all up to this index."""
        while self.in_flight and self.in_flight[0][0] <= match_index:
            self.in_flight_bytes -= self.in_flight.popleft()[1]
