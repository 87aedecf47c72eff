"""The bytes of one snapshot file: how they are made, and how they are checked while they are read.

    file      preamble, then frames: one HEADER, any number of BLOCKs, one FOOTER, and nothing behind it
    preamble  magic 8s | version u32 | crc u32 of these 12 bytes   (this much never changes between versions)
    frame     crc u32 | length u32 | kind u8 | body of `length` bytes    (little endian throughout)
    HEADER    msgpack [index, term, cluster id, configuration, release that wrote it]
    BLOCK     bytes that the state machine gave
    FOOTER    how many blocks u64 | BLAKE2b of all bytes before this frame 16s

A frame's CRC-32 covers everything behind it in the frame and goes on from the CRC of what is before the frame, so that
a whole frame in a wrong place does not match either.  No byte depends on node, time or chance: equal state has an
equal file, and an equal id, on every node of one release.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from raftcron import wire
from raftcron.errors import NewerVersionError
from raftcron.raft.device import Device

MAGIC = b"RAFTCRNS"
FORMAT_VERSION = 1
MAX_BLOCK_BYTES = 4 << 20  # checked in one go, so this bounds how long the loop is held: some 5 ms
READ_BYTES = 1 << 20  # at a time, unless a frame is larger

HEADER, BLOCK, FOOTER = 1, 2, 3

_MAX_BODY_BYTES = MAX_BLOCK_BYTES + 4096  # a header with the largest entry in it
_PREAMBLE = struct.Struct("<8sII")
_FRAME = struct.Struct("<IIB")
_REST = struct.Struct("<IB")
_FOOTER = struct.Struct("<Q16s")
_HASH_BYTES = 16
_ID = re.compile(r"([1-9]\d{0,18})-(0|[1-9]\d{0,18})-([0-9a-f]{32})", re.ASCII)

MIN_BYTES = _PREAMBLE.size + 2 * _FRAME.size + _FOOTER.size


class SnapshotInfo(NamedTuple):
    """What a snapshot is: the state as of `index`, whose entry is of `term`."""

    id: str  # "<index>-<term>-<hash of the file>"
    index: int  # type: ignore[assignment]  # nobody asks for tuple.index
    term: int
    size: int  # bytes of the file
    configuration: bytes  # the membership entry as of `index`
    cluster_id: str


class Header(NamedTuple):
    index: int  # type: ignore[assignment]  # nobody asks for tuple.index
    term: int
    cluster_id: str
    configuration: bytes
    release: str


class Fault(Exception):
    """The bytes at `offset` are not what was written."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(offset, what)
        self.offset = offset
        self.what = what


def order_of(snapshot_id: str) -> tuple[int, int, str] | None:
    """(index, term, hash) of an id, by which ids are ordered; None if it is none.  A good id is a good file name."""
    match = _ID.fullmatch(snapshot_id)
    return None if match is None else (int(match[1]), int(match[2]), match[3])


def check_preamble(path: Path, data: bytes) -> None:
    if len(data) < _PREAMBLE.size:
        raise Fault(0, "it is shorter than the beginning of a snapshot")
    magic, version, crc = _PREAMBLE.unpack_from(data)
    if magic != MAGIC or crc != crc32(data[:12]) or not version:
        raise Fault(0, "it does not begin as a snapshot does")
    if version > FORMAT_VERSION:
        raise NewerVersionError(
            f"{path} is of snapshot format version {version}; this release knows version {FORMAT_VERSION} only: start "
            f"the release that wrote it, or a later one"
        )


class Encoder:
    """Makes the bytes of one file, in their order: what begins it, each block, what ends it."""

    def __init__(self) -> None:
        self.count = 0  # of blocks
        self._crc = 0
        self._hash = blake2b(digest_size=_HASH_BYTES)

    @property
    def digest(self) -> str:
        """The hash that the id ends with, once the file has ended."""
        return self._hash.hexdigest()

    def begin(self, header: Header) -> bytes:
        preamble = _PREAMBLE.pack(MAGIC, FORMAT_VERSION, crc32(MAGIC + struct.pack("<I", FORMAT_VERSION)))
        self._crc = crc32(preamble)
        self._hash.update(preamble)
        return preamble + self._frame(HEADER, wire.pack(header))

    def block(self, block: bytes) -> bytes:
        """ValueError if it is too large."""
        if len(block) > MAX_BLOCK_BYTES:
            raise ValueError(f"a block of {len(block)} bytes is over the limit of {MAX_BLOCK_BYTES}")
        self.count += 1
        return self._frame(BLOCK, block)

    def end(self) -> bytes:
        return self._frame(FOOTER, _FOOTER.pack(self.count, self._hash.digest()))

    def _frame(self, kind: int, body: bytes) -> bytes:
        rest = _REST.pack(len(body), kind)
        self._crc = crc32(body, crc32(rest, self._crc))
        data = self._crc.to_bytes(4, "little") + rest + body
        if kind != FOOTER:
            self._hash.update(data)
        return data


