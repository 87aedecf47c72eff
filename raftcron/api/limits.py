"""Every bound that a user can run into, in one place: `python -m raftcron.api.limits > docs/limits.md`."""

from __future__ import annotations

import sys

from raftcron.api import auth, backup, bodies, connections, events, forward, paced, query, server
from raftcron.api import bulk as bulk_body
from raftcron.config import table
from raftcron.core import (
    access,
    archive,
    audit,
    chains,
    cron,
    definition,
    exclusion,
    explain,
    fields,
    group,
    history,
    model,
    route,
    state,
    vault,
)
from raftcron.core.apply import jobs, remote, runs
from raftcron.core.apply import requests as asked
from raftcron.core.instant import format_duration
from raftcron.executors import handlers, http_spec, kept_output, output, python, shell
from raftcron.raft import configuration
from raftcron.runtime import alerts, assigner, bulk, forecast, listing, requests, service
from raftcron.runtime import events as event_log

HEAD_BYTES = 8_190  # of the request line, and of each header: the web framework's

Row = tuple[str, str, str]  # what is bounded, by how much, and what happens beyond it


def groups() -> list[tuple[str, list[Row]]]:
    """All bounds, by what they bound."""
    return [
        ("Requests", _requests()),
        ("Many jobs, backups and restores", _many()),
        ("Answers, pages and streams", _answers()),
        ("Jobs", _jobs()),
        ("Executors", _executors()),
        ("Runs", _runs()),
        ("Calendars, groups, tokens, secrets, alerts", _named()),
        ("What is kept", _kept()),
        ("The cluster", _cluster()),
    ]


def _requests() -> list[Row]:
    return [
        ("request line, and each header", f"{HEAD_BYTES:,} bytes", "400"),
        ("`Idempotency-Key`", f"{query.KEY_MAX} visible ASCII characters", "400"),
        ("a token, as it is sent", f"{access.TOKEN_BYTES_MAX} bytes", "401"),
        ("body of a job", _size(bodies.JOB_BYTES_MAX), "413"),
        ("every other body", _size(bodies.SMALL_BYTES_MAX), "413"),
        ("depth of a JSON body", f"{bodies.DEPTH_MAX} levels", "400"),
        ("values of a JSON body", f"{bodies.VALUES_MAX:,}", "413"),
        ("Content-Encoding of a body", "none is taken", "415"),
        ("time for a body to come", _time(bodies.READ_SECONDS), "400"),
        ("time for the head of a request", _time(server.IDLE_SECONDS), "the connection is ended"),
        (
            "connections to a node",
            f"{connections.CONNECTIONS_MAX:,}, at most half of its open files",
            "the one that is idle longest is ended; where all are busy, the new one",
        ),
        ("forwarded writes that are remembered", f"{auth.NONCES_KEPT:,} in an epoch", "the oldest are forgotten"),
    ]


def _many() -> list[Row]:
    return [
        (
            "body of `jobs:apply` as one JSON object",
            _size(bodies.BULK_BYTES_MAX),
            "413; as lines its bytes have no bound",
        ),
        ("jobs of one `jobs:apply`", f"{bulk.JOBS_MAX:,}", "413; those before are written"),
        ("lists and objects of one `jobs:apply` as one JSON object", f"{bulk_body.LISTS_MAX:,}", "413"),
        (
            "jobs of one `jobs:apply` that are no objects, or have no name",
            f"{bulk_body.STRAYS_MAX:,}",
            "422; those before are written",
        ),
        (
            "jobs of one `jobs:apply` whose faults are named",
            f"{bulk.FAULTY_TOLD:,}",
            "each of the others has its `status`, and one line in `errors`",
        ),
        ("owner of jobs", f"{bulk_body.OWNER_MAX} characters", "422"),
        ("a field beside the jobs of one `jobs:apply`", f"{bulk_body.FIELD_BYTES_MAX:,} bytes", "422"),
        (
            "time for the next piece of a `jobs:apply` in lines",
            _time(bulk_body.LINE_SECONDS),
            "400; the lines before are written",
        ),
        ("archive of a restore", _size(archive.ARCHIVE_BYTES_MAX), "413"),
        ("time for the next piece of an archive", _time(backup.PIECE_SECONDS), "400; nothing is done"),
        (
            "what is staged of a restore",
            f"{format_duration(archive.STAGING_LIFE_MS)}",
            "it is dropped: 409, repeat the request",
        ),
    ]


