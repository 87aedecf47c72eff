"""Whether all answers fit into one order: linearizability by the indices that they carry.

Every answer names the log index at which its write took effect or its read was served, so the order is given, and
checking it takes one pass: each answer must be true at its index, and the indices must agree with real time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.chaos.history import Evidence, Read, Write

ACKNOWLEDGED = frozenset({200, 201, 204})


class Value(NamedTuple):
    """What a name holds; without a job, both are None."""

    revision: int | None
    body: str | None


NOTHING = Value(None, None)


def true_at_its_index(evidence: Evidence) -> Iterator[str]:
    """A read shows what the last write at or before its index left, and nothing that was answered 503."""
    reads: dict[str, list[Read]] = defaultdict(list)
    writes: dict[str, list[Write]] = defaultdict(list)
    for read in evidence.reads:
        reads[read.name].append(read)
    for write in evidence.writes:
        writes[write.name].append(write)
    for name, row in reads.items():
        yield from _of_one_name(name, sorted(row, key=lambda read: read.index), writes[name])


def _of_one_name(name: str, reads: list[Read], writes: list[Write]) -> Iterator[str]:
    known = sorted((write.index, write) for write in writes if write.status in ACKNOWLEDGED and write.index is not None)
    last_known = known[-1][0] if known else 0
    open_ends = [write for write in writes if write.status in (None, 504)]  # only the last can be one
    left = iter(known)
    following = next(left, None)
    held, since = NOTHING, 0
    for read in reads:
        while following is not None and following[0] <= read.index:
            since, write = following
            held = NOTHING if write.body is None else Value(write.revision, write.body)
            following = next(left, None)
        found = Value(read.revision, read.body)
        if found == held:
            continue
        is_late = read.index > last_known and found.body in {write.body for write in open_ends}
        if is_late and (found.revision is None or last_known < found.revision <= read.index):
            held, since = found, read.index
            open_ends = []  # it has happened: from here on it holds
            continue
        yield f"{name}: {read.node} showed {found} at index {read.index}; since index {since} it was {held}"


class Answer(NamedTuple):
    """An operation with a known place in the order."""

    began: int
    ended: int
    index: int
    is_write: bool
    what: str


def agrees_with_time(evidence: Evidence) -> Iterator[str]:
    """What began after another answer had come stands behind it in the log: a read at its index at least."""
    answers = [
        Answer(read.began, read.ended, read.index, False, f"read of {read.name} on {read.node}")
        for read in evidence.reads
    ]
    answers += [
        Answer(write.began, write.ended, write.index, True, f"write of {write.name} on {write.node}")
        for write in evidence.writes
        if write.status in ACKNOWLEDGED and write.index is not None
    ]
    by_end = iter(sorted(answers, key=lambda answer: answer.ended))
    ended = next(by_end, None)
    newest: Answer | None = None  # of those that had ended
    for answer in sorted(answers, key=lambda answer: answer.began):
        while ended is not None and ended.ended < answer.began:
            newest = ended if newest is None or ended.index > newest.index else newest
            ended = next(by_end, None)
        if newest is not None and answer.index < newest.index + answer.is_write:
            yield f"{answer.what} stands at index {answer.index}; a {newest.what} had ended at {newest.index} before"
