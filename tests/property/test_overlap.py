"""Overlap over random courses of events: never more runs than may, the skipped know why, and no time is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core import commands as c
from raftcron.core import definition
from raftcron.core.model import ASSIGNED, CAUSE_BACKFILL, ENDED, ON_A_NODE, QUEUED, SKIPPED, UNLIMITED, Job
from tests.property.test_state_machine import check
from tests.unit.machine import NOOP, Machine, cluster

OVERLAPS: list[dict[str, Any]] = [
    {"policy": "skip"},
    {"policy": "skip", "max_running": 3},
    {"policy": "allow"},
    {"policy": "allow", "max_running": 2},
    {"policy": "queue"},
    {"policy": "queue", "max_running": 2, "queue": 3},
    {"policy": "queue", "queue": 0},
    {"policy": "replace"},
    {"policy": "replace", "max_running": 2},
]
HERE = c.Place("n1", 1)


def stored(overlap: dict[str, Any], attempts: int, delivery: str) -> bytes:
    return definition.canonical(
        {
            "schedule": "@every 1s",
            "executor": NOOP,
            "overlap": overlap,
            "retry": {"max_attempts": attempts, "backoff": "2s"},
            "delivery": delivery,
            "start_deadline": "9s",
            "history": {"runs": 10_000},
        }
    )


definitions = st.builds(
    stored, st.sampled_from(OVERLAPS), st.integers(1, 2), st.sampled_from(["at_most_once", "at_least_once"])
)


class Tale:
    """One job; what was going on before the last entry, and how many times have been decided since it counts."""

    def __init__(self, first: bytes) -> None:
        self.machine = cluster()
        self.state = self.machine.state
        self.machine.done(c.PutJob("job", first, None))
        self.going_on: set[str] = set()
        self.told: dict[str, str] = {}  # how runs ended: that stands for ever

    @property
    def job(self) -> Job:
        return self.state.jobs["job"]

    def write(self, command: c.Command) -> None:
        before, known = self.going_on, set(self.state.runs)
        self.machine.write(command)
        check(self.state)
        policy = self.state.policy(self.job.uid)
        runs = [self.state.runs[run_id] for run_id in self.state.active.get(self.job.uid, ())]
        after = {run.id for run in runs if not run.waits_turn}
        forced = isinstance(command, c.Trigger) and command.allow_overlap
        if after - before and not forced:  # I9: who joins those that go on finds room
            assert policy.max_running == UNLIMITED or len(after) <= policy.max_running
        waiting = [run for run in runs if run.waits_turn and run.cause != CAUSE_BACKFILL]
        assert all(run.blocked_by in self.state.runs for run in waiting)
        if policy.overlap == "replace" and any(run.id not in known for run in waiting):
            assert len(waiting) == 1, "only the newest newcomer waits"
        self.going_on = after
        for run in self.state.runs.values():
            if run.state in ENDED:
                assert self.told.setdefault(run.id, run.state) == run.state
            if run.reason in ("overlap", "limit", "queue_full"):
                assert run.cause != CAUSE_BACKFILL
                if run.id not in known and run.blocked_by is not None:
                    other = self.state.runs[run.blocked_by]
                    assert other.cause != CAUSE_BACKFILL or other.state not in (QUEUED, ASSIGNED)
                assert (run.blocked_by or run.replaced_by) in self.state.runs
                assert run.blocked_by != run.id != run.replaced_by
            if run.cause == CAUSE_BACKFILL:
                continue
            if run.attempts and run.attempts[0].attempt == 1 and run.attempts[0].started_at is not None:
                assert run.attempts[0].started_at <= run.scheduled_time + 9_000
            if run.state == SKIPPED:
                assert not run.attempts
        owed = (self.job.decided_through - self.job.anchor) // 1_000
        since = (self.job.counted_from - self.job.anchor) // 1_000
        assert self.job.fired + self.job.skipped == max(0, owed) - max(0, since)

    # ---- what happens

    def decide(self, count: int, *, caught_up: bool) -> None:
        """The next times, of which several may be late."""
        first = max(self.job.decided_through, self.job.anchor) // 1_000 * 1_000
        times = [first + 1_000 * number for number in range(1, count + 1)]
        self.machine.at = max(self.machine.at, times[-1])
        fires = [c.Fire(at, at, "catch_up" if caught_up else "schedule") for at in times]
        self.write(c.Decide(HERE, [c.Decision(self.job.uid, self.job.revision, times[-1], fires)]))

    def end_one(self, draw: Any) -> None:
        runs = [run for runs in self.state.on_node.values() for run in runs.values()]
        if runs:
            run, token = (run := draw(st.sampled_from(runs))), c.Token(run.id, run.fencing_token)
            ending = draw(st.sampled_from(["succeeded", "failed", "cancelled", "lose", "not_started"]))
            if ending == "lose":
                self.write(c.Lose("n1", 1, [token]))
            elif ending == "not_started":
                self.write(c.NotStarted([token]))
            else:
                self.write(c.Finish([c.Finished(run.id, run.fencing_token, ending)]))

    def start_queued(self, *, start: bool = True) -> None:
        self.write(c.Assign([c.Assignment(run_id, HERE, start) for run_id in self.state.active.get(self.job.uid, ())]))

    def backfill(self, count: int) -> None:
        times = list(range(1_000, self.machine.at + 1, 1_000))[-count:]
        self.write(c.Backfill("job", times, self.state.revision_of(self.job)))


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_no_more_runs_go_on_than_may_and_each_time_has_its_row(data: st.DataObject) -> None:
    """I1, I4, I9 for every overlap policy, with edits between them."""
    tale = Tale(data.draw(definitions))
    for _ in range(data.draw(st.integers(1, 30))):
        match data.draw(st.integers(0, 13)):
            case 0 | 1 | 2 if not tale.job.paused:
                tale.decide(data.draw(st.integers(1, 4)), caught_up=data.draw(st.booleans()))
            case 3:
                tale.write(c.Trigger("job", data.draw(st.sampled_from([HERE, None])), None, data.draw(st.booleans())))
            case 4 | 5:
                tale.end_one(data.draw)
            case 6:
                tale.start_queued(start=data.draw(st.booleans()))
            case 7:
                tale.machine.at += data.draw(st.sampled_from([1_000, 5_000, 20_000]))
                tale.write(c.Requeue(list(tale.state.waiting)))
                tale.write(c.Expire(list(tale.state.active.get(tale.job.uid, ()))))
            case 8:
                tale.write(c.PutJob("job", data.draw(definitions), None, seen_revision=tale.job.revision))
            case 9 if active := list(tale.state.active.get(tale.job.uid, ())):
                tale.write(c.Cancel(data.draw(st.sampled_from(active))))
            case 10:
                through = tale.job.decided_through
                resume = c.ResumeJob("job", tale.job.revision, through)
                tale.write(resume if tale.job.paused else c.PauseJob("job", [], tale.job.revision))
            case 11:
                tale.write(c.Lead("n1", 1, 1, "0", "0", "0"))
            case 12 | 13:
                tale.backfill(data.draw(st.integers(1, 3)))
    again = Machine()
    for body in tale.machine.log:
        again.append(body)
    assert again.state.digest == tale.state.digest


def test_the_tale_reaches_what_it_is_there_for() -> None:
    """Runs wait for their turn, are displaced, and start."""
    tale = Tale(stored({"policy": "replace"}, 1, "at_most_once"))
    tale.decide(3, caught_up=False)
    tale.decide(1, caught_up=False)
    states = [run.state for run in tale.state.runs.values()]
    assert states == ["skipped", "skipped", "cancelling", "queued"]
    assert [run.state for runs in tale.state.on_node.values() for run in runs.values() if run.state in ON_A_NODE]
