"""Nodes that stand still and wake up, as a machine's pause makes them: nothing starts twice, one history."""

from __future__ import annotations

import time
from pathlib import Path

from tests.chaos.campaign import unleash
from tests.chaos.checker import Needs, judge
from tests.chaos.faults import Round

LEASE = ("--lease", "4s", "--lease-margin", "1s")
BELOW_A_TIMEOUT_SECONDS = 0.3
BELOW_THE_LEASE_SECONDS = 1.4  # and longer than an election takes
BEYOND_THE_LEASE_SECONDS = 5.5
PAUSES = (
    ("stall", BELOW_A_TIMEOUT_SECONDS),
    ("nap", BELOW_THE_LEASE_SECONDS),
    ("starve", 3.0),
    ("stall", BELOW_THE_LEASE_SECONDS),
    ("long-stall", BEYOND_THE_LEASE_SECONDS),
    ("long-nap", BEYOND_THE_LEASE_SECONDS),
    ("long-stall", BEYOND_THE_LEASE_SECONDS),
)


async def test_one_history_through_pauses(tmp_path: Path) -> None:
    """Leader and follower stopped for less and more than a lease, or starved, with runs in flight: nothing doubled."""
    began = time.monotonic()
    rounds = [Round(kind, in_flight=True, down_seconds=seconds, quiet_seconds=0.3) for kind, seconds in PAUSES]
    evidence = await unleash(tmp_path, 2, rounds, extra=LEASE)
    verdict = judge(evidence, Needs.of_faults(dict(PAUSES)))
    print(verdict.table())
    print(f"{time.monotonic() - began:.1f} s")
    assert verdict.word == "passed", f"\n{verdict.table()}\nevidence: {tmp_path / 'evidence.json'}"
