"""Stories meant to break the run protocol: races of leaders, leases, edits and clocks, and reports that make no sense.

The rules of the protocol's executable model, and the tests that hold the code to them, are listed at the end of this
file.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from raftcron.core import definition
from raftcron.core.codec import encode_entry
from raftcron.core.commands import (
    Announce,
    Assign,
    Assignment,
    Command,
    Decide,
    Decision,
    Entry,
    Expire,
    Fire,
    PauseJob,
    Place,
    PutJob,
    Refused,
    Requeue,
    ResumeJob,
    Summary,
    Trigger,
)
from raftcron.core.model import ENDED
from raftcron.errors import UnavailableError
from raftcron.ports import Applied, Ending, Log
from raftcron.runtime.worker import STUCK_SECONDS
from raftcron.testing.scripted_executor import Script
from raftcron.testing.virtual_time import VirtualLoop, run_virtual
from tests.scenarios.scene import START_MS, Actor, Scene, play
from tests.scenarios.trouble import apply_until, cut_off, heal
from tests.unit.machine import cluster
from tests.unit.test_apply import anew

ENTRY_BYTES = 1 << 20  # of one command, as the log takes it


def decide_elsewhere(scene: Scene, name: str, on: str) -> bytes:
    """The entry by which node `on` would have decided the job's next time and started it on itself."""
    state = scene.names["n2"].machine.state
    job = state.jobs[name]
    due = job.anchor + 60_000
    decision = Decision(job.uid, job.revision, due, [Fire(due, due)])
    return encode_entry(Entry(state.epoch, scene.names[on].now_ms(), Decide(Place(on, 1), [decision])))


async def stop_planning(actor: Actor) -> None:
    """Its scheduler's loop ends; steps are taken by hand from now on."""
    assert actor.leading is not None
    actor.leading.cancel()
    await asyncio.gather(actor.leading, return_exceptions=True)


# ---- scheduled times: none dropped, none twice ---------------------------------------------------------------------


def test_a_lead_that_ends_while_decisions_wait_for_room_leaves_no_time_behind() -> None:
    """What was planned and never submitted is due still when the same node leads again."""

    async def act(scene: Scene) -> None:
        for second in range(5, 15):
            await scene.put(f"at-{second}", schedule=f"{second} * * * * *")
        await scene.seconds(2)
        log = scene.leader.log
        log.stall = asyncio.Event()  # eight decisions are in flight, two more wait for room
        await scene.seconds(11)
        scene.cluster.depose()
        await scene.seconds(0.5)
        log.stall = None
        scene.elect("n1")
        await scene.seconds(3)
        assert {name: scene.ticks(name) for name in (f"at-{second}" for second in range(5, 15))} == {
            f"at-{second}": [float(second)] for second in range(5, 15)
        }

    play(act)


class AnswersLate:
    """A log whose answers reach the proposer some time after the entry has applied, as on a busy loop."""

    def __init__(self, log: Log, seconds: float) -> None:
        self._log = log
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def propose(self, body: bytes, epoch: int) -> Applied:
        applied = await self._log.propose(body, epoch)
        await asyncio.sleep(self._seconds)
        return applied


def test_a_time_that_falls_due_between_an_apply_and_its_answer_is_decided_at_once() -> None:
    """The job's cursor has passed the second time while the first decision still counted as under way."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="10,11 * * * * *")
        scene.leader.proposer._log = AnswersLate(scene.leader.log, 1.2)  # type: ignore[assignment]  # a Log by its methods
        await scene.seconds(13)
        assert scene.ticks() == [10, 11]

    play(act)


def test_a_decision_in_flight_when_the_lead_changes_is_taken_once() -> None:
    """Written by the old leader or not, the successor's watermark tells."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="10 * * * * *")
        await scene.seconds(5)
        scene.cluster.append(
            encode_entry(
                Entry(
                    scene.leader.machine.epoch,
                    START_MS + 10_000,
                    Decide(
                        Place("n1", 1),
                        [
                            Decision(
                                (job := scene.leader.machine.state.jobs["job"]).uid,
                                job.revision,
                                START_MS + 10_000,
                                [Fire(START_MS + 10_000, START_MS + 10_000)],
                            )
                        ],
                    ),
                )
            )
        )
        scene.elect("n2")
        await scene.seconds(10)
        assert scene.ticks() == [10]
        assert len(scene.starts()) == 1

    play(act)


def test_a_leader_whose_clock_is_behind_its_predecessor_repeats_nothing_and_goes_on() -> None:
    """The watermark stands where the former clock was; from there on times are decided as ever."""

    async def act(scene: Scene) -> None:
        scene.leader.clock.wall_offset = 5.0
        await scene.put(overlap={"policy": "allow"}, history={"runs": 100})
        await scene.seconds(4)
        scene.elect("n2")
        await scene.seconds(10)
        ticks = scene.ticks()
        assert ticks == [float(n) for n in range(int(ticks[0]), int(ticks[-1]) + 1)]
        assert len(scene.starts()) == len(set(scene.starts())) == len(ticks)

    play(act)


