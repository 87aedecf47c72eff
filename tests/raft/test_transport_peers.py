"""Peers that come, go and move while the transport runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from raftcron.errors import ConfigurationError
from raftcron.raft.greeting import HELLO, LIVE, REFUSED
from tests.raft.transport_world import QUICK, Node, World, connected, eventually


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def alone(world: World, name: str) -> Node:
    node = world.node(name)
    await node.start()
    return node


@pytest.mark.parametrize(("old", "new"), [("n1", "n2"), ("n2", "n1")])
async def test_a_new_peer_is_dialled(world: World, old: str, new: str) -> None:
    """A name that comes is dialled like one that was always there, by either side alone."""
    node, newcomer = await alone(world, old), world.node(new)
    newcomer.meet(old, 1)
    await newcomer.start()
    assert not node.transport.connected(new)
    node.meet(new, newcomer.port)
    await connected(node, newcomer)
    assert node.transport.send(new, "test", "welcome")
    await eventually(lambda: newcomer.messages == ["welcome"])


async def test_a_newcomer_may_dial_first(world: World) -> None:
    """Who dialled before it was a peer is refused, and taken at its next attempt once it is one, without an address."""
    node, newcomer = await alone(world, "n1"), world.node("n2")
    newcomer.meet("n1", node.port)
    await newcomer.start()
    await eventually(lambda: newcomer.transport.refusals)
    assert "'n2' is not a member" in newcomer.transport.refusals["n1"]
    node.meet("n2", 1)
    await connected(node, newcomer)
    assert node.events == [("connected", "n2")]
    assert newcomer.transport.refusals == {}


async def test_a_peer_that_is_removed(world: World) -> None:
    """What was sent to it still arrives; then its connection ends, and whoever removed it hears no more of it."""
    n1, n2 = await world.pair()
    for number in range(50):
        assert n1.transport.send("n2", "test", number)
    n1.part("n2")
    assert not n1.transport.connected("n2")
    assert not n1.transport.send("n2", "test", "too late")
    assert n1.transport.hello_of("n2") is None
    await eventually(lambda: ("disconnected", "n1") in n2.events)
    assert n2.messages == list(range(50))
    await eventually(lambda: n2.transport.refusals)  # it dials again
    await asyncio.sleep(0.1)  # so does nobody else
    assert "'n2' is not a member" in n2.transport.refusals["n1"]
    assert n1.events == [("connected", "n2")]
    assert n1.transport.refusals == {}
    assert not n2.transport.connected("n1")


async def test_whoever_is_removed_is_told_what_admit_says(world: World) -> None:
    """The word of `admit` reaches a removed node as being turned away for good; each word is told, none is obeyed."""
    n1, n2 = await world.pair()
    n1.admit = lambda hello: "n2 was removed from the cluster"
    n1.part("n2")
    await eventually(lambda: n2.turned_away)
    assert n2.turned_away[0] == ("n1", "n2 was removed from the cluster")


async def test_nothing_more_from_a_peer_that_is_removed(world: World) -> None:
    """Frames that a removed peer sent before it knew are not delivered, in the same read as well."""
    n2 = world.node("n2")
    n2.meet("n1", 1)
    await n2.start()
    peer = await world.script("n1").greet(n2)
    assert await peer.receive() == [LIVE, 1]

    def remove(name: str, kind: str, message: object) -> None:
        n2.events.append(("message", name, message))
        n2.part("n1")

    n2.on_message = remove  # type: ignore[method-assign]
    peer.send(("test", 1), ("test", 2))
    await peer.ends()
    assert n2.events == [("connected", "n1"), ("message", "n1", 1)]


async def test_removed_in_the_midst_of_the_greeting(world: World) -> None:
    """A connection that was about to live when its peer was removed does not, and is refused from then on."""
    n2 = world.node("n2", settings=replace(QUICK, handshake_seconds=60.0))
    n2.meet("n1", 1)
    await n2.start()
    peer = await world.script("n1").dial(n2)
    peer.send((HELLO, peer.hello))
    assert (await peer.receive())[0] == HELLO
    n2.part("n1")
    await peer.ends()
    again = await world.script("n1").dial(n2)
    again.send((HELLO, again.hello))
    assert (await again.receive())[0] == HELLO
    assert (await again.receive())[0] == REFUSED
    assert n2.events == []


async def test_a_peer_that_comes_again(world: World) -> None:
    """A name that was removed and is a peer again gets a new connection, and its old one counts for nothing."""
    n1, n2 = await world.pair()
    n1.part("n2")
    n1.meet("n2", n2.port)
    await eventually(lambda: ("disconnected", "n1") in n2.events)
    await connected(n1, n2)
    assert n1.transport.send("n2", "test", "again")
    await eventually(lambda: n2.messages == ["again"])
    assert n1.events == [("connected", "n2")] * 2


async def test_a_removed_peer_that_dies_is_nobodys_loss(world: World) -> None:
    """Once removed, neither the end of its process nor its closed port is told, though both were under way."""
    n1, n2 = await world.pair()
    stopping = asyncio.ensure_future(n2.transport.stop())
    n1.part("n2")
    await stopping
    await asyncio.sleep(0.1)  # time for many attempts, were there any
    assert n1.events == [("connected", "n2")]


async def test_a_peer_that_moves(world: World) -> None:
    """A live connection survives a new address; the next one goes there, at once."""
    n1, n2 = world.node("n1"), world.node("n2", settings=replace(QUICK, retry_min_seconds=60.0, retry_max_seconds=60.0))
    n1.meet("n2", 1)
    n2.meet("n1", 1)
    await n1.start()
    await n2.start()
    await asyncio.sleep(0.05)  # its first attempt is over, the next one is a minute away
    n2.meet("n1", n1.port)
    await connected(n1, n2)
    n2.meet("n1", 1)
    assert n2.transport.send("n1", "test", "the same connection")
    await eventually(lambda: n1.messages)
    assert n2.events == [("connected", "n1")]


async def test_a_refusal_elsewhere_is_no_death(world: World) -> None:
    """Where a peer moves after its connection ended, a closed port does not say that its process is dead."""
    n2 = world.node("n2")
    n2.meet("n1", 1)
    await n2.start()
    peer = await world.script("n1").greet(n2)
    assert await peer.receive() == [LIVE, 1]
    told = n2.on_disconnected

    def move(name: str) -> None:
        told(name)
        n2.meet("n1", 2)

    n2.on_disconnected = move  # type: ignore[method-assign]
    peer.writer.close()
    await eventually(lambda: ("disconnected", "n1") in n2.events)
    await asyncio.sleep(0.1)  # several attempts
    assert n2.events == [("connected", "n1"), ("disconnected", "n1")]


async def test_a_name_that_cannot_be_one(world: World) -> None:
    """A set of peers with a bad name is refused as a whole."""
    n1, _ = await world.pair()
    with pytest.raises(ConfigurationError, match="64 bytes"):
        n1.transport.set_peers({"n" * 65: ("127.0.0.1", 1)})
    assert n1.transport.connected("n2")


class Doorbell:
    """A port that counts who comes, and sends everybody away."""

    def __init__(self) -> None:
        self.rings = 0

    async def open(self) -> int:
        self.server = await asyncio.start_server(self._ring, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    def _ring(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.rings += 1
        writer.transport.abort()


async def test_who_is_no_peer_any_more_is_not_dialled(world: World) -> None:
    """Nothing is left of a removed peer's dialler, nor does one begin once the transport is stopped."""
    n1, bell = await alone(world, "n1"), Doorbell()
    port = await bell.open()
    n1.meet("n2", port)
    await eventually(lambda: bell.rings >= 2)
    n1.part("n2")
    await asyncio.sleep(0.02)  # what was under way
    rings = bell.rings
    await asyncio.sleep(0.2)  # several attempts, were there any
    assert bell.rings == rings
    await n1.transport.stop()
    n1.meet("n0", port)
    await asyncio.sleep(0.2)
    assert bell.rings == rings
    bell.server.close()
