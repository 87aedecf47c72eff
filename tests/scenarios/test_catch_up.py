"""How far catching up has come: every node knows, the leader logs it, and a snapshot says it too."""

from __future__ import annotations

import logging
import re
from itertools import pairwise
from typing import Any

import pytest

from raftcron.runtime.catch_up import CatchUp
from tests.scenarios.scene import Scene, play
from tests.unit.restored import restored


def test_the_leader_logs_what_is_owed_until_it_is_done(caplog: pytest.LogCaptureFixture) -> None:
    """One line when it begins, one every ten seconds, one at the end; other nodes say nothing."""

    async def act(scene: Scene) -> None:
        for number in range(25):
            await scene.put(f"job-{number}", schedule="@every 60s")
        scene.die("n1")
        await scene.seconds(90)
        with caplog.at_level(logging.INFO, "raftcron.runtime.catch_up"):
            scene.elect("n2")
            await scene.seconds(30)
        lines = [re.sub(r"owed=2\d", "owed=2x", record.getMessage()) for record in caplog.records]
        assert lines[0] == "catch_up_begun owed=2x"
        assert lines[-1].startswith("catch_up_done started=25 seconds=")
        assert [line.split()[0] for line in lines[1:-1]] == ["catch_up_goes_on"]
        for actor in scene.names.values():
            assert (actor.catch_up.owed, actor.catch_up.started) == (0, 25)

    play(act, nodes=3, catch_up_rate=2.0)


def test_a_node_that_takes_a_snapshot_knows_what_is_owed() -> None:
    """It counts on from there, and a further leader begins to count anew."""

    async def act(scene: Scene) -> None:
        for number in range(10):
            await scene.put(f"job-{number}", schedule="@every 60s")
        scene.die("n1")
        await scene.seconds(90)
        scene.elect("n2")
        await scene.seconds(2)
        leader = scene.leader
        assert 0 < leader.catch_up.owed < 10
        machine = restored(leader.machine.snapshot())
        late = CatchUp("n9", machine)
        late.state_replaced()
        assert late.owed == leader.catch_up.owed
        left = leader.catch_up.owed
        scene.elect("n3")
        await scene.seconds(20)
        assert (scene.leader.catch_up.owed, scene.leader.catch_up.started) == (0, left)

    play(act, nodes=3, catch_up_rate=2.0)


@pytest.mark.parametrize(("placement", "jobs", "parts"), [({"shards": 25}, 2, 25), ({"on": "all"}, 20, 2)])
def test_parts_are_caught_up_one_by_one_at_the_rate_of_the_cluster(
    placement: dict[str, Any], jobs: int, parts: int
) -> None:
    """Runs with more parts than a second may start, and many with few: all go on, none faster; `owed` counts parts."""

    async def act(scene: Scene) -> None:
        for number in range(jobs):
            await scene.put(f"job-{number}", schedule="@every 10m", placement=placement)
        scene.die("n1")
        await scene.seconds(660)
        scene.elect("n2")
        made = [0]
        for _ in range(12):
            await scene.seconds(1)
            made.append(sum(len(scene.names[name].executor.started) for name in ("n2", "n3")))
            watch = scene.leader.catch_up
            if watch.owed:
                assert watch.started <= made[-1] <= watch.started + 10
                assert watch.owed + watch.started <= jobs * (parts + 1), "the dead node counts until they are divided"
        assert made[-1] == jobs * parts
        assert all(after - before <= 12 for before, after in pairwise(made)), made
        assert (scene.leader.catch_up.owed, scene.leader.catch_up.started) == (0, jobs * parts)

    play(act, nodes=3, catch_up_rate=10)
