"""Mends and guards of raftcron, each with a switch that turns it off, to see that the simulation's checkers can fail.

`MUTANTS` names, for each, the checkers that may fire; recorded.json holds the seeds in which one does.  Where dice do
not find it there is a script (scripts.py).  When a change moves the traces, `scripts/simulate --mutants` looks for
new seeds and writes them down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

from raftcron import node as shipped_node
from raftcron.core import apply as core_apply
from raftcron.core import planner
from raftcron.core.apply import admission, decisions, jobs, runs
from raftcron.core.commands import Decide, Decision, Done, Finish, Token
from raftcron.core.model import RUNNING, STARTED
from raftcron.core.state import State
from raftcron.core.timeline import Timeline
from raftcron.errors import UnavailableError
from raftcron.ports import Applied, Attempt
from raftcron.raft import engine, guard, leadership, membership, proposals, reads, roster, seam, segment
from raftcron.raft.journal import Journal
from raftcron.raft.settings import RaftSettings
from raftcron.runtime import clocks, leases, machine, scheduler, worker
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing import sim_checks, sim_node
from raftcron.testing.sim_faults import Story
from tests.simulation import scripts

Replacement = tuple[Any, str, Any]  # owner, name, value

SHORT, LONG = LeaseTimes(3.0, 0.6), LeaseTimes(10.0, 2.0)

# ---- the log -----------------------------------------------------------------------------------------------------


def _flush_without_sync(self: Any) -> None:
    """Core.flush, but what was received is answered before it is durable."""
    waiting, self._waiting = self._waiting, []
    for node, message in waiting:
        if message["term"] == self.term:
            self._host.transmit(node.id, message)
    if self._verified_commit > self._SyncObj__raftCommitIndex and not self.is_leader:
        self._SyncObj__raftCommitIndex = self._verified_commit


class _NeverSynced:
    """A device whose sync does nothing."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def sync(self, handle: int) -> None:
        """It says that it has."""


def _sync_without_sync(self: Any) -> None:
    """Journal.sync, but what is written is not synced."""
    device, self._device = self._device, _NeverSynced(self._device)
    try:
        _journal_sync(self)
    finally:
        self._device = device


def _append_cuts_whatever_follows(log: Any, committed: int, append: Any) -> Any:
    """guard.judge_append, but as the stock engine judges: what follows goes, conflict or not (row 2)."""
    verdict = _judge_append(log, committed, append)
    if (
        isinstance(verdict, guard.Acceptance)
        and verdict.acknowledged < log[-1][1]
        and append.previous_index >= committed
    ):
        return guard.Acceptance(append.previous_index, append.entries, verdict.acknowledged, True)
    return verdict


def _append_claims_all(log: Any, committed: int, append: Any) -> Any:
    """guard.judge_append, but an acknowledgement claims all that is held, checked or not (row 2)."""
    verdict = _judge_append(log, committed, append)
    if isinstance(verdict, guard.Acceptance) and not verdict.conflict:
        return verdict._replace(acknowledged=max(verdict.acknowledged, log[-1][1]))
    return verdict


def _answer_never_rewinds(answer: Any, probe: int, match_index: int, next_index: int, last_index: int) -> Any:
    """guard.judge_answer, but refusals change nothing (row 15)."""
    return _judge_answer(answer._replace(reset=False), probe, match_index, next_index, last_index)


def _answers_of_any_term(self: Any, node: Any, answer: Any) -> None:
    """Core._take_answer, but an answer of an earlier term is believed (row 4)."""
    _take_answer(self, node, answer._replace(term=max(answer.term, self.term)))


def _old_leaders_hear_nothing(self: Any, node: Any, message: Any) -> bool:
    """Core._is_current, but an append of a lower term gets no answer (row 14)."""
    return False if message.term < self.term else _is_current(self, node, message)


def _higher_terms_are_not_seen(self: Any, term: int) -> None:
    """Core.observe_term, but nobody learns of a higher term outside the engine's own messages (row 14)."""


def _expire_says_not_written(self: Any, now: float) -> None:
    """Proposals.expire, but what is not known is called not written (row 7)."""
    for seq in self._first(lambda pending: pending.due_at <= now):
        if (future := self._pop(seq)) is not None:
            future.set_exception(UnavailableError("not written, perhaps"))


