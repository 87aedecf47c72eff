"""Both clients over real sockets, against nodes that answer what they are told."""

from __future__ import annotations

import asyncio
import inspect
import json
import runpy
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from raftcron.client import AsyncClient, Client, Event
from raftcron.client.sync import BYTES_A_SECOND, Upload, has_ended, patient
from raftcron.errors import Fault, GoneError, InvalidError, RaftcronError, UnavailableError, UnknownOutcomeError

ROOT = Path(__file__).parents[2]


class Nodes:
    """One server that plays a node: handlers by method and path, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.answers: dict[tuple[str, str], list[Callable[[web.Request], Awaitable[web.StreamResponse]]]] = {}
        self.address = ""

    def say(self, method: str, path: str, body: Any, status: int = 200, **headers: str) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status, headers=headers)

        self.answers.setdefault((method, path), []).append(answer)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path_qs, await request.read(), dict(request.headers)))
        queue = self.answers[request.method, request.path]
        return await (queue.pop(0) if len(queue) > 1 else queue[0])(request)


@pytest.fixture
async def node() -> AsyncIterator[Nodes]:
    nodes = Nodes()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{tail:.*}", nodes.handle)
    async with TestServer(app) as server:
        nodes.address = f"http://127.0.0.1:{server.port}"
        yield nodes


async def sync(act: Callable[[Client], Any], node: Nodes, addresses: Sequence[str] = (), **options: Any) -> Any:
    """The synchronous client, in a thread beside the server."""

    def run() -> Any:
        with Client(addresses or [node.address], "secret", discover=False, **options) as client:
            return act(client)

    return await asyncio.to_thread(run)


async def asynchronous(
    act: Callable[[AsyncClient], Any], node: Nodes, addresses: Sequence[str] = (), **options: Any
) -> Any:
    """The asynchronous one, with what it gives awaited or gathered."""
    async with AsyncClient(addresses or [node.address], "secret", discover=False, **options) as client:
        made = act(client)
        if hasattr(made, "__aiter__"):
            return [item async for item in made]
        return await made


BOTH = pytest.mark.parametrize("call", [sync, asynchronous])


def test_the_synchronous_methods_are_those_of_the_asynchronous_client() -> None:
    """raftcron/client/api.py is what scripts/client writes: run it after a change of aio_api.py."""
    script = runpy.run_path(str(ROOT / "scripts" / "client"))
    assert script["written"]() == (ROOT / "raftcron" / "client" / "api.py").read_text()


def test_every_public_method_says_what_it_does() -> None:
    """In the docstring that both clients share."""
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_") and name not in ("request", "stream", "pause"):
            assert inspect.getdoc(method), name


@BOTH
async def test_a_write_carries_token_type_and_a_key_of_its_own(call: Any, node: Nodes) -> None:
    """Each write another key, so that only a repeat of the same one is taken for it."""
    node.say("PUT", "/v1/jobs/a b", {"name": "a b"})
    for _ in range(2):
        assert await call(lambda client: client.put_job("a b", {"schedule": "@daily"}, if_match=7), node) == {
            "name": "a b"
        }
    headers = [sent[3] for sent in node.asked]
    assert {one["Authorization"] for one in headers} == {"Bearer secret"}
    assert {one["If-Match"] for one in headers} == {'"7"'}
    assert {one["Content-Type"] for one in headers} == {"application/json"}
    assert len({one["Idempotency-Key"] for one in headers}) == 2
    assert {sent[1] for sent in node.asked} == {"/v1/jobs/a%20b"}
    assert json.loads(node.asked[0][2]) == {"schedule": "@daily"}


@BOTH
async def test_a_key_of_the_callers_is_the_only_one(call: Any, node: Nodes) -> None:
    """However it writes the header's name."""
    node.say("POST", "/v1/jobs", {"name": "a"}, 201)
    await call(lambda client: client.request("POST", "/v1/jobs", {}, headers={"idempotency-key": "mine"}), node)
    names = [name.lower() for name in node.asked[0][3]]
    assert names.count("idempotency-key") == 1
    assert node.asked[0][3]["Idempotency-Key"] == "mine"


