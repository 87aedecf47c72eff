"""POST /v1/jobs:apply: chunks, per-job results, lines, pruning by owner, dry runs, repeats."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from raftcron.api import bodies
from raftcron.api import bulk as api_bulk
from raftcron.api.bulk import _split
from raftcron.clock import SystemClock
from raftcron.runtime import bulk
from tests.api.bench import GOOD, NEVER, Bench

LINES = {"Content-Type": "application/x-ndjson"}


def jobs(*names: str, **fields: Any) -> list[dict[str, Any]]:
    return [{**GOOD, "name": name, **fields} for name in names]


def lines(*bodies: Any) -> bytes:
    return b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in bodies)


def told(answer: Any) -> list[tuple[str, int, str]]:
    return [(one["name"], one["status"], one["result"]) for one in answer.json["results"]]


async def test_each_job_is_told_what_it_met(one: Bench) -> None:
    """Created, replaced, unchanged, and invalid with its faults; one that is wrong does not stop the others."""
    await one.ask("POST", "/v1/jobs:apply", {"jobs": jobs("a", "b")})
    sent = [*jobs("a"), *jobs("b", description="new"), *jobs("c"), {"name": "d", "schedule": "nonsense"}]
    answer = (await one.ask("POST", "/v1/jobs:apply", {"jobs": sent})).expect(200)
    assert told(answer) == [
        ("a", 200, "unchanged"),
        ("b", 200, "replaced"),
        ("c", 201, "created"),
        ("d", 422, "invalid"),
    ]
    assert [fault["pointer"] for fault in answer.json["results"][3]["errors"]] == ["/executor", "/schedule"]
    assert sorted(one.n1.machine.state.jobs) == ["a", "b", "c"]
    assert answer.index == one.n1.machine.state.index


async def test_nothing_taken_is_a_422_with_the_same_results(one: Bench) -> None:
    """As a problem document."""
    answer = await one.ask("POST", "/v1/jobs:apply", {"jobs": [{"name": "x"}, {"schedule": "* * * * *"}, 7]})
    assert answer.problem(422, "invalid")["results"] == answer.json["results"]
    assert [(each["name"], each["status"]) for each in answer.json["results"]] == [("x", 422), (None, 422), (None, 422)]


@pytest.mark.parametrize("on", ["n1", "n2"])
async def test_lines_are_taken_as_they_come(two: Bench, on: str) -> None:
    """Through the leader and through another node; empty lines and a missing last newline do not matter."""
    body = lines(*jobs("a", "b"), b"", b"{oops", *jobs("c"))
    answer = (await two.ask("POST", "/v1/jobs:apply", data=body, headers=LINES, on=on)).expect(200)
    assert [each["status"] for each in answer.json["results"]] == [201, 201, 400, 201]
    assert sorted(two.nodes[on].machine.state.jobs) == ["a", "b", "c"]


async def test_a_chunk_is_one_entry(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many jobs, so many entries; each job has an id of its own."""
    monkeypatch.setattr(bulk, "CHUNK_JOBS", 10)
    before = one.n1.machine.state.index
    names = [f"job-{place:02}" for place in range(25)]
    (await one.ask("POST", "/v1/jobs:apply", {"jobs": jobs(*names)})).expect(200)
    assert one.n1.machine.state.index == before + 3
    assert len({job.uid for job in one.n1.machine.state.jobs.values()}) == 25


async def test_a_repeat_under_the_same_key_writes_nothing_new(one: Bench) -> None:
    """Nor does it undo what happened to a job since; other jobs under the key are a conflict."""
    headers = {"Idempotency-Key": "k1"}
    first = (await one.ask("POST", "/v1/jobs:apply", {"jobs": jobs("a", "b")}, headers=headers)).expect(200)
    await one.put("a", description="edited since")
    again = (await one.ask("POST", "/v1/jobs:apply", {"jobs": jobs("a", "b")}, headers=headers)).expect(200)
    assert [each["name"] for each in again.json["results"]] == [each["name"] for each in first.json["results"]]
    assert (await one.ask("GET", "/v1/jobs/a")).json["description"] == "edited since"
    (await one.ask("POST", "/v1/jobs:apply", {"jobs": jobs("a")}, headers=headers)).problem(409, "conflict")


async def test_a_name_that_stands_twice_is_told(one: Bench) -> None:
    """The first one is taken."""
    answer = (await one.ask("POST", "/v1/jobs:apply", {"jobs": jobs("a", "a")})).expect(200)
    assert [each["status"] for each in answer.json["results"]] == [201, 422]


