"""Reads the segments that a journal's directory holds, from the oldest to the newest, when the journal is opened.

What a crash may leave is mended: the torn end of the last segment, a segment that was not finished making, a seal that
is missing.  Everything else that is not what was written is refused, before anything is changed.
"""

from __future__ import annotations

import logging
import re
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

from raftcron.errors import DamagedError, NewerVersionError
from raftcron.raft.device import Device
from raftcron.raft.kept import U64, Kept
from raftcron.raft.segment import (
    FORMAT_VERSION,
    HEADER_BYTES,
    RECORD_BYTES,
    Header,
    Kind,
    UnknownVersion,
    decode_checkpoint,
    decode_header,
    encode_checkpoint,
    encode_record,
    proof_of_durability,
    records,
)

logger = logging.getLogger(__name__)

_SEGMENT_NAME = re.compile(r"(\d{12})\.segment")
_KINDS = frozenset(Kind)
_BEGINNINGS = frozenset({Kind.CHECKPOINT, Kind.BASE})


@dataclass(slots=True)
class Segment:
    """What is remembered of a segment."""

    number: int
    base: int | None  # where the log stood when it was begun: it may begin there; None: it has no checkpoint
    length: int = 0  # bytes
    lowest_cut: int = sys.maxsize  # the lowest index from which a record of it cuts the log


class Found(NamedTuple):
    """What the files say, and the last of them, opened for writing; None if there is none yet."""

    kept: Kept
    segments: list[Segment]
    handle: int | None
    salt: int


def path_of(directory: Path, number: int) -> Path:
    return directory / f"{number:012d}.segment"


def count_removable(segments: Sequence[Segment], base: int) -> int:
    """How many of the oldest segments hold nothing that counts, if a snapshot holds all entries up to `base`.

    The log can begin with a segment whose checkpoint stands at or below `base`, unless a later record cuts behind it:
    then the entry before the cut is in an older segment.
    """
    lowest_cut = sys.maxsize
    for place in range(len(segments) - 1, 0, -1):
        segment = segments[place]
        lowest_cut = min(lowest_cut, segment.lowest_cut)
        if segment.base is not None and segment.base <= base and segment.base < lowest_cut:
            return place
    return 0


def seal(device: Device, handle: int, length: int, salt: int) -> None:
    """End a segment by a record that tells that another exists, so that a lost last segment is noticed; close it."""
    try:
        device.truncate(handle, length)
        device.write(handle, _seal_record(length, salt))
        device.sync(handle)
    finally:
        device.close(handle)


def _seal_record(length: int, salt: int) -> bytes:
    return encode_record(Kind.SEALED, b"", length, salt)


def remedy(directory: Path, name: str | None) -> str:
    """What to do about damage to a node's journal; a sentence."""
    return (
        f"This node may have voted and acknowledged on what was there, so it must not go on: run `raftcron cluster "
        f"replace {name or 'NAME'} --data-dir {directory.parent}` on this machine, which sets the damaged files aside "
        f"and tells the cluster"
    )


