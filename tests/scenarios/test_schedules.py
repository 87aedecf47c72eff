"""Stories of times: jitter, the end of the last run, skipped times, calendars, and leaders that read them otherwise."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftcron.core import exclusion, planner
from raftcron.core.coming import coming_of
from raftcron.core.commands import ApplyJobs, Done, PauseJob, PutCalendar, ResumeJob, SkipNext, Trigger
from raftcron.core.events import JobEvent
from raftcron.core.model import Job, Recurrence, Run
from raftcron.core.planner import settle
from raftcron.core.schedule import CronSchedule, Dst, Schedule, ScheduleError
from raftcron.core.timeline import Timeline
from raftcron.core.times import read_schedules
from raftcron.core.zone import Zone, zone_data
from raftcron.runtime.calendars import Calendars
from raftcron.runtime.events import EventLog
from raftcron.runtime.scheduler import Scheduler
from raftcron.runtime.writes import Precondition
from raftcron.testing.scripted_executor import Script
from tests.scenarios.scene import START_MS, Actor, Scene, play

ANY = Precondition()


def job_of(scene: Scene, name: str = "job") -> Job:
    return scene.leader.machine.state.jobs[name]


def second(at: int | None) -> float:
    """Since the scene began."""
    assert at is not None
    return (at - START_MS) / 1000


def told(rows: list[Run]) -> list[tuple[float, str, str | None]]:
    """What became of each row."""
    return [(second(row.scheduled_time), row.state, row.reason) for row in rows]


async def propose(scene: Scene, command: Any) -> None:
    outcome = await scene.leader.proposer.propose(command)
    assert isinstance(outcome, Done), outcome


async def put_calendar(scene: Scene, **fields: Any) -> None:
    """Create or replace the calendar x, as the interface does."""
    state, now = scene.leader.machine.state, scene.leader.now_ms()
    calendar = state.calendars.get("x")
    decisions = [
        decision
        for uid in state.calendar_jobs.get("x", ())
        for decision in settle(state.by_uid[uid], state.policy(uid), scene.leader.machine.timeline.group_of(uid), now)
    ]
    seen = None if calendar is None else calendar.revision
    await propose(scene, PutCalendar("x", exclusion.canonical(fields), now, decisions, seen))


# ---- calendars -------------------------------------------------------------------------------------------------------


async def put_again(leader: Actor, body: dict[str, Any]) -> None:
    await leader.service.put_job("job", body, ANY, None)


async def patch_nothing(leader: Actor, _body: dict[str, Any]) -> None:
    await leader.service.patch_job("job", {}, ANY, None)


async def apply_again(leader: Actor, body: dict[str, Any]) -> None:
    command = leader.service.put_command("job", job := leader.machine.state.jobs["job"], checked(leader, body, job))
    assert isinstance(await leader.proposer.propose(ApplyJobs([command])), Done)


def checked(leader: Actor, body: dict[str, Any], job: Job) -> Any:
    return leader.service.checked({**body, "name": "job"}, None, job)


@pytest.mark.parametrize("write", [put_again, patch_nothing, apply_again])
def test_a_job_that_is_written_as_it_was_after_its_calendar_fires_on(write: Any) -> None:
    """The write that changes nothing is the first to look at the job since: its times go on under the new calendar."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        calendars = Calendars(machine=leader.machine, time=leader.time, writes=leader.service)
        body = {"schedule": "*/5 * * * * *", "exclude": ["x"], "executor": {"type": "noop"}}
        await calendars.put("x", {}, ANY, None)
        await leader.service.put_job("job", body, ANY, None)
        await scene.seconds(6 - second(leader.now_ms()))
        await calendars.put("x", {"schedules": ["*/10 * * * * *"]}, ANY, None)
        await write(leader, body)
        await scene.seconds(10)
        assert told(scene.rows()) == [(5, "succeeded", None), (15, "succeeded", None)]
        assert not leader.machine.timeline.unreadable

    play(act)


