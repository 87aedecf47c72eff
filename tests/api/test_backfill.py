"""POST /v1/jobs/{name}/backfill."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core.instant import rfc3339
from raftcron.runtime import requests
from tests.api.bench import Bench

HOURLY: dict[str, Any] = {"schedule": "0 * * * *"}  # the bench's clock stands at 2027-01-15T08:00:00.250Z
SPAN = {"from": "2027-01-14T21:00:00Z", "to": "2027-01-15T00:00:00+00:00"}
TIMES = [f"2027-01-{text}:00:00Z" for text in ("14T21", "14T22", "14T23", "15T00")]


async def test_a_span_of_the_past_is_run(one: Bench) -> None:
    """Both ends belong to it; the answer has a run for each time, oldest first, and the watermark stays."""
    before = (await one.put("a", **HOURLY)).json
    answer = (await one.ask("POST", "/v1/jobs/a/backfill", SPAN)).expect(200)
    assert (answer.json["count"], answer.json["dry_run"]) == (4, False)
    runs = answer.json["runs"]
    assert [run["scheduled_time"] for run in runs] == TIMES
    assert {(run["cause"], run["state"], run["job"]) for run in runs} == {("backfill", "queued", "a")}
    assert [run["id"] for run in runs] == [f"b{answer.index:x}-{place}" for place in range(4)]
    after = (await one.ask("GET", "/v1/jobs/a")).json
    assert (after["stats"]["decided_through"], after["revision"]) == (
        before["stats"]["decided_through"],
        before["revision"],
    )


@pytest.mark.parametrize("on", ["n1", "n2"])
async def test_a_dry_run_tells_and_writes_nothing(two: Bench, on: str) -> None:
    """On any node."""
    await two.put("a", **HOURLY)
    index = two.n1.machine.state.index
    answer = (await two.ask("POST", "/v1/jobs/a/backfill", {**SPAN, "dry_run": True}, on=on)).expect(200)
    assert (answer.json["count"], answer.json["dry_run"]) == (4, True)
    assert [(run["id"], run["scheduled_time"]) for run in answer.json["runs"]] == [(None, at) for at in TIMES]
    assert two.n1.machine.state.index == index


async def test_only_times_that_the_job_has_are_run(one: Bench) -> None:
    """Not those that a calendar excludes, nor those before `start_at`; none at all is no fault."""
    await one.ask("PUT", "/v1/calendars/x", {"dates": ["2027-01-14"]})
    await one.put("a", **HOURLY, exclude=["x"])
    await one.put("b", **HOURLY, start_at="2027-01-14T23:30:00Z")
    await one.put("c", schedule="@manual")
    for name, times in (("a", TIMES[3:]), ("b", TIMES[3:]), ("c", [])):
        answer = (await one.ask("POST", f"/v1/jobs/{name}/backfill", SPAN)).expect(200)
        assert [run["scheduled_time"] for run in answer.json["runs"]] == times
        assert answer.json["count"] == len(times)


async def test_a_repeat_under_its_key_is_the_same_backfill(two: Bench) -> None:
    """With its runs as they are by then, on whichever node leads."""
    await two.put("a", **HOURLY)
    key = {"Idempotency-Key": "k"}
    first = (await two.ask("POST", "/v1/jobs/a/backfill", SPAN, headers=key)).expect(200)
    await two.ask("POST", f"/v1/runs/{first.json['runs'][0]['id']}/cancel")
    two.cluster.elect("n2")
    again = (await two.ask("POST", "/v1/jobs/a/backfill", SPAN, headers=key)).expect(200)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json["count"] == 4
    assert [run["id"] for run in again.json["runs"]] == [run["id"] for run in first.json["runs"]]
    assert [run["state"] for run in again.json["runs"]] == ["skipped", "queued", "queued", "queued"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/from", "/to"]),
        ({"from": "yesterday", "to": 5, "dry_run": "yes"}, ["/from", "/to", "/dry_run"]),
        ({**SPAN, "until": None}, ["/until"]),
        ({**SPAN, "to": "2027-01-15T08:00:01Z"}, ["/to"]),
        ({"from": SPAN["to"], "to": SPAN["from"]}, ["/to"]),
        ({**SPAN, "from": "2010-01-01T00:00:00Z"}, ["/from"]),
        ([], [""]),
    ],
)
async def test_every_fault_is_named(one: Bench, body: Any, pointers: list[str]) -> None:
    """By its pointer."""
    await one.put("a", **HOURLY)
    assert (await one.ask("POST", "/v1/jobs/a/backfill", body)).pointers(422, "invalid") == pointers


async def test_more_than_one_request_takes_is_refused_with_what_to_do(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many there are, where to end, and from where to go on; a dry run says the same."""
    monkeypatch.setattr(requests, "BACKFILL_MAX", 2)
    await one.put("a", **HOURLY)
    for dry_run in (False, True):
        answer = await one.ask("POST", "/v1/jobs/a/backfill", {**SPAN, "dry_run": dry_run})
        [fault] = answer.problem(422, "invalid")["errors"]
        assert fault["pointer"] == "/to"
        assert fault["message"] == (
            "the span holds 4 times, one request has 2 at most: "
            f"end it at {TIMES[1]}, and go on from {TIMES[2]} when those have run"
        )


async def test_what_cannot_be_backfilled(one: Bench) -> None:
    """Nobody's job, times that follow from runs; while one waits a second one beyond the bound."""
    (await one.ask("POST", "/v1/jobs/a/backfill", SPAN)).problem(404, "not_found")
    (await one.ask("POST", "/v1/jobs/a/backfill", {**SPAN, "dry_run": True})).problem(404, "not_found")
    await one.put("a", schedule="@every 1h from last_end")
    answer = await one.ask("POST", "/v1/jobs/a/backfill", SPAN)
    assert "run job 'a' by hand" in answer.problem(409, "conflict")["detail"]
    await one.put("b", schedule="* * * * *")
    day = {"from": "2027-01-14T00:00:00Z", "to": "2027-01-14T10:00:00Z"}
    assert (await one.ask("POST", "/v1/jobs/b/backfill", day)).expect(200).json["count"] == 601
    assert (
        "wait for them or cancel them"
        in ((await one.ask("POST", "/v1/jobs/b/backfill", day)).problem(409, "conflict")["detail"])
    )


async def test_what_is_asked_is_not_lost_where_the_job_changes_meanwhile(one: Bench) -> None:
    """The times are worked out anew."""
    await one.put("a", **HOURLY)
    service = one.n1.context.service
    write = service.write

    async def late(*args: Any) -> Any:
        service.write = write  # type: ignore[method-assign]
        await one.put("a", schedule="0 */2 * * *")
        return await write(*args)

    service.write = late  # type: ignore[method-assign]
    answer = (await one.ask("POST", "/v1/jobs/a/backfill", SPAN)).expect(200)
    assert [run["scheduled_time"] for run in answer.json["runs"]] == [TIMES[1], TIMES[3]]


async def test_the_bench_stands_where_these_tests_think(one: Bench) -> None:
    """Its clock."""
    assert rfc3339(one.n1.context.time.now_ms()) == "2027-01-15T08:00:00.250Z"
