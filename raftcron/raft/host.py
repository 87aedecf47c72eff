"""What the engine's adapter (seam.py) asks of the rooms around it, and tells them: its owner, and the journal."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from raftcron.raft import guard
from raftcron.raft.guard import Offer


class Role(enum.IntEnum):
    """The engine's own numbers."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2


class Journal(guard.LogView, Protocol):
    """What the engine and `Core` use of the journal (journal.py)."""

    def sync(self) -> None:
        """All that was written is durable when this returns; nothing happens if it was so already."""


@dataclass(frozen=True, slots=True)
class Host:
    """What `Core` asks and tells its owner.  Called inside `step` and `receive`; must not call back into those."""

    transmit: Callable[[str, dict[str, Any]], bool]  # a message to a peer; False if it cannot leave now
    counts: Callable[[str], bool]  # whether a peer is the one that the log seats under its name (membership.py)
    may_vote: Callable[[], bool]  # whether this node may grant a vote (membership.py)
    may_stand: Callable[[], bool]  # likewise, whether it may stand for election
    voted: Callable[[], None]  # this node has voted for another
    heard_leader: Callable[[], None]  # a message of a current term has come from the leader
    received: Callable[
        [int], None
    ]  # the log holds entries of the leader from this index on, perhaps in place of others
    offer: Callable[[str], Offer | None]  # the snapshot for a peer that needs entries which are gone
    offered: Callable[[str, Offer], None]  # the leader has a snapshot of what this node has not applied; fetch it
    elected: Callable[[], None]  # this node leads now; its owner appends its first entries
    role_changed: Callable[[Role], None]
    apply: Callable[[int, int, bytes], None]  # index, term, command: committed; in order, each once; no no-ops
    applied: Callable[[int], None]  # a slice of entries up to this index has been applied
