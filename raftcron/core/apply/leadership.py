"""Leadership entries and the announcements of nodes' lives."""

from __future__ import annotations

from raftcron.core.apply.context import Context, remember
from raftcron.core.apply.runs import end_attempt, unassign
from raftcron.core.commands import Announce, Done, Drain, Lead, Outcome, Refused
from raftcron.core.model import ASSIGNED, LOST, Edition, Node
from raftcron.core.state import State


def lead(state: State, context: Context, command: Lead) -> Outcome:
    """Open the next epoch, and void every assignment that has not started (semantics 5.2)."""
    state.epoch += 1
    for name, version in (("croniter", command.croniter_version), ("tzdata", command.tzdata_version)):
        _reckon(state, context, name, version)
    state.leader = command.node
    state.lead_index = context.log_index
    state.history_total = max(0, command.history_total)
    for runs in list(state.on_node.values()):
        for run in list(runs.values()):
            if run.state == ASSIGNED:
                unassign(state, context, run)
    return Done(command.node)


def _reckon(state: State, context: Context, name: str, version: str) -> None:
    """From now on leaders reckon with this edition; what is decided stands, and every job counts anew."""
    known = state.editions.get(name)
    if known is not None and known.version == version:
        return
    if known is None:
        known = state.editions[name] = Edition(name, version, context.log_index)
    known.version, known.since = version, context.log_index
    state.touch(known)


def announce(state: State, context: Context, command: Announce) -> Outcome:
    """A node lives anew: what ran in its former life is lost, what had not started is queued again."""
    known = state.nodes.get(command.node)
    if known is not None:
        announced, newest = (command.incarnation, command.life), (known.incarnation, known.life)
        if announced == newest:
            return Done(command.node)
        if command.incarnation <= known.incarnation:
            return Refused(
                "incarnation",
                f"node {command.node} announces life {command.incarnation}, and life {known.incarnation} was announced "
                "by another process: its disk is an old copy; it must be replaced",
            )
        state.forget(known)
    node = Node(
        name=command.node,
        incarnation=command.incarnation,
        http=command.http,
        raft=command.raft,
        version=command.version,
        slots=command.slots,
        process_slots=command.process_slots,
        announced_at=context.at,
        announced_index=context.log_index,
        croniter_version=command.croniter_version,
        tzdata_version=command.tzdata_version,
        tags=command.tags,
        life=command.life,
    )
    state.nodes[node.name] = node
    state.touch(node)
    for run in list(state.on_node.get(node.name, {}).values()):
        if run.incarnation == node.incarnation:
            continue
        if run.state == ASSIGNED:
            unassign(state, context, run)
        else:
            end_attempt(
                state,
                context,
                run,
                LOST,
                error=f"node {node.name} started anew while the run was in flight",
                error_kind="node_restarted",
            )
    return Done(node.name)


def drain(state: State, context: Context, command: Drain) -> Outcome:
    """From now on the node gets no new runs, or gets them again; its next life begins as all do."""
    node = state.nodes.get(command.node)
    if node is None:
        return Refused("not_found", f"no node {command.node!r} has ever been announced")
    if node.drained != command.drained:
        node.drained = command.drained
        state.touch(node)
    return remember(state, context, command.key, node.name, 200)
