"""The case files: what independent implementations of cron agree on, every row and all five instants."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from raftcron.core import ledger
from raftcron.core.instant import parse_rfc3339, rfc3339
from raftcron.core.schedule import parse

DATA = Path(__file__).parent / "data"
FILES = {"schedules.jsonl.gz": 6000, "schedules_extended.jsonl.gz": 1195}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a case file: expr, tz, start and the next five instants."""
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", FILES)
def test_next_five_instants_of_every_row(name: str) -> None:
    """Each row's five instants come out one after the other."""
    wrong, seen = [], 0
    for row in rows(name):
        seen += 1
        schedule, at, got = parse(row["expr"], row["tz"]), parse_rfc3339(row["start"]), []
        for _ in row["expected"]:
            found = schedule.next(at)
            assert found is not None, row
            got.append(rfc3339(found))
            at = found
        if got != row["expected"]:
            wrong.append((row, got))
    assert seen == FILES[name]
    assert wrong == []


@pytest.mark.parametrize("name", FILES)
def test_the_way_back_of_every_row(name: str) -> None:
    """From each instant of a row, the previous one is the one before it in the row."""
    wrong = []
    for row in rows(name):
        schedule = parse(row["expr"], row["tz"])
        expected = [parse_rfc3339(text) for text in row["expected"]]
        got = [schedule.previous(at) for at in expected[1:]]
        if got != expected[:-1]:
            wrong.append((row, got))
    assert wrong == []


@pytest.mark.parametrize("name", FILES)
def test_counts_of_every_row(name: str) -> None:
    """Summary and ledger, each in its own way, count five instants from a row's start to its last instant."""
    wrong = []
    for row in rows(name):
        schedule = parse(row["expr"], row["tz"])
        expected = [parse_rfc3339(text) for text in row["expected"]]
        after, through = expected[0] - 1, expected[-1]
        if through - after > 40 * 86_400_000:
            continue  # the counts take time by the day; the properties hold them over long spans
        summary = schedule.summary(after, through, 0)
        counted = ledger.count([schedule], after, through, 0)
        if summary != (expected[0], expected[-1], 5) or counted != 5:
            wrong.append((row, summary, counted))
    assert wrong == []
