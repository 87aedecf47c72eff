"""One chaos run: jobs, background writes, kills by a seeded plan, healing, and the evidence.  Not here: the verdict.

The short form (`test_chaos.py`) and the long one (`scripts/chaos`) differ in their rounds only.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from tests.chaos.history import (
    ACTIVE_STATES,
    Arrival,
    Evidence,
    Job,
    Kill,
    NodeEnd,
    Remaining,
    Run,
    Write,
    milliseconds,
)
from tests.chaos.receiver import Receiver
from tests.cluster.harness import NO_ANSWER, Cluster, eventually

PROMPT_DELAY_SECONDS = 0.0
SLOW_DELAY_SECONDS = 0.55  # in flight more than half of the time, so that kills meet runs
LONGER_THAN_ITS_INTERVAL_SECONDS = 1.8
SETTLE_SECONDS = 30.0
ATTEMPTS = {"at_most_once": None, "at_least_once": 50}  # a run may well meet more kills than the default's five
WRITERS = 4
WRITE_PAUSE_SECONDS = (0.02, 0.12)


class Plan(NamedTuple):
    """A job to create; `delay` is how long the receiver takes to answer."""

    name: str
    schedule: str
    delivery: str
    overlap: str
    delay: float


def plans() -> list[Plan]:
    """32 counted jobs of both classes and four `skip` jobs, on several grids."""
    schedules = (
        "@every 1s",
        "* * * * * *",
        "@every 1s from 2024-02-29T00:00:00.{millis:03}Z",
        "@every 1s from 2025-12-31T23:59:59.{millis:03}Z",
    )
    counted = [
        Plan(
            f"{'least' if i % 2 else 'most'}-{i:02}",
            schedules[i // 2 % 4].format(millis=i * 31),
            "at_least_once" if i % 2 else "at_most_once",
            "allow",
            SLOW_DELAY_SECONDS if i % 6 in (0, 1) else PROMPT_DELAY_SECONDS,
        )
        for i in range(32)
    ]
    judged_by_reason = [
        Plan("skip-0", "@every 1s", "at_most_once", "skip", LONGER_THAN_ITS_INTERVAL_SECONDS),
        Plan("skip-1", "* * * * * *", "at_least_once", "skip", LONGER_THAN_ITS_INTERVAL_SECONDS),
        Plan("skip-2", "*/2 * * * * *", "at_least_once", "skip", SLOW_DELAY_SECONDS),
        Plan("skip-3", "@every 2s", "at_most_once", "skip", PROMPT_DELAY_SECONDS),
    ]
    return counted + judged_by_reason


class Round(NamedTuple):
    """One fault: whom it hits, whether it waits for runs in flight, how long it lasts, how long is quiet after it."""

    kind: str
    in_flight: bool
    down_seconds: float
    quiet_seconds: float


# leader, follower: SIGKILL of one.  majority: of a follower, then of the leader.  all: of every node.
# freeze: SIGSTOP of both followers, so that the leader's proposals hang.  stall: of the leader; it wakes deposed.
SHORT = ("leader",) * 8 + ("follower",) * 4 + ("majority",) * 2 + ("freeze", "stall")  # 10 leaders, 6 followers die
LONG = (*SHORT, "all")


def rounds_of(kinds: Iterable[str], dice: random.Random) -> Iterator[Round]:
    """Every second round waits for runs in flight.

    Where nobody can commit, that lasts for more than the 2 s that a write is held, so that 503 is seen; a stalled
    leader sleeps for longer than an election takes, and far shorter than its lease.
    """
    for place, kind in enumerate(kinds):
        quorum = kind in ("leader", "follower")
        yield Round(
            kind, place % 2 == 0 or not quorum, dice.uniform(0.1, 0.8) if quorum else 2.3, dice.uniform(0.1, 1.2)
        )


def short_rounds(seed: int) -> Iterator[Round]:
    """The least that gives a verdict, in an order of its own for each seed."""
    dice = random.Random(seed)
    return rounds_of(dice.sample(SHORT, len(SHORT)), dice)


def long_rounds(seed: int, minutes: float) -> Iterator[Round]:
    """The least that gives a verdict, and more until the time is over."""
    dice = random.Random(seed)
    deadline = time.monotonic() + minutes * 60

    def kinds() -> Iterator[str]:
        yield from dice.sample(LONG, len(LONG))
        while time.monotonic() < deadline:
            yield dice.choice(LONG)

    return rounds_of(kinds(), dice)


@dataclass
class Writer:
    """Writes jobs that never fire soon, one after the other, to nodes picked by chance; records what was answered.

    A name is left alone after the first write that was not acknowledged, and after a few that were.  A write that
    found nobody to talk to was never sent, and is none.
    """

    number: int
    cluster: Cluster
    receiver: Receiver
    dice: random.Random
    writes: list[Write]

    async def work(self, stop: asyncio.Event) -> None:
        names = 0
        while not stop.is_set():
            name = f"w{self.number}-{names}"
            names += 1
            for place in range(self.dice.randint(1, 4)):
                deletes = place > 0 and self.dice.random() < 0.3
                acknowledged = await self._write(name, None if deletes else f"{name} write {place}")
                # A pace, not a wait: the writers must leave the machine to the cluster.
                await asyncio.sleep(self.dice.uniform(*WRITE_PAUSE_SECONDS))
                if deletes or not acknowledged or stop.is_set():
                    break

    async def _write(self, name: str, text: str | None) -> bool:
        node = self.dice.choice(tuple(self.cluster.nodes))  # dead ones too, as a client would
        at, _ = await self.receiver.open()
        status: int | None = None
        revision: int | None = None
        job = None if text is None else idle_job(text, self.receiver.url)
        try:
            answer = await self.cluster.request(
                node, "DELETE" if job is None else "PUT", f"/v1/jobs/{name}", body=job, timeout=15
            )
        except aiohttp.ClientConnectorError:
            return False
        except NO_ANSWER:
            pass
        else:
            status = answer.status
            if status in (200, 201):
                revision = answer.json["revision"]
        self.writes.append(Write(name, text, status, node, at, revision))
        return status in (200, 201, 204)


def idle_job(text: str, url: str) -> dict[str, Any]:
    """A job that never fires during a test; `text` stands in it twice, so that half a write would show."""
    executor = {"type": "http", "url": f"{url}/hook"}
    return {"schedule": "0 0 29 2 *", "executor": executor, "description": text, "labels": {"writer": text}}


class Campaign:
    """The whole of one run; `run` gives the evidence."""

    def __init__(self, cluster: Cluster, receiver: Receiver, seed: int, history_runs: int = 1000) -> None:
        self.cluster = cluster
        self.receiver = receiver
        self.history_runs = history_runs
        self.dice = random.Random(seed)
        self.plans = {plan.name: plan for plan in plans()}
        self.created: dict[str, int] = {}
        self.closed: dict[str, int] = {}
        self.writes: list[Write] = []
        self.kills: list[Kill] = []
        self.leaders: list[str] = []
        self.ends: list[NodeEnd] = []

    async def run(self, rounds: Iterable[Round]) -> Evidence:
        """Starts from a ready cluster; leaves all nodes alive, the jobs paused."""
        await self._create_jobs()
        stop = asyncio.Event()
        writers = [
            asyncio.create_task(
                Writer(i, self.cluster, self.receiver, random.Random(self.dice.random()), self.writes).work(stop)
            )
            for i in range(WRITERS)
        ]
        try:
            await self._wait_fires()
            for each in rounds:
                await self.fault(each)
        finally:
            stop.set()
            await asyncio.gather(*writers)
        await self._settle()
        return await self._evidence()

    async def _create_jobs(self) -> None:
        names = tuple(self.cluster.nodes)
        for place, plan in enumerate(self.plans.values()):
            job = await self.cluster.put_job(
                names[place % len(names)],
                plan.name,
                schedule=plan.schedule,
                executor={"type": "http", "url": self.receiver.hook(plan.delay)},
                delivery=plan.delivery,
                retry={"max_attempts": ATTEMPTS[plan.delivery]},
                overlap={"policy": plan.overlap},
                timeout="20s",
                history={"runs": self.history_runs},
            )
            self.created[plan.name] = milliseconds(job["created_at"])

    # ---- faults ----

    async def fault(self, each: Round) -> None:
        """One round: the fault, its length, the end of it, and fires that have resumed before the next one."""
        leader = await self.cluster.wait_leader(within=15)
        self.leaders.append(leader)
        followers = [name for name in self.cluster.nodes if name != leader]
        self.dice.shuffle(followers)
        if each.kind == "freeze":
            await self._pause(followers, each.down_seconds)
        elif each.kind == "stall":
            await self._pause([leader], each.down_seconds)
        else:
            victims = {
                "leader": [leader],
                "follower": followers[:1],
                "majority": [followers[0], leader],
                "all": [*followers, leader],
            }[each.kind]
            down = [(await self._kill(victim, leader, each.in_flight), victim) for victim in victims]
            if len(victims) == 1:
                await self._wait_fires()  # those who are left go on without the dead
            # The length of the outage is part of the plan; nothing is awaited here.
            await asyncio.sleep(each.down_seconds)
            for _, victim in down:
                self.cluster.spawn(victim)
            for place, victim in down:
                await self.cluster.wait_ready(victim)
                ready_at, _ = await self.receiver.open()
                self.kills[place] = replace(self.kills[place], ready_at=ready_at)
        await self._wait_fires()
        # The next fault falls into another part of the second, and of what is still being caught up.
        await asyncio.sleep(each.quiet_seconds)

    async def _kill(self, victim: str, leader: str, in_flight: bool) -> int:
        """SIGKILL; the place of its record in `kills`."""
        role = "leader" if victim == leader else "follower"

        async def something_in_flight() -> bool:
            _, waiting = await self.receiver.open()
            return victim in waiting if role == "leader" else bool(waiting)

        if in_flight:
            await eventually(something_in_flight, within=10, what="a run is in flight")
        at, _ = await self.receiver.open()
        await self.cluster.kill(victim)
        self.kills.append(Kill(victim, role, at, None))
        return len(self.kills) - 1

    async def _pause(self, names: Sequence[str], seconds: float) -> None:
        for name in names:
            self.cluster.sigstop(name)
        # The length of the pause is part of the plan; nothing is awaited here.
        await asyncio.sleep(seconds)
        for name in names:
            self.cluster.sigcont(name)

    async def _wait_fires(self) -> None:
        """Until something arrives that was due after now."""
        since, _ = await self.receiver.open()
        start = len(await self.receiver.arrivals())

        async def arrived() -> bool:
            fresh = await self.receiver.arrivals(start=start)
            return any(milliseconds(arrival["scheduled_time"]) > since for arrival in fresh)

        await eventually(arrived, within=20, what="something that fell due just now arrives")

    # ---- the end ----

    async def _settle(self) -> None:
        """No more faults: every run gets its end, the jobs are paused, the nodes come to one state."""
        self.leaders.append(await self.cluster.wait_leader(within=15))
        healed_at, _ = await self.receiver.open()
        asked = next(iter(self.cluster.nodes))

        async def no_old_run_active() -> bool:
            active = await self._active(asked)
            assert not (old := [name for name, time in active if time <= healed_at]), f"still active: {old}"
            return True

        await self._tolerantly(no_old_run_active)
        for place, name in enumerate(self.plans):
            node = tuple(self.cluster.nodes)[place % len(self.cluster.nodes)]
            job = (await self.cluster.request(node, "POST", f"/v1/jobs/{name}/pause", body={})).expect(200).json
            self.closed[name] = milliseconds(job["updated_at"])

        async def nothing_active() -> bool:
            active = await self._active(asked)
            assert not active, f"still active: {active}"
            return True

        await self._tolerantly(nothing_active)
        await self._stand()

    async def _tolerantly(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Waits as long as a settling may take; whoever has no end by then is the checker's to name."""
        try:
            await eventually(condition, within=SETTLE_SECONDS, every=0.4, what="runs have their ends")
        except AssertionError as error:
            print(error)

    async def _active(self, node: str) -> list[tuple[str, int]]:
        """(job, scheduled time) of every run among the newest of each job that has no end yet."""
        found = []
        for name in self.plans:
            page = (await self.cluster.request(node, "GET", f"/v1/jobs/{name}/runs?limit=100")).expect(200).json
            found += [
                (name, milliseconds(run["scheduled_time"])) for run in page["items"] if run["state"] in ACTIVE_STATES
            ]
        return found

    async def _stand(self) -> None:
        """Records where the nodes stand, converged or not."""
        seconds = -1.0
        try:
            seconds = await self.cluster.wait_converged(within=30)
        except (AssertionError, RuntimeError) as error:
            print(error)
            seconds = 30.0
        for name in self.cluster.alive:
            index, digest = await self.cluster.standing(name)
            pairs = await self.cluster.digests(name)
            kept = {place: str(value) for place, value in pairs.items()}
            self.ends.append(NodeEnd(name, index, str(digest), seconds, kept))

    async def _evidence(self) -> Evidence:
        asked = self.dice.choice(tuple(self.cluster.nodes))
        runs = [Run.from_answer(item) for name in self.plans for item in await self.cluster.runs(asked, name)]
        left = {
            job["name"]: job for job in await self.cluster.pages(asked, "/v1/jobs") if job["name"] not in self.plans
        }
        return Evidence(
            nodes=tuple(self.cluster.nodes),
            jobs=tuple(
                Job(
                    plan.name,
                    plan.schedule,
                    plan.delivery,
                    plan.overlap,
                    self.created[plan.name],
                    self.closed[plan.name],
                    self.history_runs,
                )
                for plan in self.plans.values()
            ),
            arrivals=tuple(arrival_from_answer(each) for each in await self.receiver.arrivals()),
            runs=tuple(runs),
            writes=tuple(self.writes),
            remaining={name: Remaining(whole_text(job), job["revision"]) for name, job in left.items()},
            kills=tuple(self.kills),
            ends=tuple(self.ends),
            leaders=tuple(self.leaders),
        )


