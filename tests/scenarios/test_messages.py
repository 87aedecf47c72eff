"""What peers say to each other beside the log, and what becomes of it when it makes no sense or says more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftcron.runtime.farewell import Farewell
from raftcron.testing.virtual_time import VirtualLoop, run_virtual
from tests.scenarios.scene import Scene

UNREADABLE: list[tuple[str, Any]] = [
    ("heartbeat", None),
    ("heartbeat", [1, 2]),
    ("heartbeat", ["1", 2, "", 3]),
    ("license", [1]),
    ("license", {"number": 1}),
    ("announce", b"\xc1"),
    ("announce", 7),
    ("announce", "no announcement"),
    ("report", b""),
    ("report", [1, 2]),
    ("ending", "yes"),
]


@pytest.mark.parametrize(("kind", "message"), UNREADABLE)
def test_what_no_node_says_is_counted_and_changes_nothing(kind: str, message: Any) -> None:
    """The log is told, which says so of a peer seldom; the leader goes on as before."""
    loop = VirtualLoop()

    async def story() -> None:
        scene = Scene(loop)
        scene.elect("n1")
        actor = scene.leader
        Farewell(node="n1", machine=actor.machine, log=actor.log, clock=actor.clock)
        await scene.put()
        await scene.seconds(1.5)
        for _ in range(3):
            assert scene.names["n2"].log.send("n1", kind, message)
        await asyncio.sleep(0)
        assert actor.log.bad_messages == 3
        before = scene.ticks()
        await scene.seconds(3)
        assert len(scene.ticks()) == len(before) + 3
        assert actor.fatal is None

    run_virtual(story(), loop)


def test_a_later_release_may_say_more() -> None:
    """Heartbeats and licenses with more at their end are taken for what this release knows of them."""
    loop = VirtualLoop()

    async def story() -> None:
        scene = Scene(loop)
        scene.elect("n1")
        leader, other = scene.leader, scene.names["n2"]
        await scene.seconds(1)
        assert other.log.send("n1", "heartbeat", [10**6, 7, "digest", {"more": 1}])
        await asyncio.sleep(0)
        assert leader.presence.peers["n2"].applied_index == 7
        assert leader.log.bad_messages == 0

    run_virtual(story(), loop)
