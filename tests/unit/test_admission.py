"""What a new run meets in the state: room, a queue, runs that it displaces, and what follows within the same entry."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core.commands import (
    Assign,
    Assignment,
    Cancel,
    Decide,
    Decision,
    DeleteJob,
    Expire,
    Fire,
    Lose,
    NotStarted,
    Place,
    Requeue,
    Summary,
    Token,
    Trigger,
)
from raftcron.core.model import ACTIVE, Run
from tests.unit.machine import Machine, cluster

HERE = Place("n1", 1)


def run_now(machine: Machine, name: str, place: Place | None = HERE) -> Run:
    done = machine.done(Trigger(name, place))
    return machine.state.runs[done.subject]


def shown(machine: Machine, *runs: Run) -> list[tuple[str, str | None]]:
    """State and reason of each as of now."""
    return [(now.state, now.reason) for run in runs if (now := machine.state.runs[run.id])]


def test_what_a_chained_run_displaces_is_followed_within_the_same_entry() -> None:
    """Its cancel is an end like any other: nothing is left over for the next entry, which a snapshot would not know."""
    machine = cluster()
    machine.put("a", schedule="@manual")
    retried = {"retry": {"max_attempts": 2, "backoff": "1h"}, "overlap": {"policy": "replace"}}
    machine.put("b", schedule="@manual", after=[{"job": "a", "on": "any"}], **retried)
    machine.put("c", schedule="@manual", after=[{"job": "b", "on": "any"}])
    waiting = run_now(machine, "b")
    machine.finish(waiting, "failed", exit_code=1, error_kind="exit")
    machine.finish(run_now(machine, "a"))
    assert shown(machine, waiting) == [("cancelled", "overlap")]
    [followed] = machine.state.active[machine.state.jobs["c"].uid].values()
    assert followed.follows == waiting.id
    assert not machine.state.ended


def test_a_fire_within_a_summary_is_refused() -> None:
    """Each time has one fate: rows and runs of a decision lie beside each other, never within."""
    machine = cluster()
    job = machine.put(overlap={"policy": "allow"})
    for fires, summaries in (
        ([3_000], [(2_000, 4_000)]),
        ([2_000], [(2_000, 2_000)]),
        ([4_000], [(2_000, 4_000)]),
        ([], [(2_000, 4_000), (3_000, 5_000)]),
    ):
        decision = Decision(
            job.uid,
            job.revision,
            6_000,
            [Fire(at, at) for at in fires],
            [Summary("coalesced", first, last, 2) for first, last in summaries],
        )
        assert machine.done(Decide(HERE, [decision]), at=6_000).count == 0
    decision = Decision(
        job.uid, job.revision, 6_000, [Fire(3_000, 3_000), Fire(6_000, 6_000)],
        [Summary("coalesced", 2_000, 2_000, 1), Summary("limit", 4_000, 5_000, 2)],
    )  # fmt: skip
    assert machine.done(Decide(HERE, [decision])).count == 1
    assert (job.fired, job.skipped, job.last_decided, job.decided_through) == (2, 3, 6_000, 6_000)


@pytest.mark.parametrize("policy", ["queue", "replace"])
@pytest.mark.parametrize("how", ["finish", "cancel", "lose", "not_started", "expire", "restart", "fail"])
def test_whatever_ends_a_run_gives_the_next_its_turn(policy: str, how: str) -> None:
    """Within the entry of the end, so that nothing can come between."""
    machine = cluster()
    machine.put(schedule="@manual", overlap={"policy": policy}, start_deadline="1m")
    first = run_now(machine, "job", None if how == "expire" and policy == "queue" else HERE)
    second = run_now(machine, "job")
    if policy == "replace":
        assert shown(machine, first, second) == [("cancelling", "overlap"), ("queued", None)]
    assert second.id not in machine.state.queued
    token = Token(first.id, first.fencing_token)
    ends: dict[str, Any] = {
        "cancel": Cancel(first.id),
        "lose": Lose("n1", 1, [token]),
        "not_started": NotStarted([token]),
        "expire": Expire([first.id]),
    }
    if how == "finish":
        machine.finish(first)
    elif how == "fail":
        machine.finish(first, "failed", exit_code=1, error_kind="exit")
    elif how == "restart":
        machine.announce("n1", 2)
    else:
        machine.done(ends[how], at=machine.at + (60_001 if how == "expire" else 0))
    if machine.state.runs[first.id].state in ACTIVE:  # a cancel and a refusal have to be heard of, an expiry is no end
        assert second.id not in machine.state.queued
        machine.finish(first) if machine.state.runs[first.id].node else machine.done(Cancel(first.id))
    assert list(machine.state.queued) == [second.id]
    assert machine.state.runs[second.id].blocked_by is None
    assert not machine.state.turns


def test_a_run_that_waits_for_its_turn_is_not_assigned() -> None:
    """Whoever asks for it: it stays queued."""
    machine = cluster()
    machine.put(schedule="@manual", overlap={"policy": "queue"})
    first, second = run_now(machine, "job"), run_now(machine, "job")
    assert machine.done(Assign([Assignment(second.id, HERE, True)])).count == 0
    machine.finish(first)
    assert machine.done(Assign([Assignment(second.id, HERE, True)])).count == 1


def test_a_displaced_run_that_is_lost_is_not_tried_again() -> None:
    """The cancel is final, in the class at_least_once too."""
    machine = cluster()
    machine.put(schedule="@manual", overlap={"policy": "replace"}, delivery="at_least_once")
    first, second = run_now(machine, "job"), run_now(machine, "job")
    machine.done(Lose("n1", 1, [Token(first.id, first.fencing_token)]))
    assert shown(machine, first, second) == [("lost", "overlap"), ("queued", None)]
    assert list(machine.state.queued) == [second.id]


def test_a_run_that_succeeds_before_its_cancel_arrives_has_succeeded() -> None:
    """Without a reason, since nothing has displaced it in the end."""
    machine = cluster()
    machine.put(schedule="@manual", overlap={"policy": "replace"})
    first, second = run_now(machine, "job"), run_now(machine, "job")
    machine.finish(first)
    assert shown(machine, first, second) == [("succeeded", None), ("queued", None)]
    assert machine.state.runs[first.id].replaced_by is None


def test_a_delete_ends_what_waits_for_its_turn() -> None:
    """None of it gets a turn by the ends of the others."""
    machine = cluster()
    job = machine.put(schedule="@manual", overlap={"policy": "queue", "queue": 3})
    first, *others = (run_now(machine, "job") for _ in range(4))
    machine.done(DeleteJob("job", [], job.revision, cancel_running=True))
    assert shown(machine, *others) == [("skipped", "deleted")] * 3
    assert shown(machine, first) == [("cancelling", "deleted")]
    assert not (machine.state.queued or machine.state.held or machine.state.turns)
    machine.finish(first, "cancelled")
    assert shown(machine, first) == [("cancelled", "deleted")]


def test_a_jittered_run_keeps_its_turn_while_it_waits_for_its_time() -> None:
    """The turn may come before the jitter is over, or after it: it starts when both are."""
    machine = cluster()
    job = machine.put(overlap={"policy": "queue", "queue": 2})
    early = machine.fire(job, 2_000)

    def late(at: int) -> Run:
        decision = Decision(job.uid, job.revision, at, [Fire(at, 9_000)])
        assert machine.done(Decide(HERE, [decision]), at=at).count == 1
        return machine.state.runs[f"{job.uid:x}-{at}"]

    second, third = late(3_000), late(4_000)
    machine.finish(early)
    assert (second.waits_turn, third.waits_turn) == (False, True)
    assert not (machine.state.queued or machine.state.held)
    machine.done(Requeue([second.id, third.id]), at=9_000)
    assert (list(machine.state.queued), list(machine.state.held)) == ([second.id], [third.id])


def test_no_more_runs_are_displaced_than_the_newcomer_needs() -> None:
    """One that is already told to end, for whatever reason, makes room as well."""
    machine = cluster()
    job = machine.put(overlap={"policy": "replace", "max_running": 4})
    runs = [machine.fire(job, machine.at + 1_000) for _ in range(4)]
    for run in runs[:2]:
        machine.done(Cancel(run.id))

    newcomer = machine.fire(job, machine.at + 1_000)

    assert newcomer.waits_turn
    assert [machine.state.runs[run.id].state for run in runs] == ["cancelling"] * 2 + ["running"] * 2
