"""Lists of a node whose state came out of a snapshot: the same pages as before, built in slices, also in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from raftcron.clock import SystemClock
from raftcron.core.apply import restore
from raftcron.core.archive import JobRow
from raftcron.core.commands import Decide, Decision, DeleteJob, Fire, Place, Restore, Stage, Trigger
from raftcron.core.rows import newest_first
from raftcron.runtime import order as order_room
from raftcron.runtime.listing import JobFilter, Listing, RunFilter
from raftcron.runtime.machine import Machine
from raftcron.runtime.order import SLICE
from tests.unit.machine import Machine as Hand
from tests.unit.machine import cluster
from tests.unit.restored import new_machine

LIMIT = 3


def applied(hand: Hand, machine: Machine) -> Machine:
    """The machine, up to the end of the log."""
    for index in range(machine.state.index, len(hand.log)):
        machine.apply(index + 1, hand.log[index])
    machine.applied(len(hand.log))
    return machine


def replace(machine: Machine, whole: Machine) -> None:
    restoring = machine.restoring()
    for block in whole.snapshot():
        restoring.feed(block)
    restoring.install()


def nothing() -> None:
    """What happens between two pages, as a rule."""


async def names(listing: Listing, sort: str = "name", meanwhile: Callable[[], None] = nothing) -> list[str]:
    """All jobs, page by page; `meanwhile` happens after each page but the last."""
    found: list[str] = []
    cursor = None
    while True:
        page = await listing.jobs(JobFilter(), sort, LIMIT, cursor, lambda job: job.name)
        found += map(msgspec.json.decode, page.items)
        cursor = page.next_cursor
        if cursor is None:
            return found
        meanwhile()


async def ids(listing: Listing, job: str | None = None) -> list[str]:
    """All rows, or those of a job, page by page."""
    found: list[str] = []
    cursor = None
    while True:
        page = await listing.runs(RunFilter(job=job), LIMIT, cursor, lambda run: run.id)
        found += map(msgspec.json.decode, page.items)
        cursor = page.next_cursor
        if cursor is None:
            return found


def busy(jobs: int) -> Hand:
    """Jobs that were made in no order of their names, with rows that one entry has made in no order of their times."""
    hand = cluster()
    for number in range(jobs):
        hand.put(f"job-{(number * 7) % jobs:05}", overlap={"policy": "allow"})
    decisions = [
        Decision(job.uid, job.revision, 20_000, [Fire(at, at) for at in (10_000 - number % 100, 20_000)])
        for number, job in enumerate(hand.state.jobs.values())
    ]
    assert hand.done(Decide(Place("n1", 1), decisions), at=20_000).count == jobs
    return hand


def rows(hand: Hand, job: str | None = None) -> list[str]:
    """The ids of all rows, or of those of a job, newest first."""
    return [run.id for run in sorted(hand.state.runs.values(), key=newest_first) if job in (None, run.job)]


async def test_a_node_that_was_restored_lists_what_it_listed_before() -> None:
    """Jobs in every order and rows, with what came by the snapshot and what came after it."""
    hand = busy(10)
    whole, other = new_machine(), new_machine()
    here, there = Listing(whole, SystemClock()), Listing(other, SystemClock())
    replace(other, applied(hand, whole))
    for _ in range(2):
        hand.put("job-00003a")
        hand.done(DeleteJob("job-00004", [], hand.state.jobs["job-00004"].revision))
        hand.put("job-00004")
        hand.done(Trigger("job-00004", None))
        applied(hand, whole)
        applied(hand, other)
        for sort in ("name", "next_fire_at", "updated_at"):
            assert await names(there, sort) == await names(here, sort)
        assert await names(there) == sorted(hand.state.jobs)
        assert await ids(there) == await ids(here) == rows(hand)
        assert await ids(there, "job-00000") == rows(hand, "job-00000")
        assert await there.run_counts() == await here.run_counts()


async def test_what_a_restore_brought_is_listed_also_where_a_job_was_made_between_its_chunks() -> None:
    """The ids of restored jobs are of their chunks' entries, before that of the job."""
    hand = cluster()
    machine = applied(hand, new_machine())
    listing = Listing(machine, SystemClock())
    hand.put("between")
    stored = hand.state.jobs["between"].definition
    hand.done(DeleteJob("between", [], hand.state.jobs["between"].revision))
    chunks = [msgspec.msgpack.encode([JobRow(name, stored)]) for name in ("first", "second", "third")]
    for number, rows in enumerate(chunks):
        hand.done(Stage("staging", number, "jobs", rows))
        if number == 1:
            hand.put("between")
            applied(hand, machine)
    hand.done(Restore("staging", len(chunks), restore.digest_of(chunks), 0, *restore.seen(hand.state), [], None))
    applied(hand, machine)
    assert await names(listing) == sorted(hand.state.jobs) == ["first", "second", "third"]


