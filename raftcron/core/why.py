"""Why a job fired, or did not, or will, at an instant: one verdict with its reason, and a sentence in plain English.

Pure: it is given the row that speaks for the instant, if one is kept, and the job's times.  Which rows to look at is in
runtime/why.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from raftcron.core.exclusion import exclusion_of
from raftcron.core.instant import rfc3339
from raftcron.core.model import (
    ASSIGNED,
    CANCELLED,
    CANCELLING,
    CAUSE_CATCH_UP,
    COUNTED_CAUSES,
    FAILED,
    LOST,
    QUEUED,
    REASON_LIMIT,
    REASON_PAUSED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    TIMED_OUT,
    WAITING_RETRY,
    Calendar,
    Job,
    Policy,
    Run,
)
from raftcron.core.rows import FAILURES
from raftcron.core.times import Times

FIRED, SKIPPED_, NOT_DUE, UNDECIDED, FORGOTTEN = "fired", "skipped", "not_due", "undecided", "forgotten"

_WHY_SKIPPED = {
    "overlap": "a run of the job was still active, and its overlap policy lets no further one begin",
    "misfire": "it was missed, and the job's misfire policy is to skip what was missed",
    "coalesced": "it was missed, and a later run stands for all that were missed",
    "expired": "it was missed by more than misfire.window when a leader could decide it",
    "deadline": "it could not start before its start deadline",
    "no_node": "no live node matched its placement before its start deadline",
    "queue_full": "as many runs waited already as overlap.queue allows",
    "limit": "as many runs of the job as it may have were active already",
    "requested": "it was asked to be skipped",
    "cancelled": "it was cancelled before it started",
    "deleted": "the job was deleted before it started",
}
_STATES = {
    QUEUED: "it waits to be started",
    ASSIGNED: "it is about to start",
    RUNNING: "it is running",
    CANCELLING: "it is being cancelled",
    WAITING_RETRY: "it waits for its next attempt",
    SUCCEEDED: "it succeeded",
    FAILED: "it failed",
    TIMED_OUT: "it timed out",
    CANCELLED: "it was cancelled",
    LOST: "it was lost: nobody saw its end",
}


class Answer(NamedTuple):
    """`scheduled_time` is the N that is spoken of; None where the instant is none.  `row`: what log, epoch, run say."""

    verdict: str
    reason: str | None
    message: str
    scheduled_time: int | None = None
    due_at: int | None = None
    row: Run | None = None


class Told(NamedTuple):
    """What a row tells of an instant that is asked about."""

    rank: int  # of several rows the one with the highest speaks; SURE: no other can have a higher one
    time: int  # that it tells of: the instant, or the time that is due at it
    is_certain: bool  # else it is only known that the row covers it


SURE = 3


class Asked(NamedTuple):
    """An instant of a job, and what one has to know to find the row that tells of it.

    A row of many keeps the first, the last and the number of its times.  Which the others are follows from what the
    schedules and calendars say, as long as that has not changed since the row was decided.
    """

    at: int
    time: int | None  # the scheduled time that it is, or is the due instant of, under what holds now; None: neither
    changed_index: int  # log index of the newest change of what the times follow from
    is_from_ends: bool  # some times count from the ends of runs, and past ones are known from their rows only

    def told_by(self, row: Run) -> Told | None:
        """What a row tells; None: nothing.  When times of before a change were due is known of single rows only."""
        if row.part is not None or row.cause not in COUNTED_CAUSES:
            return None
        is_certain = self._is_certain(row, self.at)
        if is_certain or (row.count is None and row.due_at == self.at):
            return Told(SURE, self.at, True)
        is_due = None if self.time is None else self._is_certain(row, self.time)
        if self.time is not None and is_due and row.log_index > self.changed_index:
            return Told(SURE, self.time, True)
        if is_certain is not None:
            return Told(2, self.at, False)
        return None if self.time is None or is_due is None else Told(1, self.time, is_due)

    def _is_certain(self, row: Run, at: int) -> bool | None:
        """Whether one of the row's times certainly is this instant; None: it is certainly not."""
        if row.first is None or row.last is None or row.count is None:
            return True if row.scheduled_time == at else None
        if at in (row.first, row.last):
            return True
        if not row.first < at < row.last:
            return None
        if at == self.time and row.log_index > self.changed_index:
            return True
        is_unknown = row.log_index <= self.changed_index or self.is_from_ends
        return False if is_unknown and row.count > 2 else None


def asked_of(
    job: Job, policy: Policy, times: Times, calendars: Mapping[str, Calendar], editions_since: int, at: int
) -> Asked:
    """What is asked by an instant of a job; `editions_since` as State has it."""
    recurrence = policy.recurrence
    changed = max([job.times_index, editions_since, *(calendars[name].revision for name in recurrence.exclude)])
    return Asked(at, _scheduled_time(job, times, at), changed, bool(recurrence.end_intervals))


