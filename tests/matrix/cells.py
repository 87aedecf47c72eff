"""The matrix of faults: every course, with a fault before, after and between all entries of its runs.

A course is played without faults first; then, in each cell, again up to one of its entries, where the leader, the node
that executes, or both are killed, restarted, cut off or stand still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from typing import NamedTuple

from raftcron.core.ledger import owed
from raftcron.core.model import ENDED, Run
from raftcron.errors import RaftcronError
from raftcron.runtime.requests import Requests
from raftcron.testing.virtual_time import run_virtual
from tests.matrix.courses import COURSES, ELSEWHERE, FIRST_SECONDS, ON_LEADER, PUT_SECONDS, SECOND_SECONDS, Course
from tests.matrix.nodes import FAULTS, FaultScene, LivesLoop, Step

JOB = "job"
VICTIMS = ("leader", "executor", "both")
AS, AFTER, MIDWAY = "as", "after", "midway after"  # as: committed, and the struck nodes have not heard of it
GAP_SECONDS = 0.3  # between two entries, for a midway
MIDWAY_SECONDS = 2.0  # behind an entry, at most
SETTLE_SECONDS = 120.0
QUIET_SECONDS = 2.0  # in which what is late still comes
DEED_AGAIN_SECONDS = 0.5


class Entry(NamedTuple):
    """One entry of a course, with all that it makes of runs."""

    log_index: int
    at: float
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        changes = ", ".join(f"{step.label} {step.state} {step.attempt}" for step in self.steps)
        return f"{self.steps[0].command}: {changes}"


class Cell(NamedTuple):
    """One fault at one instant of one kind of course."""

    course: Course
    place: str
    delivery: str
    number: int  # of the entry, from 0
    instant: str
    victim: str
    fault: str

    def __str__(self) -> str:
        entry = self.course.entries(self.place)[self.number]
        kind = f"{self.course.name}, {self.place}, {self.delivery}"
        return f"{kind}: {self.fault} of {self.victim} {self.instant} [{entry}]"


class Seen(NamedTuple):
    """What became of one run."""

    state: str
    reason: str | None
    attempt: int
    late: str | None


class Told(NamedTuple):
    """All that was seen of one course."""

    entries: list[Entry]
    ends: dict[str, Seen]
    wrongs: list[str]


def entries_of(steps: list[Step]) -> list[Entry]:
    return [
        Entry(index, (found := tuple(group))[0].at, found) for index, group in groupby(steps, lambda one: one.log_index)
    ]


def tell(course: Course, place: str, delivery: str, cell: Cell | None = None, clean: list[Entry] | None = None) -> Told:
    """Play a course, with the fault of a cell at its entry of the `clean` course."""
    loop = LivesLoop()

    async def act() -> Told:
        try:
            return await play()
        finally:
            loop.release_all()

    async def play() -> Told:
        scene = FaultScene(loop, course.plan)
        scene.most_at_work = 1 if course.self_stops else 2
        scene.elect("n1")
        if cell is not None and clean is not None:
            _arm(scene, cell, clean)
        await asyncio.sleep(PUT_SECONDS)
        await scene.put(JOB, **course.job(place, delivery))
        deed = loop.create_task(_do(scene, course.deed, FIRST_SECONDS + SECOND_SECONDS))
        await _settle(scene, course.times)
        await deed
        await asyncio.sleep(QUIET_SECONDS)
        _check(scene)
        return Told(
            entries_of(scene.steps), {scene.labels[run.id]: _seen(run) for run in _runs(scene)}, list(scene.wrongs)
        )

    return run_virtual(act(), loop)


def victims_of(cell: Cell, clean: list[Entry]) -> set[str]:
    """Whom it hits: n1 leads; who executes is where a run is, or is about to be, or was, away from the leader."""
    if cell.place == ON_LEADER or cell.victim == "leader":
        return {"n1"}
    nodes = [step.node for entry in clean for step in entry.steps]
    number = sum(len(entry.steps) for entry in clean[: cell.number + 1])
    order = [*reversed(nodes[:number]), *nodes[number:]]
    executor = next(node for node in order if node not in (None, "n1"))
    assert executor is not None
    return {executor} if cell.victim == "executor" else {"n1", executor}


def strike_at(cell: Cell, clean: list[Entry]) -> float:
    """When the fault begins, by the loop's clock."""
    at = clean[cell.number].at
    return at if cell.instant != MIDWAY else at + min(MIDWAY_SECONDS, (clean[cell.number + 1].at - at) / 2)


