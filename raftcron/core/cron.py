"""The text of a cron expression as parsed fields: what each field allows; nothing about instants or zones.

Five fields are the classic crontab, six put seconds first, seven put the year last.  The fields are expanded here to
plain numbers, so that croniter, which walks them (walk.py), never sees a spelling that it reads otherwise.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

MAX_TEXT = 256  # characters: longer is no expression that a person wrote
MIN_YEAR, MAX_YEAR = 1970, 2099

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
LAST = -1  # in place of an ordinal: the last such weekday of the month


class ScheduleError(ValueError):
    """A schedule's text cannot be used.

    `message` names the field and the fault, `position` is the first wrong character (from 0; None: the text as a
    whole), `right` says what would be right.
    """

    def __init__(self, message: str, position: int | None = None, right: str = "") -> None:
        where = "" if position is None else f" (at position {position})"
        super().__init__(f"{message}{where}" + (f"; {right}" if right else ""))
        self.message = message
        self.position = position
        self.right = right


class DayRule(NamedTuple):
    """A day of the month that only a calendar knows: `L` is the last, `L-3` three before it, `15W` the weekday
    (Monday to Friday) nearest to the 15th inside the month, `LW` the last weekday.

    `number` counts from 1, or back from the last day (0) if `from_end`.
    """

    from_end: bool
    number: int
    nearest_weekday: bool


class NthWeekday(NamedTuple):
    """The `nth` (1 to 5, or LAST) of a weekday (0 = Sunday) in its month: `5#2`, `5L`."""

    weekday: int
    nth: int


@dataclass(frozen=True, slots=True)
class CronFields:
    """What an expression allows; every tuple ascends.  `months` are 1 to 12, `weekdays` 0 (Sunday) to 6."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    day_rules: tuple[DayRule, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    nth_weekdays: tuple[NthWeekday, ...]
    years: tuple[int, ...] | None  # None: every year
    day_and: bool  # a day must match day-of-month *and* day-of-week; else either is enough
    wildcard: bool  # follows elapsed time through summer-time changes (Debian cron's rule)


