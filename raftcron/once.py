"""A request over HTTP that leaves once: aiohttp's own second try is hidden from it, and what broke is told.

For whoever has to know whether a request may have been taken: the client, and a node that carries a write on.
"""

from __future__ import annotations

import os

import aiohttp


class BrokenError(Exception):
    """The connection broke after it stood: the request may have been read.  Its text is why."""


async def once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """A middleware: aiohttp would send what it takes for idempotent again when a kept connection breaks.

    Raises BrokenError; aiohttp.ClientConnectorError or ConnectionTimeoutError where nothing was sent.
    """
    try:
        return await send(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientError, OSError) as error:
        number = error.errno if isinstance(error, OSError) else None
        raise BrokenError(os.strerror(number) if number else str(error) or type(error).__name__) from error
