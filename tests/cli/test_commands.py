"""The commands that ask a node: what they send, what they print where, and what they end with."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

from raftcron.cli import main
from raftcron.cli.printing import FORMATS
from tests.cli.conftest import StandIn, call

JOB = {
    "name": "backup-db",
    "schedule": "*/5 * * * *",
    "timezone": "UTC",
    "executor": {"type": "http", "url": "http://127.0.0.1:9000/hook"},
    "paused": False,
    "revision": 3,
    "next_fire_at": "2026-01-01T00:05:00Z",
    "last_run": {"id": "r1", "state": "succeeded"},
}
RUN = {"id": "r1", "job": "backup-db", "scheduled_time": "2026-01-01T00:00:00Z", "state": "running", "attempt": 1}


async def test_job_list_follows_all_pages(node: StandIn) -> None:
    """Pages are followed to the end; a table has headings and one line a job."""
    node.answers(200, {"items": [JOB], "next_cursor": "abc", "total": 2})
    node.answers(200, {"items": [JOB | {"name": "other", "last_run": None}], "next_cursor": None, "total": 2})
    result = await call("job", "list", addr=node.address)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "SCHEDULE", "TIMEZONE", "PAUSED", "NEXT", "LAST"]
    assert lines[1].startswith("backup-db  */5 * * * *  UTC")
    assert lines[2].split()[0] == "other"
    assert lines[2].endswith("-")
    assert [path for _, path, _ in node.asked] == ["/v1/jobs?limit=1000", "/v1/jobs?limit=1000&cursor=abc"]


async def test_output_as_json_and_names(node: StandIn) -> None:
    """-o json is the whole answer, -o name one key a line, both on stdout alone."""
    for _ in range(2):
        node.answers(200, {"items": [JOB], "next_cursor": None, "total": 1})
    result = await call("job", "list", "-o", "json", addr=node.address)
    assert json.loads(result.stdout) == {"items": [JOB]}
    result = await call("job", "list", "-o", "name", addr=node.address)
    assert result.stdout == "backup-db\n"
    assert result.stderr == ""


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_what_all_commands_share_may_stand_anywhere(node: StandIn, place: int) -> None:
    """Before the noun, before the verb, or behind both."""
    node.answers(200, {"items": [JOB], "next_cursor": None, "total": 1})
    words = ["job", "list"]
    words[place:place] = ["--addr", node.address, "-o", "name", "--cacert="]
    result = await call(*words)
    assert (result.exit_code, result.stdout) == (0, "backup-db\n"), result.stderr
    result = await call("--addr", node.address, "schedule", "explain", "@daily")
    assert (result.exit_code, "--addr" in result.stderr) == (2, True)


async def test_limits_are_kept_over_pages(node: StandIn) -> None:
    """--limit bounds what is asked for and what is printed."""
    node.answers(200, {"items": [RUN, RUN], "next_cursor": "x", "total": None})
    result = await call("run", "list", "--limit", "1", "--job", "backup-db", "-o", "name", addr=node.address)
    assert result.stdout == "r1\n"
    assert node.asked[0][1] == "/v1/runs?job=backup-db&limit=1"


async def test_a_skipped_run_had_no_attempt_and_no_end(node: StandIn) -> None:
    """The table shows `-` for what a skipped run never had; -o json is the whole record."""
    skipped = RUN | {"state": "skipped", "reason": "overlap", "attempt": 0, "finished_at": "2026-01-01T00:00:00Z"}
    for _ in range(2):
        node.answers(200, {"items": [skipped], "next_cursor": None, "total": None})
    table = await call("run", "list", addr=node.address)
    heading, row = table.stdout.splitlines()
    shown = dict(zip(heading.split(), row.split(), strict=True))
    assert (shown["STATE"], shown["REASON"]) == ("skipped", "overlap")
    assert [shown[name] for name in ("ATTEMPT", "NODE", "STARTED", "FINISHED")] == ["-"] * 4
    whole = await call("run", "list", "-o", "json", addr=node.address)
    assert json.loads(whole.stdout) == {"items": [skipped]}


def met(name: str | None, status: int, result: str, *errors: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "status": status, "result": result, "errors": list(errors)}


@pytest.mark.parametrize("form", ["json", "yaml"])
async def test_what_is_got_can_be_applied(node: StandIn, form: str) -> None:
    """`job get -o json` and `-o yaml` print what `job apply -f -` takes; names are quoted in the path."""
    odd = JOB | {"name": "a/b c"}
    node.answers(200, odd)
    got = await call("job", "get", "a/b c", "-o", form, addr=node.address)
    node.answers(200, {"results": [met("a/b c", 201, "created")]})
    result = await call("job", "apply", "-f", "-", addr=node.address, stdin=got.stdout)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "a/b c: created\n"
    assert "1 created" in result.stderr
    assert node.asked == [("GET", "/v1/jobs/a%2Fb%20c", None), ("POST", "/v1/jobs:apply", [odd])]
    assert "idempotency-key" in node.headers[1]


@pytest.mark.parametrize("wrap", [lambda jobs: jobs, lambda jobs: {"jobs": jobs}, lambda jobs: {"items": jobs}])
async def test_apply_takes_many_jobs(node: StandIn, tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    """A file holds a list, an object with `jobs` or `items`, YAML documents or lines; a directory is all of these."""
    (tmp_path / "b.json").write_text(json.dumps(wrap([{"name": "two"}, {"name": "three"}])))
    (tmp_path / "a.json").write_text(json.dumps({"name": "one"}))
    (tmp_path / "c.yaml").write_text("name: four\n---\njobs:\n- name: five\n")
    (tmp_path / "d.ndjson").write_text('{"name": "six"}\n{"name": "seven"}\n')
    (tmp_path / "readme.txt").write_text("not a job")
    names = ["one", "two", "three", "four", "five", "six", "seven"]
    node.answers(200, {"results": [met(name, 200, "unchanged") for name in names]})
    result = await call("job", "apply", "-f", str(tmp_path), addr=node.address)
    assert result.exit_code == 0, result.stderr
    assert [job["name"] for job in node.asked[0][2]] == names
    assert result.stdout == ""
    assert "7 unchanged" in result.stderr


async def test_yaml_is_read_as_json_would_be(node: StandIn) -> None:
    """`on` is a word, an instant is a text, and 0o17 no surprise: what a person writes is what is sent."""
    text = """
    name: a
    placement: {on: any}
    start_at: 2026-01-01T00:00:00Z
    paused: false
    description: no
    timeout: 90
    after: [{job: b, on: success}]
    """
    node.answers(200, {"results": [met("a", 201, "created")]})
    result = await call("job", "apply", "-f", "-", addr=node.address, stdin=text)
    assert result.exit_code == 0, result.stderr
    assert node.asked[0][2] == [
        {
            "name": "a",
            "placement": {"on": "any"},
            "start_at": "2026-01-01T00:00:00Z",
            "paused": False,
            "description": "no",
            "timeout": 90,
            "after": [{"job": "b", "on": "success"}],
        }
    ]
    bad = await call("job", "apply", "-f", "-", addr=node.address, stdin="{1: [2], [3]: 4}")
    assert bad.exit_code == 2
    assert "not YAML" in bad.stderr or "not JSON" in bad.stderr


async def test_a_refused_job_does_not_stop_the_others(node: StandIn) -> None:
    """Each refusal names every fault on stderr, the rest is applied, and the exit code is the refusal's."""
    fault = {"pointer": "/schedule", "message": "no such month"}
    node.answers(200, {"results": [met("bad", 422, "invalid", fault), met("good", 201, "created")]})
    result = await call("job", "apply", "-f", "-", addr=node.address, stdin='[{"name": "bad"}, {"name": "good"}]')
    assert result.exit_code == 2
    assert result.stdout == "good: created\n"
    assert "bad: invalid\n  stdin:1 /schedule: no such month" in result.stderr


