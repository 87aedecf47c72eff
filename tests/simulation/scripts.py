"""Courses of events that dice do not find: each brings a cluster to the one place where a certain guard decides.

A script stands in for the drawn faults of a seed; load, checks, healing and quiet are those of every seed.  Here are
those of the log, of snapshots and of members, and what all are made of; those of runs and of time: scripts_runs.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from raftcron.core.model import ENDED
from raftcron.errors import RaftcronError
from raftcron.raft import engine, membership, seam, segment
from raftcron.raft.settings import CompactionSettings
from raftcron.testing.sim_cluster import Cluster
from raftcron.testing.sim_loop import ProcessDied
from raftcron.testing.sim_node import JOURNAL, PORT, Life
from raftcron.testing.sim_releases import LATER
from raftcron.testing.sim_story import Story


def leader_of(story: Story) -> Life:
    leaders = story.clients.leaders()
    assert leaders, story.cluster.where()
    return max(leaders, key=lambda life: life.log.status().term)


def isolate(story: Story, name: str) -> None:
    for other in story.cluster.names:
        if other != name:
            story.cluster.network.cut(name, other)
            story.cluster.network.cut(other, name)


def lose(story: Story, name: str) -> None:
    """Cut off, and what was sent to it or by it and has not arrived never does."""
    isolate(story, name)
    for other in story.cluster.names:
        if other != name:
            story.cluster.network.sever(name, other)


def form_calmly(story: Story) -> None:
    """Nobody touches the jobs that fire."""
    story.clients.is_calm = True
    story.form()


def until(story: Story, seconds: float, is_so: Callable[[], bool], step: float = 0.005) -> None:
    """Let time pass until it is so; not longer than this."""
    end = story.cluster.now + seconds
    while story.cluster.now < end and not is_so():
        story.cluster.run(step)


def followers_of(story: Story) -> list[str]:
    leader = leader_of(story).name
    return [name for name in story.cluster.names if name != leader]


def compact_often(story: Story) -> None:
    """Nodes that begin from now on forget entries as soon as they can."""
    often = CompactionSettings(bytes=500, entries=10, kept_entries=0, segment_bytes=4_000)
    story.cluster._setting = story.cluster._setting._replace(compaction=often)


def compact_seldom(story: Story) -> None:
    """Nodes that begin from now on keep all entries."""
    story.cluster._setting = story.cluster._setting._replace(compaction=CompactionSettings())


def forget(story: Story, last: Callable[[], int]) -> None:
    """Whoever leads writes until it has forgotten all up to the `last` that another one has."""

    def is_forgotten() -> bool:
        return any(life.log._journal.first_index > last() for life in story.clients.leaders())

    for _ in range(20):
        story.clients.run_many(60)
        until(story, 0.3, is_forgotten)
        if is_forgotten():
            return
    raise AssertionError("nothing was forgotten")


def read_at_a_leader_that_slept(story: Story) -> None:
    """A leader stands still; others lead and write; reads that it was asked meanwhile are answered as it wakes."""
    story.form()
    for _ in range(4):
        leader = leader_of(story)
        leader.loop.pause(3.0)
        isolate(story, leader.name)
        for step in range(20):
            story.cluster.conductor.after(0.001 + 0.14 * step, story.clients.read_at, leader)
        story.cluster.run(3.5)
        story.cluster.network.heal()
        story.cluster.run(2.0)


def form_twice(story: Story) -> None:
    """Two of three are there; then one has lost its disk, the other is down, and the third comes."""
    cluster = story.cluster
    story.load()
    cluster.boot("n1")
    cluster.boot("n2")
    cluster.run(4.0)
    cluster.kill("n1")
    cluster.kill("n2")
    disk = cluster.disks["n1"]
    disk.files.clear()
    disk.rewrites += 1
    cluster.boot("n1")
    cluster.boot("n3")
    cluster.run(4.0)


def deaf_leaders(story: Story) -> None:
    """What a leader sends arrives, but it hears nothing: others commit what it can only call unknown."""
    story.form()
    for _ in range(4):
        leader = leader_of(story).name
        for other in story.cluster.names:
            if other != leader:
                story.cluster.network.cut(other, leader)
        story.cluster.run(7.0)
        story.cluster.network.heal()
        story.cluster.run(2.0)


def a_wiped_voter(story: Story) -> None:
    """Of what a leader and one other hold, the other has lost its disk; the leader is down, and the third comes."""
    cluster = story.cluster
    story.form()
    leader, (late, wiped) = leader_of(story).name, followers_of(story)
    cluster.kill(late)
    story.clients.run_many(40)
    cluster.run(0.5)
    cluster.kill(wiped)
    cluster.kill(leader)
    disk = cluster.disks[wiped]
    cluster.checks.durable[wiped].read()
    disk.is_aside = True
    kept, disk.files = disk.files, {}
    cluster.may_fail.add(wiped)
    cluster.boot(late)
    cluster.boot(wiped)
    cluster.run(4.0)
    cluster.kill(wiped)
    disk.files, disk.is_aside = kept, False
    cluster.may_fail.discard(wiped)
    cluster.boot(leader)
    cluster.boot(wiped)
    cluster.run(2.0)


def flip_bits(story: Story) -> None:
    """One node after the other is stopped, a bit of its old bytes rots, and it starts again."""
    story.form()
    for _ in range(6):
        story.faults.damage.flipped_bit()
        story.cluster.run(2.5)


def spoil_a_record(story: Story) -> None:
    """A record of a follower is changed in its memory; it starts again once it has found that out."""
    form_calmly(story)
    cluster, name = story.cluster, followers_of(story)[0]
    life = cluster.lives[name]
    cluster.may_fail.add(name)
    cluster.checks.spoilt.add(name)
    state = life.machine.state
    state.nodes[name].http = "spoilt"
    state.touch(state.nodes[name])
    until(story, 20.0, lambda: life.loop.is_dead)
    if life.loop.is_dead:
        cluster.may_fail.discard(name)
        cluster.checks.spoilt.discard(name)


def rot_snapshots(story: Story) -> None:
    """One node after the other is stopped, a bit of its newest snapshot rots, and it starts again."""
    compact_often(story)
    story.form()
    for _ in range(12):
        story.faults.damage.rotten_snapshot()
        story.cluster.run(1.5)


def upgrade_the_leader(story: Story) -> None:
    """One node goes on with a later release, and leads; the others read what it writes."""
    story.form()
    leader, name = leader_of(story).name, followers_of(story)[0]
    story.cluster.releases[name] = LATER
    story.cluster.lives[name].end()
    story.cluster.run(2.0)
    story.cluster.lives[leader].loop.create_task(story.cluster.lives[leader].log.transfer(name))
    story.cluster.run(5.0)


def restart_with_a_stale_tail(story: Story) -> None:
    """A leader is cut off with entries that nobody else has, is killed, and starts again under another one."""
    story.form()
    seam.BATCH_ENTRIES = 3
    for _ in range(3):
        leader = leader_of(story).name
        isolate(story, leader)
        story.cluster.run(0.6)
        story.cluster.kill(leader)
        story.cluster.run(2.0)
        story.cluster.network.heal()
        story.cluster.boot(leader)
        story.cluster.run(2.0)


def differ_by_several_batches(story: Story) -> None:
    """A leader is cut off with several batches that nobody else has, and starts again where others stand instead.

    No client is left by then: without the mend each entry more would be refused, and sent again, more often still.
    """
    cluster = story.cluster
    compact_seldom(story)
    form_calmly(story)
    story._is_loaded = False
    seam.BATCH_ENTRIES = 3
    leader = leader_of(story).name
    isolate(story, leader)
    story.clients.run_many(10)
    cluster.run(0.6)
    cluster.kill(leader)
    cluster.run(2.0)
    story.clients.run_many(10)
    cluster.run(0.5)
    story.clients.delete_all()
    until(story, 15.0, lambda: all(run.state in ENDED for run in leader_of(story).machine.state.runs.values()))
    cluster.network.heal()
    cluster.boot(leader)


def stand_and_be_cut_off(story: Story) -> None:
    """A node has won its pre-votes and stored the new term; then nobody hears its request for votes."""
    cluster = story.cluster
    story.form()
    name = followers_of(story)[0]
    isolate(story, name)
    stand(cluster, name)
    cluster.run(0.02)
    lose(story, name)
    cluster.run(0.02)
    cluster.network.heal()


def vote_twice(story: Story, meanwhile: Callable[[str], None] = lambda _voter: None) -> None:
    """A node votes, dies before it hears of the one it has elected, and is asked by another one in the same term.

    What is to happen `meanwhile` does before it is started again.
    """
    cluster = story.cluster
    story.form()
    leader = leader_of(story).name
    one, voter = followers_of(story)
    cluster.network.cut(leader, one)
    cluster.network.cut(one, leader)
    log = cluster.lives[voter].log
    term = log._core.term + 1
    stand(cluster, one)
    until(story, 0.05, lambda: log._core.term == term, 0.00005)
    cluster.run(0.0)
    cluster.network.cut(one, voter)
    until(story, 0.05, lambda: cluster.lives[one].log._core.is_leader, 0.00005)
    cluster.network.cut(voter, one)
    cluster.kill(voter)
    meanwhile(voter)
    former = cluster.lives[leader].log
    until(story, 2.0, lambda: not former._core.is_leader)
    cluster.boot(voter)
    until(story, 1.0, lambda: former._transport.connected(voter), 0.0005)
    stand(cluster, leader)
    cluster.run(0.3)


def a_vote_rots(story: Story) -> None:
    """The same, and a bit of the vote is another one: the node does not start until it is put right."""
    cluster = story.cluster

    def rot(voter: str) -> None:
        disk = cluster.disks[voter]
        path = max(path for path in disk.files if path.parent == JOURNAL)
        data = memoryview(bytes(disk.files[path].durable))
        header = segment.decode_header(bytes(data[: segment.HEADER_BYTES]))
        assert header is not None
        *_, offset = [at for at, kind, _ in segment.records(data, len(data), header.salt) if kind == segment.Kind.VOTE]
        cluster.checks.durable[voter].read()
        disk.is_aside = True
        cluster.may_fail.add(voter)
        story.faults._held.add(voter)  # nobody else starts it
        disk.flip(path, offset + segment.RECORD_BYTES, 0)
        cluster.conductor.after(4.0, put_right, voter, path, offset + segment.RECORD_BYTES)

    def put_right(voter: str, path: Path, offset: int) -> None:
        disk = cluster.disks[voter]
        disk.flip(path, offset, 0)
        disk.is_aside = False
        story.faults._held.discard(voter)
        cluster.forgive(voter)
        cluster.boot(voter)

    vote_twice(story, rot)
    cluster.run(4.0)


def win_and_die(story: Story) -> None:
    """A node is elected by its own vote and another one, dies at once, and is asked for its vote in that very term."""
    cluster, network = story.cluster, story.cluster.network
    story.form()
    leader = leader_of(story).name
    one, voter = followers_of(story)
    life, former = cluster.lives[one], cluster.lives[leader].log
    hello = former._transport.hello_of(one)
    isolate(story, leader)
    life.log._core._host = replace(life.log._core._host, elected=lambda: life.loop.pause(1.0))  # it writes no more
    stand(cluster, one)
    until(story, 0.05, lambda: life.log._core.is_leader, 0.00005)
    cluster.kill(one)
    isolate(story, voter)
    until(story, 2.0, lambda: not former._core.is_leader)
    network.cuts -= {(leader, one), (one, leader)}
    cluster.boot(one)
    until(story, 2.0, lambda: former._transport.hello_of(one) not in {None, hello}, 0.0005)
    stand(cluster, leader)
    cluster.run(0.3)


def stand(cluster: Cluster, name: str) -> None:
    """As if it had all pre-votes."""
    log = cluster.lives[name].log
    log._core.start_election()
    log._kick()


def snapshot_over_what_is_pending(story: Story) -> None:
    """What a deaf leader sent is committed by others, and forgotten, before it hears of it by a snapshot."""
    compact_often(story)
    story.form()
    for _ in range(3):
        life = leader_of(story)
        for other in story.cluster.names:
            if other != life.name:
                story.cluster.network.cut(other, life.name)
        until(story, 3.0, lambda life=life: any(one is not life for one in story.clients.leaders()))  # type: ignore[misc]
        lose(story, life.name)
        forget(story, lambda life=life: life.log._journal.last_index)  # type: ignore[misc]
        story.cluster.network.heal()
        story.cluster.run(2.0)


def offer_to_a_stale_tail(story: Story) -> None:
    """A leader is cut off with many entries that nobody else has; the others forget all that it lacks."""
    compact_often(story)
    story.form()
    life = leader_of(story)
    lose(story, life.name)
    story.clients.run_many(100)
    story.cluster.run(2.0)
    forget(story, lambda: life.log._journal.last_index)
    story.cluster.network.heal()
    story.cluster.run(2.0)


def offer_of_what_is_held(story: Story) -> None:
    """One of two that hold all starts again, and is offered a snapshot that its log covers; the third is away."""
    compact_often(story)
    cluster = story.cluster
    story.form()
    away, held = followers_of(story)
    for _ in range(6):
        leader = leader_of(story)
        cluster.kill(away)
        cluster.run(1.0)
        cluster.kill(held)
        _doubt(leader, held)
        cluster.boot(held)
        cluster.run(1.0)
        cluster.boot(away)
        cluster.run(2.0)


def _doubt(leader: Life, name: str) -> None:
    """A leader knows nothing of what the node holds, as if it had just been elected and gone back all the way."""
    core = leader.log._core
    node = core._peers[name]
    core._SyncObj__raftMatchIndex[node] = 0
    core._SyncObj__raftNextIndex[node] = 1


def death_before_an_install(story: Story) -> None:
    """A node has a whole snapshot on its disk, and dies before its log joins it."""
    compact_often(story)
    story.form()
    name = followers_of(story)[0]
    last = story.cluster.lives[name].log._journal.last_index
    story.cluster.kill(name)
    forget(story, lambda: last)
    install = engine.Engine._install
    died: list[Any] = []

    def dies(self: Any, *snapshot: Any) -> None:
        if died:
            install(self, *snapshot)
        else:
            died.append(self)
            raise ProcessDied("with a snapshot that is not installed")

    engine.Engine._install = dies  # type: ignore[method-assign, assignment]
    try:
        story.cluster.boot(name)
        story.cluster.run(3.0)
    finally:
        engine.Engine._install = install  # type: ignore[method-assign]
    assert died, "no snapshot came"
    story.cluster.run(2.0)


def commit_with_a_learner(story: Story) -> None:
    """Of two voters one is away; the other has only a learner."""
    cluster, operator = story.cluster, story.faults.operator
    story.form()
    operator.remove(followers_of(story)[0])
    until(story, 15.0, lambda: not operator.is_busy)
    enough, membership.CAUGHT_UP_ENTRIES = membership.CAUGHT_UP_ENTRIES, -(10**9)  # it goes on learning
    try:
        operator.add("n4")
        until(story, 15.0, lambda: "n4" in leader_of(story).log._membership.learners)
        cluster.run(0.5)
        isolate(story, followers_of(story)[0])
        for name in cluster.names:
            for other in cluster.names:
                if {name, other} == {"n4", leader_of(story).name}:
                    cluster.network.cuts.discard((name, other))
        cluster.run(3.0)
    finally:
        membership.CAUGHT_UP_ENTRIES = enough
    cluster.network.heal()
    cluster.run(2.0)


def change_twice_at_once(story: Story) -> None:
    """A leader that is cut off is asked for two changes of the members."""
    story.form()
    life = leader_of(story)
    name = followers_of(story)[0]
    isolate(story, life.name)
    life.loop.create_task(_refused(life.log.add("n4", (story.cluster.network.hosts["n4"].address, PORT), "", 0)))
    story.cluster.run(0.1)
    life.loop.create_task(_refused(life.log.remove(name)))
    story.cluster.run(0.3)


def resend_to_who_holds_it(story: Story) -> None:
    """On a slow link a lagging node refuses many batches before it is heard; it is cut off as it loses an entry."""
    cluster = story.cluster
    compact_seldom(story)
    story.form()
    seam.BATCH_ENTRIES = 3
    former = leader_of(story).name
    leads, lags = followers_of(story)
    lose(story, lags)
    cluster.network.cut(leads, former)
    story.clients.run_many(30)
    cluster.run(0.1)
    cluster.kill(former)
    cluster.network.heal()
    log, most = cluster.lives[lags].log, 0
    until(story, 2.0, lambda: log._transport.connected(leads), 0.0005)
    cluster.network.slow[leads, lags] = cluster.network.slow[lags, leads] = 0.15
    stand(cluster, leads)

    def has_lost() -> bool:
        nonlocal most
        most = max(most, log._core.last_index)
        return log._core.last_index < most

    until(story, 1.0, has_lost, 0.00005)
    cluster.network.cut(leads, lags)
    cluster.run(0.4)
    cluster.network.heal()
    cluster.boot(former)
    cluster.run(2.0)


def answer_of_an_earlier_term(story: Story) -> None:
    """What a node has answered to a leader arrives when that one leads again, and another one has cut it meanwhile."""
    cluster, network = story.cluster, story.cluster.network
    story.form()
    leader = leader_of(story).name
    holder, other, *rest = followers_of(story)
    cores = {name: cluster.lives[name].log._core for name in cluster.names}
    for name in (other, *rest):
        network.cut(leader, name)
        network.cut(name, leader)
    network.cut(holder, leader)
    story.clients.run_many(20)
    cluster.run(0.01)
    stand(cluster, other)
    until(story, 0.05, lambda: cores[other].is_leader, 0.00005)
    for name in rest:
        network.cut(other, name)
    until(story, 0.05, lambda: cores[holder].last_term == cores[other].term, 0.00005)
    isolate(story, other)
    for name in rest:
        network.cuts -= {(leader, name), (name, leader)}
    until(story, 0.3, lambda: not cores[leader].is_leader)
    stand(cluster, leader)
    until(story, 0.1, lambda: cores[leader].is_leader, 0.0005)
    cluster.run(0.01)
    network.heal()
    cluster.run(1.0)


async def _refused(change: Awaitable[int]) -> None:
    with suppress(RaftcronError):
        await change
