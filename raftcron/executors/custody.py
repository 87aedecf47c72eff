"""What the spawner decides: which start it refuses, whom it tells to end and kills, and when an attempt is over.

No loop, no system call and no clock is here: `Hands` has them, which are Linux's in spawner_main.py.  All instants are
seconds of the boot clock.  Only the standard library and little of that, since the spawner imports it.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from raftcron.executors import runfiles
from raftcron.executors.processes import Process, descendants

if TYPE_CHECKING:
    from raftcron.executors.children import Child
    from raftcron.executors.host import Processes, RunFiles
    from raftcron.executors.output import Captured

RESCAN_SECONDS = 0.01  # between two looks at what is dying
LINGER_SCAN_SECONDS = 0.05  # between two looks at what may still end by itself
POUNCE_SECONDS = 0.05  # how long the loop is held for what moves fast
SCAN_SHARE = 4  # after a look at all processes that took t, the next comes no sooner than 4 t later


class Hands(Protocol):
    """What a custody has done by the operating system."""

    @property
    def processes(self) -> Processes: ...

    @property
    def files(self) -> RunFiles: ...

    def now(self) -> float:
        """The boot clock."""

    def say(self, message: dict[str, Any]) -> None:
        """To the daemon.  Never waits: a daemon that is stopped must not stop its spawner."""

    def fork(self, request: Mapping[str, Any]) -> Child:
        """Begin it, named in the run directory before it is user code.  OSError, whose text is for users."""

    def reap(self) -> Iterator[tuple[int, int]]:
        """Pid and wait status of each child that is over, ours or adopted, and was not told yet."""

    def signal_group(self, child: Child, number: int) -> None:
        """To its group, which it may not have yet, and to itself."""

    def kill_confined(self, child: Child | None) -> None:
        """SIGKILL to all in the child's control group, or in that of all, where there is one."""

    def is_confined(self, child: Child) -> bool:
        """Whether something still lives in its control group."""

    def collect(self, child: Child) -> tuple[Captured, str | None]:
        """All is over: what it has written, and why it could not be run if so."""

    def keep(self, child: Child, captured: Captured) -> None:
        """Its end was told: the output counts from now on."""

    def tidy(self) -> None:
        """Now and then: what is too old goes."""


