"""Stories of chains: jobs that start when others end, across leaders and nodes that die."""

from __future__ import annotations

from typing import Any

from raftcron.core.commands import Trigger
from raftcron.ports import Ending
from raftcron.testing.scripted_executor import Script
from tests.scenarios.scene import Scene, play

FAILS = Script(0.0, Ending("failed", error_kind="exit"))


async def after(scene: Scene, name: str, *parents: str, on: str = "success", **fields: Any) -> None:
    await scene.put(name, schedule="@manual", after=[{"job": parent, "on": on} for parent in parents], **fields)


def test_a_chain_of_three_runs_through_at_once() -> None:
    """Each link starts within milliseconds of the end before it."""

    async def act(scene: Scene) -> None:
        await scene.put("a", schedule="@every 60s")
        await after(scene, "b", "a")
        await after(scene, "c", "b")
        await scene.seconds(62)
        [a], [b], [c] = scene.rows("a"), scene.rows("b"), scene.rows("c")
        assert [run.state for run in (a, b, c)] == ["succeeded"] * 3
        assert (b.follows, c.follows) == (a.id, b.id)
        assert c.started_at is not None
        assert c.started_at - a.due_at < 100

    play(act)


def test_a_chain_whose_leader_dies_between_two_links_goes_on_under_the_next() -> None:
    """The child's run is in the log with its parent's end, so nothing has to remember it."""

    async def act(scene: Scene) -> None:
        for actor in scene.actors:
            actor.executor.scripts = {"a": Script(2.0)}
        await scene.put("a", schedule="@manual")
        await after(scene, "b", "a")
        await scene.leader.proposer.propose(Trigger("a", None))
        await scene.seconds(1)
        scene.leader.scheduler.assigner.is_draining = True  # so that what follows on `a` is queued, and stays so
        await scene.seconds(1.5)
        [b] = scene.rows("b")
        assert b.state == "queued"
        scene.die("n1")
        scene.elect("n2")
        await scene.seconds(1)
        [b] = scene.rows("b")
        assert (b.state, b.node) == ("succeeded", "n2")

    play(act)


def test_a_node_that_dies_with_a_run_starts_what_is_after_its_failure_once() -> None:
    """The loss is the end, when the lease has ended; a late word of the dead changes nothing."""

    async def act(scene: Scene) -> None:
        for actor in scene.actors:
            actor.executor.scripts = {"a": Script(None)}
        await scene.put("a", schedule="@manual")
        await after(scene, "clean-up", "a", on="failure")
        await after(scene, "report", "a", on="success")
        await scene.leader.proposer.propose(Trigger("a", None))
        await scene.seconds(1)
        scene.die("n1")
        scene.elect("n2")
        await scene.seconds(15)
        [a], [clean_up] = scene.rows("a"), scene.rows("clean-up")
        assert (a.state, clean_up.state, clean_up.follows) == ("lost", "succeeded", a.id)
        assert scene.rows("report") == []

    play(act)


def test_a_cut_off_node_stops_what_others_follow_on_failure() -> None:
    """An at_most_once run with `allow` lives on beyond its lease, unless its loss starts another job."""

    async def act(scene: Scene) -> None:
        for actor in scene.actors:
            actor.executor.scripts = {"alone": Script(None), "followed": Script(None)}
        free = {"schedule": "@manual", "overlap": {"policy": "allow"}}
        await scene.put("alone", **free)
        await scene.put("followed", **free)
        await scene.leader.proposer.propose(Trigger("alone", None))
        await scene.leader.proposer.propose(Trigger("followed", None))
        await scene.seconds(1)
        await after(scene, "child", "followed", on="any")  # while it runs
        scene.cluster.cut()
        await scene.seconds(9)
        assert [(attempt.job, why) for attempt, why in scene.actors[0].executor.stopped] == [("followed", "lease")]

    play(act)


def test_retries_of_the_parent_come_first() -> None:
    """Only when the last of them has failed does the failure count."""

    async def act(scene: Scene) -> None:
        for actor in scene.actors:
            actor.executor.scripts = {"a": FAILS}
        await scene.put("a", schedule="@manual", retry={"max_attempts": 3})
        await after(scene, "b", "a", on="failure")
        await scene.leader.proposer.propose(Trigger("a", None))
        await scene.seconds(0.5)
        assert scene.rows("b") == []
        await scene.seconds(5)
        [a], [b] = scene.rows("a"), scene.rows("b")
        assert (a.state, a.attempt, b.state) == ("failed", 3, "succeeded")

    play(act)


def test_an_hourly_and_a_daily_parent_start_the_child_when_both_have_come() -> None:
    """Of `join: all` the newest end of each since the child's last run counts."""

    async def act(scene: Scene) -> None:
        await scene.put("often", schedule="@every 10s")
        await scene.put("seldom", schedule="@every 35s")
        await after(scene, "both", "often", "seldom", history={"runs": 100})
        await scene.seconds(110)
        seldom = {run.id for run in scene.rows("seldom")}
        assert [run.follows in seldom for run in scene.rows("both")] == [True] * 3

    play(act)
