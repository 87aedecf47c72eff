"""The python executor: where handlers run, what they see, how they are stopped, and what their end is called."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raftcron.executors.handlers import HANDLERS_MAX, Function, Handlers, Run
from raftcron.executors.python import PythonExecutor
from raftcron.executors.registry import Surroundings
from raftcron.executors.spawner import Spawner
from raftcron.ports import Ending
from tests.executors import applied
from tests.executors.doubles import HandControl, eventually, make_attempt


class Application:
    """A loop in a thread of its own, as an application's is beside the node's."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        self.handlers = Handlers()
        self.handlers.loop = self.loop

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def stop(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()


@pytest.fixture
def application() -> Iterator[Application]:
    application = Application()
    yield application
    application.stop()


@pytest.fixture
async def spawning(application: Application, spawner: Spawner) -> AsyncIterator[PythonExecutor]:
    yield PythonExecutor.create(Surroundings(handlers=application.handlers, spawner=spawner))


async def run(
    application: Application, function: Function, control: HandControl | None = None, **changes: Any
) -> Ending:
    if application.handlers.get("f") is None:
        application.handlers.add("f", function, process=False)
    executor = PythonExecutor.create(Surroundings(handlers=application.handlers))
    attempt = make_attempt({"type": "python", "handler": "f"} | changes.pop("spec", {}), **changes)
    return await executor.run(attempt, control or HandControl())


async def test_an_async_handler_runs_on_the_applications_loop(application: Application) -> None:
    """With all that is known of its run; what it returns is the run's output."""
    seen: list[Run] = []

    async def handler(run: Run) -> dict[str, int]:
        assert asyncio.get_running_loop() is application.loop
        seen.append(run)
        return {"rows": 5}

    ending = await run(
        application,
        handler,
        spec={"args": {"a": 1}},
        fencing_token=7,
        attempt=2,
        missed_count=3,
        previous_time="2026-01-02T03:00:00.500Z",
        shard_index=0,
        shard_count=2,
        traceparent="00-1-2-01",
    )
    assert ending == Ending("succeeded", output_tail=b'{"rows":5}')
    assert seen == [
        Run(
            job="backup",
            run_id="7-1700000000000",
            scheduled_time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            attempt=2,
            fencing_token=7,
            node="n1",
            args={"a": 1},
            missed_count=3,
            previous_time=datetime(2026, 1, 2, 3, 0, 0, 500_000, tzinfo=UTC),
            shard_index=0,
            shard_count=2,
            traceparent="00-1-2-01",
        )
    ]


async def test_any_other_handler_runs_in_a_thread_of_the_applications_pool(application: Application) -> None:
    """Neither loop is held by it; the args of a run by hand take the place of the job's."""
    names: list[str] = []

    def handler(run: Run) -> str:
        names.append(threading.current_thread().name)
        assert run.args == [1]
        return "ü"

    ending = await run(application, handler, spec={"args": {"a": 1}}, args=[1])
    assert ending == Ending("succeeded", output_tail="ü".encode())
    assert names[0] not in {application.thread.name, threading.main_thread().name}


async def test_an_exception_is_a_proven_failure(application: Application) -> None:
    """With its type, its text and its traceback; also one that would end a process."""
    for error in (KeyError("backup"), SystemExit(3)):

        def handler(run: Run, error: BaseException = error) -> None:
            raise error

        fresh = Application()
        ending = await run(fresh, handler)
        fresh.stop()
        assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "exception")
        assert ending.error == f"{type(error).__name__}: {error}"
        assert b"Traceback" in ending.output_tail


async def test_a_handler_that_is_not_there_is_named(application: Application) -> None:
    """With what there is."""
    ending = await run(application, applied.report, spec={"handler": "other"})
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "no_handler")
    assert ending.error == "node n1 has no handler 'other'; there are f"


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_closed_gate_calls_nothing(application: Application, is_async: bool) -> None:
    """Nor does a licence that ended between the gate and the handler."""
    called: list[Run] = []

    async def coroutine(run: Run) -> None:
        called.append(run)

    for licence in (None, -0.001):
        control = HandControl(licence)
        ending = await run(application, coroutine if is_async else called.append, control)
        assert (ending.state, control.asked_count) == ("not_started", 1)
    assert called == []


