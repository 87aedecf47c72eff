"""The http executor against real servers on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import raftcron
from raftcron.clock import SystemClock
from raftcron.executors import http_spec
from raftcron.executors.addresses import BY_DEFAULT, AddressRules
from raftcron.executors.http import HttpExecutor
from raftcron.executors.output import Shelf
from raftcron.executors.registry import Surroundings
from raftcron.executors.signature import signed
from raftcron.ports import Ending
from tests.executors.doubles import HandControl, eventually, make_attempt
from tests.patience import struck
from tests.raft.certificates import Authority

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


LONG_BYTES = 200 << 10  # more than is kept of an answer, less than is read of a failure


class StillClock(SystemClock):
    def wall(self) -> float:
        return 1_800_000_000.9


class Receiver:
    """An aiohttp server that keeps what it got, and answers as the path says."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, list[tuple[str, str]], bytes]] = []
        self.ports: list[int] = []
        self.release = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.ports.append(request.transport.get_extra_info("peername")[1])
        self.requests.append((request.method, request.path_qs, list(request.headers.items()), await request.read()))
        match request.path.split("/")[1:]:
            case ["status", code]:
                return web.Response(status=int(code), text=f"answer {code}")
            case ["redirect"]:
                raise web.HTTPFound("/status/200")
            case ["slow"]:
                await self.release.wait()
                return web.Response()
            case ["endless", *code]:
                response = web.StreamResponse(status=int("".join(code) or 200))
                await response.prepare(request)
                with contextlib.suppress(ConnectionError):
                    while True:
                        await response.write(b"x" * 10_000)
                return response
            case ["long", code]:
                return web.Response(status=int(code), body=b"x" * LONG_BYTES)
            case ["cookie"]:
                reply = web.Response()
                reply.set_cookie("session", "1")
                return reply
        return web.Response(body=b"y" * 5000 + b"end")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Listens on a free port."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield receiver
    receiver.release.set()
    await runner.cleanup()


@pytest.fixture
async def executor() -> AsyncIterator[HttpExecutor]:
    executor = HttpExecutor.create(Surroundings())
    yield executor
    await executor.close()


