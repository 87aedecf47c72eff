"""Named exclusion calendars: when the jobs that name one owe nothing; which jobs those are is not known here.

A calendar is `{dates, schedules, timezone}`.  An instant is excluded where the clock on the wall of the calendar's zone
shows a day of `dates`, or a time that one of `schedules` matches; an expression of five fields matches whole minutes.
Nothing is moved at jumps of that clock: a time in a gap is never shown, one in a fold is shown twice.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

import msgspec

from raftcron.core.cron import CronFields, ScheduleError, parse_cron
from raftcron.core.fields import Walk, escape, kind_of, near
from raftcron.core.instant import shown
from raftcron.core.model import Calendar
from raftcron.core.schedule import known_zone, parse
from raftcron.core.tally import clock_mask, cut
from raftcron.core.unreadable import UNREADABLE
from raftcron.core.walk import Calendar as Days
from raftcron.core.zone import DAY_S, EPOCH_ORDINAL, zone
from raftcron.errors import Fault

DATES_MAX = 4_096  # of one calendar: ten years of every day
SCHEDULES_MAX = 64  # of one calendar
CALENDARS_MAX = 1_000
MASKS_KEPT = 8  # days of which a calendar remembers what it excludes, 11 KB each

SERVER_SET = frozenset({"revision", "created_at", "updated_at", "jobs"})
DEFAULTS: Mapping[str, Any] = {"dates": [], "schedules": [], "timezone": "UTC"}

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
WHOLE_DAY = (1 << DAY_S) - 1
_encode = msgspec.msgpack.Encoder(order="sorted").encode
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Exclusion:
    """What one calendar excludes, as this node reads it; all but `name` follows from its definition."""

    __slots__ = ("_clocks", "_masks", "_month", "_rules", "dates", "fields", "holds_from", "name", "revision",
                 "timezone", "zone")  # fmt: skip

    def __init__(self, name: str, written: Mapping[str, Any], revision: int = 0, holds_from: int = 0) -> None:
        """Raises ScheduleError if this node cannot read it."""
        self.name = name
        self.revision = revision
        self.holds_from = holds_from
        self.timezone: str = written.get("timezone", "UTC")
        parse("@manual", self.timezone)  # whether the zone is known
        self.zone = zone(self.timezone)
        self.dates = frozenset(day_of(text) for text in written.get("dates", ()))
        self.fields = tuple(dict.fromkeys(read_fields(text, name) for text in written.get("schedules", ())))
        self._rules = [
            (Days(fields), frozenset(fields.hours), frozenset(fields.minutes), frozenset(fields.seconds))
            for fields in self.fields
        ]
        self._masks: dict[int, int] = {}
        self._clocks: dict[tuple[int, ...], int] = {}  # by which of the expressions match the day
        self._month: tuple[tuple[int, int], list[tuple[int, ...]]] = ((0, 0), [])

    def covers(self, at_ms: int) -> bool:
        """Whether an instant is excluded."""
        second = at_ms // 1000
        day, clock = divmod(second + self.zone.offset(second), DAY_S)
        if day in self.dates:
            return True
        for days, hours, minutes, seconds in self._rules:
            if clock // 3600 in hours and clock // 60 % 60 in minutes and clock % 60 in seconds and days.matches(day):
                return True
        return False

    def day_mask(self, midnight: int) -> int:
        """What is excluded of the UTC day that begins at second `midnight`, as bits."""
        mask = self._masks.get(midnight)
        if mask is None:
            if len(self._masks) >= MASKS_KEPT:
                self._masks.clear()
            mask = self._masks[midnight] = self._day_mask(midnight)
        return mask

    def _day_mask(self, midnight: int) -> int:
        end = midnight + DAY_S
        found = 0
        segment = self.zone.segment(midnight)
        while True:
            offset = segment.offset
            lo, hi = max(segment.start, midnight) + offset, min(segment.end, end) + offset
            for wall_day in range(lo // DAY_S, -(-hi // DAY_S)):
                wall_midnight = wall_day * DAY_S
                mask = cut(self._wall_mask(wall_day), lo - wall_midnight, hi - wall_midnight)
                shift = wall_midnight - offset - midnight
                found |= mask << shift if shift >= 0 else mask >> -shift
            if segment.end >= end:
                return found
            segment = self.zone.segment(segment.end)

    def _wall_mask(self, day: int) -> int:
        """What is excluded of a day on the wall."""
        if day in self.dates:
            return WHOLE_DAY
        matching = self._matching(day)
        found = self._clocks.get(matching)
        if found is None:
            found = 0
            for place in matching:
                fields = self.fields[place]
                found |= clock_mask(fields.hours, fields.minutes, fields.seconds)
            if len(self._clocks) >= MASKS_KEPT:
                self._clocks.clear()
            self._clocks[matching] = found
        return found

    def _matching(self, day: int) -> tuple[int, ...]:
        """Which of the expressions match a day, by place; worked out for a month at once."""
        ordinal = day + EPOCH_ORDINAL
        if not self.fields or not 1 <= ordinal <= date.max.toordinal():
            return ()
        when = date.fromordinal(ordinal)
        if self._month[0] != (when.year, when.month):
            by_day: list[list[int]] = [[] for _ in range(32)]
            for place, (days, *_) in enumerate(self._rules):
                mask = days.month_mask(when.year, when.month)
                while mask:
                    lowest = mask & -mask
                    by_day[lowest.bit_length() - 1].append(place)
                    mask ^= lowest
            self._month = ((when.year, when.month), [tuple(places) for places in by_day])
        return self._month[1][when.day]


def read_fields(text: str, name: str) -> CronFields:
    """What one expression of the calendar `name` matches.  Raises ScheduleError."""
    if text.strip().startswith("@"):
        raise ScheduleError(
            f"{shown(text)} names instants, and a calendar excludes stretches of time",
            0,
            "use cron fields, of which five match whole minutes: `* * 25 12 *` is a day, `* 0-6 * * *` each night",
        )
    parse(text, "UTC", hash_key=name)  # for what is said of length and characters
    fields = parse_cron(text, name)
    return dataclasses.replace(fields, seconds=tuple(range(60))) if len(text.split()) == 5 else fields


def day_of(text: str) -> int:
    """The day of `2026-12-25`, counted since 1970-01-01.  Raises ValueError that says what would be right."""
    try:
        if not isinstance(text, str) or _DATE.fullmatch(text) is None:
            raise ValueError("it has another form")
        return date.fromisoformat(text).toordinal() - EPOCH_ORDINAL
    except ValueError as error:
        raise ValueError(f"{shown(text)} is no date: {error}; write it like 2026-12-25") from None


# ---- definitions -----------------------------------------------------------------------------------------------------


def check(body: Any, name: str) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    """What was written of a calendar, and every fault of it."""
    walk = Walk()
    if not isinstance(body, dict):
        walk.fault("", f"must be an object, not {kind_of(body)}")
        return {}, tuple(walk.faults)
    if "name" in body and body["name"] != name:
        walk.fault("/name", f"is {shown(body['name'])}, but the path names {name!r}: leave it out, or make them equal")
    written = {key: value for key, value in body.items() if key not in SERVER_SET and key != "name"}
    for key in sorted(written.keys() - DEFAULTS.keys()):
        walk.fault(f"/{escape(key)}", "is not a field of a calendar" + near(key, DEFAULTS))
    timezone = written.get("timezone", "UTC")
    if not isinstance(timezone, str) or not known_zone(timezone):
        try:
            parse("@manual", timezone)
        except ScheduleError as error:
            walk.fault("/timezone", str(error))
    walk.each("/dates", written.get("dates", []), _check_date, DATES_MAX)
    walk.each(
        "/schedules",
        written.get("schedules", []),
        lambda walk, pointer, value: _check_schedule(walk, pointer, value, name),
        SCHEDULES_MAX,
    )
    return written, tuple(walk.faults)


def _check_date(walk: Walk, pointer: str, value: Any) -> None:
    try:
        day_of(value)
    except ValueError as error:
        walk.fault(pointer, str(error))


def _check_schedule(walk: Walk, pointer: str, value: Any, name: str) -> None:
    if not isinstance(value, str):
        walk.fault(pointer, f"must be a string, not {kind_of(value)}")
        return
    try:
        read_fields(value, name)
    except ScheduleError as error:
        walk.fault(pointer, str(error))


def canonical(written: Mapping[str, Any]) -> bytes:
    """The bytes that the log holds: `written` (which `check` found sound) less defaults, dates in order."""
    kept = {key: value for key, value in written.items() if value != DEFAULTS[key]}
    if "dates" in kept:
        kept["dates"] = sorted(set(kept["dates"]))
    return _encode(kept)


def expand(stored: bytes) -> dict[str, Any]:
    """The whole definition, defaults included."""
    return {**DEFAULTS, **_decode(stored)}


def stored_fault(stored: bytes) -> str | None:
    """Why bytes that the log holds are no calendar; None if they are one.  Asks neither tz data nor croniter."""
    try:
        msgspec.msgpack.decode(stored, type=_Stored)
    except UNREADABLE as error:
        return str(error)
    return None


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    dates: list[str] = []
    schedules: list[str] = []
    timezone: str = "UTC"


@functools.lru_cache(maxsize=2 * CALENDARS_MAX)
def _read(name: str, stored: bytes, revision: int, holds_from: int) -> Exclusion:
    return Exclusion(name, _decode(stored), revision, holds_from)


def exclusion_of(record: Calendar) -> Exclusion:
    """A calendar as this node reads it.  Raises ScheduleError if it cannot."""
    return _read(record.name, record.definition, record.revision, record.holds_from)