def _decode_header(body: bytes) -> Header:
    """ValueError if it is none."""
    header = wire.unpack(body)
    kinds = (int, int, str, bytes, str)
    if type(header) is not list or tuple(type(field) for field in header) != kinds or header[0] < 1 or header[1] < 0:
        raise ValueError("its fields are not those of a header")
    return Header(*header)


class Reading:
    """A file read from its beginning; nothing is given that was not checked.  `offset`: all before it is whole."""

    def __init__(self, device: Device, path: Path) -> None:
        self._device = device
        self._path = path
        self._window = b""
        self._window_offset = 0
        self.size = self._size()
        preamble = self._bytes(0, min(_PREAMBLE.size, self.size))
        check_preamble(path, preamble)
        self.offset = _PREAMBLE.size
        self._crc = crc32(preamble)
        self._hash = blake2b(preamble, digest_size=_HASH_BYTES)
        kind, body = self._frame()
        if kind != HEADER:
            raise Fault(_PREAMBLE.size, "the header is missing")
        try:
            self.header = _decode_header(body)
        except ValueError as error:
            raise Fault(_PREAMBLE.size, f"the header cannot be read: {error}") from None

    @property
    def info(self) -> SnapshotInfo:
        """Once `blocks` has come to its end."""
        index, term, cluster_id, configuration, _ = self.header
        return SnapshotInfo(
            f"{index}-{term}-{self._hash.hexdigest()}", index, term, self.size, configuration, cluster_id
        )

    def blocks(self) -> Iterator[bytes]:
        """Each block, checked; what can only be seen from the whole file is raised at the end.  Raises Fault."""
        count = 0
        while True:
            at = self.offset
            kind, body = self._frame()
            if kind == FOOTER:
                break
            if kind != BLOCK:
                raise Fault(at, f"a frame of kind {kind} stands there")
            count += 1
            yield body
        if body != _FOOTER.pack(count, self._hash.digest()):
            raise Fault(at, "the footer tells of other blocks than there are")
        if self.offset != self.size:
            raise Fault(self.offset, "bytes follow its end")

    def _frame(self) -> tuple[int, bytes]:
        at = self.offset
        head = self._bytes(at, _FRAME.size)
        crc, length, kind = _FRAME.unpack(head)
        if length > _MAX_BODY_BYTES:
            raise Fault(at, f"it tells of {length} bytes")
        body = self._bytes(at + _FRAME.size, length)
        if crc32(body, crc32(head[4:], self._crc)) != crc:
            raise Fault(at, "they do not match their checksum")
        if kind != FOOTER:
            self._hash.update(head)
            self._hash.update(body)
        self._crc = crc
        self.offset = at + _FRAME.size + length
        return kind, body

    def _bytes(self, offset: int, count: int) -> bytes:
        begin = offset - self._window_offset
        if begin + count > len(self._window):
            if offset + count > self.size:
                raise Fault(offset, f"the file ends after {self.size} bytes, in the middle of it")
            self._window, self._window_offset, begin = self._read(offset, max(count, READ_BYTES)), offset, 0
            if len(self._window) < count:
                raise Fault(offset, "the file has become shorter")
        return self._window[begin : begin + count]

    def _read(self, offset: int, count: int) -> bytes:
        try:
            return self._device.read_range(self._path, offset, count)
        except OSError as error:
            raise _unreadable(offset, error) from error

    def _size(self) -> int:
        try:
            return self._device.size(self._path)
        except OSError as error:
            raise _unreadable(0, error) from error


def _unreadable(offset: int, error: OSError) -> Exception:
    """A file or a part of it that is lost is damage; any other error says nothing about the bytes."""
    return Fault(offset, f"they cannot be read: {error}") if error.errno in (errno.EIO, errno.ENOENT) else error
