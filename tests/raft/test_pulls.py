"""Fetching a snapshot: it comes whole whatever breaks meanwhile, a wrong one never counts, and nobody is flooded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from raftcron import wire
from raftcron.raft.guard import BadMessageError
from raftcron.raft.pulls import (
    MAX_SNAPSHOT_BYTES,
    PATIENCE_SECONDS,
    PIECE_BYTES,
    RETRY_SECONDS,
    STALLED_SECONDS,
    WINDOW,
    Pulls,
)
from raftcron.raft.snapshot import SnapshotStore
from raftcron.raft.snapshot_file import SnapshotInfo
from raftcron.testing.chance import Chance, chance
from raftcron.testing.sim_disk import Disk
from raftcron.testing.virtual_time import VirtualClock, VirtualLoop, run_virtual

DIRECTORY = Path("/data/snapshots")
NAMES = ["n1", "n2", "n3"]
BEAT = 0.05
DELAY = 0.002
PIECES = 9


class Node:
    """One node: its disk, and the store and pulls of its present life."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.disk = Disk(chance(world.seed, name))
        self.received: list[SnapshotInfo] = []
        self.doubted: list[str] = []
        self._world = world
        self.begin()

    def begin(self) -> None:
        """A life of its process."""
        world, name = self._world, self.name
        self.store = SnapshotStore.open(DIRECTORY, self.disk.open(lambda _seconds: None), name)
        self.pulls = Pulls(
            self.store,
            peers=lambda: [peer for peer in NAMES if peer != name],
            send=lambda peer, kind, message: world.send(name, peer, kind, message),
            connected=lambda peer: world.is_connected(name, peer),
            clock=world.clock,
            received=self.received.append,
            doubted=self.doubted.append,
            loop=world.loop,
        )

    def write(self, index: int, pieces: int = PIECES) -> SnapshotInfo:
        """A snapshot of a little more than so many pieces, the same on every node."""
        writing = self.store.begin(index, 2, "cluster-1", b"members")
        for number in range(pieces):
            writing.add(number.to_bytes(2) + bytes([index % 251]) * (PIECE_BYTES - 2))
        return writing.finish()

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.disk.files)


