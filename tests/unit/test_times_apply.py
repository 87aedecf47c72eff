"""Apply, entry by entry: what changes a job's times without touching what is decided."""

from __future__ import annotations

import pytest

from raftcron.core import commands as c
from raftcron.core import definition, exclusion
from raftcron.core.exclusion import CALENDARS_MAX
from raftcron.core.model import Job
from tests.unit.machine import NOOP, Machine, cluster

EMPTY = exclusion.canonical({})
CHRISTMAS = exclusion.canonical({"dates": ["2026-12-25"]})


def put_calendar(
    machine: Machine, stored: bytes = EMPTY, *, name: str = "x", decisions: list[c.Decision] | None = None
) -> None:
    calendar = machine.state.calendars.get(name)
    seen = None if calendar is None else calendar.revision
    machine.done(c.PutCalendar(name, stored, machine.at, decisions or [], seen))


def decision(machine: Machine, job: Job, *times: int) -> c.Decision:
    return c.Decision(job.uid, machine.state.revision_of(job), times[-1], [c.Fire(at, at) for at in times])


# ---- calendars -------------------------------------------------------------------------------------------------------


def test_a_changed_calendar_refuses_decisions_made_under_what_it_said_before() -> None:
    """Until the planner has looked again; its jobs begin to count anew when they are next looked at."""
    machine = cluster()
    put_calendar(machine)
    job = machine.put(exclude=["x"], overlap={"policy": "allow"})
    machine.fire(job, 2_000)
    stale = decision(machine, job, 3_000)
    machine.at = 2_500
    put_calendar(machine, CHRISTMAS)
    assert machine.done(c.Decide(c.Place("n1", 1), [stale])).count == 0
    assert (job.decided_through, job.fired) == (2_000, 1)
    assert machine.done(c.Decide(c.Place("n1", 1), [decision(machine, job, 3_000)]), at=3_000).count == 1
    assert (job.counted_from, job.decided_through, job.fired, job.fire_count) == (2_500, 3_000, 1, 2)
    assert machine.refused(c.DeleteJob("job", [], job.revision)) == "stale"
    machine.done(c.DeleteJob("job", [], machine.state.revision_of(job)))


def test_a_calendar_changes_together_with_what_was_owed_before() -> None:
    """The decisions of its entry stand under the old one; one that cannot stand refuses the whole."""
    machine = cluster()
    put_calendar(machine)
    job = machine.put(exclude=["x"], overlap={"policy": "allow"})
    due = decision(machine, job, 2_000, 3_000)
    machine.fire(job, 2_000)
    machine.at = 3_500
    seen = machine.state.calendars["x"].revision
    assert machine.refused(c.PutCalendar("x", CHRISTMAS, 3_500, [due], seen)) == "stale"  # half of it is decided
    assert machine.refused(c.PutCalendar("x", CHRISTMAS, 3_500, [], seen - 1)) == "stale"
    put_calendar(machine, CHRISTMAS, decisions=[decision(machine, job, 3_000)])
    assert (job.decided_through, job.fired) == (3_000, 2)
    assert machine.state.calendars["x"].holds_from == 3_500
    revision = machine.state.calendars["x"].revision
    put_calendar(machine, CHRISTMAS)
    assert machine.state.calendars["x"].revision == revision


def test_a_calendar_waits_for_what_was_written_since_the_leader_looked() -> None:
    """A job that is resumed with what it missed owes that under the old calendar, and nobody has decided it yet."""
    machine = cluster()
    put_calendar(machine)
    job = machine.put(exclude=["x"], overlap={"policy": "allow"})
    machine.done(c.PauseJob("job", [], job.revision))
    machine.at = 3_500
    looked, seen = machine.state.index, machine.state.calendars["x"].revision
    machine.done(c.ResumeJob("job", machine.state.revision_of(job), job.decided_through))
    late = c.PutCalendar("x", CHRISTMAS, 3_500, [], seen, seen_index=looked)
    assert machine.refused(late) == "stale"
    owed = [decision(machine, job, 2_000, 3_000)]
    machine.done(c.PutCalendar("x", CHRISTMAS, 3_500, owed, seen, seen_index=machine.state.index))
    assert (job.decided_through, job.fired) == (3_000, 2)


