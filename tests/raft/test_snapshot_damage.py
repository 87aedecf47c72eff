"""Damaged snapshots: whatever became of its bytes, one gives its exact blocks or is refused; never a wrong state."""

from __future__ import annotations

import errno
import logging
import struct
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.errors import DamagedError, FatalError, NewerVersionError
from raftcron.raft.snapshot import SnapshotStore
from tests.raft.snapshot_disk import (
    BLOCKS,
    DIRECTORY,
    bad_handle,
    contents,
    file_of,
    names,
    new_disk,
    newer,
    open_disk,
    open_store,
    put,
    write,
)


def test_a_damaged_newest_one_is_set_aside_for_an_older_good_one(caplog: pytest.LogCaptureFixture) -> None:
    """With a warning that says what is wrong and what to do; the file stays, once, under another name."""
    disk = new_disk()
    store = open_store(disk)
    infos = [write(store, index) for index in (5, 6)]
    disk.flip(file_of(infos[1]), 120, 3)
    with caplog.at_level(logging.WARNING):
        again = open_store(disk)
    assert again.newest == infos[0]
    assert f"snapshot_damaged id={infos[1].id} offset=" in caplog.text
    for each in (again, open_store(disk)):
        assert each.damage is not None
        assert infos[1].id in each.damage
        assert "raftcron cluster replace n1 --data-dir /data" in each.damage
    assert names(disk) == sorted([f"{infos[0].id}.snapshot", f"{infos[1].id}.damaged"])
    disk.flip(file_of(infos[0]), 120, 3)
    assert open_store(disk).newest is None
    assert names(disk) == [f"{infos[0].id}.damaged"]


def test_damage_after_the_start_names_file_offset_and_what_to_do() -> None:
    """Whoever restores from it must not go on."""
    disk = new_disk()
    store = open_store(disk)
    info = write(store, 5, [bytes(1000), b"x" * 1000, bytes(1000)])
    place = contents(disk, info).index(b"xx")
    disk.flip(file_of(info), place, 0)
    blocks = store.blocks(info)
    assert next(blocks) == bytes(1000)
    with pytest.raises(DamagedError) as caught:
        next(blocks)
    assert str(file_of(info)) in str(caught.value)
    assert f"offset {place - 9} " in str(caught.value)
    assert "raftcron cluster replace n1 --data-dir /data" in str(caught.value)


def test_a_lost_file_is_damage() -> None:
    """Somebody removed it under a running node."""
    disk = new_disk()
    store = open_store(disk)
    info = write(store, 5)
    open_disk(disk).remove(file_of(info))
    with pytest.raises(DamagedError, match="cannot be read"):
        list(store.blocks(info))
    assert store.piece(info.id, 0, 10) is None


def test_every_flipped_bit_is_seen() -> None:
    """At every offset of a small file, while it is read and at a start."""
    disk = new_disk()
    store = open_store(disk)
    older, info = write(store, 4), write(store, 5)
    good = contents(disk, info)
    for offset in range(len(good)):
        for bit in range(8):
            disk.flip(file_of(info), offset, bit)
            with pytest.raises(DamagedError):
                list(store.blocks(info))
            disk.flip(file_of(info), offset, bit)
        put(disk, file_of(info), good[:offset] + bytes([good[offset] ^ 0x55]) + good[offset + 1 :])
        assert open_store(disk).newest == older
        put(disk, file_of(info), good)
    assert list(store.blocks(info)) == BLOCKS


Fire = Callable[[bytes, bytes], bytes]

_places = st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(1, 120))


@st.composite
def _fires(draw: st.DrawFn) -> Fire:
    """Something that befalls a file; the second argument is another good file of the same directory."""
    one, other, length = draw(_places)
    noise = draw(st.binary(min_size=1, max_size=20))
    kinds: list[Fire] = [
        lambda data, _: data[:one],
        lambda data, _: data[:one] + noise + data[one + len(noise) :],
        lambda data, _: data[:one] + noise + data[one:],
        lambda data, _: data[:one] + data[one + length :],
        lambda data, _: data[:one] + bytes(length) + data[one + length :],
        lambda data, _: data[:one] + data[one : one + length] + data[one:],
        lambda data, _: data[:one] + data[other : other + length] + data[one + length :],
        lambda data, foreign: data[:one] + foreign[one : one + length] + data[one + length :],
        lambda data, foreign: data[:one] + foreign[one:],
        lambda data, _: data + noise,
    ]
    return draw(st.sampled_from(kinds))


