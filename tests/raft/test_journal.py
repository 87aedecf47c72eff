"""The journal: what was synced comes back, syncs are few, and what would break it is refused."""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from raftcron.errors import ConfigurationError, FatalError
from raftcron.raft.device import SystemDevice
from raftcron.raft.journal import LONGEST_BYTES, MAX_PENDING_BYTES, REMOVALS_AT_ONCE, Journal
from raftcron.raft.segment import LIKELY_BYTES, MAX_BODY_BYTES, RECORD_BYTES
from tests.raft.journal_model import DIRECTORY
from tests.raft.memory_disk import MemoryDisk

FIRST = DIRECTORY / "000000000001.segment"


# ---- what comes back ---------------------------------------------------------------------------------------------


def test_all_comes_back(tmp_path: Path) -> None:
    """Log, term, vote, identity and incarnation are there after closing and opening on a real disk."""
    journal = Journal.open(tmp_path / "journal", SystemDevice())
    journal.begin("n1", "disk-1")
    assert journal.next_incarnation() == 1
    journal.add(b"\x01", 1, 0)
    journal.setCurrentTerm(3, "n2")
    journal.add(b"a" * 1000, 2, 3)
    journal.add(b"", 3, 3)
    journal.set_cluster_id("c-1")
    journal._destroy()

    journal = Journal.open(tmp_path / "journal", SystemDevice())
    assert journal[:] == [(b"\x01", 1, 0), (b"a" * 1000, 2, 3), (b"", 3, 3)]
    assert (journal[0], journal[-1], len(journal)) == ((b"\x01", 1, 0), (b"", 3, 3), 3)
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (3, "n2")
    assert (journal.getRaftCommitIndex(), journal.synced_index, journal.pending_bytes) == (1, 3, 0)
    assert journal.begin("n1", "another") == ("n1", "disk-1", "c-1", 1)
    assert journal.next_incarnation() == 2
    journal._destroy()
    journal._destroy()


def test_private_files(tmp_path: Path) -> None:
    """Directories are the user's alone, and so are the files."""
    journal = Journal.open(tmp_path / "data" / "journal", SystemDevice())
    journal.begin("n1", "disk-1")
    journal._destroy()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / "journal").stat().st_mode & 0o777 == 0o700
    files = list((tmp_path / "data" / "journal").iterdir())
    assert len(files) == 2
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_group_commit() -> None:
    """Any number of entries costs one write and one sync; a sync with nothing pending costs nothing."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    journal.begin("n1", "disk-1")
    disk.calls.clear()
    for index in range(1, 101):
        journal.add(b"x", index, 0)
    assert disk.calls == []
    assert journal.pending_bytes == 100 * (RECORD_BYTES + 17)
    assert journal.synced_index == 0
    journal.sync()
    journal.sync()
    assert disk.calls == ["write", "sync"]
    assert (journal.synced_index, journal.pending_bytes) == (100, 0)


def test_commit_waits_for_the_disk() -> None:
    """Nothing counts as committed, and no vote is cast, before all bytes until then are synced."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    journal.add(b"1", 1, 0)
    journal.setRaftCommitIndex(1)
    assert journal.synced_index == 1
    journal.add(b"2", 2, 0)
    journal.setCurrentTerm(1, "n1")
    assert journal.synced_index == 2
    disk.cut_power(lambda: False)
    assert Journal.open(DIRECTORY, disk)[:] == [(b"1", 1, 0), (b"2", 2, 0)]


def test_a_cut_is_not_durable_before_sync() -> None:
    """What replaces synced entries does not count as synced until it is."""
    journal = Journal.open(DIRECTORY, MemoryDisk())
    for index in range(1, 6):
        journal.add(b"x", index, 1)
    journal.sync()
    journal.deleteEntriesFrom(3)
    assert journal.synced_index == 3
    journal.add(b"y", 4, 2)
    assert journal.synced_index == 3
    journal.sync()
    assert journal.synced_index == 4
    journal.deleteEntriesFrom(4)
    assert (len(journal), journal.pending_bytes) == (4, 0)


def test_killed_process_bytes_are_synced_at_open() -> None:
    """Bytes that a killed process wrote and never synced are durable once they have been read."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    journal.begin("n1", "disk-1")
    journal.add(b"1", 1, 0)
    disk.fails["sync"] = OSError(errno.EIO, "no")
    with pytest.raises(FatalError):
        journal.sync()
    disk.fails.clear()
    disk.kill()
    assert len(Journal.open(DIRECTORY, disk)) == 1
    disk.cut_power(lambda: False)
    assert len(Journal.open(DIRECTORY, disk)) == 1


def test_is_empty() -> None:
    """Name, disk, incarnations and the engine's first entry leave a journal empty; a term does not."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    assert journal.is_empty
    journal.begin("n1", "disk-1")
    journal.next_incarnation()
    journal.add(b"\x01", 1, 0)
    journal._destroy()
    journal = Journal.open(DIRECTORY, disk)
    assert journal.is_empty
    journal.setCurrentTerm(1, None)
    assert not journal.is_empty


