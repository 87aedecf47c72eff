"""Runs: started by hand, read one by one and in pages, cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftcron.core.instant import rfc3339
from tests.api.bench import Bench

FIELDS = (  # noqa: SIM905 - words are easier to compare with the page
    "id job scheduled_time due_at cause state reason attempt fencing_token node queued_at started_at finished_at "
    "exit_code status_code error error_kind output_tail lateness_ms log_index epoch missed_count missed_first "
    "previous_time blocked_by replaced_by retry_of late_outcome parent children parts shard_index shard_count "
    "answer_by heard_at args attempts finished_index transitions waits_for"
).split()


async def test_a_run_by_hand(one: Bench) -> None:
    """202 with the run, which has started already on a leader with room; then its end is on record."""
    await one.put("a")
    answer = (await one.ask("POST", "/v1/jobs/a/runs", {"args": {"n": [1, None, "\u00e4"]}})).expect(202)
    run = answer.json["run"]
    assert set(run) == set(FIELDS)
    assert (run["cause"], run["state"], run["node"], run["args"]) == (
        "manual",
        "running",
        "n1",
        {"n": [1, None, "\u00e4"]},
    )
    assert answer.headers["Location"] == f"/v1/runs/{run['id']}"
    assert answer.index == run["log_index"]
    await one.finish(run["id"], state="failed", exit_code=3, error="exit 3", error_kind="exit", output_tail=b"caf\xe9")
    ended = (await one.ask("GET", f"/v1/runs/{run['id']}")).expect(200).json
    assert (ended["state"], ended["exit_code"], ended["error_kind"], ended["output_tail"]) == (
        "failed",
        3,
        "exit",
        "caf\ufffd",
    )
    assert ended["lateness_ms"] == 0
    assert [attempt["state"] for attempt in ended["attempts"]] == ["failed"]
    job = (await one.ask("GET", "/v1/jobs/a")).json
    assert (job["last_run"]["id"], job["last_run"]["state"], job["stats"]["failed"]) == (run["id"], "failed", 1)


async def test_overlap_judges_a_run_by_hand(one: Bench) -> None:
    """Skipped while another is active, unless the request overrides it."""
    await one.put("a")
    first = (await one.ask("POST", "/v1/jobs/a/runs")).json["run"]
    second = (await one.ask("POST", "/v1/jobs/a/runs", {})).expect(202).json["run"]
    assert (second["state"], second["reason"], second["blocked_by"]) == ("skipped", "overlap", first["id"])
    third = (await one.ask("POST", "/v1/jobs/a/runs", {"overlap": "allow"})).expect(202).json["run"]
    assert third["state"] == "running"


async def test_what_is_asked_of_a_run_by_hand(one: Bench) -> None:
    """Unknown fields, other policies and large args are refused."""
    await one.put("a")
    assert (await one.ask("POST", "/v1/jobs/a/runs", {"arg": 1})).pointers(422, "invalid") == ["/arg"]
    assert (await one.ask("POST", "/v1/jobs/a/runs", {"overlap": "skip"})).pointers(422, "invalid") == ["/overlap"]
    (await one.ask("POST", "/v1/jobs/a/runs", [])).problem(422, "invalid")
    (await one.ask("POST", "/v1/jobs/a/runs", {"args": "x" * 70_000})).problem(413, "too_large")
    (await one.ask("POST", "/v1/jobs/nobody/runs")).problem(404, "not_found")


async def test_cancel(one: Bench) -> None:
    """What runs is cancelling until its worker says more; what has ended is a conflict."""
    await one.put("a")
    run = (await one.ask("POST", "/v1/jobs/a/runs")).json["run"]
    assert (await one.ask("POST", f"/v1/runs/{run['id']}/cancel")).expect(200).json["state"] == "cancelling"
    await one.finish(run["id"], state="cancelled")
    (await one.ask("POST", f"/v1/runs/{run['id']}/cancel")).problem(409, "conflict")
    (await one.ask("POST", "/v1/runs/nobody/cancel")).problem(404, "not_found")


async def pages(one: Bench, path: str, limit: int) -> list[Any]:
    """All items, page by page."""
    found: list[Any] = []
    cursor = ""
    while True:
        joint = "&" if "?" in path else "?"
        page = (await one.ask("GET", f"{path}{joint}limit={limit}{cursor}")).expect(200).json
        assert len(page["items"]) <= limit
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_history_comes_newest_first_in_pages(one: Bench, limit: int) -> None:
    """Of one job and of all; each row once, whatever the page's size, several of one entry too."""
    every = {"schedule": "* * * * * *", "overlap": {"policy": "allow"}}
    await one.put("a", **every)
    await one.put("b", **every)
    start = -(-one.n1.context.time.now_ms() // 1000) * 1000
    for step in range(3):
        base = start + step * 3_000
        await one.fire("a", base + 1_000, base + 2_000)
        await one.fire("b", base + 1_000, base + 3_000)
    of_a = await pages(one, "/v1/jobs/a/runs", limit)
    expected = [start + step * 3_000 + more for step in (2, 1, 0) for more in (2_000, 1_000)]
    assert [row["scheduled_time"] for row in of_a] == [rfc3339(at) for at in expected]
    everything = await pages(one, "/v1/runs", limit)
    assert len(everything) == 12
    assert [row["job"] for row in everything] == ["b", "b", "a", "a"] * 3
    assert [row["log_index"] for row in everything] == sorted((row["log_index"] for row in everything), reverse=True)
    assert [row["id"] for row in everything if row["job"] == "a"] == [row["id"] for row in of_a]
    assert await pages(one, "/v1/runs?job=b", limit) == [row for row in everything if row["job"] == "b"]
    since = rfc3339(start + 7_000)
    assert len(await pages(one, f"/v1/runs?since={since}", limit)) == 4
    await one.finish(of_a[0]["id"])
    assert [row["id"] for row in await pages(one, "/v1/runs?state=succeeded", limit)] == [of_a[0]["id"]]
    assert len(await pages(one, "/v1/jobs/a/runs?state=running", limit)) == 5


async def test_pages_stay_right_while_runs_come_and_go(one: Bench) -> None:
    """What is new does not shift the rest, what was dropped is passed over."""
    await one.put("a", schedule="* * * * * *", overlap={"policy": "allow"}, history={"runs": 4})
    start = -(-one.n1.context.time.now_ms() // 1000) * 1000
    for step in range(1, 5):
        await one.fire("a", start + step * 1_000)
    first = (await one.ask("GET", "/v1/runs?limit=2")).json
    for row in first["items"]:
        await one.finish(row["id"])
    await one.fire("a", start + 9_000)
    second = (await one.ask("GET", f"/v1/runs?limit=2&cursor={first['next_cursor']}")).json
    seen = [row["scheduled_time"] for row in first["items"] + second["items"]]
    assert seen == [rfc3339(start + step * 1_000) for step in (4, 3, 2, 1)]
    assert second["next_cursor"] is None


async def test_totals(one: Bench) -> None:
    """Exact without filters, null with them."""
    await one.put("a")
    for _ in range(3):
        await one.ask("POST", "/v1/jobs/a/runs", {"overlap": "allow"})
    assert (await one.ask("GET", "/v1/runs?limit=1")).json["total"] == 3
    assert (await one.ask("GET", "/v1/jobs/a/runs?limit=1")).json["total"] == 3
    assert (await one.ask("GET", "/v1/runs?job=a")).json["total"] is None


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/v1/runs?state=done", "?state"),
        ("/v1/runs?since=yesterday", "?since"),
        ("/v1/runs?limit=0", "?limit"),
        ("/v1/runs?limit=1001", "?limit"),
        ("/v1/runs?limit=1&limit=2", "?limit"),
        ("/v1/runs?cursor=x", "?cursor"),
        ("/v1/runs?jbo=a", "?jbo"),
        ("/v1/jobs/a/runs?cursor=WyJuYW1lIiwiYSJd", "?cursor"),
    ],
)
async def test_parameters_are_judged_by_name(one: Bench, path: str, pointer: str) -> None:
    """422 that names the parameter."""
    await one.put("a")
    assert (await one.ask("GET", path)).pointers(422, "invalid") == [pointer]