def _round_without_a_quorum(self: Any, number: int) -> None:
    """Reads._begin_round, but the leader asks nobody (row 12)."""
    self._rounds.answer(number, self._core.commit_index if self._may_confirm() else None)


async def _read_what_is_here(self: Any) -> int:
    """Engine.read_index, but what has applied here is taken for the newest (row 12)."""
    return int(self._core.applied_index)


async def _answered_when_appended(self: Any, body: bytes, epoch: int) -> Applied:
    """Engine.propose, but what is in the leader's log is called committed."""
    if self.leading_epoch is None:
        raise UnavailableError("does not lead")
    self._leadership._append(self._core, body, epoch)
    self._kick()
    index = self._core.last_index
    return Applied(index, Done("", 200, index=index))


def _vote_forgotten(self: Any, term: int, voted_for: str | None) -> None:
    """Journal.setCurrentTerm, but nothing of it is durable (row 18)."""
    self._kept.term, self._kept.voted_for = term, voted_for


def _nothing_is_damaged(self: Any, hello: Any, connected_disk: str | None) -> None:
    """Membership.admit, but a wiped disk is no stranger (row 18)."""


def _anybody_votes(self: Any, is_empty: bool, has_voted: bool) -> bool:
    """Membership.may_vote, but a node that holds nothing votes at once (row 18)."""
    return True


def _majority_is_enough(self: Any) -> list[str]:
    """Membership.missing, but a majority of empty voters is enough to form a cluster (row 18)."""
    names = _missing(self)
    return names if len(names) > (len(self._peers) - 1) // 2 else []


def _form_of_those_known(self: Any, cluster_id: str) -> bytes:
    """Membership.form, likewise."""
    self._disks.update({name: "later" for name in self._peers if name not in self._disks})
    return _form(self, cluster_id)


def _anybody_stands(self: Any, is_empty: bool, has_voted: bool) -> bool:
    """Membership._is_founder, likewise: whom a cluster calls may found another one."""
    return not self.missing() or not is_empty


# ---- snapshots and members ---------------------------------------------------------------------------------------


def _cut_and_rewind(answer: Any, probe: int, match_index: int, next_index: int, last_index: int) -> Any:
    """guard.judge_answer, but each refusal rewinds, late or not, below what was confirmed too (row 2)."""
    if answer.reset:
        return guard.Progress(match_index, answer.next_index, True)
    return _judge_answer(answer, probe, match_index, next_index, last_index)


def _install_without_watermarks(self: Any) -> None:
    """Restoring.install, but the watermarks are not those of the snapshot."""
    _restoring_install(self)
    for job in self._machine.state.by_uid.values():
        job.decided_through = job.counted_from


def _voided_by_a_snapshot(self: Any) -> None:
    """Leadership.installed, but what is pending is called not written (row 7)."""
    self._applied_epoch = self._machine.epoch
    self._proposals.void_below(self._applied_epoch)


def _offer_moves_the_commit_index(self: Any, node: Any, offer: Any) -> None:
    """Core._take_offer, but what is in the snapshot counts as committed here (row 1)."""
    _take_offer(self, node, offer)
    if offer.term == self.term:
        self._verified_commit = max(self._verified_commit, min(offer.index, self.last_index))


def _not_aligned(self: Any, index: int, term: int) -> None:
    """Journal.align, but a log that ends before the snapshot stays as it is (row 3)."""
    if self._kept.holds(index, term):
        _align(self, index, term)


def _aligned_by_clearing(self: Any, index: int, term: int) -> None:
    """Journal.align, but whatever the log holds gives way to the snapshot (row 3)."""
    if index > self._commit_index:
        with replaced([(type(self._kept), "holds", lambda *_: False)]):
            self.reset(index, term)
    else:
        _align(self, index, term)


def _learners_count(self: Any, voters: Any, learners: Any) -> Any:
    """Core.set_members, but learners are as good as voters (row 17)."""
    return _set_members(self, [*voters, *learners], [])


def _change_at_any_time(self: Any, ground: Any) -> Any:
    """Membership._may_change, but another change need not be committed (row 17)."""
    return self.newest


async def _change_beside_another(self: Any, core: Any, make: Any, seconds: float) -> int:
    """Roster.change, likewise."""
    self._changing = None
    return await _change(self, core, make, seconds)


_missing, _form = membership.Membership.missing, membership.Membership.form
_restoring_install, _take_offer, _align = machine.Restoring.install, seam.Core._take_offer, Journal.align
_set_members, _change = seam.Core.set_members, roster.Roster.change


