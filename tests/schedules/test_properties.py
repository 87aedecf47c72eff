"""What holds for every expression, zone and instant, 1990 to 2090."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from raftcron.core import ledger
from raftcron.core.instant import MAX_MS
from raftcron.core.schedule import CronSchedule, Dst, between_of, next_of, parse, previous_of, summary_of
from raftcron.core.walk import Walk
from tests.schedules import brute, texts

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


def examples(number: int) -> Callable[[Any], Any]:
    """The same bounded examples on every machine."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


@examples(400)
@given(texts.fields(), texts.zones_and_instants(), texts.dsts)
def test_next_strictly_increases_and_previous_leads_back(text: str, place: tuple[str, int], dst: Dst) -> None:
    """Each next time is later than the last, and previous of it is exactly the one before."""
    zone, at = place
    schedule = parse(text, zone, dst=dst)
    first = schedule.next(at)
    assume(first is not None)
    times = schedule.between(at, MAX_MS, 0, 6)
    assert times[0] == first
    assert times == sorted(set(times)) and times[0] > at
    for earlier, later in itertools.pairwise(times):
        assert schedule.previous(later) == earlier
        assert schedule.next(later - 1) == later
        assert schedule.next(earlier + 1) == later
        assert schedule.previous(earlier + 1) == earlier


@examples(400)
@given(texts.fields(), texts.zones_and_instants(), texts.dsts)
def test_previous_and_next_enclose(text: str, place: tuple[str, int], dst: Dst) -> None:
    """previous(t) < t < next(t), and nothing lies between previous(t) and t."""
    zone, at = place
    schedule = parse(text, zone, dst=dst)
    before, after = schedule.previous(at), schedule.next(at)
    assert before is None or before < at
    assert after is None or after > at
    if before is not None:
        following = schedule.next(before)
        assert following is None or following >= at
        assert following == (at if schedule.next(at - 1) == at else after)


@examples(250)
@given(texts.fields(), texts.zones_and_instants(), texts.dsts, st.integers(1, 30))
def test_every_walk_agrees_with_looking_at_each_minute(text: str, place: tuple[str, int], dst: Dst, hours: int) -> None:
    """next, previous, summary and the ledger give what looking at every minute of the span gives."""
    zone, at = place
    schedule = parse(text, zone, dst=dst)
    assert isinstance(schedule, CronSchedule)
    start = at - at % 60_000
    end = start + hours * HOUR_MS
    expected = brute.fires(schedule.fields, zone, dst, start, end)
    summary = (expected[0], expected[-1], len(expected)) if expected else None
    assert schedule.summary(start - 1, end - 1, 0) == summary
    assert ledger.count([schedule], start - 1, end - 1, 0) == len(expected)
    assert schedule.between(start - 1, end - 1, 0, 50) == expected[:50]
    back, found = end, []
    while len(found) < 50 and (previous := schedule.previous(back)) is not None and previous >= start:
        found.append(previous)
        back = previous
    assert found == expected[::-1][:50]


@examples(150)
@given(
    st.lists(texts.fields(), min_size=1, max_size=4),
    st.lists(st.sampled_from(("@every 1s", "@every 1500ms", "@every 20m", "@every 36h", "@hourly")), max_size=2),
    texts.zones_and_instants(),
    texts.dsts,
    st.integers(0, 40 * HOUR_MS),
    st.integers(0, HOUR_MS),
)
def test_several_schedules_count_equal_instants_once(
    crons: list[str], others: list[str], place: tuple[str, int], dst: Dst, span: int, anchor_before: int
) -> None:
    """Of several schedules the merged times, the summary and the ledger agree, whatever falls together."""
    zone, after = place
    schedules = [parse(text, zone, dst=dst) for text in crons + others]
    anchor = after - anchor_before
    times = between_of(schedules, after, after + span, anchor, 150)
    through = times[-1] if len(times) == 150 else after + span
    assert times == sorted(set(times))
    assert summary_of(schedules, after, through, anchor) == ((times[0], times[-1], len(times)) if times else None)
    assert ledger.count(schedules, after, through, anchor) == len(times)
    assert next_of(schedules, after, anchor) == min(
        (at for schedule in schedules if (at := schedule.next(after, anchor)) is not None), default=None
    )
    if times:
        assert previous_of(schedules, through + 1, anchor) == times[-1]


