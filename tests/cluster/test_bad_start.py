"""Starts that must be refused: each with a reason and a next step on stderr, and with nothing lost."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.harness import SECRET, Cluster, Node, eventually

NEVER = "0 0 29 2 *"
ADVICE_TO_WIPE = re.compile(
    r"(?<!not )(?<!never )(?<!n't )\b(?:wipe|delete|remove|erase|rm|unlink)\b[^.\n]*"
    r"\b(?:directory|folder|journal|data|files?|segments?)\b",
    re.IGNORECASE,
)


async def put_one(cluster: Cluster, node: str, name: str) -> None:
    await cluster.put_job(node, name, schedule=NEVER, executor={"type": "http", "url": "http://127.0.0.1:9/"})


async def assert_others_serve(cluster: Cluster, jobs: set[str], *names: str) -> None:
    """These nodes are ready, know these jobs, and take a write."""
    await cluster.wait_ready(*names)
    for name in names:
        assert {job["name"] for job in await cluster.pages(name, "/v1/jobs")} == jobs
    await put_one(cluster, names[0], "after")
    (await cluster.request(names[-1], "DELETE", "/v1/jobs/after")).expect(204)


def said_since(node: Node, before: str) -> str:
    """What the node has said since then, for `re.search`."""
    return node.err.read_text(errors="replace")[len(before) :] if node.err.exists() else ""


async def refused(cluster: Cluster, name: str, extra: Sequence[str] = ()) -> str:
    """Starts a node that must end by itself, not with 0 and not with a traceback; what it said on stderr."""
    node = cluster.nodes[name]
    before = node.err.read_text(errors="replace") if node.err.exists() else ""
    cluster.spawn(name, extra=extra)
    code = await cluster.wait_exit(name)
    said = said_since(node, before)
    assert code > 0, f"exit code {code}: {said}"
    assert "Traceback" not in said, said
    return said


async def turned_away(cluster: Cluster, name: str, word: str, *, secret: str | None = None) -> str:
    """Starts a node that its peers must refuse: it says `word` and never gets ready.

    It ends by itself, as soon as a majority has refused it by name; with a wrong secret nobody can know who is wrong,
    and it waits.
    """
    node = cluster.nodes[name]
    before = node.err.read_text(errors="replace") if node.err.exists() else ""
    cluster.spawn(name, secret=secret)

    async def told() -> bool:
        return bool(re.search(word, said_since(node, before)))

    await eventually(told, within=60, what=f"{name} says {word!r}")
    if secret is None:
        assert await cluster.wait_exit(name) == 2
    else:
        (await cluster.request(name, "GET", "/readyz")).expect(503)
        await cluster.kill(name)
    said = said_since(node, before)
    assert node.exit_code != 0, said
    assert "Traceback" not in said, said
    return said


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder, with a hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def test_two_nodes_with_one_name(tmp_path: Path) -> None:
    """A peer list with one name twice is refused; so is a second process that says it is n3, while n3 goes on."""
    async with Cluster(tmp_path) as cluster, Cluster(tmp_path / "other") as other:
        said = await refused(cluster, "n1", extra=["--peer", f"n2=127.0.0.1:{other.nodes['n1'].raft_port}"])
        assert "n2" in said
        await cluster.start()
        await put_one(cluster, "n1", "kept")
        # The impostor: the name, the peers and the secret of n3, but a disk and ports of its own.
        for name in ("n1", "n2"):
            other.nodes[name].raft_port = cluster.nodes[name].raft_port
        said = await turned_away(other, "n3", "raftcron cluster replace n3")
        assert not ADVICE_TO_WIPE.search(said), said
        await assert_others_serve(cluster, {"kept"}, "n1", "n2", "n3")


async def test_a_data_directory_in_use(tmp_path: Path) -> None:
    """A second process on the data directory of a running node is refused by name of the directory."""
    async with Cluster(tmp_path / "one", size=1) as cluster, Cluster(tmp_path / "two", size=1) as second:
        await cluster.start()
        await put_one(cluster, "n1", "kept")
        second.nodes["n1"].data = cluster.nodes["n1"].data
        said = await refused(second, "n1")
        assert str(cluster.nodes["n1"].data) in said
        await assert_others_serve(cluster, {"kept"}, "n1")


@pytest.mark.parametrize("secret", ["another cluster's secret", ""], ids=["another", "none"])
async def test_a_wrong_secret(tmp_path: Path, secret: str) -> None:
    """A node with another secret, or none, never gets ready and is told why; the others refuse it and go on."""
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        await put_one(cluster, "n1", "kept")
        await cluster.stop("n3")
        await turned_away(cluster, "n3", r"peer=n[12].*secret", secret=secret)
        await assert_others_serve(cluster, {"kept"}, "n1", "n2")
        await cluster.start("n3")
        await assert_others_serve(cluster, {"kept"}, "n1", "n2", "n3")


async def test_a_port_in_use(tmp_path: Path) -> None:
    """Both addresses, one after the other: the one that is taken is named, and the data directory is untouched."""
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        await put_one(cluster, "n1", "kept")
        await cluster.stop("n2")
        node = cluster.nodes["n2"]
        for port in (node.http_port, node.raft_port):
            with socket.socket() as taken:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind(("127.0.0.1", port))
                taken.listen()
                said = await refused(cluster, "n2")
                assert f"127.0.0.1:{port}" in said
        await cluster.start("n2")
        await assert_others_serve(cluster, {"kept"}, "n1", "n2", "n3")


async def test_a_data_directory_of_another_cluster(tmp_path: Path) -> None:
    """n3 with the disk of another cluster's n3 is refused, says whose disk that is, and infects nobody."""
    async with Cluster(tmp_path / "ours") as ours:
        async with Cluster(tmp_path / "theirs") as theirs:
            await theirs.start()
            await put_one(theirs, "n1", "foreign")
            foreign_id = (await theirs.status("n1"))["cluster_id"]
            await theirs.wait_converged()
            await theirs.stop()
        await ours.start()
        await put_one(ours, "n1", "kept")
        own_id = (await ours.status("n1"))["cluster_id"]
        assert own_id != foreign_id
        await ours.stop("n3")
        own_disk = ours.nodes["n3"].data
        ours.nodes["n3"].data = tmp_path / "theirs" / "n3"
        said = await turned_away(ours, "n3", "directory of another cluster")
        assert foreign_id in said
        assert own_id in said
        assert not ADVICE_TO_WIPE.search(said), said
        await assert_others_serve(ours, {"kept"}, "n1", "n2")
        ours.nodes["n3"].data = own_disk
        await ours.start("n3")
        await assert_others_serve(ours, {"kept"}, "n1", "n2", "n3")
        await ours.stop()
        async with Cluster(tmp_path / "theirs") as theirs:
            await theirs.start()
            await assert_others_serve(theirs, {"foreign"}, "n1", "n2", "n3")


