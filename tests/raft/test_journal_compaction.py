"""The journal behind a snapshot: what `compact`, `reset` and `align` forget, keep and refuse, in memory and on disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from raftcron.errors import DamagedError, FatalError
from raftcron.raft.device import SystemDevice
from raftcron.raft.journal import Journal
from raftcron.raft.segment import HEADER_BYTES, RECORD_BYTES, Header, decode_header, encode_header
from tests.raft.journal_model import DIRECTORY
from tests.raft.memory_disk import MemoryDisk

Entry = tuple[bytes, int, int]


def _entry(index: int, term: int = 1) -> Entry:
    return b"command %d" % index, index, term


def _numbers(disk: MemoryDisk) -> list[int]:
    return sorted(int(path.stem) for path in disk.files)


def _path(number: int) -> Path:
    return DIRECTORY / f"{number:012d}.segment"


def _filled(disk: MemoryDisk, count: int = 40, segment_bytes: int = 300) -> Journal:
    """A journal of so many committed entries, in segments of about five each."""
    journal = Journal.open(DIRECTORY, disk, segment_bytes)
    journal.begin("n1", "disk-1")
    journal.next_incarnation()
    journal.set_cluster_id("c-1")
    journal.setCurrentTerm(1, "n2")
    _grow(journal, count)
    return journal


def _grow(journal: Journal, count: int, term: int = 1) -> None:
    for index in range(journal.last_index + 1, journal.last_index + 1 + count):
        journal.add(*_entry(index, term))
        journal.sync()
    journal.setRaftCommitIndex(journal.last_index)


def _reopened(disk: MemoryDisk, segment_bytes: int = 300) -> Journal:
    disk.cut_power(lambda: False)
    return Journal.open(DIRECTORY, disk, segment_bytes)


def _killed(disk: MemoryDisk) -> MemoryDisk:
    disk.kill()
    return disk


def _seconds(journal: Journal, count: int = 20) -> None:
    for _ in range(count):
        journal.onOneSecondTimer()


# ---- compact -----------------------------------------------------------------------------------------------------


def test_the_log_begins_with_the_entry_named() -> None:
    """After compaction the log begins with that entry, in memory at once, and places count from there."""
    journal = _filled(MemoryDisk())
    assert (journal.first_index, journal.last_index, journal.needs_snapshot) == (1, 40, False)
    journal.compact(31)
    log = [_entry(index) for index in range(31, 41)]
    assert journal[:] == list(journal) == log
    assert (journal[0], journal[9], len(journal)) == (log[0], log[9], 10)
    assert (journal.first_index, journal.last_index, journal.needs_snapshot) == (31, 40, True)
    assert journal.log_bytes == sum(len(command) for command, _, _ in log)
    assert (journal.getRaftCommitIndex(), journal.synced_index, journal.is_empty) == (40, 40, False)
    journal.add(*_entry(41))
    journal.add(*_entry(42))
    journal.deleteEntriesFrom(11)
    assert journal[:] == [*log, _entry(41)]
    journal.compact(31)
    assert len(journal) == 11


def test_what_is_left_on_disk() -> None:
    """Segments that hold nothing else go; after opening, the log begins at or before the entry, the tail is whole."""
    disk = MemoryDisk()
    journal = _filled(disk)
    before = journal.disk_bytes
    journal.compact(31)
    _seconds(journal)
    assert journal.disk_bytes == sum(len(data) for data in disk.files.values()) < before / 2
    journal = _reopened(disk)
    first = journal.first_index
    assert 25 < first <= 31
    assert journal[:] == [(b"", first, 1), *(_entry(index) for index in range(first + 1, 41))]
    assert journal.needs_snapshot
    assert not journal.is_empty
    assert journal.getRaftCommitIndex() == first
    assert journal.identity == ("n1", "disk-1", "c-1", 1)
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (1, "n2")
    assert journal.disk_bytes == sum(len(data) for data in disk.files.values())


def test_nothing_that_lives_is_removed() -> None:
    """Whatever entry the log is cut behind, the entries after it and the one itself, with its term, come back."""
    for through in range(1, 41):
        disk = MemoryDisk()
        journal = _filled(disk)
        journal.compact(through)
        _seconds(journal)
        journal = _reopened(disk)
        assert journal.first_index <= through
        assert journal[through - journal.first_index][1:] == (through, 1)
        assert journal[through - journal.first_index + 1 :] == [_entry(index) for index in range(through + 1, 41)]


def test_few_segments_at_once() -> None:
    """At most four segments go in one call and one with each second, the oldest first, each durably before the next."""
    disk = MemoryDisk()
    journal = _filled(disk, count=60)
    last = _numbers(disk)[-1]
    assert last > 8
    disk.calls.clear()
    journal.compact(60)
    assert disk.calls == ["remove", "sync_directory"] * 4
    assert _numbers(disk) == list(range(5, last + 1))
    journal.onOneSecondTimer()
    assert _numbers(disk) == list(range(6, last + 1))
    _seconds(journal)
    assert _numbers(disk) == [last]
    disk.calls.clear()
    _seconds(journal)
    assert disk.calls == []


def test_few_bytes_at_once() -> None:
    """Long segments go one or two a call, since removing them takes its time."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk, segment_bytes=20 << 20)
    journal.begin("n1", "disk-1")
    for index in range(1, 40):
        journal.add(bytes(2 << 20), index, 1)
    journal.sync()
    journal.setRaftCommitIndex(39)
    assert _numbers(disk) == [1, 2, 3]
    disk.calls.clear()
    journal.compact(39)
    assert disk.calls == ["remove", "sync_directory"]