async def test_when_no_job_is_taken_each_is_told_all_the_same(node: StandIn) -> None:
    """The refusal of the whole request carries what each job met."""
    fault = {"pointer": "/schedule", "message": "no such month"}
    problem = {"code": "invalid", "detail": "none was taken", "results": [met("bad", 422, "invalid", fault)]}
    node.answers(422, problem)
    result = await call("job", "apply", "-f", "-", addr=node.address, stdin='[{"name": "bad"}]')
    assert result.exit_code == 2
    assert "/schedule: no such month" in result.stderr


async def test_prune_and_dry_run(node: StandIn) -> None:
    """What would be deleted is shown before it is."""
    node.answers(200, {"results": [met("a", 200, "unchanged"), met("b", 204, "deleted")]})
    result = await call("job", "apply", "-f", "-", "--prune", "--dry-run", addr=node.address, stdin='{"name": "a"}')
    assert node.asked[0][1] == "/v1/jobs:apply?owner=raftcron+job+apply&prune=1&dry_run=1"
    assert result.stdout == "b: deleted\n"
    assert "1 deleted, 1 unchanged (dry run: nothing was written)" in result.stderr


async def test_edit_puts_back_what_the_editor_leaves(node: StandIn, tmp_path: Path) -> None:
    """Under the revision that was shown; a fault is an error, and nothing changed is no write."""
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/Europe.Berlin/UTC/; s/timezone: UTC/timezone: Europe\\/Paris/" "$1"\n')
    editor.chmod(0o755)
    node.answers(200, JOB)
    node.answers(200, JOB)
    result = await call("job", "edit", "backup-db", addr=node.address, EDITOR=str(editor))
    assert result.exit_code == 0, result.stderr
    method, target, body = node.asked[1]
    assert (method, target, body["timezone"]) == ("PUT", "/v1/jobs/backup-db", "Europe/Paris")
    assert "revision" not in body
    assert node.headers[1]["if-match"] == '"3"'
    node.answers(200, JOB)
    result = await call("job", "edit", "backup-db", addr=node.address, EDITOR="true")
    assert "nothing was changed" in result.stderr
    assert result.stdout == ""
    assert len(node.asked) == 3


