"""Real nodes whose wall clocks are wrong: what is decided, and who leads (semantics 9)."""

from __future__ import annotations

import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import eventually
from tests.cluster.wall_clocks import WallClockCluster, why_no_shim

HOUR, YEAR = 3_600.0, 365 * 86_400.0
JOB: dict[str, Any] = {
    "schedule": "@every 1s",
    "executor": {"type": "noop"},
    "overlap": {"policy": "allow"},
    "history": {"runs": 500},
}


def needs_shim(folder: Path) -> None:
    if (reason := why_no_shim(folder)) is not None:
        pytest.skip(f"no clock is set: {reason}")


def seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def now() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


async def times(cluster: WallClockCluster, node: str) -> list[float]:
    """The scheduled times of all rows, oldest first, after a look at each: a run, and not one that stands for more."""
    rows = await cluster.runs(node, "second")
    assert {row["cause"] for row in rows} <= {"schedule"}
    assert not [row for row in rows if row["state"] == "skipped"]
    return sorted(seconds(row["scheduled_time"]) for row in rows)


async def goes_on(cluster: WallClockCluster, node: str, count: int) -> None:
    """So many more seconds are decided, each once, in time."""
    before = len(await times(cluster, node))

    async def more() -> bool:
        return len(await times(cluster, node)) >= before + count

    await eventually(more, within=count + 60, what=f"{count} more runs", every=0.2)
    found = await times(cluster, node)
    assert {later - earlier for earlier, later in pairwise(found)} <= {1.0}
    assert now() - 5 < found[-1] <= now()


async def test_a_leader_whose_clock_steps_decides_nothing_of_it_and_hands_over(tmp_path: Path) -> None:
    """A year ahead, then an hour back, each time on whoever leads: the seconds go on as if nothing had been."""
    needs_shim(tmp_path)
    async with WallClockCluster(tmp_path) as cluster:
        await cluster.start()
        first = await cluster.wait_leader()
        await cluster.put_job(first, "second", **JOB)
        await goes_on(cluster, first, 2)

        cluster.set_clock(first, YEAR)
        second = await cluster.wait_leader(other_than=first, within=60)
        await goes_on(cluster, second, 2)

        async def offset_is_seen() -> bool:
            members = (await cluster.status(second))["members"]
            [offset] = [one["clock_offset_ms"] for one in members if one["name"] == first]
            return bool(offset == pytest.approx(YEAR * 1000, abs=1_000))

        await eventually(offset_is_seen, within=60, what=f"{second} knows how far off the clock of {first} is")
        assert not (await cluster.status(second))["clock_untrusted"]
        for name in (first, second):
            began = now()
            told = seconds((await cluster.status(name))["time"])
            assert began - 1 <= told <= now() + 1

        cluster.set_clock(first, 0.0)
        cluster.set_clock(second, -HOUR)
        third = await cluster.wait_leader(other_than=second, within=60)
        await goes_on(cluster, third, 2)
        assert "clock_jumped" in cluster.nodes[first].output
        for name in (first, second):
            assert "lead_handed_over" in cluster.nodes[name].output
        await cluster.wait_converged()


async def test_a_lone_node_holds_after_a_long_jump_until_it_is_told(tmp_path: Path) -> None:
    """It says so, takes writes, and decides nothing of the jump; told that its clock is right, it goes on there."""
    needs_shim(tmp_path)
    async with WallClockCluster(tmp_path, size=1) as cluster:
        await cluster.start()
        await cluster.put_job("n1", "second", **JOB)
        await goes_on(cluster, "n1", 1)
        cluster.set_clock("n1", 2 * HOUR)

        async def untrusted() -> bool:
            return bool((await cluster.status("n1"))["clock_untrusted"])

        await eventually(untrusted, within=60, what="clock_untrusted")
        held = await times(cluster, "n1")
        await cluster.put_job("n1", "other", **JOB)
        assert await times(cluster, "n1") == held
        assert await cluster.runs("n1", "other") == []
        began = now()
        answer = (await cluster.request("n1", "POST", "/v1/cluster/accept-time")).expect(200)
        assert began - 2 <= seconds(answer.json["time"]) - 2 * HOUR <= now() + 2
        assert not answer.json["clock_untrusted"]

        async def caught_up() -> bool:
            return any(seconds(row["scheduled_time"]) > now() + HOUR for row in await cluster.runs("n1", "second"))

        await eventually(caught_up, within=60, what="a run of the new time")


async def test_with_require_time_sync_nothing_is_served_before_the_kernel_vouches(tmp_path: Path) -> None:
    """It says what it waits for; told to end meanwhile it does; once the clock is synchronised it is there."""
    needs_shim(tmp_path)
    async with WallClockCluster(tmp_path, size=1, extra=("--require-time-sync",)) as cluster:
        for is_stopped in (True, False):
            cluster.spawn("n1")

            async def waits(count: int = 1 + (not is_stopped)) -> bool:
                return cluster.nodes["n1"].output.count("clock_not_synchronised") == count

            await eventually(waits, within=60, what="it says that it waits")
            with pytest.raises(OSError, match=r"[Cc]onnect"):
                await cluster.request("n1", "GET", "/livez", timeout=2)
            if is_stopped:
                assert await cluster.stop("n1", within=60) == {"n1": 0}
        cluster.set_clock("n1", 0.0, is_synchronised=True)
        await cluster.wait_ready("n1", within=60)
