"""`raftcron dev` with its real nodes: ready, the first job as it is printed, a killed node, a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from raftcron.client import HttpClient


def consecutive_ports(count: int) -> int:
    """The first of `count` free ports in a row."""
    for first in range(20_000 + os.getpid() % 5_000, 60_000, count):
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


async def test_a_local_cluster_from_start_to_stop(tmp_path: Path) -> None:
    """Three nodes get ready, take the job that the text shows, outlive a kill, and stop cleanly on Ctrl-C."""
    first = consecutive_ports(6)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAFTCRON_")}
    args = ["--data", str(tmp_path / "data"), "--http-port", str(first), "--raft-port", str(first + 3)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "raftcron", "dev", *args), stdout=asyncio.subprocess.PIPE, env=environ
    )
    dev = Dev(process)
    try:
        await dev.until(lambda: any("The data is in" in line for line in dev.lines))
        assert "3 nodes are ready:" in dev.lines

        text = "\n".join(dev.lines)
        put, runs = re.findall(r"^  (curl (?:.*\\\n)*.*)$", text, re.MULTILINE)
        done = await asyncio.create_subprocess_shell(f"{put} --silent --fail", stdout=asyncio.subprocess.PIPE)
        answer, _ = await done.communicate()
        assert json.loads(answer)["name"] == "hello"

        [victim], [other] = dev.pids("n1"), dev.pids("n2")
        os.kill(victim, signal.SIGKILL)
        await dev.until(lambda: sum("raftcron n1 is ready" in line for line in dev.lines) == 2)
        assert len(dev.pids("n1")) == 2
        assert dev.pids("n2") == [other]
        client = HttpClient([f"127.0.0.1:{first}"])
        job = await asyncio.to_thread(client.request, "GET", "/v1/jobs/hello")
        assert job.body["schedule"] == "@every 5s"
        done = await asyncio.create_subprocess_shell(f"{runs} --silent --fail", stdout=asyncio.subprocess.PIPE)
        answer, _ = await done.communicate()
        assert "items" in json.loads(answer)

        process.send_signal(signal.SIGINT)
        rest, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, rest.decode()
        assert not any(is_alive(pid) for name in ("n1", "n2", "n3") for pid in dev.pids(name))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
