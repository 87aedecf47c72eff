"""Every run ends (semantics I15): from whatever state a log has left, a leader brings all of them to it.

And each transition on the way is kept with its instant and its place in the log (semantics 3).
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core import commands as c
from raftcron.core.commands import Outcome
from raftcron.core.model import CAUSE_BACKFILL, STARTED, Move
from raftcron.core.transitions import transitions
from tests.property.test_state_machine import NODES, check, command_of, small, tags, times
from tests.unit.machine import Machine

LIFE = 9  # beyond all that a random log announces
ROUNDS = 100  # of all that a leader does; each ends something


class Witness(Machine):
    """A machine with somebody who compares what is told of each run with what was told before."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, list[Move]] = {}

    def append(self, body: bytes) -> Outcome:
        outcome = super().append(body)
        state = self.state
        for run in state.noted_runs.values():
            before, now = self.told.get(run.id, []), transitions(run)
            assert now[: len(before)] == before, "what was told of a run stays"
            assert all((move.index, move.at) == (state.index, state.cluster_time) for move in now[len(before) :])
            assert now[-1].state == run.state
            self.told[run.id] = now
        return outcome


def heal(machine: Machine, tags: dict[str, str]) -> None:
    """A leader and all nodes in new lives, with room, and nothing paused."""
    machine.lead("n1", LIFE)
    for node in NODES:
        machine.done(c.Announce(node, LIFE, "", "", "", 1_000, 1_000, tags=tags))
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
@given(st.data(), st.booleans(), tags)
def test_every_run_comes_to_an_end(data: st.DataObject, in_time: bool, tags: dict[str, str]) -> None:
    """None is left active, waiting for its turn, held, or with a parent that has gone; nor for a node that is no more.

    A backfill alone has no deadline: what of it no node can take waits until somebody cancels it.
    """
    machine = Witness()
    machine.lead()
    machine.announce("n1")
    machine.put("a")
    for _ in range(data.draw(st.integers(1, 40))):
        epoch = machine.state.epoch if data.draw(st.integers(0, 9)) else data.draw(small)
        machine.write(data.draw(command_of(machine)), epoch=epoch, at=data.draw(times))
    machine.at = 60_000
    heal(machine, tags)
    state = machine.state
    for _ in range(ROUNDS):
        if not state.active and not any(state.active_parts.values()):
            break
        go_on(machine, in_time=in_time)
        if not tags:
            for run in [run for run in [*state.queued.values(), *state.held.values()] if run.cause == CAUSE_BACKFILL]:
                machine.write(c.Cancel(run.id))
        check(state)
    assert not state.active
    assert not any(state.active_parts.values())
    assert not (state.queued or state.held or state.turns or state.waiting or state.taken_over)
    assert not any(state.on_node.values())
