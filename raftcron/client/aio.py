"""The asynchronous client, on aiohttp; the same methods as `Client`, to await."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from raftcron.client.addresses import DEFAULT_ADDRESSES, Addresses
from raftcron.client.aio_api import AsyncApi, Query, target_of
from raftcron.client.answers import MAX_ANSWER_BYTES, Answer, error_of, read
from raftcron.client.course import Broken, Late, NotSent, Outcome, Request, Try, Wait, course, tries
from raftcron.client.sync import (
    CHUNK_BYTES,
    CONNECT_SECONDS,
    KEY,
    PATIENCE_SECONDS,
    STREAM_SECONDS,
    TIMEOUT_SECONDS,
    is_late,
    patient,
    prepared,
    trusting,
    why,
)
from raftcron.clock import SystemClock
from raftcron.errors import RaftcronError, UnavailableError
from raftcron.once import BrokenError, once


class AsyncClient(AsyncApi):
    """See raftcron.client and Client; for one event loop, and any number of tasks in it."""

    def __init__(
        self,
        addresses: str | Sequence[str] = DEFAULT_ADDRESSES,
        token: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        ca: str | None = None,
        certificate: str | None = None,
        discover: bool = True,
    ) -> None:
        """InvalidError: one of the addresses is none."""
        self._addresses = Addresses(addresses)
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._timeout_seconds = timeout_seconds
        self._connect_seconds = min(timeout_seconds, CONNECT_SECONDS)
        self._patience_seconds = patience_seconds
        self._tls: ssl.SSLContext | bool = trusting(ca, certificate) or True
        self._discover = discover
        self._leader: str | None = None
        self._sought: str | None = None
        self._clock = SystemClock()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections; the client can still be used."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        sent, payload = prepared(method, self._headers, body, headers)
        asked = Request(method, target_of(path, query), has_key=KEY in sent)
        answer = await self._run(asked, payload, sent, self._patience_seconds)
        self._leader = leader = answer.headers.get("raftcron-leader", self._leader)
        if self._discover and leader not in (None, self._sought) and not self._addresses.knows(leader):
            self._sought = leader
            await self._learn()
        return answer

    async def stream(
        self,
        path: str,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        opened: MutableMapping[str, str] | None = None,
    ) -> AsyncIterator[bytes]:
        target = target_of(path, query)
        refusals: list[str] = []
        last: RaftcronError | None = None
        timeout = aiohttp.ClientTimeout(sock_connect=self._connect_seconds, sock_read=STREAM_SECONDS)
        steps = tries(self._addresses.round(), is_read=True)
        for step in steps:  # grows by those who are late
            address = step.address
            try:
                async with asyncio.timeout(step.seconds):
                    response = await self._open().get(
                        URL(address + target, encoded=True),
                        headers=self._headers | dict(headers or {}),
                        timeout=timeout,
                        allow_redirects=False,
                        ssl=self._tls,
                    )
            except (BrokenError, aiohttp.ClientError, OSError, TimeoutError) as error:
                self._addresses.failed(address)
                if is_late(step, error):
                    steps.append(Try(address))
                else:
                    refusals.append(f"{address}: {why(error)}")
                continue
            async with response:
                if response.status >= 300:
                    last = error_of(await _answer(address, response))
                    if not isinstance(last, UnavailableError):
                        raise last
                    continue
                self._addresses.served(address)
                if opened is not None:
                    opened.update((name.lower(), value) for name, value in response.headers.items())
                try:
                    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                        yield chunk
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    raise UnavailableError(f"GET {target} at {address} broke off: {why(error)}") from error
                return
        raise last or UnavailableError(f"no node can be reached: {'; '.join(refusals)}; is one running there?")

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    # ---- details

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                middlewares=(once,), auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    async def _run(self, asked: Request, payload: bytes | None, headers: Mapping[str, str], patience: float) -> Answer:
        leader = None if asked.method == "GET" else self._leader
        steps = course(asked, self._addresses, leader, patience, self._clock.monotonic)
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            if isinstance(step, Wait):
                await self.pause(step.seconds)
                outcome = None
            else:
                outcome = await self._exchange(step, asked, payload, headers)

    async def _exchange(self, step: Try, asked: Request, payload: bytes | None, headers: Mapping[str, str]) -> Outcome:
        total = patient(self._timeout_seconds, payload)
        try:
            async with asyncio.timeout(step.seconds):
                response = await self._open().request(
                    asked.method,
                    URL(step.address + asked.target, encoded=True),
                    data=payload and io.BytesIO(payload),  # sent in pieces, with turns for others between them
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=total, sock_connect=self._connect_seconds),
                    allow_redirects=False,
                    ssl=self._tls,
                )
            step = Try(step.address)  # its answer has begun
            async with response:
                return await _answer(step.address, response)
        except aiohttp.ClientConnectorError as error:
            return NotSent(why(error))
        except aiohttp.ConnectionTimeoutError as error:
            return Late() if is_late(step, error) else NotSent(why(error))
        except (BrokenError, aiohttp.ClientError, OSError, TimeoutError) as error:
            return Late() if is_late(step, error) else Broken(why(error))

    async def _learn(self) -> None:
        """Ask where the others are, once for each new leader; that it fails costs nothing but a longer way."""
        try:
            found = await self._run(Request("GET", "/v1/cluster", has_key=False), None, self._headers, 0.0)
            self._addresses.learn(found.body["members"])
        except (RaftcronError, KeyError, TypeError):
            return


async def _answer(address: str, response: aiohttp.ClientResponse) -> Answer:
    raw = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        raw += chunk
        if len(raw) > MAX_ANSWER_BYTES:
            break
    return read(address, response.status, {name.lower(): value for name, value in response.headers.items()}, bytes(raw))
