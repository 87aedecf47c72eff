"""Disks that lose or change what was durable: a flipped bit, a rotten snapshot, a directory that is empty for a while.

Whatever a node makes of that, it must not be a wrong state.  What it cannot go on with is put right again after a
while, so that a seed goes on with all of its nodes; until then the checkers count on what the machine had.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raftcron.testing import sim_checks
from raftcron.testing.chance import Chance
from raftcron.testing.sim_disk import Disk
from raftcron.testing.sim_durable import index_of
from raftcron.testing.sim_node import JOURNAL, SNAPSHOTS

if TYPE_CHECKING:
    from raftcron.testing.sim_cluster import Cluster
    from raftcron.testing.sim_node import Life

MEND_SECONDS = 0.3  # from the start of the process that meets the damage
AGAIN_SECONDS = 0.02  # shorter than a node that refuses stays down: else only its starts might ever be met


class _Rot(NamedTuple):
    """A flipped bit of a snapshot."""

    path: Path
    file: Any
    offset: int
    bit: int


class Damage:
    """What is done to disks.  `held` are the machines that nobody else may start; `up_later` starts one again."""

    def __init__(
        self,
        cluster: Cluster,
        dice: Chance,
        held: set[str],
        *,
        someone: Callable[[], str | None],
        happened: Callable[[str, str], None],
        up_later: Callable[[str, float], None],
    ) -> None:
        self._cluster = cluster
        self._dice = dice
        self._held = held
        self._someone = someone
        self._happened = happened
        self._up_later = up_later
        self._rots: dict[str, _Rot] = {}  # by node that is up, or was when it began

    def flipped_bit(self) -> None:
        """A bit of what was synced long ago rots: the node refuses to start, until the byte is as it was."""
        name = self._someone()
        if name is None:
            return
        disk = self._cluster.disks[name]
        segments = sorted(path for path in disk.files if path.parent == JOURNAL)
        path = segments[0] if segments else None
        if path is None or (len(segments) < 2 and len(disk.files[path].durable) < 4000):
            return
        self._begin("flipped bit", name)
        offset = self._dice.randrange(0, min(2000, len(disk.files[path].durable) // 2))
        bit = self._dice.randrange(8)
        disk.flip(path, offset, bit)
        self._cluster.boot(name)
        self._cluster.conductor.after(MEND_SECONDS, self._mend_bit, name, path, offset, bit)

    def _mend_bit(self, name: str, path: Path, offset: int, bit: int) -> None:
        cluster, life = self._cluster, self._cluster.lives.get(name)
        if life is not None and not life.is_started:  # it cleans up after its former life
            cluster.conductor.after(MEND_SECONDS, self._mend_bit, name, path, offset, bit)
            return
        if life is not None:
            cluster.checks.fail(sim_checks.FATAL, f"{name} started though bit {bit} of byte {offset} has rotted")
            return
        cluster.counts["damage refused"] += 1
        cluster.disks[name].flip(path, offset, bit)
        self._end(name)

    def rotten_snapshot(self) -> None:
        """A bit of the newest snapshot rots: the node starts from an older one, or without, if its log goes as far
        back; else it refuses, until the byte is as it was."""
        name = self._someone()
        if name is None:
            return
        disk = self._cluster.disks[name]
        path = _newest_snapshot(disk)
        if path is None:
            return
        self._begin("rotten snapshot", name)
        file, offset, bit = self._rot(disk, path)
        disk.is_aside = False  # what is written from now on counts, if it starts
        self._cluster.boot(name)
        self._cluster.conductor.after(MEND_SECONDS, self._mend_snapshot, name, file, offset, bit)

    def _rot(self, disk: Disk, path: Path) -> tuple[Any, int, int]:
        """A bit of a snapshot flips; what to flip back."""
        file = disk.files[path]
        offset, bit = self._dice.randrange(0, len(file.durable)), self._dice.randrange(8)
        disk.rotten = path
        disk.flip(path, offset, bit)
        return file, offset, bit

    def _mend_snapshot(self, name: str, file: Any, offset: int, bit: int) -> None:
        cluster = self._cluster
        disk, life = cluster.disks[name], cluster.lives.get(name)
        path = disk.rotten
        assert path is not None
        if life is not None and not life.is_started:  # its disk is slow
            cluster.conductor.after(MEND_SECONDS, self._mend_snapshot, name, file, offset, bit)
            return
        if life is None:
            disk.files.pop(path.with_suffix(".damaged"), None)
            disk.files[path] = file
            disk.flip(path, offset, bit)
        cluster.counts[f"rotten snapshots {'refused' if life is None else 'done without'}"] += 1
        disk.rotten = None
        disk.rewrites += 1
        self._end(name)

    def rotting_snapshot(self) -> None:
        """The same of a node that is up: whoever is given it refuses it, and the node finds out and writes another.

        If nothing comes of it the byte is put right after a while; so it is if the node starts anew and refuses.
        """
        name = self._someone()
        if name is None:
            return
        disk = self._cluster.disks[name]
        path = _newest_snapshot(disk)
        if path is None:
            return
        self._happened("rotting snapshot", name)
        rot = self._rots[name] = _Rot(path, *self._rot(disk, path))
        self._cluster.conductor.after(self._dice.choice([0.5, 3.0, 10.0]), self._stop_rot, name, rot)

    def end_rot(self) -> None:
        """Everywhere, as far as it can be now."""
        for name, rot in list(self._rots.items()):
            self._stop_rot(name, rot)

    def _stop_rot(self, name: str, rot: _Rot) -> None:
        cluster = self._cluster
        disk, life = cluster.disks[name], cluster.lives.get(name)
        path, file, offset, bit = rot
        if self._rots.get(name) is not rot:
            return
        if disk.rotten != path:  # the machine has another disk
            del self._rots[name]
            return
        is_there = disk.files.get(path) is file
        newest = _newest(disk)
        if (
            name in self._held
            or (life is not None and not life.is_started)
            or (life is not None and not is_there and (newest is None or index_of(newest) < index_of(path)))
        ):  # something else is done to it, or it has not come to an end with this
            cluster.conductor.after(AGAIN_SECONDS, self._stop_rot, name, rot)
            return
        del self._rots[name]
        if is_there or life is None:
            disk.files.pop(path.with_suffix(".damaged"), None)
            disk.files[path] = file
            disk.flip(path, offset, bit)
        else:
            cluster.counts["rotting snapshots found out"] += 1
        disk.rotten = None
        disk.rewrites += 1

    def wiped_disk(self) -> None:
        """A node comes back with an empty directory: the others take it for a stranger."""
        name = self._someone()
        if name is None or self._held:
            return  # more than one at a time is no cluster any more
        log = self._cluster.checks.durable[name]
        log.read()
        if not (log.last or log.snapshot):
            return  # a new member that nobody has let in yet has nothing to lose, and is rightly let in with nothing
        self._begin("wiped disk", name)
        disk = self._cluster.disks[name]
        kept, disk.files = disk.files, {}
        self._cluster.boot(name)  # it ends itself once a majority has turned it away
        self._cluster.conductor.after(
            self._dice.uniform(0.5, 4.0), self._give_back, name, self._cluster.lives[name], kept
        )

    def _give_back(self, name: str, life: Life, kept: dict[Path, Any]) -> None:
        cluster = self._cluster
        if life.machine.applied_index:  # be it that the process has found that out, and ended
            cluster.checks.fail(sim_checks.ONE_HISTORY, f"{name} was taken in with an empty directory")
        if name in cluster.lives:
            cluster.kill(name)
        cluster.disks[name].files = kept
        self._end(name)

    def _begin(self, kind: str, name: str) -> None:
        """Its process is down, and what is on the disk from now on is not what the machine keeps."""
        cluster = self._cluster
        self._happened(kind, name)
        cluster.kill(name)
        self._held.add(name)
        cluster.checks.durable[name].read()
        cluster.disks[name].is_aside = True
        cluster.may_fail.add(name)

    def _end(self, name: str) -> None:
        cluster = self._cluster
        cluster.disks[name].is_aside = False
        self._held.discard(name)
        cluster.forgive(name)
        self._up_later(name, 0.2)


def _newest_snapshot(disk: Disk) -> Path | None:
    """That is durable; none if one rots already."""
    return None if disk.rotten is not None else _newest(disk)


def _newest(disk: Disk) -> Path | None:
    sure = [path for path in disk.files if path.parent == SNAPSHOTS and disk.is_sure_of(path)]
    return max((path for path in sure if path.suffix == ".snapshot"), key=index_of, default=None)
