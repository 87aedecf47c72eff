"""A long HTTP job on real processes: its target answers 202, and the leader that called it dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiohttp import web

from tests.cluster.harness import Cluster, eventually


async def test_a_run_that_its_target_has_taken_over_outlives_the_leader_that_sent_it(tmp_path: Path) -> None:
    """kill -9 of the leader after the 202: the run goes on through its lease, and its target ends it elsewhere."""
    got: list[web.BaseRequest] = []

    async def take(request: web.BaseRequest) -> web.Response:
        got.append(request)
        return web.Response(status=202, text="on it")

    runner = web.ServerRunner(web.Server(take))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        async with Cluster(tmp_path, extra=("--lease", "1s", "--lease-margin", "300ms")) as cluster:
            await cluster.start()
            leader = await cluster.wait_leader()
            executor = {"type": "http", "url": url, "async": True}
            await cluster.put_job(leader, "long", schedule="@manual", executor=executor, timeout="30s")
            await cluster.put_job(leader, "next", schedule="@manual", executor=executor, after=[{"job": "long"}])
            run = (await cluster.request(leader, "POST", "/v1/jobs/long/runs", body={})).expect(202).json["run"]
            where = f"/v1/runs/{run['id']}"

            async def seen(node: str, path: str = where) -> Any:
                return (await cluster.request(node, "GET", path)).expect(200).json

            async def taken_over() -> bool:
                return (await seen(leader))["answer_by"] is not None

            await eventually(taken_over, within=60, what="the 202 is on record")
            await cluster.kill(leader)
            other = await cluster.wait_leader(other_than=leader)
            await cluster.restart(leader)  # in its next life; what it ran in the former is lost by now
            now = await seen(other)
            assert (now["state"], now["node"], now["output_tail"]) == ("running", leader, "on it")
            token = {"token": got[0].headers["Raftcron-Fencing-Token"]}
            (await cluster.request(leader, "POST", f"{where}/heartbeat", body=token)).expect(200)
            finish = {**token, "state": "succeeded", "message": "done"}
            (await cluster.request(leader, "POST", f"{where}/finish", body=finish)).expect(200)
            ended = await seen(other)
            assert (ended["state"], ended["output_tail"], len(ended["attempts"])) == ("succeeded", "done", 1)

            async def followed() -> Any:
                return [row for row in await cluster.runs(other, "next") if row["answer_by"]]

            [child] = await eventually(followed, within=60, what="what follows has been taken over")
            assert (child["cause"], child["parent"]) == ("chain", run["id"])
            assert [request.headers["Raftcron-Run-Id"] for request in got] == [run["id"], child["id"]]
    finally:
        await runner.cleanup()
