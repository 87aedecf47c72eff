"""What strangers try: tricks of paths, headers and logs, too much, too slow, too many."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raftcron.api import bodies, limits
from raftcron.api.connections import CONNECTIONS, Connections
from raftcron.api.roles import roles_table
from tests.api.bench import GOOD, Bench, bench
from tests.api.test_tokens import close_door, token

DOCS = Path(__file__).parents[2] / "docs"
HALF = (  # of a request: its body never comes
    b"PUT /v1/jobs/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
)


@pytest.fixture
async def closed() -> AsyncIterator[Bench]:
    """A node that is reached from other machines, and the token of one team."""
    async with bench(1) as made:
        made.ours = await token_of_team(made)  # type: ignore[attr-defined]
        (await made.put("b-1")).expect(201)
        await close_door(made, "n1")
        yield made


async def token_of_team(made: Bench) -> dict[str, str]:
    made.tokens = {"admin": (await made.ask("POST", "/v1/tokens", {"name": "x", "role": "admin"})).json["token"]}  # type: ignore[attr-defined]
    return await token(made, "team", "operate", "a-")


async def raw(made: Bench, said: bytes) -> bytes:
    """What comes back for these bytes until the node closes, or has answered once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(made.n1.url.rsplit(":", 1)[1]))
    writer.write(said)
    await writer.drain()
    head = b""
    while line := await asyncio.wait_for(reader.readline(), 60):
        head += line
        if line == b"\r\n":
            break
    writer.close()
    return head


def status_of(head: bytes) -> int:
    return int(head.split()[1]) if head else 0


# ---- paths ----------------------------------------------------------------------------------------------------------

TRICKS = [
    "/v1/jobs/a-%2f..%2fb-1",
    "/v1/jobs/a-/../b-1",
    "/v1/jobs/a-%2e%2e%2fb-1",
    "/v1/jobs/./b-1",
    "/v1/jobs//b-1",
    "//v1/jobs/b-1",
    "/v1//jobs/b-1",
    "/v1/jobs/b-1/",
    "/v1/jobs/b-1%00",
    "/v1/jobs/b%2d1",
    "/v1/jobs/%62-1",
    "/v1/jobs/b-1;a-",
    "/v1/jobs/b-1?name=a-1",
    "/v1/jobs/a-%0d%0aX:%201",
    "/livez/../v1/jobs/b-1",
    "/livez%2f..%2fv1/jobs/b-1",
    "/v1/jobs/..%2f..%2flivez",
    "/V1/jobs/b-1",
    "http://localhost/v1/jobs/b-1",
    "/v1/jobs/\xff\xfe",
]


@pytest.mark.parametrize("path", TRICKS)
async def test_no_path_leads_around_the_door(closed: Bench, path: str) -> None:
    """Without a token nothing, with a token of another team neither, under whatever spelling."""
    for headers, allowed in ((b"", {401, 400}), (closed.ours["Authorization"].encode(), {403, 404, 400})):  # type: ignore[attr-defined]
        shown = b"Authorization: " + headers + b"\r\n" if headers else b""
        target = path.encode("latin-1")
        head = await raw(closed, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + shown + b"\r\n")
        assert status_of(head) in allowed, head
        head = await raw(closed, b"DELETE " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + shown + b"\r\n")
        assert status_of(head) in allowed | {405}, head
    assert "b-1" in closed.n1.machine.state.jobs


