"""A schedule in words: what it says, when it fires next, and what about it may surprise; nothing is decided here."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from raftcron.core.cron import (
    DAY,
    HOUR,
    LAST,
    MINUTE,
    MONTH,
    SECOND,
    WEEKDAY,
    YEAR,
    CronFields,
    DayRule,
    Field,
    FieldText,
    split_fields,
    uses_hash,
)
from raftcron.core.instant import MAX_MS, MIN_MS, format_duration, rfc3339
from raftcron.core.schedule import (
    AtSchedule,
    CronSchedule,
    Dst,
    EverySchedule,
    Schedule,
    expression,
    parse,
)
from raftcron.core.walk import month_shape
from raftcron.core.zone import FAR_FUTURE_S, Segment

MANY_FIRES = 1_440  # a day; more than one a minute gets a note
DST_HORIZON_S = 400 * 86_400  # how far ahead jumps of the clock are looked for: every yearly rule comes up once
MAX_NEXT = 1_000  # instants that one explanation lists at most

_MONTH_NAMES = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
                "November", "December")  # fmt: skip
_WEEKDAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", LAST: "last"}
_STEP = re.compile(r"(\*|[A-Z0-9]+)/(\d+)", re.ASCII)
_SHAPES = {month: {month_shape(year, month) for year in range(2000, 2028)} for month in range(1, 13)}


class Note(NamedTuple):
    """Something worth knowing about a schedule; `code` is stable: uneven_step, dom_and_dow, short_months, dst_gap,
    dst_fold, many_fires, six_fields or never_fires."""

    code: str
    message: str


@dataclass(frozen=True)
class Explanation:
    """What `explain` answers; `next` are milliseconds UTC, ascending."""

    description: str
    next: list[int]
    notes: list[Note]


def explain(text: str, timezone: str, dst: Dst, hash_key: str, from_ms: int, count: int) -> Explanation:
    """The schedule in English words, its next `count` times after `from_ms` (at most MAX_NEXT), and notes.

    `@every` is anchored at `from_ms` unless its text names an anchor.  Raises ScheduleError for a text that cannot
    be used.
    """
    schedule = parse(text, timezone, dst=dst, hash_key=hash_key)
    from_ms = min(max(from_ms, MIN_MS), MAX_MS)
    times = schedule.between(from_ms, MAX_MS, from_ms, max(0, min(count, MAX_NEXT)))
    return Explanation(describe(schedule), times, notes(schedule, from_ms))


def describe(schedule: Schedule) -> str:
    """One English sentence fragment, such as `at 09:30, on Monday to Friday, Europe/Berlin time`."""
    if isinstance(schedule, EverySchedule):
        every = f"every {format_duration(schedule.interval_ms)}"
        if schedule.from_last_end:
            return f"{every} after the end of the last run"
        return every if schedule.anchor_ms is None else f"{every}, counted from {rfc3339(schedule.anchor_ms)}"
    if isinstance(schedule, AtSchedule):
        return f"once, at {rfc3339(schedule.at_ms)}"
    if isinstance(schedule, CronSchedule):
        fields = schedule.fields
        parts = [_clock_words(fields), _day_words(fields)]
        if len(fields.months) < 12:
            parts.append("in " + _listed(_runs(fields.months, lambda month: _MONTH_NAMES[month - 1])))
        if fields.years is not None:
            parts.append("in " + _listed(_runs(fields.years, str)))
        parts.append(schedule.timezone + ("" if schedule.timezone == "UTC" else " time"))
        if uses_hash(expression(schedule.text)):
            key = f"`{schedule.hash_key}`" if schedule.hash_key else "an empty hash_key"
            parts.append(f"with H drawn from {key}")
        return ", ".join(parts)
    return "only when asked"


def describe_all(schedules: Sequence[Schedule]) -> str:
    """The same of several together."""
    return "; and ".join(dict.fromkeys(describe(schedule) for schedule in schedules))


def notes(schedule: Schedule, from_ms: int) -> list[Note]:
    """What may surprise about a schedule, as seen from an instant."""
    found: list[Note] = []
    is_over = schedule.never_fires(from_ms)
    if is_over:
        found.append(Note("never_fires", f"no time after {rfc3339(from_ms)} matches: it never fires"))
    if isinstance(schedule, CronSchedule):
        parts = split_fields(expression(schedule.text))
        found += itertools.chain(
            _six_fields(parts),
            _uneven_steps(parts),
            _dom_and_dow(parts, schedule.fields),
            () if is_over else _short_months(parts, schedule.fields),
            _dst(schedule, from_ms // 1000),
        )
        fields = schedule.fields
        a_day = len(fields.hours) * len(fields.minutes) * len(fields.seconds)
    elif isinstance(schedule, EverySchedule) and not schedule.from_last_end:
        a_day = 86_400_000 // schedule.interval_ms
    else:
        a_day = 0
    if a_day > MANY_FIRES:
        found.append(Note("many_fires", f"it fires {a_day:,} times a day"))
    return found


def notes_among(schedule: Schedule, others: Sequence[Schedule], from_ms: int) -> list[Note]:
    """What may surprise about one of several schedules: each note says of which one."""
    found = notes(schedule, from_ms)
    return found if len(others) == 1 else [Note(code, f"`{schedule.text}`: {message}") for code, message in found]


# ---- words -------------------------------------------------------------------------------------------------------


def _clock_words(fields: CronFields) -> str:
    seconds, minutes, hours = fields.seconds, fields.minutes, fields.hours
    if len(seconds) * len(minutes) * len(hours) <= 6:
        return "at " + _listed(
            [
                f"{hour:02}:{minute:02}" + (f":{second:02}" if seconds != (0,) else "")
                for hour in hours
                for minute in minutes
                for second in seconds
            ]
        )
    parts = []
    if seconds != (0,):
        parts.append(_series(SECOND, seconds))
    if len(minutes) < 60 or seconds == (0,):
        parts.append(_series(MINUTE, minutes))
    if len(hours) < 24:
        parts.append(_series(HOUR, hours))
    elif len(minutes) < 60 and not _is_even(MINUTE, minutes):
        parts.append("of every hour")
    return ", ".join(parts).replace(", of every", " of every")


def _is_even(field: Field, numbers: Sequence[int]) -> bool:
    """Whether the numbers begin the field and go through it in equal steps."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 0
    return numbers[0] == 0 and step > 0 and tuple(numbers) == tuple(range(0, field.high + 1, step))


