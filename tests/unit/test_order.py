"""The order of names and rows beside the state: what is gone leaves in slices, and no page is wrong meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import thread_time
from typing import Any

import msgspec
import pytest

from raftcron.clock import SystemClock
from raftcron.core.commands import DeleteJob, Trigger
from raftcron.core.model import Job, Run
from raftcron.core.rows import newest_first
from raftcron.runtime import order as order_room
from raftcron.runtime.listing import JobFilter, Listing, Page, RunFilter
from raftcron.runtime.order import COMPACT_FROM, Order
from raftcron.runtime.views import job_view
from tests.turns import TRIES, holds_the_loop, longest_turn, turn_seconds
from tests.unit.machine import cluster
from tests.unit.restored import new_machine
from tests.unit.test_listing import applied, replace

MANY = 101_025


class Crowd:
    """A node whose state gets copies of one job and of one row of it, many at once, as if entries had made them."""

    def __init__(self) -> None:
        hand = cluster()
        hand.put("a")
        hand.done(Trigger("a", None))
        self.machine = applied(hand, new_machine())
        self.state = self.machine.state
        self.job = self.state.jobs["a"]
        self.row = next(iter(self.state.runs.values()))
        self.order = Order(self.machine, SystemClock())
        self.listing = Listing(self.machine, SystemClock())

    def step(self, change: Callable[[int], None]) -> float:
        """An entry that changes the state; the processor seconds that those who observe it took."""
        self.state.index += 1
        change(self.state.index)
        began = thread_time()
        self.machine.applied(self.state.index)
        return thread_time() - began

    def jobs_come(self, index: int) -> None:
        for number in range(MANY):
            name = f"job-{number * 7919 % MANY:06}"
            self.state.jobs[name] = msgspec.structs.replace(self.job, name=name, revision=index)

    def jobs_go(self, index: int) -> None:
        for name in [name for name in self.state.jobs if name != "a"]:
            del self.state.jobs[name]

    def rows_come(self, index: int) -> None:
        for number in range(MANY):
            run = msgspec.structs.replace(self.row, id=f"{number:x}-{index}", log_index=index)
            self.state.runs.put(run)

    def rows_go(self, index: int) -> None:
        for run_id in [run_id for run_id in self.state.runs if run_id != self.row.id]:
            self.state.runs.pop(run_id)

    def nothing(self, index: int) -> None:
        """An entry that changes neither."""


def name_of(job: Job) -> str:
    return job.name


@pytest.mark.parametrize("is_listed", [False, True])
async def test_names_that_came_and_went_do_not_hold_the_loop(is_listed: bool) -> None:
    """Neither who lists next nor the entry with which the last of 101,025 go, whether or not they were listed."""
    crowd = Crowd()

    def ask() -> Awaitable[Page]:
        return crowd.listing.jobs(JobFilter(), "name", 1_000, None, name_of)

    tries: list[float] = []  # turns, in bounds of one
    while len(tries) < TRIES and min(tries, default=1) >= 1:
        crowd.step(crowd.jobs_come)
        turns: list[float] = []
        if is_listed:
            page, longest, _ = await longest_turn(ask())
            assert (len(page.items), page.total) == (1_000, MANY + 1)
            turns.append(longest)
        turns.append(crowd.step(crowd.jobs_go))
        page, longest, _ = await longest_turn(ask())
        assert page.items == [b'"a"']
        tries.append(max(*turns, longest) / turn_seconds())
    assert min(tries) < 1


async def test_names_are_no_more_than_twice_those_of_jobs() -> None:
    """Also where nobody asks for long, and where one job is changed over and over."""
    crowd = Crowd()
    await crowd.order.names()
    for _ in range(3):
        crowd.step(crowd.jobs_come)
        crowd.step(crowd.jobs_go)
        assert len(crowd.order._names) + len(crowd.order._new_names) <= 2 + COMPACT_FROM
    for _ in range(3 * COMPACT_FROM):
        crowd.step(lambda index: setattr(crowd.job, "revision", index))
        assert len(crowd.order._names) + len(crowd.order._new_names) <= 2 + COMPACT_FROM
    assert await crowd.order.names() == ["a"]


async def test_rows_that_came_and_went_leave_step_by_step() -> None:
    """None of the entries after them holds the loop, and a page that is made meanwhile is right."""
    crowd = Crowd()
    longest: list[float] = []  # steps, in bounds of one
    while len(longest) < TRIES and min(longest, default=1) >= 1:
        await crowd.order.complete_rows()
        crowd.step(crowd.rows_come)
        assert len(crowd.order.row_ids) > MANY
        steps = [crowd.step(crowd.rows_go)]
        while len(crowd.order.row_ids) > COMPACT_FROM:
            assert len(steps) <= MANY // order_room.SLICE + 1
            steps.append(crowd.step(crowd.nothing))
            if len(steps) == 5:
                page = await crowd.listing.runs(RunFilter(), 10, None, lambda run: run.id)
                assert page.items == [f'"{crowd.row.id}"'.encode()]
        assert len(steps) > 10
        longest.append(max(steps) / turn_seconds())
    assert min(longest) < 1


async def test_a_sweep_ends_while_rows_come_and_go() -> None:
    """It looks at more places than come, so that the order stays within its bound."""
    crowd = Crowd()
    await crowd.order.complete_rows()
    for _ in range(40):
        ids = list(crowd.state.runs)[1:]

        def turn_over(index: int, ids: list[str] = ids) -> None:
            for number in range(2_000):
                run_id = f"{number:x}-{index}"
                crowd.state.runs.put(msgspec.structs.replace(crowd.row, id=run_id, log_index=index))
            for run_id in ids:
                crowd.state.runs.pop(run_id)

        crowd.step(turn_over)
        assert len(crowd.order.row_ids) <= 2 * (2 * 2_001 + COMPACT_FROM)
    page = await crowd.listing.runs(RunFilter(), 3_000, None, lambda run: run.id)
    expected = sorted(crowd.state.runs.values(), key=newest_first)
    assert [msgspec.json.decode(item) for item in page.items] == [run.id for run in expected]


@pytest.mark.parametrize(
    "wanted", [JobFilter(text="nowhere"), JobFilter(labels=(("a", "b"),)), JobFilter()], ids=["text", "label", "all"]
)
@pytest.mark.parametrize("sort", ["name", "updated_at"])
async def test_long_definitions_do_not_hold_the_loop(wanted: JobFilter, sort: str) -> None:
    """Looking into them takes a thousand times as long as into short ones, and so does showing them."""
    hand = cluster()
    long = hand.put("long", executor={"type": "http", "url": "http://127.0.0.1/", "body": "\n" * 500_000})
    machine = applied(hand, new_machine())
    for number in range(400):
        name = f"long-{number:03}"
        machine.state.jobs[name] = msgspec.structs.replace(long, name=name)
    listing = Listing(machine, SystemClock())

    def ask() -> Awaitable[Page]:
        return listing.jobs(wanted, sort, 5, None, lambda job: job_view(job, machine.state, machine.timeline))

    assert len((await ask()).items) == (5 if wanted.is_empty else 0)
    assert not await holds_the_loop(ask)


@pytest.mark.parametrize("of_job", [False, True])
async def test_long_rows_do_not_hold_the_loop(of_job: bool) -> None:
    """Of all jobs, and of one: rows with as much as a run may be given."""
    hand = cluster()
    hand.put("a", overlap={"policy": "allow"})
    for number in range(300):
        hand.done(Trigger("a", None, args=b'"%03d%s"' % (number, b"x" * 60_000)))
    machine = applied(hand, new_machine())
    listing = Listing(machine, SystemClock())

    def view(run: Run) -> dict[str, Any]:
        return {"id": run.id, "args": msgspec.Raw(run.args or b"null")}

    def ask() -> Awaitable[Page]:
        if of_job:
            return listing.runs_of(machine.state.jobs["a"], RunFilter(), 300, None, view)
        return listing.runs(RunFilter(), 300, None, view)

    assert 100 < len((await ask()).items) <= 300
    assert not await holds_the_loop(ask)


@pytest.mark.parametrize("seed", range(6))
async def test_pages_are_right_while_names_are_put_in_order(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A job that stands all the while is in the list, once and in its place; one that never stood is not."""
    monkeypatch.setattr(order_room, "SLICE", 3)
    monkeypatch.setattr(order_room, "NEW_AT_ONCE", 4)
    monkeypatch.setattr(order_room, "COMPACT_FROM", 5)
    chance, hand, machine, other = random.Random(seed), cluster(), new_machine(), new_machine()
    listing = Listing(machine, SystemClock())
    stood: set[str] = set()  # all the while that a list was made
    ever: set[str] = set()

    def change() -> None:
        for _ in range(chance.choice((0, 0, 0, 1, 12))):
            name = f"job-{chance.randrange(40):02}"
            if name in hand.state.jobs and chance.random() < 0.7:
                hand.done(DeleteJob(name, [], hand.state.jobs[name].revision))
                stood.discard(name)
            else:
                hand.put(name)
                ever.add(name)
        if chance.random() < 0.02:
            replace(machine, applied(hand, other))
        applied(hand, machine)

    async def changes() -> None:
        while True:
            await asyncio.sleep(0)
            change()

    async def listed() -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            page = await listing.jobs(JobFilter(), "name", 4, cursor, name_of)
            found += map(msgspec.json.decode, page.items)
            cursor = page.next_cursor
            if cursor is None:
                return found

    changing = asyncio.create_task(changes())
    for _ in range(12):
        await asyncio.sleep(0)
        stood.clear()
        stood.update(hand.state.jobs)
        ever.clear()
        ever.update(hand.state.jobs)
        found = await listed()
        assert found == sorted(set(found))
        assert stood <= set(found) <= ever
        assert not changing.done(), "it goes on until it is told to end"
    changing.cancel()
