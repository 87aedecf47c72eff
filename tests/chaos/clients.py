"""Who works beside the faults of a chaos run: writers, readers, editors, a watcher, and strangers.

Each records what it was answered; none of them judges.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from tests.chaos import odd_requests
from tests.chaos.history import Odd, Phase, Read, Sample, Told, Write, milliseconds
from tests.chaos.receiver import Receiver, now
from tests.cluster.harness import NO_ANSWER, Answer, Cluster

NEVER = "0 0 29 2 *"  # not during a test
PAUSE_SECONDS = (0.03, 0.18)  # between two requests of one writer or reader
LOOK_SECONDS = 0.4  # between two looks of the watcher
STRANGE_SECONDS = (0.05, 0.2)  # between two requests of a stranger
EDIT_SECONDS = (0.4, 1.6)  # between two changes of one job; a pause lasts for
HOLD_SECONDS = (1.2, 2.6)
AROUND_SECONDS = 0.03  # a change is asked for so near a time of the schedule, before it or behind
ACKNOWLEDGED_SECONDS = 60.0  # until then a change is acknowledged, whatever befalls the nodes
AGAIN = frozenset({409, 429, 503, 504})  # the same request still runs, or came too early, or has no answer
SCHEDULES = (
    "* * * * * *",
    "@every 1s from 2025-12-31T23:59:59.500Z",
    "*/2 * * * * *",
    "@every 1s from 2025-01-01T00:00:00.123Z",
)
WATCHED = {"kind": "fires"}  # a label of each job that fires


class Client(Protocol):
    async def work(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""


@dataclass
class Writer:
    """Writes jobs that never fire soon, one after the other, to nodes picked by chance; records what was answered.

    `recent` gets the names, for those who read.

    A name is left alone after the first write that was not acknowledged, and after a few that were.  A write that
    found nobody to talk to was never sent, and is none.
    """

    number: int
    cluster: Cluster
    receiver: Receiver
    dice: random.Random
    writes: list[Write]
    recent: deque[str]

    async def work(self, stop: asyncio.Event) -> None:
        names = 0
        while not stop.is_set():
            name = f"w{self.number}-{names}"
            names += 1
            self.recent.append(name)
            for place in range(self.dice.randint(1, 4)):
                deletes = place > 0 and self.dice.random() < 0.3
                # dead nodes too, as a client would
                node = self.dice.choice(tuple(self.cluster.nodes))
                acknowledged = await self.write(node, name, None if deletes else f"{name} write {place}")
                # A pace, not a wait: the writers must leave the machine to the cluster.
                await asyncio.sleep(self.dice.uniform(*PAUSE_SECONDS))
                if deletes or not acknowledged or stop.is_set():
                    break

    async def write(self, node: str, name: str, text: str | None) -> bool:
        """One PUT, or a DELETE without a text; whether it was acknowledged."""
        at, _ = await self.receiver.open()
        status: int | None = None
        revision: int | None = None
        index: int | None = None
        job = None if text is None else idle_job(text, self.receiver.url)
        began = time.monotonic_ns()
        try:
            answer = await self.cluster.request(
                node, "DELETE" if job is None else "PUT", f"/v1/jobs/{name}", body=job, timeout=15
            )
        except aiohttp.ClientConnectorError:
            return False
        except NO_ANSWER:
            pass
        else:
            status, index = answer.status, answer.index
            if status in (200, 201):
                revision = answer.json["revision"]
        self.writes.append(Write(name, text, status, node, at, revision, index, began, time.monotonic_ns()))
        return status in (200, 201, 204)


@dataclass
class Reader:
    """Reads what was written lately, from nodes picked by chance, and records what was found or found missing."""

    cluster: Cluster
    dice: random.Random
    reads: list[Read]
    recent: deque[str]

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self.recent:
                await self._read(self.dice.choice(tuple(self.cluster.nodes)), self.dice.choice(tuple(self.recent)))
            await asyncio.sleep(self.dice.uniform(*PAUSE_SECONDS))  # as with the writers

    async def _read(self, node: str, name: str) -> None:
        began = time.monotonic_ns()
        try:
            answer = await self.cluster.request(node, "GET", f"/v1/jobs/{name}", timeout=15)
        except NO_ANSWER:
            return
        ended = time.monotonic_ns()
        if answer.status in (200, 404):
            job = answer.json if answer.status == 200 else None
            body, revision = (None, None) if job is None else (whole_text(job), job["revision"])
            assert answer.index is not None, f"a read without an index: {answer}"
            self.reads.append(Read(name, body, revision, node, answer.index, began, ended))


def idle_job(text: str, url: str) -> dict[str, Any]:
    """A job that never fires during a test; `text` stands in it twice, so that half a write would show."""
    executor = {"type": "http", "url": f"{url}/hook"}
    return {"schedule": NEVER, "executor": executor, "description": text, "labels": {"writer": text}}


def whole_text(job: dict[str, Any]) -> str:
    """The text of an idle job, if both places say the same."""
    description, label = job["description"], job["labels"].get("writer")
    return str(description) if description == label else f"torn: {description!r} and {label!r}"


@dataclass
class Editor:
    """Edits, pauses and resumes one job, near the times at which it fires; each change under a key until it is known.

    `phases` begin with what the job was created as; nobody else changes it.
    """

    name: str
    cluster: Cluster
    dice: random.Random
    phases: list[Phase]

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(self.dice.uniform(*EDIT_SECONDS))
            await self._near_a_time()
            match self.dice.choice(("schedule", "text", "pause")):
                case "schedule":
                    others = [each for each in SCHEDULES if each != self.phases[-1].schedule]
                    await self._change({"schedule": self.dice.choice(others)})
                case "text":
                    await self._change({"description": f"edit {len(self.phases)}"})
                case "pause":
                    await self._change("pause")
                    await asyncio.sleep(self.dice.uniform(*HOLD_SECONDS))
                    await self._near_a_time()
                    await self._change("resume")

    async def _near_a_time(self) -> None:
        """Half a second and a whole one are times of most schedules here."""
        left = -time.time() % 0.5
        await asyncio.sleep(max(0.0, left + self.dice.uniform(-AROUND_SECONDS, AROUND_SECONDS)))

    async def _change(self, what: dict[str, Any] | str) -> None:
        path, headers = f"/v1/jobs/{self.name}", {"Idempotency-Key": f"{self.name}-{len(self.phases)}"}
        asked_at, deadline = now(), time.monotonic() + ACKNOWLEDGED_SECONDS
        while True:
            node = self.dice.choice(tuple(self.cluster.nodes))
            try:
                answer = await self._ask(node, path, headers, what)
            except NO_ANSWER as error:
                said = f"{type(error).__name__}: {error}"
            else:
                if answer.status == 200:
                    break
                said = answer.text
                assert answer.status in AGAIN, f"{node} answers {answer.status} to {what} of {self.name}: {said}"
            assert time.monotonic() < deadline, f"{what} of {self.name} was never acknowledged; {node}: {said}"
            await asyncio.sleep(0.05)
        self.phases.append(phase_of(answer.json, asked_at))

    async def _ask(self, node: str, path: str, headers: dict[str, str], what: dict[str, Any] | str) -> Answer:
        if isinstance(what, str):
            return await self.cluster.request(node, "POST", f"{path}/{what}", body={}, headers=headers, timeout=15)
        headers = {**headers, "Content-Type": "application/merge-patch+json"}
        return await self.cluster.request(node, "PATCH", path, body=what, headers=headers, timeout=15)


def phase_of(job: dict[str, Any], asked_at: int) -> Phase:
    """What holds for a job from its last change on, by the answer to that."""
    since = milliseconds(job["stats"]["counted_from"])
    return Phase(since, job["revision"], job["schedule"], job["paused"], asked_at, now())


@dataclass
class Watcher:
    """Looks at the jobs that fire, and at what time it is, again and again, through nodes picked by chance."""

    cluster: Cluster
    dice: random.Random
    samples: list[Sample] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(LOOK_SECONDS)
            for look in (self._look_at_jobs, self._look_at_time):
                with suppress(*NO_ANSWER):
                    await look(self.dice.choice(tuple(self.cluster.nodes)))

    async def _look_at_jobs(self, node: str) -> None:
        path = "/v1/jobs?limit=500&label=" + "%3D".join(*WATCHED.items())
        answer = await self.cluster.request(node, "GET", path, timeout=15)
        if answer.status == 200:
            seen_at, index = now(), answer.index
            assert index is not None, f"a look without an index: {answer}"
            self.samples += [self._sample(job, seen_at, index) for job in answer.json["items"]]

    async def _look_at_time(self, node: str) -> None:
        asked_at = now()
        answer = await self.cluster.request(node, "GET", "/v1/cluster?digests=0", timeout=15)
        time = answer.json["time"] if answer.status == 200 else None
        if time is not None:
            self.told.append(Told(node, milliseconds(time), asked_at, now()))

    @staticmethod
    def _sample(job: dict[str, Any], seen_at: int, index: int) -> Sample:
        stats = job["stats"]
        counted_from, decided_through = milliseconds(stats["counted_from"]), milliseconds(stats["decided_through"])
        return Sample(
            job["name"],
            job["schedule"],
            job["paused"],
            counted_from,
            decided_through,
            stats["fired"],
            stats["skipped"],
            seen_at,
            index,
        )


@dataclass
class Stranger:
    """Writes what nobody would, all of it sound by its form: nothing that it does may harm a node."""

    cluster: Cluster
    dice: random.Random
    odd: list[Odd]

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            request = odd_requests.draw(self.dice)
            node = self.dice.choice(tuple(self.cluster.nodes))
            status: int | None = None
            try:
                answer = await self.cluster.request(node, request.method, request.path, body=request.body, timeout=15)
            except aiohttp.ClientConnectorError:
                continue  # nobody was asked
            except NO_ANSWER:
                pass
            else:
                status = answer.status
            self.odd.append(Odd(str(request), status, node))
            await asyncio.sleep(self.dice.uniform(*STRANGE_SECONDS))
