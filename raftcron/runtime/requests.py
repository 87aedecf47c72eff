"""The use-cases of runs that somebody asks for or speaks of: now, again, of the past; cancelled, ended by a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from raftcron.core.apply.remote import CONCLUSIONS
from raftcron.core.apply.requests import BACKFILL_MAX
from raftcron.core.commands import Backfill, Cancel, Command, Conclude, Done, Hear, Rerun, Trigger
from raftcron.core.fields import kind_of
from raftcron.core.instant import parse_rfc3339, rfc3339, shown
from raftcron.core.model import Job, Key
from raftcron.core.times import Times
from raftcron.errors import ConflictError, Fault, NotFoundError, TooLargeError
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.forecast import in_turns
from raftcron.runtime.machine import Machine
from raftcron.runtime.service import Service
from raftcron.runtime.small_bodies import fields_of, flag_of, invalid, overlap_of, refuse_any
from raftcron.runtime.writes import LOOKS_MAX, taken

ARGS_BYTES_MAX = 64 << 10  # a command gets them as one environment variable, of which Linux takes 128 KiB
MESSAGE_BYTES_MAX = 4_096  # of a target's last word, which is kept as the tail of the run's output
SPAN_DAYS_MAX = 3_660  # of a backfill: counting its times looks at each day, some 20 ms in all
DAY_MS = 86_400_000


class Span(NamedTuple):
    """What a backfill is asked for; both ends belong to it."""

    begin: int
    through: int
    is_dry: bool


class Filled(NamedTuple):
    """What a backfill has asked for: ids of its runs, oldest scheduled time first; of a dry one their times."""

    done: Done | None
    times: list[int]
    runs: list[str]


class Requests:
    """Such writes of one node; they run on the leader."""

    def __init__(self, *, machine: Machine, time: TrustedTime, service: Service) -> None:
        self._machine = machine
        self._time = time
        self._service = service

    async def run(self, name: str, body: Any, key: Key | None) -> Done:
        """Run now; body `{args, overlap}`.  `subject` is the run's id.  Raises InvalidError, NotFoundError."""
        fields, faults = fields_of(body, {"args", "overlap"})
        overlap = overlap_of(fields, faults)
        refuse_any(faults)
        args = None if fields.get("args") is None else msgspec.msgpack.encode(fields["args"])
        if args is not None and len(args) > ARGS_BYTES_MAX:
            raise TooLargeError(f"the args take {len(args)} bytes, at most {ARGS_BYTES_MAX} are taken")

        def look() -> Command:
            self._service.found(name, self._machine.state.jobs.get(name))
            return Trigger(name, self._service.place(), args, overlap, key)

        return taken(await self._service.write(key, look))

    async def cancel(self, run_id: str, key: Key | None) -> Done:
        """Cancel an active run.  Raises NotFoundError, ConflictError where it has ended."""

        def look() -> Command:
            self._known(run_id)
            return Cancel(run_id, key)

        return taken(await self._service.write(key, look))

    async def rerun(self, run_id: str, body: Any, key: Key | None) -> Done:
        """A new run of what an ended run was for; body `{overlap}`.  `subject` is the new run's id.

        Raises InvalidError, NotFoundError, ConflictError where it has not ended or its job is gone.
        """
        fields, faults = fields_of(body, {"overlap"})
        overlap = overlap_of(fields, faults)
        refuse_any(faults)

        def look() -> Command:
            self._known(run_id)
            return Rerun(run_id, self._service.place(), overlap, key)

        return taken(await self._service.write(key, look))

    async def conclude(self, run_id: str, body: Any, key: Key | None) -> Done:
        """A target ends the run that it has taken over; body `{token, state, message}`.

        Raises InvalidError, NotFoundError, ConflictError where the token is not current or the run has ended.
        """
        fields, faults = fields_of(body, {"token", "state", "message"})
        token = _token(fields, faults)
        state, message = fields.get("state"), fields.get("message")
        if state not in CONCLUSIONS:
            said = f"is {shown(state)}" if "state" in fields else "is missing"
            faults.append(Fault("/state", f"{said}: allowed are {', '.join(CONCLUSIONS)}"))
        if message is not None and not isinstance(message, str):
            faults.append(Fault("/message", f"must be a string, not {kind_of(message)}"))
        elif message is not None and (size := len(message.encode())) > MESSAGE_BYTES_MAX:
            text = f"has {size} bytes, at most {MESSAGE_BYTES_MAX} are kept of a run's output"
            faults.append(Fault("/message", text))
        refuse_any(faults)

        def look() -> Command:
            self._known(run_id)
            return Conclude(run_id, token, str(state), message or "", key)

        return taken(await self._service.write(key, look))

    async def hear(self, run_id: str, body: Any, key: Key | None) -> Done:
        """A target is at work on the run that it has taken over; body `{token}`.  Raises as `conclude`."""
        fields, faults = fields_of(body, {"token"})
        token = _token(fields, faults)
        refuse_any(faults)

        def look() -> Command:
            self._known(run_id)
            return Hear(run_id, token, key)

        return taken(await self._service.write(key, look))

    async def backfill(self, name: str, span: Span, key: Key | None) -> Filled:
        """A run for each time of a past span; a dry one writes nothing.

        Raises InvalidError, NotFoundError, and ConflictError where the times cannot be told or too many wait already.
        """
        replayed = self._service.answered(key)
        if replayed is not None:
            return Filled(replayed, [], list(_ids(replayed)))
        for _ in range(LOOKS_MAX):
            job = self._machine.state.jobs.get(name)
            if job is None:
                await self._service.confirm()
                job = self._service.found(name, self._machine.state.jobs.get(name))
            seen = self._machine.state.revision_of(job)
            times = await self._times_in(job, span)
            if span.is_dry:
                return Filled(None, times, [])

            def look(job: Job = job, seen: int = seen, times: list[int] = times) -> Command:
                if self._machine.state.jobs.get(name) is not job or self._machine.state.revision_of(job) != seen:
                    raise _Moved
                return Backfill(name, times, seen, key)

            try:
                done = taken(await self._service.write(key, look))
            except _Moved:
                continue
            return Filled(done, times, list(_ids(done)))
        raise ConflictError(
            f"the job changed {LOOKS_MAX} times while this request looked at it: nothing was written; repeat it",
            retry_after_seconds=1.0,
        )

    def _known(self, run_id: str) -> None:
        """Raises NotFoundError."""
        if run_id not in self._machine.state.runs:
            raise NotFoundError(f"there is no run {run_id[:200]!r}, or it is no longer kept")

    async def _times_in(self, job: Job, span: Span) -> list[int]:
        """The times of the job in a span, if there are no more than one request may have."""
        if self._machine.state.policy(job.uid).recurrence.end_intervals:
            raise ConflictError(f"times `from last_end` follow from runs: run job {job.name!r} by hand instead")
        times = self._service.times(job)
        found = await in_turns(_from(times, span), BACKFILL_MAX)
        rest = times.summary(found[-1], span.through) if found else None
        if rest is not None:
            text = (
                f"the span holds {len(found) + rest[2]:,} times, one request has {BACKFILL_MAX:,} at most: "
                f"end it at {rfc3339(found[-1])}, and go on from {rfc3339(rest[0])} when those have run"
            )
            raise invalid(Fault("/to", text))
        return found


