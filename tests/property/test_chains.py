"""Chains over random logs: never a cycle, each child once for an end, and the same from a snapshot in the middle."""

from __future__ import annotations

from collections import Counter
from graphlib import TopologicalSorter

from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core import commands as c
from raftcron.core import definition
from raftcron.core.apply import apply
from raftcron.core.chains import ENDS
from raftcron.core.codec import decode_entry
from raftcron.core.model import ACTIVE, SKIPPED, Run
from raftcron.core.state import State
from tests.unit.machine import NOOP, Machine, cluster
from tests.unit.restored import restored
from tests.unit.test_image import machine_of

NAMES = ("a", "b", "c", "d")
parents = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(sorted(ENDS))), max_size=3, unique_by=lambda pair: pair[0]
)


@st.composite
def command_of(draw: st.DrawFn, machine: Machine) -> c.Command:
    """A write of a job, or something that moves a run on."""
    state = machine.state
    name = draw(st.sampled_from(NAMES))
    job = state.jobs.get(name)
    seen = None if job is None else job.revision
    after = [{"job": parent, "on": on} for parent, on in draw(parents)]
    overlap = {"policy": draw(st.sampled_from(["allow", "allow", "replace", "queue"]))}
    retry = {"max_attempts": draw(st.sampled_from([1, 2]))}
    fields = {"after": after, "join": draw(st.sampled_from(["all", "any"])), "overlap": overlap, "retry": retry}
    stored = definition.canonical({"schedule": "@manual", "executor": NOOP, "history": {"runs": 1_000}, **fields})
    options: list[c.Command] = [c.PutJob(name, stored, None, seen_revision=seen)]
    if job is not None:
        options += [c.Trigger(name, c.Place("n1", 1))] * 3
        options += [
            c.PauseJob(name, [], job.revision),
            c.ResumeJob(name, job.revision, machine.at),
            c.DeleteJob(name, [], job.revision),
        ]
    active = [run for run in state.runs.values() if run.state in ACTIVE]
    if active:
        run = draw(st.sampled_from(active))
        end = draw(st.sampled_from(["succeeded", "failed", "timed_out", "lost", "cancelled"]))
        options += [c.Finish([c.Finished(run.id, run.fencing_token, end)])] * 4
        options += [c.Assign([c.Assignment(run.id, c.Place("n1", 1), True)])] * 3
        options += [c.Cancel(run.id), c.Announce("n1", state.nodes["n1"].incarnation, "", "", "", 10, 10)]
    return draw(st.sampled_from(options))


def check(state: State, seen: dict[str, Run]) -> None:
    """What holds after every entry."""
    graph = {job.name: [name for name, _ in state.policies[job.uid].after] for job in state.jobs.values()}
    TopologicalSorter(graph).prepare()  # raises CycleError
    named = {(name, job.uid) for job in state.jobs.values() for name, _ in state.policies[job.uid].after}
    assert named == {(name, uid) for name, uids in state.children.items() for uid in uids}
    assert state.ended == []
    for job in state.jobs.values():
        after = state.policies[job.uid].after
        assert len(job.joined) < max(1, len(after))
        assert {name for name, _ in job.joined} <= {name for name, _ in after}
    for run in state.runs.values():
        seen.setdefault(run.id, run)
        if run.follows is not None:
            parent = seen[run.follows]
            assert parent.state not in ACTIVE
            assert parent.state != SKIPPED
    fires = Counter((run.uid, run.follows) for run in seen.values() if run.follows is not None)
    assert not fires or max(fires.values()) == 1, "a child fired twice for one run of a parent"


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_each_child_fires_once_for_an_end_and_no_log_makes_a_cycle(data: st.DataObject) -> None:
    """Also where a node begins in the middle, from a snapshot."""
    machine = cluster()
    seen: dict[str, Run] = {}
    length = data.draw(st.integers(1, 60))
    middle = data.draw(st.integers(0, length))
    other: State | None = None
    for number in range(length):
        if number == middle:
            other = restored(machine_of(machine).snapshot()).state
        machine.write(data.draw(command_of(machine)), at=machine.at + 1_000)
        check(machine.state, seen)
        if other is not None:
            apply(other, len(machine.log), decode_entry(machine.log[-1]))
            assert other.digest == machine.state.digest
            assert list(other.runs) == list(machine.state.runs)
            assert other.ended == []
