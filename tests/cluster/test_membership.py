"""Members that come and go: damaged and lost directories, growth, removal, also of the leader; by the command line."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cluster.harness import NO_ANSWER, Cluster, Node, eventually

NEVER = "0 0 29 2 *"
QUICK = ("--lease", "2s", "--lease-margin", "500ms")  # a name that is given up waits for its lease


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Growing(Cluster):
    """`founders` nodes that found a cluster, and machines for more; all are told of the founders alone, for ever."""

    def __init__(self, folder: Path, *, founders: int = 3, more: int = 0) -> None:
        super().__init__(folder, size=founders + more, extra=QUICK)
        self.founders = list(self.nodes)[:founders]
        self.members = list(self.founders)

    def command(self, name: str, extra: Sequence[str] = ()) -> list[str]:
        told = super().command(name, extra)
        strange = [
            place
            for place, flag in enumerate(told)
            if flag == "--peer" and told[place + 1].partition("=")[0] not in (*self.founders, name)
        ]
        return [part for place, part in enumerate(told) if not {place, place - 1} & set(strange)]

    async def found(self) -> None:
        """The founders, ready, and a job."""
        await self.start(*self.members)
        await self.write("kept")

    async def leader(self) -> str | None:
        """Who leads by the word of a majority of the members."""
        said: list[str | None] = []
        for name in (name for name in self.alive if name in self.members):
            try:
                said.append((await self.status(name))["leader"])
            except NO_ANSWER:
                continue
        return next((name for name in said if name and said.count(name) > len(self.members) // 2), None)

    async def cli(self, *arguments: str, on: str = "n1") -> Said:
        """`raftcron ARGUMENTS --addr` of that node."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "raftcron", *arguments, "--addr", self.nodes[on].url),
            env=self.environment(),
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        said = Said(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in said.err, said.err
        return said

    async def done(self, *arguments: str, on: str = "n1") -> Said:
        """The same, and it went well."""
        said = await self.cli(*arguments, on=on)
        assert said.code == 0, said.err
        return said

    async def write(self, name: str, on: str = "n1") -> None:
        await self.put_job(on, name, schedule=NEVER, executor={"type": "http", "url": "http://127.0.0.1:9/"})

    async def standings(self, on: str) -> dict[str, str]:
        return {one["name"]: one["standing"] for one in (await self.status(on))["members"]}

    async def until_voters(self, *names: str, on: str = "n1", within: float = 30) -> None:
        """Until this node knows exactly these members, and all of them vote."""

        async def all_vote() -> bool:
            found = await self.standings(on)
            assert found == dict.fromkeys(names, "voter"), found
            return True

        await eventually(all_vote, within=within, what=f"the members are {names}, and all vote")

    async def member(self, name: str, on: str = "n1") -> Any:
        return next(one for one in (await self.status(on))["members"] if one["name"] == name)


def flip_a_byte(node: Node) -> None:
    """In the middle of what the journal has synced."""
    segment = max((node.data / "journal").glob("*.segment"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0x40
    segment.write_bytes(data)


async def test_a_damaged_journal_is_replaced_by_the_command_that_the_refusal_names(tmp_path: Path) -> None:
    """The node says what to type; then it starts, catches up, votes and counts its lives on; nothing is deleted."""
    async with Growing(tmp_path) as cluster:
        await cluster.found()
        before = (await cluster.member("n3"))["incarnation"]
        n3 = cluster.nodes["n3"]
        running = await cluster.cli("cluster", "replace", "n3", "--data-dir", str(n3.data))
        assert (running.code, str(n3.data) in running.err) == (2, True), running.err
        await cluster.kill("n3")
        flip_a_byte(n3)
        cluster.spawn("n3")
        assert await cluster.wait_exit("n3") == 1
        advice = re.search(r"raftcron (cluster replace n3 --data-dir [^\s`]+)", n3.err.read_text())
        assert advice is not None, n3.err.read_text()
        replaced = await cluster.done(*shlex.split(advice[1]))
        assert "Start it again" in replaced.err
        assert (await cluster.standings("n2"))["n3"] == "awaited"
        (aside,) = n3.data.glob("damaged-*")
        assert (aside / "journal").is_dir()
        assert not (n3.data / "journal").exists()
        await cluster.start("n3")
        await cluster.until_voters("n1", "n2", "n3")
        await cluster.wait_converged()
        assert (await cluster.member("n3"))["incarnation"] > before
        await cluster.wait_leader()
        await cluster.kill("n2")  # from now on nothing commits without n3
        await cluster.wait_leader()
        await cluster.write("after", on="n3")


async def test_a_lost_directory_is_refused_until_it_is_replaced(tmp_path: Path) -> None:
    """An empty directory under a known name is a stranger; so is the old one once it has been replaced."""
    async with Growing(tmp_path) as cluster:
        await cluster.found()
        n3 = cluster.nodes["n3"]
        await cluster.stop("n3")
        n3.data.rename(tmp_path / "old")
        cluster.spawn("n3")
        assert await cluster.wait_exit("n3") == 2
        assert "raftcron cluster replace n3" in n3.err.read_text()
        assert "awaited" in (await cluster.done("cluster", "replace", "n3", on="n2")).err
        shutil.rmtree(n3.data)
        await cluster.start("n3")
        await cluster.until_voters("n1", "n2", "n3", on="n3")
        await cluster.wait_converged()
        await cluster.restart("n3")  # in its second life it is as known as any
        await cluster.stop("n3")
        n3.data.rename(tmp_path / "new")
        (tmp_path / "old").rename(n3.data)
        cluster.spawn("n3")
        assert await cluster.wait_exit("n3") == 2
        assert "removed from cluster" in n3.err.read_text()
        await cluster.write("after")


@pytest.mark.parametrize("lives", [1, 2])
async def test_a_directory_that_was_set_back_is_found_out(lives: int, tmp_path: Path) -> None:
    """By just one life, too, although its next life has the number that is expected then."""
    async with Growing(tmp_path) as cluster:
        await cluster.found()
        n3 = cluster.nodes["n3"]
        await cluster.stop("n3")
        shutil.copytree(n3.data, tmp_path / "copy")
        for number in range(lives):
            await cluster.start("n3")
            await cluster.write(f"job{number}", on="n3")
            await cluster.stop("n3")
        shutil.rmtree(n3.data)
        (tmp_path / "copy").rename(n3.data)
        cluster.spawn("n3")
        assert await cluster.wait_exit("n3") == 2
        assert "old copy" in n3.err.read_text()
        assert "raftcron cluster replace n3" in n3.err.read_text()


async def test_a_cluster_grows_to_five_and_shrinks_again(tmp_path: Path) -> None:
    """Newcomers learn and then vote: of five, two may die; whoever is removed ends by itself, and says why."""
    async with Growing(tmp_path, more=2) as cluster:
        await cluster.found()
        for name in ("n4", "n5"):
            node = cluster.nodes[name]
            said = await cluster.done("cluster", "add", name, "--raft", node.raft, "--http", node.url[7:], on="n2")
            assert f"--peer n1={cluster.nodes['n1'].raft}" in said.err
            cluster.members.append(name)
            await cluster.start(name)
            await cluster.until_voters(*cluster.members)
        await cluster.wait_converged()
        leader = await cluster.wait_leader()
        dead = (leader, next(name for name in ("n1", "n2") if name != leader))
        await cluster.kill(*dead)
        await cluster.wait_leader()
        await cluster.write("with-three-of-five", on="n5")
        await cluster.start(*dead)
        for name in ("n5", "n4"):
            on = await cluster.wait_leader()
            await cluster.done("cluster", "remove", name, on=on)
            cluster.members.remove(name)
            assert await cluster.wait_exit(name) == 2
            assert f"{name} with disk" in cluster.nodes[name].err.read_text()
        await cluster.until_voters("n1", "n2", "n3")
        await cluster.write("with-three")
        await cluster.wait_converged()


async def test_one_node_grows_to_three(tmp_path: Path) -> None:
    """A lone node alone commits that others come; with --wait the command returns when the newcomer votes."""
    async with Growing(tmp_path, founders=1, more=2) as cluster:
        await cluster.found()
        for name in ("n2", "n3"):
            node = cluster.nodes[name]
            adding = asyncio.create_task(cluster.done("cluster", "add", name, "--raft", node.raft, "--wait"))

            async def is_awaited(name: str = name) -> bool:
                return (await cluster.standings("n1")).get(name) == "awaited"

            await eventually(is_awaited, within=60, what=f"{name} is awaited")
            cluster.members.append(name)
            await cluster.start(name)
            assert name in (await adding).out
        await cluster.until_voters("n1", "n2", "n3")
        await cluster.kill(await cluster.wait_leader())
        await cluster.wait_leader()
        await cluster.write("after", on=cluster.alive[0])


async def test_the_leader_is_removed(tmp_path: Path) -> None:
    """It hands over first, whoever was asked; and ends."""
    async with Growing(tmp_path) as cluster:
        await cluster.found()
        leader = await cluster.wait_leader()
        rest = [name for name in cluster.members if name != leader]
        await cluster.done("cluster", "remove", leader, on=leader)
        cluster.members.remove(leader)
        assert await cluster.wait_exit(leader) == 2
        await cluster.until_voters(*rest, on=rest[0])
        await cluster.write("after", on=rest[1])


async def test_what_would_stop_the_cluster_is_refused(tmp_path: Path) -> None:
    """With a node down the other ones stay; the refusal names it, and it alone may go."""
    async with Growing(tmp_path) as cluster:
        await cluster.found()
        await cluster.kill("n3")
        await asyncio.sleep(1.2)  # who has not answered within a second counts as silent
        leader = await cluster.wait_leader()
        said = await cluster.cli("cluster", "remove", leader, on=leader)
        assert said.code == 4, said
        assert "n3 does not" in said.err
        assert set((await cluster.standings(leader)).values()) == {"voter"}
        await cluster.done("cluster", "remove", "n3", on=leader)
        assert await cluster.standings(leader) == {"n1": "voter", "n2": "voter"}
        assert (await cluster.cli("cluster", "remove", "n3", on=leader)).code == 3


async def test_the_lead_is_handed_over_by_name(tmp_path: Path) -> None:
    """To whom one says; and the table of members shows it."""
    async with Growing(tmp_path) as cluster:
        await cluster.found()
        leader = await cluster.wait_leader()
        to = next(name for name in cluster.members if name != leader)
        assert (await cluster.done("cluster", "transfer", to, "-o", "name", on=leader)).out == f"{to}\n"
        table = (await cluster.done("cluster", "members", on=to)).out.splitlines()
        assert [line.split()[:3] for line in table if " leader " in line] == [[to, "leader", "voter"]]
