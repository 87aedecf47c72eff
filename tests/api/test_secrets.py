"""Secrets over HTTP: written and never answered, in jobs and by name; a job that is got can be put back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from raftcron.core import definition
from tests.api.bench import GOOD, Bench, bench

HOOK = {"type": "http", "url": "http://127.0.0.1:9/hook"}
SIGNING = "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0"
FULL = {**HOOK, "secret": SIGNING, "headers": {"Authorization": "Bearer hunter2", "X-Team": "db"}}
WORDS = (b"hunter2", SIGNING.encode(), b"MTIzNDU2")


@pytest.fixture
async def two() -> AsyncIterator[Bench]:
    async with bench(2, hold_seconds=2.0) as made:
        yield made


def kept(made: Bench, name: str = "a") -> dict[str, Any]:
    return dict(definition.executor_of(made.n1.machine.state.jobs[name].definition))


async def nothing_leaks(made: Bench, *more: bytes) -> None:
    """No answer, no entry of the log and no block of a snapshot holds one of the words."""
    for path in ("/v1/jobs", "/v1/jobs/a", "/v1/runs", "/v1/audit", "/v1/secrets", "/v1/cluster", "/metrics"):
        answer = await made.ask("GET", path)
        assert not any(word in answer.body for word in (*WORDS, *more)), path
    for held in (*made.cluster.entries, *made.n1.machine.snapshot()):
        assert not any(word in held for word in (*WORDS, *more))


async def test_what_is_secret_in_a_job_is_never_answered(two: Bench) -> None:
    """Not by the write, not by a read, not in the log; the job says where it holds some."""
    made = (await two.put("a", on="n2", executor=FULL)).expect(201)
    assert made.json["executor"] == {**HOOK, "headers": {"X-Team": "db"}}
    assert made.json["secrets"] == ["/executor/secret", "/executor/headers/Authorization"]
    assert not any(word in made.body for word in WORDS)
    assert isinstance(kept(two)["secret"], bytes)
    await nothing_leaks(two)


async def test_a_dry_run_of_many_jobs_knows_a_secret_again(two: Bench) -> None:
    """The same text is no change, another one is; neither is written."""
    job = {**GOOD, "name": "a", "executor": FULL}
    await two.put("a", executor=FULL)
    for executor, result in ((FULL, "unchanged"), ({**FULL, "secret": SIGNING + "eHg="}, "replaced")):
        body = {"jobs": [{**job, "executor": executor}], "dry_run": True}
        (told,) = (await two.ask("POST", "/v1/jobs:apply", body)).expect(200).json["results"]
        assert told["result"] == result
    assert (await two.ask("GET", "/v1/jobs/a")).json["revision"] == two.n1.machine.state.jobs["a"].revision


async def test_what_is_got_can_be_put_back(two: Bench) -> None:
    """The secrets stay, and so does the revision; an edit keeps them, too; the same secret again changes nothing."""
    first = (await two.put("a", executor=FULL)).expect(201).json
    same = (await two.ask("PUT", "/v1/jobs/a", first, on="n2")).expect(200).json
    assert same["revision"] == first["revision"]
    again = (await two.put("a", executor=FULL)).expect(200).json
    assert again["revision"] == first["revision"]
    before = kept(two)
    edited = (await two.ask("PUT", "/v1/jobs/a", {**first, "description": "new"})).expect(200).json
    assert edited["revision"] > first["revision"]
    assert kept(two) == before
    changed = (await two.put("a", executor={**FULL, "headers": {"Authorization": "other"}})).expect(200).json
    assert changed["revision"] > edited["revision"]
    assert kept(two)["secret"] == before["secret"]
    assert kept(two)["headers"]["Authorization"] != before["headers"]["Authorization"]


async def test_null_removes_a_secret(two: Bench) -> None:
    """By PUT and by PATCH; a patch of something else keeps it."""
    (await two.put("a", executor=FULL)).expect(201)
    gone = (await two.put("a", executor={**HOOK, "headers": {"authorization": None}})).expect(200).json
    assert gone["secrets"] == ["/executor/secret"]
    patched = (await two.ask("PATCH", "/v1/jobs/a", {"description": "x"})).expect(200).json
    assert patched["secrets"] == ["/executor/secret"]
    added = (await two.ask("PATCH", "/v1/jobs/a", {"executor": {"headers": {"Cookie": "hunter2"}}}, on="n2")).expect(
        200
    )
    assert added.json["secrets"] == ["/executor/secret", "/executor/headers/Cookie"]
    bare = (await two.ask("PATCH", "/v1/jobs/a", {"executor": {"secret": None, "headers": None}})).expect(200).json
    assert bare["secrets"] == []
    await nothing_leaks(two)


async def test_a_dry_run_says_that_a_secret_would_change_and_not_to_what(two: Bench) -> None:
    """It seals nothing, and makes no key."""
    new = (await two.ask("PUT", "/v1/jobs/a?dry_run=1", {**GOOD, "executor": FULL}, on="n2")).expect(200)
    assert not two.n1.machine.state.vault
    (await two.put("a", executor=FULL)).expect(201)
    seen = (await two.ask("PUT", "/v1/jobs/a?dry_run=1", {**GOOD, "executor": {**HOOK, "secret": None}})).expect(200)
    assert {"pointer": "/executor/secret", "from": None, "to": None} in seen.json["changes"]
    assert not any(word in answer.body for answer in (new, seen) for word in WORDS)


async def test_many_jobs_at_once_seal_theirs(two: Bench) -> None:
    """As one does."""
    jobs = [{"name": name, **GOOD, "executor": FULL} for name in ("a", "b")]
    for status in ("created", "unchanged"):
        found = (await two.ask("POST", "/v1/jobs:apply", {"jobs": jobs}, on="n2")).expect(200)
        assert {one["result"] for one in found.json["results"]} == {status}
    await nothing_leaks(two)


async def test_named_secrets_are_written_and_never_read(two: Bench) -> None:
    """PUT, a list of names, DELETE."""
    made = (await two.ask("PUT", "/v1/secrets/db", {"value": "hunter2"}, on="n2")).expect(201)
    assert made.json["name"] == "db"
    (await two.ask("PUT", "/v1/secrets/db", {"value": "hunter2"})).expect(200)
    listed = (await two.ask("GET", "/v1/secrets")).expect(200).json
    assert [one["name"] for one in listed["items"]] == ["db"]
    (await two.ask("GET", "/v1/secrets/db")).problem(405)
    await nothing_leaks(two) if "a" in two.n1.machine.state.jobs else None
    assert not any(b"hunter2" in entry for entry in two.cluster.entries)
    (await two.ask("DELETE", "/v1/secrets/db", on="n2")).expect(204)
    (await two.ask("DELETE", "/v1/secrets/db")).problem(404)


@pytest.mark.parametrize(
    ("name", "body", "pointers"),
    [
        ("db", {}, ["/value"]),
        ("db", {"value": 7, "valeu": 1}, ["/valeu", "/value"]),
        ("db", {"value": ""}, ["/value"]),
        ("db", [], [""]),
        ("-", {"value": ["hunter2"]}, ["/name", "/value"]),
    ],
)
async def test_every_fault_is_named_and_no_value_shown(one: Bench, name: str, body: Any, pointers: list[str]) -> None:
    answer = await one.ask("PUT", f"/v1/secrets/{name}", body)
    assert answer.pointers() == pointers
    assert b"hunter2" not in answer.body


async def test_a_secret_has_a_size(one: Bench) -> None:
    """64 KiB, in bytes."""
    (await one.ask("PUT", "/v1/secrets/a", {"value": "x" * 65_536})).expect(201)
    (await one.ask("PUT", "/v1/secrets/a", {"value": "é" * 32_769})).problem(413)


async def test_what_is_wrong_with_a_secret_does_not_show_it(one: Bench) -> None:
    """Neither of a header nor of a signing secret."""
    for more in ({"headers": {"Authorization": "hunter2\n"}}, {"secret": "hunter2"}, {"secret": ["hunter2"]}):
        answer = await one.put("a", executor={**HOOK, **more})
        answer.problem(422)
        assert b"hunter2" not in answer.body


async def test_a_reference_stands_where_it_is_resolved(one: Bench) -> None:
    """In url, headers, body and env; elsewhere it is a mistake, and said so."""
    text = "${secret:db}"
    good = {"type": "http", "url": f"http://127.0.0.1/{text}", "headers": {"X": text}, "body": text}
    assert (await one.put("a", executor=good)).expect(201).json["executor"] == good
    (await one.put("b", executor={"type": "shell", "command": "x", "env": {"A": text}})).expect(201)
    for bad, pointer in (
        ({"type": "shell", "command": f"echo {text}"}, "/executor/command"),
        ({"type": "shell", "command": ["echo", text]}, "/executor/command/1"),
        ({"type": "shell", "command": "cat", "stdin": text}, "/executor/stdin"),
        ({**HOOK, "expect_body": text}, "/executor/expect_body"),
    ):
        assert (await one.put("c", executor=bad)).pointers() == [pointer]


async def test_a_prefix_bounds_the_secrets_too(one: Bench) -> None:
    """Whoever may write a job can send what it refers to anywhere, so it refers to nothing beyond the prefix."""
    body = {"name": "team", "role": "operate", "prefix": "a-"}
    headers = {"Authorization": "Bearer " + (await one.ask("POST", "/v1/tokens", body)).expect(201).json["token"]}
    for name in ("a-db", "b-db"):
        (await one.ask("PUT", f"/v1/secrets/{name}", {"value": "hunter2"})).expect(201)
    (await one.put("a-1", executor={**HOOK, "body": "${secret:b-db}"})).expect(201)
    (await one.put("a-2", headers=headers, executor={**HOOK, "body": "${secret:a-db}"})).expect(201)
    (await one.put("a-3", headers=headers, executor={**HOOK, "body": "${secret:b-db}"})).problem(403)
    (await one.ask("PATCH", "/v1/jobs/a-1", {"executor": {"url": "http://127.0.0.1/mine"}}, headers=headers)).problem(
        403
    )
    (await one.ask("PUT", "/v1/secrets/b-db", {"value": "x"}, headers=headers)).problem(403)
    (await one.ask("PUT", "/v1/secrets/a-db", {"value": "x"}, headers=headers)).expect(200)
    assert [one["name"] for one in (await one.ask("GET", "/v1/secrets", headers=headers)).json["items"]] == ["a-db"]
