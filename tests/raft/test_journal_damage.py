"""The journal: a torn tail is cut, damage is refused with place and remedy, and nothing is half-read."""

from __future__ import annotations

import errno
import random
import struct
from zlib import crc32

import pytest

from raftcron.errors import DamagedError, FatalError, NewerVersionError
from raftcron.raft.journal import Journal
from raftcron.raft.segment import HEADER_BYTES, MAGIC, RECORD_BYTES, Kind, encode_record, proof_of_durability
from tests.raft.journal_model import DIRECTORY
from tests.raft.memory_disk import MemoryDisk

FIRST = DIRECTORY / "000000000001.segment"


def _small(disk: MemoryDisk) -> list[tuple[int, list[tuple[bytes, int, int]], int, str | None]]:
    """A journal of several batches; (durable bytes, log, term, vote) after each."""
    journal = Journal.open(DIRECTORY, disk)
    steps = []

    def note() -> None:
        journal.sync()
        steps.append((len(disk.files[FIRST]), journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId()))

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
        assert journal[:] in prefixes
        for durable, log, term, voted_for in steps:
            if durable == length:
                assert journal[:] == log
                assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (term, voted_for)
                assert caplog.records == []
        journal.setCurrentTerm(9, "n3")
        expected = journal[:]
        copy.kill()
        again = Journal.open(DIRECTORY, copy)
        assert (again[:], again.getCurrentTerm()) == (expected, 9)


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
                assert journal[:] in known
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
    assert Journal.open(DIRECTORY, disk)[:] == [(b"first", 1, 0)]
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
    log = journal[:]
    disk.kill()
    return log


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
