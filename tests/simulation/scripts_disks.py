"""Courses of events that dice do not find, where a disk has another content than its node believes; see scripts.py."""

from __future__ import annotations

from raftcron.raft import membership
from raftcron.testing.chance import chance
from raftcron.testing.sim_copies import ALL_SECONDS, OldCopies
from raftcron.testing.sim_story import Story
from raftcron.testing.sim_writes import FlippedWrites
from tests.simulation.scripts import (
    compact_often,
    compact_seldom,
    followers_of,
    form_calmly,
    isolate,
    leader_of,
    until,
)


def flip_bits_alone(story: Story) -> None:
    """One node after the other is stopped, a bit of its one segment rots, and it starts again; nobody hears anybody."""
    compact_seldom(story)
    story.form()
    for _ in range(4):
        for name in story.cluster.names:
            isolate(story, name)
        story.faults.damage.flipped_bit()
        story.cluster.run(1.0)
        story.cluster.network.heal()
        story.cluster.run(2.0)


def wipe_the_leaders_disk(story: Story) -> None:
    """One leader after the other comes back with an empty directory, in a term that it has not seen."""
    story.form()
    story.faults.damage._someone = lambda: leader_of(story).name
    for _ in range(3):
        story.faults.damage.wiped_disk()
        story.cluster.run(6.0)


def set_a_disk_back(story: Story) -> None:
    """One node's disk is set back by one life."""
    form_calmly(story)
    faults, cluster = story.faults, story.cluster
    copies = OldCopies(
        cluster,
        chance(cluster.seed, "copies"),
        faults._held,
        faults.operator,
        latest=cluster.now + ALL_SECONDS + 0.1,
        someone=faults._someone,
        happened=faults._happened,
        up_later=faults._up_later,
    )
    copies.set_back()
    cluster.run(8.0)
    until(story, 40.0, lambda: not faults._held and not faults.operator.is_busy)


def a_replaced_disk_comes_back(story: Story) -> None:
    """A disk is replaced; all stop, and its old machine starts beside the one member that lacks what came since."""
    form_calmly(story)
    cluster, operator = story.cluster, story.faults.operator
    leader, (late, name) = leader_of(story).name, followers_of(story)
    cluster.kill(name)
    disk = cluster.disks[name]
    old = disk.copy()
    operator.replace(name)
    until(story, 20.0, lambda: not operator.is_busy)
    cluster.kill(late)
    story.clients.run_many(40)
    cluster.run(0.5)
    cluster.kill(name)
    cluster.kill(leader)
    cluster.checks.durable[name].read()
    new = disk.copy()
    disk.set_back(old)
    disk.is_aside = True
    cluster.leaving.add(name)
    cluster.boot(late)
    cluster.boot(name)
    cluster.run(4.0)
    cluster.kill(name)
    disk.set_back(new)
    cluster.leaving.discard(name)
    cluster.boot(leader)
    cluster.boot(name)
    cluster.run(2.0)


def flip_writes(story: Story) -> None:
    """Again and again a bit of what a node writes, to its journal or as a snapshot, arrives as the other one."""
    compact_often(story)
    _flip_writes(story)


def flip_writes_of_one_segment(story: Story) -> None:
    """As `flip_writes`, and the journal is the one segment that is written."""
    compact_seldom(story)
    _flip_writes(story)


def _flip_writes(story: Story) -> None:
    story.form()
    faults = story.faults
    writes = FlippedWrites(
        story.cluster,
        chance(story.cluster.seed, "writes"),
        faults._held,
        faults.operator,
        someone=faults._someone,
        happened=faults._happened,
        up_later=faults._up_later,
    )
    for _ in range(8):
        writes.flip()
        story.cluster.run(3.0)


def end_together(story: Story) -> None:
    """What was acknowledged is the last entry of all logs; then all nodes die, and start again cut off."""
    cluster = story.cluster
    form_calmly(story)
    story._is_loaded = False
    story.clients.delete_all()
    until(story, 10.0, lambda: not leader_of(story).machine.state.jobs)
    cluster.run(5.0)
    story.clients.write_still()
    cluster.run(1.0)
    for name in cluster.names:
        cluster.kill(name)
        isolate(story, name)
    for name in cluster.names:
        cluster.boot(name)
    cluster.run(2.0)


def promote_two(story: Story) -> None:
    """Two members join; the first one learns for so long that it does not vote before the other could."""
    cluster, operator = story.cluster, story.faults.operator
    story.form()
    operator.remove(followers_of(story)[0])  # there is one machine to spare
    until(story, 15.0, lambda: not operator.is_busy)
    enough, membership.CAUGHT_UP_ENTRIES = membership.CAUGHT_UP_ENTRIES, -(10**9)  # they go on learning
    try:
        for number, name in enumerate(list(cluster.spare), 1):
            operator.add(name)
            until(story, 15.0, lambda number=number: len(leader_of(story).log._membership.learners) == number)  # type: ignore[misc]
        cluster.run(0.5)
    finally:
        membership.CAUGHT_UP_ENTRIES = enough
    cluster.run(2.0)
