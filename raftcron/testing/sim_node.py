"""One node's process in a simulation: the shipped rooms, wired as daemon.py wires them, without web and spawner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from raftcron.core.commands import Announce, Outcome
from raftcron.errors import FatalError, RaftcronError
from raftcron.ports import Attempt, Control, Ending
from raftcron.raft import Engine, RaftSettings
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.farewell import Farewell
from raftcron.runtime.leases import LeaseKeeper, LeaseTimes
from raftcron.runtime.machine import Machine, Observer
from raftcron.runtime.presence import Presence
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.reports import Reports
from raftcron.runtime.scheduler import Scheduler
from raftcron.runtime.worker import Worker
from raftcron.testing.chance import chance
from raftcron.testing.sim_checks import Checks
from raftcron.testing.sim_disk import Handle
from raftcron.testing.sim_loop import NodeLoop, ProcessDied, SimClock

DIRECTORY = Path("/journal")
PORT = 7201
SLOTS = 20
CATCH_UP_RATE = 50.0
GRACE_SECONDS = 2.0  # of an orderly end
TELL_SECONDS = 5.0
HAND_OVER_SECONDS = 0.05


class Setting(NamedTuple):
    """What all nodes of a simulation share."""

    seed: int
    addresses: dict[str, str]  # name -> host
    times: LeaseTimes
    request_seconds: float


class _Watched:
    """The state machine as the log sees it: shipped, and looked at after each entry."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._machine = life.machine

    @property
    def epoch(self) -> int:
        return self._machine.epoch

    def leadership(self, term: int) -> bytes:
        return self._machine.leadership(term)

    def apply(self, index: int, body: bytes) -> Outcome:
        life, checks = self._life, self._life.checks
        if life.loop.is_dead:
            return self._machine.apply(index, body)
        checks.before(index, self._machine.state)
        outcome = self._machine.apply(index, body)
        checks.after(life.name, index, body, self._machine.state, outcome)
        life.note(f"applies {index} {self._machine.state.digest & 0xFFFFFFFF:08x}")
        return outcome

    def applied(self, index: int) -> None:
        self._machine.applied(index)


class _InOrder:
    """Tells an observer of changed runs in one order, whatever Python's hashes are."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def state_changed(self, runs: Iterable[str]) -> None:
        self._observer.state_changed(sorted(runs))


class _Executor:
    """User code of random duration and end; the same for the same attempt of the same seed."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        life = self._life
        if control.may_start() is None:
            life.note(f"refuses to start {attempt.run_id} {attempt.attempt}")
            life.checks.counts["starts refused by the gate"] += 1
            return Ending("not_started")
        if not life.loop.is_dead:
            life.note(f"starts {attempt.run_id} {attempt.attempt}")
            life.checks.started(life.name, attempt, life.newest())
        dice = chance(life.setting.seed, f"run/{attempt.run_id}/{attempt.attempt}")
        stop = asyncio.ensure_future(control.stopped())
        try:
            done, _ = await asyncio.wait([stop], timeout=dice.choice([0.0, 0.1, 0.5, 2.5]) * dice.random())
        finally:
            stop.cancel()
        if done:
            reason = stop.result()
            life.checks.counts[f"stopped {reason}"] += 1
            return Ending("cancelled" if reason == "cancelled" else "failed", error_kind=reason)
        if dice.random() < 0.2:
            return Ending("failed", exit_code=1, error_kind="exit")
        return Ending("succeeded", exit_code=0)


