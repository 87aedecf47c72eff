"""GET /v1/backup and POST /v1/restore: all that people have written, as one checked archive, and its way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from raftcron.api import bodies, respond
from raftcron.api.context import NODE
from raftcron.api.forward import stream
from raftcron.api.paced import PacedResponse, dropping
from raftcron.api.query import Query, given_key
from raftcron.core.archive import ARCHIVE_BYTES_MAX
from raftcron.errors import MalformedError, TooLargeError

ARCHIVE = "application/vnd.raftcron.backup"
PIECE_SECONDS = 30.0  # for the next piece of an archive


async def get(request: web.Request) -> web.StreamResponse:
    """The archive, as of the index in `Raftcron-Index`; any node makes it."""
    Query(request, ()).refuse_any()
    node = request.app[NODE]
    index, pieces = await node.backups.take(node.log.status().cluster_id or "")
    response = PacedResponse(
        headers={
            "Content-Type": ARCHIVE,
            "Content-Disposition": f'attachment; filename="raftcron-{index}.backup"',
            respond.INDEX: str(index),
        }
    )
    await response.prepare(request)
    with dropping(request, "backup"):
        if request.method != "HEAD":
            for piece in pieces:
                await response.write(piece)
                await asyncio.sleep(0)
        await response.write_eof()
    return response


async def restore(request: web.Request) -> web.Response:
    """200 and what was done; with `?dry_run=1` what would be."""
    query = Query(request, ("dry_run",))
    dry_run = query.flag("dry_run")
    query.refuse_any()
    node = request.app[NODE]
    bodies.check_head(request, ARCHIVE)
    if request.content_length is not None and request.content_length > ARCHIVE_BYTES_MAX:
        raise TooLargeError(f"the archive is larger than {ARCHIVE_BYTES_MAX >> 20} MiB; nothing was done")
    key = given_key(request)  # of the parameters; the archive's digest takes the place of the body's hash

    async def use() -> web.Response:
        found = await node.backups.restore(_pieces(request), dry_run=dry_run, key=key)
        headers = {respond.INDEX: str(found.index)}
        if found.replayed:
            headers[respond.REPLAYED] = "true"
        answer = asdict(found)
        del answer["replayed"]
        return respond.value({**answer, "dry_run": dry_run}, headers=headers)

    return await stream(request, use)


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes."""
    pieces = request.content.iter_any()
    while True:
        try:
            async with asyncio.timeout(PIECE_SECONDS):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise MalformedError(f"nothing came for {PIECE_SECONDS:g} s: nothing was done") from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise MalformedError("the body ended early: nothing was done") from None
        if piece is None:
            return
        yield piece
