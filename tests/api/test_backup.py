"""GET /v1/backup and POST /v1/restore: there and back, into the same cluster and into another, all or nothing."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from raftcron.api import paced
from raftcron.api.connections import CONNECTIONS, Connections
from raftcron.core.archive import ARCHIVE_VERSION, MAGIC
from raftcron.runtime import backup
from tests.api.bench import GOOD, Answer, Bench, bench, until_cut
from tests.api.test_events import watching

TYPE = {"Content-Type": "application/vnd.raftcron.backup"}
WEBHOOK = "whsec_" + "c2VjcmV0" * 4
HTTP: dict[str, Any] = {"type": "http", "url": "http://127.0.0.1:9/", "secret": WEBHOOK, "method": "POST"}


async def filled(made: Bench) -> bytes:
    """A cluster with some of everything, and its backup."""
    await made.ask("PUT", "/v1/groups/g", {"max_running": 3})
    await made.ask("PUT", "/v1/calendars/x", {"dates": ["2030-01-01"]})
    await made.ask("PUT", "/v1/secrets/key", {"value": "hidden"})
    (await made.ask("PUT", "/v1/alerts/default", {"alerts": [{"url": "http://127.0.0.1:9/"}]})).expect(201)
    (await made.put("a", group="g", exclude=["x"], labels={"team": "db"})).expect(201)
    (await made.put("b", after=[{"job": "a"}], executor=HTTP)).expect(201)
    sent = [{**GOOD, "name": "owned"}]
    (await made.ask("POST", "/v1/jobs:apply?owner=ci", {"jobs": sent})).expect(200)
    (await made.ask("POST", "/v1/jobs/b/pause", {"note": "moving", "until": "2030-01-01T00:00:00Z"})).expect(200)
    return (await made.ask("GET", "/v1/backup")).expect(200).body


async def restored(made: Bench, data: bytes, *, on: str = "n1", query: str = "", key: str | None = None) -> Answer:
    headers = TYPE if key is None else {**TYPE, "Idempotency-Key": key}
    return await made.ask("POST", f"/v1/restore{query}", data=data, headers=headers, on=on)


def told(made: Bench) -> dict[str, Any]:
    """What people have written, as the state has it."""
    state = made.n1.machine.state
    return {
        "jobs": {
            job.name: (job.definition, job.paused, job.pause_note, job.pause_until, job.owner)
            for job in state.jobs.values()
        },
        "calendars": {one.name: one.definition for one in state.calendars.values()},
        "groups": {one.name: one.max_running for one in state.groups.values()},
        "alerts": {one.name: one.definition for one in state.alert_routes.values()},
    }


async def test_a_backup_goes_back_where_it_came_from(one: Bench) -> None:
    """Edits are undone, what was deleted is there again, what is new goes; secrets are the same bytes."""
    data = await filled(one)
    before = told(one)
    await one.ask("DELETE", "/v1/jobs/a")
    await one.put("owned", description="edited")
    await one.put("new")
    await one.ask("PUT", "/v1/groups/other", {"max_running": 1})
    await one.ask("PUT", "/v1/calendars/x", {"dates": ["2031-01-01"]})
    await one.ask("DELETE", "/v1/alerts/default")
    answer = (await restored(one, data)).expect(200)
    assert answer.json == {
        "jobs": 3,
        "calendars": 1,
        "groups": 1,
        "deleted": 1,
        "index": answer.index,
        "missing_secrets": [],
        "dry_run": False,
    }
    assert told(one) == before
    assert not one.n1.machine.state.staged


async def test_a_backup_goes_into_another_cluster_with_the_same_secret() -> None:
    """What is sealed opens there, though that cluster has a key of its own."""
    async with bench(cluster_secret=b"shared") as here, bench(cluster_secret=b"shared") as there:
        data = await filled(here)
        await there.put("other", executor=HTTP)
        answer = (await restored(there, data)).expect(200)
        assert (answer.json["missing_secrets"], answer.json["deleted"]) == ([], 1)
        assert sorted(there.n1.machine.state.jobs) == ["a", "b", "owned"]
        job = (await there.ask("GET", "/v1/jobs/b")).expect(200).json
        assert (job["pause_note"], job["pause_until"]) == ("moving", "2030-01-01T00:00:00Z")
        assert await opened(there) == (WEBHOOK, "hidden")


async def test_watchers_are_told_which_jobs_a_restore_has_made() -> None:
    """A job that it brings is `created` where there was none, and `changed` where there was another."""
    async with bench() as here, bench() as there:
        data = await filled(here)
        await there.put("a", description="another")
        async with watching(there, query="?kind=job") as stream:
            (await restored(there, data)).expect(200)
            found = {event.data["name"]: event.data["change"] for event in await stream.take(3)}
    assert found == {"a": "changed", "b": "created", "owned": "created"}


async def opened(made: Bench) -> tuple[str | None, str | None]:
    """The secret of job b and the one called `key`, by the cluster's own key."""
    from raftcron.core.definition import executor_of
    from raftcron.runtime.vault import place_in_job, place_of

    vault, state = made.n1.context.backups._vault, made.n1.machine.state
    await vault.ready()
    sealed = executor_of(state.jobs["b"].definition)["secret"]
    return vault.open(sealed, place_in_job("b", "/secret")), vault.open(state.secrets["key"].sealed, place_of("key"))


