"""The transport: one live connection a pair, nobody without the secret, nothing from a connection that was replaced."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import resource
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raftcron.errors import ConfigurationError
from raftcron.raft.greeting import HELLO, LIVE, READY, REFUSED
from raftcron.raft.handshake import OPENING_BYTES
from raftcron.raft.transport import Hello
from tests.raft.transport_world import QUICK, Node, World, connected, ends, eventually


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


# ---- connecting --------------------------------------------------------------------------------------------------


async def test_messages_both_ways(world: World) -> None:
    """Two nodes find each other, and what one sends the other gets, in order."""
    n1, n2 = await world.pair()
    for number in range(100):
        assert n1.transport.send("n2", "test", [number, b"bytes", None, {"a": 1.5}])
    assert n2.transport.send("n1", "test", "hello")
    await eventually(lambda: len(n2.messages) == 100 and n1.messages)
    assert n2.messages == [[number, b"bytes", None, {"a": 1.5}] for number in range(100)]
    assert n1.messages == ["hello"]
    assert n1.events[0] == ("connected", "n2")
    assert 0 < n2.batches < 100
    assert n1.transport.hello_of("n2") == Hello("n2", "disk of n2", None, 1, True)
    assert n1.transport.refusals == n2.transport.refusals == {}


async def test_large_messages(world: World) -> None:
    """A message that takes many reads arrives whole; one over the bound is refused where it is sent."""
    n1, n2 = await world.pair()
    assert n1.transport.send("n2", "test", bytes(7 << 20))
    await eventually(lambda: n2.messages)
    assert n2.messages == [bytes(7 << 20)]
    with pytest.raises(ValueError, match="over the limit"):
        n1.transport.send("n2", "test", bytes(9 << 20))
    assert n1.transport.connected("n2")


async def test_without_a_secret(world: World) -> None:
    """An empty secret is a secret too."""
    await world.pair(secret=b"")


async def test_only_live_peers_get_messages(world: World) -> None:
    """Sending to a peer that is not connected, or not a peer, says no."""
    n1 = world.node("n1")
    n1.meet("n2", 1)
    await n1.start()
    assert not n1.transport.send("n2", "test", 1)
    assert not n1.transport.send("n9", "test", 1)
    assert not n1.transport.connected("n2")
    assert n1.transport.hello_of("n2") is None


@pytest.mark.parametrize("restarted", [0, 1])
async def test_restart(world: World, restarted: int) -> None:
    """The end of a process is told at once, its closed port too, and its next life is a new connection."""
    nodes = await world.pair()
    gone, stays = nodes[restarted], nodes[1 - restarted]
    await gone.transport.stop()
    await eventually(lambda: ("refused", gone.name) in stays.events)
    await asyncio.sleep(0.1)  # several more attempts
    assert stays.events[-2:] == [("disconnected", gone.name), ("refused", gone.name)]
    assert not stays.transport.connected(gone.name)
    await gone.start()
    await connected(*nodes)
    assert stays.events[-1] == ("connected", gone.name)
    hello = stays.transport.hello_of(gone.name)
    assert hello is not None
    assert hello.incarnation == 2
    assert stays.transport.send(gone.name, "test", "again")
    await eventually(lambda: gone.messages == ["again"])
    assert stays.count("refused", gone.name) == 1


async def test_never_there_is_not_refused(world: World) -> None:
    """A peer that has not been connected yet is not reported as dead, however often its port refuses."""
    n2 = world.node("n2")
    n2.meet("n1", 1)
    await n2.start()
    n1 = world.node("n1")
    n1.meet("n2", n2.port)
    await n1.start()
    await connected(n1, n2)
    assert ("refused", "n1") not in n2.events


async def test_names_of_hosts(world: World) -> None:
    """A host name is resolved at each attempt, and a refusal counts when all its addresses refuse."""
    n1, n2 = world.node("n1"), world.node("n2")
    n1.meet("n2", 1, "no-such-host.invalid")
    n2.meet("n1", 1, "no-such-host.invalid")
    await n1.start()
    await n2.start()
    n2.meet("n1", n1.port, "localhost")
    await connected(n1, n2)
    await n1.transport.stop()
    await eventually(lambda: ("refused", "n1") in n2.events)


async def test_stop_is_silent(world: World) -> None:
    """A transport that is stopped tells its handler nothing more, and what was sent before still arrives."""
    n1, n2 = await world.pair()
    for number in range(50):
        n1.transport.send("n2", "test", number)
    before = list(n1.events)
    await n1.transport.stop()
    await eventually(lambda: ("disconnected", "n1") in n2.events)
    assert n2.messages == list(range(50))
    assert n1.events == before


async def test_port_in_use(world: World) -> None:
    """A port that another process has is a fault of the settings, with the address and how to find who has it."""
    n1 = world.node("n1")
    await n1.start()
    other = Node("n2")
    other.port = n1.port
    with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{n1.port}.*ss -ltnp"):
        await other.start()


async def test_bad_name() -> None:
    """A name that does not fit the handshake is refused when the transport is made."""
    with pytest.raises(ConfigurationError, match="64 bytes"):
        await Node("n" * 65).start()


# ---- who may come in ---------------------------------------------------------------------------------------------


async def test_wrong_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A node with another secret is not let in; both sides say why, once, and no handler hears of it."""
    n1, n2 = world.node("n1", secret=b"one"), world.node("n2", secret=b"another")
    await world.start(n1, n2)
    await eventually(lambda: len(caplog.records) == 4)  # each says so as the dialling side and as the listening one
    await asyncio.sleep(0.3)  # several more attempts
    assert "RAFTCRON_CLUSTER_SECRET" in n1.transport.refusals["n2"]
    assert "RAFTCRON_CLUSTER_SECRET" in n2.transport.refusals["n1"]
    assert n1.events == n2.events == []
    assert len(caplog.records) == 4
    assert sum("does not prove the cluster secret" in record.getMessage() for record in caplog.records) == 2


