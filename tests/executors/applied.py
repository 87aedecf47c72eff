"""Handlers of an application, importable by the child that runs them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from raftcron.executors.handlers import Run


def report(run: Run) -> dict[str, object]:
    return {"pid": os.getpid(), "args": run.args, "time": run.scheduled_time.isoformat(), "token": run.fencing_token}


async def report_later(run: Run) -> str:
    await asyncio.sleep(0)
    return f"{run.run_id} in {os.getpid()}"


class InTheEnd:
    """What can be awaited, and is no coroutine."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __await__(self) -> Generator[None, None, str]:
        yield from asyncio.sleep(0).__await__()
        return f"{self._run.run_id} in the end"


def report_in_the_end(run: Run) -> InTheEnd:
    return InTheEnd(run)


def numbers_in_vain(run: Run) -> Iterator[int]:
    return (number for number in range(run.attempt))


def fail(run: Run) -> None:
    raise KeyError(run.job)


def finish_when_asked(run: Run) -> str:
    Path(str(run.args)).touch()
    assert run.cancelled.wait_for(60)
    return "cleaned up"


def never_end(run: Run) -> None:
    Path(str(run.args)).touch()
    while True:
        time.sleep(60)
