"""Records as the JSON objects of the HTTP interface (api.md section 3); nothing here decides or looks anything up."""

from __future__ import annotations

from typing import Any

import msgspec

from raftcron.core import definition
from raftcron.core.coming import Coming
from raftcron.core.instant import rfc3339
from raftcron.core.model import AttemptRecord, Job, Move, Run
from raftcron.core.placement import parts_of
from raftcron.core.state import State
from raftcron.core.timeline import Timeline
from raftcron.core.transitions import transitions
from raftcron.core.vault import pointers, without
from raftcron.runtime.statistics import lateness_ms, statistics
from raftcron.runtime.waiting import waits_for

_decode_args = msgspec.msgpack.Decoder().decode
_PAUSED_AFTER = "max_runs"  # where `paused` stands in the contract's order


def instant(ms: int | None) -> str | None:
    """RFC 3339 UTC, or None for what has not happened."""
    return None if ms is None else rfc3339(ms)


def uid_text(uid: int) -> str:
    """A job's uid as run ids begin with it."""
    return f"{uid:x}"


def next_fire_at(job: Job, timeline: Timeline) -> int | None:
    """The first undecided scheduled time that is not asked to be skipped.

    None for a job that is paused, whose times are over, or whose next one depends on a run that has not ended.
    """
    group = None if job.paused else timeline.group_of(job.uid)
    at = None if group is None else group.next_after(group.watermark(job))
    while group is not None and at is not None and at in job.skips:
        at = group.next_after(at)
    return at


def job_fields(name: str, stored: bytes, paused: bool) -> dict[str, Any]:
    """What a client may write of a job, defaults included, secrets left out, in the contract's order."""
    view: dict[str, Any] = {"name": name}
    for key, value in definition.expand(stored).items():
        view[key] = value if key != "executor" else without(value)
        if key == _PAUSED_AFTER:
            view["paused"] = paused
    return view


def job_view(job: Job, state: State, timeline: Timeline) -> dict[str, Any]:
    """A job with what the server adds."""
    last = None if job.last_run is None else state.runs.get(job.last_run)
    view = job_fields(job.name, job.definition, job.paused)
    view |= {
        "uid": uid_text(job.uid),
        "owner": job.owner,
        "revision": job.revision,
        "created_at": instant(job.created_at),
        "updated_at": instant(job.updated_at),
        "next_fire_at": instant(next_fire_at(job, timeline)),
        "last_run": None if last is None else last_run_view(last),
        "stats": {
            "fired": job.fired,
            "skipped": job.skipped,
            "succeeded": job.succeeded,
            "failed": job.failed,
            "timed_out": job.timed_out,
            "cancelled": job.cancelled,
            "lost": job.lost,
            "decided_through": instant(job.decided_through),
            "counted_from": instant(job.counted_from),
            "last_success_at": instant(job.last_success),
            "last_failure_at": instant(job.last_failure),
            "consecutive_failures": job.failures_in_row,
            **statistics(state.ended_of(job.uid), state.runs),
        },
        "pause_note": job.pause_note or None,
        "pause_until": instant(job.pause_until),
        "state": timeline.state_of(job, state.policy(job.uid)),
        "skips": [instant(at) for at in job.skips],
        "secrets": [f"/executor{pointer}" for pointer in pointers(definition.executor_of(job.definition))],
        "joined": [{"job": parent, "run": run_id} for parent, run_id in job.joined],
    }
    return view


def coming_view(one: Coming) -> dict[str, Any]:
    """One of the times to come."""
    return {
        "scheduled_time": instant(one.scheduled_time),
        "due_at": instant(one.due_at),
        "local": one.local,
        "notes": [note._asdict() for note in one.notes],
    }


def last_run_view(run: Run) -> dict[str, Any]:
    """The short form that a job shows."""
    return {
        "id": run.id,
        "state": run.state,
        "scheduled_time": instant(run.scheduled_time),
        "finished_at": instant(run.finished_at),
    }


def run_view(run: Run, state: State) -> dict[str, Any]:
    """A run of this state; what does not apply to it is null.  Only summary rows have first, last, count."""
    view: dict[str, Any] = {
        "id": run.id,
        "job": run.job,
        "scheduled_time": instant(run.scheduled_time),
        "due_at": instant(run.due_at),
        "cause": run.cause,
        "state": run.state,
        "reason": run.reason,
        "waits_for": waits_for(state, run),
        "attempt": run.attempt,
        "fencing_token": run.fencing_token or None,
        "node": run.node,
        "queued_at": instant(run.queued_at),
        "started_at": instant(run.started_at),
        "finished_at": instant(run.finished_at),
        "finished_index": run.finished_index,
        "exit_code": run.exit_code,
        "status_code": run.status_code,
        "error": run.error,
        "error_kind": run.error_kind,
        "output_tail": run.output_tail.decode("utf-8", "replace"),
        "lateness_ms": lateness_ms(run),
        "log_index": run.log_index,
        "epoch": run.epoch,
        "missed_count": run.missed_count,
        "missed_first": instant(run.missed_first),
        "previous_time": instant(run.previous_time),
        "blocked_by": run.blocked_by,
        "replaced_by": run.replaced_by,
        "retry_of": run.retry_of,
        "late_outcome": run.late_outcome,
        "parent": run.follows if run.part is None else run.part.parent,
        "children": None if run.split is None else parts_of(run),
        "parts": None if run.split is None else run.split.tally,
        "shard_index": None if run.part is None else run.part.shard_index,
        "shard_count": None if run.part is None else run.part.shard_count,
        "answer_by": instant(run.answer_by),
        "heard_at": instant(run.heard_at),
        "args": None if run.args is None else _decode_args(run.args),
        "attempts": [_attempt_view(record) for record in run.attempts],
        "transitions": [_transition_view(move) for move in transitions(run)],
    }
    if run.count is not None:
        view |= {"first": instant(run.first), "last": instant(run.last), "count": run.count}
    return view


def _transition_view(move: Move) -> dict[str, Any]:
    return {"state": move.state, "node": move.node, "at": instant(move.at), "log_index": move.index}


def _attempt_view(record: AttemptRecord) -> dict[str, Any]:
    return {
        "attempt": record.attempt,
        "fencing_token": record.fencing_token,
        "node": record.node,
        "state": record.state,
        "started_at": instant(record.started_at),
        "finished_at": instant(record.finished_at),
        "started_index": record.started_index,
        "finished_index": record.finished_index,
    }
