"""Alerts over HTTP: who is told is checked when it is written, and told at least once, whoever leads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from raftcron.clock import SystemClock
from raftcron.core.alerts import MARK
from raftcron.core.commands import Decide, Decision, Finish, Finished, Fire, MarkAlerts, Place, Summary
from raftcron.executors.addresses import AddressRules
from raftcron.executors.courier import Courier
from raftcron.runtime import alerts as module
from raftcron.runtime.alerts import Alerts
from raftcron.runtime.events import EventLog
from raftcron.runtime.resolver import Resolver
from tests.api.bench import Bench, BenchNode

PATH = "/v1/alerts/default"
NOW_MS = 1_800_000_000_250
OPEN = AddressRules()


@dataclass
class Receiver:
    """Takes alerts, or refuses them while `status` says so."""

    status: int = 204
    taken: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    away: set[str] = field(default_factory=set)  # paths that answer nothing of use
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        if self.hold is not None and request.path == "/slow":
            await self.hold.wait()
        status = 503 if request.path in self.away else self.status
        if status >= 300:
            self.refused.append(request.headers["Raftcron-Event-Id"])
        else:
            self.taken.append(body)
            self.headers.append(dict(request.headers))
        return web.Response(status=status)

    def of(self, job: str) -> list[str]:
        return [one["kind"] for one in self.taken if one["job"] == job]

    @property
    def newest(self) -> int:
        """The log index of the newest alert that was taken."""
        return max(int(one["id"].partition(".")[0]) for one in self.taken)

    @property
    def kinds(self) -> list[str]:
        return [one["kind"] for one in self.taken]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/{rest:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    made.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


@asynccontextmanager
async def telling(node: BenchNode, rules: AddressRules = OPEN, **settings: Any) -> AsyncIterator[Alerts]:
    """The node's loop of alerts, at work; beside it HTTP goes on."""
    courier = Courier(clock=SystemClock(), rules=rules)
    assert isinstance(node.machine.events, EventLog)
    resolver = Resolver(
        node=node.name, machine=node.machine, vault=node.context.secrets._vault, directory=None, judge=lambda _: []
    )
    loop = Alerts(
        machine=node.machine, log=node.log, proposer=node.context.proposer, events=node.machine.events,
        clock=SystemClock(), sender=courier, fill=resolver.fill, **settings,
    )  # fmt: skip
    node.context.alerts = loop
    task = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await courier.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter waits than in life."""
    monkeypatch.setattr(module, "PACE_SECONDS", 0.01)
    monkeypatch.setattr(module, "MARK_SECONDS", 0.05)
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.05)
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.02, 0.1))


async def end(bench: Bench, name: str, number: int, state: str, leader: str = "n1") -> str:
    """A run of the job that ended like this; its id."""
    at, node = NOW_MS + 1_000 * number, bench.nodes[leader]
    job = node.machine.state.jobs[name]
    run_id = f"{job.uid:x}-{at}"
    await node.propose(Decide(Place("n1", 1), [Decision(job.uid, job.revision, at, [Fire(at, at)])]))
    await node.propose(Finish([Finished(run_id, node.machine.state.runs[run_id].fencing_token, state)]))
    return run_id


def marks(bench: Bench) -> int:
    """How often the mark has been moved, by the log."""
    from raftcron.core.codec import decode_entry

    found = 0
    for body in bench.cluster.entries:
        try:
            found += isinstance(decode_entry(body).command, MarkAlerts)
        except Exception:  # an entry of the membership
            continue
    return found


async def test_failures_losses_misses_and_recoveries_are_told(one: Bench, receiver: Receiver) -> None:
    """Each under the id of its event, in order, with all that a receiver needs; then the mark has passed them."""
    (await one.put("a", alerts=[{"url": receiver.url + "/hook"}])).expect(201)
    async with telling(one.n1) as loop:
        first = await end(one, "a", 1, "failed")
        await end(one, "a", 2, "lost")
        job = one.n1.machine.state.jobs["a"]
        missed = [Summary("expired", NOW_MS + 3_000, NOW_MS + 5_000, 3)]
        await one.n1.propose(Decide(Place("n1", 1), [Decision(job.uid, job.revision, NOW_MS + 5_000, [], missed)]))
        await end(one, "a", 6, "succeeded")
        await end(one, "a", 7, "succeeded")
        await until(lambda: len(receiver.taken) == 4)
        assert receiver.kinds == ["failed", "lost", "missed", "recovered"]
        assert receiver.taken[0]["run"] == first
        assert receiver.taken[2]["count"] == 3
        assert receiver.taken[0]["cluster_id"] == one.cluster.cluster_id
        for body, headers in zip(receiver.taken, receiver.headers, strict=True):
            assert body["id"] == headers["Raftcron-Event-Id"] == headers["Idempotency-Key"]
        last = int(receiver.taken[-1]["id"].partition(".")[0])
        await until(lambda: one.n1.machine.state.alert_marks[MARK].through >= last)
        assert (loop.figures.delivered, loop.figures.failed, loop.pending) == (4, 0, 0)
        metrics = (await one.ask("GET", "/metrics")).body.decode()
        assert "raftcron_alerts_delivered_total 4.0" in metrics
        assert "raftcron_alerts_pending 0.0" in metrics


async def test_where_no_alert_is_configured_nothing_is_proposed(one: Bench, receiver: Receiver) -> None:
    """Nor where a job's own list holds nothing for what has happened."""
    (await one.put("a")).expect(201)
    async with telling(one.n1) as loop:
        await end(one, "a", 1, "failed")
        await asyncio.sleep(0.2)
        assert one.n1.machine.state.alert_marks == {}
        (await one.put("b", alerts=[{"url": receiver.url, "on": ["recovered"]}])).expect(201)
        (await one.put("c", alerts=[{"type": "none"}])).expect(201)
        for name in ("a", "b", "c"):
            await end(one, name, 2, "failed")
        await asyncio.sleep(0.2)
        assert (loop.figures.delivered, loop.pending, marks(one)) == (0, 0, 0)
    assert receiver.taken == []


