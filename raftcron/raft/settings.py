"""What a node's log is told when it is made: names, addresses, directory, time-outs and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raftcron.errors import ConfigurationError
from raftcron.raft.guard import MAX_COMMAND_BYTES
from raftcron.raft.proposals import ENVELOPE_BYTES
from raftcron.raft.tls import PeerTls


class Random(Protocol):
    """Where chance comes from; `random.Random` is one."""

    def random(self) -> float: ...
    def randbytes(self, count: int) -> bytes: ...


@dataclass(frozen=True)
class CompactionSettings:
    """When a snapshot is due, in what has applied since the last one, and what is kept behind it."""

    bytes: int = 64 << 20  # of commands, or the size of the last snapshot if that is more; and
    entries: int = 50_000  # entries, or four times those bytes
    kept_entries: int = 10_000  # behind a snapshot, so that a short absence costs no snapshot
    segment_bytes: int = 16 << 20  # a segment of the journal that is longer is followed by a new one


@dataclass(frozen=True)
class RaftSettings:
    """What a node's log is told.  Durations in seconds."""

    name: str
    listen: tuple[str, int]
    peers: Mapping[str, tuple[str, int]]  # all voters, this one too: name -> where the others reach it
    data_dir: Path  # for `journal` and `snapshots`
    secret: bytes  # of the cluster
    election_timeout: tuple[float, float] = (0.6, 1.2)
    leader_fallback: float = 0.8  # a leader that no majority has answered for so long leads no more
    max_command_bytes: int = 1 << 20
    request_timeout: float = 10.0  # of a proposal
    compaction: CompactionSettings = CompactionSettings()
    tls: PeerTls | None = None  # between peers

    def __post_init__(self) -> None:
        shortest, longest = self.election_timeout
        if not 0 < shortest < longest:
            raise ConfigurationError(f"election_timeout: {self.election_timeout} is not a range of seconds above 0")
        if self.leader_fallback < shortest / 2:
            raise ConfigurationError(
                f"leader_fallback: {self.leader_fallback} s is below half of the shortest election time-out, "
                f"{shortest} s, so one slow moment would depose a leader"
            )
        if self.name not in self.peers:
            raise ConfigurationError(f"peers: {self.name!r}, this node, is not among {', '.join(sorted(self.peers))}")
        most = MAX_COMMAND_BYTES - ENVELOPE_BYTES
        if not 1 <= self.max_command_bytes <= most:
            raise ConfigurationError(f"max_command_bytes: {self.max_command_bytes} is not from 1 to {most}")
        if not self.secret:
            raise ConfigurationError("secret: a cluster needs one, the same on every node")

    @property
    def heartbeat_seconds(self) -> float:
        return self.election_timeout[0] / 12