def test_a_tail_that_is_not_synced() -> None:
    """Compaction while entries and cuts wait for a sync neither syncs nor loses them."""
    disk = MemoryDisk()
    journal = _filled(disk)
    journal.add(*_entry(41))
    journal.add(*_entry(42))
    journal.deleteEntriesFrom(41)
    journal.add(*_entry(42, 2))
    pending = journal.pending_bytes
    journal.compact(40)
    assert (journal.pending_bytes, journal.synced_index) == (pending, 40)
    journal.sync()
    assert journal[:] == [_entry(40), _entry(41), _entry(42, 2)]
    assert _reopened(disk)[-2:] == [_entry(41), _entry(42, 2)]


def test_the_first_entry_is_synced_before_it_goes() -> None:
    """A new log's first entry counts as committed before it is synced; compaction makes that true."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    journal.begin("n1", "disk-1")
    journal.add(b"\x01", 1, 0)
    journal.compact(1)
    assert _reopened(disk).last_index == 1


def test_a_cut_behind_a_checkpoint_holds_older_segments() -> None:
    """Where the log was cut behind what a checkpoint says, older segments stay until a later checkpoint stands.

    So too if another life finds them, and whichever of them have gone already.
    """
    disk = MemoryDisk()
    journal = _filled(disk, count=3)
    for index in range(4, 13):
        journal.add(*_entry(index))
        journal.sync()
    journal = Journal.open(DIRECTORY, _killed(disk))
    journal.deleteEntriesFrom(3)  # back to entry 3, behind the checkpoints of both later segments
    for index in range(4, 13):
        journal.add(*_entry(index, 2))
    journal.setRaftCommitIndex(12)
    assert _numbers(disk) == [1, 2, 3]
    later = disk.copy()
    journal.compact(12)
    assert _numbers(disk) == [1, 2, 3]
    journal = Journal.open(DIRECTORY, later, segment_bytes=300)  # what it knows of the cut, it has read
    journal.setRaftCommitIndex(12)
    journal.compact(12)
    assert _numbers(later) == [1, 2, 3]
    _grow(journal, 1, term=2)
    assert _numbers(later) == [1, 2, 3, 4]
    whole = bytes(later.files[_path(3)])  # sealed
    journal.compact(13)
    assert _numbers(later) == [4]
    for gone in (1, 2):
        left = disk.copy()
        left.files[_path(4)] = bytearray(later.files[_path(4)])
        left.files[_path(3)] = bytearray(whole)
        for number in range(1, gone + 1):
            del left.files[_path(number)]
        assert Journal.open(DIRECTORY, left)[:] == [(b"", 13, 2)]


def test_compact_refuses() -> None:
    """What is not in the log, is not committed, or comes too late cannot be forgotten."""
    journal = _filled(MemoryDisk())
    journal.compact(20)
    journal.add(*_entry(41))
    with pytest.raises(FatalError, match="entry 19: it holds 20 to 41"):
        journal.compact(19)
    with pytest.raises(FatalError, match="entry 42: it holds 20 to 41"):
        journal.compact(42)
    with pytest.raises(FatalError, match="entry 41: it is committed up to 40"):
        journal.compact(41)
    with pytest.raises(FatalError, match="holds 0 to 0"):
        Journal.open(DIRECTORY, MemoryDisk()).compact(1)
    assert len(journal) == 22
    journal._destroy()
    with pytest.raises(FatalError, match="closed"):
        journal.compact(30)
    _seconds(journal)


@pytest.mark.parametrize("call", ["remove", "sync_directory"])
def test_a_failed_removal_is_the_end(call: str) -> None:
    """If a segment cannot be removed durably, nothing more is written, and the next life reads it all."""
    disk = MemoryDisk()
    journal = _filled(disk)
    disk.fails[call] = OSError(errno.EIO, "input/output error")
    with pytest.raises(FatalError, match="input/output error"):
        journal.compact(40)
    disk.fails.clear()
    with pytest.raises(FatalError):
        journal.sync()
    assert _reopened(disk).last_index == 40


def test_memory_is_given_back_in_slices() -> None:
    """Compaction itself frees no entry, since a million would hold the loop; each second frees up to 50,000."""
    freed = [0]

    class Command(bytes):
        def __del__(self) -> None:
            freed[0] += 1

    journal = Journal.open(DIRECTORY, MemoryDisk())
    for index in range(1, 70_001):
        journal.add(Command(b"x"), index, 1)
    journal.setRaftCommitIndex(70_000)
    journal.compact(69_991)
    assert (len(journal), journal.log_bytes, freed) == (10, 10, [0])
    journal.onOneSecondTimer()
    assert 0 < freed[0] <= 50_000
    _seconds(journal, 2)
    assert freed == [69_990]


# ---- reset -------------------------------------------------------------------------------------------------------


def test_reset() -> None:
    """The log is the one entry, durably and committed, all else that was kept stays, and life goes on behind it."""
    disk = MemoryDisk()
    journal = _filled(disk)
    journal.add(*_entry(41))
    journal.reset(1000, 7)
    assert journal[:] == [(b"", 1000, 7)]
    assert (journal.getRaftCommitIndex(), journal.synced_index, journal.pending_bytes) == (1000, 1000, 0)
    assert (journal.log_bytes, journal.needs_snapshot, journal.is_empty) == (0, True, False)
    journal = _reopened(disk)
    assert journal[:] == [(b"", 1000, 7)]
    assert journal.identity == ("n1", "disk-1", "c-1", 1)
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (1, "n2")
    assert journal.getRaftCommitIndex() == 1000
    _seconds(journal)
    assert len(disk.files) == 1
    journal.add(*_entry(1001, 7))
    journal.sync()
    assert _reopened(disk)[:] == [(b"", 1000, 7), _entry(1001, 7)]


def test_reset_in_place_of_another_entry() -> None:
    """An entry that is not committed gives way to one of another term, with its tail."""
    disk = MemoryDisk()
    journal = _filled(disk)
    journal.add(*_entry(41))
    journal.add(*_entry(42))
    journal.sync()
    journal.reset(41, 2)
    assert _reopened(disk)[:] == [(b"", 41, 2)]


def test_reset_of_a_new_journal() -> None:
    """A node that has only its name, and even one that has none, may begin with a snapshot of others."""
    for is_named in (True, False):
        disk = MemoryDisk()
        journal = Journal.open(DIRECTORY, disk)
        if is_named:
            journal.begin("n1", "disk-1")
        journal.reset(5, 3)
        journal = _reopened(disk)
        assert journal[:] == [(b"", 5, 3)]
        assert not journal.is_empty
        assert journal.begin("n1", "disk-1").disk_id == "disk-1"


def test_reset_refuses() -> None:
    """What is held is not thrown away: its tail may have been acknowledged; nor is what is committed."""
    journal = _filled(MemoryDisk())
    journal.compact(20)
    journal.add(*_entry(41))
    for index, term, why in [
        (41, 1, "which it holds"),
        (20, 1, "which it holds"),
        (0, 0, "cannot be"),
        (40, 2, "40 is committed"),
        (3, 1, "40 is committed"),
    ]:
        with pytest.raises(FatalError, match=why):
            journal.reset(index, term)
    assert len(journal) == 22
    journal._destroy()
    with pytest.raises(FatalError, match="closed"):
        journal.reset(50, 1)


# ---- align -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [21, 30, 40])
def test_align_keeps_what_joins(index: int) -> None:
    """A log that holds the snapshot's last entry stays as it is, and is committed up to there."""
    disk = MemoryDisk()
    _filled(disk).compact(20)
    journal = _reopened(disk)
    before = journal[:]
    calls = len(disk.calls)
    journal.align(index, 1)
    assert journal[:] == before
    assert journal.getRaftCommitIndex() == index
    assert len(disk.calls) == calls
    with pytest.raises(FatalError, match="committed"):
        journal.deleteEntriesFrom(index - journal.first_index)
    journal.compact(index)


