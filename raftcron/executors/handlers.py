"""Functions of an application by name, and what they are told of their run.  How they are called is in python.py."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

HANDLERS_MAX = 1_000  # of one node: it announces them all


class Cancellation:
    """Whether a run has been asked to stop, and why; may be looked at and waited for in any thread."""

    def __init__(self) -> None:
        self.reason: str | None = None  # timeout, cancelled, shutdown, lease
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> str:
        """Returns the reason as soon as the run has been asked to stop; for async handlers."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if not self._event.is_set():
                self._waiting.add(future)
            else:
                future.set_result(None)
        try:
            await future
        finally:
            with self._lock:
                self._waiting.discard(future)
        return self.reason or ""

    def wait_for(self, seconds: float | None = None) -> bool:
        """Blocks at most so long; whether the run has been asked to stop.  For handlers that are no coroutines."""
        return self._event.wait(seconds)

    def set(self, reason: str) -> None:
        """Ask it to stop; the first reason stands."""
        with self._lock:
            if self._event.is_set():
                return
            self.reason = reason
            self._event.set()
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            with suppress(RuntimeError):  # its loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt, as its handler sees it.  Instants are in UTC."""

    job: str
    run_id: str  # the same for every attempt
    scheduled_time: datetime
    attempt: int  # from 1
    fencing_token: int  # higher than that of any attempt before it
    node: str
    args: Any = None  # of a run by hand, else of the job's executor
    missed_count: int = 0  # scheduled times that this run stands for besides its own
    previous_time: datetime | None = None  # the last one of the job that was fired
    shard_index: int | None = None
    shard_count: int | None = None
    traceparent: str = ""
    cancelled: Cancellation = field(default_factory=Cancellation, compare=False)


Function = Callable[[Run], Any]


@dataclass(frozen=True, slots=True)
class Handler:
    """A function by name, and where it runs."""

    name: str
    function: Function
    process: bool  # in a child of its own, which can be stopped

    @property
    def is_async(self) -> bool:
        """Seen before any call; what another function returns may have to be awaited all the same."""
        return _is_a(inspect.iscoroutinefunction, self.function)

    @property
    def can_be_stopped(self) -> bool:
        """A thread cannot; a coroutine is cancelled where it awaits."""
        return self.process or self.is_async

    @property
    def target(self) -> str:
        """MODULE:FUNCTION, or FILE.py:FUNCTION of the program itself, by which a child finds it.

        An object that has no name is MODULE:<...>, and no child finds it.
        """
        module = self.function.__module__
        if module == "__main__":
            program = sys.modules["__main__"]
            spec, file = getattr(program, "__spec__", None), getattr(program, "__file__", None)
            module = spec.name if spec is not None else module if file is None else os.path.abspath(file)  # noqa: PTH100
        return f"{module}:{getattr(self.function, '__qualname__', f'<{self.function!r}>')}"


class Handlers:
    """The handlers of one application."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None  # the application's, while it runs
        self._handlers: dict[str, Handler] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._handlers))

    @property
    def need_processes(self) -> bool:
        return bool(self.processes)

    @property
    def processes(self) -> list[str]:
        """Which of them run in a child of their own, in order of their names."""
        return [name for name in self if self._handlers[name].process]

    @property
    def threads(self) -> list[str]:
        """Which of them nothing can stop, in order of their names."""
        return [name for name in self if not self._handlers[name].can_be_stopped]

    def get(self, name: str) -> Handler | None:
        return self._handlers.get(name)

    def add(self, name: str, function: Function, process: bool) -> Handler:
        """ValueError: the name is taken, there are too many, it cannot be called, or a child could not find it."""
        handler = Handler(name, function, process)
        _check(handler)
        if name in self._handlers:
            raise ValueError(f"there is a handler {name!r} already: {self._handlers[name].target}")
        if len(self._handlers) >= HANDLERS_MAX:
            raise ValueError(f"there are {HANDLERS_MAX} handlers already, which is the most that a node announces")
        if process and (handler.target.startswith("__main__:") or "<" in handler.target):
            raise ValueError(
                f"{handler.target} cannot be imported by the process that shall run it: put the function at the top "
                "level of a module, or leave process=True out"
            )
        self._handlers[name] = handler
        return handler


def _check(handler: Handler) -> None:
    """ValueError: it cannot be called with a run, or a call would run nothing."""
    function = handler.function
    if not callable(function):
        raise ValueError(f"{function!r} is not callable: register a function that takes one argument, the run")
    if _is_a(inspect.isgeneratorfunction, function) or _is_a(inspect.isasyncgenfunction, function):
        raise ValueError(f"{handler.target} is a generator function, whose body nobody would run: return, do not yield")
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # a wrapper may take less than what it wraps
    except (TypeError, ValueError):  # some built-in ones have none
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise ValueError(
            f"{handler.target} cannot be called with one argument, the run: {error}; give whatever else it takes a "
            "default"
        ) from None


def _is_a(kind: Callable[[Any], bool], function: Any) -> bool:
    """Whether to call it is to call a function of this kind."""
    while isinstance(function, functools.partial):
        function = function.func
    return kind(function) or kind(type(function).__call__)
