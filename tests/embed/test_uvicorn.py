"""Four workers of an ASGI application under uvicorn: each time runs once, also where a worker is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import aiohttp

from tests.cluster.harness import ReservedPorts, eventually
from tests.embed.test_workers import lines, rows_of


async def test_four_workers_of_uvicorn_run_each_time_once(tmp_path: Path) -> None:
    """Three hold a node and one stands by; all serve; uvicorn replaces one that dies, and the job goes on."""
    reserved = ReservedPorts(7)
    *ports, port = reserved.numbers
    out = tmp_path / "out"
    addresses = [f"127.0.0.1:{number}" for number in ports]
    nodes = " ".join(f"n{number + 1}={addresses[number]}={addresses[number + 3]}" for number in range(3))
    given = {"CRON_DATA": str(tmp_path / "cron"), "CRON_OUT": str(out), "CRON_NODES": nodes}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAFTCRON_")}
    command = [sys.executable, "-m", "uvicorn", "tests.embed.asgi_worker:app", "--workers", "4", "--port", str(port)]
    with (tmp_path / "err").open("ab") as err:
        server = subprocess.Popen(command, stdout=err, stderr=err, env=inherited | given)
    try:

        async def runs_are(count: int) -> bool:
            return len(lines(out, "run")) >= count

        await eventually(lambda: runs_are(3), within=60, what="the job runs")
        assert sorted(name for _, name in lines(out, "up")) == ["None", "n1", "n2", "n3"]
        workers = {pid for pid, _ in lines(out, "up")}
        served: set[str] = set()

        async def all_serve() -> bool:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
                served.add(await answer.text())
            return served == workers

        await eventually(all_serve, within=60, what="each worker has answered")
        *_, leader, pid = lines(out, "run")[-1]
        os.kill(int(pid), signal.SIGKILL)
        seen = len(lines(out, "run"))

        async def it_goes_on() -> bool:
            return len(lines(out, "up")) == 5 and len(lines(out, "run")) >= seen + 4

        await eventually(it_goes_on, within=60, what="a new worker is up, and the job goes on")
        assert pid not in {run[-1] for run in lines(out, "run")[seen + 1 :]}
        rows = await eventually(lambda: rows_of("tick", addresses[3:]), within=60, what="a node answers")
    finally:
        server.terminate()
        code = await asyncio.to_thread(server.wait, 60)
        reserved.release()
    assert code in (0, -signal.SIGTERM)
    times = Counter(at for at, *_ in lines(out, "run"))
    assert set(times.values()) == {1}
    assert len({row["scheduled_time"] for row in rows}) == len(rows)
    assert leader in {"n1", "n2", "n3"}
    assert "Traceback" not in (tmp_path / "err").read_text()
