"""Jobs that are after others: which ends start them, what is gathered of several parents, and what cannot be."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from raftcron.core import chains, definition
from raftcron.core.commands import (
    Announce,
    ApplyJobs,
    Assign,
    Assignment,
    Cancel,
    DeleteJob,
    Lose,
    PauseJob,
    Place,
    PutJob,
    ResumeJob,
    Token,
    Trigger,
)
from raftcron.core.model import Job, Run
from tests.unit.machine import NOOP, Machine, cluster


def child(machine: Machine, name: str, *parents: str | tuple[str, str], **fields: Any) -> Job:
    """A job that nothing but its parents starts; a parent alone stands for its successes."""
    pairs = [(parent, "success") if isinstance(parent, str) else parent for parent in parents]
    return machine.put(name, schedule="@manual", after=[{"job": job, "on": on} for job, on in pairs], **fields)


def ended(machine: Machine, name: str, state: str = "succeeded") -> Run:
    """One run of a job from the clock to this end."""
    run = machine.fire(machine.state.jobs[name], machine.at + 1_000)
    assert machine.finish(run, state) == 1
    return run


def rows(machine: Machine, name: str) -> list[Run]:
    """Oldest first."""
    return machine.state.runs_of(machine.state.jobs[name].uid)[::-1]


@pytest.mark.parametrize(
    ("on", "ends"),
    [
        ("success", {"succeeded"}),
        ("failure", {"failed", "timed_out", "lost"}),
        ("any", {"succeeded", "failed", "timed_out", "lost", "cancelled"}),
    ],
)
def test_which_ends_count(on: str, ends: set[str]) -> None:
    """A run that somebody cancelled neither succeeded nor failed."""
    for end in ("succeeded", "failed", "timed_out", "lost", "cancelled"):
        machine = cluster()
        machine.put("a")
        child(machine, "b", ("a", on))
        parent = ended(machine, "a", end)
        assert [run.follows for run in rows(machine, "b")] == ([parent.id] if end in ends else []), end


def test_a_chained_run_waits_for_a_node_from_the_instant_of_its_parents_end() -> None:
    """Its cause is `chain`, it names the parent's run, and it counts on neither side of conservation."""
    machine = cluster()
    machine.put("a")
    job = child(machine, "b", "a")
    parent = ended(machine, "a")
    [run] = rows(machine, "b")
    assert (run.cause, run.state, run.follows) == ("chain", "queued", parent.id)
    assert run.scheduled_time == run.due_at == machine.at
    assert run.id.startswith(f"{job.uid:x}-c")
    assert (job.fired, job.skipped, job.last_run) == (0, 0, run.id)


def test_only_the_end_of_all_retries_counts() -> None:
    """An attempt that another follows is no end."""
    machine = cluster()
    machine.put("a", delivery="at_least_once", retry={"max_attempts": 2})
    child(machine, "b", ("a", "any"))
    run = machine.fire(machine.state.jobs["a"], 2_000)
    machine.finish(run, "failed")
    assert (run.state, rows(machine, "b")) == ("waiting_retry", [])
    machine.done(Cancel(run.id))
    assert [one.follows for one in rows(machine, "b")] == [run.id]


def test_a_loss_starts_what_is_after_a_failure_whatever_entry_tells_of_it() -> None:
    """A lease that ended, a node that lives anew."""
    for tell in (
        lambda run: Lose("n1", 1, [Token(run.id, run.fencing_token)]),
        lambda _: Announce("n1", 2, "n1:1", "n1:2", "0", 10, 5),
    ):
        machine = cluster()
        machine.put("a")
        child(machine, "b", ("a", "failure"))
        run = machine.fire(machine.state.jobs["a"], 2_000)
        machine.done(tell(run))
        assert (run.state, len(rows(machine, "b"))) == ("lost", 1)


def test_what_was_skipped_starts_nothing() -> None:
    """A run that overlap skipped, one that was cancelled before it started."""
    machine = cluster()
    job = machine.put("a")
    child(machine, "b", ("a", "any"))
    machine.fire(job, 2_000)
    assert machine.fire(job, 3_000).state == "skipped"
    machine.done(Trigger("a", None, allow_overlap=True))
    [waiting] = machine.state.queued.values()
    machine.done(Cancel(waiting.id))
    assert (waiting.state, rows(machine, "b")) == ("skipped", [])


