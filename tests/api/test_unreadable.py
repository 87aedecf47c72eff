"""What cannot be read as HTTP: a problem document like any other, with the node's headers, and nothing of what came."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.api.bench import Bench

MARK = b"xyzzy"
HOST = b"Host: localhost\r\n"
UNREADABLE = {
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 xyzzy\r\n\r\n",
    "no method": b"xyz{zy /v1/jobs HTTP/1.1\r\n" + HOST + b"\r\n",
    "another version": b"GET /v1/jobs/xyzzy HTTP/3.7\r\n" + HOST + b"\r\n",
    "a long request line": b"GET /" + MARK * 4_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a long header": b"GET /v1/jobs HTTP/1.1\r\n" + HOST + b"X: " + MARK * 4_000 + b"\r\n\r\n",
    "a header that is none": b"GET /v1/jobs HTTP/1.1\r\n" + HOST + b"xyzzy\r\n\r\n",
    "a space in a name": b"GET /v1/jobs HTTP/1.1\r\n" + HOST + b"X yzzy: xyzzy\r\n\r\n",
    "a zero in a value": b"GET /v1/jobs HTTP/1.1\r\n" + HOST + b"X: xyzzy\x00\r\n\r\n",
    "two lengths": b"PUT /v1/jobs/xyzzy HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length below nothing": b"PUT /v1/jobs/xyzzy HTTP/1.1\r\n" + HOST + b"Content-Length: -2\r\n\r\n{}",
    "a length and pieces": (
        b"PUT /v1/jobs/xyzzy HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"
    ),
    "an unknown coding": b"PUT /v1/jobs/xyzzy HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xyzzy\r\n\r\n{}",
}


async def answered(made: Bench, said: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of all that comes back until the node closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(made.n1.url.rsplit(":", 1)[1]))
    writer.write(said)
    content = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = content.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize("what", UNREADABLE)
async def test_what_is_no_http_is_a_problem_and_the_end(one: Bench, what: str) -> None:
    """400 with the headers of every answer; the connection is closed, and what came is not repeated."""
    status, headers, body = await answered(one, UNREADABLE[what])
    document = json.loads(body)
    assert (status, document["status"], document["code"]) == (400, 400, "malformed")
    assert document["type"] == "urn:raftcron:problem:malformed"
    assert document["detail"]
    assert headers["Content-Type"] == "application/problem+json"
    assert (headers["Raftcron-Node"], headers["Raftcron-Leader"]) == ("n1", "n1")
    assert int(headers["Raftcron-Index"]) == one.n1.machine.state.index
    assert headers["Connection"] == "close"
    assert b"yzzy" not in body + "".join(headers.values()).encode()


async def test_nonsense_behind_a_good_request_leaves_that_one_its_answer(one: Bench) -> None:
    """Two requests in one go: the first is answered as ever, the second with 400."""
    good = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(one.n1.url.rsplit(":", 1)[1]))
    writer.write(good)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 200")
    writer.write(UNREADABLE["a header that is none"])
    rest = await asyncio.wait_for(reader.read(), 10)
    assert b" 400 Bad Request" in rest
    writer.close()


async def test_an_expectation_that_nobody_can_meet_is_passed_over(one: Bench) -> None:
    """RFC 9110 leaves that open; an answer of the framework's would repeat what came."""
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: xyzzy\r\n\r\n"
    status, _, _ = await answered(one, head)
    assert status == 200