@contextlib.asynccontextmanager
async def raw_server(handler: Handler) -> AsyncIterator[str]:
    """A TCP server; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def call(executor: HttpExecutor, url: str, control: HandControl | None = None, **spec: Any) -> Ending:
    attempt = make_attempt({"type": "http", "url": url} | spec, timeout_seconds=60.0)
    return await executor.run(attempt, control or HandControl())


async def test_exactly_these_headers_are_sent(executor: HttpExecutor, receiver: Receiver) -> None:
    """All of api.md section 4, the job's own, and what HTTP needs; nothing else."""
    attempt = make_attempt(
        {"type": "http", "url": receiver.url + "/a?b=c", "headers": {"X-Team": "db"}, "body": "dü"},
        fencing_token=2**63,
        attempt=2,
        missed_count=3,
        previous_time="2026-01-02T03:00:00Z",
        shard_index=0,
        shard_count=4,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    assert await executor.run(attempt, HandControl()) == Ending(
        "succeeded", status_code=200, output_tail=(b"y" * 5000 + b"end")[-4096:]
    )
    [(method, path, headers, body)] = receiver.requests
    assert (method, path, body) == ("POST", "/a?b=c", "dü".encode())
    assert sorted(headers) == sorted(
        {
            "Host": receiver.url.removeprefix("http://"),
            "User-Agent": f"raftcron/{raftcron.__version__}",
            "Accept": "*/*",
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": "3",
            "X-Team": "db",
            "Idempotency-Key": "7-1700000000000",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "Raftcron-Job": "backup",
            "Raftcron-Run-Id": "7-1700000000000",
            "Raftcron-Scheduled-Time": "2026-01-02T03:04:05Z",
            "Raftcron-Attempt": "2",
            "Raftcron-Fencing-Token": "9223372036854775808",
            "Raftcron-Missed-Count": "3",
            "Raftcron-Previous-Time": "2026-01-02T03:00:00Z",
            "Raftcron-Shard-Index": "0",
            "Raftcron-Shard-Count": "4",
            "Raftcron-Node": "n1",
        }.items()
    )


@pytest.mark.parametrize(
    ("spec", "args", "body", "kind"),
    [
        ({}, None, b"", None),
        ({}, {"b": [1, "é"]}, '{"b":[1,"é"]}'.encode(), "application/json"),
        ({"body": "mine"}, {"b": 1}, b"mine", "text/plain; charset=utf-8"),
        ({"body": "{}", "headers": {"content-type": "application/x"}}, None, b"{}", "application/x"),
    ],
)
async def test_the_body_is_the_jobs_else_the_args(
    executor: HttpExecutor, receiver: Receiver, spec: dict[str, Any], args: Any, body: bytes, kind: str | None
) -> None:
    """The job's body, else JSON of a manual run's args, else nothing; a content type of the job's own stays."""
    await executor.run(make_attempt({"type": "http", "url": receiver.url} | spec, args=args), HandControl())
    [(_, _, headers, got)] = receiver.requests
    assert got == body
    assert {name.lower(): value for name, value in headers}.get("content-type") == kind


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_methods(executor: HttpExecutor, receiver: Receiver, method: str) -> None:
    """Each method arrives as it is written."""
    assert (await call(executor, receiver.url, method=method)).state == "succeeded"
    assert receiver.requests[0][0] == method


@pytest.mark.parametrize(
    ("code", "expected", "state"),
    [
        (200, None, "succeeded"),
        (299, None, "succeeded"),
        (404, None, "failed"),
        (500, None, "failed"),
        (404, "200,404", "succeeded"),
        (200, "201-204", "failed"),
        (204, 204, "succeeded"),
    ],
)
async def test_a_status_is_judged(
    executor: HttpExecutor, receiver: Receiver, code: int, expected: str | int | None, state: str
) -> None:
    """A complete answer is a proven end, whatever it says."""
    ending = await call(executor, f"{receiver.url}/status/{code}", expect_status=expected)
    assert (ending.state, ending.proven, ending.status_code) == (state, True, code)
    assert ending.error_kind == (None if state == "succeeded" else "status")
    assert ending.output_tail == (b"" if code == 204 else f"answer {code}".encode())


async def test_a_redirect_is_a_failure_and_not_followed(executor: HttpExecutor, receiver: Receiver) -> None:
    """One request, and the error says why."""
    ending = await call(executor, receiver.url + "/redirect")
    assert (ending.state, ending.status_code, ending.error_kind) == ("failed", 302, "status")
    assert ending.error is not None and "redirects are not followed" in ending.error
    assert len(receiver.requests) == 1


async def test_a_slow_receiver_times_out(executor: HttpExecutor, receiver: Receiver) -> None:
    """The request was sent, so the end is not proven."""

    def run(seconds: float) -> Awaitable[Ending]:
        attempt = make_attempt({"type": "http", "url": receiver.url + "/slow"}, timeout_seconds=seconds)
        return executor.run(attempt, HandControl())

    ending = await struck(run, lambda: receiver.requests, 0.2)
    assert (ending.state, ending.proven, ending.error_kind) == ("timed_out", False, "timeout")


async def test_a_refused_connection_is_a_proven_failure(executor: HttpExecutor) -> None:
    """Nothing was sent; the gate was not even asked."""
    async with raw_server(lambda *_: asyncio.sleep(0)) as url:
        pass  # closed again: nobody listens there now
    control = HandControl()
    ending = await call(executor, url, control)
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "refused")
    assert ending.error == f"cannot connect to {url.removeprefix('http://').rstrip('/')}: connection refused"
    assert control.asked_count == 0