async def test_stranger_is_told_why(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A node that the members do not admit learns the reason, and logs it once."""
    n1, n2 = world.node("n1"), world.node("n2", admit=lambda hello: f"disk {hello.disk_id!r} is not known")
    n2.meet("n1", 1)
    await n2.start()
    n1.meet("n2", n2.port)
    await n1.start()
    await eventually(lambda: n1.transport.refusals)
    assert "refuses this node: disk 'disk of n1' is not known" in n1.transport.refusals["n2"]
    await asyncio.sleep(0.2)  # several more attempts
    assert n1.events == n2.events == []
    assert sum("refuses this node" in record.getMessage() for record in caplog.records) == 1
    n2.admit = lambda hello: None
    await connected(n1, n2)
    assert n1.transport.refusals == n2.transport.refusals == {}


async def test_not_a_member(world: World) -> None:
    """A node that knows the secret and is not among the peers is refused by name."""
    n1, n3 = world.node("n1"), world.node("n3")
    await n1.start()
    n3.meet("n1", n1.port)
    await n3.start()
    await eventually(lambda: n3.transport.refusals)
    assert "'n3' is not a member" in n3.transport.refusals["n1"]
    assert n1.transport.passes["hello refused (no peer)"] > 0
    assert n1.events == n3.events == []


async def test_two_nodes_with_one_name(world: World) -> None:
    """A second node of a name does not disturb the first, and is told what is wrong."""
    n1, n2 = await world.pair()
    n2.admit = lambda hello: None if hello.disk_id == "disk of n1" else "two nodes are named 'n1'"
    double = world.node("n1", disk_id="other disk")
    double.meet("n2", n2.port)
    await double.start()
    await eventually(lambda: double.transport.refusals)
    assert "two nodes are named 'n1'" in double.transport.refusals["n2"]
    assert n1.transport.send("n2", "test", "still here")
    await eventually(lambda: n2.messages == ["still here"])
    assert double.events == []
    assert n2.count("connected", "n1") == 1


async def test_own_name(world: World) -> None:
    """A node that names itself like the one it dials is told so by that one, whoever is admitted."""
    n2, double = world.node("n2"), world.node("n2", disk_id="other disk")
    await n2.start()
    double.meet("n2", n2.port)
    await double.start()
    # Both ends see the other's hello, and either may refuse first: the double's own refusal says nothing of n2.
    await eventually(lambda: n2.transport.passes["hello refused (our own name)"] and double.transport.refusals)
    assert "two nodes are named 'n2'" in double.transport.refusals["n2"]


async def test_address_of_another_node(world: World) -> None:
    """A wrong address in the peers is said to be that, not a wrong secret."""
    n1, n3 = world.node("n1"), world.node("n3")
    await n1.start()
    n3.meet("n2", n1.port)
    await n3.start()
    await eventually(lambda: n3.transport.refusals)
    assert "it is not n2: look at the addresses" in n3.transport.refusals["n2"]


async def test_an_older_life_cannot_replace_a_newer(world: World) -> None:
    """A connection of an earlier incarnation is refused while a later one lives."""
    n1, n2 = await world.pair()
    old = world.node("n1")
    old.incarnation = -1
    old.meet("n2", n2.port)
    await old.start()
    await eventually(lambda: old.transport.refusals)
    assert "incarnation 1 of 'n1' is connected" in old.transport.refusals["n2"]
    assert n2.transport.passes["hello refused (earlier life)"] > 0
    assert n1.transport.connected("n2")
    assert n2.count("connected", "n1") == 1


async def test_what_was_accepted_in_the_turn_of_the_end_is_closed(world: World) -> None:
    """The kernel has taken a connection, asyncio is about to; nothing of it is left."""
    n1 = world.node("n1")
    await n1.start()
    with socket.create_connection(("127.0.0.1", n1.port)) as stranger:
        for _ in range(2):  # in the second turn the loop sees it, and the transport is made in the next
            await asyncio.sleep(0)
        await n1.transport.stop()
        stranger.settimeout(5.0)
        assert await asyncio.to_thread(stranger.recv, 1) == b""
    gc.collect()  # whatever was forgotten warns, which is a failure


# ---- strangers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        hashlib.shake_128(b"seed").digest(5000),
        b"\xff" * OPENING_BYTES,
        b"GET / HTTP/1.1\r\nHost: raftcron\r\n\r\n".ljust(OPENING_BYTES, b"\n"),
        bytes(OPENING_BYTES),
    ],
)
async def test_garbage_is_closed_at_once(world: World, data: bytes) -> None:
    """Bytes that are no opening end their connection and touch nobody else's."""
    n1, n2 = await world.pair(settings=replace(QUICK, handshake_seconds=600.0))
    reader, writer = await asyncio.open_connection("127.0.0.1", n2.port)
    writer.write(data)
    async with asyncio.timeout(60):  # well before the handshake's time is over
        await ends(reader)
    writer.close()
    n1.transport.send("n2", "test", 1)
    await eventually(lambda: n2.messages == [1])
    assert n2.events == [("connected", "n1"), ("message", "n1", 1)]


async def test_half_a_handshake_ends(world: World) -> None:
    """Whoever does not finish the handshake in time is closed, however slowly it drips."""
    node = world.node("n1", settings=replace(QUICK, handshake_seconds=0.1))
    await node.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(b"RAFTCRN1")
    async with asyncio.timeout(60):
        await ends(reader)
    writer.close()
    assert node.events == []


async def test_many_silent_strangers(world: World) -> None:
    """Connections that only hold a place are bounded, and keep no peer out."""
    n1, n2 = await world.pair(settings=replace(QUICK, handshake_seconds=60.0))
    strangers = [await asyncio.open_connection("127.0.0.1", n2.port) for _ in range(40)]
    closed = [asyncio.create_task(ends(reader)) for reader, _ in strangers]
    await eventually(lambda: sum(task.done() for task in closed) >= 40 - QUICK.max_strangers_per_host)
    await n1.transport.stop()
    await n1.start()
    await connected(n1, n2)
    for _, writer in strangers:
        writer.close()
    for task in closed:
        await task


async def test_running_out_of_files(world: World) -> None:
    """When accept fails for want of file descriptors, the port answers again as soon as there are some."""
    n1, n2 = world.node("n1"), world.node("n2")
    n1.meet("n2", 1)
    await n1.start()
    n2.meet("n1", 1)
    await n2.start()
    complaints: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context["exception"]))
    client = socket.socket()
    client.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        fillers = [os.dup(0) for _ in range(highest)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1, hard))
        await loop.sock_connect(client, ("127.0.0.1", n1.port))
        await eventually(lambda: complaints)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
        client.close()
    n2.meet("n1", n1.port)
    await connected(n1, n2)


