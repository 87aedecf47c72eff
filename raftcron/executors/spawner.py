"""The daemon's side of the spawner: starts it, asks it to run commands, and replaces it when it is lost.

What a command may see is in context.py, what happens inside the spawner in spawner_main.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from raftcron.errors import FatalError, UnavailableError
from raftcron.executors import runfiles
from raftcron.executors.frames import Frames, frame
from raftcron.executors.host import LINUX, SHORTAGE, Host, Link
from raftcron.executors.output import DIRECTORY_BYTES
from raftcron.executors.remnants import Remnant, clean_up

log = logging.getLogger(__name__)

START_SECONDS = 10.0  # a spawner that does not say `ready` by then is killed and tried again
STOP_SECONDS = 10.0  # a spawner that has not ended by then, with all its children, is killed
PING_SECONDS = 1.0
UNANSWERED_PINGS = 5  # then the spawner is taken for stopped; counted, so that a pause of the daemon counts once
RESTART_SECONDS = 1.0  # between two tries to start one, or to see what the last one has left
ENDED_FILES = 1_000  # run files of ended children that are kept for a life that could not commit their end

Reason = Literal["cancelled", "shutdown", "lease"]


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """One command.  `request_id` names a file and is used once, ever: the attempt's fencing token in decimal."""

    request_id: str
    run_id: str
    token: int
    argv: list[str]
    env: dict[str, str]
    timeout_seconds: float
    kill_after_seconds: float
    cwd: str | None = None
    stdin: bytes = b""
    user: str | None = None
    group: str | None = None  # instead of the user's own, or the daemon's
    memory_bytes: int | None = None  # that each of its processes may write to
    output_name: str | None = None  # file in the output directory; None keeps the tail only
    self_stop: bool = True  # die at the end of the lease


class SpawnResult(NamedTuple):
    """What became of a request.

    exited   it ran and it is gone, with all that it started: `exit_code` (negative: that signal), `reason` if it was
             stopped (timeout, cancelled, shutdown, lease)
    refused  it certainly never ran: the gate or the spawner did not let it
    failed   it certainly never ran: no such command, no such directory, ...; `error` says which
    lost     the spawner died with it: it is gone now, but nobody saw how it ended
    """

    outcome: Literal["exited", "refused", "failed", "lost"]
    exit_code: int | None = None
    reason: str | None = None
    error: str | None = None
    output_tail: bytes = b""
    output_bytes: int = 0


@dataclass(slots=True)
class _Life:
    """One spawner process."""

    link: Link
    frames: Frames = field(default_factory=Frames)
    unanswered: int = 0


