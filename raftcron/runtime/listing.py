"""Pages of jobs and of runs: in order, by keys, in slices that never hold the loop; a cursor is the last item's key.

The order is kept beside the state: dictionaries of the state keep the order of the log, so what is new stands at their
ends, and what is gone is passed over.  What was there before (a snapshot) is put in order when somebody asks.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import bisect
import heapq
from array import array
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from raftcron.core import definition
from raftcron.core.model import COUNTED_CAUSES, SKIPPED, Job, Run
from raftcron.core.rows import Rows, newest_first
from raftcron.errors import Fault, InvalidError
from raftcron.runtime.machine import Machine
from raftcron.runtime.views import next_fire_at

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
PAGE_BYTES = 8 << 20  # a page ends early beyond this
SLICE = 500  # records looked at in one turn of the loop, some microseconds each: about 2 ms
NEW_AT_ONCE = 5_000  # names that are put in order in one turn: some 2 ms
VIEWS_SLICE = 50  # records rendered in one turn: about 2 ms
COMPACT_FROM = 1_024  # dead places that are not worth a sweep

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
    """The order of one node's jobs and runs; `fires` counts scheduled times that became runs by entries, not by
    snapshots, in this process's life."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.fires = 0
        self._ordering = asyncio.Lock()
        machine.observe(self)
        self.state_replaced()

    def state_changed(self, runs: Iterable[str]) -> None:
        """Take in what is new: it stands at the ends of the state's dictionaries."""
        self._take_names()
        self._take_runs()

    def state_replaced(self) -> None:
        """Begin anew: what stands in the state now is put in order when somebody asks for it."""
        state = self._machine.state
        self._names: list[str] = []
        self._new_names: list[str] = []
        self._run_ids: list[str] = []  # oldest first
        self._run_indexes = array("q")  # log indexes of the same
        self._begun_at = self._names_through = self._runs_through = state.index  # what later entries made is taken in
        self._is_complete = not state.jobs and not state.runs  # and so is what was there before

    async def _complete(self) -> None:
        """Take in what was there before as well, in slices: at a million records it is seconds of work."""
        async with self._ordering:
            while not self._is_complete:
                state, begun_at = self._machine.state, self._begun_at
                names = await _sorted(list(state.jobs))
                run_ids, run_indexes = await _in_order(state.runs, begun_at)
                if state is self._machine.state:
                    self._names = names  # some of them perhaps among the new names too
                    self._run_ids = run_ids + self._run_ids
                    self._run_indexes = run_indexes + self._run_indexes
                    self._is_complete = True

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
        if sort == "name" and (wanted.is_empty or not count):
            found = await self._names_after("" if after is None else after[0], wanted, limit + 1)
            total = len(self._machine.state.jobs) if wanted.is_empty else None
        else:
            found, matching = await self._smallest(wanted, sort, after, limit + 1)
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
            if number % VIEWS_SLICE == VIEWS_SLICE - 1:
                await asyncio.sleep(0)
        return Page(items, None, total)

    async def _names_after(self, after: str, wanted: JobFilter, limit: int) -> list[tuple[Any, ...]]:
        """The keys of the first matching jobs behind a name; no name is empty."""
        found: list[tuple[Any, ...]] = []
        while len(found) < limit:
            while not self._is_complete or len(self._new_names) > NEW_AT_ONCE:
                await (self._order_new() if self._is_complete else self._complete())
            jobs, names = self._machine.state.jobs, self._sorted_names()
            position = bisect.bisect_right(names, after)
            chunk = names[position : position + SLICE]
            for name in chunk:
                job = None if name == after else jobs.get(name)
                after = name
                if job is not None and self._matches(job, wanted):
                    found.append((name,))
            if len(chunk) < SLICE:
                break
            await asyncio.sleep(0)
        return found[:limit]

    async def _smallest(
        self, wanted: JobFilter, sort: str, after: tuple[Any, ...] | None, limit: int
    ) -> tuple[list[tuple[Any, ...]], int]:
        """The first keys behind `after` of the jobs that match, and how many match in all."""
        best: list[tuple[Any, ...]] = []
        matching = 0
        jobs = self._machine.state.jobs
        names = list(jobs)
        for start in range(0, len(names), SLICE):
            for name in names[start : start + SLICE]:
                job = jobs.get(name)
                if job is not None and self._matches(job, wanted):
                    matching += 1
                    key = self._key(job, sort)
                    if after is None or key > after:
                        best.append(key)
            best = heapq.nsmallest(limit, best)
            await asyncio.sleep(0)
        return best, matching

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

    def _take_names(self) -> None:
        """A job that is new has changed since; its id does not tell, since a restore takes ids of its chunks' entries.

        One that stands at the end and has only changed comes twice.
        """
        jobs, new = self._machine.state.jobs, self._new_names
        for name in reversed(jobs):
            if jobs[name].revision <= self._names_through:
                break
            new.append(name)
        self._names_through = self._machine.state.index
        if len(new) > 2 * len(jobs) + COMPACT_FROM:  # nobody has asked for long
            self._new_names = [name for name in dict.fromkeys(new) if name in jobs]

    async def _order_new(self) -> None:
        """Take in many new names, in slices; what comes meanwhile stays new."""
        async with self._ordering:
            new, count = self._new_names, len(self._new_names)
            ordered = await _sorted(new[:count])
            if self._new_names is new:
                self._names = self._names + ordered
                self._names.sort()  # two runs in order: linear
                del new[:count]

    def _sorted_names(self) -> list[str]:
        """All names in order; some perhaps of jobs that are gone, some perhaps twice (made anew)."""
        if self._new_names:
            self._names = self._names + sorted(self._new_names)
            self._names.sort()  # two runs in order: linear
            self._new_names = []
        jobs = self._machine.state.jobs
        if len(self._names) > 2 * len(jobs) + COMPACT_FROM:
            self._names = [name for name in dict.fromkeys(self._names) if name in jobs]
        return self._names

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
        matching = await self._count(wanted) if count and wanted != RunFilter() else None
        if not self._is_complete:
            await self._complete()
        runs = self._machine.state.runs
        total = len(runs) if wanted == RunFilter() else matching
        page = _Rendering(limit, render)
        position = len(self._run_ids) if after is None else bisect.bisect_right(self._run_indexes, -after[0])
        turn = 0  # what this turn of the loop has done so far
        while position > 0:
            position -= 1
            turn += 1
            run = runs.get(self._run_ids[position])
            if run is not None and (after is None or newest_first(run) > after) and _wanted(run, wanted):
                if page.is_full:
                    return page.result("runs", total)
                page.add(run)
                turn += SLICE // VIEWS_SLICE
            if turn >= SLICE:
                turn = 0
                known, log_index = self._run_ids, self._run_indexes[position]
                await asyncio.sleep(0)
                if known is not self._run_ids:  # swept or replaced meanwhile: find the place again
                    if not self._is_complete:
                        await self._complete()
                    runs = self._machine.state.runs
                    position = bisect.bisect_right(self._run_indexes, log_index)
                    after = page.last or after
        return page.result(None, total)

    async def _count(self, wanted: RunFilter) -> int:
        """How many rows match."""
        runs, found = self._machine.state.runs, 0
        for number, run_id in enumerate(list(runs), start=1):
            run = runs.get(run_id)
            found += run is not None and _wanted(run, wanted)
            if not number % SLICE:
                await asyncio.sleep(0)
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
        for start in range(0, len(ids), SLICE):
            if start:
                await asyncio.sleep(0)
            rows = (state.runs.get(run_id) for run_id in ids[start : start + SLICE])
            keys = [newest_first(run) for run in rows if run is not None and _wanted(run, wanted)]
            matching += len(keys)
            best = heapq.nsmallest(limit + 1, [*best, *(key for key in keys if after is None or key > after)])
        total = len(ids) if wanted == RunFilter() else matching if count else None
        page = _Rendering(limit, render)
        for number, key in enumerate(best):
            run = state.runs.get(key[2])
            if run is None:
                continue
            if page.is_full:
                return page.result("runs", total)
            page.add(run)
            if number % VIEWS_SLICE == VIEWS_SLICE - 1:
                await asyncio.sleep(0)
        return page.result(None, total)

    async def run_counts(self) -> dict[str, int]:
        """How many rows there are of each state."""
        counts: dict[str, int] = {}
        runs = self._machine.state.runs
        for number, run_id in enumerate(list(runs), start=1):
            run = runs.get(run_id)
            if run is not None:
                counts[run.state] = counts.get(run.state, 0) + 1
            if not number % SLICE:
                await asyncio.sleep(0)
        return counts

    def _take_runs(self) -> None:
        runs = self._machine.state.runs
        fresh: list[Run] = []
        for run_id in reversed(runs):
            run = runs[run_id]
            if run.log_index <= self._runs_through:
                break
            run.id = run_id  # the one that is kept anyway
            fresh.append(run)
        if fresh:
            self._runs_through = fresh[0].log_index
        fresh.sort(key=newest_first, reverse=True)
        for run in fresh:
            self._run_ids.append(run.id)
            self._run_indexes.append(run.log_index)
            if run.cause in COUNTED_CAUSES and run.state != SKIPPED and run.part is None:
                self.fires += 1
        if len(self._run_ids) > 2 * len(runs) + COMPACT_FROM:
            kept = [place for place, run_id in enumerate(self._run_ids) if run_id in runs]
            self._run_indexes = array("q", (self._run_indexes[place] for place in kept))
            self._run_ids = [self._run_ids[place] for place in kept]


