"""GET /v1/events: what is told of each change, alike on every node, and how a reader goes on."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from raftcron.api import events, paced
from raftcron.api.openapi.operations import OPERATIONS
from raftcron.client.events import Event, Parser
from raftcron.core.codec import encode_entry
from raftcron.core.commands import Entry, PutJob
from tests.api.bench import START_WALL, Bench


class Stream:
    """One reader."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self._parser = Parser()
        self._ready: list[Event] = []

    async def take(self, count: int) -> list[Event]:
        async with asyncio.timeout(60):
            while len(self._ready) < count:
                chunk = await self.response.content.readany()
                assert chunk, "the stream has ended"
                self._ready += self._parser.feed(chunk)
        taken, self._ready = self._ready[:count], self._ready[count:]
        return taken


@asynccontextmanager
async def watching(bench: Bench, on: str = "n1", after: str | None = None, query: str = "") -> AsyncIterator[Stream]:
    headers = {} if after is None else {"Last-Event-ID": after}
    async with bench.session.get(bench.nodes[on].url + "/v1/events" + query, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/event-stream"
        stream = Stream(response)
        async with asyncio.timeout(60):
            await response.content.readuntil(b"\n\n")  # it is open: what comes now is seen
        yield stream


def dropped(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why readers were dropped, as the log has it."""
    marks = (record.getMessage().partition("event_reader_dropped reason=") for record in caplog.records)
    return [reason for _, mark, reason in marks if mark]


def told(found: list[Event]) -> list[tuple[str, Any, Any]]:
    return [
        (one.event, one.data.get("job") or one.data.get("name"), one.data.get("state") or one.data.get("change"))
        for one in found
    ]


async def test_a_job_and_its_run_are_told_as_they_go(one: Bench) -> None:
    """Each with the index of its entry, in the answer's words."""
    at = int(START_WALL) * 1000 + 1_000
    async with watching(one) as stream:
        await one.put("a")
        await one.fire("a", at)
        run_id = next(iter(one.n1.machine.state.active[one.n1.machine.state.jobs["a"].uid]))
        await one.finish(run_id, state="failed", error="no", error_kind="exit")
        await one.ask("DELETE", "/v1/jobs/a")
        found = await stream.take(4)
    assert told(found) == [
        ("job", "a", "created"),
        ("run", "a", "running"),
        ("run", "a", "failed"),
        ("job", "a", "deleted"),
    ]
    assert [one_.id for one_ in found] == [f"{one_.data['index']}.0" for one_ in found]
    ended = found[2].data
    assert (ended["id"], ended["error"], ended["error_kind"], ended["attempt"]) == (run_id, "no", "exit", 1)
    assert ended["scheduled_time"] == "2027-01-15T08:00:01Z"


async def test_many_runs_of_one_entry_have_places_of_their_own(one: Bench) -> None:
    """So that a reader goes on between them."""
    at = int(START_WALL) * 1000 + 1_000
    await one.put("a", overlap={"policy": "allow"})
    async with watching(one) as stream:
        await one.fire("a", at, at + 1000, at + 2000)
        found = await stream.take(3)
    index = found[0].data["index"]
    assert [each.id for each in found] == [f"{index}.{n}" for n in range(3)]
    async with watching(one, after=f"{index}.0") as stream:
        assert [each.id for each in await stream.take(2)] == [f"{index}.1", f"{index}.2"]


async def test_ids_are_the_same_on_every_node(two: Bench) -> None:
    """A reader that lost its node goes on with another one, under another leader too."""
    async with watching(two) as stream:
        await two.put("a")
        first = (await stream.take(1))[0]
    two.cluster.elect("n2")
    await two.put("b", on="n2")
    async with watching(two, on="n2", after=first.id) as stream:
        found = await stream.take(2)
    assert [each.event for each in found] == ["leader", "job"]
    assert found[0].data["node"] == "n2"
    async with watching(two, on="n1", after=first.id) as stream:
        assert await stream.take(2) == found


async def test_a_node_that_lags_waits(patient: Bench) -> None:
    """It does not say that it does not hold what it will get."""
    patient.n2.log.lag()
    answer = await patient.put("a")
    async with watching(patient, on="n2", after=f"{answer.index - 1}.0") as stream:
        patient.n2.log.resume()
        patient.n2.log.catch_up()
        assert told(await stream.take(1)) == [("job", "a", "created")]


async def test_what_is_no_longer_held_is_gone(one: Bench) -> None:
    """410 with the oldest there is."""
    one.n1.context.events._kept = 5
    for place in range(12):
        await one.put(f"job-{place}")
    answer = await one.ask("GET", "/v1/events", headers={"Last-Event-ID": "1.0"})
    assert one.n1.context.events.oldest in answer.problem(410, "gone")["detail"]


async def test_filters(one: Bench) -> None:
    """By kind and by job; ids stay what they are."""
    async with watching(one, query="?job=b&kind=job") as stream:
        for name in "abc":
            await one.put(name)
        await one.ask("POST", "/v1/jobs/b/runs", {})
        await one.ask("DELETE", "/v1/jobs/b")
        assert told(await stream.take(2)) == [("job", "b", "created"), ("job", "b", "deleted")]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/events", {"Last-Event-ID": "nonsense"}, 400),
        ("/v1/events", {"Last-Event-ID": "1"}, 400),
        ("/v1/events?kind=nonsense", {}, 422),
        ("/v1/events?nonsense=1", {}, 422),
    ],
)
async def test_nonsense_is_refused(one: Bench, path: str, headers: dict[str, str], status: int) -> None:
    """Before a stream begins."""
    (await one.ask("GET", path, headers=headers)).problem(status)


