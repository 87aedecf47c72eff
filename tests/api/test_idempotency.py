"""Idempotency-Key on every write: once done it is not done again, and the answer says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.api.bench import GOOD, Bench

KEY = {"Idempotency-Key": "8f1c"}


async def test_a_repeat_answers_what_was_and_shows_what_is(one: Bench) -> None:
    """Stored status and index, the resource's present state, and a header that says so."""
    first = (await one.ask("POST", "/v1/jobs", {**GOOD, "name": "a"}, headers=KEY)).expect(201)
    await one.put("a", description="changed since")
    again = (await one.ask("POST", "/v1/jobs", {**GOOD, "name": "a"}, headers=KEY)).expect(201)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert again.index == first.index
    assert again.json["description"] == "changed since"


async def test_a_run_is_started_once(one: Bench) -> None:
    """However often the request is repeated, also after the run has ended."""
    await one.put("a")
    first = (await one.ask("POST", "/v1/jobs/a/runs", {"args": 1}, headers=KEY)).expect(202).json["run"]
    await one.finish(first["id"])
    again = (await one.ask("POST", "/v1/jobs/a/runs", {"args": 1}, headers=KEY)).expect(202).json["run"]
    assert (again["id"], again["state"]) == (first["id"], "succeeded")
    other = {"Idempotency-Key": "another"}
    assert (await one.ask("POST", "/v1/jobs/a/runs", {"args": 1}, headers=other)).json["run"]["id"] != first["id"]


async def test_another_body_under_the_key_is_a_conflict(one: Bench) -> None:
    """Parameters count as body; another path, method or key is another scope."""
    (await one.put("a", headers=KEY)).expect(201)
    (await one.put("a", description="other", headers=KEY)).problem(409, "conflict")
    (await one.put("b", headers=KEY)).expect(201)
    (await one.ask("DELETE", "/v1/jobs/b", headers=KEY)).expect(204)
    (await one.ask("DELETE", "/v1/jobs/b?cancel_running=1", headers=KEY)).problem(409, "conflict")
    assert (await one.ask("DELETE", "/v1/jobs/b", headers=KEY)).expect(204).headers["Idempotency-Replayed"] == "true"


async def test_a_repeat_does_not_meet_the_condition_again(one: Bench) -> None:
    """If-Match held when the write was done; its own effect does not refuse the repeat."""
    revision = (await one.put("a")).json["revision"]
    headers = {**KEY, "If-Match": f'"{revision}"'}
    first = (await one.put("a", description="x", headers=headers)).expect(200)
    again = (await one.put("a", description="x", headers=headers)).expect(200)
    assert again.index == first.index
    for path in ("pause", "resume"):
        (await one.ask("POST", f"/v1/jobs/a/{path}", headers=KEY)).expect(200)
        replayed = (await one.ask("POST", f"/v1/jobs/a/{path}", headers=KEY)).expect(200)
        assert replayed.headers["Idempotency-Replayed"] == "true"
    patch: dict[str, Any] = {"description": "y"}
    merge = {**KEY, "Content-Type": "application/merge-patch+json"}
    index = (await one.ask("PATCH", "/v1/jobs/a", patch, headers=merge)).expect(200).index
    assert (await one.ask("PATCH", "/v1/jobs/a", patch, headers=merge)).index == index


async def test_a_key_survives_a_change_of_leader(two: Bench) -> None:
    """It is replicated: the next leader replays, also through a follower."""
    first = (await two.put("a", on="n2", headers=KEY)).expect(201)
    two.cluster.elect("n2")
    for on in ("n1", "n2"):
        again = (await two.put("a", on=on, headers=KEY)).expect(201)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.index == first.index


async def test_an_unknown_outcome_is_cleared_by_the_same_key(two: Bench) -> None:
    """A repeat after 504 is replayed if it was written after all, and done if it was not."""
    for answer in ("unknown", "unknown_written"):
        headers = {"Idempotency-Key": answer}
        two.n1.log.next_answer = answer  # type: ignore[assignment]
        (await two.put(answer, on="n2", headers=headers)).problem(504)
        entries = len(two.cluster.entries)
        repeated = (await two.put(answer, on="n2", headers=headers)).expect(201)
        assert (repeated.headers.get("Idempotency-Replayed") == "true") is (answer == "unknown_written")
        assert len(two.cluster.entries) == entries + (answer == "unknown")


async def test_a_request_that_is_still_under_way(one: Bench) -> None:
    """409 with Retry-After for its repeat; with another body it is the key that conflicts."""
    one.n1.log.stall = asyncio.Event()
    asked = asyncio.create_task(one.put("a", headers=KEY))
    while one.n1.log.proposals < 2:  # the node's announcement was the first
        await asyncio.sleep(0.001)
    waiting = await one.put("a", headers=KEY)
    waiting.problem(409, "conflict")
    assert int(waiting.headers["Retry-After"]) >= 1
    other = await one.put("a", description="x", headers=KEY)
    assert "another body" in other.problem(409, "conflict")["detail"]
    one.n1.log.stall.set()
    (await asked).expect(201)
    (await one.put("a", headers=KEY)).expect(201)


async def test_a_replay_of_what_is_gone_shows_nothing(one: Bench) -> None:
    """The stored status stands; there is no present state to show."""
    (await one.put("a", headers=KEY)).expect(201)
    await one.ask("DELETE", "/v1/jobs/a")
    assert (await one.put("a", headers=KEY)).expect(201).json is None


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "\xe4"])
async def test_a_key_that_cannot_be_one_is_refused(one: Bench, key: str) -> None:
    """1 to 255 visible ASCII characters."""
    (await one.put("a", headers={"Idempotency-Key": key})).problem(400, "malformed")


@pytest.mark.parametrize("on", ["n1", "n2"])
async def test_a_wrong_body_under_a_key_that_is_under_way_is_a_conflict(two: Bench, on: str) -> None:
    """Whatever it says: the key belongs to the request that is on its way, and that one is not disturbed."""
    two.n1.log.stall = asyncio.Event()
    proposals = two.n1.log.proposals
    asked = asyncio.create_task(two.put("a", on="n2", headers=KEY))
    while two.n1.log.proposals == proposals:
        await asyncio.sleep(0.001)
    for wrong in (b"{", b'{"schedule": "never"}'):
        answer = await two.ask("PUT", "/v1/jobs/a", data=wrong, on=on, headers=KEY)
        assert "another body" in answer.problem(409, "conflict")["detail"]
    waiting = await two.put("a", on=on, headers=KEY)
    waiting.problem(409, "conflict")
    assert int(waiting.headers["Retry-After"]) >= 1
    two.n1.log.stall.set()
    (await asked).expect(201)


async def test_other_jobs_under_the_key_of_a_bulk_request_are_a_conflict(two: Bench) -> None:
    """Also where none of them is sound, or there is nothing to be read; the same ones are replayed."""
    jobs = {"jobs": [{**GOOD, "name": "a"}, {**GOOD, "name": "b"}]}
    first = (await two.ask("POST", "/v1/jobs:apply", jobs, on="n2", headers=KEY)).expect(200)
    for other in (b'{"jobs": [{"name": "a"}]}', b'{"jobs": []}', b'{"jobs": 1}', b"{", b""):
        (await two.ask("POST", "/v1/jobs:apply", data=other, on="n2", headers=KEY)).problem(409, "conflict")
    (await two.ask("POST", "/v1/jobs:apply?prune=1&owner=x", jobs, headers=KEY)).problem(409, "conflict")
    again = (await two.ask("POST", "/v1/jobs:apply", jobs, headers=KEY)).expect(200)
    assert again.index == first.index
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