def whole_text(job: dict[str, Any]) -> str:
    """The text of an idle job, if both places say the same."""
    description, label = job["description"], job["labels"].get("writer")
    return str(description) if description == label else f"torn: {description!r} and {label!r}"


def arrival_from_answer(row: dict[str, Any]) -> Arrival:
    """An arrival as the receiver recorded it; what cannot be read counts as missing."""
    due = row["scheduled_time"]
    return Arrival(
        job=row["job"],
        run_id=row["run_id"] if row["key"] == row["run_id"] else None,  # api.md section 4: the two are one
        scheduled_time=None if due is None else milliseconds(due),
        attempt=None if row["attempt"] is None else int(row["attempt"]),
        token=None if row["token"] is None else int(row["token"]),
        node=row["node"],
        arrived_at=row["arrived_at"],
        ended_at=row["ended_at"],
        answered=row["answered"],
    )


async def unleash(folder: Path, seed: int, rounds: Iterable[Round], history_runs: int = 1000) -> Evidence:
    """A cluster and a receiver of their own under `folder`, one campaign, and an orderly end of all nodes."""
    async with Receiver(folder) as receiver, Cluster(folder) as cluster:
        await cluster.start()
        evidence = await Campaign(cluster, receiver, seed, history_runs).run(rounds)
        evidence.save(folder / "evidence.json")
        stopped = await cluster.stop()
        assert set(stopped.values()) == {0}, f"exit codes after SIGTERM: {stopped}"
        return evidence