async def test_prune_deletes_what_the_owner_no_longer_sends(one: Bench) -> None:
    """And nothing of others; not where a job failed."""
    await one.ask("POST", "/v1/jobs:apply", {"jobs": jobs("a", "b"), "owner": "me"})
    await one.ask("POST", "/v1/jobs:apply", {"jobs": jobs("x"), "owner": "you"})
    await one.put("z")
    bad = {"jobs": [*jobs("a"), {"name": "b"}], "owner": "me", "prune": True}
    assert "deleted" not in str((await one.ask("POST", "/v1/jobs:apply", bad)).expect(200).json)
    body = {"jobs": jobs("a"), "owner": "me", "prune": True}
    dry = (await one.ask("POST", "/v1/jobs:apply?dry_run=1", body)).expect(200)
    assert told(dry) == [("a", 200, "unchanged"), ("b", 204, "deleted")]
    assert "b" in one.n1.machine.state.jobs
    done = (await one.ask("POST", "/v1/jobs:apply?prune=1&owner=me", data=lines(*jobs("a")), headers=LINES)).expect(200)
    assert told(done) == told(dry)
    assert sorted(one.n1.machine.state.jobs) == ["a", "x", "z"]


async def test_a_dry_run_writes_nothing(one: Bench) -> None:
    """It tells what would be done."""
    await one.put("b")
    index = one.n1.machine.state.index
    sent = {"jobs": [*jobs("a", "b"), *jobs("c", timezone="Nowhere")], "dry_run": True}
    assert told((await one.ask("POST", "/v1/jobs:apply", sent)).expect(200)) == [
        ("a", 201, "created"),
        ("b", 200, "unchanged"),
        ("c", 422, "invalid"),
    ]
    assert one.n1.machine.state.index == index


async def test_a_dry_run_foresees_another_owner(one: Bench) -> None:
    """To be owned is a change, too; what the write then answers is the same."""
    await one.put("a")
    foreseen = told((await one.ask("POST", "/v1/jobs:apply?dry_run=1", {"jobs": jobs("a"), "owner": "me"})).expect(200))
    done = told((await one.ask("POST", "/v1/jobs:apply", {"jobs": jobs("a"), "owner": "me"})).expect(200))
    assert foreseen == done == [("a", 200, "replaced")]
    again = {"jobs": jobs("a"), "owner": "me", "dry_run": True}
    assert told((await one.ask("POST", "/v1/jobs:apply", again)).expect(200)) == [("a", 200, "unchanged")]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 422),
        (b'{"jobs": 3}', 422),
        (b'{"jobs": ' + b"[" * 5_000, 400),
        (b'{"jobs": [' + b"[" * 5_000 + b"]" * 5_000 + b"]}", 400),
        (b'{"jobs": [' + b"[" * 600_000 + b"]" * 600_000 + b"]}", 400),
        (b'{"jobs": [], "prune": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", 400),
        (b'{"\xff": 1}', 400),
        (b'{"jobs": [], "nonsense": 1}', 422),
        (b'{"jobs": [], "prune": true}', 422),
        (b'{"jobs": [], "owner": 3}', 422),
        (b'{"jobs": []}', 200),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else None,
)
async def test_a_body_that_is_not_understood_does_nothing(one: Bench, body: bytes, status: int) -> None:
    """What is wrong is said; an empty list is no mistake."""
    answer = await one.ask("POST", "/v1/jobs:apply", data=body)
    if status != 200:
        answer.problem(status)
    else:
        assert answer.expect(200).json["results"] == []


@pytest.mark.parametrize(
    ("body", "status", "pointers"),
    [
        (b"[" + b"0," * 600_000 + b"0]", 422, [""]),
        (b'{"jobs": {"a": [' + b"0," * 600_000 + b"0]}}", 422, ["/jobs"]),
        (b'{"jobs": [], "prune": [' + b"0," * 600_000 + b"0]}", 422, ["/prune"]),
        (b'{"jobs": [' + b"0," * 600_000 + b"0", 400, []),
    ],
    ids=["array", "object", "field", "broken"],
)
async def test_a_large_body_of_another_shape_is_not_walked(
    one: Bench, monkeypatch: pytest.MonkeyPatch, body: bytes, status: int, pointers: list[str]
) -> None:
    """32 MiB of values would hold the loop for seconds: what is wrong is told from where the first look ended."""

    def walk(body: bytes) -> None:
        raise AssertionError(len(body))

    monkeypatch.setattr(bodies, "_walked", walk)
    problem = (await one.ask("POST", "/v1/jobs:apply", data=body)).problem(status)
    assert [fault["pointer"] for fault in problem.get("errors", [])] == pointers


