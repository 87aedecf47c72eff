"""/v1/cluster: what this node knows of the cluster, also without a quorum; who belongs to it, and who leads."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from raftcron import __version__
from raftcron.api import bodies, respond
from raftcron.api.context import NODE, NodeContext
from raftcron.api.forward import write
from raftcron.api.query import Query, idempotency_key
from raftcron.core.commands import Done
from raftcron.core.fields import kind_of
from raftcron.core.instant import rfc3339, shown
from raftcron.core.model import HANDLER_TAG, OF_HANDLERS, Key
from raftcron.errors import ConflictError, Fault
from raftcron.ports import LogStatus, Member, Role, Standing
from raftcron.runtime.small_bodies import fields_of, refuse_any


async def get(request: web.Request) -> web.Response:
    query = Query(request, ("digests",))
    with_digests = query.choice("digests", ("0", "1")) != "0"
    query.refuse_any()
    return respond.value(_cluster(request.app[NODE], with_digests=with_digests))


async def add(request: web.Request) -> web.Response:
    """Await a new member: 202, or 200 where it votes already."""
    node, (body, key) = request.app[NODE], await _body(request)
    content = bodies.decode(body)

    async def act() -> Done:
        return _changed(node, *await node.members.add(content))

    async def use() -> web.Response:
        return _shown(node, await node.service.once(key, act))

    return await write(request, body, use)


async def remove(request: web.Request) -> web.Response:
    node, (body, key), name = request.app[NODE], await _body(request), request.match_info["name"]
    refuse_any([])

    async def act() -> Done:
        return Done(name, web.HTTPNoContent.status_code, index=await node.members.remove(name))

    async def use() -> web.Response:
        done = await node.service.once(key, act)
        return web.Response(status=done.status, headers=respond.written(done))

    return await write(request, body, use)


async def replace(request: web.Request) -> web.Response:
    """Await an empty data directory in a member's place: 202."""
    node, (body, key), name = request.app[NODE], await _body(request), request.match_info["name"]
    content = bodies.decode(body, may_be_empty=True)

    async def act() -> Done:
        return _changed(node, name, await node.members.replace(name, content))

    async def use() -> web.Response:
        return _shown(node, await node.service.once(key, act))

    return await write(request, body, use)


async def transfer(request: web.Request) -> web.Response:
    node, (body, key) = request.app[NODE], await _body(request)
    content = bodies.decode(body, may_be_empty=True)

    async def use() -> web.Response:
        done = await node.members.transfer(content, key)
        return respond.value({"leader": node.log.status().leader}, done.status, respond.written(done))

    return await write(request, body, use)


async def drain(request: web.Request) -> web.Response:
    """A node gets no new runs, or may have them again: 200 with the cluster."""
    Query(request, ())
    node = request.app[NODE]
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    key = idempotency_key(request, body)
    content = bodies.decode(body)

    async def use() -> web.Response:
        done = await node.drains.drain(content, key)
        return respond.value(_cluster(node), done.status, respond.written(done))

    return await write(request, body, use)


async def accept_time(request: web.Request) -> web.Response:
    """The leader's clock counts from now on, where no majority agrees on another time: 200 with the cluster.

    Body `{leader}`, which may be left out: whose clock was looked at, so that no other node's is accepted instead.
    """
    node, (body, key) = request.app[NODE], await _body(request)
    fields, faults = fields_of(bodies.decode(body, may_be_empty=True), ("leader",))
    leader = fields.get("leader")
    if leader is not None and not isinstance(leader, str):
        faults.append(Fault("/leader", f"must be a member's name, not {kind_of(leader)}"))
    refuse_any(faults)

    async def use() -> web.Response:
        if leader not in (None, node.name):
            await node.service.confirm()
            if node.service.answered(key) is None:
                raise ConflictError(
                    f"{node.name} leads, not {shown(leader)}, whose clock was looked at: nothing was changed. "
                    f"Look at the clock of {node.name}, then ask again"
                )
        done = await node.service.accept_time(node.clocks, key)
        return respond.value(_cluster(node), done.status, respond.written(done))

    return await write(request, body, use)