async def test_an_edited_job_is_printed_as_it_stands_now(node: StandIn, tmp_path: Path) -> None:
    """As data: what the write was answered, or what is there where nothing was changed."""
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/: UTC/: Europe\\/Paris/" "$1"\n')
    editor.chmod(0o755)
    node.answers(200, JOB)
    node.answers(200, JOB | {"timezone": "Europe/Paris", "revision": 4})
    result = await call("job", "edit", "backup-db", "-o", "json", addr=node.address, EDITOR=str(editor))
    assert json.loads(result.stdout) == JOB | {"timezone": "Europe/Paris", "revision": 4}
    node.answers(200, JOB)
    result = await call("job", "edit", "backup-db", "-o", "json", addr=node.address, EDITOR="true")
    assert json.loads(result.stdout) == JOB


async def test_a_clone_is_paused(node: StandIn) -> None:
    """Nothing fires twice because somebody wanted something alike."""
    node.answers(200, JOB)
    node.answers(201, JOB | {"name": "copy", "paused": True})
    result = await call("job", "clone", "backup-db", "copy", "-o", "name", addr=node.address)
    assert result.stdout == "copy\n"
    body = node.asked[1][2]
    assert (body["name"], body["paused"], body["schedule"]) == ("copy", True, JOB["schedule"])
    assert "revision" not in body


@pytest.mark.parametrize("words", [("job", "list"), ("job", "list", "-o", "json"), ("--help",), ("--version",)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_an_output_that_cannot_be_written_is_a_line(
    node: StandIn, words: tuple[str, ...], unbuffered: str
) -> None:
    """A full disk: said once on stderr, exit code 1, also for what needs no node."""
    node.answers(200, {"items": [JOB], "next_cursor": None, "total": 1})
    with Path("/dev/full").open("wb") as full:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "raftcron", *words),
            stdout=full,
            stderr=PIPE,
            env={"RAFTCRON_ADDR": node.address, "PYTHONUNBUFFERED": unbuffered},
        )
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1, told
    assert told.decode().splitlines() == [
        "raftcron: the output cannot be written: No space left on device: make room, or lead it elsewhere; what the "
        "command had changed by then is changed"
    ]


