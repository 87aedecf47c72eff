"""Each documented status of each route, asked for and seen by each role: nobody, read, operate, admin, and a prefix.

Who may not use a route sees 401 or 403 there, and what is refused before anybody looks at who asks.  A status that
cannot be brought about here stands in ELSEWHERE with the test that does it.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from raftcron.api import bodies, events, output
from raftcron.api.auth import FREE, JOB, NAME, RULES, UNKNOWN, WHOLE
from raftcron.api.openapi.operations import OPERATIONS
from raftcron.api.openapi.operations.parts import Operation
from raftcron.core import definition, state
from raftcron.core.access import ADMIN, OPERATE, READ
from raftcron.core.archive import ARCHIVE_BYTES_MAX
from raftcron.core.commands import PutJob
from tests.api.bench import Answer, Bench, bench
from tests.api.test_openapi import described_routes, judge_problem
from tests.api.test_requests_of_runs import taken_over
from tests.api.test_tokens import close_door

Route = tuple[str, str]

OURS = "team-a"  # what all records are called
TEAM = "team"  # an admin whose token has the prefix `team-`
RANKS: Final = {None: -1, READ: 0, OPERATE: 1, ADMIN: 2, TEAM: 2}
KEY = {"Idempotency-Key": "8f1c"}


@dataclass
class World:
    """A cluster that asks for tokens, as one role sees one route."""

    made: Bench
    route: Route
    tokens: Mapping[str, str]
    run: Mapping[str, Any]
    role: str | None = None
    patched: pytest.MonkeyPatch = field(default_factory=pytest.MonkeyPatch)

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.route]

    @property
    def is_write(self) -> bool:
        return self.route[0] != "GET"

    def target(self, name: str = OURS, run: str | None = None) -> str:
        if self.route[1].startswith("/v1/cluster/members/") and name == OURS:
            name = "n3"
        path = self.route[1].replace("{name}", name).replace("{id}", run or self.run["id"])
        wanted = [f"{one.name}={one.example}" for one in self.operation.query if one.is_required]
        return path + ("?" + "&".join(wanted) if wanted else "")

    @property
    def body(self) -> Any:
        """The first example that is no dry run, of what begins with the prefix."""
        if self.operation.body is None or not self.operation.body.examples:
            return None
        body = {**next(one for one in self.operation.body.examples.values() if not one.get("dry_run"))}
        if "name" in body and self.route[1] != "/v1/cluster/members":
            body["name"] = f"team-{body['name']}"
        if "jobs" in body:
            body["jobs"] = [{**job, "name": f"team-{job['name']}"} for job in body["jobs"]]
        if "token" in body:
            body["token"] = self.run["fencing_token"]
        return body

    def headers(self, role: str | None = None) -> dict[str, str]:
        role = role or self.role
        return {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}

    async def ask(
        self,
        target: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answer:
        """One request, with the route's own example unless something else is given."""
        if body is None and data is None:
            body = self.body
        said = {**self.headers(), **(headers or {})}
        return await self.made.ask(self.route[0], target or self.target(), body, data=data, headers=said)

    async def archive(self) -> bytes:
        return (await self.made.ask("GET", "/v1/backup", headers=self.headers(ADMIN))).expect(200).body


@asynccontextmanager
async def world(route: Route) -> AsyncIterator[World]:
    async with bench(3) as made:
        await made.put(OURS, schedule="*/5 * * * *")
        for where, body in (
            (f"calendars/{OURS}", {"dates": ["2026-12-25"]}),
            (f"groups/{OURS}", {"max_running": 2}),
            (f"secrets/{OURS}", {"value": "x"}),
            ("alerts/default", {"alerts": []}),
        ):
            (await made.ask("PUT", f"/v1/{where}", body)).expect(201)
        tokens = {}
        for token, of, prefix in (
            (READ, READ, ""), (OPERATE, OPERATE, ""), (ADMIN, ADMIN, ""), (TEAM, ADMIN, "team-"), (OURS, READ, "")
        ):  # fmt: skip
            answer = await made.ask("POST", "/v1/tokens", {"name": token, "role": of, "prefix": prefix})
            tokens[token] = answer.expect(201).json["token"]
        run = await taken_over(made, OURS)
        if route[1].endswith("/retry"):
            await made.finish(run["id"])
        await close_door(made, "n1")
        yield World(made, route, tokens, run)


