"""Writes on a node that does not lead, and on nodes that know no leader: what is answered, and what is then true."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from raftcron.api.backup import ARCHIVE
from raftcron.api.bodies import NDJSON
from raftcron.api.connections import CONNECTIONS, Connections
from raftcron.errors import UnavailableError
from tests.api.bench import GOOD, Bench, bench

MERGE = {"Content-Type": "application/merge-patch+json"}


async def test_a_follower_carries_every_write_to_the_leader(two: Bench) -> None:
    """Status, body, ETag and index are the leader's; the answer says which node gave it."""
    created = (await two.put("a", on="n2")).expect(201)
    assert (created.headers["Raftcron-Node"], created.headers["Raftcron-Leader"]) == ("n2", "n1")
    assert created.headers["ETag"] == f'"{created.index}"'
    assert created.headers["Location"] == "/v1/jobs/a"
    assert two.n1.machine.state.jobs["a"].revision == created.index
    (await two.ask("POST", "/v1/jobs", {**GOOD, "name": "b"}, on="n2")).expect(201)
    (await two.ask("PATCH", "/v1/jobs/a", {"description": "x"}, on="n2", headers=MERGE)).expect(200)
    (await two.ask("POST", "/v1/jobs/a/pause", {"note": "n"}, on="n2")).expect(200)
    (await two.ask("POST", "/v1/jobs/a/resume", on="n2")).expect(200)
    run = (await two.ask("POST", "/v1/jobs/a/runs", {"args": [1]}, on="n2")).expect(202).json["run"]
    (await two.ask("POST", f"/v1/runs/{run['id']}/cancel", on="n2")).expect(200)
    deleted = (await two.ask("DELETE", "/v1/jobs/b?cancel_running=1", on="n2")).expect(204)
    assert deleted.body == b""
    assert sorted(two.n1.machine.state.jobs) == sorted(two.n2.machine.state.jobs) == ["a"]


async def test_refusals_come_back_as_they_are(two: Bench) -> None:
    """404, 409, 412 and 422 with their problem documents, from the node that was asked."""
    await two.put("a")
    (await two.ask("DELETE", "/v1/jobs/nobody", on="n2")).problem(404, "not_found")
    (await two.ask("POST", "/v1/jobs", {**GOOD, "name": "a"}, on="n2")).problem(409, "conflict")
    refused = await two.put("a", on="n2", description="x", headers={"If-Match": '"1"'})
    refused.problem(412, "revision")
    assert refused.headers["Raftcron-Node"] == "n2"
    assert (await two.put("a", on="n2", jitter="x")).pointers(422, "invalid") == ["/jitter"]


async def test_a_follower_reads_its_own_write(patient: Bench) -> None:
    """It answers only once it has applied the write itself."""
    patient.n2.log.lag()
    asked = asyncio.create_task(patient.put("a", on="n2"))
    while "a" not in patient.n1.machine.state.jobs:
        await asyncio.sleep(0.001)
    assert not asked.done()
    patient.n2.log.resume()
    answer = (await asked).expect(201)
    seen = await patient.ask("GET", "/v1/jobs/a?consistency=stale", on="n2")
    assert seen.expect(200).json["revision"] == answer.index


async def test_a_follower_that_lags_answers_success_all_the_same(two: Bench) -> None:
    """After the hold time the write is answered with its index, which the follower has not reached."""
    two.n2.log.lag()
    answer = (await two.put("a", on="n2")).expect(201)
    assert answer.index > two.n2.machine.state.index
    (await two.ask("GET", "/v1/jobs/a?consistency=stale", on="n2")).problem(404)


async def test_a_leader_that_cannot_be_reached_is_named(two: Bench) -> None:
    """With its address and why, in words; nothing was written."""
    await two.nodes["n1"].runner.cleanup()
    detail = (await two.put("a", on="n2")).problem(503, "unavailable")["detail"]
    assert detail.startswith("the leader n1 cannot be reached at 127.0.0.1:")
    assert detail.endswith(": connection refused; nothing was written; repeat it")