async def test_what_no_key_opens_is_named() -> None:
    """Into a cluster with another secret jobs come all the same, and the answer says what has to be written again."""
    async with bench(cluster_secret=b"one") as here, bench(cluster_secret=b"other") as there:
        data = await filled(here)
        answer = (await restored(there, data)).expect(200)
        assert answer.json["missing_secrets"] == ["/secrets/key", "/jobs/b/executor/secret"]
        assert not there.n1.machine.state.secrets
        assert (await there.ask("GET", "/v1/jobs/b")).expect(200)


@pytest.mark.parametrize("on", ["n1", "n2"])
async def test_any_node_makes_and_takes_one(two: Bench, on: str) -> None:
    """A follower streams it to the leader."""
    await filled(two)
    data = (await two.ask("GET", "/v1/backup", on=on)).expect(200).body
    await two.put("new")
    (await restored(two, data, on=on)).expect(200)
    assert sorted(two.n1.machine.state.jobs) == sorted(two.n2.machine.state.jobs) == ["a", "b", "owned"]


async def test_a_damaged_archive_changes_nothing(one: Bench) -> None:
    """Cut, changed, newer, of something else, empty: 422 with the byte; another type is a 415."""
    data = await filled(one)
    await one.put("new")
    before, index = told(one), one.n1.machine.state.index
    newer = MAGIC + bytes([ARCHIVE_VERSION + 1]) + data[len(MAGIC) + 1 :]
    flipped = data[:200] + bytes([data[200] ^ 1]) + data[201:]
    for wrong in (data[:-1], flipped, newer, b'{"jobs": []}', b"", data + data):
        assert "byte" in (await restored(one, wrong)).problem(422, "invalid")["detail"]
    (await one.ask("POST", "/v1/restore", data=data)).problem(415, "media_type")
    assert told(one) == before
    assert one.n1.machine.state.index == index


async def test_a_dry_run_writes_nothing(one: Bench) -> None:
    """And says what would be done."""
    data = await filled(one)
    await one.put("new")
    index = one.n1.machine.state.index
    answer = (await restored(one, data, query="?dry_run=1")).expect(200).json
    assert (answer["jobs"], answer["deleted"], answer["dry_run"]) == (3, 1, True)
    assert one.n1.machine.state.index == index


async def test_a_repeat_under_the_same_key_undoes_nothing(one: Bench) -> None:
    """It answers what the first was answered; another archive under the key is a conflict."""
    data = await filled(one)
    first = (await restored(one, data, key="k")).expect(200)
    await one.put("since")
    again = (await restored(one, data, key="k")).expect(200)
    assert again.json == first.json
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "since" in one.n1.machine.state.jobs
    other = (await one.ask("GET", "/v1/backup")).body
    (await restored(one, other, key="k")).problem(409, "conflict")


