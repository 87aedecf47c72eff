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

FIRST_DELAY_SECONDS: Final = 0.2  # before a dead node is started again; doubles up to the next one
MAX_DELAY_SECONDS: Final = 10.0
STEADY_SECONDS: Final = 2.0  # a node that lived so long did start: the delay begins anew
LAST_WORDS_SECONDS: Final = 1.0  # for what a dead node's children still hold of its output
MAX_LINE_BYTES: Final = 1 << 16
NOT_USABLE: Final = 2  # a node's exit code when its settings cannot be used: the next start would end the same way
COLOURS: Final = ("cyan", "yellow", "green", "magenta", "blue", "red")

_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A node as a command, and how the line begins by which it says that it is ready.

    Its own word, because whatever else listens at its address would answer a request there.
    """

    name: str
    argv: Sequence[str]
    ready: str


class Supervisor:
    """Runs `nodes` until it is told to stop, or until none is left that would be started again.

    `write` gets each line, prefixed with the node's name.  A node that dies leaves the others alone.  After
    `stop_seconds` of a clean stop comes SIGKILL.
    """

    def __init__(
        self,
        nodes: Sequence[NodeProcess],
        *,
        write: Callable[[str], None],
        restarts: bool = True,
        is_coloured: bool = False,
        environ: Mapping[str, str] | None = None,
        stop_seconds: float,
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
        self._ready: set[str] = set()
        self._on_ready: Callable[[], None] | None = None  # None once it was called
        width = max(len(node.name) for node in nodes)
        self._prefixes = {
            node.name: click.style(node.name.ljust(width), fg=COLOURS[i % len(COLOURS)])
            if is_coloured
            else node.name.ljust(width)
            for i, node in enumerate(nodes)
        }

    async def run(self, on_ready: Callable[[], None]) -> int:
        """Calls `on_ready` once all nodes have been ready.  The exit code: 0 if all stopped cleanly when told to."""
        self._on_ready = on_ready
        try:
            codes = await asyncio.gather(*(self._keep(node) for node in self._nodes))
        finally:
            for pid in self.pids.values():  # only where something above went wrong
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._stopping.is_set():
            return 0 if not any(codes) else 1
        return NOT_USABLE if set(codes) == {NOT_USABLE} else 1

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Stop all cleanly; asked again, stop them at once."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def _keep(self, node: NodeProcess) -> int:
        """One node's lives.  Its last exit code, negative for a signal."""
        clock = asyncio.get_running_loop().time
        delay = self._first_delay_seconds
        while not self._stopping.is_set():
            began = clock()
            code = await self._live(node)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            if self._stopping.is_set():
                self._say(node, how if code else "stopped")
                return code
            if clock() - began >= STEADY_SECONDS:
                delay = self._first_delay_seconds
            if not self._restarts or code == NOT_USABLE:
                self._say(node, f"{how}; it is not started again")
                return code
            self._say(node, f"{how}; it starts again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(delay * 2, MAX_DELAY_SECONDS)
        return 0

    async def _live(self, node: NodeProcess) -> int:
        """One process of a node from start to end, told to stop when all are."""
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
            self._ready.discard(node.name)
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
                if line.startswith(node.ready.encode()):
                    self._is_ready(node)
        if pending:
            self._show(node, pending)

    def _show(self, node: NodeProcess, line: bytes) -> None:
        self._write(f"{self._prefixes[node.name]} | {line.decode(errors='replace')}")

    def _say(self, node: NodeProcess, text: str) -> None:
        self._write(f"{self._prefixes[node.name]} : {text}")

    def _is_ready(self, node: NodeProcess) -> None:
        self._ready.add(node.name)
        if self._on_ready is not None and len(self._ready) == len(self._nodes):
            on_ready, self._on_ready = self._on_ready, None
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
