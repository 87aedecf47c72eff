"""Snapshots on disk: what was written comes back exactly, and the last good one outlives anything."""

from __future__ import annotations

import errno
import struct
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from raftcron import __version__, wire
from raftcron.errors import ConfigurationError, DamagedError, NewerVersionError
from raftcron.raft.device import Device, SystemDevice
from raftcron.raft.snapshot import KEPT, RESERVE_BYTES, SnapshotStore
from raftcron.raft.snapshot_file import MAX_BLOCK_BYTES, SnapshotInfo, order_of
from raftcron.testing.sim_disk import Handle
from tests.raft.snapshot_disk import (
    BLOCKS,
    DIRECTORY,
    bad_handle,
    begin,
    contents,
    names,
    new_disk,
    newer,
    open_disk,
    open_store,
    put,
    write,
)


class PowerCut(Exception):
    """The machine is gone."""


class Fused:
    """A way to a disk that ends at its n-th call that changes anything: before it, or right after it."""

    def __init__(self, handle: Handle, calls: int, *, is_after: bool = False) -> None:
        self._handle = handle
        self._is_after = is_after
        self.left = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._handle, name)
        if name not in {"create", "append", "write", "sync", "sync_directory", "truncate", "replace", "remove"}:
            return method

        def call(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self._is_after:
                raise PowerCut
            result = method(*arguments)
            if self.left == 0:
                raise PowerCut
            return result

        return call


# ---- what is written comes back ------------------------------------------------------------------------------------


def test_what_was_written_comes_back() -> None:
    """The same blocks in the same order, and all that the header tells, in this life and in the next."""
    disk = new_disk()
    store = open_store(disk)
    info = write(store, 41)
    assert (info.index, info.term, info.cluster_id, info.configuration) == (41, 3, "cluster-1", b"members")
    for each in (store, open_store(disk)):
        assert each.newest == info
        assert list(each.blocks(info)) == BLOCKS
        assert each.damage is None


def test_the_file_is_as_documented() -> None:
    """Every byte of it, made here by hand from what docs/snapshot.md says."""
    disk = new_disk()
    info = write(open_store(disk), 41)
    data = b"RAFTCRNS" + struct.pack("<I", 1)
    crc = crc32(data)
    data += struct.pack("<I", crc)
    crc = crc32(data)
    header = wire.pack([41, 3, "cluster-1", b"members", __version__])
    footer = b""
    for kind, body in [(1, header), *((2, block) for block in BLOCKS), (3, footer)]:
        rest = body
        if kind == 3:
            rest = struct.pack("<Q", len(BLOCKS)) + blake2b(data, digest_size=16).digest()
            digest = rest[8:].hex()
        crc = crc32(struct.pack("<IB", len(rest), kind) + rest, crc)
        data += struct.pack("<IIB", crc, len(rest), kind) + rest
    assert contents(disk, info) == data
    assert info.id == f"41-3-{digest}"
    assert info.size == len(data)


def test_equal_state_has_an_equal_id_on_every_node() -> None:
    """So any node that holds it can serve it; another block, order, index or membership is another snapshot."""
    ids = {write(open_store(new_disk(seed)), 41).id for seed in range(3)}
    assert len(ids) == 1
    ids.add(write(open_store(new_disk()), 42).id)
    ids.add(write(open_store(new_disk()), 41, reversed(BLOCKS)).id)
    ids.add(write(open_store(new_disk()), 41, BLOCKS[:-1]).id)
    writing = open_store(new_disk()).begin(41, 3, "cluster-1", b"other members")
    for block in BLOCKS:
        writing.add(block)
    ids.add(writing.finish().id)
    assert len(ids) == 5
    assert all(order_of(each) is not None for each in ids)


@pytest.mark.parametrize(
    "bad", ["", "41-3-", "41-3-xyz", "../41-3-" + "a" * 32, "041-3-" + "a" * 32, "0-3-" + "a" * 32]
)
def test_only_a_proper_id_can_become_a_file_name(bad: str) -> None:
    """An id comes from other nodes too."""
    assert order_of(bad) is None


def test_a_snapshot_without_blocks_is_one() -> None:
    """The state machine decides what a state needs."""
    store = open_store(new_disk())
    assert list(store.blocks(write(store, 1, []))) == []


def test_a_real_disk_takes_it_too(tmp_path: Path) -> None:
    """Larger than any buffer; files belong to this user alone, and nothing unfinished is left."""
    directory = tmp_path / "node" / "snapshots"
    store = SnapshotStore.open(directory, SystemDevice(), "n1")
    blocks = [bytes([number]) * (700_000 + number) for number in range(12)]
    info = write(store, 9, blocks)
    again = SnapshotStore.open(directory, SystemDevice(), "n1")
    assert again.newest == info
    assert list(again.blocks(info)) == blocks
    (path,) = directory.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == info.size


def test_a_block_that_is_too_large_is_refused() -> None:
    """A reader holds a whole block, and checks it in one go."""
    writing = open_store(new_disk()).begin(1, 1, "c", b"")
    writing.add(bytes(MAX_BLOCK_BYTES))
    with pytest.raises(ValueError, match="over the limit of 4194304"):
        writing.add(bytes(MAX_BLOCK_BYTES + 1))
    assert writing.finish().size > MAX_BLOCK_BYTES


def test_reading_back_is_cut_in_slices(tmp_path: Path) -> None:
    """So that a loop may take its turns between them: some megabyte a step."""
    store = SnapshotStore.open(tmp_path, SystemDevice(), "n1")
    writing = begin(store, 1, [bytes(256 << 10)] * 40)
    assert 9 <= sum(1 for _ in writing.check()) <= 11
    assert list(store.blocks(writing.finish())) == [bytes(256 << 10)] * 40


def test_a_directory_that_cannot_be_made_is_a_matter_of_settings(tmp_path: Path) -> None:
    """With the path, and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot use .*file/snapshots for snapshots"):
        SnapshotStore.open(tmp_path / "file" / "snapshots", SystemDevice(), "n1")


# ---- which are kept ------------------------------------------------------------------------------------------------


def test_the_two_newest_stay() -> None:
    """The former one may be on its way to another node; what is older goes once a newer one is durable."""
    disk = new_disk()
    store = open_store(disk)
    infos = [write(store, index, [b"%d" % index]) for index in (5, 30, 200, 1000)]
    assert store.newest == infos[-1]
    assert names(disk) == sorted(f"{info.id}.snapshot" for info in infos[-KEPT:])
    assert [store.holds(info.id) for info in infos] == [False, False, True, True]
    assert store.piece(infos[1].id, 0, 10) is None
    assert store.piece(infos[2].id, 0, 10) == contents(disk, infos[2])[:10]


def test_what_was_not_finished_is_gone_after_a_start() -> None:
    """A killed process leaves it; it never counts."""
    disk = new_disk()
    store = open_store(disk)
    info = write(store, 5)
    begin(store, 6)
    assert len(names(disk)) == 2
    assert open_store(disk).newest == info
    assert names(disk) == [f"{info.id}.snapshot"]


def test_what_a_former_attempt_left_is_gone_before_the_next() -> None:
    """A killed child must not fill the disk bit by bit."""
    disk = new_disk()
    store = open_store(disk)
    begin(store, 6)
    begin(store, 7).abandon()
    assert names(disk) == []


def test_an_abandoned_one_leaves_nothing() -> None:
    """And the newest is what it was."""
    disk = new_disk()
    store = open_store(disk)
    info = write(store, 5)
    begin(store, 6).abandon()
    assert store.newest == info
    assert names(disk) == [f"{info.id}.snapshot"]


def test_what_a_child_has_finished_is_taken_over() -> None:
    """By its id alone: the parent has written nothing and reads only the header; older ones are gone for it too."""
    disk = new_disk()
    parent = open_store(disk)
    former = [write(parent, 5), write(parent, 6)]
    info = write(open_store(disk), 7)
    assert parent.newest == former[-1]
    assert parent.adopt(info.id) == info
    assert parent.newest == info
    assert [parent.holds(each.id) for each in (*former, info)] == [False, True, True]
    with pytest.raises(OSError, match="cannot be read"):
        parent.adopt(former[0].id)


# ---- the last good one is safe -------------------------------------------------------------------------------------


def test_what_reads_back_otherwise_does_not_count() -> None:
    """A disk that lies while a snapshot is written: no snapshot, no harm."""
    disk = new_disk()
    handle = bad_handle(disk)
    store = SnapshotStore.open(DIRECTORY, handle, "n1")
    info = write(store, 5)
    handle.twisted = True
    with pytest.raises(OSError, match="read back otherwise"):
        write(store, 6)
    assert store.newest == info
    assert names(disk) == [f"{info.id}.snapshot"]


def test_a_full_disk_costs_only_the_new_snapshot() -> None:
    """At every number of bytes that are left; with room again it is written."""
    disk = new_disk()
    store = open_store(disk, reserve_bytes=0)
    info = write(store, 5)
    for free in range(info.size):
        disk.free_bytes = free
        with pytest.raises(OSError, match="no space left"):
            write(store, 6)
        assert names(disk) == [f"{info.id}.snapshot"]
        assert store.newest == info
    disk.free_bytes = None
    assert list(store.blocks(write(store, 6))) == BLOCKS


def test_a_failed_sync_costs_only_the_new_snapshot() -> None:
    """The kernel may have dropped its pages: the file goes, and the next attempt begins anew."""
    disk = new_disk()
    store = open_store(disk)
    info = write(store, 5)
    disk.failing_syncs = 1
    with pytest.raises(OSError, match="input/output"):
        write(store, 6)
    assert store.newest == info
    assert names(disk) == [f"{info.id}.snapshot"]
    disk.cut_power()
    assert list(open_store(disk).blocks(info)) == BLOCKS


def _fetch(device: Device, data: bytes, info: SnapshotInfo) -> None:
    incoming = SnapshotStore.open(DIRECTORY, device, "n1").receive(info)
    while incoming.offset < info.size:
        incoming.write(incoming.offset, data[incoming.offset : incoming.offset + 150])
    incoming.finish()


@pytest.mark.parametrize("is_fetched", [False, True], ids=["written", "fetched"])
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_a_power_cut_at_any_call_leaves_a_good_one(is_fetched: bool, is_after: bool) -> None:
    """At each call to the device while a third snapshot is made: the newest one that is found is whole, and it is one
    of the two newest; once finished, it is the new one."""
    far = new_disk()
    foreign = write(open_store(far), 7)
    data = contents(far, foreign)
    calls = found_new = 0
    is_cut = True
    while is_cut:
        calls += 1
        for seed in range(10):
            disk = new_disk(seed)
            store = open_store(disk)
            infos = [write(store, 5), write(store, 6)]
            device: Any = Fused(open_disk(disk), calls, is_after=is_after)
            try:
                if is_fetched:
                    _fetch(device, data, foreign)
                else:
                    write(SnapshotStore.open(DIRECTORY, device, "n1"), 7)
                is_cut = False
            except PowerCut:
                is_cut = True
            disk.cut_power()
            again = open_store(disk)
            assert again.damage is None
            assert again.newest in ([foreign] if not is_cut else [infos[1], foreign])
            assert again.newest is not None
            assert list(again.blocks(again.newest)) == BLOCKS
            found_new += again.newest == foreign and is_cut
            assert not [name for name in names(disk) if name.endswith(".writing")]
    assert calls > 6
    assert found_new


# ---- taking one from another node ----------------------------------------------------------------------------------


def test_a_fetched_snapshot_is_the_same_file() -> None:
    """Pieces in order, from any number of beginnings; then it is the newest, on disk too."""
    far, near = new_disk(), new_disk()
    source, store = open_store(far), open_store(near)
    write(store, 1)
    info = write(source, 7)
    incoming = store.receive(info)
    while incoming.offset < info.size:
        piece = source.piece(info.id, incoming.offset, 97)
        assert piece is not None
        incoming.write(incoming.offset, piece)
    assert source.piece(info.id, info.size, 97) is None
    assert incoming.finish() == info
    assert store.newest == open_store(near).newest == info
    assert contents(near, info) == contents(far, info)


def test_a_piece_that_does_not_follow_is_refused() -> None:
    """Nor one that goes on behind the end; the bytes that are here are not touched."""
    info = write(open_store(new_disk()), 7)
    incoming = open_store(new_disk()).receive(info)
    with pytest.raises(ValueError, match="do not follow"):
        incoming.write(1, b"RAFTCRNS")
    with pytest.raises(ValueError, match="do not follow"):
        incoming.write(0, bytes(info.size + 1))
    with pytest.raises(ValueError, match="have not come yet"):
        incoming.finish()
    assert incoming.offset == 0


def test_a_restart_resumes_what_was_fetched() -> None:
    """Up to the last whole frame; what a power cut may have made of the rest is not kept."""
    far = new_disk()
    info = write(open_store(far), 7, [b"block %03d" % number for number in range(100)])
    data = contents(far, info)
    for seed in range(20):
        near = new_disk(seed)
        store = open_store(near)
        incoming = store.receive(info)
        incoming.write(0, data[:800])
        near.cut_power()
        incoming = open_store(near).receive(info)
        assert 0 <= incoming.offset <= 800
        incoming.write(incoming.offset, data[incoming.offset : 1000])
        incoming = open_store(near).receive(info)  # a killed process loses nothing but a frame in two
        assert 980 < incoming.offset <= 1000
        incoming.write(incoming.offset, data[incoming.offset :])
        assert incoming.finish() == info


def test_a_part_of_another_snapshot_is_dropped() -> None:
    """One part at most is kept, and nothing of another id becomes part of this one."""
    far, near = new_disk(), new_disk()
    source = open_store(far)
    infos = [write(source, 7), write(source, 8)]
    open_store(near).receive(infos[0]).write(0, contents(far, infos[0])[:200])
    incoming = open_store(near).receive(infos[1])
    assert incoming.offset == 0
    assert names(near) == [f"{infos[1].id}.partial"]
    incoming.write(0, contents(far, infos[1])[:200])
    put(near, DIRECTORY / f"{infos[0].id}.partial", contents(far, infos[0])[:200])
    assert open_store(near).newest is None
    assert names(near) == [f"{infos[1].id}.partial"]


@pytest.mark.parametrize("of", [7, 8], ids=["other blocks", "other index"])
def test_a_part_whose_header_is_not_the_ids_is_dropped(of: int) -> None:
    """The name alone proves nothing; what only the whole file shows is seen at its end."""
    far, near = new_disk(), new_disk()
    source = open_store(far)
    wrong = write(source, of, [b"wrong"] * 20)
    info = write(source, 7)
    put(near, DIRECTORY / f"{info.id}.partial", contents(far, wrong)[:150])
    store = open_store(near)
    incoming = store.receive(info)
    assert (incoming.offset == 0) == (of != 7)
    incoming.write(incoming.offset, contents(far, info)[incoming.offset :])
    if of == 7:
        with pytest.raises(DamagedError, match="not the snapshot that was offered"):
            incoming.finish()
    else:
        assert incoming.finish() == info


def test_a_whole_snapshot_that_was_not_asked_for_never_counts() -> None:
    """Good in itself, and of the same size: but not the one of that id."""
    far, near = new_disk(), new_disk()
    source, store = open_store(far), open_store(near)
    other, info = write(source, 6), write(source, 7)
    assert other.size == info.size
    incoming = store.receive(info)
    incoming.write(0, contents(far, other))
    with pytest.raises(DamagedError, match=f"it is whole, but it is {other.id}"):
        incoming.finish()
    assert names(near) == []


def test_a_snapshot_of_a_newer_version_is_seen_in_its_first_piece() -> None:
    """Nobody has to send the rest."""
    near = new_disk()
    info = write(open_store(new_disk()), 7)
    incoming = open_store(near).receive(info)
    with pytest.raises(NewerVersionError, match="snapshot format version 2"):
        incoming.write(0, newer(b"RAFTCRNS"))
    assert names(near) == []


def test_a_full_disk_while_fetching_leaves_nothing() -> None:
    """The bytes are needed by others."""
    far, near = new_disk(), new_disk()
    info = write(open_store(far), 7)
    store = open_store(near, reserve_bytes=0)
    held = write(store, 1)
    incoming = store.receive(info)
    near.free_bytes = 100
    with pytest.raises(OSError, match="no space left"):
        incoming.write(0, contents(far, info))
    assert names(near) == [f"{held.id}.snapshot"]
    assert store.newest == held


@pytest.mark.parametrize("is_fetched", [False, True])
def test_the_journals_room_is_left_to_it(is_fetched: bool) -> None:
    """Written or fetched: none is begun that would leave the disk less, and nothing is lost; with room it comes."""
    far, near = new_disk(), new_disk()
    info = write(open_store(far), 7)
    store = open_store(near)
    held = write(store, 1)

    def take() -> SnapshotInfo:
        if not is_fetched:
            return write(store, 7)
        incoming = store.receive(info)
        incoming.write(0, contents(far, info))
        return incoming.finish()

    near.free_bytes = RESERVE_BYTES + (info.size if is_fetched else 0) - 1
    with pytest.raises(OSError, match="for the journal") as caught:
        take()
    assert caught.value.errno == errno.ENOSPC
    assert names(near) == [f"{held.id}.snapshot"]
    near.free_bytes += 1
    assert take() == info == store.newest


def test_a_snapshot_stops_where_the_journal_takes_its_room() -> None:
    """The disk fills up while one is fetched: it is dropped before the journal's room is touched."""
    far, near = new_disk(), new_disk()
    writing = open_store(far).begin(7, 2, "c", b"")
    for number in range(6):
        writing.add(bytes([number]) * (1 << 20))
    info = writing.finish()
    store = open_store(near)
    incoming = store.receive(info)
    near.free_bytes = RESERVE_BYTES + (2 << 20)
    data, piece = contents(far, info), 256 << 10
    with pytest.raises(OSError, match="for the journal"):
        for offset in range(0, info.size, piece):
            incoming.write(offset, data[offset : offset + piece])
    assert names(near) == []
    assert near.free_bytes > RESERVE_BYTES - (4 << 20)
