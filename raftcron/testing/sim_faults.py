"""One whole simulation of one seed: a cluster forms, faults and load, then all heals, and what must hold then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from raftcron.core.model import ENDED
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing import sim_checks
from raftcron.testing.chance import chance
from raftcron.testing.sim_checks import Violation
from raftcron.testing.sim_cluster import Cluster
from raftcron.testing.sim_disk import Disk
from raftcron.testing.sim_loop import SimClock
from raftcron.testing.sim_node import DIRECTORY

FORM_SECONDS = 5.0
FAULT_SECONDS = 45.0
QUIET_SECONDS = 30.0
LEADER_SECONDS = 5.0  # after all has healed
WRITE_SECONDS = 0.09
READ_SECONDS = 0.15
MAX_SKEW_SECONDS = 1.5  # of a wall clock, either way

ENOUGH_ACKNOWLEDGED = 200
ENOUGH_KINDS = 3

# What a sweep has to have met; one of them missing means that the sweep proves less than it seems to.
ALWAYS_SEEN = (
    "elections",
    "acknowledged",
    "not written",
    "unknown",
    "reads",
    "power cuts",
    "deaths in a write",
    "damage refused",
    "decisions",
    "starts",
    "retries started",
    "starts refused by the gate",
    "runs lost",
    "runs succeeded",
    "entries Lose",
    "guard: append of a former term",
    "guard: answer of another term",
    "guard: conflict cut",
    "guard: entry missing",
    "guard: held entries skipped",
    "guard: late refusal",
    "guard: rewound",
    "guard: tail left alone",
    "guard: term differs",
)


class Result(NamedTuple):
    """What came of one seed."""

    seed: int
    violation: Violation | None
    counts: Counter[str]
    kinds: tuple[str, ...]  # of faults that happened
    virtual_seconds: float
    trace_hash: str
    lines: tuple[str, ...]  # the last of the trace
    where: str

    @property
    def counted(self) -> bool:
        """Whether the seed was worth something."""
        return len(self.kinds) >= ENOUGH_KINDS and self.counts["acknowledged"] >= ENOUGH_ACKNOWLEDGED


class Story:
    """One seed's course of events."""

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        dice = self._dice = chance(seed, "faults")
        size = 5 if dice.random() < 0.2 else 3
        times = LeaseTimes(10.0, 2.0) if dice.random() < 0.5 else LeaseTimes(3.0, 0.6)
        self.seed = seed
        self.cluster = Cluster(seed, size, times, trace)
        self.cluster.died = self._ended_by_itself
        self.kinds: dict[str, None] = {}
        self._all: dict[str, Callable[[], None]] = {
            "crash": self._crash,
            "power cut": self._power_cut,
            "power cut of all": self._power_cut_of_all,
            "pause": self._pause,
            "cut": self._cut,
            "one-way cut": self._one_way_cut,
            "isolation": self._isolate,
            "slow link": self._slow_link,
            "broken connection": self._sever,
            "restart storm": self._restart_storm,
            "orderly restart": self._orderly_restart,
            "rolling restart": self._rolling_restart,
            "clock step": self._clock_step,
            "full disk": self._full_disk,
            "failing sync": self._failing_sync,
            "slow disk": self._slow_disk,
            "death in a write": self._death_in_a_write,
            "flipped bit": self._flipped_bit,
            "wiped disk": self._wiped_disk,
        }
        chosen = dice.sample(sorted(self._all), dice.randint(4, 9))
        self._enabled = {kind: self._all[kind] for kind in chosen}
        self._pace = dice.choice([0.6, 1.2, 2.4])
        self._is_over = False
        self._held: set[str] = set()  # nodes with which a fault has something in mind

    # ---- the whole

    def run(self) -> Result:
        cluster = self.cluster
        violation: Violation | None = None
        with cluster:
            try:
                self._play()
            except Violation as error:
                violation = error
            where = cluster.where()
        if violation is None and cluster.checks.violations:
            violation = cluster.checks.violations[0]
        return Result(
            self.seed,
            violation,
            cluster.counts,
            tuple(self.kinds),
            cluster.now,
            cluster.trace_hash,
            tuple(cluster.lines),
            where,
        )

    def _play(self) -> None:
        cluster, conductor = self.cluster, self.cluster.conductor
        for name in cluster.names:
            cluster.clocks[name].wall_offset = self._skew()
            conductor.after(self._dice.uniform(0.0, 0.5), cluster.boot, name)
        conductor.after(1.0, self._load)
        conductor.after(1.0, self._reads)
        cluster.run(FORM_SECONDS)
        self._expect(bool(cluster.leaders()), "no cluster has formed")
        conductor.after(self._wait(), self._strike)
        cluster.run(FAULT_SECONDS)
        self._heal()
        cluster.run(LEADER_SECONDS)
        self._expect(bool(cluster.leaders()), f"no leader within {LEADER_SECONDS:g} s")
        cluster.run(QUIET_SECONDS / 2 - LEADER_SECONDS)
        self._delete_jobs()
        cluster.run(QUIET_SECONDS / 2 - LEADER_SECONDS)
        before = cluster.counts["acknowledged"]
        cluster.write_still()
        cluster.run(LEADER_SECONDS)
        self._expect(cluster.counts["acknowledged"] == before + 1, "nothing commits any more")
        self._expect(cluster.is_settled(), "the nodes do not stand at one index")
        self._expect(not cluster.open_writes, f"{cluster.open_writes} writes were never answered")
        for life in cluster.lives.values():
            state = life.machine.state
            left = [f"{run.id} {run.state}" for run in state.runs.values() if run.state not in ENDED]
            self._expect(not left, f"on {life.name} runs have no end: {left}")
            if left:
                break
        cluster.checks.close()
        cluster.run(0.0)

    def _expect(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.cluster.checks.fail(sim_checks.LIVENESS, f"{otherwise}: {self.cluster.where()}")
            self.cluster.run(0.0)

    # ---- load

    def _load(self) -> None:
        if not self._is_over:
            self.cluster.put_firing()
            for _ in range(self._dice.randint(20, 100) if self._dice.random() < 0.01 else 1):
                self.cluster.write_something()
            for life in self.cluster.lives.values():
                if life.is_started:
                    self.cluster.checks.conserve(life.machine.state)
                    break
            self.cluster.conductor.after(WRITE_SECONDS * self._dice.uniform(0.5, 1.5), self._load)

    def _reads(self) -> None:
        if not self._is_over:
            self.cluster.read_something()
            self.cluster.conductor.after(READ_SECONDS * self._dice.uniform(0.5, 1.5), self._reads)

    def _delete_jobs(self) -> None:
        """What is not deleted by the first attempt (its job has just changed) is by a later one."""
        cluster = self.cluster
        if any(life.machine.state.jobs for life in cluster.leaders()) or not cluster.leaders():
            cluster.delete_all()
            cluster.conductor.after(0.5, self._delete_jobs)

    # ---- the end of all faults

    def _heal(self) -> None:
        cluster = self.cluster
        self._is_over = True
        cluster.note("-", "all faults end")
        cluster.network.heal()
        for disk in cluster.disks.values():
            disk.free_bytes, disk.failing_syncs, disk.death_in, disk.sync_seconds = None, 0, None, 0.0002
        for life in cluster.lives.values():
            life.loop.busy_until = min(life.loop.busy_until, cluster.now)
        for name in cluster.names:
            self._up(name)

    def _up(self, name: str) -> None:
        """Boot, if nothing else is in mind with it."""
        cluster = self.cluster
        if name not in self._held and name not in cluster.lives:
            disk = cluster.disks[name]
            disk.free_bytes, disk.failing_syncs = None, 0
            cluster.may_fail.discard(name)
            cluster.boot(name)

    def _ended_by_itself(self, name: str) -> None:
        self._up_later(name, self._dice.uniform(0.1, 2.0))

    def _up_later(self, name: str, seconds: float) -> None:
        self.cluster.conductor.after(0.05 if self._is_over else seconds, self._up, name)

    # ---- faults

    def _wait(self) -> float:
        return self._dice.expovariate(1 / self._pace)

    def _strike(self) -> None:
        if self._is_over:
            return
        kind = self._dice.choice(sorted(self._enabled))
        self._enabled[kind]()
        self.cluster.conductor.after(self._wait(), self._strike)

    def _happened(self, kind: str, where: str, what: str = "") -> None:
        self.kinds[kind] = None
        self.cluster.counts[f"fault: {kind}"] += 1
        self.cluster.note("-", f"{kind}: {where} {what}")

    def _someone(self) -> str | None:
        """A node that lives; the leader more often than the others."""
        cluster = self.cluster
        names = [name for name in cluster.lives if name not in self._held]
        leading = [life.name for life in cluster.leaders() if life.name not in self._held]
        if leading and self._dice.random() < 0.4:
            return self._dice.choice(leading)
        return self._dice.choice(names) if names else None

    def _down_seconds(self) -> float:
        return self._dice.choice([0.05, 0.5, 2.0, 2.0, 8.0]) * self._dice.uniform(0.5, 1.5)

    def _skew(self) -> float:
        return self._dice.uniform(-MAX_SKEW_SECONDS, MAX_SKEW_SECONDS)

    def _crash(self) -> None:
        if (name := self._someone()) is not None:
            self._happened("crash", name)
            self.cluster.kill(name)
            self._up_later(name, self._down_seconds())

    def _power_cut(self) -> None:
        if (name := self._someone()) is not None:
            self._happened("power cut", name)
            self.cluster.cut_power(name)
            self._up_later(name, self._down_seconds())

    def _power_cut_of_all(self) -> None:
        if self._dice.random() < 0.6:
            return
        self._happened("power cut of all", "")
        for name in self.cluster.names:
            if name in self.cluster.lives:
                self.cluster.cut_power(name)
            self._up_later(name, self._dice.uniform(0.1, 2.0))

    def _pause(self) -> None:
        if (name := self._someone()) is not None:
            seconds = self._dice.choice([0.2, 0.7, 1.5, 4.0, 12.0]) * self._dice.uniform(0.5, 1.5)
            self._happened("pause", name, f"{seconds:.2f} s")
            loop = self.cluster.lives[name].loop
            loop.busy_until = max(loop.busy_until, self.cluster.now + seconds)

    def _pair(self) -> tuple[str, str]:
        one, other = self._dice.sample(self.cluster.names, 2)
        return one, other

    def _heal_later(self) -> None:
        self.cluster.conductor.after(self._dice.choice([0.3, 1.0, 3.0, 7.0]), self._heal_links)

    def _heal_links(self) -> None:
        self.cluster.note("-", "links heal")
        self.cluster.network.heal()

    def _cut(self) -> None:
        one, other = self._pair()
        self._happened("cut", f"{one} {other}")
        self.cluster.network.cut(one, other)
        self.cluster.network.cut(other, one)
        if self._dice.random() < 0.3:
            self.cluster.conductor.after(self._dice.uniform(0.0, 2.0), self.cluster.network.sever, one, other)
        self._heal_later()

    def _one_way_cut(self) -> None:
        one, other = self._pair()
        self._happened("one-way cut", f"{one} -> {other}")
        self.cluster.network.cut(one, other)
        self._heal_later()

    def _isolate(self) -> None:
        name = self._someone() or self.cluster.names[0]
        way = self._dice.choice(["out", "in", "both"])
        self._happened("isolation", name, way)
        for other in self.cluster.names:
            if other != name:
                if way != "in":
                    self.cluster.network.cut(name, other)
                if way != "out":
                    self.cluster.network.cut(other, name)
        self._heal_later()

    def _slow_link(self) -> None:
        one, other = self._pair()
        seconds = self._dice.choice([0.01, 0.05, 0.2, 0.6])
        self._happened("slow link", f"{one} -> {other}", f"{seconds} s")
        self.cluster.network.slow[one, other] = seconds
        if self._dice.random() < 0.5:
            self.cluster.network.slow[other, one] = seconds
        self._heal_later()

    def _sever(self) -> None:
        one, other = self._pair()
        self._happened("broken connection", f"{one} {other}")
        self.cluster.network.sever(one, other)

    def _restart_storm(self) -> None:
        if (name := self._someone()) is None:
            return
        self._happened("restart storm", name)
        at = self.cluster.now
        for _ in range(self._dice.randint(3, 8)):
            at += self._dice.uniform(0.005, 0.6)
            self.cluster.conductor.at(at, self._restart, name)

    def _restart(self, name: str) -> None:
        if self._is_over or name in self._held:
            return
        if name in self.cluster.lives:
            self.cluster.kill(name)
        self._up(name)

    def _orderly_restart(self) -> None:
        if (name := self._someone()) is not None and self.cluster.lives[name].is_started:
            self._happened("orderly restart", name)
            self.cluster.lives[name].end()

    def _rolling_restart(self) -> None:
        self._happened("rolling restart", "")
        at = self.cluster.now
        for name in self.cluster.names:
            self.cluster.conductor.at(at, self._end_orderly, name)
            at += self._dice.uniform(1.0, 3.0)

    def _end_orderly(self, name: str) -> None:
        life = self.cluster.lives.get(name)
        if life is not None and life.is_started and not self._is_over:
            life.end()

    def _clock_step(self) -> None:
        name = self._dice.choice(self.cluster.names)
        clock: SimClock = self.cluster.clocks[name]
        clock.wall_offset = self._skew()
        self._happened("clock step", name, f"{clock.wall_offset:+.2f} s")

    def _full_disk(self) -> None:
        if (name := self._someone()) is not None:
            self._happened("full disk", name)
            self.cluster.may_fail.add(name)
            self.cluster.disks[name].free_bytes = self._dice.randint(0, 2000)

    def _failing_sync(self) -> None:
        if (name := self._someone()) is not None:
            self._happened("failing sync", name)
            self.cluster.may_fail.add(name)
            self.cluster.disks[name].failing_syncs = 1

    def _slow_disk(self) -> None:
        name = self._dice.choice(self.cluster.names)
        seconds = self._dice.choice([0.002, 0.01, 0.05])
        self._happened("slow disk", name, f"{seconds} s")
        disk = self.cluster.disks[name]
        disk.sync_seconds = seconds
        self.cluster.conductor.after(self._dice.uniform(1.0, 5.0), self._disk_is_fast, disk)

    def _disk_is_fast(self, disk: Disk) -> None:
        disk.sync_seconds = 0.0002

    def _death_in_a_write(self) -> None:
        if (name := self._someone()) is not None:
            with_power = self._dice.random() < 0.5
            self._happened("death in a write", name, "power cut" if with_power else "crash")
            (self.cluster.on_power_cut.add if with_power else self.cluster.on_power_cut.discard)(name)
            self.cluster.disks[name].death_in = self._dice.randint(1, 12)

    def _flipped_bit(self) -> None:
        """A bit of what was synced long ago rots: the node refuses to start, until the byte is as it was."""
        name = self._someone()
        if name is None:
            return
        disk = self.cluster.disks[name]
        path = min(disk.files, default=None)
        if path is None or path.parent != DIRECTORY or len(disk.files[path].durable) < 4000:
            return
        self._happened("flipped bit", name)
        self.cluster.kill(name)
        self._held.add(name)
        self._set_aside(name)
        offset, bit = self._dice.randrange(0, 2000), self._dice.randrange(8)
        disk.flip(path, offset, bit)
        self.cluster.may_fail.add(name)
        self.cluster.boot(name)
        self.cluster.conductor.after(0.3, self._repair, name, offset, bit)

    def _set_aside(self, name: str) -> None:
        self.cluster.checks.durable[name].read()
        self.cluster.disks[name].is_aside = True

    def _repair(self, name: str, offset: int, bit: int) -> None:
        cluster = self.cluster
        disk = cluster.disks[name]
        if name in cluster.lives:
            cluster.checks.fail(sim_checks.FATAL, f"{name} started with bit {bit} of byte {offset} flipped")
            return
        cluster.counts["damage refused"] += 1
        disk.flip(min(disk.files), offset, bit)
        disk.is_aside = False
        self._held.discard(name)
        cluster.may_fail.discard(name)
        self._up_later(name, 0.2)

    def _wiped_disk(self) -> None:
        """A node comes back with an empty directory: the others take it for a stranger."""
        name = self._someone()
        if name is None or self._held:
            return  # more than one at a time is no cluster any more
        self._happened("wiped disk", name)
        self.cluster.kill(name)
        self._held.add(name)
        disk = self.cluster.disks[name]
        self._set_aside(name)
        kept, disk.files = disk.files, {}
        self.cluster.may_fail.add(name)  # it ends itself once a majority has turned it away
        self.cluster.boot(name)
        self.cluster.conductor.after(self._dice.uniform(0.5, 4.0), self._restore, name, kept)

    def _restore(self, name: str, kept: dict[Path, Any]) -> None:
        cluster = self.cluster
        if name in cluster.lives:
            if cluster.lives[name].machine.applied_index:
                cluster.checks.fail(sim_checks.ONE_HISTORY, f"{name} was taken in with an empty directory")
            cluster.kill(name)
        disk = cluster.disks[name]
        disk.files = kept
        disk.is_aside = False
        self._held.discard(name)
        cluster.may_fail.discard(name)
        self._up_later(name, 0.2)
