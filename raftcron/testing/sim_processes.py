"""One machine's processes in a simulation: a spawner, what it has started, and the run directory; on virtual time.

What is decided is shipped: custody.py in the spawner, spawner.py, spawned.py and remnants.py in the node.  Simulated is
only what is the operating system's: fork and exec, signals, who is whose child, the pipe between the two, files.  A
process that is killed, or whose spawner has died, still takes its time to be gone.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from raftcron.executors import runfiles
from raftcron.executors.children import Child
from raftcron.executors.custody import Custody
from raftcron.executors.frames import Frames, frame
from raftcron.executors.host import Host
from raftcron.executors.output import Capture, Captured
from raftcron.executors.processes import Process
from raftcron.executors.spawner_main import NAP_SECONDS

if TYPE_CHECKING:
    from raftcron.clock import Clock
    from raftcron.testing.chance import Chance
    from raftcron.testing.sim_cluster import Cluster
    from raftcron.testing.sim_loop import Conductor, NodeLoop

FIRST_PID = 10_000_000  # beyond those of a real machine: none is this process's own
PIPE_SECONDS = 0.0001  # from one end to the other
TURN_SECONDS = 0.0001  # of a spawner's loop
START_SECONDS = 0.05  # of a spawner
INIT = 1


class Course(NamedTuple):
    """What user code does: how long it takes, whether it fails, and how long it goes on after it was told to stop."""

    seconds: float
    fails: bool
    dying_seconds: float = 0.0
    breaks: bool = False  # where it fails: so that nobody sees how it ended


Begin = Callable[[Mapping[str, Any], "UserCode"], Course]  # user code of this request starts


class _Files:
    """A run directory in memory; it outlives processes."""

    def __init__(self) -> None:
        self._lines: dict[str, list[dict[str, Any]]] = {}

    def write(self, path: str, record: dict[str, Any]) -> None:
        self._lines[path] = [record]

    def append(self, path: str, record: dict[str, Any]) -> None:
        if path in self._lines:
            self._lines[path].append(record)

    def read(self, path: str) -> list[dict[str, Any]]:
        return list(self._lines.get(path, ()))

    def names(self, directory: str) -> list[str]:
        return sorted(path.removeprefix(directory + "/") for path in self._lines if path.startswith(directory + "/"))

    def remove(self, path: str) -> None:
        self._lines.pop(path, None)


class Box:
    """The machine; raftcron.executors.host.Processes."""

    def __init__(
        self,
        name: str,
        conductor: Conductor,
        clock: Clock,
        counts: Counter[str],
        begin: Begin,
        over: Callable[[str, int], None],
    ) -> None:
        """`begin` and `over` are told of user code: as it starts, and (run, token) once it is gone."""
        self.name = name
        self.conductor = conductor
        self.clock = clock
        self.counts = counts
        self.begin = begin
        self.over = over
        self.files = _Files()
        self.running: dict[int, _Spawner | UserCode] = {}
        self.frozen_until = 0.0
        self._waiting: list[tuple[Callable[[], None], int]] = []  # actions that a frozen machine goes on with
        self._boots = 1
        self._pids = FIRST_PID
        self._links: list[_Link] = []

    def host(self, loop: NodeLoop) -> Host:
        """This machine, as a life of the node sees it."""

        async def launch(arguments: Sequence[str]) -> _Link:
            link = _Link(self, loop)
            self._links.append(link)
            run_directory, _, _, lease_grace, *_ = arguments
            self.at(START_SECONDS, _Spawner(self, link, run_directory, float(lease_grace)).start)
            return link

        return Host(self, self.files, launch)

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """One of its processes does it then; a frozen machine later, in the same order."""
        self.conductor.after(seconds, self._do, action, self._boots)

    def _do(self, action: Callable[[], None], boot: int) -> None:
        if boot != self._boots:
            return
        if self.conductor.now < self.frozen_until:
            self._waiting.append((action, boot))
        else:
            action()

    def new_pid(self) -> int:
        self._pids += 1
        return self._pids

    # ---- what is done to it

    def node_gone(self) -> None:
        """The node's process is over, or is about to be: its kernel closes what it held."""
        for link in self._links:
            link.close()
        self._links.clear()

    def lose_power(self) -> None:
        """All is gone, but for the files."""
        self.node_gone()
        for process in list(self.running.values()):
            process.vanish()
        self._boots += 1
        self.thaw()

    def freeze(self, seconds: float) -> None:
        """Nothing on it goes on for so long; what outlives its licence thereby nobody could have stopped."""
        self.frozen_until = max(self.frozen_until, self.conductor.now + seconds)
        self.conductor.after(seconds, self._go_on)
        for code in self.user_code().values():
            code.has_overslept |= code.spawner.custody.deadline <= self.clock.boot() + seconds

    def thaw(self) -> None:
        """It goes on now, if it was frozen."""
        self.frozen_until = min(self.frozen_until, self.conductor.now)
        self._go_on()

    def _go_on(self) -> None:
        if self.conductor.now >= self.frozen_until:
            waiting, self._waiting = self._waiting, []
            for action, boot in waiting:
                self._do(action, boot)

    def user_code(self) -> dict[int, UserCode]:
        """What a spawner has started, and is not over."""
        return {pid: code for pid, code in self.running.items() if isinstance(code, UserCode) and not code.is_dead}

    def spawners(self) -> list[_Spawner]:
        """One, and sometimes those of former lives."""
        return [process for process in self.running.values() if isinstance(process, _Spawner)]

    def kill_spawner(self) -> None:
        """As `kill -9` of whatever spawners there are; `stop_spawner` and `resume_spawner` likewise."""
        for spawner in self.spawners():
            spawner.kill()

    def stop_spawner(self) -> None:
        for spawner in self.spawners():
            spawner.is_stopped = True

    def resume_spawner(self) -> None:
        for spawner in self.spawners():
            spawner.resume()

    # ---- what its processes can see

    def boot_id(self) -> str:
        return f"{self.name}/{self._boots}"

    def table(self) -> dict[int, Process]:
        return {pid: one.look() for pid, one in self.running.items()}

    def each(self) -> Iterator[Process]:
        yield from self.table().values()

    def is_alive(self, pid: int, start: int) -> bool:
        one = self.running.get(pid)
        return one is not None and one.look().start == start and not one.look().is_dead

    def is_dying(self, pid: int) -> bool:
        one = self.running.get(pid)
        return one is None or one.look().is_dead

    def mark_of(self, pid: int) -> str | None:
        one = self.running.get(pid)
        return one.mark if isinstance(one, UserCode) and one.has_begun else None

    def kill_exactly(self, process: Process, number: int = signal.SIGKILL) -> None:
        one = self.running.get(process.pid)
        if one is None or one.look().start != process.start:
            return
        if number == signal.SIGSTOP and isinstance(one, _Spawner):
            one.is_stopped = True
        elif number == signal.SIGKILL:
            one.kill()


