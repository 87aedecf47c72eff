"""/v1/secrets: written, deleted, their names listed; what they hold is never answered."""

from __future__ import annotations

import bisect

import msgspec
from aiohttp import web

from raftcron.api import bodies, respond
from raftcron.api.auth import principal
from raftcron.api.context import NODE
from raftcron.api.forward import write
from raftcron.api.query import PAGE, READ, Query, idempotency_key, invalid
from raftcron.core.commands import Done
from raftcron.core.fields import name_fault
from raftcron.runtime.listing import Page
from raftcron.runtime.secrets import secret_view


async def list_(request: web.Request) -> web.Response:
    """Those within the caller's prefix, by name; a cursor is the last name of the page before."""
    query = Query(request, (*READ, *PAGE))
    limit, after = query.limit, query.text("cursor")
    if after is not None and name_fault(after) is not None:
        raise invalid("cursor", "is none of this list: use `next_cursor` of the page before")
    point = await respond.read_point(request, query)
    secrets = request.app[NODE].machine.state.secrets
    names = sorted(filter(principal(request).may_name, secrets))
    place = 0 if after is None else bisect.bisect_right(names, after)
    shown = names[place : place + limit]
    items = [msgspec.json.encode(secret_view(secrets[name])) for name in shown]
    return respond.page(Page(items, shown[-1] if place + limit < len(names) else None, len(names)), point)


async def put(request: web.Request) -> web.Response:
    Query(request, ())
    node, name = request.app[NODE], request.match_info["name"]
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    content, key = bodies.decode(body), idempotency_key(request, body)

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
