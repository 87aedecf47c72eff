"""A write's way: done here if this node leads, else carried to the leader over HTTP, once, and its answer brought back.

What is *certainly not written* (no leader, a deposed one, a refused connection) is tried again for `hold_seconds` and
then answered 503.  As soon as a request may have reached a leader that did not answer, the outcome is unknown: 504.
A leader that lives may take its time over a long body; one that leads no more, and is silent, may not.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import StreamReader, web
from multidict import CIMultiDict
from yarl import URL

from raftcron.api.auth import DOORKEEPER, VOUCH, check_body
from raftcron.api.bodies import JOB_BYTES_MAX
from raftcron.api.context import NODE, NodeContext
from raftcron.api.respond import FORWARDED, INDEX
from raftcron.errors import UnavailableError, UnknownOutcomeError
from raftcron.executors.no_connection import in_words
from raftcron.once import BrokenError, once

KEEP_ALIVE_SECONDS = 10.0  # of an idle connection to another node; servers keep theirs for more than a minute
POLL_SECONDS = 0.02  # how often a write that is held looks for a leader
LOOKS = 10  # within the request time-out: whether the node that was asked still leads
ANSWER_BYTES_MAX = 8 * JOB_BYTES_MAX  # a job with what the server adds, and JSON's escapes
LONG_ANSWER_BYTES_MAX = 256 << 20  # what a million jobs met

SESSION = web.AppKey("session", aiohttp.ClientSession)

# What the caller said that the leader has to know.  Host, Origin and lengths are of this hop; who the caller is this
# node says (auth.py), so that no token travels further than it must.
PASSED_ON = ("Accept", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "traceparent")
# What the leader said that the caller has to know.
PASSED_BACK = ("Allow", "Content-Type", "ETag", "Idempotency-Replayed", "Location", "Retry-After", INDEX)

Use = Callable[[], Awaitable[web.Response]]


async def sessions(app: web.Application) -> AsyncIterator[None]:
    """The client of this node for other nodes.

    Kept connections are given up long before a server ends them, so that one breaks under a request only where its
    node dies: then the outcome is unknown.  Only a failure to connect means that nothing was sent.
    """
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=1.0)
    async with aiohttp.ClientSession(
        connector=connector,
        middlewares=(once,),
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    ) as session:
        app[SESSION] = session
        yield


async def write(request: web.Request, body: bytes, use: Use) -> web.Response:
    """Have the leader do `use`, which is this request; `body` is what it brought.

    Raises UnavailableError (not written), UnknownOutcomeError, and whatever `use` raises.
    """
    node = request.app[NODE]
    check_body(request, body)
    try:
        async with asyncio.timeout(node.request_timeout_seconds):
            return await _held(request, node, lambda: body or None, use, ANSWER_BYTES_MAX, body)
    except TimeoutError:
        raise UnknownOutcomeError(
            f"no answer within {node.request_timeout_seconds:g} s: it may be written, now or later; "
            "repeat it with the same Idempotency-Key"
        ) from None


async def stream(request: web.Request, use: Use) -> web.Response:
    """The same for a request whose body is taken as it comes, of any length: it lasts as long as its body does.

    UnknownOutcomeError, too, once the node that was asked has led no more for the request time-out, and is silent.
    """
    body = _Body(request.content, use)
    return await _held(request, request.app[NODE], body.pieces, body.used, LONG_ANSWER_BYTES_MAX, None)


class _Body:
    """A body that is there once: for this node or for the leader."""

    def __init__(self, content: StreamReader, use: Use) -> None:
        self._content = content
        self._use = use
        self._is_begun = False

    async def used(self) -> web.Response:
        self._begin()
        return await self._use()

    async def pieces(self) -> AsyncIterator[bytes]:
        self._begin()
        async for piece in self._content.iter_any():
            yield piece

    def _begin(self) -> None:
        if self._is_begun:
            raise UnavailableError("the lead changed while the request was on its way: nothing was written; repeat it")
        self._is_begun = True


async def _held(
    request: web.Request,
    node: NodeContext,
    body: Callable[[], Any],
    use: Use,
    answer_max: int,
    whole: bytes | None,
) -> web.Response:
    """`body` gives what is sent on, `whole` is the same where it is known before."""
    # With a short request time-out, too, there is time left to say that nothing was written.
    until = node.clock.monotonic() + min(node.hold_seconds, node.request_timeout_seconds / 2)
    by = request.headers.get(FORWARDED)
    while True:
        status = node.log.status()
        if status.leading_epoch is not None:
            reason = await _try_here(use, until, node)
        elif status.leader is None or status.leader == node.name:
            reason = "there is no leader now"
        elif by is not None:
            raise UnavailableError(
                f"node {by[:100]} sent this to {node.name}, but {status.leader} leads; nothing was written"
            )
        else:
            reason = await _try_there(request, node, status.leader, body, until, answer_max, whole)
        if isinstance(reason, web.Response):
            return reason
        if node.clock.monotonic() >= until:
            raise UnavailableError(f"{reason}; nothing was written; repeat it")
        await asyncio.sleep(POLL_SECONDS)


async def _try_here(use: Use, until: float, node: NodeContext) -> web.Response | str:
    try:
        return await use()
    except UnavailableError as error:
        if node.clock.monotonic() >= until:
            raise
        return error.detail


async def _try_there(
    request: web.Request,
    node: NodeContext,
    leader: str,
    body: Callable[[], Any],
    until: float,
    answer_max: int,
    whole: bytes | None,
) -> web.Response | str:
    """The leader's answer, or why it certainly did not take the request."""
    known = node.machine.state.nodes.get(leader)
    if known is None or not known.http:
        return f"the leader {leader} has not announced its address yet"
    headers = carried(request, whole)
    session = request.app[SESSION]
    try:
        async with (
            _while_leading(node, leader),
            session.request(
                request.method,
                url_at(request, known.http),
                ssl=trust(node),
                data=body(),
                headers=headers,
                skip_auto_headers=("Content-Type",),
                allow_redirects=False,
            ) as answer,
        ):
            content = await answer.content.read(answer_max + 1)
            while len(content) <= answer_max and not answer.content.at_eof():
                content += await answer.content.read(answer_max + 1 - len(content))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        return f"the leader {leader} cannot be reached at {known.http}: {in_words(error)}"
    except (BrokenError, aiohttp.ClientError, OSError) as error:
        raise UnknownOutcomeError(
            f"the connection to the leader {leader} broke before its answer came: "
            "it may be written; repeat it with the same Idempotency-Key"
        ) from error
    if len(content) > answer_max:
        raise UnknownOutcomeError(f"the leader {leader} answered more than {answer_max} bytes")
    if answer.status == UnavailableError.http_status and node.clock.monotonic() < until:
        return f"{leader} could not take it"
    await _until_applied(node, answer.headers.get(INDEX))
    response = web.Response(status=answer.status, body=content)
    for name in PASSED_BACK:
        if name in answer.headers:
            response.headers[name] = answer.headers[name]
    return response


