"""Every node's worker: starts the attempts that the state gives to this life of this node, and reports their ends.

It compares state, not events, and starts user code only through the start gate (semantics 5.4).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from raftcron.clock import Clock
from raftcron.core import definition
from raftcron.core.apply.runs import REPORTABLE
from raftcron.core.commands import Finished, TakenOver, Token
from raftcron.core.instant import rfc3339
from raftcron.core.model import ASSIGNED, CANCELLING, ENDED, LOST, RUNNING, STARTED, Run
from raftcron.core.policy import BROKEN, start_deadline
from raftcron.core.vault import is_secretive
from raftcron.ports import Attempt, Ending, Executor, is_cancelled
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.leases import License
from raftcron.runtime.machine import Machine
from raftcron.runtime.reports import Reports
from raftcron.runtime.resolver import Resolver, SecretError

log = logging.getLogger(__name__)

GATE_WAIT_SECONDS = 5.0  # how long an attempt waits for a licence before its token is refused
SWEEP_SECONDS = 1.0
ERROR_CHARACTERS = 1_000
TAIL_BYTES = 4096
STUCK_SECONDS = 5.0  # beyond the grace of a shutdown: what has not ended then is stuck

_instant = lru_cache(maxsize=1_024)(rfc3339)  # many runs share an instant
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Finished).decode
_decode_taken = msgspec.msgpack.Decoder(TakenOver).decode

BRANCHES = (  # of the start gate that are counted: why user code does not start
    "start refused (asked again)",
    "start refused (told to stop)",
    "start refused (run has gone on)",
    "start refused (run of another life)",
    "start refused (draining)",
    "start refused (licence of another epoch)",
    "start refused (licence ahead of what has applied)",
    "start refused (licence is over)",
    "start refused (job is gone)",
    "start refused (another kind of slot)",
    "start refused (past its deadline)",
)

STOP_CANCELLED = "cancelled"
STOP_SHUTDOWN = "shutdown"
STOP_LEASE = "lease"


class Running:
    """One attempt in this process; implements ports.Control."""

    __slots__ = (
        "_stop",
        "_stop_reason",
        "_worker",
        "has_started",
        "is_refused",
        "kill_after_seconds",
        "run_id",
        "self_stop",
        "timeout_ms",
        "token",
    )

    def __init__(self, worker: Worker, run: Run) -> None:
        self.run_id = run.id
        self.token = run.fencing_token
        self.self_stop = True
        self.kill_after_seconds = 0.0
        self.timeout_ms = 0
        self.has_started = False
        self.is_refused = False
        self._worker = worker
        self._stop: asyncio.Future[str] | None = None
        self._stop_reason: str | None = None

    def may_start(self) -> float | None:
        """Ask the gate, once; what it refuses is refused for the life of the process."""
        until = None
        if self.has_started or self.is_refused:
            self._worker.passes["start refused (asked again)"] += 1
        elif self._stop_reason is not None:
            self._worker.passes["start refused (told to stop)"] += 1
        else:
            until = self._worker.gate(self)
        if until is None:
            self.is_refused = True
        else:
            self.has_started = True
        return until

    async def stopped(self) -> str:
        if self._stop_reason is not None:
            return self._stop_reason
        if self._stop is None:
            self._stop = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._stop)

    async def overdue(self) -> None:
        await self._worker.overdue.wait()

    def stop(self, reason: str) -> None:
        """Tell the attempt to stop early; the first reason stands."""
        if self._stop_reason is None:
            self._stop_reason = reason
            if self._stop is not None and not self._stop.done():
                self._stop.set_result(reason)


class Worker:
    """Runs what is assigned to this node."""

    def __init__(
        self,
        *,
        node: str,
        machine: Machine,
        reports: Reports,
        executor: Executor,
        clock: Clock,
        time: TrustedTime,
        license_of: Callable[[], License],
        resolver: Resolver,
    ) -> None:
        self._node = node
        self._machine = machine
        self._reports = reports
        self._executor = executor
        self._clock = clock
        self._time = time
        self._license_of = license_of
        self._resolver = resolver
        self._running: dict[int, Running] = {}  # by fencing token: all that this process has begun or refused
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._licensed = asyncio.Event()
        self._lease_timer: asyncio.TimerHandle | None = None
        self._is_draining = False
        self.passes = dict.fromkeys(BRANCHES, 0)  # how often each was taken
        self.overdue = asyncio.Event()  # the grace of the shutdown is over
        self.idle = asyncio.Event()
        self.idle.set()

    # ---- what the state says

    async def run(self) -> None:
        """Look at the whole state each second, for what an event may have missed; until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.sweep()

    def state_changed(self, runs: Iterable[str]) -> None:
        """Look at runs that have changed."""
        here = self._machine.state.on_node.get(self._node)
        if here:
            for run_id in runs:
                run = here.get(run_id)
                if run is not None:
                    self._look(run)
        self._licensed.set()

    def state_replaced(self) -> None:
        """A snapshot has skipped what became of the attempts here: go by what it says now."""
        self.sweep()
        self._licensed.set()

    def sweep(self) -> None:
        """Look at all runs on this node, forget tokens that can never start, repeat what was not heard."""
        state = self._machine.state
        for run in list(state.on_node.get(self._node, {}).values()):
            self._look(run)
        for token, running in list(self._running.items()):
            run_now = state.runs.get(running.run_id)
            is_over = run_now is None or run_now.fencing_token != token or run_now.state not in STARTED
            if is_over and token in self._tasks:
                is_another = run_now is None or run_now.fencing_token != token or run_now.state not in ENDED
                if running.self_stop or is_another:
                    running.stop(STOP_LEASE)  # the cluster has given this attempt up; another may begin
            elif run_now is None or is_over:
                del self._running[token]
            elif token not in self._tasks and run_now.answer_by is None and not self._reports.is_open(token):
                text = "the attempt is over, and has left no word of its end; see this node's log"
                self._reports.ended(Finished(running.run_id, token, LOST, error=text, error_kind="executor"))
        if self._clock.boot() >= self._license_of().until:  # a timer does not see the machine sleep
            self._lease_ended()
        self._reports.repeat()

    def _look(self, run: Run) -> None:
        if run.incarnation != self._machine.incarnation or run.node != self._node:
            return
        token = run.fencing_token
        if run.state == RUNNING:
            if token not in self._running:
                self._launch(run)
        elif run.state == CANCELLING:
            running = self._running.get(token)
            if running is None:
                self._refuse(Running(self, run))
            else:
                running.stop(STOP_CANCELLED)
        elif run.state == ASSIGNED and self._is_draining:
            if token not in self._running:
                self._refuse(Running(self, run))
        elif run.state == ASSIGNED:
            self._reports.ask_start(run)

    # ---- the start gate

    def gate(self, running: Running) -> float | None:
        """Semantics 5.4, looked at right before user code starts: the boot instant the start is licensed until.

        None refuses: the run is no longer running under this token here, the licence has ended or names an epoch or
        index that this node has not applied, or the start deadline has passed.
        """
        state, held = self._machine.state, self._license_of()
        run = state.runs.get(running.run_id)
        policy = None if run is None else state.policies.get(run.uid)
        if run is None or run.state != RUNNING or run.fencing_token != running.token:
            refusal = "run has gone on"
        elif run.node != self._node or run.incarnation != self._machine.incarnation:
            refusal = "run of another life"
        elif self._is_draining:
            refusal = "draining"
        elif not self._is_valid(held):
            refusal = self._flaw_of(held)
        elif policy is None:
            refusal = "job is gone"
        elif run.is_process != state.is_process(self._node, policy.process):
            refusal = "another kind of slot"  # an edit came between
        elif self._time.now_ms() > start_deadline(policy, run):
            refusal = "past its deadline"
        else:
            return held.until
        self.passes[f"start refused ({refusal})"] += 1
        return None

    def _is_valid(self, held: License) -> bool:
        state = self._machine.state
        return (
            held.epoch == state.epoch
            and held.applied_index <= self._machine.applied_index
            and self._clock.boot() < held.until
        )

    def _flaw_of(self, held: License) -> str:
        """Why a licence that is not valid is not."""
        if held.epoch != self._machine.state.epoch:
            return "licence of another epoch"
        is_ahead = held.applied_index > self._machine.applied_index
        return "licence ahead of what has applied" if is_ahead else "licence is over"

    def licensed(self, held: License) -> None:
        """A heartbeat was answered: what waits at the gate may go on, and running attempts may live longer."""
        self._licensed.set()
        if self._lease_timer is not None:
            self._lease_timer.cancel()
        seconds = max(0.0, held.until - self._clock.boot())
        self._lease_timer = asyncio.get_running_loop().call_later(seconds, self._lease_ended)

    def _lease_ended(self) -> None:
        """No heartbeat was answered for lease minus margin: stop what could otherwise run twice (semantics 5.7)."""
        state = self._machine.state
        stopped = 0
        for token in list(self._tasks):
            running = self._running[token]
            run = state.runs.get(running.run_id)  # of a job that others may have come to follow meanwhile
            must_end = running.self_stop or (run is not None and state.stops_with_lease(run.uid))
            if must_end and running.has_started:  # the others wait for a licence anyway
                running.stop(STOP_LEASE)
                stopped += 1
        if stopped:
            log.warning("lease_ended stopped=%d", stopped)

    # ---- attempts

    def _launch(self, run: Run) -> None:
        running = Running(self, run)
        self._running[running.token] = running
        self.idle.clear()
        self._tasks[running.token] = asyncio.get_running_loop().create_task(self._carry_out(running))

    async def _carry_out(self, running: Running) -> None:
        try:
            await self._attempt(running)
        finally:
            del self._tasks[running.token]
            if not self._tasks:
                self.idle.set()

    def _refuse(self, running: Running) -> None:
        running.is_refused = True
        self._running[running.token] = running
        self._reports.refused(Token(running.run_id, running.token))

    async def _attempt(self, running: Running) -> None:
        if not self._is_valid(self._license_of()):
            await self._wait_for_license(running)
        try:
            attempt = self._attempt_of(running)
            if attempt is None:
                self._refuse(running)
                return
            ending = await self._run(attempt, running)
        except Exception as error:
            log.exception("attempt_raised run=%s", running.run_id)
            proven = not running.has_started
            ending = Ending("failed", proven=proven, error=f"the attempt raised {error!r}", error_kind="executor")
        if ending.state == "not_started":
            self._refuse(running)
        else:
            try:
                if ending.state == "taken_over":
                    self._reports.taken_over(_taken_over(running, ending))
                    return
                finished = _finished(running, ending)
            except (ValueError, TypeError, OverflowError) as error:
                log.error("ending_unreadable run=%s error=%s", running.run_id, error)
                text = f"the executor's answer makes no sense: {error}"
                finished = Finished(running.run_id, running.token, LOST, error=text, error_kind="executor")
            self._reports.ended(finished)

    async def _run(self, attempt: Attempt, running: Running) -> Ending:
        """The attempt with its secrets in place, if it has any; they are blotted out of how it ended."""
        if not is_secretive(attempt.executor):
            return await self._execute(attempt, running)
        try:
            resolved = await self._resolver.resolve(attempt.job, attempt.executor)
        except SecretError as error:
            return Ending("failed", error=error.detail, error_kind="secret")
        try:
            return resolved.hide(await self._execute(attempt._replace(executor=resolved.executor), running))
        except Exception as error:
            raise RuntimeError(resolved.hide(Ending("failed", error=repr(error))).error) from None

    async def _execute(self, attempt: Attempt, running: Running) -> Ending:
        try:
            return await self._executor.run(attempt, running)
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            raise RuntimeError(f"{error!r}, though nobody has cancelled it") from error

    async def _wait_for_license(self, running: Running) -> None:
        """Wait until this node holds a valid licence, or for as long as that may sensibly take."""
        give_up = self._clock.boot() + GATE_WAIT_SECONDS
        while not self._is_valid(self._license_of()) and not self._is_draining:
            seconds = give_up - self._clock.boot()
            if seconds <= 0:
                log.info("gate_waited_in_vain run=%s token=%d", running.run_id, running.token)
                return
            self._licensed.clear()
            try:
                await asyncio.wait_for(self._licensed.wait(), seconds)
            except TimeoutError:
                continue

    def _attempt_of(self, running: Running) -> Attempt | None:
        """All that user code may be told; None if the run has gone on, or its job is gone."""
        state = self._machine.state
        run = state.runs.get(running.run_id)
        job = None if run is None else state.by_uid.get(run.uid)
        if run is None or job is None or run.fencing_token != running.token:
            return None
        policy = state.policy(run.uid)
        running.self_stop = state.stops_with_lease(run.uid)
        running.kill_after_seconds = policy.kill_after_ms / 1000
        running.timeout_ms = policy.timeout_ms
        return Attempt(
            job=job.name,
            run_id=run.id,
            scheduled_time=_instant(run.scheduled_time),
            attempt=run.attempt,
            fencing_token=run.fencing_token,
            node=self._node,
            executor=definition.executor_of(job.definition),
            timeout_seconds=policy.timeout_ms / 1000,
            kill_after_seconds=policy.kill_after_ms / 1000,
            args=None if run.args is None else msgspec.msgpack.decode(run.args),
            missed_count=run.missed_count,
            previous_time=None if run.previous_time is None else _instant(run.previous_time),
            shard_index=None if run.part is None else run.part.shard_index,
            shard_count=None if run.part is None else run.part.shard_count,
            traceparent=_traceparent(run),
            self_stop=running.self_stop,
        )

    # ---- shutdown

    def hurry(self) -> None:
        """Stop all that runs here now; no grace any more."""
        for token in list(self._tasks):
            self._running[token].stop(STOP_SHUTDOWN)

    async def drain(self, grace_seconds: float) -> None:
        """Take no new runs, give running ones the grace, of which the last `kill_after` is for being stopped.

        The grace bounds `kill_after` also where it is the longer one, or where it has begun before: what is left at
        the end of the grace is killed.
        Returns when nothing runs here any more, or when what does not end has had time enough: a lease will tell.
        """
        self._is_draining = True
        self._licensed.set()
        loop = asyncio.get_running_loop()
        timers = [
            loop.call_later(max(0.0, grace_seconds - running.kill_after_seconds), running.stop, STOP_SHUTDOWN)
            for running in map(self._running.__getitem__, self._tasks)
        ]
        timers.append(loop.call_later(grace_seconds, self.overdue.set))
        try:
            await asyncio.wait_for(self.idle.wait(), grace_seconds + STUCK_SECONDS)
        except TimeoutError:
            if self._tasks:  # the last may have ended in the very turn of the time-out
                log.error("runs_do_not_end count=%d next=lost_with_their_lease", len(self._tasks))
        finally:
            for timer in timers:
                timer.cancel()


