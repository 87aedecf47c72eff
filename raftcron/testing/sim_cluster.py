"""A simulated cluster: machines with disks and a network between them, lives of processes, clients, and checks.

What is done to it, and when, is sim_faults.py's; `scripts/simulate` and tests/simulation run it.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from raftcron.core import definition
from raftcron.core.commands import Command, DeleteJob, Done, PauseJob, PutJob, ResumeJob, Trigger
from raftcron.core.model import AT_LEAST_ONCE, AT_MOST_ONCE, Key
from raftcron.core.planner import paused_summary, settle
from raftcron.core.state import State
from raftcron.errors import UnavailableError, UnknownOutcomeError
from raftcron.ports import Role
from raftcron.raft import seam
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing import sim_checks
from raftcron.testing.chance import chance
from raftcron.testing.sim_checks import Checks
from raftcron.testing.sim_disk import Disk
from raftcron.testing.sim_loop import Conductor, NodeLoop, SimClock
from raftcron.testing.sim_network import Network
from raftcron.testing.sim_node import DIRECTORY, Life, Setting

LOOK_SECONDS = 0.01
TRACE_LINES = 400  # kept for a failure's report

FIRING: dict[str, dict[str, Any]] = {
    "every-a": {"delivery": AT_MOST_ONCE},
    "every-b": {"delivery": AT_LEAST_ONCE, "retry": {"max_attempts": 5}},
    "every-c": {
        "delivery": AT_MOST_ONCE,
        "retry": {"max_attempts": 3, "backoff": "1s"},
        "overlap": {"policy": "allow"},
    },
    "every-d": {"delivery": AT_LEAST_ONCE, "misfire": {"grace": "2s"}, "start_deadline": "5s"},
}
STILL = tuple(f"still-{number}" for number in range(8))  # jobs that never fire by themselves


class _Ear(logging.Handler):
    """What the rooms log as an error is a failure, unless it was asked for."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster

    def emit(self, record: logging.LogRecord) -> None:
        self._cluster.heard(record)


