"""Who writes a snapshot while the node goes on: a forked child, or the node's own loop in slices; when is not here.

A fork holds the loop for some 10 ms and gives the child the state as it is at that instant.  The child touches nothing
that is the parent's: it closes the parent's sockets and files before anything else, so that the connections of a dead
leader end with it, and it dies with its parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NoReturn, Protocol

from raftcron import wire
from raftcron.raft.snapshot import SnapshotStore
from raftcron.raft.snapshot_file import SnapshotInfo

Blocks = Callable[[], Iterator[bytes]]

DEADLINE_SECONDS = 600.0  # of one snapshot
NICENESS = 10  # of a child
REPORT_BYTES = 4096  # fits into a pipe that nobody reads

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class Scribe(Protocol):
    """Writes one snapshot at a time."""

    async def write(
        self, store: SnapshotStore, index: int, term: int, cluster_id: str, configuration: bytes, blocks: Blocks
    ) -> SnapshotInfo:
        """The state as it is now, which is that of `index`; `store.newest` tells of it too when this returns.

        Raises OSError if it could not be written.  Then nothing of it is left, and nothing else has changed.
        """

    def stop(self) -> None:
        """End what is being written; nothing is written any more."""


def for_this_system() -> Scribe:
    return ForkedScribe() if hasattr(os, "pidfd_open") else SlicedScribe()


def _steps(
    store: SnapshotStore, index: int, term: int, cluster_id: str, configuration: bytes, blocks: Iterable[bytes]
) -> Generator[None, None, SnapshotInfo]:
    """Write and check it; a block, or as much, a step."""
    writing = store.begin(index, term, cluster_id, configuration)
    try:
        for block in blocks:
            writing.add(block)
            yield
        yield from writing.check()
        return writing.finish()
    except BaseException:
        writing.abandon()
        raise


class SlicedScribe:
    """On the node's own loop: all blocks at once, since the state goes on, then a turn of the loop between each two."""

    def __init__(self) -> None:
        self._is_stopped = False

    async def write(
        self, store: SnapshotStore, index: int, term: int, cluster_id: str, configuration: bytes, blocks: Blocks
    ) -> SnapshotInfo:
        with closing(_steps(store, index, term, cluster_id, configuration, list(blocks()))) as steps:
            while not self._is_stopped:
                try:
                    next(steps)
                except StopIteration as end:
                    info: SnapshotInfo = end.value
                    return info
                await asyncio.sleep(0)
        raise _stopped()

    def stop(self) -> None:
        self._is_stopped = True


class ForkedScribe:
    """In a child of this process, from the memory as it is at the fork.  Linux only.

    `blocks` runs in the child: it must not log, start threads, or use a connection or file of the parent's.
    """

    def __init__(self, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._deadline_seconds = deadline_seconds
        self._child: _Child | None = None
        self._is_stopped = False

    @property
    def pid(self) -> int | None:
        """The child that writes, None while there is none."""
        return None if self._child is None else self._child.pid

    async def write(
        self, store: SnapshotStore, index: int, term: int, cluster_id: str, configuration: bytes, blocks: Blocks
    ) -> SnapshotInfo:
        if self._is_stopped:
            raise _stopped()
        if self._child is not None:
            raise OSError(errno.EBUSY, f"process {self._child.pid}, which wrote the former snapshot, has not ended yet")

        def work() -> str:
            steps = _steps(store, index, term, cluster_id, configuration, blocks())
            return _run(steps)

        def over() -> None:
            self._child = None
            with suppress(OSError):  # what is left goes before the next one is written
                store.sweep()

        child = self._child = _Child(work, over, asyncio.get_running_loop())
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return store.adopt(await child.report)
        except TimeoutError:
            raise OSError(
                errno.ETIMEDOUT, f"the process that wrote it had not ended after {self._deadline_seconds:g} s"
            ) from None
        finally:
            child.kill()

    def stop(self) -> None:
        self._is_stopped = True
        if self._child is not None:
            self._child.kill()


def _stopped() -> OSError:
    return OSError(errno.ECANCELED, "nothing is written any more: this node ends")


# ---- the parent's side of a child --------------------------------------------------------------------------------


class _Child:
    """A child that writes; it is reaped when it has ended, whether or not anybody waits for that.

    `report` gives the id of the snapshot that it has finished, or OSError.
    """

    def __init__(self, work: Callable[[], str], over: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.report: asyncio.Future[str] = loop.create_future()
        self._over = over
        self._loop = loop
        self._is_over = False
        self.pid, self._pipe = _fork(work)
        try:
            self._handle = os.pidfd_open(self.pid)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._pipe)
            raise
        loop.add_reader(self._handle, self._ended)

    def kill(self) -> None:
        """Nothing happens if it has ended."""
        if not self._is_over:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def _ended(self) -> None:
        self._is_over = True
        self._loop.remove_reader(self._handle)
        status = 0
        with suppress(ChildProcessError):  # in a process that ignores SIGCHLD nobody has to be reaped
            _, status = os.waitpid(self.pid, 0)  # it has ended: this does not wait
        said = os.read(self._pipe, REPORT_BYTES)
        os.close(self._handle)
        os.close(self._pipe)
        self._over()
        if self.report.done():
            return
        if os.WIFSIGNALED(status) or not said:
            why = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "no report"
            self.report.set_exception(OSError(errno.ECHILD, f"the process that wrote it ended with {why}"))
            return
        snapshot_id, number, text = wire.unpack(said)
        if snapshot_id is None:
            self.report.set_exception(OSError(number, text))
        else:
            self.report.set_result(snapshot_id)


def _fork(work: Callable[[], str]) -> tuple[int, int]:
    """(pid, where it will report) of a child that does `work` and nothing else."""
    parent = os.getpid()
    reader, writer = os.pipe()
    # A signal that came to the child before it is on its own would wake the parent's loop.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child uses no lock of theirs
            pid = os.fork()
        if pid == 0:
            _live(work, parent, writer)
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid, reader


# ---- the child ---------------------------------------------------------------------------------------------------


def _live(work: Callable[[], str], parent: int, writer: int) -> NoReturn:
    """All of the child's life."""
    try:
        try:
            _leave(parent, writer)
            report = wire.pack([work(), 0, ""])
        except BaseException as error:
            number = getattr(error, "errno", None) or errno.EIO
            text = (getattr(error, "strerror", None) or f"{type(error).__name__}: {error}")[: REPORT_BYTES // 8]
            report = wire.pack([None, number, text])
        os.write(writer, report)
    finally:
        os._exit(0)


def _leave(parent: int, writer: int) -> None:
    """Become a process of its own, that ends with its parent and holds nothing of its."""
    assert _prctl is not None
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # 2 stays, for the interpreter's last words
    last = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    os.closerange(3, writer)
    os.closerange(writer + 1, last + 1)
    logging.disable()  # a handler would write into whatever has its file's number now
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        with suppress(OSError, ValueError):  # those that cannot be set
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    gc.disable()  # it would write to all memory, which then has to be copied
    with suppress(OSError):
        os.nice(NICENESS)
    with suppress(OSError):  # if memory runs out, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")


def _run(steps: Generator[None, None, SnapshotInfo]) -> str:
    """To the end; the snapshot's id."""
    with closing(steps):
        while True:
            try:
                next(steps)
            except StopIteration as end:
                info: SnapshotInfo = end.value
                return info.id
