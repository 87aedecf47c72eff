"""I8 of the invariants: what waits for nothing else starts a second after there is a leader again, at the latest."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenarios.scene import START_MS, Scene, play

SLACK_MS = 1_000  # beside the failover itself
KEPT = {"overlap": {"policy": "allow"}, "history": {"runs": 500}, "misfire": {"grace": "60s"}}  # none is coalesced
PLACEMENTS = ("leader", "any", "least_loaded", "sticky")


class Failover(NamedTuple):
    """For so many milliseconds nobody leads, then this node does, and all is quiet for a while."""

    gap_ms: int
    leader: int
    quiet_ms: int


failovers = st.builds(Failover, st.integers(0, 8_000), st.integers(1, 3), st.integers(0, 12_000))


@settings(max_examples=80, deadline=None)
@given(st.lists(failovers, max_size=5), st.sampled_from(["@every 1s", "* * * * * *", "*/3 * * * * *"]))
def test_nothing_is_later_than_the_failover_and_a_second(plan: list[Failover], schedule: str) -> None:
    """On whatever node; and each time is decided once."""

    async def act(scene: Scene) -> None:
        gaps: list[tuple[int, int]] = []
        for on in PLACEMENTS:
            await scene.put(on, schedule=schedule, placement={"on": on}, **KEPT)
        for step in plan:
            await scene.seconds(step.quiet_ms / 1_000)
            scene.cluster.depose()
            since = now_ms(scene)
            await scene.seconds(step.gap_ms / 1_000)
            scene.elect(f"n{step.leader}")
            gaps.append((since, now_ms(scene)))
        await scene.seconds(6)
        for on in PLACEMENTS:
            rows = scene.rows(on)
            assert len({row.scheduled_time for row in rows}) == len(rows) >= 1
            for row in rows:
                assert row.started_at is not None, (on, row.state, row.reason)
                assert row.started_at <= due_by(row.scheduled_time, gaps), (on, row.id, gaps)

    play(act, nodes=3)


def due_by(scheduled_time: int, gaps: list[tuple[int, int]]) -> int:
    """When a time is started at the latest: a second of leaders in a row is enough for that."""
    latest = scheduled_time + SLACK_MS
    for begin, end in gaps:
        if begin < latest:
            latest = max(latest, end + SLACK_MS)
    return latest


def now_ms(scene: Scene) -> int:
    return START_MS + round(scene.loop.time() * 1_000)
