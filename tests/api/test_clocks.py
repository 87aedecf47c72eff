"""The time over HTTP: what a node shows of clocks, and an operator's word."""

from __future__ import annotations

import asyncio

from raftcron.core.instant import parse_rfc3339
from raftcron.runtime.clocks import Told, TrustedTime
from tests.api.bench import Bench, bench

YEAR_MS = 365 * 86_400_000


async def test_the_time_is_accepted_on_any_node(two: Bench) -> None:
    """200 with the cluster as it is then, and the index at which cluster time followed; a repeat changes nothing."""
    for on in ("n2", "n1"):
        answer = (await two.ask("POST", "/v1/cluster/accept-time", on=on)).expect(200)
        assert answer.json["leader"] == "n1"
        assert answer.json["clock_untrusted"] is False
        assert answer.index == two.n1.machine.state.index
    items = [item for item in two.n1.machine.state.audit.values() if item.path == "/v1/cluster/accept-time"]
    assert [item.node for item in items] == ["n2", "n1"]
    assert two.n1.machine.state.cluster_time == parse_rfc3339(answer.json["time"])


async def test_it_takes_no_fields_but_whose_clock_it_is(two: Bench) -> None:
    """Whoever sends others means something else."""
    path = "/v1/cluster/accept-time"
    assert (await two.ask("POST", path, {"time": "now", "leader": 1})).pointers() == ["/time", "/leader"]
    (await two.ask("POST", path, {})).expect(200)
    (await two.ask("POST", path, {"leader": None})).expect(200)


async def test_only_the_clock_that_was_looked_at_is_accepted(two: Bench) -> None:
    """409 where another node leads by then, and it says whose clock to look at; a repeat of what was done is none."""
    path, body, key = "/v1/cluster/accept-time", {"leader": "n1"}, {"Idempotency-Key": "k"}
    first = (await two.ask("POST", path, body, on="n2", headers=key)).expect(200)
    two.cluster.elect("n2")
    for on in ("n1", "n2"):
        problem = (await two.ask("POST", path, body, on=on)).problem(409, "conflict")
        assert "Look at the clock of n2" in problem["detail"]
        assert (await two.ask("POST", path, body, on=on, headers=key)).expect(200).index == first.index
    (await two.ask("POST", path, {"leader": "n2"}, on="n1")).expect(200)
    said = [one.summary for one in two.n2.machine.state.audit.values() if "clock" in one.summary]
    assert said == ["the clock of n1 is accepted", "the clock of n2 is accepted"]


async def test_a_majority_is_not_overruled() -> None:
    """409, and it says whose clock is off, by how much, and what to do."""
    async with bench(3) as three:
        clocks = three.n1.context.clocks
        before = three.n1.machine.state.cluster_time
        boot = three.clock.boot()
        own = int(three.clock.wall() * 1000 - boot * 1000)
        clocks._told = {name: Told(own - YEAR_MS, None, boot) for name in ("n2", "n3")}
        problem = (await three.ask("POST", "/v1/cluster/accept-time", on="n2")).problem(409, "conflict")
        assert "n2, n3" in problem["detail"]
        assert "Set that clock" in problem["detail"]
        assert three.n1.machine.state.cluster_time == before
        members = (await three.ask("GET", "/v1/cluster")).json["members"]
        assert [round(one["clock_offset_ms"] / YEAR_MS, 3) for one in members] == [0, -1, -1]


async def test_nothing_is_written_where_no_time_is_known(two: Bench) -> None:
    """503 with what to do: there is nothing to stamp a write with."""
    two.n1.context.service._time = lost = TrustedTime(two.clock)
    lost.go_without()
    problem = (await two.put("a", on="n2")).problem(503)
    assert "raftcron cluster accept-time" in problem["detail"]


async def test_metrics_tell_of_clocks(two: Bench) -> None:
    """Whether the time is trusted, offsets by member as far as they are known, jumps by direction, hand-overs."""
    two.n1.context.clocks.ask()
    await asyncio.sleep(0.01)
    text = (await two.ask("GET", "/metrics")).expect(200).body.decode()
    for line in (
        "raftcron_clock_trusted 1.0",
        'raftcron_clock_offset_seconds{member="n1"} 0.0',
        'raftcron_clock_offset_seconds{member="n2"}',
        'raftcron_clock_jumps_total{direction="forward"} 0.0',
        'raftcron_clock_jumps_total{direction="backward"} 0.0',
        'raftcron_clock_jumps_total{direction="own"} 0.0',
        "raftcron_clock_hand_overs_total 0.0",
    ):
        assert line in text
