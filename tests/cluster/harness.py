"""Real raftcron processes: starts, signals and questions them.  Not here: what is right or wrong about the answers.

The product is known only by its contract: a command line, an HTTP interface and a data directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiohttp

from tests.cluster.place import HERE, Place

T = TypeVar("T")

SECRET = "a secret of this test cluster alone"
POLL_SECONDS = 0.03
STOOD_STILL_SECONDS = 0.4  # whoever stands still for so long may be taken for dead by the others
CALM_TRIES = 6
TAIL_BYTES = 4_000
PORTS = range(20_000, 32_000)  # below Linux's ephemeral range: no outgoing connection takes the port of a killed node


class UnansweredError(Exception):
    """The request was sent, at least in part, and the connection broke before its answer."""


NO_ANSWER = (aiohttp.ClientError, UnansweredError, TimeoutError, OSError)  # how a request to a dead node ends


async def eventually(
    condition: Callable[[], Awaitable[T]], *, within: float, what: str, every: float = POLL_SECONDS
) -> T:
    """Asks `condition` until it gives something true, and gives that back; AssertionError after `within` seconds.

    It is asked again `every` seconds.  It may also raise AssertionError or one of NO_ANSWER for "not yet"; the last
    reason is in the message.
    """
    deadline = time.monotonic() + within
    while True:
        reason: object
        try:
            value = await condition()
        except (AssertionError, *NO_ANSWER) as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            if value:
                return value
            reason = f"the last answer was {value!r}"
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what} ({reason})")
        await asyncio.sleep(every)


async def sent_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """A broken connection is told, and nothing is sent again: aiohttp would repeat a PUT or a DELETE by itself."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise UnansweredError(f"{request.method} {request.url}: {type(error).__name__} {error}") from error


class ReservedPorts:
    """TCP ports of 127.0.0.1 that no other test run on this machine takes until `release`, whoever listens or not."""

    def __init__(self, count: int) -> None:
        self.numbers: list[int] = []
        self._locks: list[int] = []
        folder = Path(tempfile.gettempdir()) / f"raftcron-test-ports-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        offset = os.getpid() * 131 % len(PORTS)
        for step in range(len(PORTS)):
            if len(self.numbers) == count:
                return
            self._try(PORTS[(offset + step) % len(PORTS)], folder)
        self.release()
        raise RuntimeError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}")

    def _try(self, port: int, folder: Path) -> None:
        lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
        else:
            self._locks.append(lock)
            self.numbers.append(port)

    def release(self) -> None:
        """Ends the reservation; closing a lock's file is what unlocks it."""
        while self._locks:
            os.close(self._locks.pop())


