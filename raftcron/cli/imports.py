"""`raftcron import ...`: other schedulers' jobs as jobs of this one, on stdout; what differs is told on stderr."""

from __future__ import annotations

from typing import Any

import click

from raftcron.cli.files import documents_of, text_of
from raftcron.cli.printing import print_data, say
from raftcron.cli.root import Noun

_format = click.option(
    "-o", "--output", type=click.Choice(["json", "yaml"]), default="json", show_default=True, help="What is printed."
)


@click.group("import", cls=Noun)
def imports() -> None:
    """Print the jobs of another scheduler; `raftcron job apply -f -` takes them."""


@imports.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "--timezone", default="UTC", show_default=True, metavar="ZONE", help="Of the machine whose crontab it is."
)
@click.option("--system", is_flag=True, help="The sixth field is a user, as in /etc/crontab and /etc/cron.d.")
@click.option("--seconds-first", is_flag=True, help="Schedules have six fields, and the first one is seconds.")
@_format
def crontab(file: str, timezone: str, system: bool, seconds_first: bool, output: str) -> None:
    """Read a crontab; FILE may be - for stdin (`crontab -l | raftcron import crontab -`)."""
    from raftcron.cli.importers import crontab as source

    _print(source.read(text_of(file), timezone, has_user=system, seconds_first=seconds_first), output)


@imports.command()
@click.argument("file", type=click.Path(allow_dash=True))
@_format
def k8s(file: str, output: str) -> None:
    """Read CronJobs of Kubernetes, YAML or JSON (`kubectl get cronjobs -o yaml`)."""
    from raftcron.cli.importers import kubernetes as source

    _print(source.read(documents_of(text_of(file), file)), output)


@imports.command()
@click.argument("file", type=click.Path(allow_dash=True))
@_format
def dkron(file: str, output: str) -> None:
    """Read the jobs of Dkron, JSON (`curl http://dkron:8080/v1/jobs`)."""
    from raftcron.cli.importers import dkron as source

    _print(source.read(documents_of(text_of(file), file)), output)


def _print(found: Any, output: str) -> None:
    for warning in found.warnings:
        say(f"warning: {warning}")
    print_data({"jobs": found.jobs}, output)
    say(f"{len(found.jobs)} jobs; nothing was written: `raftcron job apply --dry-run -f -` shows what would be")
