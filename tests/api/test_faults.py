"""All that is wrong with a request is told in one answer: its parameters, and its body beside them."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.api.openapi.operations import OPERATIONS
from tests.api.bench import GOOD, Bench
from tests.api.test_openapi import make_ready, sent, target, three

__all__ = ["three"]

READS = sorted(
    (method, path) for (method, path), operation in OPERATIONS.items() if method == "GET" and 422 in operation.problems
)
WRITES = sorted((method, path) for (method, path) in OPERATIONS if method != "GET")
JUDGED = sorted(  # what judges a body of fields as a whole
    (method, path)
    for (method, path), operation in OPERATIONS.items()
    if operation.body is not None and operation.body.examples
)
KEPT = [  # a repeat of the others changes nothing by itself, or is refused: docs/http.md
    (method, path)
    for method, path in JUDGED
    if (not path.startswith("/v1/cluster/") or path.endswith("/drain")) and path != "/v1/schedules:explain"
]


@pytest.mark.parametrize(("method", "path"), READS)
async def test_a_read_names_every_parameter_that_is_wrong(three: Bench, method: str, path: str) -> None:
    """Those that nobody knows, and those that say what they cannot."""
    wrong = {"surprise": "1", "another": "2"}
    for one in OPERATIONS[method, path].query:
        if one.schema.get("type") == "integer":
            wrong[one.name] = "minus"
        elif "enum" in one.schema or one.name in ("since", "at", "label"):
            wrong[one.name] = "so-so"
    query = "&".join(f"{name}={value}" for name, value in wrong.items())
    answer = await three.ask(method, f"{target(path, three)}?{query}")
    assert set(answer.pointers(422)) == {f"?{name}" for name in wrong}


@pytest.mark.parametrize("on", ["n1", "n2"])
@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_parameter_that_nobody_knows_is_no_write(three: Bench, method: str, path: str, on: str) -> None:
    """Whatever the body says, and whoever is asked: 422, and the log is as it was."""
    operation = OPERATIONS[method, path]
    await make_ready(three, method, path)
    before = three.n1.log.applied_index
    body = next(iter(operation.body.examples.values()), None) if operation.body is not None else None
    headers = {} if operation.body is None or body is not None else {"Content-Type": next(iter(operation.body.types))}
    answer = await three.ask(method, target(path, three) + "?surprise=1", body, on=on, headers=headers)
    assert "?surprise" in answer.pointers(422)
    assert three.n1.log.applied_index == before


@pytest.mark.parametrize("on", ["n1", "n2"])
@pytest.mark.parametrize(("method", "path"), JUDGED)
async def test_parameters_and_body_are_judged_at_once(three: Bench, method: str, path: str, on: str) -> None:
    """One answer has both."""
    answer = await three.ask(method, target(path, three) + "?surprise=1", {"astonishment": 1}, on=on)
    assert {"?surprise", "/astonishment"} <= set(answer.pointers(422))


async def test_every_fault_of_a_job_stands_beside_that_of_a_parameter(three: Bench) -> None:
    body: dict[str, Any] = {**GOOD, "schedule": "never", "timeout": "soon", "overlap": {"policy": "shove"}}
    for query in ("?dry_run=perhaps", "?dry_run=1&surprise=1"):
        pointers = (await three.ask("PUT", f"/v1/jobs/a{query}", body)).pointers(422)
        assert pointers[0] == "?" + query[1:].split("&")[-1].split("=")[0]
        assert set(pointers[1:]) == {"/schedule", "/timeout", "/overlap/policy"}


async def test_what_cannot_be_read_at_all_stands_beside_it_too(three: Bench) -> None:
    answer = await three.ask("PUT", "/v1/jobs/a?surprise=1", data=b"{")
    assert answer.pointers(400, "malformed") == ["?surprise"]


async def test_a_wrong_parameter_needs_no_leader_to_be_told(three: Bench) -> None:
    """It is certain whoever leads; that there is none would send the caller to try again."""
    three.cluster.depose()
    assert (await three.ask("PUT", "/v1/jobs/a?surprise=1", GOOD)).pointers(422) == ["?surprise"]


@pytest.mark.parametrize(("method", "path"), KEPT)
async def test_a_recorded_key_goes_before_what_is_wrong_with_another_body(three: Bench, method: str, path: str) -> None:
    """409 on any node, and after a change of leader, however wrong the other body is; the first one is replayed."""
    operation = OPERATIONS[method, path]
    assert operation.body is not None
    body = next(one for one in operation.body.examples.values() if not one.get("dry_run"))
    if "token" in body:
        body = {**body, "token": three.taken["fencing_token"]}  # type: ignore[attr-defined]
    await make_ready(three, method, path)
    headers = sent(operation)
    first = await three.ask(method, target(path, three), body, headers=headers)
    assert 200 <= first.status < 300, first.body
    for leader in ("n1", "n2"):
        three.cluster.elect(leader)
        for on in ("n1", "n2", "n3"):
            for other in (b'{"astonishment": 1}', b"[]", b"{", b'"\xff"', b"[" * 100, b"null "):
                answer = await three.ask(method, target(path, three), data=other, on=on, headers=headers)
                answer.problem(409, "conflict")
                assert "another body" in answer.json["detail"]
            asked = await three.ask(method, target(path, three) + "?surprise=1", body, on=on, headers=headers)
            asked.problem(409, "conflict")
            again = await three.ask(method, target(path, three), body, on=on, headers=headers)
            assert (again.status, again.index) == (first.status, first.index)
            assert again.headers["Idempotency-Replayed"] == "true"


async def test_without_a_leader_a_wrong_body_is_told_whatever_its_key(three: Bench) -> None:
    three.cluster.depose()
    answer = await three.ask("PUT", "/v1/jobs/a", data=b"{", headers={"Idempotency-Key": "k"})
    answer.problem(400, "malformed")


async def test_a_backfill_is_replayed_after_its_job_has_gone(three: Bench) -> None:
    """The key was recorded: what is there now makes no difference."""
    body = {"from": "2026-01-31T00:00:00Z", "to": "2026-01-31T00:20:00Z"}
    headers = {"Idempotency-Key": "k"}
    first = (await three.ask("POST", "/v1/jobs/backup-db/backfill", body, headers=headers)).expect(200)
    (await three.ask("DELETE", "/v1/jobs/backup-db")).expect(204)
    again = (await three.ask("POST", "/v1/jobs/backup-db/backfill", body, headers=headers)).expect(200)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.index, again.json["count"]) == (first.index, first.json["count"])
