"""PythonExecutor: calls a handler of the application that embeds this node, on the application's side.

An async handler runs on the application's loop, any other in a thread of that loop's pool, `process=True` in a child of
the spawner.  The node's loop only waits for them.  What a handler returns is awaited as long as it can be, wherever it
runs: a run has not succeeded before.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Self

from raftcron.clock import Clock
from raftcron.errors import Fault
from raftcron.executors.context import environment
from raftcron.executors.handlers import Handler, Handlers, Run
from raftcron.executors.host import SECRETS
from raftcron.executors.output import TAIL_BYTES, output_name
from raftcron.executors.registry import Surroundings, unsent
from raftcron.executors.spawned import carry_out
from raftcron.executors.spawner import Spawner, SpawnRequest
from raftcron.executors.validation import Findings
from raftcron.ports import Attempt, Control, Ending

log = logging.getLogger(__name__)

FIELDS = {"type", "handler", "args"}
ARGS_BYTES = 64 << 10
PATIENCE_SECONDS = 4.0  # for a coroutine that was cancelled; then its end is not waited for any more.  Shorter than
#                         what a node that stops waits beyond its grace, so that there it is still reported

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class PythonExecutor:
    """`{"type": "python", "handler": "name", "args": {...}}`."""

    def __init__(self, handlers: Handlers | None, spawner: Spawner | None, clock: Clock) -> None:
        self._handlers = handlers or Handlers()
        self._spawner = spawner
        self._clock = clock

    @classmethod
    def create(cls, surroundings: Surroundings) -> Self:
        return cls(surroundings.handlers, surroundings.spawner, surroundings.clock)

    @staticmethod
    def validate(spec: Mapping[str, Any]) -> list[Fault]:
        """Whether somebody has the handler is not asked: nodes come and go."""
        findings = Findings()
        findings.unknown_fields(spec, FIELDS)
        name = spec.get("handler")
        if name is None:
            findings.invalid("/handler", "is missing; the name that an application registers it under")
        elif findings.text("/handler", name, bytes_max=128) and not _NAME.fullmatch(name):
            findings.invalid("/handler", "must be 1 to 128 of A-Z a-z 0-9 . _ -, a letter or digit first")
        if spec.get("args") is not None and len(_json(spec["args"])) > ARGS_BYTES:
            findings.invalid("/args", f"is over {ARGS_BYTES >> 10} KiB of JSON")
        return findings.items

    async def close(self) -> None:
        """The application's loop and threads are its own."""

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        name = attempt.executor["handler"]
        handler = self._handlers.get(name)
        if handler is None:
            text = f"node {attempt.node} has no handler {name!r}; there are {', '.join(self._handlers) or 'none'}"
            return Ending("failed", error=text, error_kind="no_handler")
        if handler.process:
            if self._spawner is None:
                return Ending("failed", error="this node has no spawner", error_kind="not_allowed")
            return await carry_out(self._spawner, _request(handler, attempt), attempt, control)
        if self._handlers.loop is None:
            return Ending("not_started", error="the application does not run")
        call = _Call(handler, run_of(attempt), control, self._handlers.loop, self._clock)
        return await call.carry_out(attempt)