async def test_a_name_that_does_not_resolve_is_a_proven_failure(
    executor: HttpExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a resolver says it that knows that there is no such name; this machine's may be slow, or know any name."""

    def nobody(*_: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    ending = await call(executor, "http://nowhere.invalid/")
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "connect")
    assert ending.error == ("cannot connect to nowhere.invalid:80: the name is not resolved: name or service not known")


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("/status/200", "wer 20", None),
        ("/status/200", "answer 201", "body"),
        ("/status/500", "answer", "status"),
        ("/long/200", "y", "body"),
    ],
)
async def test_an_expected_body_is_looked_for(
    executor: HttpExecutor, receiver: Receiver, path: str, text: str, kind: str | None
) -> None:
    """The text has to stand somewhere in the answer's first 64 KiB; an answer without it is a proven failure."""
    ending = await call(executor, receiver.url + path, expect_body=text)
    assert (ending.state, ending.proven, ending.error_kind) == ("failed" if kind else "succeeded", True, kind)


async def test_a_signed_request_verifies(receiver: Receiver) -> None:
    """The signature is of the run's id, the time and the very bytes that were sent."""
    executor = HttpExecutor.create(Surroundings(clock=StillClock()))
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    for body in ("dü", None):
        await call(executor, receiver.url, secret=secret, body=body)
        _, _, sent, got = receiver.requests[-1]
        headers = {name.lower(): value for name, value in sent}
        assert got == (body or "").encode()
        assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("7-1700000000000", "1800000000")
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.digest(key, b"7-1700000000000.1800000000." + got, "sha256")
        assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    await executor.close()


def test_the_published_signature() -> None:
    """The example that Standard Webhooks' own libraries are tested with."""
    secret, body = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    for text in (secret, "whsec_" + secret):
        assert signed(text, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }


async def test_a_certificate_is_verified(tmp_path: Path) -> None:
    """By the system's CAs and the node's own; one of somebody else, or for another name, is a proven `tls` failure."""
    authority = Authority(tmp_path)
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    trusting = ssl.create_default_context(cafile=str(authority.ca))
    seen = []
    for name, trust in (("localhost", trusting), ("localhost", None), ("other.example", trusting)):
        files = authority.issue(name)
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(files.certificate, files.key)
        executor = HttpExecutor.create(Surroundings(trust=trust))
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=own)
        port = server.sockets[0].getsockname()[1]
        async with server:
            ending = await call(executor, f"https://localhost:{port}/")
        await executor.close()
        seen.append((ending.state, ending.proven, ending.error_kind))
        if ending.error_kind == "tls":
            assert (ending.error or "").startswith(
                f"cannot connect to localhost:{port}: the certificate is not trusted: "
            )
    assert seen == [("succeeded", True, None), ("failed", True, "tls"), ("failed", True, "tls")]
    assert count == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize(
    ("answer", "how"),
    [
        (b"", "closed by the other side"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed by the other side"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "closed within the answer"),
        (b"nonsense\r\n\r\n", "what was answered is not HTTP"),
    ],
)
async def test_a_connection_that_breaks_is_not_proven_and_nothing_is_sent_twice(
    executor: HttpExecutor, method: str, answer: bytes, how: str
) -> None:
    """Closed without, within or after half an answer: `broken`; one request, also of an idempotent method."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            count += 1
            writer.write(answer)
            await writer.drain()

    async with raw_server(serve) as url:
        ending = await call(executor, url, method=method)
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", False, "broken")
    assert count == 1
    broke = "the connection broke after the request was sent"
    assert ending.error in {f"{broke}: {how}", f"{broke}: connection reset by peer", f"{broke}, before an answer came"}


async def test_a_kept_connection_that_the_server_drops_is_not_sent_to_twice(executor: HttpExecutor) -> None:
    """A second request on a kept connection that dies under it: `broken`, and the server saw two requests in all."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            count += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            count += 1

    async with raw_server(serve) as url:
        assert (await call(executor, url, method="GET")).state == "succeeded"
        ending = await call(executor, url, method="GET")
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", False, "broken")
    assert count == 2


async def test_connections_are_reused_and_no_cookie_is_kept(executor: HttpExecutor, receiver: Receiver) -> None:
    """Three requests, one connection."""
    for _ in range(3):
        await call(executor, receiver.url + "/cookie")
    assert len(set(receiver.ports)) == 1
    assert all(name.lower() != "cookie" for _, _, headers, _ in receiver.requests for name, _ in headers)


async def test_a_long_answer_is_kept_whole(receiver: Receiver, tmp_path: Path) -> None:
    """On the node's disk, under the name of the attempt; what fits into the tail needs no file."""
    executor = HttpExecutor.create(Surroundings(answers=Shelf(str(tmp_path))))
    await call(executor, receiver.url + "/")
    [file] = tmp_path.iterdir()
    assert file.read_bytes() == b"y" * 5000 + b"end"
    await call(executor, receiver.url + "/status/404")
    assert list(tmp_path.iterdir()) == [file]
    await executor.close()


async def test_an_endless_answer_is_cut(executor: HttpExecutor, receiver: Receiver) -> None:
    """Its status counts, a tail is kept, the connection is closed."""
    ending = await call(executor, receiver.url + "/endless")
    assert (ending.state, ending.status_code, len(ending.output_tail)) == ("succeeded", 200, 4096)


async def test_a_long_failure_is_read_to_its_end(executor: HttpExecutor, receiver: Receiver) -> None:
    """Its end proves that the attempt is over, whatever its length; and the connection is kept."""
    for _ in range(2):
        ending = await call(executor, receiver.url + "/long/500")
        assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "status")
        assert (ending.status_code, ending.output_tail) == (500, b"x" * 4096)
    assert len(set(receiver.ports)) == 1


