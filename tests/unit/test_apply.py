"""What entries do to the state: decisions, starts, endings, edits, leaders."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core.apply import Done
from raftcron.core.commands import (
    Assign,
    Assignment,
    Cancel,
    Decide,
    Decision,
    DeleteJob,
    Expire,
    Finish,
    Finished,
    Fire,
    Lose,
    NotStarted,
    PauseJob,
    Place,
    PutGroup,
    PutJob,
    Refused,
    Requeue,
    ResumeJob,
    Start,
    Summary,
    Token,
    Trigger,
    Unassign,
)
from raftcron.core.model import Key
from raftcron.core.records import TABLES, record_hash
from raftcron.core.state import State
from tests.unit.machine import NOOP, Machine, cluster

HERE = Place("n1", 1)
THERE = Place("n2", 1)


def test_a_fire_placed_on_the_leader_starts_in_the_entry_that_decides_it() -> None:
    """Decided, assigned and started in one entry, with a token and an attempt record."""
    machine = cluster()
    run = machine.fire(machine.put(), 2_000)
    assert (run.state, run.node, run.attempt, run.fencing_token) == ("running", "n1", 1, 1)
    assert run.attempts[0].started_index == len(machine.log)


def test_a_scheduled_time_is_decided_once() -> None:
    """The watermark refuses a second decision of the same N, whoever makes it."""
    machine = cluster()
    job = machine.put()
    machine.fire(job, 2_000)
    again = Decide(HERE, [Decision(job.uid, job.revision, 2_000, [Fire(2_000, 2_000)])])
    assert machine.done(again).count == 0
    assert len(machine.state.runs) == 1


def test_a_decision_under_another_revision_is_refused_without_moving_the_watermark() -> None:
    """An edit makes what was planned under the old definition void."""
    machine = cluster()
    job = machine.put()
    stale = Decision(job.uid, job.revision, 2_000, [Fire(2_000, 2_000)])
    machine.put(timeout="5m")
    assert machine.done(Decide(HERE, [stale])).count == 0
    assert machine.state.jobs["job"].decided_through == 1_000


def test_a_command_of_another_epoch_is_refused_and_changes_nothing_but_the_index() -> None:
    """What a deposed leader wrote has no effect once the next leadership entry stands before it."""
    machine = cluster()
    before = machine.state.digest
    assert machine.refused(Trigger("job", None), epoch=0) == "epoch"
    assert machine.refused(Trigger("job", None), epoch=2) == "epoch"
    assert machine.state.digest == before


def test_overlap_skip_names_the_run_that_blocks() -> None:
    """The second of two overlapping fires is a row with its reason."""
    machine = cluster()
    job = machine.put()
    first = machine.fire(job, 2_000)
    second = machine.fire(job, 3_000)
    assert (second.state, second.reason, second.blocked_by) == ("skipped", "overlap", first.id)
    assert (job.fired, job.skipped) == (1, 1)


def test_overlap_allow_runs_side_by_side() -> None:
    """Under `allow` nothing blocks."""
    machine = cluster()
    job = machine.put(overlap={"policy": "allow"})
    assert [machine.fire(job, n).state for n in (2_000, 3_000, 4_000)] == ["running"] * 3


def test_a_full_node_leaves_runs_queued() -> None:
    """Slots bound what starts; the rest waits."""
    machine = Machine()
    machine.lead()
    machine.announce("n1", slots=1)
    job = machine.put(overlap={"policy": "allow"})
    first, second = machine.fire(job, 2_000), machine.fire(job, 3_000)
    assert (first.state, second.state) == ("running", "queued")
    machine.finish(first)
    assert machine.done(Assign([Assignment(second.id, HERE, start=True)])).count == 1
    assert second.state == "running"


def test_process_slots_are_counted_apart() -> None:
    """A node out of process slots still takes other runs."""
    machine = Machine()
    machine.lead()
    machine.announce("n1", slots=10, process_slots=1)
    shell = machine.put("shell", executor={"type": "shell", "command": "true"}, overlap={"policy": "allow"})
    noop = machine.put("noop")
    states = [machine.fire(shell, 2_000).state, machine.fire(shell, 3_000).state, machine.fire(noop, 4_000).state]
    assert states == ["running", "queued", "running"]


def test_an_assignment_to_a_former_life_is_refused() -> None:
    """Only the newest announced incarnation gets runs."""
    machine = cluster()
    run = machine.fire(machine.put(), 2_000, incarnation=7)
    assert run.state == "queued"
    assert machine.done(Assign([Assignment(run.id, Place("n2", 2), start=False)])).count == 0


def test_a_start_needs_the_newest_token() -> None:
    """An assignment that was voided can never start."""
    machine = cluster()
    run = machine.fire(machine.put(), 2_000, incarnation=9)
    machine.done(Assign([Assignment(run.id, THERE, start=False)]))
    old = run.fencing_token
    machine.done(NotStarted([Token(run.id, old)]))
    machine.done(Assign([Assignment(run.id, THERE, start=False)]))
    assert machine.done(Start([Token(run.id, old)])).count == 0
    assert machine.done(Start([Token(run.id, run.fencing_token)])).count == 1
    assert (run.state, run.attempt) == ("running", 1)
    assert run.fencing_token > old


def test_a_start_past_its_deadline_is_refused() -> None:
    """The leader's time in the entry decides, not the worker's."""
    machine = cluster()
    run = machine.fire(machine.put(misfire={"window": "10s"}), 2_000, incarnation=9)
    machine.done(Assign([Assignment(run.id, THERE, start=False)]))
    assert machine.done(Start([Token(run.id, run.fencing_token)]), at=12_001).count == 0
    assert machine.done(Expire([run.id])).count == 1
    assert (run.state, run.reason) == ("skipped", "deadline")


def test_an_expired_run_counts_as_skipped_and_no_longer_as_fired() -> None:
    """A row counts once, by its present state."""
    machine = cluster()
    job = machine.put(misfire={"window": "10s"})
    run = machine.fire(job, 2_000, incarnation=9)
    assert (job.fired, job.skipped) == (1, 0)
    machine.done(Expire([run.id]), at=12_001)
    assert (job.fired, job.skipped) == (0, 1)


def test_a_new_leader_voids_what_had_not_started_and_leaves_what_runs() -> None:
    """Assigned goes back to the queue with its attempt number; running stays."""
    machine = cluster()
    running = machine.fire(machine.put("one"), 2_000)
    assigned = machine.fire(machine.put("two"), 3_000, incarnation=9)
    machine.done(Assign([Assignment(assigned.id, THERE, start=False)]))
    machine.lead("n2")
    assert (running.state, assigned.state, assigned.attempt) == ("running", "queued", 1)


def test_a_node_that_starts_anew_has_lost_what_ran_there() -> None:
    """at_most_once: lost for good; at_least_once: queued as the next attempt, with a higher token when it starts."""
    machine = cluster()
    once = machine.fire(machine.put("once"), 2_000)
    again = machine.fire(machine.put("again", delivery="at_least_once"), 3_000)
    token = again.fencing_token
    machine.announce("n1", 2)
    assert (once.state, once.error_kind) == ("lost", "node_restarted")
    assert (again.state, again.attempt) == ("queued", 2)
    machine.done(Assign([Assignment(again.id, Place("n1", 2), start=True)]))
    assert again.fencing_token > token
    assert [record.state for record in again.attempts] == ["lost", "running"]


def test_what_had_not_started_on_a_node_that_starts_anew_is_queued_again() -> None:
    """It is not lost: its token can no longer start."""
    machine = cluster()
    run = machine.fire(machine.put(), 2_000, incarnation=9)
    machine.done(Assign([Assignment(run.id, THERE, start=False)]))
    machine.announce("n2", 2)
    assert (run.state, run.attempt, run.attempts) == ("queued", 1, [])


def test_an_older_life_is_refused_and_an_equal_one_ignored() -> None:
    """A copy of an old disk cannot speak for the node."""
    machine = cluster()
    machine.announce("n1", 3)
    assert isinstance(machine.announce("n1", 2), Refused)
    assert isinstance(machine.announce("n1", 3), Done)
    assert machine.state.nodes["n1"].incarnation == 3


def test_an_equal_life_that_is_another_process_is_refused() -> None:
    """A copy of the disk from just one life ago has the number that is expected next, and nothing more."""
    machine = cluster()
    assert isinstance(machine.announce("n1", 2, life=7), Done)
    run = machine.fire(machine.put(), 2_000, incarnation=2)
    before = machine.state.digest
    assert isinstance(machine.announce("n1", 2, slots=3, life=8), Refused)
    assert isinstance(machine.announce("n1", 2, life=7), Done)
    assert machine.state.digest == before
    assert run.state == "running"
    assert isinstance(machine.announce("n1", 3, life=8), Done)
    assert run.state == "lost"


def test_a_silent_node_loses_its_runs() -> None:
    """What ran is lost, what was only assigned is queued."""
    machine = cluster()
    running = machine.fire(machine.put("one"), 2_000, node="n2")
    assigned = machine.fire(machine.put("two"), 3_000, incarnation=9)
    machine.done(Assign([Assignment(assigned.id, THERE, start=False)]))
    tokens = [Token(run.id, run.fencing_token) for run in (running, assigned)]
    assert machine.done(Lose("n2", 1, tokens)).count == 2
    assert (running.state, assigned.state) == ("lost", "queued")


def test_lost_attempts_count_in_max_attempts() -> None:
    """After the last attempt a lost run stays lost."""
    machine = cluster()
    run = machine.fire(machine.put(delivery="at_least_once", retry={"max_attempts": 2}), 2_000)
    machine.done(Lose("n1", 1, [Token(run.id, run.fencing_token)]))
    machine.done(Assign([Assignment(run.id, THERE, start=True)]))
    machine.done(Lose("n2", 1, [Token(run.id, run.fencing_token)]))
    assert (run.state, run.attempt) == ("lost", 2)


def test_a_report_under_an_old_token_changes_nothing() -> None:
    """Only the newest token may end a run."""
    machine = cluster()
    run = machine.fire(machine.put(delivery="at_least_once"), 2_000)
    old = run.fencing_token
    machine.done(Lose("n1", 1, [Token(run.id, old)]))
    machine.done(Assign([Assignment(run.id, THERE, start=True)]))
    digest = machine.state.digest
    assert machine.done(Finish([Finished(run.id, old, "succeeded")])).count == 0
    assert (run.state, machine.state.digest) == ("running", digest)


def test_a_late_end_of_a_lost_run_is_kept_beside_its_state() -> None:
    """The state stays lost, the outcome is told."""
    machine = cluster()
    run = machine.fire(machine.put(), 2_000)
    machine.done(Lose("n1", 1, [Token(run.id, run.fencing_token)]))
    machine.finish(run)
    run = machine.state.runs[run.id]
    assert (run.state, run.late_outcome) == ("lost", "succeeded")


def test_a_failed_run_waits_for_its_retry_and_then_queues() -> None:
    """The back-off is state, not a timer somewhere."""
    machine = cluster()
    run = machine.fire(machine.put(retry={"max_attempts": 2}), 2_000)
    machine.finish(run, "failed", exit_code=3)
    assert run.state == "waiting_retry"
    assert 2_750 <= run.not_before <= 3_000
    assert machine.done(Requeue([run.id]), at=run.not_before - 1).count == 0
    assert machine.done(Requeue([run.id]), at=run.not_before).count == 1
    assert (run.state, run.attempt) == ("queued", 2)
    machine.done(Assign([Assignment(run.id, HERE, start=True)]))
    machine.finish(run, "failed", exit_code=3)
    assert (run.state, run.exit_code) == ("failed", 3)


@pytest.mark.parametrize("was_lost", [True, False])
def test_the_deadline_of_a_further_attempt_does_not_slide(was_lost: bool) -> None:
    """It counts from when that was queued first, however many assignments are taken back since."""
    machine = cluster()
    retry = {"delivery": "at_least_once"} if was_lost else {"retry": {"max_attempts": 2}}
    run = machine.fire(machine.put(start_deadline="10m", **retry), 2_000)
    if was_lost:
        machine.done(Lose("n1", 1, [Token(run.id, run.fencing_token)]), at=9_000)
    else:
        machine.finish(run, "failed", exit_code=3)
        machine.done(Requeue([run.id]), at=9_000)
    for bounce in range(100):
        machine.done(Assign([Assignment(run.id, THERE, start=False)]), at=9_000 + 3_000 * bounce)
        machine.done(Unassign([Token(run.id, run.fencing_token)]), at=12_000 + 3_000 * bounce)
    assert (run.state, run.attempt) == ("queued", 2)
    assert machine.done(Expire([run.id]), at=609_000).count == 0
    assert machine.done(Expire([run.id]), at=609_001).count == 1
    assert (run.state, run.reason) == ("lost" if was_lost else "failed", "deadline")


def test_a_broken_connection_and_a_time_out_are_not_retried_unless_named() -> None:
    """Their former attempt is not proven to have ended."""
    machine = cluster()
    broken = machine.fire(machine.put("one", retry={"max_attempts": 3}), 2_000)
    machine.finish(broken, "failed", error_kind="broken")
    late = machine.fire(machine.put("two", retry={"max_attempts": 3}), 3_000)
    machine.finish(late, "timed_out")
    assert (broken.state, late.state) == ("failed", "timed_out")


def test_tokens_only_grow() -> None:
    """Every assignment gets a higher token than any before it in the whole cluster."""
    machine = cluster()
    job = machine.put(overlap={"policy": "allow"})
    tokens = [machine.fire(job, n * 1_000).fencing_token for n in range(2, 8)]
    assert tokens == sorted(set(tokens))


def test_deleting_a_job_skips_what_had_not_started_and_lets_what_runs_end() -> None:
    """No start commits after it; rows stay readable by id."""
    machine = cluster()
    job = machine.put(overlap={"policy": "allow"})
    running, queued = machine.fire(job, 2_000), machine.fire(job, 3_000, incarnation=9)
    machine.done(DeleteJob("job", [], job.revision))
    assert (queued.state, queued.reason, running.state) == ("skipped", "deleted", "running")
    assert machine.done(Assign([Assignment(queued.id, HERE, start=True)])).count == 0
    machine.finish(running)
    assert machine.state.runs[running.id].state == "succeeded"
    assert machine.state.runs[queued.id].state == "skipped"


def test_a_job_made_again_under_its_name_does_not_meet_its_old_runs() -> None:
    """Ids of runs hold the job's uid."""
    machine = cluster()
    old = machine.put()
    run = machine.fire(old, 2_000)
    machine.done(DeleteJob("job", [], old.revision))
    new = machine.put()
    again = machine.fire(new, 3_000)
    assert again.id != run.id
    assert [row.id for row in machine.state.runs_of(new.uid)] == [again.id]


