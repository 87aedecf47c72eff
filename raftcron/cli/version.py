"""`raftcron version`."""

from __future__ import annotations

import click

import raftcron
from raftcron.cli.printing import is_table, print_one, printed


@click.command(short_help="Print the version.")
@printed
def version(output: str) -> None:
    """Print the version of the installed raftcron."""
    if is_table(output):
        click.echo(raftcron.__version__)
    else:
        print_one({"version": raftcron.__version__}, output, "version")
