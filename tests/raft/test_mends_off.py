"""Mends whose absence costs time, office or readiness, not safety: each with it and without.

On virtual time, where nothing passes but what the engine waits for and the way of its messages.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from raftcron.raft import Engine, election, seam
from raftcron.raft.election import Elections, PreVote
from tests.raft.virtual import World

Story = Callable[[World], Coroutine[Any, Any, None]]

DELAY_SECONDS = 0.001  # of every message, where nothing else is said
LONGER_THAN_A_TIMEOUT = 200  # steps of 10 ms
LONGER_THAN_A_ROUND = 50  # likewise


async def until_led(world: World) -> Engine:
    """All are connected and stand at one index; who leads."""
    while True:
        leading = [engine for engine in world.engines.values() if engine.status().leading_epoch is not None]
        if leading and world.converged():
            return leading[0]
        await world.step(faulty=False, load=0)


def play(story: Story, seed: int = 1, count: int = 3) -> None:
    World(seed, count).run(story)


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


# ---- elections: the order of rank, and who holds back --------------------------------------------------------------

SEEDS = range(5)  # they draw the time-outs; what is told below happens with each of them
AT_ONCE_SECONDS = 0.150  # far below the shortest time-out
SPLIT = r"[2-9] elections, no leader for (0\.[6-9]|[1-9])"  # the first election came to nothing, the next to a time-out

Ways = Mapping[tuple[int, int], float]  # milliseconds between the survivors of these ranks

# The first two survivors are far from each other, and near to the others, each to another one.
FAR_APART: Ways = {(0, 1): 12, (0, 2): 1, (0, 3): 2, (1, 2): 2, (1, 3): 1, (2, 3): 1}
# The first one's round and votes take longer than the 30 ms that the second one leaves it.
SLOW_TO_WIN: Ways = {(0, 1): 25, (0, 2): 10, (0, 3): 16, (1, 2): 8, (1, 3): 1, (2, 3): 1}


async def until_calm(world: World) -> Engine:
    """Who leads, once each pair is connected and nobody holds back for the first election any more."""
    lines, pairs = world.network.lines, list(itertools.combinations(world.names, 2))
    while not all(lines[a].connected(b) for a, b in pairs):
        await world.step(faulty=False, load=0)
    leader = await until_led(world)
    for _ in range(LONGER_THAN_A_ROUND):
        await world.step(faulty=False, load=0)
    return leader


async def until_succeeded(world: World) -> tuple[float, int]:
    """The leader has just died: virtual seconds until another one leads, and the terms that it took."""
    began, terms = world.loop.now, max(engine.status().term for engine in world.engines.values())
    while not (leading := [engine for engine in world.engines.values() if engine.leading_epoch is not None]):
        await asyncio.sleep(0.001)
    return world.loop.now - began, leading[0].status().term - terms


def fail_over(ways: Ways, seed: int) -> None:
    """Four of five survive, with these ways between them: the first election gives a leader, before any time-out."""

    async def story(world: World) -> None:
        world.network.delay = lambda: DELAY_SECONDS
        leader = (await until_calm(world))._name
        survivors = [name for name in world.names if name != leader]
        world.network.ways = {frozenset((survivors[a], survivors[b])): ms / 1000 for (a, b), ms in ways.items()}
        await world.crash(leader)
        seconds, terms = await until_succeeded(world)
        assert (terms, seconds < AT_ONCE_SECONDS) == (1, True), f"{terms} elections, no leader for {seconds:.3f} s"

    play(story, seed, count=5)


def test_the_second_in_rank_leaves_the_first_one_its_head_start() -> None:
    """The first survivor leads before the second one stands, however far apart the two are."""
    for seed in SEEDS:
        fail_over(FAR_APART, seed)


def test_an_election_without_ranks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All stand at once: the first two get their pre-votes before they hear of each other, then half of the votes."""
    monkeypatch.setattr(election, "RANK_SECONDS", 0.0)
    for seed in SEEDS:
        with pytest.raises(AssertionError, match=SPLIT):
            fail_over(FAR_APART, seed)


def test_who_has_granted_a_pre_vote_lets_it_be_used() -> None:
    """The second survivor's 30 ms are over before the first one has won; it has granted, and holds back."""
    for seed in SEEDS:
        fail_over(SLOW_TO_WIN, seed)


def asked_and_holds_nothing_back(asked: Callable[[Elections, str, PreVote], None]) -> Callable[..., None]:
    """Elections.asked, but whoever grants may stand a moment later."""

    def instead(elections: Elections, peer: str, what: PreVote) -> None:
        held_until = elections._held_until
        asked(elections, peer, what)
        elections._held_until = held_until

    return instead


def test_a_grant_that_holds_nothing_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second survivor stands against the one it has just granted, and takes half of the votes from it."""
    monkeypatch.setattr(Elections, "asked", asked_and_holds_nothing_back(Elections.asked))
    for seed in SEEDS:
        with pytest.raises(AssertionError, match=SPLIT):
            fail_over(SLOW_TO_WIN, seed)


# ---- elections: what the end of a connection means -----------------------------------------------------------------


async def a_dead_leader_is_followed_at_once(world: World) -> None:
    """Its connections have ended and nobody listens any more: no time-out passes."""
    world.network.delay = lambda: DELAY_SECONDS
    await world.crash((await until_calm(world))._name)
    seconds, _ = await until_succeeded(world)
    assert seconds < AT_ONCE_SECONDS, f"no leader for {seconds:.3f} s"


def notices_nothing(_elections: Elections, _peer: str) -> None:
    """Elections.lost, refused: it may mean anything."""


def test_a_dead_leader_is_no_silent_one() -> None:
    """The end and a refused reconnect are a death, by which the survivors need not wait."""
    for seed in SEEDS:
        play(a_dead_leader_is_followed_at_once, seed)


@pytest.mark.parametrize("what", ["lost", "refused"])
def test_an_end_that_is_no_death_is_noticed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without either of the two signs only silence tells: the shortest time-out passes with each seed."""
    monkeypatch.setattr(Elections, what, notices_nothing)
    for seed in SEEDS:
        with pytest.raises(AssertionError, match=r"no leader for (0\.[6-9]|1\.)"):
            play(a_dead_leader_is_followed_at_once, seed)


async def a_refused_follower_deposes_nobody(world: World) -> None:
    """Its connection to the leader ends and it gets no other, while the leader lives and the third one hears it."""
    world.network.delay = lambda: DELAY_SECONDS
    leader = await until_calm(world)
    before = leader.status()
    away = next(name for name in world.names if name != before.leader)
    world.network.disconnect(leader._name, away)
    for _ in range(LONGER_THAN_A_TIMEOUT):
        world.network.cuts = {frozenset((leader._name, away)): world.loop.now}
        world.network.step()
        world.network.lines[away].handler.on_refused(leader._name)
        await asyncio.sleep(0.01)
    for engine in (leader, *(engine for engine in world.engines.values() if engine._name != away)):
        status = engine.status()
        assert (status.leader, status.term) == (before.leader, before.term), "the leader was deposed"


def test_one_cut_connection_deposes_nobody() -> None:
    """Who is sure that the leader is dead asks one that hears it, and is refused for as long as it asks."""
    for seed in SEEDS:
        play(a_refused_follower_deposes_nobody, seed)


def test_a_pre_vote_of_who_hears_the_leader_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever grants although it hears the leader helps to depose it."""
    monkeypatch.setattr(Elections, "_hears_leader", lambda _elections: False)
    for seed in SEEDS:
        with pytest.raises(AssertionError, match="the leader was deposed"):
            play(a_refused_follower_deposes_nobody, seed)
