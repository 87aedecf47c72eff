"""The journal: what was synced comes back, a torn tail is cut, damage is refused, and nothing is half-read."""

from __future__ import annotations

import errno
import logging
import random
import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raftcron.errors import ConfigurationError, DamagedError, FatalError, NewerVersionError
from raftcron.raft.device import Device, SystemDevice
from raftcron.raft.journal import Journal
from raftcron.raft.segment import HEADER_BYTES, MAGIC, RECORD_BYTES, Kind, encode_record, proof_of_durability

DIRECTORY = Path("/data/journal")
FIRST = DIRECTORY / "000000000001.segment"


class MemoryDisk:
    """A disk that knows what is synced, and loses the rest when the power goes; satisfies Device."""

    page_bytes = 16

    def __init__(self) -> None:
        self.files: dict[Path, bytearray] = {}
        self.synced: dict[Path, bytes] = {}  # what a power cut leaves of each file whose name is durable
        self.listed: set[Path] = set()  # names that are durable
        self.handles: dict[int, Path] = {}
        self.locks: dict[int, Path] = {}
        self.calls: list[str] = []
        self.fails: dict[str, OSError] = {}
        self._next = 3

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]

    def _handle(self, path: Path) -> int:
        self._next += 1
        self.handles[self._next] = path
        return self._next

    def make_directory(self, path: Path) -> None:
        self._call("make_directory")

    def lock(self, path: Path) -> int:
        if path in self.locks.values():
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")
        self._next += 1
        self.locks[self._next] = path
        return self._next

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in self.files]

    def read(self, path: Path, limit: int = -1) -> bytes:
        self._call("read")
        if path not in self.files:
            raise FileNotFoundError(path)
        data = bytes(self.files[path])
        return data if limit < 0 else data[:limit]

    def create(self, path: Path) -> int:
        self._call("create")
        assert path not in self.files
        self.files[path] = bytearray()
        return self._handle(path)

    def append(self, path: Path) -> int:
        return self._handle(path)

    def write(self, handle: int, data: bytes) -> None:
        self._call("write")
        self.files[self.handles[handle]] += data

    def sync(self, handle: int) -> None:
        self._call("sync")
        path = self.handles[handle]
        self.synced[path] = bytes(self.files[path])

    def sync_directory(self, path: Path) -> None:
        self._call("sync_directory")
        self.listed = set(self.files)

    def truncate(self, handle: int, length: int) -> None:
        del self.files[self.handles[handle]][length:]

    def remove(self, path: Path) -> None:
        del self.files[path]

    def close(self, handle: int) -> None:
        if self.handles.pop(handle, None) is None:
            del self.locks[handle]

    def kill(self) -> None:
        """The process is gone; what it wrote stays."""
        self.handles.clear()
        self.locks.clear()

    def cut_power(self, keeps_page: Any) -> None:
        """Of what was not synced, each page stays or becomes zeros, or the file ends before it."""
        self.kill()
        for path in list(self.files):
            if path not in self.listed:
                del self.files[path]
                continue
            synced = self.synced.get(path, b"")
            tail = bytes(self.files[path][len(synced) :])
            pages = [tail[at : at + self.page_bytes] for at in range(0, len(tail), self.page_bytes)]
            kept = [(page if (keep := keeps_page()) else bytes(len(page)), keep) for page in pages]
            while kept and not kept[-1][1]:
                kept.pop()
            self.files[path] = bytearray(synced + b"".join(page for page, _ in kept))

    def copy(self) -> MemoryDisk:
        """Another disk with the same files, all of them synced."""
        disk = MemoryDisk()
        for path, data in self.files.items():
            disk.files[path] = bytearray(data)
            disk.synced[path] = bytes(data)
            disk.listed.add(path)
        return disk


def _typed(disk: MemoryDisk) -> Device:
    return disk  # the double satisfies the same Protocol


def _entries(journal: Journal) -> list[tuple[bytes, int, int]]:
    return list(journal[:])