# ---- connections that break --------------------------------------------------------------------------------------


async def test_replaced_connection_is_silent(world: World) -> None:
    """What a replaced connection still carries is never delivered, and its end is nobody's end."""
    n1, n2, road = await world.one_way()
    n1.settings = replace(QUICK, idle_seconds=1.0, ping_seconds=0.1)
    await n1.transport.stop()
    await n1.start()
    await connected(n1, n2)
    held = road.pairs[-1]
    held.flows.clear()
    assert n1.transport.send("n2", "test", "held back")
    lives = n2.count("connected", "n1")
    ends = n2.count("disconnected", "n1")
    await eventually(lambda: n2.count("connected", "n1") > lives)
    await connected(n1, n2)
    assert n1.events[-2:] == [("disconnected", "n2"), ("connected", "n2")]
    held.flows.set()
    assert n1.transport.send("n2", "test", "new")
    await eventually(lambda: n2.messages == ["new"])
    held.cut()
    await asyncio.sleep(0.05)
    assert n2.count("disconnected", "n1") == ends
    assert n2.messages == ["new"]


async def test_half_open_connection_ends(world: World) -> None:
    """A connection over which nothing comes any more is ended by the idle rule, and told."""
    settings = replace(QUICK, idle_seconds=0.2, ping_seconds=0.1)
    _, n2, road = await world.one_way(settings=settings)
    road.server.close()
    road.pairs[-1].flows.clear()
    await eventually(lambda: ("disconnected", "n1") in n2.events)


