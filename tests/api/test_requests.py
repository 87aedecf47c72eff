"""What surrounds every request: headers, bodies, types, methods, routes, hosts; never a 500 for bad input."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from aiohttp import web

from tests.api.bench import GOOD, Bench, bench

WRITES = [("PUT", "/v1/jobs/a"), ("POST", "/v1/jobs"), ("PATCH", "/v1/jobs/a"), ("POST", "/v1/jobs/a/runs")]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs", 200),
        ("GET", "/v1/jobs/nobody", 404),
        ("PUT", "/v1/jobs/a", 400),
        ("TRACE", "/v1/jobs", 405),
        ("GET", "/nothing", 404),
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v1/cluster", 200),
        ("HEAD", "/readyz", 200),
    ],
)
async def test_every_answer_says_who_and_where(one: Bench, method: str, path: str, status: int) -> None:
    """Node, leader and index, errors too."""
    answer = (await one.ask(method, path)).expect(status)
    assert answer.headers["Raftcron-Node"] == "n1"
    assert answer.headers["Raftcron-Leader"] == "n1"
    assert answer.index == one.n1.machine.state.index
    assert answer.headers["Server"] == "raftcron"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"words",
        b'{"schedule": }',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"a": 1} more',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": "\n"}',
        b"[" * 100_000,
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"1" * 5_000,
        b"",
    ],
    ids=lambda data: repr(data[:20]),
)
async def test_what_is_no_json_is_malformed(one: Bench, data: bytes) -> None:
    """400 on every route that takes JSON; strictly RFC 8259, and no key twice, which would lose one in silence."""
    for method, path in WRITES[: 3 if not data else 4]:
        (await one.ask(method, path, data=data)).problem(400, "malformed")


@pytest.mark.parametrize(
    ("data", "pointers"),
    [
        (b'{"a": [1, 1e999]}', ["/a/1"]),
        (b'{"a/b": 36893488147419103232, "c~d": -9223372036854775809}', ["/a~1b", "/c~0d"]),
    ],
)
async def test_numbers_that_cannot_be_kept_are_pointed_at(one: Bench, data: bytes, pointers: list[str]) -> None:
    """422: the log holds 64 bits."""
    assert (await one.ask("PUT", "/v1/jobs/a", data=data)).pointers(422, "invalid") == pointers


async def test_too_many_values_are_refused(one: Bench) -> None:
    """A body that is small in bytes and long to walk."""
    (await one.ask("PUT", "/v1/jobs/a", data=b"[" + b"1," * 60_000 + b"1]")).problem(413, "too_large")


async def test_bodies_over_the_limit(one: Bench) -> None:
    """413, whether the length was announced or not."""
    large = json.dumps({**GOOD, "description": "x" * (1 << 20)}).encode()
    (await one.ask("PUT", "/v1/jobs/a", data=large)).problem(413, "too_large")

    async def unannounced() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    url = one.n1.url + "/v1/jobs/a"
    async with one.session.put(url, data=unannounced(), headers={"Content-Type": "application/json"}) as response:
        assert response.status == 413
    (await one.ask("POST", "/v1/jobs/a/pause", data=b" " * 300_000)).problem(413, "too_large")


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonx", "text/json"],
)
async def test_other_types_are_refused(one: Bench, kind: str) -> None:
    """Never one that a form can send; the answer says what to send instead."""
    for method, path in WRITES:
        answer = await one.ask(method, path, data=b"{}", headers={"Content-Type": kind})
        detail = answer.problem(415, "media_type")["detail"]
        wanted = "application/merge-patch+json" if method == "PATCH" else "application/json"
        assert f"-H 'Content-Type: {wanted}'" in detail
        assert kind in detail


async def test_types_that_are_taken(one: Bench) -> None:
    """JSON with or without a charset, merge patches where they belong, and no type for no body."""
    data = json.dumps(GOOD).encode()
    for kind in ("application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"):
        (await one.ask("PUT", "/v1/jobs/a", data=data, headers={"Content-Type": kind})).expect(200, 201)
    for kind in ("application/json; charset=latin-1", "application/merge-patch+json"):
        (await one.ask("PUT", "/v1/jobs/a", data=data, headers={"Content-Type": kind})).problem(415)
    for kind in ("application/json", "application/merge-patch+json"):
        (await one.ask("PATCH", "/v1/jobs/a", data=b"{}", headers={"Content-Type": kind})).expect(200)
    (await one.ask("POST", "/v1/jobs/a/pause")).expect(200)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    (await one.ask("POST", "/v1/jobs/a/resume", headers=form)).problem(415, "media_type")
    gzip = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    (await one.ask("PUT", "/v1/jobs/a", data=data, headers=gzip)).problem(415, "media_type")


@pytest.mark.parametrize(
    "path", ["/v1/jobs", "/v1/jobs/a", "/v1/jobs/none", "/v1/runs", "/v1/cluster", "/healthz", "/readyz"]
)
async def test_answers_end_with_a_newline(one: Bench, path: str) -> None:
    """A value, a list or a problem: the prompt of a terminal begins on a line of its own."""
    (await one.ask("PUT", "/v1/jobs/a", GOOD)).expect(201)
    answer = await one.ask("GET", path)
    assert answer.body.endswith(b"\n")
    assert not answer.body.endswith(b"\n\n")


async def test_other_methods(one: Bench) -> None:
    """405 that names those there are."""
    answer = await one.ask("POST", "/v1/jobs/a", {})
    answer.problem(405, "method_not_allowed")
    assert answer.headers["Allow"] == "DELETE, GET, HEAD, PATCH, PUT"


@pytest.mark.parametrize("path", ["/v1/jobz", "/v2/jobs", "/v1/jobs/a/b/c", "/v1/jobs/", "//", "/v1/jobs/a/../b/c"])
async def test_other_routes(one: Bench, path: str) -> None:
    """404 as a problem."""
    assert "not built" not in (await one.ask("GET", path)).problem(404, "not_found")["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:7101"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "192.168.1.4"}, 403),
        ({"Host": "[::ffff:8.8.8.8]"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "a@localhost:x"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "LOCALHOST:1"}, 200),
        ({"Host": "127.0.0.7:7101"}, 200),
        ({"Host": "[::1]:7101"}, 200),
        ({"Host": "here.example:9"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "https://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "ftp://localhost:1"}, 403),
    ],
    ids=str,
)
async def test_hosts_and_origins(headers: dict[str, str], status: int) -> None:
    """On loopback the Host is this machine or what is announced; an Origin is the Host, reads included."""
    async with bench(1, insecure=True) as made:
        node = made.n1
        await node.close()
        node.context.advertise = "here.example:7101"
        await node.serve()
        for method in ("GET", "POST"):
            body = None if method == "GET" else {**GOOD, "name": "a"}
            answer = await made.ask(method, "/v1/jobs", body, headers=headers)
            if status == 403:
                answer.problem(403, "forbidden")
            else:
                answer.expect(200, 201)


async def test_elsewhere_any_host_may_be_asked() -> None:
    """Beyond loopback the Host is not known to us; an Origin still has to be it."""
    async with bench(1, insecure=True) as made:
        await made.n1.close()
        made.n1.context.listen = "0.0.0.0:0"
        await made.n1.serve()
        (await made.ask("GET", "/v1/jobs", headers={"Host": "jobs.example"})).expect(200)
        (await made.ask("GET", "/v1/jobs", headers={"Origin": "http://evil.example"})).problem(403)


async def test_requests_that_are_no_http_leave_the_node_well(one: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Broken framing, half requests and endless lines get an error or an end, and are no fault of ours."""
    port = int(one.n1.url.rsplit(":", 1)[1])
    head = b"PUT /v1/jobs/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for said in (
        b"nonsense\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        head + b"Content-Length: -1\r\n\r\n",
        head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
        head + b"Content-Length: 10\r\n\r\n{",
        head + b"X: " + b"y" * 40_000 + b"\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        writer.write_eof()
        line = await reader.readline()
        assert line == b"" or line.split()[1] == b"400", (said[-40:], line)
        writer.close()
    (await one.ask("GET", "/v1/jobs")).expect(200)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_fault_of_ours_is_logged_once_and_not_told(one: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """500 without insides."""

    def broken() -> bool:
        raise ZeroDivisionError("a secret of ours")

    one.n1.context.is_ready = broken
    with caplog.at_level(logging.ERROR):
        answer = await one.ask("GET", "/readyz")
    assert "secret" not in json.dumps(answer.problem(500, "error"))
    assert [record.message for record in caplog.records] == ["request_failed method=GET path='/readyz'"]
    caplog.clear()


async def test_routes_are_those_of_the_contract(one: Bench) -> None:
    """Each with its methods, so that an addition is a decision."""
    app = one.n1.runner.app
    assert app is not None
    found: dict[str, set[str]] = {}
    for route in app.router.routes():
        assert isinstance(route.resource, web.Resource)
        found.setdefault(route.resource.canonical, set()).add(route.method)
    assert {path: " ".join(sorted(methods - {"HEAD"})) for path, methods in found.items()} == {
        "/v1/jobs": "GET POST",
        "/v1/jobs/{name}": "DELETE GET PATCH PUT",
        "/v1/jobs/{name}/pause": "POST",
        "/v1/jobs/{name}/resume": "POST",
        "/v1/jobs/{name}/skip-next": "POST",
        "/v1/jobs/{name}/next": "GET",
        "/v1/jobs/{name}/runs": "GET POST",
        "/v1/runs": "GET",
        "/v1/runs/{id}": "GET",
        "/v1/runs/{id}/output": "GET",
        "/v1/runs/{id}/cancel": "POST",
        "/v1/jobs/{name}/backfill": "POST",
        "/v1/runs/{id}/retry": "POST",
        "/v1/runs/{id}/finish": "POST",
        "/v1/runs/{id}/heartbeat": "POST",
        "/v1/jobs/{name}/why": "GET",
        "/v1/jobs:apply": "POST",
        "/v1/schedules:explain": "POST",
        "/v1/tokens": "GET POST",
        "/v1/tokens/{name}": "DELETE",
        "/v1/audit": "GET",
        "/v1/secrets": "GET",
        "/v1/secrets/{name}": "DELETE PUT",
        "/v1/calendars": "GET",
        "/v1/calendars/{name}": "DELETE GET PUT",
        "/v1/groups": "GET",
        "/v1/groups/{name}": "DELETE GET PUT",
        "/v1/alerts/default": "DELETE GET PUT",
        "/v1/events": "GET",
        "/v1/cluster": "GET",
        "/v1/cluster/members": "POST",
        "/v1/cluster/members/{name}": "DELETE",
        "/v1/cluster/members/{name}/replace": "POST",
        "/v1/cluster/transfer": "POST",
        "/v1/cluster/drain": "POST",
        "/v1/cluster/accept-time": "POST",
        "/v1/backup": "GET",
        "/v1/restore": "POST",
        "/livez": "GET",
        "/readyz": "GET",
        "/metrics": "GET",
        "/openapi.json": "GET",
        "/": "GET",
        "/ui/{name}": "GET",
        "/v1/whoami": "GET",
    }


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("/v1/jobs/a/pause", {"x": 1, "note": 7, "until": 5}, ["/x", "/note", "/until"]),
        ("/v1/jobs/a/resume", {"x": 1, "catch_up": "yes"}, ["/x", "/catch_up"]),
        ("/v1/jobs/a/skip-next", {"x": 1, "count": -1}, ["/x", "/count"]),
        ("/v1/jobs/a/runs", {"x": 1, "y": 2, "overlap": "skip"}, ["/x", "/y", "/overlap"]),
        ("/v1/jobs/a/backfill", {"x": 1, "from": "then", "dry_run": 1}, ["/x", "/from", "/to", "/dry_run"]),
        ("/v1/runs/m1-0/retry", {"x": 1, "overlap": 0}, ["/x", "/overlap"]),
        ("/v1/runs/m1-0/finish", {"x": 1, "state": "lost", "message": 1}, ["/x", "/token", "/state", "/message"]),
        ("/v1/runs/m1-0/heartbeat", {"x": 1, "token": -1}, ["/x", "/token"]),
        ("/v1/jobs:apply", {"x": 1, "jobs": "a", "prune": "no"}, ["/jobs", "/x", "/prune"]),
        ("/v1/jobs:apply", [], [""]),
        ("/v1/cluster/drain", {"x": 1, "node": 1, "drain": "no"}, ["/x", "/node", "/drain"]),
    ],
)
async def test_small_bodies_name_every_fault(one: Bench, path: str, body: Any, pointers: list[str]) -> None:
    """A field that is not known hides none of what is wrong with the others."""
    (await one.ask("PUT", "/v1/jobs/a", GOOD)).expect(201)
    problem = (await one.ask("POST", path, body)).problem(422, "invalid")
    assert [fault["pointer"] for fault in problem["errors"]] == pointers