@pytest.mark.parametrize("space", [0, bodies.JOB_BYTES_MAX], ids=["small", "large"])
@pytest.mark.parametrize(
    ("fields", "key"),
    [
        (b'"jobs": [], "jobs": JOBS', "jobs"),
        (b'"jobs": JOBS, "owner": "me", "jobs": []', "jobs"),
        (b'"jobs": JOBS, "\\u006aobs": JOBS', "jobs"),
        (b'"jobs" :JOBS , "dry_run": true, "dry_run": false', "dry_run"),
    ],
)
async def test_a_key_that_is_there_twice_is_refused_by_name(one: Bench, fields: bytes, key: str, space: int) -> None:
    """In a body of any size; none of the two is taken."""
    body = b" {" + fields.replace(b"JOBS", json.dumps(jobs("a")).encode()) + b" " * space + b"} "
    problem = (await one.ask("POST", "/v1/jobs:apply", data=body)).problem(400, "malformed")
    assert f"'{key}' is twice" in problem["detail"]
    assert not one.n1.machine.state.jobs


async def test_a_key_may_stand_again_within_a_job(one: Bench) -> None:
    """Only twice in one object is too often."""
    sent = {"jobs": jobs("a", labels={"jobs": '"jobs": ['}, owner="me"), "owner": "me"}
    (await one.ask("POST", "/v1/jobs:apply", sent)).expect(200)


ZEROS = b'{"jobs": [' + b"0," * (4 << 20) + b"0]}"


async def test_a_large_body_leaves_turns_for_others(one: Bench) -> None:
    """8 MiB of values that are no jobs: what is wrong is named for the first, and no turn takes as much as 50 ms."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()  # of this thread, whatever else the machine does
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    def ask() -> Any:
        asking = http.client.HTTPConnection(one.n1.url.removeprefix("http://"))
        with contextlib.closing(asking):
            asking.request("POST", "/v1/jobs:apply", ZEROS, {"Content-Type": "application/json"})
            return json.load(asking.getresponse())

    gc.freeze()  # what the tests before have left is not walked meanwhile
    ticking = asyncio.create_task(tick())
    try:
        problem = await asyncio.to_thread(ask)  # what the client does is no turn of the node
    finally:
        ticking.cancel()
        gc.unfreeze()
    assert [fault["pointer"] for fault in problem["errors"]] == [f"/jobs/{place}" for place in range(100)]
    assert longest < 0.05


async def test_a_large_body_is_not_taken_apart_at_once() -> None:
    """What is held beside it is no more than the job that is asked for."""
    tracemalloc.start()
    try:
        jobs, _ = await _split(ZEROS, SystemClock(), [])
        first = [sent.body async for sent in islice_of(jobs, 100)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert first == [0] * 100
    assert peak < 1 << 20


async def islice_of(jobs: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    """The first so many."""
    for _ in range(count):
        yield await anext(jobs)


async def test_jobs_that_are_none_are_told_up_to_a_bound(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a result until there are too many; then the request ends, and says that those before are written."""
    monkeypatch.setattr(api_bulk, "STRAYS_MAX", 2)
    monkeypatch.setattr(bulk, "CHUNK_JOBS", 1)
    answer = (await one.ask("POST", "/v1/jobs:apply", {"jobs": [7, *jobs("a"), {}]})).expect(200)
    assert [each["status"] for each in answer.json["results"]] == [422, 201, 422]
    for headers in (LINES, None):
        sent = [7, *jobs("b"), {"schedule": NEVER}, {"name": 3}, *jobs("c")]
        body = lines(*sent) if headers else json.dumps({"jobs": sent}).encode()
        problem = (await one.ask("POST", "/v1/jobs:apply", data=body, headers=headers)).problem(422, "invalid")
        assert [fault["pointer"] for fault in problem["errors"]] == ["/jobs/0", "/jobs/2/name", "/jobs/3/name"]
    assert sorted(one.n1.machine.state.jobs) == ["a", "b"]


