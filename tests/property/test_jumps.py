"""An agreed jump of trusted time: whatever was owed is decided once, and no time inside the jump is on time."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from raftcron.core import definition
from raftcron.core.agreement import Jump
from raftcron.core.model import CAUSE_SCHEDULE
from raftcron.core.planner import decide, settle
from raftcron.core.schedule import between_of
from raftcron.core.timeline import Group, Timeline
from raftcron.core.times import schedules_of, times_of
from tests.property.test_planner import NOW, covered, job_of


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["@every 1s", "@every 7s", "*/5 * * * * *", "* * * * *"]),
    st.integers(0, 60).map(lambda n: f"{n}s"),
    st.integers(0, 100_000),
    st.integers(0, 100_000),
    st.integers(0, 20_000),
    st.sampled_from(["0s", "3s"]),
)
@example("@every 1s", "30s", 12_500, 8_000, 2_000, "0s")
def test_no_time_inside_a_jump_is_on_time(
    schedule: str, grace: str, undecided: int, length: int, since: int, jitter: str
) -> None:
    """Each is missed, however long the grace is; what was due before or comes behind is judged as ever."""
    stored = definition.canonical(
        {"schedule": schedule, "executor": {"type": "noop"}, "misfire": {"grace": grace}, "jitter": jitter}
    )
    policy = definition.policy_of(stored)
    watermark = NOW - undecided
    job = job_of(policy, stored, watermark)
    group = Group(Timeline.key_of(job, policy), 0, times_of(policy.recurrence, schedules_of(policy), 0))
    jump = Jump(NOW - since - length, NOW - since)
    owed = between_of(schedules_of(policy), watermark, NOW, 0, 10**6)
    found: list[int] = []
    while (decision := decide(job, policy, group, NOW, jump)) is not None:
        assert decision.through > job.decided_through
        found += covered(decision, policy)
        for fire in decision.fires:
            if jump.after < fire.due_at <= jump.through:
                assert fire.cause != CAUSE_SCHEDULE
            elif fire.cause == CAUSE_SCHEDULE:
                assert NOW - fire.due_at <= policy.grace_ms
            else:
                assert fire.due_at <= max(jump.through, NOW - policy.grace_ms - 1)
        job.decided_through = decision.through
    assert found == [at for at in owed if group.due_at(job.uid, at) <= NOW]
    job.decided_through = watermark
    settled = settle(job, policy, group, NOW, jump)
    assert [n for decision in settled for n in covered(decision, policy)] == owed