class _Link:
    """The node's end of the pipe; raftcron.executors.host.Link."""

    def __init__(self, box: Box, loop: NodeLoop) -> None:
        self.spawner: _Spawner | None = None  # once it has begun
        self.pid = box.new_pid()
        self.is_over = False
        self._box = box
        self._loop = loop
        self._reader = asyncio.StreamReader(loop=loop)
        self._is_closed = False

    async def read(self) -> bytes:
        return await self._reader.read(1 << 16)

    def write(self, data: bytes) -> None:
        if not self._is_closed:
            self._box.at(PIPE_SECONDS, lambda: self._arrive(data))

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._box.at(PIPE_SECONDS, lambda: self._arrive(b""))

    def kill(self) -> None:
        if self.spawner is not None:
            self.spawner.kill()

    async def release(self) -> None:
        self._is_closed = True

    def _arrive(self, data: bytes) -> None:
        if self.spawner is not None:
            self.spawner.hear(data)

    def tell(self, data: bytes) -> None:
        """What the spawner says; empty: it has closed its end."""
        self._box.at(PIPE_SECONDS, lambda: self._told(data))

    def _told(self, data: bytes) -> None:
        if not self._loop.is_dead:
            self._loop.call_soon(self._reader.feed_data if data else lambda _: self._reader.feed_eof(), data)