async def test_idle_connections_are_kept(world: World) -> None:
    """Two nodes with nothing to say stay connected."""
    n1, n2 = await world.pair(settings=replace(QUICK, idle_seconds=1.0, ping_seconds=0.1))
    await asyncio.sleep(1.5)
    assert n1.events == [("connected", "n2")]
    assert n2.events == [("connected", "n1")]


async def test_backlog_is_bounded(world: World) -> None:
    """A peer that takes nothing fills a bounded buffer; then sending says no."""
    n1, _, road = await world.one_way()
    road.pairs[-1].flows.clear()
    sent = 0
    while n1.transport.send("n2", "test", bytes(1 << 20)):
        sent += 1
        assert sent < 64
        await asyncio.sleep(0)
    assert sent >= 16


@pytest.mark.parametrize("change", ["flip", "repeat", "drop"])
async def test_changed_frames(world: World, change: str) -> None:
    """A frame that was changed, repeated or left out on the way ends the connection before it is believed."""
    n1, n2, road = await world.one_way()
    changes = {
        "flip": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        "repeat": lambda data: data + data,
        "drop": lambda data: b"",
    }
    road.change = changes[change]
    n1.transport.send("n2", "test", "first")
    if change == "repeat":
        await eventually(lambda: n2.messages)
    else:
        await asyncio.sleep(0.01)
    road.change = lambda data: data
    if change == "drop":
        n1.transport.send("n2", "test", "second")
    await eventually(lambda: ("disconnected", "n1") in n2.events)
    assert n2.messages == (["first"] if change == "repeat" else [])
    await connected(n1, n2)


