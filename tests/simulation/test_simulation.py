"""Whole clusters under seeded faults: some seeds pass, each replays exactly, and what is switched off is caught."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftcron.testing.sim_faults import Story
from tests.simulation.mutants import MUTANTS, switched_off

ROOT = Path(__file__).resolve().parent.parent.parent
SEEDS = range(24)  # one to three seconds of a core each
REPLAYED = 7

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_check_holds_in_a_whole_seed(seed: int) -> None:
    """Safety at every look, and liveness after the faults, for at least sixty virtual seconds."""
    result = Story(seed).run()
    assert result.violation is None, "\n".join([str(result.violation), result.where, *result.lines[-40:]])
    assert result.virtual_seconds >= 60
    assert result.kinds


def test_most_seeds_are_worth_something() -> None:
    """A seed counts with three kinds of fault and two hundred acknowledged writes."""
    results = [Story(seed).run() for seed in range(100, 104)]
    assert sum(result.counted for result in results) >= 3, [result.counts["acknowledged"] for result in results]


def test_a_seed_replays_exactly_whatever_the_hash_seed() -> None:
    """Two processes that hash differently see one course of events."""
    seen = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / "simulate", "--seed", str(REPLAYED)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(done.stdout.split()[-1])
    assert len(seen) == 1
    assert seen == {Story(REPLAYED).run().trace_hash}


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.seed is not None])
def test_what_is_switched_off_is_caught(name: str) -> None:
    """Without this mend one of the checkers that promise to notice it does, in a recorded seed."""
    mutant = MUTANTS[name]
    assert mutant.seed is not None
    with switched_off(name):
        violation = Story(mutant.seed).run().violation
    assert violation is not None, (
        f"nothing is noticed; look for a new seed: python -m tests.simulation.mutants {name!r}"
    )
    assert violation.checker in mutant.checkers, violation
