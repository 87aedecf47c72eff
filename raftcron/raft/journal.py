"""What one node must never forget, as the engine's journal: log, term, vote, name, disk; in checked append-only files.

DIRECTORY holds segments `000000000001.segment`, ... (format: segment.py) and a lock file.  Opening replays all of it.

Nothing that this node says or counts may rest on bytes that are not synced.  `setCurrentTerm`, `begin`,
`next_incarnation` and `set_cluster_id` return when all bytes before them and their own are durable, and
`setRaftCommitIndex` when the log is up to that index.  Entries that are only added are not, until `sync`:
`synced_index` tells how far the log is.

A failed write or sync ends the journal, for good: the kernel may have dropped the pages, so that a second sync would
succeed over bytes that are gone.
"""

from __future__ import annotations

import logging
import re
import struct
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn, overload
from zlib import crc32

from raftcron import wire
from raftcron.errors import ConfigurationError, DamagedError, FatalError, NewerVersionError
from raftcron.raft.device import Device
from raftcron.raft.segment import (
    FORMAT_VERSION,
    HEADER_BYTES,
    MAX_BODY_BYTES,
    RECORD_BYTES,
    Header,
    Kind,
    UnknownVersion,
    decode_header,
    encode_header,
    encode_record,
    proof_of_durability,
    records,
)

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 64 << 20  # a segment that is longer is followed by a new one
MAX_PENDING_BYTES = 32 << 20  # so much waits for a sync at most; beyond it `add` syncs by itself

Entry = tuple[bytes, int, int]  # command, index, term: the engine's order