def test_a_leader_whose_clock_is_ahead_fires_early_and_its_successor_drops_nothing() -> None:
    """Each time has one row, whoever's clock named it due."""

    async def act(scene: Scene) -> None:
        await scene.put(overlap={"policy": "allow"}, history={"runs": 100})
        scene.names["n2"].clock.wall_offset = 4.0
        await scene.seconds(3)
        scene.elect("n2")
        await scene.seconds(3)
        scene.elect("n1")
        await scene.seconds(8)
        ticks = scene.ticks()
        assert ticks == [float(n) for n in range(3, 3 + len(ticks))]
        assert ticks[-1] >= 14

    play(act)


def test_pause_and_resume_race_decisions_without_a_loss() -> None:
    """Each second is fired or lies in the one row of what was not owed."""

    async def act(scene: Scene) -> None:
        job = await scene.put(overlap={"policy": "allow"}, history={"runs": 100})
        await scene.seconds(3)
        leader = scene.leader
        state = leader.machine.state
        while isinstance(await leader.proposer.propose(PauseJob("job", [], state.jobs["job"].revision)), Refused):
            pass
        paused_at = state.jobs["job"].decided_through
        await scene.seconds(5)
        now = leader.now_ms()
        first = paused_at + 1_000
        count = (now - paused_at) // 1_000
        span = Summary("paused", first, paused_at + 1_000 * count, count)
        await leader.proposer.propose(ResumeJob("job", job.revision, now, span))
        await scene.seconds(3)
        fired = {row.scheduled_time for row in scene.rows() if row.count is None}
        owed = set(range(min(fired), max(fired) + 1, 1_000))
        held = set(range(first, span.last + 1, 1_000))
        assert fired == owed - held
        assert not fired & held

    play(act)


# ---- the start gate and the leases ---------------------------------------------------------------------------------


def test_a_node_is_not_answered_from_the_moment_its_loss_is_planned() -> None:
    """Model: answer_after_lost.  `lost` waits for room to be proposed, and the silent node speaks again meanwhile."""

    async def act(scene: Scene) -> None:
        scene.names["n1"].executor.scripts = {"again": Script(None)}
        await scene.put("again", schedule="@every 60s", delivery="at_least_once")
        for second in range(34, 42):
            await scene.put(f"fill-{second}", schedule=f"{second} * * * * *")
        await scene.seconds(29)
        n1, n2 = scene.names["n1"], scene.names["n2"]
        cut_off(n1)
        scene.cluster.append(decide_elsewhere(scene, "again", "n1"))
        scene.elect("n2")
        await scene.seconds(2)
        n2.log.stall = asyncio.Event()  # eight decisions fill the room until the lease of n1 has ended
        await scene.seconds(10.5)
        heal(n1)
        await scene.seconds(2)
        n2.log.stall.set()
        n2.log.stall = None
        await scene.seconds(3)
        assert scene.starts("again")[-1][0] == "n2"
        assert [start for start in scene.starts("again") if start[0] == "n1"] == []

    play(act)


def test_a_licence_that_names_an_index_not_yet_applied_opens_nothing() -> None:
    """Model: gate_index.  The node has applied `running`, the leader's answer covers `lost` as well."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="@every 60s", delivery="at_least_once")
        await scene.seconds(30)
        n1 = scene.names["n1"]
        cut_off(n1)
        running = scene.cluster.append(decide_elsewhere(scene, "job", "n1"))
        scene.elect("n2")
        await scene.seconds(12)
        n1.log.knows_leader = True
        apply_until(n1, running + 1)  # the entry that starts it and the new leadership entry, not `lost`
        await scene.seconds(4)
        assert n1.presence.license.applied_index > n1.machine.applied_index
        assert n1.executor.started == []
        heal(n1)
        await scene.seconds(3)
        assert n1.executor.started == []
        assert [attempt.attempt for attempt in scene.names["n2"].executor.started] == [2]

    play(act)


def test_a_run_never_starts_as_another_kind_than_the_slot_that_it_holds() -> None:
    """A node learns in one turn that a run is started and that its job became a command: it starts as one, anew."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="@every 60s")
        await scene.seconds(30)
        n2 = scene.names["n2"]
        cut_off(n2)
        scene.cluster.append(decide_elsewhere(scene, "job", "n2"))
        [run] = scene.leader.machine.state.runs.values()
        first = run.fencing_token
        assert (run.state, run.node, run.is_process) == ("running", "n2", False)
        await scene.put(schedule="@every 60s", executor={"type": "shell", "command": "true"}, placement={"on": "any"})
        heal(n2)
        await scene.seconds(3)
        [started] = [attempt for actor in scene.names.values() for attempt in actor.executor.started]
        assert started.executor["type"] == "shell"
        assert (started.attempt, started.fencing_token > first) == (1, True)

    play(act)


