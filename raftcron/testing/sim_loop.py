"""Time and turns of a simulation: a loop of its own for each node's process, and the one conductor that moves them all.

Nothing waits: the conductor gives each loop that has something to do its turns, and when none has, time jumps to the
next timer or event.  A process that is paused, or that waits for its disk, is a loop that gets no turn until then;
what comes meanwhile gathers, as it does in a stopped process.  All order comes from time, then from who asked first.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio.events import _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Protocol, TypeVarTuple, Unpack

START_WALL = 1_800_000_000.0  # 2027-01-15T08:00:00Z
TURNS_AT_ONE_INSTANT = 20_000  # more means that somebody spins
TURNS_TO_DIE = 1_000

_Ts = TypeVarTuple("_Ts")


class ProcessDied(SystemExit):
    """Raised inside a process at the instant of its death, where no rim catches it: the conductor buries it."""


class Sockets(Protocol):
    """Where a loop's connections come from (sim_network.py)."""

    async def listen(self, loop: NodeLoop, factory: Callable[[], asyncio.Protocol], port: int) -> Any: ...
    async def connect(
        self, loop: NodeLoop, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]: ...


class _Handle(asyncio.TimerHandle):
    """What `call_soon` and `call_at` give: asyncio's, without what only its debug mode needs (half of its time)."""

    __slots__ = ()
    _scheduled = False
    _repr = None
    _source_traceback = None

    def __init__(self, when: float, callback: Any, args: Any, loop: NodeLoop, context: Context | None) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]  # asyncio's own does so too


class NodeLoop(asyncio.BaseEventLoop):
    """The event loop of one life of one node's process."""

    def __init__(self, conductor: Conductor, name: str, sockets: Sockets) -> None:
        super().__init__()
        self.name = name
        self.busy_until = 0.0  # no turn before it
        self.is_dead = False
        self.is_waiting = False  # for a turn, and the conductor knows
        self.queue: deque[_Handle] = deque()  # what is ready
        self._conductor = conductor
        self._sockets = sockets
        self._tasks: list[asyncio.Task[Any]] = []  # those that are not over, and some that are
        self._tasks_kept = 64

    # ---- what a program asks of a loop

    def time(self) -> float:
        return self._conductor.now

    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(0.0, callback, args, self, context)
        self.queue.append(handle)
        if not self.is_waiting:
            self.is_waiting = True
            self._conductor.ready.append(self)
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
        timer = _Handle(when, callback, args, self, context)
        self._conductor.at(when, self._due, timer)
        return timer

    def _due(self, timer: _Handle) -> None:
        if not timer._cancelled and not self.is_dead:
            self.queue.append(timer)
            if not self.is_waiting:
                self.is_waiting = True
                self._conductor.ready.append(self)

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=None if name is None else str(name), context=context)
        if len(self._tasks) >= self._tasks_kept:
            self._tasks = [other for other in self._tasks if not other.done()]
            self._tasks_kept = 64 + 2 * len(self._tasks)
        self._tasks.append(task)
        return task

    async def create_server(  # type: ignore[override]  # only what the transport asks for
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> Any:
        return await self._sockets.listen(self, protocol_factory, port)

    async def create_connection(  # type: ignore[override]  # likewise
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        return await self._sockets.connect(self, protocol_factory, host, port)

    # ---- what the conductor asks

    def pause(self, seconds: float) -> None:
        """No turn for so long, counted from now or from the end of what keeps it busy already."""
        self.busy_until = max(self.busy_until, self._conductor.now) + seconds

    def resume(self) -> None:
        """Whatever kept it busy is over."""
        self.busy_until = min(self.busy_until, self._conductor.now)
        self._conductor.wake(self)

    def turn(self) -> None:
        """Run what is ready, and what that makes ready, as long as the process does not wait for its disk.

        It hears nothing from outside before time moves on, so turns of one instant may follow each other.
        """
        queue, conductor, turns = self.queue, self._conductor, 0
        former = _get_running_loop()
        _set_running_loop(self)
        try:
            while queue and self.busy_until <= conductor.now:
                turns += 1
                if turns > TURNS_AT_ONE_INSTANT:
                    raise RuntimeError(f"{self.name} has had {turns} turns at {conductor.now:.3f} s: it spins")
                for _ in range(len(queue)):
                    handle = queue.popleft()
                    callback = handle._callback
                    if callback is None:
                        continue
                    try:
                        handle._context.run(callback, *handle._args)
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:
                        self.call_exception_handler({"message": f"an exception in {callback!r}", "exception": error})
        finally:
            _set_running_loop(former)
        conductor.turns += turns

    def die(self) -> None:
        """The process is gone.

        Its tasks are unwound now, with those that they begin meanwhile.  A coroutine that is left to be collected
        would be unwound in the midst of another process.
        """
        self.is_dead = True
        for _ in range(TURNS_TO_DIE):
            left = [task for task in self._tasks if not task.done()]
            if not left and not self.queue:
                break
            for task in left:
                task.cancel()
            self.busy_until = 0.0
            with suppress(ProcessDied):
                self.turn()
        else:
            raise RuntimeError(f"tasks of {self.name} do not end: {left}")
        self._tasks.clear()
        self.close()


class Conductor:
    """Virtual time, from 0 seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.loops: dict[str, NodeLoop] = {}  # of the processes that live
        self.ready: deque[NodeLoop] = deque()  # who wants a turn now
        self.current: str | None = None  # whose turn it is
        self.turns = 0
        self.died: Callable[[str], None] = lambda _name: None  # a process died in its own turn
        self.moved: Callable[[str], None] = lambda _name: None  # a process has had its turns at this instant
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Do something then, outside the processes."""
        self._order += 1
        heapq.heappush(self._events, (when, self._order, action, arguments))

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + seconds, action, *arguments)

    def wake(self, loop: NodeLoop) -> None:
        """It may be busy no more."""
        if loop.is_waiting and loop not in self.ready:
            self.ready.append(loop)

    def run(self, until: float) -> None:
        """Let time pass."""
        events, ready, pop = self._events, self.ready, heapq.heappop
        while True:
            while ready:
                loop = ready.popleft()
                if not loop.is_dead:
                    self._turn(loop)
            if not events or events[0][0] > until:
                self.now = until
                return
            now = self.now = max(self.now, events[0][0])
            while events and events[0][0] <= now:
                _, _, action, arguments = pop(events)
                action(*arguments)

    def _turn(self, loop: NodeLoop) -> None:
        if loop.busy_until <= self.now:
            self.current = loop.name
            try:
                loop.turn()
            except ProcessDied:
                self.died(loop.name)
            finally:
                self.current = None
            if loop.is_dead:
                return
            self.moved(loop.name)
        loop.is_waiting = bool(loop.queue)
        if loop.is_waiting:
            self.at(loop.busy_until, self.wake, loop)


class SimClock:
    """A node's clocks; the wall clock may be skewed and stepped, and may drift."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self.wall_offset = 0.0  # in seconds, when it was set
        self._rate = 0.0  # what is added to it a second
        self._set_at = 0.0

    def set(self, offset: float, rate: float = 0.0) -> None:
        self.wall_offset, self._rate, self._set_at = offset, rate, self._conductor.now

    @property
    def offset(self) -> float:
        """How far the wall clock is ahead of the true time now, in seconds."""
        return self.wall_offset + (self._conductor.now - self._set_at) * self._rate

    def wall(self) -> float:
        return START_WALL + self._conductor.now + self.offset

    def boot(self) -> float:
        return 1_000.0 + self._conductor.now

    def monotonic(self) -> float:
        return 1_000.0 + self._conductor.now
