"""The synchronous client: http.client, one connection a request at a time."""

from __future__ import annotations

import http.client
import io
import json
import os
import secrets
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from raftcron.client.addresses import DEFAULT_ADDRESSES, Addresses
from raftcron.client.answers import MAX_ANSWER_BYTES, Answer, error_of, read
from raftcron.client.api import Api, Query, target_of
from raftcron.client.course import READS, Broken, Late, NotSent, Outcome, Request, Try, Wait, course, tries
from raftcron.clock import SystemClock
from raftcron.errors import RaftcronError, UnavailableError

TIMEOUT_SECONDS: Final = 15.0  # above the 10 s after which a node answers 504 itself
CONNECT_SECONDS: Final = 5.0  # of them at most, until a node takes the connection
BYTES_A_SECOND: Final = 256 << 10  # by which a node reads, writes and answers a long body, at the least
PATIENCE_SECONDS: Final = 10.0  # how long a request goes on trying
STREAM_SECONDS: Final = 60.0  # without a byte: nodes send something each 15 s
CHUNK_BYTES: Final = 64 << 10
KEY: Final = "Idempotency-Key"

# Of OpenSSL: reasons where something else than TLS answers; codes of certificates of nobody known, or of another host.
NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER")
UNKNOWN_ISSUER: Final = frozenset({18, 19, 20, 21})
WRONG_NAME: Final = frozenset({62, 64})


class Upload(io.BytesIO):
    """A long body that tells how far it has gone: `told` gets the bytes so far, fewer where it is sent again."""

    def __init__(self, content: bytes, told: Callable[[int], None]) -> None:
        super().__init__(content)
        self._told = told

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self._told(self.tell())
        return piece


Payload = bytes | Upload | None


