"""What is worth an alert, and whom a list of alerts names; how they are delivered is in runtime/alerts.py."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec

from raftcron.core import definition
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
from raftcron.core.route import DEFAULT_ROUTE, expand
from raftcron.core.state import State

MARK: Final = "delivered"
PAUSED: Final = "paused"  # by the cluster, which cannot tell the job's times
TOLD_BY_DEFAULT: Final = ("failed", "lost", "missed", "recovered", PAUSED)
BEHIND_MAX: Final = 100  # targets with a mark of their own
KEY_LENGTH: Final = 24  # of a target's key
MISSED: Final = frozenset({REASON_MISFIRE, REASON_COALESCED, REASON_EXPIRED, REASON_DEADLINE, REASON_NO_NODE})


class Target(msgspec.Struct, frozen=True, gc=False):
    """Whom one entry of a list tells, and of what."""

    type: str = "webhook"
    on: tuple[str, ...] = TOLD_BY_DEFAULT
    url: str = ""
    to: str = ""
    secret: str | None = None

    @property
    def key(self) -> str:
        """Names the target to the log, where no address is to stand: the same for all entries that tell it."""
        return key_of(self.type, self.url or self.to)


@functools.lru_cache(maxsize=4_096)
def key_of(kind: str, place: str) -> str:
    """The key of whoever is told at this address in this way."""
    return blake2b(f"{kind} {place}".encode(), digest_size=KEY_LENGTH // 2, person=b"target").hexdigest()


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


def names_somebody(state: State) -> bool:
    """Whether anybody is to be told of anything."""
    route = state.alert_routes.get(DEFAULT_ROUTE)
    return bool(state.telling) or (route is not None and bool(_of_route(route.definition)))


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
