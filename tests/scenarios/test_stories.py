"""The stories in stories/: each is played, and what is seen is what stands there.

`RETELL=1 pytest tests/scenarios/test_stories.py` writes what is seen now into the files: read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scenarios.story import STORIES, tell


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
