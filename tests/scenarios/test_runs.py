"""Stories of runs: from the clock to the record, across leaders, leases, lives and edits."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from raftcron.core.commands import Trigger
from raftcron.ports import Attempt, Control, Ending
from raftcron.testing.scripted_executor import Script
from tests.scenarios.scene import START_MS, Scene, play


def test_every_scheduled_time_is_fired_once_and_on_time() -> None:
    """The loop wakes at the instant, and each run ends in the log."""

    async def act(scene: Scene) -> None:
        await scene.put()
        await scene.seconds(5)
        assert scene.ticks() == [3, 4, 5, 6]
        assert {row.state for row in scene.rows()} == {"succeeded"}
        assert all(row.started_at is not None and row.started_at - row.due_at <= 5 for row in scene.rows())
        assert len(scene.starts()) == len(set(scene.starts())) == 4

    play(act)


def test_times_in_a_gap_between_leaders_are_late_fires_of_the_next_one() -> None:
    """Within the grace each is decided once, in order."""

    async def act(scene: Scene) -> None:
        await scene.put(overlap={"policy": "allow"})
        await scene.seconds(2)
        scene.die("n1")
        await scene.seconds(4)
        scene.elect("n2")
        await scene.seconds(2)
        assert scene.ticks() == [3, 4, 5, 6, 7, 8, 9]
        assert {row.cause for row in scene.rows()} == {"schedule"}
        assert {row.state for row in scene.rows()} == {"succeeded"}

    play(act)


def test_times_older_than_the_grace_become_one_run_and_one_coalesced_row() -> None:
    """Misfire `once`: the first on-time fire stands for what was missed."""

    async def act(scene: Scene) -> None:
        await scene.put(history={"runs": 100}, overlap={"policy": "allow"}, misfire={"grace": "2s"})
        await scene.seconds(2)
        scene.die("n1")
        await scene.seconds(10)
        scene.elect("n2")
        await scene.seconds(0.2)
        [coalesced] = [row for row in scene.rows() if row.count is not None]
        assert coalesced.reason == "coalesced"
        assert coalesced.count == 8
        standing = next(row for row in scene.rows() if row.missed_count)
        assert (standing.missed_count, standing.missed_first) == (8, coalesced.first)
        job = scene.leader.machine.state.jobs["job"]
        owed = (job.decided_through - START_MS) // 1000 - 2
        assert job.fired + job.skipped == owed

    play(act)


def test_a_job_without_grace_and_window_still_has_the_second_that_deciding_and_starting_take() -> None:
    """What is half a second late was not missed, what is older was."""

    async def act(scene: Scene) -> None:
        await scene.put(misfire={"policy": "skip", "grace": "0s", "window": "0s"})
        await scene.seconds(3.3)
        scene.die("n1")
        await scene.seconds(3.7)
        scene.elect("n2")
        await scene.seconds(0.2)
        assert scene.ticks() == [3, 4, 7, 8]
        [_, _, expired, late] = scene.rows()
        assert (expired.reason, expired.count) == ("expired", 3)
        assert (late.cause, late.state, late.reason) == ("schedule", "succeeded", None)

    play(act)


def test_a_rare_job_that_was_missed_is_caught_up_by_one_run_of_its_latest_time() -> None:
    """Nothing of it lies within the grace: the latest missed time runs as `catch_up`."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="@every 20s")
        await scene.seconds(2)
        scene.die("n1")
        await scene.seconds(75)
        scene.elect("n2")
        await scene.seconds(1.5)
        [coalesced, run] = sorted(scene.rows(), key=lambda row: row.scheduled_time)
        assert (run.cause, run.state, run.missed_count) == ("catch_up", "succeeded", 2)
        assert (coalesced.reason, coalesced.count) == ("coalesced", 2)

    play(act)


