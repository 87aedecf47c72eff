"""Rules of runs, each with what stands in its place while it is switched off, and a cell of the matrix that then fails.

Not here: rules whose absence only other faults show, which are those of the simulation (tests/simulation/mutants.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from raftcron.core import policy
from raftcron.core.apply import admission, leadership, remote, runs
from raftcron.core.commands import Announce, Cancel, Done, Expire, Finish, Requeue, TakeOver
from raftcron.core.model import LOST
from raftcron.core.queues import Queues
from raftcron.core.records import Records
from raftcron.runtime.assigner import Assigner
from raftcron.runtime.leases import LeaseKeeper
from raftcron.runtime.reports import Reports
from raftcron.runtime.worker import Worker
from tests.simulation import off_runs
from tests.simulation.switch import Replacement, handled


class Off(NamedTuple):
    """A rule that is switched off."""

    rule: str
    replacements: list[Replacement]
    cell: str  # that fails


def _nothing(*args: Any, **more: Any) -> Any:
    return None


def _does_nothing(state: Any, context: Any, command: Any) -> Any:
    return Done()


def _retried_in_any_class(one: Any, run: Any, state: str, kind: str | None) -> bool:
    return run.attempt < 5 if state == LOST else _may_retry(one, run, state, kind)


def _lost_for_good(one: Any, run: Any, state: str, kind: str | None) -> bool:
    return state != LOST and _may_retry(one, run, state, kind)


def _part_is_retried(one: Any, run: Any, state: str, kind: str | None) -> bool:
    part, run.part = run.part, None
    try:
        return _may_retry(one, run, state, kind)
    finally:
        run.part = part


def _timed_out_counts_as_failed(one: Any, run: Any, state: str, kind: str | None) -> bool:
    return _may_retry(one, run, "failed" if state == "timed_out" else state, kind)


def _end_attempt_as_if_nobody_had_cancelled(state: Any, context: Any, run: Any, *args: Any, **more: Any) -> None:
    if run.state == "cancelling":
        state.move(run, "running")
    _end_attempt(state, context, run, *args, **more)


def _announce_and_let_run(state: Any, context: Any, command: Any) -> Any:
    on_node, state.on_node = state.on_node, {}
    try:
        return leadership.announce(state, context, command)
    finally:
        state.on_node = on_node


def _announce_and_lose_what_targets_have(state: Any, context: Any, command: Any) -> Any:
    outcome = leadership.announce(state, context, command)
    for run in list(state.taken_over.values()):
        if run.node == command.node and command.incarnation > 1:
            runs.end_attempt(state, context, run, LOST)
    return outcome


def _finish_in_time_only(state: Any, context: Any, command: Any) -> Any:
    command.finished[:] = [one for one in command.finished if state.runs[one.run].state != LOST]
    return runs.finish(state, context, command)


def _never_silent(self: Any, node: str) -> bool:
    return False


def _silent_at_once(self: Any, node: str) -> float:
    since = max(self._heard.get(node, self._led_since), self._led_since)
    return max(0.0, float(since) + 1.5 - self._clock.boot())


def _one_room_more(self: Any, uid: int) -> bool:
    return _has_room(self, uid) or len(self.active.get(uid, ())) < 2


_may_retry, _end_attempt, _has_room = policy.may_retry, runs.end_attempt, Queues.has_room

RULES = [
    Off(
        "a lost attempt is not tried again at most once",
        [(runs, "may_retry", _retried_in_any_class)],
        "retry, elsewhere, at_most_once: restart of both after [Start: 1 running 1]",
    ),
    Off(
        "a lost attempt is tried again at least once",
        [(runs, "may_retry", _lost_for_good)],
        "overlap replace, elsewhere, at_least_once: kill of both midway after [Start: 2 running 1]",
    ),
    Off(
        "a broadcast's part does not move",
        [(runs, "may_retry", _part_is_retried)],
        "broadcast, elsewhere, at_least_once: pause of executor as [Start: 1.n3 running 1]",
    ),
    Off(
        "timed_out is retried only if it is named",
        [(runs, "may_retry", _timed_out_counts_as_failed)],
        "time-out, retried, on the leader, at_least_once: kill of both midway after [Finish: 1 waiting_retry 1]",
    ),
    Off(
        "a cancel is final",
        [(module, "end_attempt", _end_attempt_as_if_nobody_had_cancelled) for module in (runs, leadership, remote)],
        "cancel, elsewhere, at_least_once: pause of executor midway after [Cancel: 1 cancelling 1]",
    ),
    Off(
        "what ran in a former life is lost at once",
        [handled(Announce, _announce_and_let_run)],
        "retry, elsewhere, at_most_once: restart of both after [Start: 1 running 1]",
    ),
    Off(
        "an assignment of a silent node is taken back",
        [(Assigner, "take_back", lambda self: iter(()))],
        "start deadline between silence and loss, elsewhere, at_most_once: kill of executor as [Decide: 1 assigned 1]",
    ),
    Off(
        "a node that is silent for a lease loses its runs",
        [(LeaseKeeper, "is_silent", _never_silent)],
        "cancel, elsewhere, at_most_once: pause of executor after [Start: 1 running 1]",
    ),
    Off(
        "nobody is given up before his lease has ended",
        [(LeaseKeeper, "seconds_left", _silent_at_once)],
        "cancel, elsewhere, at_most_once: pause of executor after [Start: 1 running 1]",
    ),
    Off(
        "no node's fault bears on what a target has",
        [handled(Announce, _announce_and_lose_what_targets_have)],
        "long call, on the leader, at_most_once: restart of both after [TakeOver: 1 with_target 1]",
    ),
    Off(
        "what a target takes over is on record",
        [handled(TakeOver, _does_nothing)],
        "long call, elsewhere, at_most_once: pause of both after [Decide: 1 assigned 1]",
    ),
    Off(
        "the late end of a lost run is kept",
        [handled(Finish, _finish_in_time_only)],
        "cancel, elsewhere, at_least_once: pause of executor midway after [Cancel: 1 cancelling 1]",
    ),
    Off(
        "what was not heard is told again",
        [(Reports, "repeat", _nothing)],
        "once, elsewhere, at_most_once: cut of both midway after [Start: 1 running 1]",
    ),
    Off(
        "the gate asks for a licence",
        [(Worker, "_is_valid", off_runs.gate_is_open)],
        "retry, elsewhere, at_least_once: pause of executor after [Start: 1 running 2]",
    ),
    Off(
        "a worker stops what it runs when its lease ends",
        [(Worker, "_lease_ended", _nothing)],
        "overlap skip, elsewhere, at_least_once: cut of executor midway after [Decide: 2 skipped 1]",
    ),
    Off(
        "what may go on goes on without a lease",
        [(Records, "stops_with_lease", lambda self, uid: True)],
        "goes on without its lease, elsewhere, at_most_once: pause of both midway after [Start: 1 running 1]",
    ),
    Off(
        "a heartbeat's answer needs a round of a majority",
        [(LeaseKeeper, "__init__", off_runs.heartbeats_without_a_round)],
        "overlap queue, on the leader, at_least_once: cut of both midway after [Decide: 2 queued 1]",
    ),
    Off(
        "a process runs nothing of a former life",
        [(Worker, "_look", off_runs.look_at_any_life), (Worker, "gate", off_runs.gate_of_any_life)],
        "cancel, elsewhere, at_most_once: pause of executor after [Start: 1 running 1]",
    ),
    Off(
        "a report under an old token changes nothing",
        [handled(Finish, off_runs.finish_under_any_token)],
        "overlap skip, elsewhere, at_least_once: cut of executor midway after [Decide: 2 skipped 1]",
    ),
    Off(
        "what waits too long ends",
        [handled(Expire, _does_nothing)],
        "start deadline, elsewhere, at_most_once: cut of both after [Decide: 1 assigned 1]",
    ),
    Off(
        "overlap: one at a time",
        [(Queues, "has_room", _one_room_more)],
        "overlap skip, elsewhere, at_least_once: pause of leader as [Decide: 2 skipped 1]",
    ),
    Off(
        "overlap replace ends the former run",
        [(admission, "_displace", _nothing)],
        "overlap replace, elsewhere, at_least_once: cut of leader after [Finish: 1 cancelled 1]",
    ),
    Off(
        "an end gives the next one its turn",
        [(runs, "give_turns", _nothing)],
        "overlap queue, elsewhere, at_least_once: restart of executor as [Finish: 1 succeeded 1]",
    ),
    Off(
        "a retry is queued when its back-off is over",
        [handled(Requeue, _does_nothing)],
        "retry, elsewhere, at_least_once: kill of both after [Finish: 1 succeeded 2]",
    ),
    Off(
        "a cancel is heard",
        [handled(Cancel, _does_nothing)],
        "cancel, elsewhere, at_most_once: pause of executor after [Start: 1 running 1]",
    ),
    Off(
        "a new leader gives everybody a whole lease",
        [(LeaseKeeper, "begin", lambda self: None)],
        "cancel between attempts, elsewhere, at_most_once: pause of leader after [Start: 1 running 1]",
    ),
]
