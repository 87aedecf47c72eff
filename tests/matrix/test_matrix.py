"""Every fault at every point of every course of a run: what becomes of it is what the rules say, and nothing else.

The courses are in courses.py, what the rules say in fates.py, and what shows that they are needed in rules_off.py.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from raftcron.testing.sim_sweep import processes
from tests.matrix.cells import AFTER, AS, MIDWAY, VICTIMS, Cell, Entry, Told, cells, kinds, tell
from tests.matrix.courses import ELSEWHERE, Course
from tests.matrix.fates import Fates
from tests.matrix.rules_off import RULES, Off
from tests.simulation.switch import replaced

FAULTS_OF_EACH = 4  # kill, restart, cut, pause
SURE = 0.9  # the share of cells of which the rules allow one outcome alone, at least

pytestmark = pytest.mark.timeout(900)  # it may have little of the machine

Kind = tuple[Course, str, str]


def clean_of(kind: Kind) -> list[Entry]:
    """The course without a fault, which goes entry by entry as it is declared."""
    course, place, _ = kind
    told = tell(*kind)
    assert [str(entry) for entry in told.entries] == course.entries(place), course.name
    assert told.wrongs == []
    return told.entries


def judge(cell: Cell, clean: list[Entry]) -> tuple[str, int, Told]:
    """What is wrong with a cell, nothing if all is well; how many outcomes the rules allow; and what was seen."""
    allowed = Fates(cell, clean).allowed()
    told = tell(cell.course, cell.place, cell.delivery, cell, clean)
    seen = frozenset(told.ends.items())
    faults = [*told.wrongs, *([] if seen in allowed else [f"{sorted(seen)}; allowed: {list(map(sorted, allowed))}"])]
    return "; ".join(faults), len(allowed), told


def _ends_of(told: Told) -> str:
    """How the runs of a course ended, parts left out."""
    return ", then ".join(end.state for label, end in sorted(told.ends.items()) if "." not in label)


def _begin() -> None:
    logging.disable(logging.CRITICAL)  # what nodes say of the faults
    gc.disable()


def _play(number: int) -> tuple[list[str], list[str], Counter[str], int]:
    """All cells of one kind: their names, what is wrong, how their runs ended, and of how many the end is sure."""
    kind = list(kinds())[number]
    clean = clean_of(kind)
    names: list[str] = []
    wrong: list[str] = []
    ends: Counter[str] = Counter()
    sure = 0
    for cell in cells(*kind, clean):
        names.append(str(cell))
        try:
            what, allowed, told = judge(cell, clean)
        except AssertionError as error:
            what, allowed = str(error), 0
        else:
            ends[f"{kind[0].name}: {_ends_of(told)}"] += 1
        sure += allowed == 1
        if what:
            wrong.append(f"{cell}: {what}")
    gc.collect()
    return names, wrong, ends, sure


def test_every_cell_ends_as_the_rules_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Their number is that of all entries, instants, victims and faults there are; and the faults hit something."""
    every = list(kinds())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes(), context, _begin) as pool:
        played = list(pool.map(_play, range(len(every))))
    names = [name for found, *_ in played for name in found]
    ends = sum((counts for _, _, counts, _ in played), Counter())
    sure = sum(count for *_, count in played)
    with capsys.disabled():
        print(f"\nfaults at each point: {len(names)} cells, {sure} with one outcome that the rules allow")
        for what, count in sorted(ends.items()):
            print(f"faults at each point, {what}: {count}")
    assert [one for _, wrong, *_ in played for one in wrong] == []
    assert len(names) == len(set(names))
    assert sure >= SURE * len(names)
    for (course, place, _), (found, *_) in zip(every, played, strict=True):
        victims = len(VICTIMS) if place == ELSEWHERE else 1
        at_entries = [name for name in found if f" {MIDWAY} " not in name]
        assert len(at_entries) == len(course.entries(place)) * len((AS, AFTER)) * victims * FAULTS_OF_EACH
        assert len(found) > len(at_entries), "each course takes its time somewhere"


@pytest.mark.parametrize("off", RULES, ids=lambda off: off.rule)
def test_a_cell_fails_without_its_rule(off: Off) -> None:
    """The matrix can fail: without the rule this cell does, and with it all is well."""
    [kind] = [kind for kind in kinds() if off.cell.startswith(", ".join([kind[0].name, *kind[1:]]) + ": ")]
    clean = clean_of(kind)
    [cell] = [cell for cell in cells(*kind, clean) if str(cell) == off.cell]
    assert judge(cell, clean)[0] == ""
    with replaced(off.replacements):
        try:
            what = judge(cell, clean)[0]
        except AssertionError as error:
            what = str(error)
    assert what
