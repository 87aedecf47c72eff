"""Lists of jobs and runs: filters, orders, pages, totals, and a loop that stays free at 100,000 of each."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest

from raftcron.clock import SystemClock
from raftcron.core import definition
from raftcron.core.codec import encode_entry
from raftcron.core.commands import ApplyJobs, Command, Decide, Decision, Done, Entry, Fire, Lead, Place, PutJob
from raftcron.core.model import Run
from raftcron.runtime.listing import SORTS, JobFilter, Listing, Page, RunFilter
from raftcron.runtime.machine import Machine
from raftcron.runtime.order import SLICE
from raftcron.runtime.views import job_view, run_view
from raftcron.testing.wall_time import WallTime
from tests.api.bench import NEVER, NOOP, Bench, BenchClock
from tests.turns import holds_the_loop, longest_turn


async def names(one: Bench, query: str = "", limit: int = 2) -> list[str]:
    """All names, page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = (await one.ask("GET", f"/v1/jobs?limit={limit}{query}{cursor}")).expect(200).json
        found += [job["name"] for job in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def test_filters(one: Bench) -> None:
    """label (all of them), state, and text in name or description in either case."""
    await one.put("b", labels={"team": "db", "x": "1"}, description="Nightly Dump")
    await one.put("a", labels={"team": "db"}, schedule="@manual")
    await one.put("c", labels={"team": "web"}, paused=True)
    await one.put("d", schedule="@at 2020-01-01T00:00:00Z", misfire={"window": "3650d"})
    state = one.n1.machine.state
    await one.fire("d", state.jobs["d"].decided_through + 1)
    assert await names(one) == ["a", "b", "c", "d"]
    assert await names(one, "&label=team=db") == ["a", "b"]
    assert await names(one, "&label=team=db&label=x=1") == ["b"]
    assert await names(one, "&label=team=") == []
    assert await names(one, "&state=active") == ["a", "b"]
    assert await names(one, "&state=paused") == ["c"]
    assert await names(one, "&state=ended") == ["d"]
    assert await names(one, "&q=dUMP") == ["b"]
    assert await names(one, "&q=C") == ["c"]
    assert await names(one, "&q=b&label=team=web") == []


async def test_orders(one: Bench) -> None:
    """By name, by next time (those without one last), by last change; pages follow the order."""
    await one.put("c", schedule="@every 1h")
    await one.put("a", schedule=NEVER)
    await one.put("b", schedule="@manual")
    one.clock.wall_offset_ms += 5
    await one.put("c", schedule="@every 1h", description="changed")
    for limit in (1, 2, 10):
        assert await names(one, "&sort=name", limit) == ["a", "b", "c"]
        assert await names(one, "&sort=next_fire_at", limit) == ["c", "a", "b"]
        assert await names(one, "&sort=updated_at", limit) == ["a", "b", "c"]


async def test_totals(one: Bench) -> None:
    """Exact without filters, else null unless asked for."""
    for name in ("a", "b", "c"):
        await one.put(name, labels={"odd": "no" if name == "b" else "yes"})
    assert (await one.ask("GET", "/v1/jobs?limit=1")).json["total"] == 3
    assert (await one.ask("GET", "/v1/jobs?limit=1&label=odd=yes")).json["total"] is None
    assert (await one.ask("GET", "/v1/jobs?limit=1&label=odd=yes&count=1")).json["total"] == 2


async def test_pages_stay_right_while_jobs_come_and_go(one: Bench) -> None:
    """A cursor is a key: what is made before it is not seen, what is deleted does not shift the rest."""
    for name in ("b", "d", "f", "h"):
        await one.put(name)
    first = (await one.ask("GET", "/v1/jobs?limit=2")).json
    assert [job["name"] for job in first["items"]] == ["b", "d"]
    await one.put("a")
    await one.put("e")
    await one.ask("DELETE", "/v1/jobs/d")
    await one.ask("DELETE", "/v1/jobs/f")
    rest = (await one.ask("GET", f"/v1/jobs?limit=9&cursor={first['next_cursor']}")).json
    assert [job["name"] for job in rest["items"]] == ["e", "h"]
    await one.put("d")
    assert await names(one) == ["a", "b", "d", "e", "h"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=-1", "?limit"),
        ("limit=many", "?limit"),
        ("limit=99999999999999999999", "?limit"),
        ("cursor=%00broken", "?cursor"),
        ("cursor=WyJuYW1lIiwxXQ", "?cursor"),
        ("sort=next_fire_at&cursor=WyJuYW1lIiwiYSJd", "?cursor"),
        ("sort=size", "?sort"),
        ("state=idle", "?state"),
        ("label=team", "?label"),
        ("count=maybe", "?count"),
        ("consistency=perhaps", "?consistency"),
        ("min_index=x", "?min_index"),
        ("lable=a=b", "?lable"),
    ],
)
async def test_parameters_are_judged_by_name(one: Bench, query: str, pointer: str) -> None:
    """422 that names the parameter."""
    assert (await one.ask("GET", f"/v1/jobs?{query}")).pointers(422, "invalid") == [pointer]


async def test_a_large_page_ends_early(one: Bench) -> None:
    """So that no answer grows without bound; the cursor goes on behind it."""
    executor = {"type": "http", "url": "http://127.0.0.1:9/", "body": "x" * 1_000_000}
    for number in range(11):
        (await one.put(f"j{number:02}", executor=executor)).expect(201)
    page = (await one.ask("GET", "/v1/jobs")).json
    assert 8 <= len(page["items"]) < 11
    assert await names(one, limit=1_000) == [f"j{number:02}" for number in range(11)]


