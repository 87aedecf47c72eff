"""One chaos run: jobs, writes and reads beside them, faults by a seeded plan, healing, and the evidence.

Not here: the faults themselves, and the verdict.  The short form (`test_chaos.py`), the long one (`scripts/chaos`) and
those of the cluster tests differ in their rounds and in what their clusters can be made to suffer.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos import odd_requests
from tests.chaos.clients import (
    NEVER,
    WATCHED,
    Editor,
    Reader,
    Stranger,
    Watcher,
    Writer,
    idle_job,
    phase_of,
    whole_text,
)
from tests.chaos.faults import FAULTS, FILL_BYTES, Round
from tests.chaos.history import (
    ACTIVE_STATES,
    Arrival,
    Evidence,
    Fallen,
    Fault,
    Job,
    Kill,
    NodeEnd,
    Odd,
    Phase,
    Read,
    Remaining,
    Run,
    Write,
    milliseconds,
)
from tests.chaos.receiver import Receiver, now
from tests.cluster.harness import NO_ANSWER, Cluster, eventually

PROMPT_DELAY_SECONDS = 0.0
SLOW_DELAY_SECONDS = 0.55  # in flight more than half of the time, so that kills meet runs
LONGER_THAN_ITS_INTERVAL_SECONDS = 1.8
SETTLE_SECONDS = 30.0
ATTEMPTS = {"at_most_once": None, "at_least_once": 50}  # a run may well meet more kills than the default's five
GRACE = "60s"  # a machine that takes long to start those that were killed together makes no misfires of it
WRITERS = 6
READERS = 2
STRANGERS = 1
SAMPLES = 200  # so many looks at jobs are taken before a campaign ends, however slow or fast the machine,
TIMES_TOLD = 20  # so many nodes asked for the time,
ODD_WRITES = 10  # so many odd writes taken,
EDITS = 20  # and so many changes made
PAUSES = 8  # of which so many are pauses that are over
WORK_SECONDS = 120.0
FILLER = "filler"  # a job that only makes the log longer
RECENT_NAMES = 12  # that are read
LEADER_SECONDS = 5.0  # after a fault there is a leader within this time,
CATCH_UP_SECONDS = 30.0  # every node holds what was committed at its end,
FIRE_SECONDS = 10.0  # and what falls due fires


class Plan(NamedTuple):
    """A job to create; `delay` is how long the receiver takes to answer."""

    name: str
    schedule: str
    delivery: str
    overlap: str
    delay: float
    is_edited: bool = False


def plans() -> list[Plan]:
    """32 counted jobs of both classes and four `skip` jobs, on several grids, and four that are edited and paused."""
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
    edited = [
        Plan(f"edited-{i}", "* * * * * *", ("at_most_once", "at_least_once")[i % 2], "allow", delay, is_edited=True)
        for i, delay in enumerate((PROMPT_DELAY_SECONDS, PROMPT_DELAY_SECONDS, SLOW_DELAY_SECONDS, SLOW_DELAY_SECONDS))
    ]
    return counted + judged_by_reason + edited


class Campaign:
    """The whole of one run; `run` gives the evidence."""

    def __init__(self, cluster: Cluster, receiver: Receiver, seed: int, history_runs: int = 1000) -> None:
        self.cluster = cluster
        self.receiver = receiver
        self.history_runs = history_runs
        self.dice = random.Random(seed)
        self.plans = {plan.name: plan for plan in plans()}
        self.created: dict[str, int] = {}
        self.phases: dict[str, list[Phase]] = {}
        self.closed: dict[str, int] = {}
        self.writes: list[Write] = []
        self.reads: list[Read] = []
        self.recent: deque[str] = deque(maxlen=RECENT_NAMES)
        self.faults: list[Fault] = []
        self.kills: list[Kill] = []
        self.leaders: list[str] = []
        self.ends: list[NodeEnd] = []
        self.watcher = Watcher(cluster, self._die())
        self.odd: list[Odd] = []
        self.fallen: list[Fallen] = []
        self.fills = 0

    async def run(self, rounds: Iterable[Round]) -> Evidence:
        """Starts from a ready cluster; leaves all nodes alive, jobs that fire no more."""
        await self._create_jobs()
        stop = asyncio.Event()
        clients: list[Writer | Reader | Editor | Watcher | Stranger] = [
            self._writer(number) for number in range(WRITERS)
        ]
        clients += [Reader(self.cluster, self._die(), self.reads, self.recent) for _ in range(READERS)]
        clients += [Editor(name, self.cluster, self._die(), phases) for name, phases in self.phases.items()]
        clients += [Stranger(self.cluster, self._die(), self.odd) for _ in range(STRANGERS)]
        clients.append(self.watcher)
        working = [asyncio.create_task(client.work(stop)) for client in clients]
        try:
            await self.wait_fires()
            for each in rounds:
                await self._fault(each)
            await eventually(self._has_worked, within=WORK_SECONDS, every=0.3, what="all have done enough")
        finally:
            stop.set()
            await asyncio.gather(*working)
        await self._settle()
        return await self._evidence()

    async def _has_worked(self) -> bool:
        taken = sum(odd.status is not None and odd.status < 400 for odd in self.odd)
        made = sum(len(phases) - 1 for phases in self.phases.values())
        held = sum(phase.is_paused for phases in self.phases.values() for phase in phases[:-1])
        worked = (len(self.watcher.samples), len(self.watcher.told), taken, made, held)
        enough = (SAMPLES, TIMES_TOLD, ODD_WRITES, EDITS, PAUSES)
        assert all(map(int.__ge__, worked, enough)), f"(looks, times, odd writes, changes, pauses) {worked} of {enough}"
        return True

    def _die(self) -> random.Random:
        return random.Random(self.dice.random())

    def _writer(self, number: int) -> Writer:
        return Writer(number, self.cluster, self.receiver, self._die(), self.writes, self.recent)

    async def _create_jobs(self) -> None:
        names = tuple(self.cluster.nodes)
        for place, plan in enumerate(self.plans.values()):
            asked_at = now()
            job = await self.cluster.put_job(
                names[place % len(names)],
                plan.name,
                schedule=plan.schedule,
                executor={"type": "http", "url": self.receiver.hook(plan.delay)},
                delivery=plan.delivery,
                retry={"max_attempts": ATTEMPTS[plan.delivery]},
                misfire={"grace": GRACE},
                overlap={"policy": plan.overlap},
                timeout="20s",
                history={"runs": self.history_runs},
                labels=WATCHED,
            )
            self.created[plan.name] = milliseconds(job["created_at"])
            if plan.is_edited:
                self.phases[plan.name] = [phase_of(job, asked_at)]

    # ---- faults ----

    async def _fault(self, each: Round) -> None:
        """One round: the fault and its end, then what must be so after it, and some quiet."""
        leader = await self.cluster.wait_leader(within=LEADER_SECONDS)
        self.leaders.append(leader)
        followers = [name for name in self.cluster.nodes if name != leader]
        self.dice.shuffle(followers)
        sort = FAULTS[each.kind]
        at = await self.now()
        again = self.cluster.judged_again
        nodes = await sort.strike(self, each, leader, followers)
        healed_at = await self.now()
        # Where the lead went elsewhere meanwhile, who was cut off may have been so from the leader, whatever the kind.
        ends_leases = sort.ends_leases or self.cluster.judged_again > again
        self.faults.append(Fault(each.kind, nodes, at, healed_at, ends_leases, round(each.step_seconds * 1000)))
        await self._raise_fallen()
        await self.cluster.wait_leader(within=LEADER_SECONDS)
        await self.wait_fires()
        await self._wait_caught_up()
        # The next fault falls into another part of the second, and of what is still being caught up.
        await asyncio.sleep(each.quiet_seconds)

    async def _raise_fallen(self) -> None:
        """Nobody is down now who was not ended by a fault: who is, is told, and started again."""
        for node in self.cluster.nodes.values():
            if not node.alive:
                last_words = node.output.strip().rpartition("\n")[2]
                self.fallen.append(Fallen(node.name, node.exit_code, last_words))
                await self.cluster.start(node.name)

    async def _wait_caught_up(self) -> None:
        """Until every node holds what any of them held just now."""
        target = max([(await self.cluster.standing(name))[0] for name in self.cluster.nodes])

        async def reached() -> bool:
            seen = {name: (await self.cluster.standing(name))[0] for name in self.cluster.nodes}
            assert min(seen.values()) >= target, f"they stand at {seen}, one stood at {target}"
            return True

        await eventually(reached, within=CATCH_UP_SECONDS, what="every node has caught up")

    async def write_once(self, node: str) -> int | None:
        """One write with a name of its own, beside those of the writers; the status, None without an answer."""
        known = len(self.writes)
        name = f"once-{known}"
        await self._writer(-1).write(node, name, f"{name} write 0")
        return next((write.status for write in self.writes[known:] if write.name == name), None)

    async def fill(self, nodes: Sequence[str]) -> None:
        """One write to one of these that makes the log longer, and the state not; nobody judges it."""
        self.fills += 1
        job = idle_job(f"fill {self.fills}", self.receiver.url)
        job["executor"]["body"] = f"{self.fills:08}" * (FILL_BYTES // 8)
        with suppress(*NO_ANSWER):
            await self.cluster.request(self.dice.choice(nodes), "PUT", f"/v1/jobs/{FILLER}", body=job, timeout=15)

    def dies(self, victim: str, leader: str, at: int) -> int:
        """Note that a node's process ends now; the place of its record in `kills`."""
        self.kills.append(Kill(victim, "leader" if victim == leader else "follower", at, None))
        return len(self.kills) - 1

    async def revive(self, down: dict[int, str]) -> None:
        """Start these nodes again, each with its place in `kills`, and wait until they are ready."""
        for victim in down.values():
            self.cluster.spawn(victim)
        for place, victim in down.items():
            await self.cluster.wait_ready(victim)
            self.kills[place] = replace(self.kills[place], ready_at=await self.now())

    async def wait_in_flight(self, victim: str, leader: str) -> int:
        """Until a run is in flight, on the victim if it leads; the receiver's clock."""

        async def something() -> bool:
            _, waiting = await self.receiver.open()
            return victim in waiting if victim == leader else bool(waiting)

        await eventually(something, within=10, what="a run is in flight")
        return await self.now()

    async def now(self) -> int:
        """The receiver's clock, in milliseconds."""
        return (await self.receiver.open())[0]

    async def wait_fires(self) -> None:
        """Until something arrives that was due after now."""
        since = await self.now()
        start = len(await self.receiver.arrivals())

        async def arrived() -> bool:
            fresh = await self.receiver.arrivals(start=start)
            return any(milliseconds(arrival["scheduled_time"]) > since for arrival in fresh)

        await eventually(arrived, within=FIRE_SECONDS, what="something that fell due just now arrives")

    # ---- the end ----

    async def _settle(self) -> None:
        """No more faults: every run gets its end, the jobs fire no more, the nodes come to one state."""
        self.leaders.append(await self.cluster.wait_leader(within=LEADER_SECONDS))
        healed_at = await self.now()
        asked = next(iter(self.cluster.nodes))
        for name in odd_requests.NAMES:
            (await self.cluster.request(asked, "DELETE", f"/v1/jobs/{name}?cancel_running=1")).expect(204, 404)

        async def no_old_run_active() -> bool:
            active = await self._active(asked)
            assert not (old := [name for name, time in active if time <= healed_at]), f"still active: {old}"
            return True

        await self._tolerantly(no_old_run_active)
        for place, name in enumerate(self.plans):
            node = tuple(self.cluster.nodes)[place % len(self.cluster.nodes)]
            self.closed[name] = await self._close(node, name)

        async def nothing_active() -> bool:
            active = await self._active(asked)
            assert not active, f"still active: {active}"
            return True

        await self._tolerantly(nothing_active)
        await self._raise_fallen()
        await self._stand()

    async def _close(self, node: str, name: str) -> int:
        """Let a job fire no more; through which time it was decided.  A pause would hold what fell due just before it.

        Not `updated_at`: the change is stamped when it is proposed, a moment after it was planned.
        """
        change = b'{"schedule": "%s"}' % NEVER.encode()
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = await self.cluster.request(node, "PATCH", f"/v1/jobs/{name}", data=change, headers=headers)
        return milliseconds(answer.expect(200).json["stats"]["counted_from"])

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
        own = {*self.plans, FILLER}
        left = {job["name"]: job for job in await self.cluster.pages(asked, "/v1/jobs") if job["name"] not in own}
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
                    tuple(self.phases.get(plan.name, ())),
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
            reads=tuple(self.reads),
            faults=tuple(self.faults),
            not_injected=self.cluster.not_injected,
            samples=tuple(self.watcher.samples),
            odd=tuple(self.odd),
            fallen=tuple(self.fallen),
            told=tuple(self.watcher.told),
        )


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


async def unleash(
    folder: Path,
    seed: int,
    rounds: Iterable[Round],
    history_runs: int = 1000,
    *,
    make: Callable[..., Cluster] = Cluster,
    extra: Sequence[str] = (),
) -> Evidence:
    """A cluster and a receiver of their own under `folder`, one campaign, and an orderly end of all nodes."""
    async with make(folder, extra=extra) as cluster, Receiver(folder, cluster.place) as receiver:
        await cluster.start()
        evidence = await Campaign(cluster, receiver, seed, history_runs).run(rounds)
        evidence.save(folder / "evidence.json")
        stopped = await cluster.stop()
        assert set(stopped.values()) == {0}, f"exit codes after SIGTERM: {stopped}"
        return evidence
