"""/v1/jobs: reads from this node's state, writes through the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from raftcron.api import bodies, respond
from raftcron.api.auth import check_name, check_parents, principal
from raftcron.api.context import NODE
from raftcron.api.forward import write
from raftcron.api.query import PAGE, READ, Query, idempotency_key, precondition
from raftcron.core.commands import Done
from raftcron.core.instant import shown
from raftcron.errors import NotFoundError
from raftcron.runtime.forecast import AHEAD_MAX
from raftcron.runtime.listing import JOB_STATES, SORTS, JobFilter
from raftcron.runtime.previews import NEXT_SHOWN, Preview
from raftcron.runtime.service import Service
from raftcron.runtime.views import coming_view, instant, job_view
from raftcron.runtime.why import why_view


async def get(request: web.Request) -> web.Response:
    query = Query(request, READ)
    node, name = request.app[NODE], request.match_info["name"]
    point = await respond.read_point(request, query)
    job = node.machine.state.jobs.get(name)
    if job is None:
        raise NotFoundError(f"there is no job {name[:200]!r}")
    view = job_view(job, node.machine.state, node.machine.timeline)
    return respond.value(view, headers={**respond.at(point), "ETag": respond.etag(job)})


async def list_(request: web.Request) -> web.Response:
    query = Query(request, (*READ, *PAGE, "label", "state", "q", "sort", "count"), ("label",))
    node = request.app[NODE]
    wanted = JobFilter(
        tuple(_label(query, text) for text in query.texts("label")),
        query.choice("state", JOB_STATES),
        query.text("q") or "",
        principal(request).prefix,
    )
    sort, limit, count = query.choice("sort", SORTS) or "name", query.limit, query.flag("count")
    point = await respond.read_point(request, query)
    machine = node.machine
    page = await node.listing.jobs(
        wanted,
        sort,
        limit,
        query.text("cursor"),
        lambda job: job_view(job, machine.state, machine.timeline),
        count=count,
    )
    return respond.page(page, point)


async def put(request: web.Request) -> web.Response:
    query = Query(request, ("dry_run",))
    node, name = request.app[NODE], request.match_info["name"]
    expected = precondition(request)
    body = await bodies.read(request, bodies.JOB_BYTES_MAX, bodies.JSON)
    is_dry = query.flag("dry_run")
    key = None if is_dry else idempotency_key(request, body)
    content = bodies.decode(body)
    check_parents(request, content, name)
    if is_dry:
        point = await node.reads.at()
        preview = await node.previews.preview(name, content, expected)
        query.refuse_any()
        return respond.value({"dry_run": True, **_preview_view(preview)}, headers=respond.at(point))

    async def use() -> web.Response:
        return respond.job(request, name, await node.service.put_job(name, content, expected, key))

    return await write(request, body, use)


async def create(request: web.Request) -> web.Response:
    Query(request, ())
    node = request.app[NODE]
    body = await bodies.read(request, bodies.JOB_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)
    content = bodies.decode(body)
    check_name(request, content.get("name") if isinstance(content, dict) else None)
    check_parents(request, content, None)

    async def use() -> web.Response:
        done = await node.service.create_job(content, key)
        return respond.job(request, done.subject, done)

    return await write(request, body, use)


async def patch(request: web.Request) -> web.Response:
    Query(request, ())
    node, name = request.app[NODE], request.match_info["name"]
    expected = precondition(request)
    body = await bodies.read(request, bodies.JOB_BYTES_MAX, bodies.MERGE_PATCH, bodies.JSON)
    key = idempotency_key(request, body)
    content = bodies.decode(body)
    check_parents(request, content, name)

    async def use() -> web.Response:
        return respond.job(request, name, await node.service.patch_job(name, content, expected, key))

    return await write(request, body, use)


async def delete(request: web.Request) -> web.Response:
    query = Query(request, ("cancel_running",))
    node, name = request.app[NODE], request.match_info["name"]
    expected, cancel_running = precondition(request), query.flag("cancel_running")
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)

    async def use() -> web.Response:
        done = await node.service.delete_job(name, cancel_running=cancel_running, precondition=expected, key=key)
        return web.Response(status=done.status, headers=respond.written(done))

    return await write(request, body, use)


def _change(act: Callable[..., Awaitable[Done]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A route that has the service do one thing to a job, told by a body that may be empty."""

    async def handle(request: web.Request) -> web.Response:
        Query(request, ())
        node, name = request.app[NODE], request.match_info["name"]
        expected = precondition(request)
        body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
        key = idempotency_key(request, body)
        content = bodies.decode(body, may_be_empty=True)

        async def use() -> web.Response:
            return respond.job(request, name, await act(node.service, name, content, expected, key))

        return await write(request, body, use)

    return handle


pause = _change(Service.pause_job)
resume = _change(Service.resume_job)
skip_next = _change(Service.skip_next)


async def next_(request: web.Request) -> web.Response:
    """The coming fires; none while the job is paused."""
    query = Query(request, (*READ, "count"))
    node, name = request.app[NODE], request.match_info["name"]
    count = query.whole("count", NEXT_SHOWN, 0, AHEAD_MAX)
    assert count is not None, "it has a default"
    point = await respond.read_point(request, query)
    found = await node.previews.coming(name, count)
    return respond.value({"items": [coming_view(one) for one in found]}, headers=respond.at(point))


async def why(request: web.Request) -> web.Response:
    """The verdict on any instant of the job, past or to come."""
    query = Query(request, (*READ, "at"))
    node, name, at = request.app[NODE], request.match_info["name"], query.instant("at")
    if query.text("at") is None:
        query.fault("at", "is missing: name an instant, as in 2026-03-29T01:00:00Z")
    point = await respond.read_point(request, query)
    assert at is not None, "it is a fault"
    answer = await node.previews.why(name, at)
    return respond.value(why_view(name, at, answer), headers=respond.at(point))


def _preview_view(preview: Preview) -> dict[str, Any]:
    moved = preview.shift
    return {
        "result": preview.result,
        "job": preview.job,
        "next": [instant(at) for at in preview.next],
        "changes": preview.changes,
        "gained": [instant(at) for at in moved.gained],
        "lost": [instant(at) for at in moved.lost],
        "moved": [{"from": instant(old), "to": instant(new)} for old, new in moved.moved],
        "compared_through": instant(moved.through),
        "notes": [note._asdict() for note in preview.notes],
    }


def _label(query: Query, text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        query.fault("label", f"is {shown(text)}: write it as key=value")
    return key, value