_judge_append, _judge_answer, _take_answer = guard.judge_append, guard.judge_answer, seam.Core._take_answer
_is_current, _journal_sync = seam.Core._is_current, Journal.sync


# ---- jobs and runs -----------------------------------------------------------------------------------------------


def _any_epoch(state: Any, index: int, entry: Any) -> Any:
    """core.apply, but an entry of another epoch is taken (semantics 5.2)."""
    return _apply(state, index, entry if entry.epoch == state.epoch else _with_epoch(entry, state.epoch))


def _with_epoch(entry: Any, epoch: int) -> Any:
    return type(entry)(epoch, entry.at, entry.command)


def _holds_below_the_watermark(job: Any, decision: Any) -> bool:
    """decisions.holds, but what is decided already is decided again."""
    return decision.revision == job.revision and not job.paused


def _settle_below_the_watermark(state: Any, context: Any, job: Any, made: Any) -> None:
    """jobs._settle, likewise."""
    for decision in made:
        decisions.take(state, context, job, decision, None)


def _settle_nothing(state: Any, context: Any, job: Any, made: Any) -> None:
    """jobs._settle, but the decisions that come with an edit are left out."""


def _decide_but_one(job: Any, policy: Any, group: Any, *rest: Any) -> Any:
    """planner.decide, but the first time of every third decision of a job is dropped."""
    decision = _decide(job, policy, group, *rest)
    if decision is None or not decision.fires or (job.fired + job.skipped) % 3:
        return decision
    return Decision(decision.uid, decision.revision, decision.through, decision.fires[1:], decision.summaries)


def _summarise_without_a_row(state: Any, context: Any, job: Any, summary: Any) -> None:
    """decisions.summarise, but there is no row."""
    job.skipped += summary.count
    state.touch_job(job)


def _admit_without_a_row(state: Any, context: Any, job: Any, *rest: Any, **more: Any) -> bool:
    """admission.admit, but what overlaps is dropped in silence."""
    return False if state.active.get(job.uid) else bool(_admit(state, context, job, *rest, **more))


def _always_room(self: Any, uid: int) -> bool:
    """State.has_room, but there is always some."""
    return True


def _pause_is_forgotten(self: Any, index: int, body: bytes) -> Any:
    """Machine.apply, but a process that has lived before knows of no pause."""
    outcome = _machine_apply(self, index, body)
    if self.incarnation > 1:
        for job in self.state.jobs.values():
            if job.paused:
                job.paused = False
                self.timeline.update(job, self.state.policies[job.uid])
    return outcome


def _holds_while_paused(job: Any, decision: Any) -> bool:
    """decisions.holds, but a pause does not count."""
    was, job.paused = job.paused, False
    try:
        return _holds(job, decision)
    finally:
        job.paused = was


def _finish_under_any_token(state: Any, context: Any, command: Any) -> Any:
    """runs.finish, but the fencing token is not looked at."""
    for finished in command.finished:
        run = state.runs.get(finished.run)
        if run is not None and run.state in STARTED:
            runs._finish(state, context, run, finished)
    return Done(count=len(command.finished))


def _gate_is_open(self: Any, held: Any) -> bool:
    """Worker._is_valid, but any licence will do."""
    return True


def _look_at_any_life(self: Any, run: Any) -> None:
    """Worker._look, but what a former life was told to run is run by this one too."""
    if run.node == self._node and run.state == RUNNING and run.fencing_token not in self._running:
        self._launch(run)


async def _sure_of_its_life(self: Any, former_ends: Any = ()) -> None:
    """Node.start, but a node that takes the place of another one goes by its directory's own count of lives."""
    await _node_start(self, former_ends)
    self.machine.incarnation = self.log.incarnation


def _gate_of_any_life(self: Any, running: Any) -> Any:
    """Worker.gate, likewise."""
    run = self._machine.state.runs.get(running.run_id)
    return None if run is None or run.state != RUNNING else self._clock.boot() + 1.0


def _refuse_and_forget(self: Any, running: Any) -> None:
    """Worker._refuse, but the token is not remembered."""
    self._running.pop(running.token, None)
    self._reports.refused(Token(running.run_id, running.token))


