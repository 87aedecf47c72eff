"""Answers that are not errors, and the headers that every answer has."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import msgspec
from aiohttp import web

from raftcron.api.context import NODE, NodeContext
from raftcron.api.query import Query
from raftcron.core.commands import Done
from raftcron.core.model import AlertRoute, Calendar, Group, Job
from raftcron.runtime.listing import Page
from raftcron.runtime.reads import ReadPoint
from raftcron.runtime.views import job_view

INDEX = "Raftcron-Index"
NODE_NAME = "Raftcron-Node"
LEADER = "Raftcron-Leader"
STALENESS = "Raftcron-Staleness-Ms"
REPLAYED = "Idempotency-Replayed"
FORWARDED = "Raftcron-Forwarded"


def encoded(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """JSON that is encoded already, with the newline that a terminal wants after it."""
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def value(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON value."""
    return encoded(msgspec.json.encode(content) + b"\n", status, headers)


def at(point: ReadPoint) -> dict[str, str]:
    """The headers of a read that was served there."""
    headers = {INDEX: str(point.through)}
    if point.staleness_ms is not None:
        headers[STALENESS] = str(point.staleness_ms)
    return headers


def etag(record: Job | Calendar | Group | AlertRoute) -> str:
    return f'"{record.revision}"'


def written(done: Done) -> dict[str, str]:
    """The headers of a write that took effect, now or when it was first asked for."""
    headers = {INDEX: str(done.index)}
    if done.replayed:
        headers[REPLAYED] = "true"
    return headers


def job(request: web.Request, name: str, done: Done) -> web.Response:
    """A write of a job: the status it had when it took effect, and the job as it is now (null if it is gone)."""
    node = request.app[NODE]
    headers = written(done)
    found = node.machine.state.jobs.get(name)
    if found is None:
        return value(None, done.status, headers)
    headers["ETag"] = etag(found)
    if done.status == web.HTTPCreated.status_code:
        headers["Location"] = f"/v1/jobs/{name}"
    return value(job_view(found, node.machine.state, node.machine.timeline), done.status, headers)


def page(found: Page, point: ReadPoint) -> web.Response:
    """A list."""
    rest = msgspec.json.encode({"next_cursor": found.next_cursor, "total": found.total})[1:] + b"\n"
    return encoded(b'{"items":[' + b",".join(found.items) + b"]," + rest, headers=at(point))


async def read_point(request: web.Request, query: Query) -> ReadPoint:
    """Where this read is served, as its parameters ask.  Raises InvalidError for all that is wrong with any of them."""
    consistency, min_index = query.consistency, query.min_index
    query.refuse_any()
    return await request.app[NODE].reads.at(consistency, min_index)


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """The headers of every answer, errors too."""
    stamp_of(request.app[NODE], response.headers)


def stamp_of(node: NodeContext, headers: MutableMapping[str, str]) -> None:
    """Who answers, who leads as far as that is known, and an index."""
    headers[NODE_NAME] = node.name
    leader = node.log.status().leader
    if leader is not None:
        headers[LEADER] = leader
    if INDEX not in headers:
        headers[INDEX] = str(node.reads.index)
    headers["Server"] = "raftcron"
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("X-Content-Type-Options", "nosniff")
