"""GET /v1/events: what the log changes, as server-sent events, resumable on any node by the id of the last one seen."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, Final

import msgspec
from aiohttp import web

from raftcron.api.auth import principal
from raftcron.api.context import NODE, NodeContext
from raftcron.api.paced import PacedResponse, TakesNothingError
from raftcron.api.query import Query
from raftcron.core import events as core
from raftcron.core.access import still_known
from raftcron.core.instant import shown
from raftcron.errors import GoneError, MalformedError, TooManyError
from raftcron.runtime.events import Place, Reader
from raftcron.runtime.views import instant, uid_text

log = logging.getLogger(__name__)

KINDS: Final = ("run", "job", "leader", "node", "calendar")
STREAMS_MAX: Final = 1_000  # at once on a node; each costs a connection and some KiB
ALIVE_SECONDS: Final = 15.0  # between two signs of life where nothing happens
WRITE_BYTES: Final = 64 << 10  # handed over at once
LOOK_EVENTS: Final = 500  # looked at in one turn of the loop, whether they are asked for or not

_ID = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})", re.ASCII)
_STREAMS = web.AppKey("streams", set)


async def get(request: web.Request) -> web.StreamResponse:
    """A stream without an end.  GoneError (410) names the oldest event that is held."""
    query = Query(request, ("kind", "job", "last_event_id"), ("kind",))
    node = request.app[NODE]
    kinds = set(query.texts("kind") or KINDS)
    if not kinds <= set(KINDS):
        query.fault("kind", f"is {shown(min(kinds - set(KINDS)))}, allowed are {', '.join(KINDS)}")
    query.refuse_any()
    reader = node.events.reader(_last_seen(request, query))
    streams = request.app[_STREAMS]
    if len(streams) >= STREAMS_MAX:
        raise TooManyError(f"{STREAMS_MAX} streams of events are open on this node: ask another one", (), 5.0)
    task = asyncio.current_task()
    assert task is not None
    streams.add(task)
    try:
        return await _stream(request, node, reader, kinds, query.text("job"))
    finally:
        streams.discard(task)


def _last_seen(request: web.Request, query: Query) -> Place | None:
    """A browser's EventSource sends the header by itself, from the second time on; the parameter is for the first."""
    text = request.headers.get("Last-Event-ID") or query.text("last_event_id")
    if not text:
        return None
    match = _ID.fullmatch(text)
    if match is None:
        raise MalformedError(f"Last-Event-ID is {shown(text)}: send the id of an event, like 42.0")
    return Place(int(match[1]), int(match[2]))


async def _stream(
    request: web.Request, node: NodeContext, reader: Reader, kinds: set[str], job: str | None
) -> web.StreamResponse:
    who = principal(request)
    response = PacedResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        await response.write(b": raftcron\n\n")
        while True:
            if not still_known(node.machine.state.tokens, who):
                await _drop(response, "the token was revoked")
                return response
            news = node.events.news()
            parts: list[bytes] = []
            size = 0
            for looked, (place, event) in enumerate(reader.read(), 1):
                if looked % LOOK_EVENTS == 0:
                    await asyncio.sleep(0)
                of = _job(event)
                if _kind(event) not in kinds or (job is not None and of != job):
                    continue
                if of is not None and not who.may_name(of):
                    continue
                parts.append(_written(place, event))
                size += len(parts[-1])
                if size >= WRITE_BYTES:
                    await response.write(b"".join(parts))
                    parts, size = [], 0
            if parts:
                await response.write(b"".join(parts))
                continue
            try:
                async with asyncio.timeout(ALIVE_SECONDS):
                    await news.wait()
            except TimeoutError:
                await response.write(b": alive\n\n")
    except GoneError as error:
        await _drop(response, error.detail)
    except TakesNothingError as error:
        await _drop(response, str(error))
    return response


async def _drop(response: web.StreamResponse, reason: str) -> None:
    """Say why the stream ends, as far as the reader takes it."""
    log.info("event_reader_dropped reason=%s", reason)
    try:
        async with asyncio.timeout(1.0):
            await response.write(b"event: dropped\ndata: " + msgspec.json.encode({"reason": reason}) + b"\n\n")
            await response.write_eof()
    except TimeoutError:
        raise ConnectionResetError("dropped") from None


def _written(place: Place, event: core.Event) -> bytes:
    return b"id: %d.%d\nevent: %s\ndata: %s\n\n" % (
        place.log_index,
        place.n,
        _kind(event).encode(),
        msgspec.json.encode(view(place, event)),
    )


def _kind(event: core.Event) -> str:
    return str(event.__struct_config__.tag)


def _job(event: core.Event) -> str | None:
    if isinstance(event, core.RunEvent):
        return event.job
    return event.name if isinstance(event, core.JobEvent) else None


def view(place: Place, event: core.Event) -> dict[str, Any]:
    """An event as JSON: what the record is after the entry."""
    found: dict[str, Any] = {"index": place.log_index, **msgspec.structs.asdict(event)}
    found["at"] = instant(event.at)
    if isinstance(event, core.RunEvent):
        del found["uid"], found["alert"]
        found["scheduled_time"] = instant(event.scheduled_time)
        found["fencing_token"] = event.fencing_token or None
    elif isinstance(event, core.JobEvent):
        del found["alert"]
        found["uid"] = uid_text(event.uid)
    return found


def prepare(app: web.Application) -> None:
    """What the route needs of its application."""
    app[_STREAMS] = set()
    app.on_shutdown.append(_end)


async def _end(app: web.Application) -> None:
    """The node ends: its readers go on elsewhere."""
    streams: set[asyncio.Task[Any]] = app[_STREAMS]
    for task in streams.copy():
        task.cancel()
