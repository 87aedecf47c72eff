"""The JSON that the API answers with, as typed dictionaries; each field is told in the API's own description."""

from __future__ import annotations

from typing import Any, TypedDict


class Attempt(TypedDict, total=False):
    attempt: int
    fencing_token: int
    node: str
    state: str
    started_at: str | None
    finished_at: str | None
    started_index: int | None
    finished_index: int | None


class Transition(TypedDict):
    state: str
    node: str | None
    at: str
    log_index: int


class Run(TypedDict, total=False):
    """A run, or a summary row of scheduled times that were skipped together (`first`, `last`, `count`)."""

    id: str
    job: str
    scheduled_time: str
    due_at: str
    cause: str
    state: str
    reason: str | None
    waits_for: str | None
    attempt: int
    fencing_token: int
    node: str | None
    queued_at: str
    started_at: str | None
    finished_at: str | None
    finished_index: int | None
    exit_code: int | None
    status_code: int | None
    error: str | None
    error_kind: str | None
    output_tail: str | None
    lateness_ms: int | None
    log_index: int
    missed_count: int
    missed_first: str | None
    blocked_by: str | None
    replaced_by: str | None
    retry_of: str | None
    late_outcome: str | None
    parent: str | None
    children: list[str]
    shard_index: int | None
    shard_count: int | None
    attempts: list[Attempt]
    transitions: list[Transition]
    first: str
    last: str
    count: int


class Job(TypedDict, total=False):
    """A job with its defaults, and what the server sets."""

    name: str
    schedule: str | list[str]
    timezone: str
    executor: dict[str, Any]
    timeout: str
    kill_after: str
    start_deadline: str | None
    delivery: str
    isolation: str | None
    retry: dict[str, Any]
    misfire: dict[str, Any]
    overlap: dict[str, Any]
    placement: dict[str, Any]
    group: str | None
    dst: dict[str, str]
    hash_key: str | None
    exclude: list[str]
    jitter: str
    start_at: str | None
    end_at: str | None
    max_runs: int | None
    paused: bool
    after: list[dict[str, str]]
    join: str
    labels: dict[str, str]
    description: str
    history: dict[str, int]
    alerts: list[dict[str, Any]]
    uid: str
    owner: str | None
    revision: int
    created_at: str
    updated_at: str
    next_fire_at: str | None
    last_run: dict[str, Any] | None
    stats: dict[str, Any]
    secrets: list[str]


class Coming(TypedDict, total=False):
    """A fire to come."""

    scheduled_time: str
    due_at: str
    local: str
    notes: list[Any]


class Why(TypedDict, total=False):
    """What became, or will become, of one instant of a job."""

    job: str
    at: str
    verdict: str
    reason: str | None
    run_id: str | None
    blocked_by: str | None
    log_index: int | None
    epoch: int | None
    node: str | None
    message: str


class Backfill(TypedDict, total=False):
    count: int
    runs: list[Any]
    dry_run: bool


class Applied(TypedDict, total=False):
    """What a bulk request did to one job."""

    name: str | None
    status: int
    result: str
    errors: list[dict[str, str]]


class Explanation(TypedDict, total=False):
    description: str
    timezone: str
    next: list[str]
    local: list[str]
    notes: list[dict[str, str]]
