"""A disk in memory for tests of the journal: it knows what is synced, loses the rest, and lets processes die."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path


class Died(BaseException):
    """The process, or the machine, ends in the middle of a call."""


class MemoryDisk:
    """Satisfies what the journal uses of Device.  What is not synced is lost when the power goes, in any order."""

    page_bytes = 16

    def __init__(self) -> None:
        self.files: dict[Path, bytearray] = {}
        self.synced: dict[Path, bytes] = {}  # what a power cut leaves of each file whose name is durable
        self.listed: set[Path] = set()  # names that are durable
        self.removed: dict[Path, bytes] = {}  # names that a power cut may bring back, and what was synced under them
        self.handles: dict[int, Path] = {}
        self.locks: dict[int, Path] = {}
        self.calls: list[str] = []  # those that a process may die in
        self.fails: dict[str, OSError] = {}
        self.dies_at: int | None = None  # the place in `calls` of the one in which the process dies
        self._next = 3

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            self._die()
            raise self.fails[name]

    def _die(self) -> None:
        if self.dies_at is not None and len(self.calls) > self.dies_at:
            raise Died

    def _handle(self, path: Path) -> int:
        self._next += 1
        self.handles[self._next] = path
        return self._next

    def make_directory(self, path: Path) -> None:
        """Directories are there."""

    def lock(self, path: Path) -> int:
        if path in self.locks.values():
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")
        self._next += 1
        self.locks[self._next] = path
        return self._next

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in self.files]

    def read(self, path: Path, limit: int = -1) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        data = bytes(self.files[path])
        return data if limit < 0 else data[:limit]

    def create(self, path: Path) -> int:
        self._call("create")
        assert path not in self.files
        self.files[path] = bytearray()
        self.synced.pop(path, None)
        self._die()
        return self._handle(path)

    def append(self, path: Path) -> int:
        return self._handle(path)

    def write(self, handle: int, data: bytes) -> None:
        self._call("write")
        file = self.files[self.handles[handle]]
        file += data
        if self.dies_at is not None and len(self.calls) > self.dies_at:
            del file[len(file) - len(data) // 2 :]
            raise Died

    def sync(self, handle: int) -> None:
        self._call("sync")
        path = self.handles[handle]
        self.synced[path] = bytes(self.files[path])
        self._die()

    def open_directory(self, path: Path) -> int:
        return self._handle(path)

    def sync_directory(self, directory: Path | int) -> None:
        self._call("sync_directory")
        self.listed = set(self.files)
        self.removed.clear()
        self._die()

    def truncate(self, handle: int, length: int) -> None:
        self._call("truncate")
        del self.files[self.handles[handle]][length:]
        self._die()

    def remove(self, path: Path) -> None:
        self._call("remove")
        if path in self.listed:
            self.removed[path] = self.synced.get(path, b"")
        del self.files[path]
        self._die()

    def close(self, handle: int) -> None:
        if self.handles.pop(handle, None) is None:
            del self.locks[handle]

    def kill(self) -> None:
        """The process is gone; what it wrote stays."""
        self.handles.clear()
        self.locks.clear()
        self.dies_at = None

    def cut_power(self, reaches_disk: Callable[[], bool]) -> None:
        """Of what was not synced, each page, new name and removal reaches the disk or does not.

        A page that does not is zeros if a later one does, else the file ends before it.
        """
        self.kill()
        for path in list(self.files):
            if path not in self.listed and not reaches_disk():
                del self.files[path]
                continue
            synced = self.synced.get(path, b"")
            tail = bytes(self.files[path][len(synced) :])
            pages = [tail[at : at + self.page_bytes] for at in range(0, len(tail), self.page_bytes)]
            kept = [(page if (keep := reaches_disk()) else bytes(len(page)), keep) for page in pages]
            while kept and not kept[-1][1]:
                kept.pop()
            self.files[path] = bytearray(synced + b"".join(page for page, _ in kept))
        for path, data in self.removed.items():
            if not reaches_disk():
                self.files[path] = bytearray(data)
        self.removed.clear()
        self.listed = set(self.files)
        self.synced = {path: bytes(data) for path, data in self.files.items()}

    def copy(self) -> MemoryDisk:
        """Another disk with the same files, all of them synced."""
        disk = MemoryDisk()
        for path, data in self.files.items():
            disk.files[path] = bytearray(data)
            disk.synced[path] = bytes(data)
            disk.listed.add(path)
        return disk
