"""The bounds of the transport, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TransportSettings:
    """Bounds, each in the unit that its name ends with."""

    connect_seconds: float = 1.0
    handshake_seconds: float = 2.0  # from the first byte to a live connection
    idle_seconds: float = 5.0  # a live connection on which nothing came for so long is dead
    ping_seconds: float = 1.0  # a live connection on which nothing was sent for so long is pinged
    retry_min_seconds: float = 0.05
    missed_retry_min_seconds: float = 0.002  # after an end: a dying process may accept, and reset, a connection or two
    retry_max_seconds: float = 1.0
    max_frame_bytes: int = 8 << 20
    max_backlog_bytes: int = 16 << 20  # waiting to leave to one peer; beyond it `send` says no
    max_strangers: int = 64  # inbound connections that have not proved the secret; beyond it the oldest are closed
    max_strangers_per_host: int = 16  # all nodes may be on one host
