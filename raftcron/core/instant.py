"""Instants and durations as text and as integer milliseconds; nothing about schedules or zones."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta

MIN_MS = -62_135_596_800_000  # 0001-01-01T00:00:00Z
MAX_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
MAX_DURATION_MS = 36_525 * 86_400_000  # a hundred years: longer is a slip of the pen

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_PART = re.compile(r"(\d{1,15})(ms|s|m|h|d|w)", re.ASCII)
_UNIT_MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
REMEMBERED_CHARACTERS = 32  # of a duration whose meaning is cached


def rfc3339(ms: int) -> str:
    """UTC text of an instant, `2026-03-29T01:00:00Z`, with three decimals only where it is not a whole second.

    `ms` lies in MIN_MS..MAX_MS (years 1 to 9999); OverflowError beyond.
    """
    seconds, rest = divmod(ms, 1000)
    return f"{_whole(seconds)}.{rest:03}Z" if rest else _whole(seconds) + "Z"


@functools.lru_cache(maxsize=1024)
def _whole(seconds: int) -> str:
    """Most instants that are shown lie in few seconds."""
    return (_EPOCH + seconds * 1000 * _MS).replace(tzinfo=None).isoformat(timespec="seconds")


def parse_rfc3339(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 instant; what is finer than a millisecond is cut off.

    Raises ValueError that says what would be right.
    """
    match = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{shown(text)} is not an RFC 3339 instant: write it like 2026-03-29T01:30:00Z or with +02:00")
    year, month, day, hour, minute, second, fraction, sign, off_hour, off_minute = match.groups()
    try:
        when = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"{shown(text)} does not exist: {error}; write it like 2026-03-29T01:30:00Z") from None
    ms = (when - _EPOCH) // _MS + int((fraction or "0").ljust(3, "0")[:3])
    if sign:
        if int(off_hour) > 23 or int(off_minute) > 59:
            raise ValueError(f"{shown(text)} has an offset that does not exist: use -23:59 to +23:59, or Z")
        offset_ms = (int(off_hour) * 60 + int(off_minute)) * 60_000
        ms += offset_ms if sign == "-" else -offset_ms
    if not MIN_MS <= ms <= MAX_MS:
        raise ValueError(f"{shown(text)} lies outside the years 1 to 9999 in UTC")
    return ms


def parse_duration(value: object) -> int:
    """Milliseconds of `"90s"`, `"5m"`, `"1h30m"` (units ms s m h d w, each at most once) or of a number of seconds.

    0 is a duration; at most 36,525 days.  Raises ValueError that says what would be right.
    """
    if isinstance(value, str):
        ms = _duration_of_short(value) if len(value) <= REMEMBERED_CHARACTERS else _duration_of_text(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{shown(value)} is not a duration: use text like 90s, 5m or 1h30m, or a number of seconds")
    elif 0 <= value <= MAX_DURATION_MS / 1000:  # also false for NaN
        ms = round(value * 1000)
    else:
        ms = -1
    if not 0 <= ms <= MAX_DURATION_MS:
        raise ValueError(f"{shown(value)} is out of range: a duration is 0 to 36525 days")
    return ms


def _duration_of_text(text: str) -> int:
    total, position, seen = 0, 0, set()
    for match in _PART.finditer(text):
        number, unit = match.groups()
        if match.start() != position or unit in seen:
            break
        total += int(number) * _UNIT_MS[unit]
        position = match.end()
        seen.add(unit)
    if not text or position != len(text):
        hint = f"write {text}s for seconds" if text.isascii() and text.isdigit() and len(text) < 16 else ""
        raise ValueError(
            f"{shown(text)} is not a duration: "
            + (hint or "use whole numbers with units w d h m s ms, each at most once, like 90s, 5m or 1h30m")
        )
    return total


_duration_of_short = functools.lru_cache(maxsize=4_096)(_duration_of_text)  # each of a million jobs has the defaults


def format_duration(ms: int) -> str:
    """The shortest text of a duration that parse_duration reads back, largest unit first: `1h30m`, `500ms`, `0s`."""
    if ms < 0:
        raise ValueError(f"a duration is not negative: {ms} ms")
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, ms = divmod(ms, _UNIT_MS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def shown(value: object) -> str:
    """A value as a message may show it: quoted and bounded; null, true and false as JSON has them."""
    if value is None or isinstance(value, bool):
        return _JSON_WORDS[value]
    text = repr(value[:100] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."


_JSON_WORDS = {None: "null", True: "true", False: "false"}