def _scheduled_time(job: Job, times: Times, at: int) -> int | None:
    """The time that an instant is, or is the due instant of; None if it is neither."""
    if times.names(at):
        return at
    if not times.jitter_ms:
        return None
    before = times.previous(at + 1)
    return before if before is not None and times.due_at(job.uid, before, times.next(before)) == at else None


def explain(
    job: Job,
    policy: Policy,
    times: Times,
    calendars: Mapping[str, Calendar],
    row: Run | None,
    asked: Asked,
    now: int,
) -> Answer:
    """The verdict on an instant, of which `row` tells best, if any does.  Instants are milliseconds UTC.

    `now` is the time that a leader would decide on.
    """
    at, time = asked.at, asked.time
    told = None if row is None else asked.told_by(row)
    if row is not None and told is not None:
        return _of_row(row, told)
    if time is None:
        return _no_time(job, policy, times, calendars, at)
    due_at = times.due_at(job.uid, time, times.next(time))
    if time <= max(job.counted_from, times.floor):
        return _before_change(job, times, time, due_at)
    if time <= job.decided_through:
        return Answer(
            FORGOTTEN,
            None,
            f"{rfc3339(time)} was decided, but its record is no longer kept: the history is bounded",
            time,
            due_at,
        )
    return _ahead(job, policy, times, time, due_at, now)


def _of_row(row: Run, told: Told) -> Answer:
    """What is recorded."""
    if row.count is not None:
        return (_of_summary if told.is_certain else _inside_summary)(row, told.time)
    time = row.scheduled_time
    where = f" (run {row.id})"
    if row.state == SKIPPED:
        why = _WHY_SKIPPED.get(row.reason or "", row.reason or "no reason is recorded")
        by = f": run {row.blocked_by}" if row.blocked_by else ""
        if row.replaced_by:
            why, by = "a newer run of the job took its place", f": run {row.replaced_by}"
        return Answer(SKIPPED_, row.reason, f"{rfc3339(time)} was skipped: {why}{by}", time, row.due_at, row)
    late = ""
    if row.cause == CAUSE_CATCH_UP:
        late = ", late, to catch up"
    if row.missed_count:
        late += f", and stands for {row.missed_count} missed before it"
    state = _STATES.get(row.state, row.state)
    at_node = f" on {row.node}" if row.node else ""
    detail = f": {row.error}" if row.error else ""
    if row.state in FAILURES and row.reason in _WHY_SKIPPED:
        detail += f"; a further attempt was due, but {_WHY_SKIPPED[row.reason]}"
    return Answer(
        FIRED, row.reason, f"{rfc3339(time)} fired{late}; {state}{at_node}{detail}{where}", time, row.due_at, row
    )


def _of_summary(row: Run, time: int) -> Answer:
    assert row.first is not None
    assert row.last is not None
    among = ""
    if row.count != 1:
        among = f", as were {row.count} times from {rfc3339(row.first)} to {rfc3339(row.last)}"
    if row.reason == REASON_PAUSED:
        return Answer(NOT_DUE, REASON_PAUSED, f"the job was paused at {rfc3339(time)}{among}", time, None, row)
    return Answer(SKIPPED_, row.reason, f"{rfc3339(time)} was skipped{among}: {_why_many(row)}", time, None, row)


def _inside_summary(row: Run, at: int) -> Answer:
    """Between the first and the last of many, where nobody knows any more which instants the others are.

    That a job was paused is certain of each instant there, and that it owed nothing.
    """
    assert row.first is not None
    assert row.last is not None
    span = f"{row.count} times from {rfc3339(row.first)} to {rfc3339(row.last)}"
    unkept = f"whether {rfc3339(at)} was one of them is not kept: only the first, the last and their number are"
    if row.reason == REASON_PAUSED:
        text = f"the job was paused at {rfc3339(at)}, and passed by {span}; {unkept}"
        return Answer(NOT_DUE, REASON_PAUSED, text, None, None, row)
    return Answer(FORGOTTEN, None, f"{span} were skipped ({_why_many(row)}); {unkept}", None, None, row)


def _why_many(row: Run) -> str:
    if row.reason == REASON_LIMIT:
        return "more were missed than misfire.max lets run"
    return _WHY_SKIPPED.get(row.reason or "", row.reason or "no reason is recorded")


