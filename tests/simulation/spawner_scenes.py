"""Courses of events in which a spawner, its owner and what they have started decide (protocol.py has their rules)."""

from __future__ import annotations

from raftcron.core.model import ASSIGNED
from raftcron.testing.sim_processes import Box
from tests.simulation.stage import Stage


def _at_work(stage: Stage) -> str:
    """The run's user code has begun, a moment ago, on this node."""
    stage.until(lambda: bool(stage.starts), 8.0, "nothing started")
    stage.cluster.run(0.3)
    return stage.starts[0][2]


def _start_in_its_pipe(stage: Stage) -> tuple[str, Box]:
    """A spawner stands still, and in its pipe lies the start of a run."""
    node = stage.until_step("Decide", state=ASSIGNED).node
    assert node is not None
    box = stage.cluster.boxes[node]
    box.stop_spawner()
    stage.until_step("Start")
    stage.cluster.run(0.3)
    assert not stage.starts
    return node, box


def daemon_stopped_at_work(stage: Stage) -> None:
    """A node's process is stopped for longer than a lease while what its spawner has started is at work."""
    stage.life(_at_work(stage)).loop.pause(9.0)
    stage.cluster.run(9.0)


def machine_frozen_with_a_start_in_its_pipe(stage: Stage) -> None:
    """A machine is frozen for longer than a lease between the gate and the start."""
    node, box = _start_in_its_pipe(stage)
    box.freeze(8.0)
    stage.life(node).loop.pause(8.0)
    box.resume_spawner()
    stage.cluster.run(10.0)


def start_that_comes_late(stage: Stage) -> None:
    """A node is cut off for longer than a lease between the gate and the pipe, and has a new licence when it writes."""
    step = stage.until_step("Start")
    assert step.node is not None
    stage.cluster.run(0.3)
    stage.cut(step.node)
    stage.cluster.run(6.0)
    stage.cluster.network.heal()
    stage.cluster.run(5.0)


def daemon_killed_at_work(stage: Stage) -> None:
    """A node is killed while what its spawner has started is at work, and is away for longer than a lease."""
    stage.cluster.kill(_at_work(stage))
    stage.cluster.run(7.0)


def daemon_restarted_at_work(stage: Stage) -> None:
    """A node is killed while what its spawner has started is at work, and starts anew at once."""
    node = _at_work(stage)
    stage.cluster.kill(node)
    stage.cluster.boot(node)
    stage.cluster.run(4.0)


def daemon_restarted_with_a_start_in_the_pipe(stage: Stage) -> None:
    """A node is killed and starts anew while its old spawner stands still with a start in its pipe, then goes on."""
    node, box = _start_in_its_pipe(stage)
    old = box.spawners()
    stage.cluster.kill(node)
    stage.cluster.boot(node)
    stage.cluster.run(1.0)
    for spawner in old:
        spawner.resume()
    stage.cluster.run(4.0)


def spawner_killed_at_work(stage: Stage) -> None:
    """A spawner is killed; what it has started takes its time to die."""
    stage.cluster.boxes[_at_work(stage)].kill_spawner()
    stage.cluster.run(4.0)