@pytest.mark.parametrize(("path", "changes"), [("/endless/500", {}), ("/endless", {"expect_body": "y"})])
async def test_a_failure_without_an_end_is_not_proven(
    executor: HttpExecutor, receiver: Receiver, path: str, changes: dict[str, str]
) -> None:
    """The receiver may still be at work: as with a connection that breaks, only `retry.on: broken` tries again."""
    ending = await call(executor, receiver.url + path, **changes)
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", False, "broken")
    assert ending.status_code == (500 if path.endswith("500") else 200)
    assert ending.error is not None
    assert ending.error.endswith("and the answer does not end within 1 MiB")


async def test_a_failure_that_breaks_off_is_not_proven(executor: HttpExecutor) -> None:
    """Also where what counts of the answer has come before."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 204800\r\n\r\n" + b"x" * (100 << 10))
        await writer.drain()

    async with raw_server(serve) as url:
        ending = await call(executor, url)
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", False, "broken")


async def test_a_failure_that_falls_silent_times_out(executor: HttpExecutor) -> None:
    """The time-out bounds the search for the end, too."""
    asleep = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 204800\r\n\r\n" + b"x" * (100 << 10))
        await asleep.wait()

    async with raw_server(serve) as url:
        ending = await HttpExecutor.run(
            executor, make_attempt({"type": "http", "url": url}, timeout_seconds=0.3), HandControl()
        )
        asleep.set()
    assert (ending.state, ending.proven, ending.error_kind) == ("timed_out", False, "timeout")


async def test_a_closed_gate_sends_nothing(executor: HttpExecutor, receiver: Receiver) -> None:
    """On a new connection and on a kept one; and the connector stays usable."""
    assert (await call(executor, receiver.url, HandControl(None))).state == "not_started"
    assert (await call(executor, receiver.url)).state == "succeeded"
    assert (await call(executor, receiver.url, HandControl(None))).state == "not_started"
    assert (await call(executor, receiver.url)).state == "succeeded"
    assert len(receiver.requests) == 2


async def test_the_gate_is_asked_once_with_the_connection_in_hand(executor: HttpExecutor) -> None:
    """Not before the connection stands, however long that takes."""
    connected = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.readuntil(b"\r\n\r\n")
        assert control.asked_count == 1
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    control = HandControl()
    async with raw_server(serve) as url:
        assert (await call(executor, url, control)).status_code == 204
    assert connected.is_set()
    assert control.asked_count == 1


@pytest.mark.parametrize(
    ("reason", "state", "kind"),
    [("cancelled", "cancelled", "cancelled"), ("lease", "failed", "lease"), ("shutdown", "failed", "shutdown")],
)
async def test_a_stop_drops_the_call(
    executor: HttpExecutor, receiver: Receiver, reason: str, state: str, kind: str
) -> None:
    """What the receiver still does is not known, so the end is not proven."""
    control = HandControl()
    running = asyncio.create_task(call(executor, receiver.url + "/slow", control))
    await eventually(lambda: receiver.requests)
    control.stop(reason)
    ending = await running
    assert (ending.state, ending.proven, ending.error_kind) == (state, False, kind)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fd00:ec2::254]", "[fe80::1]", "[::ffff:169.254.169.254]", "0xa9fea9fe"]
)
async def test_metadata_addresses_are_refused_however_they_are_written(executor: HttpExecutor, host: str) -> None:
    """Also those that only the resolver understands; nothing is sent, and the gate is not asked."""
    control = HandControl()
    ending = await call(executor, f"http://{host}/latest/meta-data/", control)
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "not_allowed")
    assert control.asked_count == 0


async def test_a_node_refuses_more_and_makes_exceptions(receiver: Receiver) -> None:
    """Networks of the node's own are refused by name and by number, and an exception wins over any rule."""
    loopback, link_local = ip_network("127.0.0.0/8"), ip_network("169.254.0.0/16")
    port = receiver.url.rpartition(":")[2]
    executor = HttpExecutor.create(Surroundings(addresses=AddressRules(refused=(loopback,))))
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f000001"):
        ending = await call(executor, f"http://{host}:{port}/")
        assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "not_allowed"), host
        assert "--refuse-addresses" in (ending.error or "")
    await executor.close()
    assert receiver.requests == []

    rules = AddressRules(refused=(loopback,), allowed=(ip_network("127.0.0.1/32"), link_local))
    executor = HttpExecutor.create(Surroundings(addresses=rules))
    assert (await call(executor, receiver.url)).state == "succeeded"
    await executor.close()
    assert rules.refusal("169.254.169.254") is rules.refusal("::ffff:169.254.169.254") is None
    assert rules.refusal("127.0.0.2") is not None
    url = {"type": "http", "url": "http://169.254.169.254/"}
    assert http_spec.validate(url) != [] == http_spec.validate(url, rules)


