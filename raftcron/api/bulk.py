"""POST /v1/jobs:apply: many jobs in one request, as one JSON object or a line each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from raftcron.api import bodies, elements, problems, respond
from raftcron.api.auth import check_name, check_parents, principal
from raftcron.api.context import NODE
from raftcron.api.forward import stream
from raftcron.api.query import Query, given_key
from raftcron.clock import Clock
from raftcron.core.fields import kind_of, near
from raftcron.core.model import Key
from raftcron.core.unreadable import UNREADABLE
from raftcron.errors import Fault, ForbiddenError, InvalidError, MalformedError, RaftcronError, TooLargeError
from raftcron.runtime.bulk import Applied, Result, Sent

FIELDS = ("jobs", "prune", "owner", "dry_run")
OWNER_MAX = 256  # characters
FIELD_BYTES_MAX = 4_096  # of what stands beside the jobs, as it was sent
ANSWERED_TOGETHER = 1_000  # results that are encoded in one turn, some 2 ms
SLICE_SECONDS = 0.005  # of looking for jobs before the loop gets a turn
LISTS_MAX = 2_000_000  # lists and objects of a JSON body, as brackets are counted; 100,000 jobs hold some 500,000
STRAYS_MAX = 10_000  # jobs of a request that are no objects or have no name: there is no job to tell of
STRAYS_TOLD = 100
LINE_SECONDS = 30.0  # for the next piece of a body that comes in lines


async def apply(request: web.Request) -> web.Response:
    """200 and what each job met; 422 with the same where none was taken."""
    query = Query(request, ("prune", "owner", "dry_run"))
    node = request.app[NODE]
    bodies.check_head(request, bodies.JSON, bodies.NDJSON)
    asked: dict[str, Any] = {
        "prune": query.flag("prune"),
        "owner": query.text("owner"),
        "dry_run": query.flag("dry_run"),
    }
    key = given_key(request)  # of the parameters and a body that comes as a whole; each chunk adds what it holds

    async def use() -> web.Response:
        try:
            jobs, of_whole = await read()
        except (InvalidError, MalformedError):
            node.bulk.judge(key)
            raise
        prune, dry_run = asked["prune"], asked["dry_run"]
        found = await node.bulk.apply(jobs, asked["owner"], prune=prune, dry_run=dry_run, key=of_whole)
        return await _answer(request, found, dry_run=dry_run)

    async def read() -> tuple[AsyncIterator[Sent], Key | None]:
        faults, of_whole = list(query.faults), key
        if request.content_type == bodies.NDJSON:
            jobs = _lines(request)
        else:
            body = await bodies.read(request, bodies.BULK_BYTES_MAX, bodies.JSON)
            of_whole = await asyncio.to_thread(given_key, request, body)  # hashing 32 MiB takes some 40 ms
            jobs, said = await _split(body, node.clock, faults)
            asked.update(said)
        _check(asked, faults)
        if asked["prune"] and principal(request).prefix:
            raise ForbiddenError("prune reaches beyond a token's prefix: use a token without one")
        return _within(request, jobs), of_whole

    return await stream(request, use)


async def _within(request: web.Request, jobs: AsyncIterator[Sent]) -> AsyncIterator[Sent]:
    """What is beyond the caller's prefix is at fault.  Raises InvalidError once too many are no jobs at all."""
    strays = place = 0
    told: list[Fault] = []
    async for sent in jobs:
        name = sent.body.get("name") if isinstance(sent.body, dict) else None
        if not isinstance(name, str):
            strays += 1
            if strays <= STRAYS_TOLD:
                told.append(_stray(place, sent))
            if strays > STRAYS_MAX:
                what = f"more than {STRAYS_MAX:,} of the jobs are no objects, or have no name; those before are written"
                raise InvalidError(f"{what}; the first {STRAYS_TOLD} are named", tuple(told))
        place += 1
        try:
            check_name(request, name)
            check_parents(request, sent.body, name)
        except ForbiddenError as error:
            yield sent._replace(error=error)
        else:
            yield sent


