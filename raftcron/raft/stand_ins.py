"""Small things that stand where the engine expects its own: serializer, poller, clock, node, transport, methods."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any, NoReturn

import pysyncobj.node
import pysyncobj.transport

from raftcron.clock import Clock
from raftcron.errors import FatalError


class ShutOff:
    """Stands where the engine keeps something that raftcron never uses."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __getattr__(self, name: str) -> NoReturn:
        raise FatalError(f"the engine reached for {self._what}.{name}, which raftcron has shut off; this is a defect")


class NoPoller:
    def poll(self, _timeout: float) -> None:
        """Nothing to wait for: the node's own loop delivers messages."""


class NoResolver:
    """Addresses are the transport's business."""

    def setTimeouts(self, *_seconds: float) -> None:  # noqa: N802  # as the engine calls it
        """Nothing is kept."""

    def setPreferredAddrFamily(self, _family: object) -> None:  # noqa: N802  # likewise
        """Nothing is preferred."""


class EngineClock:
    """The engine asks its module for the time; each `Core` sets its own clock before it enters the engine."""

    current: Clock | None = None

    def __call__(self) -> float:
        if self.current is None:
            raise FatalError("the engine was entered without a clock; this is a defect of raft/seam.py")
        return self.current.monotonic()


class Peer(pysyncobj.node.Node):  # type: ignore[misc]  # the engine is not typed
    """A member, by name.  Its hash does not change between processes, so sets of them have one order."""

    def __init__(self, name: str) -> None:
        self._hash = zlib.crc32(name.encode())  # asked for many times a message
        super().__init__(name)

    def __hash__(self) -> int:
        return self._hash


class Outlet(pysyncobj.transport.Transport):  # type: ignore[misc]  # the engine is not typed
    """The engine's transport: what it sends goes to whoever made it."""

    def __init__(self, dispatch: Callable[[Peer, dict[str, Any]], bool]) -> None:
        super().__init__(None, None, None)
        self._dispatch = dispatch

    def send(self, node: Peer, message: dict[str, Any]) -> bool:
        return self._dispatch(node, message)


# ---- methods that do as little as the engine can bear --------------------------------------------------------------


def never(_core: object) -> float:
    """Replaces `__generateRaftTimeout`: the engine by itself never finds that it is time for an election."""
    return math.inf


def nothing(_core: object) -> None:
    """Replaces what is not used: forwarding (`_checkCommandsToApply`) and compaction (`__tryLogCompaction`)."""


def no_dump(_core: object, *_arguments: Any, **_named: Any) -> NoReturn:
    """Replaces `__loadDumpFile`."""
    raise FatalError("the engine tried to load its own kind of snapshot, which raftcron never writes; a defect")