async def test_the_gate_is_asked_when_there_is_a_place_to_run(application: Application) -> None:
    """Not while the application's loop is held; and a stop meanwhile means that it never starts."""
    held = threading.Event()
    application.loop.call_soon_threadsafe(held.wait)
    called: list[Run] = []

    async def handler(run: Run) -> None:
        called.append(run)

    for reason, state in (("shutdown", "not_started"), ("cancelled", "cancelled")):
        control = HandControl()
        running = asyncio.create_task(run(application, handler, control))
        await asyncio.sleep(0)
        control.stop(reason)
        ending = await running
        assert (ending.state, ending.proven, control.asked_count) == (state, True, 0)
    control = HandControl()
    ending = await run(application, handler, control, timeout_seconds=0.05)
    assert (ending.state, ending.proven, control.asked_count) == ("timed_out", True, 0)
    held.set()
    assert (await run(application, handler)).state == "succeeded"
    assert len(called) == 1


@pytest.mark.parametrize(
    ("reason", "state"), [("timeout", "timed_out"), ("cancelled", "cancelled"), ("shutdown", "failed")]
)
async def test_a_handler_is_asked_to_stop_and_may_clean_up(application: Application, reason: str, state: str) -> None:
    """Within kill_after; it sees the reason, and its end is proven."""
    reasons: list[str] = []

    async def handler(run: Run) -> str:
        reasons.append(await run.cancelled.wait())
        return "cleaned up"

    control = HandControl()
    running = asyncio.create_task(
        run(application, handler, control, timeout_seconds=0.1 if reason == "timeout" else 30.0)
    )
    await eventually(lambda: control.asked_count)
    if reason != "timeout":
        control.stop(reason)
    ending = await running
    assert (ending.state, ending.proven, ending.error_kind, ending.output_tail) == (state, True, reason, b"cleaned up")
    assert reasons == [reason]


async def test_a_coroutine_is_cancelled_after_kill_after(application: Application) -> None:
    """And at once where the lease has ended, or the grace of a node that stops; then its end is proven, too."""
    begun = cancelled = 0

    async def handler(run: Run) -> None:
        nonlocal begun, cancelled
        begun += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    for place, (reason, kill_after) in enumerate((("cancelled", 0.05), ("lease", 60.0), ("shutdown", 60.0))):
        control = HandControl()
        running = asyncio.create_task(run(application, handler, control, kill_after_seconds=kill_after))
        await eventually(lambda place=place: begun > place)
        control.stop(reason)
        if reason == "shutdown":
            control.grace_over.set()
        ending = await running
        assert (ending.proven, ending.error_kind) == (True, reason)
    assert cancelled == 3


async def test_a_thread_that_does_not_end_is_an_unproven_end_that_says_so(application: Application) -> None:
    """Nothing stops a thread: the attempt is given up, and goes on."""
    release = threading.Event()

    def handler(run: Run) -> None:
        release.wait(60)

    ending = await run(application, handler, timeout_seconds=0.05, kill_after_seconds=0.05)
    assert (ending.state, ending.proven, ending.error_kind) == ("timed_out", False, "timeout")
    assert ending.error == "timed out after 0.05 s: it goes on, since nothing stops a thread"
    release.set()


class AsyncCallable:
    """An object whose call is a coroutine."""

    async def __call__(self, run: Run) -> int:
        await asyncio.sleep(0)
        return run.attempt


@pytest.mark.parametrize("function", [AsyncCallable(), functools.partial(AsyncCallable())])
async def test_an_object_with_an_async_call_is_an_async_handler(application: Application, function: Function) -> None:
    """It runs, on the loop, and can be stopped as one."""
    assert (await run(application, function)) == Ending("succeeded", output_tail=b"1")
    assert application.handlers.threads == []


async def test_what_a_function_in_a_thread_has_left_to_await_is_awaited_on_the_loop(application: Application) -> None:
    """Before that its run has not succeeded; what it comes to is the output, what it raises the failure."""

    async def handler(run: Run) -> str:
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is application.loop
        if run.attempt > 1:
            raise KeyError(run.attempt)
        return "done"

    @functools.wraps(handler)
    def wrapper(run: Run) -> Any:
        assert threading.current_thread() is not application.thread
        return handler(run)

    assert (await run(application, wrapper)) == Ending("succeeded", output_tail=b"done")
    ending = await run(application, wrapper, attempt=2)
    assert (ending.state, ending.proven, ending.error) == ("failed", True, "KeyError: 2")


async def test_a_coroutine_that_a_coroutine_returns_is_awaited_too(application: Application) -> None:
    """As where a decorator has forgotten to."""

    async def inner(run: Run) -> str:
        return "done"

    async def handler(run: Run) -> Any:
        return inner(run)

    assert (await run(application, handler)) == Ending("succeeded", output_tail=b"done")