def test_overlap_judges_a_chained_run_like_any_other() -> None:
    """And a chain goes on from one job to the next."""
    machine = cluster()
    machine.put("a", overlap={"policy": "allow"})
    child(machine, "b", "a")
    child(machine, "c", "b")
    ended(machine, "a")
    ended(machine, "a")
    first, second = rows(machine, "b")
    assert (second.state, second.reason, second.blocked_by) == ("skipped", "overlap", first.id)
    assert rows(machine, "c") == []


def test_runs_by_hand_and_chained_runs_are_followed_too() -> None:
    """Whatever started the parent."""
    machine = cluster()
    machine.put("a", schedule="@manual")
    child(machine, "b", "a")
    child(machine, "c", "b")
    machine.finish(machine.state.runs[machine.done(Trigger("a", Place("n1", 1))).subject])
    [run] = rows(machine, "b")
    machine.done(Assign([Assignment(run.id, Place("n1", 1), start=True)]))
    machine.finish(run)
    assert [one.follows for one in rows(machine, "c")] == [run.id]


# ---- several parents -------------------------------------------------------------------------------------------------


def test_of_any_parents_each_end_starts_the_child() -> None:
    """Once for each run of each of them."""
    machine = cluster()
    machine.put("a")
    machine.put("b")
    child(machine, "c", "a", ("b", "failure"), join="any", overlap={"policy": "allow"})
    parents = [ended(machine, "a"), ended(machine, "b", "failed"), ended(machine, "a")]
    ended(machine, "b")
    assert [run.follows for run in rows(machine, "c")] == [parent.id for parent in parents]


def test_of_all_parents_the_newest_end_since_the_childs_last_run_counts() -> None:
    """An end that is not asked for takes back the one before; the last that comes is the run's parent."""
    machine = cluster()
    machine.put("a")
    machine.put("b")
    job = child(machine, "c", "a", "b", overlap={"policy": "allow"})
    first = ended(machine, "a")
    assert job.joined == (("a", first.id),)
    ended(machine, "a", "failed")
    assert job.joined == ()
    ended(machine, "b")
    assert rows(machine, "c") == []
    ended(machine, "b")
    last = ended(machine, "a")
    assert [run.follows for run in rows(machine, "c")] == [last.id]
    assert job.joined == ()
    ended(machine, "a")
    assert len(rows(machine, "c")) == 1, "both begin anew"


def test_ends_pass_a_paused_child_by() -> None:
    """A pause lets go of what was gathered; only ends after it count."""
    machine = cluster()
    machine.put("a")
    machine.put("b")
    job = child(machine, "c", "a", "b")
    ended(machine, "a")
    machine.done(PauseJob("c", [], job.revision))
    ended(machine, "a")
    ended(machine, "b")
    assert (job.joined, rows(machine, "c")) == ((), [])
    machine.done(ResumeJob("c", job.revision, machine.at))
    ended(machine, "a")
    assert rows(machine, "c") == []
    ended(machine, "b")
    assert len(rows(machine, "c")) == 1


def test_an_edit_of_something_else_keeps_what_was_gathered() -> None:
    """What concerns a parent that is no longer one, or is asked for something else, goes."""
    machine = cluster()
    for name in ("a", "b", "x"):
        machine.put(name)
    job = child(machine, "c", "a", "b", "x")
    ended(machine, "a")
    ended(machine, "b")
    child(machine, "c", "a", "b", "x", description="the same")
    assert [name for name, _ in job.joined] == ["a", "b"]
    child(machine, "c", ("a", "any"), "b", "x")
    assert [name for name, _ in job.joined] == ["b"]
    child(machine, "c", "b", "x", join="any")
    assert job.joined == ()


# ---- jobs come and go ------------------------------------------------------------------------------------------------


def test_a_parent_may_go_and_come_again() -> None:
    """Its children stay, and go on with the job that gets its name; a deleted job's runs start nothing."""
    machine = cluster()
    job = machine.put("a", delivery="at_least_once", retry={"max_attempts": 2}, overlap={"policy": "allow"})
    follower = child(machine, "b", ("a", "any"))
    running = machine.fire(job, 2_000)
    waiting = machine.fire(job, 3_000)
    machine.finish(waiting, "failed")
    machine.done(DeleteJob("a", [], job.revision))
    machine.finish(running)
    assert (running.state, rows(machine, "b")) == ("succeeded", [])
    assert list(machine.state.children) == ["a"]
    machine.put("a")
    ended(machine, "a")
    assert len(rows(machine, "b")) == 1
    machine.done(DeleteJob("b", [], follower.revision))
    ended(machine, "a")
    assert machine.state.children == {}


