"""`raftcron server`: one node, told by flags that are made from the table of settings."""

from __future__ import annotations

import os
from typing import Any

import click

from raftcron.cli.root import PREFIX
from raftcron.config import SETTINGS, Setting, load


class ServerCommand(click.Command):
    """Shows its options by the table's sections, with environment variable, default and range."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(row.section for row in SETTINGS):
            with formatter.section(section):
                formatter.write_dl([_help_row(row) for row in SETTINGS if row.section == section])
        rest = [option.get_help_record(ctx) for option in self.get_params(ctx) if not isinstance(option, SettingOption)]
        with formatter.section("Other"):
            formatter.write_dl([record for record in rest if record is not None])


class SettingOption(click.Option):
    """One row of the table; the value stays raw, so that `load` sees all sources and names every fault at once."""

    def __init__(self, row: Setting) -> None:
        kind = row.kind
        declared = f"{row.flag}/--no-{row.name}" if kind.is_flag else row.flag
        attributes: dict[str, Any] = (
            {"is_flag": True} if kind.is_flag else {"type": str, "multiple": kind.is_repeatable}
        )
        super().__init__([declared, row.field], default=None, **attributes)


def _help_row(row: Setting) -> tuple[str, str]:
    facts = [f"default {row.shown_default}"] + ([row.shown_range] if row.shown_range else [])
    text = f"{row.help}  [{row.variable}; {'; '.join(facts)}]"
    return (row.variable if row.is_secret else f"{row.flag} {row.kind.metavar}".strip()), text


def _run(config: str | None, **given: Any) -> None:
    settings = load({"config": config} | {row.name: given.get(row.field) for row in SETTINGS}, os.environ)
    for note in settings.notes:
        click.echo(f"{PREFIX}note: {note}", err=True)
    from raftcron.daemon import run

    raise SystemExit(run(settings))


server = ServerCommand(
    name="server",
    callback=_run,
    help="Run one node until SIGTERM or SIGINT.\n\n"
    "Each setting is a flag, an environment variable or a key of the TOML file, in this order.  A node alone, without "
    "--peer, is a cluster of one.",
    params=[SettingOption(row) for row in SETTINGS if not row.is_secret]
    + [click.Option(["--config"], type=str, metavar="FILE", help="A TOML file of settings.  [RAFTCRON_CONFIG]")],
)
