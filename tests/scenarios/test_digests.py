"""A node whose state is not that of a majority stops, says where, and leaves the others at work (semantics I7)."""

from __future__ import annotations

import logging

import pytest

from raftcron.testing.virtual_time import VirtualLoop, run_virtual
from tests.scenarios.scene import Actor, Scene


def spoil(actor: Actor) -> None:
    """A record changes in the node's memory, and is written next."""
    state = actor.machine.state
    record = state.nodes[actor.name]
    record.http = "spoilt"
    state.touch(record)


@pytest.mark.parametrize("spoilt", ["n1", "n2", "n3"])
def test_the_one_of_three_whose_record_was_changed_stops_and_the_others_go_on(spoilt: str) -> None:
    """Be it the leader or a follower: its last words are the index, its own digest and the majority's."""
    loop = VirtualLoop()

    async def story() -> None:
        scene = Scene(loop, nodes=3)
        scene.elect("n1")
        await scene.put()
        await scene.seconds(5)
        assert [actor.fatal for actor in scene.actors] == [None] * 3
        odd = scene.names[spoilt]
        spoil(odd)
        await scene.seconds(5)
        others = [actor for actor in scene.actors if actor is not odd]
        assert [actor.fatal for actor in others] == [None] * 2
        said = str(odd.fatal)
        differing = [
            index
            for index, digest in odd.machine.held_digests().items()
            if others[0].machine.held_digests().get(index, digest) != digest
        ]
        assert any(
            f"node {spoilt} is not that of the others: at index {index} it has the digest "
            f"{odd.machine.held_digests()[index]:032x}, and a majority {others[0].machine.held_digests()[index]:032x}"
            in said
            for index in differing
        ), said
        assert f"raftcron cluster replace {spoilt}" in said
        scene.die(spoilt)
        if spoilt == "n1":
            scene.elect("n2")
        before = len(scene.ticks())
        await scene.seconds(15)
        assert len(scene.ticks()) > before
        assert [actor.fatal for actor in others] == [None] * 2

    run_virtual(story(), loop)


def test_of_two_that_differ_none_stops_and_each_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody can tell which of the two is right."""
    loop = VirtualLoop()

    async def story() -> None:
        scene = Scene(loop, nodes=2)
        scene.elect("n1")
        await scene.put()
        await scene.seconds(3)
        spoil(scene.names["n2"])
        await scene.seconds(20)
        assert [actor.fatal for actor in scene.actors] == [None] * 2

    with caplog.at_level(logging.ERROR):
        run_virtual(story(), loop)
    told = [record.getMessage() for record in caplog.records if "states_differ" in record.getMessage()]
    assert sorted(line.split()[1] for line in told) == ["node=n1", "node=n2"]


def test_digests_of_records_that_are_packed_another_way_are_not_compared() -> None:
    """What a release of another image says of its state stops nobody; nor does one that says nothing."""
    loop = VirtualLoop()

    async def story() -> None:
        scene = Scene(loop, nodes=3)
        scene.elect("n1")
        await scene.seconds(2)
        state = scene.leader.machine.state
        for name in ("n2", "n3"):
            for more in ([], [[10**6, [[state.index, "0" * 32]]]]):
                assert scene.names[name].log.send("n1", "heartbeat", [10**6, state.index, "0" * 32, *more])
        await scene.seconds(3)
        assert scene.leader.fatal is None
        assert scene.leader.log.bad_messages == 0

    run_virtual(story(), loop)
