"""How many times were owed: the calendar's own count, against which everything that was decided is held.

This is the left side of the law of conservation (semantics.md section 3), so it shares nothing with the planner's
next, previous, between and summary but the parsed fields: it goes from the wall clock to UTC where they go from UTC
to the wall clock, it judges days by `datetime.date` and offsets by the standard library's ZoneInfo.  A regular day
of the wall clock is counted in closed form; only days on which the clock jumps are laid out, second by second, as
the bits of an integer.
"""

from __future__ import annotations

import calendar
import functools
import importlib.resources
import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from raftcron.core.cron import CronFields
from raftcron.core.exclusion import Exclusion, exclusion_of
from raftcron.core.model import Calendar, Job, Policy
from raftcron.core.schedule import AtSchedule, CronSchedule, EverySchedule, Schedule, ScheduleError
from raftcron.core.times import schedules_of

PART_DAYS = 200  # of a span, counted at once: about 2 ms; with exclusions a twentieth of it, for 1 to 6
PART_TIMES = 100  # counted at once where each is looked at by itself: about 4 ms
_DAY_S = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EPOCH = datetime(1970, 1, 1)
_LARGEST_CAUGHT_UP_S = 3 * 3600
# The count stops two days short of what datetime can hold.
_FIRST_S = (date.min.toordinal() + 2 - _EPOCH_DAY) * _DAY_S
_LAST_S = (date.max.toordinal() - 2 - _EPOCH_DAY) * _DAY_S