@pytest.mark.parametrize("change", ["entry", "cluster"])
def test_is_not_empty(change: str) -> None:
    """An entry and a cluster id are more than nothing."""
    journal = Journal.open(DIRECTORY, MemoryDisk())
    journal.begin("n1", "disk-1")
    journal.add(b"\x01", 1, 0)
    if change == "entry":
        journal.add(b"\x01", 2, 0)
    else:
        journal.set_cluster_id("c-1")
    assert not journal.is_empty


def test_roll_over() -> None:
    """A log of many segments reads as one, and goes on in the last of them."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk, segment_bytes=300)
    journal.begin("n1", "disk-1")
    log = [(b"command %d" % index, index, 1) for index in range(1, 41)]
    for entry in log:
        journal.add(*entry)
        journal.sync()
    disk.kill()
    assert len(disk.files) > 4
    assert max(len(data) for data in disk.files.values()) < 400
    journal = Journal.open(DIRECTORY, disk, segment_bytes=300)
    assert journal[:] == log
    journal.deleteEntriesFrom(1)
    journal.add(b"new", 2, 2)
    journal._destroy()
    assert Journal.open(DIRECTORY, disk)[:] == [log[0], (b"new", 2, 2)]


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_second_process(tmp_path: Path) -> None:
    """A directory has one user at a time; the second is told which directory and how to find the first."""
    journal = Journal.open(tmp_path, SystemDevice())
    with pytest.raises(ConfigurationError, match=r"another process.*fuser") as caught:
        Journal.open(tmp_path, SystemDevice())
    assert str(tmp_path) in caught.value.detail
    journal._destroy()
    Journal.open(tmp_path, SystemDevice())._destroy()


def test_wrong_name() -> None:
    """A directory of another node is refused, naming both."""
    disk = MemoryDisk()
    Journal.open(DIRECTORY, disk).begin("n1", "disk-1")
    disk.kill()
    with pytest.raises(ConfigurationError, match=r"'n1'.*'n2'"):
        Journal.open(DIRECTORY, disk).begin("n2", "disk-2")


def test_wrong_cluster() -> None:
    """A cluster id is set once; the same again changes nothing."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    journal.begin("n1", "disk-1")
    journal.set_cluster_id("c-1")
    disk.calls.clear()
    journal.set_cluster_id("c-1")
    assert disk.calls == []
    with pytest.raises(FatalError, match="cluster c-1"):
        journal.set_cluster_id("c-2")


def test_unusable_directory(tmp_path: Path) -> None:
    """A path that cannot be a directory is a fault of the settings."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file/journal"):
        Journal.open(tmp_path / "file" / "journal", SystemDevice())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_segment_is_gone_on_with_while_there_is_no_descriptor_for_another(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each sync tries again, and takes what it had to take; it is said once a shortage, and all of it comes back."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk, 300)
    journal.begin("n1", "disk-1")
    index = 0
    for shortage in (1, 2):
        disk.fails["create"] = OSError(number, "Too many open files")
        while journal.disk_bytes < shortage * 1000:
            index += 1
            journal.add(bytes(50), index, 0)
            disk.calls.clear()
            journal.sync()
            assert journal.synced_index == index
        assert disk.calls == ["write", "sync", "create"]
        assert len(disk.files) == shortage
        assert caplog.text.count("journal_segment_delayed") == shortage
        disk.fails.clear()
        journal.sync()  # of nothing: no reason to begin another
        assert len(disk.files) == shortage
        index += 1
        journal.add(b"there are some again", index, 0)
        journal.sync()
        assert len(disk.files) == shortage + 1
    entries = journal[:]
    disk.cut_power(lambda: False)
    assert Journal.open(DIRECTORY, disk, 300)[:] == entries
    assert caplog.text.count("journal_segment_delayed") == 2
    assert "journal_tail_cut" not in caplog.text


def test_a_shortage_of_descriptors_is_borne_for_so_many_bytes() -> None:
    """What is found in a segment is found by a search that is made for no longer ones."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk, 300)
    journal.begin("n1", "disk-1")
    disk.fails["create"] = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(FatalError, match="Too many open files"):
        for index in range(1, 100):
            journal.add(bytes(4_000_000), index, 0)
            journal.sync()
    assert LONGEST_BYTES <= len(disk.files[FIRST]) < LONGEST_BYTES + 4_001_000
    assert LONGEST_BYTES + MAX_PENDING_BYTES + MAX_BODY_BYTES + 2 * RECORD_BYTES <= LIKELY_BYTES