def test_a_refused_token_of_a_deleted_job_ends_its_run() -> None:
    """What has nothing left to start does not stay queued for ever."""
    machine = cluster()
    job = machine.put()
    run = machine.fire(job, 2_000)
    machine.done(DeleteJob("job", [], job.revision))
    machine.done(NotStarted([Token(run.id, run.fencing_token)]))
    assert (run.state, run.reason) == ("skipped", "deleted")


def test_an_edit_decides_what_was_due_before_it_under_the_old_definition() -> None:
    """One entry: the decisions, then the change; nothing is fired again afterwards."""
    machine = cluster()
    job = machine.put()
    due = Decision(job.uid, job.revision, 3_000, [Fire(2_000, 2_000), Fire(3_000, 3_000)])
    stored = job.definition
    other = machine.state  # the same state, read below
    machine.done(
        PutJob("job", stored.replace(b"@every 1s", b"@every 2s"), 3_500, [due], seen_revision=job.revision), at=3_500
    )
    assert {run.scheduled_time for run in other.runs.values()} == {2_000, 3_000}
    assert (job.decided_through, job.counted_from, job.anchor) == (3_500, 3_500, 3_000)


def test_an_edit_whose_decisions_no_longer_hold_is_refused_so_that_nothing_is_dropped() -> None:
    """The planner has decided a part meanwhile: the leader must look again."""
    machine = cluster()
    job = machine.put()
    due = Decision(job.uid, job.revision, 3_000, [Fire(2_000, 2_000), Fire(3_000, 3_000)])
    machine.fire(job, 2_000)
    edit = PutJob("job", job.definition, 3_500, [due], seen_revision=job.revision)
    assert machine.refused(edit) == "stale"
    assert job.decided_through == 2_000


