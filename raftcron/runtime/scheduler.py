"""The leader's loop: what is due becomes decisions, what is queued gets a node, what is silent is lost.

`step` looks at the state and the time and says what a leader would propose now; the loop around it proposes that and
waits for the next instant or the next change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from itertools import islice

from raftcron.core import planner
from raftcron.core.commands import (
    Assign,
    Assignment,
    Command,
    Decide,
    Decision,
    Expire,
    Lose,
    Place,
    Requeue,
    Token,
)
from raftcron.core.model import CAUSE_CATCH_UP, QUEUED, Run
from raftcron.core.policy import start_deadline
from raftcron.errors import RaftcronError
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.leases import LeaseKeeper
from raftcron.runtime.machine import Machine
from raftcron.runtime.proposer import Proposer

log = logging.getLogger(__name__)

DECISIONS_PER_ENTRY = 500  # about 40 bytes each; an entry stays far below the log's bound and its apply below 10 ms
DUE_PER_STEP = 1_000  # jobs looked at before the loop gets a turn
ENTRIES_IN_FLIGHT = 8
ASSIGNMENTS_PER_ENTRY = 500
SWEEP_SECONDS = 1.0  # how often silent nodes and passed deadlines are looked for
SCAN_PER_SWEEP = 20_000  # queued runs whose deadline is looked at in one sweep


class Scheduler:
    """Plans and proposes while this node leads."""

    def __init__(
        self,
        *,
        node: str,
        machine: Machine,
        proposer: Proposer,
        time: TrustedTime,
        leases: LeaseKeeper,
        catch_up_rate: float,
    ) -> None:
        self._node = node
        self._machine = machine
        self._proposer = proposer
        self._time = time
        self._leases = leases
        self._catch_up_rate = catch_up_rate
        self._catch_up_allowance = 0.0
        self._allowance_at = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(ENTRIES_IN_FLIGHT)
        self._deciding: set[int] = set()  # jobs with a decision under way
        self._assigning: set[str] = set()
        self._moving: set[str] = set()  # runs being requeued or expired
        self._losing: set[str] = set()  # nodes
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_sweep = 0
        self._asleep_until = 0
        self.decided_count = 0

    # ---- the loop

    async def run(self) -> None:
        """Lead until cancelled."""
        self._reset()
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                now = self._time.now_ms()
                more = False
                for command in self.step(now):
                    await self._room.acquire()
                    self._submit(command)
                    more = True
                if more and self._is_due(self._time.now_ms()):
                    await asyncio.sleep(0)
                    continue
                now = self._time.now_ms()
                seconds = self._seconds_to_wait(now)
                self._asleep_until = now + int(seconds * 1000)
                timer = loop.call_later(seconds, self._wake.set)
                try:
                    await self._wake.wait()
                finally:
                    timer.cancel()
                    self._asleep_until = 0
        finally:
            for task in self._tasks:
                task.cancel()

    def state_changed(self, runs: Iterable[str]) -> None:
        """Look again soon if there is something to do: an earlier instant, a queued run, a slot that was left."""
        at = self._machine.timeline.next_at()
        if (at is not None and at < self._asleep_until) or self._wanted(runs):
            self._wake.set()

    # ---- planning

    def step(self, now: int) -> Iterator[Command]:
        """What this leader proposes at this instant."""
        yield from self._decide(now)
        if self._machine.state.queued:
            yield from self._assign(now)
        if now >= self._next_sweep:
            self._next_sweep = now + int(SWEEP_SECONDS * 1000)
            yield from self._lose()
            yield from self._expire(now)
        if self._machine.state.waiting:
            yield from self._requeue(now)

    def _decide(self, now: int) -> Iterator[Command]:
        state, timeline = self._machine.state, self._machine.timeline
        place = self._place()
        decisions: list[Decision] = []
        for uid in timeline.due(now, state.by_uid.get, DUE_PER_STEP):
            job, group = state.by_uid.get(uid), timeline.group_of(uid)
            if job is None or group is None or uid in self._deciding:
                continue
            decision = planner.decide(job, state.policy(uid), group, now)
            if decision is None:
                continue
            self._deciding.add(uid)
            decisions.append(decision)
            if len(decisions) >= DECISIONS_PER_ENTRY:
                yield Decide(place, decisions)
                decisions = []
        if decisions:
            yield Decide(place, decisions)

    def _assign(self, now: int) -> Iterator[Command]:
        state = self._machine.state
        here = state.nodes.get(self._node)
        if here is None or here.incarnation != self._machine.incarnation:
            return  # this life is not announced yet
        free = here.slots - len(state.on_node.get(self._node, ())) - len(self._assigning)
        self._refill(now)
        place = self._place()
        chosen: list[Assignment] = []
        for run in islice(state.queued.values(), max(0, free) + len(self._assigning)):
            if len(chosen) >= free:
                break
            if run.id in self._assigning or run.id in self._moving or self._is_expired(run, now):
                continue
            if not state.has_slot(self._node, process=run.is_process):
                continue
            if run.cause == CAUSE_CATCH_UP and run.attempt == 1:
                if self._catch_up_allowance < 1:
                    continue
                self._catch_up_allowance -= 1
            chosen.append(Assignment(run.id, place, start=True))
        for at in range(0, len(chosen), ASSIGNMENTS_PER_ENTRY):
            part = chosen[at : at + ASSIGNMENTS_PER_ENTRY]
            self._assigning.update(assignment.run for assignment in part)
            yield Assign(part)

    def _lose(self) -> Iterator[Command]:
        state = self._machine.state
        for node, runs in list(state.on_node.items()):
            if runs and node not in self._losing and self._leases.is_silent(node):
                incarnation = max(run.incarnation for run in runs.values())
                tokens = [Token(run.id, run.fencing_token) for run in islice(runs.values(), ASSIGNMENTS_PER_ENTRY)]
                log.warning("node_silent node=%s runs=%d", node, len(runs))
                self._losing.add(node)
                yield Lose(node, incarnation, tokens)

    def _expire(self, now: int) -> Iterator[Command]:
        state = self._machine.state
        ids = [
            run.id
            for run in islice(state.queued.values(), SCAN_PER_SWEEP)
            if run.id not in self._moving and run.id not in self._assigning and self._is_expired(run, now)
        ]
        if ids:
            self._moving.update(ids)
            yield Expire(ids)

    def _requeue(self, now: int) -> Iterator[Command]:
        ids = [
            run.id
            for run in self._machine.state.waiting.values()
            if run.not_before <= now and run.id not in self._moving
        ]
        if ids:
            self._moving.update(ids)
            yield Requeue(ids)

    # ---- proposing

    def _submit(self, command: Command) -> None:
        task = asyncio.get_running_loop().create_task(self._propose(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _propose(self, command: Command) -> None:
        entry: asyncio.Future[int] | None = None
        if isinstance(command, Lose):
            entry = asyncio.get_running_loop().create_future()
            self._leases.losing(command.node, entry)
        try:
            outcome = await self._proposer.propose(command)
            if isinstance(command, Decide):
                self.decided_count += getattr(outcome, "count", 0)
            if entry is not None:
                entry.set_result(self._machine.state.index)
        except RaftcronError as error:
            log.warning("proposal_failed command=%s code=%s", type(command).__name__, error.code)
            if entry is not None and not entry.done():
                entry.set_exception(error)
                entry.exception()  # looked at by whoever waits; nobody may
        finally:
            self._room.release()
            self._settled(command)

    def _settled(self, command: Command) -> None:
        """The command has applied or failed: what it was about may be planned again."""
        if isinstance(command, Decide):
            state, timeline = self._machine.state, self._machine.timeline
            for decision in command.decisions:
                self._deciding.discard(decision.uid)
                job = state.by_uid.get(decision.uid)
                if job is not None and job.decided_through < decision.through:
                    timeline.update(job, state.policy(job.uid))  # not taken: it is due still
        elif isinstance(command, Assign):
            self._assigning.difference_update(assignment.run for assignment in command.assignments)
        elif isinstance(command, Expire | Requeue):
            self._moving.difference_update(command.runs)
        elif isinstance(command, Lose):
            self._losing.discard(command.node)
        self._wake.set()

    # ---- details

    def _reset(self) -> None:
        self._deciding.clear()
        self._assigning.clear()
        self._moving.clear()
        self._losing.clear()
        self._room = asyncio.Semaphore(ENTRIES_IN_FLIGHT)
        self._next_sweep = 0
        self._allowance_at = self._time.now_ms()
        self._catch_up_allowance = min(1.0, self._catch_up_rate)

    def _place(self) -> Place:
        return Place(self._node, self._machine.incarnation)

    def _refill(self, now: int) -> None:
        passed = max(0, now - self._allowance_at) / 1000
        self._allowance_at = now
        self._catch_up_allowance = min(self._catch_up_rate, self._catch_up_allowance + passed * self._catch_up_rate)

    def _is_expired(self, run: Run, now: int) -> bool:
        policy = self._machine.state.policies.get(run.uid)
        return run.attempt == 1 and policy is not None and now > start_deadline(policy, run)

    def _is_due(self, now: int) -> bool:
        at = self._machine.timeline.next_at()
        return at is not None and at <= now

    def _seconds_to_wait(self, now: int) -> float:
        waits = [SWEEP_SECONDS * 1000]
        at = self._machine.timeline.next_at()
        if at is not None:
            waits.append(at - now)
        state = self._machine.state
        waits.extend(run.not_before - now for run in islice(state.waiting.values(), 1_000))
        if any(run.cause == CAUSE_CATCH_UP for run in islice(state.queued.values(), 100)):
            waits.append(1000 / self._catch_up_rate)
        return max(0.0, min(waits) / 1000)

    def _wanted(self, runs: Iterable[str]) -> bool:
        """Whether a change of runs gives this loop something to do: only with a queue or retries to look after."""
        state = self._machine.state
        if state.waiting:
            return True
        if not state.queued:
            return False
        known = state.runs
        return any((run := known.get(run_id)) is None or run.state == QUEUED or run.finished_at for run_id in runs)
