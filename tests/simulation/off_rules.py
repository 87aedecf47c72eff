"""What stands in the place of the rarer rules while they are switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import structs

from raftcron.core import planner
from raftcron.core.apply import chains, decisions, runs
from raftcron.core.model import FAILED, TIMED_OUT
from raftcron.core.state import State
from raftcron.core.timeline import Timeline
from raftcron.runtime import assigner, members, scheduler


def slot_though_drained(self: Any, node: str, *, process: str | None) -> bool:
    """State.has_slot, but a drained node has some."""
    return _undrained(self, node, lambda: _has_slot(self, node, process=process))


def room_though_drained(self: Any, node: str, *, process: str | None) -> bool:
    """The leader's room of an entry, likewise."""
    return _undrained(self.state, node, lambda: _room_has_slot(self, node, process=process))


def takes_runs_though_drained(self: Any, name: str, *, fresh: bool) -> bool:
    """Assigner._takes_runs, likewise."""
    return _undrained(self._machine.state, name, lambda: _takes_runs(self, name, fresh=fresh))


def _undrained(state: Any, node: str, look: Callable[[], bool]) -> bool:
    record = state.nodes.get(node)
    if record is None or not record.drained:
        return look()
    record.drained = False
    try:
        return look()
    finally:
        record.drained = True


def choose_for_any_part(*given: Any, only: str | None, **more: Any) -> Any:
    """placement.choose, but a part of a broadcast may go anywhere."""
    return _choose(*given, only=None, **more)


def part_may_be_anywhere(state: Any, run: Any, node: str) -> bool:
    """runs.may_be_at, likewise."""
    part = None if run.part is None else structs.replace(run.part, node=None)
    return bool(_may_be_at(state, structs.replace(run, part=part), node))


def due_after_the_whole_jitter(self: Any, uid: int, at: int, after: int | None) -> int:
    """times.Times.due_at, but the jitter is not drawn below its bound: it is the bound."""
    return at + int(self.jitter_ms)


def no_plan_for_some(job: Any, *rest: Any) -> Any:
    """planner.decide, but it raises where a job has fired a number of times that 7 divides."""
    if job.fired % 7 == 0:
        raise ZeroDivisionError("in a plan")
    return _decide(job, *rest)


def triggered_but_some(state: Any, context: Any, command: Any) -> Any:
    """decisions.trigger, but it raises at some indices, on every node (row 7)."""
    if context.log_index % 16 == 0:
        raise ZeroDivisionError("in apply")
    return decisions.trigger(state, context, command)


def retry_any_end(policy: Any, run: Any, state: str, error_kind: str | None) -> bool:
    """policy.may_retry, but the job is not asked which ends are tried again."""
    is_asked_for = _may_retry(policy, run, state, error_kind)
    return is_asked_for or (run.attempt < policy.max_attempts and state in (FAILED, TIMED_OUT))


def follow_any(state: Any, context: Any, child: Any, run: Any) -> None:
    """chains._notice, but one parent's end is enough."""
    policy = state.policy(child.uid)
    _notice(state, context, child, run)
    if policy.join == "all" and len(policy.after) > 1 and child.joined:
        chains._fire(state, context, child, policy, run)


def update_though_spent(self: Any, job: Any, policy: Any) -> None:
    """Timeline.update, but a job that has had all its runs stays on it."""
    _timeline_update(self, job, structs.replace(policy, max_runs=0))


def decide_what_is_to_be_skipped(job: Any, *rest: Any) -> Any:
    """planner.decide, but nobody knows what is to be skipped."""
    return _decide(structs.replace(job, skips=()), *rest)


def addresses_of_both(fields: Any, faults: Any, must_have: Any = ()) -> Any:
    """members._addresses, but whoever joins has to say where its HTTP is."""
    return _addresses(fields, faults, must_have=(*must_have, *(["http"] if must_have else [])))


def pauses_go_on(self: Any, now: int) -> Iterator[Any]:
    """Scheduler._end_pauses, but what is over goes on."""
    self._machine.timeline.pauses_over(now, scheduler.PAUSES_PER_SWEEP)
    return iter(())


_has_slot, _room_has_slot = State.has_slot, assigner._Room.has_slot
_takes_runs = assigner.Assigner._takes_runs
_choose, _may_be_at = assigner.choose, runs.may_be_at
_addresses = members._addresses
_timeline_update = Timeline.update
_may_retry, _notice, _decide = runs.may_retry, chains._notice, planner.decide