def _traceparent(run: Run) -> str:
    """W3C trace context: one trace a run, one span an attempt; derived, so that every node names the same."""
    trace = blake2b(run.id.encode(), digest_size=16, person=b"trace").hexdigest()
    span = blake2b(b"%s %d" % (run.id.encode(), run.fencing_token), digest_size=8, person=b"span").hexdigest()
    return f"00-{trace}-{span}-01"


def _taken_over(running: Running, ending: Ending) -> TakenOver:
    """What the log records of a run that its target goes on with."""
    tail = ending.output_tail[-TAIL_BYTES:]
    word = TakenOver(running.run_id, running.token, running.timeout_ms, ending.status_code, tail)
    return _decode_taken(_encode(word))


def _finished(running: Running, ending: Ending) -> Finished:
    """What the log records of an ending: an end that nobody saw is a loss, whatever the executor calls it."""
    state = ending.state
    stopped = ending.error_kind in (STOP_LEASE, STOP_SHUTDOWN)
    unseen = state == "failed" and not ending.proven and ending.error_kind != BROKEN
    if stopped or unseen:
        state = LOST
    if state not in REPORTABLE:
        raise ValueError(f"{state!r} is no way to end")
    error: Any = ending.error
    text = None if error is None else str(error)[:ERROR_CHARACTERS].encode(errors="replace").decode()
    finished = Finished(
        run=running.run_id,
        fencing_token=running.token,
        state=state,
        exit_code=ending.exit_code,
        status_code=ending.status_code,
        error=text,
        error_kind=ending.error_kind,
        output_tail=ending.output_tail[-TAIL_BYTES:],
    )
    return _decode(_encode(finished))  # what stands in the log, every node has to read
