"""One node as a process: the only file that knows every floor; it gives node.py its real surroundings and the web.

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
import resource
import signal
import ssl
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from aiohttp import web

from raftcron import __version__
from raftcron.clock import Clock, SystemClock, kernel_says_synchronised
from raftcron.config import Settings
from raftcron.core.commands import Announce
from raftcron.core.model import HANDLER_TAG, PROCESS_TAG, THREAD_TAG
from raftcron.core.schedule import CRONITER_VERSION, TZDATA_VERSION
from raftcron.errors import ConfigurationError, FatalError, RaftcronError
from raftcron.executors import http_spec
from raftcron.executors.addresses import AddressRules
from raftcron.executors.courier import Courier
from raftcron.executors.handlers import Handlers
from raftcron.executors.kept_output import KeptOutput
from raftcron.executors.mail import Relay
from raftcron.executors.output import Shelf
from raftcron.executors.registry import Registry, Surroundings
from raftcron.executors.remnants import Remnant, clean_up, seen_end
from raftcron.executors.spawner import Spawner
from raftcron.node import Node, NodeSettings
from raftcron.raft import CompactionSettings, PeerTls, RaftSettings, SlicedScribe, SystemDevice, scribe_for_this_system
from raftcron.runtime.alerts import Alerts
from raftcron.runtime.bootstrap import Bootstrap
from raftcron.runtime.events import EventLog
from raftcron.runtime.leases import LeaseTimes, License
from raftcron.runtime.loop_watch import LoopWatch
from raftcron.runtime.service import Service
from raftcron.runtime.shortage import Shortage

if TYPE_CHECKING:
    from raftcron.api.tls import HttpTls

log = logging.getLogger(__name__)

RUN_DIRECTORY = "run"
SYNC_POLL_SECONDS = 0.5
OUTPUT_DIRECTORY = "output"  # of commands; the spawner alone writes there
ANSWERS_DIRECTORY = "answers"  # of receivers; this process alone writes there
ANSWERS_SHARE = 4  # one part in so many of the room for outputs
TIDY_SECONDS = 600.0  # between two looks at how old the answers are
RENEW_SECONDS = 2.0  # between two looks at whether the cluster's key has to be wrapped anew
HELD_SECONDS = 2.0  # for whoever else has the data directory
NO_SECRET = b"a cluster on loopback without a secret"


class Daemon:
    """One running node with its real surroundings.

    `handlers` are those of an application that embeds the node.  Then snapshots are written on the loop instead of by
    a forked child: who knows what the application's threads hold.  `files`: how many files commands may open, where
    this process has raised its own limit.
    """

    def __init__(
        self, settings: Settings, clock: Clock, handlers: Handlers | None = None, files: int | None = None
    ) -> None:
        self.settings = settings
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._clock = clock
        self._handlers = handlers
        self._device = SystemDevice()
        self._directory_lock: int | None = None
        times = LeaseTimes(settings.lease_ms / 1000, settings.lease_margin_ms / 1000)
        starts_processes = settings.allow_shell or (handlers is not None and handlers.need_processes)
        self._spawner = self._make_spawner(times, files) if starts_processes else None
        rules = AddressRules(settings.refuse_addresses, settings.allow_addresses)
        self._answers = Shelf(str(settings.data_dir / ANSWERS_DIRECTORY), settings.output_total_bytes // ANSWERS_SHARE)
        self._registry = Registry.installed({"http": partial(http_spec.validate, rules=rules)})
        self._executors = self._registry.executors(
            Surroundings(
                allow_shell=settings.allow_shell,
                spawner=self._spawner,
                handlers=handlers,
                environment=dict(os.environ),
                answers=self._answers,
                clock=clock,
                addresses=rules,
                trust=_trust(settings),
            )
        )
        self.node = Node(
            _node_settings(settings, times, handlers or Handlers()),
            clock=clock,
            device=self._device,
            rng=random.SystemRandom(),
            scribe=scribe_for_this_system() if handlers is None else SlicedScribe(),
            executor=self._executors,
            fatal=self.fail,
            licensed=self._licensed,
            is_synchronised=kernel_says_synchronised,
            judge=self._judge,
        )
        self._bootstrap = Bootstrap(
            node=settings.name,
            directory=settings.data_dir,
            machine=self.node.machine,
            log=self.node.log,
            proposer=self.node.proposer,
        )
        self._watch = LoopWatch(clock)
        self._shortage = Shortage(clock)
        self._web: web.AppRunner | None = None
        self._events = EventLog()
        self._courier = Courier(
            clock=clock,
            rules=rules,
            trust=_trust(settings),
            relay=_relay(settings),
        )
        self.service: Service | None = None  # what writes go through, once HTTP is served

    def _judge(self, spec: Mapping[str, Any]) -> list[str]:
        return [fault.pointer for fault in self._registry.validate(spec)]

    def fail(self, error: BaseException) -> None:
        """End the process: it must not guess and must not go on."""
        if not self.ended.done():
            self.ended.set_result(error)

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler: what nobody awaited is logged, and a fatal error ends the node."""
        error = context.get("exception")
        if isinstance(error, FatalError):
            self.fail(error)
        elif not self._shortage.takes(context):
            loop.default_exception_handler(context)

    def end(self) -> None:
        """Ask for an orderly end; asked again, running attempts get no more grace."""
        if not self.ended.done():
            self.ended.set_result(None)
        elif self.node.is_stopping:
            self.node.hurry()

    # ---- start

    async def start(self) -> None:
        """Everything up; returns once this node is ready, which needs a quorum."""
        await self.open()
        await self.node.wait_ready()

    async def open(self) -> None:
        """Everything up, whether or not there is a quorum.  RaftcronError: it cannot run like this."""
        await self._take_directory()
        if self.settings.require_time_sync:
            await self._time_synchronised()
        self._events = self.node.machine.events = EventLog(self.settings.data_dir / "events")
        self._alerts = Alerts(
            machine=self.node.machine,
            log=self.node.log,
            proposer=self.node.proposer,
            events=self._events,
            clock=self._clock,
            sender=self._courier,
            fill=self.node.resolver.fill,
        )
        remnants = await self._clean_up()
        for remnant in remnants:
            log.info(
                "remnant_found run=%s was_alive=%s exit_code=%s", remnant.run_id, remnant.was_alive, remnant.exit_code
            )
        await self.node.start([end for remnant in remnants if (end := seen_end(remnant)) is not None])
        if self._handlers is None:
            gc.freeze()  # what was restored lives on: the collector need not look at it again
        (self.settings.data_dir / "pid").write_text(f"{os.getpid()}\n")
        self.node.spawn(self._watch.run())
        self.node.spawn(self._bootstrap.run())
        self.node.spawn(self._alerts.run())
        self.node.spawn(self._tidy_answers())
        if self.settings.previous_cluster_secret:
            self.node.spawn(self._renew_key())
        await self._start_web()

    async def _renew_key(self) -> None:
        """The cluster secret was changed: once this node leads, the cluster's key is wrapped under the present one."""
        while True:
            if self.node.log.leading_epoch is not None:
                try:
                    await self.node.vault.renew()
                except RaftcronError as error:
                    log.warning("cluster_key_not_wrapped_anew code=%s detail=%s", error.code, error.detail)
            await asyncio.sleep(RENEW_SECONDS)

    async def _take_directory(self) -> None:
        """This process alone: what a former life left here is about to be killed."""
        directory = self.settings.data_dir
        patience = asyncio.timeout(HELD_SECONDS)  # that life may just be ending, or a command be looking at it
        try:
            for made in (directory, directory / ANSWERS_DIRECTORY):
                made.mkdir(mode=0o700, parents=True, exist_ok=True)
            async with patience:
                while self._directory_lock is None:
                    try:
                        self._directory_lock = self._device.lock(directory / "lock")
                    except BlockingIOError:
                        await asyncio.sleep(0.05)
        except TimeoutError:
            raise ConfigurationError(
                f"--data-dir {directory}: another raftcron process has it. Each node needs a directory of its own; "
                "end the other process, or choose another directory"
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"--data-dir {directory}: {error.strerror or error}. The node must be able to make it and write there"
            ) from error

    async def _clean_up(self) -> list[Remnant]:
        """Nothing of a former life is left; what it was, and a spawner of this life if there is to be one."""
        directory = self.settings.data_dir / RUN_DIRECTORY
        try:
            return await (clean_up(directory) if self._spawner is None else self._spawner.start())
        except OSError as error:
            raise FatalError(
                f"{directory}: {error.strerror or error}. It names the commands that a former life of this node may "
                "have left running, and they have to be gone before this one starts any. Have the node's user be able "
                "to list and read it; or restart the machine, and move it away"
            ) from error

    async def _time_synchronised(self) -> None:
        """Until the kernel says so: whoever asks for it would rather have no node than one with a wrong clock."""
        is_told = False
        while not kernel_says_synchronised():
            if not is_told:
                log.warning("clock_not_synchronised next=nothing_is_served_until_the_kernel_says_it_is")
                is_told = True
            await asyncio.sleep(SYNC_POLL_SECONDS)

    def _make_spawner(self, times: LeaseTimes, files: int | None) -> Spawner:
        return Spawner(
            self.settings.data_dir / RUN_DIRECTORY,
            output_directory=self.settings.data_dir / OUTPUT_DIRECTORY,
            output_bytes_max=self.settings.output_total_bytes - self.settings.output_total_bytes // ANSWERS_SHARE,
            lease_grace_seconds=max(0.0, times.lease_seconds / 2 - times.margin_seconds),
            fatal=self.fail,
            files=files,
        )

    async def _tidy_answers(self) -> None:
        """Old answers leave also where no new one comes."""
        while True:
            self._answers.prune(self._clock.wall())
            await asyncio.sleep(TIDY_SECONDS)

    def _licensed(self, held: License) -> None:
        if self._spawner is not None:
            self._spawner.extend(held.until)

    async def _start_web(self) -> None:
        from raftcron.api.app import create_app
        from raftcron.api.context import NodeContext
        from raftcron.api.server import create_runner

        settings, node = self.settings, self.node
        tls = _http_tls(settings)
        context = NodeContext(
            name=settings.name,
            log=node.log,
            machine=node.machine,
            proposer=node.proposer,
            time=node.time,
            clocks=node.clocks,
            clock=self._clock,
            registry=self._registry,
            peers=node.presence.peers,
            is_ready=lambda: node.is_ready,
            listen=str(settings.http),
            advertise=str(settings.reachable_http),
            request_timeout_seconds=settings.request_timeout_ms / 1000,
            fresh_at=node.fresh_at,
            loop_stall_seconds=lambda: self._watch.longest_seconds,
            lease_left=node.leases.seconds_left,
            events=self._events,
            insecure=settings.insecure,
            cluster_secret=settings.cluster_secret or NO_SECRET,
            conservation=node.conservation,
            outputs=KeptOutput([settings.data_dir / name for name in (OUTPUT_DIRECTORY, ANSWERS_DIRECTORY)]),
            vault=node.vault,
            alerts=self._alerts,
            tls=tls,
        )
        self.service = context.service
        self._web = create_runner(create_app(context))
        await self._web.setup()
        try:
            await web.TCPSite(
                self._web,
                settings.http.host,
                settings.http.port,
                backlog=1024,
                ssl_context=None if tls is None else tls.listening,
            ).start()
        except OSError as error:
            raise ConfigurationError(
                f"--http {settings.http}: cannot listen there: {error.strerror or error}. Another process has the port "
                f"(`ss -ltnp 'sport = :{settings.http.port}'` names it): end it, or choose another address"
            ) from error

    # ---- stop

    async def stop(self, *, is_orderly: bool) -> None:
        """Stop; with `is_orderly` what runs here gets its grace and its recorded end."""
        if is_orderly:
            await self.node.drain()
        await self.node.stop_loops()
        if self._web is not None:
            await self._web.cleanup()
        if self._spawner is not None:
            await self._spawner.stop()
        await self._executors.close()
        await self._courier.close()
        await self.node.log.stop()
        self._events.close()
        if self._directory_lock is not None:
            (self.settings.data_dir / "pid").unlink(missing_ok=True)
            self._device.close(self._directory_lock)


