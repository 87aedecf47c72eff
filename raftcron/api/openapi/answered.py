"""Schemas of what is answered: the views of runtime/views.py and friends, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raftcron.api.openapi.sketch import INSTANT, NAME_SCHEMA, Schema, nullable
from raftcron.api.openapi.taken import FLAG, TEXT, job_fields
from raftcron.core.access import ROLES
from raftcron.core.model import (
    CAUSE_BACKFILL,
    CAUSE_CATCH_UP,
    CAUSE_CHAIN,
    CAUSE_MANUAL,
    CAUSE_SCHEDULE,
    RUN_STATES,
)
from raftcron.core.why import FORGOTTEN, NOT_DUE, UNDECIDED
from raftcron.errors import FatalError, RaftcronError
from raftcron.ports import Role, Standing
from raftcron.runtime.listing import JOB_STATES

WHOLE: Schema = {"type": "integer"}
OR_INSTANT, OR_TEXT, OR_WHOLE = nullable(INSTANT), nullable(TEXT), nullable(WHOLE)
STATES = sorted(RUN_STATES)
CAUSES = [CAUSE_SCHEDULE, CAUSE_CATCH_UP, CAUSE_MANUAL, CAUSE_BACKFILL, CAUSE_CHAIN]
VERDICTS = ["fired", "skipped", NOT_DUE, UNDECIDED, FORGOTTEN]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def record(fields: Mapping[str, Any], *, optional: Mapping[str, Any] | None = None) -> Schema:
    """An object that has all of `fields`, and may have more in later versions."""
    properties = {**fields, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(fields)}


def several(items: Mapping[str, Any]) -> Schema:
    return {"type": "array", "items": dict(items)}


def page(name: str) -> Schema:
    """One page of a list."""
    return record(
        {
            "items": several(ref(name)),
            "next_cursor": {**OR_TEXT, "description": "for ?cursor= of the next page; null at the end"},
            "total": {**OR_WHOLE, "description": "null where it would have to be counted: ask with ?count=1"},
        }
    )


def error_kinds() -> Iterator[type[RaftcronError]]:
    """Every error that a request can be answered with."""
    waiting: list[type[RaftcronError]] = [RaftcronError]
    while waiting:
        kind = waiting.pop()
        of_errors = [one for one in kind.__subclasses__() if one.__module__ == RaftcronError.__module__]
        waiting += [one for one in of_errors if not issubclass(one, FatalError)]
        if kind is not RaftcronError:
            yield kind


def components() -> dict[str, Schema]:
    """By name."""
    return {
        "Problem": _problem(),
        **_jobs(),
        **_runs(),
        **_times(),
        **_small(),
        **_cluster(),
        "JobPage": page("Job"),
        "RunPage": page("Run"),
        "CalendarPage": page("Calendar"),
        "GroupPage": page("Group"),
        "TokenPage": page("Token"),
        "SecretPage": page("Secret"),
    }


def _problem() -> Schema:
    codes = sorted({kind.code for kind in error_kinds()})
    fault = record({"pointer": {**TEXT, "description": "JSON pointer, or ?name of a parameter"}, "message": TEXT})
    return {
        **record(
            {
                "type": {"type": "string", "format": "uri"},
                "title": TEXT,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {**TEXT, "description": "what, which, why, and what to do next"},
                "code": {"type": "string", "enum": codes},
            },
            optional={"errors": {**several(fault), "description": "every fault of the request"}},
        ),
        "description": "RFC 9457",
    }


# ---- jobs ------------------------------------------------------------------------------------------------------------


def _jobs() -> dict[str, Schema]:
    figures = nullable(record(dict.fromkeys(("count", "last", "mean", "p50", "p90", "p99", "max"), WHOLE)))
    counts = ("fired", "skipped", "succeeded", "failed", "timed_out", "cancelled", "lost", "consecutive_failures")
    stats = record(
        {
            **dict.fromkeys(counts, WHOLE),
            "decided_through": {**INSTANT, "description": "the watermark: what is due until then is decided"},
            "counted_from": INSTANT,
            "last_success_at": OR_INSTANT,
            "last_failure_at": OR_INSTANT,
            "durations_ms": figures,
            "lateness_ms": figures,
        }
    )
    last = record(
        {
            "id": TEXT,
            "state": {"enum": STATES},
            "scheduled_time": INSTANT,
            "finished_at": OR_INSTANT,
        }
    )
    written = {
        "name": NAME_SCHEMA,
        **job_fields(),
        "executor": {**record({"type": TEXT}), "description": "as it was written, secrets left out"},
        "paused": FLAG,
    }
    job = {
        **written,
        "uid": TEXT,
        "owner": OR_TEXT,
        "revision": WHOLE,
        "created_at": INSTANT,
        "updated_at": INSTANT,
        "next_fire_at": OR_INSTANT,
        "last_run": nullable(last),
        "stats": stats,
        "pause_note": OR_TEXT,
        "pause_until": OR_INSTANT,
        "state": {"enum": list(JOB_STATES)},
        "skips": several(INSTANT),
        "secrets": {**several(TEXT), "description": "JSON pointers of what is kept and not shown"},
        "joined": several(record({"job": TEXT, "run": TEXT})),
    }
    preview = {
        "dry_run": {"const": True},
        "result": {"enum": ["created", "replaced", "unchanged"]},
        "job": record(written),
        "next": several(INSTANT),
        "changes": several({"type": "object"}),
        "gained": several(INSTANT),
        "lost": several(INSTANT),
        "moved": several(record({"from": INSTANT, "to": INSTANT})),
        "compared_through": {**OR_INSTANT, "description": "null where nothing had to be compared"},
        "notes": several(record({"code": TEXT, "message": TEXT})),
    }
    result = record(
        {
            "name": OR_TEXT,
            "status": {**WHOLE, "description": "what its own PUT would have been answered"},
            "result": TEXT,
            "errors": several(record({"pointer": TEXT, "message": TEXT})),
        }
    )
    return {
        "Job": record(job),
        "JobPreview": record(preview),
        "BulkAnswer": record({"results": several(result), "dry_run": FLAG}),
    }


# ---- runs ------------------------------------------------------------------------------------------------------------


def _runs() -> dict[str, Schema]:
    attempt = {
        "attempt": WHOLE,
        "fencing_token": WHOLE,
        "node": TEXT,
        "state": TEXT,
        "started_at": OR_INSTANT,
        "finished_at": OR_INSTANT,
        "started_index": OR_WHOLE,
        "finished_index": OR_WHOLE,
    }
    run = {
        "id": TEXT,
        "job": TEXT,
        "scheduled_time": INSTANT,
        "due_at": INSTANT,
        "cause": {"enum": CAUSES},
        "state": {"enum": STATES},
        "reason": OR_TEXT,
        "waits_for": {**OR_TEXT, "description": "of a queued run: what it waits for, and what to do"},
        "attempt": WHOLE,
        "fencing_token": OR_WHOLE,
        "node": OR_TEXT,
        "queued_at": OR_INSTANT,
        "started_at": OR_INSTANT,
        "finished_at": OR_INSTANT,
        "finished_index": OR_WHOLE,
        "exit_code": OR_WHOLE,
        "status_code": OR_WHOLE,
        "error": OR_TEXT,
        "error_kind": OR_TEXT,
        "output_tail": TEXT,
        "lateness_ms": OR_WHOLE,
        "log_index": WHOLE,
        "epoch": WHOLE,
        "missed_count": OR_WHOLE,
        "missed_first": OR_INSTANT,
        "previous_time": OR_INSTANT,
        "blocked_by": OR_TEXT,
        "replaced_by": OR_TEXT,
        "retry_of": OR_TEXT,
        "late_outcome": OR_TEXT,
        "parent": OR_TEXT,
        "children": nullable(several(TEXT)),
        "parts": nullable({"type": "object", "additionalProperties": WHOLE}),
        "shard_index": OR_WHOLE,
        "shard_count": OR_WHOLE,
        "answer_by": OR_INSTANT,
        "heard_at": OR_INSTANT,
        "args": {"description": "of a run by hand: any JSON value"},
        "attempts": several(record(attempt)),
        "transitions": {
            **several(record({"state": {"enum": STATES}, "node": OR_TEXT, "at": INSTANT, "log_index": WHOLE})),
            "description": "each state that it came to, oldest first: when, where, and by which entry of the log",
        },
    }
    summary = {"first": INSTANT, "last": INSTANT, "count": WHOLE}
    coming = {"id": {"type": "null"}, "job": TEXT, "scheduled_time": INSTANT, "cause": {"const": CAUSE_BACKFILL}}
    return {
        "Run": {**record(run, optional=summary), "description": "first, last and count: of a row for many times"},
        "NewRun": record({"run": nullable(ref("Run"))}),
        "Filled": record({"count": WHOLE, "runs": several({"anyOf": [ref("Run"), record(coming)]}), "dry_run": FLAG}),
    }


# ---- times -----------------------------------------------------------------------------------------------------------


def _times() -> dict[str, Schema]:
    notes = several(record({"code": TEXT, "message": TEXT}))
    coming = record({"scheduled_time": INSTANT, "due_at": INSTANT, "local": TEXT, "notes": notes})
    why = {
        "job": TEXT,
        "at": INSTANT,
        "verdict": {"enum": VERDICTS},
        "reason": OR_TEXT,
        "run_id": OR_TEXT,
        "blocked_by": OR_TEXT,
        "log_index": OR_WHOLE,
        "epoch": OR_WHOLE,
        "node": OR_TEXT,
        "message": TEXT,
        "scheduled_time": OR_INSTANT,
        "due_at": OR_INSTANT,
    }
    explained = {
        "description": TEXT,
        "timezone": TEXT,
        "from": INSTANT,
        "next": several(INSTANT),
        "local": several(TEXT),
        "notes": notes,
    }
    return {"Coming": record({"items": several(coming)}), "Why": record(why), "Explained": record(explained)}


# ---- the rest --------------------------------------------------------------------------------------------------------


def _small() -> dict[str, Schema]:
    kept = {"revision": WHOLE, "created_at": INSTANT, "updated_at": INSTANT}
    token = {
        "name": TEXT,
        "role": {"enum": list(ROLES)},
        "prefix": TEXT,
        "created_at": INSTANT,
        "created_by": TEXT,
    }
    item = {
        "index": WHOLE,
        "at": INSTANT,
        "principal": TEXT,
        "node": TEXT,
        "remote": OR_TEXT,
        "method": TEXT,
        "path": TEXT,
        "summary": TEXT,
        "hash": TEXT,
    }
    chain = record({"count": WHOLE, "head": TEXT, "dropped": WHOLE, "before": TEXT})
    audit = {"items": several(record(item)), "next_cursor": OR_TEXT, "total": WHOLE, "chain": chain}
    return {
        "Calendar": record(
            {
                "name": TEXT,
                "dates": several({"type": "string", "format": "date"}),
                "schedules": several(TEXT),
                "timezone": TEXT,
                "jobs": WHOLE,
                **kept,
            }
        ),
        "Group": record({"name": TEXT, "max_running": WHOLE, "jobs": WHOLE, "running": WHOLE, "queued": WHOLE, **kept}),
        "AlertRoute": record({"alerts": several({"type": "object"}), **kept}),
        "Secret": {**record({"name": TEXT, **kept}), "description": "what it holds is never answered"},
        "Caller": record({"name": TEXT, "role": {"type": "string", "enum": list(ROLES)}, "prefix": TEXT}),
        "Token": record(token),
        "NewToken": record({**token, "token": {**OR_TEXT, "description": "shown this once; null in a repeat"}}),
        "Audit": record(audit),
        "Restored": record(
            {
                "jobs": WHOLE,
                "calendars": WHOLE,
                "groups": WHOLE,
                "deleted": WHOLE,
                "index": WHOLE,
                "missing_secrets": {**several(TEXT), "description": "paths of what no key of this cluster opens"},
                "dry_run": FLAG,
            }
        ),
        "Live": record({"status": {"const": "ok"}, "node": TEXT}),
        "Ready": record({"status": {"const": "ok"}, "node": TEXT, "leader": TEXT}),
    }


def _cluster() -> dict[str, Schema]:
    member = {
        "name": TEXT,
        "role": {"enum": [*(role.value for role in Role), "learner"]},
        "standing": {"enum": [one.value for one in Standing]},
        "http": OR_TEXT,
        "raft": TEXT,
        "alive": FLAG,
        "applied_index": OR_WHOLE,
        "digest": OR_TEXT,
        "incarnation": OR_WHOLE,
        "clock_offset_ms": nullable({"type": "number"}),
        "version": OR_TEXT,
        "drained": FLAG,
        "tags": {"type": "object", "additionalProperties": TEXT},
        "handlers": several(TEXT),
        "slots": OR_WHOLE,
        "process_slots": OR_WHOLE,
        "croniter": OR_TEXT,
        "tzdata": OR_TEXT,
    }
    pair = {"type": "array", "prefixItems": [WHOLE, TEXT], "minItems": 2, "maxItems": 2}
    cluster = {
        "cluster_id": OR_TEXT,
        "leader": OR_TEXT,
        "term": WHOLE,
        "epoch": WHOLE,
        "commit_index": WHOLE,
        "members": several(ref("Member")),
        "catch_up": record({"owed": WHOLE, "started": WHOLE}),
        "digests": several(pair),
        "editions": several(record({"name": TEXT, "version": TEXT, "since": WHOLE})),
        "time": OR_INSTANT,
        "clock_untrusted": FLAG,
    }
    return {
        "Member": record(member),
        "Members": record({"members": several(ref("Member"))}),
        "Leader": record({"leader": OR_TEXT}),
        "Cluster": record(cluster),
    }