async def test_nothing_is_sent_on_a_connection_that_the_node_has_given_up(node: Nodes) -> None:
    """It would break under the request, and leave a write in doubt for nothing."""

    async def answer_and_close(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        asyncio.get_running_loop().call_later(0.02, request.transport.close)
        return web.json_response({"name": "a"})

    node.answers["POST", "/v1/jobs"] = [answer_and_close]

    def twice(client: Client) -> None:
        client.create_job({})
        assert client._kept is not None
        while not has_ended(client._kept[1]):
            time.sleep(0.001)
        client.create_job({})

    await sync(twice, node, patience_seconds=0)
    assert len(node.asked) == 2


@BOTH
async def test_no_redirect_is_followed(call: Any, node: Nodes) -> None:
    """Nodes send none: whoever does would get the token."""
    node.say("GET", "/v1/backup", None, 307, Location="/elsewhere")
    node.say("GET", "/elsewhere", None)

    def read(client: Any) -> Any:
        pieces = client.backup()
        return pieces if hasattr(pieces, "__aiter__") else list(pieces)

    with pytest.raises(RaftcronError, match="307"):
        await call(read, node)
    assert [sent[1] for sent in node.asked] == ["/v1/backup"]


@BOTH
async def test_whoever_has_a_large_body_may_take_longer(call: Any, node: Nodes) -> None:
    """By its size, whether it comes as bytes or is told of as it goes."""

    given_up = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        if request.content_length:
            await asyncio.sleep(0.6)
        else:
            await given_up.wait()
        return web.json_response({"results": []})

    node.answers["POST", "/v1/jobs:apply"] = [slow]
    jobs = [{"name": "a", "description": "x" * (30 * BYTES_A_SECOND)}]
    assert await call(lambda client: client.apply_jobs(jobs), node, timeout_seconds=0.5, patience_seconds=0) == []
    with pytest.raises(UnknownOutcomeError):
        await call(lambda client: client.apply_jobs([]), node, timeout_seconds=0.5, patience_seconds=0)
    given_up.set()
    assert patient(1.0, Upload(bytes(BYTES_A_SECOND), lambda _: None)) == patient(1.0, bytes(BYTES_A_SECOND)) == 2.0


@BOTH
async def test_a_list_is_followed_to_its_end(call: Any, node: Nodes) -> None:
    """Page by page; filters go with each."""
    node.say("GET", "/v1/jobs", {"items": [{"name": "a"}, {"name": "b"}], "next_cursor": "c1", "total": 3})
    node.say("GET", "/v1/jobs", {"items": [{"name": "c"}], "next_cursor": None, "total": 3})

    def names(client: Any) -> Any:
        found = client.jobs(labels=("team=db", "x=y"))
        return found if hasattr(found, "__aiter__") else list(found)

    assert [job["name"] for job in await call(names, node)] == ["a", "b", "c"]
    assert [sent[1] for sent in node.asked] == [
        "/v1/jobs?label=team%3Ddb&label=x%3Dy&limit=1000",
        "/v1/jobs?label=team%3Ddb&label=x%3Dy&limit=1000&cursor=c1",
    ]


@BOTH
async def test_every_fault_of_a_body_arrives(call: Any, node: Nodes) -> None:
    """With its pointer, in the error that the problem stands for."""
    problem = {"code": "invalid", "detail": "2 faults", "errors": [{"pointer": "/a", "message": "x"}] * 2}
    node.say("POST", "/v1/jobs", problem, 422)
    with pytest.raises(InvalidError, match="2 faults") as caught:
        await call(lambda client: client.create_job({}), node)
    assert [fault.pointer for fault in caught.value.faults] == ["/a", "/a"]


def test_an_error_that_nobody_catches_names_its_faults() -> None:
    """The first of them, where the text does not; what the API answers for people stays as it was."""
    faults = tuple(Fault(f"/{name}" if name else "", f"has {number} too many") for number, name in enumerate("abc d"))
    error = InvalidError("the job has 5 faults; nothing was written", (faults[3]._replace(pointer=""), *faults[:4]))
    told = "/: has 3 too many; /a: has 0 too many; /b: has 1 too many; and 2 more"
    assert str(error) == f"the job has 5 faults; nothing was written: {told}"
    assert error.detail == "the job has 5 faults; nothing was written"
    assert str(InvalidError("it has 0 too many", faults[:1])) == "it has 0 too many"
    assert str(InvalidError("nothing")) == "nothing"


@BOTH
async def test_an_awaited_run_is_looked_at_until_it_has_ended(call: Any, node: Nodes) -> None:
    """And given back as it ended."""
    node.say("GET", "/v1/runs/r1", {"id": "r1", "state": "running"})
    node.say("GET", "/v1/runs/r1", {"id": "r1", "state": "waiting_retry"})
    node.say("GET", "/v1/runs/r1", {"id": "r1", "state": "failed"})
    assert (await call(lambda client: client.wait_run("r1"), node))["state"] == "failed"


@BOTH
async def test_many_jobs_go_as_lines(call: Any, node: Nodes) -> None:
    """NDJSON, so that their number has no bound but the server's patience."""
    node.say("POST", "/v1/jobs:apply", {"results": [{"name": "a", "status": "created"}]})
    done = await call(lambda client: client.apply_jobs([{"name": "a"}, {"name": "b"}], owner="me", prune=True), node)
    assert done == [{"name": "a", "status": "created"}]
    _, target, body, headers = node.asked[0]
    assert target == "/v1/jobs:apply?owner=me&prune=1"
    assert headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line) for line in body.splitlines()] == [{"name": "a"}, {"name": "b"}]


