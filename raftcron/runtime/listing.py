"""Pages of jobs and of runs: in order, by keys, in slices that never hold the loop; a cursor is the last item's key."""

from __future__ import annotations

import base64
import binascii
import bisect
import heapq
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from raftcron.clock import Clock
from raftcron.core import definition
from raftcron.core.model import Job, Run
from raftcron.core.rows import newest_first
from raftcron.errors import Fault, InvalidError
from raftcron.runtime.machine import Machine
from raftcron.runtime.order import Order, Turns
from raftcron.runtime.views import next_fire_at

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
PAGE_BYTES = 8 << 20  # a page ends early beyond this
VIEW_WEIGHT = 10  # a record that is rendered is as much work as so many that are looked at

SORTS = ("name", "next_fire_at", "updated_at")
JOB_STATES = ("active", "paused", "ended")
_NEVER = 1 << 62  # sorts after every instant


class JobFilter(NamedTuple):
    """What a list of jobs is asked for; empty means all."""

    labels: tuple[tuple[str, str], ...] = ()
    state: str | None = None
    text: str = ""  # anywhere in name or description, in either case
    prefix: str = ""  # of the name

    @property
    def is_empty(self) -> bool:
        return self == JobFilter()


class RunFilter(NamedTuple):
    """What a list of runs is asked for; None means all."""

    state: str | None = None
    job: str | None = None
    since: int | None = None  # scheduled at or after this instant
    prefix: str = ""  # of the job's name


class Page(NamedTuple):
    """Rendered items in order, the cursor of the next page, and how many there are in all (None: not counted)."""

    items: list[bytes]
    next_cursor: str | None
    total: int | None


class Listing:
    """Pages of one node's jobs and runs."""

    def __init__(self, machine: Machine, clock: Clock) -> None:
        self._machine = machine
        self._clock = clock
        self._order = Order(machine, clock)

    @property
    def fires(self) -> int:
        """How many scheduled times became runs by entries, not by snapshots, in this process's life."""
        return self._order.fires

    # ---- jobs

    async def jobs(
        self,
        wanted: JobFilter,
        sort: str,
        limit: int,
        cursor: str | None,
        render: Callable[[Job], Any],
        *,
        count: bool = False,
    ) -> Page:
        """A page of jobs in ascending order of `sort`; `total` is exact without filters, or where `count` asks."""
        after: tuple[Any, ...] | None = None
        if cursor is not None:
            after = tuple(_read_cursor(cursor, sort, (str,) if sort == "name" else (int, str)))
        turns = Turns(self._clock)
        if sort == "name" and (wanted.is_empty or not count):
            found = await self._names_after("" if after is None else after[0], wanted, limit + 1, turns)
            total = len(self._machine.state.jobs) if wanted.is_empty else None
        else:
            found, matching = await self._smallest(wanted, sort, after, limit + 1, turns)
            total = matching if count or wanted.is_empty else None
        items: list[bytes] = []
        size = 0
        last: tuple[Any, ...] = ()
        for number, key in enumerate(found):
            if number == limit or size > PAGE_BYTES:
                return Page(items, _cursor(sort, last), total)
            job = self._machine.state.jobs.get(key[-1])
            last = key
            if job is not None:
                items.append(msgspec.json.encode(render(job)))
                size += len(items[-1])
            if turns.is_over(VIEW_WEIGHT):
                await turns.next()
        return Page(items, None, total)

    async def _names_after(self, after: str, wanted: JobFilter, limit: int, turns: Turns) -> list[tuple[Any, ...]]:
        """The keys of the first matching jobs behind a name; no name is empty."""
        found: list[tuple[Any, ...]] = []
        names = await self._order.names()
        for position in range(bisect.bisect_right(names, after), len(names)):
            name = names[position]
            job = None if name == after else self._machine.state.jobs.get(name)
            after = name
            if job is not None and self._matches(job, wanted):
                found.append((name,))
                if len(found) == limit:
                    break
            if turns.is_over():
                await turns.next()
        return found

    async def _smallest(
        self, wanted: JobFilter, sort: str, after: tuple[Any, ...] | None, limit: int, turns: Turns
    ) -> tuple[list[tuple[Any, ...]], int]:
        """The first keys behind `after` of the jobs that match, and how many match in all."""
        best: list[tuple[Any, ...]] = []
        matching = 0
        jobs = self._machine.state.jobs
        for name in list(jobs):
            job = jobs.get(name)
            if job is not None and self._matches(job, wanted):
                matching += 1
                key = self._key(job, sort)
                if after is None or key > after:
                    best.append(key)
            if turns.is_over():
                best = heapq.nsmallest(limit, best)
                await turns.next()
        return heapq.nsmallest(limit, best), matching

    def _key(self, job: Job, sort: str) -> tuple[Any, ...]:
        if sort == "next_fire_at":
            at = next_fire_at(job, self._machine.timeline)
            return (_NEVER if at is None else at, job.name)
        if sort == "updated_at":
            return (job.updated_at, job.name)
        return (job.name,)

    def _matches(self, job: Job, wanted: JobFilter) -> bool:
        if not job.name.startswith(wanted.prefix):
            return False
        if wanted.state is not None and self.state_of(job) != wanted.state:
            return False
        if not wanted.labels and not wanted.text:
            return True
        text = wanted.text.casefold()
        is_found = not text or text in job.name.casefold()
        if is_found and not wanted.labels:
            return True
        written = definition.written_of(job.definition)
        labels = written.get("labels", {})
        return all(labels.get(key) == value for key, value in wanted.labels) and (
            is_found or text in written.get("description", "").casefold()
        )

    def state_of(self, job: Job) -> str:
        """One of JOB_STATES."""
        return self._machine.timeline.state_of(job, self._machine.state.policy(job.uid))

    # ---- runs

    async def runs(
        self,
        wanted: RunFilter,
        limit: int,
        cursor: str | None,
        render: Callable[[Run], Any],
        *,
        count: bool = False,
    ) -> Page:
        """A page of runs, newest first; `total` is exact without filters, or where `count` asks."""
        after = None if cursor is None else tuple(_read_cursor(cursor, "runs", (int, int, str)))
        turns, order = Turns(self._clock), self._order
        matching = await self._count(wanted, turns) if count and wanted != RunFilter() else None
        await order.complete_rows()
        runs = self._machine.state.runs
        total = len(runs) if wanted == RunFilter() else matching
        page = _Rendering(limit, render)
        position = len(order.row_ids) if after is None else bisect.bisect_right(order.row_indexes, -after[0])
        while position > 0:
            position -= 1
            weight = 1
            run = runs.get(order.row_ids[position])
            if run is not None and (after is None or newest_first(run) > after) and _wanted(run, wanted):
                if page.is_full:
                    return page.result("runs", total)
                page.add(run)
                weight = VIEW_WEIGHT
            if turns.is_over(weight):
                known, log_index = order.row_ids, order.row_indexes[position]
                await turns.next()
                if known is not order.row_ids:  # swept or replaced meanwhile: find the place again
                    await order.complete_rows()
                    runs = self._machine.state.runs
                    position = bisect.bisect_right(order.row_indexes, log_index)
                    after = page.last or after
        return page.result(None, total)

    async def _count(self, wanted: RunFilter, turns: Turns) -> int:
        """How many rows match."""
        runs, found = self._machine.state.runs, 0
        for run_id in list(runs):
            run = runs.get(run_id)
            found += run is not None and _wanted(run, wanted)
            if turns.is_over():
                await turns.next()
        return found

    async def runs_of(
        self,
        job: Job,
        wanted: RunFilter,
        limit: int,
        cursor: str | None,
        render: Callable[[Run], Any],
        *,
        count: bool = False,
    ) -> Page:
        """A page of one job's rows, newest first; `total` is exact without filters, or where `count` asks."""
        after = None if cursor is None else tuple(_read_cursor(cursor, "runs", (int, int, str)))
        state = self._machine.state
        ids = [*state.ended_of(job.uid), *state.active.get(job.uid, ())]
        ids += state.kept_parts(tuple(ids))
        best: list[tuple[int, int, str]] = []
        matching = 0
        turns = Turns(self._clock)
        for run_id in ids:
            run = state.runs.get(run_id)
            if run is not None and _wanted(run, wanted):
                matching += 1
                key = newest_first(run)
                if after is None or key > after:
                    best.append(key)
            if turns.is_over():
                best = heapq.nsmallest(limit + 1, best)
                await turns.next()
        best = heapq.nsmallest(limit + 1, best)
        total = len(ids) if wanted == RunFilter() else matching if count else None
        page = _Rendering(limit, render)
        for key in best:
            run = state.runs.get(key[2])
            if run is None:
                continue
            if page.is_full:
                return page.result("runs", total)
            page.add(run)
            if turns.is_over(VIEW_WEIGHT):
                await turns.next()
        return page.result(None, total)

    async def run_counts(self) -> dict[str, int]:
        """How many rows there are of each state."""
        counts: dict[str, int] = {}
        runs, turns = self._machine.state.runs, Turns(self._clock)
        for run_id in list(runs):
            run = runs.get(run_id)
            if run is not None:
                counts[run.state] = counts.get(run.state, 0) + 1
            if turns.is_over():
                await turns.next()
        return counts