def test_a_shortage_of_descriptors_where_the_log_begins_anew_is_the_end() -> None:
    """What a snapshot has replaced must not come back: it cannot wait."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    journal.begin("n1", "disk-1")
    journal.add(b"1", 1, 0)
    journal.setCurrentTerm(2, None)
    disk.fails["create"] = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(FatalError, match="Too many open files"):
        journal.reset(7, 2)
    disk.fails.clear()
    disk.kill()
    journal = Journal.open(DIRECTORY, disk)
    journal.align(7, 2)
    assert journal[:] == [(b"", 7, 2)]


def test_a_real_process_without_a_descriptor_syncs_compacts_and_goes_on_with_one(tmp_path: Path) -> None:
    """For want of the next segment's it needs none at all, and for that segment a single one."""
    journal = Journal.open(tmp_path, SystemDevice(), 300)
    journal.begin("n1", "disk-1")
    index = 0

    def segments() -> list[int]:  # found without a descriptor
        return [number for number in range(1, 50) if (tmp_path / f"{number:012d}.segment").exists()]

    def grow(count: int) -> None:
        nonlocal index
        for _ in range(count):
            index += 1
            journal.add(bytes(100), index, 0)
            journal.sync()

    grow(30)
    journal.setRaftCommitIndex(index)
    *_, newest = many = segments()
    with no_descriptor_left() as give_one_back:
        journal.compact(index)
        grow(10)
        journal.onOneSecondTimer()
        assert segments() == many[REMOVALS_AT_ONCE + 1 :]
        give_one_back()
        grow(1)
        assert segments()[-1] == newest + 1
    entries = journal[-11:]
    journal._destroy()
    journal = Journal.open(tmp_path, SystemDevice(), 300)
    assert journal[-11:] == entries
    journal._destroy()


@contextmanager
def no_descriptor_left() -> Iterator[Callable[[], None]]:
    """This process can open nothing; gives a function after which it can open one thing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))  # noqa: PTH208
        with suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        yield lambda: os.close(fillers.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_failed_write_is_the_end(call: str) -> None:
    """After a failed write or sync everything is refused, though the disk would take it again; nothing is retried."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    journal.begin("n1", "disk-1")
    journal.add(b"1", 1, 0)
    journal.sync()
    journal.add(b"2", 2, 0)
    disk.fails[call] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FatalError, match=r"/data/journal.*No space"):
        journal.sync()
    disk.fails.clear()
    disk.calls.clear()
    attempts = [
        journal.sync,
        journal.flush,
        lambda: journal.add(b"3", 3, 0),
        lambda: journal.deleteEntriesFrom(1),
        lambda: journal.setCurrentTerm(5, None),
        lambda: journal.setRaftCommitIndex(2),
        journal.next_incarnation,
        lambda: journal.set_cluster_id("c"),
    ]
    for attempt in attempts:
        with pytest.raises(FatalError):
            attempt()
    assert (journal.synced_index, journal.getRaftCommitIndex()) == (1, 1)
    journal._destroy()
    assert disk.calls == []
    assert disk.locks == {}


def test_closed() -> None:
    """A closed journal takes nothing."""
    journal = Journal.open(DIRECTORY, MemoryDisk())
    journal.add(b"1", 1, 0)
    journal._destroy()
    with pytest.raises(FatalError, match="closed"):
        journal.add(b"2", 2, 0)


def test_calls_that_would_break_the_log() -> None:
    """A gap, a lower term, a second vote, and a cut of what is committed end the process instead."""
    journal = Journal.open(DIRECTORY, MemoryDisk())
    for index in range(1, 4):
        journal.add(b"x", index, 2)
    journal.setCurrentTerm(2, "n1")
    journal.setRaftCommitIndex(2)
    with pytest.raises(FatalError, match="entry 5"):
        journal.add(b"x", 5, 2)
    with pytest.raises(FatalError, match="term 1"):
        journal.add(b"x", 4, 1)
    with pytest.raises(FatalError, match="committed up to 2"):
        journal.deleteEntriesFrom(1)
    with pytest.raises(FatalError, match="term 1"):
        journal.setCurrentTerm(1, None)
    with pytest.raises(FatalError, match="vote for n2"):
        journal.setCurrentTerm(2, "n2")
    with pytest.raises(FatalError, match="defect"):
        journal.clear()
    with pytest.raises(FatalError, match="defect"):
        journal.deleteEntriesTo(1)
    journal.deleteEntriesFrom(2)
    assert len(journal) == 2


def test_memory_is_bounded() -> None:
    """Entries that nobody syncs are synced before they fill the memory."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    for index in range(1, 12):
        journal.add(bytes(3 << 20), index, 0)
    assert journal.pending_bytes < 32 << 20
    assert journal.synced_index > 0
    with pytest.raises(FatalError, match="over the limit"):
        journal.add(bytes(4 << 20), 12, 0)


def test_real_disk_takes_a_torn_tail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On a real file system too a torn tail is cut, once."""
    journal = Journal.open(tmp_path, SystemDevice())
    journal.begin("n1", "disk-1")
    journal.add(b"whole", 1, 0)
    journal._destroy()
    with (tmp_path / FIRST.name).open("ab") as file:
        file.write(b"torn")
    with caplog.at_level(logging.WARNING):
        Journal.open(tmp_path, SystemDevice())._destroy()
        journal = Journal.open(tmp_path, SystemDevice())
    assert journal[:] == [(b"whole", 1, 0)]
    assert caplog.text.count("journal_tail_cut") == 1
    journal._destroy()