@pytest.mark.parametrize("reason", ["timeout", "cancelled", "shutdown", "lease"])
async def test_what_a_function_in_a_thread_has_left_to_await_is_stopped_as_a_coroutine_is(
    application: Application, reason: str
) -> None:
    """Asked, and then cancelled where it awaits: its end is proven."""
    begun = threading.Event()
    seen: list[str | None] = []

    async def handler(run: Run) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(run.cancelled.reason)

    control = HandControl()
    timeout = 0.05 if reason == "timeout" else 30.0
    changes = {"timeout_seconds": timeout, "kill_after_seconds": 0.05}
    running = asyncio.create_task(run(application, lambda run: handler(run), control, **changes))
    await eventually(begun.is_set)
    if reason != "timeout":
        control.stop(reason)
    ending = await running
    assert (ending.proven, ending.error_kind, ending.error[-14:]) == (True, reason, ": it has ended")
    assert seen == [reason]


@pytest.mark.filterwarnings("error")
async def test_what_is_left_to_await_when_a_run_has_been_stopped_never_begins(application: Application) -> None:
    """The coroutine is closed, and the run ends as stopped."""
    release = threading.Event()
    told: list[Run] = []
    made: list[Any] = []

    async def never(run: Run) -> None:
        raise AssertionError

    def handler(run: Run) -> Any:
        told.append(run)
        release.wait(60)
        made.append(never(run))
        return made[0]

    control = HandControl()
    running = asyncio.create_task(run(application, handler, control, kill_after_seconds=60.0))
    await eventually(lambda: told)
    control.stop("cancelled")
    await eventually(lambda: told[0].cancelled)
    release.set()
    ending = await running
    assert (ending.state, ending.proven, ending.error) == ("cancelled", True, "cancelled: it has ended")
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED


@pytest.mark.filterwarnings("error")
async def test_what_is_left_to_await_when_the_application_is_gone_is_a_failure(application: Application) -> None:
    """The loop is closed, so nobody can run it, and nobody says that it has."""
    made: list[Any] = []

    async def never(run: Run) -> None:
        raise AssertionError

    def handler(run: Run) -> Any:
        application.loop.call_soon_threadsafe(application.loop.stop)
        application.thread.join()
        made.append(never(run))
        return made[0]

    ending = await run(application, handler)
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "exception")
    assert ending.error == "the application's loop was closed before all had run"
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED


def numbers(run: Run) -> Iterator[int]:
    yield run.attempt


async def numbers_later(run: Run) -> AsyncIterator[int]:
    yield run.attempt


@pytest.mark.parametrize("function", [numbers, numbers_later])
async def test_a_handler_that_returns_a_generator_fails(application: Application, function: Function) -> None:
    """Nobody would run the generator's body, so its run has not succeeded."""
    ending = await run(application, lambda run: function(run))
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "exception")
    assert ending.error == (
        f"TypeError: the handler returned the generator {function.__name__}, whose body has not run: "
        "run it to its end in the handler, and return what comes of it"
    )


async def test_a_handler_in_a_process_that_has_not_run_has_not_succeeded(
    application: Application, spawning: PythonExecutor
) -> None:
    """What it returns is awaited there too, whatever kind of awaitable it is; a generator is a failure."""
    for name in ("report_in_the_end", "numbers_in_vain"):
        application.handlers.add(name, getattr(applied, name), process=True)
    ending = await spawning.run(make_attempt({"type": "python", "handler": "report_in_the_end"}), HandControl())
    assert (ending.state, ending.output_tail) == ("succeeded", b"7-1700000000000 in the end")
    ending = await spawning.run(make_attempt({"type": "python", "handler": "numbers_in_vain"}), HandControl())
    assert (ending.state, ending.exit_code) == ("failed", 1)
    assert b"TypeError: the handler returned the generator " in ending.output_tail


async def test_an_application_that_is_gone_starts_nothing(application: Application) -> None:
    """Its loop is closed, or not there yet."""
    application.stop()
    assert (await run(application, applied.report)).state == "not_started"
    application.handlers.loop = None
    assert (await run(application, applied.report)).state == "not_started"


@pytest.mark.parametrize("function", [applied.report, applied.report_later])
async def test_a_handler_in_a_process(application: Application, spawning: PythonExecutor, function: Function) -> None:
    """It is imported there, sees its run, and what it returns is the output."""
    application.handlers.add("f", function, process=True)
    attempt = make_attempt({"type": "python", "handler": "f", "args": {"ä": 1}}, fencing_token=9)
    ending = await spawning.run(attempt, HandControl())
    assert (ending.state, ending.exit_code) == ("succeeded", 0), ending
    if function is applied.report:
        said = json.loads(ending.output_tail)
        assert said.pop("pid") != os.getpid()
        assert said == {"args": {"ä": 1}, "time": "2026-01-02T03:04:05+00:00", "token": 9}
    else:
        assert ending.output_tail.startswith(b"7-1700000000000 in ")


