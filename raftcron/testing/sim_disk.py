"""A disk in memory that forgets as real ones do; satisfies raft.device.Device through one `Handle` a process's life.

A killed process leaves what it has written.  A power cut leaves what was synced, and of the rest any pages, in any
order, the last of them torn.  A disk may be full, a sync may fail, a process may die in the middle of a write, and a
write may arrive as something else than was written.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from raftcron.testing.chance import Chance
from raftcron.testing.sim_loop import ProcessDied

PAGE_BYTES = 4096
SECTOR_BYTES = 512
PLENTY_BYTES = 1 << 40


class _File:
    def __init__(self) -> None:
        self.data = bytearray()  # as processes see it
        self.durable = bytearray()  # as a power cut leaves it at least
        self.agree = 0  # the first so many bytes of both are the same
        self.is_named = False  # its directory was synced since it was made

    def sync(self) -> None:
        self.durable[self.agree :] = memoryview(self.data)[self.agree :]
        self.agree = len(self.data)

    def survive(self, chance: Chance) -> None:
        """A power cut: any pages of what was not synced, the last one torn."""
        old, new = bytes(self.durable), bytes(self.data)
        if old == new:
            return
        length = chance.choice([len(old), len(new), chance.randint(min(len(old), len(new)), max(len(old), len(new)))])
        kept = bytearray(length)
        kept[: min(length, len(old))] = old[:length]
        share = chance.choice([0.0, 0.5, 0.9, 1.0])
        for begin in range(self.agree - self.agree % PAGE_BYTES, length, PAGE_BYTES):
            if chance.random() >= share:
                continue
            end = min(begin + PAGE_BYTES, length, len(new))
            if chance.random() < 0.2:  # torn
                end = min(end, begin + SECTOR_BYTES * chance.randrange(PAGE_BYTES // SECTOR_BYTES))
            if end > begin:
                kept[begin:end] = new[begin:end]
        self.data = kept
        self.durable = bytearray(kept)
        self.agree = len(kept)


class _Rename(NamedTuple):
    source: Path
    target: Path
    file: _File
    former: _File | None  # what had the name before


@dataclass
class Flip:
    """A bit that has arrived as the other one."""

    file: _File
    offset: int
    bit: int
    synced_to: int | None = None  # where the file ended when the bit was synced with its batch

    @property
    def is_followed(self) -> bool:
        """Whether the file has grown durably since."""
        return self.synced_to is not None and len(self.file.durable) > self.synced_to


class Disk:
    """What one machine keeps.  `open` it anew for each life of a process."""

    def __init__(self, chance: Chance) -> None:
        self.files: dict[Path, _File] = {}
        self.gone: dict[Path, _File] = {}  # removed, the directory not synced since
        self.renames: list[_Rename] = []  # in their order, the directory not synced since
        self.free_bytes: int | None = None  # None: plenty
        self.failing_syncs = 0  # so many of the next syncs fail
        self.death_in: int | None = None  # the process dies within so many further writes and syncs
        self.sync_seconds = 0.0  # how long the process waits for each
        self.syncs = 0
        self.is_aside = False  # what a process finds here is not what the machine keeps: damaged, or wiped for a while
        self.rotten: Path | None = None  # a snapshot with a flipped bit, which is flipped back unless it is not needed
        self.flips_next: Path | None = None  # the next write to a file in this directory arrives with a flipped bit
        self.flipped: Flip | None = None  # which that was, until its machine has done without or it is flipped back
        self.rewrites = 0  # how often durable bytes may have become others than they were
        self.named = 0  # how often names may have become others
        self._chance = chance

    def open(self, wait: Callable[[float], None]) -> Handle:
        """For one life of a process; `wait` takes from its time the seconds that each sync lasts."""
        return Handle(self, self._chance, wait)

    def cut_power(self) -> None:
        """What is left after it."""
        self.rewrites += 1
        self.named += 1
        while self.renames and self._chance.random() < 0.5:  # the last ones first: file systems keep their order
            source, target, file, former = self.renames.pop()
            if self.files.get(target) is file:
                self.files[source] = self.files.pop(target)
                if former is not None:
                    self.files[target] = former
        for _, _, file, _ in self.renames:
            file.is_named = True
        self.renames.clear()
        for path, file in list(self.files.items()):
            if not file.is_named and self._chance.random() < 0.5:
                del self.files[path]
        for path, file in self.gone.items():
            if path not in self.files and self._chance.random() < 0.5:
                self.files[path] = file
        self.gone.clear()
        for file in self.files.values():
            file.is_named = True
            file.survive(self._chance)
            self.shortened(file)

    def wipe(self) -> None:
        """Another disk, with nothing on it, takes its place."""
        self.rewrites += 1
        self.named += 1
        self.files = {}
        self.rotten = self.flipped = self.flips_next = None
        self.gone.clear()
        self.renames.clear()
        self.is_aside = False

    def copy(self) -> dict[Path, bytes]:
        """All files, as processes see them; for `set_back`."""
        return {path: bytes(file.data) for path, file in self.files.items()}

    def set_back(self, copy: dict[Path, bytes]) -> None:
        """All is as it was when the copy was made.  No process may be at work on it."""
        self.wipe()
        for path, data in copy.items():
            file = self.files[path] = _File()
            file.data, file.is_named = bytearray(data), True
            file.sync()

    def is_sure_of(self, path: Path) -> bool:
        """Whether a power cut leaves this file under this name, with all of its bytes."""
        file = self.files.get(path)
        if file is None or file.agree < len(file.data) or len(file.durable) != len(file.data):
            return False
        return file.is_named and all(rename.target != path for rename in self.renames)

    def flip(self, path: Path, offset: int, bit: int) -> None:
        """A bit rots, in what is durable too."""
        self.rewrites += 1
        file = self.files[path]
        file.data[offset] ^= 1 << bit
        if offset < len(file.durable):
            file.durable[offset] ^= 1 << bit

    @contextmanager
    def as_meant(self) -> Iterator[None]:
        """Meanwhile what is durable is as it was written, for whoever judges what a process may rely on."""
        flip = self.flipped
        if flip is None or flip.offset >= len(flip.file.durable):
            yield
            return
        flip.file.durable[flip.offset] ^= 1 << flip.bit
        try:
            yield
        finally:
            flip.file.durable[flip.offset] ^= 1 << flip.bit

    def flip_back(self) -> None:
        """What has arrived otherwise than it was written is as it was meant, if it is still there."""
        flip, self.flipped, self.flips_next = self.flipped, None, None
        for path, file in self.files.items():
            if flip is not None and flip.file is file and flip.offset < len(file.data):
                self.flip(path, flip.offset, flip.bit)

    def written(self, file: _File, begin: int) -> None:
        """A process has written; what has arrived of that may be something else."""
        if self.flips_next is None or begin == len(file.data):
            return
        if any(one is file for path, one in self.files.items() if path.parent == self.flips_next):
            self.flips_next = None
            self.flipped = flip = Flip(file, self._chance.randrange(begin, len(file.data)), self._chance.randrange(8))
            file.data[flip.offset] ^= 1 << flip.bit

    def synced(self, file: _File) -> None:
        """A process has synced a file."""
        flip = self.flipped
        if flip is not None and flip.file is file and flip.synced_to is None:
            flip.synced_to = len(file.durable)

    def shortened(self, file: _File) -> None:
        """A file may have lost its end."""
        if self.flipped is not None and self.flipped.file is file and self.flipped.offset >= len(file.data):
            self.flipped = None


class Handle:
    """One process's way to its disk; satisfies Device.  After the process's death it does nothing."""

    def __init__(self, disk: Disk, chance: Chance, wait: Callable[[float], None]) -> None:
        self.is_dead = False
        self._wait = wait
        self._disk = disk
        self._chance = chance
        self._open: dict[int, _File | None] = {}
        self._directories: dict[int, Path] = {}
        self._number = 2

    def make_directory(self, path: Path) -> None:
        """Directories are there."""

    def lock(self, path: Path) -> int:
        return self._opened(None)

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in self._disk.files if path.parent == directory]

    def read(self, path: Path, limit: int = -1) -> bytes:
        file = self._file(path)
        return bytes(file.data if limit < 0 else file.data[:limit])

    def read_range(self, path: Path, offset: int, count: int) -> bytes:
        return bytes(self._file(path).data[offset : offset + count])

    def size(self, path: Path) -> int:
        return len(self._file(path).data)

    def create(self, path: Path) -> int:
        file = _File()
        if not self.is_dead:
            if path in self._disk.files:
                raise FileExistsError(errno.EEXIST, "it is there", str(path))
            self._disk.files[path] = file
        return self._opened(file)

    def append(self, path: Path) -> int:
        return self._opened(self._disk.files[path])

    def write(self, handle: int, data: bytes) -> None:
        file = self._open[handle]
        if self.is_dead or file is None:
            return
        disk = self._disk
        if self._is_last():
            file.data += data[: self._chance.randint(0, len(data))]
            self._die()
        if disk.free_bytes is not None:
            taken = data[: disk.free_bytes]
            disk.free_bytes -= len(taken)
            file.data += taken
            if len(taken) < len(data):
                raise OSError(errno.ENOSPC, "no space left on device")
            return
        begin = len(file.data)
        file.data += data
        disk.written(file, begin)

    def free_bytes(self, directory: Path) -> int:
        return PLENTY_BYTES if self._disk.free_bytes is None else self._disk.free_bytes

    def sync(self, handle: int) -> None:
        file = self._open[handle]
        if self.is_dead or file is None:
            return
        disk = self._disk
        if self._is_last():
            if self._chance.random() < 0.5:
                file.sync()
                disk.synced(file)
            self._die()
        if disk.failing_syncs:
            disk.failing_syncs -= 1
            disk.rewrites += 1
            file.survive(self._chance)  # the kernel drops the pages
            disk.shortened(file)
            raise OSError(errno.EIO, "input/output error")
        disk.syncs += 1
        self._wait(disk.sync_seconds)
        file.sync()
        disk.synced(file)

    def open_directory(self, path: Path) -> int:
        handle = self._opened(None)
        self._directories[handle] = path
        return handle

    def sync_directory(self, directory: Path | int) -> None:
        if self.is_dead:
            return
        path = self._directories[directory] if isinstance(directory, int) else directory
        self._disk.named += 1
        for name, file in self._disk.files.items():
            if name.parent == path:
                file.is_named = True
        for name in [name for name in self._disk.gone if name.parent == path]:
            del self._disk.gone[name]
        self._disk.renames = [rename for rename in self._disk.renames if rename.target.parent != path]

    def truncate(self, handle: int, length: int) -> None:
        file = self._open[handle]
        if self.is_dead or file is None:
            return
        if length < len(file.data):
            self._disk.rewrites += 1
        del file.data[length:]
        file.agree = min(file.agree, length)
        self._disk.shortened(file)

    def replace(self, source: Path, target: Path) -> None:
        file = self._file(source)
        if not self.is_dead:
            files = self._disk.files
            self._disk.renames.append(_Rename(source, target, file, files.get(target)))
            files[target] = files.pop(source)

    def remove(self, path: Path) -> None:
        file = self._file(path)
        if not self.is_dead:
            self._disk.named += 1
            del self._disk.files[path]
            self._disk.gone[path] = file

    def close(self, handle: int) -> None:
        self._open.pop(handle, None)
        self._directories.pop(handle, None)

    def _file(self, path: Path) -> _File:
        file = self._disk.files.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return file

    def _opened(self, file: _File | None) -> int:
        self._number += 1
        self._open[self._number] = file
        return self._number

    def _is_last(self) -> bool:
        disk = self._disk
        if disk.death_in is None:
            return False
        disk.death_in -= 1
        return disk.death_in <= 0

    def _die(self) -> None:
        self._disk.death_in = None
        self.is_dead = True
        raise ProcessDied("in the middle of a write or a sync")