def test_a_deposed_leader_that_does_not_know_it_licenses_nobody() -> None:
    """Models: quorum_round, own_round, round_after.  No majority confirms a round, for its own node as for others."""

    async def act(scene: Scene) -> None:
        n1, n2 = scene.names["n1"], scene.names["n2"]

        async def no_majority() -> int:
            raise UnavailableError("no majority")

        n1.leases._read_index = no_majority
        before = (n1.presence.license, n2.presence.license)
        await scene.seconds(12)
        assert (n1.presence.license, n2.presence.license) == before
        assert not n1.worker._is_valid(n1.presence.license)
        assert not n2.worker._is_valid(n2.presence.license)

    play(act)


def test_a_licence_counts_from_when_its_heartbeat_was_sent() -> None:
    """Models: sent, margin.  An answer that took seven seconds is good for one more."""

    async def act(scene: Scene) -> None:
        n2 = scene.names["n2"]
        received = n2.log._handlers["license"]
        n2.log._handlers["license"] = lambda peer, message: scene.loop.call_later(7.0, received, peer, message)
        await scene.seconds(20)
        held = n2.presence.license
        assert 0 < held.until - n2.clock.boot() <= 1.0

    play(act)


def test_the_gate_opens_once_for_a_token() -> None:
    """Models: gate_started, gate_refused.  An executor that asks again is refused, whatever it was told before."""

    async def act(scene: Scene) -> None:
        asked: list[bool] = []

        class AsksTwice:
            async def run(self, attempt: Any, control: Any) -> Ending:
                asked.extend(control.may_start() is not None for _ in range(2))
                return Ending("succeeded")

        scene.leader.worker._executor = AsksTwice()
        await scene.put(schedule="@manual")
        await scene.leader.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(1)
        assert asked == [True, False]

    play(act)


def test_a_loss_that_was_certainly_not_written_does_not_silence_the_node_for_good() -> None:
    """The node speaks again; since nothing of it was lost, its heartbeats are answered."""
    _silence_after("unavailable")


def test_a_loss_of_unknown_outcome_is_settled_by_the_same_leader() -> None:
    """Until it is known the node is not answered; it is asked about again rather than left for the rest of the lead."""
    _silence_after("unknown")


def _silence_after(answer: Any) -> None:
    async def act(scene: Scene) -> None:
        await scene.put(schedule="@every 60s", delivery="at_least_once")
        await scene.seconds(30)
        n1, n2 = scene.names["n1"], scene.names["n2"]
        cut_off(n1)
        scene.cluster.append(decide_elsewhere(scene, "job", "n1"))
        scene.elect("n2")
        await scene.seconds(9.5)
        proposals, n2.log.next_answer = n2.log.proposals, answer
        while n2.log.proposals == proposals:
            await scene.seconds(0.05)
        heal(n1)
        await scene.seconds(8)
        assert n1.worker._is_valid(n1.presence.license)

    play(act)


def test_heartbeats_that_wait_for_a_loss_end_with_the_lead() -> None:
    """The loss was under way when the lead ended; who waits for it would otherwise wait for ever."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="@every 60s", delivery="at_least_once")
        await scene.seconds(30)
        n1, n2 = scene.names["n1"], scene.names["n2"]
        cut_off(n1)
        scene.cluster.append(decide_elsewhere(scene, "job", "n1"))
        scene.elect("n2")
        await scene.seconds(9)
        n2.log.stall = asyncio.Event()
        await scene.seconds(2)
        heal(n1)
        await scene.seconds(3)
        waiting = set(n2.presence._tasks)
        assert waiting
        scene.cluster.depose()
        n2.log.stall = None
        await scene.seconds(3)
        assert [task for task in waiting if not task.done()] == []

    play(act)


def test_a_run_that_may_outlive_its_lease_keeps_its_late_outcome() -> None:
    """Its class lets it go on (semantics 5.7); that the cluster has given it up is no reason to kill it either."""

    async def act(scene: Scene) -> None:
        n1 = scene.names["n1"]
        n1.executor.scripts = {"job": Script(20.0)}
        await scene.put(schedule="@every 60s", overlap={"policy": "allow"})
        await scene.seconds(61)
        cut_off(n1)
        scene.elect("n2")
        await scene.seconds(13)
        [row] = scene.rows()
        assert row.state == "lost"
        heal(n1)
        await scene.seconds(10)
        [row] = scene.rows()
        assert n1.executor.stopped == []
        assert (row.state, row.late_outcome) == ("lost", "succeeded")

    play(act)


def test_lost_nodes_are_found_although_the_wall_clock_was_set_back() -> None:
    """Leases run on the boot clock; so does looking for those that have ended."""

    async def act(scene: Scene) -> None:
        scene.names["n1"].executor.scripts = {"job": Script(None)}
        await scene.put(schedule="@every 60s")
        await scene.seconds(62)
        scene.die("n1")
        scene.elect("n2")
        await scene.seconds(2)
        scene.leader.clock.wall_offset = -3_600.0
        await scene.seconds(11)
        [row] = scene.rows()
        assert row.state == "lost"

    play(act)


def test_a_run_of_a_former_life_is_not_started() -> None:
    """Model: gate_inc.  The state still shows it running on this node, but in the life before."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="@every 60s")
        await scene.seconds(30)
        started = decide_elsewhere(scene, "job", "n1")
        scene.die("n1")
        scene.cluster.append(started)
        n1 = scene.enter("n1", 2)
        scene.names["n1"] = n1
        n1.presence._announcement = Announce("n1", 1, "", "", "", 1, 1)  # its new life is never told
        scene.elect("n2")
        await scene.seconds(5)
        assert n1.worker._is_valid(n1.presence.license)
        assert n1.machine.state.runs[next(iter(n1.machine.state.runs))].state == "running"
        assert n1.executor.started == []

    play(act)


