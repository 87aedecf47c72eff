"""Pauses that are over before the leader comes to ending them: a write ends them first, a new lead finds them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from raftcron.core.instant import rfc3339
from raftcron.runtime import scheduler
from raftcron.runtime.backup import Backups
from raftcron.runtime.bulk import Bulk, Sent
from raftcron.runtime.calendars import Calendars
from raftcron.runtime.vault import Vault
from raftcron.runtime.writes import Precondition
from tests.scenarios.scene import START_MS, Actor, Scene, play

ANY = Precondition()
FIELDS = {
    "schedule": "*/5 * * * * *",
    "misfire": {"policy": "all"},
    "overlap": {"policy": "allow"},
    "exclude": ["x"],
    "executor": {"type": "noop"},
}
OTHER = {**FIELDS, "timeout": "17s"}

Write = Callable[[Actor, bytes], Awaitable[Any]]


async def pieces_of(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        yield piece


def calendars_of(leader: Actor) -> Calendars:
    return Calendars(machine=leader.machine, time=leader.time, writes=leader.service)


def backups_of(leader: Actor) -> Backups:
    machine, proposer = leader.machine, leader.proposer
    return Backups(
        machine=machine,
        proposer=proposer,
        service=leader.service,
        time=leader.time,
        clock=leader.clock,
        vault=Vault(machine=machine, proposer=proposer, secret=b"of this scene", entropy=bytes),
        entropy=bytes,
    )


def bulk_of(leader: Actor) -> Bulk:
    return Bulk(
        machine=leader.machine, proposer=leader.proposer, service=leader.service, time=leader.time, clock=leader.clock
    )


async def put(leader: Actor, _archive: bytes) -> None:
    await leader.service.put_job("job", OTHER, ANY, None)


async def patch(leader: Actor, _archive: bytes) -> None:
    await leader.service.patch_job("job", {"timeout": "17s"}, ANY, None)


async def own(leader: Actor, _archive: bytes) -> None:
    await leader.service.patch_job("job", {"owner": "them"}, ANY, None)


async def unpause(leader: Actor, _archive: bytes) -> None:
    await leader.service.patch_job("job", {"paused": False}, ANY, None)


async def pause(leader: Actor, _archive: bytes) -> None:
    await leader.service.pause_job("job", {"until": rfc3339(leader.now_ms() + 60_000)}, ANY, None)


async def resume(leader: Actor, _archive: bytes) -> None:
    await leader.service.resume_job("job", None, ANY, None)


async def apply_many(leader: Actor, _archive: bytes) -> None:
    sent = Sent({**OTHER, "name": "job"}, None, b"{}")
    await bulk_of(leader).apply(pieces_of(sent), None, prune=False, dry_run=False, key=None)


async def exclude_all(leader: Actor, _archive: bytes) -> None:
    await calendars_of(leader).put("x", {"schedules": ["* * * * * *"]}, ANY, None)


async def restore(leader: Actor, archive: bytes) -> None:
    await backups_of(leader).restore(pieces_of(archive), dry_run=False, key=None)


def ended_late(self: Any, now: int) -> Iterator[Any]:
    """Scheduler._end_pauses, which waits for room all the time; the timeline has let go of the jobs."""
    self._machine.timeline.pauses_over(now, scheduler.PAUSES_PER_SWEEP)
    return iter(())


@pytest.mark.parametrize("write", [put, patch, own, unpause, pause, resume, apply_many, exclude_all, restore])
def test_a_write_ends_a_pause_that_is_over_first(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    """One row for the pause itself, and each time after its end has a run, as if the leader had been in time."""
    monkeypatch.setattr(scheduler.Scheduler, "_end_pauses", ended_late)

    async def act(scene: Scene) -> None:
        leader = scene.leader
        await calendars_of(leader).put("x", {}, ANY, None)
        await leader.service.put_job("job", OTHER if write is restore else FIELDS, ANY, None)
        _, pieces = await backups_of(leader).take("of this test")
        archive = b"".join(pieces)
        if write is restore:
            await leader.service.put_job("job", FIELDS, ANY, None)
        await scene.seconds(6)
        await leader.service.pause_job("job", {"until": rfc3339(leader.now_ms() + 16_000)}, ANY, None)
        await scene.seconds(30)
        job = leader.machine.state.jobs["job"]
        assert job.paused, "the leader has not come to it"
        await write(leader, archive)
        rows = [((row.scheduled_time - START_MS) // 1000, row.reason, row.count) for row in scene.rows()]
        assert rows[:5] == [(5, None, None), (20, "paused", 3), (25, None, None), (30, None, None), (35, None, None)]

    play(act)


def test_a_lead_that_ends_in_between_forgets_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pauses are over at once, one entry at a time goes out, and the same node leads again after another."""
    monkeypatch.setattr(scheduler, "ENTRIES_IN_FLIGHT", 1)

    async def act(scene: Scene) -> None:
        leader = scene.leader
        for name in ("a", "b", "c", "d"):
            await leader.service.put_job(name, {"schedule": "@hourly", "executor": {"type": "noop"}}, ANY, None)
            await leader.service.pause_job(name, {"until": rfc3339(START_MS + 10_000)}, ANY, None)
        held = leader.log.stall = asyncio.Event()
        await scene.seconds(12)  # the end of the first is on its way, the others wait for room
        scene.elect("n2")
        scene.elect("n1")
        leader.log.stall = None
        held.set()
        await scene.seconds(2)
        assert [job.paused for job in leader.machine.state.jobs.values()] == [False] * 4

    play(act)
