"""Server-sent events as the API sends them (WHATWG HTML, 9.2.6), from bytes to records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from raftcron.errors import RaftcronError

EVENT_BYTES_MAX: Final = 1 << 20  # of one event; more is not one of our nodes
LAST_N: Final = 999_999_999  # the greatest that an id may have behind its index


class Event(NamedTuple):
    """`id` is `<index>.<n>`, the same on every node; None for what does not come from the log."""

    id: str | None
    event: str
    data: Any


def behind(opened: Mapping[str, str]) -> str | None:
    """The id behind all that stood when a stream with these headers began: a reader that saw none goes on there."""
    index = opened.get("raftcron-index", "")
    return f"{index}.{LAST_N}" if index.isdigit() else None


class Parser:
    """Takes bytes as they come, gives events as they are whole; comments keep the connection alive and say nothing."""

    def __init__(self) -> None:
        self._rest = b""
        self._kind, self._id, self._data = "", None, []  # type: str, str | None, list[str]

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Raises RaftcronError for an event beyond EVENT_BYTES_MAX or without JSON in it."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise RaftcronError(f"an event is larger than {EVENT_BYTES_MAX:,} bytes: is this a raftcron node?")
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            kind, id_, data = self._kind or "message", self._id, self._data
            self._kind, self._id, self._data = "", None, []
            if not data:
                return None
            try:
                return Event(id_, kind, json.loads("\n".join(data)))
            except ValueError as error:
                raise RaftcronError("an event carries no JSON: is this a raftcron node?") from error
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "id":
            self._id = value
        elif name == "data":
            self._data.append(value)
        return None