def _stray(place: int, sent: Sent) -> Fault:
    if isinstance(sent.body, dict):
        return Fault(f"/jobs/{place}/name", "is missing" if "name" not in sent.body else "must be a string")
    what = "cannot be read" if sent.error else f"must be an object, not {kind_of(sent.body)}"
    return Fault(f"/jobs/{place}", what)


async def _answer(request: web.Request, applied: Applied, *, dry_run: bool) -> web.Response:
    headers = {respond.INDEX: str(request.app[NODE].reads.index if applied.log_index is None else applied.log_index)}
    if applied.is_replayed:
        headers[respond.REPLAYED] = "true"
    found = applied.results
    results = await _encoded(found)
    if not found or any(result.status < 300 for result in found):
        return respond.value({"results": results, "dry_run": dry_run}, headers=headers)
    count = f"{len(found)} jobs" if len(found) > 1 else "the job"
    error = InvalidError(f"nothing is right with {count}: none was taken")
    return problems.problem(error, results=results)


async def _encoded(results: list[Result]) -> msgspec.Raw:
    """The results as JSON, with turns for everything else: there may be a million of them."""
    parts: list[bytes] = []
    for at in range(0, len(results), ANSWERED_TOGETHER):
        parts.append(msgspec.json.encode([_view(result) for result in results[at : at + ANSWERED_TOGETHER]])[1:-1])
        await asyncio.sleep(0)
    return msgspec.Raw(b"[" + b",".join(parts) + b"]")


def _view(result: Result) -> dict[str, Any]:
    errors = [{"pointer": fault.pointer, "message": fault.message} for fault in result.errors]
    return {"name": result.name, "status": result.status, "result": result.result, "errors": errors}


def _check(asked: dict[str, Any], faults: list[Fault]) -> None:
    faults += [
        Fault(f"/{name}", f"must be a boolean, not {kind_of(asked[name])}")
        for name in ("prune", "dry_run")
        if not isinstance(asked[name], bool)
    ]
    owner = asked["owner"]
    if owner is not None and (not isinstance(owner, str) or not 1 <= len(owner) <= OWNER_MAX):
        faults.append(Fault("/owner", f"must be a string of 1 to {OWNER_MAX} characters"))
    if asked["prune"] is True and owner is None:
        faults.append(Fault("/owner", "is missing: with prune it says whose jobs are deleted that are not sent"))
    if faults:
        raise InvalidError("the request is not valid; nothing was done", tuple(faults))


class _Whole(msgspec.Struct):
    """A JSON body, its values undecoded: views into the body, which is looked through once, in some 50 ms at most."""

    jobs: msgspec.Raw = msgspec.Raw(b"null")
    prune: msgspec.Raw = msgspec.Raw(b"null")
    owner: msgspec.Raw = msgspec.Raw(b"null")
    dry_run: msgspec.Raw = msgspec.Raw(b"null")


class _Known(_Whole, forbid_unknown_fields=True):
    """The same, with nothing beside."""


async def _split(body: bytes, clock: Clock, faults: list[Fault]) -> tuple[AsyncIterator[Sent], dict[str, Any]]:
    """The jobs of a JSON body, undecoded, and what it says beside them; what is wrong with either goes to `faults`."""
    if not body:
        raise MalformedError("the body is empty: this route takes a JSON object with `jobs`, or a job a line")
    await asyncio.sleep(0)
    try:
        whole = msgspec.json.decode(body, type=_Whole)
    except UNREADABLE as error:
        fault = Fault("", 'must be an object like {"jobs": [...]}' + _kind_of_all(body, error))
        raise InvalidError("the request is not valid; nothing was done", (fault,)) from None
    await asyncio.sleep(0)
    jobs = memoryview(whole.jobs)
    if bytes(jobs[:1]) != b"[":
        faults.append(Fault("/jobs", "must be an array of jobs"))
        jobs = memoryview(b"[]")
    elif body.count(b"[") + body.count(b"{") > LISTS_MAX:
        raise TooLargeError(f"the body holds more than {LISTS_MAX:,} lists and objects; nothing was done: split it")
    await asyncio.sleep(0)
    faults += (Fault(f"/{name[:100]}", "is not a field here" + near(name[:100], FIELDS)) for name in _unknown(body))
    if not faults:
        await _check_keys(body, clock)
    raws = {name: memoryview(getattr(whole, name)) for name in FIELDS if name != "jobs"}
    long = sorted(name for name, raw in raws.items() if len(raw) > FIELD_BYTES_MAX)
    faults += (Fault(f"/{name}", f"is longer than {FIELD_BYTES_MAX} bytes") for name in long)
    said = {name: bodies.decode(bytes(raw)) for name, raw in raws.items() if name not in long}
    return _elements(jobs, clock), {name: value for name, value in said.items() if value is not None}


