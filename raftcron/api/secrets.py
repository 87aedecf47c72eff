"""/v1/secrets: written, deleted, their names listed; what they hold is never answered."""

from __future__ import annotations

from aiohttp import web

from raftcron.api import bodies, respond
from raftcron.api.auth import principal
from raftcron.api.context import NODE
from raftcron.api.forward import write
from raftcron.api.named import page_by_name
from raftcron.api.query import Query, idempotency_key
from raftcron.core.commands import Done
from raftcron.runtime.secrets import secret_view


async def list_(request: web.Request) -> web.Response:
    """Those within the caller's prefix, by name; a cursor is the last name of the page before."""
    may = principal(request).may_name
    return await page_by_name(request, lambda state: state.secrets, lambda secret, _: secret_view(secret), may)


async def put(request: web.Request) -> web.Response:
    Query(request, ())
    node, name = request.app[NODE], request.match_info["name"]
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)
    content = bodies.decode(body)

    async def use() -> web.Response:
        return _answer(request, name, await node.secrets.put(name, content, key))

    return await write(request, body, use)


async def delete(request: web.Request) -> web.Response:
    Query(request, ())
    node, name = request.app[NODE], request.match_info["name"]
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)

    async def use() -> web.Response:
        done = await node.secrets.delete(name, key)
        return web.Response(status=done.status, headers=respond.written(done))

    return await write(request, body, use)


def _answer(request: web.Request, name: str, done: Done) -> web.Response:
    found = request.app[NODE].machine.state.secrets.get(name)
    return respond.value(None if found is None else secret_view(found), done.status, respond.written(done))