class Custody:
    """One spawner's children.  `deadline` is the licence that the daemon holds: past it, self-stopping ones die."""

    def __init__(self, hands: Hands, run_directory: str, pid: int, mark: str, lease_grace: float) -> None:
        """`mark` is in the environment of all that this spawner, `pid`, starts."""
        self.hands = hands
        self.run_directory = run_directory
        self.pid = pid
        self.mark = mark
        self.lease_grace = lease_grace
        self.children: dict[int, Child] = {}  # by pid, as long as they have not been waited for
        self.closing: dict[str, Child] = {}  # over themselves, but something of theirs may be left
        self.by_id: dict[str, Child] = {}
        self.deadline = 0.0
        self.wake_at = 0.0
        self.scan_at = 0.0

    # ---- what the daemon asks ------------------------------------------------------------------------------------

    def take(self, message: Mapping[str, Any]) -> None:
        """One request: `exec`, `stop`, `extend` or `ping`."""
        match message["do"]:
            case "exec":
                self.execute(message)
            case "stop":
                child = self.by_id.get(message["id"])
                if child is not None:
                    self.begin_stop(child, message["reason"], message["kill_after"])
            case "extend":
                self.deadline = max(self.deadline, message["deadline"])
            case "ping":
                self.hands.tidy()
                self.hands.say({"is": "pong", "number": message["number"]})

    def execute(self, request: Mapping[str, Any]) -> None:
        why = self.refusal(request)
        if why is not None:
            self.hands.say({"is": "refused", "id": request["id"], "why": why})
            return
        self.deadline = max(self.deadline, request["licensed_until"])
        try:
            child = self.hands.fork(request)
        except OSError as error:
            self.hands.say({"is": "failed", "id": request["id"], "error": error.strerror or str(error)})
            return
        self.children[child.pid] = child
        self.by_id[child.id] = child

    def refusal(self, request: Mapping[str, Any]) -> str | None:
        """Why a start is refused: whatever newer deadline is held, this one was checked under its own licence."""
        if self.hands.now() >= request["licensed_until"]:
            return "the licence of this start has ended"
        if request["id"] in self.by_id:
            return "this start was asked for before"
        return None

    # ---- time ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something has happened: look at once what is due."""
        self.wake_at = 0.0

    def seconds_to_wait(self) -> float | None:
        """Until `tick` has something to do; None: nothing runs."""
        return max(0.0, self.wake_at - self.hands.now()) if self.by_id else None

    def tick(self) -> None:
        """Do what is due, and know when the next is."""
        now = self.hands.now()
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

    # ---- children ------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Wait for all that is over."""
        for pid, status in self.hands.reap():
            child = self.children.pop(pid, None)
            if child is not None:
                child.exit_status = status
                self.closing[child.id] = child

    def begin_stop(self, child: Child, reason: str, kill_after: float) -> None:
        """SIGTERM to its group now, SIGKILL to all of it later.  The first reason counts, the earliest kill too."""
        kill_at = self.hands.now() + kill_after
        if child.kill_at is not None:
            child.kill_at = min(child.kill_at, kill_at)
            return
        if child.exit_status is not None:
            return  # it ended by itself; what it left behind is being killed
        child.stop_reason, child.kill_at = reason, kill_at
        if kill_after > 0:
            self.hands.signal_group(child, signal.SIGTERM)

    def kill(self, child: Child) -> None:
        """SIGKILL to the child, its group, and all that can be found of it; its end is seen by `settle`."""
        child.is_killed = True
        child.rescan_at = self.hands.now() + LINGER_SCAN_SECONDS
        self.due(child.rescan_at)
        hands, processes = self.hands, self.hands.processes
        hands.kill_confined(child)
        found = processes.table()
        below = [process.pid for process in descendants(found, [child.pid])]
        hands.signal_group(child, signal.SIGKILL)
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
            if process.parent != self.pid or process.pid in self.children:
                continue
            owner = leaders.get(process.session) or leaders.get(process.group)
            request_id = owner.id if owner is not None else self.request_of(process)
            if request_id is None:
                continue  # it hid from us; it dies with the spawner
            family = [process, *descendants(found, [process.pid])]
            adopted.setdefault(request_id, []).extend(family)
        return adopted

    def request_of(self, process: Process) -> str | None:
        """By its mark; "" if it is dead or dying, None if it has no mark of ours."""
        if process.is_dead:
            return ""
        mark = self.hands.processes.mark_of(process.pid)
        if mark is None and self.hands.processes.is_dying(process.pid):
            return ""
        if mark is None or not mark.startswith(self.mark + "."):
            return None
        return mark[len(self.mark) + 1 :]

    def pounce(self, doomed: set[str]) -> None:
        """Kill what is left of these requests at the moment it is seen: some forks and is gone a millisecond later."""
        end = self.hands.now() + POUNCE_SECONDS
        while self.hands.now() < end:
            seen = False
            for process in self.hands.processes.each():
                if process.parent != self.pid or process.pid in self.children or process.is_dead:
                    continue
                if self.request_of(process) in doomed:
                    self.hands.processes.kill_exactly(process)
                    seen = True
            if not seen:
                return

    def settle(self) -> None:
        """Report the children of which nothing is left.  An attempt is over when all that it started is over."""
        now = self.hands.now()
        if now < self.scan_at:
            self.due(self.scan_at)
            return
        hands = self.hands
        left = self.left_behind(hands.processes.table())
        after = self.hands.now()
        self.scan_at = after + SCAN_SHARE * (after - now)
        closing = list(self.closing.values())  # those alone were over before the look
        doomed: set[str] = set()
        self.reap()
        for child in closing:
            remains = left.get(child.id) or left.get("") or []
            hidden = hands.is_confined(child)
            if not remains and not hidden:
                self.finish(child)
            elif child.kill_at is not None and now < self.kill_at(child):
                self.due(now + LINGER_SCAN_SECONDS)  # it was asked to stop, so what it started may take its time
            else:
                hands.kill_confined(child)
                for process in remains:
                    hands.processes.kill_exactly(process)
                doomed.add(child.id)
                self.due(now + RESCAN_SECONDS)
        if doomed:
            self.pounce(doomed)
        if self.closing.keys() - {child.id for child in closing}:
            self.due(self.scan_at)

    def finish(self, child: Child) -> None:
        del self.closing[child.id]
        del self.by_id[child.id]
        captured, complaint = self.hands.collect(child)
        path = runfiles.child_path(self.run_directory, child.id)
        if complaint is not None:
            with contextlib.suppress(OSError):
                self.hands.files.remove(path)  # nothing ran
            self.hands.say({"is": "failed", "id": child.id, "error": complaint})
            return
        assert child.exit_status is not None
        exit_code = os.waitstatus_to_exitcode(child.exit_status)
        with contextlib.suppress(OSError):
            self.hands.files.append(path, {"exit": exit_code, "reason": child.stop_reason})
        self.hands.say(
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
        self.hands.keep(child, captured)

    # ---- the end -------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """The daemon is gone: what still runs is killed for that."""
        for child in self.by_id.values():
            child.stop_reason = child.stop_reason or "daemon"

    def clear(self) -> float | None:
        """Kill every descendant, whatever it did to get away.  Seconds until the next look; None: one has found none.

        The dead count as long as nobody but us has waited for them: what one of them forked before it died is seen in
        the same look, or in the next.
        """
        self.hands.kill_confined(None)
        found = self.hands.processes.table()
        left = list(descendants(found, [self.pid]))
        for process in left:
            if not process.is_dead:
                self.hands.processes.kill_exactly(process)
        self.reap()
        for child in list(self.closing.values()):
            self.finish(child)
        if not left and not self.children:
            return None
        # What is born now may be gone again after a nap.
        return 0.0 if all(process.is_dead for process in left) else RESCAN_SECONDS
