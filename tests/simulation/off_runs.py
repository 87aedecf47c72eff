"""What stands in the place of guards of jobs and runs while they are switched off."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import structs

from raftcron import node as shipped_node
from raftcron.core import apply as core_apply
from raftcron.core import planner
from raftcron.core.apply import admission, decisions, remote, requests, runs
from raftcron.core.apply.context import remember
from raftcron.core.commands import Decide, Decision, Done, Refused, Summary, Token
from raftcron.core.model import REASON_MISFIRE, RUNNING, STARTED
from raftcron.core.timeline import Timeline
from raftcron.ports import Attempt
from raftcron.runtime import leases, machine, presence, scheduler, worker


def any_epoch(state: Any, index: int, entry: Any) -> Any:
    """core.apply, but an entry of another epoch is taken (semantics 5.2)."""
    return _apply(state, index, entry if entry.epoch == state.epoch else _with_epoch(entry, state.epoch))


def _with_epoch(entry: Any, epoch: int) -> Any:
    return type(entry)(epoch, entry.at, entry.command)


def holds_below_the_watermark(job: Any, decision: Any) -> bool:
    """decisions.holds, but what is decided already is decided again."""
    return decision.revision == job.revision and not job.paused


def settle_below_the_watermark(state: Any, context: Any, job: Any, made: Any) -> None:
    """jobs._settle, likewise."""
    for decision in made:
        decisions.take(state, context, job, decision, None)


def decide_of_a_former_revision(state: Any, context: Any, command: Any) -> Any:
    """decisions.decide, but what was worked out before an edit is decided in spite of it."""
    for decision in command.decisions:
        job = state.by_uid.get(decision.uid)
        if job is not None and decision.revision < job.revision and not job.paused:
            decisions.take(state, context, job, decision, command.place)
    return decisions.decide(state, context, command)


def settle_by_a_row(state: Any, context: Any, job: Any, made: Any) -> None:
    """jobs._settle, but what is due is only noted as missed, and left to whoever has worked it out before."""
    for decision in made:
        times = [fire.scheduled_time for fire in decision.fires]
        missed = [Summary(REASON_MISFIRE, times[0], times[-1], len(times))] if times else []
        if decision.through > job.decided_through and not decision.summaries:
            decisions.take(state, context, job, structs.replace(decision, fires=[], summaries=missed), None)


def settle_nothing(state: Any, context: Any, job: Any, made: Any) -> None:
    """jobs._settle, but the decisions that come with an edit are left out."""


def decide_but_one(job: Any, policy: Any, group: Any, *rest: Any) -> Any:
    """planner.decide, but the first time of every third decision of a job is dropped."""
    decision = _decide(job, policy, group, *rest)
    if decision is None or not decision.fires or (job.fired + job.skipped) % 3:
        return decision
    return Decision(decision.uid, decision.revision, decision.through, decision.fires[1:], decision.summaries)


def summarise_without_a_row(state: Any, context: Any, job: Any, summary: Any) -> None:
    """decisions.summarise, but there is no row."""
    job.skipped += summary.count
    state.touch_job(job)


def always_room(self: Any, uid: int) -> bool:
    """State.has_room, but there is always some."""
    return True


def admit_without_a_row(state: Any, context: Any, job: Any, *rest: Any, **more: Any) -> bool:
    """admission.admit, but what overlaps is dropped in silence."""
    return False if state.active.get(job.uid) else bool(_admit(state, context, job, *rest, **more))


def pause_is_forgotten(self: Any, index: int, body: bytes) -> Any:
    """Machine.apply, but a process that has lived before knows of no pause."""
    outcome = _machine_apply(self, index, body)
    if self.incarnation > 1:
        for job in self.state.jobs.values():
            if job.paused:
                job.paused = False
                self.timeline.update(job, self.state.policies[job.uid])
    return outcome


def holds_while_paused(job: Any, decision: Any) -> bool:
    """decisions.holds, but a pause does not count."""
    was, job.paused = job.paused, False
    try:
        return _holds(job, decision)
    finally:
        job.paused = was


def finish_under_any_token(state: Any, context: Any, command: Any) -> Any:
    """runs.finish, but the fencing token is not looked at."""
    for finished in command.finished:
        run = state.runs.get(finished.run)
        if run is not None and run.state in STARTED:
            runs._finish(state, context, run, finished)
    return Done(count=len(command.finished))


def gate_is_open(self: Any, held: Any) -> bool:
    """Worker._is_valid, but any licence will do."""
    return True


def look_at_any_life(self: Any, run: Any) -> None:
    """Worker._look, but what a former life was told to run is run by this one too."""
    if run.node == self._node and run.state == RUNNING and run.fencing_token not in self._running:
        self._launch(run)


async def sure_of_its_life(self: Any, former_ends: Any = ()) -> None:
    """Node.start, but a node that takes the place of another one goes by its directory's own count of lives."""
    await _node_start(self, former_ends)
    self.machine.incarnation = self.log.incarnation


