"""Groups over HTTP, and what a job may say of its placement."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.bench import Bench

NOW = "2027-01-15T08:00:00.250Z"


async def test_a_group_is_written_read_listed_and_deleted(two: Bench) -> None:
    """201, 200, a revision as ETag, conditions, pages by name, 204 and 404; on any node."""
    created = (await two.ask("PUT", "/v1/groups/mail", {"max_running": 2}, on="n2")).expect(201)
    assert created.headers["Location"] == "/v1/groups/mail"
    assert created.headers["ETag"] == f'"{created.index}"'
    assert created.json == {
        "name": "mail",
        "max_running": 2,
        "jobs": 0,
        "running": 0,
        "queued": 0,
        "revision": created.index,
        "created_at": NOW,
        "updated_at": NOW,
    }
    again = (await two.ask("PUT", "/v1/groups/mail", created.json)).expect(200)
    assert again.json == created.json
    assert (await two.ask("GET", "/v1/groups/mail", on="n2")).expect(200).json == created.json
    two_more = {"max_running": 4}
    (await two.ask("PUT", "/v1/groups/mail", two_more, headers={"If-None-Match": "*"})).problem(412, "revision")
    (await two.ask("PUT", "/v1/groups/mail", two_more, headers={"If-Match": '"1"'})).problem(412, "revision")
    changed = await two.ask("PUT", "/v1/groups/mail", two_more, headers={"If-Match": created.headers["ETag"]})
    assert (changed.json["max_running"], changed.json["revision"] > created.index) == (4, True)
    await two.ask("PUT", "/v1/groups/a", {"max_running": 1})
    page = (await two.ask("GET", "/v1/groups?limit=1")).json
    assert ([item["name"] for item in page["items"]], page["total"]) == (["a"], 2)
    rest = (await two.ask("GET", f"/v1/groups?limit=1&cursor={page['next_cursor']}")).json
    assert ([item["name"] for item in rest["items"]], rest["next_cursor"]) == (["mail"], None)
    (await two.ask("DELETE", "/v1/groups/a", headers={"If-Match": '"1"'})).problem(412)
    (await two.ask("DELETE", "/v1/groups/a", on="n2")).expect(204)
    for method in ("GET", "DELETE"):
        (await two.ask(method, "/v1/groups/a")).problem(404, "not_found")


async def test_a_write_of_a_group_repeated_under_its_key_is_one_write(one: Bench) -> None:
    """The first status and index, and the header that says so."""
    headers = {"Idempotency-Key": "k"}
    first = (await one.ask("PUT", "/v1/groups/g", {"max_running": 2}, headers=headers)).expect(201)
    again = (await one.ask("PUT", "/v1/groups/g", {"max_running": 2}, headers=headers)).expect(201)
    assert (again.index, again.headers["Idempotency-Replayed"]) == (first.index, "true")
    (await one.ask("PUT", "/v1/groups/g", {"max_running": 3}, headers=headers)).problem(409)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/max_running"]),
        ([], [""]),
        ({"max_running": 0}, ["/max_running"]),
        ({"max_running": 1.5}, ["/max_running"]),
        ({"max_running": "2"}, ["/max_running"]),
        ({"max_runing": 2, "name": "other"}, ["/name", "/max_runing", "/max_running"]),
    ],
    ids=str,
)
async def test_every_fault_of_a_group_is_named(one: Bench, body: Any, pointers: list[str]) -> None:
    """And nothing is written."""
    assert (await one.ask("PUT", "/v1/groups/g", body)).pointers(422, "invalid") == pointers
    (await one.ask("GET", "/v1/groups/g")).problem(404)


async def test_a_job_names_a_group_that_is_there_and_holds_it(one: Bench) -> None:
    """422 before, 409 for whoever would delete it, free again after."""
    document = (await one.put("a", group="mial")).problem(422, "invalid")
    assert document["errors"][0]["pointer"] == "/group"
    await one.ask("PUT", "/v1/groups/mail", {"max_running": 2})
    document = (await one.put("a", group="mial")).problem(422, "invalid")
    assert document["errors"] == [{"pointer": "/group", "message": "there is no group 'mial'; did you mean 'mail'?"}]
    assert (await one.put("a", group="mail")).expect(201).json["group"] == "mail"
    assert (await one.ask("GET", "/v1/groups/mail")).json["jobs"] == 1
    assert "named by a" in (await one.ask("DELETE", "/v1/groups/mail")).problem(409, "conflict")["detail"]
    (await one.put("a", group=None)).expect(200)
    (await one.ask("DELETE", "/v1/groups/mail")).expect(204)


@pytest.mark.parametrize(
    ("placement", "pointers"),
    [
        ({"on": "all", "shards": 3}, ["/placement/shards"]),
        ({"on": "everywhere"}, ["/placement/on"]),
        ({"shards": 0}, ["/placement/shards"]),
        ({"priority": 101, "tags": {"zone": 1}}, ["/placement/priority", "/placement/tags/zone"]),
        ({"tag": {"zone": "a"}}, ["/placement/tag"]),
    ],
    ids=str,
)
async def test_every_fault_of_a_placement_is_named(one: Bench, placement: Any, pointers: list[str]) -> None:
    """With what is allowed."""
    assert (await one.put("a", placement=placement)).pointers(422, "invalid") == pointers


async def test_a_placement_is_kept_as_it_was_written(one: Bench) -> None:
    """Defaults beside what was said; an identical PUT keeps the revision."""
    said = {"on": "any", "tags": {"zone": "a"}, "priority": 7}
    first = (await one.put("a", placement=said)).expect(201)
    assert first.json["placement"] == {**said, "shards": None}
    assert (await one.put("a", placement=first.json["placement"])).expect(200).json["revision"] == first.json[
        "revision"
    ]


async def test_a_drained_node_is_shown_so_and_may_be_undone(two: Bench) -> None:
    """On any node; strangers are 404, and every fault of the body is named."""
    answer = (await two.ask("POST", "/v1/cluster/drain", {"node": "n2"}, on="n2")).expect(200)
    assert [(one["name"], one["drained"]) for one in answer.json["members"]] == [("n1", False), ("n2", True)]
    answer = (await two.ask("POST", "/v1/cluster/drain", {"node": "n2", "drain": False})).expect(200)
    assert not any(one["drained"] for one in answer.json["members"])
    (await two.ask("POST", "/v1/cluster/drain", {"node": "n9"})).problem(404, "not_found")
    faulty = await two.ask("POST", "/v1/cluster/drain", {"nod": "n1", "drain": 1})
    assert faulty.pointers(422, "invalid") == ["/nod", "/node", "/drain"]
