"""Runs that their targets have taken over: nothing but a word, a cancel or silence ends them."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core.apply import remote
from raftcron.core.commands import (
    Announce,
    Assign,
    Assignment,
    Cancel,
    Conclude,
    DeleteJob,
    Divide,
    Finish,
    Finished,
    Hear,
    Lose,
    NotStarted,
    Parting,
    Place,
    Refused,
    Requeue,
    Rerun,
    TakenOver,
    TakeOver,
    TimeOut,
    Token,
    Trigger,
)
from raftcron.core.model import Run
from raftcron.core.placement import parts_of
from tests.unit.machine import Machine, cluster

REMOTE = {"type": "http", "url": "http://127.0.0.1:1/", "async": True}
MINUTE = 60_000


def taken(machine: Machine, at: int = 2_000, **fields: Any) -> Run:
    """A run that started at this instant and that its target has taken over."""
    job = machine.state.jobs.get("a") or machine.put("a", executor=REMOTE, timeout="1m", **fields)
    run = machine.fire(job, at)
    assert take_over(machine, run) == 1
    return run


def take_over(machine: Machine, run: Run) -> int:
    return machine.done(TakeOver([TakenOver(run.id, run.fencing_token, MINUTE, 202, b"accepted")])).count


def why(machine: Machine, command: Any) -> str:
    outcome = machine.write(command)
    assert isinstance(outcome, Refused), outcome
    return outcome.message


def test_a_run_that_was_taken_over_holds_no_slot_and_blocks_the_next() -> None:
    """It is running, on no node's account, and overlap sees it."""
    machine = cluster()
    run = taken(machine)
    assert (run.state, run.node, run.answer_by, run.status_code) == ("running", "n1", 62_000, 202)
    assert machine.state.on_node["n1"] == {}
    assert list(machine.state.taken_over) == [run.id]
    assert machine.fire(machine.state.jobs["a"], 3_000).blocked_by == run.id


def test_its_target_ends_it() -> None:
    """The message is the tail of its output; that of a failure is the error, too."""
    machine = cluster()
    run = taken(machine)
    machine.done(Conclude(run.id, run.fencing_token, "succeeded", "12 rows"))
    assert (run.state, run.output_tail, run.error, run.answer_by) == ("succeeded", b"12 rows", None, None)
    assert run.attempts[-1].state == "succeeded"
    run = taken(machine, 3_000)
    machine.done(Conclude(run.id, run.fencing_token, "failed", "no rows"))
    assert (run.state, run.error, run.error_kind, run.status_code) == ("failed", "no rows", "reported", 202)
    assert machine.state.taken_over == {}


def test_its_end_may_come_before_the_word_of_its_202() -> None:
    """A quick target ends it while the worker's report is on its way, which then changes nothing."""
    machine = cluster()
    run = machine.fire(machine.put("a", executor=REMOTE), 2_000)
    machine.done(Hear(run.id, run.fencing_token))
    machine.done(Conclude(run.id, run.fencing_token, "succeeded"))
    assert take_over(machine, run) == 0
    assert machine.done(Finish([Finished(run.id, run.fencing_token, "failed")])).count == 0
    assert run.state == "succeeded"


def test_neither_the_death_of_the_node_nor_its_next_life_ends_it() -> None:
    """The node that sent the request has nothing of it any more."""
    machine = cluster()
    run = taken(machine)
    machine.done(Lose("n1", 1, [Token(run.id, run.fencing_token)]))
    machine.done(NotStarted([Token(run.id, run.fencing_token)]))
    machine.write(Announce("n1", 2, "n1:1", "n1:2", "0", 10, 5))
    machine.lead("n2")
    assert run.state == "running"
    machine.done(Conclude(run.id, run.fencing_token, "succeeded"))
    assert run.state == "succeeded"