def test_a_licence_of_another_epoch_opens_nothing() -> None:
    """Model: gate_epoch.  The node holds an answer of the new leader and has not applied its leadership entry."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="@every 60s")
        await scene.seconds(30)
        n1 = scene.names["n1"]
        cut_off(n1)
        running = scene.cluster.append(decide_elsewhere(scene, "job", "n1"))
        scene.elect("n2")
        received = n1.log._handlers["license"]  # the index named would forbid it too; here the epoch has to
        n1.log._handlers["license"] = lambda peer, message: received(peer, [*message[:2], 0])
        await scene.seconds(8)  # the licence of the former lead is over, and nothing is lost yet
        n1.log.knows_leader = True
        apply_until(n1, running)
        await scene.seconds(3)
        assert n1.presence.license.epoch == n1.machine.epoch + 1
        assert n1.executor.started == []

    play(act)


def test_a_worker_past_the_deadline_by_its_own_clock_starts_nothing() -> None:
    """Model: gate_deadline.  The state says `running`; it is queued again, and ended there."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        await scene.put(schedule="@manual", misfire={"window": "2s"})
        await stop_planning(leader)
        held = leader.presence.license
        leader.presence.license = held._replace(epoch=0)
        leader.log._handlers.clear()
        leader.leases._read_index = _never
        await leader.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(3)
        leader.presence.license = held._replace(until=leader.clock.boot() + 5)
        leader.worker._licensed.set()
        await scene.seconds(1)
        [row] = scene.rows()
        assert (row.state, leader.executor.started) == ("queued", [])

    play(act)


async def _never() -> int:
    raise UnavailableError("no majority")


# ---- the queue -----------------------------------------------------------------------------------------------------


def play_with_process_slots(act: Callable[[Scene], Awaitable[None]], slots: int, process_slots: int) -> None:
    loop = VirtualLoop()

    async def perform() -> None:
        scene = Scene(loop, slots=slots)
        for actor in scene.actors:
            actor.presence._announcement = Announce(actor.name, 1, "h:1", "h:2", "0", slots, process_slots)
        scene.elect("n1")
        await asyncio.sleep(1.5)
        await act(scene)

    run_virtual(perform(), loop)


def test_a_queue_of_processes_without_a_slot_holds_up_nothing_else() -> None:
    """A run that waits for nothing is started, however many stand before it that cannot."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        leader.executor.scripts = {"shell": Script(None)}
        await scene.put("shell", schedule="@manual", executor={"type": "shell"}, overlap={"policy": "allow"})
        await scene.put("quick", schedule="@manual")
        for _ in range(5):
            await leader.proposer.propose(Trigger("shell", Place("n1", 1)))
        await leader.proposer.propose(Trigger("quick", None))
        await scene.seconds(3)
        assert [row.state for row in scene.rows("quick")] == ["succeeded"]

    play_with_process_slots(act, slots=3, process_slots=1)


def test_catch_up_holds_up_nothing_else() -> None:
    """Paced runs stand in the queue; one that is not paced passes them."""

    async def act(scene: Scene) -> None:
        for number in range(60):
            await scene.put(f"missed-{number}", schedule="@every 60s")
        await scene.put("quick", schedule="@manual")
        scene.die("n1")
        await scene.seconds(90)
        scene.elect("n2")
        await scene.seconds(0.5)
        await scene.leader.proposer.propose(Trigger("quick", None))
        await scene.seconds(1)
        assert [row.state for row in scene.rows("quick")] == ["succeeded"]

    play(act, slots=10, catch_up_rate=2)


def test_a_pause_holds_what_is_queued_and_what_waits_for_its_retry() -> None:
    """Semantics 6: neither starts before the job is resumed, both do afterwards."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        leader.executor.scripts = {"blocker": Script(5.0), "retry": Script(0.0, Ending("failed", exit_code=1))}
        await scene.put("blocker", schedule="@manual")
        await scene.put("retry", schedule="40 * * * * *", retry={"max_attempts": 2, "backoff": "4s"})
        await scene.put("held", schedule="42 * * * * *")
        await scene.seconds(40)
        await leader.proposer.propose(Trigger("blocker", Place("n1", 1)))
        await scene.seconds(1)
        jobs = leader.machine.state.jobs
        assert [scene.rows(name)[0].state for name in ("retry", "held")] == ["waiting_retry", "queued"]
        for name in ("retry", "held"):
            await leader.proposer.propose(PauseJob(name, [], jobs[name].revision))
        await scene.seconds(8)
        assert len(scene.starts("retry")) == 1
        assert scene.starts("held") == []
        assert {scene.rows(name)[0].state for name in ("retry", "held")} <= {"queued", "waiting_retry"}
        for name in ("retry", "held"):
            await leader.proposer.propose(ResumeJob(name, jobs[name].revision, leader.now_ms()))
        await scene.seconds(3)
        assert [scene.rows(name)[0].state for name in ("retry", "held")] == ["failed", "succeeded"]

    play(act, slots=1)