class Field(NamedTuple):
    """One of the seven fields: its name, its least and greatest number, and the names of its numbers."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    names_from: int = 0

    @property
    def right(self) -> str:
        """What would be right, for messages."""
        names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"use {self.low} to {self.high}{names}"


SECOND = Field("second", 0, 59)
MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY = Field("day-of-month", 1, 31)
MONTH = Field("month", 1, 12, MONTHS, 1)
WEEKDAY = Field("day-of-week", 0, 7, WEEKDAYS)
YEAR = Field("year", MIN_YEAR, MAX_YEAR)

_LAYOUTS = {
    5: (MINUTE, HOUR, DAY, MONTH, WEEKDAY),
    6: (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY),
    7: (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY, YEAR),
}
_WORD = re.compile(r"[^ \t\r\n\f\v]+")
_RANGE = re.compile(r"(?P<low>[A-Z0-9]+)(?:-(?P<high>[A-Z0-9]+))?(?:/(?P<step>.*))?", re.DOTALL)
_HASH = re.compile(r"H(?:\((?P<low>[A-Z0-9]+)-(?P<high>[A-Z0-9]+)\))?(?:/(?P<step>.*))?", re.DOTALL)
_DAY_RULE = re.compile(r"(?P<last>L)(?:-(?P<back>\d+))?(?P<lastw>W)?|(?P<day>\d+)W|W(?P<day2>\d+)", re.ASCII)
_NTH = re.compile(r"(?P<low>[A-Z0-9]+)(?:-(?P<high>[A-Z0-9]+))?#(?P<nth>.*)", re.DOTALL)
_LAST_WEEKDAY = re.compile(r"(?:([0-7]|[A-Z]{3})L|L([0-7]))", re.ASCII)


class FieldText(NamedTuple):
    """One field as it was written, in capitals, and where it stands in the text (from 0)."""

    field: Field
    text: str
    position: int


def split_fields(text: str) -> tuple[FieldText, ...]:
    """The five, six or seven fields of an expression, unread.  Raises ScheduleError for any other number."""
    words = list(_WORD.finditer(text))
    layout = _LAYOUTS.get(len(words))
    if words and words[0].group().upper().startswith(("TZ=", "CRON_TZ=")):
        raise ScheduleError(
            "the text of a schedule does not name a time zone", words[0].start(), "set the field `timezone` instead"
        )
    if layout is None:
        raise ScheduleError(
            f"a cron expression has 5 fields (minute hour day-of-month month day-of-week), 6 (seconds first) or 7 "
            f"(year last), not {len(words)}",
            words[7].start() if len(words) > 7 else None,
            "write for instance `*/5 * * * *`, `@daily`, `@every 5m`, `@at 2030-01-01T00:00:00Z` or `@manual`",
        )
    return tuple(
        FieldText(field, word.group().upper(), word.start()) for field, word in zip(layout, words, strict=True)
    )


_SOME_HASH = re.compile(r"(?:^|[\s,])[Hh](?:[\s,(/]|$)")


def uses_hash(text: str) -> bool:
    """Whether the expression holds an `H`, so that what it means depends on the hash key."""
    return _SOME_HASH.search(text) is not None


def parse_cron(text: str, hash_key: str) -> CronFields:
    """The fields of a 5-, 6- or 7-field expression; every `H` is drawn from `hash_key`, each field independently.

    Raises ScheduleError for the first fault, by field and position.
    """
    texts = {part.field: part for part in split_fields(text)}
    parsed = {field: _read_field(part, hash_key if "H" in part.text else "") for field, part in texts.items()}
    day_text, weekday_text = texts[DAY].text, texts[WEEKDAY].text

    def numbers(field: Field) -> tuple[int, ...]:
        return tuple(sorted(parsed[field].numbers))

    return CronFields(
        seconds=numbers(SECOND) if SECOND in texts else (0,),
        minutes=numbers(MINUTE),
        hours=numbers(HOUR),
        days=numbers(DAY),
        day_rules=tuple(sorted(parsed[DAY].day_rules)),
        months=numbers(MONTH),
        weekdays=tuple(sorted({number % 7 for number in parsed[WEEKDAY].numbers})),
        nth_weekdays=tuple(sorted(parsed[WEEKDAY].nth_weekdays)),
        years=None if YEAR not in texts or texts[YEAR].text == "*" else numbers(YEAR),
        day_and=day_text.startswith(("*", "?")) or weekday_text.startswith(("*", "?")),
        wildcard=any(texts[field].text.startswith("*") for field in (SECOND, MINUTE, HOUR) if field in texts),
    )


def _read_field(part: FieldText, hash_key: str) -> _FieldParser:
    """A field, read; those of many expressions are the same, but for hash keys, and years take much room."""
    return _FieldParser(part, hash_key).parse() if hash_key or part.field is YEAR else _read_shared(part)


@functools.lru_cache(maxsize=1_024)
def _read_shared(part: FieldText) -> _FieldParser:
    return _FieldParser(part, "").parse()


class _FieldParser:
    """Reads one field's text, item by item."""

    def __init__(self, part: FieldText, hash_key: str) -> None:
        self.field = part.field
        self.text = part.text
        self.position = part.position
        self.hash_key = hash_key
        self.item = ""
        self.numbers: set[int] = set()
        self.day_rules: set[DayRule] = set()
        self.nth_weekdays: set[NthWeekday] = set()

    def parse(self) -> _FieldParser:
        field_start = self.position
        for item in self.text.split(","):
            self.item = item
            self._parse_item()
            self.position += len(item) + 1
        self.position = field_start
        return self

    def _parse_item(self) -> None:
        item, field = self.item, self.field
        if not item:
            self._fail("an item of the list is empty", f"{field.right}, separated by single commas")
        if item == "?":
            if field not in (DAY, WEEKDAY):
                self._fail("`?` stands for day-of-month or day-of-week only", "use *")
            if self.text != "?":
                self._fail("`?` cannot stand in a list", "use ? alone, or *")
            self._add_range(field.low, field.high, 1)
        elif item.startswith("*"):
            step = self._step(item[2:]) if item[1:2] == "/" else 1
            if len(item) > 1 and item[1] != "/":
                self._fail("after `*` only a step may follow", "write * or */n")
            self._add_range(field.low, field.high, step)
        elif item[0] == "R" and item[1:2] in ("", "(", "/"):
            self._fail(
                "`R` (a random value) is refused: it would differ from node to node and from start to start",
                "use H, which is drawn from the job's name",
            )
        elif match := _HASH.fullmatch(item):
            self._add_hash(match["low"], match["high"], match["step"])
        elif field is DAY and (match := _DAY_RULE.fullmatch(item)):
            self._add_day_rule(match)
        elif field is WEEKDAY and (match := _LAST_WEEKDAY.fullmatch(item)):
            weekday = self._number(match[1] or match[2]) % 7
            self.nth_weekdays.add(NthWeekday(weekday, LAST))
        elif field is WEEKDAY and (match := _NTH.fullmatch(item)):
            self._add_nth(match["low"], match["high"], match["nth"])
        elif match := _RANGE.fullmatch(item):
            self._add_plain(match["low"], match["high"], match["step"])
        else:
            self._fail(f"{_shown(item)} cannot be read", f"{field.right}, ranges a-b, lists a,b and steps */n or a-b/n")

    def _add_plain(self, low_text: str, high_text: str | None, step_text: str | None) -> None:
        field = self.field
        low = self._number(low_text)
        step = 1 if step_text is None else self._step(step_text)
        if high_text is None:
            self._add_range(low, low if step_text is None else field.high, step)
        elif field is DAY and high_text == "L":
            self._add_range(low, field.high, step)
        else:
            self._add_range(low, self._number(high_text), step)

    def _add_range(self, low: int, high: int, step: int) -> None:
        """Every `step`-th number from low to high, past the field's end and on from its start where high < low."""
        field = self.field
        if low > high and field is YEAR:
            self._fail("a range of years must ascend", f"write {high}-{low}")
        size = 7 if field is WEEKDAY else field.high - field.low + 1
        if low > high:
            high += size
        self.numbers.update(
            (n - field.low) % size + field.low if n > field.high else n for n in range(low, high + 1, step)
        )

    def _add_hash(self, low_text: str | None, high_text: str | None, step_text: str | None) -> None:
        """`H`, `H(a-b)`, `H/n`, `H(a-b)/n`: a number, or the first of a series, drawn from the key."""
        field = self.field
        if field is YEAR:
            self._fail("`H` cannot stand in the year field", field.right)
        # Every month has a 28th, and day-of-week has seven days, not eight numbers.
        low, high = field.low, {DAY: 28, WEEKDAY: 6}.get(field, field.high)
        if low_text is not None and high_text is not None:
            low, high = self._number(low_text), self._number(high_text)
            if low > high:
                self._fail("the range of `H` must ascend", f"write H({high}-{low})")
        draw = int.from_bytes(
            hashlib.blake2b(self.hash_key.encode(), digest_size=8, person=field.name.encode()).digest(), "big"
        )
        if step_text is None:
            self.numbers.add(low + draw % (high - low + 1))
        else:
            step = self._step(step_text)
            self.numbers.update(range(low + draw % min(step, high - low + 1), high + 1, step))

    def _add_day_rule(self, match: re.Match[str]) -> None:
        if match["last"]:
            back = int(match["back"] or "0") if len(match["back"] or "") < 4 else 999
            if back > 30:
                self._fail(f"L-{match['back']} lies before the month begins", "use L-1 to L-30")
            self.day_rules.add(DayRule(True, back, match["lastw"] is not None))
        else:
            self.day_rules.add(DayRule(False, self._number(match["day"] or match["day2"]), True))

    def _add_nth(self, low_text: str, high_text: str | None, nth_text: str) -> None:
        if len(nth_text) != 1 or nth_text not in "12345":
            self._fail(f"{_shown(nth_text)} is no ordinal of a weekday", "use #1 to #5, as in FRI#2")
        low = self._number(low_text)
        high = low if high_text is None else self._number(high_text)
        for weekday in range(low, (high if high >= low else high + 7) + 1):
            self.nth_weekdays.add(NthWeekday(weekday % 7, int(nth_text)))

    def _number(self, text: str) -> int:
        field = self.field
        if text in field.names:
            return field.names.index(text) + field.names_from
        if not text.isdigit():
            self._fail_word(text)
        number = int(text) if len(text) < 6 else 99_999
        if not field.low <= number <= field.high:
            self._fail(f"{_shown(text)} is out of range", field.right)
        return number

    def _step(self, text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            self._fail(f"the step {_shown(text)} is not a number", "write a whole number from 1 after the /")
        step = int(text) if len(text) < 6 else 99_999
        if step == 0:
            self._fail("a step of 0 goes nowhere", "use a step from 1")
        return step

    def _fail_word(self, text: str) -> NoReturn:
        field = self.field
        if text == "L" and field is WEEKDAY:
            self._fail("`L` alone in day-of-week means different days to different crons", "use 5L for the last Friday")
        if text.startswith(("L", "W")) or text.endswith(("L", "W")):
            self._fail(
                f"{_shown(text)} cannot be read",
                "L, L-n, nW and LW belong to day-of-month, nL and n#k to day-of-week",
            )
        self._fail(f"{_shown(text)} is neither a number nor a name of this field", field.right)

    def _fail(self, fault: str, right: str) -> NoReturn:
        raise ScheduleError(f"{self.field.name} field {_shown(self.text)}: {fault}", self.position, right)


def _shown(text: str) -> str:
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"
