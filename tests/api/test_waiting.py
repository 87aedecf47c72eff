"""What a queued run waits for: `waits_for` of the run, and the message of why."""

from __future__ import annotations

from typing import Any

from raftcron.core.commands import Announce, Decide, Decision, Drain, Fire, Place
from raftcron.core.instant import parse_rfc3339
from tests.api.bench import Bench

ELSEWHERE: dict[str, Any] = {"schedule": "0 * * * *", "placement": {"on": "any", "tags": {"zone": "moon"}}}
SPAN = {"from": "2027-01-14T21:00:00Z", "to": "2027-01-14T22:00:00Z"}
NO_NODE = (
    "a node with the tags zone=moon, which no node of the cluster has: start one with them (--tag), or change the "
    "job's placement.tags; "
)


async def waits_for(bench: Bench, run_id: str, on: str = "n1") -> str | None:
    text: str | None = (await bench.ask("GET", f"/v1/runs/{run_id}", on=on)).expect(200).json["waits_for"]
    return text


async def decided(bench: Bench, name: str, at: str) -> str:
    """The run of a scheduled time that is decided while nothing can take it."""
    job, time = bench.n1.machine.state.jobs[name], parse_rfc3339(at)
    await bench.n1.propose(Decide(Place("n1", 0), [Decision(job.uid, job.revision, time, [Fire(time, time)])]))
    return f"{job.uid:x}-{time}"


async def test_a_backfill_that_no_node_matches_says_so_and_what_to_do(two: Bench) -> None:
    """In its answer, and on any node; it has no deadline, which is said, too.  One behind it waits for its turn."""
    await two.put("a", **ELSEWHERE)
    first, second = (await two.ask("POST", "/v1/jobs/a/backfill", SPAN)).expect(200).json["runs"]
    said = f"{NO_NODE}a backfill has no start deadline, so it waits until then, or until it is cancelled"
    assert first["waits_for"] == said
    assert second["waits_for"] == "its turn among the runs of its job"
    assert await waits_for(two, first["id"], on="n2") == said
    [*_, listed] = (await two.ask("GET", "/v1/jobs/a/runs")).expect(200).json["items"]
    assert listed["waits_for"] == said
    await two.n1.propose(Announce("n2", 2, "", "", "", 10, 10, tags={"zone": "moon"}))
    pace = "its turn at catch-up-rate, and for a free slot on a live node that matches: n2"
    assert await waits_for(two, first["id"]) == pace
    await two.n1.propose(Drain("n2", drained=True))
    drained = (await waits_for(two, first["id"]) or "").partition(";")[0]
    said = "a node that matches and is not drained: end the drain of n2 (raftcron cluster drain n2 --undo)"
    assert drained == said


async def test_a_scheduled_run_that_no_node_matches_says_until_when(one: Bench) -> None:
    """And so does why; a paused job's run waits for that; one that has ended waits for nothing."""
    await one.put("a", **ELSEWHERE, start_deadline="10m")
    run_id = await decided(one, "a", "2027-01-15T09:00:00Z")
    said = f"{NO_NODE}if none comes before 2027-01-15T09:10:00Z, it is skipped: no_node"
    assert await waits_for(one, run_id) == said
    answer = (await one.ask("GET", "/v1/jobs/a/why?at=2027-01-15T09:00:00Z")).expect(200).json
    assert (answer["verdict"], answer["run_id"]) == ("fired", run_id)
    assert answer["message"].endswith(f"it waits to be started (run {run_id}), for {said}")
    await one.ask("POST", "/v1/jobs/a/pause")
    assert await waits_for(one, run_id) == "its job to be resumed: it is paused"
    (await one.ask("POST", f"/v1/runs/{run_id}/cancel")).expect(200)
    assert await waits_for(one, run_id) is None


async def test_what_leader_and_group_keep_waiting_is_named(one: Bench) -> None:
    """The leader's tags count for what runs there; a full group is named; else it is a slot."""
    await one.put("a", schedule="0 * * * *", placement={"tags": {"zone": "moon"}})
    said = await waits_for(one, await decided(one, "a", "2027-01-15T09:00:00Z"))
    assert said is not None
    assert said.startswith("a leader with the tags zone=moon, which n1 does not have")
    await one.put("b", schedule="0 * * * *")
    free = await waits_for(one, await decided(one, "b", "2027-01-15T09:00:00Z"))
    assert free == "a free slot on a live node that matches: n1"
    await one.ask("PUT", "/v1/groups/db", {"max_running": 1})
    await one.put("c", schedule="0 * * * *", group="db")
    await one.fire("c", parse_rfc3339("2027-01-15T09:00:00Z"))
    await one.put("d", schedule="0 * * * *", group="db")
    full = await waits_for(one, await decided(one, "d", "2027-01-15T09:00:00Z"))
    assert full == "room in the group 'db', all of which is taken"
