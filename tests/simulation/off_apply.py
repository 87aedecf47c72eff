"""What stands in the place of what apply keeps (counters, times, tokens, ends), and of its watch, while it is off."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from msgspec import structs

from raftcron.core import apply as core_apply
from raftcron.core import image, planner, timeline
from raftcron.core.apply import decisions, jobs, leadership, remote, runs
from raftcron.core.apply.context import remember
from raftcron.core.codec import decode_entry
from raftcron.core.commands import Done, Lead
from raftcron.core.ledger import account
from raftcron.core.model import ENDED, WAITING_RETRY
from raftcron.core.records import MODULUS
from raftcron.core.state import State
from raftcron.errors import DamagedError, RaftcronError
from raftcron.raft import engine
from raftcron.runtime import conservation

PASSED_SECONDS = 0.5
AHEAD_MS = 60_000

# ---- refusals, keys and revisions --------------------------------------------------------------------------------


def refused_and_done(*_: Any) -> Any:
    """What Machine.apply says of an entry that cannot be read, but as if it had been carried out (I13)."""
    return Done("")


def hear_before_the_check(state: Any, context: Any, command: Any) -> Any:
    """remote.hear, but the target's time begins anew before anybody looks whether it may speak."""
    run = state.runs.get(command.run)
    if run is not None and run.answer_by is not None:
        run.answer_by, run.heard_at = run.answer_by + 1, context.at
        state.touch(run)
        state.note(run)
    return remote.hear(state, context, command)


def no_key_is_known(_state: Any, _key: Any) -> None:
    """context.replay, but in apply no idempotency key was ever used."""


async def propose_again(self: Any, body: bytes, epoch: int) -> Any:
    """Engine.propose, but what has a key arrives once more, as from a client that has not heard the answer."""
    applied = await _propose(self, body, epoch)
    with suppress(DamagedError):
        if getattr(decode_entry(body).command, "key", None) is not None:
            asyncio.get_running_loop().create_task(_proposed(self, body, epoch))
    return applied


async def _proposed(self: Any, body: bytes, epoch: int) -> None:
    with suppress(RaftcronError):
        await _propose(self, body, epoch)


def replace_under_its_revision(state: Any, context: Any, job: Any, command: Any, *rest: Any, **more: Any) -> None:
    """jobs.replace, but an edit that concerns no time keeps the revision."""
    was, before = job.revision, state.policies[job.uid].recurrence
    _replace(state, context, job, command, *rest, **more)
    if state.policies[job.uid].recurrence == before:
        job.revision = was


# ---- time and watermarks -----------------------------------------------------------------------------------------


def apply_at_its_word(state: Any, index: int, entry: Any) -> Any:
    """core.apply, but cluster time is what the newest entry says, be that earlier."""
    if entry.epoch == state.epoch or isinstance(entry.command, Lead):
        state.cluster_time = min(state.cluster_time, entry.at)
    return _apply(state, index, entry)


def decide_beyond_now(*given: Any) -> Any:
    """planner.decide, but a decision goes beyond what has come."""
    decision = _decide(*given)
    return None if decision is None else structs.replace(decision, through=decision.through + AHEAD_MS)


def take_and_stay(state: Any, context: Any, job: Any, *rest: Any) -> None:
    """decisions.take, but the watermark stays where it was."""
    was = job.decided_through
    _take(state, context, job, *rest)
    job.decided_through = was


def resume_at_its_word(state: Any, context: Any, command: Any) -> Any:
    """jobs.resume, but the watermark is what the command says, be that earlier."""
    job = state.jobs.get(command.name)
    if job is not None and job.paused and state.revision_of(job) == command.seen_revision:
        job.decided_through = min(job.decided_through, command.through)
    return jobs.resume(state, context, command)


def times_from_the_anchor(
    recurrence: Any, schedules: Any, anchor: int, exclusions: Any, last_end: int | None, since: int
) -> Any:
    """times.times_of, but times that follow from the end of a run follow from where the job began."""
    return _times_of(recurrence, schedules, anchor, exclusions, None if last_end is None else anchor, since)