class _Spawner:
    """A spawner process: the pipe's other end, and the Hands of a shipped custody."""

    def __init__(self, box: Box, link: _Link, run_directory: str, lease_grace: float) -> None:
        self.box = box
        self.pid = link.pid
        self.files = box.files
        self.processes = box
        self.is_stopped = False
        self.run_directory = run_directory
        self._link = link
        self._birth = box.conductor.now
        self._frames = Frames()
        self._inbox: list[bytes] = []
        self._is_gone = False
        self._turns = 0
        self._over: list[UserCode] = []
        self.mark = f"{self.pid}.{self.look().start}.{box.boot_id()}"
        self.custody = Custody(self, run_directory, self.pid, self.mark, lease_grace)

    def start(self) -> None:
        self.box.running[self.pid] = self
        self._link.spawner = self
        record = runfiles.spawner_record(self.pid, self.look().start, self.box.boot_id(), None)
        self.files.write(runfiles.spawner_path(self.run_directory), record)
        self.say({"is": "ready", "pid": self.pid})

    def look(self) -> Process:
        return Process(self.pid, "T" if self.is_stopped else "S", INIT, self.pid, self.pid, round(self._birth * 100))

    # ---- the loop, as spawner_main.py has it

    def hear(self, data: bytes) -> None:
        self._inbox.append(data)
        self._soon()

    def resume(self) -> None:
        self.is_stopped = False
        self._soon()

    def child_over(self, child: UserCode) -> None:
        self._over.append(child)
        self._soon()

    def _soon(self) -> None:
        self._turns += 1
        number = self._turns
        self.box.at(0.0, lambda: self._turn(number))

    def _turn(self, number: int) -> None:
        if self._is_gone or self.is_stopped or number != self._turns:
            return
        if any(child.state == "Z" for child in self._over):
            self.custody.reap()
            self.custody.wake()
        if self._inbox and not self._inbox[0]:
            self.custody.abandon()
            self._clear()
            return
        while self._inbox and self._inbox[0]:
            for message in self._frames.feed(self._inbox.pop(0)):
                self.custody.take(message)
            self.custody.wake()
        if self.now() >= self.custody.wake_at:
            self.custody.tick()
        wait = TURN_SECONDS if self._inbox else self.custody.seconds_to_wait()
        if wait is not None:
            self._turns += 1
            number = self._turns
            self.box.at(min(NAP_SECONDS, wait), lambda: self._turn(number))

    def _clear(self) -> None:
        nap = None if self._is_gone else self.custody.clear()
        if nap is None:
            self.kill()
        else:
            self.box.at(max(nap, TURN_SECONDS), self._clear)

    # ---- its end

    def kill(self) -> None:
        """What it has started dies with it, and belongs to nobody."""
        if self._is_gone:
            return
        self.vanish()
        self._link.tell(b"")
        for one in list(self.box.running.values()):
            if isinstance(one, UserCode) and one.spawner is self:
                one.orphan()

    def vanish(self) -> None:
        self._is_gone = self._link.is_over = True
        self.box.running.pop(self.pid, None)

    # ---- hands

    def now(self) -> float:
        return self.box.clock.boot()

    def say(self, message: dict[str, Any]) -> None:
        self._link.tell(frame(message))

    def fork(self, request: Mapping[str, Any]) -> Child:
        code = UserCode(self, request)
        self.box.running[code.pid] = code
        path = runfiles.child_path(self.run_directory, request["id"])
        start, boot = code.look().start, self.box.boot_id()
        self.files.write(path, runfiles.child_record(code.pid, start, boot, request["run_id"], request["token"]))
        code.begin()  # it may, before its spawner does anything else
        return Child(request, code.pid, None, Capture(None, 0), None, self.now())

    def reap(self) -> Iterator[tuple[int, int]]:
        over, self._over = self._over, []
        for child in over:
            self.box.running.pop(child.pid, None)
            yield child.pid, child.status

    def signal_group(self, child: Child, number: int) -> None:
        code = self.box.running.get(child.pid)
        if isinstance(code, UserCode):
            if number == signal.SIGKILL:
                code.kill()
            else:
                code.end_by(number)

    def kill_confined(self, child: Child | None) -> None:
        """There are no control groups here."""

    def is_confined(self, child: Child) -> bool:
        return False

    def collect(self, child: Child) -> tuple[Captured, str | None]:
        return child.capture.close(), None

    def keep(self, child: Child, captured: Captured) -> None:
        """Nothing is written into files here."""

    def tidy(self) -> None:
        """Likewise."""