async def test_a_clone_lacks_secrets_by_name(node: StandIn) -> None:
    """Each that the original keeps is named, and how it is written; of one without any nothing is said."""
    for secrets in (["/executor/secret", "/executor/headers/Authorization"], []):
        node.answers(200, JOB | {"secrets": secrets})
        node.answers(201, JOB | {"name": "copy", "paused": True, "secrets": []})
        result = await call("job", "clone", "backup-db", "copy", addr=node.address)
        assert result.exit_code == 0, result.stderr
        assert ("secret" in result.stderr) is bool(secrets)
        assert all(pointer in result.stderr for pointer in secrets)
        assert ("`raftcron job edit copy`" in result.stderr) is bool(secrets)


async def test_lists_are_filtered_by_the_server(node: StandIn) -> None:
    """Each option is a parameter of the API."""
    node.answers(200, {"items": [JOB], "next_cursor": None, "total": None})
    result = await call(
        "job", "list", "--label", "team=db", "--state", "active", "-q", "back", "--sort", "updated_at", "-o", "wide",
        addr=node.address,
    )  # fmt: skip
    assert node.asked[0][1] == "/v1/jobs?label=team%3Ddb&state=active&q=back&sort=updated_at&limit=1000"
    assert result.stdout.splitlines()[0].split() == [
        "NAME", "SCHEDULE", "TIMEZONE", "PAUSED", "NEXT", "LAST", "STATE", "EXECUTOR", "OWNER", "LABELS", "REVISION",
        "UPDATED",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "{", "3", "[3]", '[{"schedule": "@hourly"}]', '{"name": ""}', "[" * 100_000])
