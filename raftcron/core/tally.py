"""How many times several schedules name together in a span, as the planner counts them; the ledger counts anew.

Seconds of a UTC day are the bits of one integer, so that a union is `|`, equal instants are one, and a day of
`* * * * * *` costs no more than a day of `@daily`: some 5 microseconds a day and schedule.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from raftcron.core.schedule import AtSchedule, CronSchedule, EverySchedule, Schedule

DAY_S = 86_400
_ONCE_S = 10**12  # the period of what happens once


@dataclass(frozen=True, slots=True)
class _Grid:
    """The instants first + k * period, k >= 0, in seconds."""

    first: int
    period: int

    def count(self, start: int, end: int) -> int:
        """How many lie in start <= t < end."""
        return max(0, -(-(end - self.first) // self.period)) - max(0, -(-(start - self.first) // self.period))

    def mask(self, start: int) -> int:
        """Those of the day that begins at `start`, bit 0 being `start`."""
        phase = self.first - start if start <= self.first else (self.first - start) % self.period
        return _every_nth_bit(self.period, -(-(DAY_S - phase) // self.period)) << phase if phase < DAY_S else 0


def count(schedules: Sequence[Schedule], after_ms: int, through_ms: int, anchor_ms: int) -> int:
    """The number of distinct times of all the schedules in (after, through]."""
    crons: list[CronSchedule] = []
    grids: defaultdict[int, set[_Grid]] = defaultdict(set)  # by their milliseconds within the second
    for schedule in dict.fromkeys(schedules):
        if isinstance(schedule, CronSchedule):
            crons.append(schedule)
        elif isinstance(schedule, EverySchedule):
            _add_every(grids, schedule.interval_ms, schedule.anchor(anchor_ms))
        elif isinstance(schedule, AtSchedule):
            grids[schedule.at_ms % 1000].add(_Grid(schedule.at_ms // 1000, _ONCE_S))
    total = 0
    for residue_ms in grids.keys() | ({0} if crons else set()):
        # The whole seconds t with after < t * 1000 + residue <= through.
        start = (after_ms - residue_ms) // 1000 + 1
        end = (through_ms - residue_ms) // 1000 + 1
        total += _count_seconds(crons if residue_ms == 0 else [], list(grids[residue_ms]), start, end)
    return total


def _add_every(grids: dict[int, set[_Grid]], interval_ms: int, anchor_ms: int) -> None:
    """An interval of 1.5 s is two grids of 3 s: split until every grid keeps to one millisecond of the second."""
    parts = 1000 // math.gcd(interval_ms, 1000)
    for k in range(1, parts + 1):
        first_ms = anchor_ms + k * interval_ms
        grids[first_ms % 1000].add(_Grid(first_ms // 1000, interval_ms * parts // 1000))


def _count_seconds(crons: list[CronSchedule], grids: list[_Grid], start: int, end: int) -> int:
    if start >= end:
        return 0
    if not crons and len(grids) == 1:
        return grids[0].count(start, end)
    total = 0
    for day in range(start // DAY_S, (end - 1) // DAY_S + 1):
        midnight = day * DAY_S
        mask = 0
        for cron in crons:
            mask |= _cron_mask(cron, midnight)
        for grid in grids:
            mask |= grid.mask(midnight)
        if midnight < start or midnight + DAY_S > end:
            mask = _cut(mask, start - midnight, end - midnight)
        total += mask.bit_count()
    return total


def _cron_mask(schedule: CronSchedule, midnight: int) -> int:
    """The UTC day that begins at `midnight`, bit 0 being that second."""
    clock = _clock_mask(schedule.fields.hours, schedule.fields.minutes, schedule.fields.seconds)
    calendar = schedule.walk.calendar
    end = midnight + DAY_S
    found = 0
    segment = schedule.zone.segment(midnight)
    while True:
        offset = segment.offset
        lo, hi = schedule.window(segment)
        lo, hi = max(lo, midnight + offset), min(hi, end + offset)
        for wall_day in range(lo // DAY_S, -(-hi // DAY_S)):
            if calendar.matches(wall_day):
                wall_midnight = wall_day * DAY_S
                mask = _cut(clock, lo - wall_midnight, hi - wall_midnight)
                shift = wall_midnight - offset - midnight
                found |= mask << shift if shift >= 0 else mask >> -shift
        if schedule.gap_before(segment) and segment.start >= midnight:
            wall = schedule.walk.first_from(segment.start + segment.before)
            if wall is not None and wall < segment.start + offset:
                found |= 1 << (segment.start - midnight)
        if segment.end >= end:
            return found
        segment = schedule.zone.segment(segment.end)


def _cut(mask: int, start: int, end: int) -> int:
    """The bits start <= i < end of a day's mask, where they are."""
    if start > 0:
        mask = mask >> start << start
    return mask & ((1 << max(end, 0)) - 1) if end < DAY_S else mask


@functools.lru_cache(maxsize=1024)  # 11 KB each
def _clock_mask(hours: tuple[int, ...], minutes: tuple[int, ...], seconds: tuple[int, ...]) -> int:
    minute = sum(1 << second for second in seconds)
    hour = sum(minute << 60 * number for number in minutes)
    return sum(hour << 3600 * number for number in hours)


@functools.lru_cache(maxsize=256)  # 11 KB each
def _every_nth_bit(period: int, bits: int) -> int:
    """`bits` set bits, one every `period`."""
    mask, have = 1, 1
    while have < bits:
        more = min(have, bits - have)
        mask |= (mask & ((1 << more * period) - 1)) << have * period
        have += more
    return mask
