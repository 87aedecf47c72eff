"""Whole clusters under seeded faults: some seeds pass, each replays exactly, and what is switched off is caught."""

from __future__ import annotations

import ast
import gc
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from raftcron.testing import sim_checks, sim_targets
from raftcron.testing.sim_checks import Violation
from raftcron.testing.sim_story import Story
from raftcron.testing.sim_sweep import Memory, Played, Totals, processes
from raftcron.testing.sim_sweep import play as play_seed
from tests.simulation import coverage, fails
from tests.simulation.mutants import MUTANTS, is_as_promised, play
from tests.simulation.search import recorded

ROOT = Path(__file__).resolve().parent.parent.parent
SWEEP_SECONDS = 120  # as many whole seeds as fit, of all cores' time: others may have the cores meanwhile
SEEDS_AT_LEAST = 40
SEEDS_AT_MOST = 250  # all of these have been played: no machine is so quick that it meets one for the first time
REPLAYED = 7

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """A process a core."""
    with ProcessPoolExecutor(processes(), multiprocessing.get_context("spawn"), gc.disable) as executor:
        yield executor
        executor.shutdown(cancel_futures=True)


class Begun(NamedTuple):
    """One mutant's play, and where it is a script the same with all mends."""

    found: Future[Violation | None]
    mended: Future[Violation | None] | None


@pytest.fixture(scope="module")
def begun(request: pytest.FixtureRequest, pool: ProcessPoolExecutor) -> dict[str, Begun]:
    """All that this run asks for, begun ahead of their tests: else one core waits while the other plays a mutant."""
    names = [item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")]
    return {
        name: Begun(
            pool.submit(play, name, recorded()[name]),
            pool.submit(play, name, recorded()[name], is_mended=True) if MUTANTS[name].script is not None else None,
        )
        for name in names
        if name in MUTANTS and name in recorded()
    }


def test_every_check_holds_in_as_many_whole_seeds_as_fit(pool: ProcessPoolExecutor) -> None:
    """Safety after every step and liveness after the faults, in seeds that are worth something."""
    totals, size = Totals(), 2 * processes()
    for first in range(0, SEEDS_AT_MOST, size):
        if first >= SEEDS_AT_LEAST and totals.cpu_seconds > SWEEP_SECONDS * processes():
            break
        for played in pool.map(play_seed, range(first, min(first + size, SEEDS_AT_MOST))):
            totals.add(played)
            assert played.checker is None, f"scripts/simulate --seed {played.seed}: {played.violation}"
    assert totals.seeds >= SEEDS_AT_LEAST
    assert not totals.unseen
    assert not totals.is_worth_little, totals.worthless


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


@pytest.mark.parametrize("name", MUTANTS)
def test_what_is_switched_off_is_caught(name: str, begun: dict[str, Begun]) -> None:
    """Without this mend a checker that promises to notice it does, in a recorded seed; with it nothing is wrong."""
    assert name in recorded(), f"no seed is known: scripts/simulate --mutants {name!r}"
    found, mended = begun[name].found.result(), begun[name].mended
    assert is_as_promised(name, found), f"{found}; look for a new seed: scripts/simulate --mutants {name!r}"
    assert mended is None or mended.result() is None


@pytest.mark.parametrize("what", coverage.ALL)
def test_what_shows_that_a_mend_is_needed_is_there(what: str) -> None:
    """Every row of the engine's faults, guard of the core and seeded bug has an entry of the table, or a test; so has
    each branch of the guards of which no sweep is asked, and each bad message."""
    assert coverage.ALL[what]
    for name in coverage.ALL[what]:
        path, _, test = name.partition("::")
        if test:
            assert f"def {test}(" in (ROOT / path).read_text(), f"there is no {name}"
        else:
            assert name in MUTANTS


def test_nothing_is_missing_from_what_must_be_shown() -> None:
    """A row, guard or bug that is dropped from the list would be missed by nobody else."""
    assert [int(row.split()[0]) for row in coverage.ROWS] == list(range(1, 25))
    assert coverage.ELECTIONS.keys() == {
        "the end and a refused reconnect are a death",
        "rank x 30 ms",
        "whoever grants holds back",
        "who hears the leader refuses",
        "a failed fsync ends the process",
    }
    assert coverage.CORE.keys() >= {"epoch check", "start gate", "watermark", "token check"}
    assert (len(coverage.SEEDED_BUGS), len(coverage.NAMED)) == (12, 4)


def test_every_checker_is_seen_to_fire() -> None:
    """For each there is something that it alone catches when it is switched off."""
    assigned = [node for node in ast.parse(Path(sim_checks.__file__).read_text()).body if isinstance(node, ast.Assign)]
    values = [getattr(sim_checks, name.id) for node in assigned for name in node.targets if isinstance(name, ast.Name)]
    checkers = {value for value in values if isinstance(value, str)} | {sim_targets.ENTRUSTED}
    assert sim_checks.LIVENESS in checkers
    seen = {checker for mutant in MUTANTS.values() if len(mutant.checkers) == 1 for checker in mutant.checkers}
    assert sorted(checkers - seen) == []


def test_every_line_of_the_checks_is_seen_to_fire() -> None:
    """Each by which a check can fail is the first in some mutant, or stands in the list of those that cannot be."""
    lines, promised = fails.lines(), [mutant.says for mutant in MUTANTS.values() if mutant.says]
    meant = {fragment: fails.named(fragment, lines) for fragment in [*promised, *coverage.SUBSUMED]}
    assert {fragment: found for fragment, found in meant.items() if len(found) != 1} == {}, "what is that one line?"
    seen, subsumed = ({line for fragment in some for line in meant[fragment]} for some in (promised, coverage.SUBSUMED))
    assert seen & subsumed == set()
    assert sorted(set(lines) - seen - subsumed) == []
    assert len(set(lines)) == len(lines), "two lines say the same, and one of them may never be seen"


def test_a_line_is_told_by_a_part_of_it() -> None:
    """A whole line goes before lines that it is a part of; what is filled in may be anything."""
    assert fails.named("{} of {}", ["{} of {}", "{} of {} ends"]) == ["{} of {}"]
    assert fails.named("of {}", ["{} of {}", "{} of {} ends"]) == ["{} of {}", "{} of {} ends"]
    assert fails.is_said("(of {}) ends", "at 3.000 s: it (of \nn1) ends here")
    assert not fails.is_said("(of {}) ends", "at 3.000 s: it (of n1) goes on")


def test_a_sitting_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    """What was played with the same code is known again; a line that was torn is not."""
    memory = Memory(tmp_path / "memory", ROOT)
    played = Played(3, None, None, {"elections": 2}, True, 80.0, 1.0)
    memory.keep(played)
    with memory.path.open("a") as file:
        file.write("[4, null, nu")
    assert Memory(tmp_path / "memory", ROOT).load() == {3: played}


def test_what_a_sweep_does_not_count_as_code_is_never_loaded_by_a_seed() -> None:
    """An edit of those rooms keeps the memory of former sittings; one that a seed plays would make it lie."""
    code = (
        "import sys; from raftcron.testing.sim_story import Story; from raftcron.testing.sim_sweep import NOT_PLAYED; "
        "Story(7).run(); print(sorted(name for name in sys.modules "
        "if name.split('.')[0] == 'raftcron' and name.split('.')[1:2] and name.split('.')[1] in NOT_PLAYED))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
