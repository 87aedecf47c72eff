"""What a machine holds, in a form that can be compared; and one that has come out of another's snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raftcron.clock import SystemClock
from raftcron.core import planner
from raftcron.core.state import State
from raftcron.runtime.machine import Machine
from raftcron.testing.wall_time import WallTime

DUE_AT_ONCE = 7


def new_machine() -> Machine:
    """A node's machine that has applied nothing."""
    return Machine("n1", WallTime(SystemClock()))


def restored(blocks: Iterable[bytes]) -> Machine:
    """A machine that has nothing but these blocks."""
    machine = new_machine()
    restoring = machine.restoring()
    for block in blocks:
        restoring.feed(block)
    restoring.install()
    return machine


def held(state: State) -> dict[str, Any]:
    """All attributes of a state, orders included."""
    seen = {name: _plain(value) for name, value in vars(state).items() if not name.startswith(("touched_", "noted_"))}
    del seen["staging"]  # read as the chunks come, or when it is needed
    seen["processes"] = {node: count for node, count in state.processes.items() if count}  # none and nought are one
    seen["calendar_jobs"] = {name: set(uids) for name, uids in state.calendar_jobs.items()}  # told in no order, as
    seen["children"] = {name: set(uids) for name, uids in state.children.items()}
    seen["turns"] = {uid: list(runs) for uid, runs in state.turns.items()}
    seen["backfills"] = {uid: list(runs) for uid, runs in state.backfills.items()}
    seen["active"] = {uid: list(runs) for uid, runs in state.active.items()}  # are those, job by job
    seen["group_jobs"] = {name: set(uids) for name, uids in state.group_jobs.items()}
    seen["active_parts"] = {run_id: list(parts) for run_id, parts in state.active_parts.items()}
    seen["lanes"] = {lane: list(runs) for lane, runs in state.lanes.items()}
    for name in ("_lane_of", "group_running", "divided"):
        seen[name] = dict(getattr(state, name))
    seen["history"] = {uid: list(state.ended_of(uid)) for uid in state.by_uid}
    seen["ordinary"], seen["failures"] = state.ordinary.ids(state.runs), state.failures.ids(state.runs)
    seen["runs"] = [(run_id, _plain(state.runs[run_id])) for run_id in state.runs]
    return seen


def _plain(value: Any) -> Any:
    return [(key, _plain(one)) for key, one in value.items()] if isinstance(value, dict) else value


def undecided(machine: Machine, now: int) -> list[int]:
    """All jobs that the timeline says are due by `now` and that are; it has let go of them afterwards."""
    state, timeline = machine.state, machine.timeline
    found: set[int] = set()
    while (at := timeline.next_at()) is not None and at <= now:
        for uid in timeline.due(now, state.by_uid.get, DUE_AT_ONCE):
            job, group = state.by_uid[uid], timeline.group_of(uid)
            if group is not None and planner.decide(job, state.policy(uid), group, now) is not None:
                found.add(uid)
    return sorted(found)


def coming(machine: Machine) -> dict[int, int | None]:
    """The next undecided time of every job that has a place on the timeline."""
    state, timeline = machine.state, machine.timeline
    groups = {uid: timeline.group_of(uid) for uid in state.by_uid}
    return {uid: group and group.next_after(state.by_uid[uid].decided_through) for uid, group in groups.items()}


def assert_equal(one: Machine, other: Machine) -> None:
    """The same state in every respect, and the same snapshot of it."""
    ours, theirs = held(one.state), held(other.state)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name] == theirs[name], name
    assert list(one.snapshot()) == list(other.snapshot())
    assert coming(one) == coming(other)
    assert one.timeline.unreadable == other.timeline.unreadable
