"""Courses of events that dice do not find: each brings a cluster to the one place where a certain guard decides.

A script stands in for the drawn faults of a seed; load, checks, healing and quiet are those of every seed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from raftcron.errors import RaftcronError
from raftcron.raft import engine, membership, seam
from raftcron.raft.settings import CompactionSettings
from raftcron.testing.sim_cluster import Cluster
from raftcron.testing.sim_loop import ProcessDied
from raftcron.testing.sim_node import PORT, Life
from raftcron.testing.sim_releases import LATER
from raftcron.testing.sim_story import Story


def _leader(story: Story) -> Life:
    leaders = story.clients.leaders()
    assert leaders, story.cluster.where()
    return max(leaders, key=lambda life: life.log.status().term)


def _isolate(story: Story, name: str) -> None:
    for other in story.cluster.names:
        if other != name:
            story.cluster.network.cut(name, other)
            story.cluster.network.cut(other, name)


def _lose(story: Story, name: str) -> None:
    """Cut off, and what was sent to it or by it and has not arrived never does."""
    _isolate(story, name)
    for other in story.cluster.names:
        if other != name:
            story.cluster.network.sever(name, other)


def _form_calmly(story: Story) -> None:
    """Nobody touches the jobs that fire."""
    story.clients.is_calm = True
    story.form()


def _until(story: Story, seconds: float, is_so: Callable[[], bool], step: float = 0.005) -> None:
    """Let time pass until it is so; not longer than this."""
    end = story.cluster.now + seconds
    while story.cluster.now < end and not is_so():
        story.cluster.run(step)


def _followers(story: Story) -> list[str]:
    leader = _leader(story).name
    return [name for name in story.cluster.names if name != leader]


def _compact_often(story: Story) -> None:
    """Nodes that begin from now on forget entries as soon as they can."""
    often = CompactionSettings(bytes=500, entries=10, kept_entries=0, segment_bytes=4_000)
    story.cluster._setting = story.cluster._setting._replace(compaction=often)


def _compact_seldom(story: Story) -> None:
    """Nodes that begin from now on keep all entries."""
    story.cluster._setting = story.cluster._setting._replace(compaction=CompactionSettings())


def _forget(story: Story, last: Callable[[], int]) -> None:
    """Whoever leads writes until it has forgotten all up to the `last` that another one has."""

    def is_forgotten() -> bool:
        return any(life.log._journal.first_index > last() for life in story.clients.leaders())

    for _ in range(20):
        story.clients.run_many(60)
        _until(story, 0.3, is_forgotten)
        if is_forgotten():
            return
    raise AssertionError("nothing was forgotten")


def _stall_before_start(story: Story, seconds: float, job: str) -> Life:
    """The leader stands still, cut off, between applying that a run of its own is running and starting its code."""
    cluster = story.cluster
    stalled: list[Life] = []

    def applied(life: Life) -> None:
        worker = life.node.worker
        for token in worker._tasks:
            running = worker._running[token]
            run = life.machine.state.runs.get(running.run_id)
            is_next = run is not None and run.job == job and not running.has_started and not running.is_refused
            if is_next and not stalled and life.log.leading_epoch is not None:
                stalled.append(life)
                life.loop.pause(seconds)
                _isolate(story, life.name)
                cluster.note("-", f"{life.name} stands still before the start of {running.run_id}")

    cluster.applied = applied
    _until(story, 20, lambda: bool(stalled))
    assert stalled, f"no run of {job} was about to start"
    return stalled[0]


def read_at_a_leader_that_slept(story: Story) -> None:
    """A leader stands still; others lead and write; reads that it was asked meanwhile are answered as it wakes."""
    story.form()
    for _ in range(4):
        leader = _leader(story)
        leader.loop.pause(3.0)
        _isolate(story, leader.name)
        for step in range(20):
            story.cluster.conductor.after(0.001 + 0.14 * step, story.clients.read_at, leader)
        story.cluster.run(3.5)
        story.cluster.network.heal()
        story.cluster.run(2.0)


def start_after_a_stall(story: Story) -> None:
    """A leader stalls before a start until its run was lost and is tried elsewhere."""
    _form_calmly(story)
    _stall_before_start(story, 6.0, "every-b")
    story.cluster.run(9.0)


def isolation_of_a_leader_at_work(story: Story) -> None:
    """Leaders are cut off from everybody while their runs take long, for longer than a lease."""
    _form_calmly(story)
    for _ in range(4):
        _isolate(story, _leader(story).name)
        story.cluster.run(8.0)
        story.cluster.network.heal()
        story.cluster.run(3.0)


def start_after_a_late_refusal(story: Story) -> None:
    """A leader stalls before a start past the start deadline, then the time that it trusts is set back."""
    _form_calmly(story)
    life = _stall_before_start(story, 5.6, "every-d")
    story.cluster.run(5.65)
    assert life.time.ahead_ms is not None
    life.time.ahead_ms -= 3_000  # as if a majority had agreed on less
    story.cluster.run(3.0)


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
        leader = _leader(story).name
        for other in story.cluster.names:
            if other != leader:
                story.cluster.network.cut(other, leader)
        story.cluster.run(7.0)
        story.cluster.network.heal()
        story.cluster.run(2.0)


def restart_in_the_midst(story: Story) -> None:
    """Leaders are killed right after their runs began, and start anew at once."""
    story.form()
    for _ in range(12):
        leader = _leader(story)
        _until(story, 3.0, lambda leader=leader: bool(leader.machine.state.on_node.get(leader.name)))  # type: ignore[misc]
        story.cluster.kill(leader.name)
        story.cluster.boot(leader.name)
        story.cluster.run(2.5)


def replace_in_the_midst(story: Story) -> None:
    """Leaders that run something lose their disks, and are replaced before their leases end."""
    story.form()
    for _ in range(4):
        leader = _leader(story)
        _until(story, 3.0, lambda leader=leader: bool(leader.machine.state.on_node.get(leader.name)))  # type: ignore[misc]
        story.faults.operator.replace(leader.name)
        _until(story, 12.0, lambda: not story.faults.operator.is_busy)
        story.cluster.run(2.0)


def a_wiped_voter(story: Story) -> None:
    """Of what a leader and one other hold, the other has lost its disk; the leader is down, and the third comes."""
    cluster = story.cluster
    story.form()
    leader, (late, wiped) = _leader(story).name, _followers(story)
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
    _form_calmly(story)
    cluster, name = story.cluster, _followers(story)[0]
    life = cluster.lives[name]
    cluster.may_fail.add(name)
    cluster.checks.spoilt.add(name)
    state = life.machine.state
    state.nodes[name].http = "spoilt"
    state.touch(state.nodes[name])
    _until(story, 20.0, lambda: life.loop.is_dead)
    if life.loop.is_dead:
        cluster.may_fail.discard(name)
        cluster.checks.spoilt.discard(name)


def rot_snapshots(story: Story) -> None:
    """One node after the other is stopped, a bit of its newest snapshot rots, and it starts again."""
    _compact_often(story)
    story.form()
    for _ in range(12):
        story.faults.damage.rotten_snapshot()
        story.cluster.run(1.5)


def upgrade_the_leader(story: Story) -> None:
    """One node goes on with a later release, and leads; the others read what it writes."""
    story.form()
    leader, name = _leader(story).name, _followers(story)[0]
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
        leader = _leader(story).name
        _isolate(story, leader)
        story.cluster.run(0.6)
        story.cluster.kill(leader)
        story.cluster.run(2.0)
        story.cluster.network.heal()
        story.cluster.boot(leader)
        story.cluster.run(2.0)


def stand_and_be_cut_off(story: Story) -> None:
    """A node has won its pre-votes and stored the new term; then nobody hears its request for votes."""
    cluster = story.cluster
    story.form()
    name = _followers(story)[0]
    _isolate(story, name)
    _stand(cluster, name)
    cluster.run(0.02)
    _lose(story, name)
    cluster.run(0.02)
    cluster.network.heal()


def vote_twice(story: Story) -> None:
    """A node votes, dies before it hears of the one it has elected, and is asked by another one in the same term."""
    cluster = story.cluster
    story.form()
    leader = _leader(story).name
    one, voter = _followers(story)
    cluster.network.cut(leader, one)
    cluster.network.cut(one, leader)
    log = cluster.lives[voter].log
    term = log._core.term + 1
    _stand(cluster, one)
    _until(story, 0.05, lambda: log._core.term == term, 0.00005)
    cluster.run(0.0)
    cluster.network.cut(one, voter)
    _until(story, 0.05, lambda: cluster.lives[one].log._core.is_leader, 0.00005)
    cluster.network.cut(voter, one)
    cluster.kill(voter)
    former = cluster.lives[leader].log
    _until(story, 2.0, lambda: not former._core.is_leader)
    cluster.boot(voter)
    _until(story, 1.0, lambda: former._transport.connected(voter), 0.0005)
    _stand(cluster, leader)
    cluster.run(0.3)


def win_and_die(story: Story) -> None:
    """A node is elected by its own vote and another one, dies at once, and is asked for its vote in that very term."""
    cluster, network = story.cluster, story.cluster.network
    story.form()
    leader = _leader(story).name
    one, voter = _followers(story)
    life, former = cluster.lives[one], cluster.lives[leader].log
    hello = former._transport.hello_of(one)
    _isolate(story, leader)
    life.log._core._host = replace(life.log._core._host, elected=lambda: life.loop.pause(1.0))  # it writes no more
    _stand(cluster, one)
    _until(story, 0.05, lambda: life.log._core.is_leader, 0.00005)
    cluster.kill(one)
    _isolate(story, voter)
    _until(story, 2.0, lambda: not former._core.is_leader)
    network.cuts -= {(leader, one), (one, leader)}
    cluster.boot(one)
    _until(story, 2.0, lambda: former._transport.hello_of(one) not in {None, hello}, 0.0005)
    _stand(cluster, leader)
    cluster.run(0.3)


def _stand(cluster: Cluster, name: str) -> None:
    """As if it had all pre-votes."""
    log = cluster.lives[name].log
    log._core.start_election()
    log._kick()


def snapshot_over_what_is_pending(story: Story) -> None:
    """What a deaf leader sent is committed by others, and forgotten, before it hears of it by a snapshot."""
    _compact_often(story)
    story.form()
    for _ in range(3):
        life = _leader(story)
        for other in story.cluster.names:
            if other != life.name:
                story.cluster.network.cut(other, life.name)
        _until(story, 3.0, lambda life=life: any(one is not life for one in story.clients.leaders()))  # type: ignore[misc]
        _lose(story, life.name)
        _forget(story, lambda life=life: life.log._journal.last_index)  # type: ignore[misc]
        story.cluster.network.heal()
        story.cluster.run(2.0)


def offer_to_a_stale_tail(story: Story) -> None:
    """A leader is cut off with many entries that nobody else has; the others forget all that it lacks."""
    _compact_often(story)
    story.form()
    life = _leader(story)
    _lose(story, life.name)
    story.clients.run_many(100)
    story.cluster.run(2.0)
    _forget(story, lambda: life.log._journal.last_index)
    story.cluster.network.heal()
    story.cluster.run(2.0)


def offer_of_what_is_held(story: Story) -> None:
    """One of two that hold all starts again, and is offered a snapshot that its log covers; the third is away."""
    _compact_often(story)
    cluster = story.cluster
    story.form()
    away, held = _followers(story)
    for _ in range(6):
        leader = _leader(story)
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
    _compact_often(story)
    story.form()
    name = _followers(story)[0]
    last = story.cluster.lives[name].log._journal.last_index
    story.cluster.kill(name)
    _forget(story, lambda: last)
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
    operator.remove(_followers(story)[0])
    _until(story, 15.0, lambda: not operator.is_busy)
    enough, membership.CAUGHT_UP_ENTRIES = membership.CAUGHT_UP_ENTRIES, -(10**9)  # it goes on learning
    try:
        operator.add("n4")
        _until(story, 15.0, lambda: "n4" in _leader(story).log._membership.learners)
        cluster.run(0.5)
        _isolate(story, _followers(story)[0])
        for name in cluster.names:
            for other in cluster.names:
                if {name, other} == {"n4", _leader(story).name}:
                    cluster.network.cuts.discard((name, other))
        cluster.run(3.0)
    finally:
        membership.CAUGHT_UP_ENTRIES = enough
    cluster.network.heal()
    cluster.run(2.0)


def change_twice_at_once(story: Story) -> None:
    """A leader that is cut off is asked for two changes of the members."""
    story.form()
    life = _leader(story)
    name = _followers(story)[0]
    _isolate(story, life.name)
    life.loop.create_task(_refused(life.log.add("n4", (story.cluster.network.hosts["n4"].address, PORT), "", 0)))
    story.cluster.run(0.1)
    life.loop.create_task(_refused(life.log.remove(name)))
    story.cluster.run(0.3)


def resend_to_who_holds_it(story: Story) -> None:
    """On a slow link a lagging node refuses many batches before it is heard; it is cut off as it loses an entry."""
    cluster = story.cluster
    _compact_seldom(story)
    story.form()
    seam.BATCH_ENTRIES = 3
    former = _leader(story).name
    leads, lags = _followers(story)
    _lose(story, lags)
    cluster.network.cut(leads, former)
    story.clients.run_many(30)
    cluster.run(0.1)
    cluster.kill(former)
    cluster.network.heal()
    log, most = cluster.lives[lags].log, 0
    _until(story, 2.0, lambda: log._transport.connected(leads), 0.0005)
    cluster.network.slow[leads, lags] = cluster.network.slow[lags, leads] = 0.15
    _stand(cluster, leads)

    def has_lost() -> bool:
        nonlocal most
        most = max(most, log._core.last_index)
        return log._core.last_index < most

    _until(story, 1.0, has_lost, 0.00005)
    cluster.network.cut(leads, lags)
    cluster.run(0.4)
    cluster.network.heal()
    cluster.boot(former)
    cluster.run(2.0)


def answer_of_an_earlier_term(story: Story) -> None:
    """What a node has answered to a leader arrives when that one leads again, and another one has cut it meanwhile."""
    cluster, network = story.cluster, story.cluster.network
    story.form()
    leader = _leader(story).name
    holder, other, *rest = _followers(story)
    cores = {name: cluster.lives[name].log._core for name in cluster.names}
    for name in (other, *rest):
        network.cut(leader, name)
        network.cut(name, leader)
    network.cut(holder, leader)
    story.clients.run_many(20)
    cluster.run(0.01)
    _stand(cluster, other)
    _until(story, 0.05, lambda: cores[other].is_leader, 0.00005)
    for name in rest:
        network.cut(other, name)
    _until(story, 0.05, lambda: cores[holder].last_term == cores[other].term, 0.00005)
    _isolate(story, other)
    for name in rest:
        network.cuts -= {(leader, name), (name, leader)}
    _until(story, 0.3, lambda: not cores[leader].is_leader)
    _stand(cluster, leader)
    _until(story, 0.1, lambda: cores[leader].is_leader, 0.0005)
    cluster.run(0.01)
    network.heal()
    cluster.run(1.0)


async def _refused(change: Awaitable[int]) -> None:
    with suppress(RaftcronError):
        await change


YEAR_SECONDS = 365 * 86_400.0
STALE_SECONDS = 8.0  # longer than a clock that was read counts


def leader_jumps_a_year(story: Story) -> None:
    """One leader's clock after the other steps a year ahead, and back."""
    story.form()
    for _ in range(2):
        leader = _leader(story).name
        story.faults.wrong_clocks.set(leader, YEAR_SECONDS)
        story.cluster.run(5.0)
        story.faults.wrong_clocks.set(leader, 0.0)
        story.cluster.run(2.0)


