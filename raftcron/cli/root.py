"""The root command: loads a command when it is called, and turns raftcron's errors into messages and exit codes."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, Final, cast

import click
from click.exceptions import NoArgsIsHelpError

from raftcron.errors import RaftcronError, UnavailableError

PREFIX: Final = "raftcron: "  # of every line that says why a command failed
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})  # of an output: it has no filename
INTERRUPTED: Final = 130  # exit code after Ctrl-C, as of a program that SIGINT ends


# Options of the commands that ask a node; a group takes them before its command's name as well.
SHARED: Final = frozenset({"--addr", "--token-file", "--cacert", "--cert", "-o", "--output"})


class Noun(click.Group):
    """A group that hands on what is said too early: `raftcron --addr URL job list -o json`, in any place.

    Its help shows the first sentence of each command whole.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        place = 0
        while place < len(args) and args[place].partition("=")[0] in SHARED:
            place += 1 if "=" in args[place] else 2  # the option and its value
        if place < len(args) and not args[place].startswith("-"):
            args = [args[place], *args[:place], *args[place + 1 :]]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _sentence(self.commands[name])) for name in self.list_commands(ctx)])


def _sentence(command: click.Command) -> str:
    text = " ".join((command.help or "").partition("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") + "."


class LazyGroup(Noun):
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand:  # it looks for what was meant among commands that are loaded
            raise click.NoSuchCommand(args[0], possibilities=self.commands_at, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in self.commands_at.items()])


class Root(LazyGroup):
    """Where every error of raftcron's tree ends: its message on stderr, its `exit_code` for the shell."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}, **attributes
        )

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _told():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _told():
            return super().invoke(ctx)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors of raftcron's tree and of the command line's use leave as what shows them in one way."""
    try:
        yield
    except RaftcronError as error:
        raise Failure(error) from error
    except OSError as error:
        if error.errno not in NO_ROOM or error.filename is not None:
            raise
        _let_go_of_stdout()
        told = "make room, or lead it elsewhere; what the command had changed by then is changed"
        raise Failure(RaftcronError(f"the output cannot be written: {error.strerror}: {told}")) from error
    except KeyboardInterrupt:
        click.echo(err=True)  # the terminal has written ^C on the line
        raise click.exceptions.Exit(INTERRUPTED) from None
    except click.UsageError as error:
        # What has no message shows the help, as `raftcron` alone does.
        if isinstance(error, NoArgsIsHelpError):
            raise
        raise Misuse(error) from error


def _let_go_of_stdout() -> None:
    """What it still holds is dropped, or Python would try to write it once more at its end, and say so."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Failure(click.ClickException):
    """An error of raftcron's as click ends a command with it."""

    def __init__(self, error: RaftcronError) -> None:
        super().__init__(error.detail.replace("?consistency=stale", "--stale"))
        self.exit_code = error.exit_code  # type: ignore[misc]  # click has it on the class, an error on itself
        self.faults = error.faults
        self.hint = (
            "`raftcron doctor` looks at every node, and says what to do" if isinstance(error, UnavailableError) else ""
        )

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{PREFIX}{self.message}", file=file, err=True)
        for fault in self.faults:
            if fault.message not in self.message:
                click.echo(f"  {fault.pointer or '/'}: {fault.message}", file=file, err=True)
        if self.hint:
            click.echo(self.hint, file=file, err=True)


class Misuse(click.UsageError):
    """A command line that cannot be read: what is wrong, and where it says how it is right."""

    def __init__(self, error: click.UsageError) -> None:
        super().__init__(error.format_message(), error.ctx)

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{PREFIX}{self.message}", file=file, err=True)
        if self.ctx is not None:
            click.echo(f"{self.ctx.get_usage()}\nTry '{self.ctx.command_path} --help' for help.", file=file, err=True)
