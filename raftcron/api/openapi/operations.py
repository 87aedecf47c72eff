"""The operations of the interface: what each route is for, what it takes, and how it answers.  One entry a route.

Whoever adds a route to api/app.py adds its entry here; tests/api/test_openapi.py holds entries and handlers together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from raftcron.api import bodies
from raftcron.api.backup import ARCHIVE
from raftcron.api.openapi.answered import STATES, WHOLE
from raftcron.api.openapi.sketch import INSTANT, Schema
from raftcron.api.openapi.taken import TEXT
from raftcron.api.output import ATTEMPT_MAX
from raftcron.api.query import INDEX_MAX
from raftcron.runtime.forecast import AHEAD_MAX
from raftcron.runtime.listing import JOB_STATES, PAGE_DEFAULT, PAGE_MAX, SORTS
from raftcron.runtime.previews import NEXT_SHOWN


@dataclass(frozen=True)
class Parameter:
    """One parameter of the query."""

    name: str
    schema: Schema
    description: str
    is_required: bool = False
    is_repeatable: bool = False
    example: Any = None


@dataclass(frozen=True, kw_only=True)
class Body:
    """What a request brings: a schema by media type, and examples of the first one by name."""

    types: Mapping[str, str]
    examples: Mapping[str, Any]
    is_required: bool = True


@dataclass(frozen=True)
class Answer:
    """One way in which it succeeds; `schema` is a name, a schema, or None for no body."""

    description: str
    schema: str | Schema | None = None
    media_type: str = bodies.JSON
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route; `problems` are the statuses of its errors, `name` is an example of what its path names."""

    id: str
    summary: str
    answers: Mapping[int, Answer]
    problems: tuple[int, ...]
    name: str | None = None
    query: tuple[Parameter, ...] = ()
    headers: tuple[str, ...] = ()
    body: Body | None = None
    tag: str = field(default="jobs")


FLAG_TEXT: Schema = {"type": "string", "enum": ["1", "0", "true", "false"]}


def _flag(name: str, description: str) -> Parameter:
    return Parameter(name, FLAG_TEXT, description)


READ = (
    Parameter(
        "consistency",
        {"type": "string", "enum": ["linearizable", "stale"], "default": "linearizable"},
        "stale: what this node has, also without a quorum; Raftcron-Staleness-Ms says how old it may be",
    ),
    Parameter(
        "min_index",
        {"type": "integer", "minimum": 0, "maximum": INDEX_MAX},
        "wait until this node has applied that index",
        example=1,
    ),
)
CURSOR = Parameter("cursor", TEXT, "`next_cursor` of the page before")
LIMIT = Parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT}, "of a page")
PAGE = (LIMIT, CURSOR)
COUNT = _flag("count", "count what the filters leave")
SINCE = Parameter("since", INSTANT, "no older scheduled time", example="2026-01-31T09:00:00Z")
RUN_STATE = Parameter("state", {"type": "string", "enum": STATES}, "in this state")

SEES_READ = (400, 401, 403, 422, 503)
FOUND_READ = (400, 401, 403, 404, 422, 503)
LOCAL = (400, 401, 403)
WRITE = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 504)
CONDITIONAL = (*WRITE[:5], 412, *WRITE[5:])
KEY = ("Idempotency-Key",)
TAGS = ("If-Match", "If-None-Match", *KEY)
WRITTEN = ("Idempotency-Replayed",)
TAGGED = ("ETag", *WRITTEN)
CREATED = ("Location", *TAGGED)
READ_HEADERS = ("Raftcron-Staleness-Ms",)
GONE_SINCE: Schema = {"type": "null"}  # a repeat is answered with what is there now


def _one(schema: str, description: str, headers: tuple[str, ...] = ()) -> Answer:
    return Answer(description, schema, headers=headers)


def _or_null(schema: str) -> Schema:
    return {"anyOf": [{"$ref": f"#/components/schemas/{schema}"}, GONE_SINCE]}


def _json(schema: str, examples: Mapping[str, Any], *, is_required: bool = True) -> Body:
    return Body(types={bodies.JSON: schema}, examples=examples, is_required=is_required)


