"""The table of what the stock engine does, in docs/simulation.md, says what the mutants and their seeds say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.simulation import coverage
from tests.simulation.mutants import MUTANTS
from tests.simulation.search import recorded

ROOT = Path(__file__).resolve().parents[2]
SECTION = "## What the stock engine does\n"
HEAD = "| row | the stock engine | put back by, or shown by | caught by | seed |"


class Line(NamedTuple):
    """One line of the table: a row of coverage.py, what shows it, which checker fires, and where."""

    row: int
    shown_by: str
    checker: str
    seed: str


def table() -> list[Line]:
    section = (ROOT / "docs" / "simulation.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    lines = section.partition(HEAD)[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [Line(int(row), shown_by.strip("`"), checker, seed) for row, _, shown_by, checker, seed in cells]


def test_no_row_is_left_out() -> None:
    """Each of the engine's faults is there, in order."""
    rows = [line.row for line in table()]
    assert rows == sorted(rows)
    assert set(rows) == {int(row.split()[0]) for row in coverage.ROWS}


@pytest.mark.parametrize("line", table(), ids=lambda line: f"{line.row} {line.shown_by}")
def test_a_line_says_what_is_so(line: Line) -> None:
    """A mutant of that row, with its checker and its recorded seed, or script; or a test that exists."""
    path, _, function = line.shown_by.partition("::")
    if function:
        assert re.search(rf"def {function}\(", (ROOT / path).read_text())
        assert (line.checker, line.seed) == ("itself", "")
        return
    mutant = MUTANTS[line.shown_by]
    assert line.shown_by in next(names for row, names in coverage.ROWS.items() if row.startswith(f"{line.row} "))
    assert {line.checker} == mutant.checkers
    assert line.seed == ("script" if mutant.script is not None else str(recorded()[line.shown_by]))