def test_catch_up_is_paced_for_the_whole_cluster() -> None:
    """Forty jobs that were missed start at the catch-up rate, not all at once."""

    async def act(scene: Scene) -> None:
        for number in range(40):
            await scene.put(f"job-{number}", schedule="@every 60s")
        scene.die("n1")
        await scene.seconds(90)
        scene.elect("n2")
        started = []
        for _ in range(5):
            await scene.seconds(1)
            started.append(len(scene.names["n2"].executor.started))
        assert started[-1] == 40
        assert all(later - earlier <= 11 for earlier, later in pairwise(started)), started

    play(act, catch_up_rate=10)


def test_a_run_on_a_dead_node_is_lost_after_one_lease_and_tried_again_where_the_class_says_so() -> None:
    """The same run id, the next attempt, a higher token; at_most_once stays lost."""

    async def act(scene: Scene) -> None:
        for actor in scene.actors:
            actor.executor.scripts = {"once": Script(None), "again": Script(None)}
        await scene.put("once", schedule="@every 60s")
        await scene.put("again", schedule="@every 60s", delivery="at_least_once")
        await scene.seconds(62)
        [once], [again] = scene.rows("once"), scene.rows("again")
        assert (once.state, again.state, again.node) == ("running", "running", "n1")
        token = again.fencing_token
        scene.names["n2"].executor.scripts = {}
        scene.die("n1")
        scene.elect("n2")
        await scene.seconds(9)
        [once] = scene.rows("once")
        assert once.state == "running", "the new leader waits one whole lease"
        await scene.seconds(4)
        [once], [again] = scene.rows("once"), scene.rows("again")
        assert (once.state, once.error_kind) == ("lost", "node_lost")
        assert (again.state, again.attempt, again.node) == ("succeeded", 2, "n2")
        assert again.fencing_token > token
        assert scene.starts("again") == [("n1", again.id, 1), ("n2", again.id, 2)]

    play(act)


def test_the_next_life_of_a_node_ends_the_runs_of_the_former_at_once() -> None:
    """Its announcement is proof enough; no lease is waited for."""

    async def act(scene: Scene) -> None:
        for actor in scene.actors:
            actor.executor.scripts = {"job": Script(None)}
        await scene.put(schedule="@every 60s")
        await scene.seconds(62)
        scene.die("n1")
        scene.elect("n2")
        scene.reborn("n1", 2)
        await scene.seconds(1.2)
        [run] = scene.rows()
        assert (run.state, run.error_kind) == ("lost", "node_restarted")

    play(act)


def test_a_node_that_was_cut_off_starts_nothing_that_it_learns_late() -> None:
    """It applies `running` and `lost` in one batch, and looks at the newest state."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="@every 60s", delivery="at_least_once")
        await scene.seconds(30)
        former = scene.names["n1"]
        former.log.lag()
        former.log.knows_leader = False
        scene.cluster.append(_decide(scene))
        scene.elect("n2")
        await scene.seconds(12)
        former.log.knows_leader = True
        former.log.resume()
        await scene.seconds(3)
        assert [start for start in scene.starts() if start[0] == "n1"] == []
        [row] = scene.rows()
        assert (row.state, row.node, row.attempt) == ("succeeded", "n2", 2)

    play(act)


def _decide(scene: Scene) -> bytes:
    """The entry by which n1 would have started the job's next time on itself."""
    from raftcron.core.codec import encode_entry
    from raftcron.core.commands import Decide, Decision, Entry, Fire, Place

    state = scene.names["n2"].machine.state
    job = state.jobs["job"]
    due = job.anchor + 60_000
    decision = Decision(job.uid, job.revision, due, [Fire(due, due)])
    return encode_entry(Entry(state.epoch, scene.names["n1"].now_ms(), Decide(Place("n1", 1), [decision])))


def test_a_node_cut_off_stops_what_could_be_started_elsewhere() -> None:
    """At lease minus margin; a job that may overlap freely and is at_most_once goes on."""

    async def act(scene: Scene) -> None:
        scene.names["n1"].executor.scripts = {"single": Script(None), "free": Script(None)}
        await scene.put("single", schedule="@every 60s")
        await scene.put("free", schedule="@every 60s", overlap={"policy": "allow"})
        await scene.seconds(62)
        scene.cluster.cut()
        await scene.seconds(6)
        assert scene.names["n1"].executor.stopped == []
        await scene.seconds(3)
        stopped = [(attempt.job, reason) for attempt, reason in scene.names["n1"].executor.stopped]
        assert stopped == [("single", "lease")]

    play(act)


