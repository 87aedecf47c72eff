"""The bytes of one journal segment: its header, its records, and whether a bad place was ever whole.  No files here.

    segment  header, checkpoint, record, record, ...   (no checkpoint in number 1, and in none of version 1)
    header   magic 8s | version u32 | crc u32 of these 12 bytes   (this much never changes between versions)
             number u64 | previous_length u64 | salt u32 | crc u32 of the 36 bytes before
    record   crc u32 | length u32 | durable u32 | kind u8 | body of `length` bytes    (little endian throughout)

A checkpoint is a record that holds all that the segments before have said and that still counts, but for the entries:
so they can be removed once a snapshot holds those.  docs/journal.md tells the whole.

A record's CRC-32 covers everything behind it in the record and starts from the segment's salt, so that bytes which a
user put into a command cannot pass for a record.

`durable` is the length of the segment that was known to be synced when the record was made.  It tells a torn tail
from damage.  After a power cut the pages of the last write may be there in any order, so a bad record followed by good
ones is not yet damage; but a good record that says "the bytes up to here were durable" and lies behind a bad place
below "here" proves that the bad place was once whole.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from raftcron import wire

MAGIC = b"RAFTCRNJ"
FORMAT_VERSION = 2  # version 1, which has no checkpoints, is read too, and a segment of it is gone on with
MAX_BODY_BYTES = (1 << 22) - 1  # with MAX_KIND, what lets a search pass over most bytes that are no record
MAX_KIND = 31
LIKELY_BYTES = 1 << 26  # no segment of the default length is longer; bounds the places that may be a record
SEARCH_CRC_BYTES = 1 << 30  # checksum work of one search; about a second, against bytes made to look like records

_PREAMBLE = struct.Struct("<8sII")
_CHAIN = struct.Struct("<QQI")
_CRC = struct.Struct("<I")
_REST = struct.Struct("<IIB")
_RECORD = struct.Struct("<IIIB")
_CHECKPOINT = struct.Struct("<QQQQ")
HEADER_BYTES = _PREAMBLE.size + _CHAIN.size + _CRC.size
RECORD_BYTES = _RECORD.size


class Kind(enum.IntEnum):
    """What a record says: 1 to MAX_KIND; zeros are not a record."""

    IDENTITY = 1  # msgpack [name, disk_id]
    INCARNATION = 2  # u64
    VOTE = 3  # term u64, then the name voted for in UTF-8; empty: nobody
    ENTRY = 4  # index u64, term u64, then the command
    CUT = 5  # u64: the entries from this index on are gone
    CLUSTER = 6  # cluster id in UTF-8
    BASE = 7  # as CHECKPOINT, but the log begins anew: all of it up to the last entry named here is in a snapshot
    MARK = 8  # nothing: it only says that all before it is durable
    SEALED = 9  # the next segment exists; nothing follows
    CHECKPOINT = 10  # incarnation, term, last index, last term, each u64; msgpack [name, disk_id, cluster_id, vote]


class Header(NamedTuple):
    """What a segment says of itself; `previous_length` bytes of the segment before it count."""

    number: int
    previous_length: int
    salt: int
    version: int = FORMAT_VERSION

    @property
    def has_checkpoint(self) -> bool:
        """Whether its first record is a CHECKPOINT or a BASE."""
        return self.version >= 2 and self.number > 1


class Checkpoint(NamedTuple):
    """What the segments before say, without the entries; where the log stands: `last_index` 0 if it is empty."""

    name: str | None
    disk_id: str
    cluster_id: str | None
    incarnation: int
    term: int
    voted_for: str | None
    last_index: int
    last_term: int


class UnknownVersion(Exception):
    """The segment is of a version that this release does not know."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


def encode_header(header: Header) -> bytes:
    preamble = _PREAMBLE.pack(MAGIC, header.version, crc32(MAGIC + struct.pack("<I", header.version)))
    data = preamble + _CHAIN.pack(header.number, header.previous_length, header.salt)
    return data + _CRC.pack(crc32(data))