class World:
    """Three nodes on virtual time; messages travel in order on a connection, or break with it."""

    def __init__(self, loop: VirtualLoop, seed: int = 0) -> None:
        self.loop = loop
        self.seed = seed
        self.clock = VirtualClock(loop)
        self.chance: Chance = chance(seed, "network")
        self.loss = 0.0  # share of messages that a full backlog costs
        self.cut: set[frozenset[str]] = set()  # there is no connection
        self.full: set[str] = set()  # these cannot send now: too much waits to leave
        self.mute: set[str] = set()  # what these say is lost, and nobody notices: stopped, or behind a dead link
        self.breaks: Counter[frozenset[str]] = Counter()  # connections of a pair that have ended
        self.sent: list[tuple[float, str, str, str, Any]] = []  # (when, from, to, kind, message)
        self.bad: list[BadMessageError] = []
        self.twist: Callable[[str, str, Any], Any] = lambda _source, _kind, message: message
        self._free_at: Counter[tuple[str, str]] = Counter()
        self.nodes = {name: Node(name, self) for name in NAMES}
        self.leader: str | None = "n1"
        self.offer: SnapshotInfo | None = None  # what the leader offers to n3

    def is_connected(self, one: str, other: str) -> bool:
        return frozenset((one, other)) not in self.cut

    def send(self, source: str, target: str, kind: str, message: Any) -> bool:
        if source in self.full or not self.is_connected(source, target):
            return False
        self.sent.append((self.loop.time(), source, target, kind, message))
        if source in self.mute or target in self.mute or self.chance.random() < self.loss:
            return True
        data = wire.pack([kind, self.twist(source, kind, message)])
        arrival = max(self._free_at[source, target], self.loop.time()) + DELAY
        self._free_at[source, target] = arrival
        self.loop.call_at(arrival, self._arrive, source, target, self.breaks[frozenset((source, target))], data)
        return True

    def _arrive(self, source: str, target: str, breaks: int, data: bytes) -> None:
        if breaks == self.breaks[frozenset((source, target))]:
            kind, message = wire.unpack(data)
            self.give(source, target, kind, message)

    def give(self, source: str, target: str, kind: str, message: Any) -> None:
        try:
            self.nodes[target].pulls.kinds[kind](source, message)
        except BadMessageError as error:
            self.bad.append(error)

    def sever(self, one: str, other: str) -> None:
        """The connection ends, with all that is on its way."""
        self.breaks[frozenset((one, other))] += 1
        self.nodes[one].pulls.disconnected(other)
        self.nodes[other].pulls.disconnected(one)

    def part(self, one: str, other: str) -> None:
        """It ends, and no other takes its place until `join`."""
        self.cut.add(frozenset((one, other)))
        self.sever(one, other)

    def join(self, one: str, other: str) -> None:
        self.cut.discard(frozenset((one, other)))

    def restart(self, name: str) -> None:
        for other in NAMES:
            if other != name:
                self.sever(name, other)
        self.nodes[name].begin()

    async def beat(self) -> None:
        """One heartbeat: the leader offers, everybody asks again."""
        if self.offer is not None and self.leader is not None and self.is_connected(self.leader, "n3"):
            self.nodes["n3"].pulls.offered(self.leader, self.offer)
        for node in self.nodes.values():
            node.pulls.repeat()
        await asyncio.sleep(BEAT)

    async def until(self, condition: Callable[[], Any], seconds: float = 120.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await self.beat()

    async def until_offset(self, least: int) -> None:
        """In steps of a message, not of a heartbeat."""
        async with asyncio.timeout(60.0):
            while (self.nodes["n3"].pulls.progress or ("", 0, 0))[1] < least:
                await asyncio.sleep(DELAY)

    def bytes_from(self, name: str) -> int:
        pieces = [message["data"] for _, source, _, kind, message in self.sent if source == name and kind == "piece"]
        return sum(len(data) for data in pieces if data is not None)

    def came(self, info: SnapshotInfo) -> bool:
        """Whether n3 has the snapshot, and nothing else of it."""
        node = self.nodes["n3"]
        if node.received[-1:] != [info]:
            return False
        assert node.store.newest == info
        assert not [name for name in node.files if name.endswith(".partial")]
        path = DIRECTORY / f"{info.id}.snapshot"
        holders = [other.disk.files[path].data for other in self.nodes.values() if path in other.disk.files]
        assert all(data == node.disk.files[path].data for data in holders)
        return True


Story = Callable[[World], Coroutine[Any, Any, None]]


def play(story: Story, seed: int = 0) -> World:
    """A story on virtual time."""
    loop = VirtualLoop()
    defects: list[Any] = []
    loop.set_exception_handler(lambda _loop, context: defects.append(context.get("exception")))
    world = World(loop, seed)
    run_virtual(story(world), loop)
    assert defects == []
    return world


def test_a_snapshot_comes_whole() -> None:
    """Each piece is asked for once, however often it is offered; it is announced once, and is the newest."""

    async def story(world: World) -> None:
        info = world.offer = world.nodes["n1"].write(70)
        await world.until(lambda: world.came(info))
        for _ in range(20):
            await world.beat()
        asked = [message["offset"] for _, _, _, kind, message in world.sent if kind == "pull"]
        assert asked == list(range(0, info.size, PIECE_BYTES))
        assert world.bytes_from("n1") == info.size
        assert world.nodes["n3"].received == [info]
        assert world.nodes["n3"].pulls.progress is None

    play(story)


def test_at_most_a_megabyte_is_outstanding() -> None:
    """So a heartbeat waits behind no more; and the window is used, so a round trip costs little."""

    async def story(world: World) -> None:
        info = world.offer = world.nodes["n1"].write(70, 40)
        await world.until(lambda: world.came(info))
        out, most = 0, 0
        for _, _, _, kind, message in world.sent:
            out += message["count"] if kind == "pull" else 0
            most = max(most, out)
            out -= len(message["data"]) if kind == "piece" else 0
        assert most == WINDOW * PIECE_BYTES == 1 << 20
        times = [when for when, _, _, kind, _ in world.sent if kind == "piece"]
        assert len(times) == 41
        assert times[-1] - times[0] < 41 * DELAY * 1.5

    play(story)


def test_progress_tells_how_far_it_is() -> None:
    """Id, bytes here, bytes in all."""

    async def story(world: World) -> None:
        info = world.offer = world.nodes["n1"].write(70)
        assert world.nodes["n3"].pulls.progress is None
        await world.beat()
        world.mute.add("n1")
        await world.beat()
        progress = world.nodes["n3"].pulls.progress
        assert progress is None or progress[0::2] == (info.id, info.size)
        world.mute.clear()
        await world.until(lambda: world.came(info))

    play(story)


def test_lost_messages_cost_time_only() -> None:
    """Whatever is lost is asked for again."""

    async def story(world: World) -> None:
        world.loss = 0.2
        info = world.offer = world.nodes["n1"].write(70)
        await world.until(lambda: world.came(info))

    for seed in range(5):
        world = play(story, seed)
        assert len([1 for _, _, _, kind, _ in world.sent if kind == "pull"]) > PIECES + 1  # some were


def test_a_broken_connection_keeps_what_has_come() -> None:
    """Nothing is fetched twice but what was on its way."""

    async def story(world: World) -> None:
        info = world.offer = world.nodes["n1"].write(70)
        for number in (2, 4, 6):
            world.nodes["n3"].pulls.offered("n1", info)
            await world.until_offset(number * PIECE_BYTES)
            world.part("n1", "n3")
            await world.beat()
            world.join("n1", "n3")
            world.nodes["n3"].pulls.repeat()
        await world.until(lambda: world.came(info))
        assert world.bytes_from("n1") <= info.size + 3 * WINDOW * PIECE_BYTES

    play(story)


def test_a_connection_that_is_replaced_costs_no_patience() -> None:
    """What was asked for on the former one is asked for again at once."""

    async def story(world: World) -> None:
        info = world.offer = world.nodes["n1"].write(70)
        world.nodes["n3"].pulls.offered("n1", info)
        await world.until_offset(2 * PIECE_BYTES)
        began = world.loop.time()
        world.sever("n1", "n3")
        await world.until(lambda: world.came(info))
        assert world.loop.time() - began < PATIENCE_SECONDS

    play(story)


def test_another_holder_takes_over_from_a_dead_one() -> None:
    """With the leader's change, too: from the offset that was reached, at once."""

    async def story(world: World) -> None:
        info = world.offer = world.nodes["n1"].write(70)
        assert world.nodes["n2"].write(70) == info
        world.nodes["n3"].pulls.offered("n1", info)
        await world.until_offset(5 * PIECE_BYTES)
        began = world.loop.time()
        world.leader = "n2"
        world.part("n1", "n3")
        await world.until(lambda: world.came(info))
        assert world.loop.time() - began < PATIENCE_SECONDS
        assert world.bytes_from("n2") <= info.size - 5 * PIECE_BYTES

    play(story)


def test_another_holder_takes_over_from_a_silent_one() -> None:
    """A stopped process keeps its connections; it is asked no more than one may be patient."""

    async def story(world: World) -> None:
        info = world.offer = world.nodes["n1"].write(70)
        world.nodes["n2"].write(70)
        world.nodes["n3"].pulls.offered("n1", info)
        await world.until_offset(5 * PIECE_BYTES)
        world.mute.add("n1")
        began = world.loop.time()
        await world.until(lambda: world.came(info))
        assert PATIENCE_SECONDS <= world.loop.time() - began < PATIENCE_SECONDS + 1
        assert world.bytes_from("n2") <= info.size - 5 * PIECE_BYTES

    play(story)


def test_a_silent_one_is_asked_again_if_nobody_else_has_it() -> None:
    """It may only have been stopped for a while."""

    async def story(world: World) -> None:
        info = world.offer = world.nodes["n1"].write(70)
        world.mute.add("n1")
        for _ in range(int(3 * PATIENCE_SECONDS / BEAT)):
            await world.beat()
        world.mute.clear()
        await world.until(lambda: world.came(info), 3 * PATIENCE_SECONDS)

    play(story)


def test_who_does_not_hold_it_says_so_and_another_is_asked() -> None:
    """At once, not after a time-out."""

    async def story(world: World) -> None:
        info = world.nodes["n2"].write(70)
        world.nodes["n3"].pulls.offered("n1", info)
        began = world.loop.time()
        await world.until(lambda: world.came(info))
        assert world.loop.time() - began < PATIENCE_SECONDS
        refusals = [who for _, who, _, kind, message in world.sent if kind == "piece" and message["data"] is None]
        assert set(refusals) == {"n1"}

    play(story)


def test_a_newer_offer_does_not_disturb_one_that_comes() -> None:
    """Else a busy leader's laggard would begin anew for ever."""

    async def story(world: World) -> None:
        info = world.nodes["n1"].write(70)
        world.nodes["n3"].pulls.offered("n1", info)
        await world.until_offset(PIECE_BYTES)
        newer = world.offer = world.nodes["n1"].write(80)
        await world.until(lambda: world.came(info))
        await world.until(lambda: world.came(newer))
        assert world.nodes["n3"].received == [info, newer]
        assert world.bytes_from("n1") == info.size + newer.size

    play(story)


def test_another_offer_replaces_one_that_nobody_holds() -> None:
    """Also one of a lower index, from a new leader that has nothing newer; what came of the former goes."""

    async def story(world: World) -> None:
        lost = world.nodes["n1"].write(70)
        world.nodes["n3"].pulls.offered("n1", lost)
        await world.until_offset(3 * PIECE_BYTES)
        world.part("n1", "n3")
        world.leader = "n2"
        info = world.offer = world.nodes["n2"].write(60)
        began = world.loop.time()
        await world.until(lambda: world.came(info))
        assert world.loop.time() - began < PATIENCE_SECONDS
        assert world.nodes["n3"].files == [f"{info.id}.snapshot"]

    play(story)


def test_another_offer_replaces_one_that_does_not_come() -> None:
    """Whoever holds it is there, but silent for long."""

    async def story(world: World) -> None:
        stuck = world.nodes["n1"].write(70)
        world.nodes["n3"].pulls.offered("n1", stuck)
        await world.until_offset(3 * PIECE_BYTES)
        world.mute.add("n1")
        world.loss = 0.0
        world.leader = "n2"
        info = world.offer = world.nodes["n2"].write(60)
        world.twist = lambda source, kind, message: (
            {} if source == "n2" and kind == "piece" and message["id"] == stuck.id else message
        )  # not even a refusal of it can be read
        began = world.loop.time()
        await world.until(lambda: world.came(info))
        assert STALLED_SECONDS <= world.loop.time() - began + 1 < STALLED_SECONDS + 2

    play(story)


def test_a_restart_in_the_middle_goes_on_where_it_was() -> None:
    """A killed process loses at most a frame, a power cut what was not synced."""

    async def story(world: World) -> None:
        node = world.nodes["n3"]
        info = world.offer = world.nodes["n1"].write(70, 30)
        node.pulls.offered("n1", info)
        await world.until_offset(20 * PIECE_BYTES)
        world.restart("n3")
        node.pulls.offered("n1", info)
        assert node.pulls.progress is not None
        assert node.pulls.progress[1] >= 19 * PIECE_BYTES
        await world.until_offset(25 * PIECE_BYTES)
        node.pulls.stop()
        node.disk.cut_power()
        world.restart("n3")
        await world.until(lambda: world.came(info))
        assert world.bytes_from("n1") < info.size + 16 * PIECE_BYTES

    play(story)


def test_an_own_snapshot_that_goes_as_far_ends_a_pull() -> None:
    """The log came after all; nothing of the pull is left."""

    async def story(world: World) -> None:
        node = world.nodes["n3"]
        info = world.nodes["n1"].write(70)
        node.pulls.offered("n1", info)
        await world.until_offset(PIECE_BYTES)
        own = node.write(75)
        await world.beat()
        assert node.pulls.progress is None
        assert node.files == [f"{own.id}.snapshot"]
        node.pulls.offered("n1", info)
        assert node.pulls.progress is None
        assert node.received == []

    play(story)


def test_it_is_read_back_in_slices() -> None:
    """The loop has its turns while the whole file is checked."""

    async def story(world: World) -> None:
        info = world.nodes["n1"].write(70, 40)
        node = world.nodes["n3"]
        node.pulls.offered("n1", info)
        await world.until_offset(info.size)
        turns = 0
        while not node.received:
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 9

    play(story)


# ---- wrong and hostile peers ---------------------------------------------------------------------------------------


def _info(**changes: Any) -> SnapshotInfo:
    info = SnapshotInfo("70-2-" + "a" * 32, 70, 2, 1 << 20, b"members", "cluster-1")
    return info._replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "70-2-../../../etc/passwd"},
        {"id": "70-2-" + "A" * 32},
        {"id": "71-2-" + "a" * 32},
        {"term": 3},
        {"size": 10},
        {"size": MAX_SNAPSHOT_BYTES + 1},
    ],
)
def test_an_impossible_offer_is_refused(changes: dict[str, Any]) -> None:
    """Before anything is written or asked."""

    async def story(world: World) -> None:
        with pytest.raises(BadMessageError, match=r"id:|size:"):
            world.nodes["n3"].pulls.offered("n1", _info(**changes))
        assert world.nodes["n3"].files == []
        assert world.sent == []

    play(story)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pull", None),
        ("pull", []),
        ("pull", {}),
        ("pull", {"id": 5, "offset": 0, "count": 1}),
        ("pull", {"id": "x" * 300, "offset": 0, "count": 1}),
        ("pull", {"id": "x", "offset": -1, "count": 1}),
        ("pull", {"id": "x", "offset": 1 << 63, "count": 1}),
        ("pull", {"id": "x", "offset": 0.5, "count": 1}),
        ("pull", {"id": "x", "offset": 0, "count": 0}),
        ("pull", {"id": "x", "offset": 0, "count": PIECE_BYTES + 1}),
        ("pull", {"id": "x", "offset": 0, "count": True}),
        ("piece", {"id": "x", "offset": 0, "data": "text"}),
        ("piece", {"id": "x", "offset": 0, "data": bytes(PIECE_BYTES + 1)}),
        ("piece", {"id": None, "offset": 0, "data": b""}),
        ("piece", {"id": "x", "data": b""}),
    ],
)
def test_a_message_that_no_peer_sends_is_refused(kind: str, message: Any) -> None:
    """By type, range and size; nothing happens otherwise."""

    async def story(world: World) -> None:
        with pytest.raises(BadMessageError):
            world.nodes["n3"].pulls.kinds[kind]("n1", message)
        assert world.sent == []

    play(story)