def test_nothing_starts_without_a_licence() -> None:
    """No majority confirms the leader: what it has applied as running is refused in the end, and queued again."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="@manual")
        leader = scene.leader
        leader.presence.license = type(leader.presence.license)(0.0, 0, 0)
        leader.leases._read_index = _never
        await leader.proposer.propose(Trigger("job", None))
        await scene.seconds(2)
        [row] = scene.rows()
        assert (row.state, scene.starts()) == ("running", [])
        token = row.fencing_token
        await scene.seconds(5)
        assert scene.starts() == []
        [row] = scene.rows()
        assert row.fencing_token > token, "the refused token was not replaced"
        assert row.attempt == 1

    play(act)


async def _never() -> int:
    from raftcron.errors import UnavailableError

    raise UnavailableError("no majority")


def test_a_failed_run_is_tried_again_after_its_back_off() -> None:
    """Attempts are numbered, each with its own token, and the last one speaks."""

    async def act(scene: Scene) -> None:
        scene.leader.executor.scripts = {"job": Script(0.0, Ending("failed", exit_code=7, error="exit 7"))}
        await scene.put(schedule="@every 60s", retry={"max_attempts": 3})
        await scene.seconds(61 + 1)
        [row] = scene.rows()
        assert row.state == "waiting_retry"
        await scene.seconds(5)
        [row] = scene.rows()
        assert (row.state, row.exit_code, row.attempt) == ("failed", 7, 3)
        assert [record.state for record in row.attempts] == ["failed"] * 3
        tokens = [record.fencing_token for record in row.attempts]
        assert tokens == sorted(set(tokens))

    play(act)


def test_a_full_node_starts_the_next_run_when_a_slot_is_left() -> None:
    """Ten runs through two slots, all in the end."""

    async def act(scene: Scene) -> None:
        scene.leader.executor.scripts = {"job": Script(1.0)}
        await scene.put(schedule="@manual", overlap={"policy": "allow"})
        for _ in range(10):
            await scene.leader.proposer.propose(Trigger("job", None))
        await scene.seconds(0.5)
        assert len(scene.starts()) == 2
        await scene.seconds(6)
        assert {row.state for row in scene.rows()} == {"succeeded"}
        assert len(scene.starts()) == 10

    play(act, slots=2)


def test_an_edit_fires_what_was_due_and_nothing_again() -> None:
    """The old definition's times are decided in the entry of the edit."""

    async def act(scene: Scene) -> None:
        await scene.put()
        await scene.seconds(3)
        await scene.put(schedule="@every 2s")
        await scene.seconds(4)
        ticks = scene.ticks()
        assert ticks == sorted(set(ticks))
        assert ticks[:2] == [3, 4]
        assert {row.state for row in scene.rows()} == {"succeeded"}

    play(act)


def test_deleting_with_cancel_running_stops_the_run() -> None:
    """The worker is told through the state; the run ends cancelled."""

    async def act(scene: Scene) -> None:
        scene.leader.executor.scripts = {"job": Script(None)}
        await scene.put(schedule="@every 60s")
        await scene.seconds(62)
        [row] = scene.rows()
        await scene.delete(cancel_running=True)
        await scene.seconds(1)
        assert scene.leader.machine.state.runs[row.id].state == "cancelled"
        assert scene.leader.executor.stopped[0][1] == "cancelled"

    play(act)


