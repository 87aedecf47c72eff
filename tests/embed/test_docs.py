"""The Python of docs/embedding.md and of the README."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.cluster.harness import ReservedPorts, eventually

ROOT = Path(__file__).parents[2]


def examples(page: Path) -> list[str]:
    found: list[str] = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return found


EXAMPLES = examples(ROOT / "docs" / "embedding.md")


async def test_the_application_of_the_page_runs_four_times(tmp_path: Path) -> None:
    """Its jobs are there with what the page says of them, and both its handlers run where the page says."""
    reserved = ReservedPorts(7)
    text = EXAMPLES[0].replace("/var/lib/shop/cron", str(tmp_path / "cron"))
    *nodes, port = reserved.numbers
    for number in range(3):
        text = text.replace(f"127.0.0.1:720{number + 1}", f"127.0.0.1:{nodes[number]}")
    http = {f"n{number + 1}": f"127.0.0.1:{nodes[number + 3]}" for number in range(3)}
    text = text.replace("port=8080", f'host="127.0.0.1", port={port}').replace("data_dir=", f"http={http}, data_dir=")
    (tmp_path / "shop.py").write_text(text)
    command = [sys.executable, "shop.py"]
    workers = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(4)]
    try:
        async with aiohttp.ClientSession(f"http://{http['n2']}") as session:

            async def ask(method: str, path: str, body: Any = None) -> Any:
                async with session.request(method, path, json=body) as response:
                    assert response.status < 300, await response.text()
                    return await response.json()

            async def declared() -> bool:
                try:
                    return (await ask("GET", "/v1/jobs"))["total"] == 2
                except aiohttp.ClientError:
                    return False

            await eventually(declared, within=60, what="both jobs are declared")
            assert (await ask("GET", "/v1/jobs/nightly"))["retry"]["max_attempts"] == 3
            tails = {}
            for name in ("nightly", "thumbnails"):
                run = (await ask("POST", f"/v1/jobs/{name}/runs", {}))["run"]["id"]

                async def ended(run: str = run) -> Any:
                    record = await ask("GET", f"/v1/runs/{run}")
                    return record if record["finished_at"] else None

                record = await eventually(ended, within=60, what="the run has ended")
                assert record["state"] == "succeeded", record
                tails[name] = record["output_tail"]
            assert tails["nightly"] == '{"orders":17}'
            assert re.fullmatch(r"\d{4}-\S+ \S+ 1 \d+\n", tails["thumbnails"])
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            await asyncio.to_thread(worker.wait, 60)
        reserved.release()


async def test_the_example_of_the_readme(tmp_path: Path) -> None:
    """It is Python as it stands, and declares its job in an aiohttp application that starts the node."""
    [text] = examples(ROOT / "README.md")
    there: dict[str, Any] = {"app": web.Application()}
    reserved = ReservedPorts(2)
    http, raft = (f"127.0.0.1:{port}" for port in reserved.numbers)
    text = re.sub(r"peers=\{.*?\}", f'http="{http}", raft="{raft}"', text).replace("cron-data", str(tmp_path))
    exec(text, there)
    runner = web.AppRunner(there["app"])
    await runner.setup()
    await there["cron"].ready()
    async with aiohttp.ClientSession() as session:

        async def declared() -> bool:
            async with session.get(f"http://{http}/v1/jobs/nightly") as response:
                return response.status == 200 and (await response.json())["timezone"] == "Europe/Berlin"

        await eventually(declared, within=60, what="the job is declared")
    await runner.cleanup()
    reserved.release()


async def test_the_lifespan_of_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A framework that takes a lifespan enters it when it starts and leaves it when it ends."""
    lifespans = []
    stand_in = types.ModuleType("fastapi")
    stand_in.FastAPI = lambda lifespan: lifespans.append(lifespan)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fastapi", stand_in)
    reserved = ReservedPorts(2)
    http, raft = (f"127.0.0.1:{port}" for port in reserved.numbers)
    text = EXAMPLES[1].replace('data_dir="/var/lib/shop/cron"', f'data_dir="{tmp_path}", http="{http}", raft="{raft}"')
    there: dict[str, Any] = {}
    exec(text, there)
    async with lifespans[0](object()):
        await there["cron"].ready()
        assert there["cron"].name == "web-1"
    reserved.release()
