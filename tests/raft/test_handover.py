"""The lead given away, on virtual time: how long proposals wait for it, and what becomes of a successor that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from raftcron.errors import UnavailableError
from raftcron.raft import Engine, handover
from raftcron.raft.election import RANK_SECONDS
from tests.raft.virtual import World

MAX_HOLD_SECONDS = 0.050
DELAY_SECONDS = 0.001  # of every message
PROPOSE_SECONDS = 0.002  # between two proposals
LOOK_SECONDS = 0.005  # a poll of the hand-over, and the way of a proposal that is let go

Story = Callable[[World, Engine, list[str]], Coroutine[Any, Any, None]]


def play(story: Story) -> None:
    """With a leader, and its followers in the order of their names, on a quick network."""

    async def led(world: World) -> None:
        world.network.delay = lambda: DELAY_SECONDS
        while not (leading := [one for one in world.engines.values() if one.leading_epoch]) or not world.converged():
            await world.step(faulty=False, load=0)
        await story(world, leading[0], [name for name in world.names if world.engines[name] is not leading[0]])
        assert not world.failures, world.failures

    World(1).run(led)


class Load:
    """One command after the other, proposed where the lead is: how long each waited, and what was answered."""

    def __init__(self, world: World, engine: Engine) -> None:
        self.waits: list[float] = []
        self.refused: list[str] = []
        self.written = 0
        self._world = world
        self._engine = engine
        self._tasks: list[asyncio.Task[None]] = []

    async def during(self, work: Coroutine[Any, Any, None]) -> None:
        """Propose for as long as this takes, and wait for every answer.  Raises what the work raises."""
        task = self._world.loop.create_task(work)
        while not task.done():
            self._tasks.append(self._world.loop.create_task(self._propose()))
            await asyncio.sleep(PROPOSE_SECONDS)
        await asyncio.gather(*self._tasks)
        task.result()

    async def _propose(self) -> None:
        began = self._world.loop.now
        try:
            await self._engine.propose(b"%d" % next(self._world.values), self._engine.leading_epoch or 0)
            self.written += 1
        except UnavailableError as error:
            self.refused.append(error.detail)
        self.waits.append(self._world.loop.now - began)


def test_the_lead_is_with_the_successor_when_the_hand_over_is_over() -> None:
    """Its leadership entry has applied here; what was proposed meanwhile waited a moment and is told who leads."""

    async def story(world: World, leader: Engine, followers: list[str]) -> None:
        before = leader._leadership.applied_epoch
        load = Load(world, leader)
        began = world.loop.now
        await load.during(leader.transfer(followers[1]))
        assert world.loop.now - began < MAX_HOLD_SECONDS
        assert leader._leadership.applied_epoch == before + 1
        assert world.engines[followers[1]].leading_epoch == before + 1
        assert 10 * DELAY_SECONDS > max(load.waits) > DELAY_SECONDS
        assert not load.written
        assert set(load.refused) <= {f"node {leader._name} does not lead; the leader is {followers[1]}"}

    play(story)


def test_a_successor_that_does_not_stand_holds_proposals_for_no_longer() -> None:
    """It never hears the request: after 50 ms all that waited is written, and this node leads on."""

    async def story(world: World, leader: Engine, followers: list[str]) -> None:
        world.network.cuts = {frozenset((leader._name, followers[0])): world.loop.now}
        load = Load(world, leader)
        with pytest.raises(UnavailableError, match=f"{followers[0]} did not take over; this node leads on"):
            await load.during(leader.transfer(followers[0]))
        assert MAX_HOLD_SECONDS - PROPOSE_SECONDS <= max(load.waits) < MAX_HOLD_SECONDS + LOOK_SECONDS
        assert not load.refused
        assert load.written == len(load.waits) > 100
        assert leader.leading_epoch == 1

    play(story)


def test_without_a_follower_that_has_all_entries_nothing_is_asked() -> None:
    """It lacks one: whoever tries the other follower at once finds that what waited has gone on in between."""

    async def story(world: World, leader: Engine, followers: list[str]) -> None:
        world.network.cuts = {frozenset((leader._name, name)): world.loop.now for name in followers}
        lacking = asyncio.ensure_future(leader.propose(b"lacking", 1))

        async def try_both() -> None:
            for name in followers:
                with pytest.raises(UnavailableError, match="no follower has all entries now; this node leads on"):
                    await leader.transfer(name)

        appended = world.engines[leader._name]._core.last_index
        task = world.loop.create_task(try_both())
        waits = []
        for _ in range(20):
            waiting = asyncio.ensure_future(leader.propose(b"waits", 1))
            began, last = world.loop.now, leader._core.last_index
            while leader._core.last_index == last:
                await asyncio.sleep(0.001)
            waits.append(world.loop.now - began)
            world.tasks.add(waiting)  # type: ignore[arg-type]
        await task
        assert leader._core.last_index == appended + 21
        assert 10 * DELAY_SECONDS < max(waits) < MAX_HOLD_SECONDS
        world.network.heal()
        await lacking

    play(story)


def test_a_successor_that_stands_too_late_leaves_nobody_without_a_leader() -> None:
    """It lacks what was proposed after the hold, so nobody elects it; who gave the lead away stands once more."""

    async def story(world: World, leader: Engine, followers: list[str]) -> None:
        late = world.engines[followers[0]]
        link = frozenset((leader._name, followers[0]))
        world.network.cuts = {link: world.loop.now}
        load = Load(world, leader)
        transferring = world.loop.create_task(load.during(leader.transfer(followers[0])))
        await asyncio.sleep(handover.HOLD_SECONDS + 0.020)
        assert leader.leading_epoch == 1
        late._core.start_election()
        late._core.step()
        world.network.heal()
        while leader.leading_epoch is not None:
            await asyncio.sleep(0.001)
        began = world.loop.now
        while not any(one.leading_epoch for one in world.engines.values()):
            await asyncio.sleep(0.001)
        assert world.loop.now - began < handover.LEADERLESS_SECONDS + 2 * RANK_SECONDS + 20 * DELAY_SECONDS
        await asyncio.gather(transferring, return_exceptions=True)

    play(story)
