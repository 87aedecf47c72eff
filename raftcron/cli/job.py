"""`raftcron job ...`: jobs over the HTTP API."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from raftcron.cli.remote import awaitable, client, path, print_list, print_one, print_run, printed, remote
from raftcron.errors import Fault, InvalidError, RaftcronError, UnavailableError, UnknownOutcomeError

MAX_FILE_BYTES: Final = 256 << 20  # of job definitions; 100,000 jobs are about 25 MB

COLUMNS: Final = {
    "NAME": "name",
    "SCHEDULE": "schedule",
    "TIMEZONE": "timezone",
    "PAUSED": "paused",
    "NEXT": "next_fire_at",
    "LAST": "last_run.state",
}
BACKFILL_COLUMNS: Final = {"SCHEDULED": "scheduled_time", "ID": "id", "STATE": "state"}
NEXT_COLUMNS: Final = {"SCHEDULED": "scheduled_time", "DUE": "due_at", "LOCAL": "local", "NOTES": "notes"}


@click.group()
def job() -> None:
    """List, apply, pause, run and delete jobs."""


@job.command("list")
@click.option("--limit", type=click.IntRange(1), help="At most so many.  [default: all]")
@printed
@remote
def list_jobs(addr: Sequence[str], output: str, limit: int | None) -> None:
    """List jobs by name."""
    print_list(client(addr).items(path("jobs"), limit=limit), output, "name", COLUMNS)


@job.command()
@click.argument("name")
@printed
@remote
def get(addr: Sequence[str], output: str, name: str) -> None:
    """Show one job; what -o json prints, `job apply` takes."""
    print_one(client(addr).request("GET", path("jobs", name)).body, output, "name")


@job.command()
@click.option("-f", "--file", "source", required=True, metavar="FILE|DIR|-", help="JSON; - is stdin, DIR all *.json.")
@remote
def apply(addr: Sequence[str], source: str) -> None:
    """Create or replace the jobs of a file: one job, a list of jobs, or an object with `jobs` or `items`.

    All are read before the first is sent.  A job that is refused does not stop the others.
    """
    jobs = list(_read(source))
    faults = tuple(
        Fault(f"/{at}/name", f"job {at + 1} has no name") for at, one in enumerate(jobs) if not _is_named(one)
    )
    if faults:
        raise InvalidError(f"{source}: nothing was sent", faults)
    nodes, first = client(addr), None
    for one in jobs:
        try:
            answer = nodes.request("PUT", path("jobs", one["name"]), body=one)
        except (UnavailableError, UnknownOutcomeError):
            raise
        except RaftcronError as error:
            click.echo(f"{one['name']}: {error.detail}", err=True)
            for fault in error.faults:
                click.echo(f"  {fault.pointer or '/'}: {fault.message}", err=True)
            first = first or error
        else:
            click.echo(f"{one['name']}: {'created' if answer.status == 201 else 'applied'}")
    if first is not None:
        raise click.exceptions.Exit(first.exit_code)


@job.command()
@click.argument("name")
@click.option("--cancel-running", is_flag=True, help="Cancel its runs too.")
@remote
def delete(addr: Sequence[str], name: str, cancel_running: bool) -> None:
    """Delete a job; no start commits after the answer."""
    client(addr).request("DELETE", path("jobs", name), query={"cancel_running": "1" if cancel_running else None})
    click.echo(f"{name}: deleted", err=True)


@job.command()
@click.argument("name")
@click.option("--note", help="Why, for those who look at it.")
@click.option("--until", metavar="INSTANT", help="Resume by itself then (RFC 3339).")
@printed
@remote
def pause(addr: Sequence[str], output: str, name: str, note: str | None, until: str | None) -> None:
    """Fire a job no more until it is resumed."""
    body = {key: value for key, value in (("note", note), ("until", until)) if value is not None}
    print_one(client(addr).request("POST", path("jobs", name, "pause"), body=body).body, output, "name")


@job.command()
@click.argument("name")
@click.option("--catch-up", is_flag=True, help="Make owed what fell into the pause; the misfire policy speaks of it.")
@printed
@remote
def resume(addr: Sequence[str], output: str, name: str, catch_up: bool) -> None:
    """Fire a paused job again."""
    body = {"catch_up": True} if catch_up else {}
    print_one(client(addr).request("POST", path("jobs", name, "resume"), body=body).body, output, "name")


@job.command()
@click.argument("name")
@click.option("--args", "arguments", metavar="JSON", help="A JSON value that the run gets.")
@click.option("--overlap", type=click.Choice(["allow"]), help="Run even if the job's overlap policy would not.")
@awaitable
@printed
@remote
def run(
    addr: Sequence[str],
    output: str,
    name: str,
    arguments: str | None,
    overlap: str | None,
    is_awaited: bool,
    is_followed: bool,
) -> None:
    """Run a job now; overlap may have it skipped."""
    body: dict[str, Any] = {} if overlap is None else {"overlap": overlap}
    if arguments is not None:
        body["args"] = _json(arguments, "--args")
    nodes = client(addr)
    started = nodes.request("POST", path("jobs", name, "runs"), body=body).body["run"]
    print_run(nodes, started, output, is_awaited=is_awaited, is_followed=is_followed)


@job.command()
@click.argument("name")
@click.option("--from", "begin", required=True, metavar="INSTANT", help="The first time that counts (RFC 3339).")
@click.option("--to", "through", required=True, metavar="INSTANT", help="The last time that counts; now or before.")
@click.option("--dry-run", is_flag=True, help="Only show which times there are.")
@printed
@remote
def backfill(addr: Sequence[str], output: str, name: str, begin: str, through: str, dry_run: bool) -> None:
    """Run a job for each of its times in a past span, one after the other, oldest first."""
    body = {"from": begin, "to": through, "dry_run": dry_run}
    filled = client(addr).request("POST", path("jobs", name, "backfill"), body=body).body
    print_list(filled["runs"], output, "scheduled_time" if dry_run else "id", BACKFILL_COLUMNS)
    runs = f"{filled['count']} run" + ("" if filled["count"] == 1 else "s")
    click.echo(f"{name}: {runs} {'would be made' if dry_run else 'made'}", err=True)


@job.command("next")
@click.argument("name")
@click.option("--count", type=click.IntRange(0, 1_000), default=10, show_default=True, help="How many fires.")
@printed
@remote
def next_(addr: Sequence[str], output: str, name: str, count: int) -> None:
    """Show the coming fires of a job; none while it is paused."""
    items = client(addr).request("GET", path("jobs", name, "next"), query={"count": str(count)}).body["items"]
    if output == "table":
        items = [one | {"notes": "; ".join(note["message"] for note in one["notes"])} for one in items]
    print_list(items, output, "scheduled_time", NEXT_COLUMNS)


@job.command()
@click.argument("name")
@click.option("--at", "at", required=True, metavar="INSTANT", help="RFC 3339; a scheduled time, or when it was due.")
@printed
@remote
def why(addr: Sequence[str], output: str, name: str, at: str) -> None:
    """Say why a job fired, or did not, or will, at an instant, past or to come."""
    answer = client(addr).request("GET", path("jobs", name, "why"), query={"at": at}).body
    if output == "table":
        click.echo(f"{answer['verdict'].replace('_', ' ')}: {answer['message']}")
        rest = {key: answer[key] for key in ("run_id", "log_index", "epoch", "node") if answer[key] is not None}
        answer = rest
    if answer:
        print_one(answer, output, "verdict")


def _is_named(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("name"), str) and bool(one["name"])


def _read(source: str) -> Iterator[Any]:
    if source == "-":
        yield from _jobs(sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "stdin")
        return
    place = Path(source)
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not files:
        raise InvalidError(f"{place}: no *.json there")
    for file in files:
        try:
            with file.open("rb") as stream:
                raw = stream.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InvalidError(f"{file}: cannot be read: {error.strerror}") from error
        yield from _jobs(raw, str(file))


def _jobs(raw: bytes, where: str) -> list[Any]:
    if len(raw) > MAX_FILE_BYTES:
        raise InvalidError(f"{where}: over {MAX_FILE_BYTES:,} bytes")
    value = _json(raw, where)
    if isinstance(value, dict):
        for key in ("jobs", "items"):
            if isinstance(value.get(key), list) and "name" not in value:
                return list(value[key])
        return [value]
    if isinstance(value, list):
        return value
    raise InvalidError(f"{where}: expected a job, a list of jobs, or an object with `jobs`")


def _json(text: bytes | str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{where}: not JSON: {error}") from error
