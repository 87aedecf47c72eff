"""Zones: offsets as integers, from the pinned package alone."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from raftcron.core.instant import parse_rfc3339
from raftcron.core.zone import FAR_FUTURE_S, FAR_PAST_S, TZDATA_VERSION, known_zone, zone, zone_names
from tests.schedules import brute


def zone_info_offset(name: str, at: int) -> int:
    """What the standard library makes of the same data."""
    offset = brute.utc(at * 1000).astimezone(brute.zone_info(name)).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


def test_every_zone_agrees_with_zoneinfo() -> None:
    """In every zone the offsets, before and after each jump and at other instants, are those of ZoneInfo."""
    chance = random.Random(5)
    start, end = (parse_rfc3339(text) // 1000 for text in ("1960-01-01T00:00:00Z", "2100-01-01T00:00:00Z"))
    for name in sorted(zone_names()):
        here = zone(name)
        at = start
        while (segment := here.segment(at)).end < end:
            at = segment.end
            following = here.segment(at)
            assert (following.start, following.before, segment.after) == (at, segment.offset, following.offset)
            assert segment.offset != following.offset
            assert zone_info_offset(name, at - 1) == segment.offset, (name, at)
            assert zone_info_offset(name, at) == following.offset, (name, at)
        for _ in range(20):
            at = chance.randrange(start, end)
            assert here.offset(at) == zone_info_offset(name, at), (name, at)


def test_far_years_repeat_the_rule() -> None:
    """Long after the table's end the rule still holds: 2026 and 2826 jump on the same dates."""
    cycles = 2 * 146_097 * 86_400
    for name in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Gaza"):
        here = zone(name)
        at = parse_rfc3339("2101-01-01T00:00:00Z") // 1000
        for _ in range(8):
            near, far = here.segment(at), here.segment(at + cycles)
            assert (near.start + cycles, near.end + cycles, *near[2:]) == tuple(far)
            at = near.end


def test_time_has_rims() -> None:
    """Before its first jump and after its last a zone has one offset, without end."""
    here = zone("Asia/Kathmandu")
    assert here.segment(FAR_PAST_S).start == FAR_PAST_S
    last = here.segment(parse_rfc3339("2026-01-01T00:00:00Z") // 1000)
    assert (last.end, last.after, last.offset) == (FAR_FUTURE_S, last.offset, 20_700)


def test_known_zones_are_those_of_the_package() -> None:
    """Exact names only; no path leads out of the package."""
    assert all(known_zone(name) for name in ("UTC", "Europe/Berlin", "America/Argentina/Ushuaia"))
    assert not any(known_zone(name) for name in ("", "utc", "Europe", "../zones", "/etc/localtime", "Europe/Berlin/"))
    assert len(zone_names()) > 500
    assert zone("Europe/Berlin") is zone("Europe/Berlin")
    assert TZDATA_VERSION[:4].isdigit()
    with pytest.raises(KeyError):
        zone("Nowhere/Land")


def test_the_machines_zone_data_is_never_looked_at() -> None:
    """With TZ and PYTHONTZPATH pointing elsewhere the answer is the same."""
    program = (
        "from raftcron.core import ledger\n"
        "from raftcron.core.schedule import parse\n"
        "s = parse('0 12 * * *', 'Europe/Berlin')\n"
        "print(s.next(1782864000000), ledger.count([s], 1782864000000, 1782864000000 + 86400000, 0))\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for environment in ({}, {"TZ": "Asia/Tokyo", "PYTHONTZPATH": "/nowhere"})
    }
    assert answers == {"1782900000000 1\n"}
