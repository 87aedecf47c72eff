"""The newest events of one node, in memory and on disk, for any number of readers that each go at their own pace.

On disk they are frames, one a batch of entries: length, CRC-32, then msgpack of a Frame.  They are written before a
reader sees them and not synced: after the death of the process all are there; after a power cut those count that are
whole and follow each other.  What a restart replays from the log is derived anew, alike; so only what lies before the
snapshot that it begins with is read from here, and a gap between the two is a gap that readers are told of.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from raftcron.core.events import Event
from raftcron.errors import GoneError

log = logging.getLogger(__name__)

EVENTS_KEPT: Final = 100_000  # some 15 MB in memory, and as much on disk
FILES: Final = 4  # of EVENTS_KEPT / FILES events each, besides the one that is written
FRAME_BYTES_MAX: Final = 64 << 20
FRAME_EVENTS: Final = 1_000  # a batch of more is cut here
_HEAD: Final = 8  # bytes of length and CRC
LAST_PLACE: Final = 1 << 62  # behind every event of an index


class Place(NamedTuple):
    """Of an event: `<index>.<n>`."""

    log_index: int
    n: int

    def __str__(self) -> str:
        return f"{self.log_index}.{self.n}"


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The events of one entry."""

    index: int
    events: list[Event]


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All events of the entries behind `after` up to `through`."""

    after: int
    through: int
    entries: list[Entry]


class Held(NamedTuple):
    """A frame as it is kept: `data` is its msgpack."""

    number: int  # counts frames, and never repeats in a process
    first: int  # index
    last: int
    events: int  # how many
    data: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


class EventLog:
    """One node's newest events.  Implements machine.Watched; `folder` None keeps them in memory alone."""

    def __init__(self, folder: Path | None = None, kept: int = EVENTS_KEPT) -> None:
        self._folder = folder
        self._kept = kept
        self._frames: deque[Held] = deque()
        self._count = 0  # of events in them
        self._number = 0
        self._missed = Place(0, 0)  # everything behind this is held
        self._framed = 0  # the last index that frames tell of
        self._through = 0  # the last index that was taken in
        self._is_begun = False  # this process knows from where on entries come to it
        self._pending: list[Entry] = []
        self._pending_count = 0
        self._news = asyncio.Event()
        self._file: BinaryIO | None = None
        self._file_count = 0
        if folder is not None:
            self._open(folder)

    # ---- machine.Watched

    def take(self, index: int, events: Iterable[Event]) -> None:
        """The events of an entry."""
        if not self._is_begun:
            self._begin_with(index)
        self._through = index
        found = list(events)
        if found:
            self._pending.append(Entry(index, found))
            self._pending_count += len(found)
            if self._pending_count >= FRAME_EVENTS:
                self._flush()

    def applied(self) -> None:
        """A batch is over: its events are written, and readers see them."""
        if self._through > self._framed:
            self._flush()

    def restored(self, index: int) -> None:
        """The state is that of a snapshot: what comes behind `index` follows, what lies before is held or missed."""
        self._is_begun = True
        self._pending.clear()
        self._pending_count = 0
        if self._framed < index:
            self._clear(Place(index, LAST_PLACE))
            self._number += 1  # of what never came: also who has read all that did is told
        elif self._framed > index:
            self._cut(index)
        self._framed = self._through = index
        self._wake()

    def _begin_with(self, index: int) -> None:
        """No snapshot came before: this process derives all there ever was, and entries before `index` told nothing."""
        self._is_begun = True
        self._clear(Place(0, 0))
        self._framed = self._through = index - 1

    # ---- readers

    @property
    def oldest(self) -> str:
        """The id of the oldest event that is held, or of where the next one will be."""
        if self._frames:
            return str(Place(self._frames[0].first, 0))
        return str(Place(self._through, 0))

    @property
    def through(self) -> int:
        """The last index whose events are held."""
        return self._through

    def reader(self, after: Place | None) -> Reader:
        """From behind `after` on; None: from now on.  GoneError: what follows it is no longer held."""
        if after is None:
            return Reader(self, self._number, Place(self._through, LAST_PLACE))
        if after < self._missed:
            raise GoneError(
                f"events behind {after} are no longer held here: the oldest is {self.oldest}; list again, and begin "
                "without Last-Event-ID"
            )
        return Reader(self, self._number_at(after), after)

    def whole(self) -> Reader:
        """From the oldest that is held on."""
        return Reader(self, self._number_at(self._missed), self._missed)

    def news(self) -> asyncio.Event:
        """Set once there is something new; to be asked for before one looks."""
        return self._news

    def behind(self, number: int) -> Iterator[Held]:
        """The frames numbered above `number`.  GoneError: one of them has left, maybe while they were read."""
        for wanted in range(number + 1, self._number + 1):
            place = wanted - self._first_number()
            if place < 0:
                raise GoneError(f"it read too slowly: the oldest event held is {self.oldest} now")
            yield self._frames[place]

    def _first_number(self) -> int:
        """Of the oldest frame that is held, or of the next one."""
        return self._frames[0].number if self._frames else self._number + 1

    def _number_at(self, after: Place) -> int:
        """Of the newest frame of which nothing follows `after`: what comes behind it is to be read."""
        skipped = bisect_right(self._frames, after, key=lambda held: Place(held.last, LAST_PLACE))
        return self._first_number() - 1 + skipped

    # ---- keeping

    def _flush(self) -> None:
        frame = Frame(self._framed, self._through, self._pending)
        self._pending, self._pending_count = [], 0
        self._add(frame)
        self._wake()

    def _add(self, frame: Frame) -> None:
        data = _encode(frame)
        count = sum(len(entry.events) for entry in frame.entries)
        self._write(data, count)
        self._keep(frame, count, data)

    def _keep(self, frame: Frame, count: int, data: bytes) -> None:
        self._framed = frame.through
        if not count:
            return
        self._number += 1
        self._frames.append(Held(self._number, frame.entries[0].index, frame.entries[-1].index, count, data))
        self._count += count
        while self._count > self._kept and len(self._frames) > 1:
            gone = self._frames.popleft()
            self._count -= gone.events
            self._missed = Place(gone.last, LAST_PLACE)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _clear(self, missed: Place) -> None:
        self._frames.clear()
        self._count = 0
        self._missed = missed
        self._start_files()

    def _cut(self, index: int) -> None:
        """What lies behind `index` comes again, alike."""
        frames = [_decode(held.data) for held in self._frames if held.first <= index]
        missed = self._missed
        self._clear(missed)
        self._framed = missed.log_index
        for frame in frames:
            entries = [entry for entry in frame.entries if entry.index <= index]
            self._add(Frame(self._framed, entries[-1].index, entries))
        self._add(Frame(self._framed, index, []))

    # ---- files

    def _open(self, folder: Path) -> None:
        """Read what a former life has written; what a gap cuts off from the newest is gone."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.events")):
            for data in _frames_of(path):
                frame = _decode(data)
                if frame.after != self._framed:
                    self._frames.clear()
                    self._count = 0
                    self._missed = Place(frame.after, LAST_PLACE)
                self._keep(frame, sum(len(entry.events) for entry in frame.entries), data)
        self._through = self._framed
        if self._frames:
            log.info("events_read count=%d oldest=%s", self._count, self.oldest)

    def _start_files(self) -> None:
        """Begin anew on disk."""
        if self._folder is None:
            return
        if self._file is not None:
            self._file.close()
            self._file = None
        for path in self._folder.glob("*.events"):
            path.unlink()

    def _write(self, data: bytes, count: int) -> None:
        if self._folder is None:
            return
        try:
            if self._file is None or self._file_count >= self._kept // FILES:
                self._next_file(self._folder)
            assert self._file is not None
            self._file.write(len(data).to_bytes(4, "little") + zlib.crc32(data).to_bytes(4, "little") + data)
            self._file_count += max(1, count)
        except OSError as error:  # a full disk ends the node elsewhere; watching is not worth it
            log.warning("events_unwritten error=%s next=in_memory_only", error)
            self._folder = None

    def _next_file(self, folder: Path) -> None:
        if self._file is not None:
            self._file.close()
        paths = sorted(folder.glob("*.events"))
        number = int(paths[-1].stem) + 1 if paths else 1
        self._file = (folder / f"{number:012}.events").open("ab", buffering=0)
        self._file_count = 0
        for path in paths[:-FILES]:
            path.unlink()

    def close(self) -> None:
        """No more events."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Reader:
    """One who watches, at a pace of its own."""

    def __init__(self, events: EventLog, number: int, after: Place) -> None:
        self._events = events
        self._number = number  # of the last frame that was read
        self._after = after

    def read(self) -> Iterator[tuple[Place, Event]]:
        """What has come since the last call.  GoneError: it has left before it was read."""
        for held in self._events.behind(self._number):
            self._number = held.number
            if held.last < self._after.log_index:
                continue
            for entry in _decode(held.data).entries:
                for n, event in enumerate(entry.events):
                    place = Place(entry.index, n)
                    if place > self._after:
                        self._after = place
                        yield place, event


def _frames_of(path: Path) -> Iterator[bytes]:
    """The whole frames of a file, up to the first that is not."""
    raw = path.read_bytes()
    at = 0
    while len(raw) - at > _HEAD:
        size = int.from_bytes(raw[at : at + 4], "little")
        if not 0 < size <= FRAME_BYTES_MAX:  # zeros, of pages that were never written, have a right checksum
            return
        data = raw[at + _HEAD : at + _HEAD + size]
        if len(data) < size or zlib.crc32(data).to_bytes(4, "little") != raw[at + 4 : at + 8]:
            return
        yield data
        at += _HEAD + size