async def test_what_was_there_before_anybody_asked_is_not_told(one: Bench, receiver: Receiver) -> None:
    """A job's first alerts begin with its definition."""
    (await one.put("a")).expect(201)
    await end(one, "a", 1, "failed")
    (await one.put("a", alerts=[{"url": receiver.url}])).expect(200)
    async with telling(one.n1):
        await end(one, "a", 2, "lost")
        await until(lambda: bool(receiver.taken))
    assert receiver.kinds == ["lost"]


async def test_a_receiver_that_was_down_gets_all_in_order_and_holds_up_nobody(one: Bench, receiver: Receiver) -> None:
    """It is tried again until it takes them; meanwhile others get theirs."""
    receiver.hold = asyncio.Event()
    (await one.put("slow", alerts=[{"url": receiver.url + "/slow"}])).expect(201)
    (await one.put("fast", alerts=[{"url": receiver.url + "/fast"}])).expect(201)
    async with telling(one.n1) as loop:
        await end(one, "slow", 1, "failed")
        await end(one, "slow", 2, "lost")
        await end(one, "fast", 1, "failed")
        await until(lambda: [body["job"] for body in receiver.taken] == ["fast"])
        await until(lambda: loop.pending == 2)  # its answer may still be on its way back
        receiver.status = 503
        receiver.hold.set()
        await until(lambda: len(receiver.refused) >= 3)
        assert len(set(receiver.refused)) == 1
        receiver.status = 200
        await until(lambda: len(receiver.taken) == 3)
        assert receiver.kinds == ["failed", "failed", "lost"]
        assert receiver.taken[1]["id"] == receiver.refused[0]


