"""/v1/runs and the runs of a job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from raftcron.api import bodies, respond
from raftcron.api.auth import principal
from raftcron.api.context import NODE
from raftcron.api.forward import write
from raftcron.api.query import PAGE, READ, Query, idempotency_key
from raftcron.core.commands import Done
from raftcron.core.model import CAUSE_BACKFILL, RUN_STATES, Key, Run
from raftcron.errors import NotFoundError
from raftcron.runtime.listing import RunFilter
from raftcron.runtime.requests import Filled, Requests, span_of
from raftcron.runtime.views import instant, run_view

VIEWS_AT_ONCE = 100  # of runs, some 5 ms; then the loop gets a turn
_STATES = tuple(sorted(RUN_STATES))


async def get(request: web.Request) -> web.Response:
    query = Query(request, READ)
    run_id = request.match_info["id"]
    point = await respond.read_point(request, query)
    state = request.app[NODE].machine.state
    run = state.runs.get(run_id)
    if run is None:
        raise NotFoundError(f"there is no run {run_id[:200]!r}, or it is no longer kept")
    return respond.value(run_view(run, state), headers=respond.at(point))


async def list_(request: web.Request) -> web.Response:
    query = Query(request, (*READ, *PAGE, "state", "job", "since", "count"))
    wanted, limit = _filter(query, query.text("job"))._replace(prefix=principal(request).prefix), query.limit
    count, cursor = query.flag("count"), query.text("cursor")
    point = await respond.read_point(request, query)
    page = await request.app[NODE].listing.runs(wanted, limit, cursor, _viewer(request), count=count)
    return respond.page(page, point)


async def list_of_job(request: web.Request) -> web.Response:
    query = Query(request, (*READ, *PAGE, "state", "since", "count"))
    node, name = request.app[NODE], request.match_info["name"]
    wanted, limit = _filter(query, None), query.limit
    count, cursor = query.flag("count"), query.text("cursor")
    point = await respond.read_point(request, query)
    job = node.machine.state.jobs.get(name)
    if job is None:
        raise NotFoundError(f"there is no job {name[:200]!r}; runs of one that was deleted are at /v1/runs?job=")
    page = await node.listing.runs_of(job, wanted, limit, cursor, _viewer(request), count=count)
    return respond.page(page, point)


async def create(request: web.Request) -> web.Response:
    """Run now."""
    Query(request, ())
    node, name = request.app[NODE], request.match_info["name"]
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)
    content = bodies.decode(body, may_be_empty=True)

    async def use() -> web.Response:
        done = await node.requests.run(name, content, key)
        return _answer(request, done, {"Location": f"/v1/runs/{done.subject}"})

    return await write(request, body, use)


async def cancel(request: web.Request) -> web.Response:
    Query(request, ())
    node, run_id = request.app[NODE], request.match_info["id"]
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)

    async def use() -> web.Response:
        return _answer(request, await node.requests.cancel(run_id, key), {})

    return await write(request, body, use)


def _change(
    act: Callable[[Requests, str, Any, Key | None], Awaitable[Done]], *, may_be_empty: bool
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A route that does one thing to a run, told by a body."""

    async def handle(request: web.Request) -> web.Response:
        Query(request, ())
        node, run_id = request.app[NODE], request.match_info["id"]
        body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
        key = idempotency_key(request, body)
        content = bodies.decode(body, may_be_empty=may_be_empty)

        async def use() -> web.Response:
            done = await act(node.requests, run_id, content, key)
            is_new = done.status == web.HTTPAccepted.status_code
            return _answer(request, done, {"Location": f"/v1/runs/{done.subject}"} if is_new else {})

        return await write(request, body, use)

    return handle


retry = _change(Requests.rerun, may_be_empty=True)
finish = _change(Requests.conclude, may_be_empty=False)
heartbeat = _change(Requests.hear, may_be_empty=False)


async def backfill(request: web.Request) -> web.Response:
    """A run for each time of a past span; a dry one is answered by whichever node is asked."""
    Query(request, ())
    node, name = request.app[NODE], request.match_info["name"]
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)
    span = span_of(bodies.decode(body), node.time.now_ms())
    if span.is_dry:
        point = await node.reads.at()
        filled = await node.requests.backfill(name, span, None)
        items = [
            {"id": None, "job": name, "scheduled_time": instant(at), "cause": CAUSE_BACKFILL} for at in filled.times
        ]
        return respond.value({"count": len(items), "runs": items, "dry_run": True}, headers=respond.at(point))

    async def use() -> web.Response:
        return await _filled(request, await node.requests.backfill(name, span, key))

    return await write(request, body, use)


async def _filled(request: web.Request, filled: Filled) -> web.Response:
    """The runs of a backfill as they are now, as far as they are still kept."""
    state = request.app[NODE].machine.state
    items = []
    for run_id in filled.runs:
        run = state.runs.get(run_id)
        if run is not None:
            items.append(msgspec.json.encode(run_view(run, state)))
            if not len(items) % VIEWS_AT_ONCE:
                await asyncio.sleep(0)
    content = b'{"count":%d,"runs":[%s],"dry_run":false}\n' % (len(filled.runs), b",".join(items))
    assert filled.done is not None, "it is no dry one"
    return respond.encoded(content, headers=respond.written(filled.done))


def _viewer(request: web.Request) -> Callable[[Run], dict[str, Any]]:
    machine = request.app[NODE].machine
    return lambda run: run_view(run, machine.state)


def _answer(request: web.Request, done: Done, headers: dict[str, str]) -> web.Response:
    """A write of a run: the run as it is now, null if it is no longer kept."""
    state = request.app[NODE].machine.state
    run = state.runs.get(done.subject)
    view = None if run is None else run_view(run, state)
    content = {"run": view} if done.status == web.HTTPAccepted.status_code else view
    return respond.value(content, done.status, {**respond.written(done), **headers})


def _filter(query: Query, job: str | None) -> RunFilter:
    return RunFilter(query.choice("state", _STATES), job, query.instant("since"))