async def test_a_file_that_holds_no_jobs_sends_nothing(node: StandIn, text: str) -> None:
    """What cannot be read is exit code 2, before anything is sent."""
    result = await call("job", "apply", "-f", "-", addr=node.address, stdin=text)
    assert result.exit_code == 2
    assert result.stderr.startswith("raftcron: ")
    assert node.asked == []


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file and an empty directory are exit code 2."""
    missing = await call("job", "apply", "-f", str(tmp_path / "none.json"))
    empty = await call("job", "apply", "-f", str(tmp_path))
    assert (missing.exit_code, empty.exit_code) == (2, 2)


async def test_delete_pause_resume(node: StandIn) -> None:
    """Each verb is one request of the API."""
    node.answers(204)
    node.answers(200, JOB | {"paused": True})
    node.answers(200, JOB)
    node.answers(200, JOB)
    deleted = await call("job", "delete", "backup-db", "--cancel-running", addr=node.address)
    paused = await call("job", "pause", "backup-db", "--note", "moving", addr=node.address)
    resumed = await call("job", "resume", "backup-db", "-o", "name", addr=node.address)
    caught_up = await call("job", "resume", "backup-db", "--catch-up", addr=node.address)
    assert [r.exit_code for r in (deleted, paused, resumed, caught_up)] == [0, 0, 0, 0]
    assert node.asked == [
        ("DELETE", "/v1/jobs/backup-db?cancel_running=1", None),
        ("POST", "/v1/jobs/backup-db/pause", {"note": "moving"}),
        ("POST", "/v1/jobs/backup-db/resume", {}),
        ("POST", "/v1/jobs/backup-db/resume", {"catch_up": True}),
    ]
    assert deleted.stdout == ""
    assert paused.stdout.splitlines()[1].split()[:5] == ["backup-db", "*/5", "*", "*", "*"]
    assert "  true  " in paused.stdout
    assert resumed.stdout == "backup-db\n"


async def test_run_now(node: StandIn) -> None:
    """`job run` sends the arguments and prints the run of the 202."""
    node.answers(202, {"run": RUN})
    args = ["job", "run", "backup-db", "--args", '{"day": 3}', "--overlap", "allow", "-o", "name"]
    result = await call(*args, addr=node.address)
    assert result.stdout == "r1\n"
    assert node.asked == [("POST", "/v1/jobs/backup-db/runs", {"overlap": "allow", "args": {"day": 3}})]


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 7), ("lost", 7), ("skipped", 7)])
async def test_an_awaited_run_decides_the_exit_code(node: StandIn, state: str, code: int) -> None:
    """--wait looks until the run is over, also while there is no leader; 7 unless it succeeded."""
    node.answers(202, {"run": RUN})
    node.refuses(503, "unavailable", "no leader")
    node.answers(200, RUN | {"state": state})
    result = await call("job", "run", "backup-db", "--wait", "-o", "json", addr=node.address)
    assert result.exit_code == code, result.stderr
    assert json.loads(result.stdout)["state"] == state
    assert node.asked[-1][:2] == ("GET", "/v1/runs/r1")


async def test_a_followed_run_prints_its_output(node: StandIn) -> None:
    """As it comes, and nothing else; the exit code is that of a run that is awaited."""
    node.answers(202, {"run": RUN})
    node.answers(200, "line 1\nline 2\n")
    node.answers(200, RUN | {"state": "failed"})
    result = await call("job", "run", "backup-db", "--follow", addr=node.address)
    assert (result.exit_code, result.stdout) == (7, "line 1\nline 2\n")
    assert "run r1: failed" in result.stderr
    assert node.asked[1][:2] == ("GET", "/v1/runs/r1/output?follow=1")


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (("job", "delete", "x"), "deleted"),
        (("cluster", "remove", "x"), "removed"),
        (("token", "revoke", "x"), "revoked"),
    ],
)
async def test_what_has_no_answer_is_told_as_data(node: StandIn, command: tuple[str, ...], result: str) -> None:
    """Which thing it was, and what became of it; to people the words on stderr say that."""
    for more, printed in (
        ((), ""),
        (("-o", "wide"), ""),
        (("-o", "name"), "x\n"),
        (("-o", "yaml"), f"name: x\nresult: {result}\n"),
        (("-o", "json"), json.dumps({"name": "x", "result": result}, indent=2) + "\n"),
    ):
        node.answers(204)
        done = await call(*command, *more, addr=node.address)
        assert (done.exit_code, done.stdout) == (0, printed), done.stderr
        assert result in done.stderr
    node.refuses(404, "not_found", "there is none")
    refused = await call(*command, "-o", "json", addr=node.address)
    assert (refused.exit_code, refused.stdout) == (3, "")


def test_every_command_that_tells_of_something_takes_o() -> None:
    """All but those that go on until they are ended, and what a shell reads."""
    lacking = {path for path, command in commands(main) if all(one.name != "output" for one in command.params)}
    assert lacking == {"dev", "server", "completion"}


def test_every_o_takes_every_form() -> None:
    """table, wide, json, yaml and name, whatever is printed."""
    for path, command in commands(main):
        for option in command.params:
            if option.name == "output":
                assert isinstance(option.type, click.Choice)
                assert tuple(option.type.choices) == FORMATS, path


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


async def test_run_logs_as_data(node: StandIn) -> None:
    """The output as text, also where it is none, and whose it is."""
    node.answers(200, "gr\u00fc\u00dfe\n")
    result = await call("run", "logs", "r1", "--attempt", "2", "-o", "json", addr=node.address)
    assert json.loads(result.stdout) == {"id": "r1", "attempt": 2, "output": "gr\u00fc\u00dfe\n"}
    node.answers(200, "more")
    node.answers(200, RUN | {"state": "failed"})
    result = await call("run", "logs", "-f", "r1", "-o", "yaml", addr=node.address)
    assert result.stdout == "id: r1\nattempt: null\noutput: more\n"
    assert "run r1: failed" in result.stderr


async def test_run_logs(node: StandIn) -> None:
    """The output as it is, of the attempt asked for; what is no longer held ends with 3."""
    node.answers(200, "grüße\n")
    result = await call("run", "logs", "r1", "--attempt", "2", addr=node.address)
    assert (result.exit_code, result.stdout) == (0, "grüße\n")
    node.answers(200, "more")
    node.answers(200, RUN | {"state": "succeeded"})
    assert (await call("run", "logs", "-f", "r1", addr=node.address)).stdout == "more"
    assert [path for _, path, _ in node.asked] == [
        "/v1/runs/r1/output?attempt=2",
        "/v1/runs/r1/output?follow=1",
        "/v1/runs/r1",
    ]
    node.refuses(410, "gone", "the output is no longer on node n1")
    result = await call("run", "logs", "r1", addr=node.address)
    assert result.exit_code == 3
    assert "no longer on node n1" in result.stderr


async def test_job_why(node: StandIn) -> None:
    """The sentence first, then what the log knows of it; the whole answer as JSON."""
    why = {
        "verdict": "not_due",
        "message": "the job is paused",
        "run_id": None,
        "log_index": 7,
        "epoch": 2,
        "node": None,
    }
    for output in ("table", "json"):
        node.answers(200, why)
        result = await call("job", "why", "a", "--at", "2026-01-01T00:00:00Z", "-o", output, addr=node.address)
        if output == "table":
            assert result.stdout.splitlines() == ["not due: the job is paused", "log_index  7", "epoch      2"]
        else:
            assert json.loads(result.stdout) == why
    assert node.asked[0][:2] == ("GET", "/v1/jobs/a/why?at=2026-01-01T00%3A00%3A00Z")


async def test_run_cancel_and_retry(node: StandIn) -> None:
    """Each prints the run; a retry is awaited as a run by hand is."""
    node.answers(200, RUN | {"state": "cancelling"})
    result = await call("run", "cancel", "r1", "-o", "json", addr=node.address)
    assert json.loads(result.stdout)["state"] == "cancelling"
    node.answers(202, {"run": RUN | {"id": "r2"}})
    node.answers(200, RUN | {"id": "r2", "state": "succeeded"})
    result = await call("run", "retry", "r1", "--overlap", "allow", "--wait", "-o", "name", addr=node.address)
    assert (result.exit_code, result.stdout) == (0, "r2\n")
    assert node.asked == [
        ("POST", "/v1/runs/r1/cancel", {}),
        ("POST", "/v1/runs/r1/retry", {"overlap": "allow"}),
        ("GET", "/v1/runs/r2", None),
    ]


async def test_backfill(node: StandIn) -> None:
    """The runs as a table, and how many; with --dry-run their times."""
    span = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z"]
    times = [{"id": None, "job": "a", "scheduled_time": "2026-01-01T00:00:00Z", "cause": "backfill"}]
    node.answers(200, {"count": 1, "runs": times, "dry_run": True})
    result = await call("job", "backfill", "a", *span, "--dry-run", "-o", "name", addr=node.address)
    assert (result.stdout, result.stderr) == ("2026-01-01T00:00:00Z\n", "a: 1 run would be made\n")
    node.answers(200, {"count": 2, "runs": [RUN, RUN], "dry_run": False})
    result = await call("job", "backfill", "a", *span, addr=node.address)
    assert result.stdout.splitlines()[0].split() == ["SCHEDULED", "ID", "STATE"]
    assert result.stderr == "a: 2 runs made\n"
    body = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "dry_run": False}
    assert node.asked[1] == ("POST", "/v1/jobs/a/backfill", body)


async def test_run_get(node: StandIn) -> None:
    """One run, a field a line."""
    node.answers(200, RUN)
    result = await call("run", "get", "r1", addr=node.address)
    assert "state           running" in result.stdout


async def test_cluster_status(node: StandIn) -> None:
    """The leader and a line a member."""
    member = {"name": "n1", "role": "leader", "standing": "voter", "alive": True, "croniter": "7.0", "tzdata": "2026f"}
    node.answers(200, {"cluster_id": "c1", "leader": "n1", "term": 4, "members": [member], "digests": [[9, "ab"]]})
    result = await call("cluster", "status", addr=node.address)
    assert "leader      n1" in result.stdout
    shown = result.stdout.splitlines()[-1].split()
    assert (shown[:4], shown[-2:]) == (["n1", "leader", "voter", "true"], ["7.0", "2026f"])
    assert "digests" not in result.stdout


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "malformed", 2),
        (401, "unauthorized", 6),
        (403, "forbidden", 6),
        (404, "not_found", 3),
        (409, "conflict", 4),
        (410, "gone", 3),
        (412, "revision", 4),
        (413, "too_large", 2),
        (422, "invalid", 2),
        (429, "too_many", 5),
        (503, "unavailable", 5),
        (504, "unknown_outcome", 5),
        (500, "error", 1),
        (404, "a_code_of_a_later_version", 3),
    ],
)
async def test_exit_codes_are_those_of_the_errors(node: StandIn, status: int, code: str, exit_code: int) -> None:
    """A problem's code, or else its status, decides the exit code; the detail is on stderr alone."""
    node.refuses(status, code, "because of that")
    result = await call("job", "get", "x", addr=node.address)
    assert result.exit_code == exit_code
    assert result.stdout == ""
    first, *hint = result.stderr.splitlines()
    assert first == "raftcron: because of that"
    assert len(hint) == (status == 503)


