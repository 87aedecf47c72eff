"""Reads and what a node says of itself: consistency, indices, health, the cluster, metrics."""

from __future__ import annotations

import asyncio

from raftcron import __version__
from raftcron.core.schedule import CRONITER_VERSION, TZDATA_VERSION
from raftcron.runtime.conservation import Conservation
from raftcron.runtime.presence import PeerInfo
from tests.api.bench import Bench, bench


async def test_a_linearizable_read_sees_every_earlier_write(patient: Bench) -> None:
    """A follower that lags waits until it has what was committed when it was asked."""
    patient.n2.log.lag()
    await patient.put("a")
    asked = asyncio.create_task(patient.ask("GET", "/v1/jobs/a", on="n2"))
    (await patient.ask("GET", "/v1/jobs/a?consistency=stale", on="n2")).problem(404)
    assert not asked.done()
    patient.n2.log.resume()
    answer = (await asked).expect(200)
    assert answer.index == patient.n1.machine.state.index
    assert "Raftcron-Staleness-Ms" not in answer.headers


async def test_min_index_waits(two: Bench, patient: Bench) -> None:
    """A stale read is served once that index has been applied, and 503 if it does not come."""
    patient.n2.log.lag()
    index = (await patient.put("a")).index
    asked = asyncio.create_task(patient.ask("GET", f"/v1/jobs/a?consistency=stale&min_index={index}", on="n2"))
    await asyncio.sleep(0.02)
    assert not asked.done()
    patient.n2.log.resume()
    assert (await asked).expect(200).index >= index
    answer = await two.ask("GET", "/v1/jobs?min_index=1000", on="n2")
    answer.problem(503, "unavailable")
    assert "Retry-After" in answer.headers


async def test_staleness_counts_from_what_is_known() -> None:
    """From the last confirmed read, or what the node knows better."""
    async with bench(1) as made:
        await made.ask("GET", "/v1/jobs")
        stale = await made.ask("GET", "/v1/jobs?consistency=stale")
        assert 0 <= int(stale.headers["Raftcron-Staleness-Ms"]) < 1_000


async def test_the_cluster_as_one_node_sees_it(two: Bench) -> None:
    """The fields of the contract; indices and digests of others as far as they were heard."""
    await two.put("a")
    seen = (await two.ask("GET", "/v1/cluster", on="n2")).expect(200).json
    figures = ["cluster_id", "leader", "term", "epoch", "commit_index"]
    assert list(seen) == [*figures, "members", "catch_up", "digests", "editions", "time", "clock_untrusted"]
    assert seen["catch_up"] == {"owed": 0, "started": 0}
    assert (seen["time"], seen["clock_untrusted"]) == ("2027-01-15T08:00:00.250Z", False)
    assert (seen["cluster_id"], seen["leader"], seen["term"], seen["epoch"]) == ("memory", "n1", 1, 1)
    n1, n2 = seen["members"]
    state = two.n2.machine.state
    assert n2 == {
        "name": "n2",
        "role": "follower",
        "standing": "voter",
        "http": "127.0.0.1:0",
        "raft": "n2:7201",
        "alive": True,
        "applied_index": state.index,
        "digest": f"{state.digest:032x}",
        "incarnation": 1,
        "clock_offset_ms": 0,
        "version": __version__,
        "croniter": CRONITER_VERSION,
        "drained": False,
        "tags": {},
        "handlers": [],
        "slots": 1000,
        "process_slots": 100,
        "tzdata": TZDATA_VERSION,
    }
    assert (n1["role"], n1["applied_index"], n1["digest"], n1["version"]) == ("leader", None, None, "0.1.0")
    assert n1["http"] == two.n1.url.removeprefix("http://")
    assert seen["digests"][-1] == [state.index, f"{state.digest:032x}"]
    assert n1["clock_offset_ms"] is None
    two.peers["n1"] = PeerInfo(17, "ab", 0.0)
    two.n2.context.clocks.ask()
    await asyncio.sleep(0.01)
    n1 = (await two.ask("GET", "/v1/cluster", on="n2")).json["members"][0]
    assert (n1["applied_index"], n1["digest"]) == (17, "ab")
    assert 0 <= n1["clock_offset_ms"] < 5_000  # its wall clock stands still here, and the boot clock does not


async def test_nodes_agree_on_digests(two: Bench) -> None:
    """Equal index means equal digest."""
    for name in ("a", "b"):
        await two.put(name, on="n2")
    first, second = [(await two.ask("GET", "/v1/cluster", on=on)).json["digests"] for on in ("n1", "n2")]
    assert first == second


async def test_without_a_leader(two: Bench) -> None:
    """Alive, not ready, no leader named anywhere."""
    two.cluster.depose()
    (await two.ask("GET", "/livez")).expect(200)
    answer = await two.ask("GET", "/readyz")
    answer.problem(503, "unavailable")
    assert "Raftcron-Leader" not in answer.headers
    seen = (await two.ask("GET", "/v1/cluster")).expect(200).json
    assert seen["leader"] is None
    assert seen["members"][0]["role"] == "candidate"


async def test_not_ready_before_the_barrier(one: Bench) -> None:
    """A leader alone is not enough."""
    one.n1.context.is_ready = lambda: False
    assert "catching up" in (await one.ask("GET", "/readyz")).problem(503, "unavailable")["detail"]


async def test_metrics(one: Bench) -> None:
    """Figures of this node in the text format."""
    await one.put("a")
    await one.ask("POST", "/v1/jobs/a/runs")
    answer = (await one.ask("GET", "/metrics")).expect(200)
    assert answer.headers["Content-Type"].startswith("text/plain")
    lines = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))
    state = one.n1.machine.state
    assert float(lines["raftcron_is_leader"]) == 1
    assert float(lines["raftcron_epoch"]) == 1
    assert float(lines["raftcron_applied_index"]) == state.index
    assert float(lines["raftcron_commit_index"]) == state.index
    assert float(lines["raftcron_jobs"]) == 1
    assert float(lines['raftcron_runs{state="running"}']) == 1
    assert float(lines["raftcron_fires_total"]) == 0
    job = state.jobs["a"]
    await one.fire("a", job.decided_through + 1)  # skipped: the run by hand is still active
    (await one.ask("DELETE", "/v1/jobs/a?cancel_running=1")).expect(204)
    await one.put("b", overlap={"policy": "allow"})
    await one.fire("b", state.jobs["b"].decided_through + 1)
    text = (await one.ask("GET", "/metrics")).body.decode()
    assert "raftcron_fires_total 1.0" in text
    assert 'raftcron_runs{state="skipped"} 1.0' in text


async def test_the_watch_over_conservation_is_among_the_metrics(one: Bench) -> None:
    """Zero when all is well, and how much was looked at."""
    node = one.n1
    await one.put("a", schedule="* * * * *", executor={"type": "noop"})
    node.context.conservation = watch = Conservation(
        machine=node.machine, time=node.context.time, is_on_duty=lambda: True
    )
    node.machine.editions = ("0", "0")
    await watch.step()
    text = (await one.ask("GET", "/metrics")).expect(200).body.decode()
    for name in ("difference", "overdue_jobs", "checked_total", "left_out_total"):
        assert f"\nraftcron_conservation_{name} " in text
    assert "raftcron_conservation_difference 0.0" in text
