"""What time a leader decides on (semantics 9): clocks that jump, differ and come back, one story each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftcron.core.commands import Trigger
from raftcron.errors import ConflictError, UnavailableError
from raftcron.runtime.clocks import HAND_OVER_SECONDS, TrustedTime
from tests.scenarios.scene import MAX_SKEW_MS, START_MS, Actor, Scene
from tests.scenarios.scene import play as play_scene

HOUR, DAY, YEAR = 3_600.0, 86_400.0, 365 * 86_400.0


def play(act: Any, *, nodes: int = 3, **stage: Any) -> None:
    play_scene(act, nodes=nodes, is_agreed=True, **stage)


async def every_second(scene: Scene, **fields: Any) -> None:
    await scene.put(overlap={"policy": "allow"}, history={"runs": 500}, **fields)


def fired(scene: Scene) -> list[float]:
    """The scheduled times that became runs, in seconds since the scene began, where somebody leads."""
    rows = scene.rows()
    return [(row.scheduled_time - START_MS) / 1000 for row in rows if row.state != "skipped"]


def seconds(actor: Actor) -> float:
    """What the node trusts, in seconds since the scene began."""
    return (actor.time.now_ms() - START_MS) / 1000


def is_whole(ticks: list[float]) -> bool:
    return ticks == [float(n) for n in range(int(ticks[0]), int(ticks[-1]) + 1)]


def test_as_long_as_nobody_knows_the_time_nothing_is_stamped() -> None:
    """A write that waited in vain says so, rather than to be planned for one instant and stamped with a later one."""

    async def act(scene: Scene) -> None:
        time = TrustedTime(scene.leader.clock, lambda: START_MS)
        with pytest.raises(UnavailableError, match="not known yet"):
            await time.settled()
        time.go_without()
        await time.settled()
        assert time.now_ms() >= START_MS

    play(act)


def test_what_falls_due_as_all_clocks_are_set_forward_is_decided_at_once() -> None:
    """By less than the skew: that is no jump, and the leader's sleep was reckoned with the time before."""

    async def act(scene: Scene) -> None:
        await every_second(scene, schedule="*/20 * * * * *")
        await scene.seconds(15)
        for actor in scene.actors:
            actor.clock.wall_offset += MAX_SKEW_MS / 1000 - 0.1
        due = waited = 0
        while not fired(scene):
            await scene.seconds(0.01)
            due += seconds(scene.leader) >= 20
            waited += 1
        assert waited < 200
        assert due <= 3

    play(act)


# ---- one clock is wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [YEAR, HOUR, 6.0, -6.0, -HOUR, -YEAR])
def test_a_leader_whose_clock_jumps_decides_nothing_of_it_and_hands_over(offset: float) -> None:
    """Its successor goes on with the same second; cluster time has gone nowhere."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        await scene.seconds(5)
        scene.names["n1"].clock.wall_offset = offset
        await scene.seconds(10)
        assert scene.leader.name != "n1"
        ticks = fired(scene)
        assert is_whole(ticks)
        assert ticks[-1] == 16.0
        assert scene.leader.machine.state.cluster_time <= START_MS + 16_501
        assert scene.names["n1"].clocks.jumps == {"own": 1}
        assert scene.names["n1"].clocks.hand_overs == 1

    play(act)


def test_a_leader_whose_clock_is_within_the_skew_stays() -> None:
    """It fires early by its skew, as it is its own clock that holds then."""

    async def act(scene: Scene) -> None:
        scene.names["n1"].clock.wall_offset = 4.0
        await scene.seconds(2)
        assert (scene.leader.name, seconds(scene.leader)) == ("n1", pytest.approx(7.5))

    play(act)


def test_another_node_whose_clock_jumps_is_seen_and_changes_nothing() -> None:
    """Its offset shows everywhere; what it trusts itself is what the others say."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        scene.names["n3"].clock.wall_offset = YEAR
        await scene.seconds(10)
        assert scene.leader.name == "n1"
        assert is_whole(fired(scene))
        assert [actor.clocks.offset_ms("n3") for actor in scene.actors] == pytest.approx([YEAR * 1000] * 3, abs=2)
        assert seconds(scene.names["n3"]) == pytest.approx(11.5, abs=0.01)
        assert not any(actor.clocks.is_untrusted for actor in scene.actors)

    play(act)


