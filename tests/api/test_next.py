"""The coming fires of a job, and what an edit would gain, lose and move of them (`?dry_run=1`)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.bench import Bench

# The bench's clock stands at 2027-01-15T08:00:00.250Z, a Friday.


async def times(one: Bench, query: str = "?count=3", name: str = "a") -> list[str]:
    answer = (await one.ask("GET", f"/v1/jobs/{name}/next{query}")).expect(200)
    return [item["scheduled_time"] for item in answer.json["items"]]


async def dry(one: Bench, **fields: Any) -> dict[str, Any]:
    answer = await one.ask("PUT", "/v1/jobs/a?dry_run=1", {"executor": {"type": "noop"}, **fields})
    return dict(answer.expect(200).json)


async def test_one_of_the_coming_fires(one: Bench) -> None:
    """When, when with jitter, on which clock, and what a jump of that clock has to do with it."""
    await one.put("a", schedule="30 2 28 3 *", timezone="Europe/Berlin")
    [item] = (await one.ask("GET", "/v1/jobs/a/next?count=1")).expect(200).json["items"]
    [note] = item.pop("notes")
    assert item == {
        "scheduled_time": "2027-03-28T01:00:00Z",
        "due_at": "2027-03-28T01:00:00Z",
        "local": "2027-03-28T03:00:00+02:00",
    }
    assert note["code"] == "dst_gap"
    assert "jumps over 02:30:00" in note["message"]


async def test_all_that_a_job_says_of_its_times_counts(one: Bench) -> None:
    """Calendars, skipped times, bounds and max_runs."""
    await one.ask("PUT", "/v1/calendars/weekend", {"schedules": ["* * * * SAT,SUN"]})
    await one.put("a", schedule="0 9 * * *", exclude=["weekend"], start_at="2027-01-17T00:00:00Z")
    assert await times(one) == [f"2027-01-{day}T09:00:00Z" for day in (18, 19, 20)]
    await one.ask("POST", "/v1/jobs/a/skip-next", {"count": 1})
    items = (await one.ask("GET", "/v1/jobs/a/next?count=2")).json["items"]
    assert [[note["code"] for note in item["notes"]] for item in items] == [["skip_requested"], []]
    await one.put("a", schedule="0 9 * * *", end_at="2027-01-16T09:00:00Z")
    assert await times(one) == ["2027-01-15T09:00:00Z", "2027-01-16T09:00:00Z"]
    await one.put("a", schedule="0 9 * * *", max_runs=1)
    assert await times(one) == ["2027-01-15T09:00:00Z"]


async def test_jitter_moves_due_at_alone(one: Bench) -> None:
    """It is later by less than the jitter, and the same when it is asked for again."""
    await one.put("a", schedule="*/10 * * * *", jitter="5m")
    items = (await one.ask("GET", "/v1/jobs/a/next")).json["items"]
    assert len(items) == 10
    assert all(item["scheduled_time"] < item["due_at"] < item["scheduled_time"][:15] + "5:00Z" for item in items)
    assert (await one.ask("GET", "/v1/jobs/a/next")).json["items"] == items


async def test_who_has_no_coming_fires(one: Bench) -> None:
    """A paused job, and one that waits to be asked."""
    await one.put("a", schedule="@hourly", paused=True)
    await one.put("b", schedule="@manual")
    assert await times(one) == await times(one, name="b") == []


async def test_count(one: Bench) -> None:
    """0 to 1,000, ten unless it is said; another is refused by name."""
    await one.put("a", schedule="* * * * *")
    assert [len(await times(one, query)) for query in ("", "?count=0", "?count=1000")] == [10, 0, 1000]
    for wrong in ("1001", "-1", "x", ""):
        assert (await one.ask("GET", f"/v1/jobs/a/next?count={wrong}")).pointers() == ["?count"]
    (await one.ask("GET", "/v1/jobs/nobody/next")).problem(404, "not_found")


@pytest.mark.parametrize(
    ("old", "new", "gained", "lost", "moved"),
    [
        ({}, {}, 0, 0, 0),
        ({}, {"labels": {"team": "db"}}, 0, 0, 0),
        ({}, {"schedule": ["0 9 * * *", "0 21 * * *"]}, 25, 0, 0),  # fifty times of two a day are 25 days
        ({"schedule": ["0 9 * * *", "0 21 * * *"]}, {}, 0, 25, 0),
        ({}, {"schedule": "0 10 * * *"}, 0, 0, 50),
        ({}, {"timezone": "Europe/Berlin"}, 0, 1, 49),  # today's 09:00 there is past
        ({}, {"jitter": "1h"}, 0, 0, 50),
        ({}, {"paused": True}, 0, 50, 0),
        ({"paused": True}, {"paused": False}, 50, 0, 0),
        ({}, {"max_runs": 3}, 0, 47, 0),
        ({}, {"end_at": "2027-01-17T00:00:00Z"}, 0, 48, 0),
        ({"end_at": "2027-01-17T00:00:00Z"}, {"end_at": "2027-01-20T00:00:00Z"}, 3, 0, 0),
        ({"schedule": "@every 1h"}, {"schedule": "@every  1h"}, 0, 0, 0),
    ],
    ids=str,
)
async def test_what_an_edit_changes(
    one: Bench, old: dict[str, Any], new: dict[str, Any], gained: int, lost: int, moved: int
) -> None:
    """How many of the first fifty times of each side come, go and move."""
    (await one.put("a", **{"schedule": "0 9 * * *", **old})).expect(201)
    found = await dry(one, **{"schedule": "0 9 * * *", **new})
    assert [len(found[kind]) for kind in ("gained", "lost", "moved")] == [gained, lost, moved]


async def test_a_moved_fire(one: Bench) -> None:
    """A lost and a gained time that are nearest to each other are one that moved; the others stay what they are."""
    await one.put("a", schedule="0 9 * * *")
    found = await dry(one, schedule="0 10 * * MON")
    assert found["moved"][0] == {"from": "2027-01-18T09:00:00Z", "to": "2027-01-18T10:00:00Z"}
    assert found["lost"][:3] == [f"2027-01-{day}T09:00:00Z" for day in (15, 16, 17)]
    assert found["gained"] == []
    assert found["compared_through"] == "2027-03-05T09:00:00Z"
    assert found["next"][0] == "2027-01-18T10:00:00Z"


async def test_skipped_times_do_not_fire(one: Bench) -> None:
    """An edit of the schedule takes back what was asked to be skipped: that is gained."""
    await one.put("a", schedule="0 9 * * *")
    await one.ask("POST", "/v1/jobs/a/skip-next", {"count": 1})
    found = await dry(one, schedule="0 9 * * *", end_at="2027-01-16T12:00:00Z")
    assert found["gained"] == ["2027-01-15T09:00:00Z"]
    assert len(found["lost"]) == 49


async def test_a_new_job_moves_nothing(one: Bench) -> None:
    """Its first times are in `next`."""
    found = await dry(one, schedule="0 9 * * *")
    assert found["result"] == "created"
    assert len(found["next"]) == 10
    assert found["gained"] == found["lost"] == found["moved"] == []


async def test_the_members_say_what_they_reckon_with(two: Bench) -> None:
    """Each node's croniter and tz data, and since which entry leaders reckon with which."""
    cluster = (await two.ask("GET", "/v1/cluster", on="n2")).json
    for member in cluster["members"]:
        if member["name"] == "n2":
            assert (member["croniter"], member["tzdata"]) == two.n2.machine.editions
    assert {(one["name"], one["version"]) for one in cluster["editions"]} == set(
        zip(("croniter", "tzdata"), two.n1.machine.editions, strict=True)
    )