def _list(what: str, id_: str, page: str, *more: Parameter, tag: str) -> Operation:
    return Operation(
        id=id_,
        summary=f"List {what}",
        tag=tag,
        query=(*READ, *PAGE, *more),
        answers={200: _one(page, f"a page of {what}", READ_HEADERS)},
        problems=SEES_READ,
    )


def _get(what: str, id_: str, schema: str, name: str, *, tag: str, headers: tuple[str, ...] = ()) -> Operation:
    return Operation(
        id=id_,
        summary=f"Get {what}",
        tag=tag,
        name=name,
        query=READ,
        answers={200: _one(schema, "it, as it is now", (*READ_HEADERS, *headers))},
        problems=FOUND_READ,
    )


def _put(what: str, id_: str, schema: str, name: str, body: Body, *, tag: str, is_tagged: bool = True) -> Operation:
    return Operation(
        id=id_,
        summary=f"Create or replace {what}",
        tag=tag,
        name=name,
        headers=TAGS if is_tagged else KEY,
        body=body,
        answers={
            200: Answer("replaced, or the same as before", _or_null(schema), headers=TAGGED if is_tagged else WRITTEN),
            201: Answer("created", _or_null(schema), headers=CREATED if is_tagged else WRITTEN),
        },
        problems=CONDITIONAL if is_tagged else WRITE,
    )


def _delete(what: str, id_: str, name: str, *query: Parameter, tag: str, is_tagged: bool = True) -> Operation:
    return Operation(
        id=id_,
        summary=f"Delete {what}",
        tag=tag,
        name=name,
        query=query,
        headers=TAGS if is_tagged else KEY,
        answers={204: Answer("it is gone", headers=WRITTEN)},
        problems=CONDITIONAL if is_tagged else WRITE,
    )


def _of_job(id_: str, summary: str, body: Body) -> Operation:
    return Operation(
        id=id_,
        summary=summary,
        name="backup-db",
        headers=TAGS,
        body=body,
        answers={200: Answer("the job as it is now", _or_null("Job"), headers=TAGGED)},
        problems=CONDITIONAL,
    )


def _of_run(id_: str, summary: str, body: Body | None) -> Operation:
    return Operation(
        id=id_,
        summary=summary,
        tag="runs",
        name="1-1800000000000",
        headers=KEY,
        body=body,
        answers={200: Answer("the run as it is now", _or_null("Run"), headers=WRITTEN)},
        problems=WRITE,
    )


def _of_cluster(id_: str, summary: str, body: Body | None, answers: Mapping[int, Answer], **more: Any) -> Operation:
    return Operation(
        id=id_,
        summary=summary,
        tag="cluster",
        headers=KEY,
        body=body,
        answers=answers,
        problems=WRITE,
        **more,
    )


