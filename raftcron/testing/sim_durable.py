"""What a disk would still hold of a log after a power cut, read from its durable bytes by code of its own."""

from __future__ import annotations

import struct
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

from raftcron.testing.sim_disk import Disk

_HEADER = struct.Struct("<8sIIQQII")
_RECORD = struct.Struct("<IIIB")
_NUMBER = struct.Struct("<Q")
_PAIR = struct.Struct("<QQ")
_CHECKPOINT = struct.Struct("<QQQQ")  # incarnation, term, last index, last term
_FOOTER_BYTES = 33  # of a snapshot: what its id does not count
_VOTE, _ENTRY, _CUT, _BASE, _SEALED, _BEGINNING = 3, 4, 5, 7, 9, 10


def index_of(path: Path) -> int:
    """Of the last entry that is in a snapshot."""
    return int(path.stem.split("-")[0])


class DurableLog:
    """The terms of the entries that a disk's durable bytes hold, kept up to date as they grow.

    Of what lies before them, all that the newest whole snapshot ends with is held.
    """

    def __init__(self, disk: Disk, directory: Path, snapshots: Path) -> None:
        self.base = 0  # the segments that are there hold the entries behind it
        self.snapshot = 0  # index that the newest durable snapshot ends with; 0 for none
        self.first = 1  # index of the first of `terms`
        self.terms: list[int] = []
        self.term = 0  # of the node
        self._disk = disk
        self._directory = directory
        self._snapshots = snapshots
        self._whole: dict[Path, int] = {}  # durable snapshots -> the index they end with
        self._begins: list[tuple[Path, int]] = []  # segments, and where the log stood as they were begun
        self._rewrites = -1
        self._named = -1
        self._open(1)

    @property
    def last(self) -> int:
        return self.first + len(self.terms) - 1

    def holds(self, index: int, term: int) -> bool:
        if index <= self.snapshot:
            return True
        place = index - self.first
        return index > self.base and 0 <= place < len(self.terms) and self.terms[place] == term

    @property
    def has_gap(self) -> bool:
        """Whether the log begins behind entries that no snapshot holds."""
        return self.base > self.snapshot

    def read(self) -> None:
        """Take in what has become durable: as it was written, if a bit of it has arrived as the other one."""
        if not self._disk.is_aside:
            with self._disk.as_meant():
                self._read()

    def _read(self) -> None:
        disk = self._disk
        if self._rewrites != disk.rewrites or (self._path not in disk.files and self._begins):
            self._rewrites = disk.rewrites
            self.first, self.terms, self.term = 1, [], 0
            self._begins, self._whole, self._named = [], {}, -1
            there = [path for path in disk.files if path.parent == self._directory and path.suffix == ".segment"]
            self._open(int(min(there).stem) if there else 1)
        while (file := disk.files.get(self._path)) is not None and self._offset < len(file.durable):
            if not self._take(file.durable) and not self._is_followed():
                break
            self._open(self._number + 1)
        else:
            if file is not None and self._is_followed():
                self._open(self._number + 1)
                self._read()
        while len(self._begins) > 1 and self._begins[0][0] not in disk.files:
            del self._begins[0]
        self.base = min((index for _, index in self._begins), default=0)  # a later one may be lower: behind a cut
        if self._named != disk.named:
            self._named = disk.named
            self._look_at_snapshots()

    def _look_at_snapshots(self) -> None:
        disk, whole = self._disk, self._whole
        there = {path for path in disk.files if path.parent == self._snapshots and path.suffix == ".snapshot"}
        for path in [path for path in whole if path not in there]:
            del whole[path]
        for path in there:
            if path not in whole and disk.is_sure_of(path):
                digest = path.stem.split("-")[2]
                data = disk.files[path].durable[:-_FOOTER_BYTES]
                whole[path] = index_of(path) if blake2b(data, digest_size=16).hexdigest() == digest else 0
        self.snapshot = max(whole.values(), default=0)
        if disk.rotten is not None:  # it counts until its machine has found out that it can do without
            self.snapshot = max(self.snapshot, index_of(disk.rotten))

    def _is_followed(self) -> bool:
        """Whether the next segment says that this one ends here: it is made durable before this one is sealed."""
        following = self._disk.files.get(self._following)
        if following is None or not following.is_named or len(following.durable) < _HEADER.size:
            return False
        return bool(_HEADER.unpack_from(following.durable)[4] == self._offset)

    def _open(self, number: int) -> None:
        self._number, self._offset = number, 0
        self._path = self._directory / f"{number:012d}.segment"
        self._following = self._directory / f"{number + 1:012d}.segment"  # asked for at each look

    def _take(self, data: bytearray) -> bool:
        """Whether the segment ends here, and another follows."""
        if len(data) < _HEADER.size:
            return False
        salt = _HEADER.unpack_from(data)[5]
        offset = self._offset or _HEADER.size
        if not self._offset and self._number == 1:
            self._begins.append((self._path, 0))
        while offset + _RECORD.size <= len(data):
            crc, length, _, kind = _RECORD.unpack_from(data, offset)
            end = offset + _RECORD.size + length
            if end > len(data) or crc32(memoryview(data)[offset + 4 : end], salt) != crc:
                break
            body = offset + _RECORD.size
            if kind == _ENTRY and self._begins:
                index, term = _PAIR.unpack_from(data, body)
                if not self.terms:
                    self.first = index
                self.terms.append(term)
            elif kind == _CUT:
                index = _NUMBER.unpack_from(data, body)[0]
                if index <= self.first:  # what stands before it was in a segment that is gone
                    self._begins = []
                else:
                    del self.terms[index - self.first :]
            elif kind == _VOTE:
                self.term = _NUMBER.unpack_from(data, body)[0]
            elif kind in (_BASE, _BEGINNING):
                self._begin(kind == _BASE, *_CHECKPOINT.unpack_from(data, body))
            elif kind == _SEALED:
                return True
            offset = end
        self._offset = offset
        return False

    def _begin(self, is_base: bool, _: int, term: int, last: int, last_term: int) -> None:
        """A checkpoint: the log stands there, or, as a base, begins there anew."""
        if is_base or not self._begins:
            self._begins = []
            self.first, self.terms, self.term = last or 1, [last_term] if last else [], term
        self._begins.append((self._path, last))
