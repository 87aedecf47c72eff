"""`raftcron version`."""

from __future__ import annotations

import click

import raftcron


@click.command(short_help="Print the version.")
def version() -> None:
    """Print the version of the installed raftcron."""
    click.echo(raftcron.__version__)
