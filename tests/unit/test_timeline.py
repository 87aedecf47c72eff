"""The timeline's bounds: what one look costs, how groups stay together, what changes under them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from raftcron.core import definition, exclusion
from raftcron.core.instant import parse_rfc3339
from raftcron.core.model import Calendar, Job, Policy
from raftcron.core.timeline import ACTIVE, ENDED, HEAP_SLACK, PAUSED, Timeline
from tests.schedules.test_bounds import calls_of

NOW = parse_rfc3339("2027-01-15T08:00:00Z")
HOUR = 3_600_000


class Many:
    """Jobs and their policies, on one timeline."""

    def __init__(self) -> None:
        self.calendars: dict[str, Calendar] = {}
        self.timeline = Timeline(self.calendars)
        self.jobs: dict[int, Job] = {}
        self.policies: dict[int, Policy] = {}

    def put(self, count: int, **fields: Any) -> list[Job]:
        stored = definition.canonical({"schedule": "@hourly", "executor": {"type": "noop"}, **fields})
        policy = definition.policy_of(stored)
        made = []
        for _ in range(count):
            uid = len(self.jobs) + 1 << 12
            job = self.jobs[uid] = Job(f"job-{uid}", uid, 1, NOW, NOW, stored, NOW, NOW, NOW)
            self.policies[uid] = policy
            self.timeline.update(job, policy)
            made.append(job)
        return made

    def calendar(self, revision: int, holds_from: int, **fields: Any) -> None:
        self.calendars["x"] = Calendar("x", revision, NOW, NOW, exclusion.canonical(fields), holds_from)
        self.timeline.reread("x")

    def due(self, now: int, limit: int) -> list[list[int]]:
        """What each look names, until nothing is due."""
        looks = []
        while (at := self.timeline.next_at()) is not None and at <= now:
            looks.append(self.timeline.due(now, self.jobs.get, limit))
        return looks

    def decide(self, job: Job, through: int) -> None:
        job.decided_through = through
        self.timeline.update(job, self.policies[job.uid])

    def next_of(self, job: Job) -> int | None:
        group = self.timeline.group_of(job.uid)
        return None if group is None else group.next_after(group.watermark(job))


def test_one_look_names_no_more_jobs_than_its_limit() -> None:
    """However many share an instant: all of them come, each once, and a look costs what it names."""
    many = Many()
    many.put(5_000)
    looks = many.due(NOW + HOUR, 100)
    assert max(map(len, looks)) == 100
    assert len(looks) <= 55
    assert sorted(uid for look in looks for uid in look) == sorted(many.jobs)
    many.put(5_000, schedule="*/30 * * * *")
    many.timeline.due(NOW + HOUR, many.jobs.get, 100)
    assert calls_of(lambda: many.timeline.due(NOW + HOUR, many.jobs.get, 100)) < 1_000


def test_one_look_moves_no_more_cursors_than_its_limit_allows() -> None:
    """Finding the next time of an expression costs as much as many jobs, and counts as such."""
    many = Many()
    for minute in range(60):
        many.put(1, schedule=f"{minute} * * * *", timezone="Europe/Berlin")
    looks = many.due(NOW + HOUR, 100)
    assert len(looks) >= 60 * 16 / 116
    assert sorted(uid for look in looks for uid in look) == sorted(many.jobs)


def test_jitter_keeps_a_schedule_one_group() -> None:
    """Its jobs wait one by one from their time on, each until its own instant."""
    many = Many()
    many.put(1_000, jitter="10m")
    assert len(many.timeline.groups) == 1
    assert [uid for look in many.due(NOW + HOUR, 100) for uid in look] == []
    named = {}
    for minute in range(1, 11):
        now = NOW + HOUR + minute * 60_000
        for look in many.due(now, 100):
            named.update(dict.fromkeys(look, minute))
            for uid in look:
                many.decide(many.jobs[uid], NOW + HOUR)
    assert sorted(named) == sorted(many.jobs)
    assert len(set(named.values())) == 10
    assert many.timeline.next_at() == NOW + 2 * HOUR


def test_who_follows_has_nothing_to_look_at_when_it_takes_over() -> None:
    """But for what is undecided: the cursors have gone with the decisions."""
    many = Many()
    jobs = many.put(1_000)
    other = many.put(1_000, schedule="30 * * * *")
    for job in jobs[:-2]:
        many.decide(job, NOW + HOUR)
    for job in other:
        many.decide(job, NOW + HOUR // 2)
    looks = many.due(NOW + HOUR, 100)
    assert sorted(uid for look in looks for uid in look) == [job.uid for job in jobs[-2:]]
    assert calls_of(lambda: many.due(NOW + HOUR, 100)) < 20


def test_what_a_follower_never_pops_does_not_pile_up() -> None:
    """Entries of cursors that have moved, and of jobs that were behind, leave in time."""
    many = Many()
    [job] = many.put(1, schedule="@every 1s from 2026-01-01T00:00:00Z")
    [late] = many.put(1, schedule="@every 1s from 2026-01-01T00:00:00Z")
    for tick in range(1, 3 * HEAP_SLACK):
        many.decide(job, NOW + tick * 1_000)
        many.decide(late, NOW + tick * 500)
    timeline = many.timeline
    assert len(timeline._cursors) <= HEAP_SLACK + 8
    assert len(timeline._singles) <= HEAP_SLACK + 8


def test_a_changed_calendar_is_read_when_it_is_asked_for() -> None:
    """Not at once, since it may have very many groups; and no time before it took hold comes up again."""
    many = Many()
    many.calendar(1, NOW)
    [job] = many.put(1, exclude=["x"])
    for minute in range(1, 51):
        many.put(1, schedule=f"{minute} * * * *", exclude=["x"])
    assert many.next_of(job) == NOW + HOUR
    now = NOW + HOUR + 60_000
    spent = calls_of(lambda: many.calendar(2, now, schedules=["* 10-11 * * *"]))
    assert spent < 50 * 12
    assert many.next_of(job) == NOW + 4 * HOUR
    assert all(job.uid not in look for look in many.due(NOW + 4 * HOUR - 1, 100))
    assert job.uid in many.due(NOW + 4 * HOUR, 10_000)[0]
    many.calendar(3, now + 1)
    assert many.next_of(job) == NOW + 2 * HOUR


def test_a_calendar_holds_from_its_instant_only_for_jobs_that_were_written_before_it() -> None:
    """Where the clock was set back between: the times until then are owed, also when another calendar has changed."""
    many = Many()
    for revision, name in enumerate(("x", "y"), 10):
        many.calendars[name] = Calendar(name, revision, NOW, NOW, exclusion.canonical({}), NOW + 8_000)
    [job] = many.put(1, schedule="@every 1s", exclude=["x", "y"])
    job.counted_index = 15
    many.timeline.update(job, many.policies[job.uid])
    assert many.next_of(job) == NOW + 1_000
    many.calendar(20, NOW + 3_000, dates=["2030-01-01"])
    assert many.next_of(job) == NOW + 4_000


def test_a_calendar_that_cannot_be_read_stops_its_jobs_alone() -> None:
    """With the reason, whenever that is found out; a readable one takes them up again."""
    many = Many()
    many.calendar(1, NOW)
    [job] = many.put(1, exclude=["x"])
    [other] = many.put(1)
    many.calendar(2, NOW, timezone="Mars/Olympus")
    assert [uid for look in many.due(NOW + HOUR, 100) for uid in look] == [other.uid]
    assert "'Mars/Olympus' is not known to tz data" in many.timeline.unreadable[job.uid]
    many.calendar(3, NOW)
    many.decide(job, NOW)
    assert many.timeline.unreadable == {}
    assert many.next_of(job) == NOW + HOUR
    [missing] = many.put(1, exclude=["y"])
    assert "there is no calendar 'y'" in many.timeline.unreadable[missing.uid]


@pytest.mark.parametrize(
    ("fields", "job_fields", "expected"),
    [
        ({}, {}, ACTIVE),
        ({}, {"paused": True}, PAUSED),
        ({"schedule": "@manual"}, {}, ACTIVE),
        ({"schedule": "@at 2027-01-15T07:00:00Z"}, {}, ENDED),
        ({"schedule": ["@at 2027-01-15T07:00:00Z", "@hourly"]}, {}, ACTIVE),
        ({"end_at": "2027-01-15T08:59:59Z"}, {}, ENDED),
        ({"end_at": "2027-01-15T09:00:00Z"}, {}, ACTIVE),
        ({"max_runs": 3}, {"fire_count": 2}, ACTIVE),
        ({"max_runs": 3}, {"fire_count": 3}, ENDED),
        ({"schedule": "@every 5m from last_end"}, {"last_end": None}, ACTIVE),
        ({"schedule": "@every 5m from last_end"}, {"last_end": NOW}, ACTIVE),
    ],
)
def test_states_of_jobs(fields: dict[str, Any], job_fields: dict[str, Any], expected: str) -> None:
    """Ended is what neither a time nor a hand will start again."""
    many = Many()
    [job] = many.put(1, **fields)
    for name, value in job_fields.items():
        setattr(job, name, value)
    many.decide(job, NOW)
    assert many.timeline.state_of(job, many.policies[job.uid]) == expected


def test_who_owes_is_told_without_a_look_at_the_calendar() -> None:
    """Those with an undecided time up to now, waiting for their jitter or not; the others cost next to nothing."""
    many = Many()
    jobs = [*many.put(200), *many.put(200, jitter="50m"), *many.put(600, schedule="30 * * * *")]
    assert many.timeline.owing(jobs, NOW + HOUR // 2 - 1) == []
    many.due(NOW + HOUR, 100)
    many.decide(jobs[0], NOW + HOUR)
    for job in jobs[400:]:
        many.decide(job, NOW + HOUR // 2)
    spent = calls_of(lambda: many.timeline.owing(jobs[400:], NOW + HOUR))
    assert spent < 600 * 2
    assert many.timeline.owing(jobs, NOW + HOUR) == jobs[1:400]


def test_a_pause_that_ends_is_named_at_its_instant_and_again_until_it_has_ended() -> None:
    """Moved, taken away or deleted before, it is not named; what restores a state knows of it too."""
    timeline = Timeline({})
    policy = definition.policy_of(definition.canonical({"schedule": "@every 10s", "executor": {"type": "noop"}}))
    job = Job("job", 1, 1, 0, 0, b"", 0, 0, 0, paused=True, pause_until=50_000)
    timeline.update(job, policy)
    assert timeline.next_at() == 50_000
    assert timeline.pauses_over(49_999, 10) == []
    assert (timeline.paused_until(49_999), timeline.paused_until(50_000)) == ([], [1])
    assert timeline.pauses_over(50_000, 10) == [1]
    assert timeline.pauses_over(50_000, 10) == []
    assert timeline.paused_until(50_000) == [1], "its end is on its way, and not written yet"
    timeline.update(job, policy)  # its resume was not written
    assert timeline.pauses_over(50_000, 10) == [1]
    changes: list[dict[str, Any]] = [{"pause_until": 90_000}, {"pause_until": None}, {"paused": False}]
    for change in changes:
        timeline.update(job, policy)
        changed = msgspec.structs.replace(job, **change)
        timeline.update(changed, policy)
        assert timeline.pauses_over(60_000, 10) == timeline.paused_until(60_000) == []
    assert timeline.pauses_over(90_000, 10) == []
    timeline.update(job, policy)
    timeline.remove(1)
    assert timeline.pauses_over(60_000, 10) == timeline.paused_until(60_000) == []


def test_many_pauses_that_were_moved_take_no_room() -> None:
    """The heap holds about as many as there are pauses."""
    timeline = Timeline({})
    policy = definition.policy_of(definition.canonical({"schedule": "@every 10s", "executor": {"type": "noop"}}))
    for until in range(100_000, 120_000):
        timeline.update(Job("job", 1, 1, 0, 0, b"", 0, 0, 0, paused=True, pause_until=until), policy)
    assert len(timeline._pauses) < 2_000
    assert timeline.pauses_over(200_000, 10) == [1]