async def test_listing_forgets_what_the_state_has_dropped(one: Bench) -> None:
    """The order beside the state does not grow with what is gone."""
    await one.put("a", schedule="* * * * * *", overlap={"policy": "allow"}, history={"runs": 1})
    start = -(-one.n1.context.time.now_ms() // 1000) * 1000
    for step in range(30):
        times = [start + (step * 100 + more) * 1_000 for more in range(1, 101)]
        await one.fire("a", *times)
        for run_id in [
            run_id for run_id in one.n1.machine.state.runs if one.n1.machine.state.runs[run_id].state == "running"
        ]:
            run = one.n1.machine.state.runs[run_id]
            await one.finish(run.id)
        await asyncio.sleep(0)
    assert len(one.n1.machine.state.runs) == 1
    assert len(one.n1.context.listing._order.row_ids) < 1_200
    assert len((await one.ask("GET", "/v1/runs")).json["items"]) == 1
    assert one.n1.context.listing.fires == 3_000


async def test_how_many_there_are_is_told_where_it_is_asked(one: Bench) -> None:
    """Exact without filters; with them null, unless `count=1`; the page is the same."""
    await one.put("a", schedule="@manual", executor={"type": "noop"})
    for _ in range(5):
        await one.ask("POST", "/v1/jobs/a/runs")
    for path in ("/v1/runs?", "/v1/jobs/a/runs?"):
        assert (await one.ask("GET", f"{path}limit=2")).json["total"] == 5
        without = (await one.ask("GET", f"{path}limit=2&state=skipped")).json
        counted = (await one.ask("GET", f"{path}limit=2&state=skipped&count=1")).json
        assert (without["total"], counted["total"]) == (None, 4)
        assert without["items"] == counted["items"]
        following = f"{path}limit=2&state=skipped&count=1&cursor={counted['next_cursor']}"
        assert (await one.ask("GET", following)).json["total"] == 4
        (await one.ask("GET", f"{path}count=yes")).problem(422, "invalid")
