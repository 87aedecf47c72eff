"""Courses of events that dice do not find, where a guard of runs or of time decides; those of the log: scripts.py."""

from __future__ import annotations

from contextlib import suppress

from raftcron.errors import RaftcronError
from raftcron.runtime.writes import Precondition
from raftcron.testing.sim_node import Life
from raftcron.testing.sim_story import Story
from tests.simulation.scripts import followers_of, form_calmly, isolate, leader_of, until


def _stall_before_start(story: Story, seconds: float, job: str) -> Life:
    """The leader stands still, cut off, between applying that a run of its own is running and starting its code."""
    cluster = story.cluster
    stalled: list[Life] = []

    def applied(life: Life) -> None:
        worker = life.node.worker
        for token in worker._tasks:
            running = worker._running[token]
            run = life.machine.state.runs.get(running.run_id)
            is_next = run is not None and run.job == job and not running.has_started and not running.is_refused
            if is_next and not stalled and life.log.leading_epoch is not None:
                stalled.append(life)
                life.loop.pause(seconds)
                isolate(story, life.name)
                cluster.note("-", f"{life.name} stands still before the start of {running.run_id}")

    cluster.applied = applied
    until(story, 20, lambda: bool(stalled))
    assert stalled, f"no run of {job} was about to start"
    return stalled[0]


def start_after_a_stall(story: Story) -> None:
    """A leader stalls before a start until its run was lost and is tried elsewhere."""
    form_calmly(story)
    _stall_before_start(story, 6.0, "every-b")
    story.cluster.run(9.0)


def isolation_of_a_leader_at_work(story: Story) -> None:
    """Leaders are cut off from everybody while their runs take long, for longer than a lease."""
    form_calmly(story)
    for _ in range(4):
        isolate(story, leader_of(story).name)
        story.cluster.run(8.0)
        story.cluster.network.heal()
        story.cluster.run(3.0)


def start_after_a_late_refusal(story: Story) -> None:
    """A leader stalls before a start past the start deadline, then the time that it trusts is set back."""
    form_calmly(story)
    life = _stall_before_start(story, 5.6, "every-d")
    story.cluster.run(5.65)
    assert life.time.ahead_ms is not None
    life.time.ahead_ms -= 3_000  # as if a majority had agreed on less
    story.cluster.run(3.0)


def restart_in_the_midst(story: Story) -> None:
    """Leaders are killed right after their runs began, and start anew at once."""
    story.form()
    for _ in range(12):
        leader = leader_of(story)
        until(story, 3.0, lambda leader=leader: bool(leader.machine.state.on_node.get(leader.name)))  # type: ignore[misc]
        story.cluster.kill(leader.name)
        story.cluster.boot(leader.name)
        story.cluster.run(2.5)


def replace_in_the_midst(story: Story) -> None:
    """Leaders that run something lose their disks, and are replaced before their leases end."""
    story.form()
    for _ in range(4):
        leader = leader_of(story)
        until(story, 3.0, lambda leader=leader: bool(leader.machine.state.on_node.get(leader.name)))  # type: ignore[misc]
        story.faults.operator.replace(leader.name)
        until(story, 12.0, lambda: not story.faults.operator.is_busy)
        story.cluster.run(2.0)


def resume_under_an_earlier_time(story: Story) -> None:
    """A job is paused, then the time that its leader trusts is set back, and the job is resumed."""
    form_calmly(story)
    leader, clients = leader_of(story), story.clients
    clients.write(leader, lambda service, key: service.pause_job("every-a", None, Precondition(), key))
    story.cluster.run(0.2)
    assert leader.time.ahead_ms is not None
    leader.time.ahead_ms -= 3_000  # as if a majority had agreed on less
    clients.write(leader, lambda service, key: service.resume_job("every-a", None, Precondition(), key))
    story.cluster.run(0.5)


YEAR_SECONDS = 365 * 86_400.0
STALE_SECONDS = 8.0  # longer than a clock that was read counts


def leader_jumps_a_year(story: Story) -> None:
    """One leader's clock after the other steps a year ahead, and back."""
    story.form()
    for _ in range(2):
        leader = leader_of(story).name
        story.faults.wrong_clocks.set(leader, YEAR_SECONDS)
        story.cluster.run(5.0)
        story.faults.wrong_clocks.set(leader, 0.0)
        story.cluster.run(2.0)


def two_voters_differ(story: Story) -> None:
    """One is away for so long that its clock is forgotten; then that of the leader steps a year ahead."""
    story.form()
    leader, away = leader_of(story).name, followers_of(story)[0]
    story.cluster.kill(away)
    story.cluster.run(STALE_SECONDS)
    story.faults.wrong_clocks.set(leader, YEAR_SECONDS)
    story.cluster.run(10.0)


def two_clocks_one_after_the_other(story: Story) -> None:
    """One that was a year ahead has been away for long; then the leader's clock shows the same."""
    story.form()
    leader, away = leader_of(story).name, followers_of(story)[0]
    story.faults.wrong_clocks.set(away, YEAR_SECONDS)
    story.cluster.run(3.0)
    story.cluster.kill(away)
    story.cluster.run(STALE_SECONDS)
    story.faults.wrong_clocks.set(leader, YEAR_SECONDS)
    story.cluster.run(5.0)


def start_with_two_that_differ(story: Story) -> None:
    """All end; two of three start again, of which one is a year ahead, and each of them leads for a while."""
    cluster = story.cluster
    story.form()
    for name in cluster.names:
        cluster.kill(name)
    ahead, right, away = cluster.names
    story.faults.wrong_clocks.set(ahead, YEAR_SECONDS)
    cluster.boot(ahead)
    cluster.boot(right)
    for _ in range(4):
        cluster.run(4.0)
        for life in story.clients.leaders():
            other = right if life.name == ahead else ahead
            life.loop.create_task(_given(life, other))
    cluster.boot(away)
    cluster.run(3.0)


async def _given(life: Life, other: str) -> None:
    with suppress(RaftcronError):
        await life.log.transfer(other)


def lone_node_jumps_a_year(story: Story) -> None:
    """The only node's clock steps ahead while it runs, and it starts again with it; then the clock is set."""
    story.form()
    [name] = story.cluster.names
    story.faults.wrong_clocks.set(name, YEAR_SECONDS)
    story.cluster.run(5.0)
    story.cluster.kill(name)
    story.cluster.boot(name)
    story.cluster.run(5.0)


def nothing_happens(story: Story) -> None:
    """All is well."""
    story.form()
    story.cluster.run(10.0)
