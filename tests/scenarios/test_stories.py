"""The stories in stories/: each is played, and what is seen is what stands there.

`RETELL=1 pytest tests/scenarios/test_stories.py` writes what is seen now into the files: read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scenarios.story import STORIES, tell
from tests.scenarios.words import StoryError


@pytest.mark.parametrize("path", sorted(STORIES.glob("*.txt")), ids=lambda path: path.stem)
def test_a_story_goes_as_it_is_told(path: Path) -> None:
    """Command by command."""
    told = tell(path)
    if os.environ.get("RETELL"):
        path.write_text(told)
    assert told == path.read_text()


def test_each_story_says_what_is_true() -> None:
    """Its first line is one sentence."""
    for path in STORIES.glob("*.txt"):
        first = path.read_text().splitlines()[0]
        assert first.startswith("# "), path.name
        assert first.endswith("."), path.name


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("dance a", "there is no such command"),
        ("job a {schedule}", "{schedule} is no JSON: "),
        ("run a args {day}", "{day} is no JSON: "),
        ("cancel a 7s", "there is no run 7s of job a; there are 0s*"),
        ("why b 7s", "there is no job b; there are a"),
        ("why a xs", "xs are no seconds"),
        ("freeze n9", "no node n9 lives; there are n1, n2"),
        ("release n1", "what it writes is not held"),
    ],
)
def test_what_cannot_be_played_says_why_and_where(tmp_path: Path, command: str, fault: str) -> None:
    """By file and line, with what there is instead."""
    path = tmp_path / "odd.txt"
    path.write_text(f'# It is odd.\n\njob a {{"schedule": "@manual"}}\nrun a\n\nwait 1s\n{command}\n')
    with pytest.raises(StoryError) as found:
        tell(path)
    assert f"odd.txt, line 7: {command}: {fault}" in str(found.value)