async def test_without_a_leader_a_write_is_certainly_not_written(two: Bench) -> None:
    """Held for a while, then 503 with Retry-After, no leader header and nothing in the log."""
    two.cluster.depose()
    before = len(two.cluster.entries)
    for on in ("n1", "n2"):
        answer = await two.put("a", on=on)
        answer.problem(503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert "Raftcron-Leader" not in answer.headers
    assert len(two.cluster.entries) == before


async def test_a_leader_that_appears_in_time_takes_the_write(patient: Bench) -> None:
    """What is held is done as soon as somebody leads, here or elsewhere."""
    patient.cluster.depose()
    asked = [asyncio.create_task(patient.put(f"on-{on}", on=on)) for on in ("n1", "n2")]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in asked)
    patient.cluster.elect("n2")
    for task in asked:
        (await task).expect(201)


async def test_a_leader_that_refuses_connections_was_not_reached(two: Bench, patient: Bench) -> None:
    """Nothing was sent, so another leader may be tried; and where none comes it is 503."""
    await two.n1.close()
    answer = await two.put("a", on="n2")
    answer.problem(503, "unavailable")
    assert "a" not in two.n2.machine.state.jobs
    await patient.n1.close()
    asked = asyncio.create_task(patient.put("a", on="n2"))
    await asyncio.sleep(0.05)
    patient.cluster.elect("n2")
    (await asked).expect(201)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"], ids=["nothing", "a part"]
)
async def test_a_connection_that_breaks_after_sending_leaves_the_outcome_unknown(two: Bench, said: bytes) -> None:
    """504, never 503; and the request is sent once."""
    requests = 0

    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(dying, "127.0.0.1", 0) as server:
        two.n1.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await two.announce_anew(two.n1)
        for method, path in (("PUT", "/v1/jobs/a"), ("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/a")):
            requests = 0
            answer = await two.ask(method, path, {**GOOD, "name": "a"} if method != "DELETE" else None, on="n2")
            answer.problem(504, "unknown_outcome")
            assert requests == 1


async def test_a_leader_that_does_not_answer_leaves_the_outcome_unknown() -> None:
    """504 after the request time-out, on the leader and through a follower."""
    async with bench(2, request_timeout_seconds=0.3) as made:
        made.n1.log.stall = asyncio.Event()
        for on in ("n1", "n2"):
            (await made.put("a", on=on)).problem(504, "unknown_outcome")


LINE = json.dumps({**GOOD, "name": "a"}).encode() + b"\n"
LONG = [
    pytest.param("/v1/jobs:apply", NDJSON, LINE, id="lines"),
    pytest.param("/v1/jobs:apply", NDJSON, LINE * 150_000, id="more lines than lie between two nodes"),
    pytest.param("/v1/restore", ARCHIVE, b"x", id="an archive"),
]


@asynccontextmanager
async def standing_still(made: Bench) -> AsyncIterator[asyncio.Event]:
    """In n1's place something that takes connections, as a stopped process does, and says nothing; set once it has."""
    asked, ended = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await ended.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        made.n1.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await made.announce_anew(made.n1)
        try:
            yield asked
        finally:
            ended.set()


@pytest.mark.parametrize("next_leader", ["n2", None])
@pytest.mark.parametrize(("path", "kind", "body"), LONG)
async def test_a_leader_that_stands_still_is_not_waited_for_once_it_leads_no_more(
    path: str, kind: str, body: bytes, next_leader: str | None
) -> None:
    """A body of any length: 504 after the request time-out, whoever leads then; and its connection is busy no more."""
    async with bench(2, request_timeout_seconds=0.3) as made, standing_still(made) as asked:
        asking = asyncio.create_task(made.ask("POST", path, data=body, headers={"Content-Type": kind}, on="n2"))
        await asked.wait()
        connections: Connections = made.n2.runner.app[CONNECTIONS]
        assert len(connections._busy) == 1
        if next_leader is None:
            made.cluster.depose()
        else:
            made.cluster.elect(next_leader)
        detail = (await asyncio.wait_for(asking, 60)).problem(504, "unknown_outcome")["detail"]
        assert "n1" in detail
        assert "a part of it" in detail
        assert not connections._busy