async def _fire_at_once(self: Any, command: Any, room: Any) -> None:
    """Scheduler._propose, but a leader starts what it decides before that is committed."""
    if isinstance(command, Decide):
        found = next(observer for observer in self._machine._observers if isinstance(observer, worker.Worker))
        for decision in command.decisions:
            for fire in decision.fires:
                run_id = f"{decision.uid:x}-{fire.scheduled_time}"
                attempt = Attempt("", run_id, "", 1, self._machine.state.next_token, self._node, {}, 1.0, 1.0)
                asyncio.get_running_loop().create_task(found._executor.run(attempt, _Open()))
    await _scheduler_propose(self, command, room)


class _Open:
    """A control that lets everything start."""

    def may_start(self) -> float:
        return 1e9

    async def stopped(self) -> str:
        return await asyncio.get_running_loop().create_future()


def _heartbeats_without_a_round(self: Any, clock: Any, times: Any, read_index: Any) -> None:
    """LeaseKeeper, but a heartbeat is answered without a round of a majority."""

    async def at_once() -> int:
        return 0

    _keeper_init(self, clock, times, at_once)


def _wall_time(self: Any) -> int:
    """TrustedTime.now_ms, but the wall clock is trusted (semantics 9)."""
    return int(self._clock.wall() * 1000)


def _wall_time_at_first(self: Any) -> int:
    """TrustedTime.now_ms, but the wall clock is trusted as long as nothing else is."""
    return _wall_time(self) if self.ahead_ms is None else int(self._clock.boot() * 1000) + int(self.ahead_ms)


def _own_where_none_agrees(me: str, clocks: Any, voters: Any, skew_ms: int) -> Any:
    """agreement.agree, but where no majority agrees a node's own clock counts."""
    found = _agree(me, clocks, voters, skew_ms)
    return found if found.ahead_ms is not None else found._replace(ahead_ms=clocks[me])


def _own_word(former: int | None, own: int, *_: Any) -> int:
    """agreement.trust_alone, but a lone node believes any clock."""
    return own


def _rarely(self: Any, now: int) -> float:
    """Scheduler._seconds_to_wait, but the leader looks only now and then for what is due."""
    return 4.0


_agree = clocks.agree
_apply, _holds, _admit, _machine_apply = core_apply.apply, decisions.holds, admission.admit, machine.Machine.apply
_decide = planner.decide
_keeper_init, _scheduler_propose = leases.LeaseKeeper.__init__, scheduler.Scheduler._propose


# ---- the table ---------------------------------------------------------------------------------------------------


_node_start = shipped_node.Node.start


class Mutant(NamedTuple):
    """One mend, switched off by `replacements`; one of `checkers` must fire.

    With a `script`, in that course of events; `given` are replacements that hold then with and without the mend, where
    another mend would be in the way.
    """

    replacements: list[Replacement]
    checkers: set[str]
    script: Callable[[Story], None] | None = None
    size: int | None = None
    times: LeaseTimes | None = None
    given: list[Replacement] = []


LOG = {sim_checks.MATCH, sim_checks.DURABLE, sim_checks.COMMITTED, sim_checks.ONE_HISTORY}
STARTS = {sim_checks.I6, sim_checks.I2}
NO_FALLBACK: Replacement = (sim_node, "RaftSettings", partial(RaftSettings, leader_fallback=60.0))

