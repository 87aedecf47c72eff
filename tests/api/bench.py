"""Real HTTP servers over a log in memory: one to three nodes without Raft, sockets and requests as they are in life."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from raftcron.api.app import create_app
from raftcron.api.context import NodeContext
from raftcron.api.server import create_runner
from raftcron.clock import SystemClock
from raftcron.core.commands import Announce, Decide, Decision, Done, Finish, Finished, Fire, Place
from raftcron.executors.registry import Registry
from raftcron.runtime.clocks import Clocks
from raftcron.runtime.events import EventLog
from raftcron.runtime.machine import Machine
from raftcron.runtime.presence import PeerInfo
from raftcron.runtime.proposer import Proposer
from raftcron.testing.memory_log import MemoryCluster, MemoryLog
from raftcron.testing.wall_time import WallTime

START_WALL = 1_800_000_000.25
NEVER = "0 0 29 2 *"
NOOP: dict[str, Any] = {"type": "noop"}
GOOD: dict[str, Any] = {"schedule": NEVER, "executor": NOOP}


class BenchClock(SystemClock):
    """The machine's clocks, but a wall clock that stands still until a test puts it on by whole milliseconds."""

    def __init__(self) -> None:
        self.wall_offset_ms = 0

    def wall(self) -> float:
        return START_WALL + self.wall_offset_ms / 1000


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def index(self) -> int:
        return int(self.headers["Raftcron-Index"])

    def expect(self, *statuses: int) -> Self:
        assert self.status in statuses, f"{self.status} instead of {statuses}: {self.body[:1000]!r}"
        return self

    def problem(self, status: int, code: str | None = None) -> Any:
        """The problem document, after a look at its form."""
        document = self.expect(status).json
        assert self.headers["Content-Type"] == "application/problem+json"
        assert document["status"] == status
        assert document["title"]
        assert document["detail"]
        assert document["type"] == f"urn:raftcron:problem:{document['code']}"
        assert code in (None, document["code"]), document
        return document

    def pointers(self, status: int = 422, code: str | None = None) -> list[str]:
        return [fault["pointer"] for fault in self.problem(status, code)["errors"]]


@dataclass
class BenchNode:
    name: str
    machine: Machine
    log: MemoryLog
    context: NodeContext
    runner: web.AppRunner
    url: str = ""

    async def serve(self, port: int = 0) -> None:
        """Listen on loopback."""
        self.runner = create_runner(create_app(self.context))
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", port)
        await site.start()
        assert site._server is not None
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        await self.runner.cleanup()

    async def propose(self, command: Any) -> Done:
        done = await self.context.proposer.propose(command)
        assert isinstance(done, Done), done
        return done


class Bench:
    """The nodes, n1 leading; and one client."""

    def __init__(self, size: int, **settings: Any) -> None:
        self.clock = BenchClock()
        self.cluster = MemoryCluster()
        self.peers: dict[str, PeerInfo] = {}
        self.nodes = {f"n{number + 1}": self._node(f"n{number + 1}", settings) for number in range(size)}
        self.session: aiohttp.ClientSession

    def _node(self, name: str, settings: dict[str, Any]) -> BenchNode:
        time = WallTime(self.clock)
        machine = Machine(name, time)
        machine.incarnation = 1
        machine.events = EventLog()
        log = self.cluster.join(name, machine)
        context = NodeContext(
            name=name,
            log=log,
            machine=machine,
            proposer=Proposer(log, machine, time),
            time=time,
            clocks=Clocks(
                node=name,
                log=log,
                clock=self.clock,
                time=time,
                cluster_time=lambda: machine.state.cluster_time,
                max_skew_ms=5_000,
            ),
            clock=self.clock,
            registry=Registry(),
            peers=self.peers,
            is_ready=lambda: log.applied_index > 0,
            events=machine.events,
            listen="127.0.0.1:0",
            advertise="127.0.0.1:0",
            **settings,
        )
        return BenchNode(name, machine, log, context, web.AppRunner(web.Application()))

    @property
    def n1(self) -> BenchNode:
        return self.nodes["n1"]

    @property
    def n2(self) -> BenchNode:
        return self.nodes["n2"]

    async def start(self) -> None:
        for node in self.nodes.values():
            await node.serve()
        self.cluster.elect("n1")
        for node in self.nodes.values():
            await self.announce(node)

    async def announce(self, node: BenchNode, incarnation: int = 1, tags: Mapping[str, str] | None = None) -> None:
        leader = self.nodes[self.cluster.leader or ""]
        address, carried = node.url.removeprefix("http://"), dict(tags or {})
        await leader.propose(
            Announce(node.name, incarnation, address, f"{node.name}:7201", "0.1.0", 1000, 100, tags=carried)
        )

    async def announce_anew(self, node: BenchNode, tags: Mapping[str, str] | None = None) -> None:
        """In its next life, at what is its address now; with these `tags`, and no others."""
        node.machine.incarnation += 1
        await self.announce(node, node.machine.incarnation, tags)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        on: str = "n1",
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; `body` is sent as JSON, `data` as it is, with JSON's type unless `headers` say another."""
        sent = dict(headers or {})
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        url = URL(self.nodes[on].url + path, encoded=True)
        stream = None if data is None else io.BytesIO(data)  # large bytes would be warned of
        async with self.session.request(method, url, data=stream, headers=sent, allow_redirects=False) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    @contextmanager
    def taking_nothing(self, path: str, on: str = "n1") -> Iterator[socket.socket]:
        """A reader that asks and takes no byte of the answer."""
        url = URL(self.nodes[on].url)
        with socket.socket() as narrow:
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little lies between the two
            narrow.connect((url.host, url.port))
            narrow.sendall(f"GET {path} HTTP/1.1\r\nHost: {url.authority}\r\n\r\n".encode())
            narrow.setblocking(False)
            yield narrow

    async def put(
        self, name: str, *, on: str = "n1", headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Answer:
        return await self.ask("PUT", f"/v1/jobs/{name}", {**GOOD, **fields}, on=on, headers=headers)

    async def fire(self, name: str, *times: int) -> None:
        """Decide and start these scheduled times of a job, in one entry."""
        job = self.n1.machine.state.jobs[name]
        fires = [Fire(at, at) for at in times]
        await self.n1.propose(Decide(Place("n1", 1), [Decision(job.uid, job.revision, times[-1], fires)]))

    async def finish(self, run_id: str, **fields: Any) -> None:
        run = self.n1.machine.state.runs[run_id]
        ended = Finished(run_id, run.fencing_token, **{"state": "succeeded", **fields})
        await self.n1.propose(Finish([ended]))


async def until_cut(reader: socket.socket) -> None:
    """Take what was on its way, until the node has ended the connection; TimeoutError if it does not."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionResetError):
        while await asyncio.wait_for(loop.sock_recv(reader, 1 << 20), 60):
            pass


@asynccontextmanager
async def bench(size: int = 1, **settings: Any) -> AsyncIterator[Bench]:
    """A started bench, and its end."""
    made = Bench(size, **settings)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0)) as session:
        made.session = session
        try:
            await made.start()
            yield made
        finally:
            for node in made.nodes.values():
                await node.close()
