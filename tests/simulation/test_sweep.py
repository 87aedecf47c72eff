"""`scripts/simulate --seeds` and `--mutants` as they are called: what they print, demand, and exit with."""

from __future__ import annotations

import ast
import gc
import io
import multiprocessing
import multiprocessing.dummy
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from raftcron.raft import election, guard, membership, reads, seam, transport
from raftcron.runtime import worker
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing import sim_checks, sim_sittings, sim_sweep
from raftcron.testing.sim_checks import Violation
from raftcron.testing.sim_cluster import Cluster
from raftcron.testing.sim_story import ALWAYS_SEEN, MANY_SEEDS, SEEN_IN_MANY, Result, Story
from raftcron.testing.sim_sweep import Memory, Played, Totals
from tests.simulation import coverage, search
from tests.simulation.mutants import is_as_promised
from tests.simulation.search import recorded

ROOT = Path(__file__).resolve().parent.parent.parent
TOTAL = re.compile(r"[^:]+(: [^:]+)?: \d+")


def passed(seed: int, *, is_worth: bool = True, unseen: str = "") -> Played:
    counts = dict.fromkeys([name for name in ALWAYS_SEEN if name != unseen], 1)
    return Played(seed, None, None, counts, is_worth, 80.0, 1.0)


def failed(seed: int) -> Played:
    return passed(seed)._replace(checker="I2", violation="[I2] n1 starts it again")


def result(seed: int, **what: Any) -> Result:
    kinds = ("crash", "cut", "pause")
    all_well = Result(seed, None, Counter(acknowledged=200), kinds, 60.0, "5e", (f"story of {seed}",), "n1 leads")
    return all_well._replace(**what)


class Terminal(io.StringIO):
    """Where a person looks on."""

    def isatty(self) -> bool:
        return True


