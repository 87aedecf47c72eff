"""The matrix of faults between the entries of a run: what a run goes through, and a fault between each two of them.

A run is played without faults first; then, in each cell, again up to the middle between two of its entries, where a
node is killed, cut off or stands still, for longer than a lease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from raftcron.core.model import AT_LEAST_ONCE, AT_MOST_ONCE, LOST, RUNNING, SUCCEEDED
from raftcron.ports import Attempt
from tests.simulation.stage import Stage, Step, pairs

FAULTS = ("kill", "cut", "pause")
VICTIMS = ("leader", "executor", "both")
PLACES = {"leader": "on the leader", "sticky": "elsewhere"}  # placement -> where both attempts are
INSTANTS = {"at once": 0.02, "midway": 0.5}  # which part of the time between the two entries has passed
FAULT_SECONDS = 5.0  # longer than a lease
SEEDS_TRIED = 30


class Cell(NamedTuple):
    """One fault at one place of one kind of run."""

    seed: int
    place: str
    delivery: str
    number: int  # of the entry after which it strikes, from 0
    between: str
    victim: str
    fault: str
    instant: str

    def __str__(self) -> str:
        return f"{PLACES[self.place]}, {self.delivery}: {self.between}: {self.fault} of {self.victim} {self.instant}"


class Outcome(NamedTuple):
    """What became of the run, and of its user code."""

    state: str
    attempts: int
    starts: int


def job(place: str, delivery: str) -> dict[str, Any]:
    """It is due once, fails at first, and is tried again."""
    return {
        "schedule": "@every 2s",
        "max_runs": 1,
        "delivery": delivery,
        "placement": {"on": place},
        "retry": {"max_attempts": 5, "backoff": "1s"},
    }


def code(attempt: Attempt) -> tuple[float, bool]:
    return 1.0, attempt.attempt == 1


def reference(seed: int, place: str, delivery: str) -> list[Step]:
    """What the run goes through if nothing happens."""
    with Stage(seed, job(place, delivery), code=code) as stage:
        stage.until(lambda: bool(stage.steps), 5.0, "nothing was decided", 0.1)
        stage.settle()
        return stage.steps


def _courses() -> Iterator[tuple[int, str, str, list[Step]]]:
    """The first seed in which all attempts are where they should be, for each kind of run."""
    for place in PLACES:
        for delivery in (AT_MOST_ONCE, AT_LEAST_ONCE):
            for seed in range(SEEDS_TRIED):
                steps = reference(seed, place, delivery)
                away = {step.node != step.leader for step in steps if step.node is not None}
                if away == {place != "leader"}:
                    yield seed, place, delivery, steps
                    break
            else:
                raise AssertionError(f"no seed has all attempts of placement {place} where they should be")


def cells() -> Iterator[Cell]:
    """All there are.  On the leader, leader and executor are one."""
    for seed, place, delivery, steps in _courses():
        for number, (one, other) in enumerate(pairs(steps)):
            between = f"{one.command} ({one.state}) - {other.command} ({other.state})"
            for victim in VICTIMS if place != "leader" else VICTIMS[-1:]:
                for fault in FAULTS:
                    for instant in INSTANTS:
                        yield Cell(seed, place, delivery, number, between, victim, fault, instant)


def play(cell: Cell) -> Outcome:
    """Raises Violation, or AssertionError, if the fault costs more than it may."""
    steps = reference(cell.seed, cell.place, cell.delivery)
    one, other = pairs(steps)[cell.number]
    executor = next(step.node for step in (*reversed(steps[: cell.number + 1]), other) if step.node is not None)
    victims = {"leader": [one.leader], "executor": [executor], "both": sorted({one.leader, executor})}[cell.victim]
    with Stage(cell.seed, job(cell.place, cell.delivery), code=code) as stage:
        stage.cluster.run(one.at + INSTANTS[cell.instant] * (other.at - one.at) - stage.cluster.now)
        assert stage.steps == steps[: cell.number + 1], "it does not go as it went"
        may_be_lost = one.state == RUNNING or (other.state == RUNNING and _is_under_way(stage, one.leader, executor))
        if cell.fault == "cut":
            stage.cut(*victims)
        for name in victims:
            if cell.fault == "kill":
                stage.cluster.kill(name)
            elif cell.fault == "pause":
                stage.life(name).loop.pause(FAULT_SECONDS)
        stage.cluster.run(FAULT_SECONDS)
        stage.heal()
        stage.settle()
        return _judge(cell, stage, may_be_lost)


def _is_under_way(stage: Stage, leader: str, executor: str) -> bool:
    """Whether the next entry may come whatever strikes now: it is in the leader's log, or was asked for."""
    status = stage.life(leader).log.status()
    return status.last_index > status.applied_index or bool(stage.life(executor).node.worker._reports._starts)


def _judge(cell: Cell, stage: Stage, may_be_lost: bool) -> Outcome:
    """One decision, a fate on record, no second start of an attempt; and nothing is lost that need not be."""
    run = stage.run()
    assert stage.cluster.counts["decisions"] == 1, stage.steps
    assert [len(life.machine.state.runs) for life in stage.cluster.lives.values()] == [1, 1, 1]
    begun = [attempt for _, attempt, _ in stage.starts]
    assert len(begun) == len(set(begun)), stage.starts
    if run.state == LOST:
        assert cell.delivery == AT_MOST_ONCE, run
        assert may_be_lost, f"nothing had been started, and it is lost: {stage.steps}"
    else:
        assert run.state == SUCCEEDED, run
    return Outcome(run.state, run.attempt, len(begun))


def table(played: Iterable[tuple[Cell, Outcome]]) -> str:
    """How many cells came to which end."""
    counts = Counter((PLACES[cell.place], cell.delivery, outcome) for cell, outcome in played)
    lines = [f"matrix: {counts.total()} cells"]
    for (where, delivery, outcome), count in sorted(counts.items()):
        what = f"{outcome.state} in attempt {outcome.attempts}, {outcome.starts} starts"
        lines.append(f"matrix, {where}, {delivery}, {what}: {count}")
    return "\n".join(lines)
