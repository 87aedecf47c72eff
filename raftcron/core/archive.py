"""A backup as bytes: what an archive holds, how it is written, and how every byte of it is checked when it is read.

An archive is MAGIC, a version byte, and blocks.  A block is the length of its content (4 bytes, big-endian), the
content's blake2b (16 bytes) and the content: the msgpack of (kind, rows).  The first is the head, the last the end mark
with the digest of all bytes before it, so that a cut archive shows, and so does a changed one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from raftcron.core import definition, exclusion, route
from raftcron.core.fields import name_fault
from raftcron.core.group import MAX_RUNNING_MAX
from raftcron.core.instant import MAX_MS
from raftcron.core.model import Policy
from raftcron.core.unreadable import UNREADABLE
from raftcron.core.vault import SEAL_OVERHEAD, SECRET_BYTES_MAX
from raftcron.errors import Fault, InvalidError, TooLargeError

MAGIC: Final = b"raftcron backup\n"
ARCHIVE_VERSION: Final = 1
ARCHIVE_BYTES_MAX: Final = 512 << 20  # that a restore takes

BLOCK_ROWS: Final = 250  # some 5 ms of checking
BLOCK_BYTES: Final = 256 << 10  # of rows, unless one of them alone is larger
BLOCK_BYTES_MAX: Final = 2 << 20  # a job takes 1 MiB
CHUNKS_MAX: Final = 4_096  # of one staging
STAGED_BYTES_MAX: Final = ARCHIVE_BYTES_MAX
STAGING_LIFE_MS: Final = 3600 * 1000

HEAD: Final = "head"
END: Final = "end"
DIGEST_BYTES: Final = 16
_FRAME: Final = 4 + DIGEST_BYTES


class JobRow(Struct, array_like=True, frozen=True, gc=False):
    """A job as somebody wrote it, paused or not, and how many of its `max_runs` it has had."""

    name: str
    definition: bytes
    paused: bool = False
    note: str = ""
    until: int | None = None
    owner: str | None = None
    fire_count: int = 0


class CalendarRow(Struct, array_like=True, frozen=True, gc=False):
    name: str
    definition: bytes


class GroupRow(Struct, array_like=True, frozen=True, gc=False):
    name: str
    max_running: int


class SecretRow(Struct, array_like=True, frozen=True, gc=False):
    """A named secret, sealed."""

    name: str
    sealed: bytes


class RouteRow(Struct, array_like=True, frozen=True, gc=False):
    """The default route of alerts."""

    name: str
    definition: bytes


Row = JobRow | CalendarRow | GroupRow | SecretRow | RouteRow
KINDS: Final[dict[str, type[Any]]] = {
    "calendars": CalendarRow,
    "groups": GroupRow,
    "secrets": SecretRow,
    "routes": RouteRow,
    "jobs": JobRow,
}


class Head(Struct, array_like=True, frozen=True):
    """Where an archive comes from, and how many rows of each kind follow."""

    cluster_id: str
    index: int  # of the log: all that it had made is in the archive, and nothing else
    created_at: int
    counts: dict[str, int]
    wrapped: bytes = b""  # the cluster's key as the state keeps it, to be opened with the cluster secret; empty: none
    salt: bytes = b""


class StagedChunk(Struct, array_like=True, gc=False):
    """A part of a restore that waits in the state for the entry that swaps it in."""

    number: int  # from 0
    staging: str
    index: int  # of the log; the ids of the jobs in it follow from it
    at: int
    kind: str
    rows: bytes
    digest: int = 0


class Block(NamedTuple):
    """Rows of one kind, decoded and as they stand in the archive, and at which byte their block begins."""

    kind: str
    rows: list[Any]
    at: int


_encode = msgspec.msgpack.Encoder().encode
_block = msgspec.msgpack.Decoder(tuple[str, Raw]).decode
_head = msgspec.msgpack.Decoder(Head).decode
_end = msgspec.msgpack.Decoder(bytes).decode
_rows = {kind: msgspec.msgpack.Decoder(list[row]).decode for kind, row in KINDS.items()}  # type: ignore[valid-type]


# ---- out ------------------------------------------------------------------------------------------------------------


def write(head: Head, rows: Iterable[tuple[str, Iterable[Row]]]) -> Iterator[bytes]:
    """The pieces of an archive: each takes some milliseconds to make at most."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for piece in _pieces(head, rows):
        digest.update(piece)
        yield piece
    yield _framed(END, digest.digest())


