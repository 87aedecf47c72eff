"""`raftcron cluster members|add|remove|replace|transfer`: what is asked, what is told, what is done on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raftcron.cli.cluster import ASIDE
from raftcron.raft import SystemDevice
from raftcron.raft.journal import Journal
from tests.cli.conftest import StandIn, call

NAMES = ("n1", "n2", "n3")


def members(**standings: str) -> list[dict[str, Any]]:
    """The members as a node shows them, all voters but for these."""
    known = dict.fromkeys(NAMES, "voter") | standings
    return [
        {
            "name": name,
            "role": "leader" if name == "n1" else "follower" if standing == "voter" else "learner",
            "standing": standing,
            "http": f"127.0.0.1:710{name[1:]}",
            "raft": f"127.0.0.1:720{name[1:]}",
            "alive": standing != "awaited",
            **dict.fromkeys(("applied_index", "digest", "incarnation", "clock_offset_ms", "version")),
        }
        for name, standing in known.items()
    ]


def shown(**standings: str) -> dict[str, Any]:
    return {"cluster_id": "c", "members": members(**standings), "digests": []}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """n3's data directory, with a journal, a snapshot and what is not replicated."""
    place = tmp_path / "n3"
    journal = Journal.open(place / "journal", SystemDevice())
    journal.begin("n3", "disk")
    journal._destroy()
    (place / "snapshots").mkdir()
    (place / "output").mkdir()
    (place / "lock").touch()
    yield place


async def test_members_as_a_table_and_as_json(node: StandIn) -> None:
    """One line a member, with what it is in the cluster."""
    for _ in range(2):
        node.answers(200, shown(n4="awaited"))
    table = (await call("cluster", "members", addr=node.address)).stdout.splitlines()
    assert table[0].split()[:5] == ["NAME", "ROLE", "STANDING", "ALIVE", "HTTP"]
    assert table[4].split()[:4] == ["n4", "learner", "awaited", "false"]
    as_json = await call("cluster", "members", "-o", "json", addr=node.address)
    assert json.loads(as_json.stdout) == {"items": members(n4="awaited")}


async def test_add_says_how_the_node_is_started(node: StandIn) -> None:
    """With every peer; the members are on stdout, the next step on stderr; it does not wait for what nobody starts."""
    node.answers(202, {"members": members(n4="awaited")})
    added = await call(
        *("cluster", "add", "n4", "--raft", "127.0.0.1:7204", "--http", "127.0.0.1:7104", "-o", "name"),
        addr=node.address,
    )
    assert added.exit_code == 0, added.stderr
    assert added.stdout.split() == ["n1", "n2", "n3", "n4"]
    assert "raftcron server --name n4 --data-dir DIR --raft 127.0.0.1:7204 --http 127.0.0.1:7104" in added.stderr
    assert "with --cluster-secret-file FILE if the others have it" in added.stderr
    assert all(f"--peer n{number}=127.0.0.1:720{number}" in added.stderr for number in range(1, 5))
    assert node.asked == [
        ("POST", "/v1/cluster/members", {"name": "n4", "raft": "127.0.0.1:7204", "http": "127.0.0.1:7104"})
    ]


@pytest.mark.parametrize("command", ["members", "status"])
async def test_a_drained_node_is_shown_to_be(node: StandIn, command: str) -> None:
    """In a column of its own, which no terminal is too narrow for."""
    found = members(n4="voter")
    found[1] |= {"drained": True}
    found[2] |= {"drained": False}
    node.answers(200, {"leader": "n1", "members": found})
    result = await call("cluster", command, addr=node.address)
    lines = [line.split() for line in result.stdout.splitlines()[-5:]]
    place = lines[0].index("DRAINED")
    assert "DRAINED" not in ASIDE
    assert [line[place] for line in lines[1:]] == ["-", "true", "false", "-"]


