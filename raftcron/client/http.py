"""The HTTP API from outside, synchronous: tries the nodes in turn and turns their problems into raftcron's errors."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from raftcron.errors import Fault, InvalidError, RaftcronError, UnavailableError, UnknownOutcomeError

DEFAULT_ADDRESSES: Final = tuple(f"http://127.0.0.1:{port}" for port in (7101, 7102, 7103))  # of a local cluster
TIMEOUT_SECONDS: Final = 15.0  # above the 10 s after which a node answers 504 itself
MAX_ANSWER_BYTES: Final = 64 << 20  # a page of jobs is far below; more is not one of our nodes
PAGE: Final = 1000  # items a request

# What a node answers when it has certainly not written anything: the next node may do better.
_NOT_WRITTEN: Final = frozenset({502, 503})


class Answer(NamedTuple):
    """A success: status, headers by lower-case name, and the JSON value (None if there is no body)."""

    status: int
    headers: Mapping[str, str]
    body: Any


class HttpClient:
    """Talks to the first of `addresses` that answers, and stays with it.

    Every method raises the error of the tree that the node's problem names.  UnavailableError: no node could be
    reached, or none has a leader; nothing was written.  UnknownOutcomeError: the connection broke after a write had
    been sent.
    """

    def __init__(
        self,
        addresses: Sequence[str] = DEFAULT_ADDRESSES,
        token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """`addresses`: `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`.  InvalidError: one is none of these."""
        self._addresses = [_base(address) for address in addresses]
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._timeout_seconds = timeout_seconds

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; `path` is quoted already, None in `query` is left out."""
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        target = path + ("?" + urlencode(asked) if asked else "")
        sent = self._headers | dict(headers or {})
        payload = None
        if body is not None:
            payload = json.dumps(body, ensure_ascii=False).encode()
            sent.setdefault("Content-Type", "application/json")
        refusals: list[str] = []
        last: RaftcronError | None = None
        for address in list(self._addresses):
            try:
                answer = self._exchange(address, method, target, payload, sent)
            except _NotSentError as error:
                refusals.append(f"{address}: {error}")
                continue
            except UnknownOutcomeError as error:
                if method != "GET":
                    raise
                refusals.append(f"{address}: {error}")
                continue
            if answer.status in _NOT_WRITTEN:
                last = _error(answer)
                continue
            self._addresses.remove(address)
            self._addresses.insert(0, address)
            if answer.status >= 300:
                raise _error(answer)
            return answer
        if last is not None:
            raise last
        raise UnavailableError(f"no node can be reached: {'; '.join(refusals)}; is one running there? (--addr)")

    def items(
        self, path: str, query: Mapping[str, str | int | None] | None = None, limit: int | None = None
    ) -> Iterator[Any]:
        """All items of a list, page by page, at most `limit`."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = self.request("GET", path, query=dict(query or {}) | {"limit": size, "cursor": cursor}).body
            items = page["items"] if left is None else page["items"][:left]
            yield from items
            left = None if left is None else left - len(items)
            following = page.get("next_cursor")
            if not following or following == cursor:
                return
            cursor = following

    def _exchange(
        self, address: str, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        parts = urlsplit(address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self._timeout_seconds)
        try:
            try:
                connection.connect()
            except OSError as error:
                raise _NotSentError(error.strerror or str(error) or type(error).__name__) from error
            try:
                connection.request(method, target, body=payload, headers=dict(headers))
                response = connection.getresponse()
                raw = response.read(MAX_ANSWER_BYTES + 1)
            except (OSError, http.client.HTTPException) as error:
                why = str(error) or type(error).__name__
                raise UnknownOutcomeError(
                    f"{method} {target} at {address} broke off: {why}; look, then repeat"
                ) from error
        finally:
            connection.close()
        if len(raw) > MAX_ANSWER_BYTES:
            raise RaftcronError(f"{address} answered with over {MAX_ANSWER_BYTES:,} bytes: is it a raftcron node?")
        found = {name.lower(): value for name, value in response.getheaders()}
        try:
            body = json.loads(raw) if raw else None
        except ValueError as error:
            if response.status < 300:
                raise RaftcronError(f"{address} did not answer with JSON: is it a raftcron node?") from error
            body = None
        return Answer(response.status, found, body)


class _NotSentError(Exception):
    """No connection: nothing has left."""


def _base(address: str) -> str:
    base = address.strip().rstrip("/")
    if "://" not in base:
        base = "http://" + base
    try:
        parts = urlsplit(base)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
    except ValueError:
        is_good = False
    if not is_good or parts.path or parts.query or parts.username:
        raise InvalidError(f"{address!r} is not the address of a node: expected http://HOST:PORT")
    return base


def _classes(root: type[RaftcronError]) -> Iterator[type[RaftcronError]]:
    for child in root.__subclasses__():
        yield child
        yield from _classes(child)


def _error(answer: Answer) -> RaftcronError:
    """The error that a problem document (RFC 9457) names by its code, else the first one of its status."""
    problem = answer.body if isinstance(answer.body, dict) else {}
    classes = list(_classes(RaftcronError))
    by_code = [kind for kind in classes if kind.code == problem.get("code")]
    by_status = [kind for kind in classes if kind.http_status == answer.status and answer.status != 500]
    kind = (by_code or by_status or [RaftcronError])[0]
    detail = str(problem.get("detail") or problem.get("title") or f"a node answered {answer.status}")
    listed = problem.get("errors")
    faults = tuple(
        Fault(str(entry.get("pointer", "")), str(entry.get("message", "")))
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict)
    )
    wait = answer.headers.get("retry-after", "")
    return kind(detail, faults, retry_after_seconds=float(wait) if wait.isascii() and wait.isdigit() else None)
