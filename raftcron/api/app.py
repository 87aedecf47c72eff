"""The web application of one node: its routes, and what surrounds every request."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

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
    problems,
    respond,
    runs,
    schedules,
    secrets,
    tokens,
)
from raftcron.api.auth import DOORKEEPER, Doorkeeper, principal
from raftcron.api.connections import CONNECTIONS, Connections, Runner
from raftcron.api.context import NODE, NodeContext
from raftcron.api.forward import sessions
from raftcron.api.guard import Guard
from raftcron.errors import RaftcronError
from raftcron.runtime.origin import asking, prefix

__all__ = ["NODE", "NodeContext", "create_app", "create_runner"]

IDLE_SECONDS = 75.0  # of a connection between two requests
STOP_SECONDS = 2.0  # what requests under way get at the node's end

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
)


def create_app(node: NodeContext) -> web.Application:
    """The application of this node; see create_runner."""
    doorkeeper, connections = Doorkeeper(node), Connections()
    app = web.Application(middlewares=[_answered(Guard(node.listen, node.advertise), doorkeeper, connections)])
    app[NODE] = node
    app[DOORKEEPER] = doorkeeper
    app[CONNECTIONS] = connections
    app[openapi.ROUTES] = tuple((method, path) for method, path, _ in ROUTES)
    app.on_response_prepare.append(respond.stamp)
    app.cleanup_ctx.append(sessions)
    events.prepare(app)
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler)
        if method == "GET":
            app.router.add_route("HEAD", path, handler)
    return app


def create_runner(app: web.Application) -> web.AppRunner:
    """What serves the application: no access log, no signals, bodies as they come, strangers' nonsense in one line."""
    log = logging.getLogger("raftcron.api.server")
    if not log.filters:
        log.addFilter(_in_one_line)
    return Runner(
        app,
        access_log=None,
        logger=log,
        auto_decompress=False,
        handle_signals=False,
        keepalive_timeout=IDLE_SECONDS,
        shutdown_timeout=STOP_SECONDS,
    )


def _in_one_line(record: logging.LogRecord) -> bool:
    """What cannot be read as HTTP, or breaks off, is no fault of ours: no trace of the stack, and no error."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError | ConnectionError):
        return True
    record.exc_info = record.exc_text = None
    record.levelno, record.levelname = logging.INFO, "INFO"
    record.msg, record.args = f"request_unreadable error={type(error).__name__}", ()
    return logging.getLogger(record.name).isEnabledFor(logging.INFO)


def _answered(guard: Guard, doorkeeper: Doorkeeper, connections: Connections) -> Middleware:
    @web.middleware
    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every request gets an answer of ours: bad input never a 500, a fault of ours never its insides."""
        with connections.handling(request.protocol):
            return await _answer(request, handler)

    async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            guard.check(request)
            asking.set(await doorkeeper.admit(request))
            prefix.set(principal(request).prefix)
            return await handler(request)
        except RaftcronError as error:
            return problems.problem(error)
        except web.HTTPException as error:
            return problems.of_http(request, error)
        except (asyncio.CancelledError, ConnectionError):
            raise  # the caller has gone
        except Exception as error:
            return problems.internal(request, error)

    return answered
