"""What sweeps have come to, kept across sittings and machines: a line of JSON each in docs/sweeps.jsonl, oldest first.

A sitting is what one version of the code has played.  Versions of one mix of faults count together: what a seed came to
in the newest version that played it is what it comes to, so a mend is shown by a later sitting with the seed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from raftcron.testing.sim_sweep import Played, Totals, ranges


class Sitting(NamedTuple):
    """One version's share; seeds as `0-99, 120`."""

    code: str  # its source hash
    day: str
    seeds: str
    failed: dict[str, str]  # seed -> the checker that fired
    worthless: str  # passed, and did not count
    virtual_seconds: float
    cpu_seconds: float
    counts: dict[str, int]


def load(path: Path) -> list[Sitting]:
    """All of them; none where there is no file.  Raises ValueError or TypeError where a line is no sitting."""
    if not path.exists():
        return []
    return [Sitting(**json.loads(line)) for line in path.read_text().splitlines()]


def keep(path: Path, code: str, day: str, known: Mapping[int, Played]) -> None:
    """Write down what a version's seeds have come to so far, in the place of any line that holds some of them alone."""
    totals = Totals()
    for played in known.values():
        totals.add(played)
    sitting = Sitting(
        code,
        day,
        ranges(known),
        {str(played.seed): str(played.checker) for played in totals.failures},
        ranges(totals.worthless),
        round(totals.virtual_seconds),
        round(totals.cpu_seconds),
        dict(sorted(totals.counts.items())),
    )
    others = [one for one in load(path) if one.code != code or not known.keys() >= set(numbers(one.seeds))]
    path.write_text("".join(json.dumps(one._asdict()) + "\n" for one in [*others, sitting]))


def together(sittings: Iterable[Sitting]) -> tuple[set[int], Totals]:
    """The seeds that were played, and what all sittings come to.

    What was met counts as often as it was met; each seed once, as it went in its newest version.
    """
    seeds, worthless, failed, totals = set[int](), set[int](), dict[int, str](), Totals()
    for one in sittings:
        played = set(numbers(one.seeds))
        seeds |= played
        worthless = worthless - played | set(numbers(one.worthless))
        failed = {seed: checker for seed, checker in failed.items() if seed not in played}
        failed |= {int(seed): checker for seed, checker in one.failed.items()}
        totals.virtual_seconds += one.virtual_seconds
        totals.cpu_seconds += one.cpu_seconds
        totals.counts.update(one.counts)
    totals.seeds, totals.worthless = len(seeds), sorted(worthless)
    totals.failures = [Played(seed, checker, checker, {}, False, 0.0, 0.0) for seed, checker in sorted(failed.items())]
    totals.counted = len(seeds - worthless - failed.keys())
    return seeds, totals


def numbers(text: str) -> Iterator[int]:
    """The seeds of `0-99, 120`; `none` has none."""
    for part in text.split(", ") if text != "none" else ():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
