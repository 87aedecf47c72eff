"""Whatever a minority of the clocks says, and whoever leads, cluster time and watermarks stay bounded by the true time.

I5 of the invariants: they never go back, and never pass what a majority agrees on by more than the skew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenarios.scene import MAX_SKEW_MS, START_MS, Actor, Scene, play

YEAR = 365 * 86_400.0
SPREAD = 1.0  # seconds by which right clocks may be wrong
SETTLED_SECONDS = 2  # until every node knows that a clock has been set right


class Step(NamedTuple):
    """For so many seconds the clock of `node` is wrong by `offset` seconds, those of all others are right."""

    node: int
    offset: float
    leader: int | None
    seconds: int


steps = st.builds(
    Step,
    st.integers(0, 4),
    st.one_of(st.floats(-10, 10), st.sampled_from([-YEAR, -3_600.0, -6.0, 6.0, 3_600.0, YEAR])),
    st.none() | st.integers(0, 4),
    st.integers(0, 8),
)


class Watch:
    """Looks at one node's state after each batch of entries; implements machine.Observer."""

    def __init__(self, scene: Scene, actor: Actor) -> None:
        self._scene = scene
        self._state = actor.machine.state
        self._cluster_time = 0
        self._watermark = 0
        self.seen = 0
        self.faults: list[tuple[float, float, float]] = []
        actor.machine.observe(self)

    def state_changed(self, runs: Iterable[str]) -> None:
        limit = START_MS + self._scene.loop.time() * 1000 + SPREAD * 1000 + MAX_SKEW_MS
        job = self._state.jobs.get("job")
        watermark = 0 if job is None else job.decided_through
        for former, now in ((self._cluster_time, self._state.cluster_time), (self._watermark, watermark)):
            if not former <= now <= limit:
                self.faults.append((former, now, limit))
        self._cluster_time, self._watermark = self._state.cluster_time, watermark
        self.seen += 1

    def state_replaced(self) -> None:
        self.state_changed(())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-SPREAD, SPREAD), min_size=5, max_size=5), st.lists(steps, max_size=8), st.sampled_from([3, 5])
)
def test_a_minority_of_clocks_moves_no_time(right: list[float], plan: list[Step], nodes: int) -> None:
    """The clocks of the others may differ by two seconds; each time is decided once, whoever leads."""

    async def act(scene: Scene) -> None:
        watches = [Watch(scene, actor) for actor in scene.actors]
        await scene.put(overlap={"policy": "allow"}, history={"runs": 500})
        for step in plan:
            wrong = scene.actors[step.node % nodes]
            own, wrong.clock.wall_offset = wrong.clock.wall_offset, step.offset
            if step.leader is not None:
                scene.elect(f"n{step.leader % nodes + 1}")
            await scene.seconds(step.seconds)
            wrong.clock.wall_offset = own
            await scene.seconds(SETTLED_SECONDS)
        await scene.seconds(5)
        assert [actor.fatal for actor in scene.actors if actor.fatal is not None] == []
        assert [fault for watch in watches for fault in watch.faults] == []
        assert all(watch.seen for watch in watches)
        ticks = scene.ticks()
        assert ticks == [float(n) for n in range(int(ticks[0]), int(ticks[-1]) + 1)]
        assert ticks[-1] >= scene.loop.time() - SPREAD - MAX_SKEW_MS / 1000 - 1

    offsets = {f"n{number + 1}": offset for number, offset in enumerate(right[:nodes])}
    play(act, nodes=nodes, is_agreed=True, offsets=offsets)
