"""Which time holds, as tables: what the voters' clocks say, and what a node trusts then."""

from __future__ import annotations

import pytest

from raftcron.core.agreement import LONE_AHEAD_MS, LONE_JUMP_MS, Agreement, agree, trust, trust_alone

SKEW = 5_000
YEAR = 365 * 86_400_000
ABC, FIVE = ("a", "b", "c"), ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("voters", "clocks", "ahead", "inside"),
    [
        # the own clock, `a`, is within the skew of a majority: it holds, not the middle of them
        (ABC, {"a": 0, "b": 0, "c": 0}, 0, "abc"),
        (ABC, {"a": 5_000, "b": 0, "c": 0}, 5_000, "abc"),
        (ABC, {"a": 0, "b": -4_000, "c": 4_000}, 0, "abc"),
        (ABC, {"a": 0, "b": 0, "c": YEAR}, 0, "ab"),
        (ABC, {"a": YEAR, "b": 0, "c": YEAR}, YEAR, "ac"),
        (FIVE, {"a": 0, "b": 1, "c": 2, "d": YEAR, "e": -YEAR}, 0, "abc"),
        (("a", "b"), {"a": 0, "b": 5_000}, 0, "ab"),
        # others agree on another time
        (ABC, {"a": 5_001, "b": 0, "c": 0}, 0, "bc"),
        (ABC, {"a": YEAR, "b": 0, "c": 3}, 0, "bc"),
        (ABC, {"a": -YEAR, "b": -3, "c": 3}, -3, "bc"),
        (FIVE, {"a": YEAR, "b": 1, "c": 2, "d": 3, "e": 4}, 2, "bcde"),
        (FIVE, {"a": YEAR, "b": 1, "c": 2, "d": 3, "e": 10_000}, 2, "bcd"),
        (FIVE, {"a": YEAR, "b": YEAR + 9_000, "c": 0, "d": 1, "e": 4_000}, 1, "cde"),
        # an observer that does not vote counts for nothing
        (("b", "c", "d"), {"a": 0, "b": 0, "c": 1, "d": YEAR}, 0, "bc"),
        (("b", "c", "d"), {"a": 0, "b": 0, "c": YEAR, "d": YEAR}, YEAR, "cd"),
        (("b",), {"a": 9_000, "b": 0}, 0, "b"),
        # no majority agrees
        (ABC, {"a": 0, "b": 5_001}, None, ""),
        (ABC, {"a": 0, "b": YEAR, "c": -YEAR}, None, ""),
        (("a", "b"), {"a": 0, "b": YEAR}, None, ""),
        (FIVE, {"a": 0, "b": 0, "c": YEAR, "d": YEAR, "e": -YEAR}, None, ""),
        (("b", "c", "d"), {"a": 0, "b": 0, "c": YEAR}, None, ""),
    ],
)
def test_what_a_majority_agrees_on(
    voters: tuple[str, ...], clocks: dict[str, int], ahead: int | None, inside: str
) -> None:
    """The own clock if a majority is near it, else the middle of the most that are near each other."""
    assert agree("a", clocks, voters, SKEW) == Agreement(ahead, frozenset(inside), True)


@pytest.mark.parametrize(
    ("voters", "clocks"),
    [(ABC, {"a": 0}), (FIVE, {"a": 0, "b": 0}), (("b", "c", "d"), {"a": 0, "b": 0}), ((), {"a": 0})],
)
def test_too_few_clocks_say_nothing(voters: tuple[str, ...], clocks: dict[str, int]) -> None:
    """A node that hears no majority cannot say that none agrees."""
    assert agree("a", clocks, voters, SKEW) == Agreement(None, frozenset(), False)


NONE = Agreement(None, frozenset(), True)


@pytest.mark.parametrize(
    ("former", "found", "led", "told", "trusted"),
    [
        (None, Agreement(7, frozenset("abc"), True), None, [], 7),
        (0, Agreement(YEAR, frozenset("bc"), True), 0, [0], YEAR),
        (YEAR, Agreement(7, frozenset("bc"), True), YEAR, [YEAR], 7),
        (3, NONE, None, [YEAR], 3),  # goes on with what it trusted
        (3, NONE, 5_003, [5_003], 3),  # and so does a follower, near its leader
        (3, NONE, YEAR, [YEAR], YEAR),  # whose operator has said what time it is
        (3, NONE, -YEAR, [-YEAR], -YEAR),
        (None, NONE, 9, [9, 2], 9),  # it has just started: what its leader trusts
        (None, NONE, None, [9, 2], 2),  # or, leading itself, the lowest that others do
        (None, NONE, None, [], None),
    ],
)
def test_what_is_trusted(
    former: int | None, found: Agreement, led: int | None, told: list[int], trusted: int | None
) -> None:
    """A majority's word before all; without one nothing changes, but for an operator's."""
    assert trust(former, found, led, told, SKEW) == trusted


@pytest.mark.parametrize(
    ("former", "own", "past_cluster", "trusted", "synchronised"),
    [
        (None, 5, None, 5, 5),  # a cluster that has no time yet
        (None, 5, 0, 5, 5),
        (None, 5, LONE_AHEAD_MS, 5, 5),
        (None, 5, LONE_AHEAD_MS + 1, None, 5),
        (None, 5, YEAR, None, 5),
        (None, 5, -YEAR, 5, 5),  # behind: it waits, and decides nothing that it should not
        (0, LONE_JUMP_MS, YEAR, LONE_JUMP_MS, LONE_JUMP_MS),
        (0, -LONE_JUMP_MS, None, -LONE_JUMP_MS, -LONE_JUMP_MS),
        (0, LONE_JUMP_MS + 1, 0, None, LONE_JUMP_MS + 1),
        (0, -LONE_JUMP_MS - 1, -YEAR, None, -LONE_JUMP_MS - 1),
    ],
)
def test_what_a_lone_node_trusts(
    former: int | None, own: int, past_cluster: int | None, trusted: int | None, synchronised: int
) -> None:
    """Its clock within a month of cluster time as it starts, within an hour as it runs, or if the kernel vouches."""
    assert trust_alone(former, own, past_cluster, lambda: False) == trusted
    assert trust_alone(former, own, past_cluster, lambda: True) == synchronised