def _answers() -> list[Row]:
    return [
        ("items of a page", f"{listing.PAGE_MAX:,}, or {_size(listing.PAGE_BYTES)}", "422; the page ends early"),
        ("coming times that one request asks for", f"{forecast.AHEAD_MAX:,}", "422"),
        ("times that one explanation lists", f"{explain.MAX_NEXT:,}", "422"),
        ("streams of events of a node", f"{events.STREAMS_MAX:,}", "429"),
        (
            "time for which a reader of events, an output or a backup may take nothing",
            _time(paced.SLOW_SECONDS),
            "it is dropped; one of events is told why",
        ),
        ("outputs that are read through a node", f"{kept_output.READERS_MAX:,}", "429"),
        ("answer of the leader to a forwarded write", _size(forward.ANSWER_BYTES_MAX), "504"),
        (
            "answer of the leader to a forwarded `jobs:apply` or restore",
            _size(forward.LONG_ANSWER_BYTES_MAX),
            "504",
        ),
    ]


def _jobs() -> list[Row]:
    return [
        ("names of jobs, calendars, groups, tokens, secrets", "128 characters", "422"),
        ("definition of a job, as it is kept", _size(definition.DEFINITION_BYTES_MAX), "413"),
        ("texts of a job (description, labels)", f"{fields.TEXT_MAX:,} characters; labels 256", "422"),
        ("labels and the like of a job", f"{fields.LIST_MAX} of each", "422"),
        ("schedules of a job", f"{definition.SCHEDULES_MAX}", "422"),
        ("a cron expression", f"{cron.MAX_TEXT} characters", "422"),
        ("durations of a job", format_duration(fields.DURATION_MAX_MS), "422"),
        ("calendars that a job excludes", f"{fields.EXCLUDE_MAX}", "422"),
        ("jobs after one", f"{chains.CHILDREN_MAX}", "422"),
        ("steps from job to job that are looked at for a cycle", f"{chains.WALK_MAX:,}", "422"),
        ("`misfire.max`", f"{fields.MISFIRE_MAX:,} times", "422"),
        ("`overlap.queue`", f"{fields.QUEUE_MAX:,} runs", "422"),
        ("`overlap.max_running`, and other counts", f"{fields.COUNT_MAX:,}", "422"),
        ("`retry.max_attempts`", f"{fields.ATTEMPTS_MAX:,}", "422"),
        ("`history.runs`", f"{fields.HISTORY_RUNS_MAX:,}", "422"),
        ("targets of a job's alerts", f"{fields.ALERTS_MAX}", "422"),
        ("times that wait to be skipped", f"{jobs.SKIPS_MAX} a job", "422"),
        ("note of a pause", f"{service.NOTE_MAX:,} characters", "422"),
    ]


def _executors() -> list[Row]:
    return [
        ("url, and each header, of an http job", _size(http_spec.URL_BYTES), "422"),
        ("headers of an http job", f"{http_spec.HEADERS}", "422"),
        ("body of an http job", _size(http_spec.BODY_BYTES), "422"),
        ("answer of an http job's target", _size(http_spec.ANSWER_BYTES), "the rest is not kept"),
        ("an argument or a variable of a shell job", f"{shell.ARGUMENT_BYTES:,} bytes", "422"),
        ("arguments, and variables, of a shell job", f"{shell.ARGUMENTS:,}, and {shell.VARIABLES}", "422"),
        ("stdin of a shell job", _size(shell.STDIN_BYTES), "422"),
        ("args of a python job", _size(python.ARGS_BYTES), "422"),
        ("handlers of a node", f"{handlers.HANDLERS_MAX:,}", "`ValueError` in the application"),
    ]


