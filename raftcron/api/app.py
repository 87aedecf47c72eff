"""The web application of one node: its routes."""

from __future__ import annotations

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler

from raftcron.api import (
    alerts,
    audit,
    backup,
    bulk,
    calendars,
    cluster,
    events,
    groups,
    health,
    jobs,
    metrics,
    openapi,
    output,
    page,
    respond,
    runs,
    schedules,
    secrets,
    tokens,
)
from raftcron.api.auth import DOORKEEPER, Doorkeeper
from raftcron.api.connections import CONNECTIONS, Connections
from raftcron.api.context import NODE, NodeContext
from raftcron.api.forward import sessions
from raftcron.api.guard import Guard
from raftcron.api.rim import answered

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/v1/jobs", jobs.list_),
    ("POST", "/v1/jobs", jobs.create),
    ("GET", "/v1/jobs/{name:[^/]+}", jobs.get),
    ("PUT", "/v1/jobs/{name:[^/]+}", jobs.put),
    ("PATCH", "/v1/jobs/{name:[^/]+}", jobs.patch),
    ("DELETE", "/v1/jobs/{name:[^/]+}", jobs.delete),
    ("POST", "/v1/jobs/{name:[^/]+}/pause", jobs.pause),
    ("POST", "/v1/jobs/{name:[^/]+}/resume", jobs.resume),
    ("POST", "/v1/jobs/{name:[^/]+}/skip-next", jobs.skip_next),
    ("GET", "/v1/jobs/{name:[^/]+}/next", jobs.next_),
    ("GET", "/v1/jobs/{name:[^/]+}/why", jobs.why),
    ("GET", "/v1/jobs/{name:[^/]+}/runs", runs.list_of_job),
    ("POST", "/v1/jobs/{name:[^/]+}/runs", runs.create),
    ("POST", "/v1/jobs/{name:[^/]+}/backfill", runs.backfill),
    ("GET", "/v1/runs", runs.list_),
    ("GET", "/v1/runs/{id:[^/]+}", runs.get),
    ("GET", "/v1/runs/{id:[^/]+}/output", output.get),
    ("POST", "/v1/runs/{id:[^/]+}/cancel", runs.cancel),
    ("POST", "/v1/jobs:apply", bulk.apply),
    ("POST", "/v1/runs/{id:[^/]+}/retry", runs.retry),
    ("POST", "/v1/runs/{id:[^/]+}/finish", runs.finish),
    ("POST", "/v1/runs/{id:[^/]+}/heartbeat", runs.heartbeat),
    ("POST", "/v1/schedules:explain", schedules.explain),
    ("GET", "/v1/calendars", calendars.ROUTES.list_),
    ("GET", "/v1/calendars/{name:[^/]+}", calendars.ROUTES.get),
    ("PUT", "/v1/calendars/{name:[^/]+}", calendars.ROUTES.put),
    ("DELETE", "/v1/calendars/{name:[^/]+}", calendars.ROUTES.delete),
    ("GET", "/v1/groups", groups.ROUTES.list_),
    ("GET", "/v1/groups/{name:[^/]+}", groups.ROUTES.get),
    ("PUT", "/v1/groups/{name:[^/]+}", groups.ROUTES.put),
    ("DELETE", "/v1/groups/{name:[^/]+}", groups.ROUTES.delete),
    ("GET", "/v1/alerts/default", alerts.ROUTES.get),
    ("PUT", "/v1/alerts/default", alerts.ROUTES.put),
    ("DELETE", "/v1/alerts/default", alerts.ROUTES.delete),
    ("GET", "/v1/events", events.get),
    ("GET", "/v1/cluster", cluster.get),
    ("POST", "/v1/cluster/members", cluster.add),
    ("DELETE", "/v1/cluster/members/{name:[^/]+}", cluster.remove),
    ("POST", "/v1/cluster/members/{name:[^/]+}/replace", cluster.replace),
    ("POST", "/v1/cluster/transfer", cluster.transfer),
    ("POST", "/v1/cluster/drain", cluster.drain),
    ("POST", "/v1/cluster/accept-time", cluster.accept_time),
    ("GET", "/v1/whoami", tokens.whoami),
    ("GET", "/v1/tokens", tokens.list_),
    ("POST", "/v1/tokens", tokens.create),
    ("DELETE", "/v1/tokens/{name:[^/]+}", tokens.revoke),
    ("GET", "/v1/audit", audit.list_),
    ("GET", "/v1/secrets", secrets.list_),
    ("PUT", "/v1/secrets/{name:[^/]+}", secrets.put),
    ("DELETE", "/v1/secrets/{name:[^/]+}", secrets.delete),
    ("GET", "/v1/backup", backup.get),
    ("POST", "/v1/restore", backup.restore),
    ("GET", "/livez", health.live),
    ("GET", "/readyz", health.ready),
    ("GET", "/metrics", metrics.get),
    ("GET", "/openapi.json", openapi.get),
    ("GET", "/", page.index),
    ("GET", "/ui/{name:[^/]+}", page.file),
)


def create_app(node: NodeContext) -> web.Application:
    """The application of this node; server.py serves it."""
    doorkeeper, connections = Doorkeeper(node), Connections()
    app = web.Application(middlewares=[answered(Guard(node.listen, node.advertise), doorkeeper, connections)])
    app[NODE] = node
    app[DOORKEEPER] = doorkeeper
    app[CONNECTIONS] = connections
    app[openapi.ROUTES] = tuple((method, path) for method, path, _ in ROUTES)
    app.on_response_prepare.append(respond.stamp)
    app.cleanup_ctx.append(sessions)
    events.prepare(app)
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler, expect_handler=_expected)
        if method == "GET":
            app.router.add_route("HEAD", path, handler, expect_handler=_expected)
    return app


async def _expected(request: web.Request) -> None:
    """A body that waits for a word comes; other expectations are passed over, as RFC 9110 has it (10.1.1)."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun
