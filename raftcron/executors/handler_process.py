"""The child that runs one handler: python -m raftcron.executors.handler_process MODULE:FUNCTION, the run on stdin.

MODULE may be a file, FILE.py: the application's program, which has to start nothing unless it is `__main__`.
SIGTERM sets `run.cancelled`; what does not end by itself is killed later by the spawner.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import runpy
import signal
import sys
from collections.abc import Iterable

from raftcron.executors.python import awaited, run_of, said
from raftcron.ports import Attempt


def main(arguments: Iterable[str]) -> int:
    """0 if the handler returned; an exception ends the process with 1 and its traceback on stderr."""
    (target,) = arguments
    run = run_of(Attempt(**json.load(sys.stdin)))
    signal.signal(signal.SIGTERM, lambda *_: run.cancelled.set("stopped"))
    module, _, path = target.rpartition(":")
    first, *names = path.split(".")
    if module.endswith(".py"):
        function = runpy.run_path(module, run_name="__raftcron__")[first]
    else:
        function = getattr(importlib.import_module(module), first)
    for name in names:
        function = getattr(function, name)
    assert callable(function), f"{target} is no function"
    value = function(run)
    if inspect.isawaitable(value):
        value = asyncio.run(awaited(value))
    sys.stdout.flush()
    sys.stdout.buffer.write(said(value))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