async def test_the_faults_of_so_many_jobs_are_named(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the first; of each other one, in whichever chunk, that it is at fault, and what to do."""
    monkeypatch.setattr(bulk, "FAULTY_TOLD", 2)
    monkeypatch.setattr(bulk, "CHUNK_JOBS", 2)
    bad = [{"name": f"bad-{number}", "schedule": "nonsense"} for number in range(4)]
    sent = [bad[0], *jobs("a"), *bad[1:], *jobs("b")]
    answer = (await one.ask("POST", "/v1/jobs:apply", {"jobs": sent})).expect(200)
    assert [each["status"] for each in answer.json["results"]] == [422, 201, 422, 422, 422, 201]
    errors = [each["errors"] for each in answer.json["results"] if each["status"] == 422]
    assert [[fault["pointer"] for fault in each] for each in errors] == [["/executor", "/schedule"]] * 2 + [[""]] * 2
    assert "send it again" in errors[-1][0]["message"]


async def test_too_many_lists_are_too_large(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bracket is looked at by itself, so they are counted before."""
    monkeypatch.setattr(api_bulk, "LISTS_MAX", 100)
    (await one.ask("POST", "/v1/jobs:apply", data=b'{"jobs": [' + b"[]," * 100 + b"0]}")).problem(413, "too_large")


async def test_what_stands_beside_the_jobs_of_a_large_body_is_named(one: Bench) -> None:
    """The first field that there is not, where the body is too large to look at each."""
    body = b'{"nonsens": 1, "dry_rum": true, "jobs": [' + b" " * bodies.JOB_BYTES_MAX + b"]}"
    problem = (await one.ask("POST", "/v1/jobs:apply", data=body)).problem(422, "invalid")
    assert [fault["pointer"] for fault in problem["errors"]] == ["/nonsens"]


async def test_a_job_that_is_too_large_has_its_own_result(one: Bench) -> None:
    """Those beside it are taken."""
    large = {**jobs("b")[0], "description": "x" * bodies.JOB_BYTES_MAX}
    answer = (await one.ask("POST", "/v1/jobs:apply", {"jobs": [*jobs("a"), large, *jobs("c")]})).expect(200)
    assert [each["status"] for each in answer.json["results"]] == [201, 413, 201]


async def test_a_chunk_ends_where_its_bytes_do(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry holds so many bytes: large jobs make more entries than small ones; one that is larger has its own."""
    sizes = (100, 100, 100, 900, 100)
    sent = [{**jobs(f"j{place}")[0], "description": "x" * size} for place, size in enumerate(sizes)]
    monkeypatch.setattr(bulk, "CHUNK_BYTES", 2 * len(lines(sent[0])))
    before = one.n1.machine.state.index
    (await one.ask("POST", "/v1/jobs:apply", data=lines(*sent), headers=LINES)).expect(200)
    revisions = [one.n1.machine.state.jobs[f"j{place}"].revision - before for place in range(5)]
    assert revisions == [1, 1, 2, 3, 4]


async def test_more_jobs_than_a_request_takes_are_too_large(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 504 would have the client send them again for ever."""
    monkeypatch.setattr(bulk, "JOBS_MAX", 2)
    for headers in (LINES, None):
        body = lines(*jobs("a", "b", "c")) if headers else json.dumps({"jobs": jobs("a", "b", "c")}).encode()
        (await one.ask("POST", "/v1/jobs:apply", data=body, headers=headers)).problem(413, "too_large")


async def test_other_types_are_refused(one: Bench) -> None:
    """A form cannot send jobs."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/merge-patch+json"):
        answer = await one.ask("POST", "/v1/jobs:apply", data=b"{}", headers={"Content-Type": kind})
        answer.problem(415, "media_type")


async def test_a_leader_that_is_lost_on_the_way_leaves_no_doubt_about_a_503(
    two: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a chunk is written the outcome is unknown, never "certainly not written"."""
    monkeypatch.setattr(bulk, "CHUNK_JOBS", 1)
    machine = two.n1.machine

    class Depose:
        def state_changed(self, runs: Any) -> None:
            if "a" in machine.state.jobs:
                two.cluster.depose()

        def state_replaced(self) -> None:
            pass

    machine.observe(Depose())
    answer = await two.ask("POST", "/v1/jobs:apply", {"jobs": jobs("a", "b")})
    assert "a" in machine.state.jobs
    answer.problem(504, "unknown_outcome")


async def test_a_leader_that_is_lost_while_it_prunes_leaves_no_doubt_about_a_503(
    two: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one chunk has deleted is a write, also where nothing else was one."""
    monkeypatch.setattr(bulk, "CHUNK_JOBS", 1)
    machine = two.n1.machine
    (await two.ask("POST", "/v1/jobs:apply?owner=me", {"jobs": jobs("a", "b", "c")})).expect(200)

    class Depose:
        def state_changed(self, runs: Any) -> None:
            if len(machine.state.jobs) == 2:
                two.cluster.depose()

        def state_replaced(self) -> None:
            pass

    machine.observe(Depose())
    answer = await two.ask("POST", "/v1/jobs:apply", {"jobs": [], "owner": "me", "prune": True})
    assert len(machine.state.jobs) == 2
    answer.problem(504, "unknown_outcome")


async def test_the_work_is_cut_in_slices(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other requests are served while many jobs are checked."""
    monkeypatch.setattr(bulk, "SLICE_SECONDS", 0.0)
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    ticking = asyncio.create_task(tick())
    answer = await one.ask("POST", "/v1/jobs:apply?dry_run=1", {"jobs": jobs(*(f"j{place}" for place in range(400)))})
    ticking.cancel()
    answer.expect(200)
    assert turns >= 400