@examples(60)
@given(texts.fields(), texts.zones_and_instants(), texts.dsts, st.integers(0, 5 * 366 * DAY_MS), st.data())
def test_counts_over_years_agree_and_add_up(
    text: str, place: tuple[str, int], dst: Dst, span: int, data: st.DataObject
) -> None:
    """Over years the summary counts what the ledger counts, and any split of a span adds up."""
    zone, after = place
    schedule = parse(text, zone, dst=dst)
    through = after + span
    summary = schedule.summary(after, through, 0)
    counted = ledger.count([schedule], after, through, 0)
    assert counted == (summary[2] if summary else 0)
    middle = data.draw(st.integers(after, through))
    assert counted == ledger.count([schedule], after, middle, 0) + ledger.count([schedule], middle, through, 0)


@examples(300)
@given(texts.fields(special=False), texts.zones_and_instants())
def test_croniter_and_the_calendar_walk_alike(text: str, place: tuple[str, int]) -> None:
    """Where croniter walks the day fields too, the calendar would have given the same, in both directions."""
    schedule = parse(text, place[0])
    assert isinstance(schedule, CronSchedule)
    by_croniter, by_calendar = Walk(schedule.fields), Walk(schedule.fields, calendar_only=True)
    wall = place[1] // 1000
    assert by_croniter.first_from(wall) == by_calendar.first_from(wall)
    assert by_croniter.last_before(wall) == by_calendar.last_before(wall)


@examples(300)
@given(texts.fields(wrap=False, special=False, seconds=False), texts.zones_and_instants())
def test_agrees_with_cronsim(text: str, place: tuple[str, int]) -> None:
    """Five plain fields fire when cronsim, a simulator of Debian cron, says so.

    Left out is where cronsim is unsound: `5-5/2`, which it takes for `5/2`, a start inside a repeated hour, a jump of
    more than three hours, and, for what follows elapsed time, a jump that is not from one
    whole hour to another or touches midnight.
    """
    assume(re.search(r"\b(\d+)-\1/", text) is None)
    zone, at = place
    at -= at % 60_000
    schedule = parse(text, zone)
    local = brute.utc(at).astimezone(brute.zone_info(zone))
    assume(local.utcoffset() == local.replace(fold=1 - local.fold).utcoffset())
    first = schedule.next(at)
    assume(first is not None and first < at + 400 * DAY_MS)
    assume(
        not any(at - DAY_MS < jump < at + 400 * DAY_MS and _is_unsound(zone, jump, text) for jump in texts.JUMPS[zone])
    )
    simulated = CronSim(text, local)
    at_ms = at
    for _ in range(4):
        ours = schedule.next(at_ms)
        assert ours is not None
        theirs = next(simulated).astimezone(UTC)
        assert brute.utc(ours) == theirs, (text, zone, at)
        at_ms = ours
        if ours > at + 400 * DAY_MS:
            break


def _is_unsound(zone: str, jump_ms: int, text: str) -> bool:
    tz = brute.zone_info(zone)
    before, after = (brute.utc(at).astimezone(tz).utcoffset() for at in (jump_ms - 1, jump_ms))
    assert before is not None and after is not None
    if not any(field.startswith("*") for field in text.split()[:2]):
        return abs(after - before) > timedelta(hours=3)
    lo, hi = sorted(brute.utc(jump_ms).replace(tzinfo=None) + offset for offset in (before, after))
    touches_midnight = (lo - timedelta(seconds=1)).date() != hi.date()
    return touches_midnight or lo.minute != 0 or hi.minute != 0


@examples(200)
@given(
    st.integers(1_000, 400 * DAY_MS),
    st.integers(texts.FIRST_MS, texts.LAST_MS),
    st.integers(-10 * DAY_MS, 4000 * DAY_MS),
    st.integers(0, 100),
)
def test_every_stays_on_its_grid(interval: int, anchor: int, since: int, steps: int) -> None:
    """@every fires at anchor + k * interval with k >= 1, forwards, backwards and counted."""
    schedule = parse(f"@every {interval}ms")
    at = anchor + since
    following = schedule.next(at, anchor)
    assert following is not None and following > at
    k, rest = divmod(following - anchor, interval)
    assert rest == 0 and k >= 1
    assert k == 1 or following - interval <= at
    assert schedule.previous(following, anchor) == (following - interval if k > 1 else None)
    through = following + steps * interval
    assert schedule.summary(at, through, anchor) == (following, through, steps + 1)
    assert ledger.count([schedule], at, through, anchor) == steps + 1


def test_ledger_refuses_what_has_no_calendar() -> None:
    """A schedule that counts from the last end cannot be recounted, and says so."""
    with pytest.raises(ValueError, match="last_end"):
        ledger.count([parse("@every 5m from last_end")], 0, DAY_MS, 0)
