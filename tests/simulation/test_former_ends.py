"""What the run directory says of an attempt that ended while nobody could be told (semantics 5.12)."""

from __future__ import annotations

import pytest

from raftcron.core.commands import Cancel
from raftcron.core.model import CANCELLED, LOST, SUCCEEDED, TIMED_OUT
from raftcron.ports import Attempt
from tests.simulation import stage as stages
from tests.simulation.stage import Stage

JOB = {"schedule": "@every 4s", "max_runs": 1, "placement": {"on": "leader"}}
WORK_SECONDS = 1.5
LONG_SECONDS = 60.0

pytestmark = pytest.mark.timeout(120)


def code(attempt: Attempt) -> tuple[float, bool]:
    return WORK_SECONDS, False


def long_code(attempt: Attempt) -> tuple[float, bool]:
    return LONG_SECONDS, False


@pytest.mark.parametrize(("away_after", "state"), [(WORK_SECONDS + 0.2, SUCCEEDED), (0.5, LOST)])
def test_a_node_that_died_without_a_quorum_tells_what_its_spawner_saw(away_after: float, state: str) -> None:
    """An end that was seen before the node died is the run's end; what died with its node is lost."""
    with Stage(0, JOB, code=code, is_spawned=True) as stage:
        assert end_of(stage, away_after) == state


def test_an_attempt_that_timed_out_before_its_node_died_has_timed_out() -> None:
    """Its end was seen, and why: SIGTERM after a second, and it takes half a one to end."""
    with Stage(0, {**JOB, "timeout": "1s"}, code=long_code, is_spawned=True) as stage:
        assert end_of(stage, 1.75) == TIMED_OUT


def test_an_attempt_that_was_cancelled_before_its_node_died_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster still heard of the wish, and not any more of the end."""
    monkeypatch.setattr(stages, "DYING_SECONDS", 1.2)  # until the leader has given up its lead
    with Stage(0, JOB, code=long_code, is_spawned=True) as stage:
        assert end_of(stage, 1.75, is_cancelled=True) == CANCELLED


def end_of(stage: Stage, away_after: float, *, is_cancelled: bool = False) -> str:
    """What the run is in the end, whose node is killed so long after the start, and hears nobody 0.3 s after it."""
    stage.until(lambda: bool(stage.starts), 8.0, "nothing started")
    [(_, _, node)] = stage.starts
    stage.cluster.run(0.3)
    if is_cancelled:
        stage.propose(stage.leader(), Cancel(stage.run().id))
        stage.until_step("Cancel")
    stage.cut(*stage.cluster.names)  # nobody has a quorum
    stage.cluster.run(away_after - 0.3)
    stage.cluster.kill(node)
    stage.heal()
    stage.settle()
    run = stage.run()
    assert (run.attempt, len(stage.starts)) == (1, 1)
    return run.state