_ENTRY_RECORD = struct.Struct("<IIBQQ")  # length, durable, kind, index, term
_ENTRY = struct.Struct("<QQ")
_CRC = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_SEGMENT_NAME = re.compile(r"(\d{12})\.segment")
_LOCK_NAME = "lock"
_SEAL_BYTES = RECORD_BYTES


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
        self._segment_bytes = segment_bytes

        self._log: list[Entry] = []
        self._term = 0
        self._voted_for: str | None = None
        self._name: str | None = None
        self._disk_id = ""
        self._cluster_id: str | None = None
        self._incarnation = 0
        self._commit_index = 1
        self._synced_index = 0

        self._number = 0  # of the segment that is written; 0 before the first byte
        self._handle: int | None = None
        self._is_sealed = False
        self._salt = 0
        self._durable = 0  # bytes of the segment that are synced: all but `_pending`
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._failure: str | None = None

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
        names = self._device.names(self._directory)
        count = max((int(match[1]) for name in names if (match := _SEGMENT_NAME.fullmatch(name))), default=0)
        headers = [self._read_header(number, number == count) for number in range(1, count + 1)]
        born = [header for header in headers if header is not None]
        if born:
            is_last_but_one_sealed = True
            for header, following in pairwise(born):
                is_last_but_one_sealed = self._replay_closed(header, following.previous_length)
            self._replay_last(born[-1])
            if not is_last_but_one_sealed:  # a crash right after a new segment was made
                self._seal(born[-2].number, born[-1].previous_length, born[-2].salt)
        if len(born) < count:  # a crash while a segment was made; nothing was in it yet
            path = self._path(count)
            logger.warning("journal_tail_cut file=%s offset=0 bytes=%d", path, len(self._device.read(path)))
            self._device.remove(path)
        if count:
            self._device.sync_directory(self._directory)
        if self._log:
            self._commit_index = self._log[0][1]
            self._synced_index = self._log[-1][1]

    def _read_header(self, number: int, is_last: bool) -> Header | None:
        """None for a last segment that was not finished making: its header is synced before a record is written."""
        path = self._path(number)
        try:
            data = self._device.read(path, HEADER_BYTES + 1)
        except FileNotFoundError:
            self._damaged(path, 0, "the file is missing")
        try:
            header = decode_header(data)
        except UnknownVersion as error:
            raise NewerVersionError(
                f"{path} is of journal format version {error.version}; this release knows version {FORMAT_VERSION} "
                f"only: start the release that wrote it, or a later one"
            ) from None
        if header is None and not (is_last and len(data) <= HEADER_BYTES):
            self._damaged(path, 0, "the header is not what was written")
        if header is not None and header.number != number:
            self._damaged(path, 0, f"it is segment {header.number} under another name")
        return header

    def _replay_closed(self, header: Header, length: int) -> bool:
        """A segment that another follows: its first `length` bytes were synced, every one.  True if it is sealed."""
        path = self._path(header.number)
        data = memoryview(self._device.read(path))
        if len(data) < length:
            self._damaged(path, len(data), f"{length - len(data)} bytes are missing at its end")
        stop = self._replay_records(path, data, length, header.salt)
        if stop < length:
            self._damaged(path, stop, "they do not match their checksum")
        if len(data) - length > _SEAL_BYTES:
            self._damaged(path, length, "bytes follow the end of the segment")
        return len(data) - length == _SEAL_BYTES

    def _replay_last(self, header: Header) -> None:
        """The segment that is written: it may end in a torn write, and goes on behind what is whole."""
        path = self._path(header.number)
        data = memoryview(self._device.read(path))
        stop = self._replay_records(path, data, len(data), header.salt)
        if self._is_sealed:
            self._damaged(self._path(header.number + 1), 0, "the file is missing, or its header is gone")
        if stop < len(data) and (proof := proof_of_durability(data, stop, header.salt)) is not None:
            self._damaged(path, stop, f"they do not match their checksum, and the later record at {proof} is whole")
        handle = self._handle = self._device.append(path)
        if stop < len(data):
            logger.warning("journal_tail_cut file=%s offset=%d bytes=%d", path, stop, len(data) - stop)
            self._device.truncate(handle, stop)
        self._device.sync(handle)  # a killed process may have left bytes that no sync has seen
        self._number, self._salt, self._durable = header.number, header.salt, stop

    def _replay_records(self, path: Path, data: memoryview, end: int, salt: int) -> int:
        """Take in all whole records up to `end`; returns where the last of them ends."""
        stop = HEADER_BYTES
        for offset, kind, body in records(data, end, salt):
            try:
                fault = self._take(kind, body)
            except (struct.error, ValueError) as error:  # a right checksum over a body of no known form
                fault = f"the record of kind {kind} cannot be read: {error}"
            if fault is not None:
                self._damaged(path, offset, fault)
            stop = offset + RECORD_BYTES + len(body)
        return stop

    def _take(self, kind: int, body: memoryview) -> str | None:
        """One record of the past; a text if it does not fit what came before."""
        match kind:
            case Kind.ENTRY:
                index, term = _ENTRY.unpack_from(body)
                if (fault := self._misfit(index, term)) is not None:
                    return fault
                self._log.append((bytes(body[_ENTRY.size :]), index, term))
            case Kind.CUT:
                (index,) = _U64.unpack(body)
                if not self._log or not self._log[0][1] < index <= self._log[-1][1]:
                    return f"it cuts the log from entry {index} on, which the log does not hold"
                del self._log[index - self._log[0][1] :]
            case Kind.VOTE:
                (term,) = _U64.unpack_from(body)
                voted_for = str(body[_U64.size :], "utf-8") or None
                if (fault := self._misvote(term, voted_for)) is not None:
                    return fault
                self._term, self._voted_for = term, voted_for
            case Kind.IDENTITY:
                self._name, self._disk_id = wire.unpack(body)
            case Kind.INCARNATION:
                (self._incarnation,) = _U64.unpack(body)
            case Kind.CLUSTER:
                self._cluster_id = str(body, "utf-8")
            case Kind.MARK:
                pass
            case Kind.SEALED:
                self._is_sealed = True
            case _:
                raise NewerVersionError(
                    f"the journal in {self._directory} holds a record of kind {kind}, which this release does not "
                    f"know (it knows journal format version {FORMAT_VERSION}): start the release that wrote it"
                )
        return None

    def _misfit(self, index: int, term: int) -> str | None:
        """Why an entry cannot be the next one; None if it can."""
        if self._log:
            _, last_index, last_term = self._log[-1]
            if index != last_index + 1 or term < last_term:
                return f"entry {index} of term {term} cannot follow entry {last_index} of term {last_term} in the log"
        elif index < 1:
            return f"entry {index} cannot be the first one of a log"
        return None

    def _misvote(self, term: int, voted_for: str | None) -> str | None:
        """Why term and vote cannot follow the ones held; None if they can."""
        if term < self._term:
            return f"term {term} cannot follow term {self._term}"
        if term == self._term and self._voted_for is not None and voted_for != self._voted_for:
            return f"a vote for {voted_for or 'nobody'} in term {term} cannot follow one for {self._voted_for}"
        return None

    def _damaged(self, path: Path, offset: int, fault: str) -> NoReturn:
        raise DamagedError(
            f"{path}: the bytes at offset {offset} are not what was written and synced: {fault}. "
            f"This node may have voted and acknowledged on them. Keep this directory as it is and replace this node "
            f"from a healthy one: raftcron cluster replace {self._name or 'NAME'}"
        )

    # ---- who this is ---------------------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """Raises FatalError before `begin` of the first start."""
        if self._name is None:
            raise FatalError(f"the journal in {self._directory} has no name yet: begin it first")
        return Identity(self._name, self._disk_id, self._cluster_id, self._incarnation)

    @property
    def is_empty(self) -> bool:
        """Nothing but name, disk and incarnations was ever written.

        The entry of index 1 and term 0, which the engine puts into every new log, does not count.
        """
        is_new_log = not self._log or (len(self._log) == 1 and self._log[0][1:] == (1, 0))
        return is_new_log and self._term == 0 and self._voted_for is None and self._cluster_id is None

    def begin(self, name: str, disk_id: str) -> Identity:
        """At each start: at the first one write name and disk id; later check the name and keep the disk id held.

        Raises ConfigurationError if the directory belongs to another name.
        """
        if self._name is None:
            self._name, self._disk_id = name, disk_id
            self._record(Kind.IDENTITY, wire.pack([name, disk_id]))
            self.sync()
        elif name != self._name:
            raise ConfigurationError(
                f"the journal in {self._directory} belongs to node {self._name!r}, and this node is named {name!r}: "
                f"start it as {self._name!r}, or give {name!r} a data directory of its own"
            )
        return self.identity

    def next_incarnation(self) -> int:
        """Count one more life of this node's process; durable when it returns."""
        self._incarnation += 1
        self._record(Kind.INCARNATION, _U64.pack(self._incarnation))
        self.sync()
        return self._incarnation

    def set_cluster_id(self, cluster_id: str) -> None:
        """Remember, durably, the cluster this node belongs to.  FatalError if it belongs to another one."""
        if cluster_id == self._cluster_id:
            return
        if self._cluster_id is not None or not cluster_id:
            raise FatalError(
                f"the journal in {self._directory} belongs to cluster {self._cluster_id}; it cannot become one of "
                f"cluster {cluster_id!r}: give this node a data directory of its own"
            )
        self._cluster_id = cluster_id
        self._record(Kind.CLUSTER, cluster_id.encode())
        self.sync()

    # ---- what the engine asks of a journal -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._log)

    @overload
    def __getitem__(self, position: int) -> Entry: ...

    @overload
    def __getitem__(self, position: slice) -> list[Entry]: ...

    def __getitem__(self, position: int | slice) -> Entry | list[Entry]:
        return self._log[position]

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry; durable after the next `sync`."""
        if self._handle is None:
            self._begin_or_refuse()
        log = self._log
        if not log or idx != log[-1][1] + 1 or term < log[-1][2]:
            self._refuse(self._misfit(idx, term))
        length = _ENTRY.size + len(command)
        if length > MAX_BODY_BYTES:
            self._refuse(f"a command of {len(command)} bytes is over the limit of {MAX_BODY_BYTES - _ENTRY.size}")
        rest = _ENTRY_RECORD.pack(length, self._durable, Kind.ENTRY, idx, term)
        self._pending.append(_CRC.pack(crc32(command, crc32(rest, self._salt))) + rest)
        self._pending.append(command)
        self._pending_bytes += RECORD_BYTES + length
        log.append((command, idx, term))
        if self._pending_bytes > MAX_PENDING_BYTES:
            self.sync()

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802 (the engine's name)
        """Cut the log from `position` (counted from 0) on; durable after the next `sync`."""
        if position >= len(self._log):
            return
        index = self._log[position][1]
        if position < 1 or index <= self._commit_index:
            self._refuse(f"the log cannot be cut from entry {index} on: it is committed up to {self._commit_index}")
        self._record(Kind.CUT, _U64.pack(index))
        del self._log[position:]
        self._synced_index = min(self._synced_index, index - 1)

    def deleteEntriesTo(self, position: int) -> None:  # noqa: N802
        """Not before there are snapshots."""
        self._refuse("the beginning of the log cannot be dropped: this release takes no snapshots")

    def clear(self) -> None:
        """Not before there are snapshots."""
        self._refuse("the log cannot be cleared: this release takes no snapshots")

    def getCurrentTerm(self) -> int:  # noqa: N802
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        return self._voted_for

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:  # noqa: N802
        """Term and vote are durable when it returns, and so is all before them."""
        if (term, voted_for) != (self._term, self._voted_for):
            self._refuse(self._misvote(term, voted_for))
            self._record(Kind.VOTE, _U64.pack(term) + (voted_for or "").encode())
            self._term, self._voted_for = term, voted_for
        self.sync()

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        """Not kept on disk: after opening it is the index of the first entry."""
        return self._commit_index

    def setRaftCommitIndex(self, index: int) -> None:  # noqa: N802
        """Whatever counts as committed here is durable here first; what follows it may wait for the next sync."""
        if index > self._synced_index:
            self.sync()
        self._commit_index = index

    def onOneSecondTimer(self) -> None:  # noqa: N802
        """Nothing waits for a timer."""

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
        self._synced_index = self._log[-1][1] if self._log else 0
        if self._durable >= self._segment_bytes:
            self._begin_segment()

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

    def _begin_segment(self) -> None:
        """Go on in a new segment.  It exists, durably, before anything is written to it; then the former is sealed."""
        number, length, salt, former = self._number + 1, self._durable, self._salt, self._handle
        header = Header(number, length, crc32(f"{self._disk_id}/{number}".encode()))
        try:
            self._handle = self._device.create(self._path(number))
            self._device.write(self._handle, encode_header(header))
            self._device.sync(self._handle)
            self._device.sync_directory(self._directory)
            if former is not None:
                self._device.close(former)
                self._seal(self._number, length, salt)
        except OSError as error:
            self._fail(error)
        self._number, self._salt, self._durable = number, header.salt, HEADER_BYTES

    def _seal(self, number: int, length: int, salt: int) -> None:
        """End a segment by a record that tells that another exists, so that a lost last segment is noticed."""
        handle = self._device.append(self._path(number))
        try:
            self._device.truncate(handle, length)
            self._device.write(handle, encode_record(Kind.SEALED, b"", length, salt))
            self._device.sync(handle)
        finally:
            self._device.close(handle)

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:012d}.segment"

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
        if self._lock is not None:
            lock, self._lock = self._lock, None
            self._device.close(lock)
