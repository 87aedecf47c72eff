"""What one node must never forget, as the engine's journal: log, term, vote, name, disk; in checked append-only files.

DIRECTORY holds segments `000000000001.segment`, ... (docs/journal.md; segment.py has the bytes, replay.py reads them)
and a lock file.  `compact` lets the log begin behind a snapshot: entries go from memory, and whole segments from disk.

Nothing that this node says or counts may rest on bytes that are not synced.  `setCurrentTerm`, `begin`,
`next_incarnation`, `set_cluster_id` and `reset` return when all bytes before them and their own are durable, and
`setRaftCommitIndex` when the log is up to that index.  Entries that are only added are not, until `sync`:
`synced_index` tells how far the log is.

A failed write or sync ends the journal, for good: the kernel may have dropped the pages, so that a second sync would
succeed over bytes that are gone.  That no descriptor is left for a new segment is no such failure: nothing of it is
there, and the present one is gone on with meanwhile.
"""

from __future__ import annotations

import errno
import logging
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn, overload
from zlib import crc32

from raftcron import wire
from raftcron.errors import ConfigurationError, DamagedError, FatalError
from raftcron.raft.device import Device
from raftcron.raft.kept import ENTRY, U64, Entry, Kept
from raftcron.raft.replay import Replay, Segment, count_removable, path_of, remedy, seal
from raftcron.raft.segment import (
    HEADER_BYTES,
    LIKELY_BYTES,
    MAX_BODY_BYTES,
    RECORD_BYTES,
    Header,
    Kind,
    encode_checkpoint,
    encode_header,
    encode_record,
)

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 16 << 20  # a segment that is longer is followed by a new one; to remove one takes about 3 ms
MAX_PENDING_BYTES = 32 << 20  # so much waits for a sync at most; beyond it `add` syncs by itself
LONGEST_BYTES = LIKELY_BYTES - MAX_PENDING_BYTES - MAX_BODY_BYTES - 2 * RECORD_BYTES  # then one more batch, and a seal
REMOVALS_AT_ONCE = 4  # segments, and no further one after
REMOVED_BYTES_AT_ONCE = 32 << 20
REMOVALS_A_SEGMENT = 2  # with each that begins, so that they go faster than they come
RELEASED_AT_ONCE = 50_000  # dropped entries whose memory is given back in one go, in some 6 ms

_ENTRY_RECORD = struct.Struct("<IIBQQ")  # length, durable, kind, index, term
_CRC = struct.Struct("<I")
_LOCK_NAME = "lock"
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class Identity(NamedTuple):
    """Who this directory belongs to.  The Raft identity is (name, disk_id)."""

    name: str
    disk_id: str  # drawn at first start
    cluster_id: str | None  # None until the cluster has formed
    incarnation: int  # lives of this node's process so far; 0 before the first


