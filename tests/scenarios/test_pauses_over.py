"""Pauses that are over before the leader comes to ending them: a write ends them first, a new lead finds them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from raftcron.core.instant import rfc3339
from raftcron.runtime import scheduler, writes
from raftcron.runtime.backup import Backups
from raftcron.runtime.bulk import Bulk, Sent
from raftcron.runtime.calendars import Calendars
from raftcron.runtime.requests import Requests
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


async def skip(leader: Actor, _archive: bytes) -> None:
    await leader.service.skip_next("job", None, ANY, None)


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


@pytest.mark.parametrize("write", [put, patch, own, unpause, pause, resume, skip, apply_many, exclude_all, restore])
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


async def a_pause_that_is_over(scene: Scene, **fields: Any) -> Actor:
    """`job`, paused from 6 s to 22 s, is paused still at 36 s."""
    leader = scene.leader
    await calendars_of(leader).put("x", {}, ANY, None)
    await leader.service.put_job("job", {**FIELDS, **fields}, ANY, None)
    await scene.seconds(6)
    await leader.service.pause_job("job", {"until": rfc3339(leader.now_ms() + 16_000)}, ANY, None)
    await scene.seconds(30)
    assert leader.machine.state.jobs["job"].paused
    return leader


async def delete(leader: Actor) -> None:
    await leader.service.delete_job("job", cancel_running=False, precondition=ANY, key=None)


async def prune(leader: Actor) -> None:
    sent = Sent({"name": "other", "schedule": "@hourly", "executor": {"type": "noop"}}, None, b"{}")
    await bulk_of(leader).apply(pieces_of(sent), "us", prune=True, dry_run=False, key=None)


@pytest.mark.parametrize("write", [delete, prune])
def test_what_is_owed_since_is_decided_before_the_job_goes(
    monkeypatch: pytest.MonkeyPatch, write: Callable[[Actor], Awaitable[None]]
) -> None:
    """What has not started ends as `deleted`, and is told of."""
    monkeypatch.setattr(scheduler.Scheduler, "_end_pauses", ended_late)

    async def act(scene: Scene) -> None:
        leader = await a_pause_that_is_over(scene, owner="us")
        state = leader.machine.state
        await write(leader)
        assert "job" not in state.jobs
        rows = [((row.scheduled_time - START_MS) // 1000, row.count) for row in state.runs.values()]
        assert rows[:5] == [(5, None), (20, 3), (25, None), (30, None), (35, None)]

    play(act)


def test_a_dry_run_ends_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes nothing at all."""
    monkeypatch.setattr(scheduler.Scheduler, "_end_pauses", ended_late)

    async def act(scene: Scene) -> None:
        leader = await a_pause_that_is_over(scene)
        index, sent = leader.machine.state.index, Sent({**OTHER, "name": "job"}, None, b"{}")
        done = await bulk_of(leader).apply(pieces_of(sent), None, prune=False, dry_run=True, key=None)
        assert [result.result for result in done.results] == ["replaced"]
        assert leader.machine.state.index == index
        assert leader.machine.state.jobs["job"].paused

    play(act)


def test_what_ends_after_the_end_of_a_pause_starts_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the end is not written yet: the run is held until it is; of `join: all` the ends count from then on."""
    monkeypatch.setattr(scheduler.Scheduler, "_end_pauses", ended_late)

    async def act(scene: Scene) -> None:
        leader = scene.leader
        service, requests = leader.service, Requests(machine=leader.machine, time=leader.time, service=leader.service)
        plain = {"schedule": "@manual", "executor": {"type": "noop"}}
        for name in ("p", "q"):
            await service.put_job(name, plain, ANY, None)
        await service.put_job("one", {**plain, "after": [{"job": "p"}]}, ANY, None)
        await service.put_job("both", {**plain, "after": [{"job": "p"}, {"job": "q"}], "join": "all"}, ANY, None)
        for name in ("one", "both"):
            await service.pause_job(name, {"until": rfc3339(START_MS + 10_000)}, ANY, None)
        await requests.run("p", None, None)
        await scene.seconds(1)
        assert scene.rows("one") == []
        await scene.seconds(10)
        await requests.run("p", None, None)
        await scene.seconds(1)
        assert [row.state for row in scene.rows("one")] == ["queued"]
        for name in ("one", "both"):
            await service.resume_job(name, None, ANY, None)
        await requests.run("q", None, None)
        await scene.seconds(1)
        assert [row.state for name in ("one", "both") for row in scene.rows(name)] == ["succeeded", "succeeded"]

    play(act)


def test_what_changes_before_its_turn_to_be_ended_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A calendar ends the pauses of its jobs one by one: the second is paused anew meanwhile, and the third deleted."""
    monkeypatch.setattr(scheduler.Scheduler, "_end_pauses", ended_late)
    monkeypatch.setattr(writes, "PAUSES_AT_ONCE", 1)

    async def act(scene: Scene) -> None:
        leader = scene.leader
        await calendars_of(leader).put("x", {}, ANY, None)
        for name in ("a", "b", "c"):
            await leader.service.put_job(name, FIELDS, ANY, None)
            await leader.service.pause_job(name, {"until": rfc3339(START_MS + 10_000)}, ANY, None)
        await scene.seconds(20)
        propose = leader.proposer.propose

        async def changed(command: Any, *rest: Any) -> Any:
            monkeypatch.setattr(leader.proposer, "propose", propose)
            done = await propose(command, *rest)
            await leader.service.pause_job("b", {"until": rfc3339(START_MS + 60_000)}, ANY, None)
            await leader.service.delete_job("c", cancel_running=False, precondition=ANY, key=None)
            return done

        monkeypatch.setattr(leader.proposer, "propose", changed)
        await calendars_of(leader).put("x", {"schedules": ["* * * * * *"]}, ANY, None)
        assert [(job.name, job.paused) for job in leader.machine.state.jobs.values()] == [("a", False), ("b", True)]

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