def test_putting_the_identical_definition_keeps_revision_anchor_and_watermark() -> None:
    """Re-putting a job moves nothing."""
    machine = cluster()
    job = machine.put()
    before = (job.revision, job.anchor, job.decided_through, machine.state.digest)
    machine.put()
    assert (job.revision, job.anchor, job.decided_through, machine.state.digest) == before


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (PutJob("job", b"", 0, seen_revision=None), "stale"),
        (PutJob("job", b"", 0, seen_revision=4, if_revision=3), "revision"),
        (PutJob("job", b"", 0, seen_revision=4, must_create=True), "exists"),
        (PutJob("new", b"", 0, if_revision=3), "revision"),
        (DeleteJob("none", [], 1), "not_found"),
        (PauseJob("none", [], 1), "not_found"),
        (ResumeJob("none", 1, 0), "not_found"),
        (Trigger("none", None), "not_found"),
        (Cancel("none"), "not_found"),
    ],
)
def test_a_refusal_names_its_reason_and_changes_nothing(command: PutJob, code: str) -> None:
    """Check comes before change."""
    machine = cluster()
    assert machine.put().revision == 4
    digest = machine.state.digest
    assert machine.refused(command) == code
    assert machine.state.digest == digest


def test_a_paused_job_is_not_decided_and_resumes_with_one_row_for_what_was_not_owed() -> None:
    """`paused` rows count on neither side of conservation."""
    machine = cluster()
    job = machine.put()
    machine.done(PauseJob("job", [], job.revision, note="maintenance"), at=2_500)
    decision = Decision(job.uid, job.revision, 3_000, [Fire(3_000, 3_000)])
    assert machine.done(Decide(HERE, [decision]), at=3_000).count == 0
    machine.done(ResumeJob("job", job.revision, 9_500, Summary("paused", 2_000, 9_000, 8)), at=9_500)
    assert (job.paused, job.decided_through, job.fired, job.skipped) == (False, 9_500, 0, 0)
    [row] = machine.state.runs_of(job.uid)
    assert (row.reason, row.first, row.last, row.count) == ("paused", 2_000, 9_000, 8)


