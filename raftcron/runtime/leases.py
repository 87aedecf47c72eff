"""Leases (semantics 5.4 and 5.6): how the leader knows that a node lives, and how a node knows that it may start code.

`LeaseKeeper` is the leader's side, `License` the worker's.  All instants here are seconds of the boot clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from raftcron.clock import Clock
from raftcron.errors import RaftcronError, UnknownOutcomeError

FRESH_SECONDS = 3.0  # a node that has missed so many heartbeats, one a second, gets nothing new


class LeaseTimes(NamedTuple):
    """`lease` and `margin` in seconds; the margin is below half the lease."""

    lease_seconds: float = 10.0
    margin_seconds: float = 2.0


class License(NamedTuple):
    """One answered heartbeat: until when this node may start code, and what it must have applied itself first."""

    until: float
    epoch: int
    applied_index: int


NO_LICENSE = License(float("-inf"), 0, 0)


class LeaseKeeper:
    """The leader's knowledge of who lives; begun anew with each lead."""

    def __init__(self, clock: Clock, times: LeaseTimes, read_index: Callable[[], Awaitable[int]]) -> None:
        self._clock = clock
        self._times = times
        self._read_index = read_index
        self._led_since = 0.0
        self._heard: dict[str, float] = {}
        self._losing: dict[str, asyncio.Future[int]] = {}

    def begin(self) -> None:
        """This node's leadership entry has applied just now: whoever it has not heard gets one whole lease."""
        self._led_since = self._clock.boot()
        self._heard.clear()
        self._losing.clear()

    async def answer(self, node: str) -> int | None:
        """Take a heartbeat that has just arrived; the index to answer with, None if it must not be answered.

        The answer needs a round of a majority that began after the heartbeat arrived; and if this leader has
        proposed to lose runs of the node, it waits until that entry has applied.
        """
        arrived = self._clock.boot()
        self._heard[node] = max(arrived, self._heard.get(node, arrived))
        try:
            losing = self._losing.get(node)
            if losing is not None:
                await asyncio.shield(losing)
            index = await self._read_index()
            again = self._losing.get(node)
            if again is not None and again is not losing:
                index = max(index, await asyncio.shield(again))
        except RaftcronError:
            return None
        return index

    def is_silent(self, node: str) -> bool:
        """Whether a whole lease has passed since the node was last heard, or since this node leads."""
        return self.seconds_left(node) == 0

    def is_fresh(self, node: str) -> bool:
        """Whether the node was heard in this lead, and a moment ago."""
        return self.is_heard(node) and self._clock.boot() - self._heard[node] < FRESH_SECONDS

    def is_heard(self, node: str) -> bool:
        """Whether the node was heard in this lead, and may still hold a lease: it lives, as far as can be known."""
        return node in self._heard and not self.is_silent(node) and node not in self._losing

    def may_come(self, node: str) -> bool:
        """Whether this lead is so young that a node which was not heard yet may only be about to be."""
        return node not in self._heard and self._clock.boot() - self._led_since < FRESH_SECONDS

    def seconds_left(self, node: str) -> float:
        """For how long the node may still hold a lease; 0 if it certainly holds none."""
        since = max(self._heard.get(node, self._led_since), self._led_since)
        return max(0.0, since + self._times.lease_seconds - self._clock.boot())

    def heard_at(self, node: str) -> float | None:
        """When the node was last heard in this lead; None if it was not."""
        return self._heard.get(node)

    def losing(self, node: str) -> asyncio.Future[int]:
        """From this moment on the node is not answered: its runs are about to be declared lost.

        The future takes the entry's index once it has applied, or the error.  While the outcome is unknown the node
        stays unanswered, and `unsettled` names it: another entry has to tell.
        """
        entry: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._losing[node] = entry
        entry.add_done_callback(lambda done: self._lost(node, done))
        return entry

    def unsettled(self) -> list[str]:
        """Nodes of which it is not known whether their runs were declared lost."""
        return [node for node, entry in self._losing.items() if entry.done()]

    def _lost(self, node: str, entry: asyncio.Future[int]) -> None:
        if self._losing.get(node) is entry and not isinstance(entry.exception(), UnknownOutcomeError):
            del self._losing[node]