@pytest.mark.parametrize("length", [1, 2, 5])
def test_no_write_makes_a_cycle(length: int) -> None:
    """The entry is refused whatever its leader thought, and the fault names the way round."""
    machine = cluster()
    names = [f"job-{number}" for number in range(length)]
    machine.put(names[0])
    for parent, name in itertools.pairwise(names):
        child(machine, name, parent)
    after = [{"job": names[-1]}]
    stored = definition.canonical({"schedule": "@manual", "executor": NOOP, "after": after})
    revision = machine.state.jobs[names[0]].revision
    assert machine.refused(PutJob(names[0], stored, None, seen_revision=revision)) == "stale"
    [fault] = chains.faults(machine.state, names[0], ((names[-1], "success"),))
    assert fault.pointer == "/after/0/job"
    assert fault.message.endswith(": " + " -> ".join([*names, names[0]]))


def test_a_parent_that_comes_again_cannot_close_a_cycle() -> None:
    """The names that a job is after count while nobody bears them."""
    machine = cluster()
    job = machine.put("a")
    child(machine, "b", "a")
    machine.done(DeleteJob("a", [], job.revision))
    stored = definition.canonical({"schedule": "@manual", "executor": NOOP, "after": [{"job": "b"}]})
    assert machine.refused(PutJob("a", stored, None)) == "stale"


def test_the_writes_of_one_entry_make_no_cycle_together() -> None:
    """Each alone would do; a delete among them takes a job out of the way."""
    machine = cluster()
    jobs = [machine.put("a"), child(machine, "b", "a"), machine.put("c")]
    fields = {"schedule": "@manual", "executor": NOOP}

    def put(number: int, parent: str) -> PutJob:
        stored = definition.canonical({**fields, "after": [{"job": parent}]})
        return PutJob(jobs[number].name, stored, None, seen_revision=jobs[number].revision)

    assert machine.refused(ApplyJobs([put(0, "c"), put(2, "b")])) == "stale"
    found = chains.impossible(machine.state, {"a": (("c", "any"),), "c": (("b", "any"),)})
    assert [fault.message.partition(": ")[2] for fault in found["a"]] == ["a -> b -> c -> a"]
    machine.done(ApplyJobs([put(0, "c"), put(2, "b")], [DeleteJob("b", [], jobs[1].revision)]))
    assert sorted(machine.state.children) == ["b", "c"]


def test_a_parent_has_to_be_there_unless_it_was() -> None:
    """A name that nobody bears is most likely mistyped; one that the job is after already is no fault of this write."""
    machine = cluster()
    machine.put("nightly")
    [fault] = chains.faults(machine.state, "b", (("nigthly", "success"),))
    assert fault == ("/after/0/job", "there is no job 'nigthly': create it first")
    assert chains.faults(machine.state, "b", (("gone", "any"),), kept=(("gone", "success"),)) == []
    assert chains.missing(machine.state, "b", (("new", "any"),), coming={"new"}) == []


def test_few_jobs_are_after_one() -> None:
    """The entry that ends many runs starts no more than so many for each."""
    machine = cluster()
    machine.put("a")
    for number in range(chains.CHILDREN_MAX):
        child(machine, f"b-{number}", "a")
    child(machine, "b-0", "a", description="an edit is no further job")
    after = (("a", "success"),)
    [fault] = chains.faults(machine.state, "one-more", after)
    assert "has 100 jobs after it already" in fault.message


def test_what_is_looked_at_for_a_cycle_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that starts more than so many others cannot be put behind one."""
    monkeypatch.setattr(chains, "WALK_MAX", 5)
    machine = cluster()
    for name in ("root", "a"):
        machine.put(name)
    for number in range(4):
        child(machine, f"b-{number}", "a")
    [fault] = chains.faults(machine.state, "a", (("root", "success"),))
    assert fault.pointer == "/after"


def test_a_job_whose_loss_another_waits_for_ends_with_its_lease() -> None:
    """At-most-once with `allow` may run on after its lease, but not where its loss starts something."""
    machine = cluster()
    job = machine.put("a", overlap={"policy": "allow"})
    assert not machine.state.stops_with_lease(job.uid)
    child(machine, "b", "a")
    assert not machine.state.stops_with_lease(job.uid)
    child(machine, "c", ("a", "any"))
    assert machine.state.stops_with_lease(job.uid)
    assert machine.state.stops_with_lease(12345), "its job is gone"