def test_a_manual_run_moves_no_watermark_and_is_judged_by_overlap() -> None:
    """Unless the request overrides it."""
    machine = cluster()
    job = machine.put()
    assert machine.done(Trigger("job", HERE)).status == 202
    assert job.decided_through == 1_000
    blocked = machine.done(Trigger("job", HERE)).subject
    allowed = machine.done(Trigger("job", HERE, allow_overlap=True)).subject
    runs = machine.state.runs
    assert (runs[blocked].reason, runs[allowed].state) == ("overlap", "running")


def test_cancelling_a_running_run_is_told_through_the_state() -> None:
    """The worker reports how it ended; the cancel is final, no retry follows."""
    machine = cluster()
    run = machine.fire(machine.put(retry={"max_attempts": 5}), 2_000)
    machine.done(Cancel(run.id))
    assert run.state == "cancelling"
    machine.finish(run, "failed", error_kind="cancelled")
    assert run.state == "cancelled"
    assert machine.refused(Cancel(run.id)) == "conflict"


def test_an_idempotency_key_answers_the_stored_outcome() -> None:
    """A repeat changes nothing; another body under the key is refused; a day later the key is free again."""
    machine = cluster()
    machine.put()
    key = Key("POST /x k", b"body", 0, 0, 0)
    first = machine.done(Trigger("job", HERE, key=key))
    again = machine.done(Trigger("job", HERE, key=key))
    assert again.replayed
    assert (again.subject, again.status, again.index) == (first.subject, 202, first.index)
    assert machine.refused(Trigger("job", HERE, key=Key("POST /x k", b"other", 0, 0, 0))) == "key_conflict"
    later = machine.done(Trigger("job", HERE, key=key), at=machine.at + 24 * 3600 * 1000)
    assert not later.replayed


