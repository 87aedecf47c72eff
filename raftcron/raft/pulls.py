"""How a node that lags fetches a snapshot from whoever holds it, piece by piece; what is done with it is not here.

    pull   {id, offset, count}   please send me these bytes
    piece  {id, offset, data}    here they are; data None: I do not hold that snapshot
    doubt  {id}                  what you gave of it was part of a wrong file: look at yours

The one that needs it asks, so that at most WINDOW pieces are under way and a heartbeat waits behind no more than those.
What has come stays: over a broken connection, a change of leader, and a restart of this process, as long as anybody
holds the snapshot of that id.  Nothing that comes is believed before the whole file has been read back and is the one
that the id names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

from raftcron.clock import Clock
from raftcron.errors import FatalError
from raftcron.raft import guard
from raftcron.raft.guard import BadMessageError
from raftcron.raft.snapshot import Incoming, SnapshotStore
from raftcron.raft.snapshot_file import MIN_BYTES, SnapshotInfo, order_of

logger = logging.getLogger(__name__)

PIECE_BYTES = 256 << 10  # one read, one frame
WINDOW = 4  # pieces that are asked for and have not come
MAX_SNAPSHOT_BYTES = 64 << 30  # some 100 million jobs
PATIENCE_SECONDS = 2.0  # without a piece, and it is asked for elsewhere, or again
STALLED_SECONDS = 15.0  # without a piece from anybody, and another snapshot is fetched instead, if one is offered
RETRY_SECONDS = (1.0, 16.0)  # after a snapshot that was wrong, or that the disk did not take: doubled up to the last


class _Pull:
    """One snapshot on its way here."""

    __slots__ = ("asked", "asked_at", "check", "incoming", "info", "moved_at", "next", "offerer", "refused", "senders",
                 "source", "window")  # fmt: skip

    def __init__(self, info: SnapshotInfo, incoming: Incoming, offerer: str, now: float) -> None:
        self.info = info
        self.incoming = incoming
        self.offerer = offerer  # the peer that offered it last
        self.source: str | None = None  # the peer that is asked
        self.asked: set[int] = set()  # offsets, of that peer
        self.next = incoming.offset  # to be asked for
        self.window = WINDOW
        self.asked_at = now  # or when the last piece came
        self.moved_at = now  # when the last piece came
        self.refused: set[str] = set()  # peers that do not hold it
        self.senders: set[str] = set()  # who sent something of it
        self.check: Iterator[None] | None = None  # all is here, and is being read back

    def forget_asked(self) -> None:
        """What has been asked for will not come."""
        self.asked.clear()
        self.next = self.incoming.offset


class Pulls:
    """Both sides of it: fetches at most one snapshot at a time, and gives pieces of those that are held.

    `send(peer, kind, message)` and `connected(peer)` are the transport's; `received` is told of a snapshot that has
    come whole, is durable and is now the store's newest; `doubted` of one that is held here and may be damaged.
    """

    def __init__(
        self,
        store: SnapshotStore,
        *,
        peers: Callable[[], list[str]],
        send: Callable[[str, str, Any], bool],
        connected: Callable[[str], bool],
        clock: Clock,
        received: Callable[[SnapshotInfo], None],
        doubted: Callable[[str], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._store = store
        self._peers = peers
        self._send = send
        self._connected = connected
        self._clock = clock
        self._received = received
        self._doubted = doubted
        self._loop = loop
        self._pull: _Pull | None = None
        self._failures = 0  # in a row
        self._retry_at = 0.0
        self._last_refusal = ""  # of our own disk, told once
        self._suspects: set[str] = set()  # whose pieces were part of a wrong file; asked only if nobody else has it
        self.kinds: dict[str, Callable[[str, Any], None]] = {
            "pull": self._on_pull,
            "piece": self._on_piece,
            "doubt": self._on_doubt,
        }

    @property
    def progress(self) -> tuple[str, int, int] | None:
        """(id, bytes that are here, bytes in all) of what is being fetched; None: nothing is."""
        pull = self._pull
        return None if pull is None else (pull.info.id, pull.incoming.offset, pull.info.size)

    # ---- what its owner tells ------------------------------------------------------------------------------------

    def offered(self, peer: str, info: SnapshotInfo) -> None:
        """A leader says that this node needs its snapshot; may be repeated at any rate.

        One that is being fetched already, and comes, is fetched on.  Raises BadMessageError for an impossible offer.
        """
        order = order_of(info.id)
        if order is None or order[:2] != (info.index, info.term):
            raise BadMessageError(f"id: {info.id!r:.80} does not name a snapshot of entry {info.index}, {info.term}")
        if not MIN_BYTES <= info.size <= MAX_SNAPSHOT_BYTES:
            raise BadMessageError(f"size: {info.size} is not from {MIN_BYTES} to {MAX_SNAPSHOT_BYTES}")
        pull = self._pull
        if self._is_behind(info):
            return
        if pull is None:
            self._begin(peer, info)
        elif pull.info.id == info.id:
            pull.offerer = peer
            pull.refused.discard(peer)
            self._ask(pull)
        elif not self._is_moving(pull):
            logger.info("snapshot_pull_replaced id=%s by=%s", pull.info.id, info.id)
            self._end(pull)
            self._begin(peer, info)

    def disconnected(self, peer: str) -> None:
        """The connection has ended, or another has taken its place: what was asked there will not come."""
        if (pull := self._pull) is not None:
            pull.refused.discard(peer)
            if pull.source == peer:
                self._turn_from(pull, peer)

    def repeat(self) -> None:
        """A heartbeat has passed."""
        pull = self._pull
        if pull is None or pull.check is not None:
            return
        if self._is_behind(pull.info):  # this node has written one of its own meanwhile
            self._end(pull)
        elif pull.source is None:
            self._ask(pull)
        elif not self._connected(pull.source):
            self._turn_from(pull, pull.source)
        elif self._clock.monotonic() - pull.asked_at >= PATIENCE_SECONDS:
            pull.window = 1  # a slow network is not helped by asking twice for all of it
            self._turn_from(pull, pull.source)
        else:
            self._ask(pull)

    def stop(self) -> None:
        """Fetch nothing more; what is here stays for the next life of this process."""
        pull, self._pull = self._pull, None
        if pull is not None:
            pull.incoming.leave()

    # ---- giving --------------------------------------------------------------------------------------------------

    def _on_pull(self, peer: str, message: Any) -> None:
        content = guard.fields(message)
        snapshot_id, offset = guard.text(content, "id"), guard.number(content, "offset")
        count = guard.number(content, "count", 1)
        if count > PIECE_BYTES:
            raise BadMessageError(f"count: {count} is over the limit of {PIECE_BYTES}")
        data = self._store.piece(snapshot_id, offset, count)
        self._send(peer, "piece", {"id": snapshot_id, "offset": offset, "data": data})

    def _on_doubt(self, _peer: str, message: Any) -> None:
        snapshot_id = guard.text(guard.fields(message), "id")
        if self._store.holds(snapshot_id):
            self._doubted(snapshot_id)

    # ---- fetching ------------------------------------------------------------------------------------------------

    def _begin(self, peer: str, info: SnapshotInfo) -> None:
        now = self._clock.monotonic()
        if now < self._retry_at:
            return
        try:
            incoming = self._store.receive(info)
        except OSError as error:  # nothing was fetched, so that to look again soon costs nobody anything
            self._retry_at = now + RETRY_SECONDS[0]
            if str(error) != self._last_refusal:
                logger.warning("snapshot_pull_refused id=%s next=looked_at_each_second error=%s", info.id, error)
            self._last_refusal = str(error)
            return
        self._last_refusal = ""
        pull = self._pull = _Pull(info, incoming, peer, now)
        logger.info("snapshot_pull id=%s offset=%d bytes=%d", info.id, incoming.offset, info.size)
        self._go_on(pull)

    def _go_on(self, pull: _Pull) -> None:
        if pull.incoming.offset < pull.info.size:
            self._ask(pull)
        else:
            pull.check = pull.incoming.check()
            self._loop.call_soon(self._check_on, pull)

    def _ask(self, pull: _Pull) -> None:
        """Ask for as much as may be under way."""
        if pull.check is not None:
            return
        if pull.source is None:
            pull.source = self._choose(pull)
        while pull.source is not None and len(pull.asked) < pull.window and pull.next < pull.info.size:
            question = {"id": pull.info.id, "offset": pull.next, "count": _count(pull.info, pull.next)}
            if not self._send(pull.source, "pull", question):
                break  # `repeat` tries it again
            if not pull.asked:
                pull.asked_at = self._clock.monotonic()
            pull.asked.add(pull.next)
            pull.next += PIECE_BYTES

    def _turn_from(self, pull: _Pull, peer: str) -> None:
        """Nothing more is expected of this peer for now; go on with another, or with the same if there is no other."""
        pull.forget_asked()
        pull.source = self._choose(pull, peer)
        self._ask(pull)

    def _choose(self, pull: _Pull, last: str | None = None) -> str | None:
        """Whom to ask; `last` and those that are suspected only if there is no other."""
        able = [peer for peer in self._peers() if peer not in pull.refused and self._connected(peer)]
        return min(able, key=lambda peer: (peer == last, peer in self._suspects, peer != pull.offerer), default=None)

    def _on_piece(self, peer: str, message: Any) -> None:
        content = guard.fields(message)
        snapshot_id, offset = guard.text(content, "id"), guard.number(content, "offset")
        data = None if content.get("data") is None else guard.blob(content, "data", PIECE_BYTES)
        pull = self._pull
        if pull is None or peer != pull.source or snapshot_id != pull.info.id or offset not in pull.asked:
            return
        if data is None or len(data) != _count(pull.info, offset):
            pull.refused.add(peer)
            self._turn_from(pull, peer)
            if data is not None:
                raise BadMessageError(f"data: {len(data)} bytes are not what was asked for at {offset}")
            return
        if offset != pull.incoming.offset:
            return  # one before it was lost: it is asked for again, and so is this
        pull.asked.discard(offset)
        pull.asked_at = pull.moved_at = self._clock.monotonic()
        pull.window = min(pull.window + 1, WINDOW)
        pull.senders.add(peer)
        try:
            pull.incoming.write(offset, data)
        except (OSError, FatalError) as error:
            self._fail(pull, error)
        else:
            self._go_on(pull)

    def _check_on(self, pull: _Pull) -> None:
        """One slice of reading it back; after the last one it counts."""
        if pull is not self._pull or pull.check is None:
            return
        try:
            for _ in pull.check:
                self._loop.call_soon(self._check_on, pull)
                return
            info = pull.incoming.finish()
        except (OSError, FatalError) as error:
            self._fail(pull, error)
            return
        self._pull = None
        self._failures = 0
        self._suspects.clear()
        logger.info("snapshot_pulled id=%s bytes=%d", info.id, info.size)
        if self._store.newest == info:
            self._received(info)

    def _fail(self, pull: _Pull, error: Exception) -> None:
        if isinstance(error, FatalError):
            self._suspects |= pull.senders
            for peer in sorted(pull.senders):
                self._send(peer, "doubt", {"id": pull.info.id})
        self._end(pull)
        self._failed(pull.info, error)

    def _failed(self, info: SnapshotInfo, error: Exception) -> None:
        """The file is wrong, or the disk does not take it: later, from the beginning."""
        first, longest = RETRY_SECONDS
        pause = min(first * 2.0 ** min(self._failures, 16), longest)
        self._failures += 1
        self._retry_at = self._clock.monotonic() + pause
        logger.warning("snapshot_pull_failed id=%s retry_seconds=%g error=%s", info.id, pause, error)

    def _end(self, pull: _Pull) -> None:
        self._pull = None
        pull.incoming.abandon()

    def _is_behind(self, info: SnapshotInfo) -> bool:
        """Whether what is held goes as far."""
        newest = self._store.newest
        return newest is not None and newest.index >= info.index

    def _is_moving(self, pull: _Pull) -> bool:
        """Whether it may still come: somebody who may hold it can be asked, and it is not long since a piece came."""
        if pull.check is not None:
            return True
        is_recent = self._clock.monotonic() - pull.moved_at < STALLED_SECONDS
        return is_recent and (pull.source is not None or self._choose(pull) is not None)


def _count(info: SnapshotInfo, offset: int) -> int:
    """How many bytes the piece at `offset` has."""
    return min(PIECE_BYTES, info.size - offset)
