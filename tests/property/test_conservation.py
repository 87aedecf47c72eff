"""Planner, timeline and apply together: whatever is done to jobs and calendars, each time that is owed has one fate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core import commands as c
from raftcron.core import definition, exclusion
from raftcron.core.coming import coming_of
from raftcron.core.ledger import owed
from raftcron.core.model import COUNTED_CAUSES, ENDED, QUEUED, REASON_PAUSED, REASON_REQUESTED, SKIPPED, Job, Run
from raftcron.core.planner import decide, paused_summary, settle
from raftcron.core.timeline import ENDED as JOB_ENDED
from raftcron.core.timeline import Timeline
from raftcron.core.times import Times
from raftcron.runtime.why import why
from tests.unit.machine import Machine

NOW = 1_774_746_000_000  # 2026-03-29T01:00:00Z, where Berlin's clock jumps
DEFINITIONS = [
    {"schedule": "*/10 * * * * *"},
    {"schedule": "*/10 * * * * *", "jitter": "7s", "overlap": {"policy": "allow"}},
    {"schedule": ["@every 7s", "* * * * *"], "exclude": ["x"], "misfire": {"grace": "1s", "window": "40s"}},
    {
        "schedule": "*/3 * * * * *",
        "misfire": {"policy": "all", "grace": "2s", "window": "1m", "max": 4},
        "overlap": {"policy": "queue", "queue": 3},
        "max_runs": 40,
    },
    {"schedule": "@every 4s", "misfire": {"policy": "skip", "grace": "3s"}, "exclude": ["x"], "start_deadline": "9s"},
    {"schedule": "@every 6s", "misfire": {"policy": "all", "grace": "1s"}, "overlap": {"policy": "allow"}},
    {"schedule": "@every 15s", "jitter": "1m", "exclude": ["x"]},
    {"schedule": "@every 9s from last_end", "timezone": "Europe/Berlin"},
    {"schedule": ["@every 20s from last_end", "*/30 * * * * *"], "exclude": ["x"], "jitter": "3s"},
    {"schedule": "*/5 * * * * *", "max_runs": 3, "overlap": {"policy": "allow"}, "misfire": {"grace": "3s"}},
    {"schedule": "* * * * *", "start_at": "2026-03-29T01:01:30Z", "end_at": "2026-03-29T01:04:00Z"},
    {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "dst": {"gap": "skip"}},
    {"schedule": "*/4 * * * * *", "overlap": {"policy": "queue", "queue": 2}, "start_deadline": "20s"},
    {"schedule": "@every 6s", "overlap": {"policy": "replace", "max_running": 2}, "jitter": "2s"},
    {"schedule": "@every 5s from last_end", "overlap": {"policy": "replace"}, "retry": {"max_attempts": 2}},
]
ENDINGS = st.sampled_from(["succeeded", "succeeded", "failed", "lost", "goes on"])
CALENDARS = [
    {},
    {"dates": ["2026-03-29"]},
    {"schedules": ["*/2 * * * *"]},
    {"schedules": ["30-59 * * * * *"], "timezone": "Asia/Kathmandu"},
]


class Court:
    """One leader's hands, step by step, over a state whose log is at hand; and all that was ever decided."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.machine.at = NOW
        self.machine.lead()
        self.machine.announce("n1", slots=1_000)
        self.machine.write(c.PutCalendar("x", exclusion.canonical({}), NOW))
        self.state = self.machine.state
        self.timeline = Timeline(self.state.calendars)
        self.fates: dict[tuple[int, int], str] = {}  # single times
        self.spans: dict[int, list[tuple[int, int, str]]] = {}  # summaries, by uid
        self.watermarks: dict[int, int] = {}
        self.stood: dict[str, list[int]] = {}  # the times of each summary, under what its job said until then
        self.edited: dict[int, int] = {}  # by uid: where in the log its times came to follow from something else

    @property
    def now(self) -> int:
        return self.machine.at

    def write(self, command: c.Command, *, may_be_refused: bool = False) -> None:
        times = {job.uid: self.times(job) for job in self.state.jobs.values()}
        rules = {uid: self.rules(uid) for uid in times}
        outcome = self.machine.write(command)
        assert may_be_refused or isinstance(outcome, c.Done), outcome
        for row in [self.state.runs[one] for one in self.state.touched_runs if one in self.state.runs]:
            if row.count is not None and row.id not in self.stood:
                assert row.first is not None
                assert row.last is not None
                self.stood[row.id] = times[row.uid].between(row.first - 1, row.last, 1_000)
                assert len(self.stood[row.id]) == row.count
        for uid, before in rules.items():
            if self.rules(uid) != before:
                self.edited[uid] = self.state.index
        self.follow()
        self.check()

    def rules(self, uid: int) -> object:
        """What a job's times follow from."""
        recurrence = self.state.policy(uid).recurrence
        calendars = [self.state.calendars[name].definition for name in recurrence.exclude]
        return recurrence, calendars, self.state.editions_since

    def follow(self) -> None:
        state, timeline = self.state, self.timeline
        for uid in state.touched_jobs:
            timeline.update(state.by_uid[uid], state.policies[uid])
        state.touched_jobs.clear()
        for name in state.touched_calendars:
            timeline.reread(name)
        state.touched_calendars.clear()
        assert not timeline.unreadable
        for run_id in sorted(state.touched_runs):
            run = state.runs.get(run_id)
            if run is not None:
                self.note(run)
        state.touched_runs.clear()

    def note(self, run: Run) -> None:
        """I1: a time is decided once, alone or within one summary."""
        if run.count is None:
            fate = self.fates.setdefault((run.uid, run.scheduled_time), run.id)
            assert fate == run.id
            first = last = run.scheduled_time
        else:
            assert run.first is not None
            assert run.last is not None
            first, last = run.first, run.last
        spans = self.spans.setdefault(run.uid, [])
        if (first, last, run.id) not in spans:
            assert all(last < begin or end < first for begin, end, _ in spans)
            spans.append((first, last, run.id))

    def check(self) -> None:
        state = self.state
        for job in state.jobs.values():
            assert job.decided_through >= self.watermarks.get(job.uid, 0)
            self.watermarks[job.uid] = job.decided_through
            count = owed(job, state.policy(job.uid), state.calendars, state.editions_since)
            assert count in (None, job.fired + job.skipped), (job, count)
            assert all(at > job.decided_through for at in job.skips)

    # ---- what a leader does

    def lead(self, keep: st.SearchStrategy[bool], data: st.DataObject) -> None:
        """End the pauses that are over, and decide what is due; some of it is not taken."""
        for uid in self.timeline.pauses_over(self.now, 10):
            job = self.state.by_uid[uid]
            if data.draw(keep):
                self.resume(job, job.pause_until)
            self.timeline.update(job, self.state.policy(uid))
        for _ in range(100):
            head = self.timeline.next_at()
            if head is None or head > self.now:
                return
            decisions = []
            for uid in self.timeline.due(self.now, self.state.by_uid.get, 3):
                job, group = self.state.by_uid[uid], self.timeline.group_of(uid)
                decision = None if group is None else decide(job, self.state.policy(uid), group, self.now)
                if decision is not None:
                    decisions.append(decision)
            if data.draw(keep):
                self.write(c.Decide(c.Place("n1", 1), decisions))
            for decision in decisions:
                self.timeline.update(self.state.by_uid[decision.uid], self.state.policy(decision.uid))
            if not data.draw(keep):
                return
        raise AssertionError("there is no end of what is due")

    def settle(self, job: Job) -> list[c.Decision]:
        return settle(job, self.state.policy(job.uid), self.timeline.group_of(job.uid), self.now)

    def times(self, job: Job) -> Times:
        return self.timeline.times(job, self.state.policy(job.uid))

    def put(self, name: str, fields: dict[str, object]) -> None:
        stored = definition.canonical({"executor": {"type": "noop"}, "history": {"runs": 10_000}, **fields})
        job = self.state.jobs.get(name)
        decisions = [] if job is None else self.settle(job)
        seen = None if job is None else self.state.revision_of(job)
        self.write(c.PutJob(name, stored, None if job is None else self.now, decisions, seen))

    def pause(self, job: Job, until: int | None = None) -> None:
        self.write(c.PauseJob(job.name, self.settle(job), self.state.revision_of(job), until=until))

    def resume(self, job: Job, until: int | None = None, *, catch_up: bool = False) -> None:
        """Now, or as of an instant that has passed; with `catch_up` what fell into the pause is owed after all."""
        through = job.decided_through if catch_up else self.now if until is None else until
        summary = None
        if not catch_up:
            summary = paused_summary(job, self.state.policy(job.uid), through, self.times(job))
        self.write(c.ResumeJob(job.name, self.state.revision_of(job), through, summary))

    def skip(self, job: Job, count: int) -> None:
        ahead = coming_of(job, self.state.policy(job.uid), self.times(job), self.now, count)
        self.write(c.SkipNext(job.name, [one.scheduled_time for one in ahead], self.state.revision_of(job)))

    def change_calendar(self, fields: dict[str, object]) -> None:
        decisions = [
            decision
            for uid in self.state.calendar_jobs.get("x", {})
            for decision in self.settle(self.state.by_uid[uid])
        ]
        seen = self.state.calendars["x"].revision
        self.write(c.PutCalendar("x", exclusion.canonical(fields), self.now, decisions, seen))

    def end_runs(self, draw: Callable[[st.SearchStrategy[str]], str] = lambda endings: "succeeded") -> None:
        started = [run for runs in list(self.state.on_node.values()) for run in runs.values()]
        ends = [c.Finished(run.id, run.fencing_token, draw(ENDINGS)) for run in started]
        if ends:
            self.write(c.Finish([end for end in ends if end.state != "goes on"]))
        waiting = [run.id for run in self.state.waiting.values()]
        if waiting:
            self.write(c.Requeue(waiting))
        queued = [run.id for run in self.state.runs.values() if run.state == QUEUED]
        if queued:
            self.write(c.Expire(queued))
        queued = [c.Assignment(run_id, c.Place("n1", 1), True) for run_id in self.state.queued]
        if queued:
            self.write(c.Assign(queued))


