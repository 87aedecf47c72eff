"""Errors as RFC 9457 problem documents; which error has which status stands in errors.py."""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec
from aiohttp import web

from raftcron.errors import (
    ForbiddenError,
    MalformedError,
    MediaTypeError,
    MethodError,
    NotFoundError,
    RaftcronError,
    TooLargeError,
    TooManyError,
    UnauthorizedError,
    UnavailableError,
)

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:raftcron:problem:"
RETRY_AFTER_SECONDS = 1.0  # of a 429 or 503 that names no other


def problem(error: RaftcronError, **more: Any) -> web.Response:
    """The answer to a request that ended with this error; `more` are further members of the document."""
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + error.code,
        "title": error.title,
        "status": error.http_status,
        "detail": error.detail,
        "code": error.code,
    }
    if error.faults:
        document["errors"] = [{"pointer": fault.pointer, "message": fault.message} for fault in error.faults]
    document.update(more)
    response = web.Response(
        status=error.http_status, body=msgspec.json.encode(document) + b"\n", headers={"Content-Type": CONTENT_TYPE}
    )
    seconds = error.retry_after_seconds
    if seconds is None and isinstance(error, TooManyError | UnavailableError):
        seconds = RETRY_AFTER_SECONDS
    if isinstance(error, UnauthorizedError):
        response.headers["WWW-Authenticate"] = 'Bearer realm="raftcron"'
    if seconds is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return response


def internal(request: web.Request, error: Exception) -> web.Response:
    """The answer to a request that met a fault of ours: it says nothing of our insides; the log does, once."""
    log.error("request_failed method=%s path=%r", request.method, request.path[:200], exc_info=error)
    return mistake()


def mistake() -> web.Response:
    return problem(RaftcronError("this node made a mistake; its log says more. Whether it was done is not known"))


def of_http(request: web.Request, error: web.HTTPException) -> web.Response:
    """What the web framework refused, as a problem of ours."""
    status = error.status
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        response = problem(MethodError(f"{request.method[:20]} does not exist here; there is {allowed}"))
        response.headers["Allow"] = allowed
        return response
    if status == NotFoundError.http_status:
        return problem(NotFoundError(_why_not_found(request)))
    kinds: dict[int, type[RaftcronError]] = {
        kind.http_status: kind for kind in (ForbiddenError, TooLargeError, MediaTypeError)
    }
    if status >= 500:
        return internal(request, error)
    return problem(kinds.get(status, MalformedError)(error.text or error.reason))


def _why_not_found(request: web.Request) -> str:
    path = request.path
    return f"there is no {path[:200]!r} here; the interface begins at /v1/jobs, /v1/runs and /v1/cluster"
