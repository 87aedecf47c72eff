"""The engine over real sockets and disks: form, replicate, fail over, restart, read, hand over, refuse."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from raftcron.errors import (
    ConfigurationError,
    FatalError,
    MalformedError,
    NewerVersionError,
    TooLargeError,
    UnavailableError,
    UnknownOutcomeError,
)
from raftcron.raft import proposals
from raftcron.raft.settings import RaftSettings
from tests.raft.engine_cluster import Cluster, MakeCluster, until


@pytest.fixture
async def three(make_cluster: MakeCluster) -> Cluster:
    """Three nodes with a leader."""
    cluster = make_cluster(3)
    await cluster.start()
    await cluster.until_led()
    return cluster


# ---- replicating -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 5])
async def test_a_cluster_forms_and_applies_every_command_on_every_node(make_cluster: MakeCluster, count: int) -> None:
    """One, three or five nodes elect a leader, and all apply the same commands in the same order."""
    cluster = make_cluster(count)
    await cluster.start()
    applied = await cluster.propose(b"a", b"b", b"c")
    assert [each.outcome for each in applied] == [2, 3, 4]  # the leadership entry was the first
    assert [each.index for each in applied] == sorted({each.index for each in applied})
    await cluster.until_same()
    assert all(machine.commands == [b"a", b"b", b"c"] for machine in cluster.machines.values())
    statuses = [engine.status() for engine in cluster.engines.values()]
    assert len({status.cluster_id for status in statuses}) == 1
    assert None not in {status.cluster_id for status in statuses}
    assert {status.leader for status in statuses} == {cluster.leader()}


async def test_commands_in_flight_together_are_all_applied_once(three: Cluster) -> None:
    """Many proposals at once share batches and syncs, and each comes back with an index of its own."""
    engine = await three.until_led()
    epoch = engine.status().leading_epoch or 0
    applied = await asyncio.gather(*(engine.propose(b"%d" % value, epoch) for value in range(500)))
    assert len({each.index for each in applied}) == 500
    await three.until_same()
    for machine in three.machines.values():
        assert machine.commands == [b"%d" % value for value in range(500)]
        assert len(machine.batches) < 250  # `applied` comes once for a batch


async def test_status_tells_what_the_leader_knows(three: Cluster) -> None:
    """Only the leader names match indices, and all name the same members."""
    await three.propose(b"a")
    await three.until_same()
    leader = three.engines[three.leader() or ""]
    last = leader.status().last_index
    await until(lambda: all(member.match_index == last for member in leader.status().members))
    follower = three.engines[three.followers()[0]].status()
    assert [member.match_index for member in follower.members] == [None] * 3
    assert [member.name for member in follower.members] == three.names
    assert follower.leading_epoch is None


# ---- losing nodes ------------------------------------------------------------------------------------------------


async def test_the_survivors_of_a_dead_leader_go_on_at_once(make_cluster: MakeCluster) -> None:
    """No time-out is waited for, what was acknowledged is there, and the epoch is a new one."""
    cluster = make_cluster(3, election_timeout=(60.0, 120.0), leader_fallback=60.0)
    await cluster.start()
    await cluster.propose(b"a")
    dead = cluster.leader() or ""
    await cluster.stop(dead)
    engine = await cluster.until_led()
    assert engine.status().leading_epoch == 2
    await cluster.propose(b"b")
    await cluster.start([dead])
    await cluster.until_same()
    assert all(machine.commands == [b"a", b"b"] for machine in cluster.machines.values())


async def test_all_nodes_come_back_with_all_that_was_acknowledged(three: Cluster) -> None:
    """After a stop of every node the log is there, the incarnations have moved on, and the cluster is the same one."""
    await three.propose(*(b"%d" % value for value in range(50)))
    before = three.engines["n1"].status().cluster_id
    await three.stop()
    await three.start()
    await three.until_led()
    await three.until_same()
    assert all(machine.commands == [b"%d" % value for value in range(50)] for machine in three.machines.values())
    assert three.engines["n1"].status().cluster_id == before
    assert {engine.incarnation for engine in three.engines.values()} == {2}


async def test_a_follower_that_was_away_catches_up(three: Cluster) -> None:
    """What was committed without it arrives when it is back."""
    away = three.followers()[0]
    await three.stop(away)
    await three.propose(*(b"%d" % value for value in range(200)))
    await three.start([away])
    await three.until_same()
    assert len(three.machines[away].commands) == 200


async def test_a_follower_whose_disk_was_set_back_gets_what_it_has_forgotten(three: Cluster) -> None:
    """From the leader that it had confirmed all of it to; only so can it learn that its disk is an old copy."""
    away = three.followers()[0]
    await three.stop(away)
    shutil.copytree(three.folder / away, three.folder / "copy")
    await three.start([away])
    await three.propose(*(b"%d" % value for value in range(200)))
    await three.until_same()
    leader = three.leader()
    assert leader is not None
    await three.stop(away)
    shutil.rmtree(three.folder / away)
    (three.folder / "copy").rename(three.folder / away)
    await three.start([away])
    await three.until_same()
    assert three.leader() is leader
    assert len(three.machines[away].commands) == 200


async def test_without_a_quorum_nothing_is_acknowledged(make_cluster: MakeCluster) -> None:
    """A leader alone leads no longer than its fallback; what was proposed meanwhile has an unknown outcome."""
    cluster = make_cluster(3, request_timeout=1.0)
    await cluster.start()
    leader = await cluster.until_led()
    epoch = leader.status().leading_epoch or 0
    told: list[int | None] = []
    leader.on_leadership(told.append)
    await cluster.stop(*cluster.followers())
    with pytest.raises(UnknownOutcomeError):
        await leader.propose(b"alone", epoch)
    await until(lambda: told == [None])
    with pytest.raises(UnavailableError):
        await leader.propose(b"later", epoch)
    assert leader.status().leading_epoch is None


async def test_a_command_of_a_deposed_leader_is_not_written_for_certain(three: Cluster) -> None:
    """Its entry is cut by the new leader's log: once a newer leadership entry has applied here, it never will."""
    old = three.leader() or ""
    leader = three.engines[old]
    epoch = leader.status().leading_epoch or 0
    for peer in three.followers():  # what the old leader sends from now on does not leave
        leader._core.disconnected(peer)
    doomed = asyncio.ensure_future(leader.propose(b"doomed", epoch))
    await until(lambda: leader.status().role != "leader")
    await until(lambda: three.leader() not in {None, old})
    await three.propose(b"kept")
    for peer in sorted(set(three.names) - {old}):
        leader._core.connected(peer)
    with pytest.raises(UnavailableError, match="not written"):
        await doomed
    await three.until_same()
    assert all(machine.commands == [b"kept"] for machine in three.machines.values())


