"""/v1/cluster: what this node knows of the cluster, also without a quorum."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from raftcron import __version__
from raftcron.api import respond
from raftcron.api.context import NODE, NodeContext
from raftcron.api.query import Query
from raftcron.ports import LogStatus, Member, Role


async def get(request: web.Request) -> web.Response:
    Query(request, ())
    node = request.app[NODE]
    status = node.log.status()
    return respond.value(
        {
            "cluster_id": status.cluster_id,
            "leader": status.leader,
            "term": status.term,
            "epoch": node.machine.state.epoch,
            "commit_index": status.commit_index,
            "members": [_member(node, status, member) for member in status.members],
            "digests": _digests(node),
        }
    )


def _member(node: NodeContext, status: LogStatus, member: Member) -> dict[str, Any]:
    is_self = member.name == node.name
    announced = node.machine.state.nodes.get(member.name)
    heard = node.peers.get(member.name)
    applied: int | None
    digest: str | None
    if is_self:
        role, applied, digest = status.role, node.machine.state.index, f"{node.machine.state.digest:032x}"
    else:
        role = Role.LEADER if member.name == status.leader else Role.FOLLOWER
        applied, digest = (None, None) if heard is None else (heard.applied_index, heard.digest)
    return {
        "name": member.name,
        "role": role.value,
        "http": node.advertise if is_self else None if announced is None else announced.http,
        "raft": member.address,
        "alive": is_self or member.connected,
        "applied_index": applied,
        "digest": digest,
        "incarnation": node.log.incarnation if is_self else None if announced is None else announced.incarnation,
        "clock_offset_ms": 0 if is_self else None if heard is None else heard.clock_offset_ms,
        "version": __version__ if is_self else None if announced is None else announced.version,
    }


def _digests(node: NodeContext) -> list[tuple[int, str]]:
    """The pairs that this node still has, in the order of their indices."""
    machine = node.machine
    pairs = dict(machine.spaced_digests)
    pairs.update(machine.digests)
    return [(index, f"{digest:032x}") for index, digest in sorted(pairs.items())]