class Script:
    """scripts/simulate, whose seeds come to what `course` says; what it printed last."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        loader = SourceFileLoader("simulate", str(ROOT / "scripts" / "simulate"))
        spec = spec_from_loader("simulate", loader)
        assert spec is not None
        self._module: Any = module_from_spec(spec)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        monkeypatch.setattr(sys, "path", list(sys.path))
        loader.exec_module(self._module)
        self.memory = Memory(directory, ROOT)
        self.sittings = directory / "sweeps.jsonl"
        vars(self._module).update(
            Memory=lambda *_: self.memory, SITTINGS=self.sittings, Story=self._story, play_all=self._play_all
        )
        self._monkeypatch, self._capture = monkeypatch, capture
        self.course: Callable[[int], Played] = passed
        self.played: list[int] = []
        self.printed = ""

    def __call__(self, *arguments: str) -> int:
        self._monkeypatch.setattr(sys, "argv", ["simulate", *arguments])
        code: int = self._module.main()
        self.printed = self._capture.readouterr().out
        return code

    def on_terminal(self, *arguments: str, clock: Callable[[], float]) -> tuple[int, str]:
        """The same with a terminal for stderr, and the time by this clock; what was drawn there too."""
        terminal = Terminal()
        with self._monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", terminal)
            patched.setattr(self._module, "time", SimpleNamespace(monotonic=clock))
            return self(*arguments), terminal.getvalue()

    def _play_all(self, seeds: Iterable[int], processes: int) -> Iterator[Played]:
        for seed in seeds:
            self.played.append(seed)
            yield self.course(seed)

    def _story(self, seed: int) -> Any:
        class Told:
            run = staticmethod(lambda: result(seed, violation=Violation("I2", "n1 starts it again")))

        return Told


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    return Script(tmp_path, monkeypatch, capsys)


# ---- sweeps ----------------------------------------------------------------------------------------------------------


def test_a_sweep_in_which_all_is_well_prints_totals_alone(script: Script) -> None:
    """`name: number` a line, each thing that must be met among them, and exit code 0."""
    assert script("--seeds", "0", "3") == 0
    lines = script.printed.splitlines()
    assert [line for line in lines if not TOTAL.fullmatch(line)] == []
    assert {f"{name}: 3" for name in ALWAYS_SEEN} | {"seeds: 3", "seeds that count: 3", "failed: 0"} <= set(lines)


def test_a_sweep_on_a_terminal_draws_how_far_it_is(script: Script) -> None:
    """After each seed, over the line before: a bar, seeds, failures, and the time that is left at this pace."""
    seconds = 0.0

    def course(seed: int) -> Played:
        nonlocal seconds
        if seed == stop:
            raise KeyboardInterrupt
        seconds += 3.0
        return failed(seed) if seed == 2 else passed(seed)

    script.course = course
    stop: int | None = 1
    code, drawn = script.on_terminal("--seeds", "0", "4", clock=lambda: seconds)
    assert (code, drawn) == (1, f"\r[{'#' * 10:40}] 1 of 4, 0 failed, 9 s left ")
    stop = None
    code, drawn = script.on_terminal("--seeds", "0", "4", clock=lambda: seconds)
    assert (code, drawn) == (
        1,
        f"\r[{'#' * 20:40}] 2 of 4, 0 failed, 6 s left "
        f"\r[{'#' * 30:40}] 3 of 4, 1 failed, 3 s left "
        f"\r[{'#' * 40}] 4 of 4, 1 failed, 0 s left \n",
    )


def test_a_sweep_elsewhere_draws_nothing(script: Script) -> None:
    """A log is no place for a bar."""
    drawn = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stderr", drawn)
        assert script("--seeds", "0", "3") == 0
    assert drawn.getvalue() == ""


@pytest.mark.parametrize("name", ["elections", "guard: conflict cut"])
def test_a_sweep_that_never_met_something_fails_and_names_it(script: Script, name: str) -> None:
    """In the totals it is 0."""
    script.course = lambda seed: passed(seed, unseen=name)
    assert script("--seeds", "0", "3") == 1
    assert f"FAILED: never seen in these seeds: {name}" in script.printed.splitlines()
    assert f"{name}: 0" in script.printed.splitlines()


def test_a_long_sweep_is_asked_for_what_is_rare_too() -> None:
    """In a short one it may be missing."""
    totals, rare = Totals(), SEEN_IN_MANY[0]
    for seed in range(MANY_SEEDS):
        assert totals.unseen == ([] if seed else list(ALWAYS_SEEN))
        totals.add(passed(seed))
    assert totals.unseen == list(SEEN_IN_MANY)
    totals.add(passed(MANY_SEEDS)._replace(counts={rare: 1}))
    assert totals.unseen == list(SEEN_IN_MANY[1:])


def test_a_sweep_with_violations_fails_and_shows_how_the_first_three_came_about(script: Script) -> None:
    """Of the others it names seed, violation, and the command that shows the rest; all other seeds are played."""
    script.course = lambda seed: failed(seed) if seed % 2 else passed(seed)
    assert script("--seeds", "0", "10") == 1
    for seed in (1, 3, 5, 7, 9):
        assert f"seed {seed} FAILED: [I2] n1 starts it again" in script.printed
        assert f"scripts/simulate --seed {seed}\n" in script.printed
        assert (f"  story of {seed}\n" in script.printed) is (seed < 6)
    assert {"seeds: 10", "failed I2: 5", "failed: 5"} <= set(script.printed.splitlines())


@pytest.mark.parametrize(("worthless", "code"), [(2, 0), (3, 1)])
def test_a_sweep_of_which_too_much_does_not_count_fails(script: Script, worthless: int, code: int) -> None:
    """One seed in fifty need not; which they are is said."""
    script.course = lambda seed: passed(seed, is_worth=seed >= worthless)
    assert script("--seeds", "0", "100") == code
    assert f"do not count: 0-{worthless - 1}" in script.printed.splitlines()
    assert ("FAILED: 3 of 100 seeds do not count" in script.printed) is bool(code)


@pytest.mark.parametrize(
    "less", [{"virtual_seconds": 59.9}, {"kinds": ("crash", "cut")}, {"counts": Counter(acknowledged=199)}]
)
def test_a_seed_counts_only_with_time_faults_and_writes(less: dict[str, Any]) -> None:
    """60 virtual seconds, three kinds of faults, 200 acknowledged writes."""
    assert result(1).counted
    assert not result(1, **less).counted


def test_a_sweep_that_is_interrupted_says_what_is_left_and_goes_on_there(script: Script) -> None:
    """Also before the first seed is done; what was played is not played again, and counts."""

    def course(seed: int) -> Played:
        if seed == stop:
            raise KeyboardInterrupt
        return failed(seed) if seed == 1 else passed(seed)

    script.course = course
    stop: int | None = 0
    assert script("--seeds", "0", "6") == 1
    assert "interrupted: 6 seeds are left; the same command goes on with them" in script.printed
    stop = 4
    assert script("--seeds", "0", "6") == 1
    assert "interrupted: 2 seeds are left" in script.printed
    script.played.clear()
    stop = None
    assert script("--seeds", "0", "6") == 1
    assert script.played == [4, 5]
    assert "goes on: 4 of 6 seeds are known" in script.printed
    assert "seed 1 FAILED" in script.printed
    assert {"seeds: 6", "failed: 1"} <= set(script.printed.splitlines())
    script.played.clear()
    assert script("--seeds", "0", "6", "--anew") == 1
    assert script.played == list(range(6))


def test_a_defect_of_the_simulation_ends_a_sweep_with_its_seed_and_totals(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no violation, and no reason to lose what the other seeds came to."""

    def story(seed: int) -> Any:
        raise ZeroDivisionError("in a checker")

    monkeypatch.setattr(sim_sweep, "Story", story)
    script.course = lambda seed: sim_sweep.play(seed) if seed == 2 else passed(seed)
    assert script("--seeds", "0", "9") == 1
    lines = script.printed.splitlines()
    assert lines[-1] == "FAILED: the simulation itself: seed 2: ZeroDivisionError('in a checker')"
    assert {"seeds: 2", "failed: 0"} <= set(lines)