class Held:
    """A directory with two good snapshots, of which the newer one's file becomes something else."""

    def __init__(self) -> None:
        self.disk = new_disk()
        self.store = open_store(self.disk)
        self.older = write(self.store, 4, [b"first block", b"other", b"second block" * 9, b"first block"])
        self.info = write(self.store, 5)
        self.good = contents(self.disk, self.info)

    def judge(self, data: bytes) -> None:
        """With these bytes it gives its exact blocks, or is refused and the older one takes its place."""
        put(self.disk, file_of(self.info), data)
        blocks: list[bytes] = []
        try:
            blocks.extend(self.store.blocks(self.info))
        except DamagedError:
            assert data != self.good
            assert blocks == BLOCKS[: len(blocks)]  # not one that is wrong, even before the end
        else:
            assert data == self.good
        assert open_store(self.disk).newest == (self.info if data == self.good else self.older)


# A byte, the frame of an empty block, those of the others.
LENGTHS = (1, *sorted({9 + len(block) for block in BLOCKS}))


def at_every_offset(data: bytes) -> Iterator[bytes]:
    """Cut there; a stretch of so many bytes doubled there, or exchanged with the one behind it."""
    for offset in range(len(data)):
        yield data[:offset]
        for length in LENGTHS:
            stretch, rest = data[offset : offset + length], data[offset + length :]
            if len(stretch) == length:
                yield data[:offset] + stretch + stretch + rest
            if len(rest) >= length:
                yield data[:offset] + rest[:length] + stretch + rest[length:]


def test_cut_doubled_and_exchanged_at_every_offset() -> None:
    """A small file, with each length of a frame: its exact blocks or nothing, and the older one after a start."""
    held = Held()
    tried = 0
    for data in at_every_offset(held.good):
        held.judge(data)
        tried += data != held.good
    assert tried > 7 * len(held.good)


def test_what_comes_cut_doubled_or_exchanged_at_any_offset_never_counts() -> None:
    """Fetched from another node: nothing of it stays, and the former snapshot is the newest still."""
    far, near = new_disk(), new_disk()
    store = open_store(near)
    held, info = write(store, 1), write(open_store(far), 7)
    good = contents(far, info)
    for data in at_every_offset(good):
        if data[: info.size] == good:
            continue  # the last bytes doubled: what is behind the end is not asked for
        incoming = store.receive(info)
        with pytest.raises((DamagedError, ValueError), match=r"not the snapshot that was offered|have not come"):
            incoming.write(0, data[: info.size])
            incoming.finish()
        incoming.abandon()
        assert store.newest == held
        assert names(near) == [f"{held.id}.snapshot"]


@settings(max_examples=400, deadline=None)
@given(st.lists(_fires(), min_size=1, max_size=3))
def test_under_fire_a_file_gives_its_exact_blocks_or_nothing(fires: list[Fire]) -> None:
    """Cut, overwritten, doubled, moved, zeroed, mixed with another snapshot: never a wrong state."""
    held = Held()
    data, other = held.good, contents(held.disk, held.older)
    for fire in fires:
        data = fire(data, other)
    held.judge(data)


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 4))
def test_whole_frames_in_another_order_are_seen(order: list[int], doubled: int) -> None:
    """Each of them carries a right checksum; of its place, too."""
    disk = new_disk()
    store = open_store(disk)
    blocks = [b"block %d" % number for number in range(5)]
    info = write(store, 5, blocks)
    data = contents(disk, info)
    begin_at = data.index(b"block 0") - 9
    size = 9 + len(b"block 0")
    frames = [data[begin_at + at * size : begin_at + (at + 1) * size] for at in range(5)]
    tail = data[begin_at + 5 * size :]
    put(disk, file_of(info), data[:begin_at] + b"".join(frames[at] for at in order) + tail)
    if order != sorted(order):
        with pytest.raises(DamagedError):
            list(store.blocks(info))
    put(disk, file_of(info), data[:begin_at] + b"".join([*frames[:doubled], *frames[doubled - 1 :]]) + tail)
    if doubled:
        with pytest.raises(DamagedError):
            list(store.blocks(info))


