"""What is worth an alert, and whom a list of alerts names; how they are delivered is in runtime/alerts.py."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from raftcron.core import definition
from raftcron.core.fields import CHECKS, Walk, escape, kind_of, near
from raftcron.core.model import (
    COUNTED_CAUSES,
    FAILED,
    LOST,
    REASON_COALESCED,
    REASON_DEADLINE,
    REASON_EXPIRED,
    REASON_MISFIRE,
    REASON_NO_NODE,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    TIMED_OUT,
    Run,
)
from raftcron.core.state import State
from raftcron.errors import Fault

DEFAULT_ROUTE: Final = "default"
MARK: Final = "delivered"
TOLD_BY_DEFAULT: Final = ("failed", "lost", "missed", "recovered")
MISSED: Final = frozenset({REASON_MISFIRE, REASON_COALESCED, REASON_EXPIRED, REASON_DEADLINE, REASON_NO_NODE})
SERVER_SET: Final = frozenset({"revision", "created_at", "updated_at"})

_encode = msgspec.msgpack.Encoder(order="sorted").encode


class Target(msgspec.Struct, frozen=True, gc=False):
    """Whom one entry of a list tells, and of what."""

    type: str = "webhook"
    on: tuple[str, ...] = TOLD_BY_DEFAULT
    url: str = ""
    to: str = ""
    secret: str | None = None


def kind_of_run(state: State, index: int, run: Run) -> str | None:
    """What the entry `index`, which `state` has just taken, made of this row: a kind of alert, or None.

    A run is told of as a whole, never its parts; and each thing that happens to it once, in the entry where it does.
    """
    if run.part is not None or run.late_outcome is not None:
        return None
    if run.state == SUCCEEDED:
        return "recovered" if run.id in state.noted_recoveries else None
    if run.state in (FAILED, TIMED_OUT):
        return "failed"
    if run.state == LOST:
        return "lost"
    if run.state == SKIPPED:
        return "missed" if run.reason in MISSED else None
    return "late" if run.state == RUNNING and _began_late(state, index, run) else None


def _began_late(state: State, index: int, run: Run) -> bool:
    policy = state.policies.get(run.uid)
    if policy is None or run.attempt != 1 or run.cause not in COUNTED_CAUSES or run.started_at is None:
        return False
    began_now = bool(run.attempts) and run.attempts[-1].started_index == index
    return began_now and run.started_at - run.due_at > policy.grace_ms


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


def targets(state: State, uid: int) -> tuple[Target, ...]:
    """Whom the runs of this job are told to: those it names, or those of the default route."""
    job = state.by_uid.get(uid)
    if job is not None and state.policy(uid).has_alerts:
        return _of_job(job.definition)
    route = state.alert_routes.get(DEFAULT_ROUTE)
    return () if route is None else _of_route(route.definition)


@functools.lru_cache(maxsize=256)
def _of_job(stored: bytes) -> tuple[Target, ...]:
    return _parsed(definition.written_of(stored).get("alerts", []))


@functools.lru_cache(maxsize=4)
def _of_route(stored: bytes) -> tuple[Target, ...]:
    return _parsed(expand(stored))


def _parsed(alerts: list[Mapping[str, Any]]) -> tuple[Target, ...]:
    return tuple(msgspec.convert(one, Target) for one in alerts if one.get("type") != "none")
