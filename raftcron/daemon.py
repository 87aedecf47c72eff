"""One node: the only file that knows every floor; it wires the rooms, starts them in order, and stops them in order.

Start: what a former life left is killed -> journal and peers -> HTTP -> this life is announced -> ready.
Stop (SIGTERM): hand over the lead -> take no new runs -> running ones get the grace, then end -> their fate is
committed -> nodes that end at the same time have done so too -> HTTP, peers, journal.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TextIO

from aiohttp import web

from raftcron import __version__
from raftcron.clock import Clock, SystemClock
from raftcron.config import Settings
from raftcron.core.commands import Announce, Finished
from raftcron.core.model import FAILED, SUCCEEDED
from raftcron.errors import ConfigurationError, FatalError, RaftcronError
from raftcron.executors.registry import Registry, Surroundings
from raftcron.executors.remnants import Remnant, clean_up
from raftcron.executors.spawner import Spawner
from raftcron.raft import Engine, RaftSettings, SystemDevice
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.farewell import Farewell
from raftcron.runtime.leases import LeaseKeeper, LeaseTimes, License
from raftcron.runtime.loop_watch import LoopWatch
from raftcron.runtime.machine import Machine
from raftcron.runtime.presence import Presence
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.reports import Reports
from raftcron.runtime.scheduler import Scheduler
from raftcron.runtime.worker import Worker

log = logging.getLogger(__name__)

TELL_SECONDS = 3.0  # for the ends of a former life, before the new one is announced
HAND_OVER_SECONDS = 0.5  # between two attempts to give the lead away
STOP_SECONDS = 5.0  # for each step of an orderly end that depends on others
RUN_DIRECTORY = "run"
NO_SECRET = b"a cluster on loopback without a secret"


class Node:
    """One running node."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.time = TrustedTime(clock)
        self.machine = Machine(settings.name, self.time)
        self._device = SystemDevice()
        self._directory_lock: int | None = None
        low, high = settings.election_timeout_ms
        self.log = Engine(
            RaftSettings(
                name=settings.name,
                listen=(settings.raft.host, settings.raft.port),
                peers={name: (address.host, address.port) for name, address in settings.voters.items()},
                data_dir=settings.data_dir / "journal",
                secret=settings.cluster_secret or NO_SECRET,
                election_timeout=(low / 1000, high / 1000),
                leader_fallback=settings.leader_fallback_ms / 1000,
                request_timeout=settings.request_timeout_ms / 1000,
            ),
            self.machine,
            clock,
            self._device,
            random.SystemRandom(),
            self.fail,
        )
        self.proposer = Proposer(self.log, self.machine, self.time)
        times = LeaseTimes(settings.lease_ms / 1000, settings.lease_margin_ms / 1000)
        self.leases = LeaseKeeper(clock, times, self.log.read_index)
        self.reports = Reports(node=settings.name, machine=self.machine, log=self.log, proposer=self.proposer)
        self.spawner = self._make_spawner(times) if settings.allow_shell else None
        self.registry = Registry.installed()
        self.executors = self.registry.executors(
            Surroundings(allow_shell=settings.allow_shell, spawner=self.spawner, environment=dict(os.environ))
        )
        self.worker = Worker(
            node=settings.name,
            machine=self.machine,
            reports=self.reports,
            executor=self.executors,
            clock=clock,
            time=self.time,
            license_of=lambda: self.presence.license,
        )
        self.scheduler = Scheduler(
            node=settings.name,
            machine=self.machine,
            proposer=self.proposer,
            time=self.time,
            leases=self.leases,
            catch_up_rate=settings.catch_up_rate,
        )
        self.farewell = Farewell(node=settings.name, machine=self.machine, log=self.log, clock=clock)
        self.watch = LoopWatch(clock)
        self._times = times
        self._tasks: list[asyncio.Task[None]] = []
        self._leading: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._web: web.AppRunner | None = None

    def fail(self, error: BaseException) -> None:
        """End the process: it must not guess and must not go on."""
        if not self.ended.done():
            self.ended.set_result(error)

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler: what nobody awaited is logged, and a fatal error ends the node."""
        error = context.get("exception")
        if isinstance(error, FatalError):
            self.fail(error)
        else:
            loop.default_exception_handler(context)

    def end(self) -> None:
        """Ask for an orderly end; asked again, running attempts get no more grace."""
        if not self.ended.done():
            self.ended.set_result(None)
        elif self._is_stopping:
            self.worker.hurry()
            self.farewell.hurry()

    # ---- start

    async def start(self) -> None:
        """Everything up; returns once this node is ready, which needs a quorum."""
        self._take_directory()
        run_directory = self.settings.data_dir / RUN_DIRECTORY
        remnants = await (clean_up(run_directory) if self.spawner is None else self.spawner.start())
        for remnant in remnants:
            log.info(
                "remnant_found run=%s was_alive=%s exit_code=%s", remnant.run_id, remnant.was_alive, remnant.exit_code
            )
        self.log.on_leadership(self._leadership)
        await self.log.start()
        (self.settings.data_dir / "pid").write_text(f"{os.getpid()}\n")
        self.machine.incarnation = self.log.incarnation
        self.presence = self._make_presence()
        for observer in (self.presence, self.worker, self.scheduler):
            self.machine.observe(observer)
        self._spawn(self._announce(remnants))
        self._spawn(self.presence.run())
        self._spawn(self.worker.run())
        self._spawn(self.watch.run())
        await self._start_web()
        await self.log.wait_ready()
        await self.presence.wait_announced()

    async def _announce(self, remnants: list[Remnant]) -> None:
        """Tell how the former life's commands ended, where somebody saw it; then this life, which loses the rest."""
        await self.log.wait_ready()
        for remnant in remnants:
            if remnant.exit_code is not None and remnant.reason is None:
                self.reports.ended(_seen_end(remnant, remnant.exit_code))
        try:
            async with asyncio.timeout(TELL_SECONDS):
                while self.reports.open_count:
                    self.reports.repeat()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning("former_ends_not_recorded count=%d next=lost", self.reports.open_count)
        self.presence.announce()

    def _take_directory(self) -> None:
        """This process alone: what a former life left here is about to be killed."""
        directory = self.settings.data_dir
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory_lock = self._device.lock(directory / "lock")
        except BlockingIOError:
            raise ConfigurationError(
                f"--data-dir {directory}: another raftcron process has it. Each node needs a directory of its own; "
                "end the other process, or choose another directory"
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"--data-dir {directory}: {error.strerror or error}. The node must be able to make it and write there"
            ) from error

    def _make_spawner(self, times: LeaseTimes) -> Spawner:
        return Spawner(
            self.settings.data_dir / RUN_DIRECTORY,
            output_directory=self.settings.data_dir / "output",
            output_bytes_max=self.settings.output_total_bytes,
            lease_grace_seconds=max(0.0, times.lease_seconds / 2 - times.margin_seconds),
        )

    def _make_presence(self) -> Presence:
        settings = self.settings
        announcement = Announce(
            node=settings.name,
            incarnation=self.log.incarnation,
            http=str(settings.reachable_http),
            raft=str(settings.reachable_raft),
            version=__version__,
            slots=settings.slots,
            process_slots=settings.process_slots,
        )
        return Presence(
            announcement=announcement,
            machine=self.machine,
            log=self.log,
            proposer=self.proposer,
            keeper=self.leases,
            clock=self.clock,
            time=self.time,
            times=self._times,
            licensed=self._licensed,
            fatal=self.fail,
        )

    async def _start_web(self) -> None:
        from raftcron.api.app import NodeContext, create_app, create_runner

        settings = self.settings
        app = create_app(
            NodeContext(
                name=settings.name,
                log=self.log,
                machine=self.machine,
                proposer=self.proposer,
                time=self.time,
                clock=self.clock,
                registry=self.registry,
                peers=self.presence.peers,
                is_ready=lambda: self.log.is_ready and self.presence.is_announced and not self._is_stopping,
                listen=str(settings.http),
                advertise=str(settings.reachable_http),
                request_timeout_seconds=settings.request_timeout_ms / 1000,
                fresh_at=self._fresh_at,
                loop_stall_seconds=lambda: self.watch.longest_seconds,
            )
        )
        self._web = create_runner(app)
        await self._web.setup()
        try:
            await web.TCPSite(self._web, settings.http.host, settings.http.port, backlog=1024).start()
        except OSError as error:
            raise ConfigurationError(
                f"--http {settings.http}: cannot listen there: {error.strerror or error}. Another process has the port "
                f"(`ss -ltnp 'sport = :{settings.http.port}'` names it): end it, or choose another address"
            ) from error

    # ---- leading

    def _leadership(self, epoch: int | None) -> None:
        if self._leading is not None:
            self._leading.cancel()
            self._leading = None
        if epoch is None:
            log.info("lead_lost node=%s", self.settings.name)
            return
        log.info("lead_won node=%s epoch=%d", self.settings.name, epoch)
        self.leases.begin()
        self.presence.beat()
        self.reports.repeat()
        self._leading = self._watched(self.scheduler.run())

    def _fresh_at(self) -> float | None:
        """When this node last held all that was committed: as it sent the last heartbeat whose index it has applied."""
        held = self.presence.license
        if held.applied_index > self.machine.applied_index or held.epoch == 0:
            return None
        return held.until - self._times.lease_seconds + self._times.margin_seconds

    def _licensed(self, held: License) -> None:
        if self.spawner is not None:
            self.spawner.extend(held.until)
        self.worker.licensed(held)

    # ---- stop

    async def stop(self, *, is_orderly: bool) -> None:
        """Stop; with `is_orderly` what runs here gets its grace and its recorded end."""
        self._is_stopping = True
        self.scheduler.is_draining = True
        if is_orderly:
            loop = asyncio.get_running_loop()
            grace_seconds = self.settings.shutdown_grace_ms / 1000
            latest = loop.time() + grace_seconds + STOP_SECONDS  # as long as an equal of this node may take
            meanwhile = [loop.create_task(self.farewell.tell()), loop.create_task(self._hand_over())]
            await self.worker.drain(grace_seconds)
            await self._tell_the_rest()
            await self.farewell.wait(latest - loop.time())
            for task in meanwhile:
                task.cancel()
            await asyncio.gather(*meanwhile, return_exceptions=True)
        if self._leading is not None:
            self._leading.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *([self._leading] if self._leading else []), return_exceptions=True)
        if self._web is not None:
            await self._web.cleanup()
        if self.spawner is not None:
            await self.spawner.stop()
        await self.executors.close()
        await self.log.stop()
        if self._directory_lock is not None:
            (self.settings.data_dir / "pid").unlink(missing_ok=True)
            self._device.close(self._directory_lock)

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

    async def _tell_the_rest(self) -> None:
        """Wait until the state shows how this node's runs ended.

        Without a quorum that is left to the next life: it tells the exit codes that the spawner saw, and loses the
        rest, all output among it.
        """
        try:
            async with asyncio.timeout(STOP_SECONDS):
                while self.reports.open_count:
                    self.reports.repeat()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning(
                "ends_not_recorded count=%d reason=no_quorum next=told_at_next_start_if_the_spawner_saw_it_else_lost",
                self.reports.open_count,
            )

    # ---- details

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
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


