"""Members that come and go under faults, on virtual time: dice, and a script for each rule that dice hardly meet."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from raftcron.errors import UnavailableError, UnsafeChangeError
from raftcron.raft import Engine, membership, seam
from raftcron.raft.configuration import encode
from tests.raft.churn import ADDRESSES, Churn
from tests.raft.virtual import Disk, World

SEEDS = range(10)
STEPS = 1_200  # of 10 ms, each seed


def sweep(seeds: range, steps: int) -> tuple[Counter[str], float]:
    seen: Counter[str] = Counter()
    slowest = 0.0
    for seed in seeds:

        async def story(world: World) -> None:
            nonlocal slowest
            for _ in range(steps):
                await world.step(faulty=True, load=1)
            slowest = max(slowest, await world.settle())

        world = Churn(seed)
        try:
            world.run(story)
        except AssertionError as error:
            raise AssertionError(f"seed {seed} at {world.loop.now - 1000:.2f} s: {error}") from error
        seen += world.counts
        seen["elections"] += len(world.leaders)
        seen["acknowledged"] += len(world.acknowledged)
        seen["lingered"] += len(world.lingering)
    return seen, slowest


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small batches, learners that have caught up only when they have, and no log lines."""
    monkeypatch.setattr(seam, "BATCH_BYTES", 200)
    monkeypatch.setattr(membership, "CAUGHT_UP_ENTRIES", 5)
    logger = logging.getLogger("raftcron.raft")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def test_members_change_under_faults() -> None:
    """One history, one leader a term, nothing acknowledged is lost though disks are; soon after the faults the members
    stand at one index, whoever was given up has ended, and a sweep that missed something proves nothing."""
    seen, slowest = sweep(SEEDS, STEPS)
    assert slowest < 10.0
    for what in (
        "added",
        "removed",
        "replaced",
        "lingered",
        "disks lost",
        "ends",
        "refused unsafe_change",
        "refused unavailable",
        "changes unknown",
        "crashes",
        "power cuts",
        "isolations",
        "conflict cut",
    ):
        assert seen[what] > 0, f"inconclusive, {what!r} never happened: {dict(seen)}"
    assert seen["acknowledged"] > 200 * len(SEEDS)


# ---- scripts ---------------------------------------------------------------------------------------------------------


def play(story: Callable[[Churn], Coroutine[Any, Any, None]], founders: int = 3) -> Churn:
    """A story without chance, but for delays."""
    world = Churn(1, founders)
    world.run(story)  # type: ignore[arg-type]
    return world


