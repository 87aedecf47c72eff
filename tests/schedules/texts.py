"""What the property tests draw from: expressions of the whole dialect, awkward zones, and instants near their jumps."""

from __future__ import annotations

from hypothesis import strategies as st

from raftcron.core.cron import MONTHS, WEEKDAYS
from raftcron.core.instant import parse_rfc3339
from raftcron.core.schedule import Dst
from raftcron.core.zone import FAR_FUTURE_S, zone

# Gaps at midnight, of half an hour, of two and three hours, of a whole day; folds across midnight; summer time that
# is an hour less in winter; changes that are no summer time; offsets that are no whole hours.
ZONES = (
    "UTC", "Africa/Cairo", "Africa/Casablanca", "America/Asuncion", "America/Caracas", "America/Havana",
    "America/New_York", "America/Sao_Paulo", "America/St_Johns", "Antarctica/Casey", "Antarctica/Troll", "Asia/Beirut",
    "Asia/Gaza", "Asia/Kathmandu", "Asia/Pyongyang", "Asia/Tehran", "Atlantic/Azores", "Australia/Lord_Howe",
    "Europe/Berlin", "Europe/Dublin", "Europe/London", "Pacific/Apia", "Pacific/Chatham", "Pacific/Kiritimati",
)  # fmt: skip
FIRST_MS = parse_rfc3339("1990-01-01T00:00:00Z")
LAST_MS = parse_rfc3339("2090-01-01T00:00:00Z")


def jumps(name: str) -> list[int]:
    """The milliseconds at which a zone's offset changes, 1990 to 2090."""
    found, at = [], FIRST_MS // 1000
    while (at := zone(name).segment(at).end) < min(FAR_FUTURE_S, LAST_MS // 1000):
        found.append(at * 1000)
    return found


JUMPS = {name: jumps(name) for name in ZONES}


def _numbers(low: int, high: int, *, wrap: bool = True) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    steps = st.sampled_from((2, 3, 5, 7, 10, 15, 20, 30, 45))
    ranges = st.tuples(number, number).map(lambda pair: pair if wrap else tuple(sorted(pair)))
    item = st.one_of(
        number.map(str),
        ranges.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.tuples(ranges, steps).map(lambda drawn: f"{drawn[0][0]}-{drawn[0][1]}/{drawn[1]}"),
        st.tuples(number, steps).map(lambda drawn: f"{drawn[0]}/{drawn[1]}"),
        steps.map(lambda step: f"*/{step}"),
    )
    return st.one_of(st.just("*"), item, st.lists(item, min_size=2, max_size=3).map(",".join))


def fields(*, wrap: bool = True, special: bool = True, seconds: bool = True) -> st.SearchStrategy[str]:
    """Cron expressions of five or, with `seconds`, six or seven fields; most hours lie where clocks jump."""
    hour = st.one_of(_numbers(0, 23, wrap=wrap), st.integers(0, 4).map(str), st.just("*"))
    minute = _numbers(0, 59, wrap=wrap)
    day: st.SearchStrategy[str] = st.one_of(st.just("*"), st.just("*"), _numbers(1, 31, wrap=wrap))
    weekday: st.SearchStrategy[str] = st.one_of(
        st.just("*"), st.just("*"), _numbers(0, 7, wrap=wrap), st.sampled_from(WEEKDAYS)
    )
    if special:
        day = st.one_of(
            day,
            st.sampled_from(("L", "LW", "?", "15,L", "L-2W")),
            st.integers(1, 30).map(lambda back: f"L-{back}"),
            st.integers(1, 31).map(lambda number: f"{number}W"),
        )
        nth = st.tuples(st.integers(0, 7), st.integers(1, 5)).map(lambda pair: f"{pair[0]}#{pair[1]}")
        weekday = st.one_of(weekday, nth, st.integers(0, 7).map(lambda number: f"{number}L"), st.just("?"))
    month = st.one_of(st.just("*"), st.just("*"), _numbers(1, 12, wrap=wrap), st.sampled_from(MONTHS))
    five = st.tuples(minute, hour, day, month, weekday).map(" ".join)
    if not seconds:
        return five
    six = st.tuples(st.one_of(st.integers(0, 59).map(str), _numbers(0, 59, wrap=wrap)), five).map(" ".join)
    year = st.one_of(st.just("*"), st.integers(1990, 2089).map(lambda year: f"{year}-{year + 9}"))
    return st.one_of(five, five, six, st.tuples(six, year).map(" ".join))


@st.composite
def zones_and_instants(draw: st.DrawFn) -> tuple[str, int]:
    """A zone, and an instant that is as often as not within a day of one of its jumps."""
    name = draw(st.sampled_from(ZONES))
    near = st.sampled_from(JUMPS[name]) if JUMPS[name] else st.just(FIRST_MS)
    by_jump = st.tuples(near, st.integers(-86_400_000, 86_400_000)).map(sum)
    return name, draw(st.one_of(by_jump, st.integers(FIRST_MS, LAST_MS)))


dsts = st.builds(Dst, st.sampled_from(("run_after", "skip")), st.sampled_from(("first", "last", "both")))
