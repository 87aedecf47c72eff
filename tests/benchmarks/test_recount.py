"""Recounting from the calendar, gaps and quantiles, on histories made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks import fire, webhook
from scripts.benchmarks.cluster import Page
from scripts.benchmarks.fire import Shortfall, due_count, rate_between, recount
from scripts.benchmarks.gaps import count, gap_after
from scripts.benchmarks.report import Figure, Report, quantile, table

BEGAN = 1_800_000_000_000


def shown(name: str, succeeded: int, **stats: Any) -> dict[str, Any]:
    """A job as the interface shows it."""
    counts = {"skipped": 0, "failed": 0, "timed_out": 0, "cancelled": 0, "lost": 0, **stats}
    return {"name": name, "stats": {"counted_from": "2027-01-15T08:00:00Z", "succeeded": succeeded, **counts}}


@pytest.mark.parametrize(
    ("after", "through", "expected"),
    [(0, 999, 0), (0, 1000, 1), (0, 1999, 1), (999, 3000, 3), (1000, 3000, 2), (5000, 3000, 0), (0, 500, 0)],
)
def test_due_count(after: int, through: int, expected: int) -> None:
    """The grid 1000, 2000, ... is counted in (after, through]."""
    assert due_count(1000, after, through) == expected


def test_recount_asks_for_what_is_a_second_old() -> None:
    """A time that came due within the last second may be open; an older one that is not recorded is missing."""
    first_at = {"a": BEGAN + 1000, "b": BEGAN + 1500}
    at = BEGAN + 5500  # so what was due through +4500 must be there: four times of a, four of b
    assert recount([Page(at, [shown("a", 4), shown("b", 4)])], first_at) == Shortfall()
    assert recount([Page(at, [shown("a", 3)]), Page(at, [shown("b", 4)])], first_at) == Shortfall(missing=1)


def test_recount_takes_no_other_end_for_a_success() -> None:
    """Skipped, failed and lost runs are counted apart, and a rate with any of them is not held."""
    found = recount([Page(BEGAN + 4000, [shown("a", 3, skipped=2, failed=1, lost=1)])], {"a": BEGAN + 1000})
    assert found == Shortfall(missing=0, skipped=2, other=2)
    assert not found.is_none


def test_rate_between() -> None:
    """Each job is counted over its own span between the two looks."""
    before = [Page(0, [shown("a", 10)]), Page(500, [shown("b", 0)])]
    after = [Page(2000, [shown("a", 30)]), Page(2500, [shown("b", 2)])]
    assert rate_between(before, after) == pytest.approx(10 + 1)


def test_job_is_due_first_when_it_says() -> None:
    """The anchor lies one interval before the first time, with milliseconds."""
    assert fire.job(BEGAN + 10)["schedule"] == "@every 1s from 2027-01-15T07:59:59.010Z"


def test_gap_after() -> None:
    """The longest gap that ends after the kill, also where it began before it; later calm does not count."""
    arrivals = [0, 20, 40, 100, 120, 140, 900]
    assert gap_after(arrivals, 45, 50) == 60
    assert gap_after(arrivals, 45, 100) == 760
    assert gap_after(arrivals, 100, 10) == 20


def test_gap_needs_both_sides() -> None:
    """Without an arrival before and after the kill there is no gap to speak of."""
    with pytest.raises(ValueError, match="one side"):
        gap_after([10, 20], 20, 100)
    with pytest.raises(ValueError, match="one side"):
        gap_after([10, 20], 5, 100)


def test_count_tells_lost_on_record_from_lost_in_silence() -> None:
    """Of what did not arrive, only what the history calls lost is excused; doubles and missing rows are named."""
    owed = {"a": range(0, 5000, 1000)}
    arrivals = [("a", 0), ("a", 1000), ("a", 1000)]
    rows = {("a", 0): ["succeeded"], ("a", 1000): ["succeeded"], ("a", 2000): ["lost"], ("a", 3000): ["succeeded"]}
    found = count(owed, arrivals, rows)
    assert (found.due, found.arrived, found.lost_on_record) == (5, 2, 1)
    assert [len(found.doubled), len(found.not_arrived), len(found.undecided)] == [1, 2, 1]
    assert "a at 4000" in found.undecided[0]


def test_quantile() -> None:
    """The value at a share of all values, none of them invented."""
    assert [quantile([3, 1, 2, 4], share) for share in (0.0, 0.25, 0.5, 0.51, 1.0)] == [1, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_figures_against_targets(tmp_path: Path) -> None:
    """A floor is met from above, a ceiling from below; the table and the file say the same."""
    figures = [Figure("rate", 9, "/s", 10, True), Figure("gap", 9, "ms", 10), Figure("seen", 9, "")]
    conditions = {
        "cores": 2,
        "processor": "p",
        "memory_gib": 1,
        "kernel": "k",
        "python": "3",
        "versions": {"raftcron": "0"},
        "fdatasync_ms": {"p50": 1, "p99": 2},
        "load_average_before": [0.0],
        "load_average_after": [1.0],
        "seconds": 1,
    }
    report = Report("x", figures, conditions=conditions)
    assert [figure.is_met for figure in figures] == [False, True, None]
    assert [line.rpartition("|")[2].strip() for line in table([report]).splitlines()[2:5]] == ["NO", "yes", ""]
    report.save(tmp_path / "bench-x.json")
    saved = json.loads((tmp_path / "bench-x.json").read_text())
    assert [figure["is_met"] for figure in saved["figures"]] == [False, True, None]


def test_webhooks_are_counted_as_they_arrive() -> None:
    """Once each, within a second; what was due outside the window is not asked for."""

    def arrival(job: str, due: int, late: int) -> dict[str, Any]:
        return {"job": job, "scheduled_time": fire.rfc3339(due), "arrived_at": due + late}

    first_at = {"a": BEGAN + 1000, "b": BEGAN + 1500}
    due = [("a", BEGAN + 1000), ("a", BEGAN + 2000), ("b", BEGAN + 1500), ("b", BEGAN + 2500)]
    whole = [arrival(name, at, 7) for name, at in due]
    assert webhook.recount(whole, first_at, BEGAN, BEGAN + 2500) == (webhook.Shortfall(), [7] * 4)
    assert webhook.recount(whole[1:], first_at, BEGAN, BEGAN + 2500)[0] == webhook.Shortfall(missing=1)
    assert webhook.recount(whole[1:], first_at, BEGAN + 1000, BEGAN + 2500)[0].is_none
    late = [*whole[:3], arrival("b", BEGAN + 2500, 1001)]
    assert webhook.recount(late, first_at, BEGAN, BEGAN + 2500)[0] == webhook.Shortfall(missing=1)
    assert webhook.recount([*whole, whole[0]], first_at, BEGAN, BEGAN + 2500)[0] == webhook.Shortfall(doubled=1)
