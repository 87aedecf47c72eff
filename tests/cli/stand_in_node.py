"""Stands in for a node: says that it is ready and waits for SIGTERM.  Writes what it does to stdout."""

from __future__ import annotations

import signal
import sys


def stop(number: int, frame: object) -> None:
    sys.stdout.write("stopped cleanly\n")
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
sys.stdout.write("ready\n")
sys.stdout.flush()
while True:
    signal.pause()
