"""docs/schedules.md is true: each row of its tables is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raftcron.core.coming import local_text
from raftcron.core.explain import explain
from raftcron.core.instant import parse_rfc3339, rfc3339
from raftcron.core.schedule import Dst, ScheduleError, parse

PAGE = (Path(__file__).parent.parent.parent / "docs" / "schedules.md").read_text(encoding="utf-8")
START = parse_rfc3339("2026-01-01T00:00:00Z")


def rows(heading: str) -> list[tuple[str, ...]]:
    """The rows of all tables with this heading, a cell's text each."""
    found: list[tuple[str, ...]] = []
    inside = False
    for line in PAGE.splitlines():
        inside = line == heading or (inside and line.startswith("|"))
        if inside and line != heading and not line.startswith("|---"):
            found.append(tuple(cell.strip() for cell in line.strip("|").split(" | ")))
    assert found, f"no table {heading}"
    return found


def text_of(cell: str) -> str:
    assert cell[0] == cell[-1] == "`"
    return cell[1:-1]


@pytest.mark.parametrize(("schedule", "says", "times"), rows("| schedule | says | next two |"))
def test_forms(schedule: str, says: str, times: str) -> None:
    """Each form says that, and comes then."""
    found = explain(text_of(schedule), "UTC", Dst(), "backup-db", START, 2)
    assert found.description == says
    assert " ".join(map(rfc3339, found.next)) == ("" if times == "never" else times)


@pytest.mark.parametrize(("schedule", "dst", "after", "times"), rows("| schedule | dst | after | next three |"))
def test_jumps_of_the_clock(schedule: str, dst: str, after: str, times: str) -> None:
    """Each schedule does that when the clock in Berlin jumps."""
    said = dict(re.findall(r"`(gap|fold): (\w+)`", dst))
    assert said or dst == "default"
    found = explain(text_of(schedule), "Europe/Berlin", Dst(**said), "", parse_rfc3339(after), 3)
    assert " ".join(local_text(at, "Europe/Berlin") for at in found.next) == times


@pytest.mark.parametrize(("text", "why"), rows("| refused | why |"))
def test_refusals(text: str, why: str) -> None:
    """Each is refused in these words."""
    with pytest.raises(ScheduleError) as caught:
        parse(text_of(text))
    assert str(caught.value) == why