async def test_after_a_change_of_leader_nothing_is_missing(two: Bench, receiver: Receiver) -> None:
    """What the former leader could not deliver the next one does, under the same ids."""
    (await two.put("a", alerts=[{"url": receiver.url}])).expect(201)
    receiver.status = 500
    async with telling(two.n1), telling(two.n2):
        await end(two, "a", 1, "failed")
        await end(two, "a", 2, "lost")
        await until(lambda: bool(receiver.refused))
        two.cluster.elect("n2")
        receiver.status = 200
        await until(lambda: len(receiver.taken) == 2)
        assert receiver.kinds == ["failed", "lost"]
        assert receiver.taken[0]["id"] == receiver.refused[0]
        last = int(receiver.taken[-1]["id"].partition(".")[0])
        await until(lambda: two.n2.machine.state.alert_marks[MARK].through >= last)
        two.cluster.elect("n1")
        await asyncio.sleep(0.2)
        assert len(receiver.taken) == 2


async def test_a_target_that_is_away_does_not_let_others_hear_twice(two: Bench, receiver: Receiver) -> None:
    """After a change of leader it gets what it has not had; they get what is new."""
    receiver.away.add("/dead")
    for name in ("dead", "well"):
        (await two.put(name, alerts=[{"url": f"{receiver.url}/{name}"}])).expect(201)

    def mark() -> Any:
        return two.n1.machine.state.alert_marks[MARK]

    async with telling(two.n1), telling(two.n2):
        await end(two, "dead", 1, "failed")
        await end(two, "dead", 2, "lost")
        for number in (1, 2, 3):
            await end(two, "well", number, "failed")
        await until(lambda: len(receiver.of("well")) == 3 and mark().through >= receiver.newest)
        (first,) = mark().behind.values()
        assert first < receiver.newest
        two.cluster.elect("n2")
        await end(two, "well", 4, "lost", "n2")
        await until(lambda: len(receiver.of("well")) == 4)
        receiver.away.clear()
        await until(lambda: len(receiver.of("dead")) == 2)
        await until(lambda: mark().through >= receiver.newest and not mark().behind)
        two.cluster.elect("n1")
        await end(two, "dead", 5, "failed")
        await until(lambda: len(receiver.of("dead")) == 3)
        assert receiver.of("dead") == ["failed", "lost", "failed"]
        assert receiver.of("well") == ["failed", "failed", "failed", "lost"]


