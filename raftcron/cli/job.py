"""`raftcron job ...`: jobs over the HTTP API."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import click

from raftcron.cli.complete import job_names
from raftcron.cli.files import Jobs, documents_of, jobs_of, json_of
from raftcron.cli.printing import is_table, print_done, print_list, print_one, printed, progress, say, sending
from raftcron.cli.remote import awaitable, client, path, print_run, reading, remote
from raftcron.cli.root import Noun
from raftcron.errors import InvalidError

if TYPE_CHECKING:
    from raftcron.client import Client
    from raftcron.client.views import Applied

OWNER: Final = "raftcron job apply"  # of what is pruned, unless --owner says another
PART: Final = 2_000  # jobs of one request, so that there is something to see while many are sent
PRUNE_SECONDS: Final = 600.0  # until the answer of one request for any number of jobs

COLUMNS: Final = {
    "NAME": "name",
    "SCHEDULE": "schedule",
    "TIMEZONE": "timezone",
    "PAUSED": "paused",
    "NEXT": "next_fire_at",
    "LAST": "last_run.state",
}
WIDE_COLUMNS: Final = COLUMNS | {
    "STATE": "state",
    "EXECUTOR": "executor.type",
    "OWNER": "owner",
    "LABELS": "labels",
    "REVISION": "revision",
    "UPDATED": "updated_at",
}
ASIDE: Final = ("PAUSED", "TIMEZONE")
BACKFILL_COLUMNS: Final = {"SCHEDULED": "scheduled_time", "ID": "id", "STATE": "state"}
NEXT_COLUMNS: Final = {"SCHEDULED": "scheduled_time", "DUE": "due_at", "LOCAL": "local", "NOTES": "notes"}

named = click.argument("name", shell_complete=job_names)


@click.group(cls=Noun)
def job() -> None:
    """List, apply, edit, pause, run and delete jobs."""


@job.command("list")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only with this label; repeat it for more.")
@click.option("--state", type=click.Choice(["active", "paused", "ended"]), help="Only in this state.")
@click.option("-q", "--search", metavar="TEXT", help="Only where the name or the description holds it.")
@click.option("--sort", type=click.Choice(["name", "next_fire_at", "updated_at"]), help="[default: name]")
@click.option("--limit", type=click.IntRange(1), help="At most so many.  [default: all]")
@printed
@reading
@remote
def list_jobs(
    addr: Sequence[str],
    output: str,
    labels: Sequence[str],
    state: str | None,
    search: str | None,
    sort: str | None,
    limit: int | None,
) -> None:
    """List jobs."""
    found = client(addr).jobs(labels=labels, state=state, search=search, sort=sort, limit=limit)
    _print_jobs(found, output)


def _print_jobs(found: Iterable[Mapping[str, Any]], output: str) -> None:
    print_list(found, output, "name", WIDE_COLUMNS if output == "wide" else COLUMNS, ASIDE)


def _print_changed(changed: Mapping[str, Any], output: str) -> None:
    """A job after a change: as a row for people, all of it else."""
    if output == "table":
        _print_jobs([changed], output)
    else:
        print_one(changed, output, "name")


@job.command()
@named
@printed
@reading
@remote
def get(addr: Sequence[str], output: str, name: str) -> None:
    """Show one job; what -o json or yaml prints, `job apply` takes."""
    print_one(client(addr).get_job(name), output, "name")


@job.command()
@click.option(
    "-f",
    "--file",
    "source",
    required=True,
    metavar="FILE|DIR|-",
    type=click.Path(allow_dash=True),
    help="JSON, YAML, or a job a line; - is stdin, DIR all such files in it.",
)
@click.option("--owner", metavar="TEXT", help="Whose jobs these are.  [default with --prune: what `job apply` owns]")
@click.option("--prune", is_flag=True, help="Delete the owner's jobs that are not in the file.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@printed
@remote
def apply(addr: Sequence[str], output: str, source: str, owner: str | None, prune: bool, dry_run: bool) -> None:
    """Create or replace the jobs of a file: one job, a list of jobs, or an object with `jobs` or `items`.

    All are read before the first is sent.  A job that is refused does not stop the others, but nothing is pruned then.
    """
    found = jobs_of(source)
    jobs = found.bodies
    owner = owner or (OWNER if prune else None)
    results: list[Applied] = []
    if prune:
        results = _applied(partial(_pruned, client(addr, PRUNE_SECONDS), jobs, owner, dry_run))
    else:
        nodes = client(addr)
        parts = [jobs[at : at + PART] for at in range(0, len(jobs), PART)] or [[]]
        with progress(parts, f"{len(jobs)} jobs") as bar:
            for part in bar:
                results += _applied(partial(nodes.apply_jobs, part, owner=owner, dry_run=dry_run))
    _tell(results, output, dry_run, found)


def _pruned(nodes: Client, jobs: Sequence[Mapping[str, Any]], owner: str | None, dry_run: bool) -> list[Applied]:
    """Apply in one request, since what is not in it is deleted; the node writes what it has read, and deletes last."""
    import msgspec

    from raftcron.client.api import NDJSON
    from raftcron.client.sync import Upload

    content = b"".join(msgspec.json.encode(job) + b"\n" for job in jobs)
    query = {"owner": owner, "prune": True, "dry_run": dry_run or None}
    then = "looking for what is left out" if dry_run else "deleting what is left out"
    with sending(len(content), f"{len(jobs)} jobs", then) as told:
        sent = nodes.request("POST", "/v1/jobs:apply", Upload(content, told), query, {"Content-Type": NDJSON})
    return cast("list[Applied]", sent.body["results"])


def _applied(send: Callable[[], list[Applied]]) -> list[Applied]:
    try:
        return send()
    except InvalidError as error:
        if not error.results:
            raise
        return cast("list[Applied]", list(error.results))


def _tell(results: Sequence[Applied], output: str, dry_run: bool, jobs: Jobs) -> None:
    """What each job met, and in one line what all of them did; exit code 2 if one was refused."""
    if is_table(output):
        for number, one in enumerate(results):
            name, result = one["name"] or "(no name)", one["result"]
            if output == "wide" or result != "unchanged" or len(results) == 1:
                click.echo(f"{name}: {result}", err=result == "invalid")
            for fault in one["errors"]:
                where = f"{jobs.place(number, fault['pointer'])} {fault['pointer'] or '/'}".strip()
                click.echo(f"  {where}: {fault['message']}", err=True)
    else:
        print_list(cast("Sequence[Mapping[str, Any]]", results), output, "name", {})
    counts = Counter(one["result"] for one in results)
    told = ", ".join(f"{count} {result}" for result, count in sorted(counts.items())) or "nothing to do"
    say(told + (" (dry run: nothing was written)" if dry_run else ""))
    if counts["invalid"]:
        raise click.exceptions.Exit(InvalidError.exit_code)


@job.command()
@named
@printed
@remote
def edit(addr: Sequence[str], output: str, name: str) -> None:
    """Open a job in $EDITOR, and put what comes back; somebody else's change meanwhile is refused, not undone.

    On a terminal the editor opens again where the job is not valid.  What could not be written is kept in a file.
    """
    import yaml

    from raftcron.cli.edit import draft
    from raftcron.core.definition import SERVER_SET

    nodes = client(addr)
    found = nodes.get_job(name)
    shown = {key: value for key, value in found.items() if key not in SERVER_SET}
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120)
    head = f"# {name}: what is left out gets its default; an empty file changes nothing.\n"
    with draft(name, "mend it, and `raftcron job apply -f {file}` writes it") as file:
        while True:
            before = text
            file.write(head + text)
            text = file.edit().removeprefix(head)
            try:
                body = _one_job(text, name)
                if body is None or body == shown:
                    say(f"{name}: nothing was changed")
                    break
                found = nodes.put_job(name, body, if_match=found["revision"])
            except InvalidError as error:
                if text == before or not sys.stdin.isatty():  # who leaves it as it is has given up
                    raise
                faults = "".join(f"#   {fault.pointer or '/'}: {fault.message}\n" for fault in error.faults)
                head = f"# {error.detail}\n{faults}# Mend it; an empty file, or leaving it as it is, gives up.\n"
            else:
                say(f"{name}: written")
                break
    if not is_table(output):
        print_one(found, output, "name")


def _one_job(text: str, name: str) -> dict[str, Any] | None:
    """What the text holds, None if that is nothing.  InvalidError."""
    documents = documents_of(text, name)
    if not documents:
        return None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise InvalidError("the file has to hold one job")
    return documents[0]


@job.command()
@named
@click.argument("copy")
@printed
@remote
def clone(addr: Sequence[str], output: str, name: str, copy: str) -> None:
    """Create a job COPY that is like the job NAME; it is paused, so that nothing fires twice unasked.

    Secrets are not copied: they cannot be read.
    """
    from raftcron.core.definition import SERVER_SET

    nodes = client(addr)
    original = nodes.get_job(name)
    found = {key: value for key, value in original.items() if key not in SERVER_SET | {"name", "paused"}}
    _print_changed(nodes.create_job({"name": copy, **found, "paused": True}), output)
    if secrets := original.get("secrets"):
        say(f"{copy} lacks the secrets of {name}: {', '.join(secrets)}: `raftcron job edit {copy}` writes them")
    say(f"{copy} is paused: look at it, then `raftcron job resume {copy}`")


@job.command()
@named
@click.option("--cancel-running", is_flag=True, help="Cancel its runs too.")
@printed
@remote
def delete(addr: Sequence[str], output: str, name: str, cancel_running: bool) -> None:
    """Delete a job; no start commits after the answer."""
    client(addr).request("DELETE", path("jobs", name), query={"cancel_running": "1" if cancel_running else None})
    click.echo(f"{name}: deleted", err=True)
    print_done(name, "deleted", output)


@job.command()
@named
@click.option("--note", help="Why, for those who look at it.")
@click.option("--until", metavar="INSTANT", help="Resume by itself then (RFC 3339).")
@printed
@remote
def pause(addr: Sequence[str], output: str, name: str, note: str | None, until: str | None) -> None:
    """Fire a job no more until it is resumed."""
    body = {key: value for key, value in (("note", note), ("until", until)) if value is not None}
    _print_changed(client(addr).request("POST", path("jobs", name, "pause"), body=body).body, output)


@job.command()
@named
@click.option("--catch-up", is_flag=True, help="Run what fell into the pause, too, as the job's misfire policy says.")
@printed
@remote
def resume(addr: Sequence[str], output: str, name: str, catch_up: bool) -> None:
    """Fire a paused job again."""
    body = {"catch_up": True} if catch_up else {}
    _print_changed(client(addr).request("POST", path("jobs", name, "resume"), body=body).body, output)


@job.command()
@named
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
        body["args"] = json_of(arguments, "--args")
    nodes = client(addr)
    started = nodes.request("POST", path("jobs", name, "runs"), body=body).body["run"]
    print_run(nodes, started, output, is_awaited=is_awaited, is_followed=is_followed)


@job.command()
@named
@click.option("--from", "begin", required=True, metavar="INSTANT", help="The first time that counts (RFC 3339).")
@click.option("--to", "through", required=True, metavar="INSTANT", help="The last time that counts; now or before.")
@click.option("--dry-run", is_flag=True, help="Only show which times there are.")
@printed
@remote
def backfill(addr: Sequence[str], output: str, name: str, begin: str, through: str, dry_run: bool) -> None:
    """Run a job for each of its times in a past span, one after the other, oldest first."""
    body = {"from": begin, "to": through, "dry_run": dry_run}
    filled = client(addr).request("POST", path("jobs", name, "backfill"), body=body).body
    columns = {"SCHEDULED": "scheduled_time"} if dry_run else BACKFILL_COLUMNS
    print_list(filled["runs"], output, "scheduled_time" if dry_run else "id", columns)
    runs = f"{filled['count']} run" + ("" if filled["count"] == 1 else "s")
    click.echo(f"{name}: {runs} {'would be made' if dry_run else 'made'}", err=True)


@job.command("next")
@named
@click.option("--count", type=click.IntRange(0, 1_000), default=10, show_default=True, help="How many fires.")
@printed
@reading
@remote
def next_(addr: Sequence[str], output: str, name: str, count: int) -> None:
    """Show the coming fires of a job; none while it is paused."""
    items = client(addr).request("GET", path("jobs", name, "next"), query={"count": str(count)}).body["items"]
    if is_table(output):
        items = [one | {"notes": "; ".join(note["message"] for note in one["notes"])} for one in items]
    print_list(items, output, "scheduled_time", NEXT_COLUMNS, ("DUE",))


@job.command()
@named
@click.option("--at", "at", required=True, metavar="INSTANT", help="RFC 3339; a scheduled time, or when it was due.")
@printed
@reading
@remote
def why(addr: Sequence[str], output: str, name: str, at: str) -> None:
    """Say why a job fired, or did not, or will, at an instant, past or to come."""
    answer = client(addr).request("GET", path("jobs", name, "why"), query={"at": at}).body
    if is_table(output):
        click.echo(f"{answer['verdict'].replace('_', ' ')}: {answer['message']}")
        rest = {key: answer[key] for key in ("run_id", "log_index", "epoch", "node") if answer[key] is not None}
        answer = rest
    if answer:
        print_one(answer, output, "verdict")