def decode_header(data: bytes) -> Header | None:
    """None if the bytes are not a whole header; UnknownVersion if they begin one of a version not known."""
    if len(data) < _PREAMBLE.size:
        return None
    magic, version, crc = _PREAMBLE.unpack_from(data)
    if magic != MAGIC or crc != crc32(data[:12]):
        return None
    if not 1 <= version <= FORMAT_VERSION:
        raise UnknownVersion(version)
    if len(data) < HEADER_BYTES:
        return None
    end = HEADER_BYTES - _CRC.size
    if _CRC.unpack_from(data, end)[0] != crc32(data[:end]):
        return None
    number, previous_length, salt = _CHAIN.unpack_from(data, _PREAMBLE.size)
    return Header(number, previous_length, salt, version)


def encode_checkpoint(point: Checkpoint) -> bytes:
    """The body of a CHECKPOINT or BASE; its length depends on the texts alone."""
    texts = wire.pack([point.name, point.disk_id, point.cluster_id, point.voted_for])
    return _CHECKPOINT.pack(point.incarnation, point.term, point.last_index, point.last_term) + texts


def decode_checkpoint(body: memoryview) -> Checkpoint:
    """Raises ValueError or struct.error for any other bytes."""
    incarnation, term, last_index, last_term = _CHECKPOINT.unpack_from(body)
    name, disk_id, cluster_id, voted_for = wire.unpack(body[_CHECKPOINT.size :])
    return Checkpoint(name, disk_id, cluster_id, incarnation, term, voted_for, last_index, last_term)


def encode_record(kind: int, body: bytes, durable: int, salt: int) -> bytes:
    rest = _REST.pack(len(body), durable, kind) + body
    return _CRC.pack(crc32(rest, salt)) + rest


def _end_of_record(data: memoryview, offset: int, end: int, salt: int) -> int | None:
    """Where the record at `offset` ends; None if there is no whole record."""
    if end - offset < RECORD_BYTES:
        return None
    crc, length, durable, kind = _RECORD.unpack_from(data, offset)
    stop: int = offset + RECORD_BYTES + length
    if not 0 < kind <= MAX_KIND or length > MAX_BODY_BYTES or stop > end or not HEADER_BYTES <= durable <= offset:
        return None
    return stop if crc32(data[offset + 4 : stop], salt) == crc else None


def records(data: memoryview, end: int, salt: int) -> Iterator[tuple[int, int, memoryview]]:
    """(offset, kind, body) of each record up to `end` or the first place that is not a whole record."""
    offset = HEADER_BYTES
    while (stop := _end_of_record(data, offset, end, salt)) is not None:
        yield offset, data[offset + 12], data[offset + RECORD_BYTES : stop]
        offset = stop


_CANDIDATE = re.compile(rb"(?=.{6}[\x00-\x3f]\x00.{4}[\x01-\x1f])", re.DOTALL)  # a length and a kind in range


def proof_of_durability(data: memoryview, bad: int, salt: int) -> int | None:
    """The offset of a whole record behind `bad` which says that the bytes at `bad` had been synced; None if none does.

    Looks at every offset, since a damaged length hides where the next record begins, and since bytes may have gone
    missing (`durable` then is beyond where the record stands).  A search that would cost more than SEARCH_CRC_BYTES of
    checksums counts as a proof: refusing to start is safe, cutting is not.
    """
    end, budget = len(data), SEARCH_CRC_BYTES
    longest = max(end, LIKELY_BYTES)
    for match in _CANDIDATE.finditer(data, bad + 1):
        offset = match.start()
        crc, length, durable, _ = _RECORD.unpack_from(data, offset)
        stop = offset + RECORD_BYTES + length
        if not bad < durable <= longest or stop > end:
            continue
        budget -= stop - offset
        if budget < 0 or crc32(data[offset + 4 : stop], salt) == crc:
            return offset
    return None
