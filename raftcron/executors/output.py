"""What user code writes, kept within bounds: a short tail in memory, a bounded file on disk."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

TAIL_BYTES = 4 << 10  # goes into the log with the run's end, so it is short
FILE_BYTES = 10 << 20  # a run's file on this node; then the middle is dropped and counted
DIRECTORY_BYTES = 1 << 30  # all files together, unless the setting output-total says otherwise

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


def prune(directory: str, limit_bytes: int) -> int:
    """Delete the oldest files until all together fit; how many bytes are left."""
    files = []
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                files.append((status.st_mtime_ns, status.st_size, entry.path))
    left = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if left <= limit_bytes:
            break
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108  pathlib costs start time
            left -= size
    return left