async def test_broken_again_and_again(world: World) -> None:
    """However often all connections break at once, so that both sides dial, one connection a pair is left."""
    n1, n2 = world.node("n1"), world.node("n2")
    await world.start(n1, n2)
    forth, back = await world.road(n2.port), await world.road(n1.port)
    n1.meet("n2", forth.port)
    n2.meet("n1", back.port)
    await connected(n1, n2)
    for number in range(20):
        ends = len(n1.events), len(n2.events)
        for link in [*n1.transport._links, *n2.transport._links]:
            link.abort()
        await eventually(lambda ends=ends: len(n1.events) > ends[0] and len(n2.events) > ends[1])
        await connected(n1, n2)

        def arrived(number: int = number) -> bool:
            return ("message", "n1", number) in n2.events and ("message", "n2", number) in n1.events

        async with asyncio.timeout(60):
            while not arrived():  # a crossing connection may still replace the first
                n1.transport.send("n2", "test", number)
                n2.transport.send("n1", "test", number)
                await asyncio.sleep(0.002)
    await eventually(lambda: len(n1.transport._links) == len(n2.transport._links) == 1)


# ---- a peer that does what it should not ---------------------------------------------------------------------------


async def _alone(world: World, name: str, peer: str) -> Node:
    node = world.node(name, settings=replace(QUICK, handshake_seconds=60.0))
    node.meet(peer, 1)
    await node.start()
    return node


@pytest.mark.parametrize(
    "frames",
    [
        [("test", "before anything")],
        [(HELLO, None)],
        [(HELLO, ["n1", "disk of n1", None, "1", True])],
        [(READY, None)],
        [(LIVE, 1)],
        [(99, None)],
        [(None, None)],
        [(HELLO, ["n1", "disk of n1", None, 1, True]), ("test", "before it lives")],
        [(HELLO, ["n1", "disk of n1", None, 1, True]), (HELLO, ["n1", "disk of n1", None, 1, True])],
        [(HELLO, ["n1", "disk of n1", None, 1, True]), (LIVE, 1)],
        [(HELLO, ["n3", "disk of n1", None, 1, True]), (READY, None)],
        [(REFUSED, "for fun"), ("test", "after the end")],
    ],
)
async def test_frames_out_of_turn(world: World, frames: list[tuple[Any, Any]]) -> None:
    """A peer that breaks the order of the introduction gets no live connection and delivers nothing."""
    n2 = await _alone(world, "n2", "n1")
    peer = await world.script("n1").dial(n2)
    peer.send(*frames)
    await peer.ends()
    assert n2.events == []


async def test_a_frame_that_is_no_pair(world: World) -> None:
    """What is sealed and is not a message ends the live connection, and what came before it is delivered."""
    n2 = await _alone(world, "n2", "n1")
    peer = await world.script("n1").greet(n2)
    assert await peer.receive() == [LIVE, 1]
    peer.send(("test", 1), (1, 2, 3), ("test", 2))  # type: ignore[arg-type]
    await peer.ends()
    await eventually(lambda: n2.events == [("connected", "n1"), ("message", "n1", 1), ("disconnected", "n1")])


async def test_nothing_more_from_a_replaced_connection(world: World) -> None:
    """Frames on a replaced connection are not delivered and its end is not told."""
    n2 = await _alone(world, "n2", "n1")
    first = await world.script("n1").greet(n2)
    assert await first.receive() == [LIVE, 1]
    second = await world.script("n1").greet(n2)
    assert await second.receive() == [LIVE, 2]
    first.send(("test", "late"))
    second.send(("test", "now"))
    await eventually(lambda: n2.messages)
    first.writer.close()
    await first.ends()
    second.send(("test", "then"))
    await eventually(lambda: n2.messages == ["now", "then"])
    assert n2.events[:2] == [("connected", "n1")] * 2
    assert ("disconnected", "n1") not in n2.events
    second.writer.close()
    await eventually(lambda: n2.events[-2:] == [("disconnected", "n1"), ("refused", "n1")])


