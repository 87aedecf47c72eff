"""A scene whose nodes fail one by one: killed, cut off from the others, or standing still as under SIGSTOP.

Messages and proposals take a moment here, so that there is a before and an after of each entry.  Not here: what is
played on it (courses.py), and what has to come of it (fates.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, NamedTuple

from raftcron.core.codec import decode_entry
from raftcron.core.model import Run
from raftcron.errors import UnavailableError, UnknownOutcomeError
from raftcron.ports import Applied, Attempt, Control, Ending, StateMachine
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing.memory_log import MemoryCluster, MemoryLog
from raftcron.testing.scripted_executor import ScriptedExecutor
from raftcron.testing.virtual_time import VirtualClock
from tests.scenarios.commands import StageLoop
from tests.scenarios.scene import Actor, Scene

KILL, RESTART, CUT, PAUSE = "kill", "restart", "cut", "pause"
FAULTS = (KILL, RESTART, CUT, PAUSE)
LATENCY_SECONDS = 0.01  # of a proposal until it is in the log, and of a message
FURTHER_SECONDS = 0.001  # by so much longer for each node, so that no two messages come in one instant
ELECTION_SECONDS = 1.0  # from the loss of a leader, or from the return of a majority, to the next one
TIMES = LeaseTimes(7.0, 1.4)
FAULT_SECONDS = 11.0  # longer than a lease of a new leader's
RESTART_SECONDS = 0.7
STOP_SECONDS = 1.0  # user code that is told to stop takes so long
DOUBT_SECONDS = 1.0  # until a proposal without a majority is given up

_LIFE: ContextVar[str] = ContextVar("life", default="")  # of the node's process that a callback belongs to


def _in_life(life: str, what: Callable[..., Any], *args: Any) -> Any:
    if _LIFE.get() == life:
        return what(*args)
    context = copy_context()
    context.run(_LIFE.set, life)
    return context.run(what, *args)


class LivesLoop(StageLoop):
    """A virtual loop for many processes, each of which may stand still: what is due there waits until it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, list[tuple[Callable[..., Any], tuple[Any, ...], Context]]] = {}

    def is_held(self, life: str) -> bool:
        return life in self._held

    def hold(self, life: str) -> None:
        self._held.setdefault(life, [])

    def release(self, life: str) -> None:
        for callback, args, context in self._held.pop(life):
            self.call_soon(callback, *args, context=context)

    def release_all(self) -> None:
        """The play is over: what is left may end."""
        for life in list(self._held):
            self.release(life)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = context or copy_context()
        life = context.get(_LIFE, "")
        if not life:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(self._turn, life, callback, args, context, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = context or copy_context()
        life = context.get(_LIFE, "")
        if not life:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, self._turn, life, callback, args, context, context=context)

    def _turn(self, life: str, callback: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        if life in self._held:
            self._held[life].append((callback, args, context))
        else:
            callback(*args)


class Step(NamedTuple):
    """What an entry of the log has made of one run."""

    log_index: int
    at: float  # of the loop's clock
    command: str
    label: str  # `1` is the job's first run, `1.0` its first shard, `1.n2` its part on n2
    state: str  # as the run's, but `with_target` for one that its target has taken over
    attempt: int
    node: str | None

    def __str__(self) -> str:
        return f"{self.command}: {self.label} {self.state} {self.attempt}"


@dataclass
class Work:
    """User code of one attempt."""

    label: str
    attempt: int
    token: int
    life: str
    begun: float
    over: float | None = None


class Plan(NamedTuple):
    """What the user code of an attempt does if nobody stops it."""

    seconds: float
    ending: str  # `succeeded`, `failed`, `timed_out`, or `taken_over` by its target


class FaultyCluster(MemoryCluster):
    """Its nodes may be away, each by itself; `on_entry` is called right before and right after each entry applies."""

    def __init__(self, loop: LivesLoop, on_entry: Callable[[int, bytes, bool], None]) -> None:
        super().__init__()
        self.loop = loop
        self.away: set[str] = set()
        self._on_entry = on_entry

    def join(self, name: str, machine: StateMachine, incarnation: int = 1) -> MemoryLog:
        self.logs[name] = log = FaultyLog(self, name, machine, incarnation)
        return log

    def append(self, body: bytes) -> int:
        self._on_entry(len(self.entries) + 1, body, False)
        index = super().append(body)
        self._on_entry(index, body, True)
        return index


class FaultyLog(MemoryLog):
    """One life's end of the cluster's log."""

    cluster: FaultyCluster

    def __init__(self, cluster: FaultyCluster, name: str, machine: StateMachine, incarnation: int) -> None:
        super().__init__(cluster, name, machine, incarnation)
        self.life = f"{name}.{incarnation}"
        self._context = Context()  # in which messages arrive
        self._context.run(_LIFE.set, self.life)

    def catch_up(self) -> None:
        if not self.is_lagging and self.applied_index != len(self.cluster.entries):
            _in_life(self.life, super().catch_up)

    def leads(self, epoch: int | None) -> None:
        _in_life(self.life, super().leads, epoch)

    @property
    def _is_heard(self) -> bool:
        return self.cluster.logs.get(self.name) is self and self.name not in self.cluster.away

    async def propose(self, body: bytes, epoch: int) -> Applied:
        """One that believes to lead, and does not, learns nothing of what it proposes."""
        await asyncio.sleep(LATENCY_SECONDS)
        if epoch != self._leading_epoch:
            raise UnavailableError(f"node {self.name} does not lead: nothing was written")
        if self._is_heard and self.cluster.leader == self.name:
            index = self.cluster.append(body)
            if index in self._outcomes:
                return Applied(index, self._outcomes[index])
        await asyncio.sleep(DOUBT_SECONDS)
        raise UnknownOutcomeError("no quorum confirmed the command: it may be written")

    async def read_index(self) -> int:
        await asyncio.sleep(LATENCY_SECONDS)
        if not self._is_heard or (self._leading_epoch is not None and self.cluster.leader != self.name):
            raise UnavailableError("no majority confirmed the lead")
        return await super().read_index()

    def send(self, peer: str, kind: str, message: Any) -> bool:
        """Delivered after a moment, unless one of both is away by then; to one that stands still when it goes on."""
        receiver = self.cluster.logs.get(peer)
        if not isinstance(receiver, FaultyLog) or (handler := receiver._handlers.get(kind)) is None:
            return False
        seconds = LATENCY_SECONDS + FURTHER_SECONDS * int(self.name[1:])
        self.cluster.loop.call_later(seconds, receiver._arrives, self, handler, message, context=receiver._context)
        return True

    def _arrives(self, sender: FaultyLog, handler: Callable[[str, Any], None], message: Any) -> None:
        if sender._is_heard and self._is_heard:
            self._take(handler, sender.name, message)


class WorkExecutor(ScriptedExecutor):
    """Runs every executor type by what the course plans for the run and its attempt."""

    def __init__(self, scene: FaultScene, life: str) -> None:
        super().__init__()
        self._scene = scene
        self._life = life

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        if control.may_start() is None:
            return Ending("not_started")
        loop = self._scene.loop
        work = Work(self._scene.labels[attempt.run_id], attempt.attempt, attempt.fencing_token, self._life, loop.time())
        plan = self._scene.plan(work.label, work.attempt)
        self._scene.begins(work)
        stop = asyncio.ensure_future(control.stopped())
        try:
            done, _ = await asyncio.wait([stop], timeout=plan.seconds)
            if not done:
                return Ending(plan.ending, proven=plan.ending != "timed_out")
            await asyncio.sleep(STOP_SECONDS)
            reason = stop.result()
            return Ending("cancelled" if reason == "cancelled" else "failed", error_kind=reason)
        finally:
            stop.cancel()
            work.over = loop.time()


class FaultScene(Scene):
    """Three nodes; n1 leads at first, n2 and n3 carry the tag `zone: b`."""

    loop: LivesLoop
    cluster: FaultyCluster
    times = TIMES

    def __init__(self, loop: LivesLoop, plan: Callable[[str, int], Plan]) -> None:
        self.plan = plan
        self.steps: list[Step] = []
        self.works: list[Work] = []
        self.wrongs: list[str] = []  # what may never be, seen as it was
        self.labels: dict[str, str] = {}  # run id -> label
        self.on_entry: Callable[[int, bool], None] = lambda index, is_applied: None
        self.most_at_work = 1  # of the job's runs; of a divided one, of each part
        self._seen: dict[str, tuple[str, int, int]] = {}
        self._wholes = 0
        super().__init__(loop, nodes=3, tags={"n2": {"zone": "b"}, "n3": {"zone": "b"}})

    def new_cluster(self) -> MemoryCluster:
        return FaultyCluster(self.loop, self._entry)

    def new_executor(self, name: str, clock: VirtualClock) -> ScriptedExecutor:
        del clock
        return WorkExecutor(self, _LIFE.get())

    def enter(self, name: str, incarnation: int = 1) -> Actor:
        actor: Actor = _in_life(f"{name}.{incarnation}", super().enter, name, incarnation)
        return actor

    # ---- what happens to it

    def strike(self, victims: Iterable[str], fault: str) -> None:
        """The fault begins now, for all of these in one instant, and ends by itself."""
        _in_life("", self._strike, sorted(victims), fault)

    def _strike(self, victims: list[str], fault: str) -> None:
        cluster, loop = self.cluster, self.loop
        cluster.away.update(victims)
        lives = {}
        if cluster.leader in victims:
            cluster.leader = None
        for name in victims:
            log = cluster.logs[name]
            assert isinstance(log, FaultyLog)
            log.is_lagging = True
            lives[name] = log
            if fault in (KILL, RESTART):
                del cluster.logs[name], self.names[name]
                loop.hold(log.life)  # for ever
                for work in self.works:
                    if work.life == log.life and work.over is None:
                        work.over = loop.time()
            elif fault == PAUSE:
                loop.hold(log.life)
        if len(victims) == 1:
            loop.call_later(ELECTION_SECONDS, self._elect)
        seconds = RESTART_SECONDS if fault == RESTART else FAULT_SECONDS
        loop.call_later(seconds, self._heal, lives, fault)

    def _heal(self, logs: dict[str, FaultyLog], fault: str) -> None:
        self.cluster.away.clear()
        for name, log in logs.items():
            if fault in (KILL, RESTART):
                self.reborn(name, log.incarnation + 1)
                continue
            if fault == PAUSE:
                self.loop.release(log.life)
            self.loop.call_later(LATENCY_SECONDS, self._learn, log)
        if len(logs) > 1:
            self.loop.call_later(ELECTION_SECONDS, self._elect)

    def _learn(self, log: FaultyLog) -> None:
        """A node that was away hears how the others went on."""
        if log.leading_epoch is not None and self.cluster.leader != log.name:
            log.leads(None)
        log.resume()

    def _elect(self) -> None:
        if self.cluster.leader is None:
            self.elect(min(set(self.cluster.logs) - self.cluster.away))

    # ---- what is seen of it

    def newest(self) -> Any:
        """The state of a node that has applied all."""
        logs = self.cluster.logs
        return next(
            actor.machine.state
            for actor in self.names.values()
            if logs[actor.name].applied_index == len(self.cluster.entries)
        )

    def begins(self, work: Work) -> None:
        """User code begins: never twice in an attempt, never under a former token, and not beside too many others."""
        for other in self.works:
            if other.label != work.label:
                continue
            if other.attempt == work.attempt:
                self.wrongs.append(f"attempt {work.attempt} of {work.label} starts twice: {other}, {work}")
            if other.token >= work.token:
                self.wrongs.append(f"{work.label} starts under token {work.token} after {other.token}")
        divided = "." in work.label
        at_work = [
            other
            for other in self.works
            if other.over is None and not self.loop.is_held(other.life) and (not divided or other.label == work.label)
        ]
        if len(at_work) >= self.most_at_work:
            self.wrongs.append(f"{work} begins beside {at_work}")
        self.works.append(work)

    def _entry(self, index: int, body: bytes, is_applied: bool) -> None:
        if is_applied:
            for run in list(self.newest().runs.values()):
                self._note(index, body, run)
        self.on_entry(index, is_applied)

    def _note(self, index: int, body: bytes, run: Run) -> None:
        state = "with_target" if run.answer_by is not None else run.state
        seen = (state, run.attempt, run.fencing_token)
        if self._seen.get(run.id) == seen:
            return
        self._seen[run.id] = seen
        command = type(decode_entry(body).command).__name__
        label = self._label(run)
        self.steps.append(Step(index, self.loop.time(), command, label, state, run.attempt, run.node))

    def _label(self, run: Run) -> str:
        if run.id not in self.labels:
            if run.part is None:
                self._wholes += 1
                self.labels[run.id] = str(self._wholes)
            else:
                parent, _, name = run.id.partition(".")
                self.labels[run.id] = f"{self.labels[parent]}.{name}"
        return self.labels[run.id]
