"""One whole simulation of one seed: a cluster forms, faults and load, then all heals, and what must hold then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from raftcron.core.model import ENDED
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing import sim_checks
from raftcron.testing.chance import chance
from raftcron.testing.sim_checks import Violation
from raftcron.testing.sim_clocks import Lateness, WrongClocks
from raftcron.testing.sim_cluster import Cluster
from raftcron.testing.sim_copies import OldCopies
from raftcron.testing.sim_damage import Damage
from raftcron.testing.sim_disk import Disk
from raftcron.testing.sim_members import FEWEST_VOTERS, Operator
from raftcron.testing.sim_processes import BoxFaults
from raftcron.testing.sim_releases import LATER, THIS

FORM_SECONDS = 5.0
FAULT_SECONDS = 45.0
QUIET_SECONDS = 30.0
LEADER_SECONDS = 5.0  # after all has healed
WRITE_SECONDS = 0.12
QUIET_WRITE_SECONDS = 0.5
READ_SECONDS = 0.15
CONSERVE_SECONDS = 0.7
LAG_SECONDS = 10.0  # at most, until the others have forgotten what a node lacks
LAST_CHANGE_SECONDS = 5.0  # before the faults end
ASKING_SHARE = 0.6  # of the seeds: runs of the past and runs again are asked for, and targets take runs over
SPAWNERS_SHARE = 0.5  # of the seeds, in which a spawner a node runs commands
MIXED_SHARE = 0.5  # of the seeds in which runs go anywhere: their jobs overlap, miss and follow in all ways
MEMBERS_SHARE = 0.35  # of the seeds, in which members change
COPIES_SHARE = 0.2  # of the seeds, in which disks are set back

ENOUGH_ACKNOWLEDGED = 200
ENOUGH_KINDS = 3

# What a sweep has to have met; one of them missing means that the sweep proves less than it seems to.
ALWAYS_SEEN = (
    "elections",
    "snapshots",
    "snapshots written",
    "conflicts",
    "refusals",
    "changes of members",
    "members: add",
    "members: remove",
    "members: replace",
    "removed ones that found out",
    "acknowledged",
    "not written",
    "unknown",
    "reads",
    "refused epoch",
    "reports under old tokens",
    "decisions below the watermark",
    "power cuts",
    "deaths in a write",
    "damage refused",
    "disks set back found out",
    "rotten snapshots done without",
    "rotten snapshots refused",
    "later releases refused",
    "decisions",
    "starts",
    "retries started",
    "starts of parts",
    "starts of processes",
    "processes killed",
    "processes whose spawner died",
    "attempts that a former life has left",
    "fault: spawner killed",
    "fault: spawner stopped",
    "fault: frozen machine",
    "starts of what follows",
    "starts away from the leader",
    "starts refused by the gate",
    "runs lost",
    "runs succeeded",
    "runs of the past asked for",
    "starts of runs of the past",
    "runs asked for again",
    "runs taken over by targets",
    "runs with targets that ended failed",
    "runs with targets that ended succeeded",
    "runs with targets that ended timed_out",
    "targets: answer conflict",
    "targets: answer conflict under an old token",
    "targets: heard",
    "targets: late outcomes",
    "targets: spoke through another node",
    "looks for late times",
    "leads handed over for the time",
    "trusted time went forward",
    "trusted time went backward",
    "entries Lose",
    "guard: append of a former term",
    "guard: answer of another term",
    "guard: conflict cut",
    "guard: entry missing",
    "guard: held entries skipped",
    "guard: late refusal",
    "guard: rewound",
    "guard: snapshot covered by the log",
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

    def __init__(
        self,
        seed: int,
        trace: Callable[[str], None] | None = None,
        script: Callable[[Story], None] | None = None,
        size: int | None = None,
        times: LeaseTimes | None = None,
    ) -> None:
        """With a `script`, that stands in place of formation and drawn faults; healing and all checks are the same."""
        dice = self._dice = chance(seed, "faults")
        drawn_size = 5 if dice.random() < 0.2 else 3
        size = drawn_size if size is None else size
        drawn_times = LeaseTimes(10.0, 2.0) if dice.random() < 0.5 else LeaseTimes(3.0, 0.6)
        times = drawn_times if times is None else times
        self.seed = seed
        self._script = script
        places = chance(seed, "places")
        is_spread = places.random() < 2 / 3 and script is None  # else all runs are on the leader, as most will be
        mix = chance(seed, "mix")
        is_mixed = is_spread and mix.random() < MIXED_SHARE
        asks = chance(seed, "asks")
        is_asking = script is None and asks.random() < ASKING_SHARE
        self._has_spawners = script is None and chance(seed, "spawners").random() < SPAWNERS_SHARE
        self.cluster = Cluster(
            seed,
            size,
            times,
            trace,
            places if is_spread else None,
            mix if is_mixed else None,
            asks if is_asking else None,
            self._has_spawners,
        )
        self.clients = self.cluster.clients
        self.cluster.died = self._ended_by_itself
        self.kinds: dict[str, int] = {}  # kind of fault -> how often it happened
        self.wrong_clocks = WrongClocks(
            self.cluster.clocks, self.cluster.names, self.cluster.true_time, dice, self._happened
        )
        self._lateness = Lateness(self.cluster.conductor, self.cluster.clocks)
        self._held: set[str] = set()  # nodes with which a fault has something in mind
        self.damage = Damage(
            self.cluster,
            dice,
            self._held,
            someone=self._someone,
            happened=self._happened,
            up_later=self._up_later,
        )
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
            "clock step": self.wrong_clocks.step,
            "clock drift": self.wrong_clocks.drift,
            "clocks jump together": self.wrong_clocks.jump_together,
            "full disk": self._full_disk,
            "failing sync": self._failing_sync,
            "slow disk": self._slow_disk,
            "death in a write": self._death_in_a_write,
            "flipped bit": self.damage.flipped_bit,
            "wiped disk": self.damage.wiped_disk,
            "rotten snapshot": self.damage.rotten_snapshot,
            "rotting snapshot": self.damage.rotting_snapshot,
            "lagging node": self._lagging_node,
            "upgrade": self._upgrade,
        }
        if self._has_spawners:
            boxes = BoxFaults(self.cluster, dice, self._someone, self._happened)
            self._all |= {"spawner killed": boxes.kill, "spawner stopped": boxes.stop, "frozen machine": boxes.freeze}
        chosen = dice.sample(sorted(self._all), dice.randint(4, 9))
        if dice.random() < MEMBERS_SHARE:
            self._all["change of members"] = self._change_of_members
            chosen += ["change of members"]
        self._enabled = {kind: self._all[kind] for kind in chosen}
        self._pace = dice.choice([0.6, 1.2, 2.4])
        self._is_over = False
        self._is_loaded = True
        self._operator = Operator(self.cluster, dice, self._held, self.cluster.boot)
        copies = chance(seed, "copies")
        if copies.random() < COPIES_SHARE:
            self._enabled["disk set back"] = OldCopies(
                self.cluster,
                copies,
                self._held,
                self._operator,
                latest=FORM_SECONDS + FAULT_SECONDS,
                someone=self._someone,
                happened=self._happened,
                up_later=self._up_later,
            ).set_back

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
        if self._script is not None:
            self._script(self)
        else:
            self.form()
            conductor.after(self._wait(), self._strike)
            cluster.run(FAULT_SECONDS)
        self._heal()
        cluster.run(LEADER_SECONDS)
        self._expect(bool(self.clients.leaders()), f"no leader within {LEADER_SECONDS:g} s")
        cluster.run(QUIET_SECONDS / 2 - LEADER_SECONDS)
        self._is_loaded, self.clients.is_calm = False, True
        self._delete_jobs()
        cluster.run(QUIET_SECONDS / 2 - LEADER_SECONDS)
        before = cluster.counts["acknowledged"]
        self.clients.write_still()
        cluster.run(LEADER_SECONDS)
        self._expect(cluster.counts["acknowledged"] == before + 1, "nothing commits any more")
        self._expect(cluster.is_settled(), "the nodes do not stand at one index")
        self._expect(cluster.checks.voters == set(cluster.names), f"{sorted(cluster.checks.voters)} vote")
        self._expect(not self.clients.open_writes, f"{self.clients.open_writes} writes were never answered")
        for name in cluster.names:
            life = cluster.lives[name]
            state = life.machine.state
            left = [f"{run.id} {run.state}" for run in state.runs.values() if run.state not in ENDED]
            self._expect(not left, f"on {life.name} runs have no end: {left}")
            if left:
                break
        left = [f"{name} {pid}" for name, box in cluster.boxes.items() for pid in box.user_code()]
        self._expect(not left, f"user code is left behind: {left}")
        cluster.checks.close({name: cluster.lives[name].machine.state for name in cluster.names})
        cluster.run(0.0)

    def form(self) -> None:
        """All nodes begin, and clients come."""
        cluster, conductor = self.cluster, self.cluster.conductor
        for name in cluster.names:
            self.wrong_clocks.set(name, self.wrong_clocks.skew())
            conductor.after(self._dice.uniform(0.0, 0.5), cluster.boot, name)
        self.load()
        cluster.run(FORM_SECONDS)
        self._expect(bool(self.clients.leaders()), "no cluster has formed")

    def load(self) -> None:
        """Clients come."""
        for work in (self._load, self._reads, self._conserve):
            self.cluster.conductor.after(1.0, work)

    def _expect(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.cluster.checks.fail(sim_checks.LIVENESS, f"{otherwise}: {self.cluster.where()}")
            self.cluster.run(0.0)

    # ---- load

    def _load(self) -> None:
        if self._is_loaded:
            self.clients.put_firing()
            for _ in range(self._writes_now()):
                self.clients.write_something()
            if self._dice.random() < 0.01:
                self.clients.run_many(self._dice.randint(20, 100))
            seconds = QUIET_WRITE_SECONDS if self._is_over else WRITE_SECONDS
            self.cluster.conductor.after(seconds * self._dice.uniform(0.5, 1.5), self._load)

    def _writes_now(self) -> int:
        """One, or more where the faults have left too little time for writes so far."""
        passed = min(1.0, self.cluster.now / (FORM_SECONDS + FAULT_SECONDS))
        missing = 1.3 * ENOUGH_ACKNOWLEDGED * passed - self.cluster.counts["acknowledged"]
        return 1 if missing < 0 else 3 if missing < 40 else 8

    def _conserve(self) -> None:
        """The counters of all jobs, on whichever node; and what the disks hold."""
        for life in self.cluster.lives.values():
            if life.is_started:
                self.cluster.checks.conserve(life.machine.state)
                break
        for name, life in self.cluster.lives.items():
            if life.is_started:
                self.cluster.checks.watched(name, life.node.conservation)
        self.cluster.checks.still_durable()
        self._look_for_late_ones()
        self.cluster.conductor.after(CONSERVE_SECONDS, self._conserve)

    def _look_for_late_ones(self) -> None:
        """What is owed is decided in time while all is well (I8)."""
        leaders = self.clients.leaders()
        late = self._lateness.late(self._calm(), leaders[0] if leaders else None)
        self.cluster.counts["looks for late times"] = self._lateness.looks
        if late is not None:
            self.cluster.checks.fail(sim_checks.I8, late)

    def _calm(self) -> object:
        """While nothing is wrong: what it is that goes on.  Else None."""
        cluster, leaders = self.cluster, self.clients.leaders()
        lives, network = [cluster.lives.get(name) for name in cluster.names], cluster.network
        is_well = (
            len(leaders) == 1
            and all(life is not None and life.is_started and not life.is_ending for life in lives)
            and all(life is not None and life.loop.busy_until <= cluster.now for life in lives)
            and not (self._held or self._operator.is_busy or self.wrong_clocks.wrong or network.cuts or network.slow)
            and all(disk.free_bytes is None and disk.sync_seconds < 0.001 for disk in cluster.disks.values())
        )
        # A step within the skew is no fault, but what was due by the former time is not what is due by the new one.
        offsets = tuple(clock.offset for clock in cluster.clocks.values())
        return (leaders[0].name, leaders[0].number, leaders[0].log.leading_epoch, offsets) if is_well else None

    def _reads(self) -> None:
        if self._is_loaded:
            self.clients.read_something()
            self.cluster.conductor.after(READ_SECONDS * self._dice.uniform(0.5, 1.5), self._reads)

    def _delete_jobs(self) -> None:
        """What is not deleted by the first attempt (its job has just changed) is by a later one."""
        cluster = self.cluster
        if any(life.machine.state.jobs for life in self.clients.leaders()) or not self.clients.leaders():
            self.clients.delete_all()
            cluster.conductor.after(0.5, self._delete_jobs)

    # ---- the end of all faults

    def _heal(self) -> None:
        cluster = self.cluster
        self._is_over = True
        cluster.note("-", "all faults end")
        cluster.network.heal()
        self.wrong_clocks.right()
        for disk in cluster.disks.values():
            disk.free_bytes, disk.failing_syncs, disk.death_in, disk.sync_seconds = None, 0, None, 0.0002
        self.damage.end_rot()
        for life in cluster.lives.values():
            life.loop.resume()
        for box in cluster.boxes.values():
            box.resume_spawner()
        for name in cluster.names:
            self._up(name)

    def _up(self, name: str) -> None:
        """Boot, if nothing else is in mind with it."""
        cluster = self.cluster
        if name in cluster.names and name not in self._held and name not in cluster.lives:
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
        missing = [kind for kind in sorted(self._enabled) if kind not in self.kinds]
        kinds = missing if missing and len(self.kinds) < ENOUGH_KINDS else sorted(self._enabled)
        self._enabled[self._dice.choice(kinds)]()
        self.cluster.conductor.after(self._wait(), self._strike)

    def _happened(self, kind: str, where: str, what: str = "") -> None:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self.cluster.counts[f"fault: {kind}"] += 1
        self.cluster.note("-", f"{kind}: {where} {what}")

    def _someone(self) -> str | None:
        """A node that lives; the leader more often than the others."""
        cluster = self.cluster
        names = [name for name in cluster.lives if name in cluster.names and name not in self._held]
        leading = [life.name for life in self.clients.leaders() if life.name in names]
        if leading and self._dice.random() < 0.4:
            return self._dice.choice(leading)
        return self._dice.choice(names) if names else None

    def _down_seconds(self) -> float:
        return self._dice.choice([0.05, 0.5, 2.0, 2.0, 8.0]) * self._dice.uniform(0.5, 1.5)

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
        if self.kinds.get("power cut of all", 0) and self._dice.random() < 0.6:
            return
        self._happened("power cut of all", "")
        for name in list(self.cluster.names):
            if name in self.cluster.lives:
                self.cluster.cut_power(name)
            self._up_later(name, self._dice.uniform(0.1, 2.0))

    def _pause(self) -> None:
        if (name := self._someone()) is not None:
            seconds = self._dice.choice([0.2, 0.7, 1.5, 4.0, 12.0]) * self._dice.uniform(0.5, 1.5)
            self._happened("pause", name, f"{seconds:.2f} s")
            self.cluster.lives[name].loop.pause(seconds)

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

    def _upgrade(self) -> None:
        """A node goes on with the later release; now and then one is set back to this one."""
        name, releases = self._someone(), self.cluster.releases
        if name is None or not self.cluster.lives[name].is_started:
            return
        if releases[name] == LATER and self._dice.random() < 0.8:
            return
        releases[name] = THIS if releases[name] == LATER else LATER
        self._happened("upgrade", name, f"to release {releases[name]}")
        if self._dice.random() < 0.7:
            self.cluster.lives[name].end()
        else:
            self.cluster.kill(name)
            self._up_later(name, self._down_seconds())

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

    def _lagging_node(self) -> None:
        """A node stays away until a leader has forgotten what it lacks: it comes back by a snapshot."""
        if (name := self._someone()) is not None and (life := self.cluster.lives[name]).is_started:
            self._happened("lagging node", name)
            last = life.log._journal.last_index
            self.cluster.kill(name)
            self._held.add(name)
            self._until_forgotten(name, last, self.cluster.now + LAG_SECONDS)

    def _until_forgotten(self, name: str, last: int, latest: float) -> None:
        cluster = self.cluster
        if (
            self._is_over
            or cluster.now > latest
            or any(life.log._journal.first_index > last for life in self.clients.leaders())
        ):
            self._held.discard(name)
            self._up(name)
        else:
            cluster.conductor.after(0.2, self._until_forgotten, name, last, latest)

    def _change_of_members(self) -> None:
        """One is added, removed, or replaced; one at a time."""
        cluster, dice, operator = self.cluster, self._dice, self._operator
        if operator.is_busy or self._held or cluster.now > FORM_SECONDS + FAULT_SECONDS - LAST_CHANGE_SECONDS:
            return
        name, what = self._someone(), dice.choice(["add", "remove", "replace"])
        if what == "add" and cluster.spare:
            name = dice.choice(cluster.spare)
        elif name is None or len(cluster.names) < FEWEST_VOTERS:
            return  # of two voters none may be lost
        elif what != "remove" or (len(cluster.names) == FEWEST_VOTERS and dice.random() < 0.7):
            what = "replace"
        self._happened("change of members", name, what)
        cluster.counts[f"members: {what}"] += 1
        {"add": operator.add, "remove": operator.remove, "replace": operator.replace}[what](name)