@pytest.mark.parametrize(("until", "is_over"), [(2_500, True), (3_500, True), (3_501, False)])
def test_a_calendar_waits_for_a_pause_that_is_over_and_was_written_since(until: int, is_over: bool) -> None:
    """What the job owes since is owed under the old calendar; one that is paused beyond the instant owes nothing."""
    machine = cluster()
    put_calendar(machine)
    job = machine.put(exclude=["x"])
    machine.done(c.PauseJob("job", [], job.revision, until=until))
    looked, seen = machine.state.index, machine.state.calendars["x"].revision
    machine.put(exclude=["x"], description="paused still")
    assert job.paused
    machine.at = 3_500
    put = c.PutCalendar("x", CHRISTMAS, 3_500, [], seen, seen_index=looked)
    if is_over:
        assert machine.refused(put) == "stale"
    else:
        machine.done(put)


def test_a_calendar_does_not_wait_for_jobs_that_owe_nothing_until_it_holds() -> None:
    """One that is paused, one that was written at a later instant, and one that was not written since."""
    machine = cluster()
    put_calendar(machine)
    paused, later = machine.put("paused", exclude=["x"]), machine.put("later", exclude=["x"])
    machine.put("still", exclude=["x"])
    machine.at = 1_900
    seen, looked = machine.state.calendars["x"].revision, machine.state.index
    machine.done(c.PauseJob("paused", [], paused.revision))
    machine.put("later", exclude=["x"], description="as of now")
    assert (paused.decided_through, later.decided_through) == (1_000, 1_900)
    machine.done(c.PutCalendar("x", CHRISTMAS, 1_900, [], seen, seen_index=looked))


def test_calendars_stay_while_a_job_names_them() -> None:
    """Through edits and deletes of jobs; and a job cannot name one that is not there."""
    machine = cluster()
    put_calendar(machine)
    job = machine.put(exclude=["x"])
    seen = machine.state.calendars["x"].revision
    assert machine.refused(c.DeleteCalendar("x", seen)) == "conflict"
    machine.put()
    machine.put("other", exclude=["x"])
    assert list(machine.state.calendar_jobs["x"]) == [machine.state.jobs["other"].uid]
    machine.done(c.DeleteJob("other", [], machine.state.jobs["other"].revision))
    assert machine.refused(c.DeleteCalendar("x", seen + 1)) == "stale"
    machine.done(c.DeleteCalendar("x", seen))
    assert machine.refused(c.DeleteCalendar("x", seen)) == "not_found"
    stored = definition.canonical({"schedule": "@every 1s", "executor": NOOP, "exclude": ["x"]})
    assert machine.refused(c.PutJob("job", stored, machine.at, seen_revision=job.revision)) == "stale"


@pytest.mark.parametrize("stored", [b"\xc1", b"", definition._encode({"date": []}), definition._encode({"dates": [5]})])
def test_what_is_no_calendar_is_refused(stored: bytes) -> None:
    """By its form alone: no tz data is asked in apply."""
    machine = cluster()
    assert machine.refused(c.PutCalendar("x", stored, machine.at)) == "invalid"
    put_calendar(machine, exclusion.canonical({"timezone": "Mars/Olympus", "schedules": ["what?"]}))


def test_calendars_are_bounded() -> None:
    """The next one is refused, changing one is not."""
    machine = cluster()
    for number in range(CALENDARS_MAX):
        put_calendar(machine, name=f"c{number}")
    assert machine.refused(c.PutCalendar("x", EMPTY, machine.at)) == "too_many"
    put_calendar(machine, CHRISTMAS, name="c7")


# ---- skipped times ---------------------------------------------------------------------------------------------------


def test_skips_are_set_and_leave_as_they_are_decided() -> None:
    """A new revision without a new count; what is decided already cannot be asked for."""
    machine = cluster()
    job = machine.put(overlap={"policy": "allow"})
    machine.fire(job, 2_000)
    machine.done(c.SkipNext("job", [4_000, 3_000], job.revision))
    assert (job.skips, job.revision, job.counted_from, job.fired) == ((3_000, 4_000), machine.state.index, 1_000, 1)
    assert machine.refused(c.SkipNext("job", [2_000], job.revision)) == "stale"
    assert machine.refused(c.SkipNext("job", [9_000], job.revision - 1)) == "stale"
    assert machine.refused(c.SkipNext("nobody", [], 0)) == "not_found"
    assert machine.refused(c.SkipNext("job", list(range(9_000, 9_101)), job.revision)) == "invalid"
    row = c.Summary("requested", 3_000, 3_000, 1)
    machine.done(c.Decide(c.Place("n1", 1), [c.Decision(job.uid, job.revision, 3_000, [], [row])]), at=3_000)
    assert (job.skips, job.skipped) == ((4_000,), 1)
    machine.put(description="another", overlap={"policy": "allow"})
    assert job.skips == (4_000,)
    machine.put(jitter="1s")
    assert job.skips == ()