async def check_inside(court: Court, job: Job, row: Run) -> None:
    """A row of many tells of each of its times and of nothing between them; after an edit only of what is certain."""
    stood = court.stood[row.id]
    is_edited = row.log_index <= court.edited.get(job.uid, 0)
    is_from_ends = bool(court.state.policy(job.uid).recurrence.end_intervals)
    is_paused = row.reason == REASON_PAUSED
    told = ("not_due", REASON_PAUSED) if is_paused else ("skipped", row.reason)
    unknown = told if is_paused else ("forgotten", None)
    for at in {*stood[:2], *stood[-2:], *(time + 1_000 for time in stood[:-1][:3])}:
        found = await why(court.state, court.timeline, job, at, court.now)
        if found.scheduled_time not in (at, None):
            continue  # asked for by when it is due
        verdict, is_of_row = (found.verdict, found.reason), found.row is not None and found.row.id == row.id
        if at in (stood[0], stood[-1]) or (at in stood and not is_edited and not is_from_ends):
            assert (verdict, is_of_row) == (told, True)
        elif len(stood) > 2 and (is_edited or is_from_ends):
            may_be_told = at in stood and not is_edited
            assert is_of_row
            assert verdict == unknown or (may_be_told and verdict == told)
        else:
            assert verdict[0] == "not_due"
            assert not is_of_row


