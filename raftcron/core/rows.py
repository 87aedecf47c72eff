"""Run records by id, in the order of their decisions: active ones as objects, ended ones packed into bytes.

A row that has ended is read now and then and hardly ever changed again, and there may be a million of them: as bytes,
which the digest needs anyway, it takes a third of the memory.  What `get` gives of it is a copy; who changes the copy
tells the state by `touch`, which puts it in the row's place until the entry is sealed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from struct import Struct

import msgspec

from raftcron.core.model import FAILED, LOST, TIMED_OUT, Run

FAILURES = frozenset({FAILED, TIMED_OUT, LOST})
LOOK_AFTER = 32  # ids that came to a line, until it is looked through by twice as many

_decode = msgspec.msgpack.Decoder(Run).decode
_encode = msgspec.msgpack.Encoder().encode
_END = Struct("<I?16s")  # behind the record: bytes of its output tail, whether it is a failure, its digest


class Rows:
    """A mapping of ids to rows, for reading; what changes it is for `State` and `image`."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[str, Run | bytes] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._rows)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._rows

    def __getitem__(self, run_id: str) -> Run:
        return _open(self._rows[run_id])

    def get(self, run_id: str) -> Run | None:
        row = self._rows.get(run_id)
        return None if row is None else _open(row)

    def active(self, run_id: str) -> Run | None:
        """The row if it has not ended; cheap, nothing is unpacked."""
        row = self._rows.get(run_id)
        return None if isinstance(row, bytes) else row

    def values(self) -> Iterator[Run]:
        return map(_open, self._rows.values())

    def encodings(self) -> Iterator[bytes]:
        """Every row as a snapshot carries it: without its digest."""
        for row in self._rows.values():
            if isinstance(row, bytes):
                yield row[: -_END.size]
            else:
                kept, row.digest = row.digest, 0
                data = _encode(row)
                row.digest = kept
                yield data

    # ---- changes

    def put(self, run: Run) -> None:
        """A new row, or a changed one in the place of the packed one."""
        self._rows[run.id] = run

    def pack(self, run_id: str, data: bytes, run: Run, digest: bytes) -> None:
        """The row has ended: `data` is its encoding, `digest` the hash of that."""
        self._rows[run_id] = data + _END.pack(len(run.output_tail), run.state in FAILURES, digest)

    def pop(self, run_id: str) -> Run | bytes:
        return self._rows.pop(run_id)

    def packed(self, run_id: str) -> bytes | None:
        """The row as it lies packed, for `end_of`; None if it does not."""
        row = self._rows.get(run_id)
        return row if type(row) is bytes else None

    def containers(self) -> list[dict[str, Run | bytes]]:
        """All that it holds, for whoever lets go of a million rows slice by slice."""
        return [self._rows]


def end_of(row: bytes) -> tuple[int, int, bool, bytes]:
    """Of a packed row: bytes without its output tail, those of the tail, whether it is a failure, its digest.

    Tails are bounded by themselves.
    """
    tail_bytes, is_failure, digest = _END.unpack_from(row, len(row) - _END.size)
    return len(row) - _END.size - tail_bytes, tail_bytes, is_failure, digest


def _open(row: Run | bytes) -> Run:
    if not isinstance(row, bytes):
        return row
    run = _decode(memoryview(row)[: -_END.size])
    run.digest = int.from_bytes(row[-16:], "little")
    return run


def newest_first(run: Run) -> tuple[int, int, str]:
    """Sort key of rows: the latest decision first, then the latest scheduled time."""
    return (-run.log_index, -run.scheduled_time, run.id)


class Line:
    """Ids of rows in the order in which they may leave; those whose row has left already are passed over.

    For each id that comes two are looked at and, if their rows are gone, let go, round and round and some at a time: so
    it stays below three times what is there, and no look is long.
    """

    __slots__ = ("_came", "_coming", "_looked_at")

    def __init__(self) -> None:
        self._looked_at: deque[str] = deque()  # all of them before all of those to come
        self._coming: deque[str] = deque()
        self._came = 0  # since the last look

    def append(self, run_id: str, rows: Rows) -> None:
        self._coming.append(run_id)
        self._came += 1
        if self._came >= LOOK_AFTER:
            self._came = 0
            self._look(rows)

    def _look(self, rows: Rows) -> None:
        coming, looked_at = self._coming, self._looked_at
        for _ in range(min(2 * LOOK_AFTER, len(coming))):
            run_id = coming.popleft()
            if run_id in rows:
                looked_at.append(run_id)
        if not coming:
            self._looked_at, self._coming = coming, looked_at

    def extend(self, run_ids: list[str]) -> None:
        self._coming.extend(run_ids)

    def pop(self, rows: Rows) -> str | None:
        """The first whose row is there; None if there is none."""
        for part in (self._looked_at, self._coming):
            while part:
                run_id = part.popleft()
                if run_id in rows:
                    return run_id
        return None

    def ids(self, rows: Rows) -> list[str]:
        """All whose rows are there, first to last."""
        return [run_id for part in (self._looked_at, self._coming) for run_id in part if run_id in rows]

    def __len__(self) -> int:
        return len(self._looked_at) + len(self._coming)

    def containers(self) -> list[deque[str]]:
        return [self._looked_at, self._coming]