MUTANTS: dict[str, Mutant] = {
    # the log
    "acknowledged before it is synced": Mutant([(seam.Core, "flush", _flush_without_sync)], LOG),
    "no fsync": Mutant([(Journal, "sync", _sync_without_sync)], LOG),
    "no checksum": Mutant(
        [(segment, "_end_of_record", scripts.end_of_any_record)], {sim_checks.FATAL, *LOG}, scripts.flip_bits, size=3
    ),
    "whatever follows is cut": Mutant(
        [(guard, "judge_append", _append_cuts_whatever_follows), (guard, "judge_answer", _cut_and_rewind)],
        LOG,
        scripts.resend_to_who_holds_it,
        size=3,
    ),
    "answers of earlier terms count": Mutant(
        [(seam.Core, "_take_answer", _answers_of_any_term)], LOG, scripts.answer_of_an_earlier_term, size=5
    ),
    "all that is held is claimed": Mutant(
        [(guard, "judge_append", _append_claims_all)],
        {sim_checks.FATAL, *LOG},
        scripts.restart_with_a_stale_tail,
        size=3,
    ),
    "refusals do not rewind": Mutant([(guard, "judge_answer", _answer_never_rewinds)], {sim_checks.LIVENESS}),
    "an old leader hears nothing": Mutant(
        [
            (seam.Core, "_is_current", _old_leaders_hear_nothing),
            (seam.Core, "observe_term", _higher_terms_are_not_seen),
        ],
        {sim_checks.LIVENESS},
        scripts.stand_and_be_cut_off,
        size=3,
    ),
    "unknown is called not written": Mutant(
        [(proposals.Proposals, "expire", _expire_says_not_written)],
        {sim_checks.NOT_WRITTEN},
        scripts.deaf_leaders,
        size=3,
    ),
    "claimed before it is committed": Mutant(
        [(engine.Engine, "propose", _answered_when_appended)], {sim_checks.DURABLE, sim_checks.LIVENESS}
    ),
    "reads without a round": Mutant(
        [(reads.Reads, "_begin_round", _round_without_a_quorum)],
        {sim_checks.LINEARIZABLE},
        scripts.read_at_a_leader_that_slept,
        size=3,
    ),
    "stale reads are called linearizable": Mutant(
        [(engine.Engine, "read_index", _read_what_is_here)], {sim_checks.LINEARIZABLE}
    ),
    "votes are forgotten": Mutant(
        [(Journal, "setCurrentTerm", _vote_forgotten)], {sim_checks.ONE_LEADER}, scripts.vote_twice, size=3
    ),
    "an empty directory is admitted and votes": Mutant(
        [(membership.Membership, "admit", _nothing_is_damaged), (membership.Membership, "may_vote", _anybody_votes)],
        {sim_checks.FATAL, *LOG},
    ),
    "a replaced node believes its own count of lives": Mutant(
        [(shipped_node.Node, "start", _sure_of_its_life)], STARTS
    ),
    "a majority forms a cluster": Mutant(
        [
            (membership.Membership, "missing", _majority_is_enough),
            (membership.Membership, "_is_founder", _anybody_stands),
            (membership.Membership, "form", _form_of_those_known),
            (membership.Membership, "unknown", lambda _self: []),
            (membership.Membership, "admit", _nothing_is_damaged),
        ],
        {sim_checks.ONE_HISTORY, sim_checks.FATAL, sim_checks.ONE_LEADER},
        scripts.form_twice,
        size=3,
    ),
    # snapshots and members
    "the watermark is lost in a snapshot": Mutant(
        [(machine.Restoring, "install", _install_without_watermarks)], {sim_checks.DIGEST}
    ),
    "not written is said of what a snapshot holds": Mutant(
        [(leadership.Leadership, "installed", _voided_by_a_snapshot)],
        {sim_checks.NOT_WRITTEN},
        scripts.snapshot_over_what_is_pending,
        size=3,
    ),
    "an offer moves the commit index": Mutant(
        [(seam.Core, "_take_offer", _offer_moves_the_commit_index)],
        {sim_checks.ONE_HISTORY, sim_checks.DIGEST},
        scripts.offer_to_a_stale_tail,
        size=3,
    ),
    "a snapshot clears an acknowledged tail": Mutant(
        [(seam.Core, "holds", lambda *_: False), (Journal, "align", _aligned_by_clearing)],
        LOG,
        scripts.offer_of_what_is_held,
        size=3,
    ),
    "the journal does not join its snapshot": Mutant(
        [(Journal, "align", _not_aligned)],
        {sim_checks.LIVENESS, sim_checks.FATAL, *LOG},
        scripts.death_before_an_install,
        size=3,
    ),
    "learners count": Mutant([(seam.Core, "set_members", _learners_count)], LOG, scripts.commit_with_a_learner, size=3),
    "changes of the members overlap": Mutant(
        [
            (membership.Membership, "_may_change", _change_at_any_time),
            (roster.Roster, "change", _change_beside_another),
        ],
        {sim_checks.MEMBERS},
        scripts.change_twice_at_once,
        size=3,
    ),
    # decisions
    "an entry of any epoch counts": Mutant([(machine, "apply", _any_epoch)], {sim_checks.EPOCH}),
    "the watermark is not looked at": Mutant(
        [
            (decisions, "holds", _holds_below_the_watermark),
            (jobs, "holds", _holds_below_the_watermark),
            (jobs, "_settle", _settle_below_the_watermark),
        ],
        {sim_checks.I1, sim_checks.I5, sim_checks.I11},
    ),
    "an edit is half applied": Mutant([(jobs, "_settle", _settle_nothing)], {sim_checks.I4}),
    "a time is dropped by the planner": Mutant([(planner, "decide", _decide_but_one)], {sim_checks.I4}),
    "missed times leave no row": Mutant([(decisions, "summarise", _summarise_without_a_row)], {sim_checks.I4}),
    "overlap is not looked at": Mutant([(State, "has_room", _always_room)], {sim_checks.I9}),
    "what overlaps leaves no row": Mutant([(admission, "admit", _admit_without_a_row)], {sim_checks.I4}),
    "a pause is forgotten on restart": Mutant(
        [(machine.Machine, "apply", _pause_is_forgotten)], {sim_checks.DIGEST, sim_checks.I10, sim_checks.FATAL}
    ),
    "a pause does not hold": Mutant(
        [
            (decisions, "holds", _holds_while_paused),
            (Timeline, "update", scripts.update_though_paused),
        ],
        {sim_checks.I10},
    ),
    # time
    "a leader trusts its wall clock": Mutant(
        [(clocks.TrustedTime, "now_ms", _wall_time)], {sim_checks.I5}, scripts.leader_jumps_a_year, size=3
    ),
    "where no majority agrees the own clock counts": Mutant(
        [(clocks, "agree", _own_where_none_agrees)], {sim_checks.I5}, scripts.two_voters_differ, size=3
    ),
    "old clocks count": Mutant(
        [(clocks, "FRESH_SECONDS", 1e9)], {sim_checks.I5}, scripts.two_clocks_one_after_the_other, size=3
    ),
    "who trusts nothing stamps with its wall clock": Mutant(
        [(clocks.TrustedTime, "now_ms", _wall_time_at_first)],
        {sim_checks.I5},
        scripts.start_with_two_that_differ,
        size=3,
    ),
    "a lone node believes any clock": Mutant(
        [(clocks, "trust_alone", _own_word)], {sim_checks.I5}, scripts.lone_node_jumps_a_year, size=1
    ),
    "a leader looks rarely for what is due": Mutant(
        [(scheduler.Scheduler, "_seconds_to_wait", _rarely), (scheduler.Scheduler, "state_changed", lambda *_: None)],
        {sim_checks.I8},
        scripts.nothing_happens,
        size=3,
    ),
    # runs
    "a report under an old token counts": Mutant(
        [(core_apply, "_HANDLERS", {**core_apply._HANDLERS, Finish: _finish_under_any_token})],
        {sim_checks.I3},
    ),
    "the start gate is open": Mutant(
        [(worker.Worker, "_is_valid", _gate_is_open)], STARTS, scripts.start_after_a_stall, size=3, times=SHORT
    ),
    "heartbeats are answered without a round": Mutant(
        [(leases.LeaseKeeper, "__init__", _heartbeats_without_a_round)],
        {sim_checks.ONE_ATTEMPT, *STARTS},
        scripts.isolation_of_a_leader_at_work,
        size=3,
        times=SHORT,
        given=[NO_FALLBACK],
    ),
    "a refused token starts after all": Mutant(
        [(worker.Worker, "_refuse", _refuse_and_forget)],
        {sim_checks.REFUSED},
        scripts.start_after_a_late_refusal,
        size=3,
        times=LONG,
    ),
    "a restart starts it again": Mutant(
        [(worker.Worker, "_look", _look_at_any_life), (worker.Worker, "gate", _gate_of_any_life)],
        STARTS,
        scripts.restart_in_the_midst,
        size=3,
    ),
    "a leader fires what is not committed": Mutant([(scheduler.Scheduler, "_propose", _fire_at_once)], STARTS),
}


@contextmanager
def replaced(replacements: list[Replacement]) -> Iterator[None]:
    """All of them hold for a while."""
    with ExitStack() as stack:
        for owner, name, value in replacements:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


def story_of(name: str, seed: int) -> Story:
    mutant = MUTANTS[name]
    return Story(seed, script=mutant.script, size=mutant.size, times=mutant.times)


def play(name: str, seed: int, *, is_mended: bool = False) -> str | None:
    """Which checker fires in this seed without the mend; with it if `is_mended`."""
    mutant = MUTANTS[name]
    with replaced([*mutant.given, *([] if is_mended else mutant.replacements)]):
        violation = story_of(name, seed).run().violation
    return None if violation is None else violation.checker
