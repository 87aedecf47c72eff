"""A schedule: a text that names instants; what comes next, what came before, how many lie between.

No clock and no state: every answer follows from the text, the zone, the instants asked about and, for `@every`, the
anchor that the job keeps.  Instants are integer milliseconds since 1970-01-01T00:00:00Z.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from raftcron.core.cron import ALIASES, MAX_TEXT, ScheduleError, parse_cron, uses_hash
from raftcron.core.instant import MAX_MS, MIN_MS, format_duration, parse_duration, parse_rfc3339
from raftcron.core.tally import Tally, clock_mask, cut
from raftcron.core.walk import CRONITER_VERSION, walk
from raftcron.core.zone import DAY_S, FAR_FUTURE_S, FAR_PAST_S, TZDATA_VERSION, Segment, known_zone, similar_zone, zone

__all__ = [
    "CRONITER_VERSION",
    "TZDATA_VERSION",
    "AtSchedule",
    "CronSchedule",
    "Dst",
    "EverySchedule",
    "ManualSchedule",
    "Schedule",
    "ScheduleError",
    "between_of",
    "each_of",
    "known_zone",
    "next_of",
    "parse",
    "previous_of",
    "summary_of",
]

MIN_INTERVAL_MS = 1_000
MAX_CATCH_UP_JUMP_S = 3 * 3600  # a larger jump of the wall clock is a correction: nothing in it is caught up
CACHE_SIZE = 16_384  # schedules of equal arguments that are one object

Kind = Literal["cron", "every", "at", "manual"]


@dataclass(frozen=True, slots=True)
class Dst:
    """What a fixed-time cron schedule does when the wall clock jumps.

    `gap`: a time that does not exist runs at the first instant after the gap (`run_after`) or not at all (`skip`).
    `fold`: a time that comes twice runs on its `first` pass, its `last`, or on `both`.
    """

    gap: str = "run_after"
    fold: str = "first"

    def __post_init__(self) -> None:
        if self.gap not in ("run_after", "skip"):
            raise ScheduleError(f"dst.gap is {self.gap!r:.40}", None, "use run_after or skip")
        if self.fold not in ("first", "last", "both"):
            raise ScheduleError(f"dst.fold is {self.fold!r:.40}", None, "use first, last or both")


class Schedule(ABC):
    """What one text names.  Immutable, and shared by all that parse the same text with the same arguments.

    `anchor_ms` matters to `@every` alone: its times are anchor + k * interval, k >= 1.
    """

    __slots__ = ("text", "timezone")

    kind: Kind

    def __init__(self, text: str, timezone: str) -> None:
        self.text = text
        self.timezone = timezone

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.text!r} {self.timezone}>"

    @property
    def from_last_end(self) -> bool:
        """Whether the times count from the end of the job's last run (`@every 5m from last_end`)."""
        return False

    @abstractmethod
    def next(self, after_ms: int, anchor_ms: int = 0) -> int | None:
        """The first time strictly after an instant; None: never again."""

    @abstractmethod
    def previous(self, before_ms: int, anchor_ms: int = 0) -> int | None:
        """The last time strictly before an instant; None: there is none."""

    def between(self, after_ms: int, through_ms: int, anchor_ms: int, limit: int) -> list[int]:
        """The times in (after, through], oldest first, at most `limit` of them."""
        return between_of((self,), after_ms, through_ms, anchor_ms, limit)

    def summary(self, after_ms: int, through_ms: int, anchor_ms: int) -> tuple[int, int, int] | None:
        """First, last and number of the times in (after, through]; None if there are none.

        Cheap for any span: no time is looked at one by one.
        """
        return summary_of((self,), after_ms, through_ms, anchor_ms)

    @abstractmethod
    def add_to(self, tally: Tally, anchor_ms: int) -> None:
        """Give the times to a tally, which counts those of several schedules together."""

    def never_fires(self, after_ms: int) -> bool:
        """Whether no time at all comes after an instant.  False for `@manual`, which waits to be asked."""
        return self.next(after_ms, after_ms) is None