# ---- max_runs, from last_end, jitter ---------------------------------------------------------------------------------


def test_max_runs_cuts_a_decision_at_the_last_run() -> None:
    """What lies behind it is not owed: no row, and the watermark stays; what did not become a run does not count."""
    machine = cluster()
    job = machine.put(max_runs=2, overlap={"policy": "allow", "max_running": 1})
    fires = [c.Fire(at, at) for at in (2_000, 3_000, 5_000)]
    rows = [c.Summary("coalesced", 4_000, 4_500, 7), c.Summary("coalesced", 6_000, 6_000, 1)]
    machine.done(c.Decide(c.Place("n1", 1), [c.Decision(job.uid, job.revision, 9_000, fires, rows)]), at=9_000)
    assert (job.fire_count, job.skipped, job.decided_through) == (1, 10, 9_000)  # an overlap each, and the two rows
    for run in list(machine.state.active[job.uid].values()):
        machine.finish(run)
    machine.done(c.Decide(c.Place("n1", 1), [decision(machine, job, 10_000, 11_000)]), at=11_000)
    assert (job.fire_count, job.decided_through) == (2, 10_000)
    machine.done(c.Decide(c.Place("n1", 1), [decision(machine, job, 12_000)]), at=12_000)
    assert (job.fire_count, job.decided_through) == (2, 10_000)


def test_max_runs_does_not_count_what_never_started_while_the_job_goes_on() -> None:
    """Displaced, expired or cancelled; of a job that is over it does, and so nothing brings it to life again."""
    machine = cluster()
    job = machine.put(max_runs=2, overlap={"policy": "replace"}, start_deadline="5s")
    machine.done(c.Decide(c.Place("n1", 1), [decision(machine, job, 2_000, 3_000, 4_000)]), at=4_000)
    assert (job.fire_count, job.fired, job.skipped, job.decided_through) == (1, 1, 2, 4_000)
    running, waiting = machine.state.runs[f"{job.uid:x}-4000"], machine.fire(job, 5_000)
    assert (running.state, waiting.state, job.fire_count) == ("cancelling", "queued", 2)
    machine.done(c.Trigger("job", None))
    assert (machine.state.runs[waiting.id].state, job.fire_count, job.decided_through) == ("skipped", 2, 5_000)
    machine.done(c.Decide(c.Place("n1", 1), [decision(machine, job, 6_000)]), at=6_000)
    assert (job.fire_count, job.decided_through) == (2, 5_000)


def test_max_runs_gives_back_what_expires_before_the_last() -> None:
    """Also a time that was decided before the job's counters began anew."""
    machine = cluster()
    job = machine.put(max_runs=2, start_deadline="5s")
    machine.done(c.Decide(c.Place("n9", 1), [decision(machine, job, 2_000)]), at=2_000)
    run = machine.state.runs[f"{job.uid:x}-2000"]
    machine.put(max_runs=2, start_deadline="5s", description="another")
    assert (job.fire_count, job.fired) == (1, 0)
    machine.done(c.Expire([run.id]), at=7_001)
    assert (machine.state.runs[run.id].reason, job.fire_count, job.fired, job.skipped) == ("deadline", 0, 0, 0)


def test_the_end_of_the_last_run_is_kept() -> None:
    """Set at creation and when no scheduled run is active any more; runs by hand change nothing."""
    machine = cluster()
    job = machine.put(schedule="@every 5s from last_end", overlap={"policy": "allow"})
    assert job.last_end == 1_000
    first, second = machine.fire(job, 6_000), machine.fire(job, 7_000)
    assert job.last_end is None
    machine.at = 8_000
    machine.finish(first)
    assert job.last_end is None
    machine.at = 9_500
    machine.finish(second)
    assert job.last_end == 9_500
    by_hand = machine.done(c.Trigger("job", c.Place("n1", 1)), at=10_000).subject
    machine.finish(machine.state.runs[by_hand])
    assert job.last_end == 9_500
    machine.done(c.ResumeJob("job", job.revision, 10_000))
    assert job.last_end == 9_500
    machine.put(schedule="@every 5s")
    assert job.last_end is None
    machine.at = 12_345
    machine.put(schedule="@every 5s from last_end")
    assert job.last_end == 13_000  # the last run was by hand, so it counts from this edit


