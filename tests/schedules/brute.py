"""The rule of semantics.md section 8, looked at minute by minute: slow, plain, and sharing only the parsed fields."""

from __future__ import annotations

import calendar
import importlib.resources
import io
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from raftcron.core.cron import CronFields
from raftcron.core.schedule import Dst


@cache
def zone_info(name: str) -> ZoneInfo:
    """The standard library's view of a zone of the tzdata package."""
    data = importlib.resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).read_bytes()
    return ZoneInfo.from_file(io.BytesIO(data), key=name)


def utc(ms: int) -> datetime:
    """The instant as an aware datetime."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


@cache
def month_days(fields: CronFields, year: int, month: int) -> frozenset[int]:
    """The days of a month that match."""
    if month not in fields.months or (fields.years is not None and year not in fields.years):
        return frozenset()
    last = calendar.monthrange(year, month)[1]
    days = [date(year, month, number) for number in range(1, last + 1)]
    by_day = {day.day for day in days if day.day in fields.days}
    for from_end, number, nearest in fields.day_rules:
        target = last - number if from_end else number
        if not 1 <= target <= last:
            continue
        working = [day.day for day in days if day.isoweekday() <= 5]
        # Of two equally near ones Saturday takes the Friday; that cannot happen to a Sunday.
        by_day.add(min(working, key=lambda day: (abs(day - target), day)) if nearest else target)
    by_weekday = {day.day for day in days if day.isoweekday() % 7 in fields.weekdays}
    for weekday, nth in fields.nth_weekdays:
        same = [day.day for day in days if day.isoweekday() % 7 == weekday]
        by_weekday |= set(same[-1:] if nth == -1 else same[nth - 1 : nth])
    return frozenset(by_day & by_weekday if fields.day_and else by_day | by_weekday)


def names_minute(fields: CronFields, wall: datetime) -> bool:
    """Whether a wall-clock minute matches, seconds aside."""
    return (
        wall.hour in fields.hours
        and wall.minute in fields.minutes
        and wall.day in month_days(fields, wall.year, wall.month)
    )


def fires(fields: CronFields, timezone: str, dst: Dst, start_ms: int, end_ms: int) -> list[int]:
    """The times in start <= t < end, both on whole minutes; every jump of the zone lies on a whole minute too."""
    tz = zone_info(timezone)
    found: set[int] = set()
    before = utc(start_ms - 60_000).astimezone(tz)
    for minute_ms in range(start_ms, end_ms, 60_000):
        now = utc(minute_ms).astimezone(tz)
        wall = now.replace(tzinfo=None)
        skipped = wall - before.replace(tzinfo=None, fold=0) - timedelta(minutes=1)
        if not fields.wildcard and dst.gap == "run_after" and timedelta() < skipped.__abs__() <= timedelta(hours=3):
            missed = (
                before.replace(tzinfo=None) + timedelta(minutes=k)
                for k in range(1, skipped // timedelta(minutes=1) + 1)
            )
            if any(names_minute(fields, minute) for minute in missed):
                found.add(minute_ms)
        if names_minute(fields, wall):
            other = now.replace(fold=1 - now.fold)
            twice = other.utcoffset() != now.utcoffset()
            if fields.wildcard or not twice or dst.fold == "both" or now.fold == (dst.fold == "last"):
                found.update(minute_ms + second * 1000 for second in fields.seconds)
        before = now
    return sorted(found)