async def _sorted(names: list[str]) -> list[str]:
    """Names in order: parted between evenly drawn ones, then part by part."""
    marks = sorted(names[SLICE::SLICE])
    parts: list[list[str]] = [[] for _ in range(len(marks) + 1)]
    for start in range(0, len(names), SLICE):
        for name in names[start : start + SLICE]:
            parts[bisect.bisect_left(marks, name)].append(name)
        await asyncio.sleep(0)
    ordered: list[str] = []
    for part in parts:
        ordered += sorted(part)
        await asyncio.sleep(0)
    return ordered


async def _in_order(runs: Rows, through: int) -> tuple[list[str], array[int]]:
    """Ids and log indexes of rows of entries up to `through`, oldest first; the state has them entry by entry."""
    run_ids: list[str] = []
    run_indexes = array("q")
    part: list[tuple[tuple[int, int, str], str]] = []  # rows of whole entries, with their keys

    def take() -> None:
        part.sort(reverse=True)
        run_ids.extend(run_id for _, run_id in part)
        run_indexes.extend(-key[0] for key, _ in part)
        part.clear()

    for number, run_id in enumerate(list(runs), start=1):
        run = runs.get(run_id)
        if run is not None:
            if run.log_index > through:
                break
            if len(part) >= SLICE and run.log_index != -part[-1][0][0]:
                take()
            part.append((newest_first(run), run_id))
        if not number % SLICE:
            await asyncio.sleep(0)
    take()
    return run_ids, run_indexes


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
