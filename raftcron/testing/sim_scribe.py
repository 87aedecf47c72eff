"""A forked scribe as far as one process can have it: what the child does is shipped, that it is another process is not.

As after a fork the child has the state as of that instant, and a copy of the store; it goes on while its parent stands
still, dies with it, and may die alone, in the middle of a write too.  That memory is not shared after a real fork,
that descriptors are closed and signals reset, is for tests/raft/test_scribe.py, which forks.
"""

from __future__ import annotations

import asyncio
import copy
import errno
from collections.abc import Iterable
from contextlib import closing

from raftcron.raft.scribe import Blocks, _steps
from raftcron.raft.snapshot import SnapshotInfo, SnapshotStore
from raftcron.testing.chance import Chance
from raftcron.testing.sim_disk import Disk
from raftcron.testing.sim_loop import Conductor, NodeLoop, ProcessDied

STEP_SECONDS = 0.03  # of a child, at most; it is nice
DEATH_SHARE = 0.05  # of the children, which the kernel ends for want of memory


class SimulatedFork:
    """One node's scribe; see raft.scribe.Scribe."""

    def __init__(self, conductor: Conductor, disk: Disk, loop: NodeLoop, dice: Chance) -> None:
        self._conductor = conductor
        self._disk = disk
        self._loop = loop
        self._dice = dice
        self._child: _Child | None = None
        self._is_stopped = False

    async def write(
        self, store: SnapshotStore, index: int, term: int, cluster_id: str, configuration: bytes, blocks: Blocks
    ) -> SnapshotInfo:
        if self._is_stopped:
            raise OSError(errno.ECANCELED, "nothing is written any more")
        child = self._child = _Child(self._conductor, self._disk, self._loop, self._dice, store)
        child.begin(index, term, cluster_id, configuration, list(blocks()))
        try:
            return store.adopt(await child.report)
        finally:
            child.kill()

    def stop(self) -> None:
        self._is_stopped = True
        if self._child is not None:
            self._child.kill()


class _Child:
    """It writes one snapshot."""

    def __init__(self, conductor: Conductor, disk: Disk, loop: NodeLoop, dice: Chance, store: SnapshotStore) -> None:
        self.report: asyncio.Future[str] = loop.create_future()
        self._conductor = conductor
        self._loop = loop
        self._dice = dice
        self._store = store
        self._device = disk.open(lambda _seconds: None)

    def begin(self, index: int, term: int, cluster_id: str, configuration: bytes, blocks: Iterable[bytes]) -> None:
        own = copy.copy(self._store)
        own.device, own._held = self._device, set(own._held)
        self._steps = _steps(own, index, term, cluster_id, configuration, blocks)
        self._dies_in = self._dice.randrange(6) if self._dice.random() < DEATH_SHARE else None
        self._later()

    def kill(self) -> None:
        self._device.is_dead = True

    def _later(self) -> None:
        self._conductor.after(STEP_SECONDS * self._dice.random(), self._step)

    def _step(self) -> None:
        if self._device.is_dead:
            return
        if self._dies_in is not None:
            if not self._dies_in:
                self.kill()
                self._tell(None, OSError(errno.ECHILD, "the process that wrote it ended with SIGKILL"))
                return
            self._dies_in -= 1
        try:
            next(self._steps)
        except StopIteration as end:
            info: SnapshotInfo = end.value
            self._tell(info.id, None)
        except ProcessDied:
            self._tell(None, OSError(errno.ECHILD, "the process that wrote it ended in the middle of a write"))
        except OSError as error:
            self._tell(None, error)
        else:
            self._later()

    def _tell(self, snapshot_id: str | None, error: OSError | None) -> None:
        if not self._loop.is_dead:
            self._loop.call_soon(self._ended, snapshot_id, error)

    def _ended(self, snapshot_id: str | None, error: OSError | None) -> None:
        """In the parent, whenever that has its turn."""
        self.kill()
        with closing(self._steps):
            self._store.sweep()
        if self.report.done():
            return
        if error is not None:
            self.report.set_exception(error)
        else:
            assert snapshot_id is not None
            self.report.set_result(snapshot_id)
