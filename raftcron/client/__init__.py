"""Clients of the HTTP API, for programs and for the command line; a node never imports this.

    with Client(["http://127.0.0.1:7101", "http://127.0.0.1:7102"]) as cron:
        cron.put_job("hello", {"schedule": "@every 5m", "executor": {"type": "http", "url": "http://127.0.0.1:9000/"}})
        run = cron.wait_run(cron.run_job("hello")["id"])

`AsyncClient` has the same methods to await.  Both talk to any node, find another one when it is down, send an
`Idempotency-Key` with each write so that repeating it is safe, and raise the errors of raftcron.errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftcron.client.answers import Answer
from raftcron.client.events import Event
from raftcron.client.sync import Client

if TYPE_CHECKING:
    from raftcron.client.aio import AsyncClient

__all__ = ["Answer", "AsyncClient", "Client", "Event"]


def __getattr__(name: str) -> Any:
    if name == "AsyncClient":  # aiohttp takes a tenth of a second to load, which the command line does not need
        from raftcron.client.aio import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
