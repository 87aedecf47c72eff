"""Every bound that a stranger can run into, in one place: `python -m raftcron.api.limits > docs/limits.md`."""

from __future__ import annotations

import sys

from raftcron.api import auth, bodies, connections, events, forward, server
from raftcron.api import bulk as bulk_body
from raftcron.core import access, archive, audit, definition, exclusion, fields, group, state, vault
from raftcron.core.apply import jobs
from raftcron.core.instant import format_duration
from raftcron.executors import http_spec, kept_output, shell
from raftcron.runtime import bulk, listing, requests, service

HEAD_BYTES = 8_190  # of the request line, and of each header: the web framework's


def rows() -> list[tuple[str, str, str]]:
    """What is bounded, by how much, and what happens beyond it."""
    seconds, hours = 1000, 3600 * 1000
    return [
        ("request line, and each header", f"{HEAD_BYTES:,} bytes", "400"),
        ("body of a job", _size(bodies.JOB_BYTES_MAX), "413"),
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
        ("archive of a restore", _size(archive.ARCHIVE_BYTES_MAX), "413"),
        ("every other body", _size(bodies.SMALL_BYTES_MAX), "413"),
        ("depth of a JSON body", f"{bodies.DEPTH_MAX} levels", "400"),
        ("values of a JSON body", f"{bodies.VALUES_MAX:,}", "413"),
        ("Content-Encoding of a body", "none is taken", "415"),
        ("time for a body to come", format_duration(int(bodies.READ_SECONDS * seconds)), "400"),
        (
            "time for the head of a request",
            format_duration(int(server.IDLE_SECONDS * seconds)),
            "the connection is ended",
        ),
        (
            "connections to a node",
            f"{connections.CONNECTIONS_MAX:,}, at most half of its open files",
            "the one that is idle longest is ended; where all are busy, the new one",
        ),
        ("streams of events of a node", f"{events.STREAMS_MAX:,}", "429"),
        ("outputs that are read through a node", f"{kept_output.READERS_MAX:,}", "429"),
        ("items of a page", f"{listing.PAGE_MAX:,}, or {_size(listing.PAGE_BYTES)}", "422; the page ends early"),
        ("answer of the leader to a forwarded write", _size(forward.ANSWER_BYTES_MAX), "504"),
        ("forwarded writes that are remembered", f"{auth.NONCES_KEPT:,} in an epoch", "the oldest are forgotten"),
        ("names of jobs, calendars, tokens, secrets", "128 characters", "422"),
        ("texts of a job (description, labels)", f"{fields.TEXT_MAX:,} characters; labels 256", "422"),
        ("labels and the like of a job", f"{fields.LIST_MAX} of each", "422"),
        ("schedules of a job", f"{definition.SCHEDULES_MAX}", "422"),
        ("times that wait to be skipped", f"{jobs.SKIPS_MAX} a job", "422"),
        ("note of a pause", f"{service.NOTE_MAX:,} characters", "422"),
        ("args of a run", _size(requests.ARGS_BYTES_MAX), "413"),
        ("url, and each header, of an http job", _size(http_spec.URL_BYTES), "422"),
        ("headers of an http job", f"{http_spec.HEADERS}", "422"),
        ("an argument or a variable of a shell job", f"{shell.ARGUMENT_BYTES:,} bytes", "422"),
        ("calendars", f"{exclusion.CALENDARS_MAX:,}", "429"),
        ("groups", f"{group.GROUPS_MAX:,}", "429"),
        ("tokens", f"{access.TOKENS_MAX:,}", "429"),
        ("secrets", f"{vault.SECRETS_MAX:,} of {_size(vault.SECRET_BYTES_MAX)} each", "429, 413"),
        ("items of the audit trail", f"{audit.AUDIT_KEPT:,}", "the oldest leave; the chain stays whole"),
        (
            "idempotency keys",
            f"{state.KEYS_KEPT:,}, for {format_duration(state.KEY_LIFE_MS // hours * hours)}",
            "the oldest leave; 429 where they are younger than two minutes",
        ),
    ]


def page() -> str:
    """docs/limits.md."""
    lines = [
        "# Limits",
        "",
        "What strangers and clients run into, and what happens then. Settings have ranges of their own",
        "([settings.md](settings.md)). This page is made from the constants of the code (`raftcron/api/limits.py`).",
        "",
        "| what | bound | beyond it |",
        "|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows()),
    ]
    return "\n".join(lines) + "\n"


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count % (1 << 20) == 0 else f"{count >> 10} KiB"


if __name__ == "__main__":
    sys.stdout.write(page())
