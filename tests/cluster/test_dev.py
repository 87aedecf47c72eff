"""`raftcron dev` with its real nodes: ready, the job as it is printed, a killed node, a clean stop and a quick one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from raftcron.client import Client
from raftcron.runtime.farewell import HEAR_SECONDS, REPEAT_SECONDS


def consecutive_ports(count: int) -> int:
    """The first of `count` free ports in a row."""
    for first in range(20_000 + os.getpid() * 97 % 10_000, 32_000, count):  # below those that the kernel gives away
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no free ports")


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class Dev:
    """The command's process and the lines it has written so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    def pids(self, name: str) -> list[int]:
        found = (re.fullmatch(rf"{name} : started, process (\d+)", line) for line in self.lines)
        return [int(match[1]) for match in found if match]

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Reads on until the condition over the lines is true."""
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            while not condition():
                line = await self.process.stdout.readline()
                assert line, "it ended: " + "\n".join(self.lines[-50:])
                self.lines.append(line.decode().rstrip("\n"))

    async def ended(self) -> int:
        """Reads to the end; the exit code."""
        rest, _ = await asyncio.wait_for(self.process.communicate(), 60)
        self.lines += rest.decode().splitlines()
        assert self.process.returncode is not None
        return self.process.returncode

    async def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return await self.ended()


@contextlib.asynccontextmanager
async def dev_cluster(data: Path, first: int) -> AsyncIterator[Dev]:
    """Three nodes that are ready, HTTP from port `first` on and Raft behind it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAFTCRON_")}
    args = ["--data", str(data), "--http-port", str(first), "--raft-port", str(first + 3)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "raftcron", "dev", *args), stdout=asyncio.subprocess.PIPE, env=environ
    )
    dev = Dev(process)
    try:
        await dev.until(lambda: any("The data is in" in line for line in dev.lines))
        yield dev
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_local_cluster_from_start_to_stop(tmp_path: Path) -> None:
    """Three nodes get ready, take the job that the text shows, outlive a kill, and stop cleanly on Ctrl-C."""
    first = consecutive_ports(6)
    async with dev_cluster(tmp_path / "data", first) as dev:
        assert "3 nodes are ready:" in dev.lines

        text = "\n".join(dev.lines)
        put, runs = re.findall(r"^  (curl (?:.*\\\n)*.*)$", text, re.MULTILINE)
        done = await asyncio.create_subprocess_shell(f"{put} --fail", stdout=asyncio.subprocess.PIPE)
        answer, _ = await done.communicate()
        assert json.loads(answer)["name"] == "hello"

        [victim], [other] = dev.pids("n1"), dev.pids("n2")
        os.kill(victim, signal.SIGKILL)
        await dev.until(lambda: sum("raftcron n1 is ready" in line for line in dev.lines) == 2)
        assert len(dev.pids("n1")) == 2
        assert dev.pids("n2") == [other]
        with Client([f"127.0.0.1:{first}"], patience_seconds=0) as client:
            job = await asyncio.to_thread(client.request, "GET", "/v1/jobs/hello")
        assert job.body["schedule"] == "@every 2s"
        done = await asyncio.create_subprocess_shell(f"{runs} --fail", stdout=asyncio.subprocess.PIPE)
        answer, _ = await done.communicate()
        assert "items" in json.loads(answer)

        assert await dev.interrupt() == 0, dev.lines[-50:]
        assert "raftcron: stopping all nodes; running commands get 20 s, Ctrl-C again ends them" in dev.lines
        assert {f"{name} : stopped" for name in ("n1", "n2", "n3")} <= set(dev.lines)
        assert not any(is_alive(pid) for name in ("n1", "n2", "n3") for pid in dev.pids(name))


async def test_ctrl_c_lets_a_command_end_and_keeps_what_it_said(tmp_path: Path) -> None:
    """Of a command that runs at Ctrl-C the end and the output are recorded before the last node ends."""
    first = consecutive_ports(6)
    release = tmp_path / "release"
    command = f"while [ ! -e {release} ]; do sleep 0.05; done; echo done"

    def ask(method: str, path: str, body: object = None) -> Any:
        with Client([f"127.0.0.1:{port}" for port in range(first, first + 3)], patience_seconds=0) as client:
            return client.request(method, path, body=body).body

    async with dev_cluster(tmp_path / "data", first) as dev:
        job = {"schedule": "@manual", "executor": {"type": "shell", "command": command}}
        await asyncio.to_thread(ask, "PUT", "/v1/jobs/slow", job)
        run = (await asyncio.to_thread(ask, "POST", "/v1/jobs/slow/runs", {}))["run"]["id"]
        while (await asyncio.to_thread(ask, "GET", f"/v1/runs/{run}"))["state"] != "running":
            await asyncio.sleep(0.02)
        dev.process.send_signal(signal.SIGINT)
        await dev.until(lambda: any("stopping all nodes" in line for line in dev.lines))
        await asyncio.sleep(HEAR_SECONDS + REPEAT_SECONDS)  # longer than a node without runs waits for nothing
        release.touch()
        assert await dev.ended() == 0, dev.lines[-50:]
        assert not any("ends_not_recorded" in line for line in dev.lines)

    async with dev_cluster(tmp_path / "data", first) as dev:
        row = await asyncio.to_thread(ask, "GET", f"/v1/runs/{run}")
        assert (row["state"], row["output_tail"]) == ("succeeded", "done\n"), row
        assert await dev.interrupt() == 0


async def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    """Ctrl-C twice ends all nodes and their commands at once."""
    first = consecutive_ports(6)
    async with dev_cluster(tmp_path / "data", first) as dev:
        told = tmp_path / "told"
        job = {"schedule": "@manual", "executor": {"type": "shell", "command": f"echo $$ > {told}; exec sleep 600"}}
        with Client([f"127.0.0.1:{first}"], patience_seconds=0) as client:
            await asyncio.to_thread(client.request, "PUT", "/v1/jobs/endless", body=job)
            await asyncio.to_thread(client.request, "POST", "/v1/jobs/endless/runs", body={})
        async with asyncio.timeout(20):
            while not (told.exists() and told.read_text().strip()):
                await asyncio.sleep(0.02)
        dev.process.send_signal(signal.SIGINT)
        await dev.until(lambda: any("stopping all nodes" in line for line in dev.lines))
        assert await dev.interrupt() == 1
        assert "raftcron: stopping at once" in dev.lines
        assert any(line.endswith(": was killed by SIGKILL") for line in dev.lines)
        async with asyncio.timeout(10):
            while is_alive(int(told.read_text())):
                await asyncio.sleep(0.02)
