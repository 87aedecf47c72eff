"""What two transports say to each other before messages pass, and how it is read."""

from __future__ import annotations

from typing import Any, NamedTuple

from raftcron.raft.connection import FrameError

HELLO, READY, LIVE, REFUSED, PING = range(5)

MAX_GREETING_BYTES = 4096  # of a frame before the connection is live
_MAX_REASON_CHARS = 500  # of what another node may have us log
_MAX_ID_CHARS = 128


class Hello(NamedTuple):
    """What a node says of itself."""

    name: str
    disk_id: str
    cluster_id: str | None  # None: belongs to no cluster yet
    incarnation: int
    is_empty: bool  # has no term, vote or entry


def read_hello(message: Any) -> Hello:
    """Raises FrameError."""
    match message:
        case [str(name), str(disk_id), None | str() as cluster_id, int(incarnation), bool()]:
            texts = (name, disk_id, cluster_id or "")
            if all(len(text) <= _MAX_ID_CHARS and text.isprintable() for text in texts) and _is_number(incarnation):
                return Hello(*message)
    raise FrameError("its hello is not one")


def write_refusal(reason: str, is_stranger: bool) -> list[Any]:
    return [f"{reason:.{_MAX_REASON_CHARS}}", is_stranger]


def read_refusal(message: Any) -> tuple[str, bool]:
    """Why, and whether it is for good.  Raises FrameError."""
    match message:
        case [str(reason), bool(is_stranger)]:
            shown = f"{reason:.{_MAX_REASON_CHARS}}"
            return "".join(char if char.isprintable() else "?" for char in shown), is_stranger
    raise FrameError("a refusal is a reason and a flag")


def read_choice(message: Any) -> int:
    """Raises FrameError."""
    if not _is_number(message) or message < 1:
        raise FrameError("a choice is not a number from 1")
    return int(message)


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0
