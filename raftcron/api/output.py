"""/v1/runs/{id}/output: what user code wrote, whole and as text, read from the disk of the node where the attempt ran.

Any node answers: it takes what the state holds where that is all there was, reads its own disk, or passes on what the
other node reads.  With `follow` it goes on until the run has ended, from attempt to attempt and from node to node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import aiohttp
from aiohttp import web

from raftcron.api import problems, respond
from raftcron.api.context import NODE, NodeContext
from raftcron.api.forward import SESSION, carried, trust, url_at
from raftcron.api.paced import PacedResponse, dropping
from raftcron.api.query import READ, Query
from raftcron.core.model import ENDED, LOST, RUNNING, AttemptRecord, Run
from raftcron.errors import GoneError, NotFoundError, RaftcronError, TooManyError, UnavailableError
from raftcron.executors.kept_output import POLL_SECONDS, READERS_MAX
from raftcron.executors.no_connection import in_words
from raftcron.executors.output import WHOLE_BYTES
from raftcron.once import BrokenError
from raftcron.runtime.reads import READ_SECONDS

ATTEMPT = "Raftcron-Attempt"  # of an answer: whose output it begins with
PART = "Raftcron-Output-Of"  # between nodes: the attempt, and the index at which it was seen
ATTEMPT_MAX = 1_000_000
ANSWER_SECONDS = 5.0  # for another node to begin its answer
SILENT_SECONDS = 5.0  # of another node, after the attempt there has ended
PROBLEM_BYTES_MAX = 64 << 10


class _Stop(Exception):
    """There is no output to be had; `response` says why and what to do."""

    def __init__(self, response: web.Response) -> None:
        super().__init__()
        self.response = response


class _Attempt(NamedTuple):
    """One attempt of a run, as this node's state had it."""

    run: Run
    record: AttemptRecord
    node: NodeContext

    def is_over(self) -> bool:
        """Whether it has ended, by this node's newest state."""
        run = self.node.machine.state.runs.get(self.run.id)
        record = None if run is None else _record(run, self.record.attempt)
        return record is None or record.state != RUNNING

    @property
    def tail(self) -> str:
        return self.run.output_tail.decode("utf-8", "replace")

    @property
    def whole(self) -> bytes | None:
        """The output itself, where the state holds all of it."""
        return self.run.output_tail if self._is_told and 0 < len(self.run.output_tail) <= WHOLE_BYTES else None

    @property
    def is_silent(self) -> bool:
        """Whether it is known to have said nothing."""
        return self._is_told and not self.run.output_tail

    @property
    def _is_told(self) -> bool:
        """Whether the tail of the run is this attempt's: that of the newest one whose end was reported."""
        return self.record.state not in (RUNNING, LOST) and self.record.attempt == self.run.attempts[-1].attempt

    def stop(self, error: RaftcronError) -> _Stop:
        """What is left is the tail in the state."""
        tail = self.tail
        where = "; its last bytes are in `output_tail`" if tail else ""
        return _Stop(problems.problem(type(error)(error.detail + where), output_tail=tail, node=self.record.node))


async def get(request: web.Request) -> web.StreamResponse:
    """The output of the newest attempt, or of `?attempt=`; with `?follow=1` live."""
    query = Query(request, (*READ, "follow", "attempt"))
    follow, asked = query.flag("follow"), query.whole("attempt", None, 1, ATTEMPT_MAX)
    node = request.app[NODE]
    part = request.headers.get(PART) if respond.FORWARDED in request.headers else None
    headers: dict[str, str] = {}
    if part is None:
        headers = respond.at(await respond.read_point(request, query))
    else:
        query.refuse_any()
        asked = await _carried_attempt(node, part)
    if node.outputs.readers >= READERS_MAX:
        raise TooManyError(f"{READERS_MAX} outputs are being read through this node: ask another one, or later")
    node.outputs.readers += 1
    try:
        with dropping(request, "output"):
            return await _answer(request, follow, asked, is_carried=part is not None, headers=headers)
    except _Stop as stop:
        return stop.response
    finally:
        node.outputs.readers -= 1


