"""Of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raftcron.api import bodies
from raftcron.api.openapi.operations.parts import (
    CONDITIONAL,
    CONDITIONAL_MAKE,
    COUNT,
    CREATED,
    FOUND_READ,
    KEY,
    MAKE,
    PAGE,
    READ,
    READ_HEADERS,
    RUN_STATE,
    SINCE,
    TAGGED,
    TAGS,
    WRITE,
    WRITTEN,
    Answer,
    Body,
    Operation,
    Parameter,
    delete_of,
    flag,
    get_of,
    json_body,
    list_of,
    one,
    or_null,
)
from raftcron.api.openapi.sketch import INSTANT
from raftcron.api.openapi.taken import TEXT
from raftcron.runtime.forecast import AHEAD_MAX
from raftcron.runtime.listing import JOB_STATES, SORTS
from raftcron.runtime.previews import NEXT_SHOWN

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


def of_job(id_: str, summary: str, body: Body) -> Operation:
    return Operation(
        id=id_,
        summary=summary,
        name="backup-db",
        headers=TAGS,
        body=body,
        answers={200: Answer("the job as it is now", or_null("Job"), headers=TAGGED)},
        problems=CONDITIONAL,
    )


OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/v1/jobs"): list_of(
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
        body=json_body("NamedJobBody", NAMED),
        answers={201: Answer("created", or_null("Job"), headers=CREATED)},
        problems=MAKE,
    ),
    ("GET", "/v1/jobs/{name}"): get_of("a job", "getJob", "Job", "backup-db", tag="jobs", headers=("ETag",)),
    ("PUT", "/v1/jobs/{name}"): Operation(
        id="putJob",
        summary="Create or replace a job",
        name="backup-db",
        query=(flag("dry_run", "validate, and show the next fires and what changes; nothing is written"),),
        headers=TAGS,
        body=json_body("JobBody", JOB_BODIES),
        answers={
            200: Answer(
                "replaced, or the same as before; of a dry run what would change",
                {"anyOf": [*or_null("Job")["anyOf"], {"$ref": "#/components/schemas/JobPreview"}]},
                headers=TAGGED,
            ),
            201: Answer("created", or_null("Job"), headers=CREATED),
        },
        problems=CONDITIONAL_MAKE,
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
        answers={200: Answer("the job as it is now", or_null("Job"), headers=TAGGED)},
        problems=CONDITIONAL,
    ),
    ("DELETE", "/v1/jobs/{name}"): delete_of(
        "a job", "deleteJob", "backup-db", flag("cancel_running", "its runs are cancelled, too"), tag="jobs"
    ),
    ("POST", "/v1/jobs:apply"): Operation(
        id="applyJobs",
        summary="Create or replace many jobs, in chunks of at most 1,000 and 1 MiB, each of them atomic",
        query=(
            flag("prune", "delete the owner's jobs that were not sent, if no job failed"),
            Parameter("owner", {"type": "string", "minLength": 1, "maxLength": 256}, "whose jobs these are"),
            flag("dry_run", "say what would be done"),
        ),
        headers=KEY,
        body=Body(
            types={bodies.JSON: "JobsBody", bodies.NDJSON: "Lines"},
            examples={"two": {"jobs": list(NAMED.values()), "owner": "team-db"}},
        ),
        answers={200: one("BulkAnswer", "what each job met", WRITTEN)},
        problems=MAKE,
    ),
    ("POST", "/v1/jobs/{name}/pause"): of_job(
        "pauseJob",
        "Stop the schedule of a job",
        json_body("PauseBody", {"until": {"note": "maintenance", "until": "2100-01-31T09:00:00Z"}}, is_required=False),
    ),
    ("POST", "/v1/jobs/{name}/resume"): of_job(
        "resumeJob",
        "Let the schedule of a job go on",
        json_body("ResumeBody", {"from_now": {}, "catch_up": {"catch_up": True}}, is_required=False),
    ),
    ("POST", "/v1/jobs/{name}/skip-next"): of_job(
        "skipNext", "Skip the next times of a job", json_body("SkipNextBody", {"two": {"count": 2}}, is_required=False)
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
        answers={200: one("Coming", "none while the job is paused", READ_HEADERS)},
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
        answers={200: one("Why", "the verdict", READ_HEADERS)},
        problems=(*FOUND_READ[:4], 409, *FOUND_READ[4:]),
    ),
    ("GET", "/v1/jobs/{name}/runs"): Operation(
        id="listRunsOfJob",
        summary="List the runs of a job, newest first",
        tag="runs",
        name="backup-db",
        query=(*READ, *PAGE, RUN_STATE, SINCE, COUNT),
        answers={200: one("RunPage", "a page of runs", READ_HEADERS)},
        problems=FOUND_READ,
    ),
    ("POST", "/v1/jobs/{name}/runs"): Operation(
        id="runJob",
        summary="Run a job now",
        tag="runs",
        name="backup-db",
        headers=KEY,
        body=json_body(
            "RunBody", {"now": {}, "with_args": {"args": {"table": "orders"}, "overlap": "allow"}}, is_required=False
        ),
        answers={202: one("NewRun", "the run, which overlap may have skipped already", ("Location", *WRITTEN))},
        problems=WRITE,
    ),
    ("POST", "/v1/jobs/{name}/backfill"): Operation(
        id="backfillJob",
        summary="A run for each time of a past span",
        tag="runs",
        name="backup-db",
        headers=KEY,
        body=json_body(
            "BackfillBody",
            {
                "dry": {"from": "2026-01-31T00:00:00Z", "to": "2026-01-31T01:00:00Z", "dry_run": True},
                "real": {"from": "2026-01-31T00:00:00Z", "to": "2026-01-31T01:00:00Z"},
            },
        ),
        answers={200: one("Filled", "the runs, which start one after the other; of a dry run their times", WRITTEN)},
        problems=WRITE,
    ),
}
