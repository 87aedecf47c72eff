"""How answers are printed: tables that fit the terminal, JSON, YAML or bare names; data on stdout, words on stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

FORMATS: Final = ("table", "wide", "json", "yaml", "name")
MAX_CELL: Final = 60  # characters of one cell of a table; -o wide cuts nothing
LEAST_CELL: Final = 8  # a column is made no narrower to fit the terminal
GAP: Final = "  "
PIPED_WIDTH: Final = 10_000  # of a table that no terminal shows

# States and verdicts in the colours that people expect; only a terminal shows them.
COLOURS: Final = {
    "succeeded": "green",
    "fired": "green",
    "created": "green",
    "leader": "green",
    "running": "cyan",
    "cancelling": "cyan",
    "assigned": "cyan",
    "queued": "yellow",
    "waiting_retry": "yellow",
    "skipped": "yellow",
    "replaced": "yellow",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "invalid": "red",
    "cancelled": "magenta",
    "deleted": "magenta",
}


def printed(command: Command) -> Command:
    """Gives a command `-o`, and `output` as its parameter."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How the answer is printed; wide is a table of which nothing is cut.",
    )(command)


def is_table(output: str) -> bool:
    """Whether people read it rather than programs."""
    return output in ("table", "wide")


def print_list(items: Iterable[Mapping[str, Any]], output: str, key: str, columns: Mapping[str, str]) -> None:
    """Print many: `key` is what `-o name` shows, `columns` are heading -> field (dots go deeper) of the table."""
    if output == "name":
        for item in items:
            click.echo(_cell(item.get(key)))
    elif not is_table(output):
        print_data({"items": list(items)}, output)
    else:
        rows = [[_cell(_field(item, field)) for field in columns.values()] for item in items]
        _print_table(list(columns), rows, MAX_CELL if output == "table" else None)


def print_one(item: Mapping[str, Any], output: str, key: str) -> None:
    """Print one: every field on its line, as data, or only its `key`."""
    if output == "name":
        click.echo(_cell(item.get(key)))
    elif not is_table(output):
        print_data(item, output)
    else:
        width = max((len(name) for name in item), default=0)
        for name, value in item.items():
            click.echo(f"{name.ljust(width)}  {_coloured(_cell(value))}".rstrip())


def print_data(value: Any, output: str) -> None:
    """Print a JSON value as JSON or YAML."""
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120), nl=False)
    else:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """A word to whoever sits there, on stderr."""
    from raftcron.cli.root import PREFIX

    click.echo(f"{PREFIX}{text}", err=True)


def progress(items: Sequence[Any], label: str) -> Any:
    """A bar on stderr while these are worked on; on no terminal nothing but the label, once."""
    return click.progressbar(items, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())


def _print_table(headings: list[str], rows: list[list[str]], most: int | None) -> None:
    table = [headings, *([_cut(cell, most) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    if most is not None:
        widths = _fitted(widths, [len(heading) for heading in headings])
    for place, row in enumerate(table):
        cells = [_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)]
        line = GAP.join(cells if place == 0 else [_coloured(cell) for cell in cells]).rstrip()
        click.echo(line)


def _fitted(widths: list[int], headings: list[int]) -> list[int]:
    """Narrower columns, the widest first, until the line fits the terminal or nothing more can go."""
    room = shutil.get_terminal_size((PIPED_WIDTH, 24)).columns if sys.stdout.isatty() else PIPED_WIDTH
    fitted = list(widths)
    excess = sum(fitted) + len(GAP) * (len(fitted) - 1) - room
    while excess > 0:
        widest = max(range(len(fitted)), key=lambda column: fitted[column] - max(headings[column], LEAST_CELL))
        slack = fitted[widest] - max(headings[widest], LEAST_CELL)
        if slack <= 0:
            break
        fitted[widest] -= 1
        excess -= 1
    return fitted


def _coloured(cell: str) -> str:
    """A state in its colour; click takes colours out again where no terminal shows them."""
    colour = None if os.environ.get("NO_COLOR") else COLOURS.get(cell.strip())
    return cell if colour is None else click.style(cell, fg=colour)


def _field(item: Any, path: str) -> Any:
    for name in path.split("."):
        item = item.get(name) if isinstance(item, Mapping) else None
    return item


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value if value.isprintable() else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else text[: most - 1] + "…"