class CronSchedule(Schedule):
    """Cron fields matched on the wall clock of a zone; through jumps of that clock it behaves as Debian cron does.

    Where the text of the second, minute or hour field starts with `*` the schedule follows elapsed time: both passes
    of a repeated hour fire, times in a gap do not exist.  All others run once a wall-clock time, as Dst says.
    """

    __slots__ = ("_known", "catches_up", "dst", "fields", "fold", "hash_key", "walk", "zone")

    kind: Kind = "cron"

    def __init__(self, text: str, timezone: str, dst: Dst, hash_key: str) -> None:
        super().__init__(text, timezone)
        self.dst = dst
        self.hash_key = hash_key
        self.fields = parse_cron(expression(text), hash_key)
        self.catches_up = dst.gap == "run_after" and not self.fields.wildcard
        self.fold = "both" if self.fields.wildcard else dst.fold
        self.walk = walk(self.fields)
        self.zone = zone(timezone)
        self._known = MIN_MS - 1  # one of its times, if it is above: many jobs that share it are asked about together

    def window(self, segment: Segment) -> tuple[int, int]:
        """The wall-clock seconds lo <= w < hi that count inside a stretch of one offset."""
        start, end, offset, before, after = segment
        lo = start + (max(offset, before) if self.fold == "first" else offset)
        hi = end + (min(offset, after) if self.fold == "last" else offset)
        return lo, hi

    def gap_before(self, segment: Segment) -> bool:
        """Whether a stretch begins with a gap of the wall clock whose times run at its first instant."""
        return self.catches_up and 0 < segment.offset - segment.before <= MAX_CATCH_UP_JUMP_S

    def next(self, after_ms: int, anchor_ms: int = 0) -> int | None:
        after = max(after_ms, MIN_MS - 1) // 1000
        if after_ms >= MAX_MS:
            return None
        segment = self.zone.segment(after + 1)
        known_from, known = 0, -1  # the walk has nothing in known_from <= w < known
        exhausted, may_go_back = False, True
        while True:
            start, end, offset, before, _ = segment
            if start > after and self.gap_before(segment):
                wall = start + before
                if not known_from <= wall <= known:
                    known_from, known = wall, _or_never(self.walk.first_from(wall))
                if known < start + offset:
                    return start * 1000
            lo, hi = self.window(segment)
            wall = max(lo, after + 1 + offset)
            if not known_from <= wall <= known:
                known_from, known = wall, _or_never(self.walk.first_from(wall))
            if known < hi:
                found = (known - offset) * 1000
                return found if found <= MAX_MS else None
            # After the last wall-clock time of all, a clock that goes back may still show it once more.
            if exhausted or end >= FAR_FUTURE_S:
                return None
            exhausted = known >= FAR_FUTURE_S
            after = end - 1
            # Stretches that end before what the walk found are passed over, but never the very next one, whose clock
            # may go back to before where the walk began.
            segment = self.zone.segment(end if may_go_back or exhausted else max(end, known - 2 * DAY_S))
            may_go_back = False

    def never_fires(self, after_ms: int) -> bool:
        if self._known <= after_ms:
            found = self.next(after_ms)
            self._known = MIN_MS - 1 if found is None else found  # 0 is the first instant of 1970
        return self._known <= after_ms

    def previous(self, before_ms: int, anchor_ms: int = 0) -> int | None:
        until = -(-min(before_ms, MAX_MS + 1) // 1000)
        if before_ms <= MIN_MS:
            return None
        segment = self.zone.segment(until - 1)
        known, known_to = 1, 0  # the walk has nothing in known < w < known_to
        exhausted, may_go_back = False, True
        while True:
            start, _, offset, before, _ = segment
            lo, hi = self.window(segment)
            wall = min(hi, until + offset)
            if not known < wall <= known_to:
                known, known_to = _or_ever(self.walk.last_before(wall)), wall
            if known >= lo:
                found = (known - offset) * 1000
                return found if found >= MIN_MS else None
            if self.gap_before(segment):
                wall = start + offset
                if not known < wall <= known_to:
                    known, known_to = _or_ever(self.walk.last_before(wall)), wall
                if known >= start + before:
                    return start * 1000
            if exhausted or start <= FAR_PAST_S:
                return None
            exhausted = known <= FAR_PAST_S
            until = start
            segment = self.zone.segment(start - 1 if may_go_back or exhausted else min(start - 1, known + 2 * DAY_S))
            may_go_back = False

    def add_to(self, tally: Tally, anchor_ms: int) -> None:
        tally.add_days(self._day_mask)

    def _day_mask(self, midnight: int) -> int:
        """The times of the UTC day that begins at second `midnight`, as bits."""
        clock = clock_mask(self.fields.hours, self.fields.minutes, self.fields.seconds)
        end = midnight + DAY_S
        found = 0
        segment = self.zone.segment(midnight)
        while True:
            offset = segment.offset
            lo, hi = self.window(segment)
            lo, hi = max(lo, midnight + offset), min(hi, end + offset)
            for wall_day in range(lo // DAY_S, -(-hi // DAY_S)):
                if self.walk.calendar.matches(wall_day):
                    wall_midnight = wall_day * DAY_S
                    mask = cut(clock, lo - wall_midnight, hi - wall_midnight)
                    shift = wall_midnight - offset - midnight
                    found |= mask << shift if shift >= 0 else mask >> -shift
            if segment.start >= midnight and self.gap_before(segment):
                wall = self.walk.first_from(segment.start + segment.before)
                if wall is not None and wall < segment.start + offset:
                    found |= 1 << (segment.start - midnight)
            if segment.end >= end:
                return found
            segment = self.zone.segment(segment.end)


class EverySchedule(Schedule):
    """`@every`: a fixed interval on a grid that starts at an anchor."""

    __slots__ = ("_from_last_end", "anchor_ms", "interval_ms")

    kind: Kind = "every"

    def __init__(self, text: str, timezone: str, interval_ms: int, anchor_ms: int | None, from_last_end: bool) -> None:
        super().__init__(text, timezone)
        self.interval_ms = interval_ms
        self.anchor_ms = anchor_ms  # the text's own (`from <RFC 3339>`), which goes before the job's
        self._from_last_end = from_last_end

    @property
    def from_last_end(self) -> bool:
        return self._from_last_end

    def anchor(self, anchor_ms: int) -> int:
        """The anchor that counts: the text's own, else the job's."""
        return anchor_ms if self.anchor_ms is None else self.anchor_ms

    def next(self, after_ms: int, anchor_ms: int = 0) -> int | None:
        anchor = self.anchor(anchor_ms)
        k = max(1, (after_ms - anchor) // self.interval_ms + 1)
        found = anchor + k * self.interval_ms
        return found if found <= MAX_MS else None

    def previous(self, before_ms: int, anchor_ms: int = 0) -> int | None:
        anchor = self.anchor(anchor_ms)
        k = -((anchor - min(before_ms, MAX_MS + 1)) // self.interval_ms) - 1
        return anchor + k * self.interval_ms if k >= 1 else None

    def add_to(self, tally: Tally, anchor_ms: int) -> None:
        tally.add_every(self.interval_ms, self.anchor(anchor_ms))


class AtSchedule(Schedule):
    """`@at`: one instant."""

    __slots__ = ("at_ms",)

    kind: Kind = "at"

    def __init__(self, text: str, timezone: str, at_ms: int) -> None:
        super().__init__(text, timezone)
        self.at_ms = at_ms

    def next(self, after_ms: int, anchor_ms: int = 0) -> int | None:
        return self.at_ms if self.at_ms > after_ms else None

    def previous(self, before_ms: int, anchor_ms: int = 0) -> int | None:
        return self.at_ms if self.at_ms < before_ms else None

    def add_to(self, tally: Tally, anchor_ms: int) -> None:
        tally.add_once(self.at_ms)


class ManualSchedule(Schedule):
    """`@manual`: only when asked."""

    __slots__ = ()

    kind: Kind = "manual"

    def next(self, after_ms: int, anchor_ms: int = 0) -> int | None:
        return None

    def previous(self, before_ms: int, anchor_ms: int = 0) -> int | None:
        return None

    def add_to(self, tally: Tally, anchor_ms: int) -> None:
        pass

    def never_fires(self, after_ms: int) -> bool:
        return False


# ---- parsing -----------------------------------------------------------------------------------------------------

_FOREIGN = re.compile(r"[^ -~\t\r\n]")
_EVERY = re.compile(r"@every\s+(?P<interval>\S+)(?:\s+from\s+(?P<anchor>\S+))?", re.ASCII | re.IGNORECASE)
_AT = re.compile(r"@at\s+(?P<at>\S+)", re.ASCII | re.IGNORECASE)


def parse(text: str, timezone: str = "UTC", *, dst: Dst = Dst(), hash_key: str = "") -> Schedule:
    """The schedule that a text names, in an IANA zone; equal arguments give the same object.

    At most 256 characters.  `hash_key` (the job's name, if it sets no other) is what `H` is drawn from.
    Raises ScheduleError, which says where, what and what would be right.
    """
    if not isinstance(text, str):
        raise ScheduleError(f"a schedule is text, not {type(text).__name__}", None, "write for instance `*/5 * * * *`")
    if len(text) > MAX_TEXT:
        raise ScheduleError(f"the schedule has {len(text)} characters", None, f"use at most {MAX_TEXT}")
    if not isinstance(timezone, str):
        raise _unknown_zone(str(timezone), None)
    return _parse(text, timezone, dst, hash_key if _is_hashed(text, timezone) else "")


@functools.lru_cache(maxsize=CACHE_SIZE)
def _is_hashed(text: str, timezone: str) -> bool:
    """Whether a text depends on the hash key.  Raises ScheduleError where its characters or the zone are at fault."""
    if foreign := _FOREIGN.search(text):
        raise ScheduleError(
            f"the character {foreign.group()!a} has no place in a schedule", foreign.start(), "use plain ASCII"
        )
    if not known_zone(timezone):
        raise _unknown_zone(timezone, similar_zone(timezone))
    return uses_hash(text)


def _unknown_zone(said: str, similar: str | None) -> ScheduleError:
    if said == similar:
        return ScheduleError(
            f"the file of the time zone {said!r} is missing or damaged in tz data {TZDATA_VERSION}",
            None,
            "install the package tzdata anew on this node",
        )
    return ScheduleError(
        f"the time zone {said[:60]!r} is not known to tz data {TZDATA_VERSION}",
        None,
        f"did you mean {similar}?" if similar else "use an IANA name such as Europe/Berlin or UTC",
    )


@functools.lru_cache(maxsize=CACHE_SIZE)
def _parse(text: str, timezone: str, dst: Dst, hash_key: str) -> Schedule:
    word, *rest = text.split(maxsplit=1) or [""]
    start = len(text) - len(text.lstrip())
    match word.lower():
        case "@every":
            return _parse_every(text, timezone)
        case "@at":
            return _parse_at(text, timezone)
        case "@manual" if not rest:
            return ManualSchedule(text, timezone)
        case "@reboot":
            raise ScheduleError(
                "@reboot is refused: a cluster does not boot, its nodes come and go",
                start,
                "use @every, or @manual and a call from the node that boots",
            )
        case name if name.startswith("@") and (name not in ALIASES or rest):
            raise ScheduleError(
                f"`{text.strip()[:40]}` is no schedule",
                start,
                f"use {' '.join(ALIASES)}, @every 5m, @at 2030-01-01T00:00:00Z or @manual",
            )
    return CronSchedule(text, timezone, dst, hash_key)


def _parse_every(text: str, timezone: str) -> EverySchedule:
    match = _EVERY.fullmatch(text.strip())
    start = len(text) - len(text.lstrip())
    if match is None:
        raise ScheduleError(
            "@every cannot be read",
            start,
            "write `@every 5m`, `@every 5m from last_end` or `@every 5m from 2030-01-01T00:00:00Z`",
        )
    at = start + match.start("interval")
    try:
        interval_ms = parse_duration(match["interval"].lower())
    except ValueError as error:
        raise ScheduleError(f"the interval of @every: {error}", at) from None
    if interval_ms < MIN_INTERVAL_MS:
        raise ScheduleError(f"the interval of @every is {format_duration(interval_ms)}", at, "the smallest is 1s")
    anchor = match["anchor"]
    if anchor is None or anchor.lower() == "last_end":
        return EverySchedule(text, timezone, interval_ms, None, anchor is not None)
    try:
        anchor_ms = parse_rfc3339(anchor)
    except ValueError as error:
        raise ScheduleError(
            f"after `from`: {error}", start + match.start("anchor"), "or `last_end`, the end of the last run"
        ) from None
    return EverySchedule(text, timezone, interval_ms, anchor_ms, False)


def _parse_at(text: str, timezone: str) -> AtSchedule:
    match = _AT.fullmatch(text.strip())
    start = len(text) - len(text.lstrip())
    if match is None:
        raise ScheduleError("@at wants one instant", start, "write `@at 2030-01-01T00:00:00Z`")
    try:
        return AtSchedule(text, timezone, parse_rfc3339(match["at"]))
    except ValueError as error:
        raise ScheduleError(f"@at: {error}", start + match.start("at")) from None


def expression(text: str) -> str:
    """The cron expression that a text stands for: an alias's, or the text itself."""
    return ALIASES.get(text.strip().lower(), text)


# ---- several schedules of one job --------------------------------------------------------------------------------


def next_of(schedules: Sequence[Schedule], after_ms: int, anchor_ms: int) -> int | None:
    """The earliest time of any of the schedules strictly after an instant; None: never again."""
    found = [at for schedule in schedules if (at := schedule.next(after_ms, anchor_ms)) is not None]
    return min(found) if found else None


def previous_of(schedules: Sequence[Schedule], before_ms: int, anchor_ms: int) -> int | None:
    """The latest time of any of the schedules strictly before an instant; None: there is none."""
    found = [at for schedule in schedules if (at := schedule.previous(before_ms, anchor_ms)) is not None]
    return max(found) if found else None


def between_of(schedules: Sequence[Schedule], after_ms: int, through_ms: int, anchor_ms: int, limit: int) -> list[int]:
    """The times of all the schedules in (after, through], oldest first, equal ones once, at most `limit`."""
    return list(itertools.islice(each_of(schedules, after_ms, through_ms, anchor_ms), max(limit, 0)))


def each_of(schedules: Sequence[Schedule], after_ms: int, through_ms: int, anchor_ms: int) -> Iterator[int]:
    """The same without a limit, each time worked out when it is asked for."""
    last = None
    for at in heapq.merge(*(_times(schedule, after_ms, through_ms, anchor_ms) for schedule in schedules)):
        if at != last:
            yield at
        last = at


def _times(schedule: Schedule, after_ms: int, through_ms: int, anchor_ms: int) -> Iterator[int]:
    at = schedule.next(after_ms, anchor_ms)
    while at is not None and at <= through_ms:
        yield at
        at = schedule.next(at, anchor_ms)


def summary_of(
    schedules: Sequence[Schedule], after_ms: int, through_ms: int, anchor_ms: int
) -> tuple[int, int, int] | None:
    """First, last and number of the times of all the schedules in (after, through], equal ones once; None: none."""
    first = next_of(schedules, after_ms, anchor_ms)
    if first is None or first > through_ms:
        return None
    last = previous_of(schedules, through_ms + 1, anchor_ms)
    assert last is not None
    tally = Tally()
    for schedule in dict.fromkeys(schedules):
        schedule.add_to(tally, anchor_ms)
    return first, last, tally.count(after_ms, through_ms)


def _or_never(wall: int | None) -> int:
    return FAR_FUTURE_S * 10 if wall is None else wall


def _or_ever(wall: int | None) -> int:
    return FAR_PAST_S * 10 if wall is None else wall