@pytest.mark.parametrize("text", ["64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "fe80::1%eth0"])
def test_an_address_inside_another_is_seen(text: str) -> None:
    """Translated and tunnelled forms of a refused address are refused."""
    assert BY_DEFAULT.refusal(text) is not None


async def test_a_body_is_not_unpacked(executor: HttpExecutor) -> None:
    """An answer that says it is compressed stays as it came, so a small one cannot become a large one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nnotgzip")
        await writer.drain()

    async with raw_server(serve) as url:
        ending = await call(executor, url)
    assert (ending.state, ending.output_tail) == ("succeeded", b"notgzip")


async def test_args_are_json_that_can_be_read_back(executor: HttpExecutor, receiver: Receiver) -> None:
    """Whatever JSON value a manual run had."""
    for args in (0, False, "", [], {"a": None}):
        await executor.run(make_attempt({"type": "http", "url": receiver.url}, args=args), HandControl())
        assert json.loads(receiver.requests[-1][3]) == args


async def test_an_asynchronous_target_that_answers_202_goes_on_by_itself(
    executor: HttpExecutor, receiver: Receiver
) -> None:
    """Any other answer means what it means for every job, and so does a 202 to a job that waits."""
    accepted = receiver.url + "/status/202"
    end = Ending("taken_over", status_code=202, output_tail=b"answer 202")
    assert await call(executor, accepted, **{"async": True}) == end
    assert (await call(executor, accepted, **{"async": True}, expect_status="200")) == end
    assert (await call(executor, accepted)).state == "succeeded"
    assert (await call(executor, receiver.url + "/status/200", **{"async": True})).state == "succeeded"
    assert (await call(executor, receiver.url + "/status/500", **{"async": True})).state == "failed"
