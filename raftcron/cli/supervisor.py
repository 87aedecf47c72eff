"""Keeps a few node processes of this machine alive, shows what they write, and stops them together."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click

from raftcron.config import Address

STOP_SECONDS: Final = 30.0  # for a clean stop: the default shutdown grace of 20 s and some; then SIGKILL
FIRST_DELAY_SECONDS: Final = 0.2  # before a dead node is started again; doubles up to the next one
MAX_DELAY_SECONDS: Final = 10.0
STEADY_SECONDS: Final = 2.0  # a node that lived so long did start: the delay begins anew
READY_POLL_SECONDS: Final = 0.05
READY_TIMEOUT_SECONDS: Final = 2.0  # of one question
LAST_WORDS_SECONDS: Final = 1.0  # for what a dead node's children still hold of its output
MAX_LINE_BYTES: Final = 1 << 16
NOT_USABLE: Final = 2  # a node's exit code when its settings cannot be used: the next start would end the same way
COLOURS: Final = ("cyan", "yellow", "green", "magenta", "blue", "red")

_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A node as a command: `http` is where its /readyz is asked."""

    name: str
    argv: Sequence[str]
    http: Address


class Supervisor:
    """Runs `nodes` until it is told to stop, or until none is left that would be started again.

    `write` gets each line, prefixed with the node's name.  A node that dies leaves the others alone.
    """

    def __init__(
        self,
        nodes: Sequence[NodeProcess],
        *,
        write: Callable[[str], None],
        restarts: bool = True,
        is_coloured: bool = False,
        environ: Mapping[str, str] | None = None,
        stop_seconds: float = STOP_SECONDS,
        first_delay_seconds: float = FIRST_DELAY_SECONDS,
    ) -> None:
        self.pids: dict[str, int] = {}  # of the nodes that run now
        self._nodes = nodes
        self._write = write
        self._restarts = restarts
        self._environ = dict(os.environ if environ is None else environ)
        self._stop_seconds = stop_seconds
        self._first_delay_seconds = first_delay_seconds
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        width = max(len(node.name) for node in nodes)
        self._prefixes = {
            node.name: click.style(node.name.ljust(width), fg=COLOURS[i % len(COLOURS)])
            if is_coloured
            else node.name.ljust(width)
            for i, node in enumerate(nodes)
        }

    async def run(self, on_ready: Callable[[], None]) -> int:
        """Calls `on_ready` once all nodes have been ready.  The exit code: 0 if all stopped cleanly when told to."""
        ready = asyncio.create_task(self._await_ready(on_ready))
        try:
            codes = await asyncio.gather(*(self._keep(node) for node in self._nodes))
        finally:
            ready.cancel()
            for pid in self.pids.values():  # only where something above went wrong
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._stopping.is_set():
            return 0 if not any(codes) else 1
        return NOT_USABLE if set(codes) == {NOT_USABLE} else 1

    def stop(self) -> None:
        """Stop all cleanly; asked again, stop them at once."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def _keep(self, node: NodeProcess) -> int:
        """One node's lives.  Its last exit code, negative for a signal."""
        clock = asyncio.get_running_loop().time
        delay = self._first_delay_seconds
        while True:
            began = clock()
            code = await self._live(node)
            if self._stopping.is_set():
                return code
            if clock() - began >= STEADY_SECONDS:
                delay = self._first_delay_seconds
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            if not self._restarts or code == NOT_USABLE:
                self._say(node, f"{how}; it is not started again")
                return code
            self._say(node, f"{how}; it starts again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
                return 0
            delay = min(delay * 2, MAX_DELAY_SECONDS)

    async def _live(self, node: NodeProcess) -> int:
        """One process of a node from start to end, told to stop when all are."""
        if self._stopping.is_set():
            return 0
        # A pipe of our own: asyncio's would keep wait() waiting for whoever has inherited it.
        read_end, write_end = os.pipe()
        stream = asyncio.StreamReader()
        source = os.fdopen(read_end, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), source
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *node.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                env=self._environ,
                start_new_session=True,  # the terminal's Ctrl-C reaches the supervisor only, which stops all in order
                preexec_fn=_end_with_parent(os.getpid()),
            )
        except OSError as error:
            transport.close()
            self._say(node, f"cannot be started: {error}")
            return NOT_USABLE
        finally:
            os.close(write_end)
        self.pids[node.name] = process.pid
        self._say(node, f"started, process {process.pid}")
        pump = asyncio.create_task(self._pump(node, stream))
        stop = asyncio.create_task(self._end(process))
        try:
            return await process.wait()
        finally:
            del self.pids[node.name]
            stop.cancel()
            await asyncio.wait([pump], timeout=LAST_WORDS_SECONDS)
            pump.cancel()
            transport.close()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        await self._stopping.wait()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurrying.wait(), self._stop_seconds)
            process.kill()

    async def _pump(self, node: NodeProcess, stream: asyncio.StreamReader) -> None:
        pending = b""
        while chunk := await stream.read(MAX_LINE_BYTES):
            *lines, pending = (pending + chunk).split(b"\n")
            if len(pending) > MAX_LINE_BYTES:
                lines, pending = [*lines, pending], b""
            for line in lines:
                self._show(node, line)
        if pending:
            self._show(node, pending)

    def _show(self, node: NodeProcess, line: bytes) -> None:
        self._write(f"{self._prefixes[node.name]} | {line.decode(errors='replace')}")

    def _say(self, node: NodeProcess, text: str) -> None:
        self._write(f"{self._prefixes[node.name]} : {text}")

    async def _await_ready(self, on_ready: Callable[[], None]) -> None:
        for node in self._nodes:
            while not await _is_ready(node.http):  # noqa: ASYNC110  # another process: there is no event
                await asyncio.sleep(READY_POLL_SECONDS)
        on_ready()


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """Runs in the child before exec: asks the kernel for a SIGTERM when the supervisor ends, even by SIGKILL."""
    if _libc is None:
        return None

    def ask() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended in between
            os._exit(1)

    return ask


async def _is_ready(address: Address) -> bool:
    """Whether GET /readyz answers 200 there."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(f"GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return status.split(b" ")[1:2] == [b"200"]