async def test_wait_returns_when_the_newcomer_votes(node: StandIn) -> None:
    """Looking again and again, also past a node that cannot answer just now."""
    node.answers(202, {"members": members(n4="awaited")})
    node.answers(200, shown(n4="learner"))
    node.refuses(500, "error", "not now")
    node.answers(200, shown(n4="voter"))
    added = await call("cluster", "add", "n4", "--raft", "127.0.0.1:7204", "--wait", addr=node.address)
    assert added.exit_code == 0, added.stderr
    assert added.stdout.splitlines()[4].split()[:3] == ["n4", "follower", "voter"]
    assert [path for _, path, _ in node.asked[1:]] == ["/v1/cluster"] * 3


@pytest.mark.parametrize(("standing", "why"), [("awaited", "has not come"), ("learner", "still learns")])
async def test_wait_ends_with_a_reason(node: StandIn, standing: str, why: str) -> None:
    """Exit code 5: what is asked for is done, and the rest may still come."""
    node.answers(202, {"members": members(n3=standing)})
    for _ in range(10):
        node.answers(200, shown(n3=standing))
    late = await call("cluster", "replace", "n3", "--wait", "--timeout", "0.3", addr=node.address)
    assert late.exit_code == 5
    assert f"after 0.3 s n3 {why}" in late.stderr


async def test_remove(node: StandIn) -> None:
    """Nothing on stdout; a stranger is exit code 3, what would stop the cluster 4."""
    node.answers(204)
    removed = await call("cluster", "remove", "n3", addr=node.address)
    assert (removed.exit_code, removed.stdout) == (0, "")
    assert "n3: removed" in removed.stderr
    assert node.asked == [("DELETE", "/v1/cluster/members/n3", None)]
    for status, code, exit_code in ((404, "not_found", 3), (409, "unsafe_change", 4)):
        node.refuses(status, code, "no")
        assert (await call("cluster", "remove", "n9", addr=node.address)).exit_code == exit_code


async def test_transfer(node: StandIn) -> None:
    """To a name, or to whoever is ready; the answer is who leads."""
    for _ in range(2):
        node.answers(200, {"leader": "n2"})
    assert (await call("cluster", "transfer", "n2", "-o", "name", addr=node.address)).stdout == "n2\n"
    await call("cluster", "transfer", addr=node.address)
    assert [body for _, _, body in node.asked] == [{"to": "n2"}, {}]


async def test_replace_waits_for_a_lease_to_end(node: StandIn) -> None:
    """Refused for some seconds only, it is asked again; refused for good, it is told."""
    node.answers(409, {"code": "conflict", "detail": "n3 was heard just now"}, **{"Retry-After": "1"})
    node.answers(202, {"members": members(n3="awaited")})
    replaced = await call("cluster", "replace", "n3", "--raft", "127.0.0.9:1", addr=node.address)
    assert replaced.exit_code == 0, replaced.stderr
    assert "n3 was heard just now; waiting 1 s" in replaced.stderr
    assert "empty data directory" in replaced.stderr
    assert node.asked == [("POST", "/v1/cluster/members/n3/replace", {"raft": "127.0.0.9:1"})] * 2
    node.refuses(409, "conflict", "n3 runs, and is connected")
    assert (await call("cluster", "replace", "n3", addr=node.address)).exit_code == 4


async def test_replace_puts_aside_what_the_node_held(node: StandIn, directory: Path) -> None:
    """Journal and snapshots, below the directory itself; nothing is deleted, and what is not replicated stays."""
    node.answers(202, {"members": members(n3="awaited")})
    replaced = await call("cluster", "replace", "n3", "--data-dir", str(directory), addr=node.address)
    assert replaced.exit_code == 0, replaced.stderr
    (aside,) = directory.glob("damaged-*")
    assert sorted(path.name for path in aside.iterdir()) == ["journal", "snapshots"]
    assert sorted(path.name for path in directory.iterdir()) == [aside.name, "lock", "output"]
    assert str(aside) in replaced.stderr
    assert "Start it again" in replaced.stderr


async def test_a_refused_replace_has_moved_nothing(node: StandIn, directory: Path) -> None:
    """The cluster is asked first."""
    node.refuses(409, "unsafe_change", "n2 does not answer")
    refused = await call("cluster", "replace", "n3", "--data-dir", str(directory), addr=node.address)
    assert (refused.exit_code, "n2 does not answer" in refused.stderr) == (4, True)
    assert (directory / "journal").is_dir()
    assert not list(directory.glob("damaged-*"))


