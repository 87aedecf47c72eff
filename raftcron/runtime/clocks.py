"""What time a leader may decide on (semantics 9): the time that a majority of the voters agrees on, carried along by
this node's boot clock.

Each node asks all others for their clocks, once a second, and bounds the round trip.  What follows from the answers is
core/agreement.py's.  Everything else asks `TrustedTime` and never a clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from raftcron.clock import Clock
from raftcron.core.agreement import Agreement, Jump, agree, trust, trust_alone
from raftcron.errors import ConflictError, RaftcronError, UnavailableError
from raftcron.ports import Log, LogStatus, Standing

log = logging.getLogger(__name__)

ASK, TELL = "clock", "time"  # kinds of messages
STEP_SECONDS = 1.0  # between two times that the others are asked
FIRST_SECONDS = 0.1  # as long as nothing is trusted
FRESH_SECONDS = 5.0  # so long an answer counts
ROUND_TRIP_SECONDS = 2.0  # at most, of an answer that counts; and half the skew, so that it errs by a quarter of it
READ_SECONDS = 0.05  # at most, between two looks at the boot clock with one at the wall clock between them
READS_MAX = 5
SETTLE_SECONDS = 2.0  # of a lead without a time to trust, until it goes on without
NOISE_MS = 1  # by which two readings of the same clocks differ
HAND_OVER_SECONDS = 60.0  # between two leads that are given away for the time


class TrustedTime:
    """The time this node trusts.  It never looks at the wall clock."""

    def __init__(self, clock: Clock, cluster_time: Callable[[], int] = lambda: 0) -> None:
        """`cluster_time` is the state's, which time has reached for certain."""
        self.ahead_ms: int | None = None  # of the boot clock; None: nothing is trusted yet
        self.may_decide = False  # whether what falls due may be decided
        self.jump: Jump | None = None  # the latest one forward: times inside it are missed, not due
        self._clock = clock
        self._cluster_time = cluster_time
        self._reached = (0, self._boot_ms())  # cluster time, and when it was seen first
        self._settled = asyncio.Event()

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC, for all that enters the log.

        As long as nothing is trusted: cluster time, carried along since it was seen; 0 in a cluster that has none.
        """
        boot = self._boot_ms()
        if self.ahead_ms is not None:
            return boot + self.ahead_ms
        seen, since = self._reached
        reached = self._cluster_time()
        if not seen or reached > seen + boot - since:
            self._reached = seen, since = reached, boot
        return seen + boot - since if seen else 0

    def shown_ms(self) -> int:
        """As `now_ms`, for people's eyes alone: the wall clock where nothing is trusted."""
        return int(self._clock.wall() * 1000) if self.ahead_ms is None else self.now_ms()

    async def settled(self) -> None:
        """Returns once `now_ms` may stamp what enters the log: something is trusted, or it is clear that nothing is.

        What is planned after this call is stamped with the time that it was planned for: neither changes in a turn.

        UnavailableError: that does not come, or nothing is trusted and there is no cluster time to go on with.
        """
        if self.ahead_ms is not None:
            return
        if not self._settled.is_set():
            try:
                async with asyncio.timeout(2 * SETTLE_SECONDS):
                    await self._settled.wait()
            except TimeoutError:
                raise UnavailableError(
                    "it is not known yet what time the voters agree on: nothing was written; repeat the request"
                ) from None
        if not self.now_ms():
            raise UnavailableError(
                "no majority of the voters agrees on the time, and the cluster has none yet: nothing was written. "
                "Set the clocks (GET /v1/cluster shows clock_offset_ms), or let the leader's count: "
                "raftcron cluster accept-time"
            )

    def take(self, ahead_ms: int | None, *, may_decide: bool, is_jump: bool = False) -> None:
        """From now on this is trusted; None leaves it as it is.  A forward jump is remembered."""
        if ahead_ms is not None and (self.ahead_ms is None or abs(ahead_ms - self.ahead_ms) > NOISE_MS):
            before, self.ahead_ms = self.ahead_ms, ahead_ms
            if is_jump and before is not None and ahead_ms > before:
                self.jump = Jump(self._boot_ms() + before, self._boot_ms() + ahead_ms)
        self.may_decide = may_decide
        if self.ahead_ms is not None:
            self._settled.set()

    def go_without(self) -> None:
        """It is clear that there is nothing to trust."""
        self._settled.set()

    def _boot_ms(self) -> int:
        return int(self._clock.boot() * 1000)


class Told(NamedTuple):
    """What another node told of its clock; all but the last are milliseconds ahead of this node's boot clock."""

    ahead_ms: int
    trusted_ms: int | None  # what it trusts itself
    at: float  # boot clock, seconds