class _Moved(Exception):
    """The job has changed since its times were worked out."""


def span_of(body: Any, now: int) -> Span:
    """What the body `{from, to, dry_run}` of a backfill asks for.  Raises InvalidError."""
    fields, faults = fields_of(body, {"from", "to", "dry_run"})
    begin, through = _instant(fields, "from", faults), _instant(fields, "to", faults)
    is_dry = flag_of(fields, "dry_run", faults)
    if begin is not None and through is not None:
        if through > now:
            faults.append(Fault("/to", f"lies ahead: it is {rfc3339(now)} now, and a backfill is of what is past"))
        if begin > through:
            faults.append(Fault("/to", f"{rfc3339(through)} lies before `from`, {rfc3339(begin)}"))
        if through - begin > SPAN_DAYS_MAX * DAY_MS:
            faults.append(Fault("/from", f"is more than {SPAN_DAYS_MAX:,} days before `to`: ask for a part at a time"))
    refuse_any(faults)
    assert begin is not None, "it would be a fault"
    assert through is not None, "it would be a fault"
    return Span(begin, through, is_dry)


def _from(times: Times, span: Span) -> Iterator[int]:
    at = times.next(span.begin - 1)
    while at is not None and at <= span.through:
        yield at
        at = times.next(at)


def _ids(done: Done) -> Iterator[str]:
    """Of the runs that a backfill has made, whose last one is its subject."""
    head, _, last = done.subject.rpartition("-")
    return (f"{head}-{place}" for place in range(int(last) + 1)) if last else iter(())


def _instant(fields: Mapping[str, Any], name: str, faults: list[Fault]) -> int | None:
    if fields.get(name) is None:
        faults.append(Fault(f"/{name}", "is missing: an instant such as 2026-01-31T00:00:00Z"))
        return None
    try:
        return parse_rfc3339(fields[name])
    except (ValueError, TypeError) as error:
        faults.append(Fault(f"/{name}", f"{error}"))
        return None


def _token(fields: Mapping[str, Any], faults: list[Fault]) -> int:
    """The fencing token that a target shows: a number, or its digits as the header has them."""
    token = fields.get("token")
    if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) <= 20:
        token = int(token)
    if isinstance(token, int) and not isinstance(token, bool) and 0 <= token < 1 << 64:
        return token
    said = f"is {shown(token)}" if "token" in fields else "is missing"
    faults.append(Fault("/token", f"{said}: send the request's Raftcron-Fencing-Token"))
    return 0
