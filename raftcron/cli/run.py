"""`raftcron run ...`: runs over the HTTP API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import click

from raftcron.cli.complete import job_names, run_ids
from raftcron.cli.printing import is_table, print_list, print_one, printed, say
from raftcron.cli.remote import awaitable, client, how_it_ended, path, print_run, reading, remote, write_output
from raftcron.cli.root import Noun

COLUMNS: Final = {
    "ID": "id",
    "JOB": "job",
    "SCHEDULED": "scheduled_time",
    "STATE": "state",
    "REASON": "reason",
    "ATTEMPT": "attempt",
    "NODE": "node",
    "STARTED": "started_at",
    "FINISHED": "finished_at",
}

ASIDE: Final = ("STARTED", "FINISHED", "NODE", "ATTEMPT")
STATES: Final = (
    "queued", "assigned", "running", "cancelling", "waiting_retry",
    "succeeded", "failed", "timed_out", "cancelled", "lost", "skipped",
)  # fmt: skip
identified = click.argument("run_id", shell_complete=run_ids)


@click.group(cls=Noun)
def run() -> None:
    """Look at runs, cancel them, run them again."""


@run.command("list")
@click.option("--job", "of", metavar="NAME", shell_complete=job_names, help="Only runs of this job.")
@click.option(
    "--state", type=click.Choice(STATES), metavar="STATE", help=f"Only runs in this state: {', '.join(STATES)}."
)
@click.option("--since", metavar="INSTANT", help="Only runs since then (RFC 3339).")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@printed
@reading
@remote
def list_runs(
    addr: Sequence[str], output: str, of: str | None, state: str | None, since: str | None, limit: int
) -> None:
    """List runs, newest first."""
    runs = client(addr).items(path("runs"), {"job": of, "state": state, "since": since}, limit)
    print_list(map(_as_row, runs) if is_table(output) else runs, output, "id", COLUMNS, ASIDE)


def _as_row(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was skipped had no attempt and did not finish, whatever its record fills in there."""
    return {**one, "attempt": None, "finished_at": None} if one.get("state") == "skipped" else one


@run.command()
@identified
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of this attempt.  [default: the newest]")
@printed
@reading
@remote
def logs(addr: Sequence[str], output: str, run_id: str, follow: bool, attempt: int | None) -> None:
    """Print the whole output of a run, from the node where it ran, to stdout.

    With -f it goes on across retries, and through another node where the one that was asked ends.  -o json and yaml
    hold it as text, once all of it has come.
    """
    nodes = client(addr)
    pieces = nodes.output(run_id, follow=follow, attempt=attempt)
    if is_table(output):
        write_output(pieces)
    else:
        text = b"".join(pieces).decode(errors="replace")
        print_one({"id": run_id, "attempt": attempt, "output": text}, output, "id")
    if follow and (ended := nodes.get_run(run_id))["state"] != "succeeded":
        say(f"run {run_id}: {how_it_ended(cast('dict[str, Any]', ended))}")


@run.command()
@identified
@printed
@reading
@remote
def get(addr: Sequence[str], output: str, run_id: str) -> None:
    """Show one run."""
    print_one(client(addr).request("GET", path("runs", run_id)).body, output, "id")


@run.command()
@identified
@printed
@remote
def cancel(addr: Sequence[str], output: str, run_id: str) -> None:
    """Cancel a run that has not ended; no retry follows."""
    print_one(client(addr).request("POST", path("runs", run_id, "cancel"), body={}).body, output, "id")


@run.command()
@identified
@click.option("--overlap", type=click.Choice(["allow"]), help="Run even if the job's overlap policy would not.")
@awaitable
@printed
@remote
def retry(
    addr: Sequence[str], output: str, run_id: str, overlap: str | None, is_awaited: bool, is_followed: bool
) -> None:
    """Run again what has ended, as a new run for the same scheduled time."""
    nodes, body = client(addr), {} if overlap is None else {"overlap": overlap}
    started = nodes.request("POST", path("runs", run_id, "retry"), body=body).body["run"]
    print_run(nodes, started, output, is_awaited=is_awaited, is_followed=is_followed)