def test_a_node_whose_clock_is_wrong_leads_on_the_time_of_the_others_when_it_must() -> None:
    """It was given the lead again within a minute: it keeps it, and decides by what a majority says."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        scene.names["n1"].clock.wall_offset = YEAR
        await scene.seconds(3)
        assert scene.leader.name == "n2"
        scene.elect("n1")
        await scene.seconds(HAND_OVER_SECONDS - 10)
        assert scene.leader.name == "n1"
        assert is_whole(fired(scene))
        await scene.seconds(12)
        assert scene.leader.name != "n1"
        assert is_whole(fired(scene))

    play(act)


def test_the_lead_goes_to_a_node_whose_clock_is_right() -> None:
    """Of four others the first is wrong as well."""

    async def act(scene: Scene) -> None:
        scene.names["n2"].clock.wall_offset = HOUR
        await scene.seconds(2)
        scene.names["n1"].clock.wall_offset = YEAR
        await scene.seconds(3)
        assert scene.leader.name in ("n3", "n4", "n5")

    play(act, nodes=5)


# ---- no majority agrees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["n1", "n2"])
@pytest.mark.parametrize("offset", [YEAR, -HOUR])
def test_with_two_voters_left_that_differ_the_leader_goes_on_with_its_trusted_time(who: str, offset: float) -> None:
    """Nobody can tell which is right: that is said, the lead stays, and no second is lost."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        scene.die("n3")
        scene.cluster.silent.add("n3")
        await scene.seconds(7)
        scene.names[who].clock.wall_offset = offset
        await scene.seconds(20)
        assert scene.leader.name == "n1"
        assert scene.leader.clocks.is_untrusted
        assert is_whole(fired(scene))
        assert seconds(scene.leader) == pytest.approx(28.5, abs=0.01)
        scene.names[who].clock.wall_offset = 0.0
        await scene.seconds(3)
        assert not scene.leader.clocks.is_untrusted

    scene_of_three_voters(act)


def test_a_process_that_starts_among_voters_that_differ_takes_what_another_one_trusts() -> None:
    """Its own clock is as good as the other's; but the other has seen a majority."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        scene.die("n3")
        await scene.seconds(7)
        scene.names["n2"].clock.wall_offset = YEAR
        scene.offsets["n2"] = YEAR
        scene.die("n2")
        await scene.seconds(1)
        n2 = scene.reborn("n2", 2)
        await scene.seconds(1)
        scene.elect("n2")
        await scene.seconds(5)
        assert n2.clocks.is_untrusted
        assert seconds(n2) == pytest.approx(15.5, abs=0.01)
        assert is_whole(fired(scene))

    scene_of_three_voters(act)


def test_an_operator_decides_between_two_voters_that_differ() -> None:
    """The leader's clock counts from then on; the follower takes it from the leader, and goes on with it."""

    async def act(scene: Scene) -> None:
        await scene.seconds(1)
        scene.die("n3")
        await scene.seconds(7)
        scene.names["n1"].clock.wall_offset = 2 * HOUR
        await scene.seconds(3)
        scene.leader.clocks.accept()
        await scene.seconds(2)
        assert seconds(scene.names["n2"]) == pytest.approx(2 * HOUR + 14.5, abs=0.01)
        scene.elect("n2")
        await scene.seconds(1)
        assert seconds(scene.leader) == pytest.approx(2 * HOUR + 15.5, abs=0.01)
        assert scene.leader.clocks.is_untrusted

    scene_of_three_voters(act)


def test_a_majority_that_agrees_wins_over_an_operator() -> None:
    """A leader's clock is not accepted against it."""

    async def act(scene: Scene) -> None:
        scene.names["n1"].clock.wall_offset = YEAR
        await scene.seconds(3)
        scene.elect("n1")
        await scene.seconds(1)
        with pytest.raises(ConflictError, match="n2, n3"):
            scene.leader.clocks.accept()

    play(act)


def test_a_new_cluster_whose_clocks_differ_takes_no_writes() -> None:
    """There is no time to stamp them with, until an operator says which clock is right."""

    async def act(scene: Scene) -> None:
        with pytest.raises(UnavailableError, match="accept-time"):
            await scene.leader.proposer.propose(Trigger("none", None))
        assert scene.leader.clocks.is_untrusted
        assert scene.leader.machine.state.cluster_time == 0
        scene.leader.clocks.accept()
        await every_second(scene)
        await scene.seconds(5)
        assert len(fired(scene)) >= 4

    play(act, nodes=2, offsets={"n2": DAY})