async def test_an_alert_that_nobody_takes_is_given_up_in_the_end(
    one: Bench, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """With a line in the log, and the next one has its turn."""
    receiver.status = 500
    (await one.put("a", alerts=[{"url": receiver.url}])).expect(201)
    async with telling(one.n1, patience_seconds=0.1) as loop:
        await end(one, "a", 1, "failed")
        await until(lambda: loop.figures.failed == 1)
        receiver.status = 200
        await end(one, "a", 2, "lost")
        await until(lambda: bool(receiver.taken))
    assert receiver.kinds == ["lost"]
    assert "alert_given_up" in caplog.text
    assert "status 500" in caplog.text


async def test_a_gap_in_the_events_is_told_in_the_log(
    one: Bench, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """And what is held is told."""
    (await one.put("a", alerts=[{"url": receiver.url}])).expect(201)
    await end(one, "a", 1, "failed")
    one.n1.machine.events = fresh = EventLog()
    fresh.restored(one.n1.machine.state.index)
    async with telling(one.n1) as loop:
        await until(lambda: loop.figures.missed == 1)
        await end(one, "a", 2, "lost")
        await until(lambda: bool(receiver.taken))
    assert receiver.kinds == ["lost"]
    assert caplog.text.count("alerts_missed") == 1


async def test_an_address_that_the_node_refuses_is_not_called(
    one: Bench, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """The rules for http jobs hold for alerts, when they are written and when they are sent."""
    from ipaddress import ip_network

    refused = [{"url": "http://169.254.169.254/latest"}]
    assert (await one.put("a", alerts=refused)).pointers(422, "invalid") == ["/alerts/0/url"]
    assert (await one.ask("PUT", PATH, {"alerts": refused})).pointers(422, "invalid") == ["/alerts/0/url"]
    (await one.put("a", alerts=[{"url": receiver.url}])).expect(201)
    async with telling(one.n1, AddressRules((ip_network("127.0.0.0/8"),)), patience_seconds=0.01) as loop:
        await end(one, "a", 1, "failed")
        await until(lambda: loop.figures.failed == 1)
    assert receiver.taken == []


async def test_secrets_sign_alerts_and_stand_in_addresses(one: Bench, receiver: Receiver) -> None:
    """As references, which the definition holds; a chat gets one line of text; a mail needs a relay."""
    for name, value in (("key", "whsec_" + "QUJDREVGR0hJSktMTU5PUA=="), ("place", receiver.url + "/s3cret")):
        (await one.ask("PUT", f"/v1/secrets/{name}", {"value": value})).expect(201)
    listed = [
        {"url": receiver.url, "secret": "${secret:key}"},
        {"type": "slack", "url": "${secret:place}"},
        {"type": "email", "to": "ops@example.org"},
    ]
    (await one.put("a", alerts=listed)).expect(201)
    assert (await one.ask("GET", "/v1/jobs/a")).json["alerts"] == listed
    async with telling(one.n1, patience_seconds=0.01) as loop:
        await end(one, "a", 1, "failed")
        await until(lambda: loop.figures.delivered == 2 and loop.figures.failed == 1)
    hook, chat = sorted(receiver.taken, key=lambda body: "text" in body)
    signed = next(headers for headers in receiver.headers if "webhook-signature" in headers)
    assert (signed["webhook-id"], hook["kind"]) == (hook["id"], "failed")
    assert chat["text"].startswith("a failed")


async def test_the_default_route_is_written_read_and_deleted(two: Bench, receiver: Receiver) -> None:
    """201, 200, ETag, conditions, 204 and 404 on any node; who has no list of its own is told by it."""
    (await two.ask("GET", PATH)).problem(404, "not_found")
    listed = [{"url": receiver.url}]
    created = (await two.ask("PUT", PATH, {"alerts": listed}, on="n2")).expect(201)
    assert created.headers["ETag"] == f'"{created.index}"'
    assert created.headers["Location"] == PATH
    assert created.json == {
        "alerts": listed,
        "revision": created.index,
        "created_at": "2027-01-15T08:00:00.250Z",
        "updated_at": "2027-01-15T08:00:00.250Z",
    }
    assert (await two.ask("PUT", PATH, created.json)).expect(200).json == created.json
    assert (await two.ask("GET", PATH, on="n2")).expect(200).json == created.json
    (await two.ask("PUT", PATH, {"alerts": []}, headers={"If-None-Match": "*"})).problem(412, "revision")
    (await two.ask("DELETE", PATH, headers={"If-Match": '"1"'})).problem(412)
    for body, pointers in (({}, ["/alerts"]), ([], [""]), ({"alerts": [{}], "x": 1}, ["/x", "/alerts/0/url"])):
        assert (await two.ask("PUT", PATH, body)).pointers(422, "invalid") == pointers
    (await two.put("a")).expect(201)
    async with telling(two.n1):
        await end(two, "a", 1, "failed")
        await until(lambda: receiver.kinds == ["failed"])
        (await two.ask("DELETE", PATH, on="n2")).expect(204)
        await end(two, "a", 2, "failed")
        await asyncio.sleep(0.1)
    assert receiver.kinds == ["failed"]
    (await two.ask("DELETE", PATH)).problem(404, "not_found")
    audit = (await two.ask("GET", "/v1/audit")).json["items"]
    assert [item["summary"] for item in audit if "route" in item["summary"]] == [
        "alert route default deleted",
        "alert route default written",
        "alert route default created",
    ]


async def test_a_job_may_not_send_a_secret_beyond_its_writers_prefix(one: Bench) -> None:
    """Else whoever writes a job could read any secret."""
    made = (await one.ask("POST", "/v1/tokens", {"name": "t", "role": "operate", "prefix": "team-"})).expect(201)
    headers = {"Authorization": f"Bearer {made.json['token']}"}
    alerts = [{"url": "http://127.0.0.1:9/${secret:other}"}]
    (await one.put("team-a", alerts=alerts, headers=headers)).problem(403, "forbidden")
    (await one.ask("PUT", PATH, {"alerts": []}, headers=headers)).problem(403, "forbidden")
