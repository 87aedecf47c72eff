"""Judges the evidence of a chaos run: pure functions evidence -> violations.  Not here: how evidence is gathered.

Nothing of the product is imported: due times are counted from the calendar anew (calendar.py).
A run that shows too little is *inconclusive*, and that is no pass.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from tests.chaos import changes, order
from tests.chaos.calendar import due_times, spans_of_pauses
from tests.chaos.history import ACTIVE_STATES, Arrival, Evidence, Job, Run
from tests.chaos.order import ACKNOWLEDGED

RESUME_MS = 10_000  # fires go on within this time of each kill and of the end of each fault, whatever else there is
# I8: failover (500 ms at most) and a second, twice, since all nodes and clients share a machine's two cores here.
# Seen: 118 ms after a kill, 700 after a frozen majority thaws.
FAILOVER_MS = 3_000
CONVERGE_SECONDS = 30.0
CERTAINLY_NOT_WRITTEN = 503
UNKNOWN = frozenset({None, 504})  # no answer at all, or: the outcome is not known
NEVER_RAN_REASONS = frozenset({"misfire", "coalesced", "expired", "deadline", "no_node"})  # what may befall any job
SKIP_REASONS = NEVER_RAN_REASONS | {"overlap"}
SHOWN = 5  # examples of one kind; the rest is counted


class Violation(NamedTuple):
    rule: str
    message: str


@dataclass(frozen=True)
class Needs:
    """How much a verdict needs to judge; with less of any of them it is inconclusive."""

    leader_kills: int = 8
    follower_kills: int = 4
    counted_jobs: int = 20
    jobs_of_each_class: int = 5
    due_times: int = 1_000
    due_times_in_faults: int = 50
    acknowledged_writes: int = 20  # inside faults
    reads: int = 20
    edits: int = 20  # with pauses and what ends them
    times_in_pauses: int = 5
    samples: int = 500
    odd_writes: int = 30  # that were taken
    leader_changes: int = 1
    clock_steps: int = 0  # that differ
    times_told: int = 0  # by nodes, of the time that they trust
    faults: tuple[str, ...] = ()  # kinds, each at least once, and healed

    @staticmethod
    def of_faults(kinds: Iterable[str]) -> Needs:
        """What a run of these faults needs, whether they kill or not."""
        return Needs(leader_kills=0, follower_kills=0, due_times=50, samples=200, odd_writes=10, faults=tuple(kinds))

    @property
    def kills_in_flight(self) -> int:
        return (self.leader_kills + self.follower_kills + 1) // 2


@dataclass(frozen=True)
class Verdict:
    violations: tuple[Violation, ...]
    shortfalls: tuple[str, ...]
    numbers: dict[str, float] = field(default_factory=dict)
    not_injected: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        if self.violations:
            return "failed"
        return "inconclusive" if self.shortfalls else "passed"

    def table(self) -> str:
        """For people: each rule with what became of it, what was short, the numbers."""
        broken = Counter(violation.rule for violation in self.violations)
        lines = [f"{name:<24}{f'{broken[name]} violations' if broken[name] else 'holds'}" for name in RULES]
        for rule in broken:
            examples = [violation.message for violation in self.violations if violation.rule == rule]
            lines += [f"  {rule}: {message}" for message in examples[:SHOWN]]
            if len(examples) > SHOWN:
                lines.append(f"  {rule}: and {len(examples) - SHOWN} more")
        lines += [f"too little: {text}" for text in self.shortfalls]
        lines += [f"not injected: {text}" for text in self.not_injected]
        lines += [f"{name:<32}{value:g}" for name, value in self.numbers.items()]
        return "\n".join([*lines, f"verdict: {self.word}"])


# ---- what a row decides ----------------------------------------------------------------------------------------------


def covered(run: Run, due: Sequence[int]) -> list[int]:
    """The scheduled times that one history row decides."""
    if run.count is None or run.first is None or run.last is None:
        return [run.scheduled_time]
    lowest, highest = bisect_left(due, run.first), bisect_left(due, run.last + 1)
    inside = list(due[lowest:highest])
    # ends that no calendar names must show up as decisions of nothing
    return inside + [end for end in (run.first, run.last) if end not in due]


# ---- evidence, sorted once -----------------------------------------------------------------------------------------


class Case:
    """The evidence with the groupings that several rules look things up in."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.jobs = {job.name: job for job in evidence.jobs}
        self.due = {job.name: due_times(job) for job in evidence.jobs}
        self.runs_of: dict[str, list[Run]] = defaultdict(list)
        self.runs_by_id: dict[str, Run] = {}
        for run in sorted(evidence.runs, key=lambda run: run.scheduled_time):
            self.runs_of[run.job].append(run)
            self.runs_by_id[run.id] = run
        self.arrivals_of: dict[str | None, list[Arrival]] = defaultdict(list)  # by run id
        self.times_arrived: dict[str | None, set[int | None]] = defaultdict(set)  # by job
        for arrival in evidence.arrivals:
            self.arrivals_of[arrival.run_id].append(arrival)
            self.times_arrived[arrival.job].add(arrival.scheduled_time)
        self.decisions = {job.name: self._decisions(job) for job in evidence.jobs}
        self.counted = [job for job in evidence.jobs if job.overlap == "allow"]

    def _decisions(self, job: Job) -> dict[int, list[Run]]:
        found: dict[int, list[Run]] = defaultdict(list)
        for run in self.runs_of[job.name]:
            if run.reason == changes.PAUSED:
                continue  # what was not owed is not decided
            for time in covered(run, self.due[job.name]):
                found[time].append(run)
        return found

    def in_flight(self, at: int) -> list[Arrival]:
        """What had arrived within the last minute and waited for an answer at that instant."""
        arrivals = self.evidence.arrivals
        lowest = bisect_left(arrivals, at - 60_000, key=lambda arrival: arrival.arrived_at)
        highest = bisect_right(arrivals, at, key=lambda arrival: arrival.arrived_at)
        return [each for each in arrivals[lowest:highest] if each.ended_at is None or each.ended_at > at]