async def test_a_leader_that_leads_may_take_its_time_over_a_long_body() -> None:
    """Many times the request time-out, and its answer is brought back."""
    async with bench(2, request_timeout_seconds=0.05) as made:
        made.n1.log.stall = asyncio.Event()
        headers = {"Content-Type": NDJSON}
        asking = asyncio.create_task(made.ask("POST", "/v1/jobs:apply", data=LINE, headers=headers, on="n2"))
        while not made.n1.log.proposals:
            await asyncio.sleep(0.001)
        await asyncio.wait({asking}, timeout=0.5)
        assert not asking.done()
        made.n1.log.stall.set()
        (await asking).expect(200)


async def test_an_outcome_that_the_log_does_not_know_is_504(two: Bench) -> None:
    """Whether or not it is written; and it is not proposed a second time."""
    for answer, there in (("unknown", False), ("unknown_written", True)):
        proposals = two.n1.log.proposals
        two.n1.log.next_answer = answer  # type: ignore[assignment]
        (await two.put(answer, on="n2")).problem(504, "unknown_outcome")
        assert (answer in two.n1.machine.state.jobs) is there
        assert two.n1.log.proposals == proposals + 1


async def test_what_was_certainly_not_written_is_tried_again(patient: Bench) -> None:
    """A proposal that another leadership has voided is made anew within the hold time."""
    patient.n1.log.next_answer = "unavailable"
    (await patient.put("a", on="n2")).expect(201)


async def test_a_forwarded_write_is_not_forwarded_again(two: Bench) -> None:
    """The loop guard: a node that was taken for the leader and is none says so at once."""
    answer = await two.put("a", on="n2", headers={"Raftcron-Forwarded": "n3"})
    assert "n1 leads" in answer.problem(503, "unavailable")["detail"]
    assert "a" not in two.n1.machine.state.jobs


async def test_a_deposed_leader_does_not_refuse_from_what_it_remembers(two: Bench) -> None:
    """A refusal that rests on a look needs a quorum: without one it is 503, not 404."""
    two.cluster.cut()
    (await two.ask("DELETE", "/v1/jobs/nobody")).problem(503, "unavailable")
    two.cluster.heal()
    (await two.ask("DELETE", "/v1/jobs/nobody")).problem(404, "not_found")


async def test_bad_input_is_refused_without_a_leader(two: Bench) -> None:
    """What cannot be read, or is of another type, needs nobody to say so."""
    two.cluster.depose()
    (await two.ask("PUT", "/v1/jobs/a", data=b"{")).problem(400, "malformed")
    (await two.ask("PUT", "/v1/jobs/a", data=b"{}", headers={"Content-Type": "text/plain"})).problem(415, "media_type")


async def test_a_job_of_nearly_a_mebibyte_passes_through_a_follower() -> None:
    """The largest body that is taken fits both hops."""
    async with bench(2) as made:
        executor = {"type": "http", "url": "http://127.0.0.1:9/", "body": "\u00e4" * 500_000}
        data = json.dumps({**GOOD, "executor": executor}, ensure_ascii=False).encode()
        assert 1_000_000 < len(data) < 1 << 20
        answer = (await made.ask("PUT", "/v1/jobs/a", data=data, on="n2")).expect(201)
        assert answer.json["executor"] == executor


async def test_reads_without_a_quorum() -> None:
    """503 with Retry-After for the linearizable ones; stale ones and the cluster's view are answered."""
    async with bench(2) as made:
        await made.put("a")
        made.cluster.cut()
        for on in ("n1", "n2"):
            answer = await made.ask("GET", "/v1/jobs/a", on=on)
            answer.problem(503, UnavailableError.code)
            assert "Retry-After" in answer.headers
            stale = (await made.ask("GET", "/v1/jobs/a?consistency=stale", on=on)).expect(200)
            assert int(stale.headers["Raftcron-Staleness-Ms"]) >= 0
            (await made.ask("GET", "/v1/cluster", on=on)).expect(200)
