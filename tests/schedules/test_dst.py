"""Jumps of the wall clock, in pairs: into summer and back, fixed-time jobs and those that follow elapsed time."""

from __future__ import annotations

import pytest

from raftcron.core import ledger
from raftcron.core.instant import parse_rfc3339, rfc3339
from raftcron.core.schedule import Dst, parse

# Europe/Berlin 2026: 29 March 02:00 -> 03:00 (01:00 UTC), 25 October 03:00 -> 02:00 (01:00 UTC).
CASES = [
    # text, zone, dst, (from, to], times
    ("30 2 * * *", "Europe/Berlin", Dst(), "03-28T12:00 03-30T12:00", "03-29T01:00 03-30T00:30"),
    ("30 2 * * *", "Europe/Berlin", Dst(gap="skip"), "03-28T12:00 03-30T12:00", "03-30T00:30"),
    ("0,30 2,3 * * *", "Europe/Berlin", Dst(), "03-28T12:00 03-29T12:00", "03-29T01:00 03-29T01:30"),
    ("0 2 * * *", "Europe/Berlin", Dst(), "03-28T12:00 03-29T12:00", "03-29T01:00"),
    ("0 3 * * *", "Europe/Berlin", Dst(), "03-28T12:00 03-29T12:00", "03-29T01:00"),
    ("*/30 2 * * *", "Europe/Berlin", Dst(), "03-28T12:00 03-30T12:00", "03-30T00:00 03-30T00:30"),
    ("30 * * * *", "Europe/Berlin", Dst(), "03-29T00:00 03-29T02:00", "03-29T00:30 03-29T01:30"),
    ("30 2 * * *", "Europe/Berlin", Dst(), "10-24T12:00 10-26T12:00", "10-25T00:30 10-26T01:30"),
    ("30 2 * * *", "Europe/Berlin", Dst(fold="last"), "10-24T12:00 10-26T12:00", "10-25T01:30 10-26T01:30"),
    ("30 2 * * *", "Europe/Berlin", Dst(fold="both"), "10-24T12:00 10-26T12:00", "10-25T00:30 10-25T01:30 10-26T01:30"),
    ("30 * * * *", "Europe/Berlin", Dst(), "10-25T00:00 10-25T02:00", "10-25T00:30 10-25T01:30"),
    (
        "*/30 2 * * *",
        "Europe/Berlin",
        Dst(),
        "10-24T12:00 10-25T12:00",
        "10-25T00:00 10-25T00:30 10-25T01:00 10-25T01:30",
    ),
    # The same rule with a seconds field.
    ("0 30 2 * * *", "Europe/Berlin", Dst(), "03-28T12:00 03-30T12:00", "03-29T01:00 03-30T00:30"),
    ("*/30 30 2 * * *", "Europe/Berlin", Dst(), "03-28T12:00 03-29T12:00", ""),
    ("0 30 2 * * *", "Europe/Berlin", Dst(), "10-24T12:00 10-25T12:00", "10-25T00:30"),
    # A question asked between the two passes.
    ("30 2 * * *", "Europe/Berlin", Dst(), "10-25T00:45 10-26T12:00", "10-26T01:30"),
    ("30 2 * * *", "Europe/Berlin", Dst(fold="last"), "10-25T00:45 10-26T12:00", "10-25T01:30 10-26T01:30"),
    # Half an hour: Lord Howe, 5 April 02:00 -> 01:30 (15:00 UTC the day before), 4 October 02:00 -> 02:30.
    ("45 1 * * *", "Australia/Lord_Howe", Dst(), "04-04T00:00 04-05T00:00", "04-04T14:45"),
    ("45 1 * * *", "Australia/Lord_Howe", Dst(fold="both"), "04-04T00:00 04-05T00:00", "04-04T14:45 04-04T15:15"),
    ("15 2 * * *", "Australia/Lord_Howe", Dst(), "10-03T00:00 10-04T00:00", "10-03T15:30"),
    # Two hours at once: Troll, 29 March 01:00 -> 03:00.
    ("0 1,2,3 * * *", "Antarctica/Troll", Dst(), "03-28T12:00 03-29T12:00", "03-29T01:00"),
]


