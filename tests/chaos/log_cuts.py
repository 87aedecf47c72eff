"""A node's cut of its log as its files show it: when it goes on, and whether the process died in the middle of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from raftcron.raft.segment import decode_checkpoint, decode_header, records

WRITTEN = re.compile(rb"snapshot_written index=(\d+)")


class LogCut:
    """The cut behind the next snapshot that a node says to have written; it removes segments one by one.

    `data` is its directory, `log` the file that it logs to; `kept_bytes` of entries it keeps behind a snapshot.  A
    leader may keep more, for whom it serves an older snapshot: then too much is taken for unfinished.
    """

    def __init__(self, data: Path, log: Path, kept_bytes: int) -> None:
        self._folder = data / "journal"
        self._log = log
        self._kept_bytes = kept_bytes
        self._said = log.stat().st_size
        self._index: int | None = None  # that the snapshot ends with
        self._oldest: Path | None = None  # when it was seen that it is written

    def goes_on(self) -> bool:
        """Whether a segment has gone since the snapshot was seen to be written: right after that the cut begins."""
        if self._index is not None:
            return self._segments()[0] != self._oldest
        with self._log.open("rb") as log:
            log.seek(self._said)
            if (written := WRITTEN.search(log.read())) is not None:
                self._oldest = self._segments()[0]
                self._index = int(written[1])
        return False

    def is_unfinished(self) -> bool:
        """Whether a segment that was to go is there still: the process has ended, and `goes_on` was true before.

        The oldest was to go if more lies between its end and the snapshot than is kept.  Of that more than half are
        entries, as long as they are not all of a few bytes.
        """
        assert self._index is not None
        segments = self._segments()
        ends = [_stands_at(path) for path in segments[1:]] + [sys.maxsize]
        behind = sum(
            path.stat().st_size for path, end in zip(segments[1:], ends[1:], strict=True) if end <= self._index
        )
        return behind > 2 * self._kept_bytes

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("*.segment"))


def _stands_at(path: Path) -> int:
    """The last entry before a segment that is not the first; no number that there is, if its beginning is not whole."""
    with path.open("rb") as file:
        data = file.read(4096)
    header = decode_header(data)
    if header is None or (first := next(records(memoryview(data), len(data), header.salt), None)) is None:
        return sys.maxsize
    return decode_checkpoint(first[2]).last_index