async def until(world: Churn, condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Let time pass until the condition gives something true."""
    begin = world.loop.now
    while not (found := condition()):
        assert world.loop.now - begin < seconds, f"{world.where()}; {world.members}"
        await world.step(faulty=False, load=0)
    return found


async def led(world: Churn, by: str | None = None) -> Engine:
    """Until somebody leads; who, or the one that is named, to whom the lead goes then."""
    leader: Engine = await until(world, world.leader)
    if by is not None and leader._name != by:
        await world.during(leader.transfer(by))
        await until(world, lambda: (leader := world.leader()) is not None and leader._name == by)
        leader = world.engines[by]
    return leader


def voters(world: Churn) -> list[str]:
    return [] if world.members is None else world.members.voters


@pytest.fixture
def nobody_is_let_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learners never have caught up."""
    monkeypatch.setattr(membership, "CAUGHT_UP_ENTRIES", -(10**9))


def test_a_lost_disk_has_lost_its_vote() -> None:
    """n1 and n2 hold writes that n3 lacks; n2 loses its disk while n1 is down: the other two elect nobody."""

    async def story(world: Churn) -> None:
        leader = await led(world, "n1")
        await until(world, lambda: voters(world))
        await world.rest("n3")
        for number in range(20):
            await world.during(leader.propose(b"kept %d" % number, leader.leading_epoch or 0))
        await world.rest("n1")
        await world.rest("n2")
        world.disks["n2"] = Disk()
        await world.start("n2")
        await world.start("n3")
        for _ in range(1_000):
            await world.step(faulty=False, load=0)
            assert world.leader() is None
        await world.start("n1")
        await until(world, lambda: b"kept 19" in world.machines["n3"].commands)

    play(story)


def test_a_learner_that_is_a_voter_without_knowing_it_grants_its_vote(nobody_is_let_vote: None) -> None:
    """n1 and n2 alone hold the entry that lets n4 vote; n1 dies, and three of four are needed."""

    async def story(world: Churn) -> None:
        leader = await led(world, "n1")
        await world.during(leader.add("n4", ADDRESSES["n4"], "", 0))
        await until(world, lambda: leader._membership.learners == ["n4"])
        members = leader._membership.newest
        assert members is not None
        await until(world, lambda: world.engines["n4"]._membership.newest == members)
        for name in ("n3", "n4"):
            for peer in ("n1", "n2"):
                world.network.cuts[frozenset((name, peer))] = world.loop.now
        leader._roster._append(leader._core, encode(members.promoted("n4")))
        while "n4" not in world.engines["n2"]._membership.voters:
            await world.step(faulty=False, heals=False)
        await world.rest("n1")
        world.network.heal()
        assert (await led(world))._name == "n2"
        await until(world, lambda: voters(world) == ["n1", "n2", "n3", "n4"])

    play(story)


def test_a_learner_that_is_down_holds_nobody_up(nobody_is_let_vote: None) -> None:
    """Neither the election of a lone node nor its commits."""

    async def story(world: Churn) -> None:
        leader = await led(world)
        await world.during(leader.add("n2", ADDRESSES["n2"], "", 0))
        await until(world, lambda: leader._membership.learners == ["n2"])
        await world.rest("n2")
        await world.crash("n1")
        await world.start("n1")
        leader = await led(world)
        await world.during(leader.propose(b"alone", leader.leading_epoch or 0))

    play(story, founders=1)


def test_a_new_leader_does_not_count_on_whom_it_has_not_heard() -> None:
    """n3 is down; n2 has just taken over from n1: to remove n1 would stop the cluster."""

    async def story(world: Churn) -> None:
        await led(world, "n1")
        await until(world, lambda: voters(world))
        await world.rest("n3")
        for _ in range(150):
            await world.step(faulty=False, load=0)
        leader = await led(world, "n2")
        while True:
            try:
                with pytest.raises(UnsafeChangeError, match="n3 does not"):
                    await world.during(leader.remove("n1"))
                return
            except UnavailableError:  # it has not heard n1 yet
                await world.step(faulty=False, load=0)

    play(story)


def test_a_node_that_was_down_finds_a_leader_that_came_meanwhile() -> None:
    """Its settings and its log know nothing of n4, nor that n1 and n2 have other disks now; n2 tells of n4."""

    async def story(world: Churn) -> None:
        leader = await led(world, "n1")
        await until(world, lambda: voters(world))
        await world.rest("n3")
        await world.during(leader.add("n4", ADDRESSES["n4"], "", 0))
        await until(world, lambda: "n4" in voters(world))
        for name in ("n2", "n1"):
            leader = await led(world, "n4")
            await world.rest(name)
            await world.during(replaced(leader, name))
            world.disks[name] = Disk()
            await world.start(name)
            await until(world, lambda: voters(world) == ["n1", "n2", "n3", "n4"])
        await led(world, "n4")
        await world.start("n3")
        await until(world, world.converged, seconds=5.0)
        leader = await led(world)
        assert leader._name == "n4"

    play(story)


def test_a_newcomer_that_is_told_of_one_member_finds_the_others() -> None:
    """Of n2, which does not lead and tells it who does."""

    async def story(world: Churn) -> None:
        leader = await led(world, "n1")
        await until(world, lambda: voters(world))
        world.told["n4"] = ["n2", "n4"]
        await world.during(leader.add("n4", ADDRESSES["n4"], "", 0))
        await until(world, lambda: "n4" in voters(world) and world.converged(), seconds=5.0)

    play(story)


async def replaced(leader: Engine, name: str) -> None:
    """As soon as the leader knows who of the others lives."""
    while True:
        try:
            await leader.replace(name, None, None, 0)
            return
        except (UnavailableError, UnsafeChangeError):
            await asyncio.sleep(0.05)