class Cluster:
    """Machines n1, n2, ... and what runs on them."""

    def __init__(self, seed: int, size: int, times: LeaseTimes, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.conductor = Conductor()
        self.network = Network(self.conductor, self.names, chance(seed, "network"))
        self.disks = {name: Disk(chance(seed, f"disk/{name}")) for name in self.names}
        self.clocks = {name: SimClock(self.conductor) for name in self.names}
        self.checks = Checks(self.conductor, self.disks, DIRECTORY)
        self.lives: dict[str, Life] = {}
        self.counts: Counter[str] = self.checks.counts
        self.may_fail: set[str] = set()  # whose disk was made to fail
        self.on_power_cut: set[str] = set()  # who dies of a power cut, if in the middle of a write
        self.died: Callable[[str], None] = lambda _name: None  # a process has ended by itself
        self.lines: deque[str] = deque(maxlen=TRACE_LINES)
        self.open_writes = 0
        self._births = Counter[str]()
        self._trace = trace
        self._hash = blake2b(digest_size=8)
        self._clients = chance(seed, "clients")
        self._large_share = self._clients.choice([0.0, 0.0, 0.03])
        self._batch_entries = self._clients.choice([seam.BATCH_ENTRIES, 16, 3])  # small ones are often in the middle
        self._markers = 0
        self._looked_at = 0.0
        self._setting = Setting(
            seed, {name: host.address for name, host in self.network.hosts.items()}, times, request_seconds=5.0
        )
        self.conductor.died = self._died
        self.conductor.looked = self._look
        self._ear = _Ear(self)

    # ---- running it

    def __enter__(self) -> Cluster:
        self._batch_was, seam.BATCH_ENTRIES = seam.BATCH_ENTRIES, self._batch_entries
        log = logging.getLogger("raftcron")
        self._log_was = (log.level, log.propagate)
        log.setLevel(logging.ERROR if self._trace is None else logging.INFO)
        log.propagate = False
        log.addHandler(self._ear)
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.lives):
            self._bury(name)
        seam.BATCH_ENTRIES = self._batch_was
        log = logging.getLogger("raftcron")
        log.removeHandler(self._ear)
        log.level, log.propagate = self._log_was
        log.setLevel(log.level)

    def run(self, seconds: float) -> None:
        """Let time pass.  Raises Violation."""
        self.conductor.run(self.conductor.now + seconds)
        self._raise()

    @property
    def now(self) -> float:
        return self.conductor.now

    @property
    def trace_hash(self) -> str:
        """Equal for equal courses of events."""
        return self._hash.hexdigest()

    def note(self, who: str, what: str) -> None:
        line = f"{self.conductor.now:9.4f} {who:3} {what}"
        self._hash.update(line.encode())
        self.lines.append(line)
        if self._trace is not None:
            self._trace(line)

    def heard(self, record: logging.LogRecord) -> None:
        who = self.conductor.current or "-"
        text = record.getMessage()
        if record.levelno < logging.ERROR:
            if self._trace is not None:
                self._trace(f"{self.conductor.now:9.4f} {who:3} . {record.name}: {text}")
        elif "raft_fatal" not in text:  # that comes to Life.fail
            error = record.exc_info[1] if record.exc_info else None
            self.checks.fail(sim_checks.NOISE, f"{who} logs {text} {error!r}")

    # ---- lives

    def boot(self, name: str) -> None:
        """The machine has power, and the process begins."""
        if name in self.lives:
            return
        self._births[name] += 1
        self.network.boot(name)
        loop = NodeLoop(self.conductor, name, self.network)

        def wait(seconds: float) -> None:
            loop.busy_until = max(loop.busy_until, self.conductor.now) + seconds

        self.note(name, f"begins its life {self._births[name]}")
        life = self.lives[name] = Life(
            name,
            self._births[name],
            self._setting,
            loop,
            self.clocks[name],
            self.disks[name].open(wait),
            self.checks,
            newest=self._newest,
            note=lambda text: self.note(name, text),
        )
        self.conductor.loops[name] = loop
        life.begin()

    def kill(self, name: str) -> None:
        """kill -9."""
        self.note(name, "is killed")
        self.network.kill(name)  # first: what its tasks say as they are unwound reaches nobody
        self._bury(name)

    def cut_power(self, name: str) -> None:
        """The machine stands still, and has forgotten what was not synced."""
        self.note(name, "loses power")
        self.counts["power cuts"] += 1
        self.network.cut_power(name)
        self._bury(name)
        self.disks[name].cut_power()

    def _bury(self, name: str) -> None:
        life = self.lives.pop(name, None)
        if life is not None:
            life.device.is_dead = True
            if life.is_started:
                self.counts.update({f"guard: {branch}": n for branch, n in life.log._core.passes.items()})
                if sum(life.log.bad_messages.values()):
                    self.checks.fail(sim_checks.NOISE, f"{name} was sent bad messages: {life.log.bad_messages}")
            self.conductor.loops.pop(name).die()

    def _died(self, name: str) -> None:
        """A process has ended in its own turn."""
        life = self.lives[name]
        by_itself = life.fatal is not None
        if life.fatal is not None and name not in self.may_fail:
            self.checks.fail(sim_checks.FATAL, f"{name} ends: {life.fatal!r}")
        self.counts["ends by disk" if by_itself else "ends in order" if life.is_ending else "deaths in a write"] += 1
        if not by_itself and not life.is_ending and name in self.on_power_cut:
            self.cut_power(name)
        else:
            self.kill(name)
        self.died(name)

    def _newest(self) -> State:
        """The state of whoever has applied most."""
        return max((life.machine.state for life in self.lives.values()), key=lambda state: state.index)

    # ---- clients

    def leaders(self) -> list[Life]:
        """Who believes to lead, and may propose."""
        return [
            life
            for life in self.lives.values()
            if life.is_started and not life.is_ending and life.log.status().leading_epoch is not None
        ]

    def put_firing(self) -> None:
        """Create those of the firing jobs that are not there."""
        for life in self.leaders()[:1]:
            for name in FIRING:
                if name not in life.machine.state.jobs:
                    self._write(life, self._put(life, name, self._key()))

    def write_something(self) -> None:
        """A client writes on each node that believes to lead."""
        for life in self.leaders():
            command = self._some_command(life)
            if command is not None:
                self._write(life, command)

    def delete_all(self) -> None:
        for life in self.leaders()[:1]:
            for name in list(life.machine.state.jobs):
                self._write(life, self._delete(life, name, self._key()))

    def write_still(self) -> None:
        """One write that nothing stands against."""
        for life in self.leaders()[:1]:
            self._write(life, self._put(life, "still-0", self._key()))

    def read_something(self) -> None:
        """A linearizable read, as often as not on a node that believes to lead."""
        ready = [life for life in self.lives.values() if life.is_started]
        asked = self.leaders() if self._clients.random() < 0.5 else ready
        if asked:
            life = self._clients.choice(asked)
            life.loop.create_task(self._read(life))

    async def _read(self, life: Life) -> None:
        before = self.checks.acknowledged_index
        try:
            index = await life.log.read_index()
        except UnavailableError:
            self.counts["reads refused"] += 1
        else:
            self.checks.read(before, index, life.log.status().applied_index)

    def _key(self) -> Key:
        self._markers += 1
        return Key(f"w{self._markers}", b"", 200, 0, 0)

    def _write(self, life: Life, command: Command) -> None:
        self.open_writes += 1
        life.loop.create_task(self._propose(life, command)).add_done_callback(self._answered)

    async def _propose(self, life: Life, command: Any) -> None:
        marker = command.key.scope
        try:
            outcome = await life.proposer.propose(command)
        except UnavailableError:
            if not life.loop.is_dead:
                self.checks.refuse(marker)
        except UnknownOutcomeError:
            self.counts["unknown"] += 1
        else:
            if isinstance(outcome, Done) and not life.loop.is_dead:
                self.checks.acknowledge(marker, outcome.index, life.log._journal[outcome.index - 1][2])

    def _answered(self, _task: object) -> None:
        self.open_writes -= 1

    def _some_command(self, life: Life) -> Command | None:
        dice, state, now, key = self._clients, life.machine.state, life.time.now_ms(), self._key()
        name = dice.choice(STILL if dice.random() < 0.8 else tuple(FIRING))
        job = state.jobs.get(name)
        what = dice.random()
        if job is None or what < 0.55:
            return self._put(life, name, key)
        if what < 0.7:
            return self._delete(life, name, key) if name in STILL or dice.random() < 0.3 else None
        if what < 0.85 and job.paused:
            return ResumeJob(name, job.revision, now, paused_summary(job, state.policy(job.uid), now), key)
        if what < 0.85:
            decisions = settle(job, state.policy(job.uid), life.machine.timeline.group_of(job.uid), now)
            return PauseJob(name, decisions, job.revision, "", None, key)
        return Trigger(name, None, None, False, key)

    def _put(self, life: Life, name: str, key: Key) -> PutJob:
        state, now = life.machine.state, life.time.now_ms()
        body = {
            "schedule": "@every 1s" if name in FIRING else "@yearly",
            "executor": {"type": "noop"},
            "description": key.scope + self._padding(),
            **FIRING.get(name, {}),
        }
        job = state.jobs.get(name)
        if job is None:
            return PutJob(name, definition.canonical(body), None, [], None, key=key)
        decisions = settle(job, state.policy(job.uid), life.machine.timeline.group_of(job.uid), now)
        return PutJob(name, definition.canonical(body), now, decisions, job.revision, key=key)

    def _padding(self) -> str:
        """Most writes are small; some fill a batch of the log's, or several."""
        dice = self._clients
        return "x" * dice.choice([2_000, 20_000, 100_000]) if dice.random() < self._large_share else ""

    def _delete(self, life: Life, name: str, key: Key) -> DeleteJob:
        state, now = life.machine.state, life.time.now_ms()
        job = state.jobs[name]
        decisions = settle(job, state.policy(job.uid), life.machine.timeline.group_of(job.uid), now)
        return DeleteJob(name, decisions, job.revision, None, self._clients.random() < 0.3, key)

    # ---- looking

    def _raise(self) -> None:
        if self.checks.violations:
            raise self.checks.violations[0]

    def _look(self) -> None:
        self._raise()
        now = self.conductor.now
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        checks = self.checks
        highest: Life | None = None
        for life in self.lives.values():
            if not life.is_started:
                continue
            core, journal = life.log._core, life.log._journal
            for index in range(life.seen_applied + 1, core.applied_index + 1):
                checks.entry(life.name, journal[index - 1])
            life.seen_applied = core.applied_index
            if core.is_leader:
                checks.leads(life.name, core.term)
                if highest is None or core.term > highest.log._core.term:
                    highest = life
        if highest is not None:
            core = highest.log._core
            peers = [name for name in self.names if name != highest.name]
            checks.match(highest.name, core.term, highest.log._journal, {p: core.match_index(p) for p in peers})
        self._raise()

    def where(self) -> str:
        """Where each node stands, in a line."""
        parts = []
        for name in self.names:
            life = self.lives.get(name)
            if life is None or not life.is_started:
                parts.append(f"{name} down" if life is None else f"{name} starting")
                continue
            status = life.log.status()
            lead = "*" if status.role is Role.LEADER else ""
            parts.append(f"{name}{lead} term {status.term} applied {status.applied_index}/{status.last_index}")
        return ", ".join(parts)

    def is_settled(self) -> bool:
        """Whether all nodes stand at one index with nothing on its way."""
        indices: set[int] = set()
        for name in self.names:
            life = self.lives.get(name)
            if life is None or not life.is_started:
                return False
            status = life.log.status()
            indices |= {status.applied_index, status.last_index}
        return len(indices) == 1