# ---- headers and logs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a%0d%0aSet-Cookie:x=1", "a%1b%5b31m", "%ff%fe", "a%0ab", "a%00"])
async def test_nothing_that_is_sent_ends_a_line_of_an_answer_or_a_log(
    one: Bench, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Neither in headers, nor in what is logged; also where the request makes a fault of ours."""

    def broken() -> bool:
        raise ZeroDivisionError

    caplog.set_level(logging.DEBUG)
    for method, path in (("PUT", f"/v1/jobs/{name}"), ("GET", f"/v1/jobs/{name}/runs"), ("GET", f"/{name}")):
        body = b"{}" if method == "PUT" else b""
        typed = b"Content-Type: application/json\r\nContent-Length: 2\r\n" if body else b""
        request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + typed + b"\r\n" + body
        head = await raw(one, request)
        assert status_of(head) in (400, 404, 422)
        assert b"\x1b" not in head
        assert b"Set-Cookie" not in head
    one.n1.context.is_ready = broken
    await raw(one, f"GET /readyz?{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    for record in caplog.records:
        text = record.getMessage()
        assert text.isprintable() or record.name == "asyncio", text


async def test_what_people_write_stays_what_it_is(one: Bench) -> None:
    """Escape codes in a note are data: kept in JSON, escaped there, and not in the audit trail."""
    (await one.put("a")).expect(201)
    note = "\x1b[31mred\r\nline"
    answer = (await one.ask("POST", "/v1/jobs/a/pause", {"note": note})).expect(200)
    assert answer.json["pause_note"] == note
    assert b"\x1b" not in answer.body
    assert b"\x1b" not in (await one.ask("GET", "/v1/audit")).body


async def test_a_forwarded_for_header_is_nobodys_word(one: Bench) -> None:
    """Where a request comes from is what the connection says."""
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        (await one.put("a", headers={header: "for=10.9.9.9" if header == "Forwarded" else "10.9.9.9"})).expect(200, 201)
    items = (await one.ask("GET", "/v1/audit")).json["items"]
    assert {item["remote"] for item in items} == {"127.0.0.1"}


# ---- too much -------------------------------------------------------------------------------------------------------


async def test_compressed_bodies_are_refused(one: Bench) -> None:
    """Whatever they would become: a bomb is never opened."""
    bomb = gzip.compress(b" " * (64 << 20))
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip"):
        headers = {"Content-Encoding": coding}
        (await one.ask("PUT", "/v1/jobs/a", data=bomb, headers=headers)).problem(415, "media_type")
    (await one.ask("PUT", "/v1/jobs/a", GOOD, headers={"Content-Encoding": "identity"})).expect(201)


async def test_what_is_too_large_is_said_before_it_is_read(one: Bench) -> None:
    """By its length where it has one, else at the first byte too many."""
    head = b"PUT /v1/jobs/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert status_of(await raw(one, head + b"Content-Length: 99999999999\r\n\r\n")) == 413
    chunk = b"%x\r\n" % (bodies.JOB_BYTES_MAX + 1) + b" " * (bodies.JOB_BYTES_MAX + 1) + b"\r\n"
    assert status_of(await raw(one, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)) == 413
    assert status_of(await raw(one, head + b"X: " + b"y" * 20_000 + b"\r\n\r\n")) == 400
    assert status_of(await raw(one, b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 400


async def test_deep_and_wide_bodies_hold_nothing_up(one: Bench) -> None:
    """Bounded in depth and in values, not only in bytes."""
    deep = b"[" * 500_000
    (await one.ask("PUT", "/v1/jobs/a", data=deep)).problem(400)
    wide = b"[" + b"0," * 400_000 + b"0]"
    (await one.ask("PUT", "/v1/jobs/a", data=wide)).problem(413)
    (await one.ask("PUT", "/v1/jobs/a", data=b'{"schedule": ' + b"9" * 100_000 + b"}")).problem(400)


# ---- too slow -------------------------------------------------------------------------------------------------------


async def test_a_body_that_does_not_come_is_not_waited_for(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it, and then nothing."""
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.2)
    assert status_of(await raw(one, HALF)) == 400


# ---- too many -------------------------------------------------------------------------------------------------------


async def test_idle_connections_make_room_and_others_are_served() -> None:
    """Many times more than the bound: those that ask are answered, and those that wait longest go first."""
    async with bench(1) as made:
        app = made.n1.runner.app
        connections: Connections = app[CONNECTIONS]
        connections._most = 50
        port = int(made.n1.url.rsplit(":", 1)[1])
        opened = []
        for number in range(300):
            opened.append(await asyncio.open_connection("127.0.0.1", port))
            if number % 3 == 0:
                opened[-1][1].write(b"GET /livez HTT")  # a head that is never complete
            if number % 50 == 49:
                (await made.ask("GET", "/v1/jobs")).expect(200)
        assert len(connections._idle) + len(connections._busy) <= 50
        for reader, _ in opened[:200]:
            try:
                assert await asyncio.wait_for(reader.read(), 60) == b"", "the oldest were ended"
            except ConnectionResetError:
                continue
        (await made.put("a")).expect(201)
        for _, writer in opened:
            writer.close()


async def test_where_all_are_busy_the_next_is_turned_away() -> None:
    """What is being handled is never cut off for a newcomer."""
    async with bench(1) as made:
        connections: Connections = made.n1.runner.app[CONNECTIONS]
        connections._most = 2
        (await made.put("a")).expect(201)
        port = int(made.n1.url.rsplit(":", 1)[1])
        busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in busy:
            writer.write(HALF)
            await writer.drain()
        while len(connections._busy) < 2:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
        for reader, writer in busy:
            writer.write(b'"a": 0}  ')
            assert b" 422 " in await asyncio.wait_for(reader.readline(), 60)
            writer.close()


# ---- what is written about it ---------------------------------------------------------------------------------------


def test_the_limits_are_those_of_the_code() -> None:
    """docs/limits.md is made from the constants."""
    assert (DOCS / "limits.md").read_text() == limits.page(), "python -m raftcron.api.limits > docs/limits.md"


def test_the_roles_are_those_of_the_code() -> None:
    """The table of docs/security.md is that of api/auth.py."""
    assert roles_table() in (DOCS / "security.md").read_text(), "python -m raftcron.api.roles makes it"
