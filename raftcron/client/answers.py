"""What a node answered, and the error of the tree that a problem document stands for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from raftcron.errors import Fault, InvalidError, RaftcronError

MAX_ANSWER_BYTES: Final = 64 << 20  # a page of jobs is far below; more is not one of our nodes


class Answer(NamedTuple):
    """Status, headers by lower-case name, and the JSON value (None if there is no body, or it is no JSON)."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def retry_after_seconds(self) -> float | None:
        """How long the node asks to wait before the request is repeated."""
        wait = self.headers.get("retry-after", "")
        return float(wait) if wait.isascii() and wait.isdigit() else None

    @property
    def log_index(self) -> int:
        """The log index at which it took effect or was read."""
        index = self.headers.get("raftcron-index", "")
        return int(index) if index.isascii() and index.isdigit() else 0


def read(address: str, status: int, headers: Mapping[str, str], raw: bytes) -> Answer:
    """An answer from its bytes.  Raises RaftcronError where no node of ours can have sent them."""
    if len(raw) > MAX_ANSWER_BYTES:
        raise RaftcronError(f"{address} answered with over {MAX_ANSWER_BYTES:,} bytes: is it a raftcron node?")
    try:
        body = json.loads(raw) if raw else None
    except ValueError as error:
        if status < 300:
            raise RaftcronError(f"{address} did not answer with JSON: is it a raftcron node?") from error
        body = None
    return Answer(status, headers, body)


def error_of(answer: Answer) -> RaftcronError:
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
    error = kind(detail, faults, retry_after_seconds=answer.retry_after_seconds)
    if isinstance(error, InvalidError) and isinstance(problem.get("results"), list):
        error.results = tuple(problem["results"])
    return error


def _classes(root: type[RaftcronError]) -> Iterator[type[RaftcronError]]:
    for child in root.__subclasses__():
        yield child
        yield from _classes(child)
