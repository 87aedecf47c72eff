"""What becomes of commands when their node is stopped, killed, cut off or told to end: real processes, short leases."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from raftcron.executors import processes
from tests.cluster.harness import Cluster, eventually
from tests.patience import quickest

LEASE_SECONDS = 4
LEASE = ("--lease", "4s", "--lease-margin", "1s")  # beats each second, told to stop after two without an answer


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def is_gone(pid: int) -> bool:
    found = processes.look(pid)
    return found is None or found.is_dead


def watched(folder: Path) -> str:
    """A command that sleeps, and a child of its own session that ignores SIGTERM; names whoever of an earlier attempt
    still lives when this one starts."""
    return (
        f"cd {folder}; for pid in $(cat pids 2>/dev/null); do kill -0 $pid 2>/dev/null && echo $pid >> overlaps; done;"
        " trap '' TERM; setsid sh -c \"trap '' TERM; sleep 120; :\" & echo $! >> pids; echo $$ >> pids; sleep 120; :"
    )


async def test_a_node_opens_as_many_files_as_it_may_and_its_commands_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soft limit that is far too low for a node is what programs of its jobs may rely on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with Cluster(tmp_path, size=1, allow_shell=True) as cluster:
        command = cluster.command("n1")
        monkeypatch.setattr(cluster, "command", lambda *_: ["sh", "-c", 'ulimit -Sn 200; exec "$@"', "sh", *command])
        await cluster.start()
        node = cluster.nodes["n1"]
        assert node.process is not None
        assert resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        told = tmp_path / "told"
        text = f"ulimit -Sn > {told}.new; mv {told}.new {told}"
        await cluster.put_job("n1", "tells", schedule="@every 1s", executor={"type": "shell", "command": text})

        async def is_told() -> bool:
            return told.exists()

        await eventually(is_told, within=60, what="a command has run")
        assert told.read_text() == "200\n"


async def where_it_runs(cluster: Cluster, job: str) -> Any:
    """The active run of a job, once its command is up, by the word of any living node."""

    async def running() -> Any:
        answer = await cluster.request(cluster.alive[0], "GET", f"/v1/runs?job={job}&state=running&limit=1")
        items = answer.expect(200).json["items"]
        return items[0] if items else None

    return await eventually(running, within=60, what=f"a run of {job}")


async def two_more(file: Path, seen: int, within: float) -> None:
    async def more() -> bool:
        return len(pids(file)) >= seen + 2

    await eventually(more, within=within, what="another attempt has started")


async def test_a_stopped_node_starts_nothing_beside_its_successor(tmp_path: Path) -> None:
    """SIGSTOP of the daemon while its `skip` job sleeps: all of it is gone before another attempt starts, elsewhere."""
    async with Cluster(tmp_path, allow_shell=True, extra=LEASE) as cluster:
        await cluster.start()
        await cluster.put_job(
            "n1",
            "sleeper",
            schedule="@every 1s",
            delivery="at_least_once",
            executor={"type": "shell", "command": watched(tmp_path)},
            kill_after="60s",
        )
        run = await where_it_runs(cluster, "sleeper")
        file = tmp_path / "pids"
        await two_more(file, 0, 60)
        first = pids(file)
        cluster.sigstop(run["node"])
        await two_more(file, 2, 60)
        assert all(map(is_gone, first))
        assert not (tmp_path / "overlaps").exists()
        again = await where_it_runs(cluster, "sleeper")
        assert again["node"] != run["node"]
        assert (again["id"], again["attempt"]) == (run["id"], 2)
        assert again["fencing_token"] > run["fencing_token"]
        await asyncio.sleep(5)  # longer than its lease: what it holds is worth nothing when it wakes up
        cluster.sigcont(run["node"])
        await cluster.wait_ready()
        await cluster.wait_converged()
        assert len(pids(file)) == 4
        assert not (tmp_path / "overlaps").exists()


@pytest.mark.parametrize(("leads", "leases"), [(True, 6), (False, 2)], ids=["it leads", "it follows"])
async def test_a_node_that_is_stopped_for_long_has_no_run_beside_the_next(
    leads: bool, leases: int, tmp_path: Path
) -> None:
    """An at_most_once `skip` job, its node stopped for some leases: all of the run is gone before the next one starts.

    The run is lost and is not tried again; what fell due until then is skipped because of it; and when the node wakes
    up it stops nothing, starts nothing, and tells nobody otherwise.
    """
    async with Cluster(tmp_path, allow_shell=True, extra=LEASE) as cluster:
        await cluster.start()
        executor = {"type": "shell", "command": watched(tmp_path)}
        await cluster.put_job("n1", "sleeper", schedule="@every 1s", executor=executor, kill_after="60s")
        former, file = await where_it_runs(cluster, "sleeper"), tmp_path / "pids"
        await two_more(file, 0, 60)
        if not leads:
            other = next(name for name in cluster.nodes if name != former["node"])
            (await cluster.request(other, "POST", "/v1/cluster/transfer", body={"to": other})).expect(200)
            await cluster.wait_leader(other_than=former["node"])
        first = pids(file)
        assert not any(map(is_gone, first))
        cluster.sigstop(former["node"])
        stopped = time.monotonic()
        await two_more(file, 2, 60)
        assert all(map(is_gone, first))
        seconds = leases * LEASE_SECONDS  # how long it is stopped is the story
        await asyncio.sleep(max(0.0, stopped + seconds - time.monotonic()))
        following = await where_it_runs(cluster, "sleeper")
        cluster.sigcont(former["node"])
        await cluster.wait_ready()
        await cluster.wait_converged()

        assert not (tmp_path / "overlaps").exists()
        assert len(pids(file)) == 4
        assert not any(map(is_gone, pids(file)[2:]))
        assert (await where_it_runs(cluster, "sleeper"))["fencing_token"] == following["fencing_token"]
        rows = {row["id"]: row for row in await cluster.runs(following["node"], "sleeper")}
        lost, goes_on = rows[former["id"]], rows[following["id"]]
        assert (lost["state"], lost["attempt"], lost["node"]) == ("lost", 1, former["node"])
        assert (goes_on["state"], goes_on["attempt"]) == ("running", 1)
        assert goes_on["node"] != lost["node"]
        assert goes_on["fencing_token"] > lost["fencing_token"]
        assert goes_on["attempts"][0]["started_index"] > lost["finished_index"]
        between = [
            (row["state"], row["reason"], row["blocked_by"])
            for row in rows.values()
            if lost["scheduled_time"] < row["scheduled_time"] < goes_on["scheduled_time"]
        ]
        assert set(between) == {("skipped", "overlap", lost["id"])}


async def test_a_node_that_is_heard_stops_nothing(tmp_path: Path) -> None:
    """However short the lease and however long `kill_after`: heartbeats come often enough for half a lease."""
    async with Cluster(
        tmp_path, size=1, allow_shell=True, extra=("--lease", "2s", "--lease-margin", "500ms")
    ) as cluster:
        await cluster.start()
        executor = {"type": "shell", "command": "sleep 4; echo done"}
        await cluster.put_job("n1", "sleeper", schedule="@manual", executor=executor, kill_after="60s")
        started = (await cluster.request("n1", "POST", "/v1/jobs/sleeper/runs", body={})).expect(202).json["run"]

        async def ended() -> Any:
            run = (await cluster.request("n1", "GET", f"/v1/runs/{started['id']}")).expect(200).json
            return run if run["finished_at"] else None

        run = await eventually(ended, within=60, what="the run has ended")
        assert (run["state"], run["output_tail"]) == ("succeeded", "done\n"), run


async def test_nothing_outlives_a_killed_node(tmp_path: Path) -> None:
    """SIGKILL of the daemon: within a second all is gone, also what has a session of its own; the run is `lost`."""
    async with Cluster(tmp_path, size=1, allow_shell=True) as cluster:
        await cluster.start()
        await cluster.put_job(
            "n1", "sleeper", schedule="@manual", executor={"type": "shell", "command": watched(tmp_path)}
        )

        async def gone() -> bool:
            return all(map(is_gone, pids(tmp_path / "pids")))

        async def death() -> float:
            seen = len(pids(tmp_path / "pids"))
            started = (await cluster.request("n1", "POST", "/v1/jobs/sleeper/runs", body={})).expect(202).json["run"]
            await two_more(tmp_path / "pids", seen, 60)
            killed = time.monotonic()
            await cluster.kill("n1")
            await eventually(gone, within=60, what="the command is gone")
            taken = time.monotonic() - killed
            await cluster.start()
            run = (await cluster.request("n1", "GET", f"/v1/runs/{started['id']}")).expect(200).json
            assert (run["state"], run["error_kind"]) == ("lost", "node_restarted")
            return taken

        assert await quickest(death, 1.0) < 1.0


async def test_a_node_that_cannot_see_what_it_runs_ends_and_does_not_start(tmp_path: Path) -> None:
    """Its spawner dies, and nothing tells what it ran: the node ends and says so, and no later life takes that for
    nothing; once what it left can be seen again the run is lost."""
    async with Cluster(tmp_path, size=1, allow_shell=True) as cluster:
        await cluster.start()
        await cluster.put_job(
            "n1", "sleeper", schedule="@manual", executor={"type": "shell", "command": watched(tmp_path)}
        )
        started = (await cluster.request("n1", "POST", "/v1/jobs/sleeper/runs", body={})).expect(202).json["run"]
        await two_more(tmp_path / "pids", 0, 60)
        node = cluster.nodes["n1"]
        run_directory = node.data / "run"
        spawner = json.loads((run_directory / "spawner").read_text())["pid"]
        run_directory.rename(tmp_path / "elsewhere")
        run_directory.write_text("")
        os.kill(spawner, signal.SIGKILL)
        assert await cluster.wait_exit("n1") == 1
        assert "the spawner is gone, and what it ran cannot be accounted for" in node.output
        cluster.spawn("n1")
        assert await cluster.wait_exit("n1") == 1
        assert f"{run_directory}: Not a directory. It names the commands that a former life" in node.output
        run_directory.unlink()
        (tmp_path / "elsewhere").rename(run_directory)
        await cluster.start()
        assert all(map(is_gone, pids(tmp_path / "pids")))
        run = (await cluster.request("n1", "GET", f"/v1/runs/{started['id']}")).expect(200).json
        assert (run["state"], run["attempt"]) == ("lost", 1)


async def test_a_node_that_is_told_to_end_gives_its_commands_their_grace(tmp_path: Path) -> None:
    """One that ends within it has succeeded, with all it said; one that does not is stopped, and recorded as lost."""
    extra = ("--shutdown-grace", "5s", *LEASE)
    async with Cluster(tmp_path, allow_shell=True, extra=extra) as cluster:
        await cluster.start()
        commands = {"quick": "echo begun; touch quick; sleep 1; echo whole", "deaf": watched(tmp_path)}
        runs: dict[str, str] = {}
        for name, command in commands.items():
            executor = {"type": "shell", "command": command, "cwd": str(tmp_path)}
            await cluster.put_job("n1", name, schedule="@manual", executor=executor, kill_after="500ms")
            answer = await cluster.request("n1", "POST", f"/v1/jobs/{name}/runs", body={})
            runs[name] = answer.expect(202).json["run"]["id"]
        leader = (await where_it_runs(cluster, "deaf"))["node"]
        await two_more(tmp_path / "pids", 0, 60)

        async def begun() -> bool:
            return (tmp_path / "quick").exists()

        await eventually(begun, within=60, what="the other command has begun")
        assert await cluster.stop(leader) == {leader: 0}
        assert all(map(is_gone, pids(tmp_path / "pids")))
        found = {
            name: (await cluster.request(cluster.alive[0], "GET", f"/v1/runs/{run}")).expect(200).json
            for name, run in runs.items()
        }
        assert (found["quick"]["state"], found["quick"]["output_tail"]) == ("succeeded", "begun\nwhole\n")
        assert (found["deaf"]["state"], found["deaf"]["error_kind"]) == ("lost", "shutdown")


async def test_the_grace_of_a_node_bounds_what_its_commands_are_given_to_end(tmp_path: Path) -> None:
    """However long the job's kill_after: killed when the grace is over, and recorded with the reason by that node."""
    extra = ("--shutdown-grace", "2s", *LEASE)
    async with Cluster(tmp_path, allow_shell=True, extra=extra) as cluster:
        await cluster.start()
        executor = {"type": "shell", "command": watched(tmp_path)}
        await cluster.put_job("n1", "deaf", schedule="@manual", executor=executor, kill_after="10m")
        (await cluster.request("n1", "POST", "/v1/jobs/deaf/runs", body={})).expect(202)
        started = await where_it_runs(cluster, "deaf")
        await two_more(tmp_path / "pids", 0, 60)
        assert await cluster.stop(started["node"]) == {started["node"]: 0}
        assert all(map(is_gone, pids(tmp_path / "pids")))
        run = (await cluster.request(cluster.alive[0], "GET", f"/v1/runs/{started['id']}")).expect(200).json
        assert (run["state"], run["error_kind"], run["exit_code"]) == ("lost", "shutdown", 137), run
