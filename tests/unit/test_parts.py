"""Parents and parts in `apply`: what is frozen, what is counted, what is lost, and what no report can change."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core import commands as c
from raftcron.core.model import Run
from raftcron.core.placement import parts_of
from tests.unit.machine import Machine, cluster


def divided(machine: Machine, nodes: tuple[str, ...] = ("n1", "n2"), **fields: Any) -> tuple[Run, list[Run]]:
    """A job's run, divided; its parts."""
    job = machine.put(**fields)
    run = machine.fire(job, 5_000)
    assert run.state == "queued", "it is divided before anything is assigned"
    assert machine.done(c.Divide([c.Parting(run.id, list(nodes))])).count == 1
    run = machine.state.runs[run.id]
    return run, [machine.state.runs[part] for part in parts_of(run)]


def begin(machine: Machine, part: Run, node: str) -> Run:
    machine.done(c.Assign([c.Assignment(part.id, c.Place(node, 1), False)]))
    found = machine.state.runs[part.id]
    assert found.state == "assigned"
    machine.done(c.Start([c.Token(found.id, found.fencing_token)]))
    return machine.state.runs[part.id]


def test_a_broadcast_has_a_part_for_each_known_node_that_matches() -> None:
    """Strangers and nodes without the tags are left out; ids follow from the parent's and the node's."""
    machine = cluster()
    machine.write(c.Announce("n3", 1, "", "", "0", 5, 5, tags={"zone": "a"}))
    run, parts = divided(machine, ("n1", "n3", "n9"), placement={"on": "all", "tags": {"zone": "a"}})
    assert [part.id for part in parts] == [f"{run.id}.n3"]
    machine = cluster()
    run, parts = divided(machine, placement={"on": "all"})
    assert [part.part.node for part in parts if part.part] == ["n1", "n2"]
    done = machine.done(c.Assign([c.Assignment(parts[0].id, c.Place("n2", 1), False)]))
    assert done.count == 0, "it can be on its own node alone"


def test_a_parent_is_one_run_for_its_job() -> None:
    """Counted once, whatever becomes of its parts; the last of them ends it."""
    machine = cluster()
    run, parts = divided(machine, placement={"shards": 3}, history={"runs": 5})
    job = machine.state.jobs["job"]
    assert (job.fired, list(machine.state.active[job.uid])) == (1, [run.id])
    for part, ending in zip(parts, ("succeeded", "failed", "succeeded"), strict=True):
        assert machine.state.runs[run.id].state == "running"
        machine.finish(begin(machine, part, "n2"), ending)
    run = machine.state.runs[run.id]
    assert (run.state, run.error) == ("failed", "of 3 parts 1 failed, 2 succeeded")
    assert run.split is not None
    assert run.split.tally == {"succeeded": 2, "failed": 1}
    job = machine.state.jobs["job"]
    assert (job.fired, job.skipped, job.succeeded, job.failed) == (1, 0, 0, 1)
    assert [row.id for row in machine.state.runs_of(job.uid)][:3] == [part.id for part in parts]


def test_where_no_part_ever_ran_the_parent_is_skipped() -> None:
    """And counts as skipped in its job's sum."""
    machine = cluster()
    run, parts = divided(machine, placement={"shards": 2}, start_deadline="10s")
    machine.at = 16_000
    machine.done(c.Expire([part.id for part in parts]))
    run, job = machine.state.runs[run.id], machine.state.jobs["job"]
    assert (run.state, run.reason, run.started_at) == ("skipped", "deadline", None)
    assert (job.fired, job.skipped) == (0, 1)


def test_a_part_that_waits_for_its_retry_is_lost_with_its_node_and_keeps_what_its_attempt_came_to() -> None:
    """An attempt ends once: the loss is the part's, not the attempt's."""
    machine = cluster()
    retry = {"max_attempts": 3, "backoff": "1s"}
    _, parts = divided(machine, placement={"on": "all"}, delivery="at_least_once", retry=retry)
    part = begin(machine, parts[1], "n2")
    machine.finish(part, "failed")
    machine.at += 2_000
    machine.done(c.Requeue([part.id]))
    assert machine.state.runs[part.id].state == "queued"
    machine.done(c.Lose("n2", 1, [c.Token(part.id, part.fencing_token)]))
    part = machine.state.runs[part.id]
    assert (part.state, part.error_kind, [one.state for one in part.attempts]) == ("lost", "node_lost", ["failed"])


def test_no_report_ends_a_parent() -> None:
    """It has no token, so that one of 0 is nobody's."""
    machine = cluster()
    run, _ = divided(machine, placement={"shards": 2})
    token = c.Token(run.id, 0)
    machine.done(c.Finish([c.Finished(run.id, 0, "succeeded")]))
    machine.done(c.NotStarted([token]))
    machine.done(c.Unassign([token]))
    machine.done(c.Assign([c.Assignment(run.id, c.Place("n1", 1), True)]))
    assert machine.state.runs[run.id].state == "running"