def two_voters_differ(story: Story) -> None:
    """One is away for so long that its clock is forgotten; then that of the leader steps a year ahead."""
    story.form()
    leader, away = _leader(story).name, _followers(story)[0]
    story.cluster.kill(away)
    story.cluster.run(STALE_SECONDS)
    story.faults.wrong_clocks.set(leader, YEAR_SECONDS)
    story.cluster.run(10.0)


def two_clocks_one_after_the_other(story: Story) -> None:
    """One that was a year ahead has been away for long; then the leader's clock shows the same."""
    story.form()
    leader, away = _leader(story).name, _followers(story)[0]
    story.faults.wrong_clocks.set(away, YEAR_SECONDS)
    story.cluster.run(3.0)
    story.cluster.kill(away)
    story.cluster.run(STALE_SECONDS)
    story.faults.wrong_clocks.set(leader, YEAR_SECONDS)
    story.cluster.run(5.0)


def start_with_two_that_differ(story: Story) -> None:
    """All end; two of three start again, of which one is a year ahead, and each of them leads for a while."""
    cluster = story.cluster
    story.form()
    for name in cluster.names:
        cluster.kill(name)
    ahead, right, away = cluster.names
    story.faults.wrong_clocks.set(ahead, YEAR_SECONDS)
    cluster.boot(ahead)
    cluster.boot(right)
    for _ in range(4):
        cluster.run(4.0)
        for life in story.clients.leaders():
            other = right if life.name == ahead else ahead
            life.loop.create_task(_given(life, other))
    cluster.boot(away)
    cluster.run(3.0)


async def _given(life: Life, other: str) -> None:
    with suppress(RaftcronError):
        await life.log.transfer(other)


def lone_node_jumps_a_year(story: Story) -> None:
    """The only node's clock steps ahead while it runs, and it starts again with it; then the clock is set."""
    story.form()
    [name] = story.cluster.names
    story.faults.wrong_clocks.set(name, YEAR_SECONDS)
    story.cluster.run(5.0)
    story.cluster.kill(name)
    story.cluster.boot(name)
    story.cluster.run(5.0)


def nothing_happens(story: Story) -> None:
    """All is well."""
    story.form()
    story.cluster.run(10.0)
