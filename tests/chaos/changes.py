"""What must hold while jobs are edited, paused and watched, and while strangers write oddities.

Rules as in checker.py, over the evidence alone.  A job that somebody edits has phases, one behind each change; its
times are judged by the other rules too, each by the phase that it fell into.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate, pairwise

from tests.chaos.calendar import spans_of_pauses, times
from tests.chaos.history import Evidence, Job, Run, Sample

MAX_CLOCK_SKEW_MS = 5_000  # a majority of the nodes has the true clock, always: it is the time that they trust
SLACK_MS = 1_000  # of the instant of an edit: its leader's clock is read while it is asked for
SCHEDULED = frozenset({"schedule", "catch_up"})
PAUSED = "paused"  # the reason of a summary of what was not owed
UNKNOWN_OR_REFUSED = frozenset({503, 504})


def edits(evidence: Evidence) -> Iterator[str]:
    """Each time is decided under the definition that it fell into: by its end, and never again behind an edit (I11)."""
    runs = _runs_by_job(evidence)
    for job in evidence.jobs:
        for former, phase in pairwise(job.phases):
            yield from _boundary(job, phase.asked_at, phase.answered_at, phase.since, former.index, phase.index)
            if not former.is_paused:
                left = times(former.schedule, job.created_at, phase.since, phase.asked_at - SLACK_MS)
                if left:
                    yield f"{job.name}: {left[0]} was due before edit {phase.index} was asked for, and left undecided"
            for run in runs[job.name]:
                first, last = _span(run)
                if first <= phase.since < last:
                    yield f"{job.name}: {run.id} decides {first} to {last}, across edit {phase.index} at {phase.since}"
                if (last <= phase.since) != (run.log_index <= phase.index):
                    yield f"{job.name}: {first} was decided at {run.log_index}; edit {phase.index} was at {phase.since}"


def _boundary(job: Job, asked_at: int, answered_at: int, since: int, former: int, index: int) -> Iterator[str]:
    if since > answered_at + SLACK_MS:
        yield f"{job.name}: edit {index} decides through {since}, and was answered at {answered_at}"
    if index <= former:
        yield f"{job.name}: edit {index} came behind edit {former} (asked for at {asked_at})"


def pauses(evidence: Evidence) -> Iterator[str]:
    """A paused job decides and fires nothing of its schedule; what was not owed is one row (I10)."""
    runs = _runs_by_job(evidence)
    for job in evidence.jobs:
        spans = spans_of_pauses(job)
        rows = [run for run in runs[job.name] if run.reason == PAUSED]
        for since, until, inside in spans:
            for run in runs[job.name]:
                if run.reason != PAUSED and any(since < at <= until for at in _span(run)):
                    yield f"{job.name}: paused from {since} to {until}, and {run.id} was decided ({run.state})"
            for arrival in evidence.arrivals:
                if arrival.job == job.name and since < (arrival.scheduled_time or 0) <= until:
                    yield f"{job.name}: paused from {since} to {until}, and {arrival.scheduled_time} arrived"
            told = [(run.first, run.last, run.count) for run in rows if since < run.scheduled_time <= until]
            expected = [(inside[0], inside[-1], len(inside))] if inside else []
            if told != expected:
                yield f"{job.name}: paused from {since} to {until}, of which its rows say {told}, not {expected}"
        paused = [(former.index, phase.index) for former, phase in pairwise(job.phases) if former.is_paused]
        for run in runs[job.name]:
            if any(begun < run.log_index <= ended for begun, ended in paused) != (run.reason == PAUSED):
                yield f"{job.name}: {run.id} ({run.state}, {run.reason}) was decided at {run.log_index}: {paused}"


def time_and_watermarks(evidence: Evidence) -> Iterator[str]:
    """Neither watermarks nor cluster time go back, nor are they further ahead than clocks may be (I5)."""
    newest: dict[str, Sample] = {}
    for sample in evidence.samples:  # one after the other, each linearizable
        known = newest.get(sample.job, sample)
        if sample.decided_through < known.decided_through:
            yield f"{sample.job}: its watermark goes from {known.decided_through} back to {sample.decided_through}"
        if sample.decided_through > sample.seen_at + MAX_CLOCK_SKEW_MS:
            yield f"{sample.job}: decided through {sample.decided_through}, by {sample.seen_at}"
        newest[sample.job] = sample
    reached, place = 0, 0  # cluster time, and the log index of who had it
    for index, at in sorted({stamp for run in evidence.runs for stamp in run.stamps}):
        if at < reached:
            yield f"cluster time is {at} at {index}, and was {reached} at {place}"
        reached, place = max(reached, at), index
    started = {(run.id, row.token): row.started_at for run in evidence.runs for row in run.attempts}
    for arrival in evidence.arrivals:
        at = started.get((arrival.run_id or "", arrival.token or 0)) or 0
        if at > arrival.arrived_at + MAX_CLOCK_SKEW_MS:
            yield f"cluster time was {at} before {arrival.run_id} arrived at {arrival.arrived_at}"
        if (arrival.scheduled_time or 0) > arrival.arrived_at + MAX_CLOCK_SKEW_MS:
            yield f"{arrival.job}: {arrival.scheduled_time} arrived at {arrival.arrived_at}, before it was due"
    yield from _by_the_true_clock(evidence)


def _by_the_true_clock(evidence: Evidence) -> Iterator[str]:
    """What is in the log by a look is not of a time to come, nor does any node trust a time that is far from it."""
    stamps = sorted({stamp for run in evidence.runs for stamp in run.stamps})
    highest = list(accumulate((at for _, at in stamps), max))
    for index, seen_at in sorted({(sample.index, sample.seen_at) for sample in evidence.samples}):
        place = bisect_right(stamps, index, key=lambda stamp: stamp[0])
        if place and highest[place - 1] > seen_at + MAX_CLOCK_SKEW_MS:
            yield f"cluster time was {highest[place - 1]} by index {index}, which was there at {seen_at}"
    for told in evidence.told:
        if not told.asked_at - MAX_CLOCK_SKEW_MS <= told.time <= told.seen_at + MAX_CLOCK_SKEW_MS:
            yield f"{told.node} trusts {told.time} as the time, between {told.asked_at} and {told.seen_at}"


def counters(evidence: Evidence) -> Iterator[str]:
    """Whenever anybody looks, what a job owed and has passed is what it fired and skipped (I4)."""
    created = {job.name: job.created_at for job in evidence.jobs}
    for sample in evidence.samples:
        if sample.is_paused or sample.job not in created:
            continue
        owed = len(times(sample.schedule, created[sample.job], sample.counted_from, sample.decided_through))
        if owed != sample.fired + sample.skipped:
            yield (
                f"{sample.job}: owed {owed} from {sample.counted_from} through {sample.decided_through}, "
                f"fired {sample.fired}, skipped {sample.skipped}"
            )


def oddities(evidence: Evidence) -> Iterator[str]:
    """Whatever anybody writes, no answer is a fault of the product's own, and no node ends by itself (I13)."""
    for odd in evidence.odd:
        if odd.status is not None and odd.status >= 500 and odd.status not in UNKNOWN_OR_REFUSED:
            yield f"{odd.node} answered {odd.status} to {odd.what}"
    for fallen in evidence.fallen:
        yield f"{fallen.node} ended by itself with exit code {fallen.code}: {fallen.last_words}"


def _runs_by_job(evidence: Evidence) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = defaultdict(list)
    for run in evidence.runs:
        if run.cause in SCHEDULED:
            found[run.job].append(run)
    return found


def _span(run: Run) -> tuple[int, int]:
    if run.first is None or run.last is None:
        return run.scheduled_time, run.scheduled_time
    return run.first, run.last
