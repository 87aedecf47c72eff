"""Pure choices that need no state: retry or not, how long to wait, whether a run still may start."""

from __future__ import annotations

from hashlib import blake2b

from raftcron.core.instant import MAX_MS
from raftcron.core.model import (
    AT_LEAST_ONCE,
    CAUSE_BACKFILL,
    COUNTED_CAUSES,
    FAILED,
    LOST,
    TIMED_OUT,
    Policy,
    Run,
)

BROKEN = "broken"  # error kind: the connection broke after the request was sent


def may_retry(policy: Policy, run: Run, state: str, error_kind: str | None) -> bool:
    """Whether an attempt that ended in `state` is followed by another (semantics 4 and 11).

    A lost attempt is tried again in the class at_least_once only, whatever `retry.on` says; that of a broadcast's part
    never is, since its node is gone.
    """
    if run.attempt >= policy.max_attempts:
        return False
    if state == LOST:
        return policy.delivery == AT_LEAST_ONCE and (run.part is None or run.part.node is None)
    if state == FAILED:
        return (BROKEN if error_kind == BROKEN else FAILED) in policy.retry_on
    return state == TIMED_OUT and TIMED_OUT in policy.retry_on


def backoff_ms(policy: Policy, run: Run) -> int:
    """How long a retry waits, in milliseconds: doubled with each attempt, capped, then 75 to 100 % of that.

    The share is drawn from a hash of run and attempt, so that it is the same on every node.
    """
    wait = min(policy.backoff_ms << min(run.attempt - 1, 40), policy.max_backoff_ms)
    draw = int.from_bytes(blake2b(b"%s %d" % (run.id.encode(), run.attempt), digest_size=4).digest(), "little")
    return wait - (wait * draw >> 34)


def start_deadline(policy: Policy, run: Run) -> int:
    """The last instant at which this run's present attempt may start.

    For the first it counts from the scheduled time; for what did not come from the clock, from when it was asked for.
    For a further one it counts from when that was queued first.  A backfill waits however long that takes.
    """
    if run.cause == CAUSE_BACKFILL:
        return MAX_MS
    if run.attempt > 1:
        return waiting_since(run) + policy.start_deadline_ms
    at = run.scheduled_time if run.cause in COUNTED_CAUSES else run.due_at
    return at + policy.start_deadline_ms


def waiting_since(run: Run) -> int:
    """When the run's present attempt was queued first, whatever assignments have come to nothing since."""
    return run.queued_at if run.attempt == 1 else run.requeued_at


def jitter_of(uid: int, scheduled_time: int, span_ms: int) -> int:
    """How long after its scheduled time a job is due, in milliseconds: 0 to span - 1, the same on every node.

    blake2b of both, so that jobs of one schedule spread evenly and one job takes another place each time.
    """
    draw = blake2b(b"%d %d" % (uid, scheduled_time), digest_size=8, person=b"jitter").digest()
    return int.from_bytes(draw, "little") % max(1, span_ms)