class _Rendering:
    """A page of runs in the making."""

    def __init__(self, limit: int, render: Callable[[Run], Any]) -> None:
        self.items: list[bytes] = []
        self.last: tuple[int, int, str] | None = None
        self._limit = limit
        self._render = render
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self.items) == self._limit or self._bytes > PAGE_BYTES

    def add(self, run: Run) -> None:
        self.items.append(msgspec.json.encode(self._render(run)))
        self._bytes += len(self.items[-1])
        self.last = newest_first(run)

    def result(self, kind: str | None, total: int | None) -> Page:
        """`kind` of the cursor; None where nothing follows."""
        return Page(self.items, None if kind is None or self.last is None else _cursor(kind, self.last), total)


def _wanted(run: Run, wanted: RunFilter) -> bool:
    return (
        (wanted.state is None or run.state == wanted.state)
        and (wanted.job is None or run.job == wanted.job)
        and run.job.startswith(wanted.prefix)
        and (wanted.since is None or run.scheduled_time >= wanted.since)
    )


def _cursor(kind: str, key: tuple[Any, ...]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([kind, *key])).decode().rstrip("=")


def _read_cursor(text: str, kind: str, types: tuple[type, ...]) -> list[Any]:
    """The key in a cursor.  InvalidError: it is none, or of another list."""
    try:
        decoded = msgspec.json.decode(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError):
        decoded = None
    if (
        not isinstance(decoded, list)
        or len(decoded) != len(types) + 1
        or decoded[0] != kind
        or any(type(part) is not kind_of for part, kind_of in zip(decoded[1:], types, strict=True))
    ):
        raise InvalidError(
            "the cursor is not one of this list",
            (Fault("?cursor", "use `next_cursor` of the page before, with the same `sort`"),),
        )
    return decoded[1:]
