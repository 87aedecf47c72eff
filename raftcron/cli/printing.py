"""How answers are printed: tables that fit the terminal, JSON, YAML or bare names; data on stdout, words on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

FORMATS: Final = ("table", "wide", "json", "yaml", "name")
MAX_CELL: Final = 60  # characters of one cell on a terminal; -o wide cuts nothing, nor does a pipe
LONG_CELL: Final = 24  # an instant; longer cells are shortened to it before a column is left out
LEAST_CELL: Final = 8  # a column is made no narrower to fit the terminal
LEAST_TEXT: Final = 40  # characters a line of what is wrapped
GAP: Final = "  "
TICK_SECONDS: Final = 1.0  # between two signs of life of a bar that waits

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
    "ok": "green",
    "warning": "yellow",
    "error": "red",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "invalid": "red",
    "cancelled": "magenta",
    "deleted": "magenta",
}
TELLING: Final = frozenset({"state", "last", "role", "result", "verdict", "late_outcome"})  # fields that have a colour


def printed(command: Command) -> Command:
    """Gives a command `-o`, and `output` as its parameter."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How the answer is printed; wide cuts nothing and leaves nothing out.",
    )(command)


def is_table(output: str) -> bool:
    """Whether people read it rather than programs."""
    return output in ("table", "wide")


def print_list(
    items: Iterable[Mapping[str, Any]],
    output: str,
    key: str,
    columns: Mapping[str, str],
    aside: Sequence[str] = (),
) -> None:
    """Print many: `key` is what `-o name` shows, `columns` are heading -> field (dots go deeper) of the table.

    Where the terminal is too narrow the headings `aside` are left out, in this order; the key is cut last.
    """
    if output == "name":
        for item in items:
            click.echo(_cell(item.get(key)))
    elif not is_table(output):
        print_data({"items": list(items)}, output)
    else:
        rows = [[_cell(_field(item, field)) for field in columns.values()] for item in items]
        room = terminal_width() if output == "table" else None
        _print_table(list(columns), rows, room, [heading for heading in columns if columns[heading] == key], aside)


def print_one(item: Mapping[str, Any], output: str, key: str) -> None:
    """Print one: a line a field, as data, or only its `key`.  A table leaves out what is empty, wide does not."""
    if output == "name":
        click.echo(_cell(item.get(key)))
        return
    if not is_table(output):
        print_data(item, output)
        return
    lines = [line for name, value in item.items() for line in _lines(name, value, is_wide=output == "wide")]
    width = max((len(name) for name, _, _ in lines), default=0)
    room = terminal_width() if output == "table" else None
    for name, text, is_ours in lines:
        pieces = [text]
        if room is not None and is_ours:
            most = max(room - width - len(GAP), LEAST_TEXT)
            pieces = textwrap.wrap(text, most, break_long_words=False, break_on_hyphens=False) or [text]
        for place, piece in enumerate(pieces):
            shown = coloured(piece) if name in TELLING else piece
            click.echo(f"{(name if place == 0 else '').ljust(width)}{GAP}{shown}".rstrip())


def print_done(name: str, result: str, output: str) -> None:
    """Print what became of a thing that is answered for by nothing but words: to people those say it."""
    if not is_table(output):
        print_one({"name": name, "result": result}, output, "name")


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


