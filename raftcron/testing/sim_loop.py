"""Time and turns of a simulation: a loop of its own for each node's process, and the one conductor that moves them all.

Nothing waits: the conductor gives each loop that has something to do a turn, and when none has, time jumps to the next
timer or event.  A process that is paused, or that waits for its disk, is a loop that gets no turn until then; what
comes meanwhile gathers, as it does in a stopped process.  All order comes from time, then from who asked first.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio.events import _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Protocol, TypeVarTuple, Unpack

START_WALL = 1_800_000_000.0  # 2027-01-15T08:00:00Z
TURNS_AT_ONE_INSTANT = 20_000  # more means that somebody spins
TURNS_TO_DIE = 1_000
NEVER = float("inf")

_Ts = TypeVarTuple("_Ts")


class ProcessDied(SystemExit):
    """Raised inside a process at the instant of its death, where no rim catches it: the conductor buries it."""


class Sockets(Protocol):
    """Where a loop's connections come from (sim_network.py)."""

    async def listen(self, loop: NodeLoop, factory: Callable[[], asyncio.Protocol], port: int) -> Any: ...
    async def connect(
        self, loop: NodeLoop, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]: ...


class NodeLoop(asyncio.BaseEventLoop):
    """The event loop of one life of one node's process."""

    def __init__(self, conductor: Conductor, name: str, sockets: Sockets) -> None:
        super().__init__()
        self.name = name
        self.busy_until = 0.0  # no turn before it
        self.wanted_at = NEVER  # not later than when it wants its next turn
        self.is_dead = False
        self._conductor = conductor
        self._sockets = sockets
        self._queue: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = 0

    # ---- what a program asks of a loop

    def time(self) -> float:
        return self._conductor.now

    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.append(handle)
        self.wanted_at = 0.0
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._conductor.now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, timer))
        self.wanted_at = min(self.wanted_at, when)
        return timer

    async def create_server(  # type: ignore[override]  # only what the transport asks for
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> Any:
        return await self._sockets.listen(self, protocol_factory, port)

    async def create_connection(  # type: ignore[override]  # likewise
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        return await self._sockets.connect(self, protocol_factory, host, port)

    # ---- what the conductor asks

    def turn(self) -> None:
        """Run what is ready, once; what that makes ready waits for the next turn."""
        timers, queue, now = self._timers, self._queue, self._conductor.now
        while timers and timers[0][0] <= now:
            timer = heapq.heappop(timers)[2]
            if not timer.cancelled():
                queue.append(timer)
        former = _get_running_loop()
        _set_running_loop(self)
        try:
            for _ in range(len(queue)):
                handle = queue.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            _set_running_loop(former)
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        self.wanted_at = 0.0 if queue else timers[0][0] if timers else NEVER

    def die(self) -> None:
        """The process is gone.

        Its tasks are unwound now, with those that they begin meanwhile.  A coroutine that is left to be collected
        would be unwound in the midst of another process.
        """
        self.is_dead = True
        for _ in range(TURNS_TO_DIE):
            self._timers.clear()
            left = asyncio.all_tasks(self)
            if not left and not self._queue:
                break
            for task in left:
                task.cancel()
            with suppress(ProcessDied):
                self.turn()
        else:
            raise RuntimeError(f"tasks of {self.name} do not end: {asyncio.all_tasks(self)}")
        self.close()


class Conductor:
    """Virtual time, from 0 seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.loops: dict[str, NodeLoop] = {}  # of the processes that live
        self.current: str | None = None  # whose turn it is
        self.turns = 0
        self.died: Callable[[str], None] = lambda _name: None  # a process died in its own turn
        self.looked: Callable[[], None] = lambda: None  # after the turns of each instant in which there were any
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Do something of the world outside the processes."""
        self._order += 1
        heapq.heappush(self._events, (when, self._order, action, arguments))

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + seconds, action, *arguments)

    def run(self, until: float) -> None:
        """Let time pass."""
        events = self._events
        spins = 0
        while True:
            nearest = events[0][0] if events else NEVER
            moved = False
            for name, loop in list(self.loops.items()):
                at = max(loop.wanted_at, loop.busy_until)
                if at > self.now:
                    nearest = min(nearest, at)
                elif not loop.is_dead:
                    moved = True
                    self._turn(name, loop)
            if moved:
                spins += 1
                if spins > TURNS_AT_ONE_INSTANT:
                    raise RuntimeError(f"the loops have had {spins} turns at {self.now:.3f} s: somebody spins")
                continue
            if spins:
                self.looked()
            spins = 0
            if nearest > until:
                self.now = until
                return
            self.now = max(self.now, nearest)
            while events and events[0][0] <= self.now:
                _, _, action, arguments = heapq.heappop(events)
                action(*arguments)

    def _turn(self, name: str, loop: NodeLoop) -> None:
        self.turns += 1
        self.current = name
        try:
            loop.turn()
        except ProcessDied:
            self.died(name)
        finally:
            self.current = None


class SimClock:
    """A node's clocks; the wall clock may be skewed and stepped."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self.wall_offset = 0.0

    def wall(self) -> float:
        return START_WALL + self._conductor.now + self.wall_offset

    def boot(self) -> float:
        return 1_000.0 + self._conductor.now

    def monotonic(self) -> float:
        return 1_000.0 + self._conductor.now
