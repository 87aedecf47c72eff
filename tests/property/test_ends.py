"""Every run ends (semantics I15): from whatever state a log has left, a leader brings all of them to it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core import commands as c
from raftcron.core.model import STARTED
from tests.property.test_state_machine import NODES, check, command_of, small, times
from tests.unit.machine import Machine

LIFE = 9  # beyond all that a random log announces
ROUNDS = 100  # of all that a leader does; each ends something


def heal(machine: Machine) -> None:
    """A leader and all nodes in new lives, with room, and nothing paused."""
    machine.lead("n1", LIFE)
    for node in NODES:
        machine.done(c.Announce(node, LIFE, "", "", "", 1_000, 1_000, tags={"zone": "a"}))
    state = machine.state
    for job in state.jobs.values():
        if job.paused:
            machine.done(c.ResumeJob(job.name, state.revision_of(job), job.decided_through))


def go_on(machine: Machine, *, in_time: bool) -> None:
    """What leader and workers do once: retries are queued, runs placed, started and finished; or they come too late."""
    state = machine.state
    machine.at += 3_600_000 if in_time else 10**9
    machine.done(c.Requeue(list(state.waiting)))
    queued = [*state.queued, *state.held]
    machine.done(c.Expire(queued))  # of those alone whose start deadline has passed
    machine.done(c.Divide([c.Parting(run_id, list(NODES)) for run_id in queued]))
    places = [c.Place(node, LIFE) for node in NODES]
    machine.done(c.Assign([c.Assignment(run_id, place, True) for run_id in list(state.queued) for place in places]))
    started = [run for runs in state.on_node.values() for run in runs.values() if run.state in STARTED]
    machine.done(c.Finish([c.Finished(run.id, run.fencing_token, "failed") for run in started]))
    machine.done(c.TimeOut([c.Token(run.id, run.fencing_token) for run in state.taken_over.values()]))


@settings(max_examples=100, deadline=None)
@given(st.data(), st.booleans())
def test_every_run_comes_to_an_end(data: st.DataObject, in_time: bool) -> None:
    """None is left active, waiting for its turn, held, or with a parent that has gone."""
    machine = Machine()
    machine.lead()
    machine.announce("n1")
    machine.put("a")
    for _ in range(data.draw(st.integers(1, 40))):
        epoch = machine.state.epoch if data.draw(st.integers(0, 9)) else data.draw(small)
        machine.write(data.draw(command_of(machine)), epoch=epoch, at=data.draw(times))
    machine.at = 60_000
    heal(machine)
    state = machine.state
    for _ in range(ROUNDS):
        if not state.active and not any(state.active_parts.values()):
            break
        go_on(machine, in_time=in_time)
        check(state)
    assert not state.active
    assert not any(state.active_parts.values())
    assert not (state.queued or state.held or state.turns or state.waiting or state.taken_over)
    assert not any(state.on_node.values())