async def check_why(court: Court) -> None:
    """Whatever is decided says so: by its row, and by each time that is owed."""
    state, timeline, now = court.state, court.timeline, court.now
    for job in state.jobs.values():
        for row in state.runs_of(job.uid):
            if row.cause not in COUNTED_CAUSES:
                continue
            is_skipped = row.state == SKIPPED and row.reason != REASON_PAUSED
            expected = "not_due" if row.reason == REASON_PAUSED else "skipped" if is_skipped else "fired"
            for at in {row.first or row.scheduled_time, row.last or row.scheduled_time}:
                found = await why(state, timeline, job, at, now)
                assert (found.verdict, found.row and found.row.id) == (expected, row.id)
            if row.count is not None:
                await check_inside(court, job, row)
        if state.policy(job.uid).recurrence.end_intervals:
            continue
        times = court.times(job)
        is_counted_anew = job.counted_index >= state.editions_since  # by now, under the tz data that leaders have
        for at in times.between(max(job.counted_from, times.floor), job.decided_through, 20 * is_counted_anew):
            assert (await why(state, timeline, job, at, now)).verdict in ("fired", "skipped")
        for at in times.between(max(job.decided_through, times.floor), now + 20_000, 3):
            assert (await why(state, timeline, job, at, now)).verdict in ("undecided", "not_due")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_each_time_that_is_owed_has_one_fate(data: st.DataObject) -> None:
    """I1, I4, I5, I11, I14, with every field that bounds, thins or spreads a job's times, and edits in between."""
    court = Court()
    definitions, mostly = st.sampled_from(DEFINITIONS), st.integers(0, 5).map(bool)
    court.put("a", data.draw(definitions))
    for _ in range(data.draw(st.integers(1, 25))):
        job = court.state.jobs[data.draw(st.sampled_from(sorted(court.state.jobs)))]
        match data.draw(st.integers(0, 12)):
            case 0:
                court.put(data.draw(st.sampled_from(["a", "b"])), data.draw(definitions))
            case 1:
                if not job.paused:
                    court.pause(job, data.draw(st.none() | st.integers(1, 40_000).map(court.now.__add__)))
                else:
                    court.resume(job, catch_up=data.draw(st.booleans()))
            case 2 if not job.paused:
                court.skip(job, data.draw(st.integers(0, 3)))
            case 3:
                court.change_calendar(data.draw(st.sampled_from(CALENDARS)))
                if data.draw(st.booleans()):  # and a job as it was, which is looked at first thereby
                    court.put(job.name, definition.written_of(job.definition))
            case 4:
                court.write(c.Lead("n1", 1, 1, "0", "0", data.draw(st.sampled_from(["2026a", "2026b"]))))
            case 5 | 6:
                court.end_runs(data.draw)
            case 7 | 8 | 9:
                court.machine.at += data.draw(st.integers(0, 40_000))
            case _:
                court.lead(mostly, data)
    court.lead(st.just(True), data)
    for job in court.state.jobs.values():  # nothing that is due has fallen off the timeline
        group = court.timeline.group_of(job.uid)
        if group is not None:
            assert decide(job, court.state.policy(job.uid), group, court.now) is None
        elif not job.paused:
            assert court.timeline.state_of(job, court.state.policy(job.uid)) == JOB_ENDED
    again = Machine()
    for body in court.machine.log:
        again.append(body)
    assert again.state.digest == court.state.digest
    asyncio.run(check_why(court))