@pytest.mark.parametrize(("index", "term"), [(41, 1), (90, 3), (40, 2), (30, 5)])
def test_align_resets_what_does_not_join(index: int, term: int) -> None:
    """A log that ends before the snapshot, or has another entry where it ends, begins anew with it."""
    disk = MemoryDisk()
    _filled(disk)
    journal = _reopened(disk)
    journal.align(index, term)
    assert journal[:] == [(b"", index, term)]
    assert _reopened(disk)[:] == [(b"", index, term)]


def test_align_refuses_a_gap() -> None:
    """A log that begins after the snapshot is refused, and so is one of another term there: entries are missing."""
    disk = MemoryDisk()
    _filled(disk).compact(40)
    journal = _reopened(disk)
    journal.align(40, 1)
    first = journal.first_index
    journal = _reopened(disk)
    for index, term in ((first - 1, 1), (first, 2)):
        with pytest.raises(DamagedError) as caught:
            journal.align(index, term)
        assert f"/data/journal: the journal begins with entry {first}, the newest snapshot ends with" in str(
            caught.value
        )
        assert f"entry {index} of term {term}: they do not join" in str(caught.value)
        assert "raftcron cluster replace n1 --data-dir /data" in str(caught.value)
    assert journal.last_index == 40


def test_align_without_a_snapshot() -> None:
    """Without a snapshot a whole log is fine, and one that begins behind entries that are gone is refused."""
    disk = MemoryDisk()
    journal = _filled(disk)
    journal.align(0, 0)
    journal.compact(20)
    with pytest.raises(DamagedError, match=r"begins with entry 20, and there is no snapshot: .* replace n1 --data-dir"):
        journal.align(0, 0)


