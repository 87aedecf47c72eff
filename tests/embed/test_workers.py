"""Once per schedule though four workers of an application run: real processes, one of them killed."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.harness import ReservedPorts, eventually


def lines(out: Path, kind: str) -> list[list[str]]:
    text = out.read_text() if out.exists() else ""
    return [line.split()[1:] for line in text.splitlines() if line.startswith(kind + " ")]


async def rows_of(job: str, addresses: list[str]) -> list[dict[str, Any]]:
    """All rows of the job by the word of the first node that answers."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        for address in addresses:
            try:
                async with session.get(f"http://{address}/v1/jobs/{job}/runs?limit=1000") as answer:
                    if answer.status == 200:
                        found: list[dict[str, Any]] = (await answer.json())["items"]
                        return found
            except (aiohttp.ClientError, TimeoutError):
                continue
    return []


async def test_once_per_schedule_though_four_workers_run(tmp_path: Path) -> None:
    """Three of them are nodes, the fourth waits and takes the place of one that is killed; no time is run twice."""
    reserved = ReservedPorts(6)
    out = tmp_path / "out"
    addresses = [f"127.0.0.1:{port}" for port in reserved.numbers]
    nodes = [f"n{number + 1}={addresses[number]}={addresses[number + 3]}" for number in range(3)]
    command = [sys.executable, "-m", "tests.embed.web_worker", str(tmp_path / "cron"), str(out), *nodes]

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "err").open("ab") as err:
            return subprocess.Popen(command, stderr=err)

    workers = [start() for _ in range(4)]
    try:

        async def runs_are(count: int) -> bool:
            return len(lines(out, "run")) >= count

        await eventually(lambda: runs_are(3), within=60, what="the job runs")
        assert sorted(name for _, name in lines(out, "up")) == ["None", "n1", "n2", "n3"]
        *_, node, pid = lines(out, "run")[-1]
        killed = next(worker for worker in workers if worker.pid == int(pid))  # where it runs: the leader
        standing_by = {int(pid) for pid, name in lines(out, "up") if name == "None"}
        killed.kill()
        killed.wait()

        async def another_took_over() -> bool:
            return any(int(pid) in standing_by for *_, pid in lines(out, "run"))

        await eventually(lambda: runs_are(8), within=60, what="the job goes on")
        for worker in workers:  # one after the other: the lead wanders, to the one that stood by at last
            if worker.poll() is None and worker.pid not in standing_by and not await another_took_over():
                worker.terminate()
                await asyncio.to_thread(worker.wait, 40)
                workers.append(start())
                seen = len(lines(out, "run"))
                await eventually(lambda seen=seen: runs_are(seen + 3), within=60, what="the job goes on")
        await eventually(another_took_over, within=60, what="the one that stood by runs the job")
        rows = await eventually(lambda: rows_of("tick", addresses[3:]), within=60, what="a node answers")
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            await asyncio.to_thread(worker.wait, 60)
        reserved.release()
    times = Counter(datetime.fromisoformat(at) for at, *_ in lines(out, "run"))
    assert set(times.values()) == {1}
    decided = {datetime.fromisoformat(row["scheduled_time"]): row["state"] for row in rows}
    assert len(decided) == len(rows)
    moments = sorted(decided)
    assert {later - earlier for earlier, later in itertools.pairwise(moments)} == {timedelta(seconds=1)}
    # In flight when its worker was killed: `lost`, and never run again in silence.
    assert {decided[moment] for moment in moments if moment not in times} <= {"lost", "running", "assigned"}
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert node in {"n1", "n2", "n3"}