COUNT = 100_000


class Crowd(NamedTuple):
    """A state with COUNT jobs and COUNT runs of them, and a list that has seen all of them come."""

    machine: Machine
    grown: Listing


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    """Made once, in some seconds; whoever uses it changes nothing."""
    machine = Machine("n1", WallTime(BenchClock()))
    grown = Listing(machine, SystemClock())

    def apply(command: Command) -> None:
        outcome = machine.apply(machine.state.index + 1, encode_entry(Entry(1, 1_800_000_000_000, command)))
        assert isinstance(outcome, Done), outcome
        machine.applied(machine.state.index)

    apply(Lead("n1", 1, 1, "0.1.0", "", ""))
    stored = [
        definition.canonical({"schedule": NEVER, "executor": NOOP, "labels": {"n": str(number)}})
        for number in range(100)
    ]
    for start in range(0, COUNT, SLICE):
        numbers = range(start, start + SLICE)
        apply(ApplyJobs([PutJob(f"job-{number * 7919 % COUNT:05}", stored[number % 100], 0) for number in numbers]))
    jobs = list(machine.state.jobs.values())
    for start in range(0, COUNT, SLICE):
        fires = [Decision(job.uid, job.revision, 1, [Fire(1, 1)]) for job in jobs[start : start + SLICE]]
        apply(Decide(Place("n1", 1), fires))
    assert len(machine.state.jobs) == len(machine.state.runs) == COUNT
    return Crowd(machine, grown)


@pytest.fixture(params=["grown", "restored"])
def new_listing(request: pytest.FixtureRequest, crowd: Crowd) -> Iterator[Callable[[], Listing]]:
    """Gives a list that has seen all come; or one, each time anew, that finds all there, as behind a snapshot."""
    gc.collect()
    gc.disable()  # what it would look through is what other tests have left; a node freezes what it has restored
    yield lambda: crowd.grown if request.param == "grown" else Listing(crowd.machine, SystemClock())
    gc.enable()


@pytest.mark.parametrize("sort", SORTS)
async def test_lists_of_jobs_do_not_hold_the_loop(crowd: Crowd, new_listing: Callable[[], Listing], sort: str) -> None:
    """Whatever is asked for of 100,000, for the first time and later; and the answer is right."""
    state, timeline = crowd.machine.state, crowd.machine.timeline
    for wanted, total in (
        (JobFilter(), COUNT),
        (JobFilter(labels=(("n", "99"),)), COUNT // 100),
        (JobFilter(text="JOB-09999"), 1),
        (JobFilter(state="paused"), 0),
    ):

        def ask(listing: Listing, wanted: JobFilter = wanted) -> Awaitable[Page]:
            return listing.jobs(wanted, sort, 1_000, None, lambda job: job_view(job, state, timeline), count=True)

        listing = new_listing()
        page, _, turns = await longest_turn(ask(listing))
        assert page.total == total
        assert len(page.items) == min(total, 1_000)
        looked = 1_000 if wanted.is_empty and sort == "name" else COUNT
        assert turns >= looked // SLICE
        assert not await holds_the_loop(lambda: ask(new_listing())), wanted
        assert not await holds_the_loop(partial(ask, listing)), wanted


@pytest.mark.parametrize(
    ("wanted", "total"),
    [
        (RunFilter(), COUNT),
        (RunFilter(state="running"), 0),
        (RunFilter(job="job-00001"), 1),
        (RunFilter(prefix="job-9"), COUNT // 10),
        (RunFilter(since=2), 0),
    ],
)
async def test_lists_of_runs_do_not_hold_the_loop(
    crowd: Crowd, new_listing: Callable[[], Listing], wanted: RunFilter, total: int
) -> None:
    """The same of 100,000 runs; also for the page behind the first."""
    listing = new_listing()

    def view(run: Run) -> dict[str, Any]:
        return run_view(run, crowd.machine.state)

    page, _, turns = await longest_turn(listing.runs(wanted, 1_000, None, view, count=True))
    assert page.total == total
    assert len(page.items) == min(total, 1_000)
    assert turns >= (1_000 if wanted == RunFilter() else COUNT) // SLICE
    assert not await holds_the_loop(lambda: new_listing().runs(wanted, 1_000, None, view, count=True))
    assert not await holds_the_loop(lambda: listing.runs(wanted, 1_000, None, view, count=True))
    if page.next_cursor is not None:
        behind = await listing.runs(wanted, 1_000, page.next_cursor, view)
        assert not set(behind.items) & set(page.items)
        assert len(behind.items) == 1_000
        assert not await holds_the_loop(lambda: listing.runs(wanted, 1_000, page.next_cursor, view))


@pytest.mark.parametrize(("path", "of_jobs"), [("/v1/jobs?sort=updated_at&", True), ("/v1/runs?", False)])
async def test_long_lists_are_given_page_by_page(one: Bench, crowd: Crowd, path: str, of_jobs: bool) -> None:
    """Over HTTP, too: as many as were asked for, and where to go on."""
    one.n1.context.machine.state, one.n1.context.machine.timeline = crowd.machine.state, crowd.machine.timeline
    one.n1.context.listing._order.state_replaced()
    seen: set[str] = set()
    cursor = ""
    for number in range(1, 4):
        page = (await one.ask("GET", f"{path}limit=1000&consistency=stale{cursor}")).expect(200).json
        seen |= {item["name" if of_jobs else "id"] for item in page["items"]}
        assert (len(seen), page["total"]) == (1_000 * number, COUNT)
        cursor = f"&cursor={page['next_cursor']}"
