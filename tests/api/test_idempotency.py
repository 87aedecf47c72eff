"""Idempotency-Key on every write: once done it is not done again, and the answer says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from raftcron.core.apply import context
from raftcron.core.state import State
from raftcron.errors import UnavailableError
from raftcron.runtime import bulk
from raftcron.runtime.service import Service
from tests.api.bench import GOOD, Answer, Bench, bench

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


@pytest.fixture
async def three() -> AsyncIterator[Bench]:
    async with bench(3, hold_seconds=0.3) as made:
        yield made


async def repeated(made: Bench, method: str, path: str, body: Any, first: Answer, on: str = "n1") -> Answer:
    """The same again is told as it was, and changes nothing; another body is a conflict."""
    entries = len(made.cluster.entries)
    again = (await made.ask(method, path, body, on=on, headers=KEY)).expect(first.status)
    assert (again.index, again.headers["Idempotency-Replayed"]) == (first.index, "true")
    assert "Idempotency-Replayed" not in first.headers
    for other in (b"{", b'{"other": 1}'):
        answer = await made.ask(method, path, data=other, on=on, headers=KEY)
        assert "another body" in answer.problem(409, "conflict")["detail"]
    assert len(made.cluster.entries) == entries
    return again


async def test_a_member_is_added_and_removed_once(three: Bench) -> None:
    """Whatever became of it since: a repeat neither adds it once more nor removes it again."""
    n4 = {"name": "n4", "raft": "127.0.0.1:7204"}
    added = (await three.ask("POST", "/v1/cluster/members", n4, on="n2", headers=KEY)).expect(202)
    three.cluster.come("n4")
    three.cluster.promote("n4")
    again = await repeated(three, "POST", "/v1/cluster/members", n4, added)
    assert [one["standing"] for one in again.json["members"]] == ["voter"] * 4
    removed = (await three.ask("DELETE", "/v1/cluster/members/n4", headers=KEY)).expect(204)
    await repeated(three, "DELETE", "/v1/cluster/members/n4", None, removed, on="n2")
    await repeated(three, "POST", "/v1/cluster/members", n4, added)
    assert "n4" not in three.cluster.members.seats
    (await three.ask("POST", "/v1/cluster/members", n4)).expect(202)
    await repeated(three, "DELETE", "/v1/cluster/members/n4", None, removed)
    assert "n4" in three.cluster.members.seats


async def test_a_member_is_replaced_once(three: Bench) -> None:
    """A repeat does not ask whether it has ended: it may live again."""
    three.cluster.silent.add("n3")
    path = "/v1/cluster/members/n3/replace"
    replaced = (await three.ask("POST", path, headers=KEY)).expect(202)
    three.cluster.silent.clear()
    three.cluster.come("n3")
    await repeated(three, "POST", path, None, replaced)


async def test_a_refused_change_of_the_members_keeps_no_key(three: Bench) -> None:
    """Nothing was done under it; so it is done as soon as it can be."""
    three.cluster.silent.add("n3")
    (await three.ask("DELETE", "/v1/cluster/members/n2", headers=KEY)).problem(409, "unsafe_change")
    three.cluster.silent.clear()
    answer = (await three.ask("DELETE", "/v1/cluster/members/n2", headers=KEY)).expect(204)
    assert "Idempotency-Replayed" not in answer.headers


async def test_a_leader_that_is_removed_is_so_once(three: Bench) -> None:
    """It hands over under the same key, which its successor keeps."""
    removed = (await three.ask("DELETE", "/v1/cluster/members/n1", headers=KEY, on="n3")).expect(204)
    await repeated(three, "DELETE", "/v1/cluster/members/n1", None, removed, on="n3")


@pytest.mark.parametrize("body", [None, {"to": "n2"}])
async def test_the_lead_is_handed_over_once(three: Bench, body: Any) -> None:
    """A repeat leaves it where it is by then, and says so."""
    path = "/v1/cluster/transfer"
    first = (await three.ask("POST", path, body, on="n3", headers=KEY)).expect(200)
    assert first.json == {"leader": "n2"}
    for leader in ("n2", "n3"):
        three.cluster.elect(leader)
        assert (await repeated(three, "POST", path, body, first, on="n1")).json == {"leader": leader}


async def test_a_lead_that_stays_is_not_handed_over_later(three: Bench) -> None:
    """It was where it should be: a repeat does not fetch it back."""
    path, body = "/v1/cluster/transfer", {"to": "n1"}
    first = (await three.ask("POST", path, body, headers=KEY)).expect(200)
    three.cluster.elect("n2")
    assert (await repeated(three, "POST", path, body, first)).json == {"leader": "n2"}


async def test_a_lead_that_could_not_be_handed_over_is_so_by_the_repeat(
    three: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key alone says that it was asked for: as long as no other lead has begun, it is tried again."""
    with monkeypatch.context() as broken:

        async def refuse(to: str | None = None) -> None:
            raise UnavailableError("nobody is close enough")

        broken.setattr(three.n1.log, "transfer", refuse)
        (await three.ask("POST", "/v1/cluster/transfer", {"to": "n3"}, headers=KEY)).problem(503)
    answer = (await three.ask("POST", "/v1/cluster/transfer", {"to": "n3"}, headers=KEY)).expect(200)
    assert answer.json == {"leader": "n3"}
    told = [one.summary for one in three.n1.machine.state.audit.values() if "handed over" in one.summary]
    assert told == ["lead to be handed over by n1 to n3"]


