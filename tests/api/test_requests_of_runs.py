"""What may be asked of a run: again, and, by a target that has taken it over, its end and its heartbeats."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core.commands import TakenOver, TakeOver
from tests.api.bench import Bench

REMOTE = {"type": "http", "url": "http://127.0.0.1:1/", "async": True}


async def taken_over(bench: Bench, name: str = "a", **fields: Any) -> Any:
    """A run by hand that its target has taken over."""
    await bench.put(name, executor=REMOTE, **fields)
    run = (await bench.ask("POST", f"/v1/jobs/{name}/runs", {"overlap": "allow"})).expect(202).json["run"]
    await bench.n1.propose(TakeOver([TakenOver(run["id"], run["fencing_token"], 60_000, 202)]))
    return (await bench.ask("GET", f"/v1/runs/{run['id']}")).json


async def test_a_target_ends_its_run(one: Bench) -> None:
    """With its token, as a number or as the header has it; once."""
    run = await taken_over(one)
    assert (run["state"], run["status_code"], run["heard_at"]) == ("running", 202, None)
    assert run["answer_by"] is not None
    where, body = f"/v1/runs/{run['id']}/finish", {"state": "succeeded", "message": "12 rows"}
    ended = (await one.ask("POST", where, {**body, "token": str(run["fencing_token"])})).expect(200)
    assert (ended.json["state"], ended.json["output_tail"], ended.json["answer_by"]) == ("succeeded", "12 rows", None)
    again = await one.ask("POST", where, {**body, "token": run["fencing_token"]})
    assert again.problem(409, "conflict")["detail"] == f"run {run['id']} has ended already: succeeded"


async def test_a_heartbeat_gives_its_target_more_time(one: Bench) -> None:
    """The timeout counts anew from it; the answer is the run, which tells of the end, too."""
    run = await taken_over(one)
    one.clock.wall_offset_ms += 30_000
    heard = (await one.ask("POST", f"/v1/runs/{run['id']}/heartbeat", {"token": run["fencing_token"]})).expect(200).json
    assert heard["heard_at"] is not None
    assert heard["answer_by"] > run["answer_by"]
    (await one.ask("POST", f"/v1/runs/{run['id']}/cancel")).expect(200)
    answer = await one.ask("POST", f"/v1/runs/{run['id']}/heartbeat", {"token": run["fencing_token"]})
    assert "has ended already: cancelled" in answer.problem(409, "conflict")["detail"]


async def test_who_shows_another_token_is_told_what_is_current(one: Bench) -> None:
    """409, and nothing changes."""
    run = await taken_over(one)
    for act, body in (("finish", {"state": "failed"}), ("heartbeat", {})):
        answer = await one.ask("POST", f"/v1/runs/{run['id']}/{act}", {**body, "token": run["fencing_token"] + 1})
        assert f"its token is {run['fencing_token']}, of attempt 1" in answer.problem(409, "conflict")["detail"]
        (await one.ask("POST", f"/v1/runs/nobody/{act}", {**body, "token": 1})).problem(404, "not_found")
    assert (await one.ask("GET", f"/v1/runs/{run['id']}")).json["state"] == "running"


async def test_a_run_that_its_node_ends_is_not_ended_from_outside(one: Bench) -> None:
    """Its token does not make it so: the process would go on."""
    await one.put("a")
    run = (await one.ask("POST", "/v1/jobs/a/runs")).json["run"]
    answer = await one.ask(
        "POST", f"/v1/runs/{run['id']}/finish", {"token": run["fencing_token"], "state": "succeeded"}
    )
    assert '"async": true' in answer.problem(409, "conflict")["detail"]


@pytest.mark.parametrize(
    ("act", "body", "pointers"),
    [
        ("finish", {}, ["/token", "/state"]),
        ("finish", {"token": -1, "state": "lost", "message": 5}, ["/token", "/state", "/message"]),
        ("finish", {"token": "1", "state": "failed", "message": "x" * 4_097}, ["/message"]),
        ("finish", {"token": True, "state": "failed"}, ["/token"]),
        ("heartbeat", {"token": "x"}, ["/token"]),
        ("heartbeat", {"token": 1, "state": "failed"}, ["/state"]),
        ("retry", {"overlap": "queue"}, ["/overlap"]),
        ("retry", {"args": 1}, ["/args"]),
    ],
)
async def test_every_fault_is_named(one: Bench, act: str, body: Any, pointers: list[str]) -> None:
    """By its pointer."""
    assert (await one.ask("POST", f"/v1/runs/x/{act}", body)).pointers(422, "invalid") == pointers


async def test_an_ended_run_is_run_again(one: Bench) -> None:
    """202 and a new run by hand that names the old one, with its scheduled time and args."""
    await one.put("a")
    old = (await one.ask("POST", "/v1/jobs/a/runs", {"args": [1]})).json["run"]
    where = f"/v1/runs/{old['id']}/retry"
    assert "has not ended" in (await one.ask("POST", where)).problem(409, "conflict")["detail"]
    await one.finish(old["id"], state="failed")
    answer = (await one.ask("POST", where)).expect(202)
    run = answer.json["run"]
    assert (run["cause"], run["retry_of"], run["args"], run["state"]) == ("manual", old["id"], [1], "running")
    assert run["scheduled_time"] == old["scheduled_time"]
    assert answer.headers["Location"] == f"/v1/runs/{run['id']}"
    blocked = (await one.ask("POST", where)).expect(202).json["run"]
    assert (blocked["state"], blocked["blocked_by"]) == ("skipped", run["id"])
    assert (await one.ask("POST", where, {"overlap": "allow"})).expect(202).json["run"]["state"] == "running"
    (await one.ask("POST", "/v1/runs/nobody/retry")).problem(404, "not_found")
    (await one.ask("DELETE", "/v1/jobs/a")).expect(204)
    assert "was deleted" in (await one.ask("POST", where)).problem(409, "conflict")["detail"]


async def test_a_repeated_request_is_answered_and_not_done_twice(two: Bench) -> None:
    """Each POST of a run under an Idempotency-Key, also where another node leads by then."""
    run = await taken_over(two)
    old = await taken_over(two)
    await two.finish(old["id"])
    token = {"token": run["fencing_token"]}
    asked = [
        (f"/v1/runs/{run['id']}/heartbeat", token),
        (f"/v1/runs/{run['id']}/finish", {**token, "state": "succeeded"}),
        (f"/v1/runs/{old['id']}/retry", {"overlap": "allow"}),
        (f"/v1/runs/{(await taken_over(two))['id']}/cancel", {}),
        ("/v1/jobs/a/runs", {"overlap": "allow"}),
    ]
    first = [await two.ask("POST", path, body, headers={"Idempotency-Key": path}) for path, body in asked]
    two.cluster.elect("n2")
    for (path, body), before in zip(asked, first, strict=True):
        again = await two.ask("POST", path, body, headers={"Idempotency-Key": path})
        assert again.expect(before.status).headers["Idempotency-Replayed"] == "true", path
        assert again.index == before.index