def _no_time(job: Job, policy: Policy, times: Times, calendars: Mapping[str, Calendar], at: int) -> Answer:
    """Not one of the times: left out by what the job says beside its schedules, or not named by them at all.

    Before the last change of those it may have been one: only rows tell, and where they have left nobody knows.
    """
    recurrence = policy.recurrence
    changed = max(job.counted_from, times.floor)
    if job.created_at < at <= job.unkept_through and (at <= changed or recurrence.end_intervals):
        known = f"since the change at {rfc3339(changed)} its times are others"
        if recurrence.end_intervals:
            known = "times `from last_end` are known from their rows only"
        return Answer(FORGOTTEN, None, f"whether {rfc3339(at)} was a time of the job, and {_unkept(job)}; {known}")
    free = Times(times.schedules, times.anchor, jitter_ms=times.jitter_ms)
    if free.names(at):
        if recurrence.start_at is not None and at < recurrence.start_at:
            return Answer(NOT_DUE, "start_at", f"{rfc3339(at)} is before start_at, {rfc3339(recurrence.start_at)}")
        if recurrence.end_at is not None and at > recurrence.end_at:
            return Answer(NOT_DUE, "end_at", f"{rfc3339(at)} is after end_at, {rfc3339(recurrence.end_at)}")
        for name in recurrence.exclude:
            if exclusion_of(calendars[name]).covers(at):
                return Answer(NOT_DUE, "excluded", f"the calendar {name!r} excludes {rfc3339(at)}")
    if at <= job.created_at:
        return Answer(NOT_DUE, "not_created", f"the job was created later, at {rfc3339(job.created_at)}")
    before, after = times.previous(at), times.next(at)
    nearest = [
        text
        for text, one in (("the one before it is {}", before), ("the one after it is {}", after))
        if one is not None
        for text in [text.format(rfc3339(one))]
    ]
    around = "; ".join(nearest) or "there are none"
    since = ""
    if at <= job.updated_at and job.updated_at != job.created_at:
        since = f" since the change at {rfc3339(job.updated_at)}; what it said before is not kept"
    if recurrence.end_intervals:
        since += "; times `from last_end` follow from the ends of runs, and past ones are known from their rows only"
    return Answer(NOT_DUE, "not_scheduled", f"{rfc3339(at)} is no time of the schedule{since}; {around}")


def _before_change(job: Job, times: Times, time: int, due_at: int) -> Answer:
    """Before the last change of what the job's times follow from: decided under what it said then, if it was owed."""
    if time <= job.created_at:
        text = f"the job was created later, at {rfc3339(job.created_at)}"
        return Answer(NOT_DUE, "not_created", text, time, due_at)
    changed_at = rfc3339(max(job.counted_from, times.floor))
    if job.paused and time > job.decided_through:  # a calendar has changed since
        return _paused(job, time, due_at)
    if time <= job.unkept_through:
        text = f"{rfc3339(time)}: {_unkept(job)}; its times follow from the change at {changed_at} now"
        return Answer(FORGOTTEN, None, text, time, due_at)
    text = f"the job owes {rfc3339(time)} only since the change at {changed_at}: nothing was due there before"
    return Answer(NOT_DUE, "changed", text, time, due_at)


def _unkept(job: Job) -> str:
    return f"what was decided there is not kept: of times up to {rfc3339(job.unkept_through)} the job lacks rows"


def _paused(job: Job, time: int, due_at: int) -> Answer:
    note = f" ({job.pause_note})" if job.pause_note else ""
    return Answer(NOT_DUE, REASON_PAUSED, f"the job is paused{note}: it owes nothing until resumed", time, due_at)


def _ahead(job: Job, policy: Policy, times: Times, time: int, due_at: int, now: int) -> Answer:
    """Not decided yet."""
    if job.paused and (job.pause_until is None or time <= job.pause_until):
        return _paused(job, time, due_at)
    if policy.max_runs and job.fire_count >= policy.max_runs:
        text = f"the job has had the {policy.max_runs} runs that max_runs allows"
        return Answer(NOT_DUE, "max_runs", text, time, due_at)
    if time in job.skips:
        return Answer(UNDECIDED, "requested", f"{rfc3339(time)} will be skipped: that was asked for", time, due_at)
    when = rfc3339(due_at) + ("" if due_at == time else ", its jitter included")
    if due_at > now:
        if policy.max_runs and times.next(max(job.decided_through, times.floor)) != time:
            left = policy.max_runs - job.fire_count
            when += f", unless the {left} more runs that max_runs allows are used up before"
        return Answer(UNDECIDED, None, f"{rfc3339(time)} is still to come: it is due at {when}", time, due_at)
    return Answer(
        UNDECIDED,
        None,
        f"{rfc3339(time)} was due at {when}, and no leader has decided it yet; it will be, however late",
        time,
        due_at,
    )