async def test_a_list_goes_on_when_a_snapshot_comes_between_two_pages() -> None:
    """A cursor is a key, so it means the same in the state that comes."""
    hand = busy(10)
    lagging = applied(hand, new_machine())
    listing = Listing(lagging, SystemClock())
    hand.put("job-00000a")
    hand.put("job-00009a")
    ahead = applied(hand, new_machine())
    found = await names(listing, meanwhile=lambda: replace(lagging, ahead))
    assert found == sorted([*(f"job-{number:05}" for number in range(10)), "job-00009a"])


async def test_a_page_of_jobs_that_is_being_made_when_a_snapshot_comes_is_whole() -> None:
    """Its search goes on in the state that has come, from where it was."""
    hand = busy(2 * SLICE)
    lagging = applied(hand, new_machine())
    listing = Listing(lagging, SystemClock())
    await first_names(listing)
    last = f"job-{2 * SLICE - 1:05}"
    looking = asyncio.ensure_future(listing.jobs(JobFilter(text=last), "name", LIMIT, None, lambda job: job.name))
    await asyncio.sleep(0)
    hand.put("further")
    replace(lagging, applied(hand, new_machine()))
    assert not looking.done()
    assert (await looking).items == [f'"{last}"'.encode()]


async def test_a_page_of_rows_that_is_being_made_when_a_snapshot_comes_is_whole() -> None:
    """Also where one entry has made more rows than the loop looks at in one turn."""
    hand = busy(2 * SLICE)
    lagging = applied(hand, new_machine())
    listing = Listing(lagging, SystemClock())
    await first_names(listing)
    job = next(iter(hand.state.jobs))
    looking = asyncio.ensure_future(listing.runs(RunFilter(job=job), LIMIT, None, lambda run: run.id))
    await asyncio.sleep(0)
    hand.put("further")
    replace(lagging, applied(hand, new_machine()))
    assert not looking.done()
    assert (await looking).items == [f'"{run_id}"'.encode() for run_id in rows(hand, job)]
    assert (await listing.runs(RunFilter(), 1_000, None, lambda run: run.id)).items == [
        f'"{run_id}"'.encode() for run_id in rows(hand)[:1_000]
    ]


async def test_a_restored_list_is_put_in_order_in_slices_and_once() -> None:
    """The loop gets its turns meanwhile; whoever asks waits for the same work, which a further snapshot makes stale."""
    hand = busy(5 * SLICE)
    other = new_machine()
    listing = Listing(other, SystemClock())
    replace(other, applied(hand, new_machine()))
    hand.put("a-job")
    ahead = applied(hand, new_machine())
    asked = [asyncio.ensure_future(first_names(listing)) for _ in range(3)]
    for _ in range(8):
        await asyncio.sleep(0)
    assert not any(one.done() for one in asked)
    replace(other, ahead)
    assert await asyncio.gather(*asked) == [["a-job", "job-00000", "job-00001"]] * 3


@pytest.mark.parametrize("comes", ["nothing", "a job", "a snapshot"])
async def test_many_new_names_are_put_in_order_in_slices(monkeypatch: pytest.MonkeyPatch, comes: str) -> None:
    """What comes meanwhile is in the list too, once."""
    monkeypatch.setattr(order_room, "NEW_AT_ONCE", SLICE)
    hand = busy(3 * SLICE)
    node = new_machine()
    listing = Listing(node, SystemClock())
    applied(hand, node)
    asked = [asyncio.ensure_future(first_names(listing)) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(one.done() for one in asked)
    if comes == "a job":
        hand.put("a-job")
        applied(hand, node)
    elif comes == "a snapshot":
        hand.put("a-job")
        replace(node, applied(hand, new_machine()))
    expected = sorted(hand.state.jobs)
    assert await asyncio.gather(*asked) == [expected[:LIMIT]] * 3
    page = await listing.jobs(JobFilter(), "name", 10 * SLICE, None, lambda job: job.name)
    assert [msgspec.json.decode(item) for item in page.items] == expected


async def first_names(listing: Listing) -> list[Any]:
    page = await listing.jobs(JobFilter(), "name", LIMIT, None, lambda job: job.name)
    return [msgspec.json.decode(item) for item in page.items]


async def test_fires_counts_what_entries_have_brought() -> None:
    """A snapshot is no fire, and what follows it is counted as ever."""
    hand = cluster()
    job = hand.put()
    hand.fire(job, 2_000)
    whole, other = applied(hand, new_machine()), new_machine()
    listing = Listing(other, SystemClock())
    replace(other, whole)
    assert listing.fires == 0
    hand.finish(hand.state.runs[f"{job.uid:x}-2000"])
    hand.fire(job, 3_000)
    applied(hand, other)
    assert listing.fires == 1
