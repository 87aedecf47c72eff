"""HttpExecutor: one request to a webhook, sent at most once, and what its answer means.  Checks of the job: see below.

The aiohttp client repeats idempotent requests by itself when a kept connection turns out dead, and connects before it
sends.  Both matter here: the gate is asked, and a second sending refused, in `_GatedRequest.send`, the last step before
the first byte.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Self

import aiohttp
from aiohttp.client_reqrep import ClientRequest, ClientResponse
from aiohttp.connector import Connection
from yarl import URL

import raftcron
from raftcron.executors.addresses import refusal
from raftcron.executors.context import args_text, headers
from raftcron.executors.http_spec import DEFAULT_METHOD, StatusSet, validate
from raftcron.executors.output import Tail
from raftcron.executors.registry import Surroundings, unsent
from raftcron.executors.validation import Finding
from raftcron.ports import Attempt, Control, Ending

ANSWER_BYTES = 64 << 10  # an answer is read this far; one that goes on is cut, and its status counts
CONNECTIONS_PER_HOST = 100  # those beyond it wait, and ask the gate when it is their turn
KEEP_ALIVE_SECONDS = 1.5  # below the idle time-outs of common servers (2 s and more): a connection that the server is
#                           closing while the request leaves would make the attempt `broken`

_current: ContextVar[_Sending] = ContextVar("raftcron_http_sending")


class _NotLicensed(Exception):
    """The gate is closed; nothing was sent."""


class _SentBefore(Exception):
    """The client wants to send a second time."""


class _Sending:
    """One attempt's way out."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.is_sent = False
        self.refused_address: str | None = None

    def begin(self) -> None:
        if self.is_sent:
            raise _SentBefore
        if self._control.may_start() is None:
            raise _NotLicensed
        self.is_sent = True


class _GatedRequest(ClientRequest):
    """Asks the gate with the connection in hand, right before the first byte."""

    async def send(self, conn: Connection) -> ClientResponse:
        _current.get().begin()
        return await super().send(conn)


def _open_socket(address: Any) -> socket.socket:
    """The last place before a connection is tried, for addresses written in the URL and for resolved ones alike."""
    family, kind, protocol, _, where = address
    reason = refusal(where[0])
    if reason is not None:
        _current.get().refused_address = f"{where[0]} is {reason}"
        raise OSError(f"{where[0]} is {reason}")
    return socket.socket(family, kind, protocol)


class HttpExecutor:
    """`{"type": "http", "method", "url", "headers", "body", "expect_status"}`.

    Connections are reused, redirects not followed, no cookies kept, certificates verified, proxies of the environment
    not used.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def create(cls, surroundings: Surroundings) -> Self:
        return cls()

    @staticmethod
    def validate(spec: Mapping[str, Any]) -> list[Finding]:
        return validate(spec)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        sending = _Sending(control)
        calling = asyncio.ensure_future(self._call(attempt, sending))
        stopped = asyncio.ensure_future(control.stopped())
        try:
            await asyncio.wait({calling, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if calling.done():
                return calling.result()
            calling.cancel()
            await asyncio.wait({calling})
            if not calling.cancelled():  # it ended in the same instant
                return calling.result()
            return _dropped(stopped.result()) if sending.is_sent else unsent(stopped.result())
        finally:
            calling.cancel()
            stopped.cancel()

    async def _call(self, attempt: Attempt, sending: _Sending) -> Ending:
        _current.set(sending)
        try:
            async with asyncio.timeout(attempt.timeout_seconds):
                return await self._exchange(attempt)
        except _NotLicensed:
            return Ending("not_started", error="the start gate is closed")
        except _SentBefore:
            text = "the connection broke after the request was sent, before an answer came"
            return Ending("failed", proven=False, error=text, error_kind="broken")
        except TimeoutError:
            what = "no complete answer" if sending.is_sent else "no connection"
            text = f"timed out after {attempt.timeout_seconds:g} s: {what}"
            return Ending("timed_out", proven=not sending.is_sent, error=text, error_kind="timeout")
        except (aiohttp.InvalidURL, ValueError, UnicodeError) as error:  # checked when the job was written
            return _failure("invalid", f"the request cannot be made: {error}", sending)
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            if sending.refused_address is not None:
                return _failure("not_allowed", f"refused to connect: {sending.refused_address}", sending)
            return _failure("connect", f"no connection: {_describe(error)}", sending)

    async def _exchange(self, attempt: Attempt) -> Ending:
        spec = attempt.executor
        fields = {"User-Agent": f"raftcron/{raftcron.__version__}", "Accept": "*/*"} | headers(attempt)
        own = spec.get("headers") or {}
        theirs = {name.lower() for name in own}
        fields = {name: value for name, value in fields.items() if name.lower() not in theirs} | dict(own)
        body = spec.get("body")
        if body is None and attempt.args is not None:
            body = args_text(attempt)
            if "content-type" not in theirs:
                fields["Content-Type"] = "application/json"
        elif body is not None and "content-type" not in theirs:
            fields["Content-Type"] = "text/plain; charset=utf-8"
        expected = StatusSet.parse(spec.get("expect_status"))
        response = await self._open().request(
            spec.get("method") or DEFAULT_METHOD,
            URL(spec["url"]),
            headers=fields,
            data=None if body is None else body.encode(),
            allow_redirects=False,
        )
        async with response:
            tail = await _read(response)
            code = response.status
            if code in expected:
                return Ending("succeeded", status_code=code, output_tail=tail)
            hint = "; redirects are not followed" if 300 <= code < 400 and code != 304 else ""
            text = f"status {code}, expected {expected}{hint}"
            return Ending("failed", status_code=code, error=text, error_kind="status", output_tail=tail)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0,  # the node's slots bound it
                limit_per_host=CONNECTIONS_PER_HOST,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
                socket_factory=_open_socket,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                request_class=_GatedRequest,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the attempt's own is around it all
                auto_decompress=False,  # a small answer stays small
                skip_auto_headers=("Accept-Encoding", "Content-Type"),
                trust_env=False,
            )
        return self._session


async def _read(response: ClientResponse) -> bytes:
    """The last bytes of the answer's body, looked for within its first 64 KiB."""
    tail = Tail()
    async for chunk in response.content.iter_any():
        tail.add(chunk[: ANSWER_BYTES - tail.total])
        if tail.total >= ANSWER_BYTES:
            response.close()
            break
    return tail.value()


def _failure(kind: str, text: str, sending: _Sending) -> Ending:
    if not sending.is_sent:
        return Ending("failed", error=text, error_kind=kind)
    text = text.replace("no connection", "the connection broke after the request was sent")
    return Ending("failed", proven=False, error=text, error_kind="broken")


def _dropped(reason: str) -> Ending:
    """What the receiver does with a request that it has read is not known."""
    if reason == "cancelled":
        return Ending("cancelled", proven=False, error="cancelled: the call was dropped", error_kind="cancelled")
    why = "lease ended" if reason == "lease" else "shutdown"
    return Ending("failed", proven=False, error=f"the call was dropped at this node's {why}", error_kind=reason)


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__
