"""What time a node may trust, from what the voters' clocks say (semantics 9).  Pure: a clock is a number here.

Each clock is told by how far it is *ahead* of the observer's boot clock, in milliseconds: so readings of different
instants compare, and whatever is trusted is carried along by the boot clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

LONE_JUMP_MS = 3_600_000  # a lone node believes its clock as much of a jump, while it runs
LONE_AHEAD_MS = 31 * 86_400_000  # and so far past cluster time, when it starts


class Agreement(NamedTuple):
    """What a majority of the voters says, as one node sees it."""

    ahead_ms: int | None  # the time that a majority agrees on; None: on none
    inside: frozenset[str]  # voters whose clocks are within the skew of that time
    is_heard: bool  # the clocks of a majority are known, whatever they say


class Jump(NamedTuple):
    """Trusted time went from `after` to `through`, in milliseconds since 1970: what lies between never happened."""

    after: int
    through: int


def agree(me: str, clocks: Mapping[str, int], voters: Collection[str], skew_ms: int) -> Agreement:
    """The time that a majority of `voters` agrees on: the observer's own, if it is within the skew of a majority.

    Else that of the most voters whose clocks are all within the skew of each other: the lower one of the two in their
    middle.  `clocks` are those that are known and fresh, the observer's among them.
    """
    majority = len(voters) // 2 + 1
    known = {name: clocks[name] for name in voters if name in clocks}
    if len(known) < majority:
        return Agreement(None, frozenset(), False)
    if len(inside := _near(known, clocks[me], skew_ms)) >= majority:
        return Agreement(clocks[me], inside, True)
    ordered = sorted(known.values())
    groups = [[at for at in ordered if first <= at <= first + skew_ms] for first in ordered]
    group = max(groups, key=lambda group: (len(group), group[0] - group[-1]))  # the tightest one of equals
    if len(group) < majority:
        return Agreement(None, frozenset(), True)
    middle = group[(len(group) - 1) // 2]
    return Agreement(middle, _near(known, middle, skew_ms), True)


def _near(clocks: Mapping[str, int], ahead_ms: int, skew_ms: int) -> frozenset[str]:
    return frozenset(name for name, at in clocks.items() if abs(at - ahead_ms) <= skew_ms)


def trust(former: int | None, found: Agreement, led: int | None, told: Collection[int], skew_ms: int) -> int | None:
    """What a node trusts that is not alone: what a majority agrees on, else what it trusted before; None: nothing.

    Where no majority agrees, `led` is what its leader trusts (None: it leads itself, or does not know), and wins where
    the two are further apart than the skew: an operator has told the leader the time.  A node that has trusted nothing
    yet takes the lowest of what others trust, which is `told`.
    """
    if found.ahead_ms is not None:
        return found.ahead_ms
    if former is None:
        return min(told, default=None) if led is None else led
    return former if led is None or abs(led - former) <= skew_ms else led


def trust_alone(
    former: int | None, own: int, past_cluster_ms: int | None, is_synchronised: Callable[[], bool]
) -> int | None:
    """What the only voter trusts: its own clock, or None: it has to be told (`accept-time`).

    `past_cluster_ms` is how far its clock is past cluster time; None in a cluster that has none yet.
    """
    if former is None:
        is_plausible = past_cluster_ms is None or past_cluster_ms <= LONE_AHEAD_MS
    else:
        is_plausible = abs(own - former) <= LONE_JUMP_MS
    return own if is_plausible or is_synchronised() else None