def _pieces(head: Head, rows: Iterable[tuple[str, Iterable[Row]]]) -> Iterator[bytes]:
    yield MAGIC + bytes([ARCHIVE_VERSION]) + _framed(HEAD, head)
    for kind, of_kind in rows:
        for raws in cut(of_kind, BLOCK_ROWS, BLOCK_BYTES):
            yield _framed(kind, raws)


def cut(rows: Iterable[Row], most: int, size_max: int) -> Iterator[list[Raw]]:
    """Encoded rows, so many together; one that is larger than `size_max` bytes stands alone."""
    found: list[Raw] = []
    size = 0
    for row in rows:
        raw = _encode(row)
        if found and (len(found) >= most or size + len(raw) > size_max):
            yield found
            found, size = [], 0
        found.append(Raw(raw))
        size += len(raw)
    if found:
        yield found


def _framed(kind: str, content: Any) -> bytes:
    block = _encode((kind, content))
    return len(block).to_bytes(4, "big") + blake2b(block, digest_size=DIGEST_BYTES).digest() + block


# ---- and back -------------------------------------------------------------------------------------------------------


class Reader:
    """Takes an archive as it comes.  Every method raises InvalidError: what is wrong with it, and at which byte."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.is_whole = False  # its end mark has come, and all was as it says
        self.counts = dict.fromkeys(KINDS, 0)
        self._rest = bytearray()
        self._at = 0  # of the first byte of `_rest`
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self._is_begun = False

    @property
    def digest(self) -> bytes:
        """Of all bytes that were taken."""
        return self._digest.digest()

    def feed(self, piece: bytes) -> Iterator[Block]:
        """The blocks of rows that are whole by now.  Raises TooLargeError, too."""
        self._rest += piece
        if self._at + len(self._rest) > ARCHIVE_BYTES_MAX:
            raise TooLargeError(f"the archive is larger than {ARCHIVE_BYTES_MAX >> 20} MiB; nothing was done")
        if not self._is_begun:
            if len(self._rest) <= len(MAGIC) and MAGIC.startswith(self._rest):
                return
            self._begin()
        while (block := self._next()) is not None:
            found = self._take(*block)
            if found is not None:
                yield found

    def finish(self) -> Head:
        """The archive has ended."""
        if not self.is_whole or self.head is None:
            raise self._fault("the archive ends here without its end mark: it was cut off", self._at + len(self._rest))
        return self.head

    def _begin(self) -> None:
        if not self._rest.startswith(MAGIC):
            raise self._fault("these are no bytes of a backup: it begins with `raftcron backup`", 0)
        version = self._rest[len(MAGIC)]
        if version > ARCHIVE_VERSION:
            raise self._fault(
                f"the archive has version {version}, this release knows up to {ARCHIVE_VERSION}: "
                "a newer release wrote it; restore it with that one",
                len(MAGIC),
            )
        if version < 1:
            raise self._fault(f"the archive has version {version}, which no release has written", len(MAGIC))
        self._pass(len(MAGIC) + 1)
        self._is_begun = True

    def _next(self) -> tuple[bytes, int] | None:
        """The next block's content, checked against its checksum, and where it began; None: it is not there yet."""
        if self._rest and self.is_whole:
            raise self._fault("bytes follow the end mark")
        if len(self._rest) < _FRAME:
            return None
        size = int.from_bytes(self._rest[:4], "big")
        if size > BLOCK_BYTES_MAX:
            raise self._fault(f"a block of {size} bytes: at most {BLOCK_BYTES_MAX} stand in one, so it was changed")
        if len(self._rest) < _FRAME + size:
            return None
        content = bytes(self._rest[_FRAME : _FRAME + size])
        if blake2b(content, digest_size=DIGEST_BYTES).digest() != self._rest[4:_FRAME]:
            raise self._fault("a block is not what its checksum says: it was changed")
        return content, self._at

    def _take(self, content: bytes, at: int) -> Block | None:
        try:
            kind, raw = _block(content)
            if self.head is None:
                if kind != HEAD:
                    raise self._fault("the first block is not the head")
                self.head = _head(raw)
            elif kind == END:
                if _end(raw) != self.digest:
                    raise self._fault("the end mark belongs to other bytes: blocks are missing, or were put in")
                if self.counts != {kind: self.head.counts.get(kind, 0) for kind in KINDS}:
                    raise self._fault(f"the head counts {self.head.counts}, and there are {self.counts}")
                self.is_whole = True
            elif kind in KINDS:
                rows = _rows[kind](raw)
                self.counts[kind] += len(rows)
                for row in rows:
                    if (fault := row_fault(row)) is not None:
                        raise self._fault(f"in {kind}: {fault}")
                self._pass(_FRAME + len(content))
                return Block(kind, rows, at)
            else:
                raise self._fault(f"a block of {kind[:40]!r}, which this release does not know")
        except UNREADABLE as error:
            raise self._fault(f"a block cannot be decoded: {error}") from error
        self._pass(_FRAME + len(content))
        return None

    def _pass(self, size: int) -> None:
        self._digest.update(self._rest[:size])
        del self._rest[:size]
        self._at += size

    def _fault(self, message: str, at: int | None = None) -> InvalidError:
        return refused(f"byte {self._at if at is None else at}: {message}")