@contextlib.contextmanager
def sending(length: int, label: str, then: str) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while one long request is sent; what it gives is told how many of its `length` bytes are.

    Once all are, it names what is waited for, `then`, and counts the seconds until the answer.
    """
    is_seen = sys.stderr.isatty()
    lock, is_answered = threading.Lock(), threading.Event()
    with click.progressbar(length=length, label=label, file=sys.stderr, hidden=not is_seen) as bar:

        def told(sent: int) -> None:
            with lock:
                bar.label = label if sent < length else then
                bar.finished = False
                bar.make_step(sent - bar.pos)  # back to the beginning where it is sent again
                bar.render_progress()

        def tick() -> None:
            seconds = 0.0
            while not is_answered.wait(TICK_SECONDS):
                with lock:
                    seconds = seconds + TICK_SECONDS if bar.label != label else 0.0
                    if seconds:
                        bar.label = f"{then}, {seconds:.0f} s"
                        bar.render_progress()

        ticker = threading.Thread(target=tick, daemon=True)
        if is_seen:
            ticker.start()
        try:
            yield told
        finally:
            is_answered.set()
            if is_seen:
                ticker.join()


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _print_table(
    headings: list[str], rows: list[list[str]], room: int | None, keys: list[str], aside: Sequence[str]
) -> None:
    table = [headings, *rows]
    widths = {heading: max(len(row[place]) for row in table) for place, heading in enumerate(headings)}
    if room is not None:
        widths = _fitted(widths, room, keys, aside)
    kept = [place for place, heading in enumerate(headings) if heading in widths]
    for row in table:
        cells = []
        for place in kept:
            heading = headings[place]
            cell = _cut(row[place], widths[heading]).ljust(widths[heading])
            is_telling = row is not headings and heading.lower() in TELLING
            cells.append(coloured(cell) if is_telling else cell)
        click.echo(GAP.join(cells).rstrip())


def _fitted(widths: Mapping[str, int], room: int, keys: Sequence[str], aside: Sequence[str]) -> dict[str, int]:
    """Columns and how wide they are, so that a line fits: first long cells are cut, then columns are left out."""
    most = {heading: width if heading in keys else min(width, MAX_CELL) for heading, width in widths.items()}
    for count in range(len(aside) + 1):
        left = {heading: width for heading, width in most.items() if heading not in aside[:count]}
        least = {heading: width if heading in keys else min(width, LONG_CELL) for heading, width in left.items()}
        if _line(least) <= room:
            return _narrowed(left, least, room)
    least = {
        heading: width if heading in keys else min(width, max(len(heading), LEAST_CELL))
        for heading, width in left.items()
    }
    if _line(least) > room:
        least |= {heading: min(left[heading], LONG_CELL) for heading in keys}
    return _narrowed(left, least, room)


def _narrowed(widths: dict[str, int], least: Mapping[str, int], room: int) -> dict[str, int]:
    """Narrower columns, the widest first, until the line fits or nothing more can go."""
    narrowed = dict(widths)
    for _ in range(_line(narrowed) - room):
        can_go = [heading for heading in narrowed if narrowed[heading] > least[heading]]
        if not can_go:
            break
        narrowed[max(can_go, key=narrowed.__getitem__)] -= 1
    return narrowed


def _line(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _lines(name: str, value: Any, *, is_wide: bool) -> Iterator[tuple[str, str, bool]]:
    """The lines of a field: what stands in front, the text, and whether it may be wrapped."""
    if not is_wide and (value is None or value in ("", [], {})):
        return
    if isinstance(value, Mapping) and value:
        deeper = {key: inner for key, inner in value.items() if isinstance(inner, Mapping) and inner}
        flat = _pairs({key: inner for key, inner in value.items() if key not in deeper}, is_wide=is_wide)
        if flat:
            yield name, flat, True
        for key, inner in deeper.items():
            yield from _lines(f"{name}.{key}", inner, is_wide=is_wide)
    elif isinstance(value, list) and value and all(isinstance(one, str | Mapping) for one in value):
        for place, one in enumerate(value):
            text = _pairs(one, is_wide=is_wide) if isinstance(one, Mapping) else _cell(one)
            yield (name if place == 0 else "", text, True)
    elif isinstance(value, str) and "\n" in value:
        for place, line in enumerate(value.splitlines()):
            yield (name if place == 0 else "", _cell(line.expandtabs()), False)
    else:
        yield name, _cell(value), False


def _pairs(value: Mapping[str, Any], *, is_wide: bool) -> str:
    """`key=value` of each, with quotes around what is not one word."""
    shown = {key: inner for key, inner in value.items() if is_wide or (inner is not None and inner not in ("", [], {}))}
    return " ".join(f"{key}={_word(inner)}" for key, inner in shown.items())


def _word(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, str) and one.isalnum() for one in value):
        return ",".join(value)
    text = _cell(value)
    is_word = not isinstance(value, str) or (text == value and text != "" and not any(c in " \"'" for c in text))
    return text if is_word else json.dumps(value, ensure_ascii=False)


def coloured(cell: str) -> str:
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