def test_only_what_is_held_is_given() -> None:
    """An id that is no id, a snapshot that is not here, and bytes behind its end: not held."""

    async def story(world: World) -> None:
        info = world.nodes["n1"].write(70)
        for snapshot_id, offset in [("../n1/secret", 0), (_info().id, 0), (info.id, info.size), (info.id, 1 << 61)]:
            world.give("n3", "n1", "pull", {"id": snapshot_id, "offset": offset, "count": 10})
        assert [message["data"] for _, _, _, _, message in world.sent] == [None] * 4
        assert world.bad == []

    play(story)


def test_a_piece_that_was_not_asked_for_is_ignored() -> None:
    """From another peer, of another snapshot, from another place, or a second time."""

    async def story(world: World) -> None:
        node = world.nodes["n3"]
        info = world.nodes["n1"].write(70)
        world.full.add("n3")
        node.pulls.offered("n1", info)
        piece = {"id": info.id, "offset": 0, "data": bytes(PIECE_BYTES)}
        world.give("n1", "n3", "piece", piece)  # nothing could be asked for yet
        assert node.pulls.progress == (info.id, 0, info.size)
        world.full.clear()
        node.pulls.repeat()
        for source, changes in [
            ("n2", {}),
            ("n1", {"id": _info().id}),
            ("n1", {"offset": 1}),
            ("n1", {"offset": WINDOW * PIECE_BYTES}),
            ("n2", {"data": None}),
        ]:
            world.give(source, "n3", "piece", piece | changes)
            assert node.pulls.progress == (info.id, 0, info.size)
        await world.until_offset(PIECE_BYTES)
        before = node.pulls.progress
        world.give("n1", "n3", "piece", piece)
        assert node.pulls.progress == before
        await world.until(lambda: world.came(info))
        world.give("n1", "n3", "piece", piece)
        assert world.bad == []

    play(story)