def fire_uncounted(state: Any, context: Any, job: Any, *rest: Any) -> None:
    """decisions._fire, but what overlaps is on no counter."""
    was = job.skipped
    _fire(state, context, job, *rest)
    job.skipped = was


async def counted_later(self: Any, job: Any) -> Any:
    """Conservation.check, but what a job owed is counted a little after what it has decided."""
    state = self._machine.state
    decided = job.fired + job.skipped
    await asyncio.sleep(PASSED_SECONDS)
    if state.by_uid.get(job.uid) is not job:
        return None
    owed = await self._owed(account(job, state.policy(job.uid), state.calendars, state.editions_since))
    self.checked += 1
    return None if owed is None or owed == decided else conservation.Finding(decided - owed, None)


# ---- tokens, attempts and ends -----------------------------------------------------------------------------------


def lead_and_count_anew(state: Any, context: Any, command: Any) -> Any:
    """leadership.lead, but each leader counts its tokens from 1."""
    state.next_token = 1
    return _lead(state, context, command)


def unassign_and_count_back(state: Any, context: Any, run: Any) -> None:
    """runs.unassign, but what has never started gives its attempt number back."""
    run.attempt = max(1, run.attempt - 1)
    _unassign(state, context, run)


def give_turn_as_a_retry(self: Any, run: Any) -> None:
    """State.give_turn, but a run that has waited for others of its job counts as tried."""
    run.attempt += 1
    _give_turn(self, run)


def conclude_what_has_ended(state: Any, context: Any, command: Any) -> Any:
    """remote.conclude, but a target has the last word, of what has ended too."""
    run = _ended(state, command)
    if run is None:
        return remote.conclude(state, context, command)
    run.state = command.state
    state.touch(run)
    state.note(run)
    return remember(state, context, command.key, run.id, 200)


def conclude_what_waits(state: Any, context: Any, command: Any) -> Any:
    """remote.conclude, but the token of an attempt that is over counts until the next one has one."""
    run = state.runs.get(command.run)
    if run is None or run.state != WAITING_RETRY or run.fencing_token != command.fencing_token:
        return remote.conclude(state, context, command)
    runs.end_attempt(state, context, run, command.state)
    return remember(state, context, command.key, run.id, 200)


def conclude_under_any_token(state: Any, context: Any, command: Any) -> Any:
    """remote.conclude, but who shows an old token is told that its word is taken, and it is not."""
    run = state.runs.get(command.run)
    if run is None or run.fencing_token == command.fencing_token:
        return remote.conclude(state, context, command)
    return remember(state, context, command.key, run.id, 200)


def conclude_again(state: Any, context: Any, command: Any) -> Any:
    """remote.conclude, but of what has ended any further word is taken, and means nothing."""
    run = _ended(state, command)
    return (
        remote.conclude(state, context, command) if run is None else remember(state, context, command.key, run.id, 200)
    )


def _ended(state: Any, command: Any) -> Any:
    """The run that a target speaks of, if that has ended in the very attempt, and is not lost."""
    run = state.runs.get(command.run)
    if run is None or run.state not in ENDED or run.fencing_token != command.fencing_token or runs.is_attempt_lost(run):
        return None
    return run


def announce_of_an_old_copy(state: Any, context: Any, command: Any) -> Any:
    """leadership.announce, but of two processes in one life of a node the later one counts."""
    known = state.nodes.get(command.node)
    if known is not None and known.incarnation == command.incarnation and known.life != command.life:
        known.incarnation -= 1
    return leadership.announce(state, context, command)


# ---- snapshots ---------------------------------------------------------------------------------------------------


def parts_without_keys(state: Any) -> Any:
    """What an image holds, but no idempotency keys."""
    return (part for part in _parts(state) if part[0] != "keys")


def finished_as_it_came(self: Any) -> Any:
    """image.Reader.finish, but whatever came is the whole."""
    self.state.digest = self._digest % MODULUS
    self.state.seal()
    return self.state


_propose, _apply, _replace = engine.Engine.propose, core_apply.apply, jobs.replace
_take, _fire, _decide = decisions.take, decisions._fire, planner.decide
_times_of, _give_turn = timeline.times_of, State.give_turn
_lead, _unassign, _parts = leadership.lead, runs.unassign, image._parts