def test_a_key_leaves_for_want_of_room_once_it_is_two_minutes_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then whoever brings another one is told to slow down, and nothing is done for it."""
    monkeypatch.setattr("raftcron.core.state.KEYS_KEPT", 1)
    machine = cluster()
    machine.put()
    machine.done(Trigger("job", HERE, key=Key("POST /x first", b"", 0, 0, 0)))
    second = Trigger("job", HERE, key=Key("POST /x second", b"", 0, 0, 0))
    assert machine.refused(second) == "too_many"
    assert not machine.done(second, at=machine.at + 120_000).replayed
    assert list(machine.state.keys) == ["POST /x second"]


def test_history_keeps_the_last_rows_and_the_last_run() -> None:
    """Rows beyond the bound leave, oldest end first; the last run that fired stays however many are skipped after."""
    machine = cluster()
    job = machine.put(history={"runs": 3})
    fired = machine.fire(job, 2_000)
    machine.finish(fired)
    blocker = machine.fire(job, 3_000)
    for n in range(4_000, 14_000, 1_000):
        machine.fire(job, n)
    rows = machine.state.runs_of(job.uid)
    assert blocker in rows
    assert len(rows) == 4, "three ended rows and the active one"
    assert fired.id not in machine.state.runs


def test_the_digest_is_the_sum_over_all_records() -> None:
    """Kept up to date with each change, it equals what is worked out anew from the records."""
    machine = cluster()
    job = machine.put(history={"runs": 2}, delivery="at_least_once")
    for n in range(2_000, 9_000, 1_000):
        run = machine.fire(job, n)
        machine.finish(run, "succeeded", output_tail=b"x" * 100)
    machine.put("other")
    machine.done(DeleteJob("other", [], machine.state.jobs["other"].revision))
    assert machine.state.digest == anew(machine.state)


def anew(state: State) -> int:
    """The digest of a state's records and head, from nothing."""
    fresh = State()
    for name in ("epoch", "lead_index", "cluster_time", "next_token", "history_total", "leader"):
        setattr(fresh, name, getattr(state, name))
    fresh.seal()
    records = [record for table in TABLES for record in getattr(state, table).values()]
    return (fresh.digest + sum(record_hash(record) for record in records)) % (1 << 128)