def test_a_write_of_a_job_that_owes_very_much_decides_it_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many parts that are: it is no conflict with anybody."""
    monkeypatch.setattr(planner, "SETTLED_FIRES", 5)

    async def act(scene: Scene) -> None:
        await scene.put(misfire={"grace": "24h"}, overlap={"policy": "allow"}, history={"runs": 2_000})
        scene.die("n1")
        await scene.seconds(1_300)  # a hundred a part
        monkeypatch.setattr(Scheduler, "_may_decide", lambda self, now: False)  # the leader has not come to it yet
        scene.elect("n2")
        await scene.leader.service.patch_job("job", {"timeout": "9s"}, ANY, None)
        times = scene.ticks()[:1_295]
        assert times == [times[0] + number for number in range(1_295)]
        assert times[0] < 5

    play(act)


def test_a_calendar_that_is_written_as_a_job_is_resumed_drops_nothing() -> None:
    """What the job missed is decided under what the calendar said before, though both were on their way at once."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        calendars = Calendars(machine=leader.machine, time=leader.time, writes=leader.service)
        await calendars.put("x", {}, ANY, None)
        await scene.put(schedule="* * * * * *", exclude=["x"], overlap={"policy": "allow"})
        begin = second(leader.now_ms())
        await scene.seconds(2.5)
        await leader.service.pause_job("job", None, ANY, None)
        await scene.seconds(3)
        nothing_more, end = {"schedules": ["* * * * * *"]}, second(leader.now_ms())
        await asyncio.gather(
            leader.service.resume_job("job", {"catch_up": True}, ANY, None),
            calendars.put("x", nothing_more, ANY, None),
        )
        await scene.seconds(5)
        assert scene.ticks() == list(range(int(begin) + 1, int(end) + 1))

    play(act)


# ---- jitter ----------------------------------------------------------------------------------------------------------


def test_jitter_delays_each_run_by_a_share_of_its_own() -> None:
    """It starts at due_at, not at its scheduled time, on time by that; jobs of one schedule part ways."""

    async def act(scene: Scene) -> None:
        for number in range(20):
            await scene.put(f"job-{number}", schedule="*/10 * * * * *", jitter="9s")
        await scene.seconds(40)
        waits = set()
        for number in range(20):
            rows = scene.rows(f"job-{number}")
            assert [second(row.scheduled_time) for row in rows][:3] == [10, 20, 30]
            for row in rows:
                assert 0 <= row.due_at - row.scheduled_time < 9_000
                assert row.started_at is not None
                assert 0 <= row.started_at - row.due_at <= 5
                waits.add(row.due_at - row.scheduled_time)
        assert len(waits) > 30

    play(act)


def test_jitter_is_the_same_under_the_next_leader() -> None:
    """What waited for its jitter when the leader died starts at the instant that it would have."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="*/20 * * * * *", jitter="19s")
        job = job_of(scene)
        [first] = coming_of(job, *known_of(scene, job), scene.leader.now_ms(), 1)
        assert first.due_at is not None
        await scene.seconds(second(first.scheduled_time) + 0.1 - second(scene.leader.now_ms()))
        assert scene.rows() == []
        assert coming_of(job, *known_of(scene, job), scene.leader.now_ms(), 1) == [first]  # it is ahead still
        scene.die("n1")
        scene.elect("n2")
        await scene.seconds(20)
        row = scene.rows()[0]
        assert (row.scheduled_time, row.due_at) == (first.scheduled_time, first.due_at)
        assert row.started_at is not None
        assert row.started_at - row.due_at <= 5

    play(act)


def known_of(scene: Scene, job: Job) -> tuple[Any, Any]:
    machine = scene.leader.machine
    policy = machine.state.policy(job.uid)
    return policy, machine.timeline.times(job, policy)


def test_an_edit_before_the_jitter_is_over_leaves_a_run_that_waits() -> None:
    """It is decided under the old definition, queued until its instant, and started then; a delete ends it."""

    async def act(scene: Scene) -> None:
        for name in ("job", "gone"):
            await scene.put(name, schedule="0 * * * * *", jitter="59s")
        await scene.seconds(60 - second(scene.leader.now_ms()) + 0.01)
        for name in ("job", "gone"):
            await scene.put(name, schedule="@yearly")
            [row] = scene.rows(name)
            assert (row.state, row.not_before) == ("queued", row.due_at)
        await scene.delete("gone")
        [row] = scene.rows()
        await scene.seconds((row.due_at - scene.leader.now_ms()) / 1000 - 0.01)
        assert row.state == "queued"
        await scene.seconds(0.1)
        assert row.state == "succeeded"
        assert row.started_at is not None
        assert row.started_at - row.due_at <= 50
        assert [attempt.job for attempt in scene.leader.executor.started] == ["job"]

    play(act)


# ---- the end of the last run ----------------------------------------------------------------------------------------


def test_from_last_end_counts_from_the_end_of_the_last_run() -> None:
    """However long it took; runs by hand do not move it, and a new leader goes on from the same end."""

    async def act(scene: Scene) -> None:
        for actor in scene.actors:
            actor.executor.scripts["job"] = Script(7.0)
        await scene.put(schedule="@every 10s from last_end")
        anchor = second(job_of(scene).anchor)
        await scene.seconds(anchor + 12 - second(scene.leader.now_ms()))
        assert scene.ticks() == [anchor + 10]
        assert job_of(scene).last_end is None
        await scene.seconds(6)
        end = job_of(scene).last_end
        assert second(end) == pytest.approx(anchor + 17, abs=0.1)
        scene.actors[0].executor.scripts["job"] = Script(1.0)
        await propose(scene, Trigger("job", None))
        await scene.seconds(2)
        assert job_of(scene).last_end == end
        scene.die("n1")
        scene.elect("n2")
        await scene.seconds(9)
        scheduled = [row.scheduled_time for row in scene.rows() if row.cause == "schedule"]
        assert scheduled[1:] == [end + 10_000]  # type: ignore[operator]

    play(act)


def test_from_last_end_goes_on_whatever_became_of_a_time() -> None:
    """Lost, skipped by request, kept out by an overlap, missed in an outage, or not owed during a pause."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="@every 10s from last_end", history={"runs": 100})
        await scene.seconds(20)
        job = job_of(scene)
        [ahead] = coming_of(job, *known_of(scene, job), scene.leader.now_ms(), 5)
        await propose(scene, SkipNext("job", [ahead.scheduled_time], job.revision))
        await scene.seconds(9)
        assert told(scene.rows())[-1] == (second(ahead.scheduled_time), "skipped", "requested")
        scene.actors[0].executor.scripts["job"] = Script(20.0)
        await propose(scene, Trigger("job", None))
        await scene.seconds(3)
        assert told(scene.rows())[-1][1:] == ("skipped", "overlap")
        scene.actors[0].executor.scripts["job"] = Script(None)
        await scene.seconds(25)
        assert job.last_end is None
        scene.die("n1")  # with the run
        await scene.seconds(30)
        scene.elect("n2")
        await scene.seconds(30)
        states = [row.state for row in scene.rows()]
        assert states.count("lost") == 1
        before = len(states)
        scene.cluster.depose()
        await scene.seconds(65)
        scene.elect("n2")
        await scene.seconds(12)
        catch_up = scene.rows()[before:]
        assert [row.missed_count for row in catch_up if row.cause == "catch_up"] == [0]  # one time was missed, not six
        job = job_of(scene)
        await propose(scene, PauseJob("job", [], job.revision))
        await scene.seconds(30)
        now = scene.leader.now_ms()
        await propose(scene, ResumeJob("job", job.revision, now, None))
        await scene.seconds(11)
        assert second(scene.rows()[-1].scheduled_time) > second(now)

    play(act)


