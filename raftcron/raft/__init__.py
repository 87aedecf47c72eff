"""The adapter to the consensus engine: a replicated log among named peers.  The only room that knows PySyncObj."""

from raftcron.raft.device import Device, SystemDevice
from raftcron.raft.engine import Engine
from raftcron.raft.scribe import ForkedScribe, Scribe, SlicedScribe
from raftcron.raft.scribe import for_this_system as scribe_for_this_system
from raftcron.raft.settings import CompactionSettings, RaftSettings, Random
from raftcron.raft.tls import PeerTls

__all__ = [
    "CompactionSettings",
    "Device",
    "Engine",
    "ForkedScribe",
    "PeerTls",
    "RaftSettings",
    "Random",
    "Scribe",
    "SlicedScribe",
    "SystemDevice",
    "scribe_for_this_system",
]
