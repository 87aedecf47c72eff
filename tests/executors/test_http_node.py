"""http jobs of a real node: what is signed with a stored secret verifies, and the node's own rules hold."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.cluster.harness import Cluster, eventually


async def test_a_stored_secret_signs_and_the_nodes_rules_hold(tmp_path: Path) -> None:
    """The secret never comes back, the signature is of what arrived, a refused address names the rule."""
    got: list[tuple[dict[str, str], bytes]] = []

    async def take(request: web.Request) -> web.Response:
        got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(text="queued: 1")

    application = web.Application()
    application.router.add_post("/hook", take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with Cluster(tmp_path, size=1, extra=("--refuse-addresses", "127.0.0.2/32")) as cluster:
        await cluster.start()
        key = base64.b64encode(b"k" * 32).decode()

        async def run(host: str, expect: str) -> Any:
            executor = {"type": "http", "url": f"http://{host}:{port}/hook", "secret": f"whsec_{key}"}
            job = await cluster.put_job("n1", "hook", schedule="@manual", executor=executor | {"expect_body": expect})
            assert key not in str(job)
            asked = await cluster.request("n1", "POST", "/v1/jobs/hook/runs", body={"args": {"ä": 1}})
            started = asked.expect(202).json["run"]["id"]

            async def ended() -> Any:
                found = (await cluster.request("n1", "GET", f"/v1/runs/{started}")).expect(200).json
                return found if found["finished_at"] else None

            return await eventually(ended, within=60, what="the run has ended")

        done = await run("localhost", "queued")
        assert (done["state"], done["status_code"], done["output_tail"]) == ("succeeded", 200, "queued: 1")
        [(headers, body)] = got
        assert body == '{"ä":1}'.encode()
        assert headers["webhook-id"] == headers["raftcron-run-id"] == done["id"]
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.digest(b"k" * 32, content, "sha256")).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"

        other = await run("localhost", "done")
        assert (other["state"], other["error_kind"], other["status_code"]) == ("failed", "body", 200)
        executor = {"type": "http", "url": f"http://127.0.0.2:{port}/hook"}
        refused = await cluster.request("n1", "PUT", "/v1/jobs/no", body={"schedule": "@manual", "executor": executor})
        [fault] = refused.expect(422).json["errors"]
        assert fault["pointer"] == "/executor/url"
        assert "--refuse-addresses" in fault["message"]
        assert len(got) == 2
    await runner.cleanup()