class Account(NamedTuple):
    """What is asked of the calendar about one job: the times of (after, through] under what the job says now."""

    schedules: tuple[Schedule, ...]
    anchor: int
    start_at: int | None
    end_at: int | None
    exclusions: tuple[Exclusion, ...]
    after: int
    through: int

    def parts(self) -> Iterator[int]:
        """The number of times, part by part: each takes some milliseconds at most.  Raises ScheduleError."""
        step = self._step_ms()
        for after in range(self.after, self.through, step):
            yield count(
                self.schedules,
                after,
                min(after + step, self.through),
                self.anchor,
                start_at=self.start_at,
                end_at=self.end_at,
                exclusions=self.exclusions,
            )

    @property
    def parts_count(self) -> int:
        """How many parts there are."""
        return -(-(self.through - self.after) // self._step_ms())

    def _step_ms(self) -> int:
        """The longest span that is counted at once: by days, and by times where those are looked at one by one."""
        step = (PART_DAYS // 20 if self.exclusions else PART_DAYS) * _DAY_S * 1000
        intervals = [schedule.interval_ms for schedule in self.schedules if isinstance(schedule, EverySchedule)]
        if intervals and (self.exclusions or len(self.schedules) > 1):
            step = min(step, PART_TIMES * min(intervals))
        return step


def account(job: Job, policy: Policy, calendars: Mapping[str, Calendar], editions_since: int = 0) -> Account | None:
    """What a job owed since it counts, and has passed.

    None where that cannot be told: `from last_end`, or something changed under the job (a calendar, the edition of the
    tz data) and its counters begin anew when it is looked at next.  `max_runs` needs no look: nothing passes after it.
    """
    recurrence = policy.recurrence
    changes = [editions_since, *(calendars[name].revision for name in recurrence.exclude)]
    if recurrence.end_intervals or max(changes) > job.counted_index:
        return None
    return Account(
        schedules_of(policy, job.name),
        job.anchor,
        recurrence.start_at,
        recurrence.end_at,
        tuple(exclusion_of(calendars[name]) for name in recurrence.exclude),
        job.counted_from,
        job.decided_through,
    )


def owed(job: Job, policy: Policy, calendars: Mapping[str, Calendar], editions_since: int = 0) -> int | None:
    """How many times that are: what the job fired and skipped, if nothing is lost.  None as `account`."""
    asked = account(job, policy, calendars, editions_since)
    return None if asked is None else sum(asked.parts())


def count(
    schedules: Sequence[Schedule],
    after_ms: int,
    through_ms: int,
    anchor_ms: int,
    *,
    start_at: int | None = None,
    end_at: int | None = None,
    exclusions: Sequence[Exclusion] = (),
) -> int:
    """The number of distinct times that the schedules of one job name in (after, through], milliseconds UTC.

    Only those from `start_at` to `end_at` count, and none that an exclusion covers.  `anchor_ms` is the job's anchor
    for `@every`.  Schedules `from last_end` cannot be recounted: ValueError.
    Some 5 microseconds a day, 100 with exclusions; where `@every` stands beside another schedule or an exclusion, some
    20 microseconds for each of its times.
    """
    if any(schedule.from_last_end for schedule in schedules):
        raise ValueError("a schedule `from last_end` has no calendar of its own; leave its job out")
    if start_at is not None:
        after_ms = max(after_ms, start_at - 1)
    if end_at is not None:
        through_ms = min(through_ms, end_at)
    if through_ms <= after_ms:
        return 0
    different = list(dict.fromkeys(schedules))
    crons = [schedule for schedule in different if isinstance(schedule, CronSchedule)]
    others = [schedule for schedule in different if isinstance(schedule, EverySchedule | AtSchedule)]
    if exclusions:
        return _count_allowed(crons, others, after_ms, through_ms, anchor_ms, exclusions)
    total = _count_crons(crons, after_ms // 1000 + 1, through_ms // 1000 + 1)
    if not others:
        return total
    if len(others) == 1 and not crons:
        return _count_other(others[0], after_ms, through_ms, anchor_ms)
    apart = {at for schedule in others for at in _each_other(schedule, after_ms, through_ms, anchor_ms)}
    return total + sum(at % 1000 != 0 or not _count_crons(crons, at // 1000, at // 1000 + 1) for at in apart)


def _count_other(schedule: EverySchedule | AtSchedule, after_ms: int, through_ms: int, anchor_ms: int) -> int:
    if isinstance(schedule, AtSchedule):
        return int(after_ms < schedule.at_ms <= through_ms)
    if schedule.anchor_ms is not None:
        anchor_ms = schedule.anchor_ms
    passed = [max(0, (at - anchor_ms) // schedule.interval_ms) for at in (after_ms, through_ms)]
    return passed[1] - passed[0]


def _each_other(schedule: EverySchedule | AtSchedule, after_ms: int, through_ms: int, anchor_ms: int) -> Iterator[int]:
    if isinstance(schedule, AtSchedule):
        if after_ms < schedule.at_ms <= through_ms:
            yield schedule.at_ms
        return
    if schedule.anchor_ms is not None:
        anchor_ms = schedule.anchor_ms
    k = max(1, (after_ms - anchor_ms) // schedule.interval_ms + 1)
    yield from range(anchor_ms + k * schedule.interval_ms, through_ms + 1, schedule.interval_ms)


def _count_crons(crons: list[CronSchedule], start: int, end: int) -> int:
    """Distinct times in the UTC seconds start <= t < end."""
    start, end = max(start, _FIRST_S), min(end, _LAST_S)
    if not crons or start >= end:
        return 0
    if len({cron.timezone for cron in crons}) > 1:
        raise ValueError("the schedules of one job share its time zone; these do not")
    zone = _zone(crons[0].timezone)
    total = 0
    # The days around a jump of the clock: UTC seconds as bits, bit 0 being the second laid_out_from.
    laid_out, laid_out_from = 0, 0
    after_jump = False
    # No zone is further than a day from UTC, and none jumps further than a day.
    for day in range(start // _DAY_S - 2, end // _DAY_S + 3):
        matching = [cron for cron in crons if _day_matches(cron.fields, date.fromordinal(day + _EPOCH_DAY))]
        offset = _offset_of_day(zone, day)
        # A time moved out of a gap may meet one of the next day, so that day is laid out too.
        if offset is None or after_jump:
            if not laid_out:
                laid_out_from = (day - 2) * _DAY_S
            for cron in matching:
                laid_out |= _lay_out(cron, zone, day, laid_out_from)
        else:
            total += _part(laid_out, start - laid_out_from, end - laid_out_from).bit_count()
            laid_out = 0
            if matching:
                midnight = day * _DAY_S - offset
                total += _count_regular_day(matching, start - midnight, end - midnight)
        after_jump = offset is None
    return total + _part(laid_out, start - laid_out_from, end - laid_out_from).bit_count()


def _count_regular_day(crons: list[CronSchedule], start: int, end: int) -> int:
    """Times of day start <= t < end that any of the schedules names on a day that all of them match."""
    if start <= 0 and end >= _DAY_S:
        if len(crons) == 1:
            fields = crons[0].fields
            return len(fields.hours) * len(fields.minutes) * len(fields.seconds)
        return _clock_of_all(tuple(cron.fields for cron in crons)).bit_count()
    return _part(_clock_of_all(tuple(cron.fields for cron in crons)), start, end).bit_count()


@functools.lru_cache(maxsize=512)  # 11 KB each
def _clock_of_all(fields: tuple[CronFields, ...]) -> int:
    """The times of day that any of these name, as bits, bit 0 being midnight."""
    if len(fields) > 1:
        return _clock_of_all(fields[:1]) | _clock_of_all(fields[1:])
    clock = 0
    minute = sum(1 << second for second in fields[0].seconds)
    for hour in fields[0].hours:
        for number in fields[0].minutes:
            clock |= minute << (hour * 60 + number) * 60
    return clock


def _part(bits: int, start: int, end: int) -> int:
    """Only the bits start <= i < end."""
    if end <= 0 or start >= bits.bit_length():
        return 0
    return (bits if end >= bits.bit_length() else bits & ((1 << end) - 1)) >> max(start, 0)


# ---- exclusions --------------------------------------------------------------------------------------------------


def _count_allowed(
    crons: list[CronSchedule],
    others: list[EverySchedule | AtSchedule],
    after_ms: int,
    through_ms: int,
    anchor_ms: int,
    exclusions: Sequence[Exclusion],
) -> int:
    """The same where something is excluded: each UTC day is laid out, each `@every` looked at one by one."""
    apart = {at for schedule in others for at in _each_other(schedule, after_ms, through_ms, anchor_ms)}
    total = sum(
        not any(_covers(exclusion, at) for exclusion in exclusions)
        and (at % 1000 != 0 or not _count_crons(crons, at // 1000, at // 1000 + 1))
        for at in apart
    )
    start, end = max(after_ms // 1000 + 1, _FIRST_S), min(through_ms // 1000 + 1, _LAST_S)
    named = {day: _named_on(crons, day) for day in range(start // _DAY_S - 2, start // _DAY_S + 2)}
    excluded = {day: _excluded_on(exclusions, day) for day in named}
    for day in range(start // _DAY_S, end // _DAY_S + 1) if crons else ():
        named[day + 2], excluded[day + 2] = _named_on(crons, day + 2), _excluded_on(exclusions, day + 2)
        # Bit 0 of a wall-clock day is the UTC second two days before it.
        bits = _around(named, day) & ~_around(excluded, day)
        total += _part(bits, max(start - day * _DAY_S, 0), min(end - day * _DAY_S, _DAY_S)).bit_count()
        del named[day - 2], excluded[day - 2]
    return total


def _around(laid_out: dict[int, int], day: int) -> int:
    """What the wall-clock days around a UTC day have on it and behind it, bit 0 being its first second."""
    found = 0
    for wall_day, bits in laid_out.items():
        shift = (wall_day - 2 - day) * _DAY_S
        found |= bits << shift if shift >= 0 else bits >> -shift
    return found


def _named_on(crons: list[CronSchedule], day: int) -> int:
    when = date.fromordinal(day + _EPOCH_DAY)
    found = 0
    for cron in crons:
        if _day_matches(cron.fields, when):
            found |= _lay_out(cron, _zone(cron.timezone), day, (day - 2) * _DAY_S)
    return found


def _excluded_on(exclusions: Sequence[Exclusion], day: int) -> int:
    """What is excluded of a wall-clock day: each time that the clock shows, on each pass, and nothing in a gap."""
    origin, midnight = (day - 2) * _DAY_S, day * _DAY_S
    found = 0
    for exclusion in exclusions:
        clock = (1 << _DAY_S) - 1 if day in exclusion.dates else 0
        for fields in exclusion.fields:
            if _day_matches(fields, date.fromordinal(day + _EPOCH_DAY)):
                clock |= _clock_of_all((fields,))
        for lo, hi, first, second in _spans(_zone(exclusion.timezone), midnight, midnight + _DAY_S) if clock else ():
            if first >= second:
                shown = (clock & ((1 << hi - midnight) - 1)) >> (lo - midnight)
                found |= shown << (lo - first - origin) | shown << (lo - second - origin)
    return found


def _covers(exclusion: Exclusion, at_ms: int) -> bool:
    """Whether the clock on the wall shows something that is excluded."""
    wall = (_EPOCH + timedelta(seconds=at_ms // 1000)).replace(tzinfo=UTC).astimezone(_zone(exclusion.timezone))
    return wall.date().toordinal() - _EPOCH_DAY in exclusion.dates or any(
        wall.hour in fields.hours
        and wall.minute in fields.minutes
        and wall.second in fields.seconds
        and _day_matches(fields, wall.date())
        for fields in exclusion.fields
    )


# ---- a day on which the clock jumps ------------------------------------------------------------------------------


def _lay_out(cron: CronSchedule, zone: ZoneInfo, day: int, origin: int) -> int:
    """One schedule's times on one matching wall-clock day as bits: UTC seconds from `origin` on."""
    clock = _clock_of_all((cron.fields,))
    midnight = day * _DAY_S
    found = 0
    for lo, hi, first, second in _spans(zone, midnight, midnight + _DAY_S):
        named = (clock & ((1 << hi - midnight) - 1)) >> (lo - midnight)
        if not named:
            continue
        if first >= second:  # an ordinary stretch, or one that the clock shows twice
            fold = "both" if cron.fields.wildcard else cron.dst.fold
            if fold in ("first", "both"):
                found |= named << (lo - first - origin)
            if fold in ("last", "both"):
                found |= named << (lo - second - origin)
        elif not cron.fields.wildcard and cron.dst.gap == "run_after" and second - first <= _LARGEST_CAUGHT_UP_S:
            found |= 1 << (_gap_end(zone, lo, first, second) - origin)
    return found


def _spans(zone: ZoneInfo, lo: int, hi: int) -> Iterator[tuple[int, int, int, int]]:
    """(lo, hi, first, second): wall-clock seconds of one pair of offsets, that of the first pass and of the second."""
    pair = _offsets(zone, lo)
    if pair == _offsets(zone, hi - 1):
        yield lo, hi, *pair
        return
    middle = (lo + hi) // 2
    yield from _spans(zone, lo, middle)
    yield from _spans(zone, middle, hi)


def _gap_end(zone: ZoneInfo, wall: int, first: int, second: int) -> int:
    """The UTC second at which the clock jumped over `wall`: the offset is `second` from then on."""
    lo, hi = wall - second, wall - first
    while hi - lo > 1:
        middle = (lo + hi) // 2
        local = (_EPOCH + timedelta(seconds=middle)).replace(tzinfo=UTC).astimezone(zone)
        if _seconds(local.utcoffset()) == second:
            hi = middle
        else:
            lo = middle
    return hi


def _offset_of_day(zone: ZoneInfo, day: int) -> int | None:
    """The offset of a whole wall-clock day, or None if the clock jumps on it or at its ends."""
    pair = _offsets(zone, day * _DAY_S)
    return pair[0] if pair[0] == pair[1] and pair == _offsets(zone, (day + 1) * _DAY_S) else None


def _offsets(zone: ZoneInfo, wall: int) -> tuple[int, int]:
    """The offsets of a wall-clock second on its first and on its second pass (PEP 495's fold)."""
    local = (_EPOCH + timedelta(seconds=wall)).replace(tzinfo=zone)
    return _seconds(local.utcoffset()), _seconds(local.replace(fold=1).utcoffset())


def _seconds(offset: timedelta | None) -> int:
    assert offset is not None
    return offset // timedelta(seconds=1)


@functools.lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    """A zone of the tzdata package; the machine's own files are never looked at.  ScheduleError if it has lost it."""
    try:
        data = importlib.resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).read_bytes()
        return ZoneInfo.from_file(io.BytesIO(data), key=name)
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise ScheduleError(f"the file of the time zone {name!r} cannot be read: {error!r}") from error


# ---- which days --------------------------------------------------------------------------------------------------


def _day_matches(fields: CronFields, day: date) -> bool:
    if day.month not in fields.months or (fields.years is not None and day.year not in fields.years):
        return False
    by_day, by_weekday = _by_day(fields, day), _by_weekday(fields, day)
    return by_day and by_weekday if fields.day_and else by_day or by_weekday


def _by_day(fields: CronFields, day: date) -> bool:
    if day.day in fields.days:
        return True
    length = calendar.monthrange(day.year, day.month)[1]
    for rule in fields.day_rules:
        number = length - rule.number if rule.from_end else rule.number
        if not 1 <= number <= length:
            continue
        target = day.replace(day=number)
        if rule.nearest_weekday and target.isoweekday() > 5:
            # Saturday looks to Friday first, Sunday to Monday; neither leaves the month.
            steps = (-1, 2) if target.isoweekday() == 6 else (1, -2)
            target = next(near for step in steps if (near := target + timedelta(days=step)).month == target.month)
        if target == day:
            return True
    return False


def _by_weekday(fields: CronFields, day: date) -> bool:
    weekday = day.isoweekday() % 7
    if weekday in fields.weekdays:
        return True
    nth = (day.day + 6) // 7
    is_last = (day + timedelta(days=7)).month != day.month
    return any(at == weekday and (n == nth or (n == -1 and is_last)) for at, n in fields.nth_weekdays)