def test_a_piece_of_a_wrong_length_is_bad_and_another_is_asked() -> None:
    """Who sends less or more than was asked for does not hold what it says."""

    async def story(world: World) -> None:
        info = world.nodes["n1"].write(70)
        world.nodes["n2"].write(70)
        world.twist = lambda source, kind, message: (
            message | {"data": message["data"][:-1]} if (source, kind) == ("n1", "piece") else message
        )
        world.nodes["n3"].pulls.offered("n1", info)
        await world.until(lambda: world.came(info))
        assert "not what was asked for" in str(world.bad[0])
        assert len(world.bad) == 1

    play(story)


def _rot(source: str, kind: str, message: Any) -> Any:
    """What n1 has on its disk is not what it wrote."""
    if (source, kind) == ("n1", "piece") and message["offset"] == 3 * PIECE_BYTES:
        return message | {"data": bytes(len(message["data"]))}
    return message


def test_wrong_bytes_never_count_and_another_holder_is_asked_first() -> None:
    """The whole file is dropped; whose bytes were in it is asked only if nobody else has it."""

    async def story(world: World) -> None:
        node = world.nodes["n3"]
        former = node.write(3)
        info = world.offer = world.nodes["n1"].write(70)
        world.nodes["n2"].write(70)
        world.twist = _rot
        await world.until(lambda: world.bytes_from("n1") == info.size and node.pulls.progress is None)
        assert node.store.newest == former
        assert node.files == [f"{former.id}.snapshot"]
        await world.until(lambda: world.came(info))
        assert world.bytes_from("n1") == world.bytes_from("n2") == info.size
        assert [world.nodes[name].doubted for name in NAMES] == [[info.id], [], []]  # who gave them is told

    play(story)


