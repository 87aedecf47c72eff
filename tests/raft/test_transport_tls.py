"""TLS between peers: who has no fitting certificate stays out and is told why; all else is as it is without."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raftcron.config import load
from raftcron.errors import ConfigurationError
from raftcron.raft.greeting import HELLO, LIVE, READY, REFUSED
from raftcron.raft.tls import Credentials, PeerTls
from tests.raft.certificates import Authority
from tests.raft.transport_world import QUICK, Node, World, connected, ends, eventually


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificates(authority: Authority) -> dict[str, PeerTls]:
    return {name: authority.issue(name) for name in ("n1", "n2", "n3")}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def pair(world: World, certificates: dict[str, PeerTls]) -> tuple[Node, Node]:
    """Two nodes that are connected."""
    n1, n2 = world.node("n1", tls=certificates["n1"]), world.node("n2", tls=certificates["n2"])
    await world.start(n1, n2)
    await connected(n1, n2)
    return n1, n2


def said(caplog: pytest.LogCaptureFixture, *parts: str) -> list[str]:
    """The log lines that hold all of these."""
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if all(part in line for part in parts)]


# ---- two nodes of one cluster --------------------------------------------------------------------------------------


async def test_messages_both_ways(pair: tuple[Node, Node]) -> None:
    """Messages of any size arrive whole and in order, as they do without TLS."""
    n1, n2 = pair
    messages = [
        [number, os.urandom(size)] for number, size in enumerate((0, 1, 100, 16_384, 16_385, 1 << 20, 7 << 20, 3))
    ]
    for message in messages:
        while not n1.transport.send("n2", "test", message):
            await asyncio.sleep(0.002)
    assert n2.transport.send("n1", "test", "hello")
    await eventually(lambda: len(n2.messages) == len(messages) and n1.messages)
    assert n2.messages == messages
    assert n1.transport.refusals == n2.transport.refusals == {}


async def test_nothing_can_be_read_on_the_way(world: World, certificates: dict[str, PeerTls]) -> None:
    """Neither a message nor a name passes in the clear."""
    n1, n2 = world.node("n1", tls=certificates["n1"]), world.node("n2", tls=certificates["n2"])
    n2.meet("n1", 1)
    await n2.start()
    road = await world.road(n2.port)
    n1.meet("n2", road.port)
    await n1.start()
    await connected(n1, n2)
    n1.transport.send("n2", "test", "a word that nobody may read")
    await eventually(lambda: n2.messages)
    for passed in road.pairs[-1].carried:
        assert len(passed) > 1000
        assert b"a word" not in passed
        assert b"disk of n" not in passed
        assert b"RAFTCRN" not in passed


async def test_a_changed_byte_ends_it(world: World, certificates: dict[str, PeerTls]) -> None:
    """A byte that was changed on the way ends the connection, and a new one lives."""
    n1, n2 = world.node("n1", tls=certificates["n1"]), world.node("n2", tls=certificates["n2"])
    n2.meet("n1", 1)
    await n2.start()
    road = await world.road(n2.port)
    n1.meet("n2", road.port)
    await n1.start()
    await connected(n1, n2)
    road.change = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    n1.transport.send("n2", "test", "first")
    await eventually(lambda: ("disconnected", "n1") in n2.events)
    road.change = lambda data: data
    await eventually(lambda: n2.count("connected", "n1") == 2)
    assert n2.messages == []


@pytest.mark.parametrize("restarted", [0, 1])
async def test_restart(pair: tuple[Node, Node], restarted: int) -> None:
    """The end of a process, its closed port and its next life are told as without TLS."""
    gone, stays = pair[restarted], pair[1 - restarted]
    await gone.transport.stop()
    await eventually(lambda: ("refused", gone.name) in stays.events)
    assert stays.events[-2:] == [("disconnected", gone.name), ("refused", gone.name)]
    await gone.start()
    await connected(*pair)
    assert stays.count("refused", gone.name) == 1


CHILD = """
import asyncio, sys
from pathlib import Path
from raftcron.raft.tls import PeerTls
from tests.raft.transport_world import Node

