"""The spawner: one small process a node that starts commands, kills them in time, and outlives nobody.

    python -m raftcron.executors.spawner_main FD RUN_DIRECTORY OUTPUT_DIRECTORY OUTPUT_BYTES LEASE_GRACE CGROUPS FILES

FD is one end of a socket pair to the daemon; FILES is how many files a child may open, empty: as many as this process
was given.  At its end (the daemon closed it or died) every descendant is killed and
the spawner ends.  Requests: `exec`, `stop`, `extend`, `ping`.  Answers: `ready`, `ended`, `refused`, `failed`, `pong`.
Here are its loop and its system calls; what it decides is in custody.py.  One thread, one selector; it imports almost
nothing.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from raftcron.clock import SystemClock
from raftcron.executors import cgroups, processes, runfiles
from raftcron.executors.children import ERROR_BYTES, Child, Setting, become_subreaper
from raftcron.executors.custody import Custody
from raftcron.executors.frames import Frames, frame
from raftcron.executors.output import Capture, Captured, Shelf
from raftcron.wire import unpack

if TYPE_CHECKING:
    from raftcron.executors.host import Processes, RunFiles

NAP_SECONDS = 0.5  # the longest sleep: a machine that wakes up finds its deadlines no later than this
READ_BYTES = 64 << 10
DRAIN_BYTES = 1 << 20  # what is still read from a pipe whose child is over; the rest is nobody's


class Spawner:
    """The loop, and the Hands of its custody."""

    processes: Processes = processes
    files: RunFiles = runfiles

    def __init__(
        self,
        link: socket.socket,
        run_directory: str,
        outputs: str,
        outputs_bytes: int,
        grace: float,
        with_cgroups: bool,
        files: int | None,
    ) -> None:
        self.clock = SystemClock()
        self.shelf = Shelf(outputs, outputs_bytes)
        self.link = link
        self.frames = Frames()
        self.unsent = bytearray()
        self.complaints: dict[str, str] = {}
        self.is_open = True

        me = processes.look(os.getpid())
        assert me is not None
        boot = processes.boot_id()
        mark = f"{me.pid}.{me.start}.{boot}"
        self.custody = Custody(self, run_directory, me.pid, mark, grace)
        self.setting = Setting(run_directory, mark, boot, files)
        self.cgroup = cgroups.make(f"{me.pid}-{me.start}") if with_cgroups else None
        record = runfiles.spawner_record(me.pid, me.start, boot, self.cgroup)
        runfiles.write(runfiles.spawner_path(run_directory), record)
        self.wakeup, wake = socket.socketpair()
        self.wakeup.setblocking(False)
        wake.setblocking(False)
        self._wake = wake  # kept open: SIGCHLD writes into it
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(link, selectors.EVENT_READ, self.on_link)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self.on_child)
        self.selector.register(self.setting.errors, selectors.EVENT_READ, self.on_complaint)

    # ---- the loop ------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Wait for what comes first, and do what is due."""
        wait = self.custody.seconds_to_wait()
        for key, mask in self.selector.select(None if wait is None else min(NAP_SECONDS, wait)):
            if isinstance(key.data, Child):
                self.on_output(key.data)
            else:
                key.data(mask)
        if self.clock.boot() >= self.custody.wake_at:
            self.custody.tick()

    def on_link(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self.flush()
        if not mask & selectors.EVENT_READ:
            return
        try:
            data = self.link.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.is_open = False
            return
        for message in self.frames.feed(data):
            self.custody.take(message)
        self.custody.wake()

    def flush(self) -> None:
        try:
            while self.unsent:
                del self.unsent[: self.link.send(self.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False
            self.unsent.clear()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)
        self.selector.modify(self.link, events, self.on_link)

    def on_output(self, child: Child) -> None:
        if child.output is None:
            return
        try:
            data = os.read(child.output, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            child.capture.add(data)
        else:
            self.close_output(child)

    def close_output(self, child: Child) -> None:
        if child.output is not None:
            self.selector.unregister(child.output)
            os.close(child.output)
            child.output = None

    def on_complaint(self, _mask: int = 0) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                request_id, text = unpack(self.setting.errors.recv(ERROR_BYTES))
                self.complaints[request_id] = text

    def on_child(self, _mask: int = 0) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.wakeup.recv(1024):
                pass
        self.custody.reap()
        self.custody.wake()

    # ---- the custody's hands -------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.clock.boot()

    def say(self, message: dict[str, Any]) -> None:
        """What is unsent is bounded by the daemon's slots."""
        if self.is_open:
            self.unsent += frame(message)
            self.flush()

    def fork(self, request: Mapping[str, Any]) -> Child:
        path = request["output"]
        capture = Capture(None if path is None else self.shelf.path(path), self.shelf.file_bytes)
        try:
            read, write = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, f"cannot make a pipe: {error.strerror}") from None
        cgroup = cgroups.make_below(self.cgroup, request["id"])
        try:
            pid = self.setting.fork(request, write, cgroup)
        except OSError as error:
            os.close(read)
            if cgroup is not None:
                cgroups.remove(cgroup)
            raise OSError(error.errno, f"cannot fork: {error.strerror}") from None
        finally:
            os.close(write)
        os.set_blocking(read, False)
        child = Child(request, pid, read, capture, cgroup, self.clock.boot())
        self.selector.register(read, selectors.EVENT_READ, child)
        return child

    def reap(self) -> Iterator[tuple[int, int]]:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            yield pid, status

    def signal_group(self, child: Child, number: int) -> None:
        """To its group, which it may not have yet, and to itself.  It has not been waited for, so the pid is its own.

        What has become somebody else (`sudo`) may not be signalled; then its end is waited for.
        """
        for send in (os.killpg, os.kill):
            try:
                send(child.pid, number)
                return
            except (ProcessLookupError, PermissionError):
                continue

    def kill_confined(self, child: Child | None) -> None:
        cgroup = self.cgroup if child is None else child.cgroup
        if cgroup is not None:
            cgroups.kill(cgroup)

    def is_confined(self, child: Child) -> bool:
        return child.cgroup is not None and not cgroups.is_empty(child.cgroup)

    def collect(self, child: Child) -> tuple[Captured, str | None]:
        if child.cgroup is not None:
            cgroups.remove(child.cgroup)
        drained = 0
        while child.output is not None and drained < DRAIN_BYTES:
            try:
                data = os.read(child.output, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            child.capture.add(data)
            drained += len(data)
        self.close_output(child)
        captured = child.capture.close()
        self.on_complaint()
        return captured, self.complaints.pop(child.id, None)

    def keep(self, child: Child, captured: Captured) -> None:
        if child.output_name is not None and captured.total_bytes:
            self.shelf.take(child.output_name)

    def tidy(self) -> None:
        self.shelf.prune(self.clock.wall())

    # ---- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The daemon is gone."""
        self.is_open = False
        self.custody.abandon()
        while (nap := self.custody.clear()) is not None:
            time.sleep(nap)
        if self.cgroup is not None:
            cgroups.remove(self.cgroup)


def main(arguments: Iterable[str]) -> int:
    """Serve until the daemon is gone."""
    link_fd, run_directory, outputs, outputs_bytes, grace, with_cgroups, files = arguments
    # The daemon decides when to stop, and its end is ours.  Blocked, not ignored: a child that is told to end between
    # fork and exec finds the signal waiting.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    link = socket.socket(fileno=int(link_fd))
    link.set_inheritable(False)
    link.setblocking(False)
    become_subreaper()
    spawner = Spawner(
        link,
        run_directory,
        outputs,
        int(outputs_bytes),
        float(grace),
        with_cgroups == "1",
        int(files) if files else None,
    )
    spawner.say({"is": "ready", "pid": os.getpid()})
    gc.collect()
    gc.freeze()  # forks copy fewer pages
    try:
        while spawner.is_open:
            spawner.step()
    finally:
        spawner.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
