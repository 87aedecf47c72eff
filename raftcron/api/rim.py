"""What surrounds every request: who may ask at all, and an answer of ours whatever becomes of it.

Bad input never ends in a 500, a fault of ours never shows its insides.  What is wrong with the parameters joins what is
wrong with the body, and a key that was used with another body goes before both.
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from raftcron.api import problems
from raftcron.api.auth import Doorkeeper, principal
from raftcron.api.connections import Connections
from raftcron.api.context import NODE
from raftcron.api.forward import write
from raftcron.api.guard import Guard
from raftcron.api.query import NOT_VALID, keyed
from raftcron.errors import (
    InvalidError,
    MalformedError,
    RaftcronError,
    TooLargeError,
    UnavailableError,
    UnknownOutcomeError,
)
from raftcron.runtime.origin import asking, prefix, unfit


def answered(guard: Guard, doorkeeper: Doorkeeper, connections: Connections) -> Middleware:
    """The one middleware of the application."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        with connections.handling(request.protocol):
            try:
                guard.check(request)
                asking.set(await doorkeeper.admit(request))
                prefix.set(principal(request).prefix)
                return await handler(request)
            except RaftcronError as error:
                return await _refused(request, error)
            except web.HTTPException as error:
                return problems.of_http(request, error)
            except (asyncio.CancelledError, ConnectionError):
                raise  # the caller has gone
            except Exception as error:
                return problems.internal(request, error)

    return answer


async def _refused(request: web.Request, error: RaftcronError) -> web.Response:
    """The answer to a request that ended with this error."""
    if unfit.get() and isinstance(error, UnavailableError | UnknownOutcomeError):
        error = InvalidError(NOT_VALID)  # whoever leads: it is certain without a leader
    if not isinstance(error, InvalidError | MalformedError | TooLargeError):
        return problems.problem(error)
    beside = [fault for fault in unfit.get() if fault not in error.faults]
    if beside and error.faults:
        error.detail = f"{error.detail}; its parameters are at fault too"
    error.faults = (*beside, *error.faults)
    return await _judged(request, error)


async def _judged(request: web.Request, error: RaftcronError) -> web.Response:
    """The same, unless the request's key was used with another body: then that is what is wrong with it."""
    found = keyed(request)
    if found is None:
        return problems.problem(error)
    service = request.app[NODE].service

    async def use() -> web.Response:
        service.answered(found.key)
        return problems.problem(error)

    try:
        return await write(request, found.body, use)
    except (UnavailableError, UnknownOutcomeError):
        return problems.problem(error)
    except RaftcronError as conflict:
        return problems.problem(conflict)
