"""The leader's loop: what is due becomes decisions, what is silent is lost; what is queued is in assigner.py.

`step` looks at the state and the time and says what a leader would propose now; the loop around it proposes that and
waits for the next instant or the next change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from raftcron.core import planner
from raftcron.core.commands import (
    Assign,
    Command,
    Decide,
    Decision,
    Divide,
    Expire,
    Lose,
    PauseJob,
    Requeue,
    ResumeJob,
    TimeOut,
    Token,
    Unassign,
)
from raftcron.core.model import ON_LEADER, QUEUED, Job, Policy
from raftcron.core.timeline import Group
from raftcron.errors import RaftcronError, UnavailableError
from raftcron.runtime import pauses
from raftcron.runtime.assigner import Assigner
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.leases import LeaseKeeper
from raftcron.runtime.machine import Machine
from raftcron.runtime.proposer import Proposer

log = logging.getLogger(__name__)

ROWS_PER_ENTRY = 500  # that decisions make; an entry stays far below the log's bound and its apply below 10 ms
DUE_PER_STEP = 1_000  # jobs looked at before the loop gets a turn
ENTRIES_IN_FLIGHT = 8
QUEUE_DEEP = 5_000  # queued runs; a few seconds of work
DECIDE_WITHIN_MS = 2_000  # well inside the default grace of 10 s
RUNS_PER_ENTRY = 500
SWEEP_SECONDS = 1.0  # how often silent nodes and passed deadlines are looked for
PAUSES_PER_SWEEP = 100  # jobs whose times cannot be told
NOTE_MAX = 1_000  # characters of a pause's note


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
        is_ending: Callable[[str], bool] = lambda node: False,
    ) -> None:
        """`catch_up_rate` is in runs a second; `is_ending` tells whether another node is about to end."""
        self._node = node
        self._machine = machine
        self._proposer = proposer
        self._time = time
        self._leases = leases
        self._wake = asyncio.Event()
        self._deciding: set[int] = set()  # jobs with a decision, or the end of a pause, under way
        self._moving: set[str] = set()  # runs being requeued or expired
        self.assigner = Assigner(
            node=node,
            machine=machine,
            leases=leases,
            catch_up_rate=catch_up_rate,
            moving=self._moving,
            is_ending=is_ending,
        )
        self._pausing: set[str] = set()  # jobs that are being paused because they cannot be read
        self._losing: dict[str, asyncio.Future[int]] = {}  # nodes whose loss is under way
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_sweep = 0
        self._asleep_until = 0

    # ---- the loop

    async def run(self) -> None:
        """Lead until cancelled."""
        self._reset()
        room = asyncio.Semaphore(ENTRIES_IN_FLIGHT)
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                now = self._time.now_ms()
                more = False
                for command in self.step(now):
                    await room.acquire()
                    self._submit(command, room)
                    await asyncio.sleep(0)  # heartbeats do not wait for a large batch
                    more = True
                now = self._time.now_ms()
                if more and self._is_due(now) and self._may_decide(now):
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
            for entry in self._losing.values():
                _fail(entry, UnavailableError("the lead has ended"))

    def state_changed(self, runs: Iterable[str]) -> None:
        """Look again soon if there is something to do: an earlier instant, a queued run, a slot that was left."""
        if self._machine.state.leader != self._node:
            return
        at = self._machine.timeline.next_at()
        if (at is not None and at < self._asleep_until) or self._wanted(runs):
            self._wake.set()

    def state_replaced(self) -> None:
        """Nothing to keep: no leader is behind its own log, and each lead begins anew with the state that it finds."""
        self._wake.set()

    def time_changed(self) -> None:
        """Trusted time has gone forward or back, or there is one now."""
        self._wake.set()

    # ---- planning

    def step(self, now: int) -> Iterator[Command]:
        """What this leader proposes at this instant."""
        if self._machine.state.queued:
            yield from self.assigner.assign(now, may_expire=self._time.may_decide)  # what waits goes before what comes
        if self._time.may_decide:
            yield from self._end_pauses(now)
        if self._may_decide(now):
            yield from self._decide(now)
        if not 0 < self._next_sweep - now <= SWEEP_SECONDS * 1000:  # passed, or the wall clock was set back
            self._next_sweep = now + int(SWEEP_SECONDS * 1000)
            yield from self._lose()
            yield from self.assigner.take_back()
            self.assigner.forget()
            if self._time.may_decide:
                yield from self._time_out(now)
                yield from self.assigner.expire(now)
            yield from self._pause_unreadable()
        if self._machine.state.waiting and self._time.may_decide:
            yield from self._requeue(now)

    def _may_decide(self, now: int) -> bool:
        """Whether new decisions are made: not while there is no time to decide on, and not while the queue is deep,
        unless something has waited DECIDE_WITHIN_MS.

        A queued run costs every node twice what one costs that starts at once, so under overload times wait on the
        timeline rather than in the queue, as long as that makes no difference to what becomes of them.
        """
        if not self._time.may_decide:
            return False
        if self.assigner.backlog < QUEUE_DEEP:
            return True
        at = self._machine.timeline.next_at()
        return at is not None and now - at >= DECIDE_WITHIN_MS

    def _decide(self, now: int) -> Iterator[Command]:
        state, timeline = self._machine.state, self._machine.timeline
        place, live = self.assigner.place(), self.assigner.live()
        decisions: list[Decision] = []
        rows = 0
        is_elsewhere = False
        # The timeline has let go of what is due, so all of it counts as under way until it is settled.
        due = [uid for uid in timeline.due(now, state.by_uid.get, DUE_PER_STEP) if uid not in self._deciding]
        self._deciding.update(due)
        plans: dict[tuple[int, int, int], Decision | None] = {}  # jobs that are alike share a plan
        for uid in due:
            job, group = state.by_uid.get(uid), timeline.group_of(uid)
            decision = None
            if job is not None and group is not None:
                policy = state.policy(uid)
                is_elsewhere = is_elsewhere or policy.placement != ON_LEADER
                if policy.recurrence.jitter_ms or job.skips:
                    decision = self._plan(job, policy, group, now)
                else:
                    alike = (id(group), id(policy), group.watermark(job))  # all of them live as long as this step
                    if alike not in plans:
                        plans[alike] = self._plan(job, policy, group, now)
                    plan = plans[alike]
                    if plan is not None:
                        revision = max(job.revision, group.revision)
                        decision = Decision(uid, revision, plan.through, plan.fires, plan.summaries)
            if decision is None:
                self._deciding.discard(uid)
                continue
            decisions.append(decision)
            rows += len(decision.fires) + len(decision.summaries)
            if rows >= ROWS_PER_ENTRY:
                yield Decide(place, decisions, live if is_elsewhere else [])
                decisions, rows = [], 0
        if decisions:
            yield Decide(place, decisions, live if is_elsewhere else [])

    def _plan(self, job: Job, policy: Policy, group: Group, now: int) -> Decision | None:
        """One job's plan; a schedule that cannot be worked out stops that job alone, with a line that names it."""
        try:
            return planner.decide(job, policy, group, now, self._time.jump)
        except Exception as error:
            self._machine.timeline.unreadable[job.uid] = repr(error)
            log.exception("job_unplannable job=%s schedules=%s", job.name, policy.recurrence.schedules)
            return None

    def _lose(self) -> Iterator[Command]:
        state = self._machine.state
        unsettled = self._leases.unsettled()
        bound = self.assigner.bound()
        for node in dict.fromkeys([*unsettled, *state.on_node, *bound]):
            runs = {**state.on_node.get(node, {}), **bound.get(node, {})}
            if node in self._losing or not (node in unsettled or (runs and self._leases.is_silent(node))):
                continue
            incarnation = max((run.incarnation for run in runs.values()), default=0)
            tokens = [Token(run.id, run.fencing_token) for run in islice(runs.values(), RUNS_PER_ENTRY)]
            log.warning("node_silent node=%s runs=%d", node, len(runs))
            self._losing[node] = self._leases.losing(node)  # before the command waits for room
            yield Lose(node, incarnation, tokens)

    def _time_out(self, now: int) -> Iterator[Command]:
        """Runs that their targets have taken over, and whose targets have not been heard in time."""
        at = max(now, self._machine.state.cluster_time)
        silent = [
            Token(run.id, run.fencing_token)
            for run in self._machine.state.taken_over.values()
            if run.answer_by is not None and run.answer_by < at
        ]
        for begin in range(0, len(silent), RUNS_PER_ENTRY):
            yield TimeOut(silent[begin : begin + RUNS_PER_ENTRY])

    def _pause_unreadable(self) -> Iterator[Command]:
        """Jobs whose times this node cannot tell owe nothing until somebody looks after them (semantics 8)."""
        state, timeline = self._machine.state, self._machine.timeline
        for uid, reason in list(islice(timeline.unreadable.items(), PAUSES_PER_SWEEP)):
            job = state.by_uid.get(uid)
            if job is None or job.paused:
                timeline.unreadable.pop(uid)
            elif job.name not in self._pausing:
                note = f"paused by the cluster: leader {self._node} cannot tell its times: {reason}"[:NOTE_MAX]
                log.error("job_unreadable job=%s reason=%s action=paused", job.name, reason)
                self._pausing.add(job.name)
                yield PauseJob(job.name, [], state.revision_of(job), note, is_forced=True)

    def _end_pauses(self, now: int) -> Iterator[Command]:
        """Pauses that end by themselves."""
        state, timeline = self._machine.state, self._machine.timeline
        over = timeline.pauses_over(now, PAUSES_PER_SWEEP)
        self._deciding.update(over)  # the timeline has let go of them
        for uid in over:
            job = state.by_uid.get(uid)
            if job is not None and job.is_pause_over(now):
                yield pauses.ending(self._machine, job)
                continue
            self._deciding.discard(uid)
            if job is not None:  # a write has ended it, or begun another, while this waited for room
                timeline.update(job, state.policy(uid))

    def _requeue(self, now: int) -> Iterator[Command]:
        ids = [
            run.id
            for run in self._machine.state.waiting.values()
            if run.not_before <= now and run.id not in self._moving
        ]
        self._moving.update(ids)
        yield from (Requeue(part) for part in _parts(ids))

    # ---- proposing

    def _submit(self, command: Command, room: asyncio.Semaphore) -> None:
        task = asyncio.get_running_loop().create_task(self._propose(command, room))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _propose(self, command: Command, room: asyncio.Semaphore) -> None:
        entry = self._losing.get(command.node) if isinstance(command, Lose) else None
        try:
            await self._proposer.propose(command)
            if entry is not None and not entry.done():
                entry.set_result(self._machine.state.index)
        except RaftcronError as error:
            log.warning("proposal_failed command=%s code=%s", type(command).__name__, error.code)
            if entry is not None:
                _fail(entry, error)
        finally:
            room.release()
            self._settled(command)

    def _settled(self, command: Command) -> None:
        """The command has applied or failed: what it was about may be planned again."""
        if isinstance(command, Decide):
            state, timeline = self._machine.state, self._machine.timeline
            for decision in command.decisions:
                self._deciding.discard(decision.uid)
                job = state.by_uid.get(decision.uid)
                if job is not None:  # not taken; or more of it fell due before this was known
                    timeline.update(job, state.policy(job.uid))
        elif isinstance(command, Assign):
            self.assigner.settled(command)
        elif isinstance(command, Divide):
            self._moving.difference_update(parting.run for parting in command.partings)
        elif isinstance(command, Unassign):
            self._moving.difference_update(token.run for token in command.tokens)
        elif isinstance(command, Expire | Requeue):
            self._moving.difference_update(command.runs)
        elif isinstance(command, Lose):
            self._losing.pop(command.node, None)
        elif isinstance(command, PauseJob):
            self._pausing.discard(command.name)
        elif isinstance(command, ResumeJob) and (resumed := self._machine.state.jobs.get(command.name)) is not None:
            self._deciding.discard(resumed.uid)
            self._machine.timeline.update(resumed, self._machine.state.policy(resumed.uid))
        self._wake.set()

    # ---- details

    def _reset(self) -> None:
        state, timeline = self._machine.state, self._machine.timeline
        for uid in self._deciding:  # a former lead of this node ended before they were submitted
            if (job := state.by_uid.get(uid)) is not None:
                timeline.update(job, state.policy(uid))
        self._deciding.clear()
        self._moving.clear()
        self._pausing.clear()
        self._losing.clear()
        self._next_sweep = 0
        self.assigner.begin(self._time.now_ms())

    def _is_due(self, now: int) -> bool:
        at = self._machine.timeline.next_at()
        return at is not None and at <= now

    def _seconds_to_wait(self, now: int) -> float:
        waits = [SWEEP_SECONDS * 1000]
        state = self._machine.state
        if self._time.may_decide:
            at = self._machine.timeline.next_at()
            if at is not None:
                waits.append(at - now if self._may_decide(now) else at + DECIDE_WITHIN_MS - now)
            waits.extend(
                run.not_before - now for run in islice(state.waiting.values(), 1_000) if run.id not in self._moving
            )
        if (queue := self.assigner.milliseconds_to_wait()) is not None:
            waits.append(queue)
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


def _parts(ids: list[str]) -> Iterator[list[str]]:
    """As many as one entry takes."""
    for at in range(0, len(ids), RUNS_PER_ENTRY):
        yield ids[at : at + RUNS_PER_ENTRY]


def _fail(entry: asyncio.Future[int], error: RaftcronError) -> None:
    if not entry.done():
        entry.set_exception(error)
        entry.exception()  # looked at by whoever waits; nobody may
