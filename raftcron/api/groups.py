"""/v1/groups: caps on runs at once, which jobs name in `group`."""

from __future__ import annotations

import bisect

import msgspec
from aiohttp import web

from raftcron.api import bodies, respond
from raftcron.api.context import NODE
from raftcron.api.forward import write
from raftcron.api.query import PAGE, READ, Query, idempotency_key, invalid, precondition
from raftcron.core.commands import Done
from raftcron.core.fields import name_fault
from raftcron.errors import NotFoundError
from raftcron.runtime.groups import group_view
from raftcron.runtime.listing import Page


async def get(request: web.Request) -> web.Response:
    query = Query(request, READ)
    node, name = request.app[NODE], request.match_info["name"]
    point = await respond.read_point(request, query)
    state = node.machine.state
    group = state.groups.get(name)
    if group is None:
        raise NotFoundError(f"there is no group {name[:200]!r}")
    headers = {**respond.at(point), "ETag": respond.etag(group)}
    return respond.value(group_view(group, state), headers=headers)


async def list_(request: web.Request) -> web.Response:
    """All of them by name; a cursor is the last name of the page before."""
    query = Query(request, (*READ, *PAGE))
    limit, after = query.limit, query.text("cursor")
    if after is not None and name_fault(after) is not None:
        raise invalid("cursor", "is none of this list: use `next_cursor` of the page before")
    point = await respond.read_point(request, query)
    state = request.app[NODE].machine.state
    names = sorted(state.groups)
    place = 0 if after is None else bisect.bisect_right(names, after)
    shown = names[place : place + limit]
    items = [msgspec.json.encode(group_view(state.groups[name], state)) for name in shown]
    more = place + limit < len(names)
    return respond.page(Page(items, shown[-1] if more else None, len(names)), point)


async def put(request: web.Request) -> web.Response:
    Query(request, ())
    node, name = request.app[NODE], request.match_info["name"]
    expected = precondition(request)
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    content, key = bodies.decode(body), idempotency_key(request, body)

    async def use() -> web.Response:
        return _answer(request, name, await node.groups.put(name, content, expected, key))

    return await write(request, body, use)


async def delete(request: web.Request) -> web.Response:
    Query(request, ())
    node, name = request.app[NODE], request.match_info["name"]
    expected = precondition(request)
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)

    async def use() -> web.Response:
        done = await node.groups.delete(name, expected, key)
        return web.Response(status=done.status, headers=respond.written(done))

    return await write(request, body, use)


def _answer(request: web.Request, name: str, done: Done) -> web.Response:
    state = request.app[NODE].machine.state
    headers = respond.written(done)
    group = state.groups.get(name)
    if group is None:
        return respond.value(None, done.status, headers)
    headers["ETag"] = respond.etag(group)
    if done.status == web.HTTPCreated.status_code:
        headers["Location"] = f"/v1/groups/{name}"
    return respond.value(group_view(group, state), done.status, headers)
