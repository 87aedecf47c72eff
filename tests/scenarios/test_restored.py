"""Stories of a node that lagged and was brought on by a snapshot: it saw none of the entries between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from raftcron.core.commands import Cancel, DeleteJob, Lose, Place, Token, Trigger
from raftcron.runtime.leases import NO_LICENSE
from raftcron.testing.scripted_executor import Script
from tests.scenarios.scene import Actor, Scene, play


async def cancelled(n2: Actor, run: Token) -> None:
    await n2.proposer.propose(Cancel(run.run))


async def lost(n2: Actor, run: Token) -> None:
    await n2.proposer.propose(Lose("n1", 1, [run]))


async def gone(n2: Actor, run: Token) -> None:
    """Lost, its job deleted and made anew."""
    await lost(n2, run)
    await n2.proposer.propose(DeleteJob("job", [], n2.machine.state.jobs["job"].revision))


async def dropped(n2: Actor, run: Token) -> None:
    """Lost, and a later run has taken its place in the history."""
    await lost(n2, run)
    await n2.proposer.propose(Trigger("job", Place("n2", 1)))


@pytest.mark.parametrize(
    ("happens", "reason"), [(cancelled, "cancelled"), (lost, "lease"), (gone, "lease"), (dropped, "lease")]
)
def test_what_became_of_an_attempt_stops_it(happens: Callable[[Actor, Token], Awaitable[None]], reason: str) -> None:
    """The worker goes by what the snapshot says of the runs that it has begun, at once, also where the row is gone."""

    async def act(scene: Scene) -> None:
        n1, n2 = scene.names["n1"], scene.names["n2"]
        await scene.put(schedule="@manual", history={"runs": 1})
        n1.executor.scripts["job"] = Script(seconds=None)
        await n1.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(0.1)
        (attempt,) = n1.executor.started
        scene.elect("n2")
        n1.log.lag()
        await happens(n2, Token(attempt.run_id, attempt.fencing_token))
        await scene.seconds(2)
        assert n1.executor.stopped == []
        n1.log.restore(n2.log)
        await scene.seconds(0.01)
        assert n1.executor.stopped == [(attempt, reason)]
        n1.log.resume()
        await scene.seconds(3)
        assert n1.reports.open_count == 0
        run = n2.machine.state.runs.get(attempt.run_id)
        assert (run is None) == (happens is dropped)
        assert run is None or run.state == ("cancelled" if happens is cancelled else "lost")

    play(act)


def test_an_attempt_that_the_snapshot_knows_runs_on() -> None:
    """And its end is recorded, though the row is another object now."""

    async def act(scene: Scene) -> None:
        n1, n2 = scene.names["n1"], scene.names["n2"]
        await scene.put(schedule="@manual")
        n1.executor.scripts["job"] = Script(seconds=4)
        await n1.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(0.1)
        scene.elect("n2")
        n1.log.lag()
        await scene.put("other")
        n1.log.restore(n2.log)
        n1.log.resume()
        await scene.seconds(5)
        assert n1.executor.stopped == []
        assert [run.state for run in scene.rows()] == ["succeeded"]

    play(act)


def test_an_attempt_that_waits_for_a_licence_is_begun_after_the_snapshot() -> None:
    """It waited under a row that was replaced meanwhile by an equal one."""

    async def act(scene: Scene) -> None:
        n1, n2 = scene.names["n1"], scene.names["n2"]
        scene.elect("n2")
        await scene.put(schedule="@manual")
        await scene.seconds(1)
        n1.log.knows_leader, n1.presence.license = False, NO_LICENSE
        await n2.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(0.5)
        n1.log.lag()
        await scene.put("other")
        n1.log.restore(n2.log)
        await scene.seconds(0.5)
        assert n1.executor.started == []
        n1.log.knows_leader = True
        n1.log.resume()
        await scene.seconds(2)
        assert [(node, attempt) for node, _, attempt in scene.starts()] == [("n1", 1)]
        assert [run.state for run in scene.rows()] == ["succeeded"]

    play(act)


def test_a_run_that_began_here_within_the_snapshot_is_started() -> None:
    """The node sees for the first time in the snapshot that the run is its own."""

    async def act(scene: Scene) -> None:
        n1, n2 = scene.names["n1"], scene.names["n2"]
        scene.elect("n2")
        await scene.put(schedule="@manual")
        await scene.seconds(1)
        n1.log.lag()
        await n2.proposer.propose(Trigger("job", Place("n1", 1)))
        n1.log.restore(n2.log)
        n1.log.resume()
        await scene.seconds(0.01)
        assert [node for node, _, _ in scene.starts()] == ["n1"]

    play(act)


def test_a_new_node_finds_its_own_announcement_in_a_snapshot() -> None:
    """Whoever waits for it goes on."""

    async def act(scene: Scene) -> None:
        n3 = scene.enter("n3")
        n3.log.lag()
        waiting = scene.loop.create_task(n3.presence.wait_announced())
        await scene.seconds(2)
        assert scene.leader.machine.state.is_alive("n3", 1)
        assert not waiting.done()
        n3.log.restore(scene.leader.log)
        await scene.seconds(0.01)
        assert waiting.done()
        assert n3.fatal is None

    play(act)


def test_a_node_that_finds_a_later_life_of_its_own_in_a_snapshot_stops() -> None:
    """Its data directory is an old copy."""

    async def act(scene: Scene) -> None:
        n2 = scene.names["n2"]
        n2.log.lag()
        n2.log.knows_leader = False
        n2_again = scene.reborn("n2", 2)
        await scene.seconds(2)
        assert n2.fatal is None
        n2.log.restore(n2_again.log)
        assert "old copy" in str(n2.fatal)

    play(act)


def test_a_copy_of_a_disk_from_one_life_ago_starts_nothing_and_stops() -> None:
    """Its life has the number of the one that is announced, for which runs are meant that it sees; it is another."""

    async def act(scene: Scene) -> None:
        n1 = scene.names["n1"]
        scene.elect("n1")
        await scene.put(schedule="@manual")
        n2 = scene.names["n2"]
        n2.executor.scripts["job"] = Script(seconds=None)
        await n1.proposer.propose(Trigger("job", Place("n2", 1)))
        await scene.seconds(0.1)
        assert len(n2.executor.started) == 1
        scene.die("n2")
        copy = scene.reborn("n2", 1)
        await scene.seconds(2)
        assert copy.executor.started == []
        assert "old copy" in str(copy.fatal)
        assert not copy.presence.is_announced
        assert [run.state for run in scene.rows()] == ["running"]  # until its lease has ended

    play(act)


def test_a_former_leader_leads_again_from_a_snapshot() -> None:
    """It decides what is due by the state that came, once each, and nothing that was decided meanwhile."""

    async def act(scene: Scene) -> None:
        n1, n2 = scene.names["n1"], scene.names["n2"]
        await scene.put()
        await scene.seconds(3)
        scene.elect("n2")
        n1.log.lag()
        await scene.put("later", schedule="@every 2s")
        await scene.seconds(4)
        n1.log.restore(n2.log)
        n1.log.resume()
        scene.elect("n1")
        await scene.seconds(4)
        ticks = scene.ticks()
        assert ticks == [ticks[0] + number for number in range(len(ticks))]
        assert ticks[-1] > scene.loop.time() - 1.5
        assert len(scene.ticks("later")) >= 3
        assert sorted({node for node, _, _ in scene.starts()}) == ["n1", "n2"]

    play(act)
