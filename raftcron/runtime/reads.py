"""At which index a read is served: linearizable (a read index), stale (local), and never before an index asked for."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from raftcron.clock import Clock
from raftcron.errors import UnavailableError
from raftcron.ports import Log
from raftcron.runtime.machine import Machine

READ_SECONDS = 2.0  # a read that cannot be confirmed, or an index that is not reached, answers 503 after this
RETRY_AFTER_SECONDS = 1.0

Consistency = Literal["linearizable", "stale"]


class ReadPoint(NamedTuple):
    """Where a read stands: all entries up to `through` are in what it sees, `staleness_ms` for stale reads only."""

    through: int
    staleness_ms: int | None


class Reads:
    """One node's reads.  Watches the machine, so that waiting for an index costs nothing while nothing happens.

    `fresh_at` may name a boot-clock instant at which, as others know too, this node held all that was committed.
    """

    def __init__(
        self, log: Log, machine: Machine, clock: Clock, fresh_at: Callable[[], float | None] = lambda: None
    ) -> None:
        self._log = log
        self._machine = machine
        self._clock = clock
        self._fresh_at = fresh_at
        self._confirmed_at = clock.boot()  # the last read that was confirmed; the process's start before that
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0
        machine.observe(self)

    @property
    def index(self) -> int:
        """The last entry that this node has applied."""
        return self._machine.state.index

    async def at(self, consistency: Consistency = "linearizable", min_index: int | None = None) -> ReadPoint:
        """Where a read may be served now.

        Raises UnavailableError if no quorum confirms it, or `min_index` is not reached, within READ_SECONDS.
        """
        if consistency == "linearizable":
            await self.confirm()
        if min_index is not None and not await self.reached(min_index, READ_SECONDS):
            raise UnavailableError(
                f"this node has applied the log up to {self.index} and index {min_index} did not come within "
                f"{READ_SECONDS:g} s: ask again, or another node",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        return ReadPoint(self.index, self._staleness_ms() if consistency == "stale" else None)

    async def confirm(self) -> None:
        """Returns when this node has applied all that was committed before the call.  UnavailableError: no quorum."""
        asked_at = self._clock.boot()
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._log.read_index()
        except (TimeoutError, UnavailableError) as error:
            reason = error.detail if isinstance(error, UnavailableError) else f"no answer within {READ_SECONDS:g} s"
            raise UnavailableError(
                f"the read could not be confirmed: {reason}. Repeat it, or ask with ?consistency=stale",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from error
        self._confirmed_at = max(self._confirmed_at, asked_at)

    async def reached(self, index: int, seconds: float) -> bool:
        """Waits until this node has applied up to `index`; False if that did not happen in time."""
        if self._applied_index() >= index:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._waiters, (index, self._count, future))
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            future.cancel()
            return self._applied_index() >= index
        return True

    def state_changed(self, runs: Iterable[str]) -> None:
        """The machine has applied a batch."""
        if not self._waiters:
            return
        index = self._applied_index()
        while self._waiters and (self._waiters[0][0] <= index or self._waiters[0][2].done()):
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    def state_replaced(self) -> None:
        """A snapshot has brought this node on."""
        self.state_changed(())

    def _applied_index(self) -> int:
        """Of the log as well: it may end with entries that the machine is not asked to apply."""
        return max(self._machine.state.index, self._machine.applied_index)

    def _staleness_ms(self) -> int:
        """An upper bound: what was committed longer ago than this is in the answer.  Counted from the process's start
        while nothing better is known."""
        known = max(self._confirmed_at, self._fresh_at() or 0.0)
        return max(0, round((self._clock.boot() - known) * 1000))
