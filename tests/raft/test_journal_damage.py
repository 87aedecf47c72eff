"""The journal: a torn tail is cut, damage is refused with place and remedy, and nothing is half-read."""

from __future__ import annotations

import base64
import errno
import random
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron import wire
from raftcron.errors import DamagedError, FatalError, NewerVersionError
from raftcron.raft.journal import Journal
from raftcron.raft.segment import (
    HEADER_BYTES,
    MAGIC,
    RECORD_BYTES,
    Kind,
    decode_header,
    encode_record,
    proof_of_durability,
    records,
)
from tests.raft.journal_model import DIRECTORY, Model, State, found_in
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
                assert "--data-dir /data" in error.detail
            else:
                assert offset >= last_batch
                assert journal[:] in known
                assert journal.getCurrentTerm() == 2
    assert refused == 2 * last_batch


@pytest.mark.parametrize("voted_for", ["n1", "n3"])
def test_a_damaged_vote_cannot_pass_for_torn(voted_for: str) -> None:
    """Though nothing else follows it: it would be cut off, and given once more.  An end that is lost is no vote."""
    disk = MemoryDisk()
    journal = Journal.open(DIRECTORY, disk)
    journal.begin("n1", "disk-1")
    journal.add(b"\x01", 1, 0)
    journal.sync()
    before = len(disk.files[FIRST])
    journal.setCurrentTerm(2, voted_for)
    vote = range(before, len(disk.files[FIRST]) - RECORD_BYTES)
    assert len(vote) == RECORD_BYTES + 8 + len(voted_for)
    disk.kill()
    for offset in vote:
        for bit in range(8):
            copy = disk.copy()
            copy.files[FIRST][offset] ^= 1 << bit
            with pytest.raises(DamagedError, match=f"offset {before} "):
                Journal.open(DIRECTORY, copy)
    del disk.files[FIRST][vote.stop :]
    again = Journal.open(DIRECTORY, disk)
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (2, voted_for)


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
        for durable, proof in ((HEADER_BYTES + 1, offset), (offset + 9, offset), (HEADER_BYTES, None), (1 << 27, None)):
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
        (Kind.INCARNATION, struct.pack("<Q", 1), "life 1 cannot follow life 1"),
        (Kind.CHECKPOINT, bytes(32), "where none belongs"),
        (Kind.BASE, bytes(32), "where none belongs"),
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


@pytest.mark.parametrize("kind", [11, 31])
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
    preamble = MAGIC + struct.pack("<I", 3)
    disk.files[FIRST][:16] = preamble + struct.pack("<I", crc32(preamble))
    with pytest.raises(NewerVersionError, match=r"000000000001\.segment .* version 3; .* version 2 "):
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
    """The loss of any one segment but the first, the last too, is damage that names the file.

    The loss of the first cannot be told from compaction, but the log begins with a hole then, and says so.
    """
    disk = MemoryDisk()
    log = _segmented(disk)
    first, *others = sorted(disk.files)
    for path in others:
        copy = disk.copy()
        del copy.files[path]
        with pytest.raises(DamagedError, match=path.name):
            Journal.open(DIRECTORY, copy)
    del disk.files[first]
    journal = Journal.open(DIRECTORY, disk)
    assert journal.needs_snapshot
    assert journal[1:] == log[journal.first_index :]
    with pytest.raises(DamagedError, match=r"begins with entry \d+, and there is no snapshot"):
        journal.align(0, 0)


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


# ---- any damage at any place -------------------------------------------------------------------------------------

KINDS = ["one segment", "rolled", "compacted", "reset"]


class Node(NamedTuple):
    """A directory with a history."""

    disk: MemoryDisk
    final: State
    last: Path  # its newest segment
    held: list[State]  # what was held after each step that was written to it
    last_batch: int  # where in it the last write begins


@cache
def _node(kind: str) -> Node:
    disk = MemoryDisk()
    model = Model(disk, 1 << 20 if kind == "one segment" else 250)
    model.open()
    model.join()
    chance = random.Random(kind)
    for step in range(20):
        model.add(chance.randbytes(chance.randrange(30)))
        if step % 3 == 0:
            model.sync()
        if step % 7 == 0:
            model.vote(1, "n2")
        if step % 5 == 0 and model.can_cut():
            model.cut(0.5)
    if kind == "compacted":
        model.commit_all()
        model.compact(0.9, 0.8)
        assert FIRST not in disk.files
    elif kind == "reset":
        model.reset(3)
    model.segment_bytes = 1 << 20
    model.close()
    for word in (b"more", b"and more", b"the last"):
        model.add(word)
        model.add(b"taken back")
        model.cut(0.99)
        last_batch = len(disk.files[max(disk.files)])
        model.vote(1, "n1")
    assert (len(disk.files) > 1) == (kind != "one segment")
    last = max(disk.files)
    return Node(disk, model.state, last, [state for path, state in model.history if path == last], last_batch)