@BOTH
async def test_a_large_answer_comes_in_pieces(call: Any, node: Nodes) -> None:
    """Output is not held in memory whole."""
    whole = bytes(range(256)) * 2_000

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for at in range(0, len(whole), 50_000):
            await response.write(whole[at : at + 50_000])
        return response

    node.answers["GET", "/v1/runs/r1/output"] = [answer]

    def read(client: Any) -> Any:
        pieces = client.output("r1", follow=True)
        return pieces if hasattr(pieces, "__aiter__") else list(pieces)

    pieces = await call(read, node)
    assert b"".join(pieces) == whole
    assert len(pieces) > 1
    assert node.asked[0][1] == "/v1/runs/r1/output?follow=1"


def attempts(*states: str) -> list[dict[str, Any]]:
    return [{"attempt": number, "state": state} for number, state in enumerate(states, 1)]


def outputs(node: Nodes, *answers: tuple[bytes, bool] | int) -> None:
    """What is answered to those who ask for output: bytes, and whether it breaks off behind them; or a refusal."""

    def one(content: bytes, breaks: bool) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Raftcron-Attempt": request.query.get("attempt", "1")})
            await response.prepare(request)
            await response.write(content)
            if breaks:
                assert request.transport is not None
                request.transport.close()
            return response

        return answer

    for answer in answers:
        if isinstance(answer, int):
            node.say("GET", "/v1/runs/r1/output", {"code": "unavailable", "detail": "n1 is gone"}, status=answer)
        else:
            node.answers.setdefault(("GET", "/v1/runs/r1/output"), []).append(one(*answer))


async def followed(call: Any, node: Nodes) -> bytes:
    def read(client: Any) -> Any:
        pieces = client.output("r1", follow=True)
        return pieces if hasattr(pieces, "__aiter__") else list(pieces)

    return b"".join(await call(read, node))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftcron.client.api.RECONNECT_SECONDS", 0.0)
    monkeypatch.setattr("raftcron.client.aio_api.RECONNECT_SECONDS", 0.0)


