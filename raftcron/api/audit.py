"""/v1/audit: every write that took effect, newest first, with what it takes to check the chain."""

from __future__ import annotations

import bisect
from typing import Any

import msgspec
from aiohttp import web

from raftcron.api import respond
from raftcron.api.context import NODE
from raftcron.api.query import INDEX_MAX, PAGE, READ, Query
from raftcron.core.audit import CHAIN, AuditChain, AuditItem
from raftcron.runtime.views import instant


async def list_(request: web.Request) -> web.Response:
    """A cursor is the index of the page's last item; `chain` is as of this page."""
    query = Query(request, (*READ, *PAGE))
    before, limit = query.whole("cursor", INDEX_MAX, 0, INDEX_MAX), query.limit
    assert before is not None, "it has a default"
    point = await respond.read_point(request, query)
    state = request.app[NODE].machine.state
    indexes = list(state.audit)  # ascending
    end = bisect.bisect_left(indexes, before)
    first = max(0, end - limit)
    shown = indexes[first:end][::-1]
    chain = state.audit_chain.get(CHAIN) or AuditChain(CHAIN)
    view: dict[str, Any] = {
        "items": [item_view(state.audit[index]) for index in shown],
        "next_cursor": str(shown[-1]) if first else None,
        "total": len(indexes),
        "chain": chain_view(chain),
    }
    return respond.encoded(msgspec.json.encode(view) + b"\n", headers=respond.at(point))


def item_view(item: AuditItem) -> dict[str, Any]:
    return {
        "index": item.index,
        "at": instant(item.at),
        "principal": item.principal,
        "node": item.node,
        "remote": item.remote or None,
        "method": item.method,
        "path": item.path,
        "summary": item.summary,
        "hash": item.hash.hex(),
    }


def chain_view(chain: AuditChain) -> dict[str, Any]:
    """`count` items there ever were, of which `dropped` have left; `before` is the hash before the oldest kept."""
    return {
        "count": chain.count,
        "head": chain.head.hex(),
        "dropped": chain.dropped,
        "before": chain.before.hex(),
    }