# ---- the rules -----------------------------------------------------------------------------------------------------


def one_decision(case: Case) -> Iterator[str]:
    """Every scheduled time between the first and the last has exactly one decision, and no other time has one."""
    for job in case.evidence.jobs:
        due, decisions = case.due[job.name], case.decisions[job.name]
        for time in due:
            if time not in decisions:
                yield f"{job.name}: {time} was never decided"
        for time, rows in decisions.items():
            if time not in due:
                yield f"{job.name}: {time} was decided ({rows[0].id}, {rows[0].state}), but nothing was due"
            if len(rows) > 1:
                yield f"{job.name}: {time} was decided {len(rows)} times: {', '.join(row.id for row in rows)}"
        for row in case.runs_of[job.name]:
            if row.reason == changes.PAUSED:
                continue
            if row.count is not None and row.count != (number := len(covered(row, due))):
                yield f"{job.name}: summary {row.id} says {row.count} times, the calendar has {number}"
            if row.cause not in {"schedule", "catch_up"}:
                yield f"{job.name}: {row.id} has cause {row.cause}, and nobody asked for it"


def run_ids(case: Case) -> Iterator[str]:
    """A run id belongs to one job and one scheduled time."""
    for run_id, number in Counter(run.id for run in case.evidence.runs).items():
        if number > 1:
            yield f"{run_id} names {number} rows"
    for run in case.evidence.runs:
        if run.job not in case.jobs:
            yield f"{run.id} belongs to {run.job}, which does not exist"


def arrivals_recorded(case: Case) -> Iterator[str]:
    """What arrived says completely what it is, and is what the history says was started."""
    for arrival in case.evidence.arrivals:
        what = f"arrival of {arrival.job} {arrival.scheduled_time} at {arrival.arrived_at}"
        if None in (arrival.job, arrival.run_id, arrival.scheduled_time, arrival.attempt, arrival.token, arrival.node):
            yield f"{what}: headers are missing: {arrival}"
            continue
        run = case.runs_by_id.get(arrival.run_id or "")
        if run is None:
            yield f"{what}: no record of run {arrival.run_id}"
        elif (run.job, run.scheduled_time) != (arrival.job, arrival.scheduled_time):
            yield f"{what}: run {run.id} is {run.job} {run.scheduled_time}"
        elif (arrival.attempt, arrival.token, arrival.node) not in {
            (row.attempt, row.token, row.node) for row in run.attempts
        }:
            yield f"{what}: no record of attempt {arrival.attempt} with token {arrival.token} on {arrival.node}"


def at_least_once(case: Case) -> Iterator[str]:
    """Every scheduled time of a counted at_least_once job arrived, whatever died."""
    for job in case.counted:
        if job.delivery == "at_least_once":
            for time in case.due[job.name]:
                if time not in case.times_arrived[job.name]:
                    rows = case.decisions[job.name].get(time, [])
                    yield f"{job.name}: {time} never arrived; recorded: {[(row.state, row.reason) for row in rows]}"


