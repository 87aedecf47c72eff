"""Whether the engine that is installed is the one that raftcron mends: the hash of each pinned piece of its source."""

from __future__ import annotations

import hashlib
import linecache
from collections.abc import Callable
from typing import Any

import pysyncobj

from raftcron.errors import ConfigurationError
from raftcron.raft import engine_copy

ENGINE_VERSION = "0.3.17"

# The first 16 hex digits of the SHA-256 of the source of everything that seam.py replaces, wraps or relies upon.
_PINNED = """
syncobj.SyncObj.__init__ 09df12cd7fd7d727
syncobj.SyncObj.doTick bef78c2ba06d784b
syncobj.SyncObj._onTick cc9eb08232d005ba
syncobj.SyncObj.__onMessageReceived ddfe34b6c0282179
syncobj.SyncObj.__onBecomeLeader 5a3fd97bc17dc1cf
syncobj.SyncObj.__setCurrentTerm 0ad5bf456ac06bd3
syncobj.SyncObj.__setState 2c1f239f7bd79b39
syncobj.SyncObj.__onLeaderChanged 53b7685e1d897887
syncobj.SyncObj.__onNodeConnected 2655afb481b4c69b
syncobj.SyncObj.__onNodeDisconnected a81c0475ba2218cc
syncobj.SyncObj.__connectedToAnyone acd40e9e3ac6c4cc
syncobj.SyncObj.__getCurrentLogIndex e5af22ca246686bd
syncobj.SyncObj.__getCurrentLogTerm 1cb8867e6a13d397
syncobj.SyncObj.__getEntries e29c4b33293b2101
syncobj.SyncObj.__deleteEntriesFrom 3b23c411bb903d36
syncobj.SyncObj.__onSetCodeVersion 17b050edb193c853
syncobj.SyncObj.__sendAppendEntries 9cb9073128c392fa
syncobj.SyncObj.__sendNextNodeIdx 68aaeefc267b8896
syncobj.SyncObj.__applyLogEntries 073db677773b5a2d
syncobj.SyncObj.__doApplyCommand 1ea7aa506e950d0a
syncobj.SyncObj.__generateRaftTimeout 92ed37d3620e781a
syncobj.SyncObj.__loadDumpFile ec66e83905de703b
syncobj.SyncObj.__tryLogCompaction c2f8a0ec14cc7312
syncobj.SyncObj._checkCommandsToApply a386a8079361d204
syncobj._RAFT_STATE 38948a15e3da01ce
syncobj._COMMAND_TYPE 58f27851ee19fca3
config.SyncObjConf e8d5f06ea6435e2c
node.Node 08d57d1bfde2aca1
transport.Transport 9b0212a7af6123e7
"""


def source_of(name: str) -> str:
    """The source of a pinned name, `module.Class.method` inside pysyncobj; empty if there is none."""
    module, *parts = name.split(".")
    found: Any = engine_copy.engine if module == "syncobj" else getattr(pysyncobj, module)
    lines = linecache.getlines(found.__file__)
    for part in parts:
        found = getattr(found, f"_{found.__name__}{part}" if part.startswith("__") and part[-1] != "_" else part, None)
        if found is None:
            return ""
    if isinstance(found, type):
        heads = (f"class {found.__name__}(", f"class {found.__name__}:")
        first = next((at for at, line in enumerate(lines) if line.startswith(heads)), len(lines))
    else:
        first = found.__code__.co_firstlineno - 1
    return "".join(lines[first : _end_of_block(lines, first)]) if first < len(lines) else ""


def _end_of_block(lines: list[str], first: int) -> int:
    """Behind the last line of the block that begins at `first`: the last one with text before one that is no deeper.

    Where the text up to there is the pinned one, nothing of the block can follow.  `inspect.getsource` tells the same,
    but reads each class and method by its tokens: a sixth of the time that a node takes to start.
    """
    end = first + 1
    while not lines[end - 1].lstrip().startswith(("def ", "class ")):  # decorators
        end += 1
    for at in range(end, len(lines)):
        if lines[at].strip():
            if _depth(lines[at]) <= _depth(lines[first]):
                break
            end = at + 1
    return end


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def check_engine(version: str, source_of: Callable[[str], str] = source_of) -> None:
    """Raises ConfigurationError unless `version` and the source of every pinned name are the ones that are mended."""
    remedy = f"install exactly pysyncobj=={ENGINE_VERSION} (pip install --force-reinstall pysyncobj=={ENGINE_VERSION})"
    if version != ENGINE_VERSION:
        raise ConfigurationError(f"pysyncobj is of version {version}, raftcron knows {ENGINE_VERSION} only: {remedy}")
    for line in _PINNED.strip().split("\n"):
        name, digest = line.split()
        if hashlib.sha256(source_of(name).encode()).hexdigest()[:16] != digest:
            raise ConfigurationError(f"{name} of pysyncobj is not the one that raftcron mends: {remedy}")