async def test_times_between_backup_and_restore_are_not_owed(one: Bench) -> None:
    """A job that comes again owes what comes after; what was due of those that are there is decided first."""
    await one.put("gone", schedule="* * * * *")
    await one.put("kept", schedule="* * * * *")
    data = (await one.ask("GET", "/v1/backup")).expect(200).body
    await one.ask("DELETE", "/v1/jobs/gone")
    await one.put("kept", schedule="*/2 * * * *")
    one.clock.wall_offset_ms += 3_600_000
    (await restored(one, data)).expect(200)
    state = one.n1.machine.state
    now = one.n1.machine.state.cluster_time
    assert state.jobs["gone"].decided_through >= now - 1
    assert state.jobs["kept"].decided_through >= now - 1
    assert not [run for run in state.runs.values() if run.job == "gone"]
    assert [run for run in state.runs.values() if run.job == "kept"]


async def test_a_backup_is_of_one_moment(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is edited, or deleted, while others are read is in it as it was at the index that it names."""
    monkeypatch.setattr(backup, "SLICE_SECONDS", -1.0)
    sent = [{**GOOD, "name": f"job-{n:03}"} for n in range(200)]
    (await one.ask("POST", "/v1/jobs:apply", {"jobs": sent})).expect(200)

    async def writes() -> None:
        for n in range(20):
            await one.put(f"job-{n:03}", description="both")
            await one.ask("DELETE", f"/v1/jobs/job-{199 - n}")

    writing = asyncio.create_task(writes())
    for _ in range(5):
        answer = (await one.ask("GET", "/v1/backup")).expect(200)
        seen = await as_of(answer.body)
        edited = sum(seen.values())
        assert (200 - len(seen)) in (edited, edited - 1), "one write was seen without the one before it"
    await writing


async def as_of(data: bytes) -> dict[str, bool]:
    """The jobs of an archive, and which of them were edited."""
    async with bench() as other:
        (await restored(other, data)).expect(200)
        jobs = other.n1.machine.state.jobs
        return {name: b"both" in job.definition for name, job in jobs.items()}


async def test_only_an_admin_may(one: Bench) -> None:
    """With tokens, an operator is refused, and so is nobody."""
    data = await filled(one)
    admin = (await one.ask("POST", "/v1/tokens", {"name": "root", "role": "admin"})).expect(201).json["token"]
    asked = {"Authorization": f"Bearer {admin}"}
    body = json.dumps({"name": "op", "role": "operate"}).encode()
    sent = await one.ask("POST", "/v1/tokens", data=body, headers={**asked, "Content-Type": "application/json"})
    operate = {"Authorization": f"Bearer {sent.expect(201).json['token']}"}
    (await one.ask("GET", "/v1/backup", headers=operate)).problem(403)
    (await one.ask("POST", "/v1/restore", data=data, headers={**TYPE, **operate})).problem(403)
    (await one.ask("GET", "/v1/backup", headers=asked)).expect(200)
    (await one.ask("POST", "/v1/restore", data=data, headers={**TYPE, **asked})).expect(200)


async def test_a_reader_that_takes_nothing_of_a_backup_is_dropped(
    one: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection is cut, and the log says why."""
    caplog.set_level(logging.INFO, paced.__name__)
    for number in range(16):  # more than lies between two sockets
        (await one.put(f"large-{number}", executor={**HTTP, "body": "x" * 1_000_000})).expect(201)
    monkeypatch.setattr(paced, "SLOW_SECONDS", 0.3)
    connections: Connections = one.n1.runner.app[CONNECTIONS]
    with one.taking_nothing("/v1/backup") as narrow:
        async with asyncio.timeout(60):
            while not connections._busy:
                await asyncio.sleep(0)
            while connections._busy:
                await asyncio.sleep(0.01)
        await until_cut(narrow)
    told = [record.getMessage() for record in caplog.records if record.name == paced.__name__]
    assert told == ["backup_reader_dropped reason=it took nothing for 0.3 s"]
    monkeypatch.setattr(paced, "SLOW_SECONDS", 60.0)
    assert len((await one.ask("GET", "/v1/backup")).expect(200).body) > 16_000_000
