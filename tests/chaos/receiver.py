"""A webhook receiver in a process of its own: what arrived, when, by its own clock.  Not here: what it means.

Run as a module it serves; imported it gives `Receiver`, which starts, asks and ends that process.

    POST /hook?delay=0.6    records the arrival at once, answers 200 after that many seconds
    GET  /arrivals?from=7   {"arrivals": [...]}, in the order of arrival, from that number (0) on
    GET  /open              {"at": ms, "open": [node, ...]}: who waits for an answer now, and what this clock says
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import aiohttp
from aiohttp import web

from tests.cluster.place import HERE, Place

ROOT = Path(__file__).resolve().parents[2]
MAX_ARRIVALS = 2_000_000  # a bound for the long form: about 1 GiB


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Book:
    """Every arrival, in memory and in an append-only file of JSON lines: {"arrival": ...}, {"end": number, ...}."""

    def __init__(self, file: TextIO) -> None:
        self.arrivals: list[dict[str, Any]] = []
        self._file = file

    def arrive(self, headers: Any) -> dict[str, Any]:
        if len(self.arrivals) >= MAX_ARRIVALS:
            raise RuntimeError(f"more than {MAX_ARRIVALS} arrivals")
        arrival = {
            "number": len(self.arrivals),
            "job": headers.get("Raftcron-Job"),
            "run_id": headers.get("Raftcron-Run-Id"),
            "key": headers.get("Idempotency-Key"),
            "scheduled_time": headers.get("Raftcron-Scheduled-Time"),
            "attempt": headers.get("Raftcron-Attempt"),
            "token": headers.get("Raftcron-Fencing-Token"),
            "node": headers.get("Raftcron-Node"),
            "arrived_at": now(),
            "ended_at": None,
            "answered": False,
        }
        self.arrivals.append(arrival)
        self._write({"arrival": arrival})
        return arrival

    def end(self, arrival: dict[str, Any], answered: bool) -> None:
        arrival["ended_at"], arrival["answered"] = now(), answered
        self._write({"end": arrival["number"], "at": arrival["ended_at"], "answered": answered})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def application(book: Book) -> web.Application:
    """The receiver's routes over one book."""

    async def hook(request: web.Request) -> web.StreamResponse:
        arrival = book.arrive(request.headers)
        answered = False
        try:
            await request.read()
            await asyncio.sleep(float(request.query.get("delay", "0")))
            response = web.Response(text="ok")
            await response.prepare(request)
            await response.write_eof()
            answered = True
        finally:  # cancelled when the caller hangs up
            book.end(arrival, answered)
        return response

    async def arrivals(request: web.Request) -> web.StreamResponse:
        return web.json_response({"arrivals": book.arrivals[int(request.query.get("from", "0")) :]})

    async def still_open(_: web.Request) -> web.StreamResponse:
        recent = book.arrivals[-500:]  # none stays open for longer than 500 arrivals last
        waiting = [arrival["node"] for arrival in recent if arrival["ended_at"] is None]
        return web.json_response({"at": now(), "open": waiting})

    app = web.Application()
    app.add_routes([web.post("/hook", hook), web.get("/arrivals", arrivals), web.get("/open", still_open)])
    return app


async def serve(host: str, path: Path) -> None:
    """Serves until killed; prints its port as the first line."""
    with path.open("a") as file:
        runner = web.AppRunner(application(Book(file)), handler_cancellation=True, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, host, 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


class Receiver:
    """The receiver's process, and questions to it; ends it on leaving."""

    def __init__(self, folder: Path, place: Place = HERE) -> None:
        self._place = place
        self.path = folder.resolve() / "arrivals.jsonl"
        self._errors = folder / "receiver.err"
        self._process: subprocess.Popen[str] | None = None
        self._session: aiohttp.ClientSession | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors.open("ab") as errors, self._place.entered():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.receiver", "--host", self._place.host, "--file", str(self.path)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        port = await asyncio.to_thread(self._process.stdout.readline)
        if not port.strip():
            self._end()
            raise RuntimeError(f"the receiver did not start: {self._errors.read_text()}")
        self.url = f"http://{self._place.host}:{port.strip()}"
        self._session = aiohttp.ClientSession(connector=self._place.connector())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def hook(self, delay: float = 0) -> str:
        """The URL that answers after `delay` seconds."""
        return f"{self.url}/hook?delay={delay:g}"

    async def _get(self, path: str) -> Any:
        assert self._session is not None, "the receiver is not entered"
        async with self._session.get(self.url + path, timeout=aiohttp.ClientTimeout(total=30)) as response:
            response.raise_for_status()
            return await response.json()

    async def arrivals(self, job: str | None = None, *, start: int = 0) -> list[dict[str, Any]]:
        """The arrivals so far, from number `start` on (of one job), in the order of arrival, headers as text."""
        found: list[dict[str, Any]] = (await self._get(f"/arrivals?from={start}"))["arrivals"]
        return [arrival for arrival in found if job is None or arrival["job"] == job]

    async def open(self) -> tuple[int, list[str]]:
        """The receiver's clock, and the nodes that wait for an answer (one entry a request)."""
        answer = await self._get("/open")
        return answer["at"], answer["open"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True, help="the address to listen on")
    parser.add_argument("--file", type=Path, required=True, help="where arrivals are appended, one JSON line each")
    options = parser.parse_args()
    asyncio.run(serve(options.host, options.file))
