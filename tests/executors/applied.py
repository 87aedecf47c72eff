"""Handlers of an application, importable by the child that runs them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from raftcron.executors.handlers import Run


def report(run: Run) -> dict[str, object]:
    return {"pid": os.getpid(), "args": run.args, "time": run.scheduled_time.isoformat(), "token": run.fencing_token}


async def report_later(run: Run) -> str:
    await asyncio.sleep(0)
    return f"{run.run_id} in {os.getpid()}"


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
