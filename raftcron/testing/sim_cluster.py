"""A simulated cluster: machines with disks and a network between them, lives of processes, and who looks at them.

What is done to it, and when, is sim_story.py's and sim_faults.py's; `scripts/simulate` and tests/simulation run it.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from typing import Any

from raftcron.core.state import State
from raftcron.errors import DamagedError, NewerVersionError
from raftcron.ports import Attempt, Role
from raftcron.raft import seam
from raftcron.raft.scribe import Scribe, SlicedScribe
from raftcron.raft.settings import CompactionSettings
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing import sim_checks
from raftcron.testing.chance import Chance, chance
from raftcron.testing.sim_checks import Checks
from raftcron.testing.sim_clients import Clients
from raftcron.testing.sim_clocks import TrueTime
from raftcron.testing.sim_disk import Disk
from raftcron.testing.sim_loop import Conductor, NodeLoop, SimClock
from raftcron.testing.sim_network import Network
from raftcron.testing.sim_node import JOURNAL, SNAPSHOTS, Life, Setting
from raftcron.testing.sim_processes import Box, Course, UserCode
from raftcron.testing.sim_releases import LATER, THIS
from raftcron.testing.sim_scribe import SimulatedFork
from raftcron.testing.sim_targets import Targets

SPARE_MACHINES = 1  # that may join
DYING_SECONDS = (0.0, 0.05, 0.4)  # of processes that are told to end, or killed: less than any margin
TRACE_LINES = 400  # kept for a failure's report
# Errors: the first comes to Life.fail, clients cause the second, the others are told where a spawner was hurt.
EXPECTED = ("raft_fatal", "states_differ", "entry_unreadable", "spawner_lost", "spawner_stopped")


class _Ear(logging.Handler):
    """What the rooms log as an error is a failure, unless it was asked for."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster

    def emit(self, record: logging.LogRecord) -> None:
        self._cluster.heard(record)


