"""When the log is cut behind a snapshot, and how a node that needs what was cut gets the snapshot instead.

Every node writes snapshots of its own, once enough has applied since the last one, and then forgets entries behind it;
some are kept, so that a short absence costs no snapshot.  A leader offers its newest one, with each heartbeat, to a
follower that needs entries which are gone; the follower fetches it (pulls.py), decodes it slice by slice beside what it
has, and installs it in one step.  Nothing is installed that the log covers: its tail may have been acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from raftcron.clock import Clock
from raftcron.errors import DamagedError, FatalError
from raftcron.ports import Restoring, StateMachine
from raftcron.raft.guard import Offer
from raftcron.raft.journal import Identity
from raftcron.raft.pulls import Pulls
from raftcron.raft.scribe import Scribe
from raftcron.raft.settings import CompactionSettings
from raftcron.raft.snapshot import SnapshotInfo, SnapshotStore

logger = logging.getLogger(__name__)

RETRY_SECONDS = (5.0, 300.0)  # after a snapshot that could not be written: the first pause, doubled up to the last
LOOK_SECONDS = 60.0  # at least, from one look at a snapshot that is in doubt to the next
PATIENCE_SECONDS = 60.0  # so long the log is kept behind a snapshot that somebody fetches, after its last step


class Progress(Protocol):
    """What compaction has to know of the engine (seam.py)."""

    @property
    def is_leader(self) -> bool: ...
    @property
    def applied_index(self) -> int: ...
    def term_of(self, index: int) -> int: ...
    def holds(self, index: int, term: int) -> bool: ...
    def is_waited_for(self, peer: str) -> bool: ...
    def match_index(self, peer: str) -> int: ...


class Log(Protocol):
    """What it has to know of the journal, and asks of it (journal.py)."""

    @property
    def identity(self) -> Identity: ...
    @property
    def first_index(self) -> int: ...
    def align(self, index: int, term: int) -> None: ...
    def bytes_between(self, first: int, last: int) -> int: ...
    def compact(self, through: int) -> None: ...


def restore(store: SnapshotStore, log: Log, machine: StateMachine) -> SnapshotInfo | None:
    """At start: bring log and machine to the newest snapshot that is held, if there is one.

    Raises DamagedError, NewerVersionError; FatalError: it is another cluster's, and the log has not changed.
    """
    info = store.newest
    if info is not None:
        check_cluster(info, log.identity.cluster_id)
    try:
        log.align(*((0, 0) if info is None else (info.index, info.term)))
    except DamagedError as error:
        raise DamagedError(f"{error.detail}. {store.damage}") if store.damage else error from None
    if info is not None:
        restoring = machine.restoring()
        for block in store.blocks(info):
            restoring.feed(block)
        restoring.install()
        machine.applied(info.index)
    return info


def check_cluster(info: SnapshotInfo, cluster_id: str | None) -> None:
    """FatalError if the snapshot is of another cluster than this node, which may belong to none yet."""
    if cluster_id not in (None, info.cluster_id):
        raise FatalError(
            f"snapshot {info.id} is of cluster {info.cluster_id}, this node belongs to {cluster_id}: "
            f"one of the two has files of another cluster"
        )


class Compaction:
    """One node's snapshots.  `configuration` gives the members as of an applied index, for a snapshot.

    `install(info, restoring)` is called in a turn of its own once a fetched snapshot is decoded and still needed;
    `run` calls a function inside the engine's rim.
    """

    def __init__(
        self,
        settings: CompactionSettings,
        store: SnapshotStore,
        scribe: Scribe,
        log: Log,
        core: Progress,
        machine: StateMachine,
        *,
        cluster_id: Callable[[], str | None],
        configuration: Callable[[int], bytes],
        peers: Callable[[], list[str]],
        send: Callable[[str, str, Any], bool],
        connected: Callable[[str], bool],
        install: Callable[[SnapshotInfo, Restoring], None],
        run: Callable[..., None],
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
    ) -> None:
        self.counts: Counter[str] = Counter()  # snapshots written, failed, offered, installed, not needed any more
        self._settings = settings
        self._store = store
        self._scribe = scribe
        self._log = log
        self._core = core
        self._machine = machine
        self._cluster_id = cluster_id
        self._configuration = configuration
        self._peers = peers
        self._connected = connected
        self._install = install
        self._run = run
        self._loop = loop
        self._clock = clock
        self._pulls = Pulls(
            store,
            peers=peers,
            send=send,
            connected=connected,
            clock=clock,
            received=self._fetched,
            doubted=self._doubt,
            loop=loop,
        )
        self.kinds = self._pulls.kinds
        self._entries = 0  # applied since the last snapshot, and
        self._bytes = 0  # the bytes of their commands
        self._writing: asyncio.Task[None] | None = None
        self._installing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._look_at = 0.0  # on the monotonic clock, not before
        self._is_wanted = False  # a snapshot, whatever has applied since: the newest one was damaged
        self._failures = 0
        self._retry_at = 0.0  # on the monotonic clock
        self._offers: dict[str, SnapshotInfo] = {}  # what each lagging peer was offered
        self._served_at: dict[str, float] = {}  # when it last was

    # ---- writing -------------------------------------------------------------------------------------------------

    def applied(self, size: int) -> None:
        """One more entry has applied, with a command of so many bytes."""
        self._entries += 1
        self._bytes += size

    def _is_due(self) -> bool:
        newest, settings = self._store.newest, self._settings
        least = max(settings.bytes, 0 if newest is None else newest.size)
        is_small = self._bytes < least or (self._entries < settings.entries and self._bytes < 4 * least)
        if is_small and not self._is_wanted:
            return False
        return self._writing is None and self._clock.monotonic() >= self._retry_at and self._cluster_id() is not None

    def beat(self) -> None:
        """A heartbeat has passed."""
        self._pulls.repeat()
        for peer in [peer for peer in self._offers if peer not in self._peers() or not self._core.is_waited_for(peer)]:
            del self._offers[peer], self._served_at[peer]
        if self._is_due():
            self._writing = self._task(self._write())

    async def _write(self) -> None:
        index = self._core.applied_index
        before = (self._entries, self._bytes)
        try:
            info = await self._scribe.write(
                self._store,
                index,
                self._core.term_of(index),
                self._cluster_id() or "",
                self._configuration(index),
                self._machine.snapshot,
            )
        except OSError as error:
            first, longest = RETRY_SECONDS
            pause = min(first * 2.0 ** min(self._failures, 16), longest)
            self._failures += 1
            self._retry_at = self._clock.monotonic() + pause
            self.counts["failed"] += 1
            logger.warning("snapshot_failed index=%d retry_seconds=%g error=%s", index, pause, error)
        else:
            self._failures = 0
            self._is_wanted = False
            self._entries = max(self._entries - before[0], 0)  # a fetched one may have been installed meanwhile
            self._bytes = max(self._bytes - before[1], 0)
            self.counts["written"] += 1
            logger.info("snapshot_written index=%d bytes=%d", info.index, info.size)
            self._run(self._cut, info.index)
        finally:
            self._writing = None

    def _cut(self, index: int) -> None:
        """Forget entries before a snapshot that ends with `index`, but for those that are kept for laggards.

        Those are at most as many, and of as many bytes, as the settings say, half of the excess going at a time.
        """
        first = self._log.first_index
        kept = max(index - self._settings.kept_entries, first)
        if self._core.is_leader:  # whoever is on its way gets entries, not a snapshot
            held = [self._core.match_index(peer) for peer in self._peers() if self._connected(peer)]
            kept = max(min([kept, *(match for match in held if match)]), first)
        while kept < index and self._log.bytes_between(kept, index) > self._settings.bytes:
            kept += (index - kept + 1) // 2
        latest = self._clock.monotonic() - PATIENCE_SECONDS
        for peer, info in self._offers.items():
            if self._served_at[peer] >= latest and self._store.holds(info.id):
                kept = min(kept, info.index)
        if kept > first:
            self._log.compact(kept)

    # ---- offering ------------------------------------------------------------------------------------------------

    def offer(self, peer: str) -> Offer | None:
        """What a leader offers to a peer that needs entries which are gone: the same one until it has it."""
        info = self._offers.get(peer)
        if info is None or not self._store.holds(info.id) or info.index < self._log.first_index:
            info = self._store.newest
            if info is None:
                return None
            self._offers[peer] = info
            self.counts["offered"] += 1
        self._served_at[peer] = self._clock.monotonic()
        return Offer(0, 0, info.id, info.index, info.term, info.size, info.cluster_id, info.configuration)

    def _doubt(self, snapshot_id: str) -> None:
        """A peer has been given a wrong file: is it so here?"""
        now = self._clock.monotonic()
        if self._looking is None and now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._looking = self._task(self._look(snapshot_id))

    async def _look(self, snapshot_id: str) -> None:
        """A rotten snapshot helps nobody, and would not let this node start again: write another one at once."""
        try:
            for _ in self._store.look_again(snapshot_id):
                await asyncio.sleep(0)
            if not self._store.holds(snapshot_id) and self._store.newest is None:
                self.counts["found damaged"] += 1
                self._is_wanted = True
        except OSError as error:
            logger.warning("snapshot_unreadable id=%s error=%s", snapshot_id, error)
        finally:
            self._looking = None

    # ---- fetching ------------------------------------------------------------------------------------------------

    def offered(self, peer: str, offer: Offer) -> None:
        """The leader has what this node lacks."""
        if self._installing is None:
            info = SnapshotInfo(
                id=offer.id,
                index=offer.index,
                term=offer.entry_term,
                size=offer.size,
                configuration=offer.configuration,
                cluster_id=offer.cluster_id,
            )
            self._pulls.offered(peer, info)

    def disconnected(self, peer: str) -> None:
        self._pulls.disconnected(peer)

    def _fetched(self, info: SnapshotInfo) -> None:
        if self._installing is None and self._is_needed(info):
            self._installing = self._task(self._decode(info))

    def _is_needed(self, info: SnapshotInfo) -> bool:
        core = self._core
        return core.applied_index < info.index and not core.holds(info.index, info.term) and not core.is_leader

    async def _decode(self, info: SnapshotInfo) -> None:
        try:
            restoring = self._machine.restoring()
            for block in self._store.blocks(info):
                restoring.feed(block)
                await asyncio.sleep(0)
            if self._is_needed(info):
                self._run(self._install, info, restoring)
                self._entries = self._bytes = 0
                self.counts["installed"] += 1
            else:
                self.counts["not needed any more"] += 1
        finally:
            self._installing = None

    # ---- end -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """What is being written or decoded is left undone."""
        self._scribe.stop()
        self._pulls.stop()
        for task in (self._writing, self._installing, self._looking):
            if task is not None:
                task.cancel()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        task.add_done_callback(lambda done: self._run(_raise, done))
        return task


def _raise(task: asyncio.Task[None]) -> None:
    """What ended a task ends the process."""
    if not task.cancelled() and (error := task.exception()) is not None:
        if isinstance(error, DamagedError):
            raise DamagedError(f"a snapshot that was fetched whole cannot be installed: {error}") from error
        raise error
