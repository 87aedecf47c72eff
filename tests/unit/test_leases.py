"""Whom a leader believes to be alive, and from when on it counts (semantics 5.6)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from raftcron.errors import UnavailableError
from raftcron.runtime.leases import FRESH_SECONDS, LeaseKeeper, LeaseTimes

TIMES = LeaseTimes(10.0, 2.0)


@dataclass
class Stage:
    """A leader's keeper, whose clock is set by hand and whose rounds end when the test says so."""

    now: float = 100.0
    rounds: list[asyncio.Future[int]] = field(default_factory=list)

    def boot(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def keeper(self) -> LeaseKeeper:
        keeper = LeaseKeeper(self, TIMES, self._round)
        keeper.begin()
        return keeper

    async def _round(self) -> int:
        self.rounds.append(asyncio.get_running_loop().create_future())
        return await self.rounds[-1]


async def test_a_lease_counts_from_the_arrival_of_the_heartbeat_and_not_from_its_answer() -> None:
    """The round that the answer needs may take long: the node's own lease began when it sent."""
    stage = Stage()
    keeper = stage.keeper()
    stage.now = 103.0
    answer = asyncio.create_task(keeper.answer("n2"))
    await asyncio.sleep(0)
    stage.now = 107.0
    stage.rounds[0].set_result(5)
    assert await answer == 5
    assert (keeper.heard_at("n2"), keeper.seconds_left("n2")) == (103.0, 6.0)
    stage.now = 112.9
    assert not keeper.is_silent("n2")
    stage.now = 113.0
    assert keeper.is_silent("n2")


async def test_a_heartbeat_that_could_not_be_answered_was_heard_all_the_same() -> None:
    """The node may hold a lease from another answer: it is not declared lost for want of a majority here."""
    stage = Stage()
    keeper = stage.keeper()
    stage.now = 108.0
    answer = asyncio.create_task(keeper.answer("n2"))
    await asyncio.sleep(0)
    stage.rounds[0].set_exception(UnavailableError("no majority"))
    assert await answer is None
    assert keeper.seconds_left("n2") == 10.0


async def test_a_new_lead_gives_whom_it_has_not_heard_one_whole_lease_and_nothing_new() -> None:
    """What was heard in a former lead counts for neither."""
    stage = Stage()
    keeper = stage.keeper()
    waiting = asyncio.create_task(keeper.answer("n2"))
    await asyncio.sleep(0)
    assert keeper.is_fresh("n2")
    stage.now = 101.0
    keeper.begin()
    assert (keeper.is_heard("n2"), keeper.is_fresh("n2"), keeper.may_come("n2")) == (False, False, True)
    assert keeper.seconds_left("n2") == 10.0
    stage.now = 101.0 + FRESH_SECONDS
    assert not keeper.may_come("n2")
    stage.now = 110.9
    assert not keeper.is_silent("n2")
    stage.now = 111.0
    assert keeper.is_silent("n2")
    waiting.cancel()
