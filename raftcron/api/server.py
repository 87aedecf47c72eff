"""What serves the application: connections, bounded, and an answer of ours to what cannot be read as HTTP too."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from raftcron.api import problems, respond
from raftcron.api.connections import CONNECTIONS
from raftcron.api.context import NODE
from raftcron.errors import MalformedError

IDLE_SECONDS = 75.0  # of a connection between two requests
STOP_SECONDS = 2.0  # what requests under way get at the node's end


def create_runner(app: web.Application) -> web.AppRunner:
    """No access log, no signals, bodies as they come, strangers' nonsense in one line."""
    log = logging.getLogger("raftcron.api.server")
    if not log.filters:
        log.addFilter(_in_one_line)
    return _Runner(app, access_log=None, logger=log, auto_decompress=False, keepalive_timeout=IDLE_SECONDS)


class _Runner(web.AppRunner):
    """Serves an application whose connections are bounded; sites ask its `server` for a protocol a connection."""

    def __init__(self, app: web.Application, **of_connections: Any) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=STOP_SECONDS)
        self._of_connections = of_connections

    @property
    def server(self) -> web.Server | None:
        made = super().server
        if made is None:
            return None
        connections, loop = self.app[CONNECTIONS], asyncio.get_running_loop()
        return lambda: connections.admit(  # type: ignore[return-value]
            lambda: _Connection(self.app, made, loop=loop, **self._of_connections)
        )


class _Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_app",)

    def __init__(self, app: web.Application, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._app = app

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What no handler has seen, as a problem that says nothing of what came; the connection ends with it.

        Raises ConnectionError where another answer has begun.
        """
        super().handle_error(request, status, exc, message)  # which has it logged
        if isinstance(exc, HttpProcessingError):
            response = problems.problem(MalformedError(_unreadable(exc)))
        else:
            response = problems.mistake()
        respond.stamp_of(self._app[NODE], response.headers)
        response.force_close()
        response.headers["Connection"] = "close"  # aiohttp answers as HTTP/1.0, where it says nothing
        return response


def _unreadable(error: HttpProcessingError) -> str:
    if isinstance(error, LineTooLong):
        return "the request line or a header is longer than 8,190 bytes: put what is long into the body"
    return "this is not HTTP/1.1 as RFC 9112 has it: look at the request line, the headers and the lengths"


def _in_one_line(record: logging.LogRecord) -> bool:
    """What cannot be read as HTTP is no fault of ours: no trace of the stack, and no error.

    A client that has gone is nothing to tell: each tab of a browser that is closed leaves a stream of events.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        level, what = logging.INFO, "request_unreadable"
    elif isinstance(error, ConnectionError):
        level, what = logging.DEBUG, "client_gone"
    else:
        return True
    record.exc_info = record.exc_text = None
    record.levelno, record.levelname = level, logging.getLevelName(level)
    record.msg, record.args = f"{what} error={type(error).__name__}", ()
    return logging.getLogger(record.name).isEnabledFor(level)
