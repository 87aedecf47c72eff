"""Instants and durations as text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core.instant import (
    MAX_DURATION_MS,
    MAX_MS,
    MIN_MS,
    format_duration,
    parse_duration,
    parse_rfc3339,
    rfc3339,
)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_774_746_000_000, "2026-03-29T01:00:00Z"),
        (1_774_746_000_120, "2026-03-29T01:00:00.120Z"),
        (MIN_MS, "0001-01-01T00:00:00Z"),
        (MAX_MS, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_instants_as_text(ms: int, text: str) -> None:
    """Instants end in Z and have three decimals only where they are not whole seconds."""
    assert rfc3339(ms) == text
    assert parse_rfc3339(text) == ms


@settings(derandomize=True, database=None, max_examples=200)
@given(st.integers(MIN_MS, MAX_MS))
def test_every_instant_comes_back(ms: int) -> None:
    """What is written is read back as the same instant."""
    assert parse_rfc3339(rfc3339(ms)) == ms


def test_offsets_and_decimals_are_read() -> None:
    """Offsets move the instant, small letters are taken, and what is finer than a millisecond is cut off."""
    assert parse_rfc3339("2026-03-29T03:00:00+02:00") == parse_rfc3339("2026-03-29t01:00:00z")
    assert parse_rfc3339("2026-03-28T20:30:00-04:30") == parse_rfc3339("2026-03-29T01:00:00Z")
    assert parse_rfc3339("1970-01-01T00:00:00.1239Z") == 123
    assert parse_rfc3339("1970-01-01T00:00:00.5Z") == 500


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-03-29",
        "2026-03-29T01:00:00",
        "2026-03-29 01:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00.Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "\u0662026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z\n",
    ],
)
def test_other_texts_are_no_instants(text: str) -> None:
    """Anything else is refused with a ValueError that shows the text."""
    with pytest.raises(ValueError, match=r"is not|does not|offset|outside"):
        parse_rfc3339(text)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("90s", 90_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1500ms", 1_500),
        ("2w", 14 * 86_400_000),
        ("1d12h", 129_600_000),
        ("0s", 0),
        (0, 0),
        (5, 5_000),
        (1.5, 1_500),
        (0.0005, 0),
        ("36525d", MAX_DURATION_MS),
    ],
)
def test_durations(value: object, ms: int) -> None:
    """Text with units and numbers of seconds are durations."""
    assert parse_duration(value) == ms


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5",
        "m",
        "5 m",
        "-5m",
        "1.5h",
        "5M",
        "5m5m",
        "1h30",
        "36526d",
        "9" * 16 + "ms",
        "\u0665m",
        -1,
        -0.5,
        float("nan"),
        float("inf"),
        1e300,
        10**400,
        True,
        None,
        [],
        {},
    ],
)
def test_other_values_are_no_durations(value: object) -> None:
    """Anything else is refused with a ValueError that says what would be right."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@settings(derandomize=True, database=None, max_examples=200)
@given(st.integers(0, MAX_DURATION_MS))
def test_every_duration_comes_back(ms: int) -> None:
    """What format_duration writes, parse_duration reads."""
    assert parse_duration(format_duration(ms)) == ms


def test_durations_as_text() -> None:
    """Durations are written with the largest unit first."""
    assert [format_duration(ms) for ms in (0, 1_500, 90_000, 5_400_000, 86_400_000 * 8)] == [
        "0s",
        "1s500ms",
        "1m30s",
        "1h30m",
        "8d",
    ]
    with pytest.raises(ValueError, match="negative"):
        format_duration(-1)