class Life:
    """One life of one node's process."""

    def __init__(
        self,
        name: str,
        number: int,
        setting: Setting,
        loop: NodeLoop,
        clock: SimClock,
        device: Handle,
        checks: Checks,
        *,
        newest: Callable[[], Any],
        note: Callable[[str], None],
    ) -> None:
        self.name = name
        self.setting = setting
        self.loop = loop
        self.clock = clock
        self.device = device
        self.checks = checks
        self.newest = newest
        self.note = note
        self.fatal: BaseException | None = None
        self.is_started = False
        self.is_ending = False  # in good order
        self.seen_applied = 1  # how far its log has been looked at
        self.time = TrustedTime(clock)
        self.machine = Machine(name, self.time)
        self.log = Engine(
            RaftSettings(
                name=name,
                listen=(setting.addresses[name], PORT),
                peers={peer: (address, PORT) for peer, address in setting.addresses.items()},
                data_dir=DIRECTORY,
                secret=b"simulated",
                request_timeout=setting.request_seconds,
            ),
            _Watched(self),
            clock,
            device,
            chance(setting.seed, f"{name}/{number}"),
            self.fail,
        )
        self.proposer = Proposer(self.log, self.machine, self.time)
        self.leases = LeaseKeeper(clock, setting.times, self.log.read_index)
        self.reports = Reports(node=name, machine=self.machine, log=self.log, proposer=self.proposer)
        self.worker = Worker(
            node=name,
            machine=self.machine,
            reports=self.reports,
            executor=_Executor(self),
            clock=clock,
            time=self.time,
            license_of=lambda: self.presence.license,
        )
        self.scheduler = Scheduler(
            node=name,
            machine=self.machine,
            proposer=self.proposer,
            time=self.time,
            leases=self.leases,
            catch_up_rate=CATCH_UP_RATE,
        )
        self.farewell = Farewell(node=name, machine=self.machine, log=self.log, clock=clock)
        self._leading: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        loop.set_exception_handler(self._handle)

    # ---- start, as the daemon's

    def begin(self) -> None:
        """The process begins."""
        self.loop.create_task(self._start())

    async def _start(self) -> None:
        try:
            self.log.on_leadership(self._leadership)
            await self.log.start()
        except RaftcronError as error:
            self.fail(error)
            return
        self.machine.incarnation = self.log.incarnation
        self.presence = self._make_presence()
        for observer in (self.presence, self.worker, self.scheduler):
            self.machine.observe(_InOrder(observer))
        self.is_started = True
        for work in (self._announce(), self.presence.run(), self.worker.run()):
            self._tasks.append(self._watched(work))

    async def _announce(self) -> None:
        await self.log.wait_ready()
        self.presence.announce()

    def _make_presence(self) -> Presence:
        address = self.setting.addresses[self.name]
        return Presence(
            announcement=Announce(
                node=self.name,
                incarnation=self.log.incarnation,
                http=f"{address}:7200",
                raft=f"{address}:{PORT}",
                version="simulated",
                slots=SLOTS,
                process_slots=SLOTS,
            ),
            machine=self.machine,
            log=self.log,
            proposer=self.proposer,
            keeper=self.leases,
            clock=self.clock,
            time=self.time,
            times=self.setting.times,
            licensed=self.worker.licensed,
            fatal=self.fail,
        )

    def _leadership(self, epoch: int | None) -> None:
        if self._leading is not None:
            self._leading.cancel()
            self._leading = None
        if epoch is None:
            self.note("leads no more")
            return
        self.note(f"leads in epoch {epoch}")
        self.leases.begin()
        self.presence.beat()
        self.reports.repeat()
        self._leading = self._watched(self.scheduler.run())

    # ---- end

    def fail(self, error: BaseException) -> None:
        """The node cannot go on: the process ends, after its connections have been closed or right now."""
        if self.fatal is None and not self.loop.is_dead:
            self.fatal = error
            self.note(f"cannot go on: {error}")
            self.loop.call_soon(self._exit)

    def _exit(self) -> None:
        raise ProcessDied("it has ended itself")

    def end(self) -> None:
        """SIGTERM."""
        if not self.is_ending:
            self.is_ending = True
            self.loop.create_task(self._end())

    async def _end(self) -> None:
        self.scheduler.is_draining = True
        latest = self.loop.time() + GRACE_SECONDS + TELL_SECONDS
        meanwhile = [self.loop.create_task(self.farewell.tell()), self.loop.create_task(self._hand_over())]
        await self.worker.drain(GRACE_SECONDS)
        try:
            async with asyncio.timeout(TELL_SECONDS):
                while self.reports.open_count:
                    self.reports.repeat()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.checks.counts["ends not told"] += 1
        await self.farewell.wait(latest - self.loop.time())
        for task in meanwhile:
            task.cancel()
        await asyncio.gather(*meanwhile, return_exceptions=True)
        if self._leading is not None:
            self._leading.cancel()
        for task in self._tasks:
            task.cancel()
        await self.log.stop()
        self.loop.call_soon(self._exit)

    async def _hand_over(self) -> None:
        while True:
            for peer in self.farewell.successors():
                if self.log.leading_epoch is None:
                    break
                try:
                    await self.log.transfer(peer)
                except RaftcronError as error:
                    self.note(f"keeps the lead: {error}")
            await asyncio.sleep(HAND_OVER_SECONDS)

    # ---- details

    def _watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)

        def over(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                self.fail(FatalError(f"a loop of the node has failed: {error!r}"))

        task.add_done_callback(over)
        return task

    def _handle(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.loop.is_dead:
            error = context.get("exception")
            self.fail(FatalError(f"nobody took care of {context.get('message')}: {error!r}"))
