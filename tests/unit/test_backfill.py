"""Backfills: a run for each time of a past span, one after the other whatever the overlap policy says."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core.apply import requests
from raftcron.core.commands import (
    Assign,
    Assignment,
    Backfill,
    Cancel,
    DeleteJob,
    Lose,
    NotStarted,
    PauseJob,
    Place,
    Requeue,
    ResumeJob,
    Start,
    Token,
    Trigger,
)
from raftcron.core.model import Job, Run
from tests.unit.machine import Machine, cluster

HERE = Place("n1", 1)


def backfilled(machine: Machine, job: Job, *times: int) -> list[Run]:
    """Its runs, oldest time first."""
    done = machine.done(Backfill(job.name, list(times), machine.state.revision_of(job)), at=max(machine.at, 100_000))
    assert done.subject == (f"b{done.index:x}-{len(times) - 1}" if times else "")
    return [machine.state.runs[f"b{done.index:x}-{place}"] for place in range(len(times))]


def start(machine: Machine, run: Run) -> None:
    machine.done(Assign([Assignment(run.id, HERE, start=True)]))
    assert run.state == "running"


@pytest.mark.parametrize("policy", ["skip", "queue", "replace"])
def test_one_runs_after_the_other(policy: str) -> None:
    """None is skipped, and a queue's length is not theirs."""
    machine = cluster()
    runs = backfilled(machine, machine.put(overlap={"policy": policy}), 10_000, 20_000, 30_000)
    for place, run in enumerate(runs):
        assert list(machine.state.queued) == [run.id]
        assert [other.waits_turn for other in runs[place:]] == [False, *[True] * (len(runs) - place - 1)]
        start(machine, run)
        machine.finish(run)
    assert [machine.state.runs[run.id].state for run in runs] == ["succeeded"] * 3
    assert machine.state.backfills == {}


def test_as_many_go_on_as_may_run() -> None:
    """`max_running` of them; under `allow` all, each at the catch-up rate's pace."""
    for overlap, ready in (({"policy": "skip", "max_running": 2}, 2), ({"policy": "allow"}, 4)):
        machine = cluster()
        backfilled(machine, machine.put(overlap=overlap), 1_000, 2_000, 3_000, 4_000)
        assert len(machine.state.queued) == ready
        assert list(machine.state.queued) == [
            run for lane, runs in machine.state.lanes.items() if lane.is_paced for run in runs
        ]


def test_what_comes_from_the_clock_goes_before_what_waits() -> None:
    """A run of a backfill that waits is in nobody's way; one that runs is, as any other."""
    machine = cluster()
    job = machine.put(overlap={"policy": "queue", "queue": 1})
    first, second, third = backfilled(machine, job, 10_000, 20_000, 30_000)
    start(machine, first)
    scheduled = machine.fire(job, 101_000)
    assert (scheduled.state, scheduled.blocked_by) == ("queued", first.id)
    machine.finish(first)
    assert list(machine.state.queued) == [scheduled.id]
    assert (second.waits_turn, third.waits_turn) == (True, True)
    start(machine, scheduled)
    machine.finish(scheduled)
    assert list(machine.state.queued) == [second.id]


def test_a_newcomer_that_replaces_waits_for_a_backfill_that_runs() -> None:
    """It displaces the newcomer before it, and goes before what of the backfill waits."""
    machine = cluster()
    job = machine.put(overlap={"policy": "replace"})
    first, second = backfilled(machine, job, 10_000, 20_000)
    start(machine, first)
    displaced, newcomer = machine.fire(job, 101_000), machine.fire(job, 102_000)
    displaced = machine.state.runs[displaced.id]
    assert (displaced.state, displaced.replaced_by) == ("skipped", newcomer.id)
    assert (first.state, second.state, newcomer.waits_turn, newcomer.blocked_by) == (
        "running",
        "queued",
        True,
        first.id,
    )
    machine.finish(first)
    assert (newcomer.waits_turn, second.waits_turn) == (False, True)


