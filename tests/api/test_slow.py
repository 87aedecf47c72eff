"""Slow strangers: heads, lines and archives of which the rest does not come are waited for no longer than a bound."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from raftcron.api import backup, bulk, server
from tests.api.bench import GOOD, bench
from tests.api.test_bulk import jobs, lines
from tests.api.test_strangers import raw, status_of

PATIENCE_SECONDS = 60.0  # of the tests; the bounds that they set are a fraction of it, those of a node are longer


async def _until_closed(port: int, said: bytes, drip: bytes = b"") -> bytes:
    """What comes until the node closes, which it does by itself; `drip` is sent again and again meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = bytearray()

    async def hear() -> None:
        with contextlib.suppress(ConnectionError):  # it ends with a reset where something was still on its way
            while piece := await reader.read(65_536):
                heard.extend(piece)

    writer.write(said)
    hearing = asyncio.create_task(hear())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while drip and not hearing.done():
            writer.write(drip)
            await asyncio.sleep(0.02)
        await hearing
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return bytes(heard)


async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, half of one, or a byte now and then, also after a first request: cut; others are served meanwhile."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.3)
    async with bench(1) as made:
        port = int(made.n1.url.rsplit(":", 1)[1])
        half = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
        whole = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
        slow = [
            asyncio.create_task(_until_closed(port, *words))
            for words in ((b"",), (half,), (half, b"x"), (whole,), (whole + half,), (whole + half, b"x"))
        ]
        served = 0
        while not all(one.done() for one in slow):
            (await made.ask("GET", "/v1/jobs")).expect(200)
            served += 1
            await asyncio.sleep(0.01)
        answers = [await one for one in slow]
    assert served
    assert [answer.count(b"HTTP/1.1 200") for answer in answers] == [0, 0, 0, 1, 1, 1]
    assert [answer.count(b"HTTP/1.") for answer in answers] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("key", ["", "Idempotency-Key: k\r\n"])
async def test_a_line_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """The jobs before it are written, and it is said that they are; under its key the whole request goes on."""
    monkeypatch.setattr(bulk, "LINE_SECONDS", 0.3)
    async with bench(1) as made:
        head = (
            b"POST /v1/jobs:apply HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
            b"Content-Length: 99999\r\n" + key.encode() + b"\r\n"
        )
        many = lines(*jobs(*(f"j{number}" for number in range(501)))) + b'\n{"na'  # a chunk is 500
        asked = asyncio.create_task(raw(made, head + many))
        while not made.n1.machine.state.jobs:
            await asyncio.sleep(0.01)
        (await made.put("other", **GOOD)).expect(201)
        assert status_of(await asked) == 400
        assert {"j499", "j500"} & made.n1.machine.state.jobs.keys() == {"j499"}
        if key:
            body = lines(*jobs(*(f"j{number}" for number in range(501))))
            headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "k"}
            (await made.ask("POST", "/v1/jobs:apply", data=body, headers=headers)).expect(200)
            assert "j500" in made.n1.machine.state.jobs


async def test_an_archive_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is put in place."""
    monkeypatch.setattr(backup, "PIECE_SECONDS", 0.3)
    async with bench(1) as made:
        (await made.put("a")).expect(201)
        archive = (await made.ask("GET", "/v1/backup")).expect(200).body
        (await made.put("b")).expect(201)
        head = (
            f"POST /v1/restore HTTP/1.1\r\nHost: localhost\r\nContent-Type: {backup.ARCHIVE}\r\n"
            f"Content-Length: {len(archive)}\r\n\r\n"
        ).encode()
        assert status_of(await raw(made, head + archive[:-1])) == 400
        assert sorted(made.n1.machine.state.jobs) == ["a", "b"]