def gate_of_any_life(self: Any, running: Any) -> Any:
    """Worker.gate, likewise."""
    run = self._machine.state.runs.get(running.run_id)
    return None if run is None or run.state != RUNNING else self._clock.boot() + 1.0


def refuse_and_forget(self: Any, running: Any) -> None:
    """Worker._refuse, but the token is not remembered."""
    self._running.pop(running.token, None)
    self._reports.refused(Token(running.run_id, running.token))


async def fire_at_once(self: Any, command: Any, room: Any) -> None:
    """Scheduler._propose, but a leader starts what it decides before that is committed."""
    if isinstance(command, Decide):
        found = next(observer for observer in self._machine._observers if isinstance(observer, worker.Worker))
        for decision in command.decisions:
            for fire in decision.fires:
                run_id = f"{decision.uid:x}-{fire.scheduled_time}"
                attempt = Attempt("", run_id, "", 1, self._machine.state.next_token, self._node, {}, 1.0, 1.0)
                asyncio.get_running_loop().create_task(found._executor.run(attempt, _Open()))
    await _scheduler_propose(self, command, room)


def any_word_counts(state: Any, run_id: str, token: int) -> Any:
    """remote._current, but a target's word counts under any token."""
    run = state.runs.get(run_id)
    return _current(state, run_id, token if run is None else run.fencing_token)


def hear_and_forget(state: Any, context: Any, command: Any) -> Any:
    """remote.hear, but the target's time goes on all the same."""
    run = _current(state, command.run, command.fencing_token)
    return run if isinstance(run, Refused) else remember(state, context, command.key, run.id, 200)


def backfill_and_decide(state: Any, context: Any, command: Any) -> Any:
    """requests.backfill, but its times count as decided."""
    outcome = requests.backfill(state, context, command)
    if isinstance(outcome, Done):
        job = state.jobs[command.name]
        job.decided_through = max(job.decided_through, context.at)
        state.touch_job(job)
    return outcome


def backfill_but_one(state: Any, context: Any, command: Any) -> Any:
    """requests.backfill, but the first time gets no run."""
    return requests.backfill(state, context, structs.replace(command, times=command.times[1:]))


def seen_without_a_doubt(self: Any, changed: Any) -> None:
    """Presence.state_changed, but a later life of this very node on record is no reason to end."""
    may, self._may_announce = self._may_announce, False
    try:
        _state_changed(self, changed)
    finally:
        self._may_announce = may


class _Open:
    """A control that lets everything start."""

    def may_start(self) -> float:
        return 1e9

    async def stopped(self) -> str:
        return await asyncio.get_running_loop().create_future()

    async def overdue(self) -> None:
        await asyncio.get_running_loop().create_future()


def heartbeats_without_a_round(self: Any, clock: Any, times: Any, read_index: Any) -> None:
    """LeaseKeeper, but a heartbeat is answered without a round of a majority."""

    async def at_once() -> int:
        return 0

    _keeper_init(self, clock, times, at_once)


def update_though_paused(self: Any, job: Any, policy: Any) -> None:
    """Timeline.update, but a paused job stays on it."""
    was, job.paused = job.paused, False
    try:
        _timeline_update(self, job, policy)
    finally:
        job.paused = was


_current = remote._current
_apply, _holds, _admit, _machine_apply = core_apply.apply, decisions.holds, admission.admit, machine.Machine.apply
_keeper_init, _scheduler_propose = leases.LeaseKeeper.__init__, scheduler.Scheduler._propose
_decide = planner.decide
_node_start = shipped_node.Node.start
_timeline_update, _state_changed = Timeline.update, presence.Presence.state_changed
