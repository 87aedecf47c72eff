"""Time zones as plain integers: which UTC offset holds when, and where it changes; knows nothing of schedules.

The rules come from the pinned `tzdata` package and from nowhere else, so every machine answers alike.  The standard
library's ZoneInfo does not tell where a zone's transitions lie, and finding them by probing costs more than reading
the same TZif files (RFC 8536), which is what this module does; the tests compare the two over every zone.
"""

from __future__ import annotations

import bisect
import functools
import importlib.resources
import re
import struct
from datetime import date
from typing import NamedTuple

import tzdata  # type: ignore[import-untyped]  # it has no types; one string of it is used

TZDATA_VERSION: str = tzdata.IANA_VERSION

DAY_S = 86_400
EPOCH_ORDINAL = 719_163  # date(1970, 1, 1).toordinal()
FAR_PAST_S = -(10**12)  # before and after every instant that a datetime can hold
FAR_FUTURE_S = 10**12
_CYCLE_YEARS = 400  # the Gregorian calendar, weekdays included, repeats after these
_CYCLE_S = 146_097 * DAY_S

_FOOTER = re.compile(
    r"(?P<std><[^>]+>|[A-Za-z]+)(?P<off>[-+\d:]+)"
    r"(?:(?P<dst><[^>]+>|[A-Za-z]+)(?P<dstoff>[-+\d:]+)?,(?P<start>[^,]+),(?P<end>[^,]+))?",
    re.ASCII,
)
_RULE = re.compile(r"M(\d+)\.(\d)\.(\d)(?:/([-+\d:]+))?", re.ASCII)


class Segment(NamedTuple):
    """A stretch of time with one offset: UTC seconds `start` <= t < `end`, wall clock = UTC + `offset`.

    `before` and `after` are the offsets of the neighbours; at the rims of time they equal `offset`.
    """

    start: int
    end: int
    offset: int
    before: int
    after: int


