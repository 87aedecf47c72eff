"""A real cluster under kill -9 and wrong clocks, judged from outside: nothing lost or decided twice, fires go on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.campaign import TIMES_TOLD, unleash
from tests.chaos.checker import Needs, judge
from tests.chaos.faults import SHORT_CLOCKS, STEPS, short_rounds
from tests.cluster.harness import Cluster, eventually
from tests.cluster.wall_clocks import WallClockCluster, best_clock_cluster
from tests.patience import quickest

SEED = 3  # the order of the faults; `scripts/chaos --seed N` runs others


@pytest.mark.timeout(900)  # on two cores of its own a minute; each start of a node takes longer on a shared machine
async def test_killing_nodes_and_setting_their_clocks_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """8 SIGKILLs of leaders and 4 of followers under fire, and clocks that step by up to a year: nothing is found.

    The checker has enough to say so.
    """
    began = time.monotonic()
    make = best_clock_cluster(tmp_path)
    clocks, steps = (SHORT_CLOCKS, len(STEPS)) if issubclass(make, WallClockCluster) else ((), 0)
    needs = Needs(clock_steps=steps, times_told=TIMES_TOLD, faults=tuple(dict.fromkeys(clocks)))
    verdict = judge(await unleash(tmp_path, SEED, short_rounds(SEED, clocks), make=make), needs)
    print(verdict.table())
    print(f"{time.monotonic() - began:.1f} s")
    assert verdict.word == "passed", f"\n{verdict.table()}\nevidence: {tmp_path / 'evidence.json'}"


COMMANDS = {
    "alone": "echo $$ > {pids}; exec sleep 600",
    "with children": "sleep 600 & echo $! > {pids}; echo $$ >> {pids}; wait",
    "in a session of its own": "setsid sh -c 'echo $$ > {pids}; exec sleep 600'; true",
    "deaf to SIGTERM": "trap '' TERM HUP INT; echo $$ > {pids}; while :; do sleep 600; done",
}


def runs_still(pid: int) -> bool:
    """Whether a process of that number executes; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
async def test_no_child_outlives_its_killed_node(tmp_path: Path, command: str) -> None:
    """kill -9 of the daemon during a long `sleep`: within 1 s the child is gone, and its run is recorded as lost."""
    pids_path = tmp_path / "pids"
    pids: list[int] = []
    async with Cluster(tmp_path / "cluster", size=1, allow_shell=True) as cluster:
        await cluster.start()
        executor = {"type": "shell", "command": command.format(pids=pids_path)}
        await cluster.put_job("n1", "sleeper", schedule="0 0 29 2 *", executor=executor)
        expected = 2 if "$!" in command else 1

        async def started() -> bool:
            pids[:] = [int(word) for word in pids_path.read_text().split()] if pids_path.exists() else []
            return len(pids) == expected and all(runs_still(pid) for pid in pids)

        async def gone() -> bool:
            return not any(runs_still(pid) for pid in pids)

        async def death() -> float:
            pids_path.unlink(missing_ok=True)
            run = (await cluster.request("n1", "POST", "/v1/jobs/sleeper/runs", body={})).expect(202).json["run"]
            await eventually(started, within=60, what="the command runs")
            killed = time.monotonic()
            await cluster.kill("n1")
            await eventually(gone, within=60, what=f"the processes {pids} are gone")
            taken = time.monotonic() - killed
            await cluster.start("n1")

            async def lost() -> bool:
                seen = (await cluster.request("n1", "GET", f"/v1/runs/{run['id']}")).expect(200).json
                assert seen["state"] == "lost", seen
                return True

            await eventually(lost, within=60, what="the run is recorded as lost")
            return taken

        try:
            assert await quickest(death, 1.0) < 1.0
        finally:
            for pid in pids:
                if runs_still(pid):
                    os.kill(pid, signal.SIGKILL)