def test_a_node_that_dies_before_the_word_of_the_202_loses_it() -> None:
    """Then the target's word is a late outcome, once."""
    machine = cluster()
    run = machine.fire(machine.put("a", executor=REMOTE), 2_000)
    machine.done(Lose("n1", 1, [Token(run.id, run.fencing_token)]))
    assert take_over(machine, run) == 0
    machine.done(Conclude(run.id, run.fencing_token, "succeeded"))
    now = machine.state.runs[run.id]
    assert (now.state, now.late_outcome) == ("lost", "succeeded")
    assert "late outcome is on record: succeeded" in why(machine, Conclude(run.id, run.fencing_token, "failed"))


def test_what_is_lost_as_it_waits_for_another_attempt_has_no_late_outcome() -> None:
    """Seed 7159 of the simulation: the part of a node waited for its second attempt as the node died; the target of
    the first, which had timed out, was told that its word is taken."""
    machine = cluster()
    retry = {"max_attempts": 2, "backoff": "1s", "on": ["timed_out"]}
    machine.put("a", executor=REMOTE, placement={"on": "all"}, retry=retry)
    parent = machine.done(Trigger("a", None)).subject
    machine.done(Divide([Parting(parent, ["n1"])]))
    [part] = [machine.state.runs[run_id] for run_id in parts_of(machine.state.runs[parent])]
    machine.done(Assign([Assignment(part.id, Place("n1", 1), start=True)]))
    assert take_over(machine, part) == 1
    token = Token(part.id, part.fencing_token)
    machine.done(TimeOut([token]), at=200_000)
    machine.done(Requeue([part.id]), at=300_000)
    assert (part.state, part.attempt, part.fencing_token) == ("queued", 2, token.fencing_token)
    machine.done(Lose("n1", 1, [token]))
    assert part.state == "lost"
    assert "has ended already: lost" in why(machine, Conclude(part.id, token.fencing_token, "succeeded"))
    assert part.late_outcome is None


def test_it_times_out_when_its_target_was_not_heard_for_the_timeout() -> None:
    """From its start, or from when it was last heard; the entry of a leader that is too early changes nothing."""
    machine = cluster()
    run = taken(machine)
    token = [Token(run.id, run.fencing_token)]
    machine.done(Hear(run.id, run.fencing_token), at=50_000)
    assert (run.heard_at, run.answer_by) == (50_000, 110_000)
    machine.put("a", executor=REMOTE, timeout="5m")
    machine.done(Hear(run.id, run.fencing_token), at=60_000)
    assert run.answer_by == 120_000, "an edit concerns new attempts"
    assert machine.done(TimeOut(token), at=120_000).count == 0
    assert machine.done(TimeOut(token), at=120_001).count == 1
    assert (run.state, run.error_kind, run.error) == (
        "timed_out",
        "timeout",
        "nothing was heard of its target by 1970-01-01T00:02:00Z",
    )


def test_what_it_may_be_tried_again_for() -> None:
    """A failure that its target reports is proven; the next attempt has another token, and the old one is void."""
    machine = cluster()
    run = taken(machine, retry={"max_attempts": 2, "backoff": "1s"})
    old = run.fencing_token
    machine.done(Conclude(run.id, old, "failed"))
    assert (run.state, run.answer_by) == ("waiting_retry", None)
    assert "waiting_retry" in why(machine, Conclude(run.id, old, "succeeded"))


def test_a_cancel_ends_it_at_once_and_its_target_learns_of_it() -> None:
    """With its next word; also where the cancel came while the request was under way."""
    machine = cluster()
    run = taken(machine)
    machine.done(Cancel(run.id))
    assert (run.state, run.error_kind, run.status_code) == ("cancelled", "cancelled", 202)
    assert "has ended already: cancelled" in why(machine, Hear(run.id, run.fencing_token))
    run = machine.fire(machine.state.jobs["a"], 3_000)
    machine.done(Cancel(run.id))
    assert run.state == "cancelling"
    take_over(machine, run)
    assert (run.state, machine.state.taken_over) == ("cancelled", {})


