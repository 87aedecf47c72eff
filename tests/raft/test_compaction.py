"""When a snapshot is due, and what becomes of one that is fetched while another is written."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftcron.clock import Clock, SystemClock
from raftcron.errors import DamagedError
from raftcron.ports import Restoring
from raftcron.raft.compaction import Compaction
from raftcron.raft.device import SystemDevice
from raftcron.raft.journal import Identity
from raftcron.raft.scribe import Blocks, SlicedScribe
from raftcron.raft.settings import CompactionSettings
from raftcron.raft.snapshot import SnapshotInfo, SnapshotStore
from tests.raft.engine_cluster import Memory, until
from tests.raft.transport_world import HandClock

SETTINGS = CompactionSettings(bytes=1_000, entries=10, kept_entries=0)


class Progress:
    """An engine, and its journal, that are told where they are."""

    is_leader = False
    identity = Identity("n1", "d1", "c1", 1)

    def __init__(self) -> None:
        self.applied_index = 0
        self.first_index = 1
        self.matched: dict[str, int] = {}  # of connected peers

    def match_index(self, peer: str) -> int:
        return self.matched[peer]

    def term_of(self, index: int) -> int:
        return 1

    def holds(self, index: int, term: int) -> bool:
        return index <= self.applied_index

    def is_waited_for(self, peer: str) -> bool:
        return False

    def bytes_between(self, first: int, last: int) -> int:
        return (last - first) * 100

    def align(self, index: int, term: int) -> None:
        raise AssertionError("a start is not part of this")

    def compact(self, through: int) -> None:
        self.first_index = through


class HeldScribe(SlicedScribe):
    """Writes when it is let."""

    fault: OSError | None = None  # of the disk

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    async def write(
        self, store: SnapshotStore, index: int, term: int, cluster_id: str, configuration: bytes, blocks: Blocks
    ) -> SnapshotInfo:
        image = list(blocks())
        await self.may.wait()
        if self.fault is not None:
            raise self.fault
        return await super().write(store, index, term, cluster_id, configuration, lambda: iter(image))


class Stage:
    """One node's compaction, on a real disk."""

    def __init__(self, directory: Path, settings: CompactionSettings = SETTINGS, clock: Clock | None = None) -> None:
        self.progress = Progress()
        self.machine = Memory()
        self.store = SnapshotStore.open(directory, SystemDevice(), "n1")
        self.scribe = HeldScribe()
        self.ends: list[Exception] = []  # of the process
        self.compaction = Compaction(
            settings,
            self.store,
            self.scribe,
            self.progress,
            self.progress,
            self.machine,
            cluster_id=lambda: "c1",
            configuration=lambda index: b"",
            peers=lambda: list(self.progress.matched),
            send=lambda peer, kind, message: False,
            connected=lambda peer: True,
            install=self.install,
            run=self.run,
            loop=asyncio.get_running_loop(),
            clock=clock or SystemClock(),
        )

    def install(self, info: SnapshotInfo, restoring: Restoring) -> None:
        restoring.install()
        self.progress.applied_index = self.progress.first_index = info.index

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception as error:
            self.ends.append(error)

    def apply(self, count: int) -> None:
        for _ in range(count):
            self.progress.applied_index += 1
            self.compaction.applied(100)

    async def fetched(self, index: int) -> SnapshotInfo:
        """A snapshot of another node has come whole."""
        return await SlicedScribe().write(self.store, index, 1, "c1", b"", self.machine.snapshot)

    def count(self, what: str) -> Callable[[], int]:
        return lambda: self.compaction.counts[what]


@pytest.mark.parametrize(
    ("last", "entries", "size", "is_due"),
    [
        (None, 10, 1_000, True),
        (None, 10, 999, False),
        (None, 9, 3_999, False),
        (None, 9, 4_000, True),
        (900, 10, 1_000, True),
        (3_000, 10, 2_999, False),
        (3_000, 10, 3_000, True),
        (3_000, 9, 11_999, False),
        (3_000, 9, 12_000, True),
    ],
)
async def test_a_snapshot_is_due_after_as_much_as_the_last_one_and_many_entries(
    tmp_path: Path, last: int | None, entries: int, size: int, is_due: bool
) -> None:
    """As many bytes as the last one has, or the settings say if that is more; four times as many will do alone."""
    stage = Stage(tmp_path)
    newest = (
        None
        if last is None
        else SnapshotInfo(id="5-1-" + "0" * 32, index=5, term=1, size=last, configuration=b"", cluster_id="c1")
    )
    stage.compaction._store = SimpleNamespace(newest=newest)  # type: ignore[assignment]  # no more of it is looked at
    for each in (size, *[0] * (entries - 1)):
        stage.compaction.applied(each)
    assert stage.compaction._is_due() is is_due