@asynccontextmanager
async def _while_leading(node: NodeContext, leader: str) -> AsyncIterator[None]:
    """Wait for `leader` without bound while it leads, as far as this node knows, and for the request time-out then.

    Raises UnknownOutcomeError.
    """
    patience = node.request_timeout_seconds
    bound = asyncio.timeout(patience)
    watch = _Watch(node, leader, bound)
    try:
        async with bound:
            yield
    except TimeoutError:
        if not bound.expired():
            raise
        raise UnknownOutcomeError(
            f"the leader {leader}, which was asked, has not answered, nor led for {patience:g} s as far as this node "
            "knows: it may be written, or a part of it; repeat the whole with the same Idempotency-Key"
        ) from None
    finally:
        watch.end()


class _Watch:
    """Puts `bound` off by the request time-out for as long as `leader` is looked at and leads.

    `end` leaves no cycle of references behind: what a request has held goes with it, and not with the next collection.
    """

    def __init__(self, node: NodeContext, leader: str, bound: asyncio.Timeout) -> None:
        self._node, self._leader, self._bound = node, leader, bound
        self._loop = asyncio.get_running_loop()
        self._wait()

    def end(self) -> None:
        self._next.cancel()

    def _wait(self) -> None:
        self._next = self._loop.call_later(self._node.request_timeout_seconds / LOOKS, self._look)

    def _look(self) -> None:
        if self._node.log.status().leader == self._leader and not self._bound.expired():
            self._bound.reschedule(self._loop.time() + self._node.request_timeout_seconds)
        self._wait()


def carried(request: web.Request, body: bytes | None) -> CIMultiDict[str]:
    """The headers under which this node carries a request on to another one, once; see `vouch`."""
    headers = CIMultiDict({FORWARDED: request.app[NODE].name, VOUCH: request.app[DOORKEEPER].vouch(request, body)})
    for name in PASSED_ON:
        for given in request.headers.getall(name, ()):
            headers.add(name, given)
    return headers


def url_at(request: web.Request, address: str) -> URL:
    """The same request's URL at another node, byte for byte; all nodes speak TLS, or none."""
    scheme = "http" if request.app[NODE].tls is None else "https"
    return URL(f"{scheme}://{address}{request.raw_path}", encoded=True)


def trust(node: NodeContext) -> ssl.SSLContext | bool:
    """What other nodes have to show, as aiohttp takes it."""
    return True if node.tls is None else node.tls.dialling()


async def _until_applied(node: NodeContext, index: str | None) -> None:
    """So that whoever wrote through this node reads it here; a node that lags answers all the same."""
    if index is not None and index.isascii() and index.isdigit():
        await node.reads.reached(int(index), node.hold_seconds)
