"""A fault between each two entries of a run: one decision, a fate on record, and no attempt that starts twice."""

from __future__ import annotations

import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from raftcron.testing.sim_sweep import processes
from tests.simulation.matrix import FAULTS, INSTANTS, VICTIMS, Cell, Outcome, cells, play, table

PAIRS = 6  # decide, start, finish, requeue, assign, start, finish of a run that is away from the leader
PAIRS_ON_THE_LEADER = 4  # there an assignment starts
DELIVERIES = 2

pytestmark = pytest.mark.timeout(900)  # it may have little of the machine


def _play(cell: Cell) -> tuple[Cell, Outcome | str]:
    try:
        return cell, play(cell)
    except AssertionError as error:  # a Violation too
        return cell, str(error)[:2_000]


def test_the_whole_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    """Every cell holds; their number is that of all pairs, victims, faults and instants there are."""
    every = list(cells())
    of_a_pair = len(FAULTS) * len(INSTANTS) * DELIVERIES
    assert len(every) == (PAIRS * len(VICTIMS) + PAIRS_ON_THE_LEADER) * of_a_pair
    assert len(set(every)) == len(every)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes(), context, gc.disable) as pool:
        played = list(pool.map(_play, every, chunksize=8))
    with capsys.disabled():
        print("\n" + table((cell, outcome) for cell, outcome in played if isinstance(outcome, Outcome)))
    assert [f"{cell}: {outcome}" for cell, outcome in played if isinstance(outcome, str)] == []
    ends = {outcome.state for _, outcome in played if isinstance(outcome, Outcome)}
    assert ends == {"succeeded", "lost"}  # faults that hit nothing would prove nothing
