"""An answer that is sent piece by piece, as fast as its reader takes it: one that takes nothing is given up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web

log = logging.getLogger(__name__)

SLOW_SECONDS = 30.0  # for a reader to take a piece
PIECE_BYTES = 64 << 10


class TakesNothingError(ConnectionResetError):
    """The reader has taken nothing for SLOW_SECONDS.  Its text says so."""


class PacedResponse(web.StreamResponse):
    """As its base, but each write raises TakesNothingError rather than wait for ever."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        for at in range(0, len(view), PIECE_BYTES):
            async with _in_time():
                await super().write(view[at : at + PIECE_BYTES])

    async def write_eof(self, data: bytes = b"") -> None:
        async with _in_time():
            await super().write_eof(data)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(SLOW_SECONDS):
            yield
    except TimeoutError:
        raise TakesNothingError(f"it took nothing for {SLOW_SECONDS:g} s") from None


@contextmanager
def dropping(request: web.Request, what: str) -> Iterator[None]:
    """Around the answer: the connection of a reader that takes nothing is cut, and the log says so, once."""
    try:
        yield
    except TakesNothingError as error:
        log.info("%s_reader_dropped reason=%s", what, error)
        if request.transport is not None:
            request.transport.abort()  # to close it would wait for what is not taken
        raise