def at_most_once(case: Case) -> Iterator[str]:
    """At most one arrival of an at_most_once run; what did not arrive is recorded as lost or as skipped, and why."""
    for job in case.evidence.jobs:
        if job.delivery != "at_most_once":
            continue
        arrived: Counter[int | None] = Counter()
        for run in case.runs_of[job.name]:
            arrived.update(arrival.scheduled_time for arrival in case.arrivals_of[run.id])
        for time, number in arrived.items():
            if number > 1:
                yield f"{job.name}: {time} arrived {number} times"
        for time, rows in case.decisions[job.name].items():
            for row in rows:
                if time not in arrived and row.state not in {"lost", "skipped"}:
                    yield f"{job.name}: {time} never arrived and is recorded as {row.state} ({row.id})"


def one_start(case: Case) -> Iterator[str]:
    """An attempt of a run starts at most once, in both classes."""
    starts = Counter((arrival.run_id, arrival.attempt) for arrival in case.evidence.arrivals)
    for (run_id, attempt), number in starts.items():
        if number > 1:
            yield f"attempt {attempt} of {run_id} arrived {number} times"


def duplicates(case: Case) -> Iterator[str]:
    """All arrivals of one scheduled time carry one run id."""
    ids: dict[tuple[str | None, int | None], set[str | None]] = defaultdict(set)
    for arrival in case.evidence.arrivals:
        ids[arrival.job, arrival.scheduled_time].add(arrival.run_id)
    for (job, time), names in ids.items():
        if len(names) > 1:
            yield f"{job}: {time} arrived as runs {sorted(map(str, names))}"


def tokens(case: Case) -> Iterator[str]:
    """Tokens are unique in the whole cluster and grow within a run, as recorded and as they arrived."""
    recorded = Counter(attempt.token for run in case.evidence.runs for attempt in run.attempts)
    arrived = Counter(arrival.token for arrival in case.evidence.arrivals)
    for kind, numbers in (("recorded", recorded), ("arrived", arrived)):
        for token, number in numbers.items():
            if number > 1:
                yield f"token {token} is {kind} {number} times"
    for run in case.evidence.runs:
        row = [attempt.token for attempt in sorted(run.attempts, key=lambda attempt: attempt.attempt)]
        if row != sorted(row):
            yield f"tokens of {run.id} do not grow: {row}"
        seen = [arrival.token for arrival in case.arrivals_of[run.id] if arrival.token is not None]
        if seen != sorted(seen):
            yield f"a later arrival of {run.id} carries a lower token: {seen}"


def skip_reasons(case: Case) -> Iterator[str]:
    """A time that never ran says why; `overlap` only under policy skip, and names a run that was active just then."""
    for job in case.evidence.jobs:
        possible = SKIP_REASONS if job.overlap == "skip" else NEVER_RAN_REASONS
        for run in case.runs_of[job.name]:
            if run.state != "skipped" or (run.reason == changes.PAUSED and job.phases):
                continue  # `pauses` judges those
            if run.reason not in possible:
                yield f"{job.name}: {run.id} is skipped for {run.reason!r}, which cannot be under {job.overlap}"
            if run.attempts or case.arrivals_of[run.id]:
                yield f"{job.name}: {run.id} is recorded as skipped, but it was started"
            if run.reason == "overlap":
                yield from _blocked(case, job, run)


def _blocked(case: Case, job: Job, run: Run) -> Iterator[str]:
    blocker = case.runs_by_id.get(run.blocked_by or "")
    if blocker is None or blocker.job != job.name or blocker.state == "skipped":
        yield f"{job.name}: {run.id} is blocked by {run.blocked_by!r}, which is no run of this job"
        return
    ended = last_index(blocker)
    if blocker.scheduled_time >= run.scheduled_time or (ended is not None and ended < run.log_index):
        yield (
            f"{job.name}: {run.id} was skipped at index {run.log_index}, but its blocking run {blocker.id} "
            f"({blocker.scheduled_time}) was active only until index {ended}"
        )


def last_index(run: Run) -> int | None:
    """The log index at which the run's last attempt ended; None while it has not."""
    indices = [attempt.finished_index for attempt in run.attempts]
    known = [index for index in indices if index is not None]
    return max(known) if known and len(known) == len(indices) else None