# ---- bounds and calendars -------------------------------------------------------------------------------------------


def test_a_job_ends_with_its_runs_and_goes_on_when_it_may_have_more() -> None:
    """max_runs counts what became a run; what lies between the end and the edit is not owed."""

    async def act(scene: Scene) -> None:
        await scene.put(max_runs=3, overlap={"policy": "allow"})
        await scene.seconds(10)
        assert scene.ticks() == [3, 4, 5]
        assert job_of(scene).fired == 3
        await scene.put(max_runs=5, overlap={"policy": "allow"})
        now = second(scene.leader.now_ms())
        await scene.seconds(10)
        assert scene.ticks()[:3] == [3, 4, 5]
        assert len(scene.ticks()) == 5
        assert min(scene.ticks()[3:]) >= now

    play(act)


def test_start_at_and_end_at_bound_the_times() -> None:
    """Both instants count; nothing before and nothing after is owed."""

    async def act(scene: Scene) -> None:
        await scene.put(start_at="2027-01-15T08:00:05Z", end_at="2027-01-15T08:00:08Z")
        await scene.seconds(12)
        assert scene.ticks() == [5, 6, 7, 8]
        machine = scene.leader.machine
        job = job_of(scene)
        assert machine.timeline.state_of(job, machine.state.policy(job.uid)) == "ended"

    play(act)


def test_a_calendar_takes_hold_at_once_and_nothing_is_decided_twice() -> None:
    """On every node: what it excludes is not owed; taken back, what was excluded meanwhile stays so."""

    async def act(scene: Scene) -> None:
        await put_calendar(scene)
        for name in ("a", "b"):
            await scene.put(name, overlap={"policy": "allow"}, exclude=["x"], history={"runs": 100})
        await scene.seconds(4.2)
        await put_calendar(scene, schedules=["10-19 * * * * *"])
        await scene.seconds(8)
        scene.die("n1")
        scene.elect("n2")
        await scene.seconds(2)
        await put_calendar(scene)
        await scene.seconds(5)
        for name in ("a", "b"):
            ticks = scene.ticks(name)
            assert ticks == sorted(set(ticks))
            assert [tick for tick in ticks if 5 <= tick < 15] == [5, 6, 7, 8, 9]
            assert ticks[-4:] == [17, 18, 19, 20]

    play(act)


# ---- leaders that read times otherwise -------------------------------------------------------------------------------


