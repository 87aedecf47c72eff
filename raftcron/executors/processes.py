"""Which processes exist, who started them, and killing exactly the one that is meant; Linux's /proc, no policy.

Only the standard library, since the spawner imports it.  A pid alone names nothing: it is used again.  Pid, start time
(clock ticks since boot) and boot id together name one process for ever.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

MARK = "RAFTCRON_PROCESS"  # in the environment of every child: which spawner and which request it comes from

_ENVIRONMENT_BYTES = 1 << 21  # how much of a foreign environment is looked at; the kernel's usual limit


class Process(NamedTuple):
    """One line of /proc/<pid>/stat.  `start` is in clock ticks since boot; `state` Z or X: dead, not reaped yet."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start: int

    @property
    def is_dead(self) -> bool:
        return self.state in {"Z", "X"}


def boot_id() -> str:
    """Names this boot of the kernel."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123  pathlib costs start time
        return file.read().strip()


def look(pid: int) -> Process | None:
    """The process with this pid, None if there is none."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(descriptor, 1024)
    except OSError:  # it ended between open and read
        return None
    finally:
        os.close(descriptor)
    fields = line[line.rfind(b")") + 2 :].split(None, 20)  # the command's name may hold spaces and brackets
    if len(fields) < 20:
        return None
    return Process(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def table() -> dict[int, Process]:
    """All processes that can be seen now.  Not one instant: what forks meanwhile may be missing, so look again."""
    return {process.pid: process for process in each()}


def each() -> Iterator[Process]:
    """All processes, each as it is at the moment it is given."""
    for name in os.listdir("/proc"):  # noqa: PTH208  names, not paths
        if name.isdigit() and (process := look(int(name))) is not None:
            yield process


def is_alive(pid: int, start: int) -> bool:
    """Whether exactly this process runs; a zombie does not."""
    process = look(pid)
    return process is not None and process.start == start and not process.is_dead


def descendants(processes: Mapping[int, Process], roots: Iterable[int]) -> Iterator[Process]:
    """All below the roots, without them, parents before children."""
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    waiting = list(roots)
    seen = set(waiting)
    while waiting:
        for process in children.get(waiting.pop(), ()):
            if process.pid not in seen:
                seen.add(process.pid)
                waiting.append(process.pid)
                yield process


def mark_of(pid: int) -> str | None:
    """The spawner's mark in the environment that the process was started with; None without one or without access."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123  pathlib costs start time
            environment = file.read(_ENVIRONMENT_BYTES)
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("utf-8", "replace")
    return None


def is_dying(pid: int) -> bool:
    """Whether it is gone, dead, or on its way out: it has given up its memory, and its environment with it."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123  pathlib costs start time
            return file.read(2) == b"0 "
    except OSError:
        return True


def kill_exactly(process: Process, number: int = signal.SIGKILL) -> None:
    """Signal this process and no other that has got its pid meanwhile; nothing if it is gone or not ours to signal."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        current = look(process.pid)  # the descriptor pins who it is; now see who it is
        if current is not None and current.start == process.start:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)