# ---- how to bring a status about ------------------------------------------------------------------------------------


async def succeed(at: World) -> Answer:
    """Under a key that stays with it."""
    if at.route == ("POST", "/v1/restore"):
        said = {"Content-Type": "application/vnd.raftcron.backup"}
        return await at.ask(data=await at.archive(), headers=said)
    if at.route[1].endswith("/replace"):
        at.made.cluster.silent.add("n3")
    return await at.ask(headers=KEY)


async def created(at: World) -> Answer:
    """Under a name that is not taken yet."""
    if at.route[1] == "/v1/alerts/default":
        (await at.made.ask("DELETE", at.route[1], headers=at.headers())).expect(204)
    return await at.ask(at.target("team-new"))


async def votes_already(at: World) -> Answer:
    if at.route[1].endswith("/members"):
        return await at.ask(body={"name": "n3", "raft": "n3:7201"})
    raise AssertionError("no such member may be replaced")


async def unreadable(at: World) -> Answer:
    """What the parser of HTTP refuses, whoever asks."""
    return await at.ask(headers={"X-Long": "x" * 9_000})


async def unauthorized(at: World) -> Answer:
    return await at.made.ask(at.route[0], at.target(), headers={"Authorization": "Bearer rct.nobody.knows"})


async def forbidden(at: World) -> Answer:
    """From another site's page."""
    return await at.ask(headers={"Origin": "https://elsewhere.example"})


async def not_found(at: World) -> Answer:
    if at.route[1] == "/v1/alerts/default":
        (await at.made.ask("DELETE", at.route[1], headers=at.headers(ADMIN))).expect(204)
        answer = await at.ask()
        (await at.made.ask("PUT", at.route[1], {"alerts": []}, headers=at.headers(ADMIN))).expect(201)
        return answer
    if at.route[1] == "/v1/cluster/transfer":
        return await at.ask(body={"to": "nobody"})
    if at.route[1] == "/v1/cluster/drain":
        return await at.ask(body={"node": "nobody"})
    return await at.ask(at.target("team-nobody", "nobody"))


async def conflict(at: World) -> Answer:
    """The key was used for something else."""
    if at.route == ("POST", "/v1/restore"):
        said = {"Content-Type": "application/vnd.raftcron.backup", **KEY}
        (await at.ask(data=await at.archive(), headers=said)).expect(200)
        await at.made.put("other", headers=at.headers(ADMIN))
        return await at.ask(data=await at.archive(), headers=said)
    (await at.ask(headers=KEY)).expect(*at.operation.answers)  # done, or replayed
    return await at.ask(at.target() + "?other=1", headers=KEY)


async def other_revision(at: World) -> Answer:
    return await at.ask(headers={"If-Match": '"999999"'})


async def too_large(at: World) -> Answer:
    """By the length that its head tells: the body is not waited for."""
    most, kind = bodies.SMALL_BYTES_MAX, bodies.JSON
    if at.operation.body is not None:
        kind = next(iter(at.operation.body.types))
    if at.route[1] in ("/v1/jobs", "/v1/jobs/{name}") and at.route[0] != "DELETE":
        most = bodies.JOB_BYTES_MAX
    if at.route[1] == "/v1/jobs:apply":
        most = bodies.BULK_BYTES_MAX
    if at.route[1] == "/v1/restore":
        most = ARCHIVE_BYTES_MAX
    said = {"Host": "localhost", **at.headers(), "Content-Type": kind, "Content-Length": str(most + 1)}
    head = f"{at.route[0]} {at.target()} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in said.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", int(at.made.n1.url.rsplit(":", 1)[1]))
    writer.write(head.encode() + b"\r\n")
    first, *lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).decode().strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = await asyncio.wait_for(reader.readexactly(int(headers["Content-Length"])), 60)
    writer.close()
    return Answer(int(first.split()[1]), headers, body)


