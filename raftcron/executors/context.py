"""What a job is told about its run, as environment variables and as HTTP headers (api.md section 4).  Nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from raftcron.ports import Attempt

# Of the daemon's own environment a command gets these alone: what programs need to find files and to speak a language.
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
OF_THE_USER = {"HOME", "USER", "LOGNAME", "SHELL"}  # a command that runs as somebody else gets that user's
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def facts(attempt: Attempt) -> Iterator[tuple[str, str]]:
    """Name (in header spelling, without the product's name) and value of all that both kinds of job are told."""
    yield "Job", attempt.job
    yield "Run-Id", attempt.run_id
    yield "Scheduled-Time", attempt.scheduled_time
    yield "Attempt", str(attempt.attempt)
    yield "Fencing-Token", str(attempt.fencing_token)
    yield "Missed-Count", str(attempt.missed_count)
    yield "Node", attempt.node
    if attempt.previous_time is not None:
        yield "Previous-Time", attempt.previous_time
    if attempt.shard_index is not None:
        yield "Shard-Index", str(attempt.shard_index)
    if attempt.shard_count is not None:
        yield "Shard-Count", str(attempt.shard_count)


def environment(attempt: Attempt, own: Mapping[str, str], daemon: Mapping[str, str]) -> dict[str, str]:
    """A clean environment: little of the daemon's, then the job's `own` variables, then what the run is.

    A variable with a later source wins, so a job cannot pretend to be another run.
    """
    variables = {"PATH": DEFAULT_PATH}
    variables |= {name: daemon[name] for name in PASSED_ON if name in daemon}
    variables |= own
    variables |= {"RAFTCRON_" + name.upper().replace("-", "_"): value for name, value in facts(attempt)}
    if attempt.args is not None:
        variables["RAFTCRON_ARGS"] = args_text(attempt)
    if attempt.traceparent:
        variables["TRACEPARENT"] = attempt.traceparent
    return variables


def headers(attempt: Attempt) -> dict[str, str]:
    """The headers of one request; the idempotency key is the run's id, so it is the same for every attempt."""
    values = {"Raftcron-" + name: value for name, value in facts(attempt)}
    values["Idempotency-Key"] = attempt.run_id
    if attempt.traceparent:
        values["traceparent"] = attempt.traceparent
    return values


def args_text(attempt: Attempt) -> str:
    """The args of a manual run as compact JSON."""
    return json.dumps(attempt.args, ensure_ascii=False, separators=(",", ":"))