@BOTH
async def test_followed_output_goes_on_where_it_broke_off(call: Any, node: Nodes) -> None:
    """Nothing twice and nothing missing, though the node that was asked ended in the middle."""
    outputs(node, (b"one two", True), (b"one two th", True), (b"one two three", False))
    node.say("GET", "/v1/runs/r1", {"state": "running", "attempts": attempts("running")})
    node.say("GET", "/v1/runs/r1", {"state": "succeeded", "attempts": attempts("succeeded")})
    assert await followed(call, node) == b"one two three"


@BOTH
async def test_followed_output_goes_on_into_the_next_attempt(call: Any, node: Nodes) -> None:
    """What was seen of the second attempt before the break does not come again; a lost one's rest is passed over."""
    outputs(node, (b"first.sec", True), (b"first.", False), (b"second.", False), (b"third.", False))
    node.say("GET", "/v1/runs/r1", {"state": "running", "attempts": attempts("failed", "running")})
    node.say("GET", "/v1/runs/r1", {"state": "waiting_retry", "attempts": attempts("failed", "failed")})
    node.say("GET", "/v1/runs/r1", {"state": "running", "attempts": attempts("failed", "failed", "running")})
    node.say("GET", "/v1/runs/r1", {"state": "succeeded", "attempts": attempts("failed", "failed", "succeeded")})
    assert await followed(call, node) == b"first.second.third."
    asked = [sent[1].partition("output?")[2] for sent in node.asked if "output" in sent[1]]
    assert asked == ["follow=1", *(f"follow=1&attempt={number}" for number in (1, 2, 3))]


@BOTH
async def test_an_output_that_stays_away_ends_with_the_reason(call: Any, node: Nodes) -> None:
    """Once the run has ended: the node that had the rest is gone."""
    outputs(node, (b"one", True), 503)
    node.say("GET", "/v1/runs/r1", {"state": "running", "attempts": attempts("running")})
    node.say("GET", "/v1/runs/r1", {"state": "lost", "attempts": attempts("lost")})
    with pytest.raises(UnavailableError, match="n1 is gone"):
        await followed(call, node)