def test_a_new_schedule_from_last_end_counts_from_the_end_that_is_known() -> None:
    """Or waits for it."""
    machine = cluster()
    job = machine.put()
    run = machine.fire(job, 2_000)
    machine.put(schedule="@every 5s from last_end")
    assert job.last_end is None
    machine.put(schedule="@every 5s")
    machine.finish(run)
    machine.at = 60_000
    machine.put(schedule="@every 5s from last_end")
    assert job.last_end == 2_000


def test_the_anchor_moves_with_its_own_text_alone() -> None:
    """Not with another schedule's, nor with bounds, jitter or zone."""
    machine = cluster()
    job = machine.put(schedule="@every 5s")
    machine.fire(job, 6_000)
    machine.at = 7_500
    for fields in (
        {"schedule": ["@every 5s", "@every 9s from last_end"]},
        {"schedule": ["@daily", " @EVERY 5s"], "jitter": "3s"},
        {"schedule": ["@every 5s", "@every 7s from 2026-01-01T00:00:00Z"], "timezone": "Europe/Berlin"},
    ):
        machine.put(**fields)
        assert job.anchor == 1_000
    machine.put(schedule="@every 6s")
    assert job.anchor == 6_000


def test_a_run_that_waits_for_its_jitter_is_let_go_when_that_is_over() -> None:
    """It is queued all the time, and nobody can start it sooner."""
    machine = cluster()
    job = machine.put(jitter="9s")
    edited = c.Decision(job.uid, job.revision, 2_000, [c.Fire(2_000, 8_000)])
    stored = definition.canonical({"schedule": "@yearly", "executor": NOOP})
    machine.done(c.PutJob("job", stored, 3_000, [edited], job.revision), at=3_000)
    [run] = machine.state.waiting.values()
    assert (run.state, run.not_before) == ("queued", 8_000)
    assert machine.done(c.Requeue([run.id]), at=7_999).count == 0
    assert not machine.state.queued
    assert machine.done(c.Requeue([run.id]), at=8_000).count == 1
    assert list(machine.state.queued) == [run.id]
    assert machine.done(c.Requeue([run.id])).count == 0
    assert machine.done(c.Assign([c.Assignment(run.id, c.Place("n1", 1), True)])).count == 1


@pytest.mark.parametrize("ending", ["cancel", "delete"])
def test_a_run_that_waits_for_its_jitter_can_end_before(ending: str) -> None:
    """It leaves the queue that it waits in."""
    machine = cluster()
    job = machine.put(jitter="9s")
    machine.done(c.PauseJob("job", [c.Decision(job.uid, job.revision, 2_000, [c.Fire(2_000, 8_000)])], job.revision))
    [run] = machine.state.waiting.values()
    machine.done(c.Cancel(run.id) if ending == "cancel" else c.DeleteJob("job", [], job.revision))
    assert (run.state, machine.state.waiting, machine.state.queued) == ("skipped", {}, {})


def test_a_fire_is_never_due_before_its_time() -> None:
    """Nor after all time."""
    machine = cluster()
    job = machine.put()
    for due_at in (1_999, 10**15):
        wrong = c.Decision(job.uid, job.revision, 2_000, [c.Fire(2_000, due_at)])
        assert machine.done(c.Decide(c.Place("n1", 1), [wrong])).count == 0


# ---- editions --------------------------------------------------------------------------------------------------------


def test_another_edition_makes_every_job_count_anew_from_its_own_watermark() -> None:
    """Only where it differs; nothing decided moves; nodes say which they have."""
    machine = cluster()
    job = machine.put(overlap={"policy": "allow"})
    machine.fire(job, 2_000)
    machine.write(c.Lead("n2", 1, 2, "0", "0", "0"))
    machine.fire(job, 3_000)
    assert (job.counted_from, job.fired) == (1_000, 2)
    machine.write(c.Lead("n1", 1, 3, "0", "0", "2026b"))
    since = machine.state.index
    assert {name: (one.version, one.since == since) for name, one in machine.state.editions.items()} == {
        "croniter": ("0", False),
        "tzdata": ("2026b", True),
    }
    machine.fire(job, 4_000)
    assert (job.counted_from, job.fired, job.fire_count) == (3_000, 1, 3)
    machine.write(c.Announce("n3", 1, "", "", "0", 1, 1, "7.0", "2026b"))
    assert machine.state.nodes["n3"].tzdata_version == "2026b"