class Journal:
    """The engine's journal.  One process, one thread.  Made by `Journal.open` alone.

    Every method raises FatalError once a write or a sync has failed, and for calls that would break the log (an entry
    that does not follow the last one, a lower term, a second vote, a cut at or below the commit index).
    """

    def __init__(self, directory: Path, device: Device, lock: int, segment_bytes: int) -> None:
        self._directory = directory
        self._device = device
        self._lock: int | None = lock
        self._names: int | None = None  # the open directory, so that its sync needs no further descriptor
        self._segment_bytes = segment_bytes

        self._kept = Kept()
        self._commit_index = 1
        self._synced_index = 0

        self._segments: list[Segment] = []  # the last of them is written
        self._handle: int | None = None
        self._salt = 0
        self._durable = 0  # bytes of the segment that are synced: all but `_pending`
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._failure: str | None = None
        self._is_delayed = False  # the next segment, for want of a descriptor

    # ---- opening -------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, directory: Path, device: Device, segment_bytes: int = SEGMENT_BYTES) -> Journal:
        """Take the directory for this process and read all that is in it.

        `directory` holds the journal and nothing else; it is made if need be.

        Raises ConfigurationError: another process has it, or it cannot be used.  DamagedError: bytes that were synced
        are not what was written.  NewerVersionError: a newer release wrote it.  FatalError: it cannot be read.
        """
        try:
            device.make_directory(directory)
            lock = device.lock(directory / _LOCK_NAME)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"another process is using the journal in {directory}; `fuser {directory / _LOCK_NAME}` names it: "
                f"stop it, or give this node a data directory of its own"
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"cannot use {directory} for the journal: {error}; give this user the directory, or name another"
            ) from error
        journal = cls(directory, device, lock, segment_bytes)
        try:
            journal._replay()
        except OSError as error:
            journal._release()
            raise FatalError(f"cannot read the journal in {directory}: {error}") from error
        except BaseException:
            journal._release()
            raise
        return journal

    def _replay(self) -> None:
        self._names = self._device.open_directory(self._directory)
        self._kept, self._segments, self._handle, self._salt = Replay(self._directory, self._device).run()
        if self._segments:
            self._durable = self._segments[-1].length
        if self._kept.log:
            self._commit_index = self._kept.first_index
            self._synced_index = self._kept.last_index

    # ---- who this is ---------------------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """Raises FatalError before `begin` of the first start."""
        kept = self._kept
        if kept.name is None:
            raise FatalError(f"the journal in {self._directory} has no name yet: begin it first")
        return Identity(kept.name, kept.disk_id, kept.cluster_id, kept.incarnation)

    @property
    def is_empty(self) -> bool:
        """Nothing but name, disk and incarnations was ever written.

        The entry of index 1 and term 0, which the engine puts into every new log, does not count.
        """
        kept = self._kept
        is_new_log = not kept.log or (len(kept.log) == 1 and kept.log[0][1:] == (1, 0))
        return is_new_log and kept.term == 0 and kept.voted_for is None and kept.cluster_id is None

    def begin(self, name: str, disk_id: str) -> Identity:
        """At each start: at the first one write name and disk id; later check the name and keep the disk id held.

        Raises ConfigurationError if the directory belongs to another name.
        """
        kept = self._kept
        if kept.name is None:
            kept.name, kept.disk_id = name, disk_id
            self._record(Kind.IDENTITY, wire.pack([name, disk_id]))
            self.sync()
        elif name != kept.name:
            raise ConfigurationError(
                f"the journal in {self._directory} belongs to node {kept.name!r}, and this node is named {name!r}: "
                f"start it as {kept.name!r}, or give {name!r} a data directory of its own"
            )
        return self.identity

    def next_incarnation(self) -> int:
        """Count one more life of this node's process; durable when it returns."""
        self._kept.incarnation += 1
        self._record(Kind.INCARNATION, U64.pack(self._kept.incarnation))
        self.sync()
        return self._kept.incarnation

    def set_cluster_id(self, cluster_id: str) -> None:
        """Remember, durably, the cluster this node belongs to.  FatalError if it belongs to another one."""
        kept = self._kept
        if cluster_id == kept.cluster_id:
            return
        if kept.cluster_id is not None or not cluster_id:
            raise FatalError(
                f"the journal in {self._directory} belongs to cluster {kept.cluster_id}; it cannot become one of "
                f"cluster {cluster_id!r}: give this node a data directory of its own"
            )
        kept.cluster_id = cluster_id
        self._record(Kind.CLUSTER, cluster_id.encode())
        self.sync()

    # ---- what the engine asks of a journal -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._kept.log)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._kept.log)

    @overload
    def __getitem__(self, position: int) -> Entry: ...

    @overload
    def __getitem__(self, position: slice) -> list[Entry]: ...

    def __getitem__(self, position: int | slice) -> Entry | list[Entry]:
        return self._kept.log[position]

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry; durable after the next `sync`."""
        if self._handle is None:
            self._begin_or_refuse()
        kept = self._kept
        log = kept.log
        if not log or idx != log[-1][1] + 1 or term < log[-1][2]:
            self._refuse(kept.misfit(idx, term))
        length = ENTRY.size + len(command)
        if length > MAX_BODY_BYTES:
            self._refuse(f"a command of {len(command)} bytes is over the limit of {MAX_BODY_BYTES - ENTRY.size}")
        rest = _ENTRY_RECORD.pack(length, self._durable, Kind.ENTRY, idx, term)
        self._pending.append(_CRC.pack(crc32(command, crc32(rest, self._salt))) + rest)
        self._pending.append(command)
        self._pending_bytes += RECORD_BYTES + length
        kept.append((command, idx, term))
        if self._pending_bytes > MAX_PENDING_BYTES:
            self.sync()

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802 (the engine's name)
        """Cut the log from `position` (counted from 0) on; durable after the next `sync`."""
        kept = self._kept
        if position >= len(kept.log):
            return
        index = kept.log[position][1]
        if position < 1 or index <= self._commit_index:
            self._refuse(f"the log cannot be cut from entry {index} on: it is committed up to {self._commit_index}")
        self._record(Kind.CUT, U64.pack(index))
        segment = self._segments[-1]
        segment.lowest_cut = min(segment.lowest_cut, index)
        kept.cut(position)
        self._synced_index = min(self._synced_index, index - 1)

    def deleteEntriesTo(self, position: int) -> None:  # noqa: N802
        """The engine's own way to compact; see `compact`."""
        self._refuse("the engine drops no entries by itself; this is a defect of raft/seam.py")

    def clear(self) -> None:
        """The engine's own way to install a snapshot; see `reset`."""
        self._refuse("the engine clears no log by itself; this is a defect of raft/seam.py")

    def getCurrentTerm(self) -> int:  # noqa: N802
        return self._kept.term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        return self._kept.voted_for

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:  # noqa: N802
        """Term and vote are durable when it returns, and so is all before them; a later record vouches for a vote.

        So a vote that is damaged cannot pass for a torn tail, be cut off, and be given again to somebody else.
        """
        kept = self._kept
        is_new = (term, voted_for) != (kept.term, kept.voted_for)
        if is_new:
            self._refuse(kept.misvote(term, voted_for))
            self._record(Kind.VOTE, U64.pack(term) + (voted_for or "").encode())
            kept.term, kept.voted_for = term, voted_for
        self.sync()
        if is_new and voted_for is not None:
            self._record(Kind.MARK, b"")
            self.sync()

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        """Not kept on disk: after opening it is the index of the first entry, and `align` may raise it."""
        return self._commit_index

    def setRaftCommitIndex(self, index: int) -> None:  # noqa: N802
        """Whatever counts as committed here is durable here first; what follows it may wait for the next sync."""
        if index > self._synced_index:
            self.sync()
        self._commit_index = index

    def onOneSecondTimer(self) -> None:  # noqa: N802
        """What compaction has left to do, a slice a second."""
        self._kept.release(RELEASED_AT_ONCE)
        if self._failure is None:
            self._remove_dead(1)

    def flush(self) -> None:
        self.sync()

    def _destroy(self) -> None:
        """Sync and give back the directory; may be called again."""
        try:
            if self._handle is not None:
                self._record(Kind.MARK, b"")  # so that damage to the bytes before it cannot pass for a torn tail
                self.sync()
        finally:
            self._failure = self._failure or "it is closed"
            self._release()

    # ---- compaction ------------------------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Of the entry that the log begins with; 0 while there is none."""
        return self._kept.first_index

    @property
    def last_index(self) -> int:
        """Of the entry that the log ends with; 0 while there is none."""
        return self._kept.last_index

    @property
    def needs_snapshot(self) -> bool:
        """Whether the log begins behind entries that only a snapshot can have."""
        return self._kept.base > 0

    @property
    def log_bytes(self) -> int:
        """Of the commands of all entries in memory."""
        return self._kept.command_bytes

    def bytes_between(self, first: int, last: int) -> int:
        """Of the commands of the entries behind `first` up to and with `last`, both in the log."""
        return self._kept.bytes_between(first, last)

    @property
    def disk_bytes(self) -> int:
        """Of all segments, synced."""
        return sum(segment.length for segment in self._segments[:-1]) + self._durable

    def compact(self, through: int) -> None:
        """All entries up to and with `through` are committed, and a durable snapshot holds them: forget them.

        The log begins with entry `through` then; its term still counts, its command does not.  Segments that hold
        nothing else go from the disk, the oldest first, a few now and the others with the timer.  An entry that is in
        the same segment as later ones comes back with them when the journal is opened.

        Raises FatalError if `through` is not in the log or not committed.
        """
        self._refuse(self._failure)
        kept = self._kept
        if not kept.log or not kept.first_index <= through <= kept.last_index:
            self._refuse(f"it cannot begin with entry {through}: it holds {kept.first_index} to {kept.last_index}")
        if through > self._commit_index:
            self._refuse(f"it cannot begin with entry {through}: it is committed up to {self._commit_index}")
        if through > self._synced_index:  # the very first entry counts as committed before it is synced
            self.sync()
        kept.drop(through - kept.first_index)
        self._remove_dead(REMOVALS_AT_ONCE)

    def reset(self, index: int, term: int) -> None:
        """A durable snapshot ends with this entry, which the log does not hold: it alone is the log from now on.

        All else that is kept (term, vote, ...) stays.  It is durable, and committed, when this returns.

        Raises FatalError if the log holds the entry (its tail may have been acknowledged: `compact`), or has
        committed another one there.
        """
        self._refuse(self._failure)
        kept = self._kept
        if index < 1 or kept.holds(index, term):
            self._refuse(f"it cannot restart with entry {index} of term {term}, which it holds or which cannot be")
        if kept.log and index <= self._commit_index:
            self._refuse(f"it cannot restart with entry {index} of term {term}: {self._commit_index} is committed here")
        if self._handle is None:
            self._begin_or_refuse()
        self._pending.clear()  # entries and cuts; of all else nothing is ever pending
        self._pending_bytes = 0
        kept.restart(index, term)
        self._begin_segment(Kind.BASE)
        self._commit_index = self._synced_index = index
        self._remove_dead(REMOVALS_AT_ONCE)

    def align(self, index: int, term: int) -> None:
        """After opening: the newest snapshot ends with this entry; (0, 0) if there is none.

        If the log holds the entry, all of it stays, and is committed up to there.  If it ends before, or holds an entry
        of another term there, which a crash between snapshot and `reset` may leave, it is `reset`.

        Raises DamagedError if the two do not join: entries between them are gone, or the log is empty.
        """
        kept = self._kept
        if index == 0:
            if self.needs_snapshot:
                self._do_not_join(f"begins with entry {kept.first_index}, and there is no snapshot")
        elif kept.holds(index, term):
            self.setRaftCommitIndex(max(index, self._commit_index))
        elif self.is_empty:
            self._do_not_join(f"holds nothing, the newest snapshot ends with entry {index}")
        elif kept.first_index >= index:
            self._do_not_join(
                f"begins with entry {kept.first_index}, the newest snapshot ends with entry {index} of term {term}"
            )
        else:
            self.reset(index, term)

    def _do_not_join(self, how: str) -> NoReturn:
        directory = self._directory
        raise DamagedError(
            f"{directory}: the journal {how}: they do not join, so files are missing. "
            f"{remedy(directory, self._kept.name)}"
        )

    def _remove_dead(self, limit: int) -> None:
        """Remove the oldest segments if they hold nothing that counts, each durably before the next: no gap may be."""
        dead = self._segments[: min(limit, count_removable(self._segments, self._kept.base))]
        removed_bytes = 0
        for segment in dead:
            try:
                self._device.remove(path_of(self._directory, segment.number))
                self._sync_directory()
            except OSError as error:
                self._fail(error)
            del self._segments[0]
            removed_bytes += segment.length
            if removed_bytes > REMOVED_BYTES_AT_ONCE:
                break

    # ---- writing ---------------------------------------------------------------------------------------------------

    @property
    def synced_index(self) -> int:
        """The highest index up to which the log, as it is now, is durable; 0 if none of it is."""
        return self._synced_index

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait for `sync`."""
        return self._pending_bytes

    def sync(self) -> None:
        """Make everything durable that was recorded so far: one write, one sync; nothing if nothing is pending."""
        if self._failure is not None:
            self._refuse(self._failure)
        if not self._pending or self._handle is None:
            return
        data = b"".join(self._pending)
        try:
            self._device.write(self._handle, data)
            self._device.sync(self._handle)
        except OSError as error:
            self._fail(error)
        self._durable += len(data)
        self._pending.clear()
        self._pending_bytes = 0
        self._synced_index = self._kept.last_index
        if self._durable >= self._segment_bytes and self._begin_segment(longest=LONGEST_BYTES):
            self._remove_dead(REMOVALS_A_SEGMENT)

    def _record(self, kind: Kind, body: bytes) -> None:
        if self._handle is None:
            self._begin_or_refuse()
        record = encode_record(kind, body, self._durable, self._salt)
        self._pending.append(record)
        self._pending_bytes += len(record)

    def _begin_or_refuse(self) -> None:
        if self._failure is not None:
            self._refuse(self._failure)
        self._begin_segment()

    def _begin_segment(self, kind: Kind = Kind.CHECKPOINT, longest: int = 0) -> bool:
        """Go on in a new segment.  It exists, durably, before anything is written to it; then the former is sealed.

        False, and nothing has changed: there is no descriptor for it, and the present one is shorter than `longest`.
        """
        kept, segments, former = self._kept, self._segments, self._handle
        number = segments[-1].number + 1 if segments else 1
        header = Header(number, self._durable, crc32(f"{kept.disk_id}/{number}".encode()))
        beginning = encode_header(header)
        if header.has_checkpoint:
            beginning += encode_record(kind, encode_checkpoint(kept.checkpoint()), HEADER_BYTES, header.salt)
        try:
            self._handle = self._device.create(path_of(self._directory, number))
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR or self._durable >= longest:
                self._fail(error)
            if not self._is_delayed:
                logger.warning("journal_segment_delayed number=%d next=tried_at_each_sync error=%s", number, error)
            self._is_delayed = True
            return False
        self._is_delayed = False
        try:
            self._device.write(self._handle, beginning)
            self._device.sync(self._handle)
            self._sync_directory()
            if former is not None:
                seal(self._device, former, self._durable, self._salt)
                segments[-1].length = self._durable + RECORD_BYTES
        except OSError as error:
            self._fail(error)
        segments.append(Segment(number, kept.last_index if header.has_checkpoint else None))
        self._salt, self._durable = header.salt, len(beginning)
        return True

    def _sync_directory(self) -> None:
        assert self._names is not None
        self._device.sync_directory(self._names)

    def _refuse(self, fault: str | None) -> None:
        if fault is not None:
            raise FatalError(f"the journal in {self._directory} takes nothing more: {fault}")

    def _fail(self, error: OSError) -> NoReturn:
        self._failure = f"a write or sync failed ({error})"
        self._pending.clear()
        self._pending_bytes = 0
        self._close_segment()
        raise FatalError(
            f"cannot write the journal in {self._directory}: {error}. The process has to end, since what the disk "
            f"holds is not known now; look at the disk (space, errors), then start it again"
        ) from error

    def _close_segment(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with suppress(OSError):  # nothing rests on the close
                self._device.close(handle)

    def _release(self) -> None:
        self._close_segment()
        if self._names is not None:
            names, self._names = self._names, None
            self._device.close(names)
        if self._lock is not None:
            lock, self._lock = self._lock, None
            self._device.close(lock)
