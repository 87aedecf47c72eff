"""What holds for every route: HEAD is GET without its body, and a repeat under its key is not done twice."""

from __future__ import annotations

import asyncio

import pytest

from raftcron.api.openapi.operations import OPERATIONS
from raftcron.core.access import ADMIN
from tests.api.bench import bench
from tests.api.test_openapi import make_ready, prepare, target
from tests.api.test_statuses import KEY, Route, world

EXPLAIN = ("POST", "/v1/schedules:explain")  # writes nothing, so that a repeat is a question like the first one


@pytest.mark.parametrize("path", sorted(path for method, path in OPERATIONS if method == "GET"))
async def test_head_has_no_body_and_leaves_the_connection_to_the_next_request(path: str) -> None:
    """Also where GET has no end."""
    async with bench(3) as made:
        await prepare(made)
        await make_ready(made, "GET", path)
        needed = "&".join(f"{one.name}={one.example}" for one in OPERATIONS["GET", path].query if one.is_required)
        asked = f"{target(path, made)}?{needed}"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(made.n1.url.rsplit(":", 1)[1]))
        try:
            for line in (f"HEAD {asked}", "GET /livez"):
                writer.write(f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                async with asyncio.timeout(60):
                    head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 "), (line, head)
        finally:
            writer.close()


@pytest.mark.parametrize("route", sorted(route for route in OPERATIONS if route[0] != "GET" and route != EXPLAIN))
async def test_a_repeat_under_its_key_is_answered_again_and_not_done_again(route: Route) -> None:
    """The same status and index, and the word that it was a repeat."""
    async with world(route) as at:
        at.role = ADMIN
        said, body = dict(KEY), None
        if route == ("POST", "/v1/restore"):
            said["Content-Type"], body = "application/vnd.raftcron.backup", await at.archive()
        if route[1].endswith("/replace"):
            at.made.cluster.silent.add("n3")
        first = await at.ask(data=body, headers=said)
        again = await at.ask(data=body, headers=said)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.status == first.status < 300
    assert again.headers["Raftcron-Index"] == first.headers["Raftcron-Index"]