def _series(field: Field, numbers: Sequence[int]) -> str:
    """`every 5 minutes`, `at minutes 3, 18 and 40`, `in the hours 9 to 17`."""
    name = field.name
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 0
    if _is_even(field, numbers):
        return f"every {name}" if step == 1 else f"every {step} {name}s"
    if len(numbers) > 3 and step > 1 and tuple(numbers) == tuple(range(numbers[0], numbers[-1] + 1, step)):
        return f"every {step} {name}s from {name} {numbers[0]} to {numbers[-1]}"
    words = _listed(_runs(numbers, str))
    lead = "in the" if field is HOUR else "at"
    return f"{lead} {name}{'s' if len(numbers) > 1 else ''} {words}"


def _day_words(fields: CronFields) -> str:
    every_day = len(fields.days) == 31
    every_weekday = len(fields.weekdays) == 7
    by_day, by_weekday = _day_of_month_words(fields), _weekday_words(fields)
    if fields.day_and:
        if every_day and every_weekday:
            return "every day"
        if every_day or every_weekday:
            return by_weekday if every_day else by_day
        return f"{by_day}, but only {by_weekday}"
    return "every day" if every_day or every_weekday else f"{by_day} or {by_weekday}"


def _day_of_month_words(fields: CronFields) -> str:
    words = []
    if fields.days:
        step = fields.days[1] - fields.days[0] if len(fields.days) > 3 else 1
        if step > 1 and fields.days == tuple(range(fields.days[0], fields.days[-1] + 1, step)):
            words.append(f"every {step} days from day {fields.days[0]} to {fields.days[-1]}")
        else:
            words.append(f"day{'s' if len(fields.days) > 1 else ''} {_listed(_runs(fields.days, str))}")
    words += [_rule_words(rule) for rule in fields.day_rules]
    return f"on {_listed(words)} of the month"


def _rule_words(rule: DayRule) -> str:
    if not rule.from_end:
        return f"the working day nearest to day {rule.number}"
    if rule.number == 0:
        return "the last working day" if rule.nearest_weekday else "the last day"
    day = f"the day {rule.number} day{'s' if rule.number > 1 else ''} before the last"
    return f"the working day nearest to {day}" if rule.nearest_weekday else day


def _weekday_words(fields: CronFields) -> str:
    monday_first = sorted(fields.weekdays, key=lambda weekday: (weekday - 1) % 7)
    words = _runs([(weekday - 1) % 7 for weekday in monday_first], lambda n: _WEEKDAY_NAMES[(n + 1) % 7])
    words += [f"the {_ORDINALS[nth.nth]} {_WEEKDAY_NAMES[nth.weekday]} of the month" for nth in fields.nth_weekdays]
    return "on " + _listed(words)


def _runs(numbers: Sequence[int], name: Callable[[int], str]) -> list[str]:
    """Ascending numbers as words, three and more in a row as `a to b`."""
    words: list[str] = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        words += [f"{name(run[0])} to {name(run[-1])}"] if len(run) > 2 else [name(number) for number in run]
    return words


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


# ---- notes -------------------------------------------------------------------------------------------------------


def _six_fields(parts: Sequence[FieldText]) -> Iterator[Note]:
    if len(parts) > 5:
        last = "the last one is the year" if len(parts) == 7 else "there is none for the year"
        yield Note(
            "six_fields",
            f"{len(parts)} fields: the first one, `{parts[0].text}`, is seconds, not minutes, and {last}; "
            "days of the week count from 0 or 7 = Sunday, 1 = Monday",
        )


