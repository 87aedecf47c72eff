"""The scheduled times of one job: what its schedules name, from start_at to end_at, less what its calendars exclude.

No clock and no state: which of these times are decided is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftcron.core.exclusion import WHOLE_DAY, Exclusion
from raftcron.core.instant import MAX_MS, MIN_MS
from raftcron.core.model import Policy, Recurrence
from raftcron.core.policy import jitter_of
from raftcron.core.schedule import AtSchedule, CronSchedule, Dst, Schedule, next_of, parse, previous_of, summary_of
from raftcron.core.tally import Tally
from raftcron.core.zone import DAY_S

SEARCH_DAYS = 1_000  # days whose times are all excluded that a search passes before it answers "never"
CRON_WORK = 16  # to find a time of a cron expression, counted in jobs looked at
EXCLUSION_WORK = 32


def read_schedules(recurrence: Recurrence, name: str) -> tuple[Schedule, ...]:
    """The parsed schedules of the job `name`.  Raises ScheduleError if this node cannot read one of them."""
    dst = Dst(recurrence.gap, recurrence.fold)
    hash_key = name if recurrence.hash_key is None else recurrence.hash_key
    return tuple(parse(text, recurrence.timezone, dst=dst, hash_key=hash_key) for text in recurrence.schedules)


def schedules_of(policy: Policy, name: str = "") -> tuple[Schedule, ...]:
    """The same, of a policy."""
    return read_schedules(policy.recurrence, name)


class Times:
    """What `schedules` name, bounded and thinned.  `spacing_ms`: another time comes no sooner after any of them."""

    __slots__ = ("_spacing_ms", "_sums", "anchor", "end_at", "exclusions", "floor", "jitter_ms", "schedules",
                 "start_at", "work")  # fmt: skip

    def __init__(
        self,
        schedules: Sequence[Schedule],
        anchor: int = 0,
        *,
        start_at: int | None = None,
        end_at: int | None = None,
        exclusions: Sequence[Exclusion] = (),
        jitter_ms: int = 0,
        spacing_ms: int | None = None,
    ) -> None:
        self.schedules = tuple(schedules)
        self.anchor = anchor
        self.start_at = MIN_MS if start_at is None else start_at
        self.end_at = MAX_MS if end_at is None else end_at
        self.exclusions = tuple(sorted(exclusions, key=lambda exclusion: len(exclusion.fields)))  # the cheap ones first
        self.floor = max((exclusion.holds_from for exclusion in exclusions), default=0)  # what was before is over
        self.jitter_ms = jitter_ms
        self._spacing_ms = spacing_ms
        self._sums: Tally | None = None
        crons = sum(isinstance(schedule, CronSchedule) for schedule in self.schedules)
        self.work = 1 + CRON_WORK * crons + (EXCLUSION_WORK if exclusions else 0)  # of one `next`

    def next(self, after: int) -> int | None:
        """The first time strictly after an instant; None: never again, or not within SEARCH_DAYS excluded days."""
        at = next_of(self.schedules, max(after, self.start_at - 1), self.anchor)
        if at is not None and self.exclusions:
            at = self._first_allowed(at)
        return None if at is None or at > self.end_at else at

    def previous(self, before: int) -> int | None:
        """The last time strictly before an instant; None: there is none, or not within SEARCH_DAYS excluded days."""
        at = previous_of(self.schedules, min(before, self.end_at + 1), self.anchor)
        if at is not None and self.exclusions:
            at = self._last_allowed(at)
        return None if at is None or at < self.start_at else at

    def names(self, at: int) -> bool:
        """Whether an instant is one of the times."""
        return self.next(at - 1) == at

    def between(self, after: int, through: int, limit: int) -> list[int]:
        """The times in (after, through], oldest first, at most `limit`."""
        found: list[int] = []
        at = self.next(after)
        while at is not None and at <= through and len(found) < limit:
            found.append(at)
            at = self.next(at)
        return found

    def summary(self, after: int, through: int) -> tuple[int, int, int] | None:
        """First, last and number of the times in (after, through]; None if there are none.

        Cheap for any span: without exclusions no time is looked at one by one, with them no more than each day.
        """
        after, through = max(after, self.start_at - 1), min(through, self.end_at)
        if not self.exclusions:
            return summary_of(self.schedules, after, through, self.anchor)
        first, last = self.next(after), self.previous(through + 1)
        if first is None or last is None or first > through:
            return None
        return first, last, self._tally().count(first - 1, last)

    def due_at(self, uid: int, at: int, after: int | None) -> int:
        """When the job `uid` is due for its time `at`, of which the next one is `after`: the jitter keeps below it."""
        if not self.jitter_ms:
            return at
        spans = [self.jitter_ms]
        if after is not None:
            spans.append(after - at)
        if self._spacing_ms is not None:
            spans.append(self._spacing_ms)
        return at + jitter_of(uid, at, min(spans))

    def is_excluded(self, at: int) -> bool:
        """Whether a calendar excludes an instant."""
        return any(exclusion.covers(at) for exclusion in self.exclusions)

    def _first_allowed(self, at: int | None) -> int | None:
        """The first time from `at`, itself one that the schedules name, that no calendar excludes."""
        days = SEARCH_DAYS
        while days > 0:
            days -= 1
            if at is None or at > self.end_at or not self.is_excluded(at):
                return at
            midnight = _midnight(at)
            if self._is_day_excluded(midnight):  # cheap, and what long exclusions are made of
                while days > 0 and self._is_day_excluded(midnight + DAY_S):
                    midnight += DAY_S
                    days -= 1
            elif (found := self._tally().first(midnight, at)) is not None:
                return found
            at = next_of(self.schedules, (midnight + DAY_S) * 1000 - 1, self.anchor)
        return None

    def _last_allowed(self, at: int | None) -> int | None:
        days = SEARCH_DAYS
        while days > 0:
            days -= 1
            if at is None or at < self.start_at or not self.is_excluded(at):
                return at
            midnight = _midnight(at)
            if self._is_day_excluded(midnight):
                while days > 0 and self._is_day_excluded(midnight - DAY_S):
                    midnight -= DAY_S
                    days -= 1
            elif (found := self._tally().last(midnight, at)) is not None:
                return found
            at = previous_of(self.schedules, midnight * 1000, self.anchor)
        return None

    def _is_day_excluded(self, midnight: int) -> bool:
        """Whether nothing is left of the UTC day that begins at second `midnight`."""
        mask = 0
        for exclusion in self.exclusions:
            mask |= exclusion.day_mask(midnight)
            if mask == WHOLE_DAY:
                return True
        return False

    def _tally(self) -> Tally:
        """All of it, day by day."""
        if self._sums is None:
            self._sums = Tally()
            for schedule in dict.fromkeys(self.schedules):
                schedule.add_to(self._sums, self.anchor)
            for exclusion in self.exclusions:
                self._sums.exclude_days(exclusion.day_mask)
        return self._sums


def times_of(
    recurrence: Recurrence,
    schedules: Sequence[Schedule],
    anchor: int,
    exclusions: Sequence[Exclusion] = (),
    last_end: int | None = None,
    since: int = 0,
) -> Times:
    """The times of a job that keeps `anchor`.

    Of schedules `from last_end` one time at most is known, the first of last_end + k * interval after `since` that is
    not excluded: what follows depends on the end of its run.  None is while a run is active (`last_end` None).
    """
    start_at, end_at, jitter_ms = recurrence.start_at, recurrence.end_at, recurrence.jitter_ms
    if not recurrence.end_intervals:
        return Times(schedules, anchor, start_at=start_at, end_at=end_at, exclusions=exclusions, jitter_ms=jitter_ms)
    known = [schedule for schedule in schedules if not schedule.from_last_end]
    if last_end is not None:
        ends = [schedule for schedule in schedules if schedule.from_last_end]
        grid = Times(ends, last_end, start_at=start_at, end_at=end_at, exclusions=exclusions)
        at = grid.next(max(since, last_end))
        if at is not None:
            known.append(AtSchedule(ends[0].text, recurrence.timezone, at))
    return Times(
        known,
        anchor,
        start_at=start_at,
        end_at=end_at,
        exclusions=exclusions,
        jitter_ms=jitter_ms,
        spacing_ms=min(recurrence.end_intervals),
    )


def _midnight(at: int) -> int:
    second = at // 1000
    return second - second % DAY_S