class Zone:
    """One zone's offsets.  All values are seconds; immutable."""

    __slots__ = ("_offsets", "_starts", "_table_end", "name")

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        starts, offsets, footer = _read_tzif(data)
        self._table_end = FAR_FUTURE_S  # from here on, what held 400 years earlier holds again
        rule = _Rule(footer)
        if rule.changes:
            first_year = _year_of(starts[-1]) if len(starts) > 1 else 1970
            for year in range(first_year, first_year + _CYCLE_YEARS + 4):
                for at, offset in rule.of_year(year):
                    if at > starts[-1]:
                        starts.append(at)
                        offsets.append(offset)
            # The last two years are never looked up, so that every segment found has its true end.
            self._table_end = starts[-1] - 2 * 366 * DAY_S
        elif rule.standard != offsets[-1]:
            raise ValueError(f"zone {name}: its last offset is not the one that its rule for the future names")
        # Entries that change only the name or the summer-time flag are no transitions here.
        kept = [i for i in range(len(starts)) if i == 0 or offsets[i] != offsets[i - 1]]
        self._starts = [starts[i] for i in kept]
        self._offsets = [offsets[i] for i in kept]

    def offset(self, at: int) -> int:
        """The offset that holds at UTC second `at`."""
        at -= self._shift(at)
        return self._offsets[bisect.bisect_right(self._starts, at) - 1]

    def segment(self, at: int) -> Segment:
        """The stretch of one offset that holds UTC second `at`."""
        shift = self._shift(at)
        starts, offsets = self._starts, self._offsets
        i = bisect.bisect_right(starts, at - shift) - 1
        last = i + 1 == len(starts)
        return Segment(
            starts[i] + shift,
            FAR_FUTURE_S if last else starts[i + 1] + shift,
            offsets[i],
            offsets[max(i - 1, 0)],
            offsets[i if last else i + 1],
        )

    def _shift(self, at: int) -> int:
        """How far `at` must be moved back, in whole 400-year cycles, to lie inside the table."""
        return 0 if at < self._table_end else ((at - self._table_end) // _CYCLE_S + 1) * _CYCLE_S


class _Rule:
    """The footer of a TZif file: a POSIX TZ text that tells what holds after the last listed transition."""

    def __init__(self, text: str) -> None:
        match = _FOOTER.fullmatch(text)
        if match is None:
            raise ValueError(f"a zone's rule for the future cannot be read: {text!r}")
        self.standard = -_clock_s(match["off"])  # POSIX counts west of Greenwich
        self.changes: tuple[tuple[tuple[int, int, int, int], int, int], ...] = ()
        if match["dst"]:
            summer = -_clock_s(match["dstoff"]) if match["dstoff"] else self.standard + 3600
            self.changes = (
                (_rule_day(match["start"]), self.standard, summer),
                (_rule_day(match["end"]), summer, self.standard),
            )

    def of_year(self, year: int) -> list[tuple[int, int]]:
        """(UTC second, offset from then on) of the year's changes, in order."""
        return sorted((_rule_instant(year, day) - before, after) for day, before, after in self.changes)


def _rule_day(text: str) -> tuple[int, int, int, int]:
    match = _RULE.fullmatch(text)
    if match is None:
        raise ValueError(f"a zone's rule for the future cannot be read: {text!r}")
    month, week, weekday, clock = match.groups()
    return int(month), int(week), int(weekday), _clock_s(clock) if clock else 7200


def _rule_instant(year: int, day: tuple[int, int, int, int]) -> int:
    """Wall-clock second of `Mm.w.d/time`: the w-th weekday d (0 = Sunday) of the month, w = 5 meaning the last."""
    month, week, weekday, clock = day
    first = date(year, month, 1)
    of_month = 1 + (weekday - first.isoweekday()) % 7 + (week - 1) * 7
    last = (date(year + month // 12, month % 12 + 1, 1) - first).days
    while of_month > last:
        of_month -= 7
    return (first.toordinal() - EPOCH_ORDINAL + of_month - 1) * DAY_S + clock


def _clock_s(text: str) -> int:
    """Seconds of `[+-]h[h][:mm[:ss]]`."""
    sign = -1 if text.startswith("-") else 1
    parts = [int(part) for part in text.lstrip("+-").split(":")]
    return sign * sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))


def _read_tzif(data: bytes) -> tuple[list[int], list[int], str]:
    """Starts (the first one FAR_PAST_S), the offset from each on, and the footer, of the file's 64-bit part."""
    header = struct.Struct(">4sc15x6l")
    magic, version, isut, isstd, leaps, times, types, chars = header.unpack_from(data)
    if magic != b"TZif" or version < b"2":
        raise ValueError("not a TZif file of version 2 or later")
    at = header.size + times * 5 + types * 6 + chars + leaps * 8 + isstd + isut
    _, _, isut, isstd, leaps, times, types, chars = header.unpack_from(data, at)
    at += header.size
    starts = list(struct.unpack_from(f">{times}q", data, at))
    at += times * 8
    kinds = data[at : at + times]
    at += times
    kind_offsets = [struct.unpack_from(">l", data, at + 6 * i)[0] for i in range(types)]
    at += types * 6 + chars + leaps * 12 + isstd + isut
    footer = data[at:].strip(b"\n").decode("ascii")
    return [FAR_PAST_S, *starts], [kind_offsets[0], *(kind_offsets[kind] for kind in kinds)], footer


def _year_of(at: int) -> int:
    return date.fromordinal(at // DAY_S + EPOCH_ORDINAL).year


@functools.cache
def zone_names() -> frozenset[str]:
    """Every name that the pinned tz data knows; case counts."""
    return frozenset(importlib.resources.files("tzdata").joinpath("zones").read_text("ascii").split())


def known_zone(name: str) -> bool:
    """Whether this node has the zone of exactly this name from the pinned tz data, listed and readable."""
    try:
        zone(name)
    except KeyError:
        return False
    return True


def similar_zone(name: str) -> str | None:
    """The zone that differs from `name` in upper and lower case or in blanks only, if there is one."""
    wanted = name.strip().replace(" ", "_").casefold()
    return next((known for known in sorted(zone_names()) if known.casefold() == wanted), None)


def zone_data(name: str) -> bytes:
    """The TZif file of a zone.  KeyError for a name that zone_names() does not hold, or whose file is missing."""
    if name not in zone_names():
        raise KeyError(name)
    try:
        return importlib.resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).read_bytes()
    except OSError as error:  # a broken installation
        raise KeyError(name) from error


@functools.lru_cache(maxsize=1024)  # there are some 600 names
def zone(name: str) -> Zone:
    """The zone of this name; equal names give the same object.

    KeyError if the pinned tz data does not know it, or this installation has lost or damaged its file.
    """
    data = zone_data(name)
    try:
        return Zone(name, data)
    except (ValueError, LookupError, struct.error) as error:
        raise KeyError(name) from error
