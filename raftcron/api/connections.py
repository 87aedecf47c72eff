"""How many connections a node holds: idle ones make room for others, and leave files for everything else.

A connection is busy while a request of it is handled, else idle: before its first request, between two, and as long as
the head of one is not complete.  Beyond the bound the one that has been idle longest makes room; where all are busy the
new one is turned away.  How long one may stay idle is the web framework's to see to (IDLE_SECONDS in server.py).
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

CONNECTIONS_MAX = 4_096  # and at most half of the files that the process may have open
FRESH_SECONDS = 1.0  # a connection this young may not stand yet; and so often ended ones are looked for


def most_connections() -> int:
    """The bound of this process."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if files == resource.RLIM_INFINITY else min(CONNECTIONS_MAX, max(16, files // 2))


class Connections:
    """The connections of one application."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most_connections() if most is None else most
        self._idle: dict[web.RequestHandler, float] = {}  # since when, longest first
        self._busy: set[web.RequestHandler] = set()
        self._looked_at = 0.0  # when ended ones were last looked for

    def admit(self, make: Callable[[], web.RequestHandler]) -> asyncio.BaseProtocol:
        """A further connection, which counts from now on; one that ends at once where there is no room."""
        if len(self._idle) + len(self._busy) >= self._most:
            self._forget_ended()
        while self._idle and len(self._idle) + len(self._busy) >= self._most:
            longest = next(iter(self._idle))
            del self._idle[longest]
            if longest.transport is not None:
                longest.transport.abort()
        if len(self._busy) >= self._most:
            return _TurnedAway()
        made = make()
        self._idle[made] = asyncio.get_running_loop().time()
        return made

    @contextmanager
    def handling(self, connection: web.RequestHandler) -> Iterator[None]:
        """A request of this connection is handled."""
        self._idle.pop(connection, None)
        self._busy.add(connection)
        try:
            yield
        finally:
            self._busy.discard(connection)
            if connection.transport is not None:
                self._idle[connection] = asyncio.get_running_loop().time()

    def _forget_ended(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < FRESH_SECONDS:
            return  # a look at all of them for each newcomer would hold the loop
        self._looked_at = now
        for connection, since in list(self._idle.items()):
            if connection.transport is None and now - since > FRESH_SECONDS:
                del self._idle[connection]


class _TurnedAway(asyncio.Protocol):
    """There was no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


CONNECTIONS: Final = web.AppKey("connections", Connections)
