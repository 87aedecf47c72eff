"""Stock PySyncObj breaks these promises in these seeds; a test that fails says that it does so no more.

Then the row of the engine's faults that stands here can be looked at, and its mend, perhaps, be left to the engine.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from tests.raft import stock

play = cache(stock.play)


@pytest.mark.parametrize(
    ("shape", "seed", "promise", "row"),
    [
        ("snapshots", 0, stock.HISTORY, stock.UNCHECKED),
        ("snapshots", 5, stock.ANSWERED, stock.NEVER_CALLED),
        ("small batches", 5, stock.MATCH, stock.HELD_CUT),
        ("small batches", 5, stock.KEPT, stock.HELD_CUT),
        ("small batches", 5, stock.ALIVE, stock.CONTRADICTION),
        ("as shipped", 14, stock.ALIVE, stock.CONTRADICTION),  # all three are up, and none has applied all
        ("power cuts", 0, stock.KEPT, stock.NEVER_SYNCED),
        ("power cuts", 1, stock.LEADER, stock.NEVER_SYNCED),
    ],
)
def test_a_promise_is_broken(shape: str, seed: int, promise: str, row: str) -> None:
    """Who breaks it has shown this fault of the engine before."""
    assert row in play(seed, shape).broken[promise]


def test_a_snapshot_clears_what_it_does_not_replace() -> None:
    """Row 3: entries behind the snapshot, which the leader has too, are gone from the follower's log."""
    assert play(1, "small batches").signs[stock.TAIL_CLEARED]


def test_without_faults_nothing_is_broken() -> None:
    """No check speaks by itself: what it finds is found under faults."""
    calm = play(0, "no faults")
    assert (calm.broken, calm.acknowledged > 5000) == ({}, True)


def test_a_seed_repeats_exactly() -> None:
    """So that what it shows can be looked at."""
    assert stock.play(0, "snapshots") == play(0, "snapshots")


def test_one_line_mends_row_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the seed that breaks the history it holds, once a chunk of a snapshot moves no commit index."""
    taken = stock.Replica.on_message

    def taken_without_commit(self: stock.Replica, peer: str, kind: str, message: dict[str, Any]) -> None:
        taken(self, peer, kind, {**message, "commit_index": 0} if "serialized" in message else message)

    monkeypatch.setattr(stock.Replica, "on_message", taken_without_commit)
    mended = stock.play(0, "snapshots")
    assert stock.HISTORY not in mended.broken
    assert stock.UNCHECKED not in mended.signs