@dataclass(frozen=True)
class Answer:
    """One HTTP answer.  `leader` is None while the node knows none, `index` None where the header is missing."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def node(self) -> str | None:
        return self.headers.get("Raftcron-Node")

    @property
    def leader(self) -> str | None:
        return self.headers.get("Raftcron-Leader")

    @property
    def index(self) -> int | None:
        value = self.headers.get("Raftcron-Index")
        return None if value is None else int(value)

    @property
    def json(self) -> Any:
        """The body, decoded; AssertionError where it is no JSON."""
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise AssertionError(f"{self.status} with a body that is no JSON ({error}): {self.text[:500]!r}") from error

    def expect(self, *statuses: int) -> Self:
        """Itself, if the status is one of these; AssertionError with the body otherwise."""
        assert self.status in statuses, f"status {self.status} instead of {statuses}: {self.text[:1000]}"
        return self


@dataclass
class Node:
    """One node: where it listens, where its data lies, and its present process, if any."""

    name: str
    http_port: int
    raft_port: int
    data: Path
    out: Path
    err: Path
    place: Place = HERE
    process: subprocess.Popen[bytes] | None = None
    stopped: bool = field(default=False)  # by SIGSTOP

    @property
    def url(self) -> str:
        return f"http://{self.place.host}:{self.http_port}"

    @property
    def raft(self) -> str:
        return f"{self.place.host}:{self.raft_port}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    @property
    def output(self) -> str:
        """All that its processes have said so far, stdout before stderr."""
        return "".join(path.read_text(errors="replace") for path in (self.out, self.err) if path.exists())

    @property
    def memory_bytes(self) -> int:
        """What its process has in memory now."""
        assert self.process is not None
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def tail(self) -> str:
        text = self.output[-TAIL_BYTES:]
        return f"--- {self.name} (exit code {self.exit_code}), the last {len(text)} characters:\n{text}"


class Cluster:
    """`size` nodes n1, n2, ... on loopback, each in a session of its own; ends only processes that it started.

    `extra` are flags for every node.  Data and logs lie under `folder`.  Entering starts nothing; `start` does.
    """

    not_injected: tuple[str, ...] = ()  # of the faults of this sort of cluster: what this machine does not allow

    def __init__(
        self, folder: Path, *, size: int = 3, extra: Sequence[str] = (), allow_shell: bool = False, secret: str = SECRET
    ) -> None:
        self.folder = folder
        self.place = HERE  # where its clients are
        self.extra = [*extra, *(["--allow-shell"] if allow_shell else [])]
        self.secret = secret
        self._ports = ReservedPorts(2 * size)
        http, raft = self._ports.numbers[:size], self._ports.numbers[size:]
        self.nodes = {
            f"n{i + 1}": Node(
                f"n{i + 1}", http[i], raft[i], folder / f"n{i + 1}", folder / f"n{i + 1}.out", folder / f"n{i + 1}.err"
            )
            for i in range(size)
        }
        self._session: aiohttp.ClientSession | None = None
        self.judged_again = 0  # how often `in_calm` had no calm

    # ---- a life ----

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._session = aiohttp.ClientSession(connector=self.place.connector(), middlewares=(sent_once,))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill(*(node.name for node in self.nodes.values() if node.alive))  # all at once: no last election
        if self._session is not None:
            await self._session.close()
        self._ports.release()
        if error is not None:
            error.add_note(self.tails())

    def tails(self) -> str:
        """The ends of all logs, for a failed test."""
        return "\n".join(node.tail() for node in self.nodes.values())

    def command(self, name: str, extra: Sequence[str] = ()) -> list[str]:
        """The command line of one node, as api.md section 1 has it."""
        node = self.nodes[name]
        peers = [part for peer in self.nodes for part in ("--peer", f"{peer}={self.told(name, peer)}")]
        own = ["--name", name, "--data-dir", str(node.data), "--http", f"{node.place.host}:{node.http_port}"]
        return [
            *(sys.executable, "-m", "raftcron", "server"),
            *own,
            *("--raft", node.raft),
            *peers,
            *self.extra,
            *extra,
        ]

    def told(self, name: str, peer: str) -> str:
        """Where this node is told that the peer listens."""
        return self.nodes[peer].raft

    def environment(self, secret: str | None = None) -> dict[str, str]:
        """The environment of a node: this one's, without whatever RAFTCRON_* it holds."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAFTCRON_")}
        return {**inherited, "RAFTCRON_CLUSTER_SECRET": self.secret if secret is None else secret}

    def spawn(self, name: str, *, extra: Sequence[str] = (), secret: str | None = None) -> None:
        """Starts one node's process and does not wait for anything."""
        node = self.nodes[name]
        assert not node.alive, f"{name} runs already"
        with node.out.open("ab") as out, node.err.open("ab") as err, node.place.entered():
            node.process = subprocess.Popen(
                self.command(name, extra),
                env=self.environment(secret),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        node.stopped = False

    async def start(self, *names: str, within: float = 60) -> None:
        """Starts these nodes (all by default) and waits until they are ready."""
        for name in names or tuple(self.nodes):
            self.spawn(name)
        await self.wait_ready(*names, within=within)

    async def stop(self, *names: str, within: float = 60) -> dict[str, int]:
        """SIGTERM to these nodes (all that live by default), at once; their exit codes."""
        chosen = [self.nodes[name] for name in names] or [node for node in self.nodes.values() if node.alive]
        for node in chosen:
            self._signal(node, signal.SIGTERM)
        return {node.name: await self._exited(node, within=within) for node in chosen}

    async def kill(self, *names: str) -> None:
        """SIGKILL to these nodes, at once; returns when their processes are gone."""
        for name in names:
            self._signal(self.nodes[name], signal.SIGKILL)
        for name in names:
            await self._exited(self.nodes[name], within=60)

    async def restart(self, name: str, *, within: float = 60) -> None:
        """SIGTERM, the end, a new process, ready."""
        await self.stop(name)
        await self.start(name, within=within)

    def sigstop(self, name: str, *, with_children: bool = False) -> None:
        """Freezes the node's process, as a long pause of its machine would (and its children)."""
        self._signal(self.nodes[name], signal.SIGSTOP, with_children=with_children)
        self.nodes[name].stopped = True

    def sigcont(self, name: str, *, with_children: bool = False) -> None:
        """Wakes it; harmless if it was not frozen."""
        if self.nodes[name].stopped:
            self._signal(self.nodes[name], signal.SIGCONT, with_children=with_children)
            self.nodes[name].stopped = False

    @staticmethod
    def _signal(node: Node, number: signal.Signals, *, with_children: bool = False) -> None:
        assert node.process is not None, f"{node.name} was never started"
        if with_children and node.alive:
            os.killpg(node.process.pid, number)
        else:
            node.process.send_signal(number)

    @staticmethod
    async def _exited(node: Node, *, within: float) -> int:
        async def gone() -> bool:
            return not node.alive

        await eventually(gone, within=within, what=f"the process of {node.name} ends")
        assert node.exit_code is not None
        return node.exit_code

    async def wait_exit(self, name: str, *, within: float = 60) -> int:
        """The exit code of a node that ends by itself."""
        return await self._exited(self.nodes[name], within=within)

    # ---- questions ----

    @property
    def alive(self) -> list[str]:
        """Names of the nodes that run and are not frozen."""
        return [node.name for node in self.nodes.values() if node.alive and not node.stopped]

    async def request(
        self,
        name: str,
        method: str,
        path: str,
        *,
        body: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """One request to one node, sent once.  `body` is sent as JSON, `data` as it is.  Raises one of NO_ANSWER."""
        assert self._session is not None, "the cluster is not entered"
        sent = dict(headers or {})
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self._session.request(
            method,
            self.nodes[name].url + path,
            data=None if data is None else io.BytesIO(data),  # as a stream: some are larger than aiohttp likes
            headers=sent,
            timeout=aiohttp.ClientTimeout(total=timeout),
            allow_redirects=False,
        ) as response:
            return Answer(response.status, response.headers.copy(), await response.text())

    async def status(self, name: str) -> Any:
        """What one node knows of the cluster, also without a quorum."""
        return (await self.request(name, "GET", "/v1/cluster", timeout=20)).expect(200).json

    async def wait_ready(self, *names: str, within: float = 60) -> None:
        """Until /readyz of these nodes (all that live by default) answers 200; at once an error if one has ended."""
        chosen = names or tuple(self.alive)
        deadline = time.monotonic() + within
        for name in chosen:

            async def ready(name: str = name) -> bool:
                node = self.nodes[name]
                if not node.alive:
                    raise RuntimeError(f"{name} ended with {node.exit_code} instead of getting ready\n{node.tail()}")
                answer = await self.request(name, "GET", "/readyz", timeout=20)
                assert answer.status == 200, answer.text[:300]
                return True

            await eventually(ready, within=max(0.1, deadline - time.monotonic()), what=f"/readyz of {name} says 200")

    async def leader(self) -> str | None:
        """The node that leads by its own word and by that of a majority of all nodes, or None."""
        votes: dict[str, set[str]] = {}
        for name in self.alive:
            with contextlib.suppress(*NO_ANSWER):
                named = (await self.status(name)).get("leader")
                if named is not None:
                    votes.setdefault(named, set()).add(name)
        for named, voters in votes.items():
            if named in voters and len(voters) > len(self.nodes) // 2:
                return named
        return None

    async def wait_leader(self, *, other_than: str | None = None, within: float = 60) -> str:
        """The leader, once there is one (another one than `other_than`)."""

        async def found() -> str | None:
            name = await self.leader()
            assert name != other_than or name is None, f"{name} leads still"
            return name

        found_name = await eventually(found, within=within, what="a leader that a majority names")
        assert found_name is not None
        return found_name

    async def in_calm(self, judge: Callable[[], Awaitable[T]]) -> T:
        """What `judge` gives, for what only a machine that goes on can show: that a leader stays.

        Where it raises AssertionError and a node stood still meanwhile, by its own word, it is tried again.
        """
        for _ in range(CALM_TRIES):
            said = {node.name: node.err.stat().st_size for node in self.nodes.values()}
            try:
                return await judge()
            except AssertionError:
                await asyncio.sleep(0.5)  # who stood still says so once it goes on
                news = "".join(node.err.read_text(errors="replace")[said[node.name] :] for node in self.nodes.values())
                stalls = [float(seconds) for seconds in re.findall(r"loop_stalled seconds=([\d.]+)", news)]
                if max(stalls, default=0.0) < STOOD_STILL_SECONDS:
                    raise
                print(f"judged again: a node stood still for {max(stalls)} s")
                self.judged_again += 1
        raise AssertionError("the machine stood still too often to judge")

    async def followers(self) -> list[str]:
        """The living nodes that do not lead."""
        leader = await self.wait_leader()
        return [name for name in self.alive if name != leader]

    async def standing(self, name: str) -> tuple[int, Any]:
        """(applied index, digest) of one node, by its own word."""
        members = (await self.status(name))["members"]
        own = next(member for member in members if member["name"] == name)
        return own["applied_index"], own["digest"]

    async def digests(self, name: str) -> dict[int, Any]:
        """The (applied index -> digest) pairs that one node still keeps."""
        return dict((await self.status(name))["digests"])

    async def wait_converged(self, within: float = 60) -> float:
        """Until all living nodes stand at one applied index with one digest; the seconds that it took.

        Two digests at one index end it at once: that never heals.
        """
        began = time.monotonic()

        async def same() -> bool:
            names = self.alive
            seen = [await self.standing(name) for name in names]
            known: dict[int, tuple[Any, str]] = {}
            for name in names:
                for index, digest in (await self.digests(name)).items():
                    other, witness = known.setdefault(index, (digest, name))
                    if other != digest:
                        raise RuntimeError(f"digests differ at index {index}: {witness} {other}, {name} {digest}")
            assert len(set(seen)) == 1, f"they stand at {dict(zip(names, seen, strict=True))}"
            return True

        await eventually(same, within=within, what="all nodes stand at one index with one digest")
        return time.monotonic() - began

    # ---- jobs and runs ----

    async def put_job(self, node: str, name: str, **job: Any) -> Any:
        """PUT of one job on one node; the job as answered."""
        return (await self.request(node, "PUT", f"/v1/jobs/{name}", body=job)).expect(200, 201).json

    async def pages(self, node: str, path: str) -> list[Any]:
        """All items of a list, page by page to its end."""
        return [item async for item in self._items(node, path)]

    async def _items(self, node: str, path: str) -> AsyncIterator[Any]:
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            joint = "&" if "?" in path else "?"
            more = "" if cursor is None else f"&cursor={quote(cursor, safe='')}"
            page = (await self.request(node, "GET", f"{path}{joint}limit=500{more}", timeout=30)).expect(200).json
            for item in page["items"]:
                yield item
            cursor = page["next_cursor"]
            if cursor is None:
                return
            assert cursor not in seen, f"{path} gives the cursor {cursor!r} twice"
            seen.add(cursor)

    async def runs(self, node: str, job: str) -> list[Any]:
        """All run records of a job, newest first, as GET /v1/jobs/{name}/runs gives them."""
        return await self.pages(node, f"/v1/jobs/{job}/runs")