def never_two_active(case: Case) -> Iterator[str]:
    """Under policy skip no run is started before the former one ended."""
    for job in case.evidence.jobs:
        if job.overlap != "skip":
            continue
        spans = [
            (min(started), last_index(run), run.id)
            for run in case.runs_of[job.name]
            if (started := [row.started_index for row in run.attempts if row.started_index is not None])
        ]
        spans.sort(key=lambda span: span[0])
        for (_, ended, former), (begun, _, later) in pairwise(spans):
            if ended is None or begun < ended:
                yield f"{job.name}: {later} started at index {begun}, {former} ended at {ended}"


def ends(case: Case) -> Iterator[str]:
    """Every run has an end; a success was answered, a loss is the work of a kill or another fault of its node."""
    blows: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for kill in case.evidence.kills:
        blows[kill.node].append((kill.at, kill.at))
    for fault in case.evidence.faults:
        for node in fault.nodes if fault.ends_leases else ():
            blows[node].append((fault.at, fault.at if fault.healed_at is None else fault.healed_at))
    answered = {(arrival.run_id, arrival.token) for arrival in case.evidence.arrivals if arrival.answered}
    for run in case.evidence.runs:
        if run.state in ACTIVE_STATES:
            yield f"{run.job}: {run.id} has no end, it is {run.state}"
        if run.state not in {"succeeded", "lost", "skipped"} | ACTIVE_STATES:
            yield f"{run.job}: {run.id} is {run.state}, and the receiver gave no reason for that"
        if run.state == "succeeded" and (not run.attempts or (run.id, run.attempts[-1].token) not in answered):
            yield f"{run.job}: {run.id} is recorded as succeeded, but the receiver did not answer its last attempt"
        if run.state == "lost" and run.job in case.jobs and case.jobs[run.job].delivery == "at_least_once":
            yield f"{run.job}: {run.id} stayed lost after {len(run.attempts)} attempts, though it is at_least_once"
        for row in run.attempts:
            if row.state == "lost" and not any(
                (row.started_at is None or row.started_at <= end + 1000)
                and (row.finished_at is None or begin <= row.finished_at + 1000)
                for begin, end in blows[row.node or ""]
            ):
                yield f"{run.job}: attempt {row.attempt} of {run.id} is lost, but nothing befell {row.node} then"


def resumption(case: Case) -> Iterator[str]:
    """After each kill, and after the end of each fault, what fell due after it arrives within 10 s.

    Where a kill leaves no majority, that is counted from when one is whole again: how long a start takes is no matter
    here.
    """
    kills, faults = case.evidence.kills, case.evidence.faults
    spans = list(calm_spans(case.evidence))

    def whole_from(at: int) -> int:
        return next((max(begin, at) for begin, end in spans if end > at), at)

    moments = [(f"kill of the {kill.role} {kill.node}", whole_from(kill.at)) for kill in kills]
    moments += [
        (f"end of {each.kind} of {each.nodes}", each.healed_at) for each in faults if each.healed_at is not None
    ]
    for (what, at), gap in zip(moments, resumption_gaps(case, [at for _, at in moments]), strict=True):
        if gap is None or gap > RESUME_MS:
            yield f"{what} at {at}: fires resumed after {gap} ms"
    for (begin, end), gap in zip(spans, resumption_gaps(case, [begin for begin, _ in spans]), strict=True):
        if end - begin > FAILOVER_MS and (gap is None or gap > FAILOVER_MS):
            yield f"a majority is whole from {begin} on: fires resumed after {gap} ms"


def calm_spans(evidence: Evidence) -> Iterator[tuple[int, int]]:
    """From one kill, fault or end of either to the next, or the last due time: a majority of the nodes is whole."""
    never = 1 << 62
    troubles: list[tuple[tuple[str, ...], int, int | None]]
    troubles = [((kill.node,), kill.at, kill.ready_at) for kill in evidence.kills]
    troubles += [(fault.nodes, fault.at, fault.healed_at) for fault in evidence.faults]
    due = max((each.scheduled_time or 0 for each in evidence.arrivals), default=0)
    moments = sorted({due, *(each for _, at, end in troubles for each in (at, end) if each is not None)})
    for begin, end in pairwise(moments):
        hurt = {node for nodes, at, until in troubles if at <= begin < (until or never) for node in nodes}
        if len(evidence.nodes) - len(hurt) > len(evidence.nodes) // 2:
            yield begin, end