def _small(disk: MemoryDisk) -> list[tuple[int, list[tuple[bytes, int, int]], int, str | None]]:
    """A journal of several batches; (durable bytes, log, term, vote) after each."""
    journal = Journal.open(DIRECTORY, disk)
    steps = []

    def note() -> None:
        journal.sync()
        steps.append((len(disk.files[FIRST]), _entries(journal), journal.getCurrentTerm(), journal.getVotedForNodeId()))

    journal.begin("n1", "disk-1")
    note()
    journal.next_incarnation()
    note()
    journal.add(b"\x01", 1, 0)
    journal.setCurrentTerm(1, "n1")
    note()
    journal.add(b"two", 2, 1)
    journal.add(b"three", 3, 1)
    note()
    journal.setCurrentTerm(2, None)
    note()
    journal.deleteEntriesFrom(2)
    journal.add(b"other", 3, 2)
    journal.add(b"four", 4, 2)
    note()
    disk.kill()
    return steps


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
    assert _entries(Journal.open(DIRECTORY, disk)) == [(b"1", 1, 0), (b"2", 2, 0)]


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


# ---- torn tails and damage ---------------------------------------------------------------------------------------


def test_truncation_anywhere_gives_a_true_prefix(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever length a crash leaves, each whole batch is there, the log is one the node once had, and it goes on."""
    disk = MemoryDisk()
    steps = _small(disk)
    whole = bytes(disk.files[FIRST])
    logs = [[]] + [log for _, log, _, _ in steps]
    prefixes = [log[:end] for log in logs for end in range(len(log) + 1)]
    for length in range(len(whole)):
        copy = disk.copy()
        del copy.files[FIRST][length:]
        caplog.clear()
        journal = Journal.open(DIRECTORY, copy)
        assert _entries(journal) in prefixes
        for durable, log, term, voted_for in steps:
            if durable == length:
                assert _entries(journal) == log
                assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (term, voted_for)
                assert caplog.records == []
        journal.setCurrentTerm(9, "n3")
        expected = _entries(journal)
        copy.kill()
        again = Journal.open(DIRECTORY, copy)
        assert (_entries(again), again.getCurrentTerm()) == (expected, 9)


def test_a_flipped_bit_anywhere_is_never_believed() -> None:
    """A damaged byte is refused with file and offset; only in the last batch can it pass for a torn write."""
    disk = MemoryDisk()
    steps = _small(disk)
    last_batch = steps[-2][0]
    before_last = steps[-2][1]
    known = [before_last, before_last[:2], steps[-1][1], steps[-1][1][:3]]
    refused = 0
    for offset in range(len(disk.files[FIRST])):
        for bit in (0x01, 0x80):
            copy = disk.copy()
            copy.files[FIRST][offset] ^= bit
            try:
                journal = Journal.open(DIRECTORY, copy)
            except DamagedError as error:
                refused += 1
                assert str(FIRST) in error.detail
                assert "offset" in error.detail
                assert "raftcron cluster replace" in error.detail
                assert "wipe" not in error.detail
            else:
                assert offset >= last_batch
                assert _entries(journal) in known
                assert journal.getCurrentTerm() == 2
    assert refused == 2 * last_batch


def test_after_a_clean_end_no_byte_can_pass_for_torn() -> None:
    """A journal that was closed in order shows damage to its last batch as damage."""
    disk = MemoryDisk()
    _small(disk)
    Journal.open(DIRECTORY, disk)._destroy()
    mark = len(disk.files[FIRST]) - RECORD_BYTES
    for offset in range(HEADER_BYTES, mark):
        copy = disk.copy()
        copy.files[FIRST][offset] ^= 0x10
        with pytest.raises(DamagedError):
            Journal.open(DIRECTORY, copy)


def test_refusal_leaves_the_file_alone() -> None:
    """A journal that is refused is not changed, and its directory can be opened again to be refused again."""
    disk = MemoryDisk()
    _small(disk)
    disk.files[FIRST][HEADER_BYTES + 20] ^= 1
    before = bytes(disk.files[FIRST])
    for _ in range(2):
        with pytest.raises(DamagedError):
            Journal.open(DIRECTORY, disk)
    assert bytes(disk.files[FIRST]) == before


def test_pages_of_the_last_write_may_come_in_any_order(caplog: pytest.LogCaptureFixture) -> None:
    """After a power cut the last write may have holes with whole records behind them: a torn tail, not damage."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    journal.begin("n1", "disk-1")
    journal.add(b"kept", 1, 0)
    journal.sync()
    for index in range(2, 30):
        journal.add(b"x" * 20, index, 0)
    disk.fails["sync"] = OSError(errno.EIO, "the power goes")
    with pytest.raises(FatalError):
        journal.sync()
    disk.fails.clear()
    pages = iter([True] * 8 + [False] * 3 + [True] * 1000)
    disk.cut_power(lambda: next(pages))
    journal = Journal.open(DIRECTORY, disk)
    assert 1 < len(journal) < 29
    assert journal[0] == (b"kept", 1, 0)
    assert [record.message.split()[0] for record in caplog.records] == ["journal_tail_cut"]
    assert str(FIRST) in caplog.text
    assert "offset=" in caplog.text
    assert "bytes=" in caplog.text


def test_user_bytes_cannot_pass_for_a_record() -> None:
    """A torn command that holds whole records of another journal is cut, not taken for damage or for records."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    journal.begin("n1", "disk-1")
    journal.add(b"first", 1, 0)
    journal.sync()
    start = len(disk.files[FIRST])
    forged = encode_record(Kind.MARK, b"", start + 1, 0) * 8
    journal.add(forged + b"the rest", 2, 0)
    journal.sync()
    disk.kill()
    del disk.files[FIRST][-4:]
    assert _entries(Journal.open(DIRECTORY, disk)) == [(b"first", 1, 0)]
    assert len(disk.files[FIRST]) == start


def test_a_torn_write_of_any_bytes_is_torn() -> None:
    """However many bytes that mean nothing lie behind the bad place, the search for a proof of damage finds none."""
    noise = random.Random(1).randbytes(4 << 20)
    assert proof_of_durability(memoryview(noise), HEADER_BYTES, 7) is None
    assert proof_of_durability(memoryview(bytes(4 << 20)), HEADER_BYTES, 7) is None


def test_a_proof_is_found_anywhere() -> None:
    """One whole record behind a bad place is found at any offset, and only if it vouches for that place."""
    noise = random.Random(2).randbytes(2000)
    for offset in range(HEADER_BYTES + 2, 1900, 7):
        for durable, proof in ((HEADER_BYTES + 1, offset), (HEADER_BYTES, None), (offset + 1, None)):
            record = encode_record(Kind.VOTE, b"x" * 40, durable, 7)
            data = noise[:offset] + record + noise[offset + len(record) :]
            assert proof_of_durability(memoryview(data), HEADER_BYTES, 7) == proof


def test_a_damaged_length_does_not_hide_what_follows() -> None:
    """A length that points beyond the end of the file is damage when whole synced records follow it."""
    disk = MemoryDisk()
    steps = _small(disk)
    offset = steps[1][0] + 4
    disk.files[FIRST][offset : offset + 4] = struct.pack("<I", 1 << 23)
    with pytest.raises(DamagedError, match=f"offset {steps[1][0]} "):
        Journal.open(DIRECTORY, disk)


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        (Kind.ENTRY, struct.pack("<QQ", 6, 2), "cannot follow entry 4"),
        (Kind.ENTRY, struct.pack("<QQ", 5, 1), "of term 1 cannot follow"),
        (Kind.ENTRY, b"short", "cannot be read"),
        (Kind.CUT, struct.pack("<Q", 5), "does not hold"),
        (Kind.CUT, struct.pack("<Q", 1), "does not hold"),
        (Kind.VOTE, struct.pack("<Q", 1), "term 1 cannot follow"),
    ],
)
def test_records_that_cannot_be(kind: Kind, body: bytes, reason: str) -> None:
    """A record with a right checksum that does not fit what came before it is refused."""
    disk = MemoryDisk()
    steps = _small(disk)
    salt = struct.unpack_from("<I", disk.files[FIRST], HEADER_BYTES - 8)[0]
    disk.files[FIRST] += encode_record(kind, body, steps[-1][0], salt)
    with pytest.raises(DamagedError, match=reason):
        Journal.open(DIRECTORY, disk)


@pytest.mark.parametrize("kind", [Kind.BASE, 31])
def test_records_of_a_later_release(kind: int) -> None:
    """A record of a kind that this release does not know is of a newer one; it is not skipped."""
    disk = MemoryDisk()
    steps = _small(disk)
    salt = struct.unpack_from("<I", disk.files[FIRST], HEADER_BYTES - 8)[0]
    disk.files[FIRST] += encode_record(kind, b"", steps[-1][0], salt)
    with pytest.raises(NewerVersionError, match=f"kind {int(kind)}"):
        Journal.open(DIRECTORY, disk)


def test_newer_version() -> None:
    """A segment of a newer format is refused by name, with both versions."""
    disk = MemoryDisk()
    _small(disk)
    preamble = MAGIC + struct.pack("<I", 2)
    disk.files[FIRST][:16] = preamble + struct.pack("<I", crc32(preamble))
    with pytest.raises(NewerVersionError, match=r"000000000001\.segment .* version 2; .* version 1 "):
        Journal.open(DIRECTORY, disk)


# ---- segments ----------------------------------------------------------------------------------------------------


def _segmented(disk: MemoryDisk, count: int = 40) -> list[tuple[bytes, int, int]]:
    journal = Journal.open(DIRECTORY, disk, segment_bytes=300)
    journal.begin("n1", "disk-1")
    for index in range(1, count + 1):
        journal.add(b"command %d" % index, index, 1)
        journal.sync()
    log = _entries(journal)
    disk.kill()
    return log


def test_roll_over() -> None:
    """A log of many segments reads as one, and goes on in the last of them."""
    disk = MemoryDisk()
    log = _segmented(disk)
    assert len(disk.files) > 4
    assert max(len(data) for data in disk.files.values()) < 400
    journal = Journal.open(DIRECTORY, disk, segment_bytes=300)
    assert _entries(journal) == log
    journal.deleteEntriesFrom(1)
    journal.add(b"new", 2, 2)
    journal._destroy()
    assert _entries(Journal.open(DIRECTORY, disk)) == [log[0], (b"new", 2, 2)]


def test_missing_segments_are_noticed() -> None:
    """The loss of any one segment, the last too, is damage that names the file."""
    disk = MemoryDisk()
    _segmented(disk)
    for path in sorted(disk.files):
        copy = disk.copy()
        del copy.files[path]
        with pytest.raises(DamagedError, match=path.name):
            Journal.open(DIRECTORY, copy)


def test_damage_in_a_closed_segment() -> None:
    """In a segment that another one follows no tail is ever cut, whatever length or byte is wrong."""
    disk = MemoryDisk()
    _segmented(disk)
    path = DIRECTORY / "000000000002.segment"
    end = len(disk.files[path]) - RECORD_BYTES  # behind it there is only the seal
    for offset in range(0, end, 3):
        copy = disk.copy()
        copy.files[path][offset] ^= 0x40
        with pytest.raises(DamagedError, match=path.name):
            Journal.open(DIRECTORY, copy)
        copy = disk.copy()
        del copy.files[path][offset:]
        with pytest.raises(DamagedError, match=path.name):
            Journal.open(DIRECTORY, copy)
    disk.files[path] += b"more"
    with pytest.raises(DamagedError, match="follow the end"):
        Journal.open(DIRECTORY, disk)


def test_a_segment_under_another_name() -> None:
    """Segments that changed places are refused."""
    disk = MemoryDisk()
    _segmented(disk)
    first, second = sorted(disk.files)[:2]
    disk.files[first], disk.files[second] = disk.files[second], disk.files[first]
    with pytest.raises(DamagedError, match="under another name"):
        Journal.open(DIRECTORY, disk)


def test_crash_at_every_step_of_a_roll_over() -> None:
    """A crash at any device call while a segment is made loses nothing that was synced."""
    calls = MemoryDisk()
    _segmented(calls, count=12)
    for stop in range(len(calls.calls)):
        for keeps in (True, False):
            disk = MemoryDisk()
            crash = _CrashAt(disk, stop)
            synced = 0
            try:
                journal = Journal.open(DIRECTORY, crash, segment_bytes=300)
                journal.begin("n1", "disk-1")
                for index in range(1, 13):
                    journal.add(b"command %d" % index, index, 1)
                    journal.sync()
                    synced = index
            except _Crash:
                pass
            disk.cut_power(lambda keeps=keeps: keeps)
            for _ in range(2):
                journal = Journal.open(DIRECTORY, disk, segment_bytes=300)
                assert len(journal) >= synced
                assert journal[:] == [(b"command %d" % index, index, 1) for index in range(1, len(journal) + 1)]
                journal.add(b"command %d" % (len(journal) + 1), len(journal) + 1, 1)
                journal.sync()
                disk.kill()
            if len(disk.files) > 1:
                disk.files.pop(max(disk.files))
                with pytest.raises(DamagedError):
                    Journal.open(DIRECTORY, disk)


class _Crash(BaseException):
    """The power goes."""


class _CrashAt:
    """A device on which the power goes right after the given call; a write leaves one half."""

    def __init__(self, disk: MemoryDisk, stop: int) -> None:
        self._disk = disk
        self._stop = stop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._disk, name)

        def call(*arguments: Any) -> Any:
            if len(self._disk.calls) == self._stop and name == "write":
                handle, data = arguments
                method(handle, data[: len(data) // 2])
                raise _Crash
            result = method(*arguments)
            if len(self._disk.calls) > self._stop:
                raise _Crash
            return result

        return call


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
    _small(disk)
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
    with pytest.raises(FatalError, match="no snapshots"):
        journal.clear()
    with pytest.raises(FatalError, match="no snapshots"):
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


# ---- any history -------------------------------------------------------------------------------------------------


class AnyHistory(RuleBasedStateMachine):
    """Whatever is written, and however the process ends, what comes back is a state not older than the last sync."""

    @initialize(segment_bytes=st.sampled_from([100, 400, 1 << 20]))
    def begin(self, segment_bytes: int) -> None:
        self.disk = MemoryDisk()
        self.segment_bytes = segment_bytes
        self.log: list[tuple[bytes, int, int]] = []
        self.term, self.voted_for, self.commit = 0, None, 0
        self.lives = 0
        self.open()
        self.journal.begin("n1", "disk-1")
        self.next_life()

    def open(self) -> None:
        self.journal = Journal.open(DIRECTORY, self.disk, self.segment_bytes)

    def state(self) -> tuple[Any, ...]:
        return list(self.log), self.term, self.voted_for

    def synced(self) -> None:
        self.possible = [self.state()]

    def next_life(self) -> None:
        self.lives += 1
        assert self.journal.next_incarnation() == self.lives
        self.synced()

    @rule(command=st.binary(max_size=60), new_term=st.booleans())
    def add(self, command: bytes, new_term: bool) -> None:
        index = len(self.log) + 1
        term = max(self.term, self.log[-1][2] if self.log else 0) + new_term
        self.journal.add(command, index, term)
        self.log.append((command, index, term))
        self.possible.append(self.state())

    @precondition(lambda self: len(self.log) > max(1, self.commit))
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(max(1, self.commit), len(self.log) - 1))
        self.journal.deleteEntriesFrom(position)
        del self.log[position:]
        self.possible.append(self.state())

    @rule(step=st.integers(1, 3), voted_for=st.sampled_from([None, "n1", "n2"]))
    def vote(self, step: int, voted_for: str | None) -> None:
        self.term += step
        self.voted_for = voted_for
        self.journal.setCurrentTerm(self.term, voted_for)
        self.synced()

    @rule()
    def sync(self) -> None:
        self.journal.sync()
        self.synced()
        assert self.journal.synced_index == len(self.log)

    @precondition(lambda self: self.log)
    @rule()
    def commit_all(self) -> None:
        self.commit = len(self.log)
        has_to_sync = self.commit > self.journal.synced_index
        self.journal.setRaftCommitIndex(self.commit)
        if has_to_sync:
            self.synced()

    @rule()
    def close(self) -> None:
        self.journal._destroy()
        self.synced()
        self.open()
        assert (self.journal[:], self.journal.getCurrentTerm(), self.journal.getVotedForNodeId()) == self.state()
        self.commit = 0
        self.next_life()

    @rule(pages=st.lists(st.booleans(), max_size=12), is_written=st.booleans())
    def cut_power(self, pages: list[bool], is_written: bool) -> None:
        if is_written and self.journal.pending_bytes:
            self.disk.fails["sync"] = OSError(errno.EIO, "the power goes")
            with pytest.raises(FatalError):
                self.journal.sync()
            self.disk.fails.clear()
        kept = iter(pages)
        self.disk.cut_power(lambda: next(kept, False))
        self.open()
        found = (self.journal[:], self.journal.getCurrentTerm(), self.journal.getVotedForNodeId())
        assert found in self.possible
        self.log, self.term, self.voted_for = found
        self.commit = 0
        self.next_life()

    @invariant()
    def equal(self) -> None:
        assert self.journal[:] == self.log
        assert len(self.journal) == len(self.log)
        assert self.journal.synced_index <= len(self.log)


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
TestAnyHistory = AnyHistory.TestCase
