"""The whole output of a run as text, from whichever node: live, from attempt to attempt, and where it is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from raftcron.api import paced
from raftcron.core.commands import Assign, Assignment, Lose, Place, Requeue, Token
from raftcron.core.model import Run
from raftcron.executors.kept_output import READERS_MAX, KeptOutput
from raftcron.executors.output import output_name
from tests.api.bench import Bench, until_cut

RETRIED = {"delivery": "at_least_once", "retry": {"max_attempts": 2}}
LONG = b"line\n" * 10_000


@pytest.fixture
def disks(two: Bench, tmp_path: Path) -> Path:
    """Each node has a directory of its name, as its disk."""
    for name, node in two.nodes.items():
        (tmp_path / name).mkdir()
        node.context.outputs = KeptOutput([tmp_path / name])
    return tmp_path


async def begin(two: Bench, name: str = "a", **fields: Any) -> Run:
    """A run that is running on n1."""
    await two.put(name, schedule="@manual", **fields)
    run_id = (await two.ask("POST", f"/v1/jobs/{name}/runs")).expect(202).json["run"]["id"]
    return two.n1.machine.state.runs[run_id]


def file_of(disks: Path, run: Run, node: str = "n1") -> Path:
    return disks / node / output_name(run.id, run.fencing_token)


async def read(two: Bench, run: Run, query: str = "", on: str = "n2") -> bytes:
    answer = (await two.ask("GET", f"/v1/runs/{run.id}/output{query}", on=on)).expect(200)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    return answer.body


@asynccontextmanager
async def following(two: Bench, run: Run, on: str = "n2") -> AsyncIterator[aiohttp.StreamReader]:
    async with two.session.get(f"{two.nodes[on].url}/v1/runs/{run.id}/output?follow=1") as answer:
        assert answer.status == 200
        yield answer.content


async def test_any_node_tells_the_whole_output(two: Bench, disks: Path) -> None:
    """Of a run that runs, as far as it is; of one that has ended, all of it, whatever the tail holds."""
    run = await begin(two)
    assert await read(two, run) == b""
    file_of(disks, run).write_bytes(LONG)
    for on in ("n1", "n2"):
        assert await read(two, run, on=on) == LONG
    await two.finish(run.id, output_tail=LONG[-4096:])
    for on in ("n1", "n2"):
        assert await read(two, run, on=on) == LONG
    answer = await two.ask("HEAD", f"/v1/runs/{run.id}/output", on="n2")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("on", ["n1", "n2"])
async def test_it_is_followed_live_to_the_end_of_the_run(two: Bench, disks: Path, on: str) -> None:
    """From before its first byte, until the end is recorded."""
    run = await begin(two)
    async with following(two, run, on) as content:
        write(disks, run, b"one\n")
        assert await content.readline() == b"one\n"
        write(disks, run, b"two\n")
        assert await content.readline() == b"two\n"
        assert not content.at_eof()
        write(disks, run, b"three")
        await two.finish(run.id)
        assert await content.read() == b"three"


def write(disks: Path, run: Run, data: bytes) -> None:
    """As the spawner does, while the run goes on."""
    with file_of(disks, run).open("ab") as file:
        file.write(data)


async def test_what_the_state_holds_whole_needs_no_disk(two: Bench, disks: Path) -> None:
    """A short output is told also when the node where it ran is gone."""
    run = await begin(two)
    await two.finish(run.id, output_tail=b"short")
    await two.nodes["n1"].runner.cleanup()
    assert await read(two, run, "?consistency=stale") == b"short"


async def test_a_node_that_cannot_be_reached_is_named(two: Bench, disks: Path) -> None:
    """503, what to do, and the tail that is left."""
    run = await begin(two)
    file_of(disks, run).write_bytes(LONG)
    await two.finish(run.id, output_tail=LONG[-4096:])
    await two.nodes["n1"].runner.cleanup()
    answer = await two.ask("GET", f"/v1/runs/{run.id}/output?consistency=stale", on="n2")
    problem = answer.problem(503, "unavailable")
    assert problem["detail"].startswith("node n1, where the attempt ran, cannot be reached at 127.0.0.1:")
    assert ": connection refused; the output is on its disk, so repeat this when it is back" in problem["detail"]
    assert problem["output_tail"] == LONG[-4096:].decode()
    assert "Retry-After" in answer.headers


async def test_what_was_deleted_is_gone(two: Bench, disks: Path) -> None:
    """410 through any node, with the tail."""
    run = await begin(two)
    await two.finish(run.id, output_tail=LONG[-4096:])
    for on in ("n1", "n2"):
        problem = (await two.ask("GET", f"/v1/runs/{run.id}/output", on=on)).problem(410, "gone")
        assert "node n1" in problem["detail"]
        assert problem["output_tail"] == LONG[-4096:].decode()


async def test_silence_is_an_output_too(two: Bench, disks: Path) -> None:
    """Empty, not gone."""
    run = await begin(two)
    await two.finish(run.id)
    assert await read(two, run) == b""


async def test_each_attempt_has_its_own(two: Bench, disks: Path) -> None:
    """The newest unless another one is asked for; following goes on to the next attempt."""
    run = await begin(two, **RETRIED)
    file_of(disks, run).write_bytes(b"first\n")
    async with following(two, run) as content:
        assert await content.readline() == b"first\n"
        await two.n1.propose(Lose("n1", 1, [Token(run.id, run.fencing_token)]))
        await restart(two, run)
        file_of(disks, run).write_bytes(b"second\n")
        assert await content.readline() == b"second\n"
        await two.finish(run.id)
        assert await content.read() == b""
    assert await read(two, run) == b"second\n"
    assert await read(two, run, "?attempt=1") == b"first\n"
    assert await read(two, run, "?attempt=1&follow=1") == b"first\n"
    problem = (await two.ask("GET", f"/v1/runs/{run.id}/output?attempt=3", on="n2")).problem(404, "not_found")
    assert "on record: 1, 2" in problem["detail"]


async def test_a_short_output_of_a_later_attempt_is_told_from_the_record(two: Bench, disks: Path) -> None:
    """No disk has a short answer, or a handler's word; what an earlier attempt said is not taken for it."""
    run = await begin(two, retry={"max_attempts": 3, "backoff": "1s"})
    for number, said in ((1, b"first"), (2, b"")):
        await two.finish(run.id, state="failed", output_tail=said)
        assert await read(two, run) == said
        two.clock.wall_offset_ms += 2_000
        await two.n1.propose(Requeue([run.id]))
        await two.n1.propose(Assign([Assignment(run.id, Place("n1", 1), start=True)]))
        assert run.attempt == number + 1
    await two.finish(run.id, output_tail=b"third")
    for on in ("n1", "n2"):
        assert await read(two, run, on=on) == b"third"
    (await two.ask("GET", f"/v1/runs/{run.id}/output?attempt=1")).problem(410, "gone")


