"""The harness itself: what the cluster tests lean on, without any node."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster import disks
from tests.cluster.disks import DiskCluster, best_disk_cluster
from tests.cluster.harness import Cluster, ReservedPorts, UnansweredError, eventually
from tests.cluster.network import NamespacedCluster, ProxiedCluster
from tests.cluster.wall_clocks import WallClockCluster, best_clock_cluster


async def test_a_condition_is_awaited_and_its_last_reason_is_told() -> None:
    """It gives what the condition gave; too late, it says what was awaited and why it was not so."""
    answers = iter([None, 0, "there"])

    async def third_time() -> object:
        return next(answers)

    assert await eventually(third_time, within=5, what="the third answer", every=0) == "there"

    async def never() -> bool:
        raise AssertionError("the moon is not full")

    with pytest.raises(AssertionError, match=r"full moon.*the moon is not full"):
        await eventually(never, within=0, what="full moon")


def test_reserved_ports_are_free_and_nobody_elses() -> None:
    """Two reservations never share a port, and a released one can be listened on."""
    first, second = ReservedPorts(3), ReservedPorts(3)
    try:
        assert len({*first.numbers, *second.numbers}) == 6
    finally:
        first.release()
        second.release()
    for port in first.numbers:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections linger
            listener.bind(("127.0.0.1", port))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_a_request_is_sent_once(tmp_path: Path, method: str) -> None:
    """A node that reads and dies gets it a single time: else an unanswered write could pass as never sent."""
    requests = 0

    async def read_and_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with Cluster(tmp_path, size=1) as cluster:
        server = await asyncio.start_server(read_and_hang_up, "127.0.0.1", cluster.nodes["n1"].http_port)
        async with server:
            with pytest.raises(UnansweredError):
                await cluster.request("n1", method, "/v1/jobs/one", body=None if method == "GET" else {})
    assert requests == 1


async def test_a_command_line_is_the_contracts(tmp_path: Path) -> None:
    """Name, data directory, both addresses and every peer, as api.md section 1 has them."""
    async with Cluster(tmp_path, extra=["--lease", "2s"], allow_shell=True) as cluster:
        command = cluster.command("n2")
        node = cluster.nodes["n2"]
        assert command[3:8] == ["server", "--name", "n2", "--data-dir", str(tmp_path / "n2")]
        assert command[8:12] == ["--http", f"127.0.0.1:{node.http_port}", "--raft", node.raft]
        assert [word for word in command if "=" in word] == [f"{n.name}={n.raft}" for n in cluster.nodes.values()]
        assert command[-3:] == ["--lease", "2s", "--allow-shell"]


@pytest.mark.parametrize("network", [NamespacedCluster, ProxiedCluster])
def test_a_cluster_that_suffers_all_faults_is_of_all_sorts(network: type[Cluster]) -> None:
    """`scripts/chaos` joins them: what the one has of its own takes no name of the others', but for what each adds to.

    Those are `command`, which each hands on.
    """
    names = Counter(name for sort in (network, DiskCluster, WallClockCluster) for name in vars(sort))
    assert {name for name, count in names.items() if count > 1 and not name.startswith("__")} <= {"command"}


def test_without_a_compiler_it_is_said_that_no_clock_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict lists what could not be injected."""
    monkeypatch.setenv("PATH", "")
    make = best_clock_cluster(tmp_path)
    assert not issubclass(make, WallClockCluster)
    [told] = make.not_injected
    assert told.startswith("wall clocks that step: there is no C compiler")


def test_without_mounts_it_is_said_that_no_power_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise; what a verdict does with it is in tests/chaos/test_checker.py."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(disks, "why_no_disks", disks.why_no_disks.__wrapped__)  # not what was found here before
    make = best_disk_cluster()
    assert not issubclass(make, DiskCluster)
    [told] = make.not_injected
    assert told.startswith("power cuts: ")
    assert "mkfs.ext4" in told
