"""Whether a process died in the middle of a cut of its log: told from its files, with a journal that was really cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftcron.raft.device import SystemDevice
from raftcron.raft.journal import REMOVALS_AT_ONCE, Journal
from tests.chaos.log_cuts import LogCut

SEGMENTS = 12
KEPT_BYTES = 1000


@pytest.fixture
def node(tmp_path: Path) -> tuple[Path, Path, Journal]:
    """Its directory and its log; the journal has a segment for each of its entries, and was cut behind none."""
    journal = Journal.open(tmp_path / "journal", SystemDevice(), segment_bytes=1000)
    journal.begin("n1", "disk-1")
    for index in range(1, SEGMENTS + 1):
        journal.add(bytes(1000), index, 1)
        journal.sync()
    journal.setRaftCommitIndex(SEGMENTS)
    (tmp_path / "err").write_text("snapshot_written index=3 bytes=100\n")
    return tmp_path, tmp_path / "err", journal


def say(log: Path, index: int) -> None:
    with log.open("a") as file:
        file.write(f"snapshot_written index={index} bytes=100\n")


def test_a_cut_goes_on_once_segments_go_behind_the_snapshot_that_was_written(node: tuple[Path, Path, Journal]) -> None:
    """Not with what was written before, and not before the first has gone: it may be of a former cut."""
    data, log, journal = node
    cut = LogCut(data, log, KEPT_BYTES)
    journal.compact(2)
    assert not cut.goes_on()
    say(log, SEGMENTS - 1)
    assert not cut.goes_on()
    assert not cut.goes_on()
    journal.compact(SEGMENTS - 2)
    assert cut.goes_on()


def test_a_cut_is_unfinished_until_all_that_was_to_go_has_gone(node: tuple[Path, Path, Journal]) -> None:
    """A few go at once and one each second after that; what is kept for laggards was not to go."""
    data, log, journal = node
    cut = LogCut(data, log, KEPT_BYTES)
    say(log, SEGMENTS - 1)
    assert not cut.goes_on()
    journal.compact(SEGMENTS - 2)
    states = []
    while not states or len(list((data / "journal").glob("*.segment"))) < states[-1][0]:
        assert cut.goes_on()
        states.append((len(list((data / "journal").glob("*.segment"))), cut.is_unfinished()))
        journal.onOneSecondTimer()
    assert states[0] == (SEGMENTS + 1 - REMOVALS_AT_ONCE, True)
    assert [unfinished for _, unfinished in states] == sorted((each for _, each in states), reverse=True)
    assert states[-1] == (3, False)