def _unknown(body: bytes) -> list[str]:
    """The fields that there are not, in order; of a large body the first alone."""
    try:
        if len(body) <= bodies.JOB_BYTES_MAX:
            return sorted(msgspec.json.decode(body, type=dict[str, msgspec.Raw]).keys() - set(FIELDS))
        msgspec.json.decode(body, type=_Known)
    except msgspec.ValidationError as error:
        return [str(error).partition("`")[2].rpartition("`")[0]]
    except UnicodeDecodeError as error:
        raise MalformedError(f"the body cannot be read: {error}") from None
    return []


async def _check_keys(body: bytes, clock: Clock) -> None:
    """Of keys that are there twice the decoder has taken the last.  MalformedError.

    `body`: an object without other keys than FIELDS, so that few are looked at.
    """
    whole = body.strip()
    seen: set[str] = set()
    async for start, _ in _spans(whole, clock):
        key = msgspec.json.decode(elements.key(whole, start), type=str)
        if key in seen:
            raise bodies.key_twice(key)
        seen.add(key)


async def _elements(jobs: memoryview, clock: Clock) -> AsyncIterator[Sent]:
    """The jobs of an array, decoded as they are asked for."""
    async for start, stop in _spans(jobs, clock):
        yield _decoded(bytes(jobs[start:stop]).strip())


async def _spans(whole: bytes | memoryview, clock: Clock) -> AsyncIterator[tuple[int, int]]:
    """Where each element begins and ends; where one is long, with turns for everything else."""
    until = clock.monotonic() + SLICE_SECONDS
    for span in elements.spans(whole):
        if clock.monotonic() > until:
            await asyncio.sleep(0)
            until = clock.monotonic() + SLICE_SECONDS
        if span is not None:
            yield span


def _kind_of_all(body: bytes, error: Exception) -> str:
    """What the body is instead; a large one is not looked at value by value, since that would hold the loop.

    Raises MalformedError where it is not JSON.
    """
    if len(body) <= bodies.JOB_BYTES_MAX:
        return f", not {kind_of(bodies.decode(body))}"
    if not isinstance(error, msgspec.ValidationError):
        raise MalformedError(f"the body cannot be read: {error}")
    return ""


async def _lines(request: web.Request) -> AsyncIterator[Sent]:
    """The jobs of a body that has one a line, as they come; empty lines are passed over."""
    rest = bytearray()
    pieces = request.content.iter_any()
    while True:
        try:
            async with asyncio.timeout(LINE_SECONDS):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise MalformedError(f"nothing came for {LINE_SECONDS:g} s: the lines before are written") from None
        except web.RequestPayloadError:
            raise MalformedError("the body ended early: the lines before are written") from None
        if piece is None:
            break
        rest += piece
        *whole, last = rest.split(b"\n")
        rest = last
        if len(rest) > bodies.JOB_BYTES_MAX:
            raise TooLargeError(f"a line is larger than {bodies.JOB_BYTES_MAX} bytes; the lines before are written")
        for line in whole:
            if line.strip():
                yield _decoded(bytes(line))
    if rest.strip():
        yield _decoded(bytes(rest))


def _decoded(raw: bytes) -> Sent:
    if len(raw) > bodies.JOB_BYTES_MAX:
        return Sent(None, TooLargeError(f"is larger than {bodies.JOB_BYTES_MAX} bytes"), raw)
    try:
        return Sent(bodies.decode(raw), None, raw)
    except RaftcronError as error:
        return Sent(None, error, raw)