class Spawner:
    """Owns one spawner process at a time.  Used on one loop; no threads.

    `lease_grace_seconds` is the most that SIGTERM may come before the end of the lease: lease / 2 - margin.
    `with_cgroups`: give each child a control group of its own where that can be.
    `fatal` is called with what keeps it from ever having a spawner again: the node must not go on without.
    `files`: how many files a child may open, where this process has raised its own limit since it was started.
    """

    def __init__(
        self,
        run_directory: Path,
        *,
        output_directory: Path | None = None,
        output_bytes_max: int = DIRECTORY_BYTES,
        lease_grace_seconds: float = 3.0,
        ping_seconds: float = PING_SECONDS,
        with_cgroups: bool = True,
        files: int | None = None,
        host: Host = LINUX,
        fatal: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._run_directory = run_directory
        self._output_directory = output_directory or run_directory.parent / "output"
        self._output_bytes_max = output_bytes_max
        self._lease_grace_seconds = lease_grace_seconds
        self._ping_seconds = ping_seconds
        self._with_cgroups = with_cgroups
        self._files = files
        self._host = host
        self._fatal = fatal
        self._deadline = 0.0
        self._life: _Life | None = None  # set while requests may be written
        self._is_up = asyncio.Event()
        self._waiting: set[str] = set()
        self._pending: dict[str, asyncio.Future[SpawnResult]] = {}
        self._ended: deque[str] = deque()
        self._keeper: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.restart_count = 0

    @property
    def pid(self) -> int | None:
        """The spawner process, None while there is none."""
        return self._life.link.pid if self._life is not None else None

    @property
    def running_count(self) -> int:
        """Requests that were sent and have not ended."""
        return len(self._pending)

    async def start(self) -> list[Remnant]:
        """Clean up after a former life, then start the process; what the former life left.

        To be awaited before the node announces its new incarnation.  FatalError if something of the former life cannot
        be killed, OSError if it cannot be seen whether there is any, UnavailableError if no spawner can be started.
        """
        remnants = await clean_up(self._run_directory, host=self._host)
        life = await self._launch()
        self._keeper = asyncio.create_task(self._keep(life), name="spawner")
        self._keeper.add_done_callback(self._over)
        return remnants

    async def stop(self) -> None:
        """End the process and all that it runs; what runs ends as the spawner saw it, else `lost`."""
        self._is_stopping = True
        if self._life is not None:
            self._life.link.close()
        if self._keeper is not None:
            with contextlib.suppress(Exception):  # `_over` has told of it, and the rest has to end all the same
                await self._keeper
            self._keeper = None

    def extend(self, deadline_boot_seconds: float) -> None:
        """The lease now ends then, on the boot clock; it never goes back."""
        if deadline_boot_seconds > self._deadline:
            self._deadline = deadline_boot_seconds
            self._tell({"do": "extend", "deadline": deadline_boot_seconds})

    async def run(self, request: SpawnRequest, may_start: Callable[[], float | None]) -> SpawnResult:
        """Run a command to its end.  The gate is asked right before the request is written.

        A caller that is cancelled meanwhile has the command killed.  ValueError for a request over 8 MiB.
        """
        self._waiting.add(request.request_id)
        try:
            await self._is_up.wait()
        finally:
            self._waiting.discard(request.request_id)
        licensed_until = may_start()
        if licensed_until is None:
            return SpawnResult("refused", error="the start gate is closed")
        if self._life is None or request.request_id in self._pending:
            return SpawnResult("refused", error="the spawner is stopping, or this start was asked for before")
        message = frame(
            {
                "do": "exec",
                "id": request.request_id,
                "run_id": request.run_id,
                "token": request.token,
                "argv": request.argv,
                "env": request.env,
                "cwd": request.cwd,
                "stdin": request.stdin,
                "user": request.user,
                "group": request.group,
                "memory": request.memory_bytes,
                "output": request.output_name,
                "timeout": request.timeout_seconds,
                "kill_after": request.kill_after_seconds,
                "licensed_until": licensed_until,
                "self_stop": request.self_stop,
            }
        )
        future: asyncio.Future[SpawnResult] = asyncio.get_running_loop().create_future()
        self._pending[request.request_id] = future
        self._life.link.write(message)
        try:
            return await future
        except asyncio.CancelledError:
            self._tell({"do": "stop", "id": request.request_id, "reason": "cancelled", "kill_after": 0.0})
            raise

    def is_waiting(self, request_id: str) -> bool:
        """Whether `run` still waits for a spawner: nothing was sent, and cancelling the caller means not started."""
        return request_id in self._waiting

    def stop_run(self, request_id: str, reason: Reason, kill_after_seconds: float) -> None:
        """SIGTERM to its process group, SIGKILL to all of it later; nothing if it has ended."""
        if request_id in self._pending:
            self._tell({"do": "stop", "id": request_id, "reason": reason, "kill_after": kill_after_seconds})

    # ---- the process ---------------------------------------------------------------------------------------------

    async def _launch(self) -> _Life:
        arguments = [
            str(self._run_directory),
            str(self._output_directory),
            str(self._output_bytes_max),
            repr(self._lease_grace_seconds),
            str(int(self._with_cgroups)),
            "" if self._files is None else str(self._files),
        ]
        link = await self._host.launch(arguments)
        life = _Life(link)
        try:
            async with asyncio.timeout(START_SECONDS):
                messages: list[Any] = []
                while not messages:
                    data = await link.read()
                    if not data:
                        raise UnavailableError("the spawner ended at once; its message is on the daemon's stderr")
                    messages = life.frames.feed(data)
        except BaseException as error:
            await _end(life, at_once=True)
            if isinstance(error, TimeoutError):
                raise UnavailableError(f"the spawner is not ready after {START_SECONDS:.0f} s") from error
            if isinstance(error, OSError | ValueError):
                raise UnavailableError(f"the spawner that was started cannot be heard: {error}") from error
            raise
        link.write(frame({"do": "extend", "deadline": self._deadline}))
        self._life = life
        self._is_up.set()
        return life

    async def _keep(self, life: _Life) -> None:
        """As long as the daemon lives, have one spawner."""
        while True:
            if self._is_stopping:  # asked while this one was being started
                life.link.close()
            pinger = asyncio.create_task(self._ping(life), name="spawner-ping")
            try:
                await self._read(life)
            finally:
                pinger.cancel()
                self._life = None
                self._is_up.clear()
            await _end(life, at_once=not self._is_stopping)
            await self._account_for_lost()
            if self._is_stopping:
                self._is_up.set()  # whoever still waits is refused
                return
            self.restart_count += 1
            log.error("spawner_lost pid=%d restarts=%d", life.link.pid, self.restart_count)
            new_life = await self._relaunch()
            if new_life is None:
                return
            life = new_life

    async def _relaunch(self) -> _Life | None:
        while not self._is_stopping:
            try:
                return await self._launch()
            except UnavailableError as error:
                log.error("spawner_start_failed error=%s", error)
                await asyncio.sleep(RESTART_SECONDS)
        self._is_up.set()
        return None

    def _over(self, keeper: asyncio.Task[None]) -> None:
        """The keeper has ended; where nobody asked it to, nothing can be started any more, nor any end be told."""
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            log.error("spawner_keeper_failed", exc_info=error)
            self._is_stopping = True
            self._is_up.set()  # whoever still waits is refused; what was sent is lost with this life of the node
            self._fatal(
                FatalError(
                    f"the spawner is gone, and what it ran cannot be accounted for: {type(error).__name__}: {error}. "
                    "See this node's log, mend that, and start the node again"
                )
            )

    async def _read(self, life: _Life) -> None:
        """Until the process is gone, or talks nonsense."""
        while True:
            try:
                data = await life.link.read()
                for message in life.frames.feed(data):
                    self._receive(life, message)
            except OSError:
                return
            except (ValueError, TypeError, KeyError) as error:
                log.error("spawner_unreadable error=%r", error)
                return
            if not data:
                return

    async def _ping(self, life: _Life) -> None:
        while True:
            await asyncio.sleep(self._ping_seconds)
            if life.unanswered >= UNANSWERED_PINGS:
                log.error("spawner_stopped pid=%d", life.link.pid)
                life.link.kill()  # its children die with it, and `_read` sees its end
                return
            life.unanswered += 1
            life.link.write(frame({"do": "ping", "number": life.unanswered}))

    def _receive(self, life: _Life, message: Mapping[str, Any]) -> None:
        kind = message["is"]
        if kind == "pong":
            life.unanswered = 0
        elif kind == "ended":
            self._ended.append(message["id"])
            self._forget_old()
            self._resolve(
                message["id"],
                SpawnResult("exited", message["exit"], message["reason"], None, message["tail"], message["bytes"]),
            )
        elif kind == "failed":
            self._resolve(message["id"], SpawnResult("failed", error=message["error"]))
        elif kind == "refused":
            self._resolve(message["id"], SpawnResult("refused", error=message["why"]))

    def _resolve(self, request_id: str, result: SpawnResult) -> None:
        future = self._pending.pop(request_id, None)
        if future is not None and not future.done():
            future.set_result(result)

    def _forget_old(self) -> None:
        while len(self._ended) > ENDED_FILES:
            path = runfiles.child_path(str(self._run_directory), self._ended.popleft())
            with contextlib.suppress(OSError):  # then the next life tells its end once more, which is no news
                self._host.files.remove(path)

    async def _account_for_lost(self) -> None:
        """Kill what the run directory names, see it gone, and give everybody who waits what is known."""
        while True:
            try:
                found = await clean_up(self._run_directory, keep_ended=True, host=self._host)
                break
            except (FatalError, OSError) as error:  # not seen gone, so not over: those who wait go on waiting
                if self._is_stopping or (isinstance(error, OSError) and error.errno not in SHORTAGE):
                    raise
                log.error("spawner_remnants_not_seen_gone error=%s", error)
                await asyncio.sleep(RESTART_SECONDS)
        remnants = {remnant.request_id: remnant for remnant in found}
        for request_id in list(self._pending):
            remnant = remnants.get(request_id)
            if remnant is None:
                result = SpawnResult("refused", error="the spawner ended before it started this")
            elif remnant.exit_code is not None:
                result = SpawnResult("exited", remnant.exit_code, remnant.reason)
            else:
                result = SpawnResult("lost", error="the spawner died, and the command was killed with it")
            self._resolve(request_id, result)

    def _tell(self, message: dict[str, Any]) -> None:
        if self._life is not None:
            self._life.link.write(frame(message))


async def _end(life: _Life, at_once: bool) -> None:
    """Close the connection and wait for the process, with patience unless `at_once`."""
    link = life.link
    link.close()
    if at_once:
        link.kill()
    waited = 0.0
    while not link.is_over:
        await asyncio.sleep(0.005)
        waited += 0.005
        if waited >= STOP_SECONDS:
            link.kill()
    await link.release()
