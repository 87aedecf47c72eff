"""Mends whose absence costs time, office or readiness, not safety (raft.md, rows 11, 14, 16): each with it and without.

On virtual time, where nothing passes but what the engine waits for and the way of its messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from raftcron.raft import Engine, seam
from raftcron.raft.election import Elections
from tests.raft.virtual import World

Story = Callable[[World], Coroutine[Any, Any, None]]

DELAY_SECONDS = 0.001  # of every message, in the first test
LONGER_THAN_A_TIMEOUT = 200  # steps of 10 ms


async def until_led(world: World) -> Engine:
    """All are connected and stand at one index; who leads."""
    while True:
        leading = [engine for engine in world.engines.values() if engine.status().leading_epoch is not None]
        if leading and world.converged():
            return leading[0]
        await world.step(faulty=False, load=0)


def play(story: Story) -> None:
    World(1).run(story)


# ---- row 11: driven by events ------------------------------------------------------------------------------------


async def commands_take_their_way_and_no_more(world: World) -> None:
    """Each of ten in a row applies as soon as a follower can have answered."""
    world.network.delay = lambda: DELAY_SECONDS
    leader = await until_led(world)
    for value in range(10):
        before = world.loop.now
        await leader.propose(b"%d" % value, leader.leading_epoch or 0)
        took = world.loop.now - before
        assert took == pytest.approx(2 * DELAY_SECONDS, abs=1e-5), f"a command took {took:.3f} s"


def kicked_by_a_poll(engine: Engine) -> None:
    """Engine._kick, but the engine moves each 50 ms, as the stock one does."""
    if not engine._is_kicked:
        engine._is_kicked = True
        engine._loop.call_later(0.05, engine._step)


def kicked_by_a_beat(engine: Engine) -> None:
    """Engine._kick, but the engine moves with the next heartbeat."""
    if not engine._is_kicked:
        engine._is_kicked = True
        assert engine._beating is not None
        engine._loop.call_at(engine._beating.when(), engine._step)


def test_a_command_waits_for_nothing_but_the_network() -> None:
    """No heartbeat and no poll passes between a proposal and its answer: there and back, and it has applied."""
    play(commands_take_their_way_and_no_more)


@pytest.mark.parametrize("kick", [kicked_by_a_poll, kicked_by_a_beat])
def test_an_engine_that_is_not_driven_by_events_is_noticed(
    kick: Callable[[Engine], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 11 switched off: each command waits for the next time that the engine looks."""
    monkeypatch.setattr(Engine, "_kick", kick)
    with pytest.raises(AssertionError, match="a command took"):
        play(commands_take_their_way_and_no_more)


# ---- row 14: pre-votes -------------------------------------------------------------------------------------------


async def a_healed_follower_deposes_nobody(world: World) -> None:
    """It was cut off for longer than any time-out, lacks nothing, and comes back: leader and term are the same."""
    leader = await until_led(world)
    before = leader.status()
    away = next(name for name in world.names if name != before.leader)
    world.network.cuts = {frozenset((away, name)): world.loop.now for name in world.names if name != away}
    for _ in range(LONGER_THAN_A_TIMEOUT):
        world.network.step()
        await asyncio.sleep(0.01)
    for _ in range(LONGER_THAN_A_TIMEOUT):
        await world.step(faulty=False, load=0)
    for engine in world.engines.values():
        status = engine.status()
        assert (status.leader, status.term) == (before.leader, before.term), "the leader was deposed"


def stands_at_once(elections: Elections) -> None:
    """Elections._stand, but nobody is asked for a pre-vote."""
    elections.rest()
    elections._arm(elections._patience)
    if elections._may_stand():
        elections._core.start_election()
        elections._kick()


def test_a_follower_that_comes_back_deposes_nobody() -> None:
    """Cut off, it asked for pre-votes, got none, and so has no term of its own."""
    play(a_healed_follower_deposes_nobody)


def test_an_election_without_pre_votes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 14 switched off: the term that it has raised alone brings the leader down."""
    monkeypatch.setattr(Elections, "_stand", stands_at_once)
    with pytest.raises(AssertionError, match="the leader was deposed"):
        play(a_healed_follower_deposes_nobody)


# ---- row 16: readiness -------------------------------------------------------------------------------------------


async def applied_when_ready(engine: Engine) -> int:
    await engine.wait_ready()
    assert engine.is_ready
    return engine.status().applied_index


async def who_is_ready_has_caught_up(world: World) -> None:
    """A node starts behind the others; at the instant that it calls itself ready it has what was committed before."""
    await until_led(world)
    away = next(name for name in world.names if world.engines[name].status().role == "follower")
    await world.crash(away)
    while len(world.acknowledged) < 200:
        await world.step(faulty=False)
    await world.start(away)
    committed = world.highest
    ready = world.loop.create_task(applied_when_ready(world.engines[away]))
    while not ready.done():
        await world.step(faulty=False, load=0)
    applied = ready.result()
    assert applied >= committed, f"it is ready, and has applied {applied} of {committed}"


async def ready_once_it_knows_the_leader(engine: Engine) -> None:
    """Engine._get_ready, but, as with the stock engine, to know who leads is enough."""
    while engine.status().leader is None:
        await asyncio.sleep(0.001)
    engine._is_ready = True


def test_a_node_that_is_ready_has_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness is a barrier behind all that was committed when the node began."""
    monkeypatch.setattr(seam, "BATCH_BYTES", 200)
    play(who_is_ready_has_caught_up)


def test_readiness_without_a_barrier_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 16 switched off: the node calls itself ready while it lacks what was acknowledged long ago."""
    monkeypatch.setattr(seam, "BATCH_BYTES", 200)
    monkeypatch.setattr(Engine, "_get_ready", ready_once_it_knows_the_leader)
    with pytest.raises(AssertionError, match="it is ready, and has applied"):
        play(who_is_ready_has_caught_up)
