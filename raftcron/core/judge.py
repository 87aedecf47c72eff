"""Whether the times that a definition asks for make sense: calendars that exist, schedules that will ever fire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raftcron.core import definition
from raftcron.core.exclusion import exclusion_of
from raftcron.core.fields import near
from raftcron.core.instant import parse_duration, rfc3339
from raftcron.core.model import Calendar, Policy, Recurrence
from raftcron.core.schedule import Dst, Schedule, ScheduleError, known_zone, parse
from raftcron.core.times import SEARCH_DAYS, Times, schedules_of, times_of
from raftcron.errors import Fault


class ScheduleJudge:
    """Judges the schedules of one body, text by text; `faults` is what concerns the zone and the calendars.

    A schedule that the job has already may be over (an `@at` that has fired): writing the job again must not fail, so
    what it has is passed as `kept`.
    """

    def __init__(self, name: str, now: int, body: Any, kept: Policy | None, calendars: Mapping[str, Calendar]) -> None:
        self._kept = None if kept is None else kept.recurrence
        self._hash_key = name
        self._dst = Dst()
        self._now = self._window_from = now
        self._takes_past = False
        self.faults: list[Fault] = []
        if not isinstance(body, dict):
            return
        timezone = body.get("timezone", "UTC")
        if isinstance(timezone, str) and not known_zone(timezone):
            try:
                parse("@manual", timezone)
            except ScheduleError as error:
                self.faults.append(Fault("/timezone", str(error)))
        exclude = body.get("exclude")
        for place, calendar in enumerate(exclude if isinstance(exclude, list) else []):
            if isinstance(calendar, str) and calendar not in calendars:
                hint = near(calendar, calendars) or "; PUT it to /v1/calendars first"
                self.faults.append(Fault(f"/exclude/{place}", f"there is no calendar {calendar[:200]!r}{hint}"))
        if isinstance(body.get("hash_key"), str):
            self._hash_key = body["hash_key"]
        self._window_from = now - _window_ms(body)
        texts = body.get("schedule")
        # A new job of @at alone begins before them; for any other, what is past is decided.
        self._takes_past = kept is None and all(map(_is_at, texts if isinstance(texts, list) else [texts]))

    def __call__(self, text: str, timezone: str) -> str | None:
        try:
            schedule = parse(text, timezone if known_zone(timezone) else "UTC", hash_key=self._hash_key)
        except ScheduleError as error:
            return str(error)
        kept = self._kept
        is_at = schedule.kind == "at"
        if kept is not None and text in kept.schedules and (is_at or timezone == kept.timezone):
            return None
        if is_at and schedule.never_fires(self._window_from - 1):
            return "lies in the past, further than misfire.window reaches: it would never fire"
        if not schedule.never_fires(self._now) or (is_at and self._takes_past):
            return None
        if is_at:
            return (
                "lies in the past, where only a new job that has nothing but @at still fires: it would never fire; "
                "name an instant to come, or run the job by hand"
            )
        return "never fires: no coming date matches it"


def never_fires(policy: Policy, name: str, now: int, calendars: Mapping[str, Calendar]) -> Fault | None:
    """Why a definition whose fields are each sound would never fire all the same; None if it will."""
    recurrence = policy.recurrence
    try:
        schedules = schedules_of(policy, name)
        exclusions = [exclusion_of(calendars[calendar]) for calendar in recurrence.exclude]
    except ScheduleError as error:
        return Fault("/exclude", str(error))
    if any(schedule.kind == "manual" for schedule in schedules):
        return None
    after = _begin(schedules, policy, now)
    if _is_free(recurrence) and not all(schedule.never_fires(after) for schedule in schedules):
        return None
    times = times_of(recurrence, schedules, now, exclusions, now, now)
    if times.next(after) is not None:
        return None
    free = Times(times.schedules, now, start_at=recurrence.start_at)
    at = free.next(after)
    if recurrence.end_at is not None and (recurrence.end_at < now or (at is not None and at > recurrence.end_at)):
        first = "no time comes after now" if at is None else f"the first time to come is {rfc3339(at)}"
        return Fault("/end_at", f"{rfc3339(recurrence.end_at)} is too early: {first}, so it would never fire")
    if exclusions:
        return Fault(
            "/exclude", f"the calendars leave nothing of {SEARCH_DAYS:,} days that have a time: it would never fire"
        )
    return Fault("/schedule", "never fires: no coming date matches it")


def _is_free(recurrence: Recurrence) -> bool:
    """Whether all times that its schedules name are its own."""
    return recurrence.start_at is None and recurrence.end_at is None and not recurrence.exclude


def _begin(schedules: Sequence[Schedule], policy: Policy, now: int) -> int:
    """From where times count: an `@at` that is past but in time fires still."""
    return now - policy.window_ms - 1 if all(schedule.kind == "at" for schedule in schedules) else now


def _is_at(text: Any) -> bool:
    return isinstance(text, str) and [word.lower() for word in text.split()[:1]] == ["@at"]


def _window_ms(body: Mapping[str, Any]) -> int:
    """How far back a missed time still counts, as the body has it; the default where that cannot be read."""
    misfire = body.get("misfire")
    window = misfire.get("window") if isinstance(misfire, dict) else None
    try:
        return parse_duration(definition.DEFAULTS["misfire"]["window"] if window is None else window)
    except (ValueError, TypeError):
        return 0