async def test_replace_keeps_off_a_directory_that_is_not_its_own(
    node: StandIn, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another node, in use, or not there: exit code 2, and the cluster is not asked."""
    monkeypatch.setattr("raftcron.cli.cluster.HELD_SECONDS", 0.3)
    other = await call("cluster", "replace", "n2", "--data-dir", str(directory), addr=node.address)
    assert "belongs to node n3, not to n2" in other.stderr
    device = SystemDevice()
    for lock in (directory / "lock", directory / "journal" / "lock"):
        handle = device.lock(lock)
        used = await call("cluster", "replace", "n3", "--data-dir", str(directory), addr=node.address)
        device.close(handle)
        assert f"fuser {lock}" in used.stderr
        assert used.exit_code == 2
    gone = await call("cluster", "replace", "n3", "--data-dir", str(directory / "no"), addr=node.address)
    assert "there is no such directory" in gone.stderr
    assert {other.exit_code, gone.exit_code} == {2}
    assert node.asked == []


async def test_the_time_is_accepted_by_the_leader(node: StandIn) -> None:
    """Its name goes along, that of whoever leads unless one is given; what the cluster's time is then is shown."""
    then = {**shown(), "leader": "n1", "time": "2027-01-15T08:00:00Z", "clock_untrusted": False}
    post = "/v1/cluster/accept-time"
    node.answers(200, then)
    node.answers(200, then)
    accepted = await call("cluster", "accept-time", "-o", "name", addr=node.address)
    assert (accepted.exit_code, accepted.stdout.strip()) == (0, "2027-01-15T08:00:00Z")
    assert node.asked == [("GET", "/v1/cluster", None), ("POST", post, {"leader": then["leader"]})]
    node.asked.clear()
    node.refuses(409, "conflict", "n1 leads, not 'n3'")
    refused = await call("cluster", "accept-time", "--leader", "n3", addr=node.address)
    assert refused.exit_code == 4
    assert node.asked == [("POST", post, {"leader": "n3"})]
    node.answers(200, then | {"leader": None})
    nobody = await call("cluster", "accept-time", addr=node.address)
    assert (nobody.exit_code, "there is no leader now" in nobody.stderr) == (5, True)


async def test_events_are_a_line_each(node: StandIn) -> None:
    """Until what was missed is said to be gone: exit code 3."""
    stream = 'id: 5.0\nevent: run\ndata: {"at": "2026-01-01T00:00:00Z", "job": "a", "state": "lost", "error": null}\n\n'
    stream += 'id: 6.0\nevent: job\ndata: {"at": "2026-01-01T00:00:01Z", "name": "b"}\n\n'
    node.answers(200, stream)
    node.refuses(410, "gone", "the oldest held is 9.0")
    result = await call("cluster", "events", "--after", "4.0", "--kind", "run", addr=node.address)
    assert result.exit_code == 3
    assert result.stdout == "2026-01-01T00:00:00Z  5.0  run  job=a state=lost\n"
    assert [sent.get("last-event-id") for sent in node.headers] == ["4.0", "6.0"]


async def test_events_as_data(node: StandIn) -> None:
    """A line each as JSON, a document each as YAML, or their ids."""
    stream = 'id: 5.0\nevent: job\ndata: {"name": "b"}\n\nevent: dropped\ndata: {}\n\nid: 6.0\nevent: job\ndata: {}\n\n'
    wanted = [
        {"id": "5.0", "event": "job", "data": {"name": "b"}},
        {"id": None, "event": "dropped", "data": {}},
        {"id": "6.0", "event": "job", "data": {}},
    ]
    said = {}
    for form in ("json", "yaml", "name"):
        node.answers(200, stream)
        node.refuses(410, "gone", "the oldest held is 9.0")
        said[form] = (await call("cluster", "events", "-o", form, addr=node.address)).stdout
    assert [json.loads(line) for line in said["json"].splitlines()] == wanted
    assert list(yaml.safe_load_all(said["yaml"])) == wanted
    assert said["name"] == "5.0\n6.0\n"
