"""The few things journal and snapshots ask of a disk, and the real disk; what the bytes mean is their business."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Protocol


class Device(Protocol):
    """A place for append-only files.  Every method may raise OSError; none retries.  Handles are small integers."""

    def make_directory(self, path: Path) -> None:
        """Make it and what is missing above it (mode 0700), durably; nothing happens if it is there."""

    def lock(self, path: Path) -> int:
        """An exclusive lock on a file that is made if need be.  BlockingIOError while another holder has it."""

    def names(self, directory: Path) -> list[str]:
        """Names of the files in a directory, in any order."""

    def read(self, path: Path, limit: int = -1) -> bytes:
        """The bytes of a file, from its beginning; at most `limit` of them, all if it is negative."""

    def read_range(self, path: Path, offset: int, count: int) -> bytes:
        """At most `count` bytes of a file from `offset` on; fewer only where it ends."""

    def size(self, path: Path) -> int:
        """Length of a file in bytes."""

    def free_bytes(self, directory: Path) -> int:
        """How many more bytes this user's files there may take."""

    def create(self, path: Path) -> int:
        """Make a file (mode 0600) for appending.  FileExistsError if it is there."""

    def append(self, path: Path) -> int:
        """Open an existing file for appending and truncating."""

    def write(self, handle: int, data: bytes) -> None:
        """Append all of `data`; durable only after `sync`."""

    def sync(self, handle: int) -> None:
        """All bytes of the file and its length are durable when this returns."""

    def open_directory(self, path: Path) -> int:
        """A handle for `sync_directory`, which then needs no further descriptor."""

    def sync_directory(self, directory: Path | int) -> None:
        """Files made in and removed from the directory, or a handle's, are durably so when this returns."""

    def truncate(self, handle: int, length: int) -> None:
        """Cut the file behind `length` bytes; durable only after `sync`."""

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name in its directory, in place of whatever has that name: at any moment the one or the
        other has it, after a power cut too.  Durable only after `sync_directory`."""

    def remove(self, path: Path) -> None:
        """Remove a file; durable only after `sync_directory`."""

    def close(self, handle: int) -> None:
        """Give back a handle (of a file, a directory or a lock)."""


class SystemDevice:
    """The machine's file system.  Files belong to this user alone."""

    def make_directory(self, path: Path) -> None:
        if path.is_dir():
            return
        self.make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        self.sync_directory(path.parent)

    def lock(self, path: Path) -> int:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in directory.iterdir()]

    def read(self, path: Path, limit: int = -1) -> bytes:
        with path.open("rb") as file:
            return file.read(limit)

    def read_range(self, path: Path, offset: int, count: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(count)

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def free_bytes(self, directory: Path) -> int:
        free = os.statvfs(directory)
        return free.f_bavail * free.f_frsize

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write(self, handle: int, data: bytes) -> None:
        written = os.write(handle, data)
        while written < len(data):  # a nearly full disk, or more than 2 GiB at once
            more = os.write(handle, memoryview(data)[written:])
            if not more:
                raise OSError(errno.EIO, "the file takes no more bytes")
            written += more

    def sync(self, handle: int) -> None:
        os.fdatasync(handle)

    def open_directory(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def sync_directory(self, directory: Path | int) -> None:
        handle = directory if isinstance(directory, int) else self.open_directory(directory)
        try:
            os.fsync(handle)
        finally:
            if handle != directory:
                os.close(handle)

    def truncate(self, handle: int, length: int) -> None:
        os.ftruncate(handle, length)

    def replace(self, source: Path, target: Path) -> None:
        source.replace(target)

    def remove(self, path: Path) -> None:
        path.unlink()

    def close(self, handle: int) -> None:
        os.close(handle)
