"""Which node gets an attempt, what a queued run waits for, and how a run is cut into parts (semantics 10).

Pure: the caller says which nodes are live and what room they have.  `apply` asks for runs that begin in the entry that
decides them, the leader for those that wait in the queue.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from raftcron.core.model import (
    ON_ALL,
    ON_ANY,
    ON_LEADER,
    ON_LEAST_LOADED,
    ON_STICKY,
    PACED_CAUSES,
    Node,
    Part,
    Policy,
    Run,
)

_WHOLE = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # of 2^64

Tags = tuple[tuple[str, str], ...]


class Lane(NamedTuple):
    """What a queued run waits for; runs of one lane differ in age alone, so the first of them stands for all."""

    priority: int
    on: str
    tags: Tags
    node: str | None  # the only one, of a part of a broadcast
    group: str | None
    process: str | None  # Policy.process
    is_paced: bool  # it is caught up, or of a backfill
    is_whole: bool  # it will be divided before anything is assigned


class Room(Protocol):
    """What is known of the nodes' room."""

    def carries(self, node: str, tags: Tags) -> bool:
        """Whether the node is known and has all these tags."""

    def has_slot(self, node: str, *, process: str | None) -> bool:
        """Whether one more run fits there; `process` is its policy's."""

    def load(self, node: str) -> float:
        """The share of its slots that is taken, 0 to 1."""


@functools.lru_cache(maxsize=4_096)
def _lane(policy: Policy, is_paced: bool, node: str | None, is_part: bool) -> Lane:
    is_whole = is_split(policy) and not is_part
    on = policy.placement
    if is_part:
        on = ON_LEAST_LOADED if policy.placement in (ON_LEADER, ON_STICKY) else policy.placement
    return Lane(policy.priority, on, policy.tags, node, policy.group, policy.process, is_paced, is_whole)


def lane_of(policy: Policy, run: Run) -> Lane:
    """The lane of a queued run that may start."""
    part = run.part
    is_paced = run.cause in PACED_CAUSES and run.attempt == 1
    return _lane(policy, is_paced, None if part is None else part.node, part is not None)


def is_split(policy: Policy) -> bool:
    """Whether the job's runs are done by parts."""
    return bool(policy.shards) or policy.placement == ON_ALL


def carries(node: Node, tags: Tags) -> bool:
    """Whether a node has all these tags."""
    return all(node.tags.get(key) == value for key, value in tags)


def is_process(node: Node, process: str | None) -> bool:
    """Whether a run is a process of its own on this node; `process` is its policy's."""
    return process is not None and (not process or process in node.tags)


def choose(
    on: str,
    tags: Tags,
    live: Sequence[str],
    room: Room,
    *,
    leader: str,
    last: str | None = None,
    only: str | None = None,
    process: str | None = None,
    turn: int = 0,
) -> str | None:
    """The node that gets the next attempt; None: it has to wait.

    `live` is in one order for all who ask; `turn` moves on with each choice, so that equals take turns: multiples of
    the golden ratio spread evenly also where jobs that fall due together get every second, or third, of them.  `last`
    is where a sticky job ran last: it is waited for while it lives and matches.  `only` is the node of a part of a
    broadcast.
    """
    if only is not None:
        candidates: Sequence[str] = (only,) if only in live else ()
    elif on == ON_LEADER:
        candidates = (leader,) if leader in live else ()
    else:
        candidates = live
    matching = [name for name in candidates if room.carries(name, tags)]
    if on == ON_STICKY and last in matching:
        matching = [last]
    free = [name for name in matching if room.has_slot(name, process=process)]
    if not free:
        return None
    at = (turn * _GOLDEN & _WHOLE) * len(free) >> 64
    if on == ON_ANY or len(free) == 1:
        return free[at]
    return min(free[at:] + free[:at], key=room.load)


def matching(tags: Tags, only: str | None, live: Iterable[str], room: Room) -> list[str]:
    """The live nodes where a run with these demands could be."""
    return [name for name in live if (only is None or name == only) and room.carries(name, tags)]


def part_names(policy: Policy, run: Run, nodes: Iterable[str]) -> tuple[str, ...]:
    """What the parts of a run are called: the nodes of a broadcast, or the numbers of its shards.

    A run that is to do one part of a former one again has that part alone, or none where the job has it no more.
    """
    names = tuple(sorted(set(nodes))) if policy.placement == ON_ALL else tuple(map(str, range(policy.shards)))
    again = part_name(run.retry_of)
    return names if again is None else tuple(name for name in names if name == again)


def part_name(run_id: str | None) -> str | None:
    """What the part of this id is called; None: it is no part."""
    return None if run_id is None else run_id.partition(".")[2] or None


def part_id(parent: str, name: str) -> str:
    """A part's run id, derived from its parent's and from its shard or node."""
    return f"{parent}.{name}"


def parts_of(run: Run) -> list[str]:
    """The ids of a parent's parts."""
    return [] if run.split is None else [part_id(run.id, name) for name in run.split.names]


def part_of(policy: Policy, parent: str, name: str) -> Part:
    """What makes a row the part of that name."""
    if policy.placement == ON_ALL:
        return Part(parent, node=name)
    return Part(parent, int(name), policy.shards)
