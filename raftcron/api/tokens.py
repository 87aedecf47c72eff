"""/v1/tokens: made, listed without what proves them, revoked; /v1/whoami."""

from __future__ import annotations

from aiohttp import web

from raftcron.api import bodies, respond
from raftcron.api.auth import principal
from raftcron.api.context import NODE
from raftcron.api.forward import write
from raftcron.api.named import page_by_name
from raftcron.api.query import Query, idempotency_key
from raftcron.runtime.tokens import token_view


async def whoami(request: web.Request) -> web.Response:
    """Who asks, as this node sees it, and what that may do; what a page or a script asks before it offers anything."""
    Query(request, ()).refuse_any()
    who = principal(request)
    return respond.value({"name": who.name, "role": who.role, "prefix": who.prefix})


async def list_(request: web.Request) -> web.Response:
    """All of them by name; a cursor is the last name of the page before."""
    return await page_by_name(request, lambda state: state.tokens, lambda token, _: token_view(token))


async def create(request: web.Request) -> web.Response:
    """201 and the token, whose text is shown this once; a repeat under an Idempotency-Key shows null instead."""
    Query(request, ())
    node = request.app[NODE]
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)
    content = bodies.decode(body)

    async def use() -> web.Response:
        made = await node.tokens.create(content, principal(request).name, key)
        found = node.machine.state.tokens.get(made.done.subject)
        view = None if found is None else {**token_view(found), "token": made.text}
        return respond.value(view, made.done.status, respond.written(made.done))

    return await write(request, body, use)


async def revoke(request: web.Request) -> web.Response:
    Query(request, ())
    node, name = request.app[NODE], request.match_info["name"]
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)

    async def use() -> web.Response:
        done = await node.tokens.revoke(name, key)
        return web.Response(status=done.status, headers=respond.written(done))

    return await write(request, body, use)
