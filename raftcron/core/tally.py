"""How many instants several sources name together in a span, for the planner's summaries; the ledger counts anew.

Seconds of a UTC day are the bits of one integer, so that a union is `|`, equal instants are one, and a day of
`* * * * * *` costs no more than a day of `@daily`: some 5 microseconds a day and schedule.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


# A day's times as bits, asked for by the UTC second at which the day begins.
DayMask = Callable[[int], int]


class Tally:
    """What is counted together: add sources, then count.  Equal instants of different sources are one."""

    def __init__(self) -> None:
        self._masks: list[DayMask] = []
        self._excluded: list[DayMask] = []
        self._grids: defaultdict[int, set[_Grid]] = defaultdict(set)  # by their milliseconds within the second

    def add_days(self, mask: DayMask) -> None:
        """Times on whole seconds, day by day."""
        self._masks.append(mask)

    def add_once(self, at_ms: int) -> None:
        """One instant."""
        self._grids[at_ms % 1000].add(_Grid(at_ms // 1000, _ONCE_S))

    def add_every(self, interval_ms: int, anchor_ms: int) -> None:
        """anchor + k * interval, k >= 1."""
        # An interval of 1.5 s is two grids of 3 s: split until every grid keeps to one millisecond of the second.
        parts = 1000 // math.gcd(interval_ms, 1000)
        for k in range(1, parts + 1):
            first_ms = anchor_ms + k * interval_ms
            self._grids[first_ms % 1000].add(_Grid(first_ms // 1000, interval_ms * parts // 1000))

    def exclude_days(self, mask: DayMask) -> None:
        """Seconds that do not count, whatever the sources say."""
        self._excluded.append(mask)

    def first(self, midnight: int, after_ms: int) -> int | None:
        """The first instant after `after_ms` within the UTC day that begins at second `midnight`."""
        found = None
        for residue_ms, masks in self._residues():
            day = self._of_day(masks, midnight)
            start = (after_ms - residue_ms) // 1000 + 1 - midnight
            day = day >> start << start if start > 0 else day
            if day:
                at = (midnight + (day & -day).bit_length() - 1) * 1000 + residue_ms
                found = at if found is None else min(found, at)
        return found

    def last(self, midnight: int, before_ms: int) -> int | None:
        """The last instant before `before_ms` within the UTC day that begins at second `midnight`."""
        found = None
        for residue_ms, masks in self._residues():
            day = cut(self._of_day(masks, midnight), 0, -((residue_ms - before_ms) // 1000) - midnight)
            if day:
                at = (midnight + day.bit_length() - 1) * 1000 + residue_ms
                found = at if found is None else max(found, at)
        return found

    def count(self, after_ms: int, through_ms: int) -> int:
        """The number of distinct instants in (after, through]."""
        total = 0
        for residue_ms, masks in self._residues():
            # The whole seconds t with after < t * 1000 + residue <= through.
            start = (after_ms - residue_ms) // 1000 + 1
            end = (through_ms - residue_ms) // 1000 + 1
            grids = self._grids.get(residue_ms, set())
            if len(masks) == len(grids) == 1 and not self._excluded:
                total += next(iter(grids)).count(start, end)
            elif start < end:
                total += self._count_days(masks, start, end)
        return total

    def _residues(self) -> Iterator[tuple[int, list[DayMask]]]:
        """The sources by their milliseconds within the second."""
        for residue_ms in self._grids.keys() | ({0} if self._masks else set()):
            masks = list(self._masks) if residue_ms == 0 else []
            yield residue_ms, masks + [grid.mask for grid in self._grids.get(residue_ms, set())]

    def _of_day(self, masks: list[DayMask], midnight: int) -> int:
        union = excluded = 0
        for mask in self._excluded:
            excluded |= mask(midnight)
        for mask in masks:
            union |= mask(midnight)
        return union & ~excluded

    def _count_days(self, masks: list[DayMask], start: int, end: int) -> int:
        """Distinct seconds start <= t < end of all the masks."""
        total = 0
        for midnight in range(start - start % DAY_S, end, DAY_S):
            union = self._of_day(masks, midnight)
            if midnight < start or midnight + DAY_S > end:
                union = cut(union, start - midnight, end - midnight)
            total += union.bit_count()
        return total


def cut(mask: int, start: int, end: int) -> int:
    """The bits start <= i < end of a day's mask, where they are."""
    if start > 0:
        mask = mask >> start << start
    return mask & ((1 << max(end, 0)) - 1) if end < DAY_S else mask


@functools.lru_cache(maxsize=1024)  # 11 KB each
def clock_mask(hours: tuple[int, ...], minutes: tuple[int, ...], seconds: tuple[int, ...]) -> int:
    """The times of day that these numbers name together, bit 0 being midnight."""
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
