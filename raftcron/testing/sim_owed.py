"""What a job owes by the calendar, as of one entry of the log: the ledger counts it, and not the planner."""

from __future__ import annotations

from typing import NamedTuple

from raftcron.core.exclusion import Exclusion, exclusion_of
from raftcron.core.ledger import count
from raftcron.core.model import Job
from raftcron.core.schedule import Schedule
from raftcron.core.state import State
from raftcron.core.times import schedules_of


class Terms(NamedTuple):
    """What a definition and the calendars that it names say of a job's times."""

    schedules: tuple[Schedule, ...]
    anchor: int
    start_at: int | None
    end_at: int | None
    exclusions: tuple[Exclusion, ...]
    floor: int  # what a changed calendar said before is over up to here, though the watermark may lie behind it
    jitter_ms: int
    left: int | None  # how many runs `max_runs` still allows; None: any number
    interval_ms: int | None  # of a schedule `from last_end`, whose times follow from the ends of runs

    @property
    def is_bounded(self) -> bool:
        """Whether not all that its schedules name is owed."""
        return self.start_at is not None or self.end_at is not None or bool(self.exclusions)

    def owed(self, after: int, through: int) -> int | None:
        """The times in (after, through]; None: no calendar has them, since they follow from the ends of runs."""
        if self.interval_ms is not None:
            return None
        return count(
            self.schedules,
            max(after, self.floor),
            through,
            self.anchor,
            start_at=self.start_at,
            end_at=self.end_at,
            exclusions=self.exclusions,
        )

    def after_end(self, last_end: int, since: int) -> int | None:
        """The first time `from last_end` behind both instants; None: it lies beyond `end_at`.  Not for calendars."""
        assert self.interval_ms is not None, "its times follow from the ends of runs"
        since = max(since, last_end, last_end if self.start_at is None else self.start_at - 1)
        at = last_end + ((since - last_end) // self.interval_ms + 1) * self.interval_ms
        return None if self.end_at is not None and at > self.end_at else at


def terms_of(state: State, job: Job) -> Terms:
    """What holds of the job now."""
    policy = state.policies[job.uid]
    recurrence = policy.recurrence
    calendars = [state.calendars[name] for name in recurrence.exclude]
    return Terms(
        schedules_of(policy, job.name),
        job.anchor,
        recurrence.start_at,
        recurrence.end_at,
        tuple(map(exclusion_of, calendars)),
        max((one.holds_from for one in calendars if one.revision > job.counted_index), default=0),
        recurrence.jitter_ms,
        max(0, policy.max_runs - job.fire_count) if policy.max_runs else None,
        min(recurrence.end_intervals, default=None),
    )
