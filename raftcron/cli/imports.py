"""`raftcron import ...`: other schedulers' jobs as jobs of this one, on stdout; what differs is told on stderr."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from raftcron.cli.files import documents_of, text_of
from raftcron.cli.printing import FORMATS, print_data, print_list, say
from raftcron.cli.root import Noun

if TYPE_CHECKING:
    from raftcron.cli.importers import Imported

SYSTEM_TABLES: Final = re.compile(r"/etc/(?:crontab|cron\.d/[^/]+)$")

COLUMNS: Final = {"NAME": "name", "SCHEDULE": "schedule", "TIMEZONE": "timezone", "EXECUTOR": "executor.type"}

_format = click.option(
    "-o",
    "--output",
    type=click.Choice(FORMATS),
    default="json",
    show_default=True,
    help="What is printed; `job apply` takes json and yaml.",
)


@click.group("import", cls=Noun)
def imports() -> None:
    """Print the jobs of another scheduler; `raftcron job apply -f -` takes them."""


@imports.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--timezone", metavar="ZONE", help="Of the machine whose crontab it is.  [default: UTC, with a warning]")
@click.option(
    "--system/--personal",
    default=None,
    help="The sixth field is a user, or is not.  [default: it is in /etc/crontab and in /etc/cron.d]",
)
@click.option("--seconds-first", is_flag=True, help="Schedules have six fields, and the first one is seconds.")
@_format
def crontab(file: str, timezone: str | None, system: bool | None, seconds_first: bool, output: str) -> None:
    """Read a crontab; FILE may be - for stdin (`crontab -l | raftcron import crontab -`)."""
    from raftcron.cli.importers import crontab as source
    from raftcron.core.schedule import known_zone

    if timezone is not None and not known_zone(timezone):
        raise click.BadParameter(
            f"{timezone!r} is not known: use a name such as Europe/Berlin", param_hint="--timezone"
        )
    if system is None:
        system = SYSTEM_TABLES.search(str(Path(file).absolute())) is not None
    text = text_of(file)
    found = source.read(text, timezone or "UTC", has_user=system, seconds_first=seconds_first, now_ms=_now_ms())
    if timezone is None and any("timezone" not in job for job in found.jobs):
        say("warning: times are read as UTC; cron means those of its machine: --timezone Europe/Berlin, for one")
    _print(found, output)


@imports.command()
@click.argument("file", type=click.Path(allow_dash=True))
@_format
def k8s(file: str, output: str) -> None:
    """Read CronJobs of Kubernetes, YAML or JSON (`kubectl get cronjobs -o yaml`)."""
    from raftcron.cli.importers import kubernetes as source

    _print(source.read(documents_of(text_of(file), file), _now_ms()), output)


@imports.command()
@click.argument("file", type=click.Path(allow_dash=True))
@_format
def dkron(file: str, output: str) -> None:
    """Read the jobs of Dkron, JSON (`curl http://dkron:8080/v1/jobs`)."""
    from raftcron.cli.importers import dkron as source

    _print(source.read(documents_of(text_of(file), file), _now_ms()), output)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _print(found: Imported, output: str) -> None:
    from raftcron.cli.importers.sound import sound

    found = sound(found, _now_ms())
    for warning in found.warnings:
        say(f"warning: {warning}")
    if output in ("json", "yaml"):
        print_data({"jobs": found.jobs}, output)
    else:
        print_list(found.jobs, output, "name", COLUMNS)
    count = f"{len(found.jobs)} job" + ("" if len(found.jobs) == 1 else "s")
    say(f"{count}; nothing was written: `raftcron job apply --dry-run -f -` shows what would be")
