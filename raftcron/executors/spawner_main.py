"""The spawner: one small process a node that starts commands, kills them in time, and outlives nobody.

    python -m raftcron.executors.spawner_main FD RUN_DIRECTORY OUTPUT_DIRECTORY OUTPUT_BYTES LEASE_GRACE CGROUPS

FD is one end of a socket pair to the daemon.  At its end (the daemon closed it or died) every descendant is killed and
the spawner ends.  Requests: `exec`, `stop`, `extend`, `ping`.  Answers: `ready`, `ended`, `refused`, `failed`, `pong`.
All instants are seconds of the boot clock.  One thread, one selector; it imports almost nothing.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

from raftcron.clock import SystemClock
from raftcron.executors import cgroups, processes, runfiles
from raftcron.executors.children import ERROR_BYTES, Child, Setting, become_subreaper
from raftcron.executors.frames import Frames, frame
from raftcron.executors.output import Capture, Shelf
from raftcron.executors.processes import Process
from raftcron.wire import unpack

NAP_SECONDS = 0.5  # the longest sleep: a machine that wakes up finds its deadlines no later than this
RESCAN_SECONDS = 0.01  # between two looks at what is dying
LINGER_SCAN_SECONDS = 0.05  # between two looks at what may still end by itself
POUNCE_SECONDS = 0.05  # how long the loop is held for what moves fast
SCAN_SHARE = 4  # after a look at /proc that took t, the next comes no sooner than 4 t later
READ_BYTES = 64 << 10
DRAIN_BYTES = 1 << 20  # what is still read from a pipe whose child is over; the rest is nobody's


class Spawner:
    """The loop's state.  `deadline` is the licence that the daemon holds: past it, self-stopping children die."""

    def __init__(
        self,
        link: socket.socket,
        run_directory: str,
        outputs: str,
        outputs_bytes: int,
        grace: float,
        with_cgroups: bool,
    ) -> None:
        self.clock = SystemClock()
        self.shelf, self.lease_grace = Shelf(outputs, outputs_bytes), grace
        self.link = link
        self.frames = Frames()
        self.unsent = bytearray()
        self.children: dict[int, Child] = {}  # by pid, as long as they have not been waited for
        self.closing: dict[str, Child] = {}  # over themselves, but something of theirs may be left
        self.by_id: dict[str, Child] = {}
        self.complaints: dict[str, str] = {}
        self.deadline = 0.0
        self.wake_at = 0.0
        self.scan_at = 0.0
        self.is_open = True

        me = processes.look(os.getpid())
        assert me is not None
        boot = processes.boot_id()
        self.setting = Setting(run_directory, f"{me.pid}.{me.start}.{boot}", boot)
        self.cgroup = cgroups.make(f"{me.pid}-{me.start}") if with_cgroups else None
        runfiles.write(
            os.path.join(run_directory, runfiles.SPAWNER_FILE),  # noqa: PTH118  pathlib costs start time
            {"pid": me.pid, "start": me.start, "boot": boot, "cgroup": self.cgroup},
        )
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
        wait = min(NAP_SECONDS, max(0.0, self.wake_at - self.clock.boot())) if self.by_id else None
        for key, mask in self.selector.select(wait):
            if isinstance(key.data, Child):
                self.on_output(key.data)
            else:
                key.data(mask)
        if self.clock.boot() >= self.wake_at:
            self.tick()

    def tick(self) -> None:
        """Do what is due, and know when the next is."""
        now = self.clock.boot()
        self.wake_at = now + 3600.0
        for child in list(self.children.values()):
            if child.is_killed:
                self.due(child.rescan_at)
                if now >= child.rescan_at:  # it forked while it was being killed
                    self.kill(child)
                continue
            if now >= child.timeout_at:
                self.begin_stop(child, "timeout", child.kill_after)
            if child.self_stop and now >= self.lease_stop_at(child):
                self.begin_stop(child, "lease", max(0.0, self.deadline - now))
            if now >= self.kill_at(child):
                self.kill(child)
            elif child.kill_at is not None:
                self.due(self.kill_at(child))
            else:
                self.due(min(child.timeout_at, self.lease_stop_at(child)))
        if self.closing:
            self.settle()

    def due(self, instant: float) -> None:
        self.wake_at = min(self.wake_at, instant)

    def kill_at(self, child: Child) -> float:
        """When SIGKILL is due: never later than the end of the lease, however long it was given to end."""
        asked = math.inf if child.kill_at is None else child.kill_at
        return min(asked, self.deadline) if child.self_stop else asked

    def lease_stop_at(self, child: Child) -> float:
        """When SIGTERM is due because the lease ends."""
        return self.deadline - min(child.kill_after, self.lease_grace) if child.self_stop else math.inf

    # ---- the daemon ----------------------------------------------------------------------------------------------

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
            kind = message["do"]
            if kind == "exec":
                self.execute(message)
            elif kind == "stop":
                child = self.by_id.get(message["id"])
                if child is not None:
                    self.begin_stop(child, message["reason"], message["kill_after"])
            elif kind == "extend":
                self.deadline = max(self.deadline, message["deadline"])
            elif kind == "ping":
                self.shelf.prune(self.clock.wall())
                self.say({"is": "pong", "number": message["number"]})
        self.wake_at = 0.0

    def say(self, message: dict[str, Any]) -> None:
        """Never waits: a daemon that is stopped must not stop its spawner.  Bounded by the daemon's slots."""
        if self.is_open:
            self.unsent += frame(message)
            self.flush()

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

    def execute(self, request: dict[str, Any]) -> None:
        now = self.clock.boot()
        if now >= request["licensed_until"]:  # whatever newer deadline is held: this start was checked under that one
            self.say({"is": "refused", "id": request["id"], "why": "the licence of this start has ended"})
            return
        if request["id"] in self.by_id:
            self.say({"is": "refused", "id": request["id"], "why": "this start was asked for before"})
            return
        self.deadline = max(self.deadline, request["licensed_until"])
        path = request["output"]
        capture = Capture(None if path is None else self.shelf.path(path), self.shelf.file_bytes)
        try:
            read, write = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            self.say({"is": "failed", "id": request["id"], "error": f"cannot make a pipe: {error.strerror}"})
            return
        cgroup = cgroups.make_below(self.cgroup, request["id"])
        try:
            pid = self.setting.fork(request, write, cgroup)
        except OSError as error:
            os.close(read)
            if cgroup is not None:
                cgroups.remove(cgroup)
            self.say({"is": "failed", "id": request["id"], "error": f"cannot fork: {error.strerror}"})
            return
        finally:
            os.close(write)
        os.set_blocking(read, False)
        child = Child(request, pid, read, capture, cgroup, now)
        self.children[pid] = child
        self.by_id[child.id] = child
        self.selector.register(read, selectors.EVENT_READ, child)

    # ---- children ------------------------------------------------------------------------------------------------

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
        """Wait for all that is over, ours or adopted."""
        with contextlib.suppress(BlockingIOError):
            while self.wakeup.recv(1024):
                pass
        self.reap()
        self.wake_at = 0.0

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self.children.pop(pid, None)
            if child is not None:
                child.exit_status = status
                self.closing[child.id] = child

    def begin_stop(self, child: Child, reason: str, kill_after: float) -> None:
        """SIGTERM to its group now, SIGKILL to all of it later.  The first reason counts, the earliest kill too."""
        kill_at = self.clock.boot() + kill_after
        if child.kill_at is not None:
            child.kill_at = min(child.kill_at, kill_at)
            return
        if child.exit_status is not None:
            return  # it ended by itself; what it left behind is being killed
        child.stop_reason, child.kill_at = reason, kill_at
        if kill_after > 0:
            self.signal_group(child, signal.SIGTERM)

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

    def kill(self, child: Child) -> None:
        """SIGKILL to the child, its group, and all that can be found of it; its end is seen by `settle`."""
        child.is_killed = True
        child.rescan_at = self.clock.boot() + LINGER_SCAN_SECONDS
        self.due(child.rescan_at)
        if child.cgroup is not None:
            cgroups.kill(child.cgroup)
        found = processes.table()
        below = [process.pid for process in processes.descendants(found, [child.pid])]
        self.signal_group(child, signal.SIGKILL)
        for pid in below:
            processes.kill_exactly(found[pid])
        for process in self.left_behind(found).get(child.id, ()):
            processes.kill_exactly(process)

    def left_behind(self, found: dict[int, Process]) -> dict[str, list[Process]]:
        """What we adopted because its parent ended before it did, by request; under "" what cannot be told any more.

        The dead count: before it died it may have forked what this look at /proc was too early to see.
        """
        adopted: dict[str, list[Process]] = {}
        leaders = {child.pid: child for child in self.by_id.values()}
        for process in found.values():
            if process.parent != self.setting.pid or process.pid in self.children:
                continue
            owner = leaders.get(process.session) or leaders.get(process.group)
            request_id = owner.id if owner is not None else self.request_of(process)
            if request_id is None:
                continue  # it hid from us; it dies with the spawner
            family = [process, *processes.descendants(found, [process.pid])]
            adopted.setdefault(request_id, []).extend(family)
        return adopted

    def request_of(self, process: Process) -> str | None:
        """By its mark; "" if it is dead or dying, None if it has no mark of ours."""
        if process.is_dead:
            return ""
        mark = processes.mark_of(process.pid)
        if mark is None and processes.is_dying(process.pid):
            return ""
        if mark is None or not mark.startswith(self.setting.mark + "."):
            return None
        return mark[len(self.setting.mark) + 1 :]

    def pounce(self, doomed: set[str]) -> None:
        """Kill what is left of these requests at the moment it is seen: some forks and is gone a millisecond later."""
        end = self.clock.boot() + POUNCE_SECONDS
        while self.clock.boot() < end:
            seen = False
            for process in processes.each():
                if process.parent != self.setting.pid or process.pid in self.children or process.is_dead:
                    continue
                if self.request_of(process) in doomed:
                    processes.kill_exactly(process)
                    seen = True
            if not seen:
                return

    def settle(self) -> None:
        """Report the children of which nothing is left.  An attempt is over when all that it started is over."""
        now = self.clock.boot()
        if now < self.scan_at:
            self.due(self.scan_at)
            return
        left = self.left_behind(processes.table())
        after = self.clock.boot()
        self.scan_at = after + SCAN_SHARE * (after - now)
        closing = list(self.closing.values())  # those alone were over before the look
        doomed: set[str] = set()
        self.reap()
        for child in closing:
            remains = left.get(child.id) or left.get("") or []
            hidden = child.cgroup is not None and not cgroups.is_empty(child.cgroup)
            if not remains and not hidden:
                self.finish(child)
            elif child.kill_at is not None and now < self.kill_at(child):
                self.due(now + LINGER_SCAN_SECONDS)  # it was asked to stop, so what it started may take its time
            else:
                if child.cgroup is not None:
                    cgroups.kill(child.cgroup)
                for process in remains:
                    processes.kill_exactly(process)
                doomed.add(child.id)
                self.due(now + RESCAN_SECONDS)
        if doomed:
            self.pounce(doomed)
        if self.closing.keys() - {child.id for child in closing}:
            self.due(self.scan_at)

    def finish(self, child: Child) -> None:
        del self.closing[child.id]
        del self.by_id[child.id]
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
        complaint = self.complaints.pop(child.id, None)
        path = runfiles.child_path(self.setting.run_directory, child.id)
        if complaint is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108  nothing ran
            self.say({"is": "failed", "id": child.id, "error": complaint})
            return
        assert child.exit_status is not None
        exit_code = os.waitstatus_to_exitcode(child.exit_status)
        with contextlib.suppress(OSError):
            runfiles.append(path, {"exit": exit_code, "reason": child.stop_reason})
        self.say(
            {
                "is": "ended",
                "id": child.id,
                "exit": exit_code,
                "reason": child.stop_reason,
                "tail": captured.tail,
                "bytes": captured.total_bytes,
                "dropped": captured.dropped_bytes,
            }
        )
        if child.output_name is not None and captured.total_bytes:
            self.shelf.take(child.output_name)

    # ---- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The daemon is gone: kill every descendant, whatever it did to get away, until a look finds none.

        The dead count as long as nobody but us has waited for them: what one of them forked before it died is seen in
        the same look, or in the next.
        """
        self.is_open = False
        for child in self.by_id.values():
            child.stop_reason = child.stop_reason or "daemon"
        while True:
            if self.cgroup is not None:
                cgroups.kill(self.cgroup)
            found = processes.table()
            left = list(processes.descendants(found, [self.setting.pid]))
            for process in left:
                if not process.is_dead:
                    processes.kill_exactly(process)
            self.reap()
            for child in list(self.closing.values()):
                self.finish(child)
            if not left and not self.children:
                if self.cgroup is not None:
                    cgroups.remove(self.cgroup)
                return
            if all(process.is_dead for process in left):
                continue  # what is born now may be gone again after a nap
            time.sleep(RESCAN_SECONDS)


def main(arguments: Iterable[str]) -> int:
    """Serve until the daemon is gone."""
    link_fd, run_directory, outputs, outputs_bytes, grace, with_cgroups = arguments
    # The daemon decides when to stop, and its end is ours.  Blocked, not ignored: a child that is told to end between
    # fork and exec finds the signal waiting.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    link = socket.socket(fileno=int(link_fd))
    link.set_inheritable(False)
    link.setblocking(False)
    become_subreaper()
    spawner = Spawner(link, run_directory, outputs, int(outputs_bytes), float(grace), with_cgroups == "1")
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
