"""GET /v1/jobs: filters, orders, pages, totals, and a loop that stays free at 100,000 jobs."""

from __future__ import annotations

import asyncio

import pytest

from raftcron.core import definition
from raftcron.core.codec import encode_entry
from raftcron.core.commands import Entry, PutJob
from raftcron.runtime.listing import SLICE, JobFilter
from tests.api.bench import NEVER, NOOP, Bench


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


async def test_lists_do_not_hold_the_loop(one: Bench) -> None:
    """The loop gets a turn after each slice of records, whatever is asked for; and the answer is right."""
    count = 10_000
    machine = one.n1.machine
    stored = [
        definition.canonical({"schedule": NEVER, "executor": NOOP, "labels": {"n": str(number)}})
        for number in range(100)
    ]
    for number in range(count):
        command = PutJob(f"job-{(number * 7919) % count:05}", stored[number % 100], 0)
        machine.apply(machine.state.index + 1, encode_entry(Entry(machine.epoch, 1_800_000_000_000, command)))
    machine.applied(machine.state.index)
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    cases = [
        (JobFilter(), count),
        (JobFilter(labels=(("n", "99"),)), count // 100),
        (JobFilter(text="JOB-09999"), 1),
        (JobFilter(state="paused"), 0),
    ]
    for sort in ("name", "next_fire_at", "updated_at"):
        for wanted, total in cases:
            turns = 0
            page = await one.n1.context.listing.jobs(wanted, sort, 1_000, None, lambda job: job.name, count=True)
            assert page.total == total
            assert len(page.items) == min(total, 1_000)
            looked = 1_000 if wanted.is_empty and sort == "name" else count
            assert turns >= looked // SLICE
    watching.cancel()