# ---- a majority agrees on another time -------------------------------------------------------------------------------


def set_all(scene: Scene, offset: float) -> None:
    for actor in scene.actors:
        actor.clock.wall_offset = offset


def test_the_times_inside_an_agreed_jump_are_missed() -> None:
    """An hour forward on all nodes: one run stands for the hour, and the seconds behind it are on time."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        await scene.seconds(5.25)
        set_all(scene, HOUR)
        await scene.seconds(5)
        rows = scene.rows()
        [catch_up] = [row for row in rows if row.cause == "catch_up"]
        jumped = scene.leader.time.jump
        assert jumped is not None
        assert (jumped.after - START_MS) / 1000 == pytest.approx(7.0, abs=0.3)
        assert jumped.through - jumped.after == pytest.approx(3_600_000, abs=2)
        inside = [row for row in rows if jumped.after < row.scheduled_time <= jumped.through]
        assert {row.cause for row in inside if row.state != "skipped"} == {"catch_up"}
        assert sum(row.count or 1 for row in inside) == 3_600
        assert catch_up.missed_count == 3_599
        behind = [row for row in rows if row.scheduled_time > jumped.through]
        assert behind
        assert {(row.cause, row.state) for row in behind} == {("schedule", "succeeded")}

    play(act)


def test_the_times_inside_a_short_agreed_jump_are_missed_too() -> None:
    """Eight seconds lie within the grace; but nobody was late, those seconds never were."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        await scene.seconds(5.25)
        set_all(scene, 8.0)
        await scene.seconds(5)
        jumped = scene.leader.time.jump
        assert jumped is not None
        inside = [row for row in scene.rows() if jumped.after < row.scheduled_time <= jumped.through]
        assert [row.missed_count for row in inside if row.state != "skipped"] == [7]
        assert sum(row.count or 1 for row in inside) == 8

    play(act)


def test_an_agreed_jump_backward_means_waiting() -> None:
    """What is decided stays so; nothing is decided again, and it goes on where it was."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        await scene.seconds(5.25)
        set_all(scene, -30.0)
        await scene.seconds(2)
        before = fired(scene)
        await scene.seconds(20)
        assert fired(scene) == before
        await scene.seconds(15)
        assert is_whole(fired(scene))
        assert len(fired(scene)) > len(before)
        assert scene.leader.clocks.jumps["backward"] == 1

    play(act)


def test_downtime_is_no_jump() -> None:
    """All processes start anew after an hour: late times are judged by the grace, the last ones are on time."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        await scene.seconds(5)
        for name in ("n1", "n2", "n3"):
            scene.die(name)
        await scene.seconds(HOUR)
        for name in ("n1", "n2", "n3"):
            scene.reborn(name, 2)
        await scene.seconds(0.01)
        scene.elect("n2")
        await scene.seconds(1)
        assert scene.leader.time.jump is None
        assert scene.ticks()[-5:] == [HOUR + n for n in (3.0, 4.0, 5.0, 6.0, 7.0)]
        assert {row.cause for row in scene.rows()[-10:]} == {"schedule"}

    play(act)


# ---- a lone node -----------------------------------------------------------------------------------------------------


async def restart(scene: Scene, down: float) -> Actor:
    """The only node starts again after so long."""
    scene.offsets["n1"] = scene.leader.clock.wall_offset
    scene.die("n1")
    await scene.seconds(down)
    n1 = scene.reborn("n1", 2)
    scene.elect("n1")
    await scene.seconds(3)
    return n1


@pytest.mark.parametrize("down", [HOUR, 30 * DAY])
def test_a_lone_node_takes_its_clock_after_a_month(down: float) -> None:
    """Downtime of as much is believed."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        n1 = await restart(scene, down)
        assert seconds(n1) == pytest.approx(down + 4.5, abs=0.01)
        assert n1.time.may_decide

    play(act, nodes=1)


def test_a_lone_node_that_was_away_for_longer_holds_until_it_is_told() -> None:
    """It takes writes meanwhile, stamped with cluster time carried along, and decides nothing."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        await scene.seconds(2)
        n1 = await restart(scene, 32 * DAY)
        reached = n1.machine.state.cluster_time
        assert n1.clocks.is_untrusted
        assert not n1.time.may_decide
        await scene.put("other", schedule="@every 1s")
        await scene.seconds(10)
        assert scene.rows("other") == []
        assert reached <= n1.machine.state.cluster_time <= reached + 11_000
        n1.clocks.accept()
        await scene.seconds(3)
        assert seconds(n1) == pytest.approx(32 * DAY + 19.5, abs=0.01)
        assert len(fired(scene)) > 2
        assert scene.rows("other")
        assert not n1.clocks.is_untrusted

    play(act, nodes=1)


