"""Handing over the lead in good order: to a follower that has every entry, so that nobody waits for a time-out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from raftcron.errors import UnavailableError

HOLD_SECONDS = 0.050  # proposals are held at most so long, whatever becomes of the hand-over
FIND_SECONDS = 0.030  # of these: until a follower has the last entries; the rest is left to it to stand in
LEADERLESS_SECONDS = 0.100  # a successor that has ended this node's lead and is not elected by then will not be
LOOK_SECONDS = 0.002


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
    hold: Callable[[], AbstractAsyncContextManager[None]],
    epoch: Callable[[], int],
    stand: Callable[[], None],
    confirm_seconds: float,
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Let the first of `candidates` that holds the whole log stand at once, and see it lead.

    Within `hold()` nothing is appended: it ends when another node leads, and after HOLD_SECONDS at the latest.
    `epoch()` is that of the last leadership entry which has applied here, `stand` lets this node stand for election.

    Returns when the successor's leadership entry has applied here, or, after `confirm_seconds` more, when it is
    certain only that this node leads no more.  Raises UnavailableError if this node leads on.
    """
    before = epoch()
    until = loop.time() + HOLD_SECONDS
    async with hold():
        successor = await _find(core, candidates, connected, loop)
        is_asked = successor is not None and core.hand_over(successor)
        if is_asked:
            await _until_led_by_another(core, until, loop)
    if not is_asked:
        await asyncio.sleep(HOLD_SECONDS)  # what was held goes on before anybody tries the next candidate
        raise UnavailableError("no follower has all entries now; this node leads on")
    await _confirm(core, lambda: epoch() != before, stand, confirm_seconds, loop)
    if core.is_leader:
        raise UnavailableError(f"{successor} did not take over; this node leads on")


async def _find(
    core: Leading, candidates: list[str], connected: Callable[[str], bool], loop: asyncio.AbstractEventLoop
) -> str | None:
    """A connected follower that holds the whole log; None if there is none within FIND_SECONDS."""
    until = loop.time() + FIND_SECONDS
    while core.is_leader:
        for peer in candidates:
            if connected(peer) and core.match_index(peer) == core.last_index:
                return peer
        if loop.time() >= until:
            break
        await asyncio.sleep(0.001)
    return None


async def _until_led_by_another(core: Leading, until: float, loop: asyncio.AbstractEventLoop) -> None:
    while True:
        if loop.time() >= until or (core.leader is not None and not core.is_leader):
            return
        await asyncio.sleep(LOOK_SECONDS)


async def _confirm(
    core: Leading,
    is_confirmed: Callable[[], bool],
    stand: Callable[[], None],
    seconds: float,
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Wait for the leadership entry of whoever leads next; where the successor has stood in vain, stand again."""
    led_at = loop.time()
    until = led_at + seconds
    has_stood = False
    while not is_confirmed() and loop.time() < until:
        if core.leader is not None:
            led_at = loop.time()
        elif not has_stood and loop.time() - led_at >= LEADERLESS_SECONDS:
            has_stood = True  # it stood after the hold: nobody elects a log that lacks what was proposed since
            stand()
        await asyncio.sleep(LOOK_SECONDS)