def _arm(scene: FaultScene, cell: Cell, clean: list[Entry]) -> None:
    entry, victims = clean[cell.number], victims_of(cell, clean)

    def on_entry(index: int, is_applied: bool) -> None:
        if index != entry.log_index or is_applied != (cell.instant != AS):
            return
        if cell.instant == MIDWAY:
            scene.loop.call_at(strike_at(cell, clean), scene.strike, victims, cell.fault)
        else:
            scene.strike(victims, cell.fault)

    scene.on_entry = on_entry


async def _do(scene: FaultScene, deed: str, at: float) -> None:
    """What a user does, again and again until somebody has heard it; or until it is too late."""
    await asyncio.sleep(at - scene.loop.time())
    is_heard = not deed
    while not is_heard:
        with suppress(RaftcronError):
            is_heard = await _try(scene, deed)
        if not is_heard:
            await asyncio.sleep(DEED_AGAIN_SECONDS)


async def _try(scene: FaultScene, deed: str) -> bool:
    leader = scene.names.get(scene.cluster.leader or "")
    if leader is None:
        return False
    [run] = [run for run in leader.machine.state.runs.values() if run.part is None]
    requests = Requests(machine=leader.machine, time=leader.time, service=leader.service)
    if run.state in ENDED:
        return True
    if deed == "cancel":
        await requests.cancel(run.id, None)
        return True
    if run.answer_by is not None:
        await requests.conclude(run.id, {"token": str(run.fencing_token), "state": "succeeded"}, None)
        return True
    return False


async def _settle(scene: FaultScene, times: int) -> None:
    """Until all runs have their end, and all nodes stand at one index with nothing left to tell."""

    def is_over() -> bool:
        cluster = scene.cluster
        if cluster.leader is None or cluster.away or len(scene.names) < 3:
            return False
        actors = scene.names.values()
        state = scene.names[cluster.leader].machine.state
        return (
            all(actor.log.applied_index == len(cluster.entries) for actor in actors)
            and not any(actor.reports.open_count for actor in actors)
            and state.jobs[JOB].fired + state.jobs[JOB].skipped == times
            and all(run.state in ENDED for run in state.runs.values())
            and all(work.over is not None for work in scene.works)
        )

    end = scene.loop.time() + SETTLE_SECONDS
    await asyncio.sleep(FIRST_SECONDS)
    while not is_over():
        assert scene.loop.time() < end, f"no end: {[str(step) for step in scene.steps]}"
        await asyncio.sleep(0.5)


def _check(scene: FaultScene) -> None:
    """What holds whatever has happened: one decision each (I1, I4), one digest (I7), and nobody has failed."""
    states = [actor.machine.state for actor in scene.names.values()]
    for actor in scene.names.values():
        if actor.fatal is not None:
            scene.wrongs.append(f"{actor.name}: {actor.fatal!r}")
    if len({(state.index, state.digest) for state in states}) != 1:
        scene.wrongs.append("the nodes' states differ")
    job, state = states[0].jobs[JOB], states[0]
    count = owed(job, state.policies[job.uid], state.calendars, state.editions_since)
    if count not in (None, job.fired + job.skipped):
        scene.wrongs.append(f"owed {count}, fired {job.fired}, skipped {job.skipped}")
    times = [run.scheduled_time for run in state.runs.values() if run.part is None]
    if len(times) != len(set(times)):
        scene.wrongs.append(f"decided twice: {times}")


def _runs(scene: FaultScene) -> list[Run]:
    return list(scene.newest().runs.values())


def _seen(run: Run) -> Seen:
    return Seen(run.state, run.reason, run.attempt, run.late_outcome)


def kinds() -> Iterator[tuple[Course, str, str]]:
    for course in COURSES:
        for place in (ELSEWHERE, ON_LEADER):
            for delivery in course.deliveries:
                if course.entries(place):
                    yield course, place, delivery


def cells(course: Course, place: str, delivery: str, clean: list[Entry]) -> Iterator[Cell]:
    """All there are of one kind of course.  On the leader, leader and executor are one."""
    for number, entry in enumerate(clean):
        instants = [AS, AFTER]
        if number + 1 < len(clean) and clean[number + 1].at - entry.at > GAP_SECONDS:
            instants.append(MIDWAY)
        for instant in instants:
            for victim in VICTIMS if place == ELSEWHERE else VICTIMS[-1:]:
                for fault in FAULTS:
                    yield Cell(course, place, delivery, number, instant, victim, fault)
