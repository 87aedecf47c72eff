"""One seed's course of events: a cluster forms, meets load and faults, then all heals, and what must hold then.

Which faults those are, and when they strike, is sim_faults.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from raftcron.core.model import ENDED
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing import sim_checks
from raftcron.testing.chance import chance
from raftcron.testing.sim_checks import Violation
from raftcron.testing.sim_clocks import Undecided
from raftcron.testing.sim_cluster import Cluster
from raftcron.testing.sim_faults import ENOUGH_KINDS, KINDS, Faults
from raftcron.testing.sim_lateness import Lateness

FORM_SECONDS = 5.0
FAULT_SECONDS = 45.0
QUIET_SECONDS = 30.0
LEADER_SECONDS = 5.0  # after all has healed
WRITE_SECONDS = 0.12
QUIET_WRITE_SECONDS = 0.5
READ_SECONDS = 0.15
CONSERVE_SECONDS = 0.7
ASKING_SHARE = 0.6  # of the seeds: runs of the past and runs again are asked for, and targets take runs over
SPAWNERS_SHARE = 0.5  # of the seeds, in which a spawner a node runs commands
RULES_SHARE = 0.5  # of the seeds, in which jobs say, and clients ask for, what few do (sim_rarer.py)
MIXED_SHARE = 0.5  # of the seeds in which runs go anywhere: their jobs overlap, miss and follow in all ways

ENOUGH_SECONDS = 60.0
ENOUGH_ACKNOWLEDGED = 200

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
    "flipped writes cut off",
    "flipped writes of snapshots found out",
    "flipped writes refused",
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
    "calendars written",
    "drains begun",
    "drains ended",
    "jobs that have had all their runs",
    "rule: calendars",
    "rule: from last_end",
    "rule: isolation continue",
    "rule: jitter",
    "rule: join all",
    "rule: max_runs",
    "rule: pause until",
    "rule: resume with catch_up",
    "rule: retry.on broken",
    "rule: retry.on timed_out",
    "rule: skip next",
    "rule: start_at, end_at",
    "rule: start_deadline (deadline)",
    "rule: tags",
    "looks for late times",
    "starts looked at for lateness",
    "leads handed over for the time",
    "trusted time went forward",
    "trusted time went backward",
    "entries Lose",
    "guard: append of a former term",
    "guard: answer of another term",
    "guard: conflict cut",
    "guard: does not stand (no voter)",
    "guard: echo not counted (former term)",
    "guard: echo not counted (late)",
    "guard: entry forgotten",
    "guard: entry missing",
    "guard: held entries skipped",
    "guard: late refusal",
    "guard: not admitted (another directory)",
    "guard: not admitted (removed)",
    "guard: pre-vote refused (both stand)",
    "guard: pre-vote refused (hears the leader)",
    "guard: pre-vote refused (leads itself)",
    "guard: pre-vote refused (log lacks something)",
    "guard: pre-vote refused (no vote to give)",
    "guard: pre-vote refused (term is not new)",
    "guard: rewound",
    "guard: snapshot covered by the log",
    "guard: start refused (past its deadline)",
    "guard: tail left alone",
    "guard: term differs",
    *(f"fault: {kind}" for kind in KINDS),
)

# What comes in one seed of ten to a hundred: a sweep of MANY_SEEDS has to have met it too.
SEEN_IN_MANY = (
    "guard: answer overtaken by a newer term",
    "guard: append of no member",
    "guard: echo not counted (newer term)",
    "guard: not admitted (stranger)",
    "guard: start refused (draining)",
    "guard: vote refused (no vote to give)",
)
MANY_SEEDS = 1_000


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
        return (
            self.virtual_seconds >= ENOUGH_SECONDS
            and len(self.kinds) >= ENOUGH_KINDS
            and self.counts["acknowledged"] >= ENOUGH_ACKNOWLEDGED
        )


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
        rules = chance(seed, "rules")
        is_rarer = script is None and rules.random() < RULES_SHARE
        has_spawners = script is None and chance(seed, "spawners").random() < SPAWNERS_SHARE
        self.cluster = Cluster(
            seed,
            size,
            times,
            trace,
            places if is_spread else None,
            mix if is_mixed else None,
            asks if is_asking else None,
            rules if is_rarer else None,
            has_spawners,
        )
        self.clients = self.cluster.clients
        self.faults = Faults(self.cluster, dice, has_spawners, latest=FORM_SECONDS + FAULT_SECONDS)
        owed_since = self.cluster.checks.decisions.owed_since
        self._undecided = Undecided(self.cluster.conductor, self.cluster.clocks, owed_since)
        self._lateness = Lateness(self.cluster, self.faults)
        self._is_loaded = True

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
            tuple(self.faults.kinds),
            cluster.now,
            cluster.trace_hash,
            tuple(cluster.lines),
            where,
        )

    def _play(self) -> None:
        cluster = self.cluster
        self._lateness.begin()
        if self._script is not None:
            self._script(self)
        else:
            self.form()
            self.faults.begin()
            cluster.run(FAULT_SECONDS)
        self.faults.end()
        if self.clients.rarer is not None:
            self.clients.rarer.is_over = True
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
            self.faults.wrong_clocks.set(name, self.faults.wrong_clocks.skew())
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
            self.cluster.checks.fail(sim_checks.LIVENESS, f"{otherwise}; the nodes stand thus: {self.cluster.where()}")
            self.cluster.run(0.0)

    # ---- load

    def _load(self) -> None:
        if self._is_loaded:
            self.clients.put_firing()
            for _ in range(self._writes_now()):
                self.clients.write_something()
            if self._dice.random() < 0.01:
                self.clients.run_many(self._dice.randint(20, 100))
            seconds = QUIET_WRITE_SECONDS if self.faults.are_over else WRITE_SECONDS
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
        late = self._undecided.late(self._calm(), leaders[0] if leaders else None)
        self.cluster.counts["looks for late times"] = self._undecided.looks
        if late is not None:
            self.cluster.checks.fail(sim_checks.I8, f"all is well, and {late}")

    def _calm(self) -> object:
        """While nothing is wrong: what it is that goes on.  Else None."""
        cluster, leaders = self.cluster, self.clients.leaders()
        lives, network = [cluster.lives.get(name) for name in cluster.names], cluster.network
        is_well = (
            len(leaders) == 1
            and all(life is not None and life.is_started and not life.is_ending for life in lives)
            and all(life is not None and life.loop.busy_until <= cluster.now for life in lives)
            and not (self.faults.are_at_work or network.cuts or network.slow)
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
