"""The output of a command on real nodes: followed through another node, and after the node where it ran has died."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from tests.cluster.harness import Cluster, eventually

LINES = 60
COMMAND = f"for n in $(seq {LINES}); do echo line $n; sleep 0.05; done; head -c 100000 /dev/zero | tr '\\0' x"


async def test_output_is_followed_through_another_node_and_gone_with_its_own(tmp_path: Path) -> None:
    """Line by line while it runs, through a change of leader; whole afterwards; 503 with the tail while n1 is dead."""
    async with Cluster(tmp_path, allow_shell=True) as cluster, aiohttp.ClientSession() as session:
        await cluster.start()
        where = await cluster.wait_leader()
        through, other = (name for name in cluster.nodes if name != where)
        await cluster.put_job(where, "talks", schedule="@manual", executor={"type": "shell", "command": COMMAND})
        started = (await cluster.request(through, "POST", "/v1/jobs/talks/runs", body={})).expect(202).json["run"]
        path = f"/v1/runs/{started['id']}/output"
        async with session.get(f"{cluster.nodes[through].url}{path}?follow=1") as answer:
            assert answer.status == 200
            for number in range(1, LINES + 1):
                assert await answer.content.readline() == b"line %d\n" % number
                if number == 10:  # it runs on where it is, whoever leads
                    state = (await cluster.request(other, "GET", f"/v1/runs/{started['id']}")).json["state"]
                    assert state == "running", "what is read is live"
                    await cluster.request(through, "POST", "/v1/cluster/transfer", body={"to": through})
        await cluster.wait_leader(other_than=where)

        async def ended() -> bool:
            return bool((await cluster.request(other, "GET", f"/v1/runs/{started['id']}")).json["state"] == "succeeded")

        await eventually(ended, within=60, what="the run has ended")
        whole = "".join(f"line {number}\n" for number in range(1, LINES + 1)) + "x" * 100_000
        for name in cluster.nodes:
            async with session.get(f"{cluster.nodes[name].url}{path}") as answer:
                assert (answer.status, await answer.text()) == (200, whole), name
        await cluster.kill(where)
        async with session.get(f"{cluster.nodes[other].url}{path}") as answer:
            problem = await answer.json(content_type=None)
        assert (answer.status, problem["code"], problem["output_tail"]) == (503, "unavailable", "x" * 4096)
        assert f"node {where}" in problem["detail"]
        await cluster.start(where)
        async with session.get(f"{cluster.nodes[other].url}{path}") as answer:
            assert (answer.status, await answer.text()) == (200, whole), "the disk is back with its node"
