"""Attempts on the stage by the shipped executors: http calls over a wire in memory, commands, and async handlers.

What a target, a command or a handler does is its job's script; the target of job `a` is the host `a`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from raftcron.clock import Clock
from raftcron.core.model import HANDLER_TAG
from raftcron.executors.addresses import BY_DEFAULT
from raftcron.executors.handlers import Handlers, Run
from raftcron.executors.http import HttpExecutor
from raftcron.executors.python import PythonExecutor
from raftcron.ports import Attempt, Control, Ending
from raftcron.testing.scripted_executor import Script
from raftcron.testing.virtual_time import VirtualLoop
from tests.scenarios.commands import NEVER, CommandExecutor

UNREACHABLE = Script(0.0, Ending("failed", error_kind="refused"))


@dataclass
class Answer(Script):
    """What a target answers."""

    status: int = 200
    text: str = ""


class KindsExecutor(CommandExecutor):
    """Runs each attempt by the executor that its job names; `calls` are (job, request line, body) as targets got them.

    A node has the handlers that its tags name.
    """

    def __init__(
        self, name: str, loop: VirtualLoop, clock: Clock, lease_grace_seconds: float, tags: dict[str, str]
    ) -> None:
        super().__init__(name, loop, clock, lease_grace_seconds)
        self.calls: list[tuple[str, str, str]] = []
        self._http = _OverWires(self, clock)
        handlers = Handlers()
        handlers.loop = loop
        for tag in tags:
            if tag.startswith(HANDLER_TAG):
                handlers.add(tag.removeprefix(HANDLER_TAG), self._handle, process=False)
        self._python = PythonExecutor(handlers, None, clock)

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        match attempt.executor["type"]:
            case "http":
                return await self._http.run(attempt, _Noted(self, attempt, control))
            case "python":
                return await self._python.run(attempt, _Noted(self, attempt, control))
        return await super().run(attempt, control)

    async def close(self) -> None:
        await self._http.close()

    async def _handle(self, run: Run) -> Any:
        script = self.scripts.get(run.job, Script())
        await asyncio.sleep(NEVER if script.seconds is None else script.seconds)
        if script.ending.state != "succeeded":
            raise ValueError("as its script has it")
        return run.args


@dataclass
class _Noted:
    """A Control that notes a start."""

    executor: KindsExecutor
    attempt: Attempt
    control: Control

    def may_start(self) -> float | None:
        until = self.control.may_start()
        if until is not None:
            self.executor.started.append(self.attempt)
        return until

    async def stopped(self) -> str:
        return await self.control.stopped()

    async def overdue(self) -> None:
        await self.control.overdue()


class _OverWires(HttpExecutor):
    """The shipped executor and its client; only connections are others."""

    def __init__(self, executor: KindsExecutor, clock: Clock) -> None:
        super().__init__(clock, BY_DEFAULT, None)
        self._executor = executor

    def _open(self) -> aiohttp.ClientSession:
        session = super()._open()
        connector: Any = session.connector
        connector._create_connection = self._connect
        return session

    async def _connect(self, request: Any, traces: Any, timeout: Any) -> ResponseHandler:
        host = str(request.url.host)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:  # refused, or there is nobody
            self._open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, 80))).close()
        if self._executor.scripts.get(host) is UNREACHABLE:
            raise ConnectionRefusedError(f"nobody listens at {host}")
        protocol = ResponseHandler(loop=asyncio.get_running_loop())
        protocol.connection_made(_Wire(self._executor, host, protocol))
        return protocol


class _Wire(asyncio.Transport):
    """A connection to the target `job`, which answers each request as the script says."""

    def __init__(self, executor: KindsExecutor, job: str, protocol: ResponseHandler) -> None:
        super().__init__()
        self._executor = executor
        self._job = job
        self._protocol = protocol
        self._request = bytearray()
        self._is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        script = self._executor.scripts.get(self._job, Script())
        if not self._request and script.seconds is not None:
            asyncio.get_running_loop().call_later(script.seconds, self._answer, script)
        self._request += data

    def _answer(self, script: Script) -> None:
        head, _, body = self._request.partition(b"\r\n\r\n")
        self._executor.calls.append((self._job, head.split(b" HTTP/")[0].decode(), body.decode()))
        self._request.clear()
        if self._is_closed:
            return
        if script.ending.error_kind == "broken":
            self._is_closed = True
            self._protocol.connection_lost(ConnectionResetError("it broke"))
            return
        answer = script if isinstance(script, Answer) else Answer()
        text = answer.text.encode()
        fields = [f"HTTP/1.1 {answer.status} -", f"Content-Length: {len(text)}", "Connection: close", "", ""]
        self._protocol.data_received("\r\n".join(fields).encode() + text)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self._is_closed
