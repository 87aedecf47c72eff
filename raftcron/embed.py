"""A raftcron node inside an application: its functions run on schedule, once in the whole cluster.

    cron = RaftCron(name="web-1", peers={"web-1": "10.0.0.1:7201", ...}, data_dir="/var/lib/app/cron")

    @cron.job("0 3 * * *", timezone="Europe/Berlin")
    async def nightly(run: Run) -> None: ...

    app.cleanup_ctx.append(cron.cleanup_ctx)     # aiohttp
    app = FastAPI(lifespan=cron.lifespan)        # FastAPI, Starlette, any ASGI framework with such a lifespan

The node has a thread and a loop of its own.  docs/embedding.md tells the rest.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from raftcron.clock import SystemClock
from raftcron.config import Settings, load
from raftcron.core import definition
from raftcron.core.fields import name_fault
from raftcron.core.judge import ScheduleJudge
from raftcron.daemon import Daemon
from raftcron.errors import ConfigurationError, Fault, RaftcronError
from raftcron.executors.handlers import Cancellation, Handlers, Run
from raftcron.executors.registry import Registry
from raftcron.runtime.writes import Precondition

__all__ = ["Cancellation", "RaftCron", "Run"]

log = logging.getLogger(__name__)

LABEL = "raftcron.declared"  # of a job that the code declares: the digest of what the code says
OWNER = "embed"
HTTP_BELOW_RAFT = 100  # the HTTP port, unless said, lies so far below the Raft port: 7101 and 7201
CLAIM_SECONDS = 1.0  # between two looks of a worker that waits for a name
RETRY_SECONDS = 1.0  # of a declared job that could not be written

F = TypeVar("F", bound=Callable[[Run], Any])


class RaftCron:
    """One node, started and stopped by the application, once.

    `peers` are the voters, name -> HOST:PORT for Raft; none: a cluster of one.  Without `name` the process takes the
    first of the peers' names that no other process on this machine has, with the directory of that name below
    `data_dir`; one that finds none free waits, and takes over when one gets free.  `http` is where the node's HTTP API
    listens, a mapping where the name is not said; by default 100 below the Raft port.

    Other settings are those of docs/settings.md, as in lease="4s"; the environment counts behind them.
    `cluster_secret` may be given too.
    """

    def __init__(
        self,
        name: str | None = None,
        peers: Mapping[str, str] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        http: str | Mapping[str, str] | None = None,
        cluster_secret: str | None = None,
        **settings: Any,
    ) -> None:
        self._name = name
        self._peers = dict(peers or {})
        self._data_dir = None if data_dir is None else Path(data_dir)
        self._http = http
        self._secret = cluster_secret
        self._settings = settings
        self._handlers = Handlers()
        self._jobs: dict[str, dict[str, Any]] = {}
        self._is_started = False
        self._claim: int | None = None
        self._claiming: asyncio.Task[None] | None = None
        self._node: _NodeThread | None = None

    # ---- what the application declares

    def handler(self, name: str | None = None, *, process: bool = False) -> Callable[[F], F]:
        """Register a function by name (its own by default), for jobs of the executor type `python`.

        A coroutine function, or an object whose call is one, runs on the application's loop, another one in a thread of
        that loop's pool; with `process` in a child of its own, which can be stopped whatever it does.  What a function
        returns is awaited if it can be.  ValueError: it cannot be registered.
        """

        def decorate(function: F) -> F:
            self._register(name or _own_name(function), function, process)
            return function

        return decorate

    def job(
        self,
        schedule: str | list[str],
        *,
        name: str | None = None,
        process: bool = False,
        args: Any = None,
        **fields: Any,
    ) -> Callable[[F], F]:
        """Register a function and declare the job that calls it; `fields` are those of a job, as in timezone="...".

        Whoever leads writes the job.  What cannot be stopped, a function in a thread, gets `isolation: continue`.
        """

        def decorate(function: F) -> F:
            known = name or _own_name(function)
            can_be_stopped = self._register(known, function, process)
            executor = {"type": "python", "handler": known} | ({} if args is None else {"args": args})
            body = {"schedule": schedule, "executor": executor, "owner": OWNER} | fields
            if not can_be_stopped and body.get("isolation") is None:
                body["isolation"] = "continue"
            self._jobs[known] = body
            return function

        return decorate

    def _register(self, name: str, function: Callable[[Run], Any], process: bool) -> bool:
        if self._is_started:
            raise RuntimeError(f"{name}: handlers are registered before the node starts, which announces them")
        if (problem := name_fault(name)) is not None:
            raise ValueError(f"{problem}: give another one with name=")
        return self._handlers.add(name, function, process).can_be_stopped

    # ---- its life

    async def start(self) -> None:
        """Start the node; returns when it is up, whether or not there is a quorum (`ready` waits for that).

        ConfigurationError: a setting or a declared job is wrong; every fault is named.
        """
        if self._is_started:
            raise RuntimeError("this node was started before: make another RaftCron")
        self._check_jobs()
        self._is_started = True
        self._handlers.loop = asyncio.get_running_loop()
        try:
            if self._name is not None or not self._peers:
                await self._launch(self._name or "n1", self._data_dir)
            elif (name := self._take_name()) is not None:
                await self._launch(name, self._directory_of(name))
            else:
                self._claiming = asyncio.create_task(self._wait_for_name(), name="raftcron-name")
        except BaseException:
            await self.stop()
            raise

    async def ready(self) -> None:
        """Returns once the node takes part in a cluster that has a quorum.  RaftcronError: it has ended instead."""
        if self._claiming is not None:
            await asyncio.shield(self._claiming)
        if self._node is None:
            raise RuntimeError("this node was not started")
        await _of_thread(self._node.ready)

    async def stop(self) -> None:
        """Hand over the lead, give running handlers their grace (`shutdown_grace`), record their ends, and end."""
        if self._claiming is not None:
            self._claiming.cancel()
            await asyncio.gather(self._claiming, return_exceptions=True)
        if self._node is not None:
            self._node.end()
            await _of_thread(self._node.over)
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None
        self._handlers.loop = None

    @property
    def name(self) -> str | None:
        """Of this node; None while it waits for one."""
        return None if self._node is None else self._node.settings.name

    @property
    def error(self) -> BaseException | None:
        """What the node has ended of by itself; None as long as it has not."""
        return None if self._node is None else self._node.error

    async def cleanup_ctx(self, app: Any) -> AsyncIterator[None]:
        """For aiohttp: app.cleanup_ctx.append(cron.cleanup_ctx)."""
        await self.start()
        yield
        await self.stop()

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """For ASGI frameworks that take a lifespan: FastAPI(lifespan=cron.lifespan)."""
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    # ---- names

    def _directory_of(self, name: str) -> Path | None:
        return None if self._data_dir is None else self._data_dir / name

    def _take_name(self) -> str | None:
        """The first one that is free on this machine, for as long as this process lives."""
        if self._data_dir is None:
            return next(iter(self._peers))  # `load` says what is missing
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in self._peers:
            claim = os.open(self._data_dir / f"{name}.claim", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(claim)
            else:
                self._claim = claim
                return name
        return None

    async def _wait_for_name(self) -> None:
        log.info("standby names=%s", ",".join(self._peers))
        while (name := self._take_name()) is None:  # noqa: ASYNC110  another process's lock tells nobody
            await asyncio.sleep(CLAIM_SECONDS)
        try:
            await self._launch(name, self._directory_of(name))
        except RaftcronError as error:  # nobody may be waiting for this task
            log.critical("standby_failed name=%s error=%s", name, error.detail)
            raise

    # ---- the node

    async def _launch(self, name: str, directory: Path | None) -> None:
        settings = self._load(name, directory)
        for note in settings.notes:
            log.warning("setting_note %s", note)
        self._node = _NodeThread(settings, self._handlers, self._jobs)
        self._node.start()
        await _of_thread(self._node.opened)

    def _load(self, name: str, directory: Path | None) -> Settings:
        http = self._http.get(name) if isinstance(self._http, Mapping) else self._http
        if http is None and name in self._peers:
            host, _, port = self._peers[name].rpartition(":")
            http = f"{host}:{int(port) - HTTP_BELOW_RAFT}" if port.isdigit() else None
        flags = {key.replace("_", "-"): value for key, value in self._settings.items()}
        flags |= {
            "name": name,
            "peer": [f"{peer}={address}" for peer, address in self._peers.items()],
            "data-dir": None if directory is None else str(directory),
            "http": http,
        }
        environ = dict(os.environ) | ({} if self._secret is None else {"RAFTCRON_CLUSTER_SECRET": self._secret})
        return load(flags, environ)

    def _check_jobs(self) -> None:
        """Every fault of every declared job, before anything starts."""
        registry, faults = Registry.installed(), list[Fault]()
        for name, body in self._jobs.items():
            judge = ScheduleJudge(name, int(SystemClock().wall() * 1000), body, None, {})
            checked = definition.check(body, name, judge, registry.validate)
            for fault in dict.fromkeys([*checked.faults, *judge.faults]):
                faults.append(Fault(f"/{name}{fault.pointer}", fault.message))
        if faults:
            lines = "".join(f"\n  {fault.pointer} {fault.message}" for fault in faults)
            raise ConfigurationError(f"declared jobs cannot be written:{lines}", tuple(faults))


def _own_name(function: Any) -> str:
    """What a function is called; of an object, which is called nothing, what it looks like: no name either."""
    return getattr(function, "__name__", None) or repr(function)


async def _of_thread(future: Future[None]) -> None:
    """Wait for what another thread sets; whoever gives up waiting does not cancel it."""
    await asyncio.shield(asyncio.wrap_future(future))


class _NodeThread:
    """A node in a thread of its own.  `opened`, `ready` and `over` may be waited for from any loop."""

    def __init__(self, settings: Settings, handlers: Handlers, jobs: Mapping[str, dict[str, Any]]) -> None:
        self.settings = settings
        self.opened: Future[None] = Future()
        self.ready: Future[None] = Future()
        self.over: Future[None] = Future()
        self.error: BaseException | None = None
        self._handlers = handlers
        self._jobs = jobs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._daemon: Daemon | None = None
        self._is_ending = False
        self._thread = threading.Thread(target=self._main, name=f"raftcron-{settings.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Ask for an orderly end."""
        self._is_ending = True
        if self._loop is not None and self._daemon is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._daemon.end)

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.error = error
            log.critical("node_ended node=%s error=%s", self.settings.name, error, exc_info=error)
        for future in (self.opened, self.ready):
            if not future.done():
                future.set_exception(self.error or ConfigurationError("the node was stopped before it was ready"))
        self.over.set_result(None)

    async def _serve(self) -> None:
        daemon = Daemon(self.settings, SystemClock(), self._handlers)
        self._daemon, self._loop = daemon, asyncio.get_running_loop()
        self._loop.set_exception_handler(daemon.handle)
        if self._is_ending:  # asked before there was anybody to tell
            daemon.end()
        living = self._loop.create_task(self._live(daemon))
        first: list[asyncio.Future[Any]] = [living, daemon.ended]
        is_orderly = False
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                living.result()
            error = await daemon.ended
            is_orderly = error is None
            if error is not None:
                raise error
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            await daemon.stop(is_orderly=is_orderly and daemon.node.log.is_ready)

    async def _live(self, daemon: Daemon) -> None:
        """Up, then ready."""
        await daemon.open()
        daemon.node.spawn(self._declare(daemon))
        self.opened.set_result(None)
        await daemon.node.wait_ready()
        self.ready.set_result(None)
        log.info("node_ready node=%s http=%s", self.settings.name, self.settings.reachable_http)

    # ---- declared jobs

    async def _declare(self, daemon: Daemon) -> None:
        """Each time this node begins to lead, write what the code declares and the cluster does not know yet."""
        raft = daemon.node.log
        leads = asyncio.Event()
        raft.on_leadership(lambda epoch: None if epoch is None else leads.set())
        if raft.leading_epoch is not None:
            leads.set()
        while True:
            await leads.wait()
            leads.clear()
            missing = dict(self._jobs)
            while missing and raft.leading_epoch is not None:
                name = next(iter(missing))
                try:
                    await self._put(daemon, name, missing[name])
                    del missing[name]
                except RaftcronError as error:
                    if error.retryable:
                        await asyncio.sleep(RETRY_SECONDS)
                        continue
                    log.error("job_not_taken job=%s error=%s faults=%s", name, error.detail, error.faults)
                    del missing[name]

    async def _put(self, daemon: Daemon, name: str, body: dict[str, Any]) -> None:
        """The job, unless the cluster has it as the code says it, edited since or not; one of another's is left."""
        digest = blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=8).hexdigest()
        job = daemon.node.machine.state.jobs.get(name)
        if job is not None:
            known = definition.written_of(job.definition).get("labels", {}).get(LABEL)
            if known is None:
                log.warning("job_of_another job=%s next=left_alone label=%s", name, LABEL)
            if known in (None, digest):
                return
        assert daemon.service is not None
        await daemon.service.put_job(
            name, body | {"labels": {**body.get("labels", {}), LABEL: digest}}, Precondition(), None, is_declared=True
        )
