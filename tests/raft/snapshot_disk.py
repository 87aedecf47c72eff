"""Snapshots on a simulated disk: written, read, and put there as a bad disk would; for tests."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from raftcron.raft.snapshot import RESERVE_BYTES, SnapshotStore, Writing
from raftcron.raft.snapshot_file import SnapshotInfo
from raftcron.testing.chance import chance
from raftcron.testing.sim_disk import Disk, Handle

DIRECTORY = Path("/data/snapshots")
BLOCKS = [b"first block", b"", b"second block" * 9, b"first block"]


def open_disk(disk: Disk) -> Handle:
    return disk.open(lambda _seconds: None)


def new_disk(seed: int = 0) -> Disk:
    return Disk(chance(seed, "disk"))


def open_store(disk: Disk, reserve_bytes: int = RESERVE_BYTES) -> SnapshotStore:
    return SnapshotStore.open(DIRECTORY, open_disk(disk), "n1", reserve_bytes)


def begin(store: SnapshotStore, index: int, blocks: Iterable[bytes] = BLOCKS) -> Writing:
    writing = store.begin(index, 3, "cluster-1", b"members")
    for block in blocks:
        writing.add(block)
    return writing


def write(store: SnapshotStore, index: int, blocks: Iterable[bytes] = BLOCKS) -> SnapshotInfo:
    return begin(store, index, blocks).finish()


def file_of(info: SnapshotInfo) -> Path:
    return DIRECTORY / f"{info.id}.snapshot"


def put(disk: Disk, path: Path, data: bytes) -> None:
    """What the disk has kept, in place of what was written."""
    handle = open_disk(disk)
    if path in disk.files:
        handle.remove(path)
    number = handle.create(path)
    handle.write(number, data)
    handle.sync(number)
    handle.sync_directory(path.parent)


def contents(disk: Disk, info: SnapshotInfo) -> bytes:
    return bytes(disk.files[file_of(info)].data)


def names(disk: Disk) -> list[str]:
    return sorted(path.name for path in disk.files)


def newer(data: bytes) -> bytes:
    """The same file in a format of the future."""
    head = data[:8] + struct.pack("<I", 2)
    return head + struct.pack("<I", crc32(head)) + b"of which this release knows nothing"


class Bad(Handle):
    """A disk with something wrong, as its process sees it."""

    fault: OSError | None = None
    twisted = False

    def read_range(self, path: Path, offset: int, count: int) -> bytes:
        if self.fault is not None:
            raise self.fault
        data = super().read_range(path, offset, count)
        return data[:-1] + bytes([data[-1] ^ 1]) if self.twisted else data


def bad_handle(disk: Disk) -> Bad:
    return Bad(disk, chance(1, "bad"), lambda _seconds: None)
