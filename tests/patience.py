"""Time in tests that a slow machine must not spoil: ends that come by the clock, and bounds of seconds.

Waiting for a condition is `eventually` of each room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def struck(run: Callable[[float], Awaitable[T]], has_begun: Callable[[], Any], seconds: float) -> T:
    """What `run(seconds)` gives, for an end that comes by the clock: that of the first run that had begun by then.

    A slow machine may not have begun what shall be ended; each run gets four times as long as the one before.
    """
    while seconds < 60:
        running = asyncio.ensure_future(run(seconds))
        begun = False
        while not running.done():
            begun = begun or bool(has_begun())
            await asyncio.sleep(0.005)
        if begun or has_begun():
            return await running
        await running
        seconds *= 4
    raise AssertionError(f"nothing has begun within {seconds / 4:g} s")


async def quickest(measure: Callable[[], Awaitable[float]], enough: float) -> float:
    """The least of three measures in seconds, for what is promised by the clock: a slow one may be the machine's.

    No further one is taken once one is below `enough`.
    """
    taken: list[float] = []
    while len(taken) < 3 and min(taken, default=enough) >= enough:
        taken.append(await measure())
    return min(taken)