@BOTH
async def test_events_go_on_where_they_broke_off(call: Any, node: Nodes) -> None:
    """The id of the last one seen is sent; 410 ends it, since something is missing then."""

    def stream(*lines: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(text="\n".join(lines) + "\n\n", content_type="text/event-stream")

        return answer

    async def gone(request: web.Request) -> web.StreamResponse:
        return web.json_response({"code": "gone", "detail": "the oldest held is 9.0"}, status=410)

    node.answers["GET", "/v1/events"] = [
        stream(": hello", "", "id: 5.0", "event: run", 'data: {"a": 1}', "", "id: 5.1", "event: run", 'data: {"a": 2}'),
        stream("event: node", "data: {}", "", "id: 6.0", "event: run", 'data: {"a":', "data: 3}"),
        gone,
    ]
    seen: list[Event] = []

    def watch(client: Any) -> Any:
        if isinstance(client, AsyncClient):

            async def take() -> None:
                async for event in client.events():
                    seen.append(event)  # noqa: PERF401  one by one: the stream ends with an error

            return take()
        return [seen.append(event) for event in client.events()]

    with pytest.raises(GoneError, match=r"9\.0"):
        await call(watch, node)
    assert seen == [
        Event("5.0", "run", {"a": 1}),
        Event("5.1", "run", {"a": 2}),
        Event(None, "node", {}),
        Event("6.0", "run", {"a": 3}),
    ]
    assert [sent[3].get("Last-Event-ID") for sent in node.asked] == [None, "5.1", "6.0"]


@BOTH
async def test_nothing_there(call: Any, node: Nodes) -> None:
    """An address at which nothing listens is named, with the reason."""
    node.address = "http://127.0.0.1:1"
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1: .*refused"):
        await call(lambda client: client.cluster(), node, patience_seconds=0)


@pytest.fixture
def frozen() -> Iterator[str]:
    """The address of a node that was stopped: the system takes connections for it, and nobody reads them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_read_goes_on_past_a_node_that_is_frozen(
    kind: Any, scheme: str, node: Nodes, frozen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before its time is over, under TLS and in streams, too; a write waits, since it may have been taken."""
    monkeypatch.setattr("raftcron.client.course.HURRY_SECONDS", 0.1)
    node.say("GET", "/v1/whoami", {"principal": "me"})
    node.say("GET", "/v1/backup", "whole")
    node.say("POST", "/v1/jobs", {"name": "a"}, 201)
    addresses = [f"{scheme}://{frozen}", node.address]

    async def asked(act: Callable[[Any], Any], **options: Any) -> Any:
        if kind is Client:
            with Client(addresses, discover=False, **options) as client:
                return await asyncio.to_thread(act, client)
        async with AsyncClient(addresses, discover=False, **options) as client:
            made = act(client)
            return [piece async for piece in made] if hasattr(made, "__aiter__") else await made

    def backup(client: Any) -> Any:
        pieces = client.backup()
        return list(pieces) if kind is Client else pieces

    async with asyncio.timeout(30):
        assert await asked(lambda client: client.whoami(), timeout_seconds=60) == {"principal": "me"}
        assert b"".join(await asked(backup, timeout_seconds=60)) == b'"whole"'
    before = time.monotonic()
    await asked(lambda client: client.create_job({}), timeout_seconds=0.5)
    assert time.monotonic() - before >= 0.5


@BOTH
async def test_a_slow_answer_of_the_only_node_that_has_one_is_waited_for(
    call: Any, node: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else could answer, so that it is asked once more, with all its time."""
    monkeypatch.setattr("raftcron.client.course.HURRY_SECONDS", 0.1)

    given_up = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        if len(node.asked) == 1:
            await given_up.wait()
        return web.json_response({"principal": "me"})

    node.answers["GET", "/v1/whoami"] = [slow]
    both = [node.address, "http://127.0.0.1:1"]
    assert await call(lambda client: client.whoami(), node, addresses=both) == {"principal": "me"}
    assert len(node.asked) == 2
    given_up.set()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_the_members_are_asked_for_once_a_leader(kind: Any, node: Nodes) -> None:
    """Where the answer was no help, the next leader is a reason to ask again, and nothing else is."""
    for leader in ("n2", "n2", "n3", "n3"):
        node.say("GET", "/v1/whoami", {}, **{"Raftcron-Leader": leader})
    node.say("GET", "/v1/cluster", {"code": "unavailable"}, 503)
    node.say("GET", "/v1/cluster", {"members": []})
    client = kind([node.address], patience_seconds=0)
    for _ in range(4):
        await (client.whoami() if kind is AsyncClient else asyncio.to_thread(client.whoami))
    await (client.close() if kind is AsyncClient else asyncio.to_thread(client.close))
    w, c = "/v1/whoami", "/v1/cluster"
    assert [sent[1] for sent in node.asked] == [w, c, w, w, c, w]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_the_other_members_are_found_through_one(kind: Any, node: Nodes) -> None:
    """A client that was given one address survives the end of that node."""
    other = Nodes()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", other.handle)
    async with TestServer(app) as server:
        other.address = f"http://127.0.0.1:{server.port}"
        node.say("GET", "/v1/jobs/x", {"name": "x"}, **{"Raftcron-Leader": "n2"})
        members = [{"name": "n1", "http": node.address}, {"name": "n2", "http": other.address}]
        node.say("GET", "/v1/cluster", {"members": members})
        other.say("POST", "/v1/jobs/x/pause", {"name": "x", "paused": True})
        client = kind([node.address])

        async def do(act: Callable[[], Any]) -> Any:
            return await act() if kind is AsyncClient else await asyncio.to_thread(act)

        await do(lambda: client.get_job("x"))
        assert (await do(lambda: client.pause_job("x")))["paused"]
        await do(client.close)
    assert [sent[1] for sent in other.asked] == ["/v1/jobs/x/pause"]
