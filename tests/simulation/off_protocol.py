"""Rules of the run protocol switched off: what the shipped code would be without each of them (protocol.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from raftcron.core.apply import leadership, placing, runs
from raftcron.core.commands import Done, Start, Token
from raftcron.core.model import ASSIGNED
from raftcron.core.state import State
from raftcron.raft import leadership as raft_leadership
from raftcron.raft import reads
from raftcron.runtime import leases, presence, scheduler, worker
from tests.simulation.switch import Replacement, replaced

SLOW_SECONDS = 1.6


def given_up_early(self: Any, node: str) -> float:
    """LeaseKeeper.seconds_left, but the leader waits for half a second instead of a lease."""
    since = max(self._heard.get(node, self._led_since), self._led_since)
    return float(max(0.0, since + 0.5 - self._clock.boot()))


def given_up_by_a_new_leader(self: Any, node: str) -> float:
    """LeaseKeeper.seconds_left, but a new leader gives up at once who was not heard yet."""
    return float(_seconds_left(self, node)) if node in self._heard else 0.0


async def own_at_once(self: Any, number: int) -> None:
    """Presence._answer_own, but a leader's own heartbeat needs no round."""
    if self._log.leading_epoch is not None:
        self._take(number, self._log.leading_epoch, self._machine.applied_index)


def counted_from_the_answer(self: Any, number: int, epoch: int, index: int) -> None:
    """Presence._take, but the worker counts from when the answer came."""
    if number in self._sent:
        self._sent[number] = self._clock.boot()
    _take(self, number, epoch, index)


def without_margin(self: Any, number: int, epoch: int, index: int) -> None:
    """Presence._take, but there is no margin."""
    times, self._times = self._times, self._times._replace(margin_seconds=0.0)
    try:
        _take(self, number, epoch, index)
    finally:
        self._times = times


def answered_all_the_same(self: Any, node: str) -> Any:
    """LeaseKeeper.losing, but who is about to be given up is answered."""
    entry = _losing(self, node)
    self._losing.pop(node, None)
    return entry


def slowly(kind: type) -> Replacement:
    """Scheduler._propose, but commands of this kind wait for their turn."""

    async def propose(self: Any, command: Any, room: Any) -> None:
        if isinstance(command, kind):
            await asyncio.sleep(SLOW_SECONDS)
        await _propose(self, command, room)

    return scheduler.Scheduler, "_propose", propose


def look_at_what_has_started(self: Any, run: Any) -> None:
    """Worker._look, but it is forgotten which tokens have started."""
    if run.fencing_token not in self._tasks:
        self._running.pop(run.fencing_token, None)
    _look(self, run)


def start_under_any_token(state: Any, context: Any, command: Any) -> Any:
    """runs.start, but any token will do."""
    newest = [Token(token.run, state.runs[token.run].fencing_token) for token in command.starts]
    return runs.start(state, context, Start(newest))


def announce_in_any_order(state: Any, context: Any, command: Any) -> Any:
    """leadership.announce, but an earlier life may follow a later one."""
    known = state.nodes.get(command.node)
    if known is not None and command.incarnation < known.incarnation:
        known.incarnation = command.incarnation - 1
    return leadership.announce(state, context, command)


def announced_by_its_number(self: Any) -> bool:
    """Presence.is_announced, but a process goes by its incarnation alone."""
    return bool(self._machine.state.is_alive(self._node, self._announcement.incarnation))


def expire_but_assigned(state: Any, context: Any, command: Any) -> Any:
    """runs.expire, but what is assigned stays so."""
    for run_id in command.runs:
        run = state.runs.get(run_id)
        if run is not None and run.state == ASSIGNED:
            return Done(count=0)
    return runs.expire(state, context, command)


def valid_whatever_has_applied(self: Any, held: Any) -> bool:
    """Worker._is_valid, but the index that the licence names does not count."""
    return bool(held.epoch == self._machine.state.epoch and self._clock.boot() < held.until)


def valid_in_any_epoch(self: Any, held: Any) -> bool:
    """Likewise, nor does the epoch."""
    return bool(self._clock.boot() < held.until)


def join_what_is_out(self: Any) -> Any:
    """SharedQuestion.join, but whoever comes while a question is out shares it."""
    if not self._is_out:
        return _join(self)
    future = self._loop.create_future()
    self._asked.append(future)
    return future


async def attempt_a_little_later(self: Any, running: Any) -> None:
    """Worker._attempt, but the node is slow to come to the gate."""
    await asyncio.sleep(4.0)
    await _attempt(self, running)


def begin_and_plan_at_once(self: Any, core: Any) -> None:
    """raft.leadership.Leadership.begin, but the node leads before its leadership entry has applied."""
    _begin_to_lead(self, core)
    self.epoch = self._machine.epoch
    self._changed(self.epoch)


def none_before_the_lease(_self: Any) -> Iterator[Any]:
    """Assigner.take_back, but what a silent node was given waits for the end of its lease."""
    return iter(())


def start_past_its_deadline(state: Any, context: Any, command: Any) -> Any:
    """runs.start, but the start deadline does not count."""
    with replaced([(runs, "_is_past_deadline", lambda *_: False)]):
        return runs.start(state, context, command)


def begin_in_any_life(state: Any, *rest: Any) -> None:
    """placing.begin, but a place may be a former life of its node."""
    with replaced([(State, "is_alive", lambda *_: True)]):
        _begin(state, *rest)


def gate_of_what_was_seen(self: Any, running: Any) -> Any:
    """Worker.gate, but the run is what it was when it was first seen running."""
    del running
    held = self._license_of()
    return held.until if self._is_valid(held) and not self._is_draining else None


def no_deadline(*_: Any) -> int:
    return 1 << 60


def nothing(*_: Any, **__: Any) -> None:
    """It is not done."""


_seconds_left, _losing = leases.LeaseKeeper.seconds_left, leases.LeaseKeeper.losing
_attempt, _join = worker.Worker._attempt, reads.SharedQuestion.join
_take, _look = presence.Presence._take, worker.Worker._look
_begin, _begin_to_lead = placing.begin, raft_leadership.Leadership.begin
_propose = scheduler.Scheduler._propose