# ---- proposing ---------------------------------------------------------------------------------------------------


async def test_a_follower_takes_no_proposals(three: Cluster) -> None:
    """It says at once that nothing is written, and who leads."""
    follower = three.engines[three.followers()[0]]
    with pytest.raises(UnavailableError, match=f"the leader is {three.leader()}"):
        await follower.propose(b"a", 1)


async def test_a_proposal_of_another_epoch_is_refused(three: Cluster) -> None:
    """A command made under an epoch that is over does not enter the log."""
    leader = await three.until_led()
    with pytest.raises(UnavailableError, match="epoch 7"):
        await leader.propose(b"a", 7)


async def test_a_command_over_the_limit_is_refused(make_cluster: MakeCluster) -> None:
    """The limit itself is fine."""
    cluster = make_cluster(1, max_command_bytes=1000)
    await cluster.start()
    leader = await cluster.until_led()
    with pytest.raises(TooLargeError, match="1001 bytes"):
        await leader.propose(bytes(1001), 1)
    assert (await leader.propose(bytes(1000), 1)).outcome == 2


async def test_large_commands_travel_like_small_ones(three: Cluster) -> None:
    """A mebibyte each, several at once: no other path, no pickle."""
    leader = await three.until_led()
    bodies = [bytes([value]) * (1 << 20) for value in range(6)]
    await asyncio.gather(*(leader.propose(body, 1) for body in bodies))
    await three.until_same()
    assert all(machine.commands == bodies for machine in three.machines.values())