async def restart(two: Bench, run: Run) -> None:
    """The run's next attempt begins on n1."""
    await two.n1.propose(Assign([Assignment(run.id, Place("n1", 1), start=True)]))
    assert run.attempt == 2
    assert run.state == "running"


async def test_a_run_that_was_skipped_has_none(two: Bench, disks: Path) -> None:
    """Empty, also when it is followed."""
    run = await begin(two)
    skipped = (await two.ask("POST", "/v1/jobs/a/runs")).json["run"]["id"]
    assert two.n1.machine.state.runs[skipped].state == "skipped"
    assert await read(two, two.n1.machine.state.runs[skipped], "?follow=1") == b""
    assert run.state == "running"


async def test_what_cannot_be_asked(two: Bench, disks: Path) -> None:
    """A run that is not there, parameters that make no sense, and more readers than a node takes."""
    (await two.ask("GET", "/v1/runs/none/output", on="n2")).problem(404, "not_found")
    run = await begin(two)
    for query in ("?attempt=0", "?follow=yes", "?tail=1"):
        (await two.ask("GET", f"/v1/runs/{run.id}/output{query}", on="n2")).problem(422, "invalid")
    two.n2.context.outputs.readers = READERS_MAX
    (await two.ask("GET", f"/v1/runs/{run.id}/output", on="n2")).problem(429, "too_many")
    two.n2.context.outputs.readers = 0


async def test_readers_are_counted_to_their_end(two: Bench, disks: Path) -> None:
    """Also those that go away in the middle."""
    run = await begin(two)
    async with following(two, run):
        assert (two.n1.context.outputs.readers, two.n2.context.outputs.readers) == (1, 1)
    async with asyncio.timeout(60):
        while two.n1.context.outputs.readers or two.n2.context.outputs.readers:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("query", ["", "?follow=1"])
@pytest.mark.parametrize("on", ["n1", "n2"])
async def test_a_reader_that_takes_nothing_gives_its_place_back(
    two: Bench, disks: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, on: str, query: str
) -> None:
    """On the node that was asked and on the one that has the output: its connection is cut, and the log says why."""
    caplog.set_level(logging.INFO, paced.__name__)
    monkeypatch.setattr(paced, "SLOW_SECONDS", 0.3)
    run = await begin(two)
    file_of(disks, run).write_bytes(bytes(16 << 20))  # more than lies between two sockets
    asked, has_it = two.nodes[on].context.outputs, two.n1.context.outputs
    asked.readers += READERS_MAX - 1
    with two.taking_nothing(f"/v1/runs/{run.id}/output{query}", on) as narrow:
        async with asyncio.timeout(60):
            while asked.readers < READERS_MAX:
                await asyncio.sleep(0)
            while asked.readers == READERS_MAX or has_it.readers not in (0, READERS_MAX - 1):
                await asyncio.sleep(0.01)
        await until_cut(narrow)
    told = {record.getMessage() for record in caplog.records if record.name == paced.__name__}
    assert told == {"output_reader_dropped reason=it took nothing for 0.3 s"}
    monkeypatch.setattr(paced, "SLOW_SECONDS", 60.0)
    assert len(await read(two, run, on=on)) == 16 << 20