class UserCode:
    """A process that a spawner has started; from its exec on it is user code."""

    def __init__(self, spawner: _Spawner, request: Mapping[str, Any]) -> None:
        self.spawner: _Spawner = spawner
        self.box = spawner.box
        self.pid = self.box.new_pid()
        self.mark = f"{spawner.mark}.{request['id']}"
        self.state = "S"
        self.status = 0
        self.has_begun = False
        self.has_overslept = False
        self._request = request
        self._birth = self.box.conductor.now
        self._parent = spawner.pid
        self._dying_seconds = 0.0
        self._is_ending = False

    def look(self) -> Process:
        return Process(self.pid, self.state, self._parent, self.pid, self.pid, round(self._birth * 100))

    # ---- where it is, for the checks

    @property
    def is_dead(self) -> bool:
        return self.state != "S"

    @property
    def busy_until(self) -> float:
        return math.inf if self.has_overslept else self.box.frozen_until

    # ---- what it goes through

    def begin(self) -> None:
        self.has_begun = True
        course = self.box.begin(self._request, self)
        self._dying_seconds = course.dying_seconds
        self.box.at(course.seconds, lambda: self._end(int(course.fails) << 8))

    def end_by(self, number: int) -> None:
        """A signal that it does not survive; it takes its time."""
        if not self._is_ending:
            self._is_ending = True
            self.box.at(self._dying_seconds, lambda: self._end(number))

    def kill(self) -> None:
        self.box.counts["processes killed"] += not self._is_ending
        self.end_by(signal.SIGKILL)

    def orphan(self) -> None:
        """Its spawner has died, and it dies with it."""
        self._parent = INIT
        self.box.counts["processes whose spawner died"] += not self.is_dead
        if self.is_dead:
            self.vanish()
        else:
            self.kill()

    def _end(self, status: int) -> None:
        if self.is_dead:
            return
        self.status = status
        self.state = "Z"
        self._tell_over()
        if self._parent == INIT:
            self.vanish()
        else:
            self.spawner.child_over(self)

    def vanish(self) -> None:
        if not self.is_dead:
            self.state = "X"
            self._tell_over()
        self.box.running.pop(self.pid, None)

    def _tell_over(self) -> None:
        if self.has_begun:
            self.box.over(self._request["run_id"], self._request["token"])


class BoxFaults:
    """What can be done to a machine's processes but the node's own."""

    def __init__(
        self, cluster: Cluster, dice: Chance, someone: Callable[[], str | None], happened: Callable[..., None]
    ) -> None:
        self._cluster = cluster
        self._dice = dice
        self._someone = someone
        self._happened = happened

    def kill(self) -> None:
        if (name := self._someone()) is not None:
            self._happened("spawner killed", name)
            self._cluster.boxes[name].kill_spawner()

    def stop(self) -> None:
        """For a while; a node takes it for dead after some seconds."""
        if (name := self._someone()) is not None:
            seconds = self._dice.choice([0.3, 2.0, 8.0]) * self._dice.uniform(0.5, 1.5)
            self._happened("spawner stopped", name, f"{seconds:.2f} s")
            box = self._cluster.boxes[name]
            box.stop_spawner()
            self._cluster.conductor.after(seconds, box.resume_spawner)

    def freeze(self) -> None:
        """The node's own process too."""
        if (name := self._someone()) is not None:
            seconds = self._dice.choice([0.5, 2.0, 4.0]) * self._dice.uniform(0.5, 1.5)
            self._happened("frozen machine", name, f"{seconds:.2f} s")
            self._cluster.boxes[name].freeze(seconds)
            self._cluster.lives[name].loop.pause(seconds)