def test_an_orderly_end_gives_runs_their_grace_and_records_what_became_of_them() -> None:
    """What ends in time ends by itself; the rest is stopped and lost, with the reason."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        leader.executor.scripts = {"short": Script(3.0), "long": Script(None)}
        await scene.put("short", schedule="@every 60s")
        await scene.put("long", schedule="@every 60s")
        await scene.seconds(61)
        scene.elect("n2")
        await leader.worker.drain(9.0)
        await scene.seconds(1)
        [short], [long] = scene.rows("short"), scene.rows("long")
        assert short.state == "succeeded"
        assert (long.state, long.error_kind) == ("lost", "shutdown")

    play(act)


def test_a_proposal_whose_outcome_is_unknown_neither_drops_nor_doubles_a_time() -> None:
    """Written or not, the watermark tells, and the loop looks again."""

    async def act(scene: Scene) -> None:
        await scene.put(history={"runs": 100})
        await scene.seconds(1.2)
        for answer in ("unknown", "unknown_written", "unavailable", "unknown"):
            scene.leader.log.next_answer = answer
            await scene.seconds(1)
        await scene.seconds(2)
        ticks = scene.ticks()
        assert ticks == [float(n) for n in range(3, 3 + len(ticks))]
        assert len(scene.starts()) == len(set(scene.starts()))

    play(act)


def test_attempts_of_one_run_share_a_trace_and_have_spans_of_their_own() -> None:
    """W3C trace context, derived from run and token."""

    async def act(scene: Scene) -> None:
        scene.leader.executor.scripts = {"job": Script(0.0, Ending("failed", exit_code=1))}
        await scene.put(schedule="@manual", retry={"max_attempts": 2})
        await scene.leader.proposer.propose(Trigger("job", None))
        await scene.seconds(3)
        first, second = (attempt.traceparent.split("-") for attempt in scene.leader.executor.started)
        assert (first[0], len(first[1]), len(first[2]), first[3]) == ("00", 32, 16, "01")
        assert first[1] == second[1]
        assert first[2] != second[2]

    play(act)


def test_equal_logs_give_equal_states_on_every_node() -> None:
    """After a busy scene all nodes stand at one digest."""

    async def act(scene: Scene) -> None:
        scene.leader.executor.scripts = {"b": Script(2.5), "c": Script(0, Ending("failed", exit_code=1))}
        for name in "abc":
            await scene.put(name, retry={"max_attempts": 2})
        await scene.seconds(20)
        digests = {actor.machine.state.digest for actor in scene.actors}
        assert len(digests) == 1

    play(act, nodes=3)


@pytest.mark.parametrize(("delivery", "attempts"), [("at_most_once", 1), ("at_least_once", 3)])
def test_an_end_that_nobody_saw_is_a_loss(delivery: str, attempts: int) -> None:
    """An executor that cannot prove that its attempt is over has not failed: only the class lets another one start."""

    async def act(scene: Scene) -> None:
        unseen = Ending("failed", proven=False, error_kind="spawner")
        for actor in scene.names.values():
            actor.executor.scripts = {"job": Script(1.0, unseen)}
        await scene.put(schedule="@every 60s", delivery=delivery, retry={"max_attempts": 3, "backoff": "1s"})
        await scene.seconds(80)
        [row] = scene.rows()
        assert (row.state, row.error_kind, row.attempt) == ("lost", "spawner", attempts)
        assert [attempt for _, _, attempt in scene.starts()] == list(range(1, attempts + 1))

    play(act)


class _Wordless:
    """Its text, which whoever reports the end asks for, cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no word")


@pytest.mark.parametrize(
    ("way", "said"), [("cancelled", "CancelledError(), though nobody"), ("wordless", "has left no word of its end")]
)
def test_an_attempt_that_is_over_does_not_stay_running(way: str, said: str) -> None:
    """Its executor says that it was cancelled, though nobody cancelled it, or its end cannot be told: it is lost."""

    async def run(attempt: Attempt, control: Control) -> Ending:
        control.may_start()
        if way == "cancelled":
            inner = asyncio.get_running_loop().create_future()
            inner.cancel()
            await inner
        word: Any = _Wordless()
        return Ending("failed", error=word)

    async def act(scene: Scene) -> None:
        for actor in scene.actors:
            actor.executor.run = run  # type: ignore[method-assign]
        await scene.put(schedule="@every 60s")
        await scene.seconds(65)
        [row] = scene.rows()
        assert (row.state, row.error_kind) == ("lost", "executor")
        assert said in (row.error or "")

    play(act)