async def test_usage_errors_are_exit_code_2() -> None:
    """What the command line itself cannot read is exit code 2."""
    for args in (
        ["job", "fly"],
        ["job", "get"],
        ["job", "list", "-o", "xml"],
        ["job", "get", "x", "--addr", "ftp://a"],
    ):
        assert (await call(*args)).exit_code == 2


@pytest.mark.parametrize(
    ("args", "meant"),
    [(["clutser"], "cluster"), (["job", "lst"], "list"), (["job", "list", "--outptu", "x"], "--output")],
)
async def test_what_was_meant_is_named(args: list[str], meant: str) -> None:
    """A command or an option that is not there: the same prefix as every error, the nearest one, and where help is."""
    result = await call(*args)
    assert result.stderr.startswith("raftcron: No such ")
    assert f"Did you mean '{meant}'?" in result.stderr.splitlines()[0]
    assert "--help' for help." in result.stderr


async def test_unreachable_is_exit_code_5(nowhere: str) -> None:
    """No node at any address: 5, and each address is named."""
    result = await call("job", "list", "--addr", nowhere)
    assert result.exit_code == 5
    assert nowhere in result.stderr


async def test_a_file_of_certificates_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """With its option and the reason, and no other option than what was given."""
    empty = tmp_path / "empty"
    empty.touch()
    missing = str(tmp_path / "none")
    for option, file, reason in (
        ("--cacert", missing, "No such file or directory"),
        ("--cert", missing, "No such file or directory"),
        ("--cacert", str(empty), "no certificate"),
    ):
        result = await call("job", "list", option, file)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"raftcron: {option} {file}: cannot be used: ")
        assert reason in result.stderr
        assert "None" not in result.stderr
    both = await call("job", "list", "--cacert", str(empty), "--cert", missing)
    assert f"--cacert {empty} or --cert {missing}: cannot be used" in both.stderr


