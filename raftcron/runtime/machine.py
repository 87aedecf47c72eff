"""The state machine that the log drives: decodes entries, applies them, and tells the loops what changed.

It keeps what is derived from state and needed at once by a new leader: the timeline and the digests by index.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from raftcron import __version__
from raftcron.core.apply import apply
from raftcron.core.codec import decode_entry, encode_entry
from raftcron.core.commands import Entry, Lead, Outcome, Refused
from raftcron.core.schedule import CRONITER_VERSION, TZDATA_VERSION
from raftcron.core.state import DIGESTS_KEPT, State
from raftcron.core.timeline import Timeline
from raftcron.errors import DamagedError
from raftcron.runtime.clocks import TrustedTime

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Is told once a batch of entries what they changed; looks at the newest state, not at events."""

    def state_changed(self, runs: Iterable[str]) -> None:
        """`runs` are ids of rows that are new, changed or gone."""


class Machine:
    """Replicated state with what follows from it; implements ports.StateMachine."""

    def __init__(self, node: str, time: TrustedTime) -> None:
        self.state = State()
        self.timeline = Timeline()
        self.applied_index = 0  # of the log; entries that are not for this machine count too
        self.incarnation = 0  # of this node's process; set before the log starts
        self.digests: deque[tuple[int, int]] = deque(maxlen=DIGESTS_KEPT)
        self.spaced_digests: deque[tuple[int, int]] = deque(maxlen=DIGESTS_KEPT)  # at indices divisible by 1,024
        self._node = node
        self._time = time
        self._observers: list[Observer] = []

    @property
    def epoch(self) -> int:
        return self.state.epoch

    def observe(self, observer: Observer) -> None:
        self._observers.append(observer)

    def leadership(self, term: int) -> bytes:
        command = Lead(self._node, self.incarnation, term, __version__, CRONITER_VERSION, TZDATA_VERSION)
        return encode_entry(Entry(self.state.epoch, self._time.now_ms(), command))

    def apply(self, index: int, body: bytes) -> Outcome:
        state = self.state
        try:
            entry = decode_entry(body)
        except DamagedError as error:  # the journal's checksum is right, so every node reads the same (I13)
            log.error("entry_unreadable index=%d error=%s", index, error)
            state.index = index
            self.digests.append((index, state.digest))
            return Refused("unreadable", error.detail)
        outcome = apply(state, index, entry)
        if state.touched_jobs:
            timeline = self.timeline
            for uid in state.touched_jobs:
                job = state.by_uid.get(uid)
                if job is None:
                    timeline.remove(uid)
                else:
                    timeline.update(job, state.policies[uid])
            state.touched_jobs.clear()
        self.digests.append((index, state.digest))
        if index % DIGESTS_KEPT == 0:
            self.spaced_digests.append((index, state.digest))
        return outcome

    def applied(self, index: int) -> None:
        self.applied_index = index
        changed = sorted(self.state.touched_runs)  # in an order that does not change between processes
        self.state.touched_runs = set()
        for observer in self._observers:
            observer.state_changed(changed)