def test_what_a_leader_proposes_about_many_runs_fits_into_entries() -> None:
    """Thousands of retries that are due together are queued in parts; one entry could not hold them."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        leader.executor.scripts = {"job": Script(0.0, Ending("failed", exit_code=1))}
        await scene.put(schedule="@manual", overlap={"policy": "allow"}, retry={"max_attempts": 2, "backoff": "5m"})
        await asyncio.gather(*(leader.proposer.propose(Trigger("job", Place("n1", 1))) for _ in range(1_500)))
        await scene.seconds(3)
        assert len(leader.machine.state.waiting) == 1_500
        await stop_planning(leader)
        commands = list(leader.scheduler.step(leader.now_ms() + 600_000))
        sizes = [len(command.runs) for command in commands if isinstance(command, Requeue)]
        assert sum(sizes) == 1_500
        assert max(sizes) <= 1_000

    play(act, slots=2_000)


def test_expiry_of_many_runs_fits_into_entries_that_are_quick_to_apply() -> None:
    """Thousands of runs whose deadline has passed end in parts, so that no entry holds the loop of every node."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        leader.executor.scripts = {"blocker": Script(None)}
        await scene.put("blocker", schedule="@manual")
        await scene.put(schedule="@manual", overlap={"policy": "allow"})
        await leader.proposer.propose(Trigger("blocker", Place("n1", 1)))
        await asyncio.gather(*(leader.proposer.propose(Trigger("job", None)) for _ in range(1_500)))
        await stop_planning(leader)
        commands = list(leader.scheduler.step(leader.now_ms() + 2 * 86_400_000))
        sizes = [len(command.runs) for command in commands if isinstance(command, Expire)]
        assert sum(sizes) == 1_500
        assert max(sizes) <= 1_000

    play(act, slots=1)


def test_a_leader_waits_while_its_requeue_is_under_way() -> None:
    """A retry that is being queued is no reason to look again at once."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        leader.executor.scripts = {"job": Script(0.0, Ending("failed", exit_code=1))}
        await scene.put(schedule="@manual", retry={"max_attempts": 2, "backoff": "5m"})
        await leader.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(1)
        await stop_planning(leader)
        later = leader.now_ms() + 600_000
        [requeue] = leader.scheduler.step(later)
        assert isinstance(requeue, Requeue)
        assert leader.scheduler._seconds_to_wait(later) > 0

    play(act)


def test_a_run_past_its_deadline_by_cluster_time_is_ended_and_not_assigned_for_ever() -> None:
    """The former leader's clock was ahead: `apply` goes by cluster time, and the leader must not propose in vain."""

    async def act(scene: Scene) -> None:
        n1, n2 = scene.names["n1"], scene.names["n2"]
        n1.executor.scripts = {"blocker": Script(None)}
        await scene.put("blocker", schedule="@manual")
        await scene.put(schedule="@manual", misfire={"window": "1h"})
        await n1.proposer.propose(Trigger("blocker", Place("n1", 1)))
        await n1.proposer.propose(Trigger("job", None))
        await stop_planning(n1)
        n1.clock.wall_offset = 7_200.0
        await n1.proposer.propose(PauseJob("blocker", [], n1.machine.state.jobs["blocker"].revision))
        await scene.seconds(0.1)
        n2.log._leading_epoch = n2.machine.epoch
        commands: list[Command] = list(n2.scheduler.step(n2.now_ms()))
        assert [command for command in commands if isinstance(command, Assign)] == []
        assert [command.runs for command in commands if isinstance(command, Expire)] == [[scene.rows()[0].id]]

    play(act, slots=1)