def _seen_end(remnant: Remnant, exit_code: int) -> Finished:
    """A command's end that the spawner saw and that its daemon did not live to report."""
    return Finished(
        run=remnant.run_id,
        fencing_token=remnant.token,
        state=SUCCEEDED if exit_code == 0 else FAILED,
        exit_code=exit_code if exit_code >= 0 else 128 - exit_code,
        error=None if exit_code == 0 else "it ended while its node was being stopped; the output is gone",
        error_kind=None if exit_code == 0 else "exit",
    )


def run(settings: Settings) -> int:
    """Run one node until SIGTERM or SIGINT; the process's exit code."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format=f"%(asctime)s %(levelname)s {settings.name} %(name)s %(message)s",
        stream=sys.stderr,
    )
    gc.set_threshold(50_000, 50, 100)  # records are outside the collector's reach; young garbage is what is left
    try:
        return asyncio.run(_serve(settings))
    except RaftcronError as error:
        _say(f"raftcron: {error.detail}", sys.stderr)
        return error.exit_code


async def _serve(settings: Settings) -> int:
    node = Node(settings, SystemClock())
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(node.handle)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.end)
    starting = loop.create_task(node.start())
    try:
        first: list[asyncio.Future[Any]] = [starting, node.ended]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            _say(f"raftcron {settings.name} is ready at http://{settings.reachable_http}", sys.stdout)
        error = await node.ended
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        failed = not node.ended.done() or node.ended.result() is not None
        await node.stop(is_orderly=not failed and node.log.is_ready)
    if error is None:
        return 0
    if not isinstance(error, RaftcronError):
        error = FatalError(repr(error))
    _say(f"raftcron: {error.detail}", sys.stderr)
    return error.exit_code


def _say(line: str, stream: TextIO) -> None:
    stream.write(line + "\n")
    stream.flush()
