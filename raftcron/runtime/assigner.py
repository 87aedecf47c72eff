"""The leader's queue: which queued runs get a place now, and which have waited beyond their start deadline.

Part of the leader's loop (scheduler.py), which proposes what is said here and tells when it has applied or failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from raftcron.core.commands import Assign, Assignment, Expire, Place
from raftcron.core.model import ASSIGNED, CAUSE_CATCH_UP, QUEUED, Run
from raftcron.core.policy import start_deadline
from raftcron.runtime.machine import Machine

ASSIGNMENTS_PER_ENTRY = 500
SCAN_PER_SWEEP = 20_000  # queued runs whose deadline is looked at in one sweep


class Assigner:
    """Gives queued runs a place while this node leads; begun anew with each lead."""

    def __init__(self, *, node: str, machine: Machine, catch_up_rate: float, moving: set[str]) -> None:
        """`moving` are runs that the leader's loop is moving otherwise: they are left alone, and expired ones join."""
        self._node = node
        self._machine = machine
        self._catch_up_rate = catch_up_rate
        self._catch_up_allowance = 0.0
        self._allowance_at = 0
        self._moving = moving
        self._assigning: set[str] = set()
        self.is_draining = False  # this node starts nothing any more

    def begin(self, now: int) -> None:
        """A new lead: nothing of a former one is under way."""
        self._assigning.clear()
        self._allowance_at = now
        self._catch_up_allowance = min(1.0, self._catch_up_rate)

    def place(self) -> Place:
        """Where runs of the placement `leader` start; nowhere while this node drains, so that they are queued."""
        return Place(self._node, 0 if self.is_draining else self._machine.incarnation)

    def assign(self, now: int) -> Iterator[Assign]:
        """What of the queue gets a place now."""
        state = self._machine.state
        here = state.nodes.get(self._node)
        if here is None or here.incarnation != self._machine.incarnation or self.is_draining:
            return  # this life is not announced yet, or about to end
        free = here.slots - len(state.on_node.get(self._node, ())) - len(self._assigning)
        self._refill(now)
        place = self.place()
        chosen: list[Assignment] = []
        processes = here.process_slots - state.processes.get(self._node, 0)
        for is_process, is_paced in ((False, False), (True, False), (False, True), (True, True)):
            for run in state.queues[is_process, is_paced].values():
                if len(chosen) >= free or (is_process and processes < 1) or (is_paced and self._catch_up_allowance < 1):
                    break
                if run.id in self._assigning or run.id in self._moving:
                    continue
                if self.is_expired(run, now):
                    continue
                processes -= is_process
                self._catch_up_allowance -= is_paced
                chosen.append(Assignment(run.id, place, start=True))
        for at in range(0, len(chosen), ASSIGNMENTS_PER_ENTRY):
            part = chosen[at : at + ASSIGNMENTS_PER_ENTRY]
            self._assigning.update(assignment.run for assignment in part)
            yield Assign(part)

    def expire(self, now: int) -> Iterator[Expire]:
        """Runs that may no longer start for the first time."""
        state = self._machine.state
        ids = [
            run.id
            for run in chain(
                islice(chain(state.queued.values(), state.held.values()), SCAN_PER_SWEEP),
                *map(dict.values, state.on_node.values()),
            )
            if run.state in (QUEUED, ASSIGNED)
            and run.id not in self._moving
            and run.id not in self._assigning
            and self.is_expired(run, now)
        ]
        self._moving.update(ids)
        for at in range(0, len(ids), ASSIGNMENTS_PER_ENTRY):
            yield Expire(ids[at : at + ASSIGNMENTS_PER_ENTRY])

    def is_expired(self, run: Run, now: int) -> bool:
        """Whether the run's start deadline has passed."""
        policy = self._machine.state.policies.get(run.uid)
        at = max(now, self._machine.state.cluster_time)  # by which `apply` judges it
        return run.attempt == 1 and policy is not None and at > start_deadline(policy, run)

    def settled(self, command: Assign) -> None:
        """The command has applied or failed: its runs may be looked at again."""
        self._assigning.difference_update(assignment.run for assignment in command.assignments)

    def milliseconds_to_wait(self) -> float | None:
        """When to look again although nothing changes; None: not before something does."""
        if any(run.cause == CAUSE_CATCH_UP for run in islice(self._machine.state.queued.values(), 100)):
            return 1000 / self._catch_up_rate
        return None

    def _refill(self, now: int) -> None:
        passed = max(0, now - self._allowance_at) / 1000
        self._allowance_at = now
        self._catch_up_allowance = min(self._catch_up_rate, self._catch_up_allowance + passed * self._catch_up_rate)
