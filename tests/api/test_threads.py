"""A job that calls a function in a thread, which nothing can stop, says `isolation: continue` (semantics 5.11)."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core.model import HANDLER_TAG, PROCESS_TAG, THREAD_TAG
from tests.api.bench import NEVER, Bench

CALL: dict[str, Any] = {"type": "python", "handler": "f"}
BODY: dict[str, Any] = {"schedule": NEVER, "executor": CALL}
MERGE = {"Content-Type": "application/merge-patch+json"}
IN_THREAD = {f"{HANDLER_TAG}f": "", f"{THREAD_TAG}f": ""}
ON_LOOP = {f"{HANDLER_TAG}f": ""}
APART = {f"{HANDLER_TAG}f": "", f"{PROCESS_TAG}f": ""}


async def test_each_way_to_write_a_job_fills_it_in(one: Bench) -> None:
    """PUT, POST, PATCH and bulk; as far as the body leaves it open, be it with null."""
    await one.announce_anew(one.n1, IN_THREAD)
    (await one.ask("PUT", "/v1/jobs/put", BODY)).expect(201)
    (await one.ask("PUT", "/v1/jobs/null", BODY | {"isolation": None})).expect(201)
    (await one.ask("POST", "/v1/jobs", BODY | {"name": "post"})).expect(201)
    (await one.put("patch")).expect(201)
    (await one.ask("PATCH", "/v1/jobs/patch", {"executor": CALL}, headers=MERGE)).expect(200)
    (await one.ask("POST", "/v1/jobs:apply", {"jobs": [BODY | {"name": "bulk"}]})).expect(200)
    for name in ("put", "null", "post", "patch", "bulk"):
        assert (await one.ask("GET", f"/v1/jobs/{name}")).json["isolation"] == "continue", name
        assert not one.n1.machine.state.stops_with_lease(one.n1.machine.state.jobs[name].uid)


async def test_an_identical_write_keeps_the_revision(one: Bench) -> None:
    """What is got can be put back, what was put too; a dry run finds nothing to change, a bulk request nothing to do.

    Taken off, it comes back at once.
    """
    await one.announce_anew(one.n1, IN_THREAD)
    job = (await one.ask("PUT", "/v1/jobs/a", BODY)).expect(201).json
    for body in (BODY, job, BODY | {"isolation": None}):
        assert (await one.ask("PUT", "/v1/jobs/a?dry_run=1", body)).json["result"] == "unchanged"
        assert (await one.ask("PUT", "/v1/jobs/a", body)).expect(200).json == job
        for query in ("?dry_run=1", ""):
            done = await one.ask("POST", f"/v1/jobs:apply{query}", {"jobs": [body | {"name": "a"}]})
            assert [result["result"] for result in done.json["results"]] == ["unchanged"]
    assert (await one.ask("PATCH", "/v1/jobs/a", {"isolation": None}, headers=MERGE)).expect(200).json == job


@pytest.mark.parametrize("tags", [ON_LOOP, APART, {}], ids=["async", "process", "nowhere"])
async def test_what_can_be_stopped_stays_as_written(one: Bench, tags: dict[str, str]) -> None:
    """null, for coroutines and processes, and for a handler that no node has."""
    await one.announce_anew(one.n1, tags | {f"{HANDLER_TAG}g": "", f"{THREAD_TAG}g": ""})
    assert (await one.ask("PUT", "/v1/jobs/a", BODY)).expect(201).json["isolation"] is None


async def test_one_node_with_a_thread_is_enough(two: Bench) -> None:
    """Wherever the write arrives; but a node that has left the cluster says nothing more."""
    await two.announce_anew(two.n1, ON_LOOP)
    await two.announce_anew(two.n2, IN_THREAD)
    for on in ("n1", "n2"):
        assert (await two.ask("PUT", f"/v1/jobs/{on}", BODY, on=on)).expect(201).json["isolation"] == "continue"
    two.cluster.change(lambda membership, ground: membership.remove("n2", ground))
    assert (await two.ask("PUT", "/v1/jobs/c", BODY)).expect(201).json["isolation"] is None


async def test_a_job_that_was_there_before_its_handler_gets_it_with_the_next_write(one: Bench) -> None:
    """No node changes a job by itself; a dry run of the same body shows what that would change."""
    job = (await one.ask("PUT", "/v1/jobs/a", BODY)).expect(201).json
    assert job["isolation"] is None
    await one.announce_anew(one.n1, IN_THREAD)
    assert (await one.ask("GET", "/v1/jobs/a")).json == job
    shown = (await one.ask("PUT", "/v1/jobs/a?dry_run=1", BODY)).json
    assert (shown["result"], shown["job"]["isolation"]) == ("replaced", "continue")
    assert shown["changes"] == [{"pointer": "/isolation", "from": None, "to": "continue"}]
    assert (await one.ask("PUT", "/v1/jobs/a", job)).expect(200).json["isolation"] == "continue"


async def test_stop_is_taken_at_its_word_and_a_dry_run_says_what_it_is_worth(one: Bench) -> None:
    """Who says it has a function that heeds `run.cancelled`; the note names the node."""
    await one.announce_anew(one.n1, IN_THREAD)
    body = BODY | {"schedule": "@manual"}
    said = body | {"isolation": "stop"}
    [note] = (await one.ask("PUT", "/v1/jobs/a?dry_run=1", said)).json["notes"]
    assert (note["code"], "n1" in note["message"]) == ("stop_in_thread", True)
    job = (await one.ask("PUT", "/v1/jobs/a", said)).expect(201).json
    assert job["isolation"] == "stop"
    assert (await one.ask("PUT", "/v1/jobs/a", job)).expect(200).json == job
    assert (await one.ask("PUT", "/v1/jobs/a?dry_run=1", body)).json["notes"] == []


async def test_how_nodes_tell_it_is_nobodys_tag(one: Bench) -> None:
    """The cluster shows the handler, and no tags."""
    await one.announce_anew(one.n1, IN_THREAD)
    [member] = (await one.ask("GET", "/v1/cluster")).json["members"]
    assert (member["handlers"], member["tags"]) == (["f"], {})