def test_it_outlives_its_job() -> None:
    """A delete leaves it to its target, unless it asks to cancel what runs."""
    for cancel, state in ((False, "running"), (True, "cancelled")):
        machine = cluster()
        run = taken(machine)
        revision = machine.state.jobs["a"].revision
        machine.done(DeleteJob("a", [], revision, cancel_running=cancel))
        assert run.state == state
        if not cancel:
            machine.done(Hear(run.id, run.fencing_token), at=50_000)
            assert machine.done(TimeOut([Token(run.id, run.fencing_token)]), at=110_001).count == 1


def test_who_may_end_a_run() -> None:
    """Who shows the newest token of a run that a target may end; the refusal says what is current."""
    machine = cluster()
    run = taken(machine)
    text = why(machine, Conclude(run.id, 999, "succeeded"))
    assert text == f"token 999 is not current: run {run.id} is running, its token is {run.fencing_token}, of attempt 1"
    assert machine.refused(Hear("nobody", 1)) == "not_found"
    assert machine.refused(Conclude(run.id, run.fencing_token, "lost")) == "invalid"
    local = machine.fire(machine.put("b"), 3_000)
    assert 'only an executor with "async": true' in why(machine, Conclude(local.id, local.fencing_token, "succeeded"))
    machine.done(Conclude(run.id, run.fencing_token, "succeeded"))
    assert "has ended already: succeeded" in why(machine, Conclude(run.id, run.fencing_token, "succeeded"))


def test_how_many_are_with_their_targets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one beyond is not waited for, and says so."""
    monkeypatch.setattr(remote, "TAKEN_OVER_MAX", 1)
    machine = cluster()
    taken(machine, overlap={"policy": "allow"})
    run = machine.fire(machine.state.jobs["a"], 3_000)
    take_over(machine, run)
    assert (run.state, run.error_kind) == ("lost", "too_many")


def test_an_ended_run_is_run_again_by_hand() -> None:
    """For the same scheduled time, with the same args, under an id of its own; its deadline counts from now."""
    machine = cluster()
    machine.put("a", start_deadline="10s")
    first = machine.state.runs[machine.done(Trigger("a", None, b"\x01")).subject]
    assert machine.refused(Rerun(first.id, None)) == "conflict"
    machine.done(Cancel(first.id))
    again = machine.state.runs[machine.done(Rerun(first.id, None), at=90_000).subject]
    assert (again.cause, again.retry_of, again.args, again.state) == ("manual", first.id, b"\x01", "queued")
    assert (again.scheduled_time, again.due_at) == (first.scheduled_time, 90_000)
    blocked = machine.state.runs[machine.done(Rerun(first.id, None)).subject]
    assert (blocked.state, blocked.blocked_by) == ("skipped", again.id)
    allowed = machine.state.runs[machine.done(Rerun(blocked.id, None, allow_overlap=True)).subject]
    assert (allowed.state, allowed.retry_of) == ("queued", blocked.id)
    machine.done(DeleteJob("a", [], machine.state.jobs["a"].revision))
    assert machine.refused(Rerun(first.id, None)) == "conflict"
    assert machine.refused(Rerun("nobody", None)) == "not_found"


def test_a_parent_is_ended_by_its_parts_and_each_part_by_its_target() -> None:
    """No token fits the parent; a part is not run again by itself."""
    machine = cluster()
    job = machine.put("a", executor=REMOTE, placement={"shards": 2})
    parent = machine.state.runs[machine.done(Trigger("a", None)).subject]
    machine.done(Divide([Parting(parent.id, [])]))
    parts = [machine.state.runs[run_id] for run_id in parts_of(machine.state.runs[parent.id])]
    assert "a token of its own" in why(machine, Conclude(parent.id, 0, "succeeded"))
    assert take_over(machine, parent) == 0
    for part in parts:
        machine.done(Assign([Assignment(part.id, Place("n1", 1), start=True)]))
        assert take_over(machine, part) == 1
        machine.done(Conclude(part.id, part.fencing_token, "succeeded"))
    assert machine.state.runs[parent.id].state == "succeeded"
    assert machine.done(Rerun(parent.id, None)).subject
    assert job.succeeded == 1