def test_an_assigned_run_whose_deadline_passes_is_ended() -> None:
    """Model: expire_assigned.  Its worker lives and asks in vain; the leader ends the run: skipped, `deadline`."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        await scene.put(schedule="@manual", misfire={"window": "2s"})
        scene.names["n2"].log._handlers.clear()
        leader.reports.ask_start = lambda run: None  # type: ignore[method-assign]  # the request is lost each time
        await stop_planning(leader)
        await leader.proposer.propose(Trigger("job", None))
        [row] = scene.rows()
        await leader.proposer.propose(Assign([Assignment(row.id, Place("n1", 1), start=False)]))
        leader.leading = scene.loop.create_task(leader.scheduler.run())
        await scene.seconds(5)
        assert (row.state, row.reason) == ("skipped", "deadline")

    play(act)


def test_the_loop_gets_its_turn_between_the_entries_of_a_large_batch() -> None:
    """Planning thousands of jobs that are due together must not hold back heartbeats for as long as it takes."""

    async def act(scene: Scene) -> None:
        for number in range(2_000):
            await scene.put(f"job-{number}", schedule="30 * * * * *")
        log = scene.leader.log
        log.stall = asyncio.Event()
        await scene.seconds(5)
        scene.leader.clock.wall_offset = 30.0
        scene.leader.scheduler._wake.set()
        seen = [log.proposals]
        while log.proposals < seen[0] + 4 and len(seen) < 10_000:
            await asyncio.sleep(0)
            seen.append(log.proposals)
        assert seen[-1] >= seen[0] + 4
        assert max(later - earlier for earlier, later in pairwise(seen)) == 1

    play(act, nodes=1, slots=3_000)


# ---- the end of a node ---------------------------------------------------------------------------------------------


def test_the_grace_of_a_shutdown_includes_the_time_to_kill() -> None:
    """Semantics 5.12: twenty seconds in all, so what runs on is told to stop `kill_after` before they are over."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        leader.executor.scripts = {"job": Script(None)}
        await scene.put(schedule="@manual", kill_after="5s")
        await leader.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(1)
        scene.elect("n2")
        draining = asyncio.ensure_future(leader.worker.drain(20.0))
        await scene.seconds(14.5)
        assert leader.executor.stopped == []
        await scene.seconds(1)
        assert [reason for _, reason in leader.executor.stopped] == ["shutdown"]
        await draining

    play(act)


def test_a_shutdown_ends_although_an_attempt_does_not(caplog: pytest.LogCaptureFixture) -> None:
    """A process stuck in the kernel, or an executor that hears nothing: its fate is left to the lease."""

    async def act(scene: Scene) -> None:
        leader = scene.leader

        class HearsNothing:
            async def run(self, attempt: Any, control: Any) -> Ending:
                control.may_start()
                await asyncio.sleep(1e6)
                return Ending("succeeded")

        leader.worker._executor = HearsNothing()
        await scene.put(schedule="@manual")
        await leader.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(1)
        scene.elect("n2")
        await asyncio.wait_for(leader.worker.drain(5.0), 60.0)
        assert "runs_do_not_end count=1" in caplog.text

    play(act)


def test_what_ends_in_the_very_turn_of_the_time_out_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    """Seed 5204 of the simulation: the log said that none of the runs ends."""

    async def act(scene: Scene) -> None:
        leader, ended = scene.leader, asyncio.Event()

        class EndsAtLast:
            async def run(self, attempt: Any, control: Any) -> Ending:
                control.may_start()
                await ended.wait()
                return Ending("succeeded")

        leader.worker._executor = EndsAtLast()
        await scene.put(schedule="@manual")
        await leader.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(1)
        scene.elect("n2")
        scene.loop.call_later(5.0 + STUCK_SECONDS, ended.set)
        await leader.worker.drain(5.0)
        assert not leader.worker._tasks
        assert "runs_do_not_end" not in caplog.text

    play(act)


def test_a_lease_that_ended_while_the_machine_slept_stops_runs_at_once() -> None:
    """Semantics 5.6: leases run on the boot clock; the loop's own timers did not see the sleep."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        leader.executor.scripts = {"job": Script(None)}
        await scene.put(schedule="@manual")
        await leader.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(1)
        scene.cluster.cut()
        boot = leader.clock.boot
        leader.clock.boot = lambda: boot() + 60.0  # type: ignore[method-assign]  # the machine wakes a minute later
        await scene.seconds(1.5)
        assert [reason for _, reason in leader.executor.stopped] == ["lease"]

    play(act)


# ---- reports -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        Ending("failed", exit_code="7"),  # type: ignore[arg-type]  # an executor of somebody else's
        Ending("failed", error_kind=5),  # type: ignore[arg-type]
        Ending("failed", output_tail="text"),  # type: ignore[arg-type]
        Ending("failed", exit_code=1 << 70),
        Ending("failed", error="a file \udc80"),
        Ending("exploded"),
        Ending("failed", output_tail=b"x" * (2 << 20)),
    ],
    ids=["exit_code", "error_kind", "output_tail", "huge", "surrogate", "state", "long_tail"],
)
def test_an_ending_that_makes_no_sense_is_an_ending_still(ending: Ending) -> None:
    """What an executor hands back never blocks other reports, never stands in the log unreadable, and ends the run."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        leader.executor.scripts = {"odd": Script(0.0, ending)}
        await scene.put("odd", schedule="@manual")
        await scene.put("sound", schedule="@manual")
        for name in ("odd", "sound"):
            await leader.proposer.propose(Trigger(name, Place("n1", 1)))
        await scene.seconds(5)
        assert scene.rows("sound")[0].state == "succeeded"
        assert scene.rows("odd")[0].state in ENDED
        assert max(len(body) for body in scene.cluster.entries) <= ENTRY_BYTES
        assert len({actor.machine.state.digest for actor in scene.actors}) == 1

    play(act)