def test_wrong_bytes_of_the_only_holder_are_not_fetched_without_a_pause() -> None:
    """Longer each time, up to a bound; as soon as the file is right it comes."""

    async def story(world: World) -> None:
        info = world.offer = world.nodes["n1"].write(70)
        world.twist = _rot
        began = world.loop.time()
        while world.loop.time() < began + 100:
            await world.beat()
        first, longest = RETRY_SECONDS
        assert 8 <= world.bytes_from("n1") / info.size <= 11  # after 1, 2, 4, 8, and each further 16 seconds
        world.twist = lambda _source, _kind, message: message
        await world.until(lambda: world.came(info), longest + first + 5)

    play(story)


def test_a_full_disk_delays_a_pull() -> None:
    """What came is dropped, since the journal may need the room; it is tried again, and comes when there is room."""

    async def story(world: World) -> None:
        node = world.nodes["n3"]
        info = world.offer = world.nodes["n1"].write(70)

        def fill(_source: str, kind: str, message: Any) -> Any:
            if kind == "piece" and node.disk.free_bytes is None:  # after it has begun
                node.disk.free_bytes = 3 * PIECE_BYTES
            return message

        world.twist = fill
        for _ in range(100):
            await world.beat()
        assert node.files == []
        assert 2 <= world.bytes_from("n1") / PIECE_BYTES < 30
        world.twist = lambda _source, _kind, message: message
        node.disk.free_bytes = None
        await world.until(lambda: world.came(info))

    play(story)


