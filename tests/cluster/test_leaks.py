"""What is secret stays so on real nodes: in no answer, no log, no event and no file, whatever is asked with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.cluster.harness import SECRET, Answer, Cluster, eventually

NEVER = "0 0 29 2 *"
MARK = "sw0rdf1sh"  # in all that is secret here, so that it is looked for in one go
SIGNING = "whsec_c3cwcmRmMXNoLXRoaXMtaXMtdGhlLWtleS1pdHNlbGY="  # base64 of the mark and more
HEADERS = {
    "Authorization": f"Bearer {MARK}-a",
    "Cookie": f"{MARK}-b",
    "X-Api-Key": f"{MARK}-c",
    "X-Told": "${secret:db}",
}
SHELL = 'echo "given $WORD"; echo "again $WORD" >&2; exit 1'


class Ears:
    """Asks the nodes, and keeps all that they have answered."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.heard: list[tuple[str, str]] = []  # of which request, what

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        on: str,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        answer = await self._cluster.request(on, method, path, body=body, data=data, headers=headers)
        said = "".join(f"{name}: {value}\n" for name, value in answer.headers.items()) + answer.text
        self.heard.append((f"{method} {path}", said))
        return answer

    async def run(self, job: str, on: str) -> Any:
        """A run by hand to its end."""
        run = (await self.ask("POST", f"/v1/jobs/{job}/runs", {}, on=on)).expect(202).json["run"]["id"]

        async def ended() -> Any:
            record = (await self.ask("GET", f"/v1/runs/{run}", on=on)).expect(200).json
            return record if record["finished_at"] else None

        record = await eventually(ended, within=60, what=f"the run of {job} has ended")
        await self.ask("GET", f"/v1/runs/{run}/output", on=on)
        return record


async def _echo(request: web.Request) -> web.Response:
    """A target that says what it was sent, and that it failed."""
    said = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    return web.Response(status=500, text=said + await request.text())


async def test_what_is_secret_is_nowhere_to_be_read(tmp_path: Path) -> None:
    """Every write that takes a secret, right and wrong, through a follower and the leader; runs that say what they got.

    Only the answer that makes a token has it.
    """
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", _echo)
    target = TestServer(app)
    await target.start_server()
    try:
        async with Cluster(tmp_path, extra=("--log-level", "debug"), allow_shell=True) as cluster:
            await cluster.start()
            leader = await cluster.wait_leader()
            ears = Ears(cluster)
            tokens = await _write_all(ears, str(target.make_url("/hook")), sorted(cluster.nodes, key=leader.__eq__))
            job = {"schedule": NEVER, "executor": {"type": "http", "url": "http://127.0.0.1:9/"}}
            last = await ears.ask("PUT", "/v1/jobs/last", job, on=leader)
            for name in cluster.nodes:
                await _read_all(ears, cluster, name, last.index or 0)
            await cluster.stop()
            words = [MARK, SIGNING.removeprefix("whsec_"), SECRET, *tokens]
            for asked, said in ears.heard:
                assert not [word for word in words if word in said], f"{asked}: {said[:2000]}"
            # What a command prints stays in its full output on the node's disk, as docs/security.md says.
            files = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "output"]
            assert {path.name for path in files} >= {"n1.err", "n2.err", "n3.err"}
            for path in files:
                content = path.read_bytes()
                assert not [word for word in words if word.encode() in content], path
    finally:
        await target.close()


