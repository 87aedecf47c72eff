"""I8 at the start of user code, under faults: what waits for nothing else starts a second after the failover is over.

Failover is measured in the story itself.  It is over when nothing that bears on it has changed any more: a leader is
in office that trusts its time, and it, a majority of the voters and the run's node live and hear each other, with
quick disks.  Faults may go on elsewhere; each that strikes anywhere begins the count anew.
"""

from __future__ import annotations

from typing import Any

from raftcron.core.model import ASSIGNED, CAUSE_SCHEDULE, ON_ALL, QUEUED, Run
from raftcron.core.state import State
from raftcron.testing import sim_checks
from raftcron.testing.sim_cluster import Cluster
from raftcron.testing.sim_faults import Faults

LOOK_SECONDS = 0.05
ALLOWED_MS = 1_000 + 1_000 * LOOK_SECONDS  # a look may come so much after what it sees
STALLED_SECONDS = 0.06  # whose process stands still for longer is not well; a quick disk keeps it for less
QUICK_SECONDS = 0.001  # of a sync
DRIFT_MS = 100  # by which trusted time follows the clocks without being another one
AT_ONCE = frozenset({"allow", "skip"})  # overlaps under which no run waits for another one of its job


class Lateness:
    """Looks often at what there is, and judges each first attempt of a scheduled run: as it starts, and as it waits."""

    def __init__(self, cluster: Cluster, faults: Faults) -> None:
        self._cluster = cluster
        self._faults = faults
        self._seen: object = None
        self._since = 0.0  # nothing has changed
        self._leader: Any = None
        self._others: set[str] = set()  # runs that were seen waiting for something else, under an earlier edit even
        self._well: frozenset[str] = frozenset()  # the leader and whom it can talk to; empty: they are too few

    def begin(self) -> None:
        """From now on."""
        self._cluster.checks.began = self._started
        self._look_again()

    def _look_again(self) -> None:
        self._look()
        if self._leader is not None:
            state = self._leader.machine.state
            is_full = bool(self._full(state))
            self._others.update(state.held)
            self._others.update(
                run.id for run in state.queued.values() if is_full or not self._goes_at_once(run, state)
            )
            for run in (*state.queued.values(), *(run for runs in state.on_node.values() for run in runs.values())):
                if run.state in (QUEUED, ASSIGNED) and (run.node or self._leader.name) in self._well:
                    self._judge(run, state, "waits")
        self._cluster.conductor.after(LOOK_SECONDS, self._look_again)

    def _started(self, node: str, run: Run, state: State) -> None:
        """User code of a node's own process has begun."""
        self._look()
        if node in self._well:
            self._cluster.counts["starts looked at for lateness"] += self._judge(run, state, "starts")

    def _judge(self, run: Run, state: State, does: str) -> bool:
        """Whether it counts; it fails where it is late."""
        if run.id in self._others or not self._goes_at_once(run, state):
            return False
        cluster = self._cluster
        due = max(run.due_at, cluster.checks.decisions.owed_since.get(run.uid, 0))  # a pause may have held it back
        late = min(self._leader.time.now_ms() - due, (cluster.now - self._since) * 1000)
        if late > ALLOWED_MS:
            what = f"{run.id} {does} ({run.state})"
            cluster.checks.fail(sim_checks.I8, f"{what} {late:.0f} ms after it was due and the failover was over")
        return True

    @staticmethod
    def _goes_at_once(run: Run, state: State) -> bool:
        """Whether it is a first attempt for a time that has just come, and waits for no turn, cap, pace, tag, part."""
        policy = state.policies.get(run.uid)
        return (
            policy is not None
            and policy.group is None
            and policy.overlap in AT_ONCE
            and policy.placement != ON_ALL
            and not policy.shards
            and not policy.tags
            and run.cause == CAUSE_SCHEDULE
            and run.attempt == 1
            and not run.moves
            and run.part is None
        )

    # ---- what bears on it

    def _look(self) -> None:
        cluster, network = self._cluster, self._cluster.network
        leaders = cluster.clients.leaders()
        leader = self._leader = max(leaders, key=lambda life: life.log.leading_epoch or 0, default=None)
        lives = {
            name: (life.number, life.is_started, life.is_ending, self._is_stalled(name))
            for name, life in cluster.lives.items()
        }
        disks = {name: (disk.free_bytes, disk.sync_seconds) for name, disk in cluster.disks.items()}
        seen = (
            sum(self._faults.kinds.values()),
            self._faults.operator.is_busy,
            len(leaders),
            None if leader is None else (leader.name, leader.number, leader.log.leading_epoch, self._time_of(leader)),
            lives,
            disks,
            set(network.cuts),
            dict(network.slow),
            [clock.wall_offset for clock in cluster.clocks.values()],
            [] if leader is None else self._full(leader.machine.state),
        )
        if seen != self._seen:
            self._seen, self._since = seen, cluster.now
        self._well = frozenset()
        if leader is None or len(leaders) > 1 or not leader.time.may_decide or self._full(leader.machine.state):
            return
        well = {
            name
            for name, life in cluster.lives.items()
            if life.is_started
            and not life.is_ending
            and not self._is_stalled(name)
            and disks[name][0] is None
            and disks[name][1] < QUICK_SECONDS
            and not {(name, leader.name), (leader.name, name)} & (network.cuts | network.slow.keys())
        }
        voters = cluster.checks.voters
        if leader.name in well and len(voters & well) > len(voters) // 2:
            self._well = frozenset(well)

    def _is_stalled(self, name: str) -> bool:
        return self._cluster.lives[name].loop.busy_until > self._cluster.now + STALLED_SECONDS

    @staticmethod
    def _time_of(leader: Any) -> tuple[bool, int | None]:
        ahead_ms = leader.time.ahead_ms
        return leader.time.may_decide, None if ahead_ms is None else ahead_ms // DRIFT_MS

    @staticmethod
    def _full(state: State) -> list[str]:
        """Nodes without a slot left, or drained: who waits then waits for that."""
        nodes = state.nodes.items()
        return [name for name, node in nodes if node.drained or len(state.on_node.get(name, ())) >= node.slots]