def _runs() -> list[Row]:
    return [
        ("args of a run", _size(requests.ARGS_BYTES_MAX), "413"),
        ("times of one backfill", f"{asked.BACKFILL_MAX:,}", "422: ask for a part at a time"),
        ("span of one backfill", f"{requests.SPAN_DAYS_MAX:,} days", "422: ask for a part at a time"),
        ("message with which a target ends a run", _size(requests.MESSAGE_BYTES_MAX), "422"),
        ("runs that are with their targets", f"{remote.TAKEN_OVER_MAX:,}", "a further one fails and says so"),
        ("parts of divided runs that have not ended", f"{assigner.PARTS_AT_ONCE:,}", "what is to be divided waits"),
        ("attempts that a run tells of", f"{runs.ATTEMPTS_KEPT}", "the oldest leave"),
        ("moves between states that a run tells of", f"{runs.MOVES_KEPT}", "the oldest leave"),
    ]


def _named() -> list[Row]:
    return [
        ("calendars", f"{exclusion.CALENDARS_MAX:,}", "429"),
        (
            "dates, and schedules, of a calendar",
            f"{exclusion.DATES_MAX:,}, and {exclusion.SCHEDULES_MAX}",
            "422",
        ),
        ("groups", f"{group.GROUPS_MAX:,}", "429"),
        ("`max_running` of a group", f"{group.MAX_RUNNING_MAX:,}", "422"),
        ("tokens", f"{access.TOKENS_MAX:,}", "429"),
        ("secrets", f"{vault.SECRETS_MAX:,} of {_size(vault.SECRET_BYTES_MAX)} each", "429, 413"),
        ("default route of alerts", _size(route.ROUTE_BYTES_MAX), "422"),
        ("address that alerts go to", f"{fields.URL_MAX:,} characters", "422"),
        ("alerts on their way", f"{alerts.PENDING_MAX:,}", "further ones wait in the event log"),
        ("alerts on their way to one target", f"{alerts.QUEUE_MAX:,}", "the oldest are given up"),
        ("tries of one alert", f"for {_time(alerts.PATIENCE_SECONDS)}", "it is given up"),
    ]


def _kept() -> list[Row]:
    hours = 3600 * 1000
    return [
        (
            "run records, unless `history-total` says otherwise",
            _size(model.HISTORY_BYTES_KEPT),
            "the oldest leave, failures last",
        ),
        ("runs of deleted jobs", f"{history.ORPHANS_KEPT:,}", "the oldest leave"),
        ("tail of a run's output, in its record", _size(output.TAIL_BYTES), "what comes before is not in it"),
        ("tails of all runs", _size(history.TAILS_BYTES_KEPT), "the oldest leave; their runs stay"),
        ("output of a run, on its node", _size(output.FILE_BYTES), "the middle is dropped, and counted"),
        ("files of output", _time(output.AGE_SECONDS), "they are deleted"),
        (
            "files of output together, unless `output-total` says otherwise",
            _size(output.DIRECTORY_BYTES),
            "the oldest are deleted",
        ),
        ("events", f"{event_log.EVENTS_KEPT:,}", "the oldest leave; 410 for who asks for them"),
        ("items of the audit trail", f"{audit.AUDIT_KEPT:,}", "the oldest leave; the chain stays whole"),
        (
            "idempotency keys",
            f"{state.KEYS_KEPT:,}, for {format_duration(state.KEY_LIFE_MS // hours * hours)}",
            "the oldest leave; 429 where they are younger than two minutes",
        ),
    ]


def _cluster() -> list[Row]:
    return [
        ("members that vote", f"{configuration.MAX_MEMBERS}", "409"),
        ("peers in a node's settings", f"{table.MAX_PEERS}", "the node does not start, and says why"),
    ]


def page() -> str:
    """docs/limits.md."""
    lines = [
        "# Limits",
        "",
        "What clients and strangers run into, and what happens then. Settings have ranges of their own",
        "([settings.md](settings.md)). This page is made from the constants of the code (`raftcron/api/limits.py`).",
    ]
    for title, rows in groups():
        lines += ["", f"## {title}", "", "| what | bound | beyond it |", "|---|---|---|"]
        lines += ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join(lines) + "\n"


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count % (1 << 20) == 0 else f"{count >> 10} KiB"


def _time(seconds: float) -> str:
    return format_duration(int(seconds * 1000))


if __name__ == "__main__":
    sys.stdout.write(page())
