"""The newest events of a node: bounded, read at any pace, kept through restarts, with no gap that is not told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core.events import LeaderEvent
from raftcron.errors import GoneError
from raftcron.runtime.events import FRAME_EVENTS, EventLog, Place


def some(index: int) -> Iterator[LeaderEvent]:
    """The events of an entry, the same each time: none, one or two."""
    for n in range(index % 3):
        yield LeaderEvent(index, f"n{n}", index, index)


def feed(log: EventLog, first: int, last: int, batch: int = 4) -> None:
    for index in range(first, last + 1):
        log.take(index, some(index))
        if index % batch == 0 or index == last:
            log.applied()


def places(log: EventLog, after: Place | None = None) -> list[Place]:
    return [place for place, _ in log.reader(after or log._missed).read()]


def wanted(first: int, last: int) -> list[Place]:
    return [Place(index, n) for index in range(first, last + 1) for n in range(index % 3)]


def test_events_are_read_in_order_from_any_place_on() -> None:
    """Also from between two of one entry."""
    log = EventLog()
    feed(log, 1, 20)
    assert places(log, Place(0, 0)) == wanted(1, 20)
    assert places(log, Place(5, 0)) == wanted(5, 20)[1:]
    assert places(log, Place(18, 7)) == wanted(19, 20)


def test_a_reader_without_a_place_sees_what_comes() -> None:
    """And nothing twice."""
    log = EventLog()
    feed(log, 1, 10)
    reader = log.reader(None)
    assert list(reader.read()) == []
    feed(log, 11, 14)
    assert [place for place, _ in reader.read()] == wanted(11, 14)
    assert list(reader.read()) == []


def test_the_oldest_leave_and_are_missed() -> None:
    """Who asks for what follows one of them is told the oldest that is held."""
    log = EventLog(kept=50)
    feed(log, 1, 200)
    held = places(log)
    assert 30 <= len(held) <= 50
    assert held == wanted(1, 200)[-len(held) :]
    with pytest.raises(GoneError, match=str(held[0])):
        log.reader(Place(3, 0))


def test_the_last_hundred_thousand_are_kept(tmp_path: Path) -> None:
    """Less one frame at most; after a restart too, and a file in excess is all that the disk holds beside them."""
    log = EventLog(tmp_path)
    feed(log, 1, 140_000, batch=500)
    log.close()
    for held in (places(log), places(EventLog(tmp_path))):
        assert 100_000 - FRAME_EVENTS <= len(held) <= 100_000
        assert held == wanted(1, 140_000)[-len(held) :]
    on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
    one = sum(len(held.data) for held in log._frames) / log._count
    assert on_disk < 1.4 * 100_000 * one


def test_a_reader_that_falls_behind_is_told() -> None:
    """It is not given a stream with a hole in it."""
    log = EventLog(kept=50)
    feed(log, 1, 10)
    reader = log.reader(Place(0, 0))
    list(reader.read())
    feed(log, 11, 300)
    with pytest.raises(GoneError, match="too slowly"):
        list(reader.read())


@pytest.mark.parametrize("begun", ["at a place", "with the oldest", "from now on"])
def test_a_reader_that_falls_behind_before_its_first_frame_is_told(begun: str) -> None:
    """Nothing that it was to see leaves in silence, whether or not anything was held when it began."""
    log = EventLog(kept=50)
    if begun == "at a place":
        feed(log, 1, 10)
    reader = log.whole() if begun == "with the oldest" else log.reader(Place(0, 0) if begun == "at a place" else None)
    feed(log, 11 if begun == "at a place" else 1, 300)
    with pytest.raises(GoneError, match="too slowly"):
        list(reader.read())


def test_what_leaves_between_two_events_of_one_reading_is_told() -> None:
    """A watcher waits for its connection while it reads, and meanwhile more comes."""
    log = EventLog(kept=50)
    feed(log, 1, 40)
    reading = log.whole().read()
    first, _ = next(reading)
    feed(log, 41, 60)
    seen = [first]
    with pytest.raises(GoneError, match="too slowly"):
        seen += [place for place, _ in reading]
    assert seen == wanted(1, 60)[: len(seen)]


def test_a_reader_is_not_told_of_what_leaves_before_its_place() -> None:
    """It misses nothing of what it asked for."""
    log = EventLog(kept=50)
    feed(log, 1, 40)
    reader = log.reader(Place(38, 7))
    feed(log, 41, 60)
    assert log._missed > Place(4, 0)
    assert [place for place, _ in reader.read()] == wanted(39, 60)


def test_a_reader_that_has_read_all_is_told_of_a_snapshot_that_jumps_ahead() -> None:
    """At once, and again where something has come behind it."""
    log = EventLog()
    feed(log, 1, 10)
    early, late = log.reader(None), log.reader(None)
    log.restored(100)
    with pytest.raises(GoneError):
        list(early.read())
    feed(log, 101, 110)
    with pytest.raises(GoneError):
        list(late.read())
    fresh = log.reader(None)
    feed(log, 111, 114)
    assert [place for place, _ in fresh.read()] == wanted(111, 114)


def test_a_restart_without_a_snapshot_derives_all_anew(tmp_path: Path) -> None:
    """Nothing stands twice."""
    log = EventLog(tmp_path)
    feed(log, 1, 30)
    log.close()
    log = EventLog(tmp_path)
    feed(log, 1, 40)
    assert places(log, Place(0, 0)) == wanted(1, 40)
    log.close()


def test_a_log_whose_first_entries_are_not_for_it_has_missed_nothing(tmp_path: Path) -> None:
    """A reader may begin before them: nothing happened there."""
    for log in (EventLog(), EventLog(tmp_path), EventLog(tmp_path)):
        feed(log, 4, 20)
        assert places(log, Place(0, 0)) == wanted(4, 20)
        log.close()


@given(first=st.integers(1, 60), snapshot=st.integers(0, 60), last=st.integers(0, 40), batch=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_restart_goes_on_behind_its_snapshot(
    tmp_path_factory: pytest.TempPathFactory, first: int, snapshot: int, last: int, batch: int
) -> None:
    """What is read is what was there, from some place on without a gap; whole if the snapshot is not ahead of it."""
    folder = tmp_path_factory.mktemp("events")
    log = EventLog(folder)
    feed(log, 1, first, batch)
    log.close()
    log = EventLog(folder)
    log.restored(snapshot)
    end = snapshot + last
    feed(log, snapshot + 1, end, batch)
    assert places(log) == wanted(1 if snapshot <= first else snapshot + 1, end)
    log.close()
    log = EventLog(folder)
    log.restored(end)
    assert places(log) == wanted(1 if snapshot <= first else snapshot + 1, end)


def test_a_snapshot_that_jumps_ahead_leaves_a_gap_that_is_told(tmp_path: Path) -> None:
    """A node that was away cannot give what it has not applied."""
    log = EventLog(tmp_path)
    feed(log, 1, 10)
    log.restored(100)
    feed(log, 101, 110)
    assert places(log) == wanted(101, 110)
    with pytest.raises(GoneError):
        log.reader(Place(10, 0))
    log.close()


@pytest.mark.parametrize("damage", ["cut", "flip", "zeros", "lose a file"])
def test_what_a_power_cut_left_is_read_without_a_gap(tmp_path: Path, damage: str) -> None:
    """Pages of unsynced files may be missing anywhere: only what hangs together with the newest counts."""
    log = EventLog(tmp_path, kept=80)
    feed(log, 1, 60)
    log.close()
    files = sorted(tmp_path.glob("*.events"))
    assert len(files) >= 3
    victim = files[1]
    raw = bytearray(victim.read_bytes())
    if damage == "cut":
        victim.write_bytes(raw[:-5])
    elif damage == "flip":
        raw[len(raw) // 2] ^= 1
        victim.write_bytes(raw)
    elif damage == "zeros":  # the file had its length, and its pages were not there yet
        first = 8 + int.from_bytes(raw[:4], "little")
        victim.write_bytes(raw[:first] + bytes(len(raw) - first))
    else:
        victim.unlink()
    log = EventLog(tmp_path, kept=80)
    log.restored(60)
    held = places(log)
    assert 0 < len(held) < len(wanted(1, 60))
    assert held == wanted(1, 60)[-len(held) :]


def test_the_disk_holds_little_more_than_memory(tmp_path: Path) -> None:
    """However long a node lives."""
    log = EventLog(tmp_path, kept=100)
    feed(log, 1, 5_000)
    assert len(list(tmp_path.glob("*.events"))) <= 5
    log.close()
    log = EventLog(tmp_path, kept=100)
    log.restored(5_000)
    assert len(places(log)) >= 70


def test_a_disk_that_takes_nothing_costs_nobody_the_present(tmp_path: Path) -> None:
    """Events go on in memory."""
    folder = tmp_path / "events"
    log = EventLog(folder)
    folder.rmdir()
    feed(log, 1, 10)
    assert places(log, Place(0, 0)) == wanted(1, 10)