class Elsewhere:
    """Reads schedules with another tz data: Berlin keeps summer time for ever, and Asia/Kathmandu is not known."""

    berlin = Zone("Europe/Berlin", zone_data("Etc/GMT-2"))

    def __call__(self, recurrence: Recurrence, name: str) -> tuple[Schedule, ...]:
        if recurrence.timezone == "Asia/Kathmandu":
            raise ScheduleError("the time zone 'Asia/Kathmandu' is not known to tz data 1999z")
        if recurrence.timezone != "Europe/Berlin":
            return read_schedules(recurrence, name)
        found = []
        for text in recurrence.schedules:
            schedule = CronSchedule(text, recurrence.timezone, Dst(), name)
            schedule.zone = self.berlin
            found.append(schedule)
        return tuple(found)


def reckons_otherwise(actor: Actor) -> None:
    """This node has another edition of the tz data, from its start on."""
    machine = actor.machine
    machine.timeline = Timeline(machine.state.calendars, Elsewhere())
    machine.editions = (machine.editions[0], "1999z")


def test_a_leader_with_another_tz_data_works_out_anew_what_lies_ahead() -> None:
    """Nothing that was decided is touched or decided again, and counting begins anew."""

    async def act(scene: Scene) -> None:
        reckons_otherwise(scene.names["n2"])
        local = "1 9 * * *"  # at the second minute of this scene, by the first leader's tz data
        await scene.put("early", schedule=local, timezone="Europe/Berlin")
        await scene.put("late", schedule="3 10 * * *", timezone="Europe/Berlin")  # at its fourth, by the second's
        await scene.put("plain", schedule="*/30 * * * * *")
        await scene.seconds(100)
        assert scene.ticks("early") == [60]
        assert scene.leader.machine.state.editions["tzdata"].since == 1
        decided = {name: scene.rows(name)[0].log_index for name in ("early", "plain")}
        scene.die("n1")
        scene.elect("n2")
        await scene.seconds(200)
        assert scene.ticks("early") == [60]
        assert scene.ticks("late") == [180]
        assert scene.ticks("plain") == [30.0 * n for n in range(1, 11)]
        assert {name: scene.rows(name)[0].log_index for name in decided} == decided
        state = scene.leader.machine.state
        assert state.editions["tzdata"].version == "1999z"
        assert (job_of(scene, "plain").counted_from - START_MS) / 1000 == 90
        assert job_of(scene, "plain").fired == 7

    play(act)


def test_a_zone_that_the_leader_does_not_know_pauses_the_job_on_every_node() -> None:
    """With a note that names the zone and the edition; other jobs go on, and somebody has to resume it."""

    async def act(scene: Scene) -> None:
        reckons_otherwise(scene.names["n2"])
        await scene.put("there", timezone="Asia/Kathmandu", schedule="* * * * * *")
        await scene.put("here", schedule="* * * * * *")
        await scene.seconds(3)
        assert not job_of(scene, "there").paused
        scene.cluster.depose()
        scene.elect("n2")
        await scene.seconds(3)
        for actor in scene.actors:
            job = actor.machine.state.jobs["there"]
            assert job.paused
            assert "'Asia/Kathmandu' is not known to tz data 1999z" in job.pause_note
            assert "leader n2" in job.pause_note
        assert scene.leader.machine.timeline.unreadable == {}
        scene.cluster.depose()
        scene.elect("n1")
        await scene.seconds(3)
        assert job_of(scene, "there").paused
        assert len(scene.rows("here")) >= 9
        now = scene.leader.now_ms()
        await propose(scene, ResumeJob("there", job_of(scene, "there").revision, now))
        await scene.seconds(2)
        assert second(scene.rows("there")[-1].scheduled_time) > second(now)

    play(act)


def test_a_job_that_a_leader_cannot_read_is_paused_and_told_of() -> None:
    """Once, by an alert of its own kind, to whoever is to be told; its neighbours go on."""
    told: list[tuple[str, str]] = []

    async def act(scene: Scene) -> None:
        await scene.put("well")
        machine, index = scene.leader.machine, scene.leader.machine.state.index
        machine.events = log = EventLog()
        log.restored(index)
        await scene.put("lost", schedule="0 3 * * *", timezone="Mars/Olympus")
        await scene.seconds(5)
        assert scene.leader.machine.state.jobs["lost"].paused
        assert not scene.leader.machine.state.jobs["well"].paused
        events = [event for _, event in log.whole().read() if isinstance(event, JobEvent)]
        told.extend((event.name, event.note) for event in events if event.alert == "paused")

    play(act)
    ((name, note),) = told
    assert name == "lost"
    assert "Mars/Olympus" in note
