"""Handing over the lead in good order: to a follower that has every entry, so that nobody waits for a time-out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from raftcron.errors import UnavailableError

HOLD_SECONDS = 0.050  # so long a follower may take to get the last entries, while proposals are held


class Leading(Protocol):
    """What a handover has to know of the engine, and what it asks of it (seam.py)."""

    @property
    def is_leader(self) -> bool: ...
    @property
    def leader(self) -> str | None: ...
    @property
    def term(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    def match_index(self, peer: str) -> int: ...
    def hand_over(self, peer: str) -> bool: ...


async def hand_over(
    core: Leading,
    candidates: list[str],
    *,
    connected: Callable[[str], bool],
    stand_seconds: float,
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Let the first of `candidates` that holds the whole log stand at once, and see it lead.

    Nothing may be appended meanwhile.  Returns when another node leads, or, after `stand_seconds`, when it is certain
    only that this one does not.  Raises UnavailableError if this node leads on.
    """
    term = core.term
    successor = await _find(core, candidates, connected, loop)
    if successor is None or not core.hand_over(successor):
        raise UnavailableError("no follower has all entries now; this node leads on")
    deadline = loop.time() + stand_seconds
    while loop.time() < deadline:
        if core.term > term and not core.is_leader and core.leader is not None:
            return
        await asyncio.sleep(0.002)
    if core.is_leader and core.term == term:
        raise UnavailableError(f"{successor} did not take over; this node leads on")


async def _find(
    core: Leading, candidates: list[str], connected: Callable[[str], bool], loop: asyncio.AbstractEventLoop
) -> str | None:
    """A connected follower that holds the whole log, within HOLD_SECONDS."""
    deadline = loop.time() + HOLD_SECONDS
    while True:
        for peer in candidates:
            if connected(peer) and core.match_index(peer) == core.last_index:
                return peer
        if loop.time() >= deadline or not core.is_leader:
            return None
        await asyncio.sleep(0.001)
