"""From parsed cron fields to the next or previous wall-clock second that they allow; knows no zones.

croniter walks the clock.  The days, of which it lacks some and reads others otherwise than raftcron (semantics.md
section 8), are decided by the Calendar here: rules that depend on the month (`L`, `15W`, `5#2`), years, and
day-of-month together with day-of-week.  Wall-clock seconds are counted since 1970-01-01T00:00:00 of the clock on the
wall.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import threading
from collections.abc import Iterator
from datetime import date

from croniter import CroniterBadDateError, croniter

from raftcron.core.cron import HOUR, LAST, MINUTE, SECOND, CronFields, Field

CRONITER_VERSION = importlib.metadata.version("croniter")

DAY_S = 86_400
EPOCH_ORDINAL = 719_163  # date(1970, 1, 1).toordinal()
# No combination of day, month and weekday is rarer than once in 40 years (a 29 February across a year like 2100).
HORIZON_YEARS = 50
MIN_WALL_S = (1 - EPOCH_ORDINAL) * DAY_S
MAX_WALL_S = (date.max.toordinal() - EPOCH_ORDINAL + 1) * DAY_S - 1
# croniter's own arithmetic must not run over the ends of the calendar.
_CRONITER_RANGE = range(MIN_WALL_S + 100 * 366 * DAY_S, MAX_WALL_S - 100 * 366 * DAY_S)


class Calendar:
    """Which days match the fields.  Days are counted since 1970-01-01."""

    def __init__(self, fields: CronFields) -> None:
        self.fields = fields
        self._months = frozenset(fields.months)
        self._years = None if fields.years is None else frozenset(fields.years)
        self._masks: dict[tuple[int, int], int] = {}

    def matches(self, day: int) -> bool:
        """Whether this day matches; False outside the years 1 to 9999."""
        ordinal = day + EPOCH_ORDINAL
        if not 1 <= ordinal <= date.max.toordinal():
            return False
        when = date.fromordinal(ordinal)
        return bool(self.month_mask(when.year, when.month) >> when.day & 1)

    def month_mask(self, year: int, month: int) -> int:
        """The matching days of a month as bits: bit 1 is the first."""
        if month not in self._months or (self._years is not None and year not in self._years):
            return 0
        first_weekday, length = month_shape(year, month)
        mask = self._masks.get((first_weekday, length))
        if mask is None:
            mask = self._masks[first_weekday, length] = self._mask(first_weekday, length)
        return mask

    def next_day(self, day: int) -> int | None:
        """The first matching day from `day` on, or None: not within HORIZON_YEARS, which means never."""
        ordinal = max(day + EPOCH_ORDINAL, 1)
        if ordinal > date.max.toordinal():
            return None
        start = date.fromordinal(ordinal)
        from_day = start.day
        for year in self._years_from(start.year, 1):
            for month in self.fields.months:
                if year == start.year and month < start.month:
                    continue
                mask = self.month_mask(year, month)
                if year == start.year and month == start.month:
                    mask = mask >> from_day << from_day
                if mask:
                    first = (mask & -mask).bit_length() - 1
                    return date(year, month, first).toordinal() - EPOCH_ORDINAL
        return None

    def previous_day(self, day: int) -> int | None:
        """The last matching day up to `day`, or None: not within HORIZON_YEARS, which means never."""
        ordinal = min(day + EPOCH_ORDINAL, date.max.toordinal())
        if ordinal < 1:
            return None
        start = date.fromordinal(ordinal)
        for year in self._years_from(start.year, -1):
            for month in reversed(self.fields.months):
                if year == start.year and month > start.month:
                    continue
                mask = self.month_mask(year, month)
                if year == start.year and month == start.month:
                    mask &= (2 << start.day) - 1
                if mask:
                    return date(year, month, mask.bit_length() - 1).toordinal() - EPOCH_ORDINAL
        return None

    def _years_from(self, year: int, direction: int) -> Iterator[int]:
        """The years that a search from `year` has to look at, nearest first."""
        if self._years is None:
            stop = year + direction * (HORIZON_YEARS + 1)
            return iter(range(year, min(stop, date.max.year + 1) if direction > 0 else max(stop, 0), direction))
        years = sorted(y for y in self._years if (y - year) * direction >= 0)
        return iter(years if direction > 0 else reversed(years))

    def _mask(self, first_weekday: int, length: int) -> int:
        """The matching days of a month of this shape, months and years aside."""
        fields = self.fields
        by_day = 0
        for day in fields.days:
            if day <= length:
                by_day |= 1 << day
        for rule in fields.day_rules:
            target = length - rule.number if rule.from_end else rule.number
            if 1 <= target <= length:
                by_day |= 1 << (_nearest_weekday(target, first_weekday, length) if rule.nearest_weekday else target)
        by_weekday = 0
        for weekday in fields.weekdays:
            for day in range(1 + (weekday - first_weekday) % 7, length + 1, 7):
                by_weekday |= 1 << day
        for weekday, nth in fields.nth_weekdays:
            first = 1 + (weekday - first_weekday) % 7
            day = first + (length - first) // 7 * 7 if nth == LAST else first + (nth - 1) * 7
            if day <= length:
                by_weekday |= 1 << day
        return by_day & by_weekday if fields.day_and else by_day | by_weekday


class Walk:
    """The wall-clock seconds that the fields allow, in both directions.

    `calendar_only` keeps croniter to the time of day.  One croniter object, made when it is first needed (a time that
    comes once a day needs none), is reused under a lock, since nodes that share a process share the walk.
    """

    def __init__(self, fields: CronFields, *, calendar_only: bool = False) -> None:
        self.fields = fields
        self.calendar = Calendar(fields)
        # Where every day matches and has several times croniter walks on from day to day by itself; to look for days it
        # takes 50 times as long as the calendar does.
        self.plain = (
            not calendar_only
            and (len(fields.days), len(fields.months), len(fields.weekdays), fields.years) == (31, 12, 7, None)
            and len(fields.hours) * len(fields.minutes) * len(fields.seconds) > 1
        )
        self.first_clock = (fields.hours[0] * 60 + fields.minutes[0]) * 60 + fields.seconds[0]
        self.last_clock = (fields.hours[-1] * 60 + fields.minutes[-1]) * 60 + fields.seconds[-1]
        self._croniter: croniter | None = None
        self._lock = threading.Lock()

    def first_from(self, wall: int) -> int | None:
        """The first allowed second at or after `wall`; None: never again."""
        if self.plain and wall in _CRONITER_RANGE:
            return self._croniter_next(wall - 1)
        day = wall // DAY_S
        if self.calendar.matches(day):
            found = self._first_clock_from(wall)
            if found is not None:
                return found
        next_day = self.calendar.next_day(day + 1)
        return None if next_day is None else next_day * DAY_S + self.first_clock

    def last_before(self, wall: int) -> int | None:
        """The last allowed second before `wall`; None: never earlier."""
        if self.plain and wall in _CRONITER_RANGE:
            return self._croniter_previous(wall)
        day = (wall - 1) // DAY_S
        if self.calendar.matches(day):
            found = self._last_clock_before(wall)
            if found is not None:
                return found
        previous_day = self.calendar.previous_day(day - 1)
        return None if previous_day is None else previous_day * DAY_S + self.last_clock

    def _first_clock_from(self, wall: int) -> int | None:
        """The first allowed time of day at or after `wall` on its own day."""
        start = wall - wall % DAY_S
        clock = wall - start
        if clock <= self.first_clock:
            return start + self.first_clock
        if clock > self.last_clock:
            return None
        # Asked about one fixed day: only the time of day matters, and no date runs over the calendar's ends.
        found = self._croniter_next(clock - 1)
        assert found is not None and found <= self.last_clock
        return start + found

    def _last_clock_before(self, wall: int) -> int | None:
        """The last allowed time of day before `wall` on the day that ends there or holds it."""
        start = (wall - 1) // DAY_S * DAY_S
        clock = wall - start
        if clock > self.last_clock:
            return start + self.last_clock
        if clock <= self.first_clock:
            return None
        found = self._croniter_previous(clock)
        assert found is not None and found >= self.first_clock
        return start + found

    def _croniter_next(self, wall: int) -> int | None:
        with self._lock:
            try:
                return int(self._at(wall).get_next(float))
            except CroniterBadDateError:
                return None

    def _croniter_previous(self, wall: int) -> int | None:
        with self._lock:
            try:
                return int(self._at(wall).get_prev(float))
            except CroniterBadDateError:
                return None

    def _at(self, wall: int) -> croniter:
        """croniter, set to an instant; for whoever holds the lock."""
        if self._croniter is None:
            fields = self.fields
            clock = ((SECOND, fields.seconds), (MINUTE, fields.minutes), (HOUR, fields.hours))
            text = " ".join([*(_croniter_text(field, numbers) for field, numbers in clock), "* * *"])
            self._croniter = croniter(text, 0.0, second_at_beginning=True)
        self._croniter.set_current(float(wall))
        return self._croniter


@functools.lru_cache(maxsize=16_384)  # a walk takes some 5 KB
def walk(fields: CronFields) -> Walk:
    """The walk of these fields; equal fields share one."""
    return Walk(fields)


@functools.cache  # 12 months in 14 shapes of a year, and at most 9,999 years
def _year_shape(year: int) -> tuple[tuple[int, int], ...]:
    starts = [date(year, month, 1).toordinal() for month in range(1, 13)] + [date(year, 12, 31).toordinal() + 1]
    return tuple((start % 7, after - start) for start, after in itertools.pairwise(starts))


def month_shape(year: int, month: int) -> tuple[int, int]:
    """The weekday of a month's first day (0 = Sunday) and its number of days."""
    return _year_shape(year)[month - 1]


def _nearest_weekday(day: int, first_weekday: int, length: int) -> int:
    """The Monday to Friday nearest to a day, inside its month."""
    weekday = (first_weekday + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day


def _croniter_text(field: Field, numbers: tuple[int, ...]) -> str:
    """A field of the clock as croniter reads it: plain numbers, or `*` for all of them."""
    return "*" if len(numbers) == field.high + 1 else ",".join(map(str, numbers))