def test_a_run_that_cannot_be_made_into_an_attempt_ends() -> None:
    """Its arguments cannot be read: it fails with the reason, and does not stay `running` on a live node."""

    async def act(scene: Scene) -> None:
        await scene.put(schedule="@manual")
        await scene.leader.proposer.propose(Trigger("job", Place("n1", 1), args=b"\xc1"))
        await scene.seconds(5)
        assert scene.rows()[0].state in ENDED

    play(act)


def test_reports_survive_a_change_of_the_lead_and_unknown_outcomes() -> None:
    """An end that nobody answered is told again until the state shows it, once."""

    async def act(scene: Scene) -> None:
        n1 = scene.names["n1"]
        n1.executor.scripts = {"job": Script(3.0)}
        await scene.put(schedule="@manual")
        await n1.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(2.8)
        n1.log.next_answer = "unknown"
        await scene.seconds(0.4)
        scene.elect("n2")
        await scene.seconds(3)
        [row] = scene.rows()
        assert (row.state, len(row.attempts)) == ("succeeded", 1)
        assert n1.reports.open_count == 0

    play(act)


# ---- apply is total ------------------------------------------------------------------------------------------------


def test_a_definition_that_cannot_be_read_is_refused() -> None:
    """I13: content of a known version never makes apply raise, and a refusal changes nothing."""
    noop = {"type": "noop"}
    for stored in (
        b"\xc1",
        b"",
        definition._encode([1]),
        definition._encode({"schedule": "@every 1s"}),
        definition._encode({"schedule": 5, "executor": noop}),
        definition._encode({"schedule": [5], "executor": noop}),
        definition._encode({"schedule": "@every 1s", "executor": noop, "timezone": 5}),
        definition._encode({"schedule": "@every 1s", "executor": noop, "misfire": {"grace": []}}),
        definition._encode({"schedule": "@every 1s", "executor": noop, "history": {"runs": "many"}}),
        definition._encode({"schedule": "@every 1s", "executor": noop, "retry": {"max_attempts": "3"}}),
    ):
        machine = cluster()
        machine.put("job")
        before = machine.state.digest
        for name, seen in (("new", None), ("job", machine.state.jobs["job"].revision)):
            assert machine.refused(PutJob(name, stored, machine.at, seen_revision=seen)) == "invalid"
        assert machine.state.digest == before
        assert sorted(machine.state.jobs) == ["job"]


@pytest.mark.parametrize("twice", ["fires", "summaries"])
def test_one_decision_does_not_hold_a_time_twice(twice: str) -> None:
    """I1 and I13: such a decision does not hold, and nothing of it is taken."""
    machine = cluster()
    job = machine.put(history={"runs": 1})
    fires = [Fire(2_000, 2_000)] * 2 if twice == "fires" else []
    summaries = [Summary("expired", 1_500, 2_000, 1)] * 2 if twice == "summaries" else []
    assert machine.done(Decide(Place("n1", 1), [Decision(job.uid, job.revision, 2_000, fires, summaries)])).count == 0
    for n in range(3_000, 9_000, 1_000):
        machine.finish(machine.fire(job, n))
    assert machine.state.digest == anew(machine.state)


def test_instants_and_counts_beyond_all_bounds_are_refused() -> None:
    """I13: what 64 bits hold in an entry, sums and roundings of it need not."""
    top = (1 << 64) - 1
    machine = cluster()
    job = machine.put()
    many = [Summary("expired", 1_500, 2_000, top), Summary("coalesced", 2_001, 2_500, top)]
    machine.write(Decide(Place("n1", 1), [Decision(job.uid, job.revision, 2_500, [], many)]))
    stored = definition.canonical({"schedule": "@every 1s", "executor": {"type": "noop"}})
    machine.write(PutJob("late", stored, machine.at), at=top)
    assert machine.state.digest == anew(machine.state)