def test_what_sittings_of_several_versions_came_to_is_added_up(script: Script) -> None:
    """A seed counts once, as it went in its newest version; what is left is named, and the exit code says so."""
    assert script("--swept", "0", "10") == 1
    assert "FAILED: not played yet: 0-9" in script.printed

    script.course = lambda seed: failed(seed) if seed == 3 else passed(seed, is_worth=seed != 5)
    assert script("--seeds", "0", "6", "--keep") == 1
    assert script("--swept", "0", "10") == 1
    lines = script.printed.splitlines()
    assert any(line.endswith("seeds 0-5; failed 3 (I2)") for line in lines)
    assert {"seeds: 6", "seeds that count: 4", "failed: 1", "failed I2: 1", "do not count: 5"} <= set(lines)
    assert "FAILED: not played yet: 6-9" in lines
    assert f"{ALWAYS_SEEN[0]}: 6" in lines

    script.memory.code, script.memory.path = "mended", script.memory.path.with_name("mended.jsonl")
    script.course = passed
    for first, end in ((3, 4), (5, 8), (8, 10)):
        assert script("--seeds", str(first), str(end), "--keep") == 0
    assert script("--swept", "0", "10") == 0
    lines = script.printed.splitlines()
    assert [line for line in lines if line.startswith("version ")][1].endswith("seeds 3, 5-9; failed none")
    assert {"seeds: 10", "seeds that count: 10", "failed: 0"} <= set(lines)
    assert f"{ALWAYS_SEEN[0]}: 12" in lines, "what was met counts as often as it was met"

    script.memory.path.unlink()  # the same version on another machine
    assert script("--seeds", "10", "12", "--keep") == 0
    assert script("--swept", "0", "12") == 0
    assert len(script.sittings.read_text().splitlines()) == 3


def test_an_interrupted_sweep_keeps_what_it_has_played(script: Script) -> None:
    def course(seed: int) -> Played:
        if seed == 2:
            raise KeyboardInterrupt
        return passed(seed)

    script.course = course
    assert script("--seeds", "0", "6", "--keep") == 1
    assert script("--swept", "0", "2") == 0


def test_the_sittings_that_are_kept_can_be_read() -> None:
    """Those in docs/, and none of them is left with a seed that fails."""
    seeds, totals = sim_sittings.together(sim_sittings.load(ROOT / "docs" / "sweeps.jsonl"))
    assert len(seeds) == totals.seeds > 0
    assert totals.failures == []


# A room that counts -> who says which branches it has.
GUARDS: dict[ModuleType, Iterable[str]] = {
    seam: guard.BRANCHES,
    **{room: room.BRANCHES for room in (election, reads, membership, transport, worker)},
}