def test_what_was_asked_to_be_skipped_is_skipped_with_its_reason() -> None:
    """On time or missed, alone or among others; the rest fires as if nothing were."""
    court = Court()
    court.put("a", {"schedule": "*/10 * * * * *", "overlap": {"policy": "allow"}})
    job = court.state.jobs["a"]
    court.skip(job, 2)
    assert job.skips == (NOW + 10_000, NOW + 20_000)
    court.machine.at = NOW + 10_000
    lead_all(court)
    court.machine.at = NOW + 65_000  # 20 to 50 were missed, 60 is on time
    lead_all(court)
    rows = sorted((run.scheduled_time - NOW, run.state, run.reason, run.count) for run in court.state.runs.values())
    assert rows == [
        (10_000, "skipped", REASON_REQUESTED, 1),
        (20_000, "skipped", REASON_REQUESTED, 1),
        (50_000, "skipped", "coalesced", 3),
        (60_000, "running", None, None),
    ]
    assert job.skips == ()
    assert court.state.runs[job.last_run or ""].missed_count == 3


def lead_all(court: Court) -> None:
    while (head := court.timeline.next_at()) is not None and head <= court.now:
        for uid in court.timeline.due(court.now, court.state.by_uid.get, 10):
            group = court.timeline.group_of(uid)
            decision = group and decide(court.state.by_uid[uid], court.state.policy(uid), group, court.now)
            if decision:
                court.write(c.Decide(c.Place("n1", 1), [decision]))


def test_runs_of_every_kind_end() -> None:
    """The court's own steps do reach what they are there for: runs start and end, also those that wait for jitter."""
    court = Court()
    court.put("a", DEFINITIONS[1])
    court.machine.at += 10_000
    court.pause(court.state.jobs["a"])
    assert [run.not_before > court.now for run in court.state.waiting.values()] == [True]
    court.resume(court.state.jobs["a"])
    court.machine.at += 7_000
    court.end_runs()
    court.end_runs()
    assert [run.state in ENDED and run.reason != REASON_PAUSED for run in court.state.runs.values()] == [True]