def test_a_newcomer_that_replaces_displaces_the_oldest_that_is_of_no_backfill() -> None:
    """With room for two, one of them a backfill's."""
    machine = cluster()
    job = machine.put(overlap={"policy": "replace", "max_running": 2})
    [first] = backfilled(machine, job, 10_000)
    start(machine, first)
    scheduled = machine.fire(job, 101_000)
    newcomer = machine.fire(job, 102_000)
    assert (first.state, scheduled.state, newcomer.waits_turn) == ("running", "cancelling", True)


def test_nothing_is_displaced_where_that_makes_no_room() -> None:
    """An edit leaves room for one, and that is the backfill's: the newcomer waits for it, the other run goes on."""
    machine = cluster()
    job = machine.put(overlap={"policy": "replace", "max_running": 2})
    [first] = backfilled(machine, job, 10_000)
    start(machine, first)
    scheduled = machine.fire(job, 101_000)
    job = machine.put(overlap={"policy": "replace", "max_running": 1})
    newcomer = machine.fire(job, 102_000)
    assert (first.state, scheduled.state, newcomer.waits_turn) == ("running", "running", True)


def test_a_further_attempt_is_paced_nowhere() -> None:
    """On a node that saw it queued again, as on one that reads it from an image: the orders of both are one."""
    machine = cluster()
    job = machine.put(retry={"max_attempts": 2, "backoff": "1s"})
    [run] = backfilled(machine, job, 10_000)
    start(machine, run)
    machine.finish(run, "failed")
    machine.done(Requeue([run.id]), at=200_000)
    assert (run.state, run.attempt) == ("queued", 2)
    assert [lane.is_paced for lane in machine.state.lanes] == [False]


@pytest.mark.parametrize("policy", ["skip", "queue", "replace"])
@pytest.mark.parametrize("is_assigned", [False, True])
def test_what_has_not_started_lets_a_newcomer_pass(policy: str, is_assigned: bool) -> None:
    """It waits again in its old place; where it had been assigned, that token starts nothing any more."""
    machine = cluster()
    job = machine.put(overlap={"policy": policy})
    first, second = backfilled(machine, job, 10_000, 20_000)
    if is_assigned:
        machine.done(Assign([Assignment(first.id, HERE, start=False)]))
    token, newcomer = Token(first.id, first.fencing_token), machine.fire(job, 101_000)
    assert (newcomer.state, first.state, first.waits_turn, second.waits_turn) == ("running", "queued", True, True)
    assert machine.done(Start([token])).count == 0
    assert list(machine.state.backfills[job.uid]) == [first.id, second.id]
    machine.finish(newcomer)
    assert list(machine.state.queued) == [first.id]


def test_only_as_many_step_back_as_need_be_and_their_order_stays() -> None:
    """Whoever was asked for first goes on first, also after a snapshot: it has them in the order of their rows."""
    machine = cluster()
    job = machine.put(overlap={"policy": "skip", "max_running": 2}, delivery="at_least_once")
    first, second, third = backfilled(machine, job, 10_000, 20_000, 30_000)
    start(machine, second)
    scheduled = machine.fire(job, 101_000)
    assert [run.waits_turn for run in (first, second, third)] == [True, False, True]
    machine.done(Lose("n1", 1, [Token(second.id, second.fencing_token)]))
    machine.fire(job, 102_000)
    assert list(machine.state.backfills[job.uid]) == [first.id, second.id, third.id]
    machine.finish(scheduled)
    assert list(machine.state.queued) == [first.id]