def _check(node: Node, damaged: MemoryDisk, path: Path, end: int) -> None:
    """What may be found after damage to `path` behind which, from `end` on, all is as it was."""
    try:
        found = found_in(Journal.open(DIRECTORY, damaged))
    except DamagedError as error:
        assert str(DIRECTORY) in error.detail
        assert "offset" in error.detail
        assert "raftcron cluster replace" in error.detail
        return
    if not node.final.allows(found):
        assert path == node.last, f"damage to {path} passed"
        assert end > node.last_batch, f"damage up to {end} passed, though synced records follow"
        assert any(state._replace(through=node.final.through).allows(found) for state in node.held)


@pytest.mark.parametrize("kind", KINDS)
def test_cuts_and_flips_at_every_offset(kind: str) -> None:
    """Any segment of any kind of journal, cut or with a bit flipped at any offset: refused, a true prefix, or whole."""
    node = _node(kind)
    for path, data in node.disk.files.items():
        for offset in range(len(data)):
            cut, flipped = node.disk.copy(), node.disk.copy()
            del cut.files[path][offset:]
            _check(node, cut, path, len(data))
            flipped.files[path][offset] ^= 1 << offset % 8
            _check(node, flipped, path, offset + 1)


def _record_lengths(data: bytes) -> list[int]:
    """Of each whole record of a segment, in their order."""
    header = decode_header(data)
    assert header is not None
    return [RECORD_BYTES + len(body) for _, _, body in records(memoryview(data), len(data), header.salt)]


@pytest.mark.parametrize("kind", KINDS)
def test_doubled_and_exchanged_at_every_offset(kind: str) -> None:
    """So many bytes as some record has, doubled at any offset or exchanged with as many behind them: as above."""
    node = _node(kind)
    for path, whole in node.disk.files.items():
        data = bytes(whole)
        by_length = sorted(set(_record_lengths(data)))
        for length in {by_length[0], by_length[len(by_length) // 2], by_length[-1]}:
            for offset in range(len(data) - length + 1):
                middle, end = offset + length, offset + 2 * length
                disk = node.disk.copy()
                disk.files[path][:] = data[:middle] + data[offset:]
                _check(node, disk, path, middle + 1)  # the first byte that is not as it was stands there
                if end <= len(data):
                    disk = node.disk.copy()
                    disk.files[path][:] = data[:offset] + data[middle:end] + data[offset:middle] + data[end:]
                    _check(node, disk, path, end)


@pytest.mark.parametrize("kind", KINDS)
def test_every_whole_record_doubled_and_exchanged(kind: str) -> None:
    """Each carries a right checksum wherever it stands; likewise where the one behind it is longer or shorter."""
    node = _node(kind)
    for path, whole in node.disk.files.items():
        data = bytes(whole)
        begin = HEADER_BYTES
        lengths = _record_lengths(data)
        for length, following in zip(lengths, [*lengths[1:], 0], strict=True):
            middle, end = begin + length, begin + length + following
            doubled, exchanged = node.disk.copy(), node.disk.copy()
            doubled.files[path][:] = data[:middle] + data[begin:]
            _check(node, doubled, path, middle + 1)
            exchanged.files[path][:] = data[:begin] + data[middle:end] + data[begin:middle] + data[end:]
            _check(node, exchanged, path, end)
            begin = middle
        assert begin == len(data)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    damage=st.sampled_from(["zeros", "doubled", "gone", "exchanged", "overwritten"]),
    places=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1), st.floats(0, 1)),
    file=st.integers(0, 100),
    other=st.integers(0, 100),
)
def test_any_damage(kind: str, damage: str, places: tuple[float, float, float], file: int, other: int) -> None:
    """Bytes zeroed, doubled, gone, exchanged, or overwritten by those of another segment: nothing false is believed."""
    node = _node(kind)
    disk = node.disk.copy()
    paths = sorted(disk.files)
    path, source = paths[file % len(paths)], disk.files[paths[other % len(paths)]]
    data = bytes(disk.files[path])
    begin, middle, end = sorted(int(place * len(data)) for place in places)
    changed = {
        "zeros": data[:begin] + bytes(end - begin) + data[end:],
        "doubled": data[:end] + data[begin:],
        "gone": data[:begin] + data[end:],
        "exchanged": data[:begin] + data[middle:end] + data[begin:middle] + data[end:],
        "overwritten": data[:begin] + source[begin:end].ljust(end - begin, b"x") + data[end:],
    }
    disk.files[path][:] = changed[damage]
    _check(node, disk, path, end + (damage == "doubled"))