async def test_each_address_is_tried(make_node: Callable[[], Any], nowhere: str) -> None:
    """A node that is down or has no leader is passed over, for writes too: it has written nothing."""
    first, second = await make_node(), await make_node()
    first.refuses(503, "unavailable", "no leader")
    second.answers(200, {"results": [met("a", 201, "created")]})
    args = ["job", "apply", "-f", "-", "--addr", nowhere, "--addr", first.address, "--addr", second.address]
    result = await call(*args, stdin='{"name": "a"}')
    assert result.exit_code == 0, result.stderr
    assert len(first.asked) == len(second.asked) == 1


async def test_a_read_that_breaks_off_goes_to_the_next_node(make_node: Callable[[], Any]) -> None:
    """A read may be asked again anywhere."""
    first, second = await make_node(), await make_node()
    first.answers(0)
    second.answers(200, JOB)
    result = await call("job", "get", "backup-db", "-o", "name", addr=f"{first.address},{second.address}")
    assert result.stdout == "backup-db\n"


async def test_a_write_that_breaks_off_is_asked_again_under_its_key(make_node: Callable[[], Any]) -> None:
    """The next node gets the same Idempotency-Key, so that the write takes effect once."""
    first, second = await make_node(), await make_node()
    first.answers(0)
    second.answers(202, {"run": RUN})
    result = await call("job", "run", "backup-db", addr=f"{first.address},{second.address}")
    assert result.exit_code == 0
    assert first.headers[0]["idempotency-key"] == second.headers[0]["idempotency-key"]


async def test_a_change_of_members_that_breaks_off_goes_on_elsewhere(make_node: Callable[[], Any]) -> None:
    """Under the same key; where it was done before the key was kept, nobody of that name is there any more."""
    for status in (204, 404):
        first, second = await make_node(), await make_node()
        first.answers(0)
        if status == 404:
            second.refuses(404, "not_found", "n3 is not a member")
        else:
            second.answers(204)
        result = await call("cluster", "remove", "n3", addr=f"{first.address},{second.address}")
        assert (result.exit_code, result.stdout) == (0, ""), result.stderr
        assert first.headers[0]["idempotency-key"] == second.headers[0]["idempotency-key"]


