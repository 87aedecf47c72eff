"""Whoever leads and whenever that ends, what waits for nothing else starts within the failover and a second (I8)."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenarios.scene import Scene, play

NODES = ("n1", "n2", "n3")
SCHEDULES = ("@every 1s", "@every 3s", "* * * * * *", "*/2 * * * * *", "@every 1s from 2026-01-01T00:00:00.300Z")
A_SECOND_MS = 1_000

gaps = st.lists(
    st.tuples(st.floats(0.05, 3.0), st.floats(0.0, 6.0), st.sampled_from(NODES)), min_size=1, max_size=4
)  # (how long somebody leads, how long nobody does, who leads then)
jobs = st.lists(st.tuples(st.sampled_from(SCHEDULES), st.sampled_from(["0s", "700ms"])), max_size=4)


@settings(max_examples=40, deadline=None)
@given(gaps, jobs)
def test_what_waits_for_nothing_else_starts_in_time(
    course: list[tuple[float, float, str]], written: list[tuple[str, str]]
) -> None:
    """Its lateness is at most the longest time without a leader that it fell into, and a second."""

    async def act(scene: Scene) -> None:
        for number, (schedule, jitter) in enumerate([("@every 1s", "0s"), *written]):
            await scene.put(f"job-{number}", schedule=schedule, jitter=jitter, overlap={"policy": "allow"})
        gone: list[tuple[int, int]] = []  # from when to when nobody led
        for led, without, successor in course:
            await asyncio.sleep(led)
            begun = scene.leader.now_ms()
            scene.cluster.depose()
            await asyncio.sleep(without)
            scene.elect(successor)
            gone.append((begun, scene.leader.now_ms()))
        await asyncio.sleep(2.5)
        now = scene.leader.now_ms()
        seen = 0
        for number in range(1 + len(written)):
            for row in scene.rows(f"job-{number}"):
                failover = sum(end - max(begin, row.due_at) for begin, end in gone if end >= row.due_at)
                started = now if row.started_at is None else row.started_at
                assert started - row.due_at <= failover + A_SECOND_MS, (row, gone)
                seen += row.started_at is not None
        assert seen
        for actor in scene.actors:
            assert actor.fatal is None

    play(act, nodes=len(NODES))