# ---- other releases ----------------------------------------------------------------------------------------------

# Four segments of format version 1 as the release before wrote them: the last is empty, as right after a roll-over.
_VERSION_1 = (
    rb"c-"
    rb"m{(Vt@dKdc~>fxv6<2M?MERx`j9g`FSxiFfjOE+S3D~k%3*~sfx~%d66y0ILf$zd<`IGoU|y<a9K)bakj3Zd$Gm=4xpF=5HrCv&rSIwAPA&GftUr"
    rb"|M8?volj6Ccvdl2qJVRMt{r${9Ru>SnCF>gAe!7@f63CtfGK2}H8A>PT=jJBnr6?FlhHw22Qgr~NiW!G0V+nuzb0C3dK+K685=OW~0%qkiDBW`5@"
    rb"Wa^==f$qp?7Jfg4G9(&95$L5NMzQ5RQZ8avEoo=dM=rd8KkNNq>2rPDzhD5bymPbf*pq{^PH(cpWq?EfkTyr^cN0QtRZ0x4~ZM-A;F9m5<(A-"
    rb"Ow08;;TO*IgM$Ma63npRDoD_p1roFcVpf=Am;Z?77l#VMeE`#uUy_kpq+o71?Nv8OO&PNLQPo)VTitjo4hsoRtZFQGYOmW0;_d@tjtM2RKZ7`@(Y"
    rb"<Q|_pS!IcVTgQ8cJ_0UBL0<mC<Yf{Y;*9"
)


def _version_1() -> MemoryDisk:
    disk = MemoryDisk()
    for name, data in wire.unpack(zlib.decompress(base64.b85decode(_VERSION_1))).items():
        disk.files[DIRECTORY / name] = bytearray(data)
    return disk.copy()


def test_version_1_opens_and_goes_on() -> None:
    """A journal without checkpoints is read, gone on with, and in time left behind by compaction."""
    disk = _version_1()
    journal = Journal.open(DIRECTORY, disk, segment_bytes=200)
    assert journal.begin("n1", "another") == ("n1", "disk-1", "c-1", 1)
    log = [(b"\x01", 1, 0), *((b"command %d" % index, index, 1) for index in range(2, 7))]
    log += [(b"other %d" % index, index, 2) for index in range(7, 10)]
    assert journal[:] == log
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId(), journal.needs_snapshot) == (2, None, False)
    for index in range(10, 20):
        log.append((b"new %d" % index, index, 2))
        journal.add(*log[-1])
        journal.sync()
    disk.kill()
    journal = Journal.open(DIRECTORY, disk, segment_bytes=200)
    assert journal[:] == log
    journal.setRaftCommitIndex(19)
    journal.compact(18)
    for number in range(1, 6):
        assert Journal.open(DIRECTORY, disk.copy())[-2:] == log[-2:]  # whatever of version 1 is still there
        journal.onOneSecondTimer()
        assert DIRECTORY / f"{number:012d}.segment" not in disk.files
    disk.kill()
    journal = Journal.open(DIRECTORY, disk)
    assert journal.needs_snapshot
    assert journal[1:] == log[journal.first_index :]
    assert journal.identity == ("n1", "disk-1", "c-1", 1)


def test_version_1_damage() -> None:
    """In a journal of version 1 too every missing or damaged segment is noticed."""
    for path in sorted(_version_1().files):
        disk = _version_1()
        del disk.files[path]
        with pytest.raises(DamagedError, match=path.name):
            Journal.open(DIRECTORY, disk)
        disk = _version_1()
        disk.files[path][20] ^= 1
        if path != max(disk.files):
            with pytest.raises(DamagedError, match=path.name):
                Journal.open(DIRECTORY, disk)