def test_a_disk_that_was_full_for_long_takes_a_pull_soon_after_it_has_room() -> None:
    """Nothing is fetched as long as there is no room, so that looking again costs nothing and is not put off."""

    async def story(world: World) -> None:
        node = world.nodes["n3"]
        info = world.offer = world.nodes["n1"].write(70)
        node.disk.free_bytes = 0
        began = world.loop.time()
        while world.loop.time() < began + 100:
            await world.beat()
        assert world.bytes_from("n1") == 0
        node.disk.free_bytes = None
        await world.until(lambda: world.came(info), 3)

    play(story)


# ---- everything at once --------------------------------------------------------------------------------------------


def test_whatever_breaks_it_comes_in_the_end() -> None:
    """Cuts, breaks, losses, silence, restarts, power cuts, changes of leader and newer snapshots; then 60 quiet seconds
    are enough, and what came is exactly what was offered."""
    seen: Counter[str] = Counter()

    async def story(world: World) -> None:
        dice, node = world.chance, world.nodes["n3"]
        index = 70
        for name in ("n1", "n2"):
            world.offer = world.nodes[name].write(index)
        world.loss = dice.choice([0.0, 0.02, 0.1])
        for _ in range(60):
            what = dice.choice(
                ["part", "join", "sever", "mute", "speak", "kill", "power", "lead", "write", "beat", "beat"]
            )
            one, other = dice.sample(NAMES, 2)
            seen[what] += 1
            match what:
                case "part":
                    world.part(one, other)
                case "join":
                    world.join(one, other)
                case "sever":
                    world.sever(one, other)
                case "mute":
                    world.mute.add(one)
                case "speak":
                    world.mute.clear()
                case "kill":
                    world.restart(one)
                case "power":
                    world.nodes[one].disk.cut_power()
                    world.restart(one)
                case "lead":
                    world.leader = dice.choice(["n1", "n2"])
                case "write":
                    index += 10
                    world.nodes[dice.choice(["n1", "n2"])].write(index)
            world.offer = world.nodes[world.leader or "n1"].store.newest
            for _ in range(dice.choice([0, 1, 1, 3])):
                seen["resumed"] += node.pulls.progress is not None and node.pulls.progress[1] > 0
                await world.beat()
        world.loss = 0.0
        world.mute.clear()
        world.cut.clear()
        world.offer = offered = world.nodes[world.leader or "n1"].store.newest
        assert offered is not None
        await world.until(lambda: (node.store.newest or offered).index >= offered.index and node.store.newest, 60)
        seen["came"] += len(node.received)
        assert node.store.newest is not None
        assert len(list(node.store.blocks(node.store.newest))) == PIECES
        assert not world.bad

    for seed in range(16):
        play(story, seed)
    assert min(seen.values()) > 10, seen
