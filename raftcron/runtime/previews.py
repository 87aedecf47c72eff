"""What is ahead of a job, what a write would change of it, and why it fired or did not; writes nothing, on any node."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

from raftcron.core import definition
from raftcron.core.coming import Coming, ahead_of
from raftcron.core.explain import Note
from raftcron.core.lint import lint
from raftcron.core.model import Job, Policy
from raftcron.core.schedule import ScheduleError
from raftcron.core.times import Times
from raftcron.core.vault import differing
from raftcron.core.why import Answer
from raftcron.errors import ConflictError
from raftcron.runtime import forecast
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.forecast import Shift
from raftcron.runtime.machine import Machine
from raftcron.runtime.service import Service
from raftcron.runtime.views import job_fields
from raftcron.runtime.why import why
from raftcron.runtime.writes import Precondition

NEXT_SHOWN = 10  # coming times that a dry run shows


class Preview(NamedTuple):
    """What a PUT would do."""

    result: str  # created, replaced, or unchanged
    job: dict[str, Any]
    next: list[int]
    changes: list[dict[str, Any]]
    shift: Shift  # of the times to come; nothing is gained by a job that is new
    notes: list[Note]  # what may surprise about what is written


class Previews:
    """Such questions to one node; `service` judges what is written."""

    def __init__(self, *, machine: Machine, time: TrustedTime, service: Service) -> None:
        self._machine = machine
        self._time = time
        self._service = service

    async def preview(self, name: str, body: Any, precondition: Precondition) -> Preview:
        """What a PUT would do now; writes nothing, so any node can tell.  Raises as put_job."""
        job = self._machine.state.jobs.get(name)
        precondition.check(name, job)
        checked = self._service.checked(body, name, job)
        stored = definition.canonical(checked.written)
        before = {} if job is None else job_fields(name, job.definition, job.paused)
        paused = (False if job is None else job.paused) if checked.paused is None else checked.paused
        after = job_fields(name, stored, paused)
        changes = [
            {"pointer": f"/{field}", "from": before.get(field), "to": value}
            for field, value in after.items()
            if job is not None and before[field] != value
        ]
        if job is not None:
            former, latter = definition.executor_of(job.definition), checked.written["executor"]
            changes += [{"pointer": f"/executor{at}", "from": None, "to": None} for at in differing(former, latter)]
        result = "created" if job is None else "replaced" if changes else "unchanged"
        policy, now = definition.policy_of(stored), self._time.shown_ms()
        notes = lint(policy, name, now, self._service.thread_on(checked.written["executor"]))
        if job is None:
            ahead = forecast.begin(self._machine.state, name, policy, now)
            return Preview(result, after, [] if paused else _scheduled(ahead), changes, forecast.UNMOVED, notes)
        old = None if job.paused else self._known(job)
        new = None
        if not paused:
            future, times = forecast.edited(self._machine.state, job, policy, now)
            new = (future, policy, times)
        found = [] if new is None else _scheduled(ahead_of(*new, now))
        moved = await forecast.shift(old, new, now) if changes else forecast.UNMOVED
        return Preview(result, after, found, changes, moved, notes)

    async def coming(self, name: str, count: int) -> list[Coming]:
        """The next `count` times of a job, as far as they are known; none while it is paused.

        Raises NotFoundError; ConflictError where this node cannot tell its times.
        """
        job = self._service.found(name, self._machine.state.jobs.get(name))
        if job.paused:
            return []
        policy, times = self._machine.state.policy(job.uid), self._service.times(job)
        return await forecast.in_turns(ahead_of(job, policy, times, self._time.shown_ms()), count)

    async def why(self, name: str, at: int) -> Answer:
        """Why the job fired, or did not, or will, at an instant.

        Raises NotFoundError; ConflictError where this node cannot tell its times.
        """
        machine = self._machine
        job = self._service.found(name, machine.state.jobs.get(name))
        try:
            return await why(machine.state, machine.timeline, job, at, self._time.shown_ms())
        except ScheduleError as error:
            raise ConflictError(f"the times of job {job.name!r} cannot be told: {error}") from None

    def _known(self, job: Job) -> tuple[Job, Policy, Times] | None:
        """A job with its times; None where this node cannot tell them."""
        with contextlib.suppress(ConflictError):
            return job, self._machine.state.policy(job.uid), self._service.times(job)
        return None


def _scheduled(ahead: Iterable[Coming]) -> list[int]:
    return [one.scheduled_time for one in itertools.islice(ahead, NEXT_SHOWN)]
