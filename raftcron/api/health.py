"""/livez and /readyz: the process answers; it may be asked for more.  Neither ever needs a token."""

from __future__ import annotations

from aiohttp import web

from raftcron.api import respond
from raftcron.api.context import NODE
from raftcron.errors import UnavailableError


async def live(request: web.Request) -> web.Response:
    """The loop turns."""
    return respond.value({"status": "ok", "node": request.app[NODE].name})


async def ready(request: web.Request) -> web.Response:
    """A barrier of this process has applied, so it has all that was committed when it began, and a leader is known."""
    node = request.app[NODE]
    leader = node.log.status().leader
    if not node.is_ready():
        raise UnavailableError(f"node {node.name} is still catching up with the cluster, or waits for a quorum")
    if leader is None:
        raise UnavailableError(f"node {node.name} knows of no leader")
    return respond.value({"status": "ok", "node": node.name, "leader": leader})
