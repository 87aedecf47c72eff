"""Whatever was missed: the planner's decisions cover each owed instant once, in order, and none that is not owed."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from raftcron.core import definition
from raftcron.core.commands import Decision
from raftcron.core.model import Job, Policy
from raftcron.core.planner import decide, first_watermark, paused_summary, settle
from raftcron.core.policy import jitter_of
from raftcron.core.schedule import between_of
from raftcron.core.timeline import Group, Timeline
from raftcron.core.times import schedules_of, times_of

NOW = 1_800_000_000_000
DAY = 86_400_000
SCHEDULES = ["@every 1s", "@every 7s", "* * * * *", "*/5 * * * * *", "0 3 * * *", "@hourly"]

durations = st.integers(0, 400).map(lambda n: f"{n}s")


def job_of(policy: Policy, stored: bytes, watermark: int) -> Job:
    return Job("job", 1, 1, 0, 0, stored, 0, watermark, watermark)


def covered(decision: Decision, policy: Policy) -> list[int]:
    """Every instant that a decision speaks for."""
    found = [fire.scheduled_time for fire in decision.fires]
    for summary in decision.summaries:
        inside = between_of(schedules_of(policy), summary.first - 1, summary.last, 0, 10**6)
        assert len(inside) == summary.count
        assert (inside[0], inside[-1]) == (summary.first, summary.last)
        found.extend(inside)
    return sorted(found)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(SCHEDULES), min_size=1, max_size=2, unique=True),
    durations,
    durations,
    st.integers(0, 2_000),
    st.integers(0, 999),
    st.sampled_from(["once", "skip", "all"]),
    st.integers(1, 12),
)
@example(["@every 1s"], "10s", "300s", 1_000, 0, "once", 1)
@example(["@every 1s"], "10s", "300s", 1_000, 0, "all", 12)
def test_decisions_cover_what_is_owed_exactly_once(
    schedules: list[str], grace: str, window: str, seconds: int, milliseconds: int, misfire: str, most: int
) -> None:
    """I1 and I4 on the planner's side, for any misfire policy, grace and window."""
    stored = definition.canonical(
        {
            "schedule": schedules,
            "executor": {"type": "noop"},
            "misfire": {"policy": misfire, "grace": grace, "window": window, "max": most},
        }
    )
    policy = definition.policy_of(stored)
    watermark = NOW - seconds * 1_000 - milliseconds
    job = job_of(policy, stored, watermark)
    group = Group(Timeline.key_of(job, policy), 0, times_of(policy.recurrence, schedules_of(policy), 0))
    owed = between_of(schedules_of(policy), watermark, NOW, 0, 10**6)
    found: list[int] = []
    while (decision := decide(job, policy, group, NOW)) is not None:
        assert decision.through > job.decided_through
        caught_up = [fire for fire in decision.fires if fire.cause == "catch_up"]
        assert len(caught_up) <= {"once": 1, "skip": 0, "all": most}[misfire]
        assert all(fire.scheduled_time < NOW - policy.grace_ms for fire in caught_up)
        found.extend(covered(decision, policy))
        job.decided_through = decision.through
    assert found == owed
    job.decided_through = watermark
    settled = settle(job, policy, group, NOW)
    assert [n for decision in settled for n in covered(decision, policy)] == owed


def owing(jobs: dict[int, Job], policies: dict[int, Policy], now: int) -> set[int]:
    """The jobs that have an undecided time whose jitter is over."""
    found = set()
    for uid, job in jobs.items():
        schedules, jitter = schedules_of(policies[uid]), policies[uid].recurrence.jitter_ms
        first = between_of(schedules, job.decided_through, now + 2 * DAY, job.anchor, 2)
        if not job.paused and first:
            waits = jitter_of(uid, first[0], min([jitter, first[1] - first[0]])) if jitter else 0
            if first[0] + waits <= now:
                found.add(uid)
    return found


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_the_timeline_names_each_job_that_is_due_and_no_other(data: st.DataObject) -> None:
    """However jobs come, go, are edited, and whatever is decided or left undecided, here or by another leader.

    Others may be named too, since a group is not looked through; for those there is nothing to decide.
    """
    timeline = Timeline({})
    jobs: dict[int, Job] = {}
    policies: dict[int, Policy] = {}
    now = NOW
    for _ in range(data.draw(st.integers(1, 25))):
        uid = data.draw(st.integers(1, 6))
        action = data.draw(st.sampled_from(["put", "put", "remove", "pause", "pass", "follow", "due", "due"]))
        if action == "put":
            schedule, jitter = data.draw(st.sampled_from(SCHEDULES)), data.draw(st.sampled_from(["0s", "0s", "40s"]))
            stored = definition.canonical({"schedule": schedule, "jitter": jitter, "executor": {"type": "noop"}})
            policies[uid] = definition.policy_of(stored)
            watermark = max(now - data.draw(st.integers(0, 20_000)), jobs[uid].decided_through if uid in jobs else 0)
            jobs[uid] = Job("job", uid, 1, 0, 0, stored, data.draw(st.integers(0, 1)) * 500, watermark, watermark)
            timeline.update(jobs[uid], policies[uid])
        elif action == "remove" and uid in jobs:
            del jobs[uid]
            timeline.remove(uid)
        elif action == "pause" and uid in jobs:
            jobs[uid].paused = not jobs[uid].paused
            timeline.update(jobs[uid], policies[uid])
        elif action == "pass":
            now += data.draw(st.integers(1, 120_000))
        elif action == "follow":  # another leader has decided
            for uid in sorted(owing(jobs, policies, now)):
                group = timeline.group_of(uid)
                if group is not None and data.draw(st.booleans()):
                    decision = decide(jobs[uid], policies[uid], group, now)
                    assert decision is not None
                    jobs[uid].decided_through = decision.through
                    timeline.update(jobs[uid], policies[uid])
        else:
            wanted, limit = owing(jobs, policies, now), data.draw(st.sampled_from([1, 2, 100]))
            due: list[int] = []
            while (head := timeline.next_at()) is not None and head <= now:
                named = timeline.due(now, jobs.get, limit)
                assert len(named) == len(set(named)) <= limit
                due += named
            plans = {
                uid: decide(jobs[uid], policies[uid], group, now)
                for uid in due
                if uid in jobs and (group := timeline.group_of(uid)) is not None
            }
            assert {uid for uid, decision in plans.items() if decision is not None} == wanted
            for uid, decision in plans.items():
                if decision is not None:
                    if data.draw(st.booleans()):
                        jobs[uid].decided_through = decision.through
                    timeline.update(jobs[uid], policies[uid])  # decided, or it failed and is due again


def test_a_one_off_in_the_past_fires_if_it_lies_within_the_window() -> None:
    """`@at` an hour ago is run now; two days ago it is not."""
    for hours, expected in ((1, NOW - 3_600_000 - 1), (48, None), (-1, None)):
        from raftcron.core.instant import rfc3339

        stored = definition.canonical(
            {"schedule": f"@at {rfc3339(NOW - hours * 3_600_000)}", "executor": {"type": "noop"}}
        )
        policy = definition.policy_of(stored)
        assert first_watermark(schedules_of(policy), policy, NOW) == expected


def test_a_pause_is_summed_up_in_one_row() -> None:
    """First, last and count of what was not owed."""
    stored = definition.canonical({"schedule": "@every 10s", "executor": {"type": "noop"}})
    policy = definition.policy_of(stored)
    summary = paused_summary(job_of(policy, stored, NOW), policy, NOW + 65_000)
    assert summary is not None
    assert (summary.first, summary.last, summary.count) == (NOW + 10_000, NOW + 60_000, 6)
