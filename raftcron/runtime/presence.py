"""A node's presence: it announces its life through the log, sends heartbeats, and holds the licence to start code.

The leader's side answers heartbeats after a quorum round (see leases.py) and proposes announcements.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from raftcron.clock import Clock
from raftcron.core.commands import Announce
from raftcron.core.image import IMAGE_VERSION
from raftcron.core.unreadable import UNREADABLE
from raftcron.errors import ConfigurationError, FatalError, MalformedError, RaftcronError
from raftcron.ports import Log, LogStatus, Standing
from raftcron.runtime.comparison import Comparison, Pair
from raftcron.runtime.leases import NO_LICENSE, LeaseKeeper, LeaseTimes, License
from raftcron.runtime.machine import Machine
from raftcron.runtime.proposer import Proposer

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
HEARTBEATS_PER_LEASE = 3  # at least: commands are told to stop once half a lease has passed without an answer
SENT_KEPT = 64  # heartbeats whose answer is waited for
ANSWERS_AT_ONCE = 256  # of a leader; nodes repeat theirs each second
PAIRS_HEARD = 8  # of a heartbeat; this release tells two
DIGEST_DIGITS = 32

_encode = msgspec.msgpack.Encoder().encode
_decode_announce = msgspec.msgpack.Decoder(Announce).decode


class PeerInfo(NamedTuple):
    """What another node said of itself in its last heartbeat; instants of the boot clock in seconds."""

    applied_index: int
    digest: str
    heard_at: float


class Presence:
    """One node's heartbeats and licence; and the leader's answers to all."""

    def __init__(
        self,
        *,
        announcement: Announce,
        machine: Machine,
        log: Log,
        proposer: Proposer,
        keeper: LeaseKeeper,
        clock: Clock,
        times: LeaseTimes,
        licensed: Callable[[License], None],
        fatal: Callable[[BaseException], None],
    ) -> None:
        self._announcement = announcement
        self._node = announcement.node
        self._machine = machine
        self._log = log
        self._proposer = proposer
        self._keeper = keeper
        self._clock = clock
        self._times = times
        self._licensed = licensed
        self._fatal = fatal
        self._sent: dict[int, float] = {}  # heartbeat number -> boot clock when it left
        self._number = 0
        self._epoch_seen = -1
        self._may_announce = False
        self._announcing = False
        self._announced = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._comparison = Comparison()
        self._has_differed = False  # from some voter, when it looked last
        self.license: License = NO_LICENSE
        self.peers: dict[str, PeerInfo] = {}
        log.on_message("heartbeat", self._heartbeat_received)
        log.on_message("license", self._license_received)
        log.on_message("announce", self._announce_received)

    async def wait_announced(self) -> None:
        """Returns once this life of the node stands in the state."""
        await self._announced.wait()

    @property
    def is_announced(self) -> bool:
        """Whether this life of the node stands in the state."""
        known, own = self._machine.state.nodes.get(self._node), self._announcement
        return known is not None and (known.incarnation, known.life) == (own.incarnation, own.life)

    # ---- the node's side

    def announce(self) -> None:
        """From now on this life may be announced: nothing of a former one runs here, and its ends are told.

        Its number is certain only now: a node that takes the place of another one learns from the log which lives of
        its name there were.
        """
        self._announcement = msgspec.structs.replace(self._announcement, incarnation=self._log.incarnation)
        self._may_announce = True
        self.beat()

    async def run(self) -> None:
        """Heartbeat each second, three times a lease if that is sooner, until cancelled."""
        interval = min(HEARTBEAT_SECONDS, self._times.lease_seconds / HEARTBEATS_PER_LEASE)
        while True:
            self.beat()
            await asyncio.sleep(interval)

    def state_changed(self, runs: Iterable[str]) -> None:
        """A leadership entry that this node has just applied asks for a heartbeat at once."""
        del runs
        state = self._machine.state
        if state.epoch != self._epoch_seen:
            self._epoch_seen = state.epoch
            self.beat()
        own, known = self._announcement, state.nodes.get(self._node)
        if self.is_announced:
            # Not before: by its number alone, what a copy of this disk was told to run would be this process's too.
            self._machine.incarnation = own.incarnation
            self._announced.set()
        elif self._may_announce and known is not None and known.incarnation >= own.incarnation:
            seen = f"life {known.incarnation}"
            if known.incarnation == own.incarnation:
                seen += " in another process"
            self._fatal(
                ConfigurationError(
                    f"node {self._node} is in its life {own.incarnation}, but the cluster has seen its {seen}: "
                    "this data directory is an old copy. Keep it, and replace the node "
                    f"from a healthy one: raftcron cluster replace {self._node}"
                )
            )

    def state_replaced(self) -> None:
        """A snapshot may show another epoch, and this life, or a later one."""
        self.state_changed(())

    def beat(self) -> None:
        """Send one heartbeat, and the announcement as long as the state does not show it."""
        status = self._log.status()
        self._compare(status)
        leader = self._node if status.leading_epoch is not None else status.leader
        if leader is None or (leader == self._node and status.leading_epoch is None):
            return
        if self._may_announce and not self.is_announced:
            self._announce(leader)
        self._number += 1
        self._sent[self._number] = self._clock.boot()
        while len(self._sent) > SENT_KEPT:
            del self._sent[next(iter(self._sent))]
        if leader == self._node:
            self._spawn(self._answer_own(self._number))
        pairs = [(index, f"{digest:032x}") for index, digest in self._machine.newest_digests()]
        own = f"{self._machine.state.digest:032x}"
        heartbeat = [self._number, status.applied_index, own, [IMAGE_VERSION, pairs]]
        for member in status.members:  # the leader answers; the others learn how this node stands
            if member.name != self._node:
                self._log.send(member.name, "heartbeat", heartbeat)

    def _compare(self, status: LogStatus) -> None:
        """A node whose state is not that of a majority stops (semantics I7): what it does from here on is wrong."""
        voters = [member.name for member in status.members if member.standing is Standing.VOTER]
        found = self._comparison.judge(self._node, self._machine.held_digests(), voters)
        has_differed, self._has_differed = self._has_differed, found is not None
        if found is None:
            return
        what = f"at index {found.at_index} it has the digest {found.own:032x}, and a majority {found.theirs:032x}"
        if found.is_odd:
            self._fatal(
                FatalError(
                    f"the state of node {self._node} is not that of the others: {what}. Keep this data directory and "
                    "what its log says for a report, look at the memory and the disk of this machine, and replace the "
                    f"node from a healthy one: raftcron cluster replace {self._node}"
                )
            )
        elif not has_differed:
            log.error(
                "states_differ node=%s index=%d own=%032x other=%032x next=whoever_a_majority_contradicts_stops",
                *(self._node, found.at_index, found.own, found.theirs),
            )

    def _announce(self, leader: str) -> None:
        if leader != self._node:
            self._log.send(leader, "announce", _encode(self._announcement))
        elif not self._announcing:
            self._announcing = True
            self._spawn(self._announce_own())

    async def _announce_own(self) -> None:
        try:
            await self._proposer.propose(self._announcement)
        except RaftcronError as error:
            log.info("announcement_failed code=%s next=repeated_within_a_second", error.code)
        finally:
            self._announcing = False

    async def _answer_own(self, number: int) -> None:
        index = await self._keeper.answer(self._node)
        epoch = self._log.leading_epoch
        if index is not None and epoch is not None:
            self._take(number, epoch, index)

    def _license_received(self, peer: str, message: Any) -> None:
        match message:
            case [int(number), int(epoch), int(index), *_]:  # a later release may say more, here and below
                self._take(number, epoch, index)
            case _:
                raise MalformedError("a license is [number, epoch, index]")

    def _take(self, number: int, epoch: int, index: int) -> None:
        sent = self._sent.pop(number, None)
        if sent is None:
            return
        until = sent + self._times.lease_seconds - self._times.margin_seconds
        if (epoch, until) > (self.license.epoch, self.license.until):
            self.license = License(until, epoch, max(index, self.license.applied_index))
            self._licensed(self.license)

    # ---- the leader's side

    def _heartbeat_received(self, peer: str, message: Any) -> None:
        match message:
            case [int(number), int(applied), str(digest), *more]:
                self._comparison.hear(peer, _pairs(more))
                self.peers[peer] = PeerInfo(applied, digest, self._clock.boot())
                if self._log.leading_epoch is not None and len(self._tasks) < ANSWERS_AT_ONCE:
                    self._spawn(self._answer(peer, number))
            case _:
                raise MalformedError("a heartbeat is [number, applied index, digest]")

    async def _answer(self, peer: str, number: int) -> None:
        index = await self._keeper.answer(peer)
        epoch = self._log.leading_epoch
        if index is not None and epoch is not None:
            self._log.send(peer, "license", [number, epoch, index])

    def _announce_received(self, peer: str, message: Any) -> None:
        if self._log.leading_epoch is None or len(self._tasks) >= ANSWERS_AT_ONCE:
            return
        try:
            announcement = _decode_announce(message)
        except (*UNREADABLE, TypeError) as error:
            raise MalformedError(f"an announcement cannot be read: {error}") from error
        if announcement.node != peer:
            raise MalformedError(f"an announcement of {announcement.node!r:.80}, which is another node")
        self._spawn(self._propose_announcement(announcement))

    async def _propose_announcement(self, announcement: Announce) -> None:
        try:
            await self._proposer.propose(announcement)
        except RaftcronError as error:
            log.info("announcement_not_taken node=%s code=%s", announcement.node, error.code)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _pairs(more: list[Any]) -> list[Pair]:
    """What a heartbeat says behind its digest; nothing of a release that says none, or packs records another way."""
    match more:
        case [[int(version), [*pairs]], *_]:
            if version != IMAGE_VERSION:  # the digests of one state differ
                return []
            return [_pair(pair) for pair in pairs[:PAIRS_HEARD]]
    return []


def _pair(pair: Any) -> Pair:
    match pair:
        case [int(index), str(digest)] if len(digest) == DIGEST_DIGITS:
            try:
                return index, int(digest, 16)
            except ValueError:
                pass
    raise MalformedError("a heartbeat's pairs are [index, digest], the digest 32 hexadecimal digits")