class _Call:
    """One attempt in this process.  `_outcome` lives on the node's loop, the rest of the work on the other side."""

    def __init__(
        self, handler: Handler, run: Run, control: Control, application: asyncio.AbstractEventLoop, clock: Clock
    ) -> None:
        self._handler = handler
        self._run = run
        self._control = control
        self._application = application
        self._clock = clock
        self._node = asyncio.get_running_loop()
        self._outcome: asyncio.Future[Ending] = self._node.create_future()
        self._task: asyncio.Task[None] | None = None
        self._is_licensed = False  # the gate has let it through: it may have begun

    async def carry_out(self, attempt: Attempt) -> Ending:
        """From the gate to the end, or to where the end is not waited for any more."""
        if not self._over_there(self._begin):
            return Ending("not_started", error="the application's loop is closed")
        stopped: asyncio.Future[Any] = asyncio.ensure_future(self._control.stopped())
        first: set[asyncio.Future[Any]] = {self._outcome, stopped}
        try:
            await asyncio.wait(first, timeout=attempt.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if self._outcome.done():
                return self._outcome.result()
            reason = stopped.result() if stopped.done() else "timeout"
            self._run.cancelled.set(reason)
            if not self._is_licensed:  # and from now on it never will be
                self._over_there(self._cancel)
                return _never_began(reason, attempt)
            ended = await self._stop(reason, attempt)
        finally:
            stopped.cancel()
        if ended is not None and ended.state == "not_started":  # the licence ended on the way over there
            return ended
        return _stopped(reason, attempt, ended, is_thread=self._is_thread)

    @property
    def _is_thread(self) -> bool:
        """Whether nothing can stop it, as far as is seen now."""
        return not self._handler.is_async and self._task is None

    async def _stop(self, reason: str, attempt: Attempt) -> Ending | None:
        """It has been asked: wait, cancel, wait; how it ended, None if nobody saw that."""
        if reason != "lease":
            overdue: asyncio.Future[Any] = asyncio.ensure_future(self._control.overdue())
            first: set[asyncio.Future[Any]] = {self._outcome, overdue}
            try:
                await asyncio.wait(first, timeout=attempt.kill_after_seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                overdue.cancel()
        if not self._outcome.done() and not self._is_thread:
            self._over_there(self._cancel)
            await asyncio.wait({self._outcome}, timeout=PATIENCE_SECONDS)
        if self._outcome.done():
            return self._outcome.result()
        log.warning("handler_does_not_end handler=%s run=%s reason=%s", self._handler.name, self._run.run_id, reason)
        return None

    # ---- on the application's side

    def _begin(self) -> None:
        if self._handler.is_async:
            self._spawn(self._in_coroutine())
        else:
            self._application.run_in_executor(None, self._in_thread)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._application.create_task(work, name=f"raftcron {self._run.job}")

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _in_coroutine(self) -> None:
        ending = Ending("not_started", error="the start gate is closed, or the application is")
        try:
            if self._is_open(await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._ask(), self._node))):
                ending = Ending("failed", error="the handler was cancelled", error_kind="exception")
                ending = _succeeded(await awaited(self._handler.function(self._run)))
        except Exception as error:
            ending = _raised(error)
        finally:  # also where it is cancelled, or ends the whole application
            self._tell(ending)

    def _in_thread(self) -> None:
        ending: Ending | None = Ending("not_started", error="the start gate is closed, or the application is")
        try:
            if not self._run.cancelled and self._is_open(
                asyncio.run_coroutine_threadsafe(self._ask(), self._node).result()
            ):
                value = self._handler.function(self._run)
                ending = self._hand_over(value) if inspect.isawaitable(value) else _succeeded(value)
        except BaseException as error:  # a thread has nobody else to tell
            ending = _raised(error)
        if ending is not None:
            self._tell(ending)

    def _hand_over(self, value: Awaitable[Any]) -> Ending | None:
        """What a function has left to await is for the loop, which then tells its end; None: it has taken it."""
        if self._over_there(lambda: self._spawn(self._go_on(value))):
            return None
        _drop(value)
        return Ending("failed", error="the application's loop was closed before all had run", error_kind="exception")

    async def _go_on(self, value: Awaitable[Any]) -> None:
        """To the end of what is left to await; where the run has been asked to stop meanwhile it does not begin."""
        ending = Ending("failed", error="the handler was cancelled", error_kind="exception")
        try:
            if not self._run.cancelled:
                ending = _succeeded(await awaited(value))
        except Exception as error:
            ending = _raised(error)
        finally:
            _drop(value)
            self._tell(ending)

    async def _ask(self) -> float | None:
        """On the node's loop: the start gate, asked once there is a place to run."""
        if self._outcome.done() or self._run.cancelled:
            return None
        until = self._control.may_start()
        self._is_licensed = until is not None
        return until

    def _is_open(self, until: float | None) -> bool:
        return until is not None and self._clock.boot() < until

    def _tell(self, ending: Ending) -> None:
        def tell() -> None:
            if not self._outcome.done():
                self._outcome.set_result(ending)

        with suppress(RuntimeError):  # the node's loop is closed: nobody waits any more
            self._node.call_soon_threadsafe(tell)

    def _over_there(self, call: Callable[[], None]) -> bool:
        try:
            self._application.call_soon_threadsafe(call)
        except RuntimeError:
            return False
        return True


