"""A cluster on a stage: real scheduler, worker, leases, reports and presence over a log in memory and virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raftcron.core import definition
from raftcron.core.commands import Announce, DeleteJob, Done, PutJob
from raftcron.core.model import HISTORY_BYTES_KEPT, Job, Run
from raftcron.core.planner import settle
from raftcron.executors.registry import Registry
from raftcron.runtime.alerts import Alerts
from raftcron.runtime.catch_up import CatchUp
from raftcron.runtime.clocks import Clocks, TrustedTime
from raftcron.runtime.events import EventLog
from raftcron.runtime.leases import LeaseKeeper, LeaseTimes, License
from raftcron.runtime.machine import Machine
from raftcron.runtime.presence import Presence
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.reads import Reads
from raftcron.runtime.reports import Reports
from raftcron.runtime.resolver import Resolver
from raftcron.runtime.scheduler import Scheduler
from raftcron.runtime.service import Service
from raftcron.runtime.vault import Vault
from raftcron.runtime.worker import Worker
from raftcron.testing.memory_log import MemoryCluster, MemoryLog
from raftcron.testing.scripted_executor import ScriptedExecutor
from raftcron.testing.virtual_time import START_WALL, VirtualClock, VirtualLoop, run_virtual
from raftcron.testing.wall_time import WallTime
from tests.scenarios.commands import CommandExecutor, StageLoop
from tests.scenarios.kinds import KindsExecutor

START_MS = int(START_WALL * 1000)
TIMES = LeaseTimes(10.0, 2.0)
MAX_SKEW_MS = 5_000


@dataclass
class Told:
    """What a receiver of alerts has taken: by which node, when in ms since the epoch, and the body."""

    node: str
    at: int
    body: dict[str, Any]


@dataclass
class Receiver:
    """Whoever is told: takes all, or nothing while `is_away`."""

    told: list[Told] = field(default_factory=list)
    is_away: bool = False


@dataclass
class Courier:
    """One node's way to the receiver; runtime.alerts.Sender."""

    node: str
    clock: VirtualClock
    receiver: Receiver

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], secret: str | None, id_: str) -> str | None:
        if self.receiver.is_away:
            return "away"
        self.receiver.told.append(Told(self.node, round(self.clock.wall() * 1000), json.loads(body)))
        return None

    async def mail(self, to: str, subject: str, text: str, id_: str) -> str | None:
        return "no mail here"


async def _as_it_is(url: str) -> str:
    return url


@dataclass
class Actor:
    """One node: what the daemon wires, less engine, disk and sockets."""

    name: str
    clock: VirtualClock
    machine: Machine
    log: MemoryLog
    proposer: Proposer
    leases: LeaseKeeper
    reports: Reports
    worker: Worker
    scheduler: Scheduler
    presence: Presence
    executor: ScriptedExecutor
    service: Service
    catch_up: CatchUp
    tasks: list[asyncio.Task[None]]
    time: TrustedTime
    clocks: Clocks
    leading: asyncio.Task[None] | None = None
    fatal: BaseException | None = None

    def now_ms(self) -> int:
        return self.time.now_ms()


