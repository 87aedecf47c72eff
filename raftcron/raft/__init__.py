"""The adapter to the consensus engine: a replicated log among named peers.  The only room that knows PySyncObj."""

from raftcron.raft.device import Device, SystemDevice
from raftcron.raft.engine import Engine
from raftcron.raft.scribe import ForkedScribe, Scribe, SlicedScribe
from raftcron.raft.settings import CompactionSettings, RaftSettings, Random

__all__ = [
    "CompactionSettings",
    "Device",
    "Engine",
    "ForkedScribe",
    "RaftSettings",
    "Random",
    "Scribe",
    "SlicedScribe",
    "SystemDevice",
]
