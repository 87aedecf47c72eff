"""What the spawner and its owner ask of the operating system: processes, run files, and a spawner process.

`LINUX` is the real one; a simulation gives its own, and runs the same custody, owner and clean-up on virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from raftcron.errors import UnavailableError
from raftcron.executors import processes, runfiles
from raftcron.executors.processes import Process

READ_BYTES = 64 << 10
SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})  # passes when somebody gives back
SECRETS = (
    "RAFTCRON_CLUSTER_SECRET",
    "RAFTCRON_PREVIOUS_CLUSTER_SECRET",
    "RAFTCRON_TOKEN",
)  # never handed on to any process


class Processes(Protocol):
    """Which processes exist, and a signal to exactly one of them (processes.py)."""

    def boot_id(self) -> str: ...
    def table(self) -> dict[int, Process]: ...
    def each(self) -> Iterator[Process]: ...
    def is_alive(self, pid: int, start: int) -> bool: ...
    def is_dying(self, pid: int) -> bool: ...
    def mark_of(self, pid: int) -> str | None: ...
    def kill_exactly(self, process: Process, number: int = ...) -> None: ...


class RunFiles(Protocol):
    """The run directory's files (runfiles.py)."""

    def write(self, path: str, record: dict[str, Any]) -> None: ...
    def append(self, path: str, record: dict[str, Any]) -> None: ...
    def read(self, path: str) -> list[dict[str, Any]]: ...
    def names(self, directory: str) -> list[str]: ...
    def remove(self, path: str) -> None: ...


class Link(Protocol):
    """A spawner process, and the connection to it."""

    @property
    def pid(self) -> int: ...

    @property
    def is_over(self) -> bool:
        """Whether the process has ended, and was waited for."""

    async def read(self) -> bytes:
        """What it says; empty at its end.  OSError if the connection breaks."""

    def write(self, data: bytes) -> None:
        """In order, and never waits."""

    def close(self) -> None:
        """It reads what was written, then kills what it runs, and ends."""

    def kill(self) -> None:
        """SIGKILL."""

    async def release(self) -> None:
        """Its process is over: what it did not read, nobody will."""


Launch = Callable[[Sequence[str]], Awaitable[Link]]  # a spawner process with these arguments; UnavailableError


class Host(NamedTuple):
    """One machine, as a node's process sees it."""

    processes: Processes
    files: RunFiles
    launch: Launch


class _Process:
    """A Link to a real process."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    async def read(self) -> bytes:
        return await self._reader.read(READ_BYTES)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self) -> None:
        self._writer.close()

    def kill(self) -> None:
        self._process.kill()

    async def release(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def launch(arguments: Sequence[str]) -> Link:
    """Start spawner_main.py with one end of a socket pair as its first argument, and these behind it.

    The first two are its directories, which are made.
    """
    try:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                for directory in arguments[:2]:
                    Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
                process = subprocess.Popen(  # noqa: ASYNC220  a few ms of vfork and exec, and no watcher thread
                    [sys.executable, "-P", "-m", "raftcron.executors.spawner_main", str(theirs.fileno()), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=_environment(os.environ),
                    start_new_session=True,  # Ctrl-C is for the daemon
                )
            reader, writer = await asyncio.open_connection(sock=ours, limit=READ_BYTES)
        except OSError:
            ours.close()  # a spawner that was started all the same sees it, and ends
            raise
    except OSError as error:
        raise UnavailableError(f"cannot start the spawner with {sys.executable}: {error}") from error
    return _Process(process, reader, writer)


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """No secrets; and the daemon's own module search path, in its order, so that both run the same code."""
    kept = {name: value for name, value in environment.items() if name not in SECRETS}
    kept["PYTHONPATH"] = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return kept


LINUX = Host(processes, runfiles, launch)
