"""How long work holds the loop, in processor time: wall time tells what else the machine does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import thread_time
from typing import TypeVar

T = TypeVar("T")

TURN_SECONDS = 0.01  # of processor time: what the loop may be held for at most, on a machine as quick as the one below
TRIES = 10  # a machine on which others work shows longer turns now and then: what a host takes from it counts too
REFERENCE_SECONDS = 0.018  # what `_reference` takes there: AMD EPYC, two idle cores, Python 3.11.7


def turn_seconds() -> float:
    """The bound on this machine as it is now: longer by as much as known work takes longer."""
    return TURN_SECONDS * max(1.0, min(_reference() for _ in range(5)) / REFERENCE_SECONDS)


def _reference() -> float:
    """The processor seconds of work like that which is judged: names in a table, in order."""
    began = thread_time()
    table = {f"job-{number * 7919 % 20_011:06}": number for number in range(20_000)}
    for name in sorted(table):
        del table[name]
    return thread_time() - began


async def longest_turn(work: Awaitable[T]) -> tuple[T, float, int]:
    """What comes of it, the processor seconds of the longest turn of the loop, and how many turns it took."""
    turns: list[float] = []

    async def watch() -> None:
        began = thread_time()
        while True:
            await asyncio.sleep(0)
            now = thread_time()
            turns.append(now - began)
            began = now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)  # it stands in the loop before the first slice
    found = await work
    await asyncio.sleep(0)  # the turn that brought it is over, too
    watching.cancel()
    return found, max(turns), len(turns)


async def holds_the_loop(ask: Callable[[], Awaitable[T]]) -> bool:
    """Whether each of many tries has a turn longer than the bound."""
    for _ in range(TRIES):
        _, seconds, _ = await longest_turn(ask())
        if seconds < turn_seconds():
            return False
    return True
