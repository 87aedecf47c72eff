"""Who may ask: tokens over HTTP, roles and routes, prefixes, forwarded callers, loopback and beyond."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from raftcron.api.app import ROUTES
from raftcron.api.auth import ALL, DOORKEEPER, FREE, JOB, NAME, RULES, RUN, SEES, VOUCH, WHOLE
from raftcron.core.access import ADMIN, OPERATE, READ
from tests.api.bench import GOOD, Bench, bench

BEYOND = "beyond.example:7101"


@pytest.fixture
async def closed() -> AsyncIterator[Bench]:
    """Two nodes that are reached from other machines, and a token of each role for all jobs."""
    async with bench(2, hold_seconds=0.3) as made:
        await make_tokens(made)
        for node in made.nodes.values():
            await close_door(made, node.name)
        yield made


async def fired(made: Bench, name: str) -> str:
    """A run of this job."""
    job = made.n1.machine.state.jobs[name]
    await made.fire(name, job.decided_through + 1_000)
    return next(run.id for run in made.n1.machine.state.runs.values() if run.job == name)


async def make_tokens(made: Bench) -> None:
    made.tokens = {}  # type: ignore[attr-defined]
    for role in (READ, OPERATE, ADMIN):
        answer = (await made.ask("POST", "/v1/tokens", {"name": role, "role": role})).expect(201)
        made.tokens[role] = answer.json["token"]  # type: ignore[attr-defined]


async def close_door(made: Bench, name: str) -> None:
    """The node begins anew, told that it is reached from elsewhere."""
    node = made.nodes[name]
    await node.close()
    node.context.advertise = BEYOND
    await node.serve()
    await made.announce_anew(node)


def as_(made: Bench, role: str | None) -> dict[str, str]:
    return {} if role is None else {"Authorization": f"Bearer {made.tokens[role]}"}  # type: ignore[attr-defined]


async def token(made: Bench, name: str, role: str, prefix: str) -> dict[str, str]:
    body = {"name": name, "role": role, "prefix": prefix}
    text = (await made.ask("POST", "/v1/tokens", body, headers=as_(made, ADMIN))).expect(201).json["token"]
    return {"Authorization": f"Bearer {text}"}


# ---- the table ------------------------------------------------------------------------------------------------------


def test_every_route_stands_in_the_table() -> None:
    """A route without a rule needs an admin: whoever adds one says in api/auth.py who may use it."""
    paths = {(method, path.replace(":[^/]+", "")) for method, path, _ in ROUTES}
    assert {path for method, path in paths if (method, path) not in RULES} == FREE
    assert RULES.keys() <= paths, "and no rule is for a route that is not there"


@pytest.mark.parametrize(("method", "path"), sorted(RULES))
async def test_roles_and_routes(method: str, path: str) -> None:
    """Each route that there is refuses every lesser role with 403, nobody with 401, and takes its own and greater."""
    async with bench(1) as made:
        await make_tokens(made)
        (await made.put("a")).expect(201)
        run = await fired(made, "a")
        await close_door(made, "n1")
        target = path.replace("{id}", run).replace("{name}", "a")
        if path == "/v1/events":
            target += "?last_event_id=nonsense"  # a stream would not end
        needed = (READ, OPERATE, ADMIN).index(RULES[method, path].role)
        (await made.ask(method, target)).problem(401, "unauthorized")
        for place, role in enumerate((READ, OPERATE, ADMIN)):
            answer = await made.ask(method, target, headers=as_(made, role))
            if place < needed:
                detail = answer.problem(403, "forbidden")["detail"]
                assert f"has the role {role}" in detail
                assert f"needs {RULES[method, path].role}" in detail
            else:
                assert answer.status not in (401, 403, 500)
                if method != "GET":
                    break  # it was done


# ---- tokens themselves ----------------------------------------------------------------------------------------------


async def test_a_token_is_shown_once(one: Bench) -> None:
    """Its text is in the first answer alone: not in the list, not in a repeat, not in the log."""
    body = {"name": "ci", "role": "operate", "prefix": "team-"}
    made = (await one.ask("POST", "/v1/tokens", body, headers={"Idempotency-Key": "k"})).expect(201).json
    assert made["token"].startswith("rct.ci.")
    assert (made["role"], made["prefix"], made["created_by"]) == ("operate", "team-", "anonymous")
    again = (await one.ask("POST", "/v1/tokens", body, headers={"Idempotency-Key": "k"})).expect(201)
    assert again.json["token"] is None
    assert again.headers["Idempotency-Replayed"] == "true"
    listed = (await one.ask("GET", "/v1/tokens")).expect(200)
    assert listed.json["items"] == [{key: value for key, value in made.items() if key != "token"}]
    secret = made["token"].rpartition(".")[2].encode()
    assert all(secret not in body for body in one.cluster.entries)


async def test_a_name_is_taken(one: Bench) -> None:
    """409 until it is revoked."""
    (await one.ask("POST", "/v1/tokens", {"name": "ci", "role": "read"})).expect(201)
    (await one.ask("POST", "/v1/tokens", {"name": "ci", "role": "read"})).problem(409, "conflict")
    (await one.ask("DELETE", "/v1/tokens/ci")).expect(204)
    (await one.ask("DELETE", "/v1/tokens/ci")).problem(404)
    (await one.ask("POST", "/v1/tokens", {"name": "ci", "role": "read"})).expect(201)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/name", "/role"]),
        ({"name": "a/b", "role": "root", "prefix": "-", "rôle": 1}, ["/rôle", "/name", "/role", "/prefix"]),
        ({"name": "anonymous", "role": "read"}, ["/name"]),
        ({"name": 1, "role": ["read"]}, ["/name", "/role"]),
        ([], [""]),
    ],
)
async def test_every_fault_of_a_token_is_named(one: Bench, body: object, pointers: list[str]) -> None:
    assert (await one.ask("POST", "/v1/tokens", body)).pointers() == pointers


async def test_a_revoked_token_is_worth_nothing(closed: Bench) -> None:
    """From the answer on, on every node; and another one of the same name does not bring it back."""
    headers = await token(closed, "ci", "admin", "")
    (await closed.ask("GET", "/v1/jobs", on="n2", headers=headers)).expect(200)
    (await closed.ask("DELETE", "/v1/tokens/ci", on="n2", headers=as_(closed, ADMIN))).expect(204)
    for on in ("n1", "n2"):
        (await closed.ask("GET", "/v1/jobs", on=on, headers=headers)).problem(401)
    await token(closed, "ci", "admin", "")
    (await closed.ask("GET", "/v1/jobs", headers=headers)).problem(401)


# ---- loopback and beyond --------------------------------------------------------------------------------------------


async def test_loopback_needs_no_token_and_a_token_counts_all_the_same(one: Bench) -> None:
    """Who brings none may do everything; who brings one may do what it is for; who brings a wrong one, nothing."""
    await make_tokens(one)
    (await one.put("a")).expect(201)
    (await one.put("a", headers=as_(one, READ))).problem(403)
    (await one.ask("GET", "/v1/jobs", headers=as_(one, READ))).expect(200)
    for wrong in ("Bearer x", "Bearer rct.read.x", "Basic YTpi", "Bearer", "Bearer rct.admin." + "A" * 43):
        answer = await one.ask("GET", "/v1/jobs", headers={"Authorization": wrong})
        answer.problem(401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_beyond_loopback_each_request_needs_a_token(closed: Bench) -> None:
    """Also what does not exist, and pages; only /livez and /readyz never do."""
    for path in ("/v1/jobs", "/v1/cluster", "/metrics", "/nowhere", "/v1/jobs/%2e%2e/livez", "/livez/"):
        (await closed.ask("GET", path)).problem(401)
    for path in ("/livez", "/readyz"):
        (await closed.ask("GET", path)).expect(200)
        (await closed.ask("GET", path, headers={"Authorization": "Bearer wrong"})).expect(200)


async def test_insecure_asks_nobody() -> None:
    """As it says."""
    async with bench(1, insecure=True) as made:
        made.n1.context.advertise = BEYOND
        await made.n1.close()
        await made.n1.serve()
        (await made.ask("GET", "/v1/jobs")).expect(200)


async def test_a_token_may_be_younger_than_what_a_node_has_applied(closed: Bench) -> None:
    """A follower asks the quorum before it turns somebody away."""
    closed.n2.log.lag()
    headers = await token(closed, "young", "read", "")
    assert "young" not in closed.n2.machine.state.tokens
    reads = closed.n2.context.reads
    asked = reads.at

    async def catch_up_first() -> object:
        closed.n2.log.resume()
        reads.at = asked  # type: ignore[method-assign]
        return await asked()

    reads.at = catch_up_first  # type: ignore[method-assign, assignment]
    (await closed.ask("GET", "/v1/jobs", on="n2", headers=headers)).expect(200)


# ---- forwarded callers ----------------------------------------------------------------------------------------------


async def test_a_follower_carries_the_caller_to_the_leader(closed: Bench) -> None:
    """The role counts there, the token does not travel, and the audit trail names caller, node and address."""
    (await closed.put("a", on="n2", headers=as_(closed, OPERATE))).expect(201)
    (await closed.put("a", on="n2", headers=as_(closed, READ))).problem(403)
    items = (await closed.ask("GET", "/v1/audit", headers=as_(closed, ADMIN))).expect(200).json["items"]
    last = items[0]
    assert (last["principal"], last["node"], last["remote"]) == ("operate", "n2", "127.0.0.1")
    assert (last["method"], last["path"], last["summary"]) == ("PUT", "/v1/jobs/a", "job a created")


async def test_nobody_else_can_vouch(closed: Bench) -> None:
    """A word of no node, of another request, or said a second time is refused, whatever token comes with it."""
    for word in ("", "x", "x.y", ".", "\xe9.\xe9"):
        headers = {VOUCH: word, **as_(closed, ADMIN)}
        (await closed.put("a", headers=headers)).problem(403)
    taken: list[str] = []
    keeper = closed.n2.runner.app[DOORKEEPER]
    vouch = keeper.vouch

    def overheard(request: object, body: bytes) -> str:
        taken.append(vouch(request, body))  # type: ignore[arg-type]
        return taken[-1]

    keeper.vouch = overheard  # type: ignore[method-assign, assignment]
    (await closed.put("a", on="n2", headers=as_(closed, OPERATE))).expect(201)
    (await closed.put("a", headers={VOUCH: taken[0]})).problem(403)  # a second time
    (await closed.put("b", headers={VOUCH: taken[0]})).problem(403)  # another path
    (await closed.ask("DELETE", "/v1/jobs/a", headers={VOUCH: taken[0]})).problem(403)  # another method


async def test_another_body_than_was_vouched_for_is_refused(closed: Bench) -> None:
    """What a node forwards cannot be exchanged on the way."""
    keeper = closed.n2.runner.app[DOORKEEPER]
    vouch = keeper.vouch
    keeper.vouch = lambda request, body: vouch(request, body + b" ")  # type: ignore[method-assign]
    (await closed.put("a", on="n2", headers=as_(closed, OPERATE))).problem(403)
    assert "a" not in closed.n1.machine.state.jobs


async def test_a_cluster_of_another_secret_vouches_for_nobody() -> None:
    """The key follows from the cluster secret."""
    async with bench(2, hold_seconds=0.3) as made:
        await made.n2.close()
        made.n2.context.cluster_secret = b"another"
        await made.n2.serve()
        await made.announce_anew(made.n2)
        (await made.put("a", on="n2")).problem(403)


# ---- prefixes -------------------------------------------------------------------------------------------------------


async def test_a_prefix_bounds_what_is_seen_and_done(closed: Bench) -> None:
    """Jobs and runs beyond it are not listed, not read, not written, under whatever route."""
    admin, ours = as_(closed, ADMIN), await token(closed, "a-team", "operate", "a-")
    runs = {}
    for name in ("a-1", "b-1"):
        (await closed.put(name, headers=admin)).expect(201)
        runs[name] = await fired(closed, name)
    for path in ("/v1/jobs", "/v1/jobs?sort=updated_at", "/v1/jobs?q=1"):
        assert [job["name"] for job in (await closed.ask("GET", path, headers=ours)).expect(200).json["items"]] == [
            "a-1"
        ]
    for path in ("/v1/runs", "/v1/runs?job=b-1"):
        assert {run["job"] for run in (await closed.ask("GET", path, headers=ours)).expect(200).json["items"]} <= {
            "a-1"
        }
    (await closed.ask("GET", f"/v1/runs/{runs['a-1']}", headers=ours)).expect(200)
    for on in ("n1", "n2"):
        (await closed.ask("GET", f"/v1/runs/{runs['b-1']}", on=on, headers=ours)).problem(404)
        (await closed.ask("POST", f"/v1/runs/{runs['b-1']}/cancel", on=on, headers=ours)).problem(404)
        (await closed.ask("GET", "/v1/jobs/b-1", on=on, headers=ours)).problem(403)
        (await closed.ask("DELETE", "/v1/jobs/b-1", on=on, headers=ours)).problem(403)
        (await closed.ask("POST", "/v1/jobs", {"name": "b-2", **GOOD}, on=on, headers=ours)).problem(403)
        (await closed.ask("POST", "/v1/jobs", {"name": f"a-{on}", **GOOD}, on=on, headers=ours)).expect(201)


async def test_a_job_follows_only_jobs_within_the_prefix(closed: Bench) -> None:
    """The ends of others are not told; a parent that somebody else has given the job stays."""
    admin, ours = as_(closed, ADMIN), await token(closed, "a-team", "operate", "a-")
    await closed.put("a-1", headers=admin)
    await closed.put("b-1", headers=admin)
    beyond, within = [{"job": "b-1"}], [{"job": "a-1"}]
    for on in ("n1", "n2"):
        assert "/after/0/job" in (await closed.put("a-2", on=on, headers=ours, after=beyond)).problem(403)["detail"]
        (await closed.ask("POST", "/v1/jobs", {"name": "a-2", **GOOD, "after": beyond}, on=on, headers=ours)).problem(
            403
        )
        (await closed.ask("PATCH", "/v1/jobs/a-1", {"after": beyond}, on=on, headers=ours)).problem(403)
        (await closed.put(f"a-{on}", on=on, headers=ours, after=within)).expect(201)
    sent = [{"name": "a-2", **GOOD, "after": beyond}, {"name": "a-3", **GOOD, "after": within}]
    answer = (await closed.ask("POST", "/v1/jobs:apply", {"jobs": sent}, headers=ours)).expect(200)
    assert [result["status"] for result in answer.json["results"]] == [403, 201]
    (await closed.put("a-4", headers=admin, after=beyond)).expect(201)
    (await closed.put("a-4", headers=ours, after=beyond, description="still after it")).expect(200)


@pytest.mark.parametrize("scope", [ALL, JOB, NAME, RUN, SEES, WHOLE])
def test_each_scope_is_used(scope: str) -> None:
    """A word that no route has is a word too many."""
    assert any(rule.scope == scope for rule in RULES.values())


async def test_what_concerns_all_is_not_for_a_prefix(closed: Bench) -> None:
    """An admin of a part is no admin of the whole."""
    ours = await token(closed, "a-admin", "admin", "a-")
    for method, path in [("GET", "/v1/tokens"), ("POST", "/v1/tokens"), ("GET", "/v1/audit"),
                         ("DELETE", "/v1/cluster/members/n2"), ("PUT", "/v1/calendars/a-x")]:  # fmt: skip
        assert "without a prefix" in (await closed.ask(method, path, headers=ours)).problem(403)["detail"]


async def test_events_stay_within_the_prefix_and_end_with_the_token(closed: Bench) -> None:
    """A stream that is open when its token is revoked is told why it ends."""
    ours = await token(closed, "a-team", "read", "a-")
    admin = as_(closed, ADMIN)
    async with closed.session.get(closed.n1.url + "/v1/events", headers=ours) as response:
        await response.content.readuntil(b"\n\n")
        for name in ("b-1", "a-1"):
            (await closed.put(name, headers=admin)).expect(201)
        assert b'"a-1"' in await asyncio.wait_for(response.content.readuntil(b"\n\n"), 60)
        (await closed.ask("DELETE", "/v1/tokens/a-team", headers=admin)).expect(204)
        (await closed.put("a-2", headers=admin)).expect(201)
        rest = await asyncio.wait_for(response.content.read(), 60)
    assert b"revoked" in rest
    assert b"a-2" not in rest


async def test_an_idempotency_key_belongs_to_its_caller(closed: Bench) -> None:
    """Another's key of the same text is another key: no answer of one is shown to the other."""
    for role, status in ((OPERATE, 201), (ADMIN, 200)):
        answer = await closed.put("a", headers={"Idempotency-Key": "k", **as_(closed, role)})
        answer.expect(status)
        assert "Idempotency-Replayed" not in answer.headers


async def test_many_jobs_at_once_stay_within_the_prefix(closed: Bench) -> None:
    """Those beyond it are at fault, the others are taken; nothing is pruned under a prefix."""
    ours = await token(closed, "a-team", "operate", "a-")
    jobs = [{"name": name, **GOOD} for name in ("a-1", "b-1")]
    for on in ("n1", "n2"):
        found = (await closed.ask("POST", "/v1/jobs:apply", {"jobs": jobs}, on=on, headers=ours)).expect(200).json
        assert [(one["name"], one["status"] // 100) for one in found["results"]] == [("a-1", 2), ("b-1", 4)]
    pruned = await closed.ask("POST", "/v1/jobs:apply", {"jobs": [], "prune": True, "owner": "x"}, headers=ours)
    pruned.problem(403)
    assert set(closed.n1.machine.state.jobs) == {"a-1"}