def refused(message: str) -> InvalidError:
    """The error of an archive that is not taken."""
    return InvalidError(f"the archive is not taken, nothing was done: {message}", (Fault("", message),))


# ---- what may stand in a row ----------------------------------------------------------------------------------------


def staged_rows(kind: str, rows: bytes) -> list[Any]:
    """The rows of a chunk.  Raises one of UNREADABLE, KeyError."""
    found: list[Any] = _rows[kind](rows)
    return found


def row_fault(row: Any) -> str | None:
    """Why the log takes no such row; None: it does.  Asks neither tz data nor croniter."""
    if (problem := name_fault(row.name)) is not None:
        return f"{row.name[:100]!r} is no name: {problem}"
    problem = None
    if isinstance(row, JobRow):
        if len(row.definition) > definition.DEFINITION_BYTES_MAX:
            problem = f"its definition takes {len(row.definition)} bytes"
        elif not 0 <= row.fire_count < 1 << 60 or not 0 <= (row.until or 0) <= MAX_MS:
            problem = "a number is out of range"
        else:
            problem = definition.stored_fault(row.definition)
    elif isinstance(row, CalendarRow):
        problem = exclusion.stored_fault(row.definition)
    elif isinstance(row, GroupRow):
        if not 1 <= row.max_running <= MAX_RUNNING_MAX:
            problem = f"max_running is {row.max_running}, allowed are 1 to {MAX_RUNNING_MAX}"
    elif isinstance(row, RouteRow):
        problem = route.stored_fault(row.name, row.definition)
    elif len(row.sealed) > SECRET_BYTES_MAX + SEAL_OVERHEAD:
        problem = "it is too large"
    return None if problem is None else f"{row.name!r} cannot be read: {problem}"


def set_fault(jobs: Mapping[str, Policy], calendars: Iterable[str], groups: Iterable[str]) -> str | None:
    """Why these do not stand together; None: they do.  All that a job names has to be there, and no chain is a ring."""
    known_calendars, known_groups = set(calendars), set(groups)
    children: dict[str, list[str]] = {}
    waits: dict[str, int] = {}
    for name, policy in jobs.items():
        if policy.group is not None and policy.group not in known_groups:
            return f"job {name!r} names the group {policy.group!r}, which is not in it"
        for calendar in policy.recurrence.exclude:
            if calendar not in known_calendars:
                return f"job {name!r} names the calendar {calendar!r}, which is not in it"
        for parent, _ in policy.after:
            if parent in jobs:
                children.setdefault(parent, []).append(name)
                waits[name] = waits.get(name, 0) + 1
    free = [name for name in children if name not in waits]
    while free:
        for child in children.get(free.pop(), ()):
            waits[child] -= 1
            if not waits[child]:
                free.append(child)
    ring = next((name for name, count in waits.items() if count), None)
    return None if ring is None else f"job {ring!r} is in, or behind, a ring of jobs that would start each other"
