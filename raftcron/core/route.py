"""The default route of alerts as somebody writes it: what it may hold, and its bytes; whom it names is in alerts.py."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from raftcron.core.fields import CHECKS, Walk, escape, kind_of, near
from raftcron.core.unreadable import UNREADABLE
from raftcron.errors import Fault

DEFAULT_ROUTE: Final = "default"
ROUTE_BYTES_MAX: Final = 64 << 10
SERVER_SET: Final = frozenset({"revision", "created_at", "updated_at"})

_encode = msgspec.msgpack.Encoder(order="sorted").encode


def check(body: Any) -> tuple[list[Any], tuple[Fault, ...]]:
    """The list that a default route's body holds, and all that is wrong with it."""
    walk = Walk()
    if not isinstance(body, dict):
        walk.fault("", f'must be an object such as {{"alerts": [...]}}, not {kind_of(body)}')
        return [], tuple(walk.faults)
    for key in sorted(body.keys() - SERVER_SET - {"alerts"}):
        walk.fault(f"/{escape(key)}", "is not a field of the default route" + near(key, ("alerts",)))
    if "alerts" not in body:
        walk.fault("/alerts", "is missing: a list, as a job's `alerts`")
    else:
        CHECKS["/alerts"](walk, "/alerts", body["alerts"])
    return [] if walk.faults else body["alerts"], tuple(walk.faults)


def canonical(alerts: list[Any]) -> bytes:
    """The bytes that the log holds of a list that `check` found sound."""
    return _encode(alerts)


def expand(stored: bytes) -> list[Any]:
    """The list as JSON values."""
    found: list[Any] = msgspec.msgpack.decode(stored)
    return found


def stored_fault(name: str, stored: bytes) -> str | None:
    """Why these bytes are no list that `check` could have found sound; None: they are one."""
    if name != DEFAULT_ROUTE or len(stored) > ROUTE_BYTES_MAX:
        return f"the one route is {DEFAULT_ROUTE!r}, of at most {ROUTE_BYTES_MAX} bytes"
    walk = Walk()
    try:
        CHECKS["/alerts"](walk, "/alerts", expand(stored))
    except UNREADABLE as error:
        return str(error)
    return f"{walk.faults[0].pointer} {walk.faults[0].message}" if walk.faults else None
