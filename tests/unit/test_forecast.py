"""What has become of the times of a job after an edit, as it is told to people."""

from __future__ import annotations

import pytest

from raftcron.runtime.forecast import COMPARED, Shift, compare


def at(*times: int) -> list[tuple[int, int]]:
    """Times without jitter."""
    return [(time, time) for time in times]


@pytest.mark.parametrize(
    ("old", "new", "shift"),
    [
        (at(), at(), Shift([], [], [], None)),
        (at(10, 20), at(10, 20), Shift([], [], [], None)),
        (at(10), at(10, 20), Shift([20], [], [], None)),
        (at(10, 20), at(20), Shift([], [10], [], None)),
        (at(10, 20), at(12, 22), Shift([], [], [(10, 12), (20, 22)], None)),
        (at(10, 20, 30), at(24), Shift([], [10, 30], [(20, 24)], None)),
        (at(10, 20), at(15), Shift([], [20], [(10, 15)], None)),  # of two as near the earlier one has moved
        (at(15), at(10, 20), Shift([10], [], [(15, 20)], None)),  # and it has moved to the later one
        (at(20, 30), at(10, 20), Shift([10], [30], [], None)),  # 20 stays between them
        ([(10, 13)], [(10, 11)], Shift([], [], [(13, 11)], None)),
        ([(10, 13)], [(20, 24)], Shift([], [], [(10, 20)], None)),
    ],
)
def test_gained_lost_and_moved(old: list[tuple[int, int]], new: list[tuple[int, int]], shift: Shift) -> None:
    """The nearest pairs have moved; what is left was gained or lost; jitter moves only when a time is due."""
    assert compare(old, new) == shift


def test_both_sides_are_told_of_through_the_same_instant() -> None:
    """A side that was cut says nothing of what lies beyond, and a pair across that instant is still a pair."""
    dense, rare = at(*range(10, 10 + 2 * COMPARED)), at(5_000, 6_000)
    found = compare(dense, rare)
    assert found == Shift([], [time for time, _ in dense[:COMPARED]], [], dense[COMPARED - 1][0])
    days = range(0, 2_000_000, 1_000)[: 2 * COMPARED]
    found = compare(at(*days), at(*(day + 40 for day in days)))
    assert found.moved == [(day, day + 40) for day in days[:COMPARED]]
    assert found.gained == found.lost == []
