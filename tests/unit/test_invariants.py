"""Each invariant has a property test, a check of the simulation and one under chaos; all of them exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from raftcron.testing import sim_checks
from tests.chaos.checker import RULES
from tests.simulation.mutants import MUTANTS
from tests.simulation.protocol import RULES as PROTOCOL
from tests.simulation.protocol import Shown

ROOT = Path(__file__).resolve().parents[2]
INVARIANTS = [f"I{number}" for number in range(1, 16)]  # semantics 12


class Row(NamedTuple):
    """What stands in the three columns."""

    properties: list[str]
    simulation: list[str]
    chaos: list[str]


def table() -> dict[str, Row]:
    text = (ROOT / "docs" / "simulation.md").read_text()
    section = text.partition("## Each invariant, three times\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (I\d+) [^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", section, re.MULTILINE)
    return {name: Row(*(re.findall(r"`([^`]+)`", cell) for cell in cells)) for name, *cells in rows}


def is_there(test: str) -> bool:
    """Whether a test that is named as file::function exists."""
    path, _, function = test.partition("::")
    return (ROOT / path).is_file() and f"def {function}(" in (ROOT / path).read_text()


def test_the_table_has_each_invariant() -> None:
    """In their order, none left out, with something in each column."""
    assert list(table()) == INVARIANTS
    assert all(all(row) for row in table().values())


@pytest.mark.parametrize("name", INVARIANTS)
def test_what_the_table_names_exists(name: str) -> None:
    """Tests by file and function, rules of chaos by name, checks of the simulation by name: each is used there."""
    row = table()[name]
    assert all(map(is_there, row.properties))
    code = "".join(path.read_text() for path in (ROOT / "raftcron" / "testing").glob("sim_*.py"))
    for check in row.simulation:
        assert hasattr(sim_checks, check)
        assert re.search(
            rf"(?:fail|Violation|complain)\(\s*(?:sim_checks\.)?{check}\b|checker = .*\b{check}\b", code
        ), check
    for rule in row.chaos:
        assert rule in RULES or is_there(rule), rule


def test_each_check_of_the_simulation_fires_somewhere() -> None:
    """A mutant, or a rule of the run protocol, has it among the checkers that notice it."""
    shown = [*MUTANTS.values(), *(rule for rule in PROTOCOL.values() if isinstance(rule, Shown))]
    noticed = {checker for each in shown for checker in each.checkers}
    checks = {getattr(sim_checks, check) for row in table().values() for check in row.simulation}
    assert checks <= noticed