def test_noop_is_what_these_tests_run() -> None:
    """The shared definition names an executor that needs no process slot."""
    machine = cluster()
    assert not machine.fire(machine.put(executor=NOOP), 2_000).is_process


def test_attempts_are_one_unless_a_lost_one_is_to_be_tried_again() -> None:
    """The defaults of both delivery classes (semantics 4)."""
    machine = cluster()
    found = {}
    for delivery in ("at_most_once", "at_least_once"):
        policy = machine.state.policy(machine.put(delivery, delivery=delivery).uid)
        found[delivery] = (policy.max_attempts, sorted(policy.retry_on))
    assert found == {"at_most_once": (1, ["failed"]), "at_least_once": (5, ["failed"])}


@pytest.mark.parametrize(
    ("fields", "stops"),
    [
        ({}, True),
        ({"overlap": {"policy": "allow"}}, False),
        ({"overlap": {"policy": "allow", "max_running": 2}}, True),
        ({"overlap": {"policy": "allow"}, "group": "g"}, True),
        ({"overlap": {"policy": "allow"}, "delivery": "at_least_once"}, True),
        ({"overlap": {"policy": "allow"}, "isolation": "stop"}, True),
        ({"isolation": "continue"}, False),
    ],
)
def test_runs_whose_loss_would_let_another_start_stop_with_their_lease(fields: dict[str, Any], stops: bool) -> None:
    """All others go on, unless the job says otherwise (semantics 5.7)."""
    machine = cluster()
    machine.done(PutGroup("g", 2))
    assert machine.state.stops_with_lease(machine.put(**fields).uid) is stops


def test_a_group_that_is_full_holds_what_falls_due() -> None:
    """Also within the entry that decides it, whatever room the leader has."""
    machine = cluster()
    machine.done(PutGroup("g", 1))
    first = machine.fire(machine.put("one", group="g"), 2_000)
    second = machine.fire(machine.put("two", group="g"), 3_000)
    assert (first.state, second.state) == ("running", "queued")