def test_align_refuses_a_journal_that_was_lost() -> None:
    """A snapshot beside a journal in which nobody ever spoke: its files are gone, and the votes with them."""
    journal = Journal.open(DIRECTORY, MemoryDisk())
    with pytest.raises(DamagedError, match="holds nothing, the newest snapshot ends with entry 9"):
        journal.align(9, 1)
    journal.begin("n1", "disk-2")
    journal.next_incarnation()
    with pytest.raises(DamagedError, match="holds nothing"):
        journal.align(9, 1)
    journal.setCurrentTerm(1, None)
    journal.align(9, 1)
    assert journal.last_index == 9


# ---- segments that begin with a checkpoint -----------------------------------------------------------------------


def _rolled() -> tuple[MemoryDisk, Path, Path]:
    """A journal right after a roll-over: its disk, the segment before and the new one, which has its beginning only."""
    disk = MemoryDisk()
    journal = _filled(disk, count=1)
    while max(disk.files) == _path(journal._segments[0].number) or len(disk.files[max(disk.files)]) > 160:
        _grow(journal, 1)
    return disk, *sorted(disk.files)[-2:]


def test_a_segment_that_was_not_finished_making() -> None:
    """A torn beginning behind a segment without seal is a crash while it was made: it goes, and nothing is lost."""
    disk, former, newest = _rolled()
    whole = len(disk.files[newest])
    log = Journal.open(DIRECTORY, disk.copy())[:]
    del disk.files[former][-RECORD_BYTES:]
    for length in range(whole):
        for pad in (0, whole - length):
            torn = disk.copy()
            torn.files[newest][:] = disk.files[newest][:length] + bytes(pad)
            journal = Journal.open(DIRECTORY, torn, segment_bytes=100)
            assert journal[:] == log
            assert newest not in torn.files
            journal.add(*_entry(journal.last_index + 1))
            journal.sync()
            assert newest in torn.files
            assert Journal.open(DIRECTORY, _killed(torn))[:-1] == log