def resumption_gaps(case: Case, moments: Sequence[int]) -> list[int | None]:
    """For each moment the ms until the first arrival of a time that was due after it, None if none came."""
    times = sorted((each.scheduled_time, each.arrived_at) for each in case.evidence.arrivals if each.scheduled_time)
    first_from = [arrived for _, arrived in times]  # the earliest arrival of this time or any later one
    for place in range(len(times) - 2, -1, -1):
        first_from[place] = min(first_from[place], first_from[place + 1])
    places = [bisect_right(times, at, key=lambda pair: pair[0]) for at in moments]
    return [first_from[place] - at if place < len(times) else None for place, at in zip(places, moments, strict=True)]


def one_state(case: Case) -> Iterator[str]:
    """Every node stands at one index with one digest within 30 s, and no two digests differ at any index."""
    states = case.evidence.ends
    for name in sorted(set(case.evidence.nodes) - {end.node for end in states}):
        yield f"{name} did not say where it stands"
    if len({(end.index, end.digest) for end in states}) > 1:
        yield f"they stand apart: {', '.join(f'{end.node} at {end.index} {end.digest}' for end in states)}"
    for end in states:
        if end.seconds > CONVERGE_SECONDS:
            yield f"{end.node} took {end.seconds:.1f} s to get there"
    known: dict[int, tuple[str, str]] = {}
    for end in states:
        for index, digest in end.digests.items():
            other, witness = known.setdefault(index, (digest, end.node))
            if other != digest:
                yield f"digests differ at index {index}: {witness} {other}, {end.node} {digest}"


def writes(case: Case) -> Iterator[str]:
    """Every acknowledged job write is there and every 503 is not; without an answer it is whole or not at all."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for place, write in enumerate(case.evidence.writes):
        by_name[write.name].append(place)
        if write.status not in ACKNOWLEDGED | {CERTAINLY_NOT_WRITTEN} | UNKNOWN:
            yield f"{write.name}: a good write was answered {write.status}"
    for name, places in by_name.items():
        present: Remaining_ = None
        allowed: list[Remaining_] = []
        for place in places:
            write = case.evidence.writes[place]
            value: Remaining_ = None if write.body is None else (write.body, write.revision)
            if write.status in ACKNOWLEDGED:
                present, allowed = value, []
            elif write.status in UNKNOWN:
                allowed.append(value)
        there = case.evidence.remaining.get(name)
        found: Remaining_ = None if there is None else (there.body, there.revision)
        if not any(_same(found, value) for value in (present, *allowed)):
            trail = [(case.evidence.writes[place].body, case.evidence.writes[place].status) for place in places]
            yield f"{name}: {found} is there after {trail}, expected {present} or one of {allowed}"
    for name in case.evidence.remaining.keys() - by_name.keys():
        yield f"{name} is there, and nobody wrote it"


Remaining_ = tuple[str, int | None] | None  # (body, revision), None: there is no such job


def reads(case: Case) -> Iterator[str]:
    """Every linearizable read shows what its index says, and the indices agree with real time."""
    yield from order.true_at_its_index(case.evidence)
    yield from order.agrees_with_time(case.evidence)


def edits(case: Case) -> Iterator[str]:
    """Each time is decided under the definition that it fell into, and never again behind an edit."""
    yield from changes.edits(case.evidence)


def pauses(case: Case) -> Iterator[str]:
    """A paused job decides and fires nothing of its schedule; what was not owed is one row."""
    yield from changes.pauses(case.evidence)


def time_and_watermarks(case: Case) -> Iterator[str]:
    """Neither watermarks nor cluster time go back, nor pass the true time by more than right clocks may."""
    yield from changes.time_and_watermarks(case.evidence)


def counters(case: Case) -> Iterator[str]:
    """Whenever anybody looks, what a job owed and has passed is what it fired and skipped."""
    yield from changes.counters(case.evidence)


def oddities(case: Case) -> Iterator[str]:
    """Whatever anybody writes, no answer is a fault of the product's own, and no node ends by itself."""
    yield from changes.oddities(case.evidence)


def _same(found: Remaining_, expected: Remaining_) -> bool:
    if found is None or expected is None:
        return found is expected
    return found[0] == expected[0] and expected[1] in (None, found[1])  # no answer, no revision to compare


RULES: dict[str, Callable[[Case], Iterator[str]]] = {
    rule.__name__: rule
    for rule in (
        one_decision,
        run_ids,
        arrivals_recorded,
        at_least_once,
        at_most_once,
        one_start,
        duplicates,
        tokens,
        skip_reasons,
        never_two_active,
        ends,
        resumption,
        one_state,
        writes,
        reads,
        edits,
        pauses,
        time_and_watermarks,
        counters,
        oddities,
    )
}