async def test_a_damaged_journal(tmp_path: Path) -> None:
    """One flipped byte in the middle: refused with file and offset, nothing is cut, and nobody is told to wipe it."""
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        for place in range(40):
            await put_one(cluster, "n1", f"job-{place}")
        jobs = {f"job-{place}" for place in range(40)}
        await cluster.wait_converged()
        await cluster.stop("n2")
        folder = cluster.nodes["n2"].data / "journal"
        segment = max((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_size)
        whole = segment.read_bytes()
        used = len(whole.rstrip(b"\0"))  # segments may be allocated ahead
        for place in (used // 4, used // 2, used * 3 // 4):
            segment.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            before = fingerprint(folder)
            said = await refused(cluster, "n2")
            assert str(segment) in said
            offsets = [int(number) for number in re.findall(r"\b\d+\b", said.replace(str(segment), ""))]
            assert any(place - 4096 <= offset <= place for offset in offsets), f"no offset near {place}: {said}"
            assert "raftcron cluster replace n2" in said
            assert not ADVICE_TO_WIPE.search(said), said
            assert fingerprint(folder) == before
        await assert_others_serve(cluster, jobs, "n1", "n3")
        segment.write_bytes(whole)
        await cluster.start("n2")
        await assert_others_serve(cluster, jobs, "n1", "n2", "n3")


async def test_a_wiped_directory_under_a_known_name(tmp_path: Path) -> None:
    """A node that lost its disk is a stranger: refused, naming the command that replaces it; the others go on."""
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        await put_one(cluster, "n1", "kept")
        leader = await cluster.wait_leader()
        victim = next(name for name in cluster.nodes if name != leader)
        await cluster.kill(victim)
        shutil.rmtree(cluster.nodes[victim].data)
        said = await turned_away(cluster, victim, f"raftcron cluster replace {victim}")
        assert not ADVICE_TO_WIPE.search(said), said
        await assert_others_serve(cluster, {"kept"}, *(name for name in cluster.nodes if name != victim))


async def test_settings_out_of_range(tmp_path: Path) -> None:
    """Each is refused by name at start, with what would be right."""
    async with Cluster(tmp_path, size=1) as cluster:
        for flags, word in (
            (["--lease", "1ms"], "lease"),
            (["--lease", "soon"], "lease"),
            (["--http", "nowhere"], "http"),
            (["--lease", "2s", "--lease-margin", "1s"], "lease-margin"),
            (["--no-such-flag"], "no-such-flag"),
        ):
            said = await refused(cluster, "n1", extra=flags)
            assert word in said
        assert not (cluster.nodes["n1"].data / "journal").exists()


async def test_an_address_for_the_world_needs_tokens(tmp_path: Path) -> None:
    """Refused without a cluster secret, unless --insecure says otherwise; with one, each request needs a token.

    The first token is made beside the node, and counts at once.
    """
    async with Cluster(tmp_path, size=1, secret="") as cluster:
        node = cluster.nodes["n1"]
        world = ["--http", f"0.0.0.0:{node.http_port}", "--advertise-http", f"127.0.0.1:{node.http_port}"]
        said = await refused(cluster, "n1", extra=world)
        assert "token" in said
        assert "--insecure" in said
        cluster.spawn("n1", extra=world, secret=SECRET)
        await cluster.wait_ready("n1")
        (await cluster.request("n1", "GET", "/v1/jobs")).expect(401)
        made = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "raftcron", "token", "create", "--bootstrap", "--data-dir", str(node.data),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        text = (await made.communicate())[0].decode().strip()
        headers = {"Authorization": f"Bearer {text}"}
        (await cluster.request("n1", "GET", "/v1/jobs", headers=headers)).expect(200)
