"""What a queued run waits for, in words, and what to do about it; from the replicated state, so that any node can say.

Nothing here decides: which node gets a run is core/placement.py, when a run is expired core/policy.py.
"""

from __future__ import annotations

from raftcron.core.instant import rfc3339
from raftcron.core.model import CAUSE_BACKFILL, HANDLER_TAG, ON_LEADER, QUEUED, Run
from raftcron.core.placement import Lane, matching
from raftcron.core.policy import start_deadline
from raftcron.core.state import State

NAMES_SHOWN = 5


def waits_for(state: State, run: Run) -> str | None:
    """A clause that goes on from "it waits for"; None: the run is not in the queue, or its job is gone."""
    policy = state.policies.get(run.uid)
    if run.state != QUEUED or run.split is not None or policy is None:
        return None
    if run.waits_turn:
        return "its turn among the runs of its job"
    if state.is_held(run):
        return "its job to be resumed: it is paused"
    lane = state.lane_of(run)
    if lane is None:
        return None
    matched = _matching(state, lane)
    if all(state.nodes[name].drained for name in matched):
        return f"{_missing(state, lane, matched)}; {_fate(state, run)}"
    if not lane.is_whole and state.group_room(lane.group) <= 0:
        return f"room in the group {lane.group!r}, all of which is taken"
    pace = "its turn at catch-up-rate, and for " if lane.is_paced else ""
    what = "its division; live nodes that match" if lane.is_whole else "a free slot on a live node that matches"
    return f"{pace}{what}: {_some(matched)}"


def _matching(state: State, lane: Lane) -> list[str]:
    """The nodes, live or not, that meet the run's demands."""
    only = state.leader if lane.on == ON_LEADER and not lane.is_whole else lane.node
    return matching(lane.tags, only, sorted(state.nodes), state)


def _missing(state: State, lane: Lane, drained: list[str]) -> str:
    """No node may get it: what would help."""
    if drained:
        end_one = f"end the drain of {_some(drained)} (raftcron cluster drain {drained[0]} --undo)"
        return f"a node that matches and is not drained: {end_one}"
    carried, advice = _demand(lane)
    if lane.node is not None:
        return f"the node {lane.node}, which does not match: {carried}"
    if lane.on == ON_LEADER and not lane.is_whole:
        return (
            f"a leader with {carried}, which {state.leader or 'no node'} does not have: change the job's "
            f"placement (on: any), or {advice}"
        )
    return f"a node with {carried}, which no node of the cluster has: {advice}"


def _demand(lane: Lane) -> tuple[str, str]:
    """What a node has to carry, and how one comes to do so: a handler is registered by an application, not a tag."""
    handlers = [key.removeprefix(HANDLER_TAG) for key, _ in lane.tags if key.startswith(HANDLER_TAG)]
    tags = " ".join(f"{key}={value}" for key, value in lane.tags if not key.startswith(HANDLER_TAG))
    carried = [f"the tags {tags or 'none'}"] if tags or not handlers else []
    advice = ["start one with them (--tag), or change the job's placement.tags"] if carried else []
    for handler in handlers:
        carried.append(f"the handler {handler}")
        advice.append("start there an application that registers it, or name another handler")
    return " and ".join(carried), "; ".join(advice)


def _fate(state: State, run: Run) -> str:
    if run.cause == CAUSE_BACKFILL:
        return "a backfill has no start deadline, so it waits until then, or until it is cancelled"
    until = rfc3339(start_deadline(state.policies[run.uid], run))
    if run.attempt > 1:
        return f"if none comes before {until}, it ends as its last attempt did"
    return f"if none comes before {until}, it is skipped: no_node"


def _some(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