async def _write_all(ears: Ears, url: str, nodes: list[str]) -> list[str]:
    """All that takes a secret, on each node, the leader last; the tokens that were made."""
    executor = {"type": "http", "url": url, "secret": SIGNING, "headers": HEADERS, "body": "${secret:db}"}
    job = {"schedule": NEVER, "executor": executor}
    tokens = []
    for on in nodes:
        (await ears.ask("PUT", "/v1/secrets/db", {"value": f"{MARK}-{on}"}, on=on)).expect(200, 201)
        await ears.ask("PUT", "/v1/secrets/-", {"value": f"{MARK}-x"}, on=on)
        await ears.ask("PUT", "/v1/secrets/db", {"valeu": f"{MARK}-x"}, on=on)
        await ears.ask("PUT", "/v1/secrets/db", data=f'{{"value": "{MARK}'.encode(), on=on)
        form = {"Content-Type": "text/plain"}
        await ears.ask("PUT", "/v1/secrets/db", data=f"value={MARK}".encode(), headers=form, on=on)
        (await ears.ask("PUT", "/v1/secrets/place", {"value": f"http://127.0.0.1:1/{MARK}"}, on=on)).expect(200, 201)
        for secret, status in ((SIGNING, 422), ("${secret:db}", 200)):
            alerts = [{"url": url, "secret": secret}, {"type": "slack", "url": "${secret:place}"}]
            (await ears.ask("PUT", "/v1/alerts/default", {"alerts": alerts}, on=on)).expect(status, 201)
        (await ears.ask("PUT", "/v1/jobs/hook", job, on=on)).expect(200, 201)
        await ears.ask("PUT", "/v1/jobs/hook?dry_run=1", job | {"executor": executor | {"secret": None}}, on=on)
        await ears.ask("PUT", "/v1/jobs/hook", job, headers={"If-Match": '"1"', "Idempotency-Key": f"k-{on}"}, on=on)
        await ears.ask("PATCH", "/v1/jobs/hook", {"executor": {"headers": {"Cookie": f"{MARK}-{on}"}}}, on=on)
        for wrong in ({"secret": MARK}, {"headers": {"Authorization": f"{MARK}\n"}}, {"url": f"http://a:{MARK}@b/"}):
            answer = await ears.ask("PUT", "/v1/jobs/wrong", job | {"executor": executor | wrong}, on=on)
            answer.expect(422)
        both = [job | {"name": "hook"}, job | {"name": "wrong", "executor": executor | {"secret": MARK}}]
        (await ears.ask("POST", "/v1/jobs:apply", {"jobs": both}, on=on)).expect(200)
        shell = {"type": "shell", "command": SHELL, "env": {"WORD": "${secret:db}"}}
        (await ears.ask("PUT", "/v1/jobs/tell", job | {"executor": shell}, on=on)).expect(200, 201)
        for name in ("hook", "tell"):
            record = await ears.run(name, on)
            assert record["state"] == "failed", record
        (await ears.ask("POST", "/v1/jobs/hook/pause", {"note": "on purpose"}, on=on)).expect(200)
        (await ears.ask("POST", "/v1/jobs/hook/resume", {}, on=on)).expect(200)
        made = await ears.ask("POST", "/v1/tokens", {"name": f"t-{on}", "role": "operate"}, on=on)
        ears.heard.pop()  # where it is told, once
        tokens.append(made.expect(201).json["token"])
        for shown in (tokens[-1], f"rct.t-{on}.{MARK}", MARK):
            await ears.ask("GET", "/v1/whoami", headers={"Authorization": f"Bearer {shown}"}, on=on)
            await ears.ask("DELETE", "/v1/jobs/none", headers={"Authorization": f"Bearer {shown}"}, on=on)
            await ears.ask("GET", "/v1/jobs", headers={"Authorization": f"Basic {shown}"}, on=on)
        (await ears.ask("DELETE", f"/v1/tokens/t-{on}", on=on)).expect(204)
    return [token.rpartition(".")[2] for token in tokens]


async def _read_all(ears: Ears, cluster: Cluster, on: str, last: int) -> None:
    """All that a node tells, its events up to this index."""
    for path in ("/v1/jobs", "/v1/jobs/hook", "/v1/runs", "/v1/audit?limit=1000", "/v1/secrets", "/v1/tokens"):
        (await ears.ask("GET", path, on=on)).expect(200)
    for path in ("/v1/alerts/default", "/v1/cluster", "/metrics", "/openapi.json", "/v1/jobs/hook/next"):
        (await ears.ask("GET", path, on=on)).expect(200)
    assert cluster._session is not None
    async with cluster._session.get(f"{cluster.nodes[on].url}/v1/backup") as answer:
        ears.heard.append(("backup", (await answer.read()).decode("latin-1")))
    events = bytearray()
    async with (
        asyncio.timeout(60),
        cluster._session.get(f"{cluster.nodes[on].url}/v1/events?last_event_id=1.0") as answer,
    ):
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            events += line
            if line.startswith(b"id: ") and int(line[4:].split(b".")[0]) >= last:
                break
    ears.heard.append(("events", events.decode()))
