"""The engine's log behind snapshots: it stays short, laggards come back, restarts begin with the newest snapshot."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from raftcron.errors import DamagedError, FatalError, UnknownOutcomeError
from raftcron.raft import CompactionSettings, Engine, ForkedScribe
from tests.raft.engine_cluster import Cluster, MakeCluster, until

SMALL = CompactionSettings(bytes=2_000, entries=50, kept_entries=10, segment_bytes=4_096)


def counts(engine: Engine) -> dict[str, int]:
    return dict(engine._compaction.counts)


def first_index(engine: Engine) -> int:
    return engine._journal.first_index


async def until_compacted(cluster: Cluster, index: int) -> None:
    """Until the log of every node that runs begins at or behind `index`."""
    await until(lambda: all(first_index(engine) >= index for engine in cluster.engines.values()))


async def fill(cluster: Cluster, count: int, begin: int = 0) -> list[bytes]:
    bodies = [b"%d " % (begin + number) + bytes(100) for number in range(count)]
    await cluster.propose(*bodies)
    return bodies


async def test_the_log_of_every_node_is_cut_behind_snapshots_of_its_own(make_cluster: MakeCluster) -> None:
    """Memory and disk hold what came after the last snapshots, and a few entries before."""
    cluster = make_cluster(3, compaction=SMALL)
    await cluster.start()
    bodies = await fill(cluster, 600)
    # A node that is slow to write one has fewer of them, each of more entries.
    while min(counts(engine)["written"] for engine in cluster.engines.values()) < 3:
        bodies += await fill(cluster, 50, len(bodies))
    await cluster.until_same()
    await until_compacted(cluster, 200)
    for engine, machine in zip(cluster.engines.values(), cluster.machines.values(), strict=True):
        assert machine.commands == bodies
        journal = engine._journal
        await until(lambda journal=journal: journal.disk_bytes < journal.log_bytes + 5 * 4_096)  # type: ignore[misc]
        assert engine.status().last_index > 600


async def test_a_node_that_restarts_goes_on_from_its_newest_snapshot(make_cluster: MakeCluster) -> None:
    """What the snapshot holds is not applied again, and what follows it is."""
    cluster = make_cluster(1, compaction=SMALL)
    await cluster.start()
    bodies = await fill(cluster, 300)
    await until_compacted(cluster, 100)
    await cluster.stop()
    await cluster.start()
    await cluster.until_led()
    await cluster.engines["n1"].wait_ready()
    assert cluster.machines["n1"].commands == bodies
    assert cluster.machines["n1"].batches[0] > 100
    assert await cluster.propose(b"more")


async def test_a_follower_that_was_away_for_long_comes_back_through_a_snapshot(make_cluster: MakeCluster) -> None:
    """What it needs has been cut from every log; it fetches a snapshot, and the entries behind that."""
    cluster = make_cluster(3, compaction=SMALL)
    await cluster.start()
    bodies = await fill(cluster, 20)
    away = cluster.followers()[0]
    await cluster.until_same()
    await cluster.stop(away)
    bodies += await fill(cluster, 400, 20)
    await until_compacted(cluster, 150)
    await cluster.start([away])
    bodies += await fill(cluster, 20, 420)
    await cluster.until_same()
    assert cluster.machines[away].commands == bodies
    assert counts(cluster.engines[away])["installed"] >= 1
    assert first_index(cluster.engines[away]) >= 150


async def test_a_new_leader_goes_on_serving_whoever_lags(make_cluster: MakeCluster) -> None:
    """The leader that offered the snapshot dies; the other node that holds one offers its own."""
    cluster = make_cluster(3, compaction=SMALL)
    await cluster.start()
    bodies = await fill(cluster, 20)
    away = cluster.followers()[0]
    await cluster.until_same()
    await cluster.stop(away)
    bodies += await fill(cluster, 400, 20)
    await until_compacted(cluster, 150)
    leader = await cluster.until_led()
    await cluster.start([away])
    await until(lambda: counts(leader).get("offered"))
    await cluster.stop(leader._name)
    bodies += await fill(cluster, 20, 420)
    await cluster.until_same()
    assert cluster.machines[away].commands == bodies


async def test_a_snapshot_in_a_forked_child_is_as_good(make_cluster: MakeCluster) -> None:
    """The image of the memory at the fork; the node goes on meanwhile."""
    cluster = make_cluster(1, compaction=SMALL)
    engine = cluster.make("n1", scribe=ForkedScribe())
    await engine.start()
    bodies = await fill(cluster, 200)
    await until_compacted(cluster, 50)
    await cluster.stop()
    await cluster.start()
    await cluster.engines["n1"].wait_ready()
    assert cluster.machines["n1"].commands == bodies


async def test_a_journal_without_its_snapshot_is_refused(make_cluster: MakeCluster) -> None:
    """It would lead and commit without a state; the message names the directory and the command."""
    cluster = make_cluster(1, compaction=SMALL)
    await cluster.start()
    await fill(cluster, 300)
    await until_compacted(cluster, 100)
    await cluster.stop()
    for path in (cluster.folder / "n1" / "snapshots").iterdir():
        path.unlink()
    with pytest.raises(DamagedError, match=r"snapshot.*raftcron cluster replace n1 --data-dir"):
        await cluster.make("n1").start()
    del cluster.engines["n1"]


async def test_snapshots_of_another_cluster_are_refused_and_the_log_stays(make_cluster: MakeCluster) -> None:
    """Whoever mixed up two directories can undo it: the log is not cut to fit what is not its own."""
    ours, theirs = make_cluster(1, compaction=SMALL), make_cluster(1, compaction=SMALL)
    for cluster, count in ((ours, 20), (theirs, 300)):
        await cluster.start()
        bodies = await fill(cluster, count)
        if cluster is theirs:
            await until_compacted(cluster, 100)
        await cluster.stop()
    bodies = bodies[:20]
    own, strange = ours.folder / "n1" / "snapshots", theirs.folder / "n1" / "snapshots"
    own.rename(own.with_name("own"))
    shutil.copytree(strange, own)
    with pytest.raises(FatalError, match=r"snapshot \S+ is of cluster \w+, this node belongs to \w+"):
        await ours.make("n1").start()
    shutil.rmtree(own)
    own.with_name("own").rename(own)
    await ours.start()
    await ours.engines["n1"].wait_ready()
    assert ours.machines["n1"].commands == bodies


async def test_what_was_pending_when_a_snapshot_came_has_an_unknown_outcome(make_cluster: MakeCluster) -> None:
    """A leader that was cut off, replaced and caught up by a snapshot cannot say "not written": it may be in it."""
    cluster = make_cluster(3, compaction=SMALL)
    await cluster.start()
    leader = await cluster.until_led()
    pending = _hold(leader)
    leader._leadership.installed()
    with pytest.raises(UnknownOutcomeError):
        await pending


def _hold(engine: Engine) -> Any:
    """A proposal that has not come back."""
    future = engine._loop.create_future()
    engine._leadership._proposals.add(10**6, future, 10**6, 1, float("inf"))
    return future
