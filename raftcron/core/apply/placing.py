"""Where a run begins that has just been admitted: on a node within the entry that decided it, or in the queue."""

from __future__ import annotations

from raftcron.core.apply.context import Context
from raftcron.core.apply.runs import begin_at
from raftcron.core.commands import Place
from raftcron.core.model import ON_LEADER, Job, Policy, Run
from raftcron.core.placement import choose, is_split
from raftcron.core.state import State


def begin(state: State, context: Context, job: Job, policy: Policy, run: Run, leader: Place) -> None:
    """Give a run that is not among the state's yet its node, if it can have one now.

    On the leader it starts in this entry; another node has to ask, so that one which has just died costs an assignment
    and not a run (semantics 5.5).
    """
    if is_split(policy) or state.group_room(policy.group) < 1:
        return
    place: Place | None = leader
    if policy.placement != ON_LEADER:
        lives = {one.node: one for one in context.live if state.is_alive(one.node, one.incarnation)}
        node = choose(
            policy.placement,
            policy.tags,
            sorted(lives),
            state,
            leader=leader.node,
            last=job.last_node,
            process=policy.process,
            turn=state.next_token,
        )
        place = None if node is None else lives[node]
    elif not (
        state.is_alive(leader.node, leader.incarnation)
        and state.has_slot(leader.node, process=policy.process)
        and (not policy.tags or state.carries(leader.node, policy.tags))
    ):
        place = None
    if place is None:
        return
    run.group, run.is_process = policy.group, state.is_process(place.node, policy.process)
    begin_at(state, context, run, place, start=place == leader)