def run_of(attempt: Attempt) -> Run:
    """What a handler is told."""
    return Run(
        job=attempt.job,
        run_id=attempt.run_id,
        scheduled_time=datetime.fromisoformat(attempt.scheduled_time),
        attempt=attempt.attempt,
        fencing_token=attempt.fencing_token,
        node=attempt.node,
        args=attempt.executor.get("args") if attempt.args is None else attempt.args,
        missed_count=attempt.missed_count,
        previous_time=None if attempt.previous_time is None else datetime.fromisoformat(attempt.previous_time),
        shard_index=attempt.shard_index,
        shard_count=attempt.shard_count,
        traceparent=attempt.traceparent,
    )


def _request(handler: Handler, attempt: Attempt) -> SpawnRequest:
    """A child that imports the function and calls it; it has the application's environment and module path."""
    daemon = {name: value for name, value in os.environ.items() if name not in SECRETS}
    daemon["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    facts = attempt._replace(executor={"args": attempt.executor.get("args")})._asdict()
    return SpawnRequest(
        request_id=str(attempt.fencing_token),
        run_id=attempt.run_id,
        token=attempt.fencing_token,
        argv=[sys.executable, "-P", "-m", "raftcron.executors.handler_process", handler.target],
        env=environment(attempt, daemon, {}),
        timeout_seconds=attempt.timeout_seconds,
        kill_after_seconds=attempt.kill_after_seconds,
        stdin=_json(facts),
        output_name=output_name(attempt.run_id, attempt.fencing_token),
        self_stop=attempt.self_stop,
    )


async def awaited(value: Awaitable[Any]) -> Any:
    """What comes of it in the end.  Not all that can be awaited is, over and over: some clients come to themselves."""
    value = await value
    while inspect.iscoroutine(value) or asyncio.isfuture(value):
        value = await value
    return value


def _drop(value: Awaitable[Any]) -> None:
    """A coroutine that has not begun never will."""
    if inspect.iscoroutine(value):
        value.close()


def said(value: Any) -> bytes:
    """What a handler returned, as a run's output: text as it is, anything else as JSON; nothing for None.

    TypeError: a generator, which is no output but code that has not run.
    """
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise TypeError(
            f"the handler returned the generator {value.__qualname__}, whose body has not run: run it to its end in "
            "the handler, and return what comes of it"
        )
    if value is None:
        return b""
    return value.encode(errors="replace") if isinstance(value, str) else _json(value)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=repr).encode(errors="replace")


def _succeeded(value: Any) -> Ending:
    return Ending("succeeded", output_tail=said(value)[-TAIL_BYTES:])


def _raised(error: BaseException) -> Ending:
    text = "".join(traceback.format_exception(error)).encode(errors="replace")
    return Ending(
        "failed", error=f"{type(error).__name__}: {error}", error_kind="exception", output_tail=text[-TAIL_BYTES:]
    )


def _never_began(reason: str, attempt: Attempt) -> Ending:
    if reason != "timeout":
        return unsent(reason)
    text = f"timed out after {attempt.timeout_seconds:g} s: the application had no room for it"
    return Ending("timed_out", error=text, error_kind="timeout")


def _stopped(reason: str, attempt: Attempt, ended: Ending | None, *, is_thread: bool) -> Ending:
    """It was asked to stop, for this reason."""
    tail = b"" if ended is None else ended.output_tail
    if ended is not None:
        how = "it has ended"
    else:
        how = "it goes on, since nothing stops a thread" if is_thread else "it goes on"
    match reason:
        case "timeout":
            state, text = "timed_out", f"timed out after {attempt.timeout_seconds:g} s"
        case "cancelled":
            state, text = "cancelled", "cancelled"
        case "lease":
            state, text = "failed", "stopped, since this node's lease ended"
        case _:
            state, text = "failed", "stopped, since this node shut down"
    return Ending(state, proven=ended is not None, error=f"{text}: {how}", error_kind=reason, output_tail=tail)
