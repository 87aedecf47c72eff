"""What a job may say of its times, and what is answered: bounds, jitter, calendars, skips, jobs that are over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raftcron.core.instant import parse_rfc3339, rfc3339
from tests.api.bench import GOOD, Bench

MERGE = {"Content-Type": "application/merge-patch+json"}
NOW = "2027-01-15T08:00:00.250Z"  # of the bench's clock


def day(offset: int) -> str:
    return rfc3339(parse_rfc3339(NOW) + offset * 86_400_000)


@pytest.mark.parametrize(
    "fields",
    [
        {"jitter": "30s"},
        {"start_at": day(1), "end_at": day(2)},
        {"max_runs": 1},
        {"dst": {"gap": "skip", "fold": "both"}, "timezone": "Europe/Berlin"},
        {"hash_key": "shared", "schedule": "H H * * *"},
        {"schedule": "@every 5m from last_end"},
        {"schedule": ["*/5 * * * *", "@every 7m", "@at 2030-01-01T00:00:00Z", *["@daily"] * 13]},
    ],
    ids=json.dumps,
)
async def test_what_is_written_is_answered_and_can_be_put_back(one: Bench, fields: dict[str, Any]) -> None:
    """Each field as it was written, and the revision stays when the answer is written again."""
    body = {"schedule": "@hourly", **fields}
    job = (await one.put("a", **body)).expect(201).json
    assert {key: job[key] for key in body} == body
    assert job["state"] == "active"
    assert job["next_fire_at"] > NOW
    assert (await one.ask("PUT", "/v1/jobs/a", job)).expect(200).json == job


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"jitter": "25h"}, "/jitter", "misfire.window, 1d"),
        ({"start_at": day(2), "end_at": day(1)}, "/end_at", "lies before start_at"),
        ({"schedule": "@hourly", "end_at": day(-1)}, "/end_at", "the first time to come is 2027-01-15T09:00:00Z"),
        ({"schedule": "@yearly", "end_at": day(1)}, "/end_at", "the first time to come is 2028-01-01T00:00:00Z"),
        ({"schedule": "@at 2027-01-20T00:00:00Z", "start_at": day(30)}, "/schedule", "never fires"),
        ({"schedule": ["@hourly"] * 17}, "/schedule", "has 17 schedules, allowed are 1 to 16"),
        ({"schedule": ["@hourly", "0 0 30 2 *"]}, "/schedule/1", "no coming date matches it"),
        ({"schedule": "5,x * * * *"}, "/schedule", "minute field `5,X`: `X` is neither a number nor a name of this"),
        ({"schedule": "@every 5m from yesterday"}, "/schedule", "`last_end`, the end of the last run"),
        ({"exclude": ["holidays"]}, "/exclude/0", "there is no calendar 'holidays'; PUT it to /v1/calendars first"),
        ({"exclude": ["night", "nihgt"]}, "/exclude/1", "did you mean 'night'?"),
        ({"exclude": ["night", "night"]}, "/exclude/1", "'night' is there twice"),
        ({"schedule": "0 3 * * *", "exclude": ["night"]}, "/exclude", "leave nothing of 1,000 days"),
        ({"max_runs": 0}, "/max_runs", "is 0, allowed are 1 to"),
        ({"dst": {"gap": "jump"}}, "/dst/gap", "allowed are run_after, skip"),
        ({"hash_key": 5}, "/hash_key", "must be a string"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
async def test_what_makes_no_sense_is_named(one: Bench, fields: dict[str, Any], pointer: str, words: str) -> None:
    """The field, the fault and what would be right; nothing is written."""
    await one.ask("PUT", "/v1/calendars/night", {"schedules": ["* 0-6 * * *"]})
    document = (await one.put("a", **fields)).problem(422, "invalid")
    assert [fault["pointer"] for fault in document["errors"]] == [pointer]
    assert words in document["errors"][0]["message"]
    (await one.ask("GET", "/v1/jobs/a")).problem(404)


async def test_a_job_that_is_over(one: Bench) -> None:
    """It is `ended`, has no next time, may be written again as it is, and goes on when its bounds allow it."""
    await one.put("a", schedule="@every 1h", end_at=day(1))
    await one.put("b", schedule="@hourly", max_runs=1)
    first = parse_rfc3339("2027-01-15T09:00:00Z")
    one.clock.wall_offset_ms += first - parse_rfc3339(NOW)
    await one.fire("b", first)
    one.clock.wall_offset_ms += 2 * 86_400_000
    await one.fire("a", parse_rfc3339("2027-01-16T08:00:01Z") - 3_600_000)
    jobs = (await one.ask("GET", "/v1/jobs?state=ended")).json["items"]
    assert [(job["name"], job["state"], job["next_fire_at"]) for job in jobs] == [
        ("a", "ended", None),
        ("b", "ended", None),
    ]
    for job in jobs:
        assert (await one.ask("PUT", f"/v1/jobs/{job['name']}", job)).expect(200).json["revision"] == job["revision"]
        (await one.ask("PATCH", f"/v1/jobs/{job['name']}", {"description": "x"}, headers=MERGE)).expect(200)
    (await one.ask("PATCH", "/v1/jobs/a", {"timezone": "Asia/Tokyo"}, headers=MERGE)).problem(422)
    revived = [
        (await one.ask("PATCH", "/v1/jobs/a", {"end_at": None}, headers=MERGE)).expect(200).json,
        (await one.ask("PATCH", "/v1/jobs/b", {"max_runs": 2}, headers=MERGE)).expect(200).json,
    ]
    now = one.n1.context.time.now_ms()
    for job in revived:
        assert job["state"] == "active"
        assert now < parse_rfc3339(job["next_fire_at"]) <= now + 3_600_000
        assert parse_rfc3339(job["stats"]["decided_through"]) == now


async def test_skip_next(one: Bench) -> None:
    """The next times are shown as those that will be skipped; asking again sets them anew, 0 takes them back."""
    await one.put("a", schedule="@hourly", max_runs=3)
    before = (await one.ask("GET", "/v1/jobs/a")).json
    skipped = (await one.ask("POST", "/v1/jobs/a/skip-next", {"count": 2})).expect(200).json
    assert skipped["skips"] == ["2027-01-15T09:00:00Z", "2027-01-15T10:00:00Z"]
    assert skipped["next_fire_at"] == "2027-01-15T11:00:00Z"
    assert skipped["revision"] > before["revision"]
    again = (await one.ask("POST", "/v1/jobs/a/skip-next", {"count": 2})).json
    assert again["revision"] == skipped["revision"]
    assert (await one.ask("POST", "/v1/jobs/a/skip-next")).json["skips"] == ["2027-01-15T09:00:00Z"]
    kept = (await one.ask("PATCH", "/v1/jobs/a", {"description": "x"}, headers=MERGE)).json
    assert kept["skips"] == ["2027-01-15T09:00:00Z"]
    assert (await one.ask("POST", "/v1/jobs/a/skip-next", {"count": 0})).json["skips"] == []
    await one.ask("POST", "/v1/jobs/a/skip-next", {"count": 1})
    assert (await one.ask("PATCH", "/v1/jobs/a", {"timezone": "Asia/Kathmandu"}, headers=MERGE)).json["skips"] == []


@pytest.mark.parametrize("body", [{"count": -1}, {"count": 101}, {"count": "2"}, {"count": True}, {"counts": 1}, 5])
async def test_skip_next_refuses_what_it_cannot_do(one: Bench, body: Any) -> None:
    """A number from 0 to 100, of a job that is there."""
    await one.put("a")
    (await one.ask("POST", "/v1/jobs/a/skip-next", body)).problem(422, "invalid")
    (await one.ask("POST", "/v1/jobs/nobody/skip-next")).problem(404)


async def test_skip_next_needs_a_time_ahead(one: Bench) -> None:
    """None is ahead of a job that is paused or only asked; of `from last_end` one alone is known."""
    await one.put("a", schedule="@hourly", paused=True)
    await one.put("b", schedule="@manual")
    for name in ("a", "b"):
        (await one.ask("POST", f"/v1/jobs/{name}/skip-next")).problem(409, "conflict")
    await one.put("c", schedule="@every 5m from last_end")
    assert (await one.ask("POST", "/v1/jobs/c/skip-next", {"count": 2})).pointers(422) == ["/count"]
    assert len((await one.ask("POST", "/v1/jobs/c/skip-next")).expect(200).json["skips"]) == 1
    (await one.ask("POST", "/v1/jobs/c/skip-next", headers={"If-Match": '"1"'})).problem(412)


# ---- calendars -------------------------------------------------------------------------------------------------------


async def test_a_calendar_is_written_read_listed_and_deleted(two: Bench) -> None:
    """201, 200, a revision as ETag, conditions, pages by name, 204 and 404; on any node."""
    body = {"dates": ["2027-12-25", "2027-12-24"], "timezone": "Europe/Berlin"}
    created = (await two.ask("PUT", "/v1/calendars/holidays", body, on="n2")).expect(201)
    assert created.headers["Location"] == "/v1/calendars/holidays"
    assert created.headers["ETag"] == f'"{created.index}"'
    assert created.json == {
        "name": "holidays",
        "dates": ["2027-12-24", "2027-12-25"],
        "schedules": [],
        "timezone": "Europe/Berlin",
        "jobs": 0,
        "revision": created.index,
        "created_at": NOW,
        "updated_at": NOW,
    }
    again = (await two.ask("PUT", "/v1/calendars/holidays", created.json)).expect(200)
    assert again.json == created.json
    assert (await two.ask("GET", "/v1/calendars/holidays", on="n2")).expect(200).json == created.json
    (await two.ask("PUT", "/v1/calendars/holidays", {}, headers={"If-None-Match": "*"})).problem(412, "revision")
    (await two.ask("PUT", "/v1/calendars/holidays", {}, headers={"If-Match": '"1"'})).problem(412, "revision")
    changed = (await two.ask("PUT", "/v1/calendars/holidays", {}, headers={"If-Match": created.headers["ETag"]})).json
    assert (changed["dates"], changed["revision"] > created.index) == ([], True)
    await two.ask("PUT", "/v1/calendars/a", {"schedules": ["* 0-6 * * *"]})
    page = (await two.ask("GET", "/v1/calendars?limit=1")).json
    assert ([item["name"] for item in page["items"]], page["total"]) == (["a"], 2)
    rest = (await two.ask("GET", f"/v1/calendars?limit=1&cursor={page['next_cursor']}")).json
    assert ([item["name"] for item in rest["items"]], rest["next_cursor"]) == (["holidays"], None)
    (await two.ask("GET", "/v1/calendars?cursor=%20")).problem(422)
    (await two.ask("DELETE", "/v1/calendars/a", headers={"If-Match": '"1"'})).problem(412)
    (await two.ask("DELETE", "/v1/calendars/a", on="n2")).expect(204)
    for method in ("GET", "DELETE"):
        (await two.ask(method, "/v1/calendars/a")).problem(404, "not_found")


async def test_every_fault_of_a_calendar_is_named(one: Bench) -> None:
    """With what would be right."""
    body = {
        "name": "b",
        "date": [],
        "dates": ["2027-02-29", "25.12.2027", 7, "2027-12-25"],
        "schedules": ["* * 25 12 *", "@daily", "99 * * * *", 7],
        "timezone": "Europe/Berln",
    }
    document = (await one.ask("PUT", "/v1/calendars/a", body)).problem(422, "invalid")
    faults = {fault["pointer"]: fault["message"] for fault in document["errors"]}
    expected = [
        "/name",
        "/date",
        "/timezone",
        *(f"/dates/{n}" for n in range(3)),
        *(f"/schedules/{n}" for n in (1, 2, 3)),
    ]
    assert list(faults) == expected
    assert "'dates'" in faults["/date"]
    assert "write it like 2026-12-25" in faults["/dates/1"]
    assert "`* * 25 12 *` is a day" in faults["/schedules/1"]
    assert (await one.ask("PUT", "/v1/calendars/-a", {})).pointers() == ["/name"]
    assert (await one.ask("PUT", "/v1/calendars/a", {"dates": ["2027-01-01"] * 4_097})).pointers() == ["/dates"]
    assert (await one.ask("PUT", "/v1/calendars/a", [])).pointers() == [""]


async def test_a_calendar_that_jobs_name_stays(one: Bench) -> None:
    """409 with their names; it goes when none of them does any more."""
    await one.ask("PUT", "/v1/calendars/x", {"dates": ["2027-12-25"]})
    for number in range(12):
        await one.put(f"job-{number:02}", exclude=["x"])
    assert (await one.ask("GET", "/v1/calendars/x")).json["jobs"] == 12
    detail = (await one.ask("DELETE", "/v1/calendars/x")).problem(409, "conflict")["detail"]
    assert "job-00, job-01" in detail
    assert "and 2 more" in detail
    for number in range(11):
        await one.put(f"job-{number:02}", exclude=[])
    await one.ask("DELETE", "/v1/jobs/job-11")
    (await one.ask("DELETE", "/v1/calendars/x")).expect(204)


async def test_a_calendar_changes_what_lies_ahead_of_its_jobs(one: Bench) -> None:
    """Their next time moves at once, their counters begin anew, what fired before stays as it is."""
    await one.ask("PUT", "/v1/calendars/x", {})
    await one.put("a", schedule="@hourly", exclude=["x"])
    await one.put("b", schedule="@hourly")
    one.clock.wall_offset_ms += 2 * 3_600_000
    changed = (await one.ask("PUT", "/v1/calendars/x", {"schedules": ["* 11-14 * * *"]})).expect(200)
    job = (await one.ask("GET", "/v1/jobs/a")).json
    assert job["next_fire_at"] == "2027-01-15T15:00:00Z"
    rows = (await one.ask("GET", "/v1/jobs/a/runs")).json["items"]
    assert sorted((row["scheduled_time"], row["log_index"]) for row in rows if "count" not in row) == [
        ("2027-01-15T10:00:00Z", changed.index)
    ]
    assert (await one.ask("GET", "/v1/jobs/b")).json["next_fire_at"] == "2027-01-15T09:00:00Z"
    await one.ask("PUT", "/v1/calendars/x", {})
    assert (await one.ask("GET", "/v1/jobs/a")).json["next_fire_at"] == "2027-01-15T11:00:00Z"


async def test_keys_of_calendars_and_skips_are_honoured(one: Bench) -> None:
    """A repeat answers what the first one did."""
    await one.put("a", schedule="@hourly")
    for method, path, body, status in (
        ("PUT", "/v1/calendars/x", {"dates": ["2027-12-25"]}, 201),
        ("POST", "/v1/jobs/a/skip-next", {"count": 1}, 200),
        ("DELETE", "/v1/calendars/x", None, 204),
    ):
        headers = {"Idempotency-Key": "k"}
        first = (await one.ask(method, path, body, headers=headers)).expect(status)
        again = (await one.ask(method, path, body, headers=headers)).expect(status)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.index == first.index


async def test_a_dry_run_knows_calendars_and_bounds(one: Bench) -> None:
    """Its next times are those that will fire."""
    await one.ask("PUT", "/v1/calendars/x", {"dates": ["2027-01-16"]})
    body = {**GOOD, "schedule": "0 9,21 * * *", "exclude": ["x"], "end_at": "2027-01-17T10:00:00Z"}
    preview = (await one.ask("PUT", "/v1/jobs/a?dry_run=1", body)).expect(200).json
    assert preview["next"] == ["2027-01-15T09:00:00Z", "2027-01-15T21:00:00Z", "2027-01-17T09:00:00Z"]
