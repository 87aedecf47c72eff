"""A stand-in for a node's HTTP API, and the command line as a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result

from raftcron.cli import main


class StandIn:
    """Answers what it was told to, in order, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []  # method, path with query, JSON body
        self.headers: list[dict[str, str]] = []
        self.address = ""
        self.held = asyncio.Event()  # a request waits, since `holds`
        self._answers: list[tuple[int, Any, dict[str, str]]] = []
        self._holding: asyncio.Event | None = None

    def holds(self) -> None:
        """What is asked beyond the answers waits, until `lets_go`."""
        self._holding = asyncio.Event()

    def lets_go(self) -> None:
        assert self._holding is not None
        self._holding.set()

    def answers(self, status: int, body: Any = None, **headers: str) -> None:
        self._answers.append((status, body, headers))

    def refuses(self, status: int, code: str, detail: str, errors: list[dict[str, str]] | None = None) -> None:
        problem = {"type": f"urn:raftcron:{code}", "code": code, "title": code, "status": status, "detail": detail}
        self.answers(status, problem | ({"errors": errors} if errors else {}))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        is_lines = request.content_type == "application/x-ndjson"
        body = [json.loads(line) for line in raw.splitlines()] if is_lines else json.loads(raw) if raw else None
        self.asked.append((request.method, request.path_qs, body))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if not self._answers and self._holding is not None:
            self.held.set()
            await self._holding.wait()
            return web.Response(status=503)
        assert self._answers, f"not expected: {request.method} {request.path_qs}"
        status, body, headers = self._answers.pop(0)
        if status == 0:  # breaks off without an answer
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if body is None:
            return web.Response(status=status, headers=headers)
        kind = "application/problem+json" if status >= 400 else "application/json"
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type=kind, headers=headers)


@pytest.fixture
async def make_node() -> AsyncIterator[Callable[[], Any]]:
    servers: list[TestServer] = []

    async def make() -> StandIn:
        node = StandIn()
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", node.handle)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        node.address = f"http://127.0.0.1:{server.port}"
        return node

    yield make
    for server in servers:
        await server.close()


@pytest.fixture
async def node(make_node: Callable[[], Any]) -> StandIn:
    made: StandIn = await make_node()
    return made


@pytest.fixture
def nowhere() -> str:
    """An address at which nothing listens."""
    return "127.0.0.1:1"


async def call(
    *args: str, addr: str | None = None, stdin: str | bytes = "", called_as: str | None = None, **environ: str
) -> Result:
    """`raftcron ARGS`, in a thread beside the stand-in."""
    cleared: dict[str, str | None] = {"RAFTCRON_ADDR": addr, "RAFTCRON_TOKEN": None}
    runner = CliRunner()
    return await asyncio.to_thread(
        runner.invoke, main, list(args), input=stdin, env=cleared | environ, prog_name=called_as
    )