async def main() -> None:
    node = Node("n1", tls=PeerTls(*map(Path, sys.argv[2:5])) if sys.argv[2:] else None)
    node.meet("n2", int(sys.argv[1]))
    await node.start()
    print(node.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("is_secured", [False, True])
async def test_a_killed_process_is_seen_at_once(
    world: World, certificates: dict[str, PeerTls], is_secured: bool
) -> None:
    """The kernel ends a dead process's connections and closes its port, and both are told at once."""
    tls = certificates if is_secured else {}
    n2 = world.node("n2", tls=tls.get("n2"))
    n2.meet("n1", 1)
    await n2.start()
    files = [str(path) for path in (tls["n1"].certificate, tls["n1"].key, tls["n1"].ca)] if tls else []
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(n2.port), *files, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        n2.meet("n1", int(await child.stdout.readline()))
        await eventually(lambda: n2.transport.connected("n1"))
        clock = asyncio.get_running_loop().time
        killed_at = clock()
        child.send_signal(signal.SIGKILL)
        await eventually(lambda: ("refused", "n1") in n2.events)
        assert clock() - killed_at < 1.0  # the idle rule would take five
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
    assert n2.events[-2:] == [("disconnected", "n1"), ("refused", "n1")]


async def test_a_certificate_for_several_nodes(world: World, authority: Authority) -> None:
    """One certificate may name all nodes, and a name is taken letter for letter."""
    shared = authority.issue("other", "n1", "N3_x.y", file="shared")
    n1, n3 = world.node("n1", tls=shared), world.node("N3_x.y", tls=shared)
    await world.start(n1, n3)
    await connected(n1, n3)


# ---- who stays out -------------------------------------------------------------------------------------------------


async def test_a_plain_node_and_one_with_tls(
    world: World, certificates: dict[str, PeerTls], caplog: pytest.LogCaptureFixture
) -> None:
    """They do not talk; each says why once as the dialling side and once as the listening one, and what to do."""
    plain, secured = world.node("n1"), world.node("n2", tls=certificates["n2"])
    await world.start(plain, secured)
    await eventually(lambda: plain.transport.refusals and secured.transport.refusals and len(caplog.records) >= 4)
    await asyncio.sleep(0.3)  # several more attempts
    assert "it takes nothing but TLS" in plain.transport.refusals["n2"]
    assert "it speaks no TLS" in secured.transport.refusals["n1"]
    assert len(said(caplog, "peer_refused peer=n2", "it takes nothing but TLS", "--peer-cert")) == 1
    assert len(said(caplog, "peer_refused peer=n1", "it speaks no TLS", "--peer-cert")) == 1
    assert len(said(caplog, "peer_unproven", "it speaks TLS, and this node has no certificate", "--peer-cert")) == 1
    assert len(said(caplog, "peer_unproven", "it speaks no TLS", "--peer-cert")) == 1
    assert len(caplog.records) == 4
    assert plain.events == secured.events == []


async def test_a_certificate_of_another_ca(
    world: World, certificates: dict[str, PeerTls], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A right name from a wrong CA is refused by both, though the secret is right."""
    stranger = world.node("n1", tls=Authority(tmp_path / "other").issue("n1"))
    n2 = world.node("n2", tls=certificates["n2"])
    await world.start(stranger, n2)
    await eventually(lambda: stranger.transport.refusals and n2.transport.refusals)
    await asyncio.sleep(0.1)  # several more attempts
    assert "its certificate is refused: " in n2.transport.refusals["n1"]
    assert "its certificate is refused: " in stranger.transport.refusals["n2"]
    assert said(caplog, "peer_unproven", "it ends TLS with", "unknown_ca")
    assert len(caplog.records) <= 6
    assert n2.events == stranger.events == []


class Impostor(Node):
    """A node of one name with the certificate of another."""

    async def start(self) -> None:
        name, self.name = self.name, "n3"
        await super().start()
        self.name = name
        self.transport._name = name


@pytest.mark.parametrize("dials", [True, False])
async def test_the_certificate_of_another_node(
    world: World, certificates: dict[str, PeerTls], dials: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has n3's key and the secret cannot speak for n1, dialling or dialled, and reads what would be needed."""
    impostor = Impostor("n1", tls=certificates["n3"])
    world.nodes.append(impostor)
    n2 = world.node("n2", tls=certificates["n2"])
    n2.meet("n1", 1)
    impostor.meet("n2", 1)
    await n2.start()
    await impostor.start()
    reason = (
        "its certificate is for 'n3', and not for 'n1': give n1 a certificate with the subject alternative name DNS:n1"
    )
    if dials:
        impostor.meet("n2", n2.port)
        await eventually(lambda: impostor.transport.refusals)
        assert reason in impostor.transport.refusals["n2"]
    else:
        n2.meet("n1", impostor.port)
    await eventually(lambda: n2.transport.refusals)
    assert reason in n2.transport.refusals["n1"]
    await asyncio.sleep(0.1)  # several more attempts
    assert len(said(caplog, "peer_refused peer=n1", reason)) == 1
    assert n2.events == impostor.events == []


async def test_nothing_is_said_to_a_wrong_certificate(world: World, certificates: dict[str, PeerTls]) -> None:
    """Who was dialled as n1 and shows the certificate of n3 gets no word, let alone a proof to guess the secret by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates["n3"].certificate, certificates["n3"].key)
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            heard.append(await reader.read(65536))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    n2 = world.node("n2", tls=certificates["n2"])
    n2.meet("n1", server.sockets[0].getsockname()[1])
    await n2.start()
    await eventually(lambda: len(n2.transport.refusals) and len(heard) > 2)
    server.close()
    assert not any(heard)
    assert "DNS:n1" in n2.transport.refusals["n1"]


async def secured(node: Node, tls: PeerTls | None, ca: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TLS connection to a node, with or without a certificate, up to where the client believes it stands."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca)
    if tls is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return await asyncio.open_connection("127.0.0.1", node.port, ssl=context)


async def test_a_client_without_a_certificate(
    pair: tuple[Node, Node], authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS alone is not enough: who shows no certificate is closed at once, and named in the log once."""
    _, n2 = pair
    for _ in range(5):
        reader, writer = await secured(n2, None, authority.ca)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.wait_for(reader.readexactly(1), 60.0)
        writer.transport.abort()
    assert len(said(caplog, "peer_unproven", "it shows no certificate", "--peer-cert")) == 1
    assert len(caplog.records) == 1
    assert n2.events == [("connected", "n1")]


async def test_an_old_version_of_tls(pair: tuple[Node, Node], certificates: dict[str, PeerTls]) -> None:
    """TLS 1.2 is not taken, even with a good certificate."""
    _, n2 = pair
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(certificates["n1"].ca)
    context.load_cert_chain(certificates["n1"].certificate, certificates["n1"].key)
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol version"):
        await asyncio.open_connection("127.0.0.1", n2.port, ssl=context)


async def test_the_secret_is_asked_for_all_the_same(
    world: World, certificates: dict[str, PeerTls], caplog: pytest.LogCaptureFixture
) -> None:
    """A good certificate and a wrong secret do not get in."""
    n1, n2 = world.node("n1", tls=certificates["n1"], secret=b"other"), world.node("n2", tls=certificates["n2"])
    await world.start(n1, n2)
    await eventually(lambda: n1.transport.refusals and n2.transport.refusals)
    assert "RAFTCRON_CLUSTER_SECRET" in n1.transport.refusals["n2"]
    await eventually(lambda: said(caplog, "peer_unproven", "does not prove the cluster secret"))
    assert n1.events == n2.events == []


async def test_a_scripted_peer_inside_tls(world: World, certificates: dict[str, PeerTls]) -> None:
    """The rules of the greeting hold inside TLS: who breaks them is out, and delivers nothing."""
    n2 = world.node("n2", tls=certificates["n2"], settings=replace(QUICK, handshake_seconds=60.0))
    n2.meet("n1", 1)
    await n2.start()
    for frames in ([("test", "early")], [(READY, None)], [(LIVE, 1)], [(REFUSED, ["for fun", True])]):
        peer = world.script("n1")
        peer.reader, peer.writer = await secured(n2, certificates["n1"], certificates["n1"].ca)
        await peer.prove(n2)
        assert (await peer.receive())[0] == HELLO
        peer.send(*frames)
        await peer.ends()
    assert n2.events == []


async def test_end_of_tls_is_an_end(
    pair: tuple[Node, Node], certificates: dict[str, PeerTls], caplog: pytest.LogCaptureFixture
) -> None:
    """A peer that ends TLS and keeps the connection is closed."""
    _, n2 = pair
    reader, writer = await asyncio.open_connection("127.0.0.1", n2.port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificates["n1"].ca)
    context.load_cert_chain(certificates["n1"].certificate, certificates["n1"].key)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await reader.read(65536))
    with pytest.raises(ssl.SSLWantReadError):
        tls.unwrap()
    writer.write(outgoing.read())
    async with asyncio.timeout(60):
        await ends(reader)
    writer.close()
    assert said(caplog, "it ended TLS")  # it was not its time that was over


# ---- files ---------------------------------------------------------------------------------------------------------


def test_a_certificate_that_peers_would_refuse(authority: Authority, tmp_path: Path) -> None:
    """A node does not start with what its peers would not take; it is said which file, why, and what to do."""
    good = authority.issue("n1", file="good")
    other = Authority(tmp_path / "other").issue("n1")
    (tmp_path / "text").write_text("not a certificate")
    locked = tmp_path / "locked.key"
    shutil.copy(good.key, locked)
    cases: list[tuple[PeerTls, str]] = [
        (authority.issue("n2", "n11", file="wrong"), r"it is for 'n2', 'n11', and this node is 'n1': .* DNS:n1$"),
        (authority.issue(file="none"), r"it is for no node at all, .* DNS:n1$"),
        (authority.issue("*", "n*", file="wild"), r"DNS:n1$"),
        (authority.issue("N1", file="capital"), r"DNS:n1$"),
        (authority.issue("n1", days=-1, file="expired"), "peers would refuse it: certificate has expired"),
        (
            authority.issue("n1", usage="serverAuth", file="server"),
            "peers would refuse it: .*purpose.* both TLS servers",
        ),
        (replace(good, ca=other.ca), r"peers would refuse it: .*made by the CA in --peer-ca .*other/ca\.crt"),
        (replace(good, key=other.key), "and --peer-key .*n1.key: .* the key the one that the certificate was made for"),
        (replace(good, key=tmp_path / "missing"), "--peer-key .*missing: cannot be read: No such file"),
        (replace(good, certificate=tmp_path), "--peer-cert .*: cannot be read: Is a directory"),
        (replace(good, certificate=tmp_path / "text"), "--peer-cert .*text.* must be PEM files"),
        (replace(good, ca=tmp_path / "text"), "--peer-ca .*text: holds no certificate in PEM"),
    ]
    for tls, told in cases:
        with pytest.raises(ConfigurationError, match=told):
            Credentials(tls, "n1")
    Credentials(good, "n1")


def test_an_encrypted_key(authority: Authority, tmp_path: Path) -> None:
    """A key with a password is refused; nobody is asked for it."""
    good = authority.issue("n1", file="plain")
    from tests.raft.certificates import openssl

    locked = tmp_path / "locked.key"
    openssl("ec", "-in", good.key, "-out", locked, "-aes128", "-passout", "pass:secret")
    with pytest.raises(ConfigurationError, match=r"--peer-key .*locked\.key: it is encrypted"):
        Credentials(replace(good, key=locked), "n1")


async def test_files_that_change(
    world: World, authority: Authority, certificates: dict[str, PeerTls], caplog: pytest.LogCaptureFixture
) -> None:
    """A new certificate is used from the next connection on; what lives goes on; a broken one is logged once."""
    caplog.set_level("INFO")
    n1, n2 = world.node("n1", tls=authority.issue("n1", file="changing")), world.node("n2", tls=certificates["n2"])
    assert n1.tls is not None
    await world.start(n1, n2)
    await connected(n1, n2)
    before = serial(n2)
    n1.tls.certificate.write_text("")
    for life in (2, 3):  # the broken file is met at each of these connections
        drop(n1)
        await eventually(lambda life=life: n2.count("connected", "n1") >= life)  # type: ignore[misc]
        await connected(n1, n2)
    assert serial(n2) == before
    assert len(said(caplog, "peer_certificate_kept", "changing.crt")) == 1
    lives = n2.count("connected", "n1")
    authority.issue("n1", file="changing")
    await asyncio.sleep(0.05)
    assert n2.count("connected", "n1") == lives  # nothing ended by itself
    drop(n1)
    await eventually(lambda: n2.count("connected", "n1") > lives)
    await connected(n1, n2)
    await eventually(lambda: serial(n2) != before)
    assert len(said(caplog, "peer_certificate_read", "changing.crt")) == 1


def test_a_change_that_cannot_be_read_at_first(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """A process that has no descriptor left keeps what it has, and reads the new files as soon as it can."""
    caplog.set_level("INFO")
    tls = authority.issue("n1", file="unread")
    credentials = Credentials(tls, "n1")
    before = credentials._contexts
    authority.issue("n1", file="unread")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        for _ in range(3):
            credentials.channel(is_dialling=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert credentials._contexts == before
    credentials.channel(is_dialling=True)
    assert credentials._contexts != before
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == [
        "peer_certificate_kept:",
        "peer_certificate_read",
    ]


def drop(node: Node) -> None:
    for link in list(node.transport._links):
        link.abort()


def serial(node: Node) -> Any:
    """Of the certificate that n1 shows on the connection that lives."""
    live = node.transport._live("n1")
    if live is None:
        return None
    channel = live.connection._channel
    assert channel is not None
    return (channel._object.getpeercert() or {}).get("serialNumber")


async def test_a_missing_file_ends_the_start(world: World, certificates: dict[str, PeerTls], tmp_path: Path) -> None:
    """A transport whose files cannot be used is not made at all."""
    node = Node("n1", tls=replace(certificates["n1"], ca=tmp_path / "gone"))
    with pytest.raises(ConfigurationError, match=r"--peer-ca .*gone"):
        await node.start()


# ---- settings ------------------------------------------------------------------------------------------------------


def test_all_three_settings_or_none() -> None:
    """Each of the three that is missing beside another one is named."""
    node = {"data-dir": "d"}
    files = {"peer-cert": "a.crt", "peer-key": "a.key", "peer-ca": "ca.crt"}
    settings = load(node | files, {})
    assert (settings.peer_cert, settings.peer_key, settings.peer_ca) == (Path("a.crt"), Path("a.key"), Path("ca.crt"))
    assert load(node, {}).peer_cert is None
    for missing in files:
        with pytest.raises(ConfigurationError) as caught:
            load(node | {name: path for name, path in files.items() if name != missing}, {})
        assert [fault.pointer for fault in caught.value.faults] == [f"/{missing}"]
        assert f"--{missing} is missing beside" in caught.value.detail
    with pytest.raises(ConfigurationError) as caught:
        load(node, {"RAFTCRON_PEER_CA": "ca.crt"})
    assert [fault.pointer for fault in caught.value.faults] == ["/peer-cert", "/peer-key"]
