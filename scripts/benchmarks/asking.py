"""write, read: how long requests for one job take, and how many a second 64 clients are given.

The client is as small as one can be, because it shares the machine's cores with the nodes: it sends bytes that are
made before, and looks at nothing but the status and the length.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.benchmarks.cluster import BenchCluster
from scripts.benchmarks.report import Figure, Report, quantile

ALONE = 500  # requests of one client, one after the other
CLIENTS = 64
SECONDS = 10.0  # of all clients at once
JOBS = 1_000
BODY = {"schedule": "0 0 29 2 *", "executor": {"type": "noop"}}

Requests = Iterator[bytes]


@dataclass(frozen=True)
class Asked:
    """What one or more clients met."""

    latencies_ms: list[float]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def at(self, share: float) -> float:
        return quantile(self.latencies_ms, share)


class Client:
    """One kept connection; requests on it are answered one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> bytes:
        """The answer's body.  RuntimeError for anything but success."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        _, _, rest = head.lower().partition(b"content-length:")
        body = await self._reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
        if not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"{request[:60]!r} was answered {head[:40]!r} {body[:300]!r}")
        return body


@asynccontextmanager
async def client(url: str) -> Any:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=16 << 20)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """The bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def one_client(url: str, requests: Requests) -> Asked:
    async with client(url) as asking:
        return await _asked(asking, itertools.islice(requests, ALONE))


async def many_clients(url: str, make: Callable[[int], Requests]) -> Asked:
    """Each with its own requests, until the time is over."""
    until = time.monotonic() + SECONDS

    async def each(number: int) -> Asked:
        async with client(url) as asking:
            return await _asked(asking, itertools.takewhile(lambda _: time.monotonic() < until, make(number)))

    began = time.monotonic()
    found = await asyncio.gather(*(each(number) for number in range(CLIENTS)))
    return Asked([one for asked in found for one in asked.latencies_ms], time.monotonic() - began)


async def _asked(asking: Client, requests: Requests) -> Asked:
    began, latencies = time.monotonic(), []
    for one in requests:
        sent = time.monotonic()
        await asking.ask(one)
        latencies.append((time.monotonic() - sent) * 1000)
    return Asked(latencies, time.monotonic() - began)


def writes(prefix: str) -> Requests:
    """Replacements of a thousand jobs, each time with another text."""
    for number in itertools.count():
        body = json.dumps({**BODY, "description": f"edit {number}"}).encode()
        yield request("PUT", f"/v1/jobs/{prefix}-{number % JOBS}", body)


def reads(consistency: str) -> Requests:
    for number in itertools.count():
        yield request("GET", f"/v1/jobs/job-{number % JOBS}?consistency={consistency}")


async def write(folder: Path, options: argparse.Namespace) -> Report:
    """`PUT /v1/jobs/{name}`: one client on the leader, one on a follower, and many on the leader."""
    async with BenchCluster(folder) as cluster:
        await cluster.start()
        leader = await cluster.wait_leader()
        follower = next(name for name in cluster.nodes if name != leader)
        on_leader = await one_client(cluster.nodes[leader].url, writes("a"))
        on_follower = await one_client(cluster.nodes[follower].url, writes("b"))
        before = cluster.cpu_seconds(leader)
        many = await many_clients(cluster.nodes[leader].url, lambda number: writes(f"c-{number}"))
        cpu = cluster.cpu_seconds(leader) - before
    figures = [
        Figure("on the leader, p50", on_leader.at(0.5), "ms", 4),
        Figure("on the leader, p99", on_leader.at(0.99), "ms"),
        Figure("on a follower, p50", on_follower.at(0.5), "ms", 6),
        Figure("on a follower, p99", on_follower.at(0.99), "ms"),
        Figure(f"{CLIENTS} clients", many.rate, "/s", 1_500, True),
        Figure("p99 then", many.at(0.99), "ms"),
        Figure("processor of the leader then, each", cpu * 1e6 / len(many.latencies_ms), "us"),
    ]
    return Report("write", figures, {"leader": leader})


async def read(folder: Path, options: argparse.Namespace) -> Report:
    """`GET /v1/jobs/{name}` of many clients, linearizable and stale, on the leader and on a follower."""
    figures, rates = [], {"linearizable": 2_000, "stale": 4_000}
    async with BenchCluster(folder) as cluster:
        await cluster.start()
        leader = await cluster.wait_leader()
        follower = next(name for name in cluster.nodes if name != leader)
        await cluster.put_jobs(leader, {f"job-{number}": BODY for number in range(JOBS)})
        for consistency, target in rates.items():
            for role, name in (("leader", leader), ("follower", follower)):
                before = cluster.cpu_seconds(name)
                found = await many_clients(cluster.nodes[name].url, lambda _, how=consistency: reads(how))
                cpu = cluster.cpu_seconds(name) - before
                what = f"{consistency}, {role}"
                figures += [
                    Figure(what, found.rate, "/s", target, True),
                    Figure(f"{what}, p99", found.at(0.99), "ms"),
                    Figure(f"{what}, processor, each", cpu * 1e6 / len(found.latencies_ms), "us"),
                ]
    return Report("read", figures, {"leader": leader})
