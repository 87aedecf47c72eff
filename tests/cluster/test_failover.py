"""Nodes that end and come back, one or all, politely or not: nothing that was said is unsaid, and fires go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import due_times
from tests.chaos.history import Job, milliseconds
from tests.chaos.receiver import Receiver
from tests.cluster.harness import NO_ANSWER, Cluster, eventually

NEVER = "0 0 29 2 *"
ENDED = frozenset({"succeeded", "failed", "timed_out", "cancelled", "lost", "skipped"})
SHORT_LEASE = ("--lease", "2s", "--lease-margin", "500ms")


def webhook(url: str) -> dict[str, Any]:
    return {"type": "http", "url": url}


async def put_firing_jobs(cluster: Cluster, receiver: Receiver) -> dict[str, Any]:
    """Three jobs that fire each second and keep every row; by name, as answered."""
    kinds = {"least": "at_least_once", "most": "at_most_once", "slow": "at_least_once"}
    return {
        name: await cluster.put_job(
            "n1",
            name,
            schedule="@every 1s",
            delivery=kind,
            overlap={"policy": "allow"},
            misfire={"grace": "10m"},  # so that a start that takes long is no outage beyond it
            executor=webhook(receiver.hook(0.4 if name == "slow" else 0)),
            history={"runs": 1000},
        )
        for name, kind in kinds.items()
    }


async def jobs_on(cluster: Cluster, node: str) -> dict[str, Any]:
    """Every job by name, without what a fire changes."""
    moving = ("next_fire_at", "last_run", "stats")
    jobs = await cluster.pages(node, "/v1/jobs")
    return {job["name"]: {key: value for key, value in job.items() if key not in moving} for job in jobs}


async def records_on(cluster: Cluster, node: str, names: Any) -> dict[str, Any]:
    """Every run record of these jobs, by id."""
    return {run["id"]: run for name in names for run in await cluster.runs(node, name)}


async def wait_runs(cluster: Cluster, node: str, job: str, count: int) -> None:
    """Until `count` runs of the job have succeeded."""

    async def enough() -> bool:
        rows = await cluster.runs(node, job)
        assert sum(row["state"] == "succeeded" for row in rows) >= count, [row["state"] for row in rows]
        return True

    await eventually(enough, within=60, what=f"{count} runs of {job} have succeeded")


async def assert_nothing_forgotten(cluster: Cluster, before: dict[str, Any], jobs: dict[str, Any]) -> None:
    """Every run record of before is there on each node: the same run, and what had ended has not changed."""
    for node in cluster.nodes:
        after = await records_on(cluster, node, jobs)
        for run_id, old in before.items():
            assert run_id in after, f"{node} lost the record of {old}"
            kept = ("job", "scheduled_time", "cause")
            assert {key: after[run_id][key] for key in kept} == {key: old[key] for key in kept}
            if old["state"] in ENDED:
                assert after[run_id] == old, f"{node} tells another end of {run_id}"


async def assert_decided_once(cluster: Cluster, jobs: dict[str, Any]) -> None:
    """From the creation of each job up to now no scheduled time is missing and none is decided twice."""
    for name, job in jobs.items():
        rows = await cluster.runs("n1", name)
        decided = sorted(milliseconds(row["scheduled_time"]) for row in rows if not row.get("count"))
        for row in rows:
            assert not row.get("count"), f"an outage within the grace leaves no summary: {row}"
        newest = Job(name, "@every 1s", "", "", milliseconds(job["created_at"]), decided[-1], 0)
        assert decided == list(due_times(newest))


async def test_a_follower_that_was_down_catches_up(tmp_path: Path) -> None:
    """What was written while it was away is on it when it is ready, and it stands where the others stand."""
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        away, other = await cluster.followers()
        await cluster.put_job(other, "before", schedule=NEVER, executor=webhook("http://127.0.0.1:9/"))
        assert await cluster.stop(away) == {away: 0}
        for place in range(50):
            await cluster.put_job(other, f"meanwhile-{place}", schedule=NEVER, executor=webhook("http://127.0.0.1:9/"))
        await cluster.start(away)
        names = {"before", *(f"meanwhile-{place}" for place in range(50))}
        assert set(await jobs_on(cluster, away)) == names
        await cluster.wait_converged(within=60)
        for index, digest in (await cluster.digests(away)).items():
            assert (await cluster.digests(other)).get(index, digest) == digest


async def test_restarting_each_node_in_turn_loses_nothing(tmp_path: Path) -> None:
    """Each node, the leader too, is stopped and started again under fire: exit code 0, no time missing, no run lost."""
    async with Receiver(tmp_path) as receiver, Cluster(tmp_path) as cluster:
        await cluster.start()
        jobs = await put_firing_jobs(cluster, receiver)
        await wait_runs(cluster, "n1", "least", 2)
        before = await records_on(cluster, "n1", jobs)
        for node in cluster.nodes:
            assert await cluster.stop(node) == {node: 0}
            await cluster.start(node)
        await wait_runs(cluster, "n1", "least", sum(run["job"] == "least" for run in before.values()) + 4)
        await assert_nothing_forgotten(cluster, before, jobs)
        await assert_decided_once(cluster, jobs)
        after = await records_on(cluster, "n2", jobs)
        assert {run["state"] for run in after.values()} <= {"succeeded", "running", "assigned", "queued"}
        for run in after.values():
            assert len(run["attempts"]) <= 1, f"an orderly stop needs no second attempt: {run}"


async def test_stopping_all_nodes_is_clean_and_loses_nothing(tmp_path: Path) -> None:
    """SIGTERM ends each with exit code 0; started again they know every job and run, and decide nothing twice."""
    async with Receiver(tmp_path) as receiver, Cluster(tmp_path) as cluster:
        await cluster.start()
        jobs = await put_firing_jobs(cluster, receiver)
        await cluster.put_job("n2", "idle", schedule=NEVER, executor=webhook("http://127.0.0.1:9/"), paused=True)
        await wait_runs(cluster, "n3", "least", 3)
        before, definitions = await records_on(cluster, "n1", jobs), await jobs_on(cluster, "n1")
        assert await cluster.stop() == {"n1": 0, "n2": 0, "n3": 0}
        await cluster.start()
        assert await jobs_on(cluster, "n2") == definitions
        await wait_runs(cluster, "n1", "least", sum(run["job"] == "least" for run in before.values()) + 3)
        await assert_nothing_forgotten(cluster, before, jobs)
        await assert_decided_once(cluster, jobs)


async def test_killing_all_nodes_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """kill -9 of all three under load: jobs, records and watermarks are there, no time is missing or decided twice."""
    async with Receiver(tmp_path) as receiver, Cluster(tmp_path) as cluster:
        await cluster.start()
        jobs = await put_firing_jobs(cluster, receiver)
        await wait_runs(cluster, "n1", "least", 3)
        acknowledged: dict[str, int] = {}

        async def write(node: str) -> None:
            place = 0
            while True:
                name, place = f"{node}-{place}", place + 1
                job = {"schedule": NEVER, "executor": webhook("http://127.0.0.1:9/")}
                try:
                    answer = await cluster.request(node, "PUT", f"/v1/jobs/{name}", body=job)
                except NO_ANSWER:
                    return
                if answer.status == 201:
                    acknowledged[name] = answer.json["revision"]

        writers = [asyncio.create_task(write(node)) for node in cluster.nodes]

        async def enough_written() -> bool:
            return len(acknowledged) >= 60

        await eventually(enough_written, within=60, what="60 writes are acknowledged")
        before = await records_on(cluster, "n1", jobs)
        await cluster.kill("n1", "n2", "n3")
        await asyncio.gather(*writers)
        await cluster.start()
        there = await jobs_on(cluster, "n3")
        assert {name: there[name]["revision"] for name in acknowledged if name in there} == acknowledged
        assert jobs.keys() <= there.keys()
        await wait_runs(cluster, "n1", "least", sum(run["job"] == "least" for run in before.values()) + 3)
        await assert_nothing_forgotten(cluster, before, jobs)
        await assert_decided_once(cluster, jobs)
        await cluster.wait_converged(within=60)


async def test_each_node_reads_its_own_writes_and_says_who_led(tmp_path: Path) -> None:
    """A write on any node answers with that node, the leader and an index that the same node has then applied."""
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        leader = await cluster.wait_leader()
        for node in cluster.nodes:
            for place in range(10):
                name = f"{node}-{place}"
                job = {"schedule": NEVER, "executor": webhook("http://127.0.0.1:9/"), "description": name}
                created = (await cluster.request(node, "PUT", f"/v1/jobs/{name}", body=job)).expect(201)
                assert (created.node, created.leader) == (node, leader)
                local = await cluster.request(node, "GET", f"/v1/jobs/{name}?consistency=stale")
                assert local.expect(200).json["description"] == name
                assert created.index is not None
                assert local.index is not None
                assert local.index >= created.index
                assert created.json["revision"] == created.index
        for node in cluster.nodes:
            assert len(await cluster.pages(node, "/v1/jobs")) == 30
        for node in cluster.nodes:
            answer = await cluster.request(node, "DELETE", f"/v1/jobs/{node}-0")
            assert answer.expect(204).leader == leader
            (await cluster.request(node, "GET", f"/v1/jobs/{node}-0?consistency=stale")).expect(404)


async def test_a_read_on_any_node_sees_what_any_other_was_told(tmp_path: Path) -> None:
    """Reads are linearizable by default: once a write is answered, every node's next read shows it."""
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        names = tuple(cluster.nodes)
        for place in range(30):
            writer, reader = names[place % 3], names[(place + 1 + place // 3 % 2) % 3]
            await cluster.put_job(
                writer, "one", schedule=NEVER, executor=webhook("http://127.0.0.1:9/"), description=str(place)
            )
            seen = (await cluster.request(reader, "GET", "/v1/jobs/one")).expect(200).json
            assert seen["description"] == str(place)


async def test_without_a_quorum_writes_are_refused_and_certainly_not_there(tmp_path: Path) -> None:
    """One node of three alone: 503 with Retry-After to writes and reads, stale reads go on; later nothing shows up."""
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        leader = await cluster.wait_leader()
        left, other = await cluster.followers()
        await cluster.put_job(left, "kept", schedule=NEVER, executor=webhook("http://127.0.0.1:9/"))
        await cluster.kill(leader, other)

        async def leaderless() -> bool:
            return (await cluster.status(left))["leader"] is None

        await eventually(leaderless, within=60, what=f"{left} knows that nobody leads")
        job = {"schedule": NEVER, "executor": webhook("http://127.0.0.1:9/")}
        refused = (await cluster.request(left, "PUT", "/v1/jobs/refused", body=job)).expect(503)
        assert refused.headers["Content-Type"].startswith("application/problem+json")
        assert int(refused.headers["Retry-After"]) > 0
        assert refused.leader is None
        (await cluster.request(left, "GET", "/v1/jobs/kept")).expect(503)
        stale = (await cluster.request(left, "GET", "/v1/jobs/kept?consistency=stale")).expect(200)
        assert int(stale.headers["Raftcron-Staleness-Ms"]) >= 0
        (await cluster.request(left, "GET", "/readyz")).expect(503)
        (await cluster.request(left, "GET", "/livez")).expect(200)
        await cluster.start(leader, other)
        await cluster.wait_ready()
        assert set(await jobs_on(cluster, left)) == {"kept"}


async def test_what_a_leader_took_with_it_is_not_called_unwritten(tmp_path: Path) -> None:
    """The leader and a follower die under many writes: later each 201 is there and no 503 is, whoever forwarded it."""
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        answers: dict[str, int | None] = {}
        for attempt in range(3):
            leader = await cluster.wait_leader()
            left, other = await cluster.followers()

            async def write(worker: int, attempt: int = attempt, left: str = left) -> None:
                place = 0
                while True:
                    name, place = f"{attempt}-{worker}-{place}", place + 1
                    job = {"schedule": NEVER, "executor": webhook("http://127.0.0.1:9/")}
                    try:
                        answers[name] = (await cluster.request(left, "PUT", f"/v1/jobs/{name}", body=job)).status
                    except NO_ANSWER:
                        answers[name] = None
                    if answers[name] != 201:
                        return

            writers = [asyncio.create_task(write(worker)) for worker in range(40)]
            known = len(answers)

            async def under_load(known: int = known) -> bool:
                return len(answers) > known + 200

            await eventually(under_load, within=60, what="200 writes are answered")
            await cluster.kill(leader, other)
            await asyncio.gather(*writers)
            await cluster.start(leader, other)
            await cluster.wait_ready()
            there = {job["name"] for job in await cluster.pages(left, "/v1/jobs")}
            assert {name for name, status in answers.items() if status == 201} <= there
            assert not {name for name, status in answers.items() if status == 503} & there
            assert set(answers.values()) <= {201, 503, 504, None}


@pytest.mark.parametrize("comes_back", [True, False], ids=["restarted", "stays away"])
async def test_what_ran_on_a_killed_leader_has_a_recorded_fate(tmp_path: Path, comes_back: bool) -> None:
    """Both are lost: at_most_once stays so, at_least_once runs again with the same id, next attempt, higher token."""
    async with Receiver(tmp_path) as receiver, Cluster(tmp_path, extra=SHORT_LEASE) as cluster:
        await cluster.start()
        leader = await cluster.wait_leader()
        asked = (await cluster.followers())[0]
        ids: dict[str, str] = {}
        for kind in ("at_most_once", "at_least_once"):
            await cluster.put_job(asked, kind, schedule=NEVER, delivery=kind, executor=webhook(receiver.hook(3)))
            started = await cluster.request(asked, "POST", f"/v1/jobs/{kind}/runs", body={})
            ids[kind] = started.expect(202).json["run"]["id"]

        async def both_in_flight() -> bool:
            return len((await receiver.open())[1]) == 2

        await eventually(both_in_flight, within=60, what="both webhooks wait for their answer")
        await cluster.kill(leader)
        if comes_back:
            await cluster.start(leader)

        async def ended(kind: str) -> Any:
            run = (await cluster.request(asked, "GET", f"/v1/runs/{ids[kind]}")).expect(200).json
            assert run["state"] in ENDED, run
            return run

        once = await eventually(lambda: ended("at_most_once"), within=60, what="the at_most_once run has an end")
        again = await eventually(lambda: ended("at_least_once"), within=60, what="the at_least_once run has an end")
        assert once["state"] == "lost"
        assert [row["state"] for row in once["attempts"]] == ["lost"]
        assert again["state"] == "succeeded"
        assert [row["state"] for row in again["attempts"]] == ["lost", "succeeded"]
        assert [row["attempt"] for row in again["attempts"]] == [1, 2]
        assert again["attempts"][0]["node"] == leader
        arrivals = {kind: await receiver.arrivals(kind) for kind in ids}
        assert len(arrivals["at_most_once"]) == 1
        first, second = arrivals["at_least_once"]
        assert first["run_id"] == second["run_id"] == ids["at_least_once"]
        assert (first["attempt"], second["attempt"]) == ("1", "2")
        assert int(second["token"]) > int(first["token"])


async def test_the_address_is_printed_once_the_node_is_ready(tmp_path: Path) -> None:
    """One line with the HTTP address on stdout, not before /readyz answers 200."""
    async with Cluster(tmp_path, size=1) as cluster:
        await cluster.start()
        node = cluster.nodes["n1"]

        async def printed() -> bool:
            return sum(node.url in line for line in node.out.read_text().splitlines()) == 1

        await eventually(printed, within=60, what=f"stdout has one line with {node.url}")
    async with Cluster(tmp_path / "three") as cluster:
        cluster.spawn("n1")
        node = cluster.nodes["n1"]

        async def live() -> bool:
            return (await cluster.request("n1", "GET", "/livez")).status == 200

        await eventually(live, within=60, what="the node is live")
        (await cluster.request("n1", "GET", "/readyz")).expect(503)
        assert node.url not in node.out.read_text()
