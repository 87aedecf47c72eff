"""Writes that arrive as something else: a bit of what a node writes is the other one on its disk, and nobody is told.

In a snapshot the node has to find that out before it counts.  In the journal it shows when the node starts again: what
synced records follow is refused, and so is a vote.  What was synced last cannot be told from a torn write, and is cut
off; so the node dies at once only where all others hold what it held.  Nothing acknowledged may be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from raftcron.errors import DamagedError
from raftcron.testing import sim_checks
from raftcron.testing.chance import Chance
from raftcron.testing.sim_copies import is_held_by_all_others
from raftcron.testing.sim_members import FEWEST_VOTERS, Operator
from raftcron.testing.sim_node import JOURNAL, SNAPSHOTS

if TYPE_CHECKING:
    from raftcron.testing.sim_cluster import Cluster
    from raftcron.testing.sim_disk import Flip
    from raftcron.testing.sim_node import Life

LOOK_SECONDS = 0.001  # a batch is the last one for some milliseconds
SNAPSHOT_LOOK_SECONDS = 0.02
WRITE_SECONDS = 3.0  # until something is written, and may be lost
SNAPSHOT_SECONDS = 15.0  # until one is written
SNAPSHOT_SHARE = 0.4
LAST_SHARE = 0.6  # of those in a journal: nothing shall follow


class FlippedWrites:
    """Flips bits, one at a time.  `held` are the machines that nobody else may start."""

    def __init__(
        self,
        cluster: Cluster,
        dice: Chance,
        held: set[str],
        operator: Operator,
        *,
        someone: Callable[[], str | None],
        happened: Callable[[str, str, str], None],
        up_later: Callable[[str, float], None],
    ) -> None:
        self._cluster = cluster
        self._dice = dice
        self._held = held
        self._operator = operator
        self._someone = someone
        self._happened = happened
        self._up_later = up_later

    def flip(self) -> None:
        """In what a node writes next, of its journal or of a snapshot."""
        cluster, name = self._cluster, self._someone()
        if name is None or self._held or self._operator.is_busy or len(cluster.names) < FEWEST_VOTERS:
            return
        life, disk = cluster.lives[name], cluster.disks[name]
        if not life.is_started or not life.node.is_ready or disk.is_aside or disk.flips_next is not None:
            return
        if disk.rotten is not None:  # what its next life refuses would be the rot, and the last batch gone beside it
            return
        if self._dice.random() < SNAPSHOT_SHARE:
            self._happened("flipped write", name, "of a snapshot")
            disk.flipped, disk.flips_next = None, SNAPSHOTS
            self._until_flipped(name, life, cluster.now + SNAPSHOT_SECONDS)
        else:
            is_last = self._dice.random() < LAST_SHARE
            self._happened("flipped write", name, "that is the last" if is_last else "that others follow")
            self._held.add(name)
            disk.flipped, disk.flips_next = None, JOURNAL
            self._until_written(name, life, is_last, cluster.now + WRITE_SECONDS)

    # ---- snapshots

    def _until_flipped(self, name: str, life: Life, latest: float) -> None:
        cluster, disk = self._cluster, self._cluster.disks[name]
        if disk.flips_next != SNAPSHOTS:
            flip, disk.flipped = disk.flipped, None  # nothing is put right, nor as it was meant
            if flip is not None:  # else its machine has another disk
                self._until_found_out(name, life, flip)
        elif cluster.now > latest:
            disk.flips_next = None
        else:
            cluster.conductor.after(SNAPSHOT_LOOK_SECONDS, self._until_flipped, name, life, latest)

    def _until_found_out(self, name: str, life: Life, flip: Flip) -> None:
        cluster = self._cluster
        paths = [path for path, file in cluster.disks[name].files.items() if file is flip.file]
        if not paths:
            cluster.counts["flipped writes of snapshots found out"] += cluster.lives.get(name) is life
        elif paths[0].suffix == ".snapshot":
            cluster.checks.fail(sim_checks.FATAL, f"{name} counts on a snapshot that is not what it wrote")
        else:
            cluster.conductor.after(SNAPSHOT_LOOK_SECONDS, self._until_found_out, name, life, flip)

    # ---- the journal

    def _until_written(self, name: str, life: Life, is_last: bool, latest: float) -> None:
        """Until the bit is durable, with or without what shall follow it; then the node dies."""
        cluster = self._cluster
        flip, is_up = cluster.disks[name].flipped, cluster.lives.get(name) is life
        is_late = cluster.now > latest
        if is_up and not is_late and (flip is None or not (is_last or flip.is_followed)):
            pass
        elif flip is not None and (flip.is_followed or is_held_by_all_others(cluster, name)):
            if is_up:
                (cluster.kill if self._dice.random() < 0.5 else cluster.cut_power)(name)
            self._begin_again(name)
            return
        elif not is_up or is_late:
            self._undo(name)
            return
        cluster.conductor.after(LOOK_SECONDS, self._until_written, name, life, is_last, latest)

    def _undo(self, name: str) -> None:
        """It would be more than one node may lose."""
        self._cluster.counts["flipped writes undone"] += 1
        self._cluster.disks[name].flip_back()
        self._held.discard(name)
        self._up_later(name, 0.05)

    def _begin_again(self, name: str) -> None:
        cluster = self._cluster
        flip = cluster.disks[name].flipped
        if flip is None:  # a power cut has taken it
            self._end(name)
            return
        cluster.checks.set_back.add(name)
        cluster.may_fail.add(name)
        cluster.boot(name)
        self._until_judged(name, cluster.lives[name], flip, flip.is_followed)

    def _until_judged(self, name: str, life: Life, flip: Flip, is_followed: bool) -> None:
        """The node has refused what is on its disk, or goes on without the last batch."""
        cluster = self._cluster
        disk, is_up = cluster.disks[name], cluster.lives.get(name) is life
        if isinstance(life.fatal, DamagedError):
            cluster.counts["flipped writes refused"] += 1
            disk.flip_back()
            self._end(name)
        elif not is_up and disk.flipped is not None:  # something else has ended it, before it came so far
            self._begin_again(name)
        elif is_up and not life.is_started:
            cluster.conductor.after(LOOK_SECONDS, self._until_judged, name, life, flip, is_followed)
        elif disk.flipped is flip and any(file is flip.file for file in disk.files.values()):
            cluster.checks.fail(sim_checks.FATAL, f"{name} started with bit {flip.bit} of byte {flip.offset} flipped")
        elif disk.flipped is None and is_followed:
            cluster.checks.fail(sim_checks.FATAL, f"{name} cut off what synced records follow")
        else:
            cluster.counts["flipped writes cut off"] += disk.flipped is None
            disk.flipped = None
            self._until_ready(name)

    def _until_ready(self, name: str) -> None:
        """It has what it has lost from the others, or another life of it has."""
        cluster = self._cluster
        life = cluster.lives.get(name)
        if life is None:
            cluster.boot(name)
        elif life.is_started and life.node.is_ready:
            self._end(name)
            return
        cluster.conductor.after(LOOK_SECONDS * 20, self._until_ready, name)

    def _end(self, name: str) -> None:
        cluster = self._cluster
        cluster.checks.set_back.discard(name)
        cluster.forgive(name)
        self._held.discard(name)
        self._up_later(name, 0.05)