class Client(Api):
    """See raftcron.client.  Not for use by several threads at once.

    `addresses`: `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`, one or several; `timeout_seconds`: for one
    exchange with one node, and a second more for each 256 KiB that are sent; `patience_seconds`: how long a request
    goes on from node to node (0: each once); `ca`: a file of certificates to trust instead of the system's;
    `certificate`: a file with a certificate and its key, to show; `discover`: ask the cluster where its other members
    are.
    """

    def __init__(
        self,
        addresses: str | Sequence[str] = DEFAULT_ADDRESSES,
        token: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        ca: str | None = None,
        certificate: str | None = None,
        discover: bool = True,
    ) -> None:
        """InvalidError: one of the addresses is none."""
        self._addresses = Addresses(addresses)
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._timeout_seconds = timeout_seconds
        self._patience_seconds = patience_seconds
        self._tls = trusting(ca, certificate)
        self._discover = discover
        self._leader: str | None = None
        self._sought: str | None = None
        self._clock = SystemClock()
        self._kept: tuple[str, http.client.HTTPConnection] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; the client can still be used."""
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        payload: Payload
        if isinstance(body, Upload):
            sent, _ = prepared(method, self._headers, None, headers)
            sent["Content-Length"] = str(len(body.getbuffer()))
            payload = body
        else:
            sent, payload = prepared(method, self._headers, body, headers)
        asked = Request(method, target_of(path, query), has_key=KEY in sent)
        answer = self._run(asked, payload, sent, self._patience_seconds)
        self._leader = leader = answer.headers.get("raftcron-leader", self._leader)
        if self._discover and leader not in (None, self._sought) and not self._addresses.knows(leader):
            self._sought = leader
            self._learn()
        return answer

    def stream(
        self,
        path: str,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        opened: MutableMapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        target = target_of(path, query)
        refusals: list[str] = []
        last: RaftcronError | None = None
        steps = tries(self._addresses.round(), is_read=True)
        for step in steps:  # grows by those who are late
            address = step.address
            connection = self._connection(step)
            with closing(connection):
                try:
                    connection.connect()
                    sock = connection.sock
                    sock.settimeout(step.seconds or STREAM_SECONDS)
                    connection.request("GET", target, headers=self._headers | dict(headers or {}))
                    response = connection.getresponse()
                    sock.settimeout(STREAM_SECONDS)
                except (OSError, http.client.HTTPException) as error:
                    self._addresses.failed(address)
                    if is_late(step, error):
                        steps.append(Try(address))
                    else:
                        refusals.append(f"{address}: {why(error)}")
                    continue
                if response.status >= 300:
                    last = error_of(_answer(address, response))
                    if not isinstance(last, UnavailableError):
                        raise last
                    continue
                self._addresses.served(address)
                if opened is not None:
                    opened.update((name.lower(), value) for name, value in response.getheaders())
                try:
                    while chunk := response.read1(CHUNK_BYTES):
                        yield chunk
                except (OSError, http.client.HTTPException) as error:
                    raise UnavailableError(f"GET {target} at {address} broke off: {why(error)}") from error
                if response.length:
                    raise UnavailableError(f"GET {target} at {address} broke off: {response.length} bytes are missing")
                return
        raise last or UnavailableError(f"no node can be reached: {'; '.join(refusals)}; is one running there? (--addr)")

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    # ---- details

    def _run(self, asked: Request, payload: Payload, headers: Mapping[str, str], patience: float) -> Answer:
        leader = None if asked.method == "GET" else self._leader
        steps = course(asked, self._addresses, leader, patience, self._clock.monotonic)
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            if isinstance(step, Wait):
                self.pause(step.seconds)
                outcome = None
            else:
                outcome = self._exchange(step, asked, payload, headers)

    def _exchange(self, step: Try, asked: Request, payload: Payload, headers: Mapping[str, str]) -> Outcome:
        kept, self._kept = self._kept, None
        if kept is not None and (kept[0] != step.address or has_ended(kept[1])):
            kept[1].close()
            kept = None
        connection = self._connection(step) if kept is None else kept[1]
        try:
            if kept is None:
                connection.connect()
        except OSError as error:
            connection.close()
            return Late() if is_late(step, error) else NotSent(why(error))
        try:
            if isinstance(payload, Upload):
                payload.seek(0)
            sock, most = connection.sock, patient(self._timeout_seconds, payload)
            sock.settimeout(min(most, step.seconds or most))
            connection.request(asked.method, asked.target, body=payload, headers=dict(headers))
            response = connection.getresponse()
            sock.settimeout(most)
            step = Try(step.address)  # its answer has begun
            answer = _answer(step.address, response)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Late() if is_late(step, error) else Broken(why(error))
        except RaftcronError:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._kept = (step.address, connection)
        return answer

    def _connection(self, step: Try) -> http.client.HTTPConnection:
        parts = urlsplit(step.address)
        timeout = min(self._timeout_seconds, CONNECT_SECONDS, step.seconds or CONNECT_SECONDS)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)

    def _learn(self) -> None:
        """Ask where the others are, once for each new leader; that it fails costs nothing but a longer way."""
        try:
            found = self._run(Request("GET", "/v1/cluster", has_key=False), None, self._headers, 0.0)
            self._addresses.learn(found.body["members"])
        except (RaftcronError, KeyError, TypeError):
            return


def trusting(ca: str | None, certificate: str | None) -> ssl.SSLContext | None:
    """What https nodes are trusted by and shown; None: as the library does by itself.  Raises OSError."""
    if ca is None and certificate is None:
        return None
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def prepared(
    method: str, common: Mapping[str, str], body: Any, headers: Mapping[str, str] | None
) -> tuple[dict[str, str], bytes | None]:
    """Headers and bytes of a request; a write gets an idempotency key of its own, unless it has one.

    Each name is given in one form, whatever the caller's: names that differ in case only would be sent twice.
    """
    sent = dict(common) | {name.title(): value for name, value in (headers or {}).items()}
    if method not in READS:
        sent.setdefault(KEY, secrets.token_hex(16))
    if body is None or isinstance(body, bytes):
        return sent, body
    sent.setdefault("Content-Type", "application/json")
    return sent, json.dumps(body, ensure_ascii=False).encode()


def has_ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the node has given up a kept connection, as it may at any time: then nothing is sent there any more.

    Nothing else can have come, since each answer is read to its end.
    """
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def is_late(step: Try, error: BaseException) -> bool:
    """Whether that is why a node was given up which may still answer."""
    return step.seconds is not None and isinstance(error, TimeoutError)


def patient(timeout_seconds: float, payload: Payload) -> float:
    """How long an exchange may take that sends so much."""
    size = len(payload.getbuffer()) if isinstance(payload, Upload) else len(payload or b"")
    return timeout_seconds + size / BYTES_A_SECOND


def _answer(address: str, response: http.client.HTTPResponse) -> Answer:
    found = {name.lower(): value for name, value in response.getheaders()}
    return read(address, response.status, found, response.read(MAX_ANSWER_BYTES + 1))


def why(error: BaseException) -> str:
    """The reason of a failed connection, short, and what to do where that is known."""
    while isinstance(error.__cause__, OSError):  # what aiohttp has made of it says less
        error = error.__cause__
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrust(error)
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or str(error)
        is_plain = any(sign in reason for sign in NO_TLS)
        return "it does not speak TLS (use http://)" if is_plain else f"TLS fails: {reason}"
    if isinstance(error, socket.gaierror):  # its numbers are not the system's
        return f"host name not known ({error.strerror})"
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "the connection ended"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _distrust(error: ssl.SSLCertVerificationError) -> str:
    told = error.verify_message
    if error.verify_code in WRONG_NAME:
        _, _, host = told.rstrip(".'").rpartition("'")
        return f"its certificate does not name {host}"
    advice = ", name what it is trusted by (--cacert FILE)" if error.verify_code in UNKNOWN_ISSUER else ""
    return f"its certificate is not trusted ({told}){advice}"