async def test_leadership_is_told_once_the_entry_has_applied(make_cluster: MakeCluster) -> None:
    """The handler hears the epoch when it holds, not while the state machine is inside `apply`."""
    cluster = make_cluster(1)
    told: list[tuple[int | None, int]] = []
    engine = cluster.make("n1")
    engine.on_leadership(lambda epoch: told.append((epoch, cluster.machines["n1"].epoch)))
    await engine.start()
    await until(lambda: told)
    assert told == [(1, 1)]
    assert engine.status().leading_epoch == 1


# ---- reading -----------------------------------------------------------------------------------------------------


async def test_a_read_on_any_node_sees_every_acknowledged_write(three: Cluster) -> None:
    """Right after a write is acknowledged, a read index on a follower covers it and has been applied there."""
    for value in range(20):
        (applied,) = await three.propose(b"%d" % value)
        for name in three.names:
            index = await three.engines[name].read_index()
            assert index >= applied.index
            assert three.engines[name].status().applied_index >= index


async def test_many_readers_share_rounds(three: Cluster) -> None:
    """A thousand readers at once need a handful of rounds and no entry."""
    leader = three.engines[three.leader() or ""]
    before = leader.status().last_index
    await asyncio.gather(*(three.engines[name].read_index() for name in three.names for _ in range(300)))
    assert leader.status().last_index == before
    assert (leader._reads._rounds._number) < 20


async def test_a_leader_that_was_left_alone_confirms_no_read(make_cluster: MakeCluster) -> None:
    """Believing to lead is not enough: without a majority's echo the read fails."""
    cluster = make_cluster(3, leader_fallback=30.0)
    await cluster.start()
    leader = await cluster.until_led()
    await cluster.stop(*cluster.followers())
    assert leader.status().role == "leader"
    with pytest.raises(UnavailableError):
        await leader.read_index()


async def test_a_node_is_ready_when_it_has_caught_up(three: Cluster) -> None:
    """Not when it runs, nor when it knows the leader: when it has applied what was committed when it began."""
    away = three.followers()[0]
    await three.stop(away)
    applied = await three.propose(*(b"%d" % value for value in range(100)))
    engine = three.make(away)
    await engine.start()
    assert not engine.is_ready
    await engine.wait_ready()
    assert engine.is_ready
    assert engine.status().applied_index >= applied[-1].index


# ---- handing over ------------------------------------------------------------------------------------------------


async def test_the_lead_is_handed_over_under_load(three: Cluster) -> None:
    """Proposals wait for a moment, another node leads, and everything acknowledged is there."""
    leader = await three.until_led()
    name = three.leader() or ""
    acknowledged: list[bytes] = []

    async def load() -> None:
        for value in range(10_000):
            try:
                await leader.propose(b"%d" % value, 1)
            except UnavailableError:
                return
            acknowledged.append(b"%d" % value)

    loading = [asyncio.ensure_future(load()) for _ in range(4)]
    await until(lambda: len(acknowledged) > 100)
    target = three.followers()[1]
    await leader.transfer(target)
    assert await until(lambda: three.leader() not in {None, name}) and three.leader() == target
    await asyncio.gather(*loading)
    await three.until_same()
    assert set(acknowledged) <= set(three.machines[name].commands)
    assert three.engines[target].status().term == 2


async def test_without_a_successor_the_leader_leads_on(make_cluster: MakeCluster) -> None:
    """A transfer that finds nobody leaves everything as it was."""
    cluster = make_cluster(1)
    await cluster.start()
    leader = await cluster.until_led()
    with pytest.raises(UnavailableError, match="leads on"):
        await leader.transfer()
    assert await cluster.propose(b"a")
    with pytest.raises(UnavailableError, match="n9 is not another voter"):
        await leader.transfer("n9")


# ---- messages ----------------------------------------------------------------------------------------------------


