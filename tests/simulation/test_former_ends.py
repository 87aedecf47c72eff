"""What the run directory says of an attempt that ended while nobody could be told (semantics 5.12)."""

from __future__ import annotations

import pytest

from raftcron.core.model import LOST, SUCCEEDED
from raftcron.ports import Attempt
from tests.simulation.stage import Stage

JOB = {"schedule": "@every 4s", "max_runs": 1, "placement": {"on": "leader"}}
WORK_SECONDS = 1.5

pytestmark = pytest.mark.timeout(120)


def code(attempt: Attempt) -> tuple[float, bool]:
    return WORK_SECONDS, False


@pytest.mark.parametrize(("away_after", "state"), [(WORK_SECONDS + 0.2, SUCCEEDED), (0.5, LOST)])
def test_a_node_that_died_without_a_quorum_tells_what_its_spawner_saw(away_after: float, state: str) -> None:
    """An end that was seen before the node died is the run's end; what died with its node is lost."""
    with Stage(0, JOB, code=code, is_spawned=True) as stage:
        stage.until(lambda: bool(stage.starts), 8.0, "nothing started")
        [(_, _, node)] = stage.starts
        stage.cluster.run(0.3)
        stage.cut(*stage.cluster.names)  # nobody has a quorum
        stage.cluster.run(away_after - 0.3)
        stage.cluster.kill(node)
        stage.heal()
        stage.settle()
        run = stage.run()
        assert (run.state, run.attempt, len(stage.starts)) == (state, 1, 1)
