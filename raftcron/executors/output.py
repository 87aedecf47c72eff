"""What user code writes, kept within bounds: a short tail in memory, a bounded file on disk."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import NamedTuple

TAIL_BYTES = 4 << 10  # goes into the log with the run's end, so it is short
WHOLE_BYTES = TAIL_BYTES - 4  # a tail that is no longer is all there was: of a cut one three bytes may be missing
FILE_BYTES = 10 << 20  # a run's file on this node; then the middle is dropped and counted
DIRECTORY_BYTES = 1 << 30  # all files together, unless the setting output-total says otherwise
AGE_SECONDS = 7 * 24 * 3600.0  # then a file is deleted, however much room there is

_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


class Tail:
    """The last bytes of a stream."""

    def __init__(self, limit_bytes: int = TAIL_BYTES) -> None:
        self._limit = limit_bytes
        self._kept = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        self._kept += data[-self._limit :]
        if len(self._kept) > 2 * self._limit:  # cut now and then, not with each byte
            del self._kept[: -self._limit]

    def value(self) -> bytes:
        """At most `limit_bytes`; what was cut off in front does not leave half a UTF-8 character behind."""
        kept = bytes(self._kept[-self._limit :])
        if self.total > len(kept):
            for _ in range(3):
                if kept and kept[0] & 0xC0 == 0x80:
                    kept = kept[1:]
        return kept


class Captured(NamedTuple):
    """What is known of an output when it has ended."""

    tail: bytes
    total_bytes: int
    dropped_bytes: int  # of the file: neither in its head nor in its tail


class Capture:
    """Keeps a tail and writes a file: its first `file_bytes`, a line that counts what is missing, and the tail.

    The file is made with the first byte.  A disk that is full or broken costs the file, never the run.
    """

    def __init__(self, path: str | None, file_bytes: int = FILE_BYTES) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._descriptor: int | None = None
        self._written = 0
        self._tail = Tail()

    def add(self, data: bytes) -> None:
        self._tail.add(data)
        room = self._file_bytes - self._written
        if self._path is not None and room > 0:
            self._write(data[:room])

    def close(self) -> Captured:
        tail, total = self._tail.value(), self._tail.total
        missing = total - self._written
        dropped = max(0, missing - len(tail))
        if self._path is not None and missing > 0:
            line = f"\n[... {dropped} bytes dropped]\n".encode() if dropped else b""
            self._write(line + tail[max(0, len(tail) - missing) :], counted=False)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        return Captured(tail, total, dropped)

    def _write(self, data: bytes, counted: bool = True) -> None:
        try:
            if self._descriptor is None:
                assert self._path is not None
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
            count = os.write(self._descriptor, data)
        except OSError:
            self._path = None
            return
        if counted:
            self._written += count


def output_name(run_id: str, token: int) -> str:
    """The file of one attempt: safe in any directory, the same on every node."""
    safe = "".join(letter if letter in _SAFE else "_" for letter in run_id)[:150]
    return f"{safe}.{token}.log"


class Shelf:
    """The outputs that have ended in one directory, bounded in bytes and in age: the oldest leave first.

    One process writes into the directory.  It is looked through once, here; then an output costs the same however many
    there are.  Bytes are those that the disk gives, which for a short text are 4 KiB.
    """

    def __init__(self, directory: str, bytes_max: int = DIRECTORY_BYTES, age_seconds: float = AGE_SECONDS) -> None:
        self.directory = directory
        self.file_bytes = min(FILE_BYTES, bytes_max // 4)  # of one output
        self.bytes = 0
        self._bytes_max = bytes_max
        self._age_seconds = age_seconds
        found = []
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        found.append((status.st_mtime, status.st_blocks * 512, entry.name))
        self._files = deque(sorted(found))
        self.bytes = sum(size for _, size, _ in found)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)  # noqa: PTH118  pathlib costs start time

    def take(self, name: str) -> None:
        """An output has ended; if it has a file, that counts from now on."""
        try:
            status = os.lstat(self.path(name))
        except OSError:
            return
        self._files.append((status.st_mtime, status.st_blocks * 512, name))
        self.bytes += status.st_blocks * 512
        self.prune(status.st_mtime)

    def prune(self, now: float) -> None:
        """Delete what is too old at `now`, seconds of the wall clock, and the oldest until the others fit."""
        while self._files and (self.bytes > self._bytes_max or self._files[0][0] < now - self._age_seconds):
            _, size, name = self._files.popleft()
            self.bytes -= size
            with suppress(OSError):
                os.unlink(self.path(name))  # noqa: PTH108