def test_each_branch_of_the_guard_is_demanded_of_a_sweep() -> None:
    """Or coverage.py names a test that asks for its count: else it might never have been taken."""
    counted = [branch for branches in GUARDS.values() for branch in branches]
    asked = *ALWAYS_SEEN, *SEEN_IN_MANY
    demanded = [name.removeprefix("guard: ") for name in asked if name.startswith("guard: ")]
    assert sorted(counted) == sorted([*demanded, *coverage.BRANCHES])
    for branch, tests in coverage.BRANCHES.items():
        names = branch, branch.partition("(")[2].removesuffix(")")  # or its reason alone, put together there
        files = [(ROOT / test.partition("::")[0]).read_text() for test in tests]
        assert any(f'"{name}"' in file for file in files for name in names if name), branch


def test_no_room_counts_a_branch_that_is_not_among_its_own() -> None:
    """And no other room counts any."""
    rooms = {Path(room.__file__ or ""): branches for room, branches in GUARDS.items()}
    for path in (ROOT / "raftcron").rglob("*.py"):
        if "testing" not in path.parts:
            assert named(ast.parse(path.read_text())) <= set(rooms.get(path, ())), path


def named(tree: ast.Module) -> set[str]:
    """The branches that a room counts, in `passes`, by their whole names."""
    counters = [
        node.slice
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "passes"
    ]
    return {
        name.value
        for counter in counters
        if not isinstance(counter, ast.JoinedStr)
        for name in ast.walk(counter)
        if isinstance(name, ast.Constant)
    }


def test_the_simulation_counts_each_branch_of_the_guards() -> None:
    """One that it did not ask a node for would be 0 in all totals."""
    with Cluster(7, 3, LeaseTimes(3.0, 0.6)) as cluster:
        for name in cluster.names:
            cluster.boot(name)
        cluster.run(1.0)
    counted = {name for name in cluster.counts if name.startswith("guard: ")}
    assert counted == {f"guard: {branch}" for branches in GUARDS.values() for branch in branches}


def test_each_kind_of_fault_is_demanded() -> None:
    """A kind that no dice could draw any more would be missed."""
    faults = [Story(seed).faults for seed in range(30)]
    drawn = {kind for one in faults for kind in (*one._all, *one._enabled)}
    assert {f"fault: {kind}" for kind in drawn} == {name for name in ALWAYS_SEEN if name.startswith("fault: ")}


# ---- mutants ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recorded seeds stands in their place."""
    copy = tmp_path / "recorded.json"
    copy.write_bytes(search.RECORDED.read_bytes())
    monkeypatch.setattr(search, "RECORDED", copy)
    return copy


def test_a_mutant_is_found_again(script: Script, written: Path) -> None:
    """Its seed is said, with what fires, and kept; the seeds of the others stay."""
    before = recorded()
    assert script("--mutants", "no fsync", "--jobs", "1") == 0
    assert re.fullmatch(rf"no fsync: seed {before['no fsync']} \[.+\] at .+\n", script.printed)
    assert recorded() == before


def test_a_mutant_has_to_be_caught_by_the_line_that_it_promises() -> None:
    """Neither another line of that checker will do, nor those words of another checker, nor nothing."""
    name, said = (
        "a decision does not move the watermark",
        "at 1.000 s: 9 of job a is decided at 3 beyond the watermark 2",
    )
    assert is_as_promised(name, Violation(sim_checks.I5, said))
    assert not is_as_promised(name, Violation(sim_checks.I5, "at 1.000 s: cluster time or epoch went back at 3"))
    assert not is_as_promised(name, Violation(sim_checks.I4, said))
    assert not is_as_promised(name, None)


def test_a_mutant_that_nothing_catches_fails_the_search(
    script: Script, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no seed any more, so that its test fails too."""
    before = recorded()
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: multiprocessing.dummy)
    monkeypatch.setattr(gc, "disable", lambda: None)  # threads, not processes
    monkeypatch.setattr(search, "SEEDS_TRIED", 3)
    monkeypatch.setattr(search, "play", lambda *_: None)
    assert script("--mutants", "no fsync") == 1
    assert script.printed == "no fsync: NOT CAUGHT; but nothing\n"
    assert recorded() == {name: seed for name, seed in before.items() if name != "no fsync"}


def test_a_mutant_of_no_known_name_is_answered_with_the_names(script: Script, written: Path) -> None:
    """Nothing is played."""
    assert script("--mutants", "no such thing") == 1
    assert script.printed.splitlines()[0] == "there is no mutant no such thing; there are:"
    assert "  no fsync" in script.printed.splitlines()