HTTP: Final = {"type": "http", "method": "POST", "url": "http://127.0.0.1:9000/hook", "headers": {"X-Team": "db"}}
JOB: Final = {
    "schedule": "*/5 * * * *",
    "timezone": "Europe/Berlin",
    "executor": HTTP,
    "retry": {"max_attempts": 3, "backoff": "10s"},
    "labels": {"team": "db"},
}
SHELL: Final = {"schedule": "0 3 * * *", "executor": {"type": "shell", "command": ["/usr/bin/vacuumdb", "--all"]}}
JOB_BODIES: Final = {"webhook": JOB, "command": SHELL}
NAMED: Final = {"webhook": {"name": "report", **JOB}, "command": {"name": "vacuum", **SHELL}}

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    # ---- jobs
    ("GET", "/v1/jobs"): _list(
        "jobs",
        "listJobs",
        "JobPage",
        Parameter(
            "label",
            {"type": "string", "pattern": "^[^=]+=.*$"},
            "key=value; all that are given have to be there",
            is_repeatable=True,
            example="team=db",
        ),
        Parameter("state", {"type": "string", "enum": list(JOB_STATES)}, "in this state"),
        Parameter("q", TEXT, "a text that the name or the description holds", example="backup"),
        Parameter("sort", {"type": "string", "enum": list(SORTS), "default": "name"}, "by what"),
        COUNT,
        tag="jobs",
    ),
    ("POST", "/v1/jobs"): Operation(
        id="createJob",
        summary="Create a job",
        headers=KEY,
        body=_json("NamedJobBody", NAMED),
        answers={201: Answer("created", _or_null("Job"), headers=CREATED)},
        problems=WRITE,
    ),
    ("GET", "/v1/jobs/{name}"): _get("a job", "getJob", "Job", "backup-db", tag="jobs", headers=("ETag",)),
    ("PUT", "/v1/jobs/{name}"): Operation(
        id="putJob",
        summary="Create or replace a job",
        name="backup-db",
        query=(_flag("dry_run", "validate, and show the next fires and what changes; nothing is written"),),
        headers=TAGS,
        body=_json("JobBody", JOB_BODIES),
        answers={
            200: Answer(
                "replaced, or the same as before; of a dry run what would change",
                {"anyOf": [*_or_null("Job")["anyOf"], {"$ref": "#/components/schemas/JobPreview"}]},
                headers=TAGGED,
            ),
            201: Answer("created", _or_null("Job"), headers=CREATED),
        },
        problems=CONDITIONAL,
    ),
    ("PATCH", "/v1/jobs/{name}"): Operation(
        id="patchJob",
        summary="Change a part of a job (RFC 7396)",
        name="backup-db",
        headers=TAGS,
        body=Body(
            types={bodies.MERGE_PATCH: "JobPatch", bodies.JSON: "JobPatch"},
            examples={"later": {"schedule": "0 4 * * *"}, "default_again": {"timeout": None}},
        ),
        answers={200: Answer("the job as it is now", _or_null("Job"), headers=TAGGED)},
        problems=CONDITIONAL,
    ),
    ("DELETE", "/v1/jobs/{name}"): _delete(
        "a job", "deleteJob", "backup-db", _flag("cancel_running", "its runs are cancelled, too"), tag="jobs"
    ),
    ("POST", "/v1/jobs:apply"): Operation(
        id="applyJobs",
        summary="Create or replace many jobs, in chunks of at most 1,000 and 1 MiB, each of them atomic",
        query=(
            _flag("prune", "delete the owner's jobs that were not sent, if no job failed"),
            Parameter("owner", {"type": "string", "minLength": 1, "maxLength": 256}, "whose jobs these are"),
            _flag("dry_run", "say what would be done"),
        ),
        headers=KEY,
        body=Body(
            types={bodies.JSON: "JobsBody", bodies.NDJSON: "Lines"},
            examples={"two": {"jobs": list(NAMED.values()), "owner": "team-db"}},
        ),
        answers={200: _one("BulkAnswer", "what each job met", WRITTEN)},
        problems=WRITE,
    ),
    ("POST", "/v1/jobs/{name}/pause"): _of_job(
        "pauseJob",
        "Stop the schedule of a job",
        _json("PauseBody", {"until": {"note": "maintenance", "until": "2100-01-31T09:00:00Z"}}, is_required=False),
    ),
    ("POST", "/v1/jobs/{name}/resume"): _of_job(
        "resumeJob",
        "Let the schedule of a job go on",
        _json("ResumeBody", {"from_now": {}, "catch_up": {"catch_up": True}}, is_required=False),
    ),
    ("POST", "/v1/jobs/{name}/skip-next"): _of_job(
        "skipNext", "Skip the next times of a job", _json("SkipNextBody", {"two": {"count": 2}}, is_required=False)
    ),
    ("GET", "/v1/jobs/{name}/next"): Operation(
        id="nextOfJob",
        summary="Coming fires of a job",
        name="backup-db",
        query=(
            *READ,
            Parameter(
                "count", {"type": "integer", "minimum": 0, "maximum": AHEAD_MAX, "default": NEXT_SHOWN}, "how many"
            ),
        ),
        answers={200: _one("Coming", "none while the job is paused", READ_HEADERS)},
        problems=(*FOUND_READ[:4], 409, *FOUND_READ[4:]),
    ),
    ("GET", "/v1/jobs/{name}/why"): Operation(
        id="whyOfJob",
        summary="Why a job fired, or did not, or will, at an instant",
        name="backup-db",
        query=(
            *READ,
            Parameter("at", INSTANT, "past or to come", is_required=True, example="2026-01-31T09:00:00Z"),
        ),
        answers={200: _one("Why", "the verdict", READ_HEADERS)},
        problems=(*FOUND_READ[:4], 409, *FOUND_READ[4:]),
    ),
    ("GET", "/v1/jobs/{name}/runs"): Operation(
        id="listRunsOfJob",
        summary="List the runs of a job, newest first",
        tag="runs",
        name="backup-db",
        query=(*READ, *PAGE, RUN_STATE, SINCE, COUNT),
        answers={200: _one("RunPage", "a page of runs", READ_HEADERS)},
        problems=FOUND_READ,
    ),
    ("POST", "/v1/jobs/{name}/runs"): Operation(
        id="runJob",
        summary="Run a job now",
        tag="runs",
        name="backup-db",
        headers=KEY,
        body=_json(
            "RunBody", {"now": {}, "with_args": {"args": {"table": "orders"}, "overlap": "allow"}}, is_required=False
        ),
        answers={202: _one("NewRun", "the run, which overlap may have skipped already", ("Location", *WRITTEN))},
        problems=WRITE,
    ),
    ("POST", "/v1/jobs/{name}/backfill"): Operation(
        id="backfillJob",
        summary="A run for each time of a past span",
        tag="runs",
        name="backup-db",
        headers=KEY,
        body=_json(
            "BackfillBody",
            {
                "dry": {"from": "2026-01-31T00:00:00Z", "to": "2026-01-31T01:00:00Z", "dry_run": True},
                "real": {"from": "2026-01-31T00:00:00Z", "to": "2026-01-31T01:00:00Z"},
            },
        ),
        answers={
            200: _one("Filled", "of a dry run", WRITTEN),
            202: _one("Filled", "the runs, which start one after the other", WRITTEN),
        },
        problems=WRITE,
    ),
    # ---- runs
    ("GET", "/v1/runs"): _list(
        "runs, newest first",
        "listRuns",
        "RunPage",
        RUN_STATE,
        Parameter("job", TEXT, "of the jobs that had this name", example="backup-db"),
        SINCE,
        COUNT,
        tag="runs",
    ),
    ("GET", "/v1/runs/{id}"): _get("a run", "getRun", "Run", "1-1800000000000", tag="runs"),
    ("GET", "/v1/runs/{id}/output"): Operation(
        id="outputOfRun",
        summary="The full output of a run, live while it runs",
        tag="runs",
        name="1-1800000000000",
        query=(
            *READ,
            _flag("follow", "go on until the run has ended"),
            Parameter(
                "attempt",
                {"type": "integer", "minimum": 1, "maximum": ATTEMPT_MAX},
                "the newest unless said",
                example=1,
            ),
        ),
        answers={200: Answer("what it wrote", TEXT, "text/plain", (*READ_HEADERS, "Raftcron-Attempt"))},
        problems=(*FOUND_READ[:4], 410, 422, 429, 503),
    ),
    ("POST", "/v1/runs/{id}/cancel"): _of_run("cancelRun", "Cancel a run", None),
    ("POST", "/v1/runs/{id}/retry"): Operation(
        id="retryRun",
        summary="A new run of what an ended run was for",
        tag="runs",
        name="1-1800000000000",
        headers=KEY,
        body=_json("RetryBody", {"again": {}}, is_required=False),
        answers={202: _one("NewRun", "the new run", ("Location", *WRITTEN))},
        problems=WRITE,
    ),
    ("POST", "/v1/runs/{id}/finish"): _of_run(
        "finishRun",
        "A target ends the run that it has taken over with a 202",
        _json("FinishBody", {"done": {"token": 42, "state": "succeeded", "message": "12 rows"}}),
    ),
    ("POST", "/v1/runs/{id}/heartbeat"): _of_run(
        "heartbeatOfRun",
        "A target is at work on the run that it has taken over",
        _json("HeartbeatBody", {"alive": {"token": "42"}}),
    ),
    # ---- schedules, calendars, groups
    ("POST", "/v1/schedules:explain"): Operation(
        id="explainSchedule",
        summary="A schedule in words, its next times, and what about it may surprise; nothing is written",
        tag="schedules",
        headers=KEY,
        body=_json(
            "ExplainBody",
            {
                "nightly": {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "from": "2026-03-28T00:00:00Z"},
                "several": {"schedule": ["@daily", "0 12 * * MON"], "count": 3},
            },
        ),
        answers={200: _one("Explained", "what it means")},
        problems=(400, 401, 403, 413, 415, 422, 503),
    ),
    ("GET", "/v1/calendars"): _list("calendars", "listCalendars", "CalendarPage", tag="calendars"),
    ("GET", "/v1/calendars/{name}"): _get(
        "a calendar", "getCalendar", "Calendar", "holidays", tag="calendars", headers=("ETag",)
    ),
    ("PUT", "/v1/calendars/{name}"): _put(
        "a calendar, whose times no job fires that names it in `exclude`",
        "putCalendar",
        "Calendar",
        "holidays",
        _json(
            "CalendarBody",
            {
                "days": {
                    "dates": ["2026-12-25", "2026-12-26"],
                    "schedules": ["* 0-5 1 1 *"],
                    "timezone": "Europe/Berlin",
                }
            },
        ),
        tag="calendars",
    ),
    ("DELETE", "/v1/calendars/{name}"): _delete(
        "a calendar that no job names", "deleteCalendar", "holidays", tag="calendars"
    ),
    ("GET", "/v1/groups"): _list("groups", "listGroups", "GroupPage", tag="groups"),
    ("GET", "/v1/groups/{name}"): _get("a group", "getGroup", "Group", "database", tag="groups", headers=("ETag",)),
    ("PUT", "/v1/groups/{name}"): _put(
        "a group: a cap on the runs at once of the jobs that name it",
        "putGroup",
        "Group",
        "database",
        _json("GroupBody", {"five": {"max_running": 5}}),
        tag="groups",
    ),
    ("DELETE", "/v1/groups/{name}"): _delete("a group that no job names", "deleteGroup", "database", tag="groups"),
    ("GET", "/v1/alerts/default"): replace(
        _get("the default route of alerts", "getAlertRoute", "AlertRoute", "", tag="alerts", headers=("ETag",)),
        name=None,
    ),
    ("PUT", "/v1/alerts/default"): replace(
        _put(
            "the default route of alerts: whom the runs of jobs without `alerts` are told to",
            "putAlertRoute",
            "AlertRoute",
            "",
            _json("AlertRouteBody", {"hook": {"alerts": [{"on": ["failed"], "url": "https://alerts.example.org/"}]}}),
            tag="alerts",
        ),
        name=None,
    ),
    ("DELETE", "/v1/alerts/default"): replace(
        _delete("the default route of alerts", "deleteAlertRoute", "", tag="alerts"), name=None
    ),
    # ---- the cluster
    ("GET", "/v1/cluster"): Operation(
        id="getCluster",
        summary="What this node knows of the cluster, also without a quorum",
        tag="cluster",
        answers={200: _one("Cluster", "the cluster")},
        problems=(*LOCAL, 422),
    ),
    ("POST", "/v1/cluster/members"): _of_cluster(
        "addMember",
        "Await a new member",
        _json("MemberBody", {"fourth": {"name": "n4", "raft": "127.0.0.1:7204", "http": "127.0.0.1:7104"}}),
        {200: _one("Members", "it votes already"), 202: _one("Members", "it is awaited, or learns")},
    ),
    ("DELETE", "/v1/cluster/members/{name}"): _of_cluster(
        "removeMember", "Remove a member", None, {204: Answer("it belongs no more")}, name="n3"
    ),
    ("POST", "/v1/cluster/members/{name}/replace"): _of_cluster(
        "replaceMember",
        "Await an empty data directory in a member's place",
        _json("ReplaceBody", {"same_address": {}}, is_required=False),
        {200: _one("Members", "it votes already"), 202: _one("Members", "it is awaited")},
        name="n3",
    ),
    ("POST", "/v1/cluster/transfer"): _of_cluster(
        "transferLead",
        "Hand over the lead",
        _json("TransferBody", {"to_n2": {"to": "n2"}}, is_required=False),
        {200: _one("Leader", "who leads now")},
    ),
    ("POST", "/v1/cluster/drain"): _of_cluster(
        "drainNode",
        "A node gets no new runs, or may have them again",
        _json("DrainBody", {"drain": {"node": "n3"}, "again": {"node": "n3", "drain": False}}),
        {200: _one("Cluster", "the cluster", WRITTEN)},
    ),
    ("POST", "/v1/cluster/accept-time"): _of_cluster(
        "acceptTime",
        "The leader's clock counts from now on, where no majority agrees on another time",
        _json("NothingBody", {"now": {}}, is_required=False),
        {200: _one("Cluster", "the cluster")},
    ),
    ("GET", "/v1/events"): Operation(
        id="events",
        summary="What the log changes, as server-sent events, resumable on any node by the id of the last one seen",
        tag="cluster",
        query=(
            Parameter(
                "kind",
                {"type": "string", "enum": ["run", "job", "leader", "node", "calendar"]},
                "all unless said",
                is_repeatable=True,
            ),
            Parameter("job", TEXT, "of this job alone", example="backup-db"),
            Parameter("last_event_id", TEXT, "as the header, for clients that cannot send it", example="42.0"),
        ),
        headers=("Last-Event-ID",),
        answers={200: Answer("a stream without an end", TEXT, "text/event-stream")},
        problems=(*LOCAL, 410, 422, 429, 503),
    ),
    # ---- who may, and what was done
    ("GET", "/v1/tokens"): _list("tokens, without what proves them", "listTokens", "TokenPage", tag="access"),
    ("POST", "/v1/tokens"): Operation(
        id="createToken",
        summary="Make a token",
        tag="access",
        headers=KEY,
        body=_json("TokenBody", {"deploy": {"name": "deploy", "role": "operate", "prefix": "team-a."}}),
        answers={201: Answer("made; its text is shown this once", _or_null("NewToken"), headers=WRITTEN)},
        problems=WRITE,
    ),
    ("DELETE", "/v1/tokens/{name}"): _delete("a token", "revokeToken", "ci", tag="access", is_tagged=False),
    ("GET", "/v1/secrets"): _list("the names of secrets", "listSecrets", "SecretPage", tag="access"),
    ("PUT", "/v1/secrets/{name}"): _put(
        "a secret, which is never answered",
        "putSecret",
        "Secret",
        "smtp",
        _json("SecretBody", {"password": {"value": "correct horse battery staple"}}),
        tag="access",
        is_tagged=False,
    ),
    ("DELETE", "/v1/secrets/{name}"): _delete("a secret", "deleteSecret", "smtp", tag="access", is_tagged=False),
    ("GET", "/v1/audit"): Operation(
        id="listAudit",
        summary="Every write that took effect, newest first, hash-chained",
        tag="access",
        query=(*READ, LIMIT, Parameter("cursor", WHOLE, "`next_cursor` of the page before", example=1_000)),
        answers={200: _one("Audit", "a page of it", READ_HEADERS)},
        problems=SEES_READ,
    ),
    # ---- backups
    ("GET", "/v1/backup"): Operation(
        id="backup",
        summary="All jobs, calendars, groups and sealed secrets as of one index, as a checked archive",
        tag="cluster",
        answers={200: Answer("the archive", {"type": "string", "format": "binary"}, ARCHIVE)},
        problems=(*LOCAL, 422, 503),
    ),
    ("POST", "/v1/restore"): Operation(
        id="restore",
        summary="Put an archive in the place of all jobs, calendars and groups: all or nothing",
        tag="cluster",
        query=(_flag("dry_run", "check the archive, and say what would be done"),),
        headers=KEY,
        body=Body(types={ARCHIVE: "Archive"}, examples={}),
        answers={200: _one("Restored", "what was done", WRITTEN)},
        problems=WRITE,
    ),
    # ---- the node
    ("GET", "/livez"): Operation(
        id="live",
        summary="The process answers",
        tag="node",
        answers={200: _one("Live", "it does")},
        problems=(400, 403),
    ),
    ("GET", "/readyz"): Operation(
        id="ready",
        summary="This node has caught up and knows a leader",
        tag="node",
        answers={200: _one("Ready", "it is ready")},
        problems=(400, 403, 503),
    ),
    ("GET", "/metrics"): Operation(
        id="metrics",
        summary="Figures of this node for Prometheus",
        tag="node",
        answers={200: Answer("the figures", TEXT, "text/plain")},
        problems=LOCAL,
    ),
    ("GET", "/openapi.json"): Operation(
        id="openapi",
        summary="This document",
        tag="node",
        answers={200: Answer("OpenAPI 3.1", {"type": "object"})},
        problems=LOCAL,
    ),
}
