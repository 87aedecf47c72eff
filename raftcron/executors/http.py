"""HttpExecutor: one request to a webhook, sent at most once, and what its answer means.  Checks of the job: see below.

The aiohttp client repeats idempotent requests by itself when a kept connection turns out dead, and connects before it
sends.  Both matter here: the gate is asked, and a second sending refused, in `_GatedRequest.send`, the last step before
the first byte.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Self

import aiohttp
from aiohttp.client_reqrep import ClientRequest, ClientResponse
from aiohttp.connector import Connection
from yarl import URL

import raftcron
from raftcron.clock import Clock
from raftcron.errors import Fault
from raftcron.executors.addresses import AddressRules
from raftcron.executors.context import args_text, headers
from raftcron.executors.http_spec import ANSWER_BYTES, DEFAULT_METHOD, READ_BYTES, StatusSet, validate
from raftcron.executors.no_connection import in_words
from raftcron.executors.output import WHOLE_BYTES, Capture, Shelf, Tail, output_name
from raftcron.executors.registry import Surroundings, unsent
from raftcron.executors.signature import signed
from raftcron.ports import Attempt, Control, Ending

CONNECTIONS_PER_HOST = 100  # those beyond it wait, and ask the gate when it is their turn
KEEP_ALIVE_SECONDS = 1.5  # below the idle time-outs of common servers (2 s and more): a connection that the server is
#                           closing while the request leaves would make the attempt `broken`
TAKEN_OVER = 202  # of an asynchronous job: the target ends the run itself, with /v1/runs/{id}/finish

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


class HttpExecutor:
    """`{"type": "http", "method", "url", "headers", "body", "expect_status", "expect_body", "secret"}`.

    Connections are reused, redirects not followed, no cookies kept, certificates verified, proxies of the environment
    not used.
    """

    def __init__(
        self, clock: Clock, rules: AddressRules, trust: ssl.SSLContext | None, answers: Shelf | None = None
    ) -> None:
        self._answers = answers
        self._clock = clock
        self._rules = rules
        self._trust = trust  # None: the system's CAs
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def create(cls, surroundings: Surroundings) -> Self:
        return cls(surroundings.clock, surroundings.addresses, surroundings.trust, surroundings.answers)

    @staticmethod
    def validate(spec: Mapping[str, Any]) -> list[Fault]:
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
        except aiohttp.ClientSSLError as error:  # before ValueError, which some of them are, too
            return _no_answer("tls", error, attempt, sending)
        except (aiohttp.InvalidURL, ValueError, UnicodeError) as error:  # checked when the job was written
            return _failure("invalid", f"the request cannot be made: {error}", sending)
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            if sending.refused_address is not None:
                return _failure("not_allowed", f"refused to connect: {sending.refused_address}", sending)
            return _no_answer(_kind_of(error), error, attempt, sending)

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
        data = None if body is None else body.encode()
        if spec.get("secret") is not None:
            fields |= signed(spec["secret"], attempt.run_id, int(self._clock.wall()), data or b"")
        response = await self._open().request(
            spec.get("method") or DEFAULT_METHOD,
            URL(spec["url"]),
            headers=fields,
            data=data,
            allow_redirects=False,
        )
        async with response:
            answer = await _read(response)
            self._keep(attempt, answer)
            ending = _judge(spec, response.status, answer)
            if ending.state == "failed" and not await _ends(response, READ_BYTES - len(answer)):
                text = f"{ending.error}; and the answer does not end within {READ_BYTES >> 20} MiB"
                ending = ending._replace(proven=False, error=text, error_kind="broken")
            if not response.content.at_eof():
                response.close()
            return ending

    def _keep(self, attempt: Attempt, answer: bytes) -> None:
        """What does not fit into the tail goes to a file; 64 KiB at most, which the system takes at once."""
        if self._answers is None or len(answer) <= WHOLE_BYTES:
            return
        name = output_name(attempt.run_id, attempt.fencing_token)
        capture = Capture(self._answers.path(name), self._answers.file_bytes)
        capture.add(answer)
        capture.close()
        self._answers.take(name)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0,  # the node's slots bound it
                limit_per_host=CONNECTIONS_PER_HOST,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
                socket_factory=self._open_socket,
                ssl=self._trust or True,
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

    def _open_socket(self, address: Any) -> socket.socket:
        """The last place before a connection is tried, for addresses written in the URL and for resolved ones alike."""
        family, kind, protocol, _, where = address
        reason = self._rules.refusal(where[0])
        if reason is not None:
            _current.get().refused_address = f"{where[0]} is {reason}"
            raise OSError(f"{where[0]} is {reason}")
        return socket.socket(family, kind, protocol)


async def _read(response: ClientResponse) -> bytes:
    """The answer's body, at most its first 64 KiB."""
    body = bytearray()
    while len(body) < ANSWER_BYTES and (chunk := await response.content.readany()):
        body += chunk[: ANSWER_BYTES - len(body)]
    return bytes(body)


async def _ends(response: ClientResponse, bytes_max: int) -> bool:
    """Whether the answer ends within about so many further bytes, which are thrown away."""
    while bytes_max > 0:
        chunk = await response.content.readany()
        if not chunk:
            return True
        bytes_max -= len(chunk)
    return False


def _judge(spec: Mapping[str, Any], code: int, body: bytes) -> Ending:
    """What an answer means that has come to its end, or whose first 64 KiB say that it is well."""
    tail = Tail()
    tail.add(body)
    end = Ending("failed", status_code=code, output_tail=tail.value())
    if spec.get("async") and code == TAKEN_OVER:
        return end._replace(state="taken_over")
    expected = StatusSet.parse(spec.get("expect_status"))
    if code not in expected:
        hint = "; redirects are not followed" if 300 <= code < 400 and code != 304 else ""
        return end._replace(error=f"status {code}, expected {expected}{hint}", error_kind="status")
    text = spec.get("expect_body")
    if text is not None and text.encode() not in body:
        where = f"the first {ANSWER_BYTES >> 10} KiB of the answer" if len(body) >= ANSWER_BYTES else "the answer"
        return end._replace(error=f"status {code}, but {where} does not hold {text[:200]!r}", error_kind="body")
    return end._replace(state="succeeded")


def _kind_of(error: BaseException) -> str:
    """Why there is no connection, in a word."""
    if isinstance(error, ssl.SSLError):
        return "tls"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return "refused" if isinstance(cause, ConnectionRefusedError) else "connect"


def _no_answer(kind: str, error: BaseException, attempt: Attempt, sending: _Sending) -> Ending:
    if sending.is_sent:
        return _failure(kind, f"the connection broke after the request was sent: {in_words(error)}", sending)
    url = URL(attempt.executor["url"])
    return _failure(kind, f"cannot connect to {url.host_subcomponent}:{url.port}: {in_words(error)}", sending)


def _failure(kind: str, text: str, sending: _Sending) -> Ending:
    if sending.is_sent:
        return Ending("failed", proven=False, error=text, error_kind="broken")
    return Ending("failed", error=text, error_kind=kind)


def _dropped(reason: str) -> Ending:
    """What the receiver does with a request that it has read is not known."""
    if reason == "cancelled":
        return Ending("cancelled", proven=False, error="cancelled: the call was dropped", error_kind="cancelled")
    why = "lease ended" if reason == "lease" else "shutdown"
    return Ending("failed", proven=False, error=f"the call was dropped at this node's {why}", error_kind=reason)