def test_a_lone_node_whose_clock_the_kernel_calls_synchronised_is_believed() -> None:
    """However long it was away; also when it is synchronised only after a while."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        n1 = await restart(scene, 90 * DAY)
        assert not n1.time.may_decide
        scene.is_synchronised = True
        await scene.seconds(1.1)
        assert n1.time.may_decide
        assert seconds(n1) == pytest.approx(90 * DAY + 5.6, abs=0.01)

    play(act, nodes=1)


def test_a_lone_node_believes_a_jump_of_an_hour() -> None:
    """The times inside it are missed."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        scene.leader.clock.wall_offset = HOUR
        await scene.seconds(3)
        assert seconds(scene.leader) == pytest.approx(HOUR + 4.5, abs=0.01)
        assert [row.cause for row in scene.rows() if row.state != "skipped"].count("catch_up") == 1

    play(act, nodes=1)


@pytest.mark.parametrize("offset", [YEAR, HOUR + 60, -HOUR - 60])
def test_a_lone_node_holds_after_a_longer_jump(offset: float) -> None:
    """Until the clock is back, or somebody says that it is right."""

    async def act(scene: Scene) -> None:
        n1 = scene.leader
        await every_second(scene)
        await scene.seconds(3)
        n1.clock.wall_offset = offset
        await scene.seconds(5)
        held = fired(scene)
        assert n1.clocks.is_untrusted
        assert seconds(n1) == pytest.approx(9.5, abs=0.01)
        await n1.proposer.propose(Trigger("job", None))
        await scene.seconds(5)
        assert fired(scene)[: len(held)] == held
        assert len(fired(scene)) == len(held) + 1
        n1.clock.wall_offset = 0.0
        await scene.seconds(3)
        assert not n1.clocks.is_untrusted
        ticks = [(row.scheduled_time - START_MS) / 1000 for row in scene.rows() if row.cause != "manual"]
        assert is_whole(ticks)

    play(act, nodes=1)


def test_a_lone_node_follows_a_clock_that_is_set_little_by_little() -> None:
    """What is within the skew is no jump."""

    async def act(scene: Scene) -> None:
        await every_second(scene)
        for step in range(20):
            scene.leader.clock.wall_offset = 3.0 * step
            await scene.seconds(1.1)
        assert scene.leader.time.jump is None
        assert scene.leader.clocks.jumps == {}

    play(act, nodes=1)


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_that_was_long_on_its_way_tells_nothing() -> None:
    """The round trip bounds the error: two seconds, or half the skew."""

    async def act(scene: Scene) -> None:
        n1 = scene.names["n1"]
        for late, told in ((2.1, None), (1.9, 1_000_000_000)):
            n1.clocks._told.clear()
            n1.log._handlers["time"]("n2", [n1.clock.boot() - late, START_MS + 1_000_000_000, None])
            offset = n1.clocks.offset_ms("n2")
            assert offset is None if told is None else offset == pytest.approx(told, abs=3_000)

    play(act)


def test_what_is_no_clock_is_dropped() -> None:
    """A peer of another version harms nobody."""

    async def act(scene: Scene) -> None:
        n1 = scene.names["n1"]
        before = dict(n1.clocks._told)
        for message in (None, [], [1.0], ["x", 1, 1], [1.0, "x", None], {}, 7):
            n1.log._handlers["time"]("n2", message)
            n1.log._handlers["clock"]("n2", message)
        await asyncio.sleep(0)
        assert n1.clocks._told == before

    play(act)


def scene_of_three_voters(act: Any) -> None:
    """Three that stay voters, whoever is there."""

    async def with_members(scene: Scene) -> None:
        scene.cluster._members = scene.cluster.members
        await act(scene)

    play(with_members)


assert MAX_SKEW_MS == 5_000, "the stories say six seconds where they mean more than the skew"
