"""Six cells of the matrix of faults between the entries of a run (tests/simulation/matrix.py) on real processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.harness import eventually
from tests.cluster.network import CutCluster, ProxiedCluster

LEASE = ("--lease", "2s", "--lease-margin", "500ms")
FAULT_SECONDS = 3.5  # longer than a lease, and the look after it
ENDED = frozenset({"succeeded", "failed", "timed_out", "cancelled", "lost", "skipped"})
AT_WORK, WAITING = "running", "waiting_retry"  # between start and finish; between finish and requeue


class Cell(NamedTuple):
    """One job, and where its run is when the fault strikes."""

    place: str  # "leader", or "away": on one of the others
    delivery: str
    state: str
    end: str  # what becomes of it

    @property
    def name(self) -> str:
        return f"{self.place}-{self.delivery.replace('_', '-')}-{self.state.replace('_', '-')}"

    def job(self, away: str, starts: Path) -> dict[str, Any]:
        """It is due once; its first attempt takes long, or fails at once and is tried again two seconds later."""
        first = "sleep 4" if self.state == AT_WORK else "exit 1"
        started = f'echo "$RAFTCRON_JOB $RAFTCRON_ATTEMPT" >> {starts}'
        return {
            "schedule": "@every 1s",
            "max_runs": 1,
            "delivery": self.delivery,
            "retry": {"max_attempts": 4, "backoff": "2s"},
            "placement": {"on": "leader"} if self.place == "leader" else {"on": "any", "tags": {"name": away}},
            "executor": {"type": "shell", "command": f'{started}; [ "$RAFTCRON_ATTEMPT" -gt 1 ] || {first}'},
        }


def begin(cluster: CutCluster, *names: str) -> None:
    """Start these, each with a tag of its own."""
    for name in names:
        cluster.spawn(name, extra=["--tag", f"name={name}"])


async def play(
    cluster: CutCluster, starts: Path, cells: tuple[Cell, Cell], strike: Callable[[str, str], Any], victims: str
) -> None:
    """Two runs come to where the fault is due; it strikes, ends, and both have their fate."""
    leader = await cluster.wait_leader()
    away = next(name for name in cluster.nodes if name != leader)
    witness = next(name for name in cluster.nodes if name not in (leader, away))
    for cell in cells:
        await cluster.put_job(leader, cell.name, **cell.job(away, starts))

    async def rows(cell: Cell) -> list[Any]:
        answer = await cluster.request(witness, "GET", f"/v1/jobs/{cell.name}/runs?consistency=stale")
        return list(answer.expect(200).json["items"])

    async def there() -> bool:
        seen = [[row["state"] for row in await rows(cell)] for cell in cells]
        begun = starts.read_text().split("\n") if starts.exists() else []
        assert seen == [[cell.state] for cell in cells], seen
        return all(f"{cell.name} 1" in begun for cell in cells)

    await eventually(there, within=60, what="both runs are where the fault shall strike")
    struck = {"leader": [leader], "executor": [away], "both": [leader, away]}[victims]
    for name in struck:
        result = strike(name, leader)
        if result is not None:
            await result
    await asyncio.sleep(FAULT_SECONDS)
    cluster.heal()
    for name in struck:
        cluster.sigcont(name)
    begin(cluster, *(name for name in struck if not cluster.nodes[name].alive))
    await cluster.wait_ready()

    async def over() -> bool:
        seen = {cell.name: [row["state"] for row in await rows(cell)] for cell in cells}
        assert seen == {cell.name: [cell.end] for cell in cells}, seen
        return True

    await eventually(over, within=60, what="one decision each, and its fate is on record")
    for cell in cells:
        [row] = await rows(cell)
        assert row["state"] in ENDED
        (await cluster.request(witness, "DELETE", f"/v1/jobs/{cell.name}")).expect(200, 204)
    await cluster.wait_converged(within=60)


async def test_six_cells(tmp_path: Path) -> None:
    """After a kill, a cut and a pause: one decision, the fate recorded, and no attempt that starts twice."""
    starts = tmp_path / "starts"
    once, again = "at_most_once", "at_least_once"
    async with ProxiedCluster(tmp_path, extra=LEASE, allow_shell=True) as cluster:
        begin(cluster, *cluster.nodes)
        await cluster.wait_ready()
        at_leader = (Cell("leader", once, AT_WORK, "lost"), Cell("away", again, WAITING, "succeeded"))
        at_executor = (Cell("away", once, AT_WORK, "lost"), Cell("away", again, AT_WORK, "succeeded"))
        at_both = (Cell("leader", again, AT_WORK, "succeeded"), Cell("leader", once, WAITING, "succeeded"))
        await play(cluster, starts, at_leader, lambda name, _: cluster.kill(name), "leader")
        await play(cluster, starts, at_executor, lambda name, _: cluster.isolate(name), "executor")
        await play(cluster, starts, at_both, lambda name, _: cluster.sigstop(name), "both")
    begun = Counter(starts.read_text().splitlines())
    assert {what: times for what, times in begun.items() if times > 1} == {}
