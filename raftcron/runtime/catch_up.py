"""How far catching up has come after an outage: starts for missed times that are owed still, and those that were made.

What is divided is counted by its parts, as `catch_up_rate` counts it: before its division a run stands for its shards,
or for the nodes that match it as it is queued.

Every node knows, from its own state; the leader logs when it begins, how it goes on and when it is done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import chain

from raftcron.core.model import ASSIGNED, CAUSE_CATCH_UP, QUEUED, Run
from raftcron.core.placement import is_split, matching, part_names
from raftcron.core.state import State
from raftcron.runtime.machine import Machine

log = logging.getLogger(__name__)

TOLD_EVERY_MS = 10_000  # of cluster time


class CatchUp:
    """Watches the machine.  `started` counts since this leader took over, or since there was something owed again."""

    def __init__(self, node: str, machine: Machine) -> None:
        self.started = 0
        self._node = node
        self._machine = machine
        self._owed: dict[str, int] = {}  # how many starts each run stands for
        self._sum = 0
        self._epoch = 0
        self._begun_at: int | None = None  # cluster time
        self._told_at = 0
        machine.observe(self)

    @property
    def owed(self) -> int:
        """Starts of decided runs of missed times that have not been made yet."""
        return self._sum

    def state_changed(self, runs: Iterable[str]) -> None:
        state = self._machine.state
        if state.epoch != self._epoch:
            self._epoch, self.started, self._begun_at = state.epoch, 0, None
        for run_id in runs:
            run = state.runs.active(run_id)
            if run is not None and _is_owed(run):
                self._owe(run)
            elif run_id in self._owed:
                self._sum -= self._owed.pop(run_id)
                ended = run or state.runs.get(run_id)
                self.started += ended is not None and bool(ended.attempts)
        self._tell()

    def state_replaced(self) -> None:
        """A snapshot says what is owed."""
        state = self._machine.state
        self._owed, self._sum = {}, 0
        for run in chain(state.queued.values(), state.held.values()):
            if _is_owed(run):
                self._owe(run)

    def _owe(self, run: Run) -> None:
        if run.id not in self._owed:
            count = self._owed[run.id] = _starts_of(self._machine.state, run)
            self._sum += count

    def _tell(self) -> None:
        now = self._machine.state.cluster_time
        leads = self._machine.state.leader == self._node
        if self._owed and self._begun_at is None:
            self._begun_at = self._told_at = now
            self.started = 0
            if leads:
                log.info("catch_up_begun owed=%d", self._sum)
        elif not self._owed and self._begun_at is not None:
            if leads:
                log.info("catch_up_done started=%d seconds=%.1f", self.started, (now - self._begun_at) / 1000)
            self._begun_at = None
        elif self._owed and now - self._told_at >= TOLD_EVERY_MS:
            self._told_at = now
            if leads:
                log.info("catch_up_goes_on owed=%d started=%d", self._sum, self.started)


def _is_owed(run: Run) -> bool:
    return run.cause == CAUSE_CATCH_UP and run.state in (QUEUED, ASSIGNED) and not run.attempts


def _starts_of(state: State, run: Run) -> int:
    """How many starts a run that is owed stands for, by what is known now."""
    policy = state.policies.get(run.uid)
    if policy is None or run.part is not None or not is_split(policy):
        return 1
    return max(1, len(part_names(policy, run, matching(policy.tags, None, state.nodes, state))))
