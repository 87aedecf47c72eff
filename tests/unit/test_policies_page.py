"""docs/policies.md says what is so: defaults, policies, reasons."""

from __future__ import annotations

import json
import re
from pathlib import Path

from raftcron.core import model
from raftcron.core.definition import DEFAULTS
from raftcron.core.planner import MISFIRES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "policies.md").read_text()


def test_the_page_shows_the_defaults() -> None:
    """Field by field, as an answer gives them."""
    shown = {
        field: json.loads(text) for field, text in re.findall(r"^\| `(\w+)` \|.*\| `(\{.*\})` \|$", PAGE, re.MULTILINE)
    }
    assert shown == {field: DEFAULTS[field] for field in ("misfire", "overlap", "retry")}


def test_the_page_names_each_policy_and_reason() -> None:
    """Those of misfire and overlap, and the reasons that they give."""
    words = set(re.findall(r"`(\w+)`", PAGE))
    assert {*MISFIRES, "skip", "allow", "queue", "replace"} <= words
    reasons = {value for name, value in vars(model).items() if name.startswith("REASON_")}
    elsewhere = {"cancelled", "deleted", "requested", "no_node", "deadline"}
    assert reasons - words <= elsewhere