# ---- was it enough? ------------------------------------------------------------------------------------------------


def numbers_of(case: Case) -> dict[str, float]:
    """What the run amounts to; the first lines are what `Needs` asks for, by the same names."""
    evidence = case.evidence
    roles = Counter(kill.role for kill in evidence.kills if kill.ready_at is not None)
    spans = [(kill.at, kill.ready_at) for kill in evidence.kills if kill.ready_at is not None]
    spans += [(fault.at, fault.healed_at) for fault in evidence.faults if fault.healed_at is not None]
    counted_due = [time for job in case.counted for time in case.due[job.name]]
    statuses = Counter(write.status for write in evidence.writes)
    states = Counter(run.state for run in evidence.runs)
    moments = [kill.at for kill in evidence.kills]
    gaps = sorted(gap for gap in resumption_gaps(case, moments) if gap is not None)
    return {
        "leader_kills": roles["leader"],
        "follower_kills": roles["follower"],
        "kills_in_flight": sum(
            any(kill.role == "follower" or arrival.node == kill.node for arrival in case.in_flight(kill.at))
            for kill in evidence.kills
        ),
        "counted_jobs": len(case.counted),
        "jobs_of_each_class": min(
            sum(job.delivery == kind for job in case.counted) for kind in ("at_least_once", "at_most_once")
        ),
        "due_times": len(counted_due),
        "due_times_in_faults": sum(any(begin <= time <= end for begin, end in spans) for time in counted_due),
        "acknowledged_writes": sum(
            write.status in ACKNOWLEDGED and any(begin <= write.at <= end for begin, end in spans)
            for write in evidence.writes
        ),
        "reads": len(evidence.reads),
        "edits": sum(max(0, len(job.phases) - 1) for job in evidence.jobs),
        "times_in_pauses": sum(len(inside) for job in evidence.jobs for _, _, inside in spans_of_pauses(job)),
        "samples": len(evidence.samples),
        "odd_writes": sum(odd.status is not None and odd.status < 400 for odd in evidence.odd),
        "leader_changes": sum(one != other for one, other in pairwise(evidence.leaders)),
        "clock_steps": len({fault.step_ms for fault in evidence.faults} - {0}),
        "times_told": len(evidence.told),
        **{f"faults: {kind}": number for kind, number in Counter(fault.kind for fault in evidence.faults).items()},
        "arrivals": len(evidence.arrivals),
        "writes_answered_503": statuses[CERTAINLY_NOT_WRITTEN],
        "writes_unknown": sum(number for status, number in statuses.items() if status in UNKNOWN),
        "runs_lost": states["lost"],
        "runs_skipped": states["skipped"],
        "attempts_repeated": sum(len(run.attempts) > 1 for run in evidence.runs),
        "resume_ms_median": gaps[len(gaps) // 2] if gaps else -1,
        "resume_ms_max": gaps[-1] if gaps else -1,
        "converged_seconds": max((end.seconds for end in evidence.ends), default=-1),
    }


def judge(evidence: Evidence, needs: Needs | None = None) -> Verdict:
    """All rules over all of the evidence, and whether it was enough to say anything."""
    asked = needs or Needs()
    case = Case(evidence)
    numbers = numbers_of(case)
    names = ["leader_kills", "follower_kills", "kills_in_flight", "counted_jobs", "jobs_of_each_class", "due_times"]
    names += ["due_times_in_faults", "acknowledged_writes", "reads", "edits", "times_in_pauses", "samples"]
    names += ["odd_writes", "leader_changes", "clock_steps", "times_told"]
    shortfalls = [
        f"{name} {numbers[name]:g}, needed {getattr(asked, name)}"
        for name in names
        if numbers[name] < getattr(asked, name)
    ]
    shortfalls += [
        f"{job.name} keeps {job.history_runs} rows, {len(case.due[job.name])} were due"
        for job in case.evidence.jobs
        if job.history_runs <= len(case.due[job.name])
    ]
    healed = {fault.kind for fault in evidence.faults if fault.healed_at is not None}
    shortfalls += [f"no {kind}" for kind in asked.faults if kind not in healed]
    found = tuple(Violation(name, message) for name, rule in RULES.items() for message in rule(case))
    return Verdict(found, tuple(shortfalls), numbers, evidence.not_injected)