def test_by_default_a_snapshot_is_due_after_64_mebibytes_and_50_000_entries() -> None:
    """10,000 entries are kept behind it."""
    assert CompactionSettings() == CompactionSettings(bytes=64 * 2**20, entries=50_000, kept_entries=10_000)


async def test_a_snapshot_that_is_installed_while_another_is_written_puts_off_none(tmp_path: Path) -> None:
    """What is due is counted from the newer of the two on."""
    stage = Stage(tmp_path)
    stage.apply(1_000)
    stage.compaction.beat()
    await asyncio.sleep(0)  # it is being written
    stage.compaction._fetched(await stage.fetched(5_000))
    await until(stage.count("installed"))
    stage.scribe.may.set()
    await until(stage.count("written"))
    assert stage.store.newest is not None
    assert stage.store.newest.index == stage.progress.applied_index == 5_000
    stage.apply(20)
    stage.compaction.beat()
    await until(lambda: stage.count("written")() == 2)
    assert stage.store.newest.index == 5_020
    assert stage.ends == []


async def test_a_fetched_snapshot_that_the_disk_does_not_give_back_ends_the_node_and_says_so(tmp_path: Path) -> None:
    """It is no defect of the program; the state and the log have not changed."""
    stage = Stage(tmp_path)
    info = await stage.fetched(50)
    (tmp_path / f"{info.id}.snapshot").unlink()
    stage.compaction._fetched(info)
    await until(lambda: stage.ends)
    with pytest.raises(DamagedError, match=r"fetched whole cannot be installed: .*raftcron cluster replace n1"):
        raise stage.ends[0]
    assert stage.progress.applied_index == 0


@pytest.mark.parametrize(("matched", "first"), [(985, 985), (900, 975), (0, 990)])
async def test_a_leader_keeps_what_a_living_follower_still_takes(tmp_path: Path, matched: int, first: int) -> None:
    """As far as the bounds in bytes allow; of one that holds nothing known nothing is kept."""
    stage = Stage(tmp_path, CompactionSettings(bytes=4_000, entries=10, kept_entries=10))
    stage.progress.is_leader = True
    stage.progress.matched = {"n2": matched}
    stage.apply(1_000)
    stage.scribe.may.set()
    stage.compaction.beat()
    await until(stage.count("written"))
    assert stage.progress.first_index == first


async def test_a_disk_that_takes_no_snapshot_for_days_does_not_end_the_node(tmp_path: Path) -> None:
    """Each of more than a thousand failures in a row only puts off the next try, by five minutes in the end."""
    clock = HandClock()
    stage = Stage(tmp_path, clock=clock)
    stage.scribe.fault = OSError(errno.ENOSPC, "No space left on device")
    stage.scribe.may.set()
    stage.apply(1_000)
    for failures in range(1, 1_101):
        stage.compaction.beat()
        await until(lambda failures=failures: stage.ends or stage.count("failed")() == failures)
        assert stage.ends == []
        pause = stage.compaction._retry_at - clock.monotonic()
        assert pause == min(5.0 * 2 ** min(failures - 1, 9), 300.0)
        clock.seconds += pause
    stage.scribe.fault = None
    stage.compaction.beat()
    await until(stage.count("written"))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_a_snapshot_that_has_rotted_is_found_out_when_a_peer_was_given_it(tmp_path: Path) -> None:
    """It is set aside and another one written at once, or nobody could be helped, and this node not start again."""
    stage = Stage(tmp_path)
    stage.scribe.may.set()
    stage.apply(1_000)
    stage.compaction.beat()
    await until(stage.count("written"))
    rotten = stage.store.newest
    assert rotten is not None
    flip_a_byte(tmp_path / f"{rotten.id}.snapshot")
    stage.compaction.kinds["doubt"]("n2", {"id": rotten.id})
    await until(stage.count("found damaged"))
    assert stage.store.newest is None
    assert stage.compaction.offer("n2") is None
    stage.compaction.beat()
    await until(lambda: stage.count("written")() == 2)
    assert stage.store.newest == rotten  # of the same state
    assert list(stage.store.blocks(rotten))
    assert (tmp_path / f"{rotten.id}.damaged").exists()
    assert stage.ends == []


async def test_a_doubt_about_a_good_snapshot_changes_nothing(tmp_path: Path) -> None:
    """However often a peer says so it is looked at once a minute."""
    stage = Stage(tmp_path)
    stage.scribe.may.set()
    stage.apply(1_000)
    stage.compaction.beat()
    await until(stage.count("written"))
    good = stage.store.newest
    assert good is not None
    for _ in range(3):
        stage.compaction.kinds["doubt"]("n2", {"id": good.id})
    looking = stage.compaction._looking
    assert looking is not None
    await looking
    assert stage.store.newest == good
    flip_a_byte(tmp_path / f"{good.id}.snapshot")
    stage.compaction.kinds["doubt"]("n2", {"id": good.id})
    assert stage.compaction._looking is None
