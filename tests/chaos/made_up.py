"""A made-up history of a chaos run in which nothing is wrong, and the ways to break it.

Not here: what the checker says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.chaos.checker import Needs
from tests.chaos.history import (
    Arrival,
    Attempt,
    Evidence,
    Fault,
    Job,
    Kill,
    NodeEnd,
    Odd,
    Phase,
    Read,
    Remaining,
    Run,
    Sample,
    Told,
    Write,
)

BEGIN = 1_900_000_020_000  # a whole minute
SECONDS = 40
NODES = ("n1", "n2", "n3")
ENOUGH = Needs(
    leader_kills=2,
    follower_kills=1,
    counted_jobs=5,
    jobs_of_each_class=2,
    due_times=100,
    due_times_in_faults=5,
    acknowledged_writes=3,
    reads=4,
    edits=4,
    times_in_pauses=2,
    samples=3,
    odd_writes=1,
    clock_steps=1,
    times_told=2,
    faults=("cut-leader", "wipe", "clock-leader"),
)
STEP_AT = BEGIN + 19_000  # a clock is wrong from here on,
RIGHT_AT = BEGIN + 23_500  # until here
CUT_AT = BEGIN + 32_000
EDITED = "@every 1s from 2025-12-31T23:59:59.500Z"  # what `edited` has from 15 s on
LOST_AT = BEGIN + 10_000  # the scheduled time whose runs meet the first kill of n1


def a_job(name: str, delivery: str, overlap: str = "allow") -> Job:
    return Job(name, "@every 1s", delivery, overlap, BEGIN - 200, BEGIN + SECONDS * 1000 + 100, 1000)


def a_run(job: Job, time: int, number: int) -> Run:
    """The record of a run that went well, on n1 until LOST_AT and on n2 afterwards."""
    node = "n1" if time <= LOST_AT else "n2"
    attempt = Attempt(1, number * 10, node, "succeeded", time + 2, time + 60, number * 2, number * 2 + 1)
    stamps = ((number * 2, time + 2), (number * 2 + 1, time + 2))
    run = Run(f"{job.name}-{time}", job.name, time, "schedule", "succeeded", None, number * 2, attempts=(attempt,))
    return replace(run, stamps=stamps)


def arrival_of(run: Run, place: int = 0) -> Arrival:
    row = run.attempts[place]
    begun, ended = row.started_at, row.finished_at
    assert begun is not None
    assert ended is not None
    return Arrival(
        run.job, run.id, run.scheduled_time, row.attempt, row.token, row.node, begun + 1, ended - 1, row.state != "lost"
    )


def edited_job() -> tuple[Job, list[Run]]:
    """At 5 s another text, at 10 s a pause until 12.9 s, at 15 s another schedule; it was closed at 20 s."""
    job = replace(a_job("edited", "at_most_once"), schedule="* * * * * *", closed_at=BEGIN + 20_100)

    def phase(since: int, index: int, schedule: str = job.schedule, is_paused: bool = False) -> Phase:
        return Phase(BEGIN + since, index, schedule, is_paused, BEGIN + since - 5, BEGIN + since + 20)

    job = replace(
        job,
        phases=(
            phase(-200, 1),
            phase(5_001, 20_022),
            phase(10_000, 20_043, is_paused=True),
            phase(12_900, 20_050),
            phase(15_100, 20_061, EDITED),
        ),
    )
    whole = (*range(0, 10_001, 1_000), *range(13_000, 15_001, 1_000), *range(15_500, 20_000, 1_000))
    runs = [replace(a_run(job, BEGIN + at, 10_000 + at // 500), stamps=()) for at in whole]
    runs.append(
        Run(
            *("edited-paused", job.name, BEGIN + 12_000, "schedule", "skipped", "paused", 20_050),
            first=BEGIN + 11_000,
            last=BEGIN + 12_000,
            count=2,
        )
    )
    return job, runs


def good() -> Evidence:
    """Four counted jobs, one `skip` job and one that is edited over 40 s, three kills, five writes: nothing wrong."""
    jobs = (
        a_job("least-1", "at_least_once"),
        a_job("least-2", "at_least_once"),
        a_job("most-1", "at_most_once"),
        a_job("most-2", "at_most_once"),
        a_job("skip-1", "at_most_once", "skip"),
    )
    runs: list[Run] = []
    for time in range(BEGIN + 1000, BEGIN + SECONDS * 1000 + 1, 1000):
        runs += [a_run(job, time, len(runs) + place) for place, job in enumerate(jobs, 1)]
    # n1 dies in the middle of what fell due at LOST_AT; at_least_once runs get another attempt
    for place, run in enumerate(runs):
        if run.scheduled_time == LOST_AT:
            first = replace(run.attempts[0], state="lost", finished_at=LOST_AT + 1500)
            second = Attempt(2, first.token + 1, "n2", "succeeded", LOST_AT + 1600, LOST_AT + 1650, 9000, 9001)
            again = run.job.startswith("least")
            runs[place] = replace(
                run, state="succeeded" if again else "lost", attempts=(first, second) if again else (first,)
            )
    # the skip job's run of 20 s lasted for two seconds
    slow = next(run for run in runs if run.job == "skip-1" and run.scheduled_time == BEGIN + 20_000)
    blocked = next(run for run in runs if run.job == "skip-1" and run.scheduled_time == BEGIN + 21_000)
    row = replace(slow.attempts[0], finished_at=BEGIN + 21_500, finished_index=blocked.log_index + 1)
    runs[runs.index(slow)] = replace(slow, attempts=(row,))
    runs[runs.index(blocked)] = replace(blocked, state="skipped", reason="overlap", blocked_by=slow.id, attempts=())
    edited, more = edited_job()
    jobs, runs = (*jobs, edited), [*runs, *more]
    arrivals = [arrival_of(run, place) for run in runs for place in range(len(run.attempts))]
    return Evidence(
        nodes=NODES,
        jobs=jobs,
        arrivals=tuple(sorted(arrivals, key=lambda arrival: arrival.arrived_at)),
        runs=tuple(runs),
        writes=(
            Write("w-1", "one", 201, "n1", CUT_AT, 7, 7, 0, 10),
            Write("w-1", "two", 200, "n2", CUT_AT, 8, 8, 20, 30),
            Write("w-2", "one", 201, "n1", CUT_AT, 9, 9, 0, 40),
            Write("w-2", None, 204, "n1", CUT_AT, None, 10, 50, 60),
            Write("w-3", "one", 201, "n1", CUT_AT, 11, 11, 50, 70),
            Write("w-3", "two", 503, "n1", CUT_AT, None, 11, 80, 90),
            Write("w-4", "one", 504, "n1", CUT_AT, None, 11, 80, 95),
            Write("w-5", "one", None, "n1", CUT_AT, None, None, 80, 99),
        ),
        reads=(
            Read("w-1", None, None, "n1", 6, 0, 5),
            Read("w-1", "one", 7, "n2", 7, 21, 31),
            Read("w-1", "two", 8, "n3", 8, 32, 33),
            Read("w-2", None, None, "n3", 10, 61, 62),
            Read("w-3", "one", 11, "n3", 11, 91, 92),
            Read("w-5", None, None, "n3", 11, 93, 94),
            Read("w-5", "one", 12, "n1", 13, 95, 98),
        ),
        remaining={"w-1": Remaining("two", 8), "w-3": Remaining("one", 11), "w-5": Remaining("one", 12)},
        kills=(
            Kill("n1", "leader", LOST_AT + 40, LOST_AT + 1500),
            Kill("n3", "follower", BEGIN + 15_030, BEGIN + 16_000),
            Kill("n2", "leader", BEGIN + 25_500, BEGIN + 26_500),
        ),
        ends=tuple(NodeEnd(name, 9100, "d", 1.0, {9099: "c", 9100: "d"}) for name in NODES),
        leaders=("n1", "n2", "n2"),
        faults=(
            Fault("cut-leader", ("n1",), CUT_AT, CUT_AT + 2_000, ends_leases=True),
            Fault("wipe", ("n3",), BEGIN + 35_000, BEGIN + 36_000),
            Fault("clock-leader", ("n2",), STEP_AT, RIGHT_AT, step_ms=3_600_000),
        ),
        samples=(
            Sample("most-1", "@every 1s", False, BEGIN - 200, BEGIN + 5_000, 5, 0, BEGIN + 5_700, 50),
            Sample("edited", "* * * * * *", True, BEGIN + 10_000, BEGIN + 10_000, 0, 0, BEGIN + 10_300, 100),
            Sample("most-1", "@every 1s", False, BEGIN - 200, BEGIN + 11_000, 10, 1, BEGIN + 11_400, 110),
        ),
        odd=(
            Odd("PUT /v1/jobs/odd-1", 201, "n1"),
            Odd("PUT /v1/jobs/odd-2", 422, "n2"),
            Odd("DELETE /v1/jobs/odd-2", None, "n2"),
        ),
        told=(
            Told("n2", STEP_AT + 1_004, STEP_AT + 1_000, STEP_AT + 1_005),
            Told("n1", STEP_AT + 1_950, STEP_AT + 2_000, STEP_AT + 2_005),
        ),
    )


Change = Callable[[Evidence], Evidence]


def run_of(evidence: Evidence, job: str, second: int) -> Run:
    return next(run for run in evidence.runs if run.job == job and run.scheduled_time == BEGIN + second * 1000)


def with_run(evidence: Evidence, job: str, second: int, /, **changes: Any) -> Evidence:
    old = run_of(evidence, job, second)
    return replace(evidence, runs=tuple(replace(run, **changes) if run is old else run for run in evidence.runs))


def with_attempt(evidence: Evidence, job: str, second: int, place: int = 0, /, **changes: Any) -> Evidence:
    rows = list(run_of(evidence, job, second).attempts)
    rows[place] = replace(rows[place], **changes)
    return with_run(evidence, job, second, attempts=tuple(rows))


def without_run(evidence: Evidence, job: str, second: int) -> Evidence:
    old = run_of(evidence, job, second)
    return replace(evidence, runs=tuple(run for run in evidence.runs if run is not old))


def without_arrivals(evidence: Evidence, job: str, second: int) -> Evidence:
    gone = (job, BEGIN + second * 1000)
    kept = tuple(arrival for arrival in evidence.arrivals if (arrival.job, arrival.scheduled_time) != gone)
    return replace(evidence, arrivals=kept)


def with_arrival(evidence: Evidence, job: str, second: int, *, again: bool = False, **changes: Any) -> Evidence:
    """Changes the first arrival of that time; with `again` the changed one comes in addition, right after it."""
    place, old = next(
        (place, arrival)
        for place, arrival in enumerate(evidence.arrivals)
        if (arrival.job, arrival.scheduled_time) == (job, BEGIN + second * 1000)
    )
    rest = evidence.arrivals
    return replace(
        evidence, arrivals=(*rest[:place], *([old] if again else []), replace(old, **changes), *rest[place + 1 :])
    )


def with_write(evidence: Evidence, place: int, **changes: Any) -> Evidence:
    writes = list(evidence.writes)
    writes[place] = replace(writes[place], **changes)
    return replace(evidence, writes=tuple(writes))


def with_read(evidence: Evidence, place: int, **changes: Any) -> Evidence:
    reads = list(evidence.reads)
    reads[place] = replace(reads[place], **changes)
    return replace(evidence, reads=tuple(reads))


def with_remaining(evidence: Evidence, name: str, remaining: Remaining | None) -> Evidence:
    others = {key: value for key, value in evidence.remaining.items() if key != name}
    return replace(evidence, remaining=others if remaining is None else {**others, name: remaining})


def with_end(evidence: Evidence, **changes: Any) -> Evidence:
    return replace(evidence, ends=(replace(evidence.ends[0], **changes), *evidence.ends[1:]))


def skipped(evidence: Evidence, job: str, second: int, **changes: Any) -> Evidence:
    """That run was never started, for a reason that is given."""
    changed = with_run(without_arrivals(evidence, job, second), job, second, state="skipped", attempts=())
    return with_run(changed, job, second, **changes)


def summarised(evidence: Evidence, count: int) -> Evidence:
    """Seconds 30 to 32 of most-1 became one summary row that says `count`."""
    for second in (30, 31):
        evidence = without_arrivals(without_run(evidence, "most-1", second), "most-1", second)
    return skipped(evidence, "most-1", 32, reason="coalesced", first=BEGIN + 30_000, last=BEGIN + 32_000, count=count)


def with_phase(evidence: Evidence, place: int, **changes: Any) -> Evidence:
    """Another phase of the job that is edited."""
    job = evidence.jobs[-1]
    phases = list(job.phases)
    phases[place] = replace(phases[place], **changes)
    return replace(evidence, jobs=(*evidence.jobs[:-1], replace(job, phases=tuple(phases))))


def with_phases(evidence: Evidence, number: int) -> Evidence:
    job = evidence.jobs[-1]
    return replace(evidence, jobs=(*evidence.jobs[:-1], replace(job, phases=job.phases[:number])))


def with_sample(evidence: Evidence, place: int, **changes: Any) -> Evidence:
    samples = list(evidence.samples)
    samples[place] = replace(samples[place], **changes)
    return replace(evidence, samples=tuple(samples))


def fired_again(evidence: Evidence, second: int, index: int) -> Evidence:
    """The edited job decides a time that it had decided once more, at this index."""
    run = run_of(evidence, "edited", second)
    return replace(evidence, runs=(*evidence.runs, replace(run, id="again", log_index=index)))


def fired_in_the_pause(evidence: Evidence) -> Evidence:
    """The time that the pause held back first is a run of its own."""
    run = run_of(evidence, "edited", 10)
    fired = replace(run, id="in the pause", scheduled_time=BEGIN + 11_000, log_index=20_044)
    return replace(evidence, runs=(*evidence.runs, fired))


def with_told(evidence: Evidence, time: int) -> Evidence:
    """The node whose clock is wrong trusts another time."""
    return replace(evidence, told=(replace(evidence.told[0], time=time), *evidence.told[1:]))


def silent_after_last_kill(evidence: Evidence, ms: int = 11_000) -> Evidence:
    return silent_after(evidence, evidence.kills[-1].at, ms)


def silent_after(evidence: Evidence, quiet: int, ms: int) -> Evidence:
    """Nothing that fell due after this instant arrived for so long."""
    return replace(
        evidence,
        arrivals=tuple(
            replace(arrival, arrived_at=max(arrival.arrived_at, quiet + ms))
            if (arrival.scheduled_time or 0) > quiet
            else arrival
            for arrival in evidence.arrivals
        ),
    )
