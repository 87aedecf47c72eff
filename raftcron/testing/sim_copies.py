"""A disk that is set back by exactly one life of its node, as by an old image of its machine; then it is replaced.

What the node has voted and confirmed since is forgotten, which no protocol survives.  So it happens only where that
cannot matter: all others hold what it held, in a term as high.  What its process makes of it is what is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from raftcron.testing import sim_checks
from raftcron.testing.chance import Chance
from raftcron.testing.sim_members import FEWEST_VOTERS, Operator

if TYPE_CHECKING:
    from raftcron.testing.sim_cluster import Cluster
    from raftcron.testing.sim_node import Life

LOOK_SECONDS = 0.3
ALL_SECONDS = 20.0  # before the faults end


class OldCopies:
    """Sets disks back, one at a time.  `held` are the machines that nobody else may start."""

    def __init__(
        self,
        cluster: Cluster,
        dice: Chance,
        held: set[str],
        operator: Operator,
        *,
        latest: float,
        someone: Callable[[], str | None],
        happened: Callable[[str, str], None],
        up_later: Callable[[str, float], None],
    ) -> None:
        """By `latest` the faults have ended."""
        self._cluster = cluster
        self._dice = dice
        self._held = held
        self._operator = operator
        self._latest = latest
        self._someone = someone
        self._happened = happened
        self._up_later = up_later

    def set_back(self) -> None:
        """A node dies, is copied and begins its next life; in the midst of that it dies, and the copy is its disk."""
        cluster = self._cluster
        name = self._someone()
        if name is None or self._held or self._operator.is_busy or len(cluster.names) < FEWEST_VOTERS:
            return
        if cluster.now > self._latest - ALL_SECONDS or not cluster.lives[name].is_started:
            return
        self._happened("disk set back", name)
        cluster.kill(name)
        self._held.add(name)
        copy = cluster.disks[name].copy()
        cluster.boot(name)
        cluster.conductor.after(self._dice.uniform(1.5, 6.0), self._exchange, name, copy)

    def _exchange(self, name: str, copy: dict[Path, bytes]) -> None:
        cluster = self._cluster
        life = cluster.lives.get(name)
        if life is None or not life.is_started or not life.node.is_ready or not is_held_by_all_others(cluster, name):
            cluster.counts["disks not set back"] += 1
            self._held.discard(name)
            self._up_later(name, LOOK_SECONDS)
            return
        cluster.kill(name)
        cluster.disks[name].set_back(copy)
        cluster.checks.set_back.add(name)
        cluster.may_fail.add(name)
        cluster.note("-", f"the disk of {name} is set back")
        cluster.boot(name)
        self._until_found_out(name, cluster.lives[name])

    def _until_found_out(self, name: str, life: Life) -> None:
        cluster = self._cluster
        if cluster.lives.get(name) is not life:
            cluster.counts["disks set back found out"] += "old copy" in str(life.fatal)
            self._operator.replace(name)
            self._until_replaced(name)
            return
        if life.is_started and life.node.is_ready:
            cluster.checks.fail(sim_checks.FATAL, f"{name} goes on with an old copy of its disk")
        elif cluster.now > self._latest + ALL_SECONDS / 2:
            cluster.checks.fail(sim_checks.LIVENESS, f"{name} does not find out that its disk is an old copy")
        cluster.conductor.after(LOOK_SECONDS, self._until_found_out, name, life)

    def _until_replaced(self, name: str) -> None:
        if self._operator.is_busy:
            self._cluster.conductor.after(LOOK_SECONDS, self._until_replaced, name)
        else:
            self._cluster.checks.set_back.discard(name)
            self._cluster.forgive(name)


def is_held_by_all_others(cluster: Cluster, name: str) -> bool:
    """Whether all others are up and hold durably what the node holds, and ask for no votes in terms that it knows."""
    durable = cluster.checks.durable
    own = durable[name]
    own.read()
    for other in cluster.names:
        log = durable[other]
        log.read()
        if other != name and (
            not own.terms
            or cluster.disks[other].is_aside
            or other not in cluster.lives
            or log.term < own.term
            or log.last < own.last
            or not log.holds(own.last, own.terms[-1])
        ):
            return False
    return True
