"""The receiver tells the truth about what arrived, and when it was answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from tests.chaos.campaign import arrival_from_answer
from tests.chaos.receiver import Receiver
from tests.cluster.harness import eventually

HEADERS = {
    "Raftcron-Job": "j",
    "Raftcron-Run-Id": "r",
    "Idempotency-Key": "r",
    "Raftcron-Scheduled-Time": "2030-01-01T00:00:00.250Z",
    "Raftcron-Attempt": "2",
    "Raftcron-Fencing-Token": "18446744073709551615",
    "Raftcron-Node": "n1",
}


async def test_an_arrival_is_recorded_in_memory_and_in_the_file(tmp_path: Path) -> None:
    """All that identifies it, with the receiver's clock, and that it was answered."""
    async with Receiver(tmp_path) as receiver, aiohttp.ClientSession() as session:
        before, _ = await receiver.open()
        async with session.post(receiver.hook(), headers=HEADERS, data=b"x") as response:
            assert response.status == 200
        (row,) = await receiver.arrivals()
        arrival = arrival_from_answer(row)
        after, waiting = await receiver.open()
        assert waiting == []
        assert (arrival.job, arrival.run_id, arrival.attempt, arrival.node) == ("j", "r", 2, "n1")
        assert arrival.token == 2**64 - 1
        assert arrival.scheduled_time == 1_893_456_000_250
        assert arrival.answered
        assert arrival.ended_at is not None
        assert before <= arrival.arrived_at <= arrival.ended_at <= after
        assert await receiver.arrivals("other") == []
        assert await receiver.arrivals(start=1) == []
    first, second = (json.loads(line) for line in receiver.path.read_text().splitlines())
    assert first["arrival"]["run_id"] == "r"
    assert second == {"end": 0, "at": arrival.ended_at, "answered": True}


async def test_a_late_answer_is_in_flight_meanwhile(tmp_path: Path) -> None:
    """Who waits is told by node; a caller that hangs up got no answer."""
    async with Receiver(tmp_path) as receiver, aiohttp.ClientSession() as session:

        async def call() -> None:
            async with session.post(receiver.hook(30), headers=HEADERS):
                pytest.fail("answered before its time")

        caller = asyncio.create_task(call())

        async def waits() -> bool:
            return (await receiver.open())[1] == ["n1"]

        await eventually(waits, within=60, what="the call waits")
        caller.cancel()

        async def hung_up() -> bool:
            return (await receiver.open())[1] == []

        await eventually(hung_up, within=60, what="the receiver notices that the caller is gone")
        (row,) = await receiver.arrivals()
        assert not row["answered"]


def test_what_cannot_be_identified_counts_as_missing() -> None:
    """No header, or a key that is not the run id: the checker will name it."""
    row = {"job": None, "run_id": "r", "key": "other", "scheduled_time": None, "attempt": None, "token": None}
    arrival = arrival_from_answer({**row, "node": None, "arrived_at": 1, "ended_at": None, "answered": False})
    assert arrival.run_id is None
    assert arrival.scheduled_time is None
