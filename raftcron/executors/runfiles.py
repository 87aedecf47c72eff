"""The run directory: small files that name the spawner and its children, read by the next life of the node.

    DATA/run/spawner      one JSON line: pid, start, boot
    DATA/run/<id>.child   one JSON line before exec (pid, start, boot, run_id, token), a second when the child is gone

Nothing is synced: after a power loss the boot id differs, and there is nothing left to kill.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

SPAWNER_FILE = "spawner"
CHILD_SUFFIX = ".child"

_FILE_BYTES = 64 << 10


def path_of(directory: str, name: str) -> str:
    return os.path.join(directory, name)  # noqa: PTH118  pathlib costs start time


def spawner_path(directory: str) -> str:
    return path_of(directory, SPAWNER_FILE)


def child_path(directory: str, request_id: str) -> str:
    return path_of(directory, request_id + CHILD_SUFFIX)


def spawner_record(pid: int, start: int, boot: str, cgroup: str | None) -> dict[str, Any]:
    """The line of the spawner's file."""
    return {"pid": pid, "start": start, "boot": boot, "cgroup": cgroup}


def child_record(pid: int, start: int, boot: str, run_id: str, token: int) -> dict[str, Any]:
    """The first line of a child's file, there before user code: what is not named certainly never ran."""
    return {"pid": pid, "start": start, "boot": boot, "run_id": run_id, "token": token}


def write(path: str, record: dict[str, Any]) -> None:
    """Make or replace the file with one line.  OSError if that fails."""
    _put(path, record, os.O_CREAT | os.O_TRUNC)


def append(path: str, record: dict[str, Any]) -> None:
    """One more line, if the file is there.  OSError if that fails."""
    _put(path, record, os.O_APPEND)


def read(path: str) -> list[dict[str, Any]]:
    """The whole lines of a file; none if it is missing or was cut off while it was written.

    OSError if it is there and cannot be read: that says nothing of what it names.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        text = os.read(descriptor, _FILE_BYTES)
    finally:
        os.close(descriptor)
    records = []
    for line in text.split(b"\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict):
            break
        records.append(record)
    return records


def names(directory: str) -> list[str]:
    """Of the run files in a directory, in order; none if it is missing.  OSError if it cannot be listed."""
    try:
        found = os.listdir(directory)  # noqa: PTH208  names, not paths
    except FileNotFoundError:
        return []
    return sorted(name for name in found if name == SPAWNER_FILE or name.endswith(CHILD_SUFFIX))


def remove(path: str) -> None:
    """It may be gone already.  OSError if it cannot be."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108  pathlib costs start time


def _put(path: str, record: dict[str, Any], flags: int) -> None:
    line = json.dumps(record).encode() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(f"{path}: only a part could be written; is the disk full?")
    finally:
        os.close(descriptor)
