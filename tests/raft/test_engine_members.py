"""Members of running engines: added, removed and replaced one by one; real sockets and disks."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from raftcron.errors import ConfigurationError, ConflictError, UnavailableError, UnknownOutcomeError
from raftcron.ports import Standing
from raftcron.raft import CompactionSettings
from tests.raft.engine_cluster import Cluster, MakeCluster, until


def standing(cluster: Cluster, name: str) -> Standing | None:
    """What the leader says of a member."""
    leader = cluster.leader()
    if leader is None:
        return None
    members = cluster.engines[leader].status().members
    return next((member.standing for member in members if member.name == name), None)


async def grow(cluster: Cluster, name: str) -> None:
    """Add a member, start it, and see it vote."""
    cluster.addresses[name] = address = cluster.address()
    leader = await cluster.until_led()
    await leader.add(name, address, "127.0.0.1:1", 0)
    assert standing(cluster, name) is Standing.AWAITED
    await cluster.start([name])
    await until_voter(cluster, name)


async def until_voter(cluster: Cluster, name: str) -> None:
    """Until that is committed, so that the next change may come."""
    await until(lambda: standing(cluster, name) is Standing.VOTER)
    leader = await cluster.until_led()
    await until(lambda: leader._membership.newest is leader._membership.settled)


async def test_a_lone_node_grows_to_three_and_survives_its_first_leader(make_cluster: MakeCluster) -> None:
    """Each new member learns, then votes; two of three go on without the third."""
    cluster = make_cluster(1)
    await cluster.start()
    await cluster.propose(b"alone")
    await grow(cluster, "n2")
    await grow(cluster, "n3")
    await cluster.propose(b"three")
    await cluster.until_same()
    await cluster.stop("n1")
    await cluster.propose(b"two")
    await cluster.until_same()
    assert cluster.machines["n3"].commands == [b"alone", b"three", b"two"]


async def test_a_majority_of_whom_one_has_not_heard_of_another_elects_a_leader(make_cluster: MakeCluster) -> None:
    """A voter slept while a fourth one came; all stop, one of the others never comes back, and the three go on."""
    cluster = make_cluster(3)
    await cluster.start()
    await cluster.until_led()
    sleeper = cluster.followers()[0]
    await cluster.stop(sleeper)
    await grow(cluster, "n4")
    leader = await cluster.until_led()
    await cluster.stop(next(name for name in cluster.followers() if name != "n4"))
    end = leader.status().last_index
    last = asyncio.create_task(leader.propose(b"seen by the fourth", leader.status().leading_epoch or 0))
    await until(lambda: cluster.engines["n4"].status().last_index > end)  # so that nobody leads without it
    await cluster.stop()
    with pytest.raises(UnknownOutcomeError):
        await last
    fourth = cluster.addresses.pop("n4")  # the founders' settings name nobody but the founders
    await cluster.start({*cluster.names} - {leader._name})
    cluster.addresses["n4"] = fourth
    await cluster.start(["n4"])
    await cluster.propose(b"three of four")
    await cluster.until_same()


async def test_a_change_that_is_under_way_when_its_node_stops_has_an_unknown_outcome(
    make_cluster: MakeCluster,
) -> None:
    """Whoever asked for it hears so at once, and does not hold up the end."""
    cluster = make_cluster(3, request_timeout=60.0)
    await cluster.start()
    leader = await cluster.until_led()
    change = asyncio.create_task(leader.add("n4", ("127.0.0.1", 1), "127.0.0.1:2", 0))
    await asyncio.sleep(0)  # it is in the log now, and has not left
    await cluster.stop(leader._name)
    with pytest.raises(UnknownOutcomeError, match="look at the members"):
        await asyncio.wait_for(change, 30.0)  # and not after the request's time


async def test_a_removed_node_is_told_and_ends(make_cluster: MakeCluster) -> None:
    """It does not disturb those who stay, also when it starts again."""
    cluster = make_cluster(3)
    await cluster.start()
    leader = await cluster.until_led()
    gone = cluster.followers()[0]
    await leader.remove(gone)
    await until(lambda: cluster.failures[gone])
    (error,) = cluster.failures[gone]
    assert isinstance(error, ConfigurationError)
    assert "was removed" in str(error)
    cluster.expected[gone] = cluster.failures[gone]
    await cluster.stop(gone)
    term = leader.status().term
    await cluster.propose(b"without")
    assert leader.status().term == term
    assert sorted(member.name for member in leader.status().members) == sorted(cluster.engines)


async def test_a_lost_disk_is_replaced_and_its_node_votes_again(make_cluster: MakeCluster) -> None:
    """An empty directory under a known name is refused until the cluster is told; then it learns, and votes."""
    cluster = make_cluster(3, compaction=CompactionSettings(2_000, 50, 10, 4_096))
    await cluster.start()
    bodies = [b"%d " % number + bytes(100) for number in range(300)]
    await cluster.propose(*bodies)
    leader = await cluster.until_led()
    lost = cluster.followers()[0]
    lives = cluster.engines[lost].incarnation
    await cluster.stop(lost)
    shutil.rmtree(cluster.folder / lost)
    await cluster.start([lost])
    await until(lambda: cluster.failures[lost])
    assert f"raftcron cluster replace {lost}" in str(cluster.failures[lost][0])
    cluster.failures[lost].clear()
    await cluster.stop(lost)
    await leader.replace(lost, None, None, lives)
    await cluster.start([lost])
    await until_voter(cluster, lost)
    await cluster.propose(b"whole")
    await cluster.until_same()
    assert cluster.machines[lost].commands == [*bodies, b"whole"]
    assert cluster.engines[lost].incarnation > lives


async def test_a_replaced_disk_that_comes_back_makes_no_majority(make_cluster: MakeCluster) -> None:
    """Its machine starts again beside the one member that lacks what was acknowledged since: nobody leads.

    A node that has just started takes all configurations in its log for possible, and lets the old disk in; but its
    vote is not its seat's.  With its successor the acknowledged entry is back.
    """
    cluster = make_cluster(3)
    await cluster.start()
    await cluster.propose(b"first")
    await cluster.until_same()
    leader = await cluster.until_led()
    replaced, lagging = cluster.followers()
    lives = cluster.engines[replaced].incarnation
    await cluster.stop(replaced)
    (cluster.folder / replaced).rename(cluster.folder / "old")
    await leader.replace(replaced, None, None, lives)
    await cluster.start([replaced])
    await until_voter(cluster, replaced)
    await cluster.until_same()
    await cluster.stop(lagging)
    await cluster.propose(b"acknowledged")
    await cluster.stop()

    (cluster.folder / replaced).rename(cluster.folder / "new")
    (cluster.folder / "old").rename(cluster.folder / replaced)
    await cluster.start([lagging, replaced])
    uncounted = "pre-vote not counted (another directory)"
    await until(lambda: cluster.engines[lagging]._elections.passes[uncounted] > 5)
    assert cluster.leader() is None
    await cluster.stop(replaced)
    (cluster.folder / replaced).rename(cluster.folder / "old")
    (cluster.folder / "new").rename(cluster.folder / replaced)
    await cluster.start([replaced])
    await cluster.propose(b"last")
    await cluster.until_same()
    assert cluster.machines[lagging].commands == [b"first", b"acknowledged", b"last"]


async def test_a_change_that_would_leave_no_majority_is_refused(make_cluster: MakeCluster) -> None:
    """With one of three down, another one cannot be taken out; who is silent is named."""
    cluster = make_cluster(3)
    await cluster.start()
    leader = await cluster.until_led()
    down, up = cluster.followers()
    await cluster.stop(down)
    await until(lambda: down not in leader._core.answered_within(1.0))
    with pytest.raises(ConflictError, match=f"{down} does not"):
        await leader.remove(up)
    await cluster.propose(b"still")


async def test_one_change_at_a_time(make_cluster: MakeCluster) -> None:
    """A leader that waits for one entry of members takes no second one; and no leader removes itself."""
    cluster = make_cluster(3)
    await cluster.start()
    leader = await cluster.until_led()
    with pytest.raises(UnavailableError, match="hand over the lead"):
        await leader.remove(leader._name)
    follower = cluster.engines[cluster.followers()[0]]
    with pytest.raises(UnavailableError, match="does not lead"):
        await follower.remove("n1")


async def test_the_members_survive_restarts_and_snapshots(make_cluster: MakeCluster) -> None:
    """Who belongs is in the log, and in the snapshot once the log is cut; settings may lag behind."""
    cluster = make_cluster(1, compaction=CompactionSettings(2_000, 50, 10, 4_096))
    await cluster.start()
    await grow(cluster, "n2")
    await cluster.propose(*(b"%d " % number + bytes(100) for number in range(300)))
    await cluster.until_same()
    await until(lambda: all(engine._journal.first_index > 100 for engine in cluster.engines.values()))
    await cluster.stop()
    await cluster.start(["n1", "n2"])
    leader = await cluster.until_led()
    assert [member.standing for member in leader.status().members] == [Standing.VOTER, Standing.VOTER]
    await cluster.stop("n2" if leader._name == "n1" else "n1")
    await until(lambda: leader.status().leading_epoch is None)
