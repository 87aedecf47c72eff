"""The use-cases of exclusion calendars: what is written of them, in one entry with what their jobs owe until then."""

from __future__ import annotations

from typing import Any

from raftcron.core import exclusion, planner
from raftcron.core.commands import Command, Decision, DeleteCalendar, Done, PutCalendar
from raftcron.core.fields import name_fault
from raftcron.core.model import Calendar, Key
from raftcron.core.state import State
from raftcron.errors import Fault, InvalidError, NotFoundError
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.machine import Machine
from raftcron.runtime.small_bodies import counted
from raftcron.runtime.views import instant
from raftcron.runtime.writes import Precondition, Writes, taken


class Calendars:
    """All writes of calendars of one node; they run on the leader."""

    def __init__(self, *, machine: Machine, time: TrustedTime, writes: Writes) -> None:
        self._machine = machine
        self._time = time
        self._writes = writes

    async def put(self, name: str, body: Any, precondition: Precondition, key: Key | None) -> Done:
        """Create (201) or replace (200).  Raises InvalidError, RevisionError, ConflictError."""
        written, faults = exclusion.check(body, name)
        if (problem := name_fault(name)) is not None:
            faults = (Fault("/name", f"of the path: {problem}"), *faults)
        if faults:
            raise InvalidError(f"the calendar has {counted(len(faults))}; nothing was written", faults)
        stored = exclusion.canonical(written)

        def look() -> Command:
            calendar = self._machine.state.calendars.get(name)
            precondition.check(name, calendar, "calendar")
            now = self._time.now_ms()
            seen = None if calendar is None else calendar.revision
            return PutCalendar(name, stored, now, self._owed(name, now), seen, key, self._machine.state.index)

        return taken(await self._writes.write(key, look))

    async def delete(self, name: str, precondition: Precondition, key: Key | None) -> Done:
        """Raises NotFoundError, RevisionError, and ConflictError while a job names it."""

        def look() -> Command:
            calendar = self._machine.state.calendars.get(name)
            precondition.check(name, calendar, "calendar")
            if calendar is None:
                raise NotFoundError(f"there is no calendar {name[:200]!r}")
            return DeleteCalendar(name, calendar.revision, key)

        return taken(await self._writes.write(key, look))

    def _owed(self, name: str, now: int) -> list[Decision]:
        """What the jobs of a calendar owe until now, under what it says so far; a part of it where it is very much."""
        state, timeline = self._machine.state, self._machine.timeline
        decisions: list[Decision] = []
        for job in timeline.owing(map(state.by_uid.__getitem__, state.calendar_jobs.get(name, ())), now):
            decisions += planner.settle(job, state.policy(job.uid), timeline.group_of(job.uid), now, self._time.jump)
            if planner.is_part(decisions):
                break
        return decisions


def calendar_view(calendar: Calendar, state: State) -> dict[str, Any]:
    """A calendar as a JSON object; `jobs` is how many name it."""
    return {
        "name": calendar.name,
        **exclusion.expand(calendar.definition),
        "jobs": len(state.calendar_jobs.get(calendar.name, ())),
        "revision": calendar.revision,
        "created_at": instant(calendar.created_at),
        "updated_at": instant(calendar.updated_at),
    }