class Replay:
    """One reading of one directory."""

    def __init__(self, directory: Path, device: Device) -> None:
        self._directory = directory
        self._device = device
        self._kept = Kept()
        self._segments: list[Segment] = []
        self._torn = 0  # bytes at the end of the last segment that are no whole record
        self._is_sealed = False  # the last segment that is whole: another one has been made after it

    def run(self) -> Found:
        """Raises DamagedError, NewerVersionError and OSError."""
        names = self._device.names(self._directory)
        numbers = [int(match[1]) for name in names if (match := _SEGMENT_NAME.fullmatch(name))]
        if not numbers:
            return Found(self._kept, [], None, 0)
        first, last = min(numbers), max(numbers)
        self._kept.is_known = first == 1
        headers = [self._header(number) for number in range(first, last)]
        data = self._read(last)
        newest = self._newest(last, data)
        if newest is not None:
            headers.append(newest)
        is_sealed = True
        for header, following in pairwise(headers):
            is_sealed = self._take_closed(header, following.previous_length)
        if headers:
            self._take_open(headers[-1], data if newest is not None else self._read(last - 1))
        if newest is None:
            self._check_unmade(last, len(data))
        elif self._is_sealed:
            self._damaged(self._path(last + 1), 0, "the file is missing")
        if not self._kept.is_known:
            self._damaged(self._path(max(first - 1, 1)), 0, "the file is missing")

        # All is well.  Only now something is changed; the order matters if the power goes meanwhile.
        handle = self._open_newest() if headers else None
        try:
            if newest is None:  # a crash while it was made; nothing was in it yet
                self._log_cut(self._path(last), 0, len(data))
                self._device.remove(self._path(last))
            self._device.sync_directory(self._directory)
            if not is_sealed:  # a crash right after a new segment was made
                former = headers[-2]
                opened = self._device.append(self._path(former.number))
                seal(self._device, opened, headers[-1].previous_length, former.salt)
        except BaseException:
            if handle is not None:
                self._device.close(handle)
            raise
        return Found(self._kept, self._segments, handle, headers[-1].salt if headers else 0)

    # ---- headers -------------------------------------------------------------------------------------------------

    def _header(self, number: int) -> Header:
        """Of a segment that another one follows."""
        path = self._path(number)
        try:
            data = self._device.read(path, HEADER_BYTES)
        except FileNotFoundError:
            self._damaged(path, 0, "the file is missing")
        header = self._decode(number, data)
        if header is None:
            self._damaged(path, 0, "the header is not what was written")
        return header

    def _newest(self, number: int, data: memoryview) -> Header | None:
        """None if header or checkpoint are not whole: they are synced before another record is written."""
        header = self._decode(number, bytes(data[:HEADER_BYTES]))
        if header is not None and header.has_checkpoint and not any(records(data, len(data), header.salt)):
            return None
        return header

    def _decode(self, number: int, data: bytes) -> Header | None:
        path = self._path(number)
        try:
            header = decode_header(data)
        except UnknownVersion as error:
            raise NewerVersionError(
                f"{path} is of journal format version {error.version}; this release knows version {FORMAT_VERSION} "
                f"and those before it: start the release that wrote it, or a later one"
            ) from None
        if header is not None and header.number != number:
            self._damaged(path, 0, f"it is segment {header.number} under another name")
        return header

    def _check_unmade(self, number: int, length: int) -> None:
        """The newest segment has no whole beginning.  Is that a crash while it was made?

        Then it holds no more than that, and the one before has not been sealed, but is there.
        """
        beginning = RECORD_BYTES + len(encode_checkpoint(self._kept.checkpoint())) if number > 1 else 0
        if self._is_sealed or length > HEADER_BYTES + beginning or (number > 1 and not self._segments):
            self._damaged(self._path(number), 0, "its beginning is not what was written")

    # ---- records -------------------------------------------------------------------------------------------------

    def _take_closed(self, header: Header, length: int) -> bool:
        """A segment that another follows: its first `length` bytes were synced, every one.  True if it is sealed."""
        path = self._path(header.number)
        data = self._read(header.number)
        if len(data) < length:
            self._damaged(path, len(data), f"{length - len(data)} bytes are missing at its end")
        stop = self._take_records(header, data, length)
        if stop < length:
            self._damaged(path, stop, "they do not match their checksum")
        if len(data) - length > RECORD_BYTES:
            self._damaged(path, length, "bytes follow the end of the segment")
        self._segments[-1].length = length + RECORD_BYTES
        return data[length:] == _seal_record(length, header.salt)

    def _take_open(self, header: Header, data: memoryview) -> None:
        """The segment that is gone on with: it may end in a torn write."""
        stop = self._take_records(header, data, len(data))
        if stop < len(data) and (proof := proof_of_durability(data, stop, header.salt)) is not None:
            self._damaged(
                self._path(header.number),
                stop,
                f"they do not match their checksum, and the later record at {proof} is whole",
            )
        self._segments[-1].length = stop
        self._torn = len(data) - stop

    def _open_newest(self) -> int:
        """For writing, behind its last whole record."""
        segment = self._segments[-1]
        path = self._path(segment.number)
        handle = self._device.append(path)
        if self._torn:
            self._log_cut(path, segment.length, self._torn)
            self._device.truncate(handle, segment.length)
        self._device.sync(handle)  # a killed process may have left bytes that no sync has seen
        return handle

    def _take_records(self, header: Header, data: memoryview, end: int) -> int:
        """Take in all whole records up to `end`; returns where the last of them ends."""
        segment = Segment(header.number, None)
        self._segments.append(segment)
        stop = HEADER_BYTES
        for offset, kind, body in records(data, end, header.salt):
            try:
                if offset == HEADER_BYTES and header.has_checkpoint:
                    fault = self._take_beginning(segment, kind, body)
                else:
                    fault = self._take(segment, kind, body)
            except (struct.error, ValueError) as error:  # a right checksum over a body of no known form
                fault = f"the record of kind {kind} cannot be read: {error}"
            if fault is not None:
                self._damaged(self._path(header.number), offset, fault)
            stop = offset + RECORD_BYTES + len(body)
        return stop

    def _take_beginning(self, segment: Segment, kind: int, body: memoryview) -> str | None:
        if kind not in _BEGINNINGS:
            return f"a record of kind {kind} stands where the checkpoint belongs"
        point = decode_checkpoint(body)
        segment.base = point.last_index
        return self._kept.take_checkpoint(point, is_base=kind == Kind.BASE)

    def _take(self, segment: Segment, kind: int, body: memoryview) -> str | None:
        match kind:
            case Kind.ENTRY:  # most of them
                pass
            case Kind.CUT:
                segment.lowest_cut = min(segment.lowest_cut, *U64.unpack(body))
            case Kind.SEALED:
                self._is_sealed = True
            case Kind.CHECKPOINT | Kind.BASE:
                return "a checkpoint stands where none belongs"
            case _ if kind not in _KINDS:
                raise NewerVersionError(
                    f"the journal in {self._directory} holds a record of kind {kind}, which this release does not "
                    f"know (it knows journal format version {FORMAT_VERSION}): start the release that wrote it"
                )
        return self._kept.take(kind, body)

    # ---- the rest ------------------------------------------------------------------------------------------------

    def _path(self, number: int) -> Path:
        return path_of(self._directory, number)

    def _read(self, number: int) -> memoryview:
        return memoryview(self._device.read(self._path(number)))

    def _log_cut(self, path: Path, offset: int, length: int) -> None:
        logger.warning("journal_tail_cut file=%s offset=%d bytes=%d", path, offset, length)

    def _damaged(self, path: Path, offset: int, fault: str) -> NoReturn:
        raise DamagedError(
            f"{path}: the bytes at offset {offset} are not what was written and synced: {fault}. "
            f"{remedy(self._directory, self._kept.name)}"
        )
