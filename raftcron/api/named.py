"""Resources that are known by name: lists of them, and those that are written whole and that jobs name."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from aiohttp import web

from raftcron.api import bodies, respond
from raftcron.api.context import NODE, NodeContext
from raftcron.api.forward import write
from raftcron.api.query import PAGE, READ, Query, idempotency_key, precondition
from raftcron.core.commands import Done
from raftcron.core.fields import name_fault
from raftcron.core.model import AlertRoute, Calendar, Group, Key
from raftcron.core.state import State
from raftcron.errors import NotFoundError
from raftcron.runtime.listing import Page
from raftcron.runtime.writes import Precondition

T = TypeVar("T")
R = TypeVar("R", Calendar, Group, AlertRoute)


async def page_by_name(
    request: web.Request,
    table: Callable[[State], Mapping[str, T]],
    view: Callable[[T, State], dict[str, Any]],
    may: Callable[[str], bool] | None = None,
) -> web.Response:
    """A page of those that the caller may name, by name; a cursor is the last name of the page before."""
    query = Query(request, (*READ, *PAGE))
    limit, after = query.limit, query.text("cursor")
    if after is not None and name_fault(after) is not None:
        query.fault("cursor", "is none of this list: use `next_cursor` of the page before")
    point = await respond.read_point(request, query)
    state = request.app[NODE].machine.state
    records = table(state)
    names = sorted(records if may is None else filter(may, records))
    place = 0 if after is None else bisect.bisect_right(names, after)
    shown = names[place : place + limit]
    items = [msgspec.json.encode(view(records[name], state)) for name in shown]
    more = place + limit < len(names)
    return respond.page(Page(items, shown[-1] if more else None, len(names)), point)


class Writer(Protocol):
    """The use-cases of one kind of them."""

    async def put(self, name: str, body: Any, precondition: Precondition, key: Key | None) -> Done: ...

    async def delete(self, name: str, precondition: Precondition, key: Key | None) -> Done: ...


class Named(Generic[R]):
    """The routes of one kind that jobs name; `table` and `view` show it, `writer` writes it."""

    def __init__(
        self,
        noun: str,
        table: Callable[[State], Mapping[str, R]],
        view: Callable[[R, State], dict[str, Any]],
        writer: Callable[[NodeContext], Writer],
        only: str | None = None,
    ) -> None:
        """`only`: the name of the one that there may be; its path ends with it."""
        self._only = only
        self._noun = noun
        self._table: Callable[[State], Mapping[str, R]] = table
        self._view: Callable[[R, State], dict[str, Any]] = view
        self._writer = writer

    def _name(self, request: web.Request) -> str:
        return self._only or request.match_info["name"]

    async def get(self, request: web.Request) -> web.Response:
        query = Query(request, READ)
        node, name = request.app[NODE], self._name(request)
        point = await respond.read_point(request, query)
        state = node.machine.state
        record = self._table(state).get(name)
        if record is None:
            raise NotFoundError(f"there is no {self._noun} {name[:200]!r}")
        headers = {**respond.at(point), "ETag": respond.etag(record)}
        return respond.value(self._view(record, state), headers=headers)

    async def list_(self, request: web.Request) -> web.Response:
        return await page_by_name(request, self._table, self._view)

    async def put(self, request: web.Request) -> web.Response:
        Query(request, ())
        node, name = request.app[NODE], self._name(request)
        expected = precondition(request)
        body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
        key = idempotency_key(request, body)
        content = bodies.decode(body)

        async def use() -> web.Response:
            return self._answer(request, name, await self._writer(node).put(name, content, expected, key))

        return await write(request, body, use)

    async def delete(self, request: web.Request) -> web.Response:
        Query(request, ())
        node, name = request.app[NODE], self._name(request)
        expected = precondition(request)
        body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
        key = idempotency_key(request, body)

        async def use() -> web.Response:
            done = await self._writer(node).delete(name, expected, key)
            return web.Response(status=done.status, headers=respond.written(done))

        return await write(request, body, use)

    def _answer(self, request: web.Request, name: str, done: Done) -> web.Response:
        state = request.app[NODE].machine.state
        headers = respond.written(done)
        record = self._table(state).get(name)
        if record is None:
            return respond.value(None, done.status, headers)
        headers["ETag"] = respond.etag(record)
        if done.status == web.HTTPCreated.status_code:
            headers["Location"] = f"/v1/{self._noun}s/{name}"
        return respond.value(self._view(record, state), done.status, headers)