def _uneven_steps(parts: Sequence[FieldText]) -> Iterator[Note]:
    for field, text, _ in parts:
        size = 7 if field is WEEKDAY else field.high - field.low + 1
        for item in text.split(","):
            match = _STEP.fullmatch(item)
            if match is None or field is YEAR:
                continue
            step = int(match[2])
            start = field.low
            if match[1].isdigit():
                start = int(match[1])
            elif match[1] in field.names:
                start = field.names.index(match[1]) + field.names_from
            elif match[1] != "*":
                if match[1] != "H":
                    continue
                start = field.low
            last = range(start, field.low + size, step)[-1] if start < field.low + size else start
            gap = size + start - last
            whole = {SECOND: "minute", MINUTE: "hour", HOUR: "day", DAY: "month", MONTH: "year", WEEKDAY: "week"}[field]
            if field is DAY:
                yield Note(
                    "uneven_step",
                    f"`{item}` starts anew each month, so the step over its end is not {step} days",
                )
            elif step >= size:
                yield Note(
                    "uneven_step", f"`{item}`: the step is longer than the {whole}, so it matches once a {whole}"
                )
            elif gap != step:
                yield Note(
                    "uneven_step",
                    f"`{item}` starts anew each {whole}: the step over its end is {gap} {_unit(field)}, not {step}",
                )


def _unit(field: Field) -> str:
    return "days" if field is WEEKDAY else f"{field.name}s"


def _dom_and_dow(parts: Sequence[FieldText], fields: CronFields) -> Iterator[Note]:
    day, weekday = (part.text for part in parts if part.field in (DAY, WEEKDAY))
    if {day, weekday}.isdisjoint({"*", "?"}):
        rule = (
            "both must match, since one of them starts with `*`" if fields.day_and
            else "either is enough, since neither starts with `*`"
        )  # fmt: skip
        yield Note("dom_and_dow", f"day-of-month `{day}` and day-of-week `{weekday}`: {rule}")


def _short_months(parts: Sequence[FieldText], fields: CronFields) -> Iterator[Note]:
    """Days that some of the months do not have."""
    day_text = next(part.text for part in parts if part.field is DAY)
    missing = {}
    if not day_text.startswith(("*", "?")) and len(fields.days) < 31:
        for day in fields.days:
            missing[f"a day {day}"] = [m for m in fields.months if any(length < day for _, length in _SHAPES[m])]
    for rule in fields.day_rules:
        needed = rule.number + 1 if rule.from_end else rule.number
        missing[_rule_words(rule)] = [m for m in fields.months if any(length < needed for _, length in _SHAPES[m])]
    for nth in fields.nth_weekdays:
        if nth.nth == 5:
            missing[f"a fifth {_WEEKDAY_NAMES[nth.weekday]}"] = list(fields.months)
    lacking = {what: months for what, months in missing.items() if months}
    if lacking:
        described = [
            f"not every {'month' if len(months) == 12 else _listed([_MONTH_NAMES[m - 1] for m in months])} has {what}"
            for what, months in itertools.islice(lacking.items(), 4)
        ]
        yield Note("short_months", "; ".join(described) + ": such months are passed over")


def _dst(schedule: CronSchedule, start: int) -> Iterator[Note]:
    """The jumps of the clock within DST_HORIZON_S that meet a time of the schedule."""
    # A schedule that follows elapsed time through every hour has no time that could be missed or doubled.
    if schedule.fields.wildcard and len(schedule.fields.hours) == 24:
        return
    segment = schedule.zone.segment(start)
    while segment.end < min(FAR_FUTURE_S, start + DST_HORIZON_S):
        segment = schedule.zone.segment(segment.end)
        lo, hi = sorted((segment.start + segment.before, segment.start + segment.offset))
        first = schedule.walk.first_from(lo)
        if first is None:
            return
        if first >= hi:
            continue
        on, time_lo, time_hi = _wall(lo)[0], _wall(lo)[1], _wall(hi)[1]
        if segment.offset > segment.before:
            yield Note(
                "dst_gap",
                f"on {on} the clock in {schedule.timezone} jumps from {time_lo} to {time_hi}: "
                f"{_gap_fate(schedule, segment)}",
            )
        else:
            yield Note(
                "dst_fold",
                f"on {on} the clock in {schedule.timezone} goes back from {time_hi} to {time_lo}: "
                f"what lies between runs {_FOLD_FATES[schedule.fold]}",
            )


_FOLD_FATES = {"first": "on the first pass only", "last": "on the last pass only", "both": "on both passes"}


def _gap_fate(schedule: CronSchedule, segment: Segment) -> str:
    if schedule.gap_before(segment):
        return f"what lies between runs at {rfc3339(segment.start * 1000)}, the first instant after it"
    return "what lies between does not run that day"


def _wall(wall: int) -> tuple[str, str]:
    """A wall-clock second as date and time of day."""
    date, _, time = rfc3339(wall * 1000).removesuffix("Z").partition("T")
    return date, time.removesuffix(":00")
