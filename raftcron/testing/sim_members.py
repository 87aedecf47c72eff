"""Who adds, removes and replaces members of a simulated cluster, as an operator does: one at a time, until it is done.

What has an unknown outcome, or cannot be done now, is asked again.  A machine whose disk was given up has lost it for
good; one that was removed is started again now and then, and must find out that it belongs no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from raftcron.errors import InvalidError, NotFoundError, RaftcronError
from raftcron.runtime.members import Members
from raftcron.testing import sim_checks
from raftcron.testing.chance import Chance
from raftcron.testing.sim_node import PORT

if TYPE_CHECKING:
    from raftcron.testing.sim_cluster import Cluster

ASK_SECONDS = 0.3  # from one attempt to the next
FEWEST_VOTERS = 3

Change = Callable[[Members], Awaitable[Any]]


class Operator:
    """At work on one change at a time.  `held` are the machines that nobody else may start."""

    def __init__(self, cluster: Cluster, dice: Chance, held: set[str], boot: Callable[[str], None]) -> None:
        self.is_busy = False
        self._cluster = cluster
        self._dice = dice
        self._held = held
        self._boot = boot
        self._asked: asyncio.Task[None] | None = None
        self._is_done = False  # what was asked for

    # ---- what is done

    def replace(self, name: str) -> None:
        """Its disk is lost; a new one takes its place."""
        cluster = self._cluster
        self._begin(name)
        cluster.kill(name)
        cluster.checks.durable[name].read()
        cluster.disks[name].wipe()
        cluster.disks[name].is_aside = True  # what was on it has counted until the cluster gives it up
        self._until_done(lambda members: members.replace(name, None), lambda: self._join(name))

    def remove(self, name: str) -> None:
        """It belongs no more; its process finds out."""
        self._begin(name)
        self._held.discard(name)
        self._until_done(lambda members: members.remove(name), lambda: self._removed(name))

    def add(self, name: str) -> None:
        """A machine that has nothing joins."""
        cluster = self._cluster
        self._begin(name)
        cluster.spare.remove(name)
        body = {"name": name, "raft": f"{cluster.network.hosts[name].address}:{PORT}"}
        self._until_done(lambda members: members.add(body), lambda: self._join(name))

    # ---- how

    def _begin(self, name: str) -> None:
        self.is_busy = True
        self._held.add(name)
        self._cluster.leaving.add(name)

    def _until_done(self, change: Change, then: Callable[[], None]) -> None:
        """Ask whoever leads, again and again."""
        if self._is_done:
            self._is_done = False
            then()
            return
        if self._asked is None or self._asked.done():
            leaders = self._cluster.clients.leaders()
            if leaders:
                life = self._dice.choice(leaders)
                self._asked = life.loop.create_task(self._ask(life.members, change))
        self._cluster.conductor.after(ASK_SECONDS, self._until_done, change, then)

    async def _ask(self, members: Members, change: Change) -> None:
        try:
            await change(members)
        except NotFoundError:
            self._is_done = True  # by an attempt whose outcome was not known
        except InvalidError as error:
            self._cluster.checks.fail(sim_checks.NOISE, f"what the operator asks for is not valid: {error}")
        except RaftcronError as error:
            self._cluster.counts[f"changes put off: {error.code}"] += 1
        else:
            self._is_done = True

    def _join(self, name: str) -> None:
        """Its seat is there, and awaits an empty directory."""
        cluster = self._cluster
        cluster.note("-", f"{name} has a seat")
        cluster.disks[name].wipe()
        if name not in cluster.names:
            cluster.names.append(name)
        cluster.leaving.discard(name)
        self._held.discard(name)
        self._boot(name)
        self._until_it_votes(name)

    def _until_it_votes(self, name: str) -> None:
        if name in self._cluster.checks.voters:
            self._cluster.note("-", f"{name} votes")
            self.is_busy = False
        else:
            self._cluster.conductor.after(ASK_SECONDS, self._until_it_votes, name)

    def _removed(self, name: str) -> None:
        cluster = self._cluster
        cluster.note("-", f"{name} belongs no more")
        with suppress(ValueError):
            cluster.names.remove(name)
        cluster.conductor.after(self._dice.uniform(0.0, 3.0), self._again, name)

    def _again(self, name: str) -> None:
        """It is started once more, as if nobody had told it."""
        if name not in self._cluster.lives:
            self._cluster.boot(name)
        self._cluster.conductor.after(3.0, self._end, name)

    def _end(self, name: str) -> None:
        cluster = self._cluster
        cluster.counts["removed ones that found out"] += name not in cluster.lives
        if name in cluster.lives:
            cluster.kill(name)
        cluster.disks[name].wipe()
        cluster.leaving.discard(name)
        cluster.spare.append(name)
        self.is_busy = False