def test_what_leaves_the_history_takes_its_parts_along() -> None:
    """Nothing of them stays behind, in the digest neither."""
    machine = cluster()
    first, parts = divided(machine, placement={"shards": 2}, history={"runs": 1})
    for part in parts:
        machine.finish(begin(machine, part, "n1"))
    job = machine.state.jobs["job"]
    second = machine.fire(job, 9_000)
    machine.done(c.Divide([c.Parting(second.id)]))
    for part_id in parts_of(machine.state.runs[second.id]):
        machine.finish(begin(machine, machine.state.runs[part_id], "n1"))
    assert not any(run_id.startswith(first.id) for run_id in machine.state.runs)
    assert list(machine.state.divided) == [second.id]


def test_an_assignment_is_taken_back_only_as_long_as_it_has_not_started() -> None:
    """The next one has a higher token, and the old one starts nothing."""
    machine = cluster()
    job = machine.put(placement={"on": "any"})
    run = machine.fire(job, 5_000)
    machine.done(c.Assign([c.Assignment(run.id, c.Place("n2", 1), False)]))
    old = c.Token(run.id, machine.state.runs[run.id].fencing_token)
    machine.done(c.Unassign([old]))
    assert machine.state.runs[run.id].state == "queued"
    assert machine.done(c.Start([old])).count == 0
    machine.done(c.Assign([c.Assignment(run.id, c.Place("n2", 1), False)]))
    assert machine.done(c.Unassign([old])).count == 0
    machine.done(c.Unassign([c.Token(run.id, machine.state.runs[run.id].fencing_token)]))
    run = begin(machine, run, "n1")
    assert run.attempt == 1
    assert run.fencing_token > old.fencing_token
    assert machine.done(c.Unassign([c.Token(run.id, run.fencing_token)])).count == 0


def again(machine: Machine, run_id: str) -> Run:
    """A retry of a run, divided among all nodes that there are."""
    made = machine.done(c.Rerun(run_id, c.Place("n1", 1))).subject
    machine.done(c.Divide([c.Parting(made, ["n1", "n2"])]))
    return machine.state.runs[made]


@pytest.mark.parametrize(("placement", "name"), [({"shards": 3}, "2"), ({"on": "all"}, "n2")])
def test_a_part_is_run_again_alone(placement: dict[str, Any], name: str) -> None:
    """As a run by hand with that part and no other; and so is a retry of that run."""
    machine = cluster()
    run, parts = divided(machine, placement=placement)
    part = parts[-1]
    assert part.id == f"{run.id}.{name}"
    assert machine.refused(c.Rerun(part.id, None)) == "conflict"
    for one in parts:
        machine.finish(begin(machine, one, one.part.node or "n1" if one.part else ""), "failed")
    of = part.id
    for _ in range(2):
        retry = again(machine, of)
        of = retry.id
        assert parts_of(retry) == [f"{retry.id}.{name}"]
        assert (retry.cause, retry.scheduled_time) == ("manual", run.scheduled_time)
        child = machine.state.runs[f"{retry.id}.{name}"]
        assert child.part is not None
        assert part.part is not None
        assert (child.part.shard_index, child.part.shard_count) == (part.part.shard_index, part.part.shard_count)
        machine.finish(begin(machine, child, "n2"), "succeeded")
        assert machine.state.runs[retry.id].state == "succeeded"


@pytest.mark.parametrize("edit", [{"shards": 4}, {}, {"on": "all"}])
def test_a_part_of_a_job_that_is_divided_otherwise_now_is_not_run_again(edit: dict[str, Any]) -> None:
    """Its share of the work is another one; the answer says what to run instead."""
    machine = cluster()
    run, parts = divided(machine, placement={"shards": 2})
    for one in parts:
        machine.finish(begin(machine, one, "n1"), "failed")
    machine.put(placement=edit)
    outcome = machine.write(c.Rerun(parts[0].id, None))
    assert isinstance(outcome, c.Refused)
    assert f"run {run.id} again" in outcome.message


def test_a_part_that_an_edit_has_taken_away_is_not_divided() -> None:
    """The run waits, and ends at its start deadline."""
    machine = cluster()
    _, parts = divided(machine, placement={"shards": 2})
    for one in parts:
        machine.finish(begin(machine, one, "n1"), "failed")
    made = machine.done(c.Rerun(parts[1].id, None)).subject
    machine.put(placement={"shards": 1})
    assert machine.done(c.Divide([c.Parting(made)])).count == 0
    machine.at += 10**9
    machine.done(c.Expire([made]))
    assert machine.state.runs[made].state == "skipped"
