"""README.md says which story, or which other test, tells each rule: what it names is there, and nothing is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.scenarios import test_placement_rules, test_rules, test_run_rules
from tests.scenarios.story import STORIES

TESTS = Path(__file__).parents[1]
HEAD = ("rule", "told by")


def rows() -> dict[str, list[str]]:
    """What tells each rule: names of stories, and tests as FILE.py or FILE.py::NAME."""
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("README.md").read_text().splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
            assert len(cells) == 2, line
            if cells != HEAD:
                assert cells[0] not in found, f"{cells[0]!r} has two rows"
                found[cells[0]] = re.findall(r"`([^`]+)`", cells[1])
    return found


def is_there(name: str) -> bool:
    """A story, a file of tests, or one test in it."""
    if ".py" not in name:
        return (STORIES / f"{name}.txt").is_file()
    file, _, test = name.partition("::")
    if not (TESTS / file).is_file():
        return False
    body = ast.parse((TESTS / file).read_text()).body
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return test in names if test else any(name.startswith("test_") for name in names)


def test_each_rule_is_told_by_something_that_is_there() -> None:
    """A story, or a test."""
    table = rows()
    assert table
    for rule, names in table.items():
        assert names, f"nothing tells of {rule!r}"
        missing = [name for name in names if not is_there(name)]
        assert missing == [], f"{rule!r} is told by what is not there"


def test_no_story_is_left_out() -> None:
    """Each of them tells a rule."""
    named = {name for names in rows().values() for name in names}
    assert {path.stem for path in STORIES.glob("*.txt")} - named == set()


def test_what_is_switched_off_is_seen_in_a_story_of_the_table() -> None:
    """In three tables of rules."""
    named = {name for names in rows().values() for name in names}
    for table in (test_rules.RULES, test_run_rules.RULES, test_placement_rules.RULES):
        assert {story for _, story in table.values()} - named == set()