@pytest.mark.parametrize(("text", "zone", "dst", "span", "times"), CASES)
def test_jumps_of_2026(text: str, zone: str, dst: Dst, span: str, times: str) -> None:
    """Through a jump the schedule fires at exactly these instants (UTC), forwards, backwards and counted."""
    after, through = (parse_rfc3339(f"2026-{at}:00Z") for at in span.split())
    schedule = parse(text, zone, dst=dst)
    found = schedule.between(after, through, 0, 100)
    assert [rfc3339(at)[5:16] for at in found] == times.split()
    assert ledger.count([schedule], after, through, 0) == len(found)
    back, at = [], through + 1
    while (previous := schedule.previous(at)) is not None and previous > after:
        back.append(previous)
        at = previous
    assert back[::-1] == found


def around(text: str, zone: str, day: str) -> list[str]:
    """The times from noon UTC before a day to noon UTC after it."""
    noon = parse_rfc3339(f"{day}T12:00:00Z")
    schedule = parse(text, zone)
    found = schedule.between(noon - 2 * 86_400_000, noon + 86_400_000, 0, 100)
    assert ledger.count([schedule], noon - 2 * 86_400_000, noon + 86_400_000, 0) == len(found)
    return [rfc3339(at) for at in found]


def test_a_day_that_is_left_out_catches_nothing_up() -> None:
    """Samoa had no 30 December 2011: a jump of 24 hours moves nothing to the first instant after it."""
    assert around("0 12 * * *", "Pacific/Apia", "2011-12-30") == [
        "2011-12-28T22:00:00Z",
        "2011-12-29T22:00:00Z",
        "2011-12-30T22:00:00Z",
    ]
    assert around("0 12 30 * *", "Pacific/Apia", "2011-12-30") == []


def test_a_jump_of_three_hours_is_caught_up() -> None:
    """Three hours is not more than three hours: at Casey, 18 October 2009, 03:30 runs after the gap 02:00-05:00."""
    assert "2009-10-17T18:00:00Z" in around("30 3 * * *", "Antarctica/Casey", "2009-10-17")


def test_a_gap_at_midnight() -> None:
    """Where midnight does not exist, the daily job runs at the day's first instant, and once."""
    assert around("0 0 * * *", "America/Havana", "2026-03-08") == [
        "2026-03-07T05:00:00Z",
        "2026-03-08T05:00:00Z",
        "2026-03-09T04:00:00Z",
    ]
    assert around("0,30 0,1 8 3 *", "America/Havana", "2026-03-08") == ["2026-03-08T05:00:00Z", "2026-03-08T05:30:00Z"]


def test_a_fold_across_midnight_repeats_the_day_before() -> None:
    """In the Azores the hour before one o'clock comes twice; the daily midnight job still runs once."""
    assert around("0 0 * * *", "Atlantic/Azores", "2026-10-25") == [
        "2026-10-24T00:00:00Z",
        "2026-10-25T00:00:00Z",
        "2026-10-26T01:00:00Z",
    ]


def test_changes_that_are_no_summer_time() -> None:
    """Pyongyang moved by half an hour for good; both moves follow the same rule."""
    assert around("15 0 * * *", "Asia/Pyongyang", "2015-08-15") == [
        "2015-08-13T15:15:00Z",
        "2015-08-14T15:45:00Z",
        "2015-08-15T15:45:00Z",
    ]
    assert around("45 23 * * *", "Asia/Pyongyang", "2018-05-04") == [
        "2018-05-02T15:15:00Z",
        "2018-05-03T15:15:00Z",
        "2018-05-04T15:00:00Z",
    ]


def test_the_last_year_ends_even_where_the_clock_goes_back() -> None:
    """A schedule bound to years that are over has no next time, whatever the zone's clock does later."""
    schedule = parse("* * 2 25 10 ? 2026", "Europe/Berlin")
    last = schedule.previous(parse_rfc3339("2030-01-01T00:00:00Z"))
    assert last == parse_rfc3339("2026-10-25T01:59:59Z")
    assert schedule.next(last) is None
    assert schedule.next(parse_rfc3339("2026-10-25T00:59:59Z")) == parse_rfc3339("2026-10-25T01:00:00Z")
