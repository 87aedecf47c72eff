"""`raftcron cluster ...`: the cluster as a node sees it, also without a quorum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from raftcron.cli.remote import client, path, print_list, print_one, printed, remote

COLUMNS: Final = {
    "NAME": "name",
    "ROLE": "role",
    "ALIVE": "alive",
    "HTTP": "http",
    "RAFT": "raft",
    "APPLIED": "applied_index",
    "INCARNATION": "incarnation",
    "VERSION": "version",
}


@click.group()
def cluster() -> None:
    """Look at the cluster."""


@cluster.command()
@printed
@remote
def status(addr: Sequence[str], output: str) -> None:
    """Show the leader, where the log stands, and every member."""
    found = client(addr).request("GET", path("cluster")).body
    if output != "table":
        print_one(found, output, "cluster_id")
        return
    print_one({name: value for name, value in found.items() if name not in ("members", "digests")}, "table", "")
    click.echo()
    print_list(found["members"], "table", "name", COLUMNS)