async def test_streams_are_bounded(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with Retry-After; a place is free again when a reader goes."""
    monkeypatch.setattr(events, "STREAMS_MAX", 1)
    async with watching(one):
        answer = await one.ask("GET", "/v1/events")
        answer.problem(429, "too_many")
        assert int(answer.headers["Retry-After"]) >= 1


async def test_a_reader_that_takes_nothing_is_dropped(
    one: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs the node neither memory nor a place for ever; the log says why, and the others go on."""
    caplog.set_level(logging.INFO, events.__name__)
    monkeypatch.setattr(paced, "SLOW_SECONDS", 0.2)
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little lies between the two
    narrow.connect(("127.0.0.1", int(one.n1.url.rsplit(":", 1)[1])))
    reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await reader.readuntil(b"raftcron\n\n")
    streams = one.n1.runner.app[events._STREAMS]
    assert len(streams) == 1
    async with asyncio.timeout(110), watching(one, query="?job=last") as other:
        place = 0
        while len(streams) > 1:
            place += 1
            await one.put(f"job-{place}", description="x" * 10)
            body = {
                "jobs": [
                    {"name": f"j{place}-{n}", "schedule": "0 0 29 2 *", "executor": {"type": "noop"}}
                    for n in range(500)
                ]
            }
            await one.ask("POST", "/v1/jobs:apply", body)
        assert dropped(caplog) == ["it took nothing for 0.2 s"]
        await one.put("last")
        assert told(await other.take(1)) == [("job", "last", "created")]
    writer.close()


async def test_a_reader_that_falls_behind_is_told_so_in_its_stream(
    one: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Its stream ends with the reason and the oldest event there is, rather than with a hole; the log says so, too."""
    caplog.set_level(logging.INFO, events.__name__)
    machine, held = one.n1.machine, one.n1.context.events
    held._kept = 5
    async with watching(one) as stream:
        await one.put("a")
        assert told(await stream.take(1)) == [("job", "a", "created")]
        for place in range(12):  # no turn of the loop between them in which they could be read
            command = PutJob(f"job-{place}", machine.state.jobs["a"].definition, 0)
            machine.apply(machine.state.index + 1, encode_entry(Entry(machine.epoch, 1_800_000_000_000, command)))
            machine.applied(machine.state.index)
        reason = f"it read too slowly: the oldest event held is {held.oldest} now"
        assert await stream.take(1) == [Event(None, "dropped", {"reason": reason})]
        assert await stream.response.content.read() == b""
    assert dropped(caplog) == [reason]
    async with watching(one, after=held.oldest.split(".")[0] + ".0") as again:
        assert told(await again.take(1)) == [("job", "job-8", "created")]


async def test_a_quiet_stream_gives_signs_of_life(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a dead connection is noticed on both sides."""
    monkeypatch.setattr(events, "ALIVE_SECONDS", 0.05)
    async with watching(one) as stream:
        async with asyncio.timeout(60):
            assert await stream.response.content.readuntil(b"\n\n") == b": alive\n\n"


async def test_what_is_described_is_taken(one: Bench) -> None:
    """A stream has no end, so that the test of all routes leaves this one out."""
    await one.put("a")
    described = {parameter.name for parameter in OPERATIONS["GET", "/v1/events"].query}
    assert described == {"kind", "job", "last_event_id"}
    async with watching(one, query="?kind=job&kind=run&job=a&last_event_id=1.0") as stream:
        [told_of] = await stream.take(1)
        assert (told_of.event, told_of.data["name"]) == ("job", "a")
    (await one.ask("GET", "/v1/events?other=1")).expect(422)


async def test_a_reader_that_leaves_is_nothing_to_tell(one: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Each tab of a browser that is closed leaves a stream: a line for who debugs, and for nobody else."""
    caplog.set_level(logging.DEBUG, "raftcron.api.server")
    async with watching(one):
        pass
    async with asyncio.timeout(60):
        while not (told := [record for record in caplog.records if record.name == "raftcron.api.server"]):
            await one.put("a", description=str(one.n1.machine.state.index))  # to write it shows that it has gone
            await asyncio.sleep(0)
    assert [record.levelname for record in told] == ["DEBUG"]
    assert told[0].getMessage().startswith("client_gone error=")