def _node_settings(settings: Settings, times: LeaseTimes, handlers: Handlers) -> NodeSettings:
    low, high = settings.election_timeout_ms
    return NodeSettings(
        raft=RaftSettings(
            name=settings.name,
            listen=(settings.raft.host, settings.raft.port),
            peers={name: (address.host, address.port) for name, address in settings.voters.items()},
            data_dir=settings.data_dir,
            secret=settings.cluster_secret or NO_SECRET,
            election_timeout=(low / 1000, high / 1000),
            leader_fallback=settings.leader_fallback_ms / 1000,
            request_timeout=settings.request_timeout_ms / 1000,
            compaction=CompactionSettings(
                bytes=settings.snapshot_bytes,
                entries=settings.snapshot_entries,
                kept_entries=min(10_000, settings.snapshot_entries // 5),
                segment_bytes=min(16 << 20, settings.snapshot_bytes // 4),
            ),
            tls=_peer_tls(settings),
        ),
        times=times,
        max_clock_skew_ms=settings.max_clock_skew_ms,
        secrets_dir=settings.secrets_dir,
        previous_secret=settings.previous_cluster_secret,
        catch_up_rate=settings.catch_up_rate,
        history_total=settings.history_total_bytes,
        grace_seconds=settings.shutdown_grace_ms / 1000,
        announcement=Announce(
            node=settings.name,
            incarnation=0,
            http=str(settings.reachable_http),
            raft=str(settings.reachable_raft),
            version=__version__,
            slots=settings.slots,
            process_slots=settings.process_slots,
            croniter_version=CRONITER_VERSION,
            tzdata_version=TZDATA_VERSION,
            tags=dict(settings.tags)
            | {f"{HANDLER_TAG}{name}": "" for name in handlers}
            | {f"{PROCESS_TAG}{name}": "" for name in handlers.processes}
            | {f"{THREAD_TAG}{name}": "" for name in handlers.threads},
        ),
    )


def _trust(settings: Settings) -> ssl.SSLContext | None:
    """What https jobs go by: the system's CAs, and --receiver-ca.  ConfigurationError if that cannot be read."""
    if settings.receiver_ca is None:
        return None
    trust = ssl.create_default_context()
    try:
        trust.load_verify_locations(settings.receiver_ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"--receiver-ca {settings.receiver_ca}: {error.strerror or error}. It has to hold certificates in PEM"
        ) from error
    return trust


def _relay(settings: Settings) -> Relay | None:
    """Where alerts by e-mail go, if anywhere."""
    if settings.smtp is None:
        return None
    return Relay(
        *settings.smtp,
        settings.smtp_from,
        settings.smtp_tls,
        settings.smtp_user or "",
        settings.smtp_password.decode(errors="replace"),
        _trust(settings),
    )


def _http_tls(settings: Settings) -> HttpTls | None:
    from raftcron.api.tls import HttpTls, TlsFiles

    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return HttpTls(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca, settings.tls_ca))


def _peer_tls(settings: Settings) -> PeerTls | None:
    if settings.peer_cert is None or settings.peer_key is None or settings.peer_ca is None:
        return None
    return PeerTls(settings.peer_cert, settings.peer_key, settings.peer_ca)


def run(settings: Settings) -> int:
    """Run one node until SIGTERM or SIGINT; the process's exit code."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format=f"%(asctime)s %(levelname)s {settings.name} %(name)s %(message)s",
        stream=sys.stderr,
    )
    gc.set_threshold(50_000, 50, 100)  # records are outside the collector's reach; young garbage is what is left
    files = _take_files()
    try:
        return asyncio.run(_serve(settings, files))
    except RaftcronError as error:
        _say(f"raftcron: {error.detail}", sys.stderr)
        return error.exit_code


def _take_files() -> int:
    """Let this process have as many files open as it may; how many it was given, which its commands may rely on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a system may have a bound below the one that it tells
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


async def _serve(settings: Settings, files: int) -> int:
    daemon = Daemon(settings, SystemClock(), files=files)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(daemon.handle)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.end)
    starting = loop.create_task(daemon.start())
    try:
        first: list[asyncio.Future[Any]] = [starting, daemon.ended]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            scheme = "http" if settings.tls_cert is None else "https"
            _say(f"raftcron {settings.name} is ready at {scheme}://{settings.reachable_http}", sys.stdout)
        error = await daemon.ended
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        failed = not daemon.ended.done() or daemon.ended.result() is not None
        await daemon.stop(is_orderly=not failed and daemon.node.log.is_ready)
    if error is None:
        return 0
    if not isinstance(error, RaftcronError):
        error = FatalError(repr(error))
    _say(f"raftcron: {error.detail}", sys.stderr)
    return error.exit_code


def _say(line: str, stream: TextIO) -> None:
    stream.write(line + "\n")
    stream.flush()
