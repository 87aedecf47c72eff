"""Three real nodes in the default configuration, with what a benchmark asks of them.  Not here: any figure."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import aiohttp

from tests.cluster.harness import Cluster

CLIENTS = 16  # writers at once while jobs are created
PAGE = 500
_TICKS = os.sysconf("SC_CLK_TCK")


def now_ms() -> int:
    """Milliseconds since 1970, by the clock that all processes of the machine share."""
    return time.time_ns() // 1_000_000


class Page(NamedTuple):
    """Jobs as one node showed them; they were true at `asked_at` (ms since 1970) or later."""

    asked_at: int
    items: list[dict[str, Any]]


class BenchCluster(Cluster):
    """The cluster of the tests, under load: connections are kept, and jobs are written and read by the thousand.

    `program` stands in for `-m raftcron server`: it takes the same flags.
    """

    def __init__(self, folder: Path, *, program: Path | None = None, extra: Sequence[str] = ()) -> None:
        super().__init__(folder, extra=extra)
        self._program = program
        self._kept: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._kept = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._kept is not None:
            await self._kept.close()
        await super().__aexit__(kind, error, trace)

    def command(self, name: str, extra: Sequence[str] = ()) -> list[str]:
        command = super().command(name, extra)
        if self._program is None:
            return command
        flags = command[command.index("server") + 1 :]
        return [command[0], "-P", str(self._program), *flags]

    def cpu_seconds(self, name: str) -> float:
        """Processor time that a node's present process has used, user and system."""
        process = self.nodes[name].process
        assert process is not None, f"{name} was never started"
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    async def put_jobs(self, node: str, jobs: Mapping[str, Mapping[str, Any]]) -> float:
        """Create or replace these jobs through one node, several at once; the seconds that it took."""
        assert self._kept is not None, "the cluster is not entered"
        session = self._kept
        began = time.monotonic()
        left = iter(jobs.items())

        async def write(names: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
            for name, job in names:
                async with session.put(f"{self.nodes[node].url}/v1/jobs/{name}", json=job) as answer:
                    if answer.status not in (200, 201):
                        raise RuntimeError(f"PUT of {name}: {answer.status} {(await answer.text())[:500]}")
                    await answer.read()

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(write(left))
        return time.monotonic() - began

    async def job_pages(self, node: str) -> AsyncIterator[Page]:
        """All jobs as this node has them now, without asking the leader."""
        assert self._kept is not None, "the cluster is not entered"
        cursor: str | None = None
        while True:
            more = "" if cursor is None else f"&cursor={quote(cursor, safe='')}"
            asked_at = now_ms()
            url = f"{self.nodes[node].url}/v1/jobs?consistency=stale&limit={PAGE}{more}"
            async with self._kept.get(url) as answer:
                answer.raise_for_status()
                page = await answer.json()
            yield Page(asked_at, page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                return
