"""What a journal's records add up to: the log, the term, the vote, and who this node is.  No files here.

replay.py lets it `take` the records of the past; journal.py changes it as it writes new ones.
"""

from __future__ import annotations

import struct
from array import array

from raftcron import wire
from raftcron.raft.segment import Checkpoint, Kind

Entry = tuple[bytes, int, int]  # command, index, term: the engine's order

ENTRY = struct.Struct("<QQ")
U64 = struct.Struct("<Q")


class Kept:
    """All that a node must not forget.

    The log's indices have no gaps.  Where entries up to `base` are gone, or may go, since a snapshot holds them,
    `base` is the first entry's index; that entry stays for the sake of its term, after opening as `(b"", base, term)`.
    """

    def __init__(self) -> None:
        self.log: list[Entry] = []  # read it, but let the methods change it
        self.base = 0  # 0: the log is whole
        self.term = 0
        self.voted_for: str | None = None
        self.name: str | None = None
        self.disk_id = ""
        self.cluster_id: str | None = None
        self.incarnation = 0
        self.is_known = True  # False while records are read whose beginning has been removed: see `take_checkpoint`
        self._ends = array("Q")  # the bytes of all commands up to and with each entry, counted from somewhere before
        self._end = 0  # the last of them
        self._dropped: list[Entry] = []  # entries that still take memory

    # ---- the log -------------------------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        return self.log[0][1] if self.log else 0

    @property
    def last_index(self) -> int:
        return self.log[-1][1] if self.log else 0

    @property
    def command_bytes(self) -> int:
        """Of all entries of the log."""
        return self._end - self._ends[0] + len(self.log[0][0]) if self.log else 0

    def bytes_between(self, first: int, last: int) -> int:
        """Of the commands of the entries behind `first` up to and with `last`, both in the log."""
        begin = self.first_index
        return int(self._ends[last - begin] - self._ends[first - begin])

    def holds(self, index: int, term: int) -> bool:
        place = index - self.first_index
        return 0 <= place < len(self.log) and self.log[place][2] == term

    def append(self, entry: Entry) -> None:
        self.log.append(entry)
        self._end += len(entry[0])
        self._ends.append(self._end)

    def cut(self, place: int) -> None:
        """Take back the entries from `place`, at least 1, on."""
        del self.log[place:], self._ends[place:]
        self._end = self._ends[-1]

    def drop(self, place: int) -> None:
        """Forget the entries before `place`, which a snapshot holds, as it does the one that stands there."""
        if place:
            self._let_go(self.log[place:])
            del self._ends[:place]
        self.base = self.log[0][1]

    def restart(self, index: int, term: int) -> None:
        """A snapshot holds all up to this entry, and nothing follows; index 0: the log is empty."""
        self._let_go([])
        del self._ends[:]
        self.base = index
        if index:
            self.append((b"", index, term))

    def _let_go(self, log: list[Entry]) -> None:
        self._dropped.clear()  # is empty, unless this is called more often than every few seconds
        self._dropped, self.log = self.log, log

    def release(self, limit: int) -> None:
        """Give back the memory of dropped entries, at most `limit` of them."""
        if self._dropped:
            del self._dropped[-limit:]

    # ---- what may follow -----------------------------------------------------------------------------------------

    def misfit(self, index: int, term: int) -> str | None:
        """Why an entry cannot be the next one; None if it can."""
        if self.log:
            _, last_index, last_term = self.log[-1]
            if index != last_index + 1 or term < last_term:
                return f"entry {index} of term {term} cannot follow entry {last_index} of term {last_term} in the log"
        elif index < 1:
            return f"entry {index} cannot be the first one of a log"
        return None

    def misvote(self, term: int, voted_for: str | None) -> str | None:
        """Why term and vote cannot follow the ones held; None if they can."""
        if term < self.term:
            return f"term {term} cannot follow term {self.term}"
        if term == self.term and self.voted_for is not None and voted_for != self.voted_for:
            return f"a vote for {voted_for or 'nobody'} in term {term} cannot follow one for {self.voted_for}"
        return None

    # ---- records -------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """What a segment that is begun now has to say first."""
        last_index, last_term = self.log[-1][1:] if self.log else (0, 0)
        return Checkpoint(
            self.name,
            self.disk_id,
            self.cluster_id,
            self.incarnation,
            self.term,
            self.voted_for,
            last_index,
            last_term,
        )

    def take(self, kind: int, body: memoryview) -> str | None:
        """One record of the past but a checkpoint; a text if it does not fit what came before.

        Raises struct.error or ValueError for a body of no known form.
        """
        match kind:
            case Kind.ENTRY if self.is_known:
                index, term = ENTRY.unpack_from(body)
                if (fault := self.misfit(index, term)) is not None:
                    return fault
                self.append((bytes(body[ENTRY.size :]), index, term))
            case Kind.CUT if self.is_known:
                (index,) = U64.unpack(body)
                first, last = self.first_index, self.last_index
                if self.base and index <= self.base:
                    self.is_known = False  # the entry before `index` was in a segment that is gone
                elif first < index <= last:
                    self.cut(index - first)
                else:
                    return f"it cuts the log from entry {index} on, which the log does not hold"
            case Kind.VOTE:
                (term,) = U64.unpack_from(body)
                voted_for = str(body[U64.size :], "utf-8") or None
                if (fault := self.misvote(term, voted_for)) is not None:
                    return fault
                self.term, self.voted_for = term, voted_for
            case Kind.IDENTITY:
                self.name, self.disk_id = wire.unpack(body)
            case Kind.INCARNATION:
                (incarnation,) = U64.unpack(body)
                if incarnation <= self.incarnation:
                    return f"life {incarnation} cannot follow life {self.incarnation}"
                self.incarnation = incarnation
            case Kind.CLUSTER:
                self.cluster_id = str(body, "utf-8")
        return None

    def take_checkpoint(self, point: Checkpoint, is_base: bool) -> str | None:
        """The first record of a segment; a text if it does not fit what came before.

        What came before is not known if segments have been removed: at the first segment that is left, and again from
        a cut on that goes behind where its log begins, up to the next checkpoint.
        """
        before = self.checkpoint()
        if is_base:
            before = before._replace(last_index=point.last_index, last_term=point.last_term)
        if self.is_known and point != before:
            return f"it says {tuple(point)}, the segments before say {tuple(before)}"
        if is_base or not self.is_known:
            self.name, self.disk_id, self.cluster_id = point.name, point.disk_id, point.cluster_id
            self.incarnation, self.term, self.voted_for = point.incarnation, point.term, point.voted_for
            self.restart(point.last_index, point.last_term)
            self.is_known = True
        return None
