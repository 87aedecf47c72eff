"""Runs over three real nodes: any, tags, broadcasts, shards, as a receiver sees them, while an executor is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.chaos.receiver import Receiver
from tests.cluster.harness import Cluster, eventually

LEASE = ("--lease", "2s", "--lease-margin", "500ms")
HANDS = {"schedule": "@manual", "timezone": "UTC"}


async def start(cluster: Cluster) -> None:
    """Three nodes, each with a tag of its own."""
    for name in cluster.nodes:
        cluster.spawn(name, extra=["--tag", f"name={name}"])
    await cluster.wait_ready()


async def put(cluster: Cluster, name: str, url: str, **fields: Any) -> None:
    body = {**HANDS, "executor": {"type": "http", "url": url}, **fields}
    (await cluster.request(cluster.alive[0], "PUT", f"/v1/jobs/{name}", body=body)).expect(200, 201)


async def run(cluster: Cluster, name: str) -> str:
    """Run it now; the run's id."""
    answer = (await cluster.request(cluster.alive[0], "POST", f"/v1/jobs/{name}/runs", body={})).expect(202)
    return str(answer.json["run"]["id"])


async def row(cluster: Cluster, run_id: str) -> Any:
    return (await cluster.request(cluster.alive[0], "GET", f"/v1/runs/{run_id}")).expect(200).json


async def parts(cluster: Cluster, run_id: str) -> list[Any]:
    """The parts of a run, once it is divided."""
    children = (await row(cluster, run_id))["children"]
    assert children, "not divided yet"
    return [await row(cluster, child) for child in children]


async def ended(cluster: Cluster, run_id: str, within: float) -> Any:
    async def over() -> Any:
        found = await row(cluster, run_id)
        return found if found["finished_at"] else None

    return await eventually(over, within=within, what=f"{run_id} ends")


async def test_runs_go_where_they_shall_and_survive_the_death_of_their_node(tmp_path: Path) -> None:
    """`any` reaches every node; a shard fails over, a broadcast's part does not; what was killed gets nothing more."""
    async with Receiver(tmp_path) as receiver, Cluster(tmp_path, extra=LEASE) as cluster:
        await start(cluster)
        leader = await cluster.wait_leader()
        victim = next(name for name in cluster.nodes if name != leader)
        every = {"schedule": "@every 1s", "placement": {"on": "any"}, "overlap": {"policy": "allow"}}
        await put(cluster, "any", receiver.hook(), **every)
        await put(cluster, "there", receiver.hook(), placement={"on": "any", "tags": {"name": victim}})
        await put(cluster, "nowhere", receiver.hook(), placement={"tags": {"name": "n9"}}, start_deadline="1s")
        await put(cluster, "all", receiver.hook(4), placement={"on": "all"}, delivery="at_least_once")
        await put(cluster, "shards", receiver.hook(4), placement={"shards": 6}, delivery="at_least_once")

        async def reaches_all() -> bool:
            return {arrival["node"] for arrival in await receiver.arrivals("any")} == set(cluster.nodes)

        await eventually(reaches_all, within=60, what="a run of `any` on each node")
        assert (await ended(cluster, await run(cluster, "there"), 60))["node"] == victim
        assert (await ended(cluster, await run(cluster, "nowhere"), 60))["reason"] == "no_node"

        broadcast, sharded = await run(cluster, "all"), await run(cluster, "shards")

        async def all_started() -> bool:
            found = await receiver.arrivals()
            return {job: sum(one["job"] == job for one in found) for job in ("all", "shards")} == {
                "all": 3,
                "shards": 6,
            }

        await eventually(all_started, within=60, what="each part has started")
        had = [part for part in await parts(cluster, sharded) if part["node"] == victim]
        assert [part["shard_count"] for part in had] == [6, 6], "six shards over three nodes"
        await cluster.kill(victim)

        whole = await ended(cluster, sharded, 60)
        assert (whole["state"], whole["parts"]) == ("succeeded", {"succeeded": 6})
        again = [await row(cluster, part["id"]) for part in had]
        assert all(part["attempt"] == 2 and part["node"] != victim for part in again), again
        assert {part["shard_index"] for part in await parts(cluster, sharded)} == set(range(6))

        told = await ended(cluster, broadcast, 60)
        assert (told["state"], told["parts"]) == ("lost", {"succeeded": 2, "lost": 1})
        assert told["error"] == "of 3 parts 1 lost, 2 succeeded"
        [lost] = [part for part in await parts(cluster, broadcast) if part["state"] == "lost"]
        assert (lost["id"], lost["attempt"]) == (f"{broadcast}.{victim}", 1)

        seen = len(await receiver.arrivals())

        async def goes_on() -> bool:
            nodes = [arrival["node"] for arrival in await receiver.arrivals("any", start=seen)]
            return len(nodes) >= 4 and victim not in nodes

        await eventually(goes_on, within=60, what="`any` goes on without the node that is gone")
        second = await run(cluster, "all")
        assert len(await eventually(lambda: parts(cluster, second), within=60, what="divided")) == 2

        leader = await cluster.wait_leader()
        other = next(name for name in cluster.alive if name != leader)
        (await cluster.request(other, "POST", "/v1/cluster/drain", body={"node": leader})).expect(200)
        assert await cluster.wait_leader() == other, "who is drained hands over the lead"
        seen = len(await receiver.arrivals())

        async def stays_away() -> bool:
            nodes = [arrival["node"] for arrival in await receiver.arrivals("any", start=seen)]
            return len(nodes) >= 3 and set(nodes[-3:]) == {other}

        await eventually(stays_away, within=60, what="a drained node gets nothing new")
        doubled = [arrival["token"] for arrival in await receiver.arrivals()]
        assert len(doubled) == len(set(doubled)), "no token starts twice"
