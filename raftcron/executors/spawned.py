"""One attempt as a process: asks the spawner for it, tells it to stop, says how it ended in the contract's words."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from raftcron.executors.registry import unsent
from raftcron.executors.spawner import Reason, Spawner, SpawnRequest, SpawnResult
from raftcron.ports import Attempt, Control, Ending


async def carry_out(spawner: Spawner, request: SpawnRequest, attempt: Attempt, control: Control) -> Ending:
    """Run it to its end.  The gate is asked right before the request leaves."""
    running = asyncio.ensure_future(spawner.run(request, control.may_start))
    stopped = asyncio.ensure_future(control.stopped())
    try:
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            reason = stopped.result()
            if spawner.is_waiting(request.request_id):
                return unsent(reason)
            kill_after = 0.0 if reason == "lease" else attempt.kill_after_seconds
            spawner.stop_run(request.request_id, _reason(reason), kill_after)
            await _either(running, control.overdue())
            spawner.stop_run(request.request_id, _reason(reason), 0.0)  # the earliest kill counts; none if it is over
        result = await running
    except ValueError as error:  # too large to be sent
        return Ending("failed", error=str(error), error_kind="spawn")
    finally:
        running.cancel()
        stopped.cancel()
    return _ending(result, attempt)


async def _either(running: asyncio.Future[Any], other: Coroutine[Any, Any, None]) -> None:
    """Wait until one of them is over."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(other)
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _reason(asked: str) -> Reason:
    match asked:
        case "cancelled" | "lease":
            return asked
        case _:
            return "shutdown"


def _ending(result: SpawnResult, attempt: Attempt) -> Ending:
    """What the spawner saw, in the contract's words."""
    tail = result.output_tail
    if result.outcome == "refused":
        return Ending("not_started", error=result.error)
    if result.outcome == "failed":
        return Ending("failed", error=result.error, error_kind="spawn")
    if result.outcome == "lost":
        return Ending("failed", proven=False, error=result.error, error_kind="spawner")
    assert result.exit_code is not None
    code = result.exit_code if result.exit_code >= 0 else 128 - result.exit_code  # as every shell says it
    how = f"exit code {code}" if result.exit_code >= 0 else f"killed by {_signal_name(-result.exit_code)}"
    match result.reason:
        case None if code == 0:
            return Ending("succeeded", exit_code=0, output_tail=tail)
        case None:
            return Ending("failed", exit_code=code, error=how, error_kind="exit", output_tail=tail)
        case "timeout":
            text = f"timed out after {attempt.timeout_seconds:g} s: {how}"
            return Ending("timed_out", exit_code=code, error=text, error_kind="timeout", output_tail=tail)
        case "cancelled":
            text = f"cancelled: {how}"
            return Ending("cancelled", exit_code=code, error=text, error_kind="cancelled", output_tail=tail)
        case "lease":
            text = f"stopped, since this node's lease ended: {how}"
            return Ending("failed", exit_code=code, error=text, error_kind="lease", output_tail=tail)
        case _:
            text = f"stopped, since this node shut down: {how}"
            return Ending("failed", exit_code=code, error=text, error_kind="shutdown", output_tail=tail)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
