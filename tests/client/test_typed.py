"""The client is typed for whoever installs it: mypy --strict takes a program that uses it well, and no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GOOD = """\
import asyncio

from raftcron.client import AsyncClient, Client, Event
from raftcron.client.views import Job, Run
from raftcron.errors import UnknownOutcomeError


def main() -> str:
    with Client(["http://127.0.0.1:7101"], token=None) as cron:
        job: Job = cron.put_job("hello", {"schedule": "@daily", "executor": {"type": "noop"}})
        names: list[str] = [one["name"] for one in cron.jobs(labels=["team=db"])]
        try:
            run: Run = cron.wait_run(cron.run_job("hello", args={"n": 1})["id"])
        except UnknownOutcomeError as error:
            return error.detail
        output: bytes = b"".join(cron.output(run["id"]))
        return run["state"] + output.decode() + job["name"] + "".join(names)


async def watch() -> Event:
    async with AsyncClient() as cron:
        await cron.drain("n1", undo=True)
        async for event in cron.events():
            return event
    raise AssertionError


asyncio.run(watch())
"""

BAD = """\
from raftcron.client import AsyncClient, Client

with Client() as cron:
    number: int = cron.run_job("hello")["id"]
    cron.put_job("hello")
    cron.get_job("hello", consistency="none")
    cron.get_job("hello")["shedule"]


async def watch() -> None:
    async with AsyncClient() as cron:
        for event in cron.events():
            pass
"""


def test_mypy_takes_a_program_that_uses_the_client_well_and_no_other(tmp_path: Path) -> None:
    """From outside the repository, so that the installed package speaks for itself (py.typed)."""
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(BAD)
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--cache-dir", "cache", "good.py", "bad.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    faults = [line for line in found.stdout.splitlines() if ": error: " in line]
    assert [line.partition(": ")[0] for line in faults] == [f"bad.py:{line}" for line in (4, 5, 6, 7, 12)], found
    assert [line.rpartition("[")[2] for line in faults] == [
        "assignment]",
        "call-arg]",
        "arg-type]",
        "typeddict-item]",
        "attr-defined]",
    ]