async def test_crossing_connections(world: World) -> None:
    """Of two that were under way at once the greater keeps the first that lives; a later dial replaces it."""
    n2 = await _alone(world, "n2", "n1")
    first, crossing = await world.script("n1").dial(n2), await world.script("n1").dial(n2)
    for peer in (first, crossing):
        peer.send((HELLO, peer.hello))
        await peer.receive()
    first.send((READY, None))
    assert await first.receive() == [LIVE, 1]
    crossing.send((READY, None))
    later = await world.script("n1").greet(n2)
    assert await later.receive() == [LIVE, 2]
    assert n2.events == [("connected", "n1")] * 2
    await crossing.ends()  # without a word


async def test_a_new_life_wins_over_a_crossing(world: World) -> None:
    """A connection of a later incarnation replaces whatever lives."""
    n2 = await _alone(world, "n2", "n1")
    new = await world.script("n1", incarnation=2).dial(n2)
    old = await world.script("n1", incarnation=1).greet(n2)
    assert await old.receive() == [LIVE, 1]
    new.send((HELLO, new.hello), (READY, None))
    assert (await new.receive())[0] == HELLO
    assert await new.receive() == [LIVE, 2]


async def test_the_lives_of_two_disks_have_no_order(world: World) -> None:
    """Who is admitted in the place of another replaces it, however often that one has lived, or chosen."""
    n2 = await _alone(world, "n2", "n1")
    crossing = await world.script("n1", disk_id="new disk").dial(n2)
    old = await world.script("n1", incarnation=7).greet(n2)
    assert await old.receive() == [LIVE, 1]
    crossing.send((HELLO, crossing.hello), (READY, None))
    assert (await crossing.receive())[0] == HELLO
    assert await crossing.receive() == [LIVE, 2]
    n1 = await _alone(world, "n1", "n2")
    ancient = await world.script("n2", incarnation=7).greet(n1)
    new = await world.script("n2", disk_id="new disk").greet(n1)
    ancient.send((LIVE, 9), ("test", "ancient"))
    await eventually(lambda: n1.messages == ["ancient"])
    new.send((LIVE, 1), ("test", "new"))
    await eventually(lambda: n1.messages == ["ancient", "new"])


async def test_the_lesser_follows_the_highest_number(world: World) -> None:
    """A choice that is overtaken by a later one is not followed."""
    n1 = await _alone(world, "n1", "n2")
    first, second = await world.script("n2").greet(n1), await world.script("n2").greet(n1)
    second.send((LIVE, 8), ("test", "eight"))
    await eventually(lambda: n1.messages == ["eight"])
    first.send((LIVE, 7), ("test", "seven"))
    await first.ends()
    assert n1.events == [("connected", "n2"), ("message", "n2", "eight")]
    second.send(("test", "still"))
    await eventually(lambda: n1.messages == ["eight", "still"])


async def test_a_dying_process_may_still_accept(world: World) -> None:
    """A port that takes connections and resets them is asked again at once, until it refuses."""
    n2 = await _alone(world, "n2", "n1")
    attempts = 0

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.transport.abort()
        if attempts == 3:
            server.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    peer = await world.script("n1").greet(n2)
    assert await peer.receive() == [LIVE, 1]
    await eventually(lambda: n2.events)
    n2.meet("n1", server.sockets[0].getsockname()[1])
    peer.writer.close()
    await eventually(lambda: ("refused", "n1") in n2.events)
    assert attempts == 3
    assert n2.events == [("connected", "n1"), ("disconnected", "n1"), ("refused", "n1")]


async def test_a_handler_that_ends_it(world: World) -> None:
    """After a stop nothing of what came in the same read is delivered."""
    n2 = await _alone(world, "n2", "n1")
    peer = await world.script("n1").greet(n2)
    assert await peer.receive() == [LIVE, 1]
    stopping: list[asyncio.Task[None]] = []

    def stop(name: str, kind: str, message: Any) -> None:
        n2.events.append(("message", name, message))
        stopping.append(asyncio.ensure_future(n2.transport.stop()))
        for link in n2.transport._links:
            link.abort()

    n2.on_message = stop  # type: ignore[method-assign]
    peer.send(("test", 1), ("test", 2))
    await peer.ends()
    await stopping[0]
    assert n2.messages == [1]
