"""Which gap is the machine's doing: by hand-made instants, and by a probe that is really held up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from scripts.benchmarks.handover import judged
from scripts.benchmarks.lateness import Lateness, late_within

AT = 1_800_000_000_000


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [(0, 100, 0), (100, 200, 30), (0, 115, 15), (125, 200, 5), (110, 120, 10), (100, 500, 80), (420, 440, 20)],
)
def test_late_within(begin: int, end: int, expected: int) -> None:
    """Only what lies between the two instants counts."""
    assert late_within([(100, 130), (400, 450)], begin, end) == expected


def test_a_gap_is_excused_by_the_lateness_within_it_alone() -> None:
    """The longest gap is the machine's for the greater part; the one behind it is not, and is what remains."""
    instants = [*range(AT - 1200, AT + 1, 20), AT + 300, AT + 320, AT + 550, *range(AT + 570, AT + 2500, 20)]
    late = [(AT - 900.0, AT - 100.0), (AT + 50.0, AT + 280.0), (AT + 310.0, AT + 330.0)]
    found = judged("n1", AT, instants, late, (200,))
    assert (found.before, found.after, found.late, found.unexplained) == (20, 300, 230.0, 220.0)
    assert judged("n1", AT, instants, [], (200,)).unexplained == 300.0


async def test_a_machine_that_is_late_is_noticed(tmp_path: Path) -> None:
    """A probe that is stopped for 60 ms finds itself late by that, at that time."""
    async with Lateness(tmp_path) as lateness:
        assert lateness._process is not None
        os.kill(lateness._process.pid, signal.SIGSTOP)
        begin = time.time() * 1000
        await asyncio.sleep(0.060)
        end = time.time() * 1000
        os.kill(lateness._process.pid, signal.SIGCONT)
        async with asyncio.timeout(60):
            while not any(until >= end for _, until in lateness.seen()):
                await asyncio.sleep(0.01)
        assert late_within(lateness.seen(), begin, end) >= 50
