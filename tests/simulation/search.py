"""Looks for seeds in which a mutant is caught, and writes them down (recorded.json)."""

from __future__ import annotations

import gc
import json
import multiprocessing
from pathlib import Path

from raftcron.testing.sim_checks import Violation
from tests.simulation.mutants import MUTANTS, is_as_promised, play

SEEDS_TRIED = 40  # beyond that a script is due
OTHERS_TOLERATED = 4  # seeds in which another checker fires first
RECORDED = Path(__file__).with_name("recorded.json")


def recorded() -> dict[str, int]:
    """Mutant -> a seed in which it is caught."""
    seeds: dict[str, int] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return seeds


def find(name: str) -> tuple[str, int | None, str]:
    """The first seed in which a checker that should fire does; and what else was seen."""
    others: list[str] = []
    first = recorded().get(name, 0)
    for seed in dict.fromkeys([first, *range(SEEDS_TRIED)]):
        try:
            found: Violation | Exception | None = play(name, seed)
        except Exception as error:
            found = error
        gc.collect()
        if isinstance(found, Violation) and is_as_promised(name, found):
            return name, seed, str(found)
        if found is not None:
            others.append(f"{seed}: {found!s:.200}" if isinstance(found, Violation) else f"{seed}: {found!r}")
            if len(others) > OTHERS_TOLERATED:
                break
    return name, None, f"NOT CAUGHT; but {'; '.join(others) or 'nothing'}"


def search(names: list[str], processes: int) -> int:
    """Find seeds for these mutants, for all if there is no name.  0 if each has one."""
    unknown = [name for name in names if name not in MUTANTS]
    if unknown:
        print(f"there is no mutant {', '.join(unknown)}; there are:", *MUTANTS, sep="\n  ")
        return 1
    seeds, missed = recorded(), 0
    with multiprocessing.get_context("spawn").Pool(processes, initializer=gc.disable) as pool:
        for name, seed, seen in pool.imap_unordered(find, names or list(MUTANTS)):
            print(f"{name}: {'' if seed is None else f'seed {seed} '}{seen}", flush=True)
            missed += seed is None
            seeds.pop(name, None)
            if seed is not None:
                seeds[name] = seed
    RECORDED.write_text(json.dumps({name: seeds[name] for name in MUTANTS if name in seeds}, indent=2) + "\n")
    return int(missed > 0)
