"""Control groups for children, where the kernel and the rights allow it: nothing gets out of one by forking.

Only the standard library, since the spawner imports it.  Version 2 with `cgroup.kill`, Linux 5.14.  It is a second net:
descendants, sessions and marks are looked for in any case (spawner_main.py, remnants.py).
"""

# ruff: noqa: PTH102, PTH106, PTH110, PTH117, PTH118, PTH123  -- pathlib costs start time

from __future__ import annotations

import os
from contextlib import suppress

PREFIX = "raftcron-"


def make(name: str) -> str | None:
    """A new group below this process's own; None where that cannot be."""
    parent = _own()
    if parent is None:
        return None
    path = os.path.join(parent, PREFIX + name)
    try:
        os.mkdir(path, 0o700)
    except OSError:
        return None
    if os.path.exists(os.path.join(path, "cgroup.kill")):
        return path
    remove(path)
    return None


def is_possible() -> bool:
    """Whether this process may make one here."""
    path = make(f"try-{os.getpid()}")
    if path is not None:
        remove(path)
    return path is not None


def make_below(parent: str | None, name: str) -> str | None:
    """A group of its own for one child."""
    if parent is None:
        return None
    path = os.path.join(parent, name)
    try:
        os.mkdir(path, 0o700)
    except OSError:
        return None
    return path


def enter(path: str) -> None:
    """Move this process, and with it all that it will start."""
    with suppress(OSError):
        _write(os.path.join(path, "cgroup.procs"), "0")


def kill(path: str) -> None:
    """SIGKILL to all that is in it or below, at once."""
    with suppress(OSError):
        _write(os.path.join(path, "cgroup.kill"), "1")


def is_empty(path: str) -> bool:
    """Whether nothing lives in it or below; also if it is not there."""
    try:
        with open(os.path.join(path, "cgroup.events"), encoding="ascii") as file:
            return "populated 0" in file.read()
    except OSError:
        return True


def remove(path: str) -> None:
    """With its groups of children, if they are empty."""
    if not is_ours(path):
        return
    with suppress(OSError):
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    os.rmdir(entry.path)
        os.rmdir(path)


def is_ours(path: str) -> bool:
    """Whether a path is one that `make` gives, or below: a file that names another one has nothing killed."""
    return os.path.isabs(path) and os.path.normpath(path) == path and f"/{PREFIX}" in path


def _own() -> str | None:
    """Where the tree of version 2 shows this process's group."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            inside = next(line[3:].rstrip("\n") for line in file if line.startswith("0::"))
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            for line in file:
                fields = line.split()
                root, mount = fields[3], fields[4]
                if fields[fields.index("-") + 1] == "cgroup2" and (inside + "/").startswith(root.rstrip("/") + "/"):
                    return os.path.normpath(mount + "/" + inside[len(root.rstrip("/")) :])
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    return None


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