async def _answer(
    request: web.Request, follow: bool, asked: int | None, *, is_carried: bool, headers: dict[str, str]
) -> web.StreamResponse:
    node, run_id = request.app[NODE], request.match_info["id"]
    attempt = _attempt(node, run_id, asked)
    while attempt is None and follow and not _is_ended(node, run_id):
        await _pause(request)
        attempt = _attempt(node, run_id, asked)
    pieces = None if attempt is None else await _open(request, attempt, follow, is_carried=is_carried)
    if attempt is not None:
        headers[ATTEMPT] = str(attempt.record.attempt)
    response = PacedResponse(headers={**headers, "Content-Type": "text/plain; charset=utf-8"})
    await response.prepare(request)
    while request.method != "HEAD" and attempt is not None and pieces is not None:
        async with aclosing(pieces):
            async for piece in pieces:
                await response.write(piece)
        if not follow or asked is not None:
            break
        attempt = await _next(request, attempt)
        try:
            pieces = None if attempt is None else await _open(request, attempt, follow, is_carried=False)
        except _Stop as stop:  # too late for another status
            await response.write(
                _notice(f"attempt {attempt.record.attempt}: {stop.response.reason}" if attempt else "")
            )
            break
    await response.write_eof()
    return response


async def _carried_attempt(node: NodeContext, part: str) -> int:
    """What another node asks for: the attempt, once this node has applied what that one saw of it."""
    attempt, _, index = part.partition(" ")
    if not (attempt.isascii() and attempt.isdigit() and index.isascii() and index.isdigit()):
        raise UnavailableError(f"{PART} is for nodes of this cluster")
    await node.reads.reached(int(index[:19]), READ_SECONDS)
    return int(attempt[:9])


def _attempt(node: NodeContext, run_id: str, asked: int | None) -> _Attempt | None:
    """The attempt asked for, or the newest; None if none has begun.  NotFoundError."""
    run = node.machine.state.runs.get(run_id)
    if run is None:
        raise NotFoundError(f"there is no run {run_id[:200]!r}, or it is no longer kept")
    record = _record(run, asked)
    if record is not None:
        return _Attempt(run, record, node)
    if asked is None or asked == run.attempt:
        return None
    there = ", ".join(str(record.attempt) for record in run.attempts[-10:]) or "none yet"
    raise NotFoundError(f"run {run_id[:200]!r} has no attempt {asked} on record; on record: {there}")


def _record(run: Run, attempt: int | None) -> AttemptRecord | None:
    found = [record for record in run.attempts if attempt in (None, record.attempt)]
    return found[-1] if found else None


def _is_ended(node: NodeContext, run_id: str) -> bool:
    run = node.machine.state.runs.get(run_id)
    return run is None or run.state in ENDED


async def _next(request: web.Request, attempt: _Attempt) -> _Attempt | None:
    """The attempt after this one, once it has begun; None if the run ends without."""
    node, run_id = attempt.node, attempt.run.id
    while True:
        run = node.machine.state.runs.get(run_id)
        newest = None if run is None else _record(run, None)
        if run is not None and newest is not None and newest.attempt > attempt.record.attempt:
            return _Attempt(run, newest, node)
        if run is None or run.state in ENDED:
            return None
        await _pause(request)


async def _pause(request: web.Request) -> None:
    """Wait a little, unless the caller has gone."""
    _check_caller(request)
    await asyncio.sleep(POLL_SECONDS)


def _check_caller(request: web.Request) -> None:
    """Nobody else tells while nothing is written."""
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the caller has gone")


async def _open(request: web.Request, attempt: _Attempt, follow: bool, *, is_carried: bool) -> AsyncGenerator[bytes]:
    """The output of one attempt, piece by piece.  Raises _Stop where it cannot be had."""
    where = attempt.record.node
    if (whole := attempt.whole) is not None:
        return _once(whole)
    if where == attempt.node.name:
        return await _here(request, attempt, follow)
    if is_carried:
        raise attempt.stop(
            UnavailableError(f"the attempt ran on {where}, and the request was passed on once: repeat it")
        )
    return await _there(request, attempt)


