"""`raftcron schedule ...`: what an expression means.  Offline: the calendar is in this program, no node is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from raftcron.cli.printing import is_table, print_data, printed
from raftcron.cli.root import PREFIX, Noun

if TYPE_CHECKING:
    from raftcron.core.schedule import ScheduleError

INVALID: Final = 2  # exit code
TEXT_WIDTH: Final = 100  # of notes, in characters


@click.group(cls=Noun)
def schedule() -> None:
    """Say what a schedule means; asks no node."""


@schedule.command()
@click.argument("expression")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="IANA name, such as Europe/Berlin.")
@click.option("--from", "start", metavar="INSTANT", help="Show what comes after it (RFC 3339).  [default: now]")
@click.option("--count", type=click.IntRange(0, 1_000), default=5, show_default=True, help="How many fires.")
@click.option("--hash-key", default="", metavar="TEXT", help="What H is drawn from: the job's name, or its hash_key.")
@click.option("--gap", type=click.Choice(["run_after", "skip"]), default="run_after", show_default=True,
              help="A time that the clock jumps over.")  # fmt: skip
@click.option("--fold", type=click.Choice(["first", "last", "both"]), default="first", show_default=True,
              help="A time that the clock shows twice.")  # fmt: skip
@printed
def explain(
    expression: str, timezone: str, start: str | None, count: int, hash_key: str, gap: str, fold: str, output: str
) -> None:
    """Say in words what EXPRESSION does, when it fires next, and what about it may surprise.

    Quote it: `raftcron schedule explain "30 2 * * MON-FRI" --timezone Europe/Berlin`.  Exit code 2: it is not valid.
    With -o name the coming instants alone are printed.
    """
    import datetime

    from raftcron.core.coming import local_text
    from raftcron.core.explain import explain as explained
    from raftcron.core.instant import parse_rfc3339, rfc3339
    from raftcron.core.schedule import Dst, ScheduleError, parse

    try:
        now = datetime.datetime.now(datetime.UTC)
        from_ms = int(now.timestamp() * 1000) if start is None else parse_rfc3339(start)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--from'") from None
    try:
        parse("@manual", timezone)
    except ScheduleError as error:
        raise click.BadParameter(str(error), param_hint="'--timezone'") from None
    try:
        found = explained(expression, timezone, Dst(gap, fold), hash_key, from_ms, count)
    except ScheduleError as error:
        _refuse(expression, error)
    answer: dict[str, Any] = {
        "description": found.description,
        "timezone": timezone,
        "from": rfc3339(from_ms),
        "next": [rfc3339(at) for at in found.next],
        "local": [local_text(at, timezone) for at in found.next],
        "notes": [note._asdict() for note in found.notes],
    }
    if is_table(output):
        _show(answer, count)
    elif output == "name":
        for instant in answer["next"]:
            click.echo(instant)
    else:
        print_data(answer, output)


def _show(answer: dict[str, Any], count: int) -> None:
    description = answer["description"]
    click.echo(description[0].upper() + description[1:] + ".")
    rows = list(zip(answer["local"], answer["next"], strict=True))
    if rows:
        from datetime import datetime

        click.echo()
        width = max(len(local) for local, _ in rows)
        click.echo(f"DAY  {'LOCAL'.ljust(width)}  UTC")
        for local, utc in rows:
            click.echo(f"{datetime.fromisoformat(local):%a}  {local.ljust(width)}  {utc}")
    if len(rows) < count:
        click.echo("\nNothing comes after." if rows else "\nNothing comes.")
    for note in answer["notes"]:
        click.echo()
        lead = f"{note['code']}: "
        click.echo(click.wrap_text(lead + note["message"], TEXT_WIDTH, subsequent_indent="  "))


def _refuse(expression: str, error: ScheduleError) -> NoReturn:
    """What is wrong, with a caret under the first wrong character, and what would be right."""
    click.echo(f"{PREFIX}{error.message}", err=True)
    if error.position is not None:
        shown = "".join(character if character.isprintable() else " " for character in expression)
        click.echo(f"  {shown}\n  {' ' * error.position}^", err=True)
    if error.right:
        click.echo(f"  {error.right}", err=True)
    raise click.exceptions.Exit(INVALID)
