"""The state machine that the log drives: decodes entries, applies them, takes in snapshots, and tells the loops.

It keeps what is derived from state and needed at once by a new leader: the timeline and the digests by index.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from raftcron import __version__
from raftcron.core.apply import apply
from raftcron.core.codec import decode_entry, encode_entry
from raftcron.core.commands import Entry, Lead, Outcome, Refused
from raftcron.core.events import Event, events_of
from raftcron.core.image import Reader, image
from raftcron.core.model import HISTORY_BYTES_KEPT
from raftcron.core.schedule import CRONITER_VERSION, TZDATA_VERSION
from raftcron.core.state import DIGESTS_KEPT, State
from raftcron.core.timeline import Timeline
from raftcron.errors import DamagedError
from raftcron.runtime.clocks import TrustedTime

log = logging.getLogger(__name__)

RELEASE_SLICE = 5_000  # records of a state that is replaced which are let go in one turn of the loop: about 2 ms


class Observer(Protocol):
    """Is told once a batch of entries what they changed; looks at the newest state, not at events."""

    def state_changed(self, runs: Iterable[str]) -> None:
        """`runs` are ids of rows that are new, changed or gone."""

    def state_replaced(self) -> None:
        """A snapshot stands in the state's place: another `state` and another `timeline`, of a later index."""


class Watched(Protocol):
    """Is told of each entry what it changed, for those who watch."""

    def take(self, index: int, events: Iterable[Event]) -> None:
        """The events of an entry; called once an index, in order."""

    def applied(self) -> None:
        """A batch of entries is over."""

    def restored(self, index: int) -> None:
        """The state is that of a snapshot now: what came before `index` and is not held is missed."""


class Machine:
    """Replicated state with what follows from it; implements ports.StateMachine."""

    def __init__(self, node: str, time: TrustedTime, history_total: int = HISTORY_BYTES_KEPT) -> None:
        """`history_total`: bytes of run records that all nodes keep while this one leads."""
        self.state = State()
        self.timeline = Timeline(self.state.calendars)
        self.applied_index = 0  # of the log; entries that are not for this machine count too
        self.editions = (CRONITER_VERSION, TZDATA_VERSION)  # what this node reckons with
        self.incarnation = 0  # of this node's process, from 1; 0: not announced yet, so no run is this life's
        self.digests: deque[tuple[int, int]] = deque(maxlen=DIGESTS_KEPT)
        self.spaced_digests: deque[tuple[int, int]] = deque(maxlen=DIGESTS_KEPT)  # at indices divisible by 1,024
        self.events: Watched | None = None
        self._node = node
        self._time = time
        self._history_total = history_total
        self._observers: list[Observer] = []

    @property
    def epoch(self) -> int:
        return self.state.epoch

    def observe(self, observer: Observer) -> None:
        self._observers.append(observer)

    def leadership(self, term: int) -> bytes:
        command = Lead(self._node, self.incarnation, term, __version__, *self.editions, self._history_total)
        return encode_entry(Entry(self.state.epoch, self._time.now_ms(), command))

    def apply(self, index: int, body: bytes) -> Outcome:
        state = self.state
        try:
            entry = decode_entry(body)
        except DamagedError as error:  # the journal's checksum is right, so every node reads the same (I13)
            log.error("entry_unreadable index=%d error=%s", index, error)
            state.index = index
            self._keep_digest()
            return Refused("unreadable", error.detail)
        outcome = apply(state, index, entry)
        if self.events is not None:
            self.events.take(index, events_of(state, index, entry.command))
        if state.touched_jobs:
            timeline = self.timeline
            for uid in state.touched_jobs:
                job = state.by_uid.get(uid)
                if job is None:
                    timeline.remove(uid)
                else:
                    timeline.update(job, state.policies[uid])
            state.touched_jobs.clear()
        if state.touched_calendars:
            self._reread()
        self._keep_digest()
        return outcome

    def _reread(self) -> None:
        """Calendars have changed; what this node could not tell before it may be able to tell now."""
        state, timeline = self.state, self.timeline
        for name in sorted(state.touched_calendars):
            timeline.reread(name)
        for uid in list(timeline.unreadable):
            timeline.update(state.by_uid[uid], state.policies[uid])
        state.touched_calendars.clear()

    def applied(self, index: int) -> None:
        self.applied_index = index
        changed = sorted(self.state.touched_runs)  # in an order that does not change between processes
        self.state.touched_runs = set()
        if self.events is not None:
            self.events.applied()
        for observer in self._observers:
            observer.state_changed(changed)

    def newest_digests(self) -> list[tuple[int, int]]:
        """Index and digest of the present state, and of the newest index divisible by 1,024 that this node keeps."""
        return [(self.state.index, self.state.digest), *list(self.spaced_digests)[-1:]]

    def held_digests(self) -> dict[int, int]:
        """All digests that are kept, by index."""
        return {**dict(self.spaced_digests), **dict(self.digests)}

    def snapshot(self) -> Iterator[bytes]:
        return image(self.state)

    def restoring(self) -> Restoring:
        return Restoring(self)

    def replace(self, state: State, timeline: Timeline) -> None:
        """Go on from a state that a snapshot has brought.

        Raises DamagedError if it is older than the present one: what has been applied is never taken back.
        """
        if state.index < self.state.index:
            raise DamagedError(
                f"a snapshot of index {state.index} came where index {self.state.index} has been applied: "
                "it is not of this log"
            )
        _release([*self.state.containers(), *vars(self.timeline).values()])
        self.state, self.timeline = state, timeline
        self.applied_index = max(self.applied_index, state.index)
        self._keep_digest()
        if self.events is not None:
            self.events.restored(state.index)
        for observer in self._observers:
            observer.state_replaced()

    def _keep_digest(self) -> None:
        """Only pairs that this node has worked out itself: a neighbour's word would count twice in a comparison."""
        pair = (self.state.index, self.state.digest)
        self.digests.append(pair)
        if pair[0] % DIGESTS_KEPT == 0:
            self.spaced_digests.append(pair)


class Restoring:
    """A snapshot on its way into a machine, beside what is there; implements ports.Restoring."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._reader = Reader()
        self._timeline = Timeline(self._reader.state.calendars)

    def feed(self, block: bytes) -> None:
        for job, policy in self._reader.feed(block):
            self._timeline.update(job, policy)

    def install(self) -> None:
        self._machine.replace(self._reader.finish(), self._timeline)


def _release(held: Iterable[Any]) -> None:
    """Let go of what containers hold, a slice a turn: a million records at once would stop the loop for a second.

    The containers stay as they are, for whoever still reads in them.
    """
    containers = [one for one in held if isinstance(one, dict | deque | list) and one]
    if sum(map(len, containers)) <= RELEASE_SLICE:
        return
    loop = asyncio.get_running_loop()
    pile: list[Any] = []

    def turn() -> None:
        if pile:
            del pile[-RELEASE_SLICE:]
        elif containers:
            one = containers.pop()
            pile.extend(one.values() if isinstance(one, dict) else one)
        else:
            return
        loop.call_soon(turn)

    loop.call_soon(turn)
