"""A daemon of ten lines to be killed; prints the spawner's pid, then the end.

tiny_daemon.py DIRECTORY LICENCE_SECONDS TIMEOUT_SECONDS COMMAND
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from raftcron.clock import SystemClock
from raftcron.executors.spawner import Spawner, SpawnRequest


async def main(directory: str, licence_seconds: str, timeout_seconds: str, command: str) -> None:
    spawner = Spawner(Path(directory) / "run")
    await spawner.start()
    print(spawner.pid, flush=True)
    argv, environment = ["/bin/sh", "-c", command], {"PATH": os.environ["PATH"]}
    request = SpawnRequest("9", "run-9", 9, argv, environment, float(timeout_seconds), 0.2)
    result = await spawner.run(request, lambda: SystemClock().boot() + float(licence_seconds))
    print(result.outcome, result.exit_code, result.reason, flush=True)
    await spawner.stop()


asyncio.run(main(*sys.argv[1:]))
