"""Of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raftcron.api.openapi.operations.parts import (
    COUNT,
    FOUND_READ,
    KEY,
    READ,
    READ_HEADERS,
    RUN_STATE,
    SINCE,
    WRITE,
    WRITTEN,
    Answer,
    Body,
    Operation,
    Parameter,
    flag,
    get_of,
    json_body,
    list_of,
    one,
    or_null,
)
from raftcron.api.openapi.taken import TEXT
from raftcron.api.output import ATTEMPT_MAX


def of_run(id_: str, summary: str, body: Body | None) -> Operation:
    return Operation(
        id=id_,
        summary=summary,
        tag="runs",
        name="1-1800000000000",
        headers=KEY,
        body=body,
        answers={200: Answer("the run as it is now", or_null("Run"), headers=WRITTEN)},
        problems=WRITE,
    )


OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/v1/runs"): list_of(
        "runs, newest first",
        "listRuns",
        "RunPage",
        RUN_STATE,
        Parameter("job", TEXT, "of the jobs that had this name", example="backup-db"),
        SINCE,
        COUNT,
        tag="runs",
    ),
    ("GET", "/v1/runs/{id}"): get_of("a run", "getRun", "Run", "1-1800000000000", tag="runs"),
    ("GET", "/v1/runs/{id}/output"): Operation(
        id="outputOfRun",
        summary="The full output of a run, live while it runs",
        tag="runs",
        name="1-1800000000000",
        query=(
            *READ,
            flag("follow", "go on until the run has ended"),
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
    ("POST", "/v1/runs/{id}/cancel"): of_run("cancelRun", "Cancel a run", None),
    ("POST", "/v1/runs/{id}/retry"): Operation(
        id="retryRun",
        summary="A new run of what an ended run was for",
        tag="runs",
        name="1-1800000000000",
        headers=KEY,
        body=json_body("RetryBody", {"again": {}}, is_required=False),
        answers={202: one("NewRun", "the new run", ("Location", *WRITTEN))},
        problems=WRITE,
    ),
    ("POST", "/v1/runs/{id}/finish"): of_run(
        "finishRun",
        "A target ends the run that it has taken over with a 202",
        json_body("FinishBody", {"done": {"token": 42, "state": "succeeded", "message": "12 rows"}}),
    ),
    ("POST", "/v1/runs/{id}/heartbeat"): of_run(
        "heartbeatOfRun",
        "A target is at work on the run that it has taken over",
        json_body("HeartbeatBody", {"alive": {"token": "42"}}),
    ),
}