async def _once(whole: bytes) -> AsyncGenerator[bytes]:
    yield whole


async def _here(request: web.Request, attempt: _Attempt, follow: bool) -> AsyncGenerator[bytes]:
    """From this node's disk."""
    outputs, token = attempt.node.outputs, attempt.record.fencing_token

    def is_over() -> bool:
        _check_caller(request)
        return not follow or attempt.is_over()

    reading = await outputs.open(attempt.run.id, token)
    if reading is None and attempt.is_over():
        if attempt.is_silent:
            return _once(b"")
        text = (
            f"the output is not on node {attempt.node.name}: it was deleted for its age or for want of room, "
            "or what ran it keeps no more than the last bytes, or it said nothing"
        )
        if attempt.record.state == LOST:
            text = f"nothing of the lost attempt's output is on node {attempt.node.name}"
        raise attempt.stop(GoneError(text))

    async def pieces() -> AsyncGenerator[bytes]:
        found = reading
        while found is None and not is_over():
            await _pause(request)
            found = await outputs.open(attempt.run.id, token)
        found = found or await outputs.open(attempt.run.id, token)
        if found is not None:
            async for piece in found.pieces(is_over):
                yield piece

    return pieces()


async def _there(request: web.Request, attempt: _Attempt) -> AsyncGenerator[bytes]:
    """From the disk of the node where it ran, over HTTP."""
    node, where = attempt.node, attempt.record.node
    members = {member.name for member in node.log.status().members}
    if members and where not in members:
        raise attempt.stop(GoneError(f"node {where}, where the attempt ran, is no member any more, nor is its disk"))
    known = node.machine.state.nodes.get(where)
    if known is None or not known.http:
        raise attempt.stop(UnavailableError(f"node {where}, where the attempt ran, has not announced its address"))
    headers = carried(request, b"")
    headers[PART] = f"{attempt.record.attempt} {node.machine.state.index}"
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await request.app[SESSION].request(
                request.method,
                url_at(request, known.http),
                ssl=trust(node),
                headers=headers,
                allow_redirects=False,
            )
    except (TimeoutError, aiohttp.ClientError, OSError, BrokenError) as error:
        raise attempt.stop(
            UnavailableError(
                f"node {where}, where the attempt ran, cannot be reached at {known.http}: {in_words(error)}; "
                "the output is on its disk, so repeat this when it is back"
            )
        ) from None
    if answer.status != web.HTTPOk.status_code:
        async with answer:
            content = await answer.content.read(PROBLEM_BYTES_MAX)
        raise _Stop(
            web.Response(
                status=answer.status, body=content, headers={"Content-Type": answer.headers.get("Content-Type", "")}
            )
        )
    return _passed_on(request, answer, attempt)


async def _passed_on(request: web.Request, answer: aiohttp.ClientResponse, attempt: _Attempt) -> AsyncGenerator[bytes]:
    """What the other node sends, until it ends, breaks off, or is silent although the attempt has ended."""
    silent = 0.0
    async with answer:
        while True:
            _check_caller(request)
            try:
                piece = await asyncio.wait_for(answer.content.readany(), 1.0)
            except TimeoutError:
                silent = silent + 1.0 if attempt.is_over() else 0.0
                if silent < SILENT_SECONDS:
                    continue
                yield _notice(f"node {attempt.record.node}, where this ran, says no more")
                return
            except (aiohttp.ClientError, OSError, BrokenError):
                yield _notice(f"the connection to node {attempt.record.node}, where this ran, broke")
                return
            if not piece:
                return
            silent = 0.0
            yield piece


def _notice(text: str) -> bytes:
    """A line of ours within an output; it has begun, so no status can say it any more."""
    return f"\n[... {text}]\n".encode()
