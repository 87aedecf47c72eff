"""Programs that try to outlive their attempt: comets FILE COUNT, bomb DEPTH.  Each ends by itself after 30 s."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def comets(file: str, count: int) -> None:
    """Each forks a successor in a session of its own and ends at once: never there where one has looked."""
    Path(file).touch()
    for _ in range(count):
        if os.fork() == 0:
            end = time.monotonic() + 30
            while time.monotonic() < end:
                os.utime(file)
                if os.fork():
                    os._exit(0)
                os.setsid()
            os._exit(0)
    time.sleep(30)


def bomb(depth: int) -> None:
    """Two children each, each in a session of its own, without an environment or an open file."""
    for _ in range(depth):
        if os.fork() == 0 or os.fork() == 0:
            os.setsid()
        else:
            break
    os.closerange(0, 20)
    time.sleep(30)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    globals()[sys.argv[1]](*(int(word) if word.isdigit() else word for word in sys.argv[2:]))
