"""A data directory from outside: whose it is, however damaged, and how it is put aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftcron.errors import FatalError
from raftcron.raft.device import SystemDevice
from raftcron.raft.directory import owner, put_aside
from raftcron.raft.journal import Journal

DEVICE = SystemDevice()


def written(place: Path, entries: int = 0) -> list[Path]:
    """n3's directory; the segments of its journal."""
    journal = Journal.open(place / "journal", DEVICE, segment_bytes=4096)
    journal.begin("n3", "disk")
    for index in range(1, entries + 1):
        journal.add(bytes(1000), index, 1)
        journal.sync()
    journal._destroy()
    return sorted((place / "journal").glob("*.segment"))


def test_the_owner_is_who_began_the_journal(tmp_path: Path) -> None:
    """Nobody's while it is empty."""
    assert owner(tmp_path, DEVICE) is None
    written(tmp_path)
    assert owner(tmp_path, DEVICE) == "n3"


def test_any_segment_tells_the_owner(tmp_path: Path) -> None:
    """Those before may be damaged, or gone, as they are when the log has been cut behind a snapshot."""
    segments = written(tmp_path, entries=20)
    assert len(segments) > 3
    segments[0].unlink()
    segments[1].write_bytes(b"\0" * 100)
    segments[2].write_bytes(b"")
    assert owner(tmp_path, DEVICE) == "n3"


def test_where_nothing_can_be_read_nobody_is_the_owner(tmp_path: Path) -> None:
    """Damage never raises: the command is for damaged directories."""
    for segment in written(tmp_path, entries=20):
        data = bytearray(segment.read_bytes())
        data[45:90] = bytes(45)  # header's end, and the first record's beginning
        segment.write_bytes(data)
    assert owner(tmp_path, DEVICE) is None


def test_what_is_put_aside_is_all_there(tmp_path: Path) -> None:
    """Nothing to do where there is nothing; twice under one name is refused, and the second one stays as it is."""
    assert put_aside(tmp_path, DEVICE, "aside") is None
    written(tmp_path)
    assert put_aside(tmp_path, DEVICE, "aside") == tmp_path / "aside"
    assert owner(tmp_path / "aside", DEVICE) == "n3"
    assert owner(tmp_path, DEVICE) is None
    written(tmp_path)
    with pytest.raises(FatalError, match="Move them by hand"):
        put_aside(tmp_path, DEVICE, "aside")
    assert owner(tmp_path, DEVICE) == "n3"
