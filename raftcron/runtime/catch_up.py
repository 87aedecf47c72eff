"""How far catching up has come after an outage: runs of missed times that are owed still, and those that have started.

Every node knows, from its own state; the leader logs when it begins, how it goes on and when it is done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import chain

from raftcron.core.model import ASSIGNED, CAUSE_CATCH_UP, QUEUED, Run
from raftcron.runtime.machine import Machine

log = logging.getLogger(__name__)

TOLD_EVERY_MS = 10_000  # of cluster time


class CatchUp:
    """Watches the machine.  `started` counts since this leader took over, or since there was something owed again."""

    def __init__(self, node: str, machine: Machine) -> None:
        self.started = 0
        self._node = node
        self._machine = machine
        self._owed: set[str] = set()
        self._epoch = 0
        self._begun_at: int | None = None  # cluster time
        self._told_at = 0
        machine.observe(self)

    @property
    def owed(self) -> int:
        """Decided runs of missed times that have not started yet."""
        return len(self._owed)

    def state_changed(self, runs: Iterable[str]) -> None:
        state, owed = self._machine.state, self._owed
        if state.epoch != self._epoch:
            self._epoch, self.started, self._begun_at = state.epoch, 0, None
        for run_id in runs:
            run = state.runs.active(run_id)
            if run is not None and _is_owed(run):
                owed.add(run_id)
            elif run_id in owed:
                owed.discard(run_id)
                ended = run or state.runs.get(run_id)
                self.started += ended is not None and bool(ended.attempts)
        self._tell()

    def state_replaced(self) -> None:
        """A snapshot says what is owed."""
        state = self._machine.state
        self._owed = {run.id for run in chain(state.queued.values(), state.held.values()) if _is_owed(run)}

    def _tell(self) -> None:
        now = self._machine.state.cluster_time
        leads = self._machine.state.leader == self._node
        if self._owed and self._begun_at is None:
            self._begun_at = self._told_at = now
            self.started = 0
            if leads:
                log.info("catch_up_begun owed=%d", len(self._owed))
        elif not self._owed and self._begun_at is not None:
            if leads:
                log.info("catch_up_done started=%d seconds=%.1f", self.started, (now - self._begun_at) / 1000)
            self._begun_at = None
        elif self._owed and now - self._told_at >= TOLD_EVERY_MS:
            self._told_at = now
            if leads:
                log.info("catch_up_goes_on owed=%d started=%d", len(self._owed), self.started)


def _is_owed(run: Run) -> bool:
    return run.cause == CAUSE_CATCH_UP and run.state in (QUEUED, ASSIGNED) and not run.attempts