class Clocks:
    """The members' clocks as this node sees them, and what follows for the time that it trusts."""

    def __init__(
        self,
        *,
        node: str,
        log: Log,
        clock: Clock,
        time: TrustedTime,
        cluster_time: Callable[[], int],
        max_skew_ms: int,
        is_synchronised: Callable[[], bool] = lambda: False,
        may_hand_over: Callable[[], bool] = lambda: True,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`is_synchronised`: whether the kernel calls this node's clock that.

        `changed` is called when trusted time goes forward or jumps, and when it comes to be decided on, or is no more.
        """
        self._node = node
        self._log = log
        self._clock = clock
        self._time = time
        self._cluster_time = cluster_time
        self._skew = max_skew_ms
        self._round_trip = min(ROUND_TRIP_SECONDS, max_skew_ms / 2000)
        self._is_synchronised = is_synchronised
        self._may_hand_over = may_hand_over
        self._changed = changed
        self._told: dict[str, Told] = {}  # by member
        self._own: int | None = None  # this node's clock when it was read last
        self._led_since: float | None = None
        self._handed_over_at = float("-inf")
        self._handing_over: asyncio.Task[None] | None = None
        self._agreement = Agreement(None, frozenset(), False)
        self.is_untrusted = False  # no majority agrees on a time, or this node alone has to be told
        self.jumps = Counter[str]()  # of trusted time: forward, backward; and `own`, of this node's clock
        self.hand_overs = 0
        log.on_message(ASK, self._asked)
        log.on_message(TELL, self._heard)

    async def run(self) -> None:
        """Ask and look, until cancelled."""
        while True:
            self.ask()
            self.step()
            await asyncio.sleep(STEP_SECONDS if self._time.ahead_ms is not None else FIRST_SECONDS)

    # ---- what the clocks say

    def ask(self) -> None:
        """Ask every other member for its clock."""
        for member in self._log.status().members:
            if member.name != self._node:
                self._log.send(member.name, ASK, self._clock.boot())

    def _asked(self, peer: str, message: Any) -> None:
        if not isinstance(message, float):
            log.warning("clock_unreadable peer=%s", peer)
            return
        trusted = None if self._time.ahead_ms is None else self._time.now_ms()
        self._log.send(peer, TELL, [message, int(self._clock.wall() * 1000), trusted])

    def _heard(self, peer: str, message: Any) -> None:
        match message:
            case [float(asked_at), int(wall_ms), int() | None as trusted_ms]:
                now = self._clock.boot()
                if 0 <= now - asked_at <= self._round_trip:
                    middle = int((asked_at + now) * 500)
                    self._told[peer] = Told(wall_ms - middle, trusted_ms and trusted_ms - middle, now)
                    self.step()
            case _:
                log.warning("clock_unreadable peer=%s", peer)

    def _read(self) -> int:
        """How far this node's clock is ahead of its boot clock; a process that stood still between is no jump."""
        for _ in range(READS_MAX):
            before, wall, after = self._clock.boot(), self._clock.wall(), self._clock.boot()
            if after - before <= READ_SECONDS:
                break
        return round((wall - (before + after) / 2) * 1000)

    def offset_ms(self, name: str) -> int | None:
        """How far a member's clock is ahead of the time that this node trusts; None where it is not known."""
        if name == self._node:
            return int(self._clock.wall() * 1000) - self._time.shown_ms()
        told = self._told.get(name)
        if told is None or self._clock.boot() - told.at > FRESH_SECONDS:
            return None
        return told.ahead_ms + int(self._clock.boot() * 1000) - self._time.shown_ms()

    # ---- what follows

    def step(self) -> None:
        """Look at all clocks, and trust what they give."""
        status, own = self._log.status(), self._read()
        self._note_own(own)
        self._forget(status)
        leads = status.leading_epoch is not None
        self._led_since = (self._led_since or self._clock.boot()) if leads else None
        voters = [one.name for one in status.members if one.standing is Standing.VOTER]
        former, was_untrusted = self._time.ahead_ms, self.is_untrusted
        if voters == [self._node]:
            if not leads:
                return  # cluster time is not known before all that is committed has applied
            found = trust_alone(former, own, self._past_cluster(own), self._is_synchronised)
            self.is_untrusted = found is None
            self._take(found, may_decide=found is not None)
        else:
            found = self._agreed(status, voters, own)
            self.is_untrusted = self._agreement.is_heard and self._agreement.ahead_ms is None
            self._take(found, may_decide=found is not None)
            self._hand_over(leads, own)
        if self._time.ahead_ms is None and leads and (voters == [self._node] or self._has_waited()):
            self.is_untrusted = True
            self._time.go_without()
        if self.is_untrusted != was_untrusted:
            self._note_trust(voters, own)

    def _agreed(self, status: LogStatus, voters: Collection[str], own: int) -> int | None:
        fresh = self._told
        clocks = {self._node: own, **{peer: told.ahead_ms for peer, told in fresh.items()}}
        self._agreement = agree(self._node, clocks, voters, self._skew)
        leader = None if status.leading_epoch is not None else fresh.get(status.leader or "")
        led = None if leader is None else leader.trusted_ms
        told = [one.trusted_ms for peer, one in fresh.items() if peer in voters and one.trusted_ms is not None]
        return trust(self._time.ahead_ms, self._agreement, led, told, self._skew)

    def _forget(self, status: LogStatus) -> None:
        """What was told too long ago, or by somebody who is no member any more."""
        oldest = self._clock.boot() - FRESH_SECONDS
        names = {one.name for one in status.members}
        self._told = {peer: told for peer, told in self._told.items() if told.at >= oldest and peer in names}

    def _past_cluster(self, own: int) -> int | None:
        reached = self._cluster_time()
        return int(self._clock.boot() * 1000) + own - reached if reached else None

    def _has_waited(self) -> bool:
        return self._led_since is not None and self._clock.boot() - self._led_since >= SETTLE_SECONDS

    def _take(self, found: int | None, *, may_decide: bool) -> None:
        former, could_decide = self._time.ahead_ms, self._time.may_decide
        moved = 0 if found is None or former is None else found - former
        is_jump = abs(moved) > self._skew
        self._time.take(found, may_decide=may_decide, is_jump=is_jump)
        if is_jump:
            direction = "forward" if moved > 0 else "backward"
            self.jumps[direction] += 1
            log.warning("trusted_time_jumped direction=%s by_ms=%d", direction, moved)
        if is_jump or moved > NOISE_MS or may_decide != could_decide:
            self._changed()

    # ---- a leader whose clock is wrong

    def _hand_over(self, leads: bool, own: int) -> None:
        """A majority agrees on another time than this leader's clock: one of them leads better."""
        agreed = self._agreement
        if not leads or agreed.ahead_ms is None or self._node in agreed.inside or self._handing_over is not None:
            return
        if self._clock.boot() - self._handed_over_at < HAND_OVER_SECONDS or not self._may_hand_over():
            return
        members = [one for one in self._log.status().members if one.name in agreed.inside and one.connected]
        if members:
            members.sort(key=lambda one: -(one.match_index or 0))
            names = [one.name for one in members]
            self._handing_over = asyncio.get_running_loop().create_task(self._give(names, own - agreed.ahead_ms))

    async def _give(self, names: list[str], offset_ms: int) -> None:
        try:
            for name in names:
                try:
                    await self._log.transfer(name)
                except RaftcronError as error:
                    log.info("lead_kept code=%s detail=%s", error.code, error.detail)
                    if self._log.leading_epoch is None:
                        return
                else:
                    self._handed_over_at = self._clock.boot()
                    self.hand_overs += 1
                    log.warning("lead_handed_over to=%s reason=clock offset_ms=%d", name, offset_ms)
                    return
        finally:
            self._handing_over = None

    # ---- an operator's word

    def accept(self) -> None:
        """Somebody who knows says that this node's clock is right.

        ConflictError: a majority agrees on another time, which would win again at once.
        """
        self.step()
        own, agreed = self._read(), self._agreement
        is_alone = [one.name for one in self._log.status().members if one.standing is Standing.VOTER] == [self._node]
        if not is_alone and agreed.ahead_ms is not None and self._node not in agreed.inside:
            raise ConflictError(
                f"a majority of the voters ({', '.join(sorted(agreed.inside))}) agrees on another time than the clock "
                f"of leader {self._node}, which is off by {own - agreed.ahead_ms} ms: nothing was changed. Set that "
                "clock, or the others'"
            )
        log.warning("time_accepted node=%s offset_ms=%s", self._node, self.offset_ms(self._node))
        self._take(own, may_decide=True)
        self.step()

    # ---- what is told

    def _note_own(self, own: int) -> None:
        moved = 0 if self._own is None else own - self._own
        self._own = own
        if abs(moved) > self._skew:
            self.jumps["own"] += 1
            log.warning("clock_jumped node=%s by_ms=%d", self._node, moved)

    def _note_trust(self, voters: Collection[str], own: int) -> None:
        if not self.is_untrusted:
            log.warning("clock_trusted node=%s", self._node)
            return
        if self._time.may_decide:
            following = "goes_on_with_trusted_time"
        else:
            following = "decides_nothing_until:raftcron_cluster_accept-time"
        offsets = {name: self.offset_ms(name) for name in voters}
        log.warning("clock_untrusted node=%s offsets_ms=%s next=%s", self._node, offsets, following)