async def test_the_time_is_accepted_once(two: Bench) -> None:
    """A repeat does not accept the clock of whoever leads by then."""
    path = "/v1/cluster/accept-time"
    first = (await two.ask("POST", path, on="n2", headers=KEY)).expect(200)
    two.cluster.elect("n2")
    await repeated(two, "POST", path, None, first)


JOBS = [{**GOOD, "name": f"job-{place:02}"} for place in range(25)]
LINES = {**KEY, "Content-Type": "application/x-ndjson"}


def lines(jobs: list[dict[str, Any]]) -> bytes:
    return b"\n".join(json.dumps(job).encode() for job in jobs)


@pytest.mark.parametrize("count", [0, 10, 20, 24, 26, 31])
@pytest.mark.parametrize("as_lines", [False, True])
async def test_a_shorter_or_longer_bulk_request_under_the_key_is_a_conflict(
    one: Bench, monkeypatch: pytest.MonkeyPatch, count: int, as_lines: bool
) -> None:
    """Also where its chunks are the former ones, as far as there are both; nothing of it is written."""
    monkeypatch.setattr(bulk, "CHUNK_JOBS", 5)
    longer = JOBS + [{**GOOD, "name": f"more-{place}"} for place in range(6)]

    async def ask(jobs: list[dict[str, Any]]) -> Answer:
        if as_lines:
            return await one.ask("POST", "/v1/jobs:apply", data=lines(jobs), headers=LINES)
        return await one.ask("POST", "/v1/jobs:apply", {"jobs": jobs}, headers=KEY)

    first = (await ask(JOBS)).expect(200)
    index = one.n1.machine.state.index
    assert "another body" in (await ask(longer[:count])).problem(409, "conflict")["detail"]
    again = (await ask(JOBS)).expect(200)
    assert (again.index, again.headers["Idempotency-Replayed"]) == (first.index, "true")
    assert (one.n1.machine.state.index, len(one.n1.machine.state.jobs)) == (index, 25)


async def test_what_stands_beside_the_jobs_belongs_to_the_body(one: Bench) -> None:
    """The same jobs with another owner are another request."""
    (await one.ask("POST", "/v1/jobs:apply", {"jobs": JOBS}, headers=KEY)).expect(200)
    owned = await one.ask("POST", "/v1/jobs:apply", {"jobs": JOBS, "owner": "me"}, headers=KEY)
    owned.problem(409, "conflict")


@pytest.mark.parametrize("headers", [KEY, LINES])
async def test_a_repeat_of_a_bulk_request_prunes_no_more(one: Bench, headers: dict[str, str]) -> None:
    """What the owner has made since was not asked about."""
    body = lines(JOBS[:2]) if headers is LINES else json.dumps({"jobs": JOBS[:2]}).encode()
    path = "/v1/jobs:apply?prune=1&owner=me"
    (await one.ask("POST", path, data=body, headers=headers)).expect(200)
    (await one.ask("POST", "/v1/jobs:apply", {"jobs": [{**GOOD, "name": "new"}], "owner": "me"})).expect(200)
    (await one.ask("POST", path, data=body, headers=headers)).expect(200)
    assert "new" in one.n1.machine.state.jobs


async def test_a_bulk_request_that_broke_off_is_finished_by_its_repeat(
    two: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chunks that are written are not written again, the others are; then it is over for good."""
    monkeypatch.setattr(bulk, "CHUNK_JOBS", 5)
    whole, broken = lines(JOBS), lines(JOBS[:10]) + b"\n" + b"x" * (1 << 20)
    path = "/v1/jobs:apply"
    (await two.ask("POST", path, data=broken + b"x", headers=LINES, on="n2")).problem(413)
    assert len(two.n1.machine.state.jobs) in (5, 10)
    (await two.ask("POST", path, data=whole, headers=LINES, on="n2")).expect(200)
    assert len(two.n1.machine.state.jobs) == 25
    (await two.ask("POST", path, data=lines(JOBS[:10]), headers=LINES, on="n2")).problem(409, "conflict")


async def test_a_bulk_request_whose_key_expires_while_it_is_read_says_nothing_of_jobs_that_it_left(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It left them since they were written before; once nothing says so any more, it has to be repeated."""
    (await one.ask("POST", "/v1/jobs:apply", {"jobs": JOBS[:2]}, headers=KEY)).expect(200)
    for name in ("job-00", "job-01"):
        (await one.ask("DELETE", f"/v1/jobs/{name}")).expect(204)
    with monkeypatch.context() as slow:

        async def expire(service: Service, body: Any) -> None:
            slow.setattr(context, "KEY_LIFE_MS", 0)

        slow.setattr(Service, "ready_for", expire)
        (await one.ask("POST", "/v1/jobs:apply", {"jobs": JOBS[:2]}, headers=KEY)).problem(503)


async def test_what_was_done_though_its_key_found_no_room_is_not_called_refused(
    three: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 429 would say that nothing was done."""
    remove = three.n1.log.remove

    async def removes(name: str) -> int:
        index = await remove(name)
        monkeypatch.setattr(State, "keys_are_full", True)
        return index

    monkeypatch.setattr(three.n1.log, "remove", removes)
    answer = await three.ask("DELETE", "/v1/cluster/members/n2", headers=KEY)
    assert "it was done" in answer.problem(504)["detail"]