@pytest.mark.parametrize("how", ["lost", "not started", "tried again"])
def test_what_is_queued_anew_lets_those_pass_that_waited_for_it(how: str) -> None:
    """For whatever attempt: a backfill has no deadline, and others would wait for it for as long as it waits."""
    machine = cluster()
    job = machine.put(overlap={"policy": "queue"}, delivery="at_least_once", retry={"max_attempts": 3, "backoff": "1s"})
    [run] = backfilled(machine, job, 10_000)
    start(machine, run)
    scheduled = machine.fire(job, 101_000)
    token = Token(run.id, run.fencing_token)
    assert scheduled.waits_turn
    if how == "lost":
        machine.done(Lose("n1", 1, [token]))
    elif how == "not started":
        machine.done(NotStarted([token]))
    else:
        machine.finish(run, "failed")
        assert (run.state, scheduled.waits_turn) == ("waiting_retry", True), "active until its retries are over"
        machine.done(Requeue([run.id]), at=machine.at + 1_000)
    assert (run.state, run.waits_turn, list(machine.state.queued)) == ("queued", True, [scheduled.id])
    start(machine, scheduled)
    machine.finish(scheduled)
    assert list(machine.state.queued) == [run.id]


def test_of_a_paused_job_a_run_by_hand_passes_what_is_held_of_a_backfill() -> None:
    """Under `skip`, which would end it."""
    machine = cluster()
    job = machine.put()
    [run] = backfilled(machine, job, 10_000)
    machine.done(PauseJob("job", [], job.revision))
    by_hand = machine.state.runs[machine.done(Trigger("job", HERE)).subject]
    assert (by_hand.state, run.waits_turn) == ("running", True)


def test_it_never_moves_the_watermark_and_counts_on_neither_side() -> None:
    """What the schedule decided stands, also for the same times."""
    machine = cluster()
    job = machine.put(overlap={"policy": "allow"})
    machine.fire(job, 50_000)
    before = (job.decided_through, job.fired, job.skipped, job.last_fired, job.last_decided)
    runs = backfilled(machine, job, 20_000, 50_000)
    assert (job.decided_through, job.fired, job.skipped, job.last_fired, job.last_decided) == before
    assert [(run.cause, run.scheduled_time, run.due_at, run.previous_time) for run in runs] == [
        ("backfill", 20_000, 100_000, None),
        ("backfill", 50_000, 100_000, 20_000),
    ]


def test_it_waits_for_as_long_as_it_takes() -> None:
    """No start deadline ends it: each has long passed, counted from its time."""
    machine = cluster()
    [run] = backfilled(machine, machine.put(start_deadline="1s"), 1_000)
    machine.at = 10**12
    start(machine, run)


def test_a_pause_holds_it_and_a_delete_ends_it() -> None:
    """As it does with whatever is queued; a run by hand goes on."""
    machine = cluster()
    job = machine.put(overlap={"policy": "allow"})
    runs = backfilled(machine, job, 10_000, 20_000)
    machine.done(PauseJob("job", [], job.revision))
    assert list(machine.state.queued) == []
    more = backfilled(machine, job, 30_000)
    by_hand = machine.state.runs[machine.done(Trigger("job", None)).subject]
    assert list(machine.state.queued) == [by_hand.id]
    machine.done(ResumeJob("job", job.revision, machine.at))
    assert len(machine.state.queued) == 4
    machine.done(Cancel(runs[0].id))
    machine.done(DeleteJob("job", [], job.revision))
    reasons = [machine.state.runs[run.id].reason for run in (*runs, *more)]
    assert reasons == ["cancelled", "deleted", "deleted"]
    assert machine.state.backfills == {}


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one request, and in what of a job has not ended yet."""
    monkeypatch.setattr(requests, "BACKFILL_MAX", 3)
    machine = cluster()
    job = machine.put()
    machine.at = 100_000

    def ask(*times: int) -> Any:
        return Backfill("job", list(times), job.revision)

    assert machine.refused(ask(1, 2, 3, 4)) == "invalid"
    assert machine.refused(ask(2, 1)) == "invalid"
    assert machine.refused(ask(200_000)) == "invalid"
    assert machine.refused(Backfill("job", [1], 0)) == "stale"
    assert machine.refused(Backfill("none", [1], 0)) == "not_found"
    assert backfilled(machine, job) == []
    first, _ = backfilled(machine, job, 1_000, 2_000)
    assert machine.refused(ask(3_000, 4_000)) == "conflict"
    machine.done(Cancel(first.id))
    machine.done(ask(3_000, 4_000))