def test_an_entry_of_a_known_version_that_cannot_be_read_is_refused() -> None:
    """I13: it is one recorded refusal, not the end of every node, again at each start."""

    async def act(scene: Scene) -> None:
        leader = scene.leader
        epoch, index = leader.machine.epoch, len(scene.cluster.entries) + 1
        for body in (b"\x01", b"\x01\xc1", b"\x01\x93\x01\x01\x92\x63\x01"):
            outcome = leader.machine.apply(index, body)
            assert isinstance(outcome, Refused)
        assert leader.machine.epoch == epoch

    play(act)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_the_digest_is_true_however_little_history_is_kept(kept: int) -> None:
    """I7: a row that is dropped in the entry that made it counts no longer."""
    machine = cluster()
    job = machine.put(history={"runs": kept})
    machine.finish(machine.fire(job, 2_000))  # the last run: it stays, whatever is skipped after it
    for n in range(3_000, 7_000, 1_000):
        summary = Summary("expired", n, n, 1)
        machine.done(Decide(Place("n1", 1), [Decision(job.uid, job.revision, n, [], [summary])]))
        assert machine.state.digest == anew(machine.state)
    assert len(machine.state.runs) == max(1, kept)


# ---- the model's rules ---------------------------------------------------------------------------------------------

# Each rule of the executable model (semantics 3 to 5), and the tests that fail without it.
RULES = {
    "plan_after_applied": ["test_leadership_is_told_once_the_entry_has_applied"],
    "epoch_check": ["test_a_command_of_another_epoch_is_refused_and_changes_nothing_but_the_index"],
    "void": ["test_a_new_leader_voids_what_had_not_started_and_leaves_what_runs"],
    "not_written_waits": ["test_a_command_of_a_deposed_leader_is_not_written_for_certain"],
    "start_deadline": ["test_a_start_past_its_deadline_is_refused"],
    "gate_state": ["test_a_node_that_was_cut_off_starts_nothing_that_it_learns_late"],
    "gate_inc": ["test_a_run_of_a_former_life_is_not_started"],
    "gate_started": ["test_the_gate_opens_once_for_a_token"],
    "gate_refused": ["test_the_gate_opens_once_for_a_token"],
    "gate_lease": ["test_nothing_starts_without_a_licence"],
    "gate_epoch": ["test_a_licence_of_another_epoch_opens_nothing"],
    "gate_index": ["test_a_licence_that_names_an_index_not_yet_applied_opens_nothing"],
    "gate_deadline": ["test_a_worker_past_the_deadline_by_its_own_clock_starts_nothing"],
    "sent": ["test_a_licence_counts_from_when_its_heartbeat_was_sent"],
    "leader_lease": ["test_a_run_on_a_dead_node_is_lost_after_one_lease_and_tried_again_where_the_class_says_so"],
    "new_leader_lease": ["test_a_run_on_a_dead_node_is_lost_after_one_lease_and_tried_again_where_the_class_says_so"],
    "quorum_round": [
        "test_a_deposed_leader_that_does_not_know_it_licenses_nobody",
        "test_a_leader_that_was_left_alone_confirms_no_read",
    ],
    "own_round": ["test_a_deposed_leader_that_does_not_know_it_licenses_nobody"],
    "round_after": ["test_whoever_comes_while_a_question_is_out_waits_for_the_next"],
    "margin": ["test_a_licence_counts_from_when_its_heartbeat_was_sent"],
    "spawner_kills": ["test_a_stopped_daemon_cannot_keep_a_child_alive"],
    "spawner_refuses": ["test_a_start_past_its_licence_is_refused_whatever_newer_deadline_is_held"],
    "pipe_kill": ["test_children_die_with_a_killed_daemon"],
    "start_kill": ["test_clean_up_after_daemon_and_spawner_were_killed"],
    "inc_order": ["test_an_older_life_is_refused_and_an_equal_one_ignored"],
    "lost_by_inc": ["test_the_next_life_of_a_node_ends_the_runs_of_the_former_at_once"],
    "watermark": ["test_a_scheduled_time_is_decided_once"],
    "token_check": ["test_a_report_under_an_old_token_changes_nothing"],
    "start_check": ["test_a_start_needs_the_newest_token"],
    "answer_after_lost": ["test_a_node_is_not_answered_from_the_moment_its_loss_is_planned"],
    "kill_spawner": ["test_clean_up_kills_an_old_spawner_that_is_stopped"],
    "exec_lease": ["test_a_start_past_its_licence_is_refused_whatever_newer_deadline_is_held"],
    "verify_dead": ["test_a_spawner_that_dies_takes_its_children_and_is_replaced"],
    "expire_assigned": ["test_an_assigned_run_whose_deadline_passes_is_ended"],
    "assign_inc": ["test_an_assignment_to_a_former_life_is_refused"],
}


def test_every_rule_of_the_model_has_its_tests() -> None:
    """The tests that the table names exist."""
    defined: set[str] = set()
    for path in Path(__file__).parents[1].rglob("test_*.py"):
        defined.update(re.findall(r"def (test_\w+)", path.read_text()))
    assert {name for names in RULES.values() for name in names} <= defined