class Cluster:
    """Machines n1, n2, ... and what runs on them."""

    def __init__(
        self,
        seed: int,
        size: int,
        times: LeaseTimes,
        trace: Callable[[str], None] | None = None,
        places: Chance | None = None,
        mix: Chance | None = None,
        asks: Chance | None = None,
        rules: Chance | None = None,
        has_spawners: bool = False,
    ) -> None:
        """`places` draws where runs go; None: all on the leader.  The others: see Clients."""
        self.seed = seed
        machines = [f"n{number}" for number in range(1, size + 1 + SPARE_MACHINES)]
        self.names = machines[:size]  # of those that belong to the cluster, or should
        self.spare = machines[size:]
        self.conductor = Conductor()
        self.network = Network(self.conductor, machines, chance(seed, "network"))
        self.disks = {name: Disk(chance(seed, f"disk/{name}")) for name in machines}
        self.clocks = {name: SimClock(self.conductor) for name in machines}
        self.lives: dict[str, Life] = {}
        self.checks = Checks(self.conductor, self.disks, JOURNAL, SNAPSHOTS)
        self.checks.in_force = self._in_force
        self.true_time = TrueTime(self.conductor, self.clocks, lambda: self.lives, self._electorates)
        self.checks.time_limit_ms = self.true_time.limit_ms
        self.counts: Counter[str] = self.checks.counts
        self.boxes = {name: self._box(name) for name in machines}
        self.may_fail: set[str] = set()  # whose disk was made to fail
        self.leaving: set[str] = set()  # who ends by itself as soon as it hears that it has no place any more
        self.releases = defaultdict[str, int](lambda: THIS)  # of each node's next life
        self.latest_release = THIS  # that has ever run
        self.on_power_cut: set[str] = set()  # who dies of a power cut, if in the middle of a write
        self.died: Callable[[str], None] = lambda _name: None  # a process has ended by itself
        self.applied: Callable[[Life], None] = lambda _life: None  # a batch has, in the midst of a turn
        self.lines: deque[str] = deque(maxlen=TRACE_LINES)
        self._births = Counter[str]()
        self._buried: State | None = None  # of the lives that are over, who had applied most
        self._trace = trace
        self._hash = blake2b(digest_size=8)
        dice = chance(seed, "clients")
        self.clients = Clients(self.lives, self.checks, dice, places, mix, asks, rules, has_spawners)
        rarer = self.clients.rarer
        self.targets = Targets(seed, self.conductor, self.network, self.lives, self.clients)
        self._batch_entries = dice.choice([seam.BATCH_ENTRIES, 16, 3])  # small ones are often in the middle
        self._setting = Setting(
            seed,
            {name: host.address for name, host in self.network.hosts.items()},
            list(self.names),
            _compaction(chance(seed, "compaction")),
            times,
            request_seconds=5.0,
            has_spawners=has_spawners,
            tags={} if rarer is None else rarer.tags_of(machines),
            breaks=rarer is not None,
            call=self.targets.call,
        )
        self.conductor.died = self._died
        self.conductor.moved = self._look
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
        elif not text.startswith(EXPECTED):
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

        self.note(name, f"begins its life {self._births[name]}")
        life = self.lives[name] = Life(
            name,
            self._births[name],
            self._setting,
            loop,
            self.clocks[name],
            self.disks[name].open(loop.pause),
            self._scribe(name, loop),
            self.boxes[name],
            self.checks,
            newest=self._newest,
            applied=lambda index: self._take(life, index),
            note=lambda text: self.note(name, text),
            release=self.releases[name],
        )
        self.conductor.loops[name] = loop
        loop.pause(max(0.0, self.boxes[name].frozen_until - self.conductor.now))
        self.latest_release = max(life.release, self.latest_release)
        life.begin()

    def _scribe(self, name: str, loop: NodeLoop) -> Scribe:
        """Of either sort."""
        dice = chance(self.seed, f"{name}/{self._births[name]}/scribe")
        return SlicedScribe() if dice.random() < 0.5 else SimulatedFork(self.conductor, self.disks[name], loop, dice)

    def _box(self, name: str) -> Box:
        def begin(request: Mapping[str, Any], code: UserCode) -> Course:
            facts = request["env"]
            attempt = Attempt(
                job=facts["RAFTCRON_JOB"],
                run_id=request["run_id"],
                scheduled_time=facts["RAFTCRON_SCHEDULED_TIME"],
                attempt=int(facts["RAFTCRON_ATTEMPT"]),
                fencing_token=request["token"],
                node=name,
                executor={},
                timeout_seconds=request["timeout"],
                kill_after_seconds=request["kill_after"],
                self_stop=request["self_stop"],
            )
            self.note(name, f"execs {attempt.run_id} {attempt.attempt}")
            self.counts["starts of processes"] += 1
            self.checks.started(name, self._births[name], attempt, self._newest(), code)
            course = self._setting.course_of(name, attempt)
            if self._setting.course is None:
                dying = chance(self.seed, f"dying/{attempt.run_id}/{attempt.attempt}").choice(DYING_SECONDS)
                course = course._replace(dying_seconds=dying)
            return course

        return Box(name, self.conductor, self.clocks[name], self.counts, begin, self.checks.stopped)

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
        self.boxes[name].lose_power()
        self._bury(name)
        self.disks[name].cut_power()

    def _bury(self, name: str) -> None:
        life = self.lives.pop(name, None)
        if life is not None:
            if self._buried is None or self._buried.index < life.machine.state.index:
                self._buried = life.machine.state
            self.boxes[name].node_gone()
            life.device.is_dead = True
            if life.is_started:
                self._count(life)
                if sum(life.log.bad_messages.values()):
                    self.checks.fail(sim_checks.NOISE, f"{name} was sent bad messages: {life.log.bad_messages}")
            self.conductor.loops.pop(name).die()

    def _count(self, life: Life) -> None:
        """What its log has gone through."""
        log, counts = life.log, self.counts
        rooms = (log._core, log._elections, log._reads, log._membership, log._transport, life.node.worker)
        for room in rooms:
            counts.update({f"guard: {branch}": n for branch, n in room.passes.items()})
        passes = log._core.passes
        counts["conflicts"] += passes["conflict cut"]
        counts["refusals"] += passes["entry missing"] + passes["entry forgotten"] + passes["term differs"]
        clocks = life.node.clocks
        counts["leads handed over for the time"] += clocks.hand_overs
        counts.update({f"trusted time went {way}": n for way, n in clocks.jumps.items() if way != "own"})
        of_snapshots = life.log._compaction.counts
        counts["snapshots"] += of_snapshots["installed"]
        counts.update({f"snapshots {what}": n for what, n in of_snapshots.items() if what != "installed"})

    def forgive(self, name: str) -> None:
        """What was done to its disk is over; one that is full, or fails, is still to blame for what this life meets."""
        disk = self.disks[name]
        if disk.free_bytes is None and not disk.failing_syncs:
            self.may_fail.discard(name)

    def _died(self, name: str) -> None:
        """A process has ended in its own turn."""
        life = self.lives[name]
        by_itself = life.fatal is not None
        if isinstance(life.fatal, NewerVersionError) and life.release < self.latest_release:
            self.counts["later releases refused"] += 1
            self.releases[name] = LATER  # as its last words say
        elif isinstance(life.fatal, DamagedError) and self.disks[name].rotten is not None:
            self.counts["rot refused"] += 1
        elif life.fatal is not None and name not in self.may_fail | self.leaving:
            self.checks.fail(sim_checks.FATAL, f"{name} ends: {life.fatal!r}")
        self.counts["ends by disk" if by_itself else "ends in order" if life.is_ending else "deaths in a write"] += 1
        if not by_itself and not life.is_ending and name in self.on_power_cut:
            self.cut_power(name)
        else:
            self.kill(name)
        self.died(name)

    def _newest(self) -> State:
        """The state of whoever has applied most, in this life or before."""
        states = [life.machine.state for life in self.lives.values()]
        return max(states if self._buried is None else [*states, self._buried], key=lambda state: state.index)

    # ---- looking

    def _raise(self) -> None:
        if self.checks.violations:
            raise self.checks.violations[0]

    def _look(self, name: str) -> None:
        """After each turn of a process."""
        life, checks = self.lives[name], self.checks
        if life.is_started:
            core, journal = life.log._core, life.log._journal
            seen = life.log._membership._seen
            if seen and seen[-1][1] is not life.seen_members:
                life.seen_members = seen[-1][1]
                checks.members(name, seen)
            if core.is_leader:
                term, matches = core.term, core.match_indexes
                if (term, matches) != life.seen_matches:
                    life.seen_matches = (term, matches)
                    checks.leads(name, term)
                    checks.match(name, term, journal, matches)
            disk = self.disks[name]
            if life.seen_disk != (disk.rewrites, disk.named):
                life.seen_disk = disk.rewrites, disk.named
                self._look_at_leaders(name)
        self._raise()

    def _look_at_leaders(self, peer: str) -> None:
        """A process may have lost in this turn what a leader counts on."""
        for leader in self.lives.values():
            if leader.name != peer and leader.is_started and leader.log._core.is_leader:
                core = leader.log._core
                counted = [match for match in core.match_indexes if match[0] == peer]
                self.checks.match(leader.name, core.term, leader.log._journal, counted)

    def _take(self, life: Life, applied: int) -> None:
        """A batch has applied, in the midst of a turn; later the log may have forgotten its entries."""
        if not life.loop.is_dead:
            journal = life.log._journal
            first = journal.first_index
            for index in range(max(life.seen_applied, first) + 1, applied + 1):
                self.checks.entry(life.name, journal[index - first])
            life.seen_applied = max(applied, life.seen_applied)
            if life.is_started:
                self.applied(life)

    def _in_force(self) -> set[frozenset[str]]:
        """The voters of the newest configuration that has applied, and of those behind it in any node's log."""
        checks = self.checks
        found = {checks.voters} if checks.configured else set()
        for life in self.lives.values():
            if life.is_started and (seen := life.log._membership._seen) and seen[-1][0] > checks.configured:
                found.add(frozenset(seen[-1][1].voters))
        return found

    def _electorates(self) -> Collection[Collection[str]]:
        """As `_in_force`, and before there is a configuration those who are to found the cluster."""
        return self._in_force() or [self.names]

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


def _compaction(dice: Chance) -> CompactionSettings:
    """Snapshots are due after some entries, so that each seed has some, and few are kept behind them."""
    return CompactionSettings(
        bytes=dice.choice([1_000, 10_000, 40_000]),
        entries=dice.choice([20, 60, 200]),
        kept_entries=dice.choice([0, 3, 30]),
        segment_bytes=dice.choice([4_000, 16_000, 64_000]),
    )
