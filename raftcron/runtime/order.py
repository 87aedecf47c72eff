"""The names of jobs in order and the rows oldest first, kept beside the state, for whoever makes pages of them.

Dictionaries of the state keep the order of the log, so what is new stands at their ends, and what is gone is passed
over.  What was there before (a snapshot) is put in order when somebody asks, and so are the names once most are gone.
No step of it holds the loop, however much there is.
"""

from __future__ import annotations

import asyncio
import bisect
from array import array
from collections.abc import Iterable

from raftcron.clock import Clock
from raftcron.core.model import COUNTED_CAUSES, SKIPPED, Run
from raftcron.core.rows import Rows, newest_first
from raftcron.runtime.machine import Machine

SLICE = 500  # records looked at in one turn of the loop, some microseconds each: about 2 ms
SLICE_SECONDS = 0.003  # and a turn ends after this, since records may be long
NEW_AT_ONCE = 5_000  # names that are put in order in one turn: some 2 ms
COMPACT_FROM = 1_024  # dead places that are not worth a sweep
LOOKS_A_ROW = 4  # places that a sweep looks at for each row that comes: it ends before a third as many have come


class Turns:
    """When the loop gets its turn: after so many records or so much time, whichever comes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._records = 0
        self._until = self._clock.monotonic() + SLICE_SECONDS

    def is_over(self, records: int = 1) -> bool:
        """Whether it is time for `next`, now that so many records more were looked at."""
        self._records += records
        return self._records >= SLICE or self._clock.monotonic() >= self._until

    async def next(self) -> None:
        await asyncio.sleep(0)
        self._begin()


class Order:
    """The order of one node's jobs and rows; `fires` counts scheduled times that became runs by entries, not by
    snapshots, in this process's life."""

    _is_named: bool  # all names that were there before are taken in
    _names: list[str]  # in order
    _new_names: list[str]  # as they came
    _names_through: int | None  # those of jobs that later entries made are taken in; None: none are
    row_ids: list[str]  # oldest first; some perhaps of rows that are gone
    row_indexes: array[int]  # log indexes of the same
    _has_all_rows: bool  # also those that were there before
    _begun_at: int  # rows of later entries are taken in as they come
    _rows_through: int  # so far they are
    _sweep: _Sweep | None

    def __init__(self, machine: Machine, clock: Clock) -> None:
        self._machine = machine
        self._clock = clock
        self.fires = 0
        self._ordering = asyncio.Lock()
        machine.observe(self)
        self.state_replaced()

    def state_changed(self, runs: Iterable[str]) -> None:
        """Take in what is new: it stands at the ends of the state's dictionaries."""
        self._take_names()
        self._take_rows()

    def state_replaced(self) -> None:
        """Begin anew: what stands in the state now is put in order when somebody asks for it."""
        state = self._machine.state
        self._forget_names()
        if not state.jobs:
            self._is_named, self._names_through = True, state.index
        self.row_ids, self.row_indexes, self._sweep = [], array("q"), None
        self._begun_at = self._rows_through = state.index
        self._has_all_rows = not state.runs

    # ---- names

    async def names(self) -> list[str]:
        """All names in order, in a list that stays as it is; some perhaps of jobs that are gone, some perhaps twice.

        Those that come meanwhile are left out where they come faster than they are put in order.
        """
        if not self._is_named or len(self._new_names) > NEW_AT_ONCE:
            async with self._ordering:
                if self._is_named and len(self._new_names) > NEW_AT_ONCE:
                    await self._order_new()
                while not self._is_named:
                    await self._order_all()
        if 0 < len(self._new_names) <= NEW_AT_ONCE:
            self._names = self._names + sorted(self._new_names)
            self._names.sort()  # two runs in order: linear
            self._new_names = []
        return self._names

    def _take_names(self) -> None:
        """A job that is new has changed since; its id does not tell, since a restore takes ids of its chunks' entries.

        One that stands at the end and has only changed comes twice.
        """
        if self._names_through is None:
            return
        jobs, new = self._machine.state.jobs, self._new_names
        for name in reversed(jobs):
            if jobs[name].revision <= self._names_through:
                break
            new.append(name)
        self._names_through = self._machine.state.index
        if len(self._names) + len(new) > 2 * len(jobs) + COMPACT_FROM:
            self._forget_names()

    def _forget_names(self) -> None:
        """Most are gone, or nobody has asked for long: whoever asks next has all put in order that are there then."""
        self._is_named, self._names, self._new_names, self._names_through = False, [], [], None

    async def _order_all(self) -> None:
        """Take in all that are there, in slices: at a million it is seconds of work.  What comes meanwhile is new."""
        new: list[str] = []
        self._new_names = new
        self._names_through = self._machine.state.index
        ordered = await _sorted(list(self._machine.state.jobs))
        if self._new_names is new:  # neither forgotten nor replaced
            self._names, self._is_named = ordered, True

    async def _order_new(self) -> None:
        """Take in many new names, in slices; what comes meanwhile stays new."""
        new, count = self._new_names, len(self._new_names)
        merged = await _merged(self._names, await _sorted(new[:count]))
        if self._new_names is new:
            self._names = merged
            del new[:count]

    # ---- rows

    async def complete_rows(self) -> None:
        """Take in the rows that were there before as well, in slices."""
        while not self._has_all_rows:
            async with self._ordering:
                await self._order_rows()

    async def _order_rows(self) -> None:
        state = self._machine.state
        if not self._has_all_rows:
            row_ids, row_indexes = await _oldest_first(state.runs, self._begun_at, Turns(self._clock))
            if state is self._machine.state:
                self.row_ids = row_ids + self.row_ids
                self.row_indexes = row_indexes + self.row_indexes
                self._sweep = None
                self._has_all_rows = True

    def _take_rows(self) -> None:
        rows = self._machine.state.runs
        fresh: list[Run] = []
        for run_id in reversed(rows):
            run = rows[run_id]
            if run.log_index <= self._rows_through:
                break
            run.id = run_id  # the one that is kept anyway
            fresh.append(run)
        if fresh:
            self._rows_through = fresh[0].log_index
        fresh.sort(key=newest_first, reverse=True)
        for run in fresh:
            self.row_ids.append(run.id)
            self.row_indexes.append(run.log_index)
            if run.cause in COUNTED_CAUSES and run.state != SKIPPED and run.part is None:
                self.fires += 1
        if self._sweep is None and len(self.row_ids) > 2 * len(rows) + COMPACT_FROM:
            self._sweep = _Sweep(self.row_ids, self.row_indexes)
        if self._sweep is not None and self._sweep.step(rows, SLICE + LOOKS_A_ROW * len(fresh)):
            self.row_ids, self.row_indexes = self._sweep.kept_ids, self._sweep.kept_indexes
            self._sweep = None