async def test_a_handler_in_a_process_fails_and_is_stopped(
    application: Application, spawning: PythonExecutor, tmp_path: Path
) -> None:
    """An exception is exit code 1 with its traceback; it may end when it is asked to, and is killed if it does not."""
    for name in ("fail", "finish_when_asked", "never_end"):
        application.handlers.add(name, getattr(applied, name), process=True)
    ending = await spawning.run(make_attempt({"type": "python", "handler": "fail"}), HandControl())
    assert (ending.state, ending.exit_code, ending.error_kind) == ("failed", 1, "exit")
    assert b"KeyError: 'backup'" in ending.output_tail
    for name, code in (("finish_when_asked", 0), ("never_end", 137)):
        control = HandControl()
        begun = tmp_path / name
        attempt = make_attempt(
            {"type": "python", "handler": name, "args": str(begun)}, kill_after_seconds=0.3 if code else 30.0
        )
        running = asyncio.create_task(spawning.run(attempt, control))
        await eventually(begun.exists)
        control.stop("cancelled")
        ending = await running
        assert (ending.state, ending.proven, ending.exit_code) == ("cancelled", True, code)


def test_what_cannot_be_a_handler_is_refused_at_once() -> None:
    """A name that is taken, too many, and for a process what it could not import."""
    handlers = Handlers()
    handlers.add("f", applied.report, process=True)
    with pytest.raises(ValueError, match=r"a handler 'f' already: tests.executors.applied:report"):
        handlers.add("f", applied.fail, process=False)
    with pytest.raises(ValueError, match=r"cannot be imported by the process"):
        handlers.add("g", lambda run: None, process=True)
    for number in range(HANDLERS_MAX - 1):
        handlers.add(f"h{number}", applied.report, process=False)
    with pytest.raises(ValueError, match=r"1000 handlers already"):
        handlers.add("i", applied.report, process=False)
    assert list(handlers)[:3] == ["f", "h0", "h1"]


class Call:
    """Objects that are called, of every wrong kind."""

    def __call__(self, run: Run) -> Iterator[int]:
        yield run.attempt


def injected(function: Callable[[Run, str], str]) -> Function:
    """As decorators do: what it makes looks like the function, and takes less."""

    @functools.wraps(function)
    def wrapper(run: Run) -> str:
        return function(run, "db")

    return wrapper


@injected
def with_database(run: Run, database: str) -> str:
    return database


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (5, "5 is not callable"),
        (numbers, "test_python:numbers is a generator function, whose body nobody would run"),
        (numbers_later, "test_python:numbers_later is a generator function, whose body nobody would run"),
        (functools.partial(numbers), "numbers.* is a generator function"),
        (Call(), "Call object.* is a generator function"),
        (lambda: None, "cannot be called with one argument, the run: too many positional arguments"),
        (lambda run, other: None, "cannot be called with one argument, the run: missing a required argument: 'other'"),
        (lambda *, run: None, "cannot be called with one argument, the run: "),
    ],
)
def test_what_could_not_be_called_is_refused_at_once(function: Any, fault: str) -> None:
    """Where it is registered, and not each time it is due."""
    with pytest.raises(ValueError, match=fault):
        Handlers().add("f", function, process=False)


@pytest.mark.parametrize("function", [with_database, print, dict, [].append, lambda run, more=1: None, lambda *run: 1])
def test_what_can_be_called_with_a_run_is_taken(function: Function) -> None:
    """Also where its signature is not known, or that of what it wraps is another."""
    Handlers().add("f", function, process=False)


@pytest.mark.parametrize("function", [AsyncCallable(), functools.partial(applied.report)])
def test_an_object_that_no_module_knows_by_name_is_no_handler_in_a_process(function: Function) -> None:
    """The child could not find it."""
    with pytest.raises(ValueError, match=r"cannot be imported by the process"):
        Handlers().add("f", function, process=True)


async def test_a_cancellation_is_seen_in_every_way() -> None:
    """As a truth, by a waiting coroutine, by a blocked thread; once, with its first reason."""
    run = Run("j", "r", datetime.now(UTC), 1, 1, "n1")
    assert not run.cancelled
    assert not run.cancelled.wait_for(0)
    waiting = asyncio.create_task(run.cancelled.wait())
    blocked = asyncio.create_task(asyncio.to_thread(run.cancelled.wait_for, 100))
    await asyncio.sleep(0)
    began = time.monotonic()
    run.cancelled.set("shutdown")
    run.cancelled.set("lease")
    assert (await waiting, await blocked, await run.cancelled.wait()) == ("shutdown", True, "shutdown")
    assert run.cancelled
    assert run.cancelled.is_set()
    assert time.monotonic() - began < 50