def test_a_good_file_under_another_name_is_refused() -> None:
    """The name is the id, and others ask for it by that."""
    disk = new_disk()
    store = open_store(disk)
    info = write(store, 5)
    data = contents(disk, info)
    renamed = info._replace(id="6-3-" + info.id[-32:], index=6)
    put(disk, file_of(renamed), data)
    again = open_store(disk)
    assert again.newest == info
    assert "under another name" in (again.damage or "")


def test_another_state_under_the_same_name_is_refused() -> None:
    """Good in itself, of the same index and membership, and put there after the start."""
    disk = new_disk()
    store = open_store(disk)
    info = write(store, 5)
    far = new_disk()
    other = write(open_store(far), 5, reversed(BLOCKS))
    put(disk, file_of(info), contents(far, other))
    with pytest.raises(DamagedError, match=f"it is snapshot {other.id} under another name"):
        list(store.blocks(info))


@pytest.mark.parametrize("wrong", [{"count": 1}, {"count": -1}, {"digest": bytes(16)}])
def test_a_footer_that_tells_of_another_file_is_damage(wrong: dict[str, Any]) -> None:
    """Though every checksum is right."""
    disk = new_disk()
    store = open_store(disk)
    info = write(store, 5)
    data = contents(disk, info)[:-33]
    (crc,) = struct.unpack("<I", data[-9 - len(BLOCKS[-1]) :][:4])
    digest = wrong.get("digest", bytes.fromhex(info.id[-32:]))
    rest = struct.pack("<IBQ", 24, 3, len(BLOCKS) + wrong.get("count", 0)) + digest
    put(disk, file_of(info), data + struct.pack("<I", crc32(rest, crc)) + rest)
    with pytest.raises(DamagedError, match="the footer tells of other blocks"):
        list(store.blocks(info))


def test_a_newer_version_is_refused_by_name() -> None:
    """It is not damage, and nothing older takes its place: the state behind it would be lost to this node."""
    disk = new_disk()
    store = open_store(disk)
    write(store, 4)
    info = write(store, 5)
    put(disk, file_of(info), newer(contents(disk, info)))
    with pytest.raises(NewerVersionError, match=r"snapshot format version 2; this release knows version 1"):
        open_store(disk)
    assert f"{info.id}.snapshot" in names(disk)


def test_a_sector_that_cannot_be_read_is_damage() -> None:
    """The older one is used, as with wrong bytes; what says nothing about the bytes ends the start instead."""
    disk = new_disk()
    store = open_store(disk)
    info = write(store, 5)
    handle = bad_handle(disk)
    handle.fault = OSError(errno.EMFILE, "too many open files")
    with pytest.raises(FatalError, match=r"cannot read the snapshots in /data/snapshots.*too many open files"):
        SnapshotStore.open(DIRECTORY, handle, "n1")
    assert open_store(disk).newest == info
    handle.fault = OSError(errno.EIO, "input/output error")
    assert SnapshotStore.open(DIRECTORY, handle, "n1").newest is None
    assert names(disk) == [f"{info.id}.damaged"]


@settings(max_examples=200, deadline=None)
@given(_fires())
def test_what_is_not_what_was_offered_never_counts(fire: Fire) -> None:
    """The file is gone, the error says what is wrong, and the former snapshot is the newest still."""
    far, near = new_disk(), new_disk()
    source, store = open_store(far), open_store(near)
    held = write(store, 1)
    other, info = write(source, 6, [b"another state"] * 9), write(source, 7)
    good = contents(far, info)
    data = fire(good, contents(far, other))[: info.size]
    if data == good:
        return
    incoming = store.receive(info)
    with pytest.raises((DamagedError, ValueError), match=r"not the snapshot that was offered|have not come"):
        incoming.write(0, data)
        incoming.finish()
    incoming.abandon()
    assert store.newest == held
    assert names(near) == [f"{held.id}.snapshot"]
