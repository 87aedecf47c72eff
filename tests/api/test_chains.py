"""Jobs that are after others, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.api.bench import GOOD, Bench


def after(*names: str) -> list[dict[str, str]]:
    return [{"job": name, "on": "success"} for name in names]


async def test_a_chain(one: Bench) -> None:
    """A job with parents alone is started by their ends; its run names the parent's run."""
    await one.put("a")
    await one.put("b")
    job = (await one.put("c", schedule="@manual", after=after("a", "b"))).expect(201).json
    assert (job["after"], job["join"], job["next_fire_at"], job["joined"]) == (after("a", "b"), "all", None, [])
    first = (await one.ask("POST", "/v1/jobs/a/runs")).json["run"]
    await one.finish(first["id"])
    job = (await one.ask("GET", "/v1/jobs/c")).json
    assert job["joined"] == [{"job": "a", "run": first["id"]}]
    second = (await one.ask("POST", "/v1/jobs/b/runs")).json["run"]
    await one.finish(second["id"])
    [run] = (await one.ask("GET", "/v1/jobs/c/runs")).json["items"]
    assert (run["cause"], run["parent"], run["state"]) == ("chain", second["id"], "queued")


async def test_what_is_wrong_with_parents(one: Bench) -> None:
    """Each fault at its pointer: nobody of that name, twice, itself, words that are none."""
    await one.put("a")
    answer = await one.put("b", after=[*after("a"), {"job": "aa"}, {"job": "b"}])
    problem = answer.problem(422, "invalid")
    assert {fault["pointer"]: fault["message"] for fault in problem["errors"]} == {
        "/after/1/job": "there is no job 'aa': create it first",
        "/after/2/job": "closes a cycle, in which each job would start the next: b -> b",
    }
    answer = await one.put("b", after=[*after("a", "a"), {"job": "a b", "on": "error"}, "a"], join="some")
    assert answer.pointers(422, "invalid") == [
        "/after/2/job", "/after/2/on", "/after/3", "/after/1/job", "/join"
    ]  # fmt: skip


async def test_a_cycle_is_named_also_when_another_jobs_edit_makes_it(one: Bench) -> None:
    """By PUT, by PATCH and by a dry run."""
    await one.put("a")
    await one.put("b", after=after("a"))
    await one.put("c", after=after("b"))
    cycle = "closes a cycle, in which each job would start the next: a -> b -> c -> a"
    for answer in (
        await one.put("a", after=after("c")),
        await one.ask("PATCH", "/v1/jobs/a", {"after": after("c")}),
        await one.ask("PUT", "/v1/jobs/a?dry_run=1", {**GOOD, "after": after("c")}),
    ):
        assert answer.problem(422, "invalid")["errors"] == [{"pointer": "/after/0/job", "message": cycle}]


async def test_of_two_writes_that_would_make_a_cycle_together_one_is_refused(one: Bench) -> None:
    """Whichever comes second in the log, with the cycle named."""
    await one.put("a")
    await one.put("b")
    answers = await asyncio.gather(one.put("a", after=after("b")), one.put("b", after=after("a")))
    assert sorted(answer.status for answer in answers) == [200, 422]
    refused = next(answer for answer in answers if answer.status == 422)
    assert refused.pointers() == ["/after/0/job"]


async def test_a_parent_may_be_deleted_and_its_children_edited_and_put_back(one: Bench) -> None:
    """What is got can be put, with the name of the parent that is gone; a new job after it is a fault."""
    await one.put("a")
    await one.put("b", after=after("a"))
    (await one.ask("DELETE", "/v1/jobs/a")).expect(204)
    job = (await one.ask("GET", "/v1/jobs/b")).json
    (await one.ask("PUT", "/v1/jobs/b", {**job, "description": "waits for a"})).expect(200)
    (await one.ask("PATCH", "/v1/jobs/b", {"after": [{"job": "a", "on": "any"}]})).expect(200)
    assert (await one.put("c", after=after("a"))).pointers() == ["/after/0/job"]
    await one.put("a", schedule="@manual", executor={"type": "noop"})
    run = (await one.ask("POST", "/v1/jobs/a/runs")).json["run"]
    await one.finish(run["id"])
    assert len((await one.ask("GET", "/v1/jobs/b/runs")).json["items"]) == 1


async def test_a_chain_comes_in_one_request(one: Bench) -> None:
    """In any order; what would go round and round is told of one of its jobs, and the others are taken."""

    def job(name: str, *parents: str) -> dict[str, Any]:
        return {**GOOD, "name": name, "schedule": "@manual", "after": after(*parents)}

    sent = [job("c", "b"), job("b", "a"), job("a"), job("x", "nobody")]
    answer = (await one.ask("POST", "/v1/jobs:apply", {"jobs": sent})).expect(200)
    assert [result["status"] for result in answer.json["results"]] == [201, 201, 201, 422]
    turned = [job("a", "b"), job("b", "c"), job("c")]
    answer = (await one.ask("POST", "/v1/jobs:apply", {"jobs": turned})).expect(200)
    assert [result["status"] for result in answer.json["results"]] == [200, 200, 200]
    answer = (await one.ask("POST", "/v1/jobs:apply", {"jobs": [job("c", "a"), job("new", "c")]})).expect(200)
    assert [result["status"] for result in answer.json["results"]] == [422, 201]
    [fault] = answer.json["results"][0]["errors"]
    assert fault["pointer"] == "/after/0/job"
    assert fault["message"].endswith(": c -> b -> a -> c")