@pytest.mark.parametrize("why", ["sealed", "longer", "alone"])
def test_a_beginning_that_was_whole(why: str) -> None:
    """A beginning that is not whole is damage where the segment before is sealed or gone, or more than it follows."""
    disk, former, newest = _rolled()
    if why == "longer":
        del disk.files[former][-RECORD_BYTES:]
        disk.files[newest] += b"x"
    elif why == "alone":
        for path in list(disk.files):
            if path != newest:
                del disk.files[path]
    for offset in range(len(disk.files[newest]) - (why == "longer")):
        copy = disk.copy()
        copy.files[newest][offset] ^= 1
        with pytest.raises(DamagedError, match=f"{newest.name}.* its beginning"):
            Journal.open(DIRECTORY, copy)


def test_a_seal_that_is_not_whole_is_made_anew() -> None:
    """Zeros where a seal belongs are a crash too; afterwards the loss of the newest segment is noticed as ever."""
    disk, former, newest = _rolled()
    disk.files[former][-RECORD_BYTES:] = bytes(RECORD_BYTES)
    Journal.open(DIRECTORY, _killed(disk))
    del disk.files[newest]
    with pytest.raises(DamagedError, match=newest.name):
        Journal.open(DIRECTORY, _killed(disk))


def test_a_checkpoint_that_contradicts() -> None:
    """A checkpoint agrees with what the segments before it say, or one of the two is not this journal's."""
    disk, former, newest = _rolled()
    other = MemoryDisk()
    journal = _filled(other, count=1)
    journal.setCurrentTerm(4, "n3")
    while max(other.files) != newest:
        _grow(journal, 1)
    header = decode_header(bytes(disk.files[newest][:HEADER_BYTES]))
    assert header is not None
    for length in (header.previous_length, len(disk.files[former]) - RECORD_BYTES):
        copy = disk.copy()
        copy.files[newest][:] = (
            encode_header(Header(header.number, length, header.salt)) + other.files[newest][HEADER_BYTES:]
        )
        with pytest.raises(DamagedError, match="the segments before say"):
            Journal.open(DIRECTORY, copy)


# ---- a real disk -------------------------------------------------------------------------------------------------


def test_real_disk(tmp_path: Path) -> None:
    """On a real file system too: segments go, the log comes back, begins anew, and comes back."""
    directory = tmp_path / "journal"
    journal = Journal.open(directory, SystemDevice(), segment_bytes=400)
    journal.begin("n1", "disk-1")
    _grow(journal, 100)
    journal.compact(95)
    _seconds(journal, 40)
    sizes = [path.stat().st_size for path in directory.glob("*.segment")]
    assert journal.disk_bytes == sum(sizes) < 2000
    journal._destroy()
    journal = Journal.open(directory, SystemDevice(), segment_bytes=400)
    journal.align(98, 1)
    assert journal[-2:] == [_entry(99), _entry(100)]
    journal.reset(200, 2)
    journal._destroy()
    journal = Journal.open(directory, SystemDevice(), segment_bytes=400)
    journal.align(200, 2)
    assert journal[:] == [(b"", 200, 2)]
    assert len(list(directory.glob("*.segment"))) <= 2
    journal._destroy()
