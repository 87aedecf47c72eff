"""`raftcron token ...`: who may ask.  The first token is made beside a node, in its data directory."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from raftcron.cli.complete import thing_names
from raftcron.cli.printing import is_table, print_done, print_list, print_one, printed
from raftcron.cli.remote import client, reading, remote
from raftcron.cli.root import PREFIX, Noun

COLUMNS: Final = {
    "NAME": "name",
    "ROLE": "role",
    "PREFIX": "prefix",
    "CREATED": "created_at",
    "BY": "created_by",
}
TAKEN_SECONDS: Final = 10.0  # for a node that runs and has a quorum
POLL_SECONDS: Final = 0.1


@click.group(cls=Noun)
def token() -> None:
    """Make, list and revoke the tokens that clients show."""


@token.command()
@click.argument("name", default="admin")
@click.option(
    "--role", type=click.Choice(["read", "operate", "admin"]), help="What it may do; needed, but for NAME admin."
)
@click.option("--prefix", default="", help="Only for jobs whose names begin so.  [all]")
@click.option(
    "--bootstrap",
    is_flag=True,
    help="Make an admin token without one: leave it in --data-dir for the node, which takes it within a second, "
    "or when it starts.  A token of this name is replaced.",
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="The node's data directory.  [RAFTCRON_DATA_DIR]")
@printed
@remote
def create(
    name: str, role: str | None, prefix: str, bootstrap: bool, data_dir: Path | None, addr: Sequence[str], output: str
) -> None:
    """Make a token called NAME and print it, this once."""
    if bootstrap:
        if role not in (None, "admin") or prefix or not is_table(output):
            raise click.UsageError("--bootstrap makes an admin token without a prefix, and prints it alone")
        _bootstrap(name, data_dir)
        return
    if role is None and name != "admin":
        raise click.UsageError("say --role read, operate or admin")
    made = client(addr).create_token(name, role or "admin", prefix)
    if is_table(output):
        click.echo(made["token"])
    else:
        print_one(made, output, "name")


def _bootstrap(name: str, data_dir: Path | None) -> None:
    from raftcron.runtime.bootstrap import REQUEST_FILE, ask_for_admin

    directory = data_dir or (Path(os.environ["RAFTCRON_DATA_DIR"]) if os.environ.get("RAFTCRON_DATA_DIR") else None)
    if directory is None:
        raise click.UsageError("--bootstrap needs --data-dir, the data directory of a node on this machine")
    try:
        text = ask_for_admin(directory, name, os.urandom)
    except OSError as error:
        told = f"{directory}: {error.strerror}: is it a node's data directory, and are you the node's user?"
        raise click.UsageError(told) from error
    click.echo(text)
    until = time.monotonic() + TAKEN_SECONDS
    while (directory / REQUEST_FILE).exists():
        if time.monotonic() >= until:
            click.echo(
                f"{PREFIX}the token counts once a node of {directory} runs and has a quorum (its log says so)", err=True
            )
            return
        time.sleep(POLL_SECONDS)
    click.echo(f"{PREFIX}the cluster has taken the token {name!r}; it is not shown again", err=True)


@token.command("list")
@printed
@reading
@remote
def list_(addr: Sequence[str], output: str) -> None:
    """List tokens: names, roles and prefixes, never what a client shows."""
    print_list(client(addr).things("tokens"), output, "name", COLUMNS)


@token.command()
@click.argument("name", shell_complete=thing_names("tokens"))
@printed
@remote
def revoke(name: str, addr: Sequence[str], output: str) -> None:
    """Revoke a token: whoever shows it is refused from now on."""
    client(addr).delete_thing("tokens", name)
    click.echo(f"{PREFIX}token {name!r} is revoked", err=True)
    print_done(name, "revoked", output)
