"""The root command: loads a command when it is called, and turns raftcron's errors into messages and exit codes."""

from __future__ import annotations

import importlib
from typing import IO, Any, cast

import click

from raftcron.errors import RaftcronError


class LazyGroup(click.Group):
    """A group that knows its commands' names and sentences, and imports one only when it is called."""

    def __init__(self, *, commands_at: dict[str, tuple[str, str]], **attributes: Any) -> None:
        """`commands_at`: name -> ("module:attribute", the one sentence that the group's help shows)."""
        super().__init__(**attributes)
        self.commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands_at:
            return None
        module, _, attribute = self.commands_at[cmd_name][0].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in self.commands_at.items()])


class Root(LazyGroup):
    """Where every error of raftcron's tree ends: its message on stderr, its `exit_code` for the shell."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}, **attributes
        )

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RaftcronError as error:
            raise Failure(error) from error


class Failure(click.ClickException):
    """An error of raftcron's as click ends a command with it."""

    def __init__(self, error: RaftcronError) -> None:
        super().__init__(error.detail)
        self.exit_code = error.exit_code  # type: ignore[misc]  # click has it on the class, an error on itself
        self.faults = error.faults

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {self.message}", file=file, err=True)
        for fault in self.faults:
            if fault.message not in self.message:
                click.echo(f"  {fault.pointer or '/'}: {fault.message}", file=file, err=True)
