"""Connections that are cut, whole or in one direction: the majority goes on, nobody else is deposed, one history."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from pathlib import Path

import pytest

from tests.chaos.campaign import unleash
from tests.chaos.checker import Needs, judge
from tests.chaos.faults import CUTS, Round
from tests.cluster.harness import Cluster, eventually
from tests.cluster.network import CutCluster, NamespacedCluster, ProxiedCluster, best_cut_cluster, why_no_namespaces

SHORT_LEASE = ("--lease", "2s", "--lease-margin", "500ms")
LONGER_THAN_A_TIMEOUT_SECONDS = 2.0  # and than the lease
NEVER = {"schedule": "0 0 29 2 *", "executor": {"type": "http", "url": "http://127.0.0.1:9/"}}
KINDS = {"namespaces": NamespacedCluster, "proxies": ProxiedCluster}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> type[CutCluster]:
    """Both sorts of clusters that can be cut."""
    if request.param == "namespaces" and (reason := why_no_namespaces()) is not None:
        pytest.skip(f"no network namespaces: {reason}; the cuts are made by proxies")
    return KINDS[request.param]


async def heard(cluster: Cluster, name: str) -> list[str]:
    """The peers that a node is connected to, by its own word."""
    return [each["name"] for each in (await cluster.status(name))["members"] if each["alive"] and each["name"] != name]


async def test_cuts_cut_what_they_say(tmp_path: Path, make: type[CutCluster]) -> None:
    """Uncut all hear each other; a node that is cut off hears nobody, the others do, clients reach all; then it heals.

    Otherwise the tests below would judge a network that was never cut.
    """
    async with make(tmp_path) as cluster:
        await cluster.start()
        for name in cluster.nodes:
            await cluster.put_job(name, f"at-{name}", **NEVER)

        async def judge() -> None:
            cluster.heal()
            await cluster.wait_converged(within=60)
            leader = await cluster.wait_leader()
            away, other = (name for name in cluster.nodes if name != leader)
            term = (await cluster.status(leader))["term"]
            cluster.isolate(away)

            async def parted() -> bool:
                seen = {name: await heard(cluster, name) for name in cluster.nodes}
                assert seen == {away: [], other: [leader], leader: [other]}, seen
                return True

            await eventually(parted, within=30, what=f"{away} hears nobody, the others each other")
            await cluster.put_job(other, f"away-from-{away}", **NEVER)
            stale = (await cluster.request(away, "GET", "/v1/jobs?consistency=stale")).expect(200).json
            names = {job["name"] for job in stale["items"]}
            assert names >= {f"at-{name}" for name in cluster.nodes}
            assert f"away-from-{away}" not in names
            cluster.heal()
            await cluster.wait_converged(within=60)
            status = await cluster.status(away)
            assert (status["leader"], status["term"]) == (leader, term)
            (await cluster.request(other, "DELETE", f"/v1/jobs/away-from-{away}")).expect(204)

        await cluster.in_calm(judge)


async def test_one_history_through_cuts_of_every_sort(tmp_path: Path) -> None:
    """Leader cut off, mute, deaf; follower cut off; one connection cut: as faults.py says of each, and one history."""
    began = time.monotonic()
    rounds = [
        Round(kind, in_flight=False, down_seconds=LONGER_THAN_A_TIMEOUT_SECONDS, quiet_seconds=0.3) for kind in CUTS
    ]
    evidence = await unleash(tmp_path, 1, rounds, make=best_cut_cluster(), extra=SHORT_LEASE)
    verdict = judge(evidence, Needs.of_faults(CUTS))
    print(verdict.table())
    print(f"{time.monotonic() - began:.1f} s")
    assert verdict.word == "passed", f"\n{verdict.table()}\nevidence: {tmp_path / 'evidence.json'}"


@pytest.mark.parametrize("is_alone", [False, True], ids=["from the leader", "from all"])
async def test_in_an_idle_cluster_too_a_cut_deposes_nobody(tmp_path: Path, is_alone: bool) -> None:
    """A follower whose log lacks nothing would get votes: that the others hear the leader is all that refuses them."""
    async with best_cut_cluster()(tmp_path) as cluster:
        await cluster.start()

        async def judge() -> None:
            cluster.heal()
            await cluster.wait_converged()
            leader = await cluster.wait_leader()
            away = next(name for name in cluster.nodes if name != leader)
            term = (await cluster.status(leader))["term"]
            cluster.part([away], cluster.others(away) if is_alone else [leader])
            # Longer than the longest election time-out, both times: whoever wants to stand has stood.
            await asyncio.sleep(LONGER_THAN_A_TIMEOUT_SECONDS)
            assert (await cluster.status(leader))["term"] == term
            cluster.heal()
            await asyncio.sleep(LONGER_THAN_A_TIMEOUT_SECONDS)
            for name in cluster.nodes:
                status = await cluster.status(name)
                assert (status["leader"], status["term"]) == (leader, term)

        await cluster.in_calm(judge)


async def test_broken_connections_depose_nobody(tmp_path: Path) -> None:
    """Connections that are reset, again and again, come back at once; the leader and its term stay, writes go on."""
    async with ProxiedCluster(tmp_path) as cluster:
        await cluster.start()

        async def judge() -> None:
            await cluster.wait_converged(within=60)
            leader = await cluster.wait_leader()
            term = (await cluster.status(leader))["term"]
            peers = [name for name in cluster.nodes if name != leader]
            for place, peer in enumerate(peers * 3):
                cluster.proxies.break_connections(leader, peer)
                await cluster.put_job(peer, f"job-{place}", **NEVER)
            cluster.proxies.break_connections(*peers)
            # Longer than the longest election time-out: who had begun to stand would have stood.
            await asyncio.sleep(1.5)
            for name in cluster.nodes:
                status = await cluster.status(name)
                assert (status["leader"], status["term"]) == (leader, term)
                assert len(await heard(cluster, name)) == 2
            await cluster.wait_converged(within=60)

        await cluster.in_calm(judge)


async def test_links_that_are_slow_and_lose_packets_depose_nobody(tmp_path: Path) -> None:
    """50 to 80 ms each way, and now and then as long as TCP takes to send a lost packet again: all goes on, slower.

    A leader that dies under this has a successor, and nothing that was acknowledged is lost.
    """
    dice, numbers = random.Random(7), itertools.count()
    async with ProxiedCluster(tmp_path) as cluster:
        await cluster.start()
        written: set[str] = set()

        def delay() -> float:
            return dice.uniform(0.05, 0.08) + (0.2 if dice.random() < 0.02 else 0.0)

        async def judge() -> None:
            cluster.proxies.delay = float
            leader = await cluster.wait_leader()
            term = (await cluster.status(leader))["term"]
            cluster.proxies.delay = delay
            for number in itertools.islice(numbers, 30):
                began = time.monotonic()
                await cluster.put_job(leader, f"job-{number}", **NEVER)
                written.add(f"job-{number}")
                assert time.monotonic() - began >= 0.1, "it was acknowledged before anybody can have heard of it"
            for name in cluster.nodes:
                status = await cluster.status(name)
                assert (status["leader"], status["term"]) == (leader, term)

        await cluster.in_calm(judge)
        former = await cluster.wait_leader()
        await cluster.kill(former)
        successor = await cluster.wait_leader(other_than=former)
        await cluster.put_job(successor, "afterwards", **NEVER)
        await cluster.start(former)
        await cluster.wait_converged()
        assert {job["name"] for job in await cluster.pages(former, "/v1/jobs")} == {*written, "afterwards"}
