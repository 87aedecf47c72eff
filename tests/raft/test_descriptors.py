"""A node that has run out of file descriptors: it says so once, waits, and is there again as soon as it has some."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from raftcron.runtime.shortage import EPISODE_SECONDS, Shortage
from tests.cluster.harness import SECRET, Cluster
from tests.raft.transport_world import HandClock, Node, eventually

MAX_GROWTH_BYTES = 16 << 20


class Hearer(Node):
    """Takes whatever a real node says."""

    def on_message(self, peer: str, kind: str, message: Any) -> None:
        self.events.append(("message", peer, kind))


async def connections(port: int, count: int) -> list[socket.socket]:
    """Some may be ended by the other side at once, and those that it cannot take wait in its kernel."""
    loop = asyncio.get_running_loop()
    opened = []
    for _ in range(count):
        opened.append(socket.socket())
        opened[-1].setblocking(False)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.02):
                await loop.sock_connect(opened[-1], ("127.0.0.1", port))
    return opened


async def test_a_node_without_descriptors(tmp_path: Path) -> None:
    """Hundreds of connections to both ports of a real node exhaust it for seconds: one line, and a peer may return.

    Its log, with its term and vote, is the same to the byte, and it has taken no memory to speak of.
    """
    async with Cluster(tmp_path, size=2) as cluster:
        cluster.spawn("n1")
        node = cluster.nodes["n1"]
        assert node.process is not None
        peer = Hearer("n2", secret=SECRET.encode())
        peer.port = cluster.nodes["n2"].raft_port
        peer.meet("n1", node.raft_port)
        await peer.start()
        opened: list[socket.socket] = []
        try:
            await eventually(lambda: peer.messages, seconds=30)
            await peer.transport.stop()
            journal = node.data / "journal"
            before, memory = {path.name: path.read_bytes() for path in journal.iterdir()}, node.memory_bytes
            used = max(int(path.name) for path in Path(f"/proc/{node.process.pid}/fd").iterdir())
            _, hard = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (used + 20, hard))
            opened += await connections(node.http_port, 60)
            opened += await connections(node.raft_port, 200)
            await eventually(lambda: "accept_failed" in node.output)
            for _ in range(5):  # asyncio tries again each second, and fails each time
                opened += await connections(node.raft_port, 10)
                await asyncio.sleep(0.5)
            assert node.alive
            assert {path.name: path.read_bytes() for path in journal.iterdir()} == before
            assert (growth := node.memory_bytes - memory) < MAX_GROWTH_BYTES, f"{growth} bytes"
            assert node.output.count("accept_failed") == 1, node.output
            assert "out of system resource" not in node.output
            assert "Traceback" not in node.output
            for end in opened:
                end.close()
            heard = len(peer.messages)
            await peer.start()
            await eventually(lambda: len(peer.messages) > heard)
        finally:
            for end in opened:
                end.close()
            await peer.transport.stop()
    assert node.output.count("accept_failed") == 1


def test_each_episode_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """However often accept fails, it is one episode until it has not failed for a while; nothing else is taken."""
    clock = HandClock()
    shortage = Shortage(clock)
    short = {"message": "", "exception": OSError(errno.EMFILE, "Too many open files"), "socket": object()}
    for step in (0.0, 0.0, 1.0, EPISODE_SECONDS):
        clock.seconds += step
        assert shortage.takes(short)
    assert len(caplog.records) == 1
    clock.seconds += EPISODE_SECONDS + 1
    assert shortage.takes(short)
    assert [record.getMessage()[:34] for record in caplog.records] == ["accept_failed: Too many open files"] * 2
    assert not shortage.takes({"message": "", "exception": OSError(errno.EPIPE, ""), "socket": object()})
    assert not shortage.takes({"message": "", "exception": OSError(errno.EMFILE, "")})
    assert not shortage.takes({"message": "a task failed"})