async def test_messages_of_other_rooms_pass_through(three: Cluster) -> None:
    """They arrive in order with their sender's name; what their handler raises ends nothing."""
    received: list[tuple[str, Any]] = []

    def handle(peer: str, message: Any) -> None:
        received.append((peer, message))
        if message == "bad":
            raise RuntimeError("a handler's own trouble")

    three.engines["n2"].on_message("worker", handle)
    for message in ["bad", {"a": [1, b"x", None]}]:
        assert three.engines["n1"].send("n2", "worker", message)
    await until(lambda: len(received) == 2)
    assert received == [("n1", "bad"), ("n1", {"a": [1, b"x", None]})]
    assert not three.engines["n1"].send("n9", "worker", None)
    with pytest.raises(ValueError, match="'raft' have a handler"):
        three.engines["n1"].on_message("raft", handle)


async def test_what_another_room_cannot_read_is_counted_and_said_seldom(
    three: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """However often a peer sends it: its log does not fill up."""

    def handle(peer: str, message: Any) -> None:
        raise MalformedError("a heartbeat is a list")

    three.engines["n2"].on_message("worker", handle)
    for _ in range(50):
        assert three.engines["n1"].send("n2", "worker", None)
    await until(lambda: three.engines["n2"].bad_messages["n1"] == 50)
    (line,) = [record.getMessage() for record in caplog.records if "bad_message" in record.getMessage()]
    assert line == "raft_bad_message_from_n1 node=n2 kind='worker' dropped: a heartbeat is a list"


async def test_bad_messages_are_dropped_and_counted(three: Cluster) -> None:
    """A peer of another version may say what it likes: nothing happens, and somebody can see that it did."""
    good = three.engines["n2"]
    bad: list[tuple[str, Any]] = [
        ("raft", {"type": "append_entries", "term": 99, "serialized": b"", "commit_index": 5}),
        ("raft", {"type": "apply_command", "command": b"x"}),
        ("raft", "no map"),
        ("prevote", {"term": 5}),
        ("prevoted", []),
        ("round", {"term": "x", "number": 1}),
        ("echo", {"term": 1}),
        ("read", {}),
        ("index", {"number": 1, "index": -1}),
        ("no such kind", None),
    ]
    term = good.status().term
    for kind, message in bad:
        assert three.engines["n1"].send("n2", kind, message)
    await until(lambda: good.bad_messages["n1"] == len(bad))
    assert good.status().term == term
    await three.propose(b"a")
    await three.until_same()


# ---- forming, and who may come in --------------------------------------------------------------------------------


async def test_the_first_formation_waits_for_every_voter(
    make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of three empty nodes are a majority, and yet form nothing, and say whom they wait for."""
    cluster = make_cluster(3)
    with caplog.at_level(logging.WARNING, "raftcron.raft"):
        await cluster.start(["n1", "n2"])
        await until(lambda: "waiting for n3 to form a cluster" in caplog.text)
    assert {engine.status().term for engine in cluster.engines.values()} == {0}
    await cluster.start(["n3"])
    await cluster.until_led()


async def test_a_node_that_lost_its_directory_stays_out(three: Cluster) -> None:
    """Its empty directory is a stranger's: refused by name of the command that replaces it, it ends and never votes."""
    await three.propose(b"a")
    wiped = three.followers()[0]
    await three.stop(wiped)
    shutil.rmtree(three.folder / wiped)
    await three.start([wiped])
    (other,) = set(three.names) - {wiped, three.leader()}
    await until(lambda: f"raftcron cluster replace {wiped}" in three.engines[other].refusals.get(wiped, ""))
    assert "an empty data directory" in three.engines[other].refusals[wiped]
    [ending] = await until(lambda: three.failures[wiped])
    assert isinstance(ending, ConfigurationError)
    assert "a majority of the cluster does not let node" in str(ending)
    three.failures[wiped].clear()
    await three.stop(three.leader() or "")  # one good node and the wiped one are no quorum
    await asyncio.sleep(3.0)  # longer than an election time-out
    assert three.leader() is None
    assert three.machines[wiped].history == []


async def test_a_node_of_another_cluster_stays_out(make_cluster: MakeCluster) -> None:
    """Both clusters are named in the refusal, the stranger ends by itself, and its log is not touched."""
    one, other = make_cluster(3), make_cluster(3)
    ids = []
    for cluster in (one, other):
        await cluster.start()
        await cluster.propose(b"a")
        await cluster.until_same()
        ids.append(str(cluster.engines["n1"].status().cluster_id))
    await other.stop()
    await one.stop("n1")
    shutil.rmtree(one.folder / "n1")
    shutil.copytree(other.folder / "n1", one.folder / "n1")
    await one.start(["n1"])
    reason = await until(lambda: one.engines["n2"].refusals.get("n1"))
    assert all(cluster_id in reason for cluster_id in ids)
    [ending] = await until(lambda: one.failures["n1"])
    assert isinstance(ending, ConfigurationError)
    assert all(cluster_id in str(ending) for cluster_id in ids)
    one.failures["n1"].clear()
    await one.propose(b"b")
    assert one.machines["n1"].history == []


async def test_a_directory_of_another_name_is_refused_at_start(make_cluster: MakeCluster) -> None:
    """The message names both."""
    cluster = make_cluster(1)
    await cluster.start()
    await cluster.until_led()
    await cluster.stop()
    (cluster.folder / "n1").rename(cluster.folder / "n2")
    engine = cluster.make("n2", listen=cluster.addresses["n1"], peers={"n2": cluster.addresses["n1"]})
    with pytest.raises(ConfigurationError, match=r"belongs to node 'n1'.*'n2'"):
        await engine.start()
    del cluster.engines["n2"]


async def test_members_other_than_the_formed_ones_end_the_process(make_cluster: MakeCluster) -> None:
    """Members are static: a node that is told of others stops, naming both lists."""
    cluster = make_cluster(1)
    await cluster.start()
    await cluster.until_led()
    await cluster.stop()
    peers = cluster.addresses | {"n2": ("127.0.0.1", 1), "n3": ("127.0.0.1", 2)}
    engine = cluster.make("n1", peers=peers)
    with pytest.raises(ConfigurationError, match="formed by n1"):
        await engine.start()
    del cluster.engines["n1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"peers": {"n2": ("127.0.0.1", 1)}},
        {"secret": b""},
        {"election_timeout": (1.0, 0.5)},
        {"leader_fallback": 0.01},
        {"max_command_bytes": 4 << 20},
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """With the name of the setting."""
    right: dict[str, Any] = {
        "name": "n1",
        "listen": ("127.0.0.1", 1),
        "peers": {"n1": ("127.0.0.1", 1)},
        "data_dir": tmp_path,
        "secret": b"x",
    }
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RaftSettings(**right | wrong)


# ---- the end of a process ----------------------------------------------------------------------------------------


async def test_an_entry_that_cannot_be_applied_ends_the_process(make_cluster: MakeCluster) -> None:
    """It is applied once, never again, and nothing after it; what was pending is unknown."""
    cluster = make_cluster(1)
    await cluster.start()
    leader = await cluster.until_led()
    poison = asyncio.ensure_future(leader.propose(b"poison", 1))
    after = asyncio.ensure_future(leader.propose(b"after", 1))
    for future in (poison, after):
        with pytest.raises(UnknownOutcomeError):
            await future
    assert cluster.machines["n1"].commands == []
    (failure,) = cluster.failures["n1"]
    assert isinstance(failure, FatalError)
    assert "cannot be applied: RuntimeError('cannot apply poison')" in str(failure)
    cluster.expected["n1"] = [failure]
    with pytest.raises(UnavailableError, match="not running"):
        await leader.propose(b"more", 1)


@pytest.mark.parametrize("entry", [b"\x7fwhat", proposals.COMMAND + b"\x92\x02\xc0"])
async def test_an_entry_of_a_newer_version_ends_the_process_by_name(make_cluster: MakeCluster, entry: bytes) -> None:
    """Of an unknown kind, or in an envelope of a later version: the node must not guess."""
    cluster = make_cluster(1)
    await cluster.start()
    leader = await cluster.until_led()
    leader._core.append(entry)
    (failure,) = await until(lambda: cluster.failures["n1"])
    assert isinstance(failure, NewerVersionError)
    assert "newer release" in str(failure)
    cluster.expected["n1"] = [failure]
