"""Fixtures: a started spawner, and requests for it."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from raftcron.executors.spawner import Spawner, SpawnRequest


@pytest.fixture
async def spawner(tmp_path: Path) -> AsyncIterator[Spawner]:
    """A spawner that has started."""
    spawner = Spawner(tmp_path / "run")
    await spawner.start()
    yield spawner
    await spawner.stop()


@pytest.fixture
def request_for() -> Callable[..., SpawnRequest]:
    """Makes requests for /bin/sh, each with an id of its own."""
    numbers = itertools.count(1)

    def make(command: str, **changes: object) -> SpawnRequest:
        number = next(numbers)
        values: dict[str, object] = {
            "request_id": str(number),
            "run_id": f"run-{number}",
            "token": number,
            "argv": ["/bin/sh", "-c", command],
            "env": {"PATH": os.environ["PATH"]},
            "timeout_seconds": 30.0,
            "kill_after_seconds": 1.0,
        }
        return SpawnRequest(**(values | changes))  # type: ignore[arg-type]  # a test's shorthand

    return make