class _Sweep:
    """What is left of a list of rows that still grows at its end, found step by step."""

    def __init__(self, ids: list[str], indexes: array[int]) -> None:
        self.kept_ids: list[str] = []
        self.kept_indexes = array("q")
        self._ids = ids
        self._indexes = indexes
        self._looked = 0  # places

    def step(self, rows: Rows, count: int) -> bool:
        """Look at so many places more; whether all are looked at."""
        start, self._looked = self._looked, min(self._looked + count, len(self._ids))
        for place in range(start, self._looked):
            if self._ids[place] in rows:
                self.kept_ids.append(self._ids[place])
                self.kept_indexes.append(self._indexes[place])
        return self._looked == len(self._ids)


async def _sorted(names: list[str]) -> list[str]:
    """Names in order, slice by slice, and then two and two: no turn grows with how many there are, or how they lie."""
    parts: list[list[str]] = []
    for start in range(0, len(names), SLICE):
        parts.append(sorted(names[start : start + SLICE]))
        await asyncio.sleep(0)
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [await _merged(one, other) for one, other in pairs] + parts[len(parts) & ~1 :]
    return parts[0] if parts else []


async def _merged(one: list[str], other: list[str]) -> list[str]:
    """The names of two lists in order as one such list."""
    merged: list[str] = []
    begin = 0
    for start in range(0, len(one), SLICE):
        part = one[start : start + SLICE]
        end = bisect.bisect_right(other, part[-1], begin)
        part += other[begin:end]
        part.sort()  # two runs in order: linear
        merged += part
        begin = end
        await asyncio.sleep(0)
    merged += other[begin:]
    return merged


async def _oldest_first(rows: Rows, through: int, turns: Turns) -> tuple[list[str], array[int]]:
    """Ids and log indexes of rows of entries up to `through`, oldest first; the state has them entry by entry."""
    row_ids: list[str] = []
    row_indexes = array("q")
    part: list[tuple[tuple[int, int, str], str]] = []  # rows of whole entries, with their keys

    def take() -> None:
        part.sort(reverse=True)
        row_ids.extend(run_id for _, run_id in part)
        row_indexes.extend(-key[0] for key, _ in part)
        part.clear()

    for run_id in list(rows):
        run = rows.get(run_id)
        if run is not None:
            if run.log_index > through:
                break
            if len(part) >= SLICE and run.log_index != -part[-1][0][0]:
                take()
            part.append((newest_first(run), run_id))
        if turns.is_over():
            await turns.next()
    take()
    return row_ids, row_indexes
