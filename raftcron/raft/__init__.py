"""The adapter to the consensus engine: a replicated log among named peers.  The only room that knows PySyncObj."""

from raftcron.raft.device import Device, SystemDevice
from raftcron.raft.engine import Engine
from raftcron.raft.settings import RaftSettings

__all__ = ["Device", "Engine", "RaftSettings", "SystemDevice"]
