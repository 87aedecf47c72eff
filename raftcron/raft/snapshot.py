"""A node's snapshots on disk: which count, which are kept, and how one becomes good; its bytes are snapshot_file.py's.

scribe.py writes them, pulls.py fetches them from other nodes.  DIRECTORY holds

    <id>.snapshot           whole: it was synced and read back before it got this name
    <index>-<term>.writing  not finished; removed at start
    <id>.partial            fetched so far; at most one
    <id>.damaged            was a snapshot once; at most one, for whoever wants to know what happened

and belongs to the process that holds the journal's lock.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from raftcron import __version__
from raftcron.errors import ConfigurationError, DamagedError, FatalError, NewerVersionError
from raftcron.raft.device import Device
from raftcron.raft.snapshot_file import Encoder, Fault, Header, Reading, SnapshotInfo, check_preamble, order_of

__all__ = ["Incoming", "SnapshotInfo", "SnapshotStore", "Writing"]

logger = logging.getLogger(__name__)

KEPT = 2  # so many of the newest stay: the former one may be on its way to another node
RESERVE_BYTES = 128 << 20  # that stay free on the disk: the journal's, which ends the node without them
SYNC_BYTES = 4 << 20  # not more waits for one sync, or the journal's own sync would wait behind it
SLICE_BYTES = 1 << 20  # read back at a time


class _Unfinished:
    """A file that is no snapshot yet.  After an error it is gone, and nothing else has changed."""

    def __init__(self, store: SnapshotStore, path: Path, handle: int, offset: int) -> None:
        self.offset = offset  # bytes that it has
        self._store = store
        self._device = store.device
        self._path = path
        self._handle: int | None = handle
        self._unsynced = offset
        self._info: SnapshotInfo | None = None  # once it is whole, and read back

    def check(self) -> Iterator[None]:
        """Complete it, sync it, and read all of it back, a slice of some SLICE_BYTES each step."""
        try:
            self._complete()
            if self._handle is not None:
                self._device.sync(self._handle)
                self._close()
            reading = Reading(self._device, self._path)
            done = reading.offset
            for _ in reading.blocks():
                if reading.offset - done >= SLICE_BYTES:
                    done = reading.offset
                    yield
            self._judge(reading.info)
            self._info = reading.info
        except Fault as fault:
            self.abandon()
            self._refuse(fault)
        except (OSError, FatalError):
            self.abandon()
            raise

    def finish(self) -> SnapshotInfo:
        """Let it count: whatever of `check` has not been done, then its name, durably; then older ones go.

        OSError if the disk does not take it.
        """
        if self._info is None:
            for _ in self.check():
                pass
        assert self._info is not None
        try:
            self._store._name(self._path, self._info)
        except OSError:
            self.abandon()
            raise
        return self._info

    def leave(self) -> None:
        """Let go of it as it is."""
        self._close()

    def abandon(self) -> None:
        """Remove it; nothing happens if it is finished or gone."""
        self._close()
        with suppress(OSError):
            self._device.remove(self._path)

    def _write(self, data: bytes) -> None:
        assert self._handle is not None
        try:
            self._device.write(self._handle, data)
            self.offset += len(data)
            self._unsynced += len(data)
            if self._unsynced >= SYNC_BYTES:
                self._device.sync(self._handle)
                self._unsynced = 0
                self._store._expect_room(0)
        except OSError:
            self.abandon()
            raise

    def _close(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with suppress(OSError):  # nothing rests on the close
                self._device.close(handle)

    def _complete(self) -> None:
        """Write what is missing at the end, or say that it cannot be done yet."""

    def _judge(self, info: SnapshotInfo) -> None:
        """Raise Fault if the whole file is not the one that it should be."""

    def _refuse(self, fault: Fault) -> NoReturn:
        raise NotImplementedError


class Writing(_Unfinished):
    """A snapshot that this node makes.  Every method may raise OSError: the disk does not take it."""

    def __init__(self, store: SnapshotStore, path: Path, header: Header) -> None:
        super().__init__(store, path, store.device.create(path), 0)
        self._encoder = Encoder()
        self._is_complete = False
        self._write(self._encoder.begin(header))

    def add(self, block: bytes) -> None:
        """The next block.  ValueError if it is over MAX_BLOCK_BYTES; best are some 64 KiB to 1 MiB."""
        self._write(self._encoder.block(block))

    def _complete(self) -> None:
        if not self._is_complete:
            self._is_complete = True
            self._write(self._encoder.end())

    def _judge(self, info: SnapshotInfo) -> None:
        if not info.id.endswith(self._encoder.digest):
            raise Fault(0, "it is whole, but another file")

    def _refuse(self, fault: Fault) -> NoReturn:
        what = f"the bytes at offset {fault.offset} read back otherwise than they were written: {fault.what}"
        raise OSError(errno.EIO, what, str(self._path))


class Incoming(_Unfinished):
    """A snapshot that another node sends, from `offset` on.  It counts only when the whole file is what was offered."""

    def __init__(self, store: SnapshotStore, path: Path, handle: int, offset: int, info: SnapshotInfo) -> None:
        super().__init__(store, path, handle, offset)
        self._offered = info

    def begin(self) -> None:
        """What is here is what counts, and a power cut does not lose it by losing the name."""
        assert self._handle is not None
        try:
            self._device.truncate(self._handle, self.offset)
            self._device.sync_directory(self._path.parent)
        except OSError:
            self.abandon()
            raise

    def write(self, offset: int, data: bytes) -> None:
        """What follows the bytes that are here.

        Raises OSError; DamagedError or NewerVersionError if already its beginning shows that it is of no use.
        """
        if offset != self.offset or offset + len(data) > self._offered.size:
            raise ValueError(f"{len(data)} bytes at {offset} do not follow the {self.offset} that are here")
        if offset == 0:
            try:
                check_preamble(self._path, data)
            except Fault as fault:
                self.abandon()
                self._refuse(fault)
            except NewerVersionError:
                self.abandon()
                raise
        self._write(data)

    def _complete(self) -> None:
        if self.offset < self._offered.size:
            raise ValueError(f"{self._offered.size - self.offset} bytes have not come yet")

    def _judge(self, info: SnapshotInfo) -> None:
        if info.id != self._offered.id:
            raise Fault(0, f"it is whole, but it is {info.id}")

    def _refuse(self, fault: Fault) -> NoReturn:
        raise DamagedError(
            f"{self._path}: what came is not the snapshot that was offered; the bytes at offset {fault.offset} are "
            f"wrong: {fault.what}. It has been dropped; this node asks for it again by itself"
        )


class SnapshotStore:
    """The snapshots of one node.  Made by `SnapshotStore.open` alone; one process, one thread, and its forked child."""

    def __init__(self, directory: Path, device: Device, node: str, reserve_bytes: int) -> None:
        self.directory = directory
        self.device = device
        self.newest: SnapshotInfo | None = None
        self.damage: str | None = None  # of the snapshot that was set aside, now or earlier; why `newest` may be old
        self._node = node
        self._reserve_bytes = reserve_bytes
        self._held: set[str] = set()  # ids of all that count
        self._partial: tuple[str, int] | None = None  # id, and how many of its bytes are whole

    # ---- opening -------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, directory: Path, device: Device, node: str, reserve_bytes: int = RESERVE_BYTES) -> SnapshotStore:
        """Take in what is there, and check the newest snapshot from end to end.

        A damaged one is set aside: `newest` is then the newest good one, or None, `damage` says what was found, and
        the journal must say whether it reaches back that far.  `node` is for messages; so many `reserve_bytes` no
        snapshot takes, written or fetched.

        Raises ConfigurationError: the directory cannot be used.  NewerVersionError: a newer release wrote the newest
        snapshot.  FatalError: it cannot be read.
        """
        try:
            device.make_directory(directory)
        except OSError as error:
            raise ConfigurationError(
                f"cannot use {directory} for snapshots: {error}; give this user the directory, or name another"
            ) from error
        store = cls(directory, device, node, reserve_bytes)
        try:
            store._take_in()
        except OSError as error:
            raise FatalError(f"cannot read the snapshots in {directory}: {error}") from error
        return store

    def _take_in(self) -> None:
        self.sweep()
        for snapshot_id in self._named(".damaged"):
            self.damage = f"{self._path(snapshot_id, '.damaged')} was a snapshot. {self._advice}"
        for snapshot_id in self._named(".snapshot"):
            try:
                self.newest = self._verified(snapshot_id)
                break
            except Fault as fault:
                self._set_aside(snapshot_id, fault)
        self._prune()
        for snapshot_id in self._named(".partial"):
            if self._partial is None and (whole := self._whole_bytes(snapshot_id)):
                self._partial = (snapshot_id, whole)
            else:
                self._remove(self._path(snapshot_id, ".partial"))

    def _verified(self, snapshot_id: str) -> SnapshotInfo:
        reading = Reading(self.device, self._path(snapshot_id))
        for _ in reading.blocks():
            pass
        if reading.info.id != snapshot_id:
            raise Fault(0, f"it is snapshot {reading.info.id} under another name")
        return reading.info

    def _set_aside(self, snapshot_id: str, fault: Fault) -> None:
        for former in self._named(".damaged"):
            self._remove(self._path(former, ".damaged"))
        self.damage = str(self._damaged(snapshot_id, fault))
        self.device.replace(self._path(snapshot_id), self._path(snapshot_id, ".damaged"))
        self.device.sync_directory(self.directory)
        logger.warning("snapshot_damaged id=%s offset=%d fault=%s", snapshot_id, fault.offset, fault.what)

    def _whole_bytes(self, snapshot_id: str) -> int:
        """How much of what was fetched of it can be kept, up to the last whole frame; 0: nothing."""
        try:
            reading = Reading(self.device, self._path(snapshot_id, ".partial"))
        except (Fault, NewerVersionError):
            return 0
        with suppress(Fault):
            for _ in reading.blocks():
                pass
        index, term, *_ = reading.header
        return reading.offset if snapshot_id.startswith(f"{index}-{term}-") else 0

    # ---- reading -------------------------------------------------------------------------------------------------

    def blocks(self, info: SnapshotInfo) -> Generator[bytes, None, None]:
        """The state machine's blocks, each checked before it is given.  Nothing made of them may be used before the
        last one has come and this has ended.

        Raises DamagedError with file, offset and what to do; OSError if the disk does not answer.
        """
        try:
            reading = Reading(self.device, self._path(info.id))
            if reading.header[:4] != (info.index, info.term, info.cluster_id, info.configuration):
                raise Fault(0, "it is another snapshot under this name")
            yield from reading.blocks()
            if reading.info != info:
                raise Fault(0, f"it is snapshot {reading.info.id} under another name")
        except Fault as fault:
            raise self._damaged(info.id, fault) from None

    def look_again(self, snapshot_id: str) -> Iterator[None]:
        """Read one that is held from end to end, a slice each step; if it is damaged it is set aside.

        Then there is no newest one until another is written: older ones are there for a start alone.
        """
        try:
            reading = Reading(self.device, self._path(snapshot_id))
            for _ in reading.blocks():
                yield
            if reading.info.id != snapshot_id:
                raise Fault(0, f"it is snapshot {reading.info.id} under another name")
        except Fault as fault:
            if snapshot_id in self._held:  # it may have gone meanwhile, for newer ones
                self._held.discard(snapshot_id)
                if self.newest is not None and self.newest.id == snapshot_id:
                    self.newest = None
                self._set_aside(snapshot_id, fault)

    def holds(self, snapshot_id: str) -> bool:
        """Whether it can be read and given to others."""
        return snapshot_id in self._held

    def piece(self, snapshot_id: str, offset: int, count: int) -> bytes | None:
        """At most `count` raw bytes from `offset` on; None if the snapshot is not held, or has no bytes there."""
        if snapshot_id not in self._held:
            return None
        try:
            return self.device.read_range(self._path(snapshot_id), offset, count) or None
        except OSError as error:
            logger.warning("snapshot_unreadable id=%s offset=%d error=%s", snapshot_id, offset, error)
            return None

    # ---- writing -------------------------------------------------------------------------------------------------

    def begin(self, index: int, term: int, cluster_id: str, configuration: bytes) -> Writing:
        """A new snapshot of the state as of `index`; one at a time.  Raises OSError."""
        self.sweep()
        self._expect_room(0)
        path = self._path(f"{index}-{term}", ".writing")
        return Writing(self, path, Header(index, term, cluster_id, configuration, __version__))

    def adopt(self, snapshot_id: str) -> SnapshotInfo:
        """Take over what a forked child has finished, and so has checked.  OSError if it is not there."""
        path = self._path(snapshot_id)
        try:
            reading = Reading(self.device, path)
        except Fault as fault:
            raise OSError(errno.EIO, f"the bytes at offset {fault.offset}: {fault.what}", str(path)) from None
        index, term, cluster_id, configuration, _ = reading.header
        info = SnapshotInfo(snapshot_id, index, term, reading.size, configuration, cluster_id)
        self._counts(info)
        self._held = set(self._named(".snapshot"))
        return info

    def sweep(self) -> None:
        """Remove what a writer has left that was ended in the middle.  Not while one writes."""
        for name in self.device.names(self.directory):
            if name.endswith(".writing"):
                self._remove(self.directory / name)

    def receive(self, info: SnapshotInfo) -> Incoming:
        """Take a snapshot from another node, on from where it was left if it is the same one; one at a time.

        Raises OSError.
        """
        kept, self._partial = self._partial, None
        path, device = self._path(info.id, ".partial"), self.device
        offset = kept[1] if kept is not None and kept[0] == info.id and kept[1] <= info.size else 0
        if not offset:
            for former in self._named(".partial"):
                self._remove(self._path(former, ".partial"))
        self._expect_room(info.size - offset)
        incoming = Incoming(self, path, device.append(path) if offset else device.create(path), offset, info)
        incoming.begin()
        return incoming

    def _expect_room(self, size: int) -> None:
        """OSError if so many bytes more would take what the journal needs."""
        if self.device.free_bytes(self.directory) - size < self._reserve_bytes:
            what = f"{size} bytes more would leave less than {self._reserve_bytes} bytes for the journal"
            raise OSError(errno.ENOSPC, what, str(self.directory))

    # ---- files ---------------------------------------------------------------------------------------------------

    def _name(self, path: Path, info: SnapshotInfo) -> None:
        """A whole and synced file becomes a snapshot; only then may older ones go."""
        self.device.replace(path, self._path(info.id))
        self.device.sync_directory(self.directory)
        self._counts(info)
        try:
            self._prune()
        except OSError as error:  # it is tried again after the next one
            logger.warning("snapshot_not_removed error=%s", error)

    def _counts(self, info: SnapshotInfo) -> None:
        self._held.add(info.id)
        if self.newest is None or info.index >= self.newest.index:
            self.newest = info

    def _prune(self) -> None:
        ids = self._named(".snapshot")
        self._held = set(ids[:KEPT])
        for snapshot_id in ids[KEPT:]:
            self._remove(self._path(snapshot_id))

    def _named(self, ending: str) -> list[str]:
        """Ids of the files of one kind, the newest first."""
        found = [name.removesuffix(ending) for name in self.device.names(self.directory) if name.endswith(ending)]
        orders = sorted((order for snapshot_id in found if (order := order_of(snapshot_id)) is not None), reverse=True)
        return [f"{index}-{term}-{digest}" for index, term, digest in orders]

    def _path(self, snapshot_id: str, ending: str = ".snapshot") -> Path:
        return self.directory / f"{snapshot_id}{ending}"

    def _remove(self, path: Path) -> None:
        with suppress(FileNotFoundError):  # a child may have been faster
            self.device.remove(path)

    def _damaged(self, snapshot_id: str, fault: Fault) -> DamagedError:
        return DamagedError(
            f"{self._path(snapshot_id)}: the bytes at offset {fault.offset} are not what was written and read back: "
            f"{fault.what}. {self._advice}"
        )

    @property
    def _advice(self) -> str:
        return (
            f"Keep this directory as it is and replace this node from a healthy one: "
            f"raftcron cluster replace {self._node} --data-dir {self.directory.parent}"
        )
