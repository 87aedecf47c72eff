"""/v1/jobs on one node: create, replace, change, delete, pause, resume, and what is answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from raftcron.core import definition
from raftcron.core.codec import encode_entry
from raftcron.core.commands import Decide, Decision, Entry, Fire, Place, PutJob
from raftcron.core.instant import rfc3339
from raftcron.core.schedule import next_of, parse
from tests.api.bench import GOOD, NEVER, NOOP, Bench

MERGE = {"Content-Type": "application/merge-patch+json"}
CONTRACT_ORDER = (  # noqa: SIM905 - words are easier to compare with the page
    "name schedule timezone executor timeout kill_after start_deadline delivery isolation retry misfire overlap "
    "placement group dst hash_key exclude jitter start_at end_at max_runs paused after join labels description history "
    "alerts uid owner revision created_at updated_at next_fire_at last_run stats"
).split()


async def test_a_new_job_is_answered_whole(one: Bench) -> None:
    """201 with every field of the contract in its order, the revision as ETag and the index of the write."""
    answer = (await one.put("backup-db", labels={"team": "db"})).expect(201)
    job = answer.json
    assert list(job)[: len(CONTRACT_ORDER)] == CONTRACT_ORDER
    assert job["revision"] == answer.index
    assert answer.headers["ETag"] == f'"{answer.index}"'
    assert answer.headers["Location"] == "/v1/jobs/backup-db"
    assert (job["name"], job["owner"], job["paused"], job["last_run"]) == ("backup-db", None, False, None)
    assert job["labels"] == {"team": "db"}
    assert job["next_fire_at"].endswith("-02-29T00:00:00Z")
    assert job["stats"]["fired"] == 0
    got = (await one.ask("GET", "/v1/jobs/backup-db")).expect(200)
    assert got.json == job
    assert got.headers["ETag"] == answer.headers["ETag"]


async def test_an_identical_put_keeps_the_revision(one: Bench) -> None:
    """What is got can be put back, and what differs only in defaults is the same."""
    created = (await one.put("a", retry={"max_attempts": 3}, owner="ops")).expect(201).json
    again = (await one.ask("PUT", "/v1/jobs/a", created)).expect(200).json
    assert again == created
    spelled = (await one.put("a", retry={"max_attempts": 3, "on": ["failed"]}, timezone="UTC")).expect(200).json
    assert spelled["revision"] == created["revision"]
    changed = (await one.put("a", retry={"max_attempts": 4})).expect(200).json
    assert changed["revision"] > created["revision"]
    assert changed["uid"] == created["uid"]
    assert changed["owner"] == "ops"


async def test_post_creates_once(one: Bench) -> None:
    """201 the first time, 409 the second, 422 without a name."""
    assert (await one.ask("POST", "/v1/jobs", {**GOOD, "name": "a"})).expect(201).headers["Location"] == "/v1/jobs/a"
    (await one.ask("POST", "/v1/jobs", {**GOOD, "name": "a"})).problem(409, "conflict")
    assert (await one.ask("POST", "/v1/jobs", GOOD)).pointers() == ["/name"]


async def test_preconditions(one: Bench) -> None:
    """If-Match takes the present revision alone, If-None-Match: * no job at all; 412 else, 400 for what is no tag."""
    revision = (await one.put("a")).json["revision"]

    async def put(name: str, **headers: str) -> Any:
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        return await one.put(name, description=str(headers), headers=sent)

    (await put("a", If_None_Match="*")).problem(412, "revision")
    (await put("a", If_Match='"1"')).problem(412, "revision")
    for no_revision in ('"of-another-kind"', f'W/"{revision}"'):
        refused = (await put("a", If_Match=no_revision)).problem(412, "revision")
        assert refused["detail"] == (
            'If-Match names no revision of job \'a\', as "7" does and a weak W/"7" never does: '
            f"it is at revision {revision}; get it again and merge"
        )
    (await put("a", If_Match=str(revision))).problem(400, "malformed")
    (await put("a", If_None_Match=f'"{revision}"')).problem(412, "revision")
    (await put("b", If_Match="*")).problem(412, "revision")
    (await put("b", If_None_Match="*")).expect(201)
    (await put("a", If_Match=f'"1", "{revision}"')).expect(200)
    (await one.ask("DELETE", "/v1/jobs/a", headers={"If-Match": f'"{revision}"'})).problem(412)
    (await one.ask("PATCH", "/v1/jobs/a", {}, headers={**MERGE, "If-Match": f'"{revision}"'})).problem(412)
    (await one.ask("POST", "/v1/jobs/a/pause", headers={"If-Match": f'"{revision}"'})).problem(412)


async def test_a_patch_merges_into_what_was_written(one: Bench) -> None:
    """RFC 7396: null removes, objects merge, server-set fields are ignored, the rest stays as it was written."""
    await one.put("a", retry={"max_attempts": 3}, labels={"x": "1", "y": "2"}, description="old", owner="ops")
    patch = {
        "labels": {"x": None, "z": "3"},
        "description": None,
        "revision": 1,
        "stats": None,
        "misfire": {"grace": "5s"},
    }
    patched = (await one.ask("PATCH", "/v1/jobs/a", patch, headers=MERGE)).expect(200).json
    assert patched["labels"] == {"y": "2", "z": "3"}
    assert patched["description"] == ""
    assert patched["retry"]["max_attempts"] == 3
    assert patched["misfire"] == {"policy": "once", "grace": "5s", "window": "24h", "max": 100}
    assert patched["owner"] == "ops"
    (await one.ask("PATCH", "/v1/jobs/a", {"schedule": None}, headers=MERGE)).pointers(422, "invalid")
    (await one.ask("PATCH", "/v1/jobs/nobody", {}, headers=MERGE)).problem(404, "not_found")
    assert (await one.ask("GET", "/v1/jobs/a")).json == patched


async def test_delete(one: Bench) -> None:
    """204 without a body, then 404; runs of the job stay readable by id."""
    await one.put("a")
    run = (await one.ask("POST", "/v1/jobs/a/runs")).expect(202).json["run"]
    answer = (await one.ask("DELETE", "/v1/jobs/a?cancel_running=1")).expect(204)
    assert answer.body == b""
    assert answer.index > run["log_index"]
    (await one.ask("DELETE", "/v1/jobs/a")).problem(404, "not_found")
    (await one.ask("GET", "/v1/jobs/a")).problem(404)
    assert (await one.ask("GET", f"/v1/runs/{run['id']}")).expect(200).json["state"] == "cancelling"


async def test_pause_and_resume(one: Bench) -> None:
    """A paused job shows no next time; resuming takes it up again; an end has to lie ahead."""
    await one.put("a")
    paused = (await one.ask("POST", "/v1/jobs/a/pause", {"note": "maintenance"})).expect(200).json
    assert (paused["paused"], paused["pause_note"], paused["next_fire_at"]) == (True, "maintenance", None)
    assert (await one.ask("POST", "/v1/jobs/a/resume", {"catch_up": 1})).pointers(422, "invalid") == ["/catch_up"]
    for bad in ("2020-01-01T00:00:00Z", "tomorrow", 5):
        assert (await one.ask("POST", "/v1/jobs/a/pause", {"until": bad})).pointers(422, "invalid") == ["/until"]
    until = "2099-01-01T00:00:00Z"
    assert (await one.ask("POST", "/v1/jobs/a/pause", {"until": until})).expect(200).json["pause_until"] == until
    assert (await one.ask("POST", "/v1/jobs/a/pause", {"nota": 1})).pointers(422, "invalid") == ["/nota"]
    resumed = (await one.ask("POST", "/v1/jobs/a/resume")).expect(200).json
    assert (resumed["paused"], resumed["pause_note"]) == (False, None)
    assert resumed["next_fire_at"] is not None
    (await one.ask("POST", "/v1/jobs/nobody/resume")).problem(404)


async def test_paused_is_honoured_when_present_and_kept_when_absent(one: Bench) -> None:
    """A body that does not speak of it leaves the pause as it is."""
    assert (await one.put("a", paused=True)).json["paused"] is True
    assert (await one.put("a", description="other")).json["paused"] is True
    assert (await one.put("a", paused=False)).json["paused"] is False


async def test_an_edit_decides_what_was_due_before_it(one: Bench) -> None:
    """An edit stands in one entry with the decisions of the old definition, so that no time is lost or fired anew."""
    await one.put("a", schedule="* * * * * *", overlap={"policy": "allow"})
    one.clock.wall_offset_ms += 3_000
    edited = (await one.put("a", schedule=NEVER)).expect(200).json
    rows = (await one.ask("GET", "/v1/jobs/a/runs")).json["items"]
    assert len(rows) == 3
    assert {row["log_index"] for row in rows} == {edited["revision"]}
    assert edited["stats"]["fired"] == 0  # counted anew since the edit


async def test_delete_decides_what_was_due_before_it(one: Bench) -> None:
    """Those runs end skipped: deleted."""
    await one.put("a", schedule="* * * * * *", overlap={"policy": "allow"})
    one.clock.wall_offset_ms += 2_000
    (await one.ask("DELETE", "/v1/jobs/a")).expect(204)
    rows = (await one.ask("GET", "/v1/runs?job=a")).json["items"]
    assert [(row["state"], row["reason"]) for row in rows] == [("skipped", "deleted")] * 2


async def test_a_resume_accounts_for_what_was_not_owed(one: Bench) -> None:
    """One `paused` row for the times of the pause."""
    await one.put("a", schedule="* * * * * *")
    await one.ask("POST", "/v1/jobs/a/pause")
    one.clock.wall_offset_ms += 5_000
    (await one.ask("POST", "/v1/jobs/a/resume")).expect(200)
    rows = (await one.ask("GET", "/v1/jobs/a/runs")).json["items"]
    assert [(row["state"], row["reason"], row["count"]) for row in rows] == [("skipped", "paused", 5)]


async def test_a_one_off_in_the_past(one: Bench) -> None:
    """Inside the misfire window it is taken; beyond it is refused, but a job that has it already can be written."""
    at = "2020-01-01T00:00:00Z"
    refused = await one.put("a", schedule=f"@at {at}")
    assert refused.pointers(422, "invalid") == ["/schedule"]
    window = {"window": "3650d"}
    (await one.put("a", schedule=f"@at {at}", misfire=window)).expect(201)
    (await one.put("a", schedule=f"@at {at}", description="over")).expect(200)
    (await one.put("a", schedule=f"@at {at}", misfire=window, timezone="Europe/Berlin")).expect(200)


@pytest.mark.parametrize("beside", ["@hourly", "@manual", "@every 5m"])
async def test_a_one_off_in_the_past_that_would_never_fire(one: Bench, beside: str) -> None:
    """Inside the window only a new job of nothing else takes it: beside another schedule, or in an edit, it is refused.

    The watermark of such a job has passed it, so that it would be dropped without a word.
    """
    past, ahead = "@at 2027-01-15T07:59:00Z", "@at 2027-01-15T08:01:00Z"
    refused = await one.put("a", schedule=[beside, past])
    assert refused.pointers(422, "invalid") == ["/schedule/1"]
    assert "name an instant to come" in refused.problem(422, "invalid")["errors"][0]["message"]
    (await one.put("a", schedule=[beside, ahead])).expect(201)
    assert (await one.put("a", schedule=past)).pointers(422, "invalid") == ["/schedule"]
    one.clock.wall_offset_ms += 120_000
    (await one.put("a", schedule=[beside, ahead], description="over")).expect(200)
    (await one.put("b", schedule=[past, "@AT\t2027-01-15T08:00:00Z"])).expect(201)


async def test_a_dry_run_shows_and_writes_nothing(one: Bench) -> None:
    """What would happen, the job as it would be, the coming times, and what changes."""
    await one.put("a", description="old")
    before = len(one.cluster.entries)
    shown = (await one.ask("PUT", "/v1/jobs/a?dry_run=1", {**GOOD, "schedule": "@every 1h"})).expect(200).json
    assert (shown["dry_run"], shown["result"]) == (True, "replaced")
    assert {change["pointer"] for change in shown["changes"]} == {"/schedule", "/description"}
    assert len(shown["next"]) == 10
    assert (await one.ask("PUT", "/v1/jobs/b?dry_run=1", GOOD)).json["result"] == "created"
    assert (await one.ask("PUT", "/v1/jobs/b?dry_run=1", {"schedule": 5})).pointers(422) == ["/executor", "/schedule"]
    assert len(one.cluster.entries) == before


async def test_every_fault_is_named(one: Bench) -> None:
    """All at once, in an order that does not change."""
    body = {
        "name": "b",
        "shedule": "* * * * *",
        "timezone": "Europe/Berln",
        "schedule": ["61 * * * *", "* * * * *", 7],
        "executor": {"type": "noop", "x": 1},
        "retry": {"max_attempts": 0, "backoff": "2s"},
        "misfire": {"polizy": "once"},
        "start_deadline": "0s",
        "alerts": [{"type": "webhook"}],
        "jitter": "2d",
        "exclude": ["holidays"],
        "paused": "no",
    }
    answer = await one.ask("PUT", "/v1/jobs/a", body)
    document = answer.problem(422, "invalid")
    faults = {fault["pointer"]: fault["message"] for fault in document["errors"]}
    assert list(faults) == [
        "/name",
        "/shedule",
        "/paused",
        "/start_deadline",
        "/retry/max_attempts",
        "/misfire/polizy",
        "/alerts/0/url",
        "/executor/x",
        "/schedule/0",
        "/schedule/2",
        "/timezone",
        "/exclude/0",
    ]
    assert "'schedule'" in faults["/shedule"]
    assert "Europe/Berlin" in faults["/timezone"]
    assert document == (await one.ask("PUT", "/v1/jobs/a", body)).json


async def test_what_rests_on_more_than_the_body_is_named_beside_the_rest(one: Bench) -> None:
    """Parents that nobody bears the name of, cycles, addresses, and a schedule that never fires."""
    await one.ask("PUT", "/v1/jobs/a", GOOD)
    await one.ask("PUT", "/v1/jobs/b", {**GOOD, "after": [{"job": "a"}]})
    body = {
        "schedule": "0 0 30 2 *",
        "executor": {"type": "noop"},
        "timeout": "soon",
        "misfire": {"policy": "twice"},
        "start_at": "2026-02-01T00:00:00Z",
        "end_at": "2026-01-01T00:00:00Z",
        "after": [{"job": "b"}, {"job": "nobody"}],
        "alerts": [{"type": "webhook", "url": "http://169.254.169.254/"}],
    }
    of_the_body, of_more = {"/timeout", "/misfire/policy", "/end_at"}, {"/after/0/job", "/after/1/job", "/alerts/0/url"}
    faults = (await one.ask("PUT", "/v1/jobs/a", body)).pointers(422)
    assert set(faults) == {"/schedule", *of_the_body, *of_more}
    more = {**body, "end_at": None, "schedule": "0 0 1 1 * 2020", "executor": {"type": "nothing"}}
    faults = (await one.ask("PUT", "/v1/jobs/a", more)).pointers(422)
    assert {"/schedule", "/executor/type", *of_more} <= set(faults)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"start_deadline": "soon"}, "/start_deadline"),
        ({"overlap": {"max_running": 0}}, "/overlap/max_running"),
        ({"misfire": {"policy": "twice"}}, "/misfire/policy"),
        ({"retry": {"on": ["failed", "bored"]}}, "/retry/on/1"),
        ({"after": [{"job": "-x"}]}, "/after/0/job"),
        ({"isolation": "perhaps"}, "/isolation"),
    ],
    ids=json.dumps,
)
async def test_nonsense_in_what_is_not_built_is_invalid(one: Bench, changes: dict[str, Any], pointer: str) -> None:
    """A value that no version would take is a fault, not a thing to come."""
    assert (await one.put("a", **changes)).pointers(422, "invalid") == [pointer]


async def test_faults_speak_of_values_as_json_has_them(one: Bench) -> None:
    """null and true, not what the language behind it calls them."""
    body = GOOD | {"timeout": None, "kill_after": True, "delivery": None}
    problem = (await one.ask("PUT", "/v1/jobs/a", body)).problem(422, "invalid")
    told = {fault["pointer"]: fault["message"].split(" ")[:2] for fault in problem["errors"]}
    assert told == {"/timeout": ["null", "is"], "/kill_after": ["true", "is"], "/delivery": ["is", "null,"]}


async def test_names_in_paths_are_decoded(one: Bench) -> None:
    """Percent signs are what they stand for; a name out of the alphabet is refused when written, unknown when read."""
    (await one.ask("PUT", "/v1/jobs/%61%2Db", GOOD)).expect(201)
    assert (await one.ask("GET", "/v1/jobs/a-b")).json["name"] == "a-b"
    for bad in ("a%20b", "a%2Fb", "%2e%2e", "%00", "%ff", "-a", "x" * 129, "a%7Bb"):
        assert (await one.ask("PUT", f"/v1/jobs/{bad}", GOOD)).pointers(422, "invalid") == ["/name"]
        (await one.ask("GET", f"/v1/jobs/{bad}")).problem(404, "not_found")


async def test_an_executor_object_stays_as_it_was_written(one: Bench) -> None:
    """Nothing is added to it or reordered away."""
    executor = {"type": "http", "url": "http://127.0.0.1:9/hook", "method": "PUT", "headers": {"X-Team": "db"}}
    assert (await one.put("a", executor=executor)).expect(201).json["executor"] == executor
    assert (await one.put("b", executor=NOOP)).json["executor"] == NOOP


async def _overtaken(one: Bench, request: Any, **by: Any) -> Any:
    """The answer to a write while which another write of the same job, made on the same look, commits first."""
    log = one.n1.log
    proposals = log.proposals
    log.stall = asyncio.Event()
    asked = asyncio.create_task(request)
    while log.proposals == proposals:
        await asyncio.sleep(0.001)
    log.stall.set()
    log.stall = None
    state = one.n1.machine.state
    job = state.jobs["a"]
    stored = definition.canonical({**GOOD, **by})
    command = PutJob("a", stored, job.decided_through, seen_revision=job.revision)
    one.cluster.append(encode_entry(Entry(state.epoch, state.cluster_time, command)))
    return await asked


async def test_a_write_that_was_overtaken_looks_again(one: Bench) -> None:
    """It is judged anew against what is there now: nothing of the other write is lost by accident."""
    await one.put("a")
    patch = one.ask("PATCH", "/v1/jobs/a", {"labels": {"mine": "1"}}, headers=MERGE)
    merged = (await _overtaken(one, patch, description="theirs")).expect(200).json
    assert (merged["labels"], merged["description"]) == ({"mine": "1"}, "theirs")
    pause = one.ask("POST", "/v1/jobs/a/pause")
    assert (await _overtaken(one, pause, description="again")).expect(200).json["paused"] is True
    revision = one.n1.machine.state.jobs["a"].revision
    put = one.put("a", description="mine", headers={"If-Match": f'"{revision}"'})
    (await _overtaken(one, put, description="theirs")).problem(412, "revision")


async def test_times_that_are_decided_meanwhile_are_decided_once(one: Bench) -> None:
    """The leader's loop and an edit may meet over the same times; each has one row."""
    await one.put("a", schedule="* * * * * *", overlap={"policy": "allow"})
    one.clock.wall_offset_ms += 3_000
    log = one.n1.log
    proposals = log.proposals
    log.stall = asyncio.Event()
    asked = asyncio.create_task(one.put("a", schedule=NEVER))
    while log.proposals == proposals:
        await asyncio.sleep(0.001)
    log.stall.set()
    log.stall = None
    state = one.n1.machine.state
    job = state.jobs["a"]
    first = next_of((parse("* * * * * *"),), job.decided_through, job.anchor)
    assert first is not None
    decided = Decide(Place("n1", 1), [Decision(job.uid, job.revision, first, [Fire(first, first)])])
    one.cluster.append(encode_entry(Entry(state.epoch, state.cluster_time, decided)))
    (await asked).expect(200)
    rows = [row["scheduled_time"] for row in (await one.ask("GET", "/v1/jobs/a/runs")).json["items"]]
    assert rows == [rfc3339(first + more) for more in (2_000, 1_000, 0)]