async def another_type(at: World) -> Answer:
    return await at.ask(data=b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"})


async def invalid(at: World) -> Answer:
    if at.route[1] == "/v1/restore":
        return await at.ask(data=b"none", headers={"Content-Type": "application/vnd.raftcron.backup"})
    target = at.target()
    return await at.ask(target + ("&" if "?" in target else "?") + "surprise=1")


async def too_many(at: World) -> Answer:
    """Idempotency keys, or whatever the route holds open."""
    if at.is_write:
        (await at.made.put("key", headers={**at.headers(ADMIN), "Idempotency-Key": "first"})).expect(201)
        at.patched.setattr(state, "KEYS_KEPT", 1)
    at.patched.setattr(output, "READERS_MAX", 0)
    at.patched.setattr(events, "STREAMS_MAX", 0)
    if at.route == ("POST", "/v1/restore"):
        said = {"Content-Type": "application/vnd.raftcron.backup", **KEY}
        return await at.ask(data=await at.archive(), headers=said)
    return await at.ask(headers=KEY)


async def unavailable(at: World) -> Answer:
    """No leader; a read finds no majority."""
    data, headers = None, {}
    if at.route == ("POST", "/v1/restore"):
        data, headers = await at.archive(), {"Content-Type": "application/vnd.raftcron.backup"}
    at.made.cluster.depose()
    at.patched.setattr(at.made.n1.context, "hold_seconds", 0.02)
    answer = await at.ask(data=data, headers=headers)
    at.made.cluster.elect("n1")
    return answer


async def unknown(at: World) -> Answer:
    """The log does not tell whether it took the entry."""
    if at.route[1].endswith("/replace"):
        at.made.cluster.silent.add("n3")
    data, headers = None, {}
    if at.route == ("POST", "/v1/restore"):
        data, headers = await at.archive(), {"Content-Type": "application/vnd.raftcron.backup"}
    at.made.n1.log.next_answer = "unknown"
    answer = await at.ask(data=data, headers=headers)
    at.made.cluster.silent.clear()
    return answer


async def conflict_of_member(at: World) -> Answer:
    """Another address under the name; a member that runs; nobody to hand over to."""
    if at.route[1].endswith("/members"):
        return await at.ask(body={"name": "n3", "raft": "elsewhere:7201"})
    return await at.ask()


async def unsafe(at: World) -> Answer:
    """Two would be left, of which one does not answer."""
    at.made.cluster.silent.add("n2")
    answer = await at.ask()
    at.made.cluster.silent.clear()
    return answer


async def alone(at: World) -> Answer:
    """Nobody is there to hand over to."""
    at.made.cluster.elect("n1")
    for name in ("n2", "n3"):
        (await at.made.ask("DELETE", f"/v1/cluster/members/{name}", headers=at.headers())).expect(204)
    return await at.ask(body={})


async def untellable(at: World) -> Answer:
    """A job of a zone that this node does not know, as a node of other zone data may have written it."""
    written = {"schedule": "* * * * *", "timezone": "Mars/Phobos", "executor": {"type": "noop"}}
    if "team-mars" not in at.made.n1.machine.state.jobs:
        await at.made.n1.propose(PutJob("team-mars", definition.canonical(written), None))
    return await at.ask(at.target("team-mars"))


async def streamed(at: World) -> Answer:
    """The head of what has no end."""
    async with at.made.session.get(at.made.n1.url + at.target(), headers=at.headers()) as response:
        return Answer(response.status, response.headers.copy(), b"")


OWN: Final[Mapping[tuple[Route, int], Callable[[World], Awaitable[Answer]]]] = {
    (("POST", "/v1/cluster/members"), 200): votes_already,
    (("POST", "/v1/cluster/members"), 202): succeed,
    (("POST", "/v1/cluster/members"), 409): conflict_of_member,
    (("POST", "/v1/cluster/members/{name}/replace"), 409): conflict_of_member,
    (("DELETE", "/v1/cluster/members/{name}"), 409): unsafe,
    (("POST", "/v1/cluster/transfer"), 409): alone,
    (("GET", "/v1/events"), 200): streamed,
    (("GET", "/v1/jobs/{name}/next"), 409): untellable,
    (("GET", "/v1/jobs/{name}/why"), 409): untellable,
}

WAYS: Final[Mapping[int, Callable[[World], Awaitable[Answer]]]] = {
    200: succeed,
    201: succeed,
    202: succeed,
    204: succeed,
    400: unreadable,
    401: unauthorized,
    403: forbidden,
    404: not_found,
    409: conflict,
    412: other_revision,
    413: too_large,
    415: another_type,
    422: invalid,
    429: too_many,
    503: unavailable,
    504: unknown,
}
BEFORE_WHO: Final = (400, 401, 403)  # what is refused before it is known who asks, or because of that


def way(route: Route, status: int) -> Callable[[World], Awaitable[Answer]]:
    if (route, status) in OWN:
        return OWN[route, status]
    if status == 201 and route[0] == "PUT":
        return created
    return WAYS[status]


# What cannot be brought about in a bench of this kind: why not, and the test that brings it about.
ELSEWHERE: Final[Mapping[tuple[Route, int], tuple[str, str]]] = {
    (("GET", "/v1/events"), 410): (
        "an event has to have left, and 100,000 are kept",
        "api.test_events::test_what_is_no_longer_held_is_gone",
    ),
    (("GET", "/v1/runs/{id}/output"), 410): (
        "the run has to have an output file, which is gone",
        "api.test_output::test_what_was_deleted_is_gone",
    ),
    (("POST", "/v1/cluster/accept-time"), 409): (
        "a majority has to have told another time",
        "api.test_clocks::test_a_majority_is_not_overruled",
    ),
}


def may(route: Route, role: str | None) -> bool:
    if route[1] in FREE:
        return True
    rule = RULES.get(route, UNKNOWN)
    return RANKS[role] >= (READ, OPERATE, ADMIN).index(rule.role) and not (role == TEAM and rule.scope == WHOLE)


@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS))
async def test_each_status(method: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As documented: the status, the headers of every answer, and a problem with its code."""
    route = method, path
    problems, ends = statuses(route)
    async with world(route) as at:
        for role in RANKS:
            at.role = role
            for status in problems if may(route, role) else BEFORE_WHO:
                with monkeypatch.context() as patched:
                    at.patched = patched
                    judge(await way(route, status)(at), status)
            if not may(route, role):
                judge(await at.ask(), 401 if role is None else 403)
            elif role == TEAM and RULES.get(route, UNKNOWN).scope in (JOB, NAME):
                judge(await at.ask(at.target("other-a")), 403)
            elif method == "GET":
                for status in ends:
                    judge(await way(route, status)(at), status)
    for role in RANKS:
        if method != "GET" and may(route, role):
            async with world(route) as at:
                at.role = role
                for status in ends:
                    judge(await way(route, status)(at), status)


def statuses(route: Route) -> tuple[list[int], list[int]]:
    """Those that are documented: first what leaves all as it is; then successes, and what comes after one."""
    operation = OPERATIONS[route]
    problems = [status for status in operation.problems if (route, status) not in ELSEWHERE]
    ends = [status for status in sorted(operation.answers) if (route, status) not in ELSEWHERE]
    after = [status for status in problems if way(route, status) in (conflict, alone)]
    return [status for status in problems if status not in after], ends + after


def judge(answer: Answer, status: int) -> None:
    assert answer.status == status, f"{answer.status} instead of {status}: {answer.body[:500]!r}"
    assert answer.headers["Raftcron-Node"] == "n1"
    assert answer.headers["Raftcron-Index"].isdigit()
    assert ("Raftcron-Leader" in answer.headers) == (status != 503)
    if status >= 400:
        judge_problem(answer)
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1


def test_every_route_of_the_table_of_roles_is_described() -> None:
    """Who may, and what is answered, is said of the same routes."""
    assert set(OPERATIONS) == set(described_routes())
    assert {route for route in OPERATIONS if route[1] not in FREE} <= set(RULES)


@pytest.mark.parametrize("place", sorted(ELSEWHERE))
def test_what_is_seen_elsewhere_is_documented_and_has_a_test(place: tuple[Route, int]) -> None:
    route, status = place
    _, test = ELSEWHERE[place]
    module, _, name = test.partition("::")
    assert status in {*OPERATIONS[route].problems, *OPERATIONS[route].answers}
    assert hasattr(importlib.import_module(f"tests.{module}"), name)
