"""One node without its surroundings: the log, the state machine and the loops around them, wired, started, stopped.

Everything that touches the machine comes from outside: clock, disk, chance, executors.  daemon.py gives the real ones,
and the web; a simulation gives its own and runs the same node.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from raftcron.clock import Clock
from raftcron.core.commands import Announce, Finished
from raftcron.core.model import HISTORY_BYTES_KEPT
from raftcron.errors import FatalError, RaftcronError
from raftcron.ports import Entropy, Executor, StateMachine
from raftcron.raft import Device, Engine, RaftSettings, Random, Scribe
from raftcron.runtime.clocks import Clocks, TrustedTime
from raftcron.runtime.conservation import Conservation
from raftcron.runtime.drains import leave_lead
from raftcron.runtime.farewell import Farewell
from raftcron.runtime.leases import LeaseKeeper, LeaseTimes, License
from raftcron.runtime.machine import Machine
from raftcron.runtime.presence import Presence
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.reports import Reports
from raftcron.runtime.resolver import Judge, Resolver
from raftcron.runtime.scheduler import Scheduler
from raftcron.runtime.vault import Vault
from raftcron.runtime.worker import Worker

log = logging.getLogger(__name__)

TELL_SECONDS = 3.0  # for the ends of a former life, before the new one is announced
HAND_OVER_SECONDS = 0.5  # between two attempts to give the lead away
FRESH_SECONDS = 5.0  # so long ago a follower held all that was committed, if it is to judge what was decided
STOP_SECONDS = 5.0  # for each step of an orderly end that depends on others


@dataclass(frozen=True)
class NodeSettings:
    """What a node is told beside what its log is told."""

    raft: RaftSettings
    times: LeaseTimes
    catch_up_rate: int  # runs a second, for the whole cluster
    grace_seconds: float  # for running attempts, at an orderly end
    announcement: Announce  # without the incarnation, which the log counts, and the life, which is drawn
    history_total: int = HISTORY_BYTES_KEPT  # bytes of run records, over all jobs, while this node leads
    max_clock_skew_ms: int = 5_000
    secrets_dir: Path | None = None  # where secrets are looked for first
    previous_secret: bytes = b""  # the cluster secret before it was changed


class Node:
    """One node.  `fatal` is called at most once, with what it must not survive."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        clock: Clock,
        device: Device,
        rng: Random,
        scribe: Scribe,
        executor: Executor,
        fatal: Callable[[BaseException], None],
        licensed: Callable[[License], None] = lambda held: None,
        watch: Callable[[Machine], StateMachine] = lambda machine: machine,
        is_synchronised: Callable[[], bool] = lambda: False,
        judge: Judge = lambda spec: [],
        entropy: Entropy = os.urandom,
    ) -> None:
        """`licensed` is told of each licence before the worker is; `watch` may stand between log and machine.

        `is_synchronised`: whether the kernel calls the wall clock synchronised.  `judge` names what is wrong with an
        executor object; `entropy` gives so many bytes of chance.
        """
        self.settings = settings
        self.name = name = settings.raft.name
        self.clock = clock
        self.fail = fatal
        self._life = int.from_bytes(rng.randbytes(8))  # of all lives of this name only this one has it
        self.time = TrustedTime(clock, self._cluster_time)
        self.machine = Machine(name, self.time, settings.history_total)
        self.log = Engine(settings.raft, watch(self.machine), clock, device, rng, fatal, scribe)
        self.proposer = Proposer(self.log, self.machine, self.time)
        self.leases = LeaseKeeper(clock, settings.times, self.log.read_index)
        self.reports = Reports(node=name, machine=self.machine, log=self.log, proposer=self.proposer)
        self.vault = Vault(
            machine=self.machine,
            proposer=self.proposer,
            secret=settings.raft.secret,
            previous=settings.previous_secret,
            entropy=entropy,
        )
        self.resolver = Resolver(
            node=name, machine=self.machine, vault=self.vault, directory=settings.secrets_dir, judge=judge
        )
        self.worker = Worker(
            node=name,
            machine=self.machine,
            reports=self.reports,
            executor=executor,
            clock=clock,
            time=self.time,
            license_of=lambda: self.presence.license,
            resolver=self.resolver,
        )
        self.farewell = Farewell(node=name, machine=self.machine, log=self.log, clock=clock)
        self.scheduler = Scheduler(
            node=name,
            machine=self.machine,
            proposer=self.proposer,
            time=self.time,
            leases=self.leases,
            catch_up_rate=settings.catch_up_rate,
            is_ending=self.farewell.is_ending,
        )
        self.clocks = Clocks(
            node=name,
            log=self.log,
            clock=clock,
            time=self.time,
            cluster_time=self._cluster_time,
            max_skew_ms=settings.max_clock_skew_ms,
            is_synchronised=is_synchronised,
            may_hand_over=lambda: not self.is_stopping,
            changed=self.scheduler.time_changed,
        )
        self.conservation = Conservation(machine=self.machine, time=self.time, is_on_duty=lambda: self._may_watch)
        self.is_stopping = False
        self._licensed = licensed
        self._tasks: list[asyncio.Task[None]] = []
        self._leading: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None  # the lead, which a drained node got all the same

    # ---- start

    async def start(self, former_ends: Sequence[Finished] = ()) -> None:
        """The log and all loops up; see `wait_ready`.  `former_ends` tell how a former life's attempts ended.

        Raises RaftcronError: the node cannot run like this.
        """
        self.log.on_leadership(self._leadership)
        await self.log.start()
        self.presence = self._make_presence()
        for observer in (self.presence, self.worker, self.scheduler):
            self.machine.observe(observer)
        for work in (self._announce(former_ends), self.presence.run(), self.worker.run(), self.clocks.run()):
            self.spawn(work)
        self.spawn(self.conservation.run())

    async def wait_ready(self) -> None:
        """Returns once the node is ready, which needs a quorum."""
        await self.log.wait_ready()
        await self.presence.wait_announced()

    @property
    def is_ready(self) -> bool:
        """Whether it has caught up since it began, is announced, and does not stop."""
        return self.log.is_ready and self.presence.is_announced and not self.is_stopping

    @property
    def _may_watch(self) -> bool:
        """Whether this node looks at what is decided: a follower that holds it all, or whoever is alone."""
        fresh_at = self.fresh_at() if self.is_ready else None
        if fresh_at is None or self.clock.boot() - fresh_at > FRESH_SECONDS:
            return False
        return self.log.leading_epoch is None or len(self.log.status().members) == 1

    async def _announce(self, former_ends: Sequence[Finished]) -> None:
        """Tell how the former life's attempts ended, where somebody saw it; then this life, which loses the rest."""
        await self.log.wait_ready()
        for end in former_ends:
            self.reports.ended(end)
        if not await self._until(TELL_SECONDS, lambda: not self.reports.open_count):
            log.warning("former_ends_not_recorded count=%d next=lost", self.reports.open_count)
        self.presence.announce()

    def _make_presence(self) -> Presence:
        return Presence(
            announcement=msgspec.structs.replace(
                self.settings.announcement, incarnation=self.log.incarnation, life=self._life
            ),
            machine=self.machine,
            log=self.log,
            proposer=self.proposer,
            keeper=self.leases,
            clock=self.clock,
            times=self.settings.times,
            licensed=self._take_license,
            fatal=self.fail,
        )

    def _take_license(self, held: License) -> None:
        self._licensed(held)
        self.worker.licensed(held)

    # ---- leading

    def _leadership(self, epoch: int | None) -> None:
        if self._leading is not None:
            self._leading.cancel()
            self._leading = None
        if epoch is None:
            log.info("lead_lost node=%s", self.name)
            return
        log.info("lead_won node=%s epoch=%d", self.name, epoch)
        self.clocks.step()
        self.leases.begin()
        self.presence.beat()
        self.reports.repeat()
        self._leading = self._watched(self.scheduler.run())
        known = self.machine.state.nodes.get(self.name)
        if known is not None and known.drained:
            self._leaving = asyncio.get_running_loop().create_task(
                leave_lead(self.name, self.machine, self.log, self.farewell.is_ending)
            )

    def fresh_at(self) -> float | None:
        """When this node last held all that was committed: as it sent the last heartbeat whose index it has applied."""
        held = self.presence.license
        if held.applied_index > self.machine.applied_index or held.epoch == 0:
            return None
        return held.until - self.settings.times.lease_seconds + self.settings.times.margin_seconds

    # ---- stop

    def hurry(self) -> None:
        """Running attempts get no more grace."""
        self.worker.hurry()
        self.farewell.hurry()

    async def drain(self) -> None:
        """In good order: the lead goes to another node, what runs here gets its grace and its recorded end."""
        self.is_stopping = self.scheduler.assigner.is_draining = True
        loop = asyncio.get_running_loop()
        latest = loop.time() + self.settings.grace_seconds + STOP_SECONDS  # as long as an equal of this node may take
        meanwhile = [loop.create_task(self.farewell.tell()), loop.create_task(self._hand_over())]
        await self.worker.drain(self.settings.grace_seconds)
        if not await self._until(STOP_SECONDS, lambda: self._is_settled):
            log.warning(
                "ends_not_recorded count=%d reason=no_quorum next=told_at_next_start_if_the_spawner_saw_it_else_lost",
                self.reports.open_count,
            )
        await self.farewell.wait(latest - loop.time())
        for task in meanwhile:
            task.cancel()
        await asyncio.gather(*meanwhile, return_exceptions=True)

    async def stop_loops(self) -> None:
        """End the loops; the log still answers."""
        self.is_stopping = self.scheduler.assigner.is_draining = True
        tasks = self._tasks + [one for one in (self._leading, self._leaving) if one is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _hand_over(self) -> None:
        """Give the lead away, as often as this node gets it; until then it decides, and starts nothing here.

        Where all others end too it stays: passed around, it would only hold up what they have to tell.
        """
        while True:
            for peer in self.farewell.successors():
                if self.log.leading_epoch is None:
                    break
                try:
                    await self.log.transfer(peer)
                except RaftcronError as error:
                    log.info("lead_kept code=%s detail=%s", error.code, error.detail)
            await asyncio.sleep(HAND_OVER_SECONDS)

    @property
    def _is_settled(self) -> bool:
        """Whether the cluster has nothing more to hear of this node.

        What it decided just before it gave the lead away may still commit, and place runs here: all of that stands
        before its successor's leadership entry.
        """
        state = self.machine.state
        if self.reports.open_count or (state.leader == self.name and self.farewell.successors()):
            return False
        return not any(run.incarnation == self.log.incarnation for run in state.on_node.get(self.name, {}).values())

    async def _until(self, seconds: float, is_so: Callable[[], bool]) -> bool:
        """Whether it comes to be so in time; meanwhile what is to be told is told again.

        Without a quorum that is left to the next life: it tells the exit codes that the spawner saw, and loses the
        rest, all output among it.
        """
        try:
            async with asyncio.timeout(seconds):
                while not is_so():
                    self.reports.repeat()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    # ---- details

    def _cluster_time(self) -> int:
        return self.machine.state.cluster_time

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """A loop that lives as long as the node."""
        self._tasks.append(self._watched(work))

    def _watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A loop of the node; if it ends by an exception the node ends too, rather than go on without it."""
        task = asyncio.get_running_loop().create_task(work)

        def over(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("loop_failed", exc_info=error)
                self.fail(FatalError(f"a loop of the node has failed: {error!r}"))

        task.add_done_callback(over)
        return task
