"""Watches over the law of conservation while the cluster works: what a job owed is what it fired and skipped.

A follower takes job by job, counts anew from the calendar (core/ledger.py, which shares nothing with the planner), and
compares.  It also looks for jobs whose next time is undecided long after it was due: one that fell off the timeline
owes nothing by its own watermark.  Both figures are zero when all is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from raftcron.core.ledger import Account, account
from raftcron.core.model import Job
from raftcron.core.schedule import ScheduleError
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.machine import Machine

log = logging.getLogger(__name__)

STEP_SECONDS = 1.0
JOBS_PER_STEP = 20  # some 50 microseconds each for most, so the hundredth part of a core at most
SUSPECTS_MAX = 1_000  # jobs that were found wrong and are looked at again each step; beyond them they are only counted
PARTS_MAX = 500  # of one job's span, a few seconds of work in all; a job that needs more is left out
LATE_MS = 5_000  # an undecided time that was due longer ago than this is overdue


class Finding(NamedTuple):
    """What is wrong with a job."""

    difference: int  # fired and skipped, less what was owed
    overdue_since: int | None  # when its first undecided time was due, if that is long ago


class Conservation:
    """The watch of one node.

    `is_on_duty` says whether this node is to watch: a follower that holds what is committed, or whoever is alone.
    """

    def __init__(self, *, machine: Machine, time: TrustedTime, is_on_duty: Callable[[], bool]) -> None:
        self._machine = machine
        self._time = time
        self._is_on_duty = is_on_duty
        self._round: deque[int] = deque()  # uids that are still to be looked at
        self._found: dict[int, Finding] = {}  # by uid: what was wrong when it was last looked at
        self.checked = 0  # jobs that were recounted in this process's life
        self.left_out = 0  # jobs whose times cannot be recounted, or would take too long

    @property
    def difference(self) -> int:
        """Times that are too many or too few, over all jobs that were found wrong."""
        return sum(abs(finding.difference) for finding in self._found.values())

    @property
    def overdue(self) -> int:
        """Jobs with an undecided time that was due more than LATE_MS ago."""
        return sum(finding.overdue_since is not None for finding in self._found.values())

    async def run(self) -> None:
        """Look at some jobs each step; until cancelled."""
        while True:
            await asyncio.sleep(STEP_SECONDS)
            if self._is_on_duty():
                await self.step()
            else:
                self._found.clear()

    async def step(self, jobs: int = JOBS_PER_STEP) -> None:
        """Look at the next jobs, and again at those that were found wrong."""
        state = self._machine.state
        if not self._round:
            self._round.extend(state.by_uid)
        again = [uid for uid in self._found if uid not in state.by_uid or len(self._found) <= SUSPECTS_MAX]
        for uid in [*again, *(self._round.popleft() for _ in range(min(jobs, len(self._round))))]:
            job = self._machine.state.by_uid.get(uid)
            finding = None if job is None else await self.check(job)
            if finding is None:
                self._found.pop(uid, None)
            else:
                if self._found.get(uid) != finding and job is not None:
                    _tell(job, finding)
                self._found[uid] = finding
            await asyncio.sleep(0)

    async def check(self, job: Job) -> Finding | None:
        """What is wrong with one job; None if all is well, or cannot be told here."""
        state = self._machine.state
        editions = tuple(state.editions[name].version for name in ("croniter", "tzdata") if name in state.editions)
        if editions != self._machine.editions:
            return None  # the leader reckons with others
        policy = state.policy(job.uid)
        decided = job.fired + job.skipped  # before the first turn that is given up: of one index with the account
        overdue_since = self._overdue_since(job)
        try:
            owed = await self._owed(account(job, policy, state.calendars, state.editions_since))
        except ScheduleError:  # this node cannot read it
            owed = None
        if owed is None:
            self.left_out += 1
            return None if overdue_since is None else Finding(0, overdue_since)
        self.checked += 1
        if decided == owed and overdue_since is None:
            return None
        return Finding(decided - owed, overdue_since)

    @staticmethod
    async def _owed(asked: Account | None) -> int | None:
        """What a job owed; None if it cannot be told, or would take too long."""
        if asked is None or asked.parts_count > PARTS_MAX:
            return None
        owed = 0
        for part in asked.parts():
            owed += part
            await asyncio.sleep(0)
        return owed

    def _overdue_since(self, job: Job) -> int | None:
        """When the first undecided time of a job was due, if that is too long ago."""
        state, timeline = self._machine.state, self._machine.timeline
        policy = state.policy(job.uid)
        if job.paused or not self._time.may_decide or (policy.max_runs and job.fire_count >= policy.max_runs):
            return None
        try:
            times = timeline.times(job, policy)
        except ScheduleError:
            return None
        time = times.next(max(job.decided_through, times.floor))
        if time is None or time > self._time.now_ms() - LATE_MS:
            return None
        due_at = times.due_at(job.uid, time, times.next(time))
        return due_at if due_at < self._time.now_ms() - LATE_MS else None


def _tell(job: Job, finding: Finding) -> None:
    if finding.difference:
        log.error(
            "conservation_broken job=%s difference=%d fired=%d skipped=%d counted_from=%d through=%d",
            job.name, finding.difference, job.fired, job.skipped, job.counted_from, job.decided_through,
        )  # fmt: skip
    if finding.overdue_since is not None:
        log.warning(
            "decision_overdue job=%s due_at=%d through=%d", job.name, finding.overdue_since, job.decided_through
        )
