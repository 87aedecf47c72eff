"""No question costs much: held in function calls counted, so that a slow machine fails nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftcron.core.cron import MAX_TEXT
from raftcron.core.exclusion import Exclusion
from raftcron.core.explain import explain
from raftcron.core.instant import MAX_MS, MIN_MS, parse_rfc3339, rfc3339
from raftcron.core.schedule import Dst, ScheduleError, parse
from raftcron.core.times import Times
from raftcron.core.zone import zone
from tests.schedules import texts

# Python makes some ten million simple calls a second; 50 ms on a slow machine is 100,000 of them.
MAX_CALLS = 100_000


def calls_of(work: Callable[[], Any]) -> int:
    """How many functions, Python's and C's, the work calls."""
    count = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def ask_everything(text: str, timezone: str, at: int) -> None:
    """Parse and ask each question once; a refusal is an answer."""
    try:
        schedule = parse(text, timezone)
        schedule.next(at)
        schedule.previous(at)
        schedule.never_fires(at)
        explain(text, timezone, Dst(), "", at, 3)
    except ScheduleError:
        pass


@settings(max_examples=200, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts.fields(), texts.zones_and_instants())
def test_any_expression_at_any_jump_is_cheap(text: str, place: tuple[str, int]) -> None:
    """Expressions of the whole dialect, near jumps of the clock, stay within the bound."""
    zone(place[0])  # read once in a process's life
    assert calls_of(lambda: ask_everything(text, *place)) < MAX_CALLS


@settings(max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.text(st.sampled_from("0123456789*/-,?#LWHR() @abcdefjnrsuyTZ=.:"), max_size=MAX_TEXT + 4),
    st.sampled_from(texts.ZONES),
)
def test_any_text_is_answered_or_refused(text: str, timezone: str) -> None:
    """Whatever the text, the answer is a schedule or a ScheduleError, and cheap."""
    zone(timezone)
    assert calls_of(lambda: ask_everything(text, timezone, 1_774_746_000_000)) < MAX_CALLS


@pytest.mark.parametrize(
    "text",
    [
        "* * * * * *",
        "0 0 30 2 *",
        "0 0 29 2 */7",
        "0 0 29 2 1#5",
        "0 0 31W 2,4,6,9,11 *",
        "0 0 0 29 2 ? 2099",
        "59 59 23 31 12 ? 1970",
        "0-58/2 0-58/2 0-22/2 1-31/2 1-11/2 */2",
        "0 0 */100 * 1#4",
        "1-59/2 1-22/3 31 * *",
        "@every 1s",
        "@every 36525d",
    ],
)
@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "Antarctica/Troll", "Pacific/Apia", "Africa/Casablanca"])
def test_rare_dates_and_the_ends_of_time_are_cheap(text: str, timezone: str) -> None:
    """Dates that never come, every second inside a gap, and the first and last instants of all are answered."""
    zone(timezone)
    instants = [MIN_MS - 1, MIN_MS, MIN_MS + 1, 0, MAX_MS - 1, MAX_MS, MAX_MS + 1]
    instants += [parse_rfc3339(at) for at in ("0050-02-01T00:00:00Z", "9990-02-01T00:00:00Z")]
    instants += [parse_rfc3339(at) for at in ("2011-12-30T09:59:59Z", "2026-03-29T00:59:59.5Z", "2026-10-25T00:30:00Z")]
    for at in instants:
        assert calls_of(lambda at=at: ask_everything(text, timezone, at)) < MAX_CALLS


def test_the_ends_of_time_hold_no_surprise() -> None:
    """At the first and the last instants the next and previous times are what they are, or None."""
    schedule = parse("* * * * * *", "UTC")
    assert schedule.next(MIN_MS - 1) == MIN_MS
    assert schedule.previous(MIN_MS) is None
    assert schedule.previous(MIN_MS + 1) == MIN_MS
    assert schedule.next(MAX_MS - 1000) == MAX_MS - 999
    assert schedule.next(MAX_MS) is None
    assert schedule.previous(MAX_MS + 10**9) == MAX_MS - 999


def test_a_year_of_seconds_is_summed_up_by_the_day() -> None:
    """A year of `* * * * * *` is counted in a few calls a day, not second by second."""
    schedule = parse("* * * * * *", "Europe/Berlin")
    start, end = (parse_rfc3339(f"{year}-01-01T00:00:00Z") for year in (2025, 2026))
    assert schedule.summary(start, end, 0) == (start + 1000, end, 365 * 86_400)
    assert calls_of(lambda: schedule.summary(start, end, 0)) < MAX_CALLS


def test_a_search_past_many_excluded_days_is_cheap() -> None:
    """Nine hundred excluded days beside fifteen calendars of 64 expressions each cost no more than a question does."""
    start = parse_rfc3339("2026-01-01T00:00:00Z")
    dates = [rfc3339(start + day * 86_400_000)[:10] for day in range(900)]
    expressions = [f"{minute} {minute % 24} {minute % 28 + 1},L-{minute % 20} * *" for minute in range(60)] * 2
    calendars = [Exclusion(f"c{i}", {"schedules": expressions[i : i + 64]}) for i in range(15)]
    times = Times([parse("0 * * * *")], exclusions=[*calendars, Exclusion("holidays", {"dates": dates})])
    found: list[int | None] = []
    assert calls_of(lambda: found.append(times.next(start))) < MAX_CALLS
    assert found == [start + 900 * 86_400_000]
