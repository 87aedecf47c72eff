"""A node that was told to end starts nothing more, however far a run has come on its way (semantics 5.4, 5.12)."""

from __future__ import annotations

import asyncio
from typing import Any

from raftcron.core.commands import Place, Trigger
from raftcron.ports import Ending
from tests.scenarios.scene import Scene, play


def test_an_attempt_that_asks_for_its_start_on_a_node_that_drains_is_refused() -> None:
    """The state says that it runs there, its user code has not begun: it starts elsewhere, as the same attempt."""

    async def act(scene: Scene) -> None:
        n1 = scene.leader
        opens = asyncio.Event()
        shipped = n1.executor.run

        async def slowly(attempt: Any, control: Any) -> Ending:
            """As an executor that waits for a secret, or for its spawner, before it asks."""
            await opens.wait()
            return await shipped(attempt, control)

        n1.executor.run = slowly  # type: ignore[method-assign]
        await scene.put(schedule="@manual", kill_after="1s")
        await n1.proposer.propose(Trigger("job", Place("n1", 1)))
        await scene.seconds(0.5)
        [row] = scene.rows()
        assert (row.state, row.node) == ("running", "n1")
        scene.elect("n2")
        await scene.seconds(1)
        draining = asyncio.ensure_future(n1.worker.drain(20.0))
        await scene.seconds(1)
        opens.set()
        await draining
        await scene.seconds(1)
        [row] = scene.rows()
        assert [(name, attempt) for name, _, attempt in scene.starts()] == [("n2", 1)]
        assert (row.state, row.node) == ("succeeded", "n2")

    play(act)


def test_a_leader_that_drains_decides_and_starts_nothing_on_itself() -> None:
    """Before the lead has gone to another node, what falls due is queued; it starts where the lead goes."""

    async def act(scene: Scene) -> None:
        n1 = scene.leader
        await scene.put(schedule="@every 10s")
        n1.scheduler.assigner.is_draining = True
        await scene.seconds(12)
        [row] = scene.rows()
        assert (row.state, scene.starts()) == ("queued", [])
        scene.elect("n2")
        await scene.seconds(2)
        [row] = scene.rows()
        assert [name for name, _, _ in scene.starts()] == ["n2"]
        assert (row.state, row.node) == ("succeeded", "n2")

    play(act)