class Scene:
    """Nodes n1, n2, ...; n1 leads at first.

    Each believes its own wall clock; with `is_agreed` they agree on the time as nodes do.
    """

    times = TIMES

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        nodes: int = 2,
        slots: int = 100,
        tags: dict[str, dict[str, str]] | None = None,
        catch_up_rate: float = 50.0,
        history_total: int = HISTORY_BYTES_KEPT,
        is_agreed: bool = False,
        commands: bool = False,
        executors: bool = False,
        alerts: bool = False,
        offsets: Mapping[str, float] | None = None,
    ) -> None:
        """`offsets` are by how many seconds the wall clocks of nodes are wrong as they begin; with `alerts` nodes tell
        the receiver of what happens.  Whatever runs is a script; with `commands` it is a command of a spawner, with
        `executors` what its job says."""
        self.loop = loop
        self.is_agreed = is_agreed
        self.commands = commands
        self.executors = executors
        self.receiver = Receiver() if alerts else None
        self.is_synchronised = False  # what kernels say of their clocks
        self.offsets = dict(offsets or {})
        self.cluster = self.new_cluster()
        self.slots = slots
        self.tags = tags or {}
        self.catch_up_rate = catch_up_rate
        self.history_total = history_total
        self.secrets_dir: Path | None = None
        self._lives = 0
        self.actors = [self.enter(f"n{number + 1}") for number in range(nodes)]
        self.names = {actor.name: actor for actor in self.actors}

    def new_cluster(self) -> MemoryCluster:
        return MemoryCluster()

    def new_executor(self, name: str, clock: VirtualClock) -> ScriptedExecutor:
        lease_grace_seconds = self.times.lease_seconds / 2 - self.times.margin_seconds
        if self.executors:
            return KindsExecutor(name, self.loop, clock, lease_grace_seconds, self.tags.get(name, {}))
        return CommandExecutor(name, self.loop, clock, lease_grace_seconds) if self.commands else ScriptedExecutor()

    def enter(self, name: str, incarnation: int = 1) -> Actor:
        """A node's process begins; as in reality, none before had its `life`."""
        self._lives += 1
        clock = VirtualClock(self.loop)
        clock.wall_offset = self.offsets.get(name, 0.0)
        time = TrustedTime(clock, lambda: machine.state.cluster_time) if self.is_agreed else WallTime(clock)
        machine = Machine(name, time, self.history_total)
        if self.receiver is not None:
            machine.events = EventLog()
        log = self.cluster.join(name, machine, incarnation)
        proposer = Proposer(log, machine, time)
        leases = LeaseKeeper(clock, self.times, log.read_index)
        reports = Reports(node=name, machine=machine, log=log, proposer=proposer)
        executor = self.new_executor(name, clock)
        vault = Vault(machine=machine, proposer=proposer, secret=b"of this scene", entropy=bytes)
        worker = Worker(
            node=name,
            machine=machine,
            reports=reports,
            executor=executor,
            clock=clock,
            time=time,
            license_of=lambda: presence.license,
            resolver=Resolver(
                node=name, machine=machine, vault=vault, directory=self.secrets_dir, judge=lambda executor: []
            ),
        )
        scheduler = Scheduler(
            node=name,
            machine=machine,
            proposer=proposer,
            time=time,
            leases=leases,
            catch_up_rate=self.catch_up_rate,
        )
        clocks = Clocks(
            node=name,
            log=log,
            clock=clock,
            time=time,
            cluster_time=lambda: machine.state.cluster_time,
            max_skew_ms=MAX_SKEW_MS,
            is_synchronised=lambda: self.is_synchronised,
            changed=scheduler.time_changed,
        )
        actor: Actor

        def licensed(held: License) -> None:
            if isinstance(executor, CommandExecutor):
                executor.licensed(held)
            worker.licensed(held)

        def fatal(error: BaseException) -> None:
            actor.fatal = actor.fatal or error

        presence = Presence(
            announcement=Announce(
                name,
                incarnation,
                f"{name}:1",
                f"{name}:2",
                "0",
                self.slots,
                self.slots,
                tags=self.tags.get(name, {}),
                life=self._lives,
            ),
            machine=machine,
            log=log,
            proposer=proposer,
            keeper=leases,
            clock=clock,
            times=self.times,
            licensed=licensed,
            fatal=fatal,
        )
        service = Service(
            node=name,
            machine=machine,
            proposer=proposer,
            time=time,
            reads=Reads(log, machine, clock),
            log=log,
            registry=Registry(),
        )
        actor = Actor(
            name=name,
            clock=clock,
            machine=machine,
            log=log,
            proposer=proposer,
            leases=leases,
            reports=reports,
            worker=worker,
            scheduler=scheduler,
            presence=presence,
            executor=executor,
            service=service,
            catch_up=CatchUp(name, machine),
            tasks=[],
            time=time,
            clocks=clocks,
        )
        log.on_leadership(lambda epoch: self._leads(actor, epoch))
        log.catch_up()
        for observer in (presence, worker, scheduler):
            machine.observe(observer)
        presence.announce()
        actor.tasks = [self.loop.create_task(presence.run()), self.loop.create_task(worker.run())]
        if self.is_agreed:
            actor.tasks.append(self.loop.create_task(clocks.run()))
        if self.receiver is not None:
            assert isinstance(machine.events, EventLog)
            courier = Courier(name, clock, self.receiver)
            alerts = Alerts(
                machine=machine,
                log=log,
                proposer=proposer,
                events=machine.events,
                clock=clock,
                sender=courier,
                fill=_as_it_is,
            )
            actor.tasks.append(self.loop.create_task(alerts.run()))
        return actor

    def _leads(self, actor: Actor, epoch: int | None) -> None:
        if actor.leading is not None:
            actor.leading.cancel()
            actor.leading = None
        if epoch is not None:
            if self.is_agreed:
                actor.clocks.step()
            actor.leases.begin()
            actor.presence.beat()
            actor.reports.repeat()
            actor.leading = self.loop.create_task(actor.scheduler.run())
            actor.leading.add_done_callback(lambda task: self._led(actor, task))

    @staticmethod
    def _led(actor: Actor, task: asyncio.Task[None]) -> None:
        """A node does not survive that its leader's loop fails."""
        if not task.cancelled():
            actor.fatal = actor.fatal or task.exception()

    def die(self, name: str) -> None:
        """The node's process is gone, with all that it ran."""
        actor = self.names.pop(name)
        if self.cluster.leader == name:
            self.cluster.depose()
        self.cluster.logs.pop(name)
        for task in [*actor.tasks, *actor.worker._tasks.values(), *([actor.leading] if actor.leading else [])]:
            task.cancel()
        if isinstance(actor.executor, CommandExecutor):
            actor.executor.die()

    def reborn(self, name: str, incarnation: int) -> Actor:
        """The node's next life."""
        actor = self.enter(name, incarnation)
        self.names[name] = actor
        return actor

    async def close(self) -> None:
        """The play is over."""
        for actor in self.actors:
            if isinstance(actor.executor, KindsExecutor):
                await actor.executor.close()

    async def stop(self, name: str, grace_seconds: float) -> None:
        """SIGTERM: the node's shipped drain of its worker beside the hand-over, then its end; as node.py has it."""
        actor = self.names[name]
        actor.scheduler.assigner.is_draining = True
        if self.cluster.leader == name:
            await actor.log.transfer()
        await actor.worker.drain(grace_seconds)
        while actor.reports.open_count or actor.machine.state.on_node.get(name):
            await asyncio.sleep(0.1)
        self.die(name)

    # ---- what happens on it

    def elect(self, name: str) -> None:
        self.cluster.elect(name)

    @property
    def leader(self) -> Actor:
        assert self.cluster.leader is not None
        return self.names[self.cluster.leader]

    async def put(self, name: str = "job", **fields: Any) -> Job:
        """Create or replace a job through the leader."""
        actor = self.leader
        state, now = actor.machine.state, actor.now_ms()
        stored = definition.canonical({"schedule": "@every 1s", "executor": {"type": "noop"}, **fields})
        job = state.jobs.get(name)
        due = []
        if job is not None:
            due = settle(job, state.policy(job.uid), actor.machine.timeline.group_of(job.uid), now)
        seen = None if job is None else job.revision
        outcome = await actor.proposer.propose(PutJob(name, stored, now, due, seen))
        assert isinstance(outcome, Done), outcome
        return state.jobs[name]

    async def delete(self, name: str = "job", *, cancel_running: bool = False) -> None:
        actor = self.leader
        job = actor.machine.state.jobs[name]
        outcome = await actor.proposer.propose(DeleteJob(name, [], job.revision, cancel_running=cancel_running))
        assert isinstance(outcome, Done), outcome

    async def seconds(self, count: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(count)

    # ---- what is seen

    def rows(self, name: str = "job", node: str | None = None) -> list[Run]:
        """The job's rows on a node (the leader's unless said), oldest first."""
        machine = (self.names[node] if node else self.leader).machine
        return machine.state.runs_of(machine.state.jobs[name].uid)[::-1]

    def ticks(self, name: str = "job") -> list[float]:
        """Scheduled times of the rows, in seconds since the scene began."""
        return [(row.scheduled_time - START_MS) / 1000 for row in self.rows(name)]

    def starts(self, name: str = "job") -> list[tuple[str, str, int]]:
        """(node, run id, attempt) of every start of user code, over all nodes that live."""
        return [
            (actor.name, attempt.run_id, attempt.attempt)
            for actor in self.actors
            for attempt in actor.executor.started
            if attempt.job == name
        ]


def play(act: Callable[[Scene], Awaitable[None]], **stage: Any) -> None:
    """Play one act on a fresh stage; n1 leads and both nodes are announced."""
    loop = StageLoop()

    async def perform() -> None:
        scene = Scene(loop, **stage)
        scene.elect("n1")
        await asyncio.sleep(1.5)
        try:
            await act(scene)
        finally:
            await scene.close()

    run_virtual(perform(), loop)