async def test_a_write_that_breaks_off_everywhere_is_in_doubt(make_node: Callable[[], Any]) -> None:
    """Exit code 5 and what to do, though the last node says that it has written nothing."""
    first, second = await make_node(), await make_node()
    first.answers(0)
    second.refuses(503, "unavailable", "there is no leader now")
    result = await call("cluster", "remove", "n3", addr=f"{first.address},{second.address}")
    assert result.exit_code == 5
    assert "broke off" in result.stderr
    assert "look, then repeat" in result.stderr


async def test_the_token_of_the_environment_is_sent(node: StandIn) -> None:
    """RAFTCRON_TOKEN is a bearer token; without it no header is sent."""
    for _ in range(2):
        node.answers(200, JOB)
    await call("job", "get", "x", addr=node.address, RAFTCRON_TOKEN="abc")
    await call("job", "get", "x", addr=node.address)
    assert node.headers[0]["authorization"] == "Bearer abc"
    assert "authorization" not in node.headers[1]


async def test_stale_reads_ask_no_leader(node: StandIn) -> None:
    """--stale for each command that reads; the error that would be helped by it names it."""
    node.refuses(503, "unavailable", "not confirmed. Repeat it, or ask with ?consistency=stale")
    refused = await call("job", "list", addr=node.address)
    assert refused.exit_code == 5
    assert "or ask with --stale\n" in refused.stderr
    assert "raftcron doctor" in refused.stderr
    for command in (
        ("job", "list"), ("job", "get", "x"), ("job", "next", "x"), ("job", "why", "x", "--at", "2026-01-01T00:00:00Z"),
        ("run", "list"), ("run", "get", "x"), ("run", "logs", "x"), ("audit", "list"), ("token", "list"),
    ):  # fmt: skip
        node.answers(200, {"items": [], "next_cursor": None, "verdict": "not_due", "message": "no"})
        result = await call(*command, "--stale", "-o", "json", addr=node.address)
        assert result.exit_code == 0, result.stderr
        assert "consistency=stale" in node.asked[-1][1], command


async def test_a_run_that_was_not_awaited_to_its_end_is_named(make_node: Callable[[], Any]) -> None:
    """Ctrl-C ends the command with 130, not the run; how to go on is said."""
    node = await make_node()
    node.answers(202, {"run": RUN})
    node.holds()
    command = [sys.executable, "-m", "raftcron", "job", "run", "backup-db", "--wait", "--addr", node.address]
    # Whoever runs the tests in the background of a shell has it ignored, and so would the command.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, preexec_fn=heed)
    await asyncio.wait_for(node.held.wait(), 30)
    process.send_signal(signal.SIGINT)
    stdout, stderr = await process.communicate()
    node.lets_go()
    assert (process.returncode, stdout) == (130, b"")
    assert stderr.decode() == "raftcron: run r1 goes on: `raftcron run logs -f r1`, `raftcron run cancel r1`\n\n"


async def test_a_new_token_is_printed_alone_or_with_what_it_is_good_for(node: StandIn) -> None:
    """The bare token is for a script's variable; `-o json` is the whole answer."""
    made = {"name": "ci", "role": "operate", "prefix": "ci-", "token": "rct_secret"}
    for output, shown in (("table", "rct_secret\n"), ("name", "ci\n"), ("json", None)):
        node.answers(201, made)
        result = await call(
            "token", "create", "ci", "--role", "operate", "--prefix", "ci-", "-o", output, addr=node.address
        )
        assert result.exit_code == 0, result.stderr
        assert result.stdout == shown if shown else json.loads(result.stdout) == made


async def test_something_else_at_the_address(node: StandIn) -> None:
    """An answer that is not JSON is an error in words, not a traceback."""
    node.answers(200, "<html>")
    result = await call("job", "get", "x", addr=node.address)
    assert result.exit_code == 1
    assert "is it a raftcron node?" in result.stderr
