"""SIGTERM of the leader under load: it hands over the lead, and fires go on as if nothing had been."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.benchmarks.gaps import JOBS, history_of, put_jobs, recount
from scripts.benchmarks.handover import MAX_GAP_MS, Handover, hand_over
from scripts.benchmarks.lateness import Lateness
from tests.chaos.receiver import Receiver
from tests.cluster.harness import Cluster, eventually

HANDOVERS, TRIES = 3, 12


def told(done: Sequence[Handover]) -> str:
    gaps = (f"{one.before}, {one.after} ({one.late:.0f} late)" for one in done)
    return f"gap before, gap after in ms: {'; '.join(gaps)}"


async def test_fires_go_on_while_the_lead_is_handed_over(tmp_path: Path) -> None:
    """By the receiver's clock no gap over 200 ms; every time is decided once, arrives once, and is not lost.

    A longer gap is only excused by the time for which the machine itself was late in it, by a process of its own; what
    is excused so proves nothing either, and is tried again.
    """
    async with Receiver(tmp_path) as receiver, Cluster(tmp_path) as cluster, Lateness(tmp_path) as lateness:
        await cluster.start()
        jobs = await put_jobs(cluster, "n1", receiver.hook())

        async def all_fire() -> bool:
            return len({arrival["job"] for arrival in await receiver.arrivals()}) == JOBS

        await eventually(all_fire, within=60, what="every job has fired")
        done: list[Handover] = []
        while len(done) < TRIES and sum(one.after <= MAX_GAP_MS for one in done) < HANDOVERS:
            done.append(await hand_over(cluster, receiver, lateness))
            assert set(done[-1].statuses) <= {200, 201}, "a write that waits for the new leader is written"
            assert done[-1].unexplained <= MAX_GAP_MS, told(done)
        print(told(done))
        assert sum(one.after <= MAX_GAP_MS for one in done) == HANDOVERS, f"the machine is too busy: {told(done)}"

        history = await history_of(cluster, await cluster.wait_leader(), jobs)
        lost = [row for row in history if row["state"] == "lost"]
        assert not lost, "what runs when the lead is handed over gets its end"
        found, _ = recount("handover", await receiver.arrivals(), history)
        assert (found.not_arrived, found.doubled, found.undecided) == ([], [], [])