def _cluster(node: NodeContext, *, with_digests: bool = True) -> dict[str, Any]:
    status, trusted = node.log.status(), node.time.ahead_ms is not None
    return {
        "cluster_id": status.cluster_id,
        "leader": status.leader,
        "term": status.term,
        "epoch": node.machine.state.epoch,
        "commit_index": status.commit_index,
        "members": _members(node),
        "catch_up": {"owed": node.catch_up.owed, "started": node.catch_up.started},
        "digests": _digests(node) if with_digests else [],
        "editions": [
            {"name": edition.name, "version": edition.version, "since": edition.since}
            for edition in node.machine.state.editions.values()
        ],
        "time": rfc3339(node.time.now_ms()) if trusted else None,
        "clock_untrusted": node.clocks.is_untrusted,
    }


async def _body(request: web.Request) -> tuple[bytes, Key | None]:
    Query(request, ())
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    return body, idempotency_key(request, body)


def _changed(node: NodeContext, name: str, index: int) -> Done:
    members = node.log.status().members
    is_done = any(member.name == name and member.standing is Standing.VOTER for member in members)
    return Done(name, (web.HTTPOk if is_done else web.HTTPAccepted).status_code, index=index)


def _shown(node: NodeContext, done: Done) -> web.Response:
    return respond.value({"members": _members(node)}, done.status, respond.written(done))


def _members(node: NodeContext) -> list[dict[str, Any]]:
    status = node.log.status()
    return [_member(node, status, member) for member in status.members]


def _member(node: NodeContext, status: LogStatus, member: Member) -> dict[str, Any]:
    is_self = member.name == node.name
    is_awaited = member.standing is Standing.AWAITED  # what is known of its name is another node's
    announced = None if is_awaited else node.machine.state.nodes.get(member.name)
    heard = None if is_awaited else node.peers.get(member.name)
    applied: int | None
    digest: str | None
    if is_self:
        role, applied, digest = status.role, node.machine.state.index, f"{node.machine.state.digest:032x}"
    else:
        role = Role.LEADER if member.name == status.leader else Role.FOLLOWER
        applied, digest = (None, None) if heard is None else (heard.applied_index, heard.digest)
    croniter, tzdata = ("", "") if announced is None else (announced.croniter_version, announced.tzdata_version)
    if is_self:
        croniter, tzdata = node.machine.editions
    carried = {} if announced is None else announced.tags
    return {
        "name": member.name,
        "role": role.value if member.standing is Standing.VOTER else "learner",
        "standing": member.standing.value,
        "http": node.advertise if is_self else (member.http or None) if announced is None else announced.http,
        "raft": member.address,
        "alive": is_self or member.connected,
        "applied_index": applied,
        "digest": digest,
        "incarnation": node.log.incarnation if is_self else None if announced is None else announced.incarnation,
        "clock_offset_ms": None if is_awaited else node.clocks.offset_ms(member.name),
        "version": __version__ if is_self else None if announced is None else announced.version,
        "drained": announced is not None and announced.drained,
        "tags": {key: value for key, value in carried.items() if not key.startswith(OF_HANDLERS)},
        "handlers": sorted(key.removeprefix(HANDLER_TAG) for key in carried if key.startswith(HANDLER_TAG)),
        "slots": None if announced is None else announced.slots,
        "process_slots": None if announced is None else announced.process_slots,
        "croniter": croniter or None,
        "tzdata": tzdata or None,
    }


def _digests(node: NodeContext) -> list[tuple[int, str]]:
    """The pairs that this node still has, in the order of their indices."""
    return [(index, f"{digest:032x}") for index, digest in sorted(node.machine.held_digests().items())]
