"""Courses of events that dice do not find: each brings a cluster to the one place where a certain guard decides.

A script stands in for the drawn faults of a seed; load, checks, healing and quiet are those of every seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftcron.core.timeline import Timeline
from raftcron.raft import segment
from raftcron.testing.sim_faults import Story
from raftcron.testing.sim_node import Life


def _leader(story: Story) -> Life:
    leaders = story.clients.leaders()
    assert leaders, story.cluster.where()
    return max(leaders, key=lambda life: life.log.status().term)


def _isolate(story: Story, name: str) -> None:
    for other in story.cluster.names:
        if other != name:
            story.cluster.network.cut(name, other)
            story.cluster.network.cut(other, name)


def _form_calmly(story: Story) -> None:
    """Nobody touches the jobs that fire."""
    story.clients.is_calm = True
    story.form()


def _until(story: Story, seconds: float, is_so: Callable[[], bool]) -> None:
    """Let time pass until it is so; not longer than this."""
    end = story.cluster.now + seconds
    while story.cluster.now < end and not is_so():
        story.cluster.run(0.005)


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
                _isolate(story, life.name)
                cluster.note("-", f"{life.name} stands still before the start of {running.run_id}")

    cluster.applied = applied
    _until(story, 20, lambda: bool(stalled))
    assert stalled, f"no run of {job} was about to start"
    return stalled[0]


def read_at_a_leader_that_slept(story: Story) -> None:
    """A leader stands still; others lead and write; reads that it was asked meanwhile are answered as it wakes."""
    story.form()
    for _ in range(4):
        leader = _leader(story)
        leader.loop.pause(3.0)
        _isolate(story, leader.name)
        for step in range(20):
            story.cluster.conductor.after(0.001 + 0.14 * step, story.clients.read_at, leader)
        story.cluster.run(3.5)
        story.cluster.network.heal()
        story.cluster.run(2.0)


def start_after_a_stall(story: Story) -> None:
    """A leader stalls before a start until its run was lost and is tried elsewhere."""
    _form_calmly(story)
    _stall_before_start(story, 6.0, "every-b")
    story.cluster.run(9.0)


def isolation_of_a_leader_at_work(story: Story) -> None:
    """Leaders are cut off from everybody while their runs take long, for longer than a lease."""
    _form_calmly(story)
    for _ in range(4):
        _isolate(story, _leader(story).name)
        story.cluster.run(8.0)
        story.cluster.network.heal()
        story.cluster.run(3.0)


def start_after_a_late_refusal(story: Story) -> None:
    """A leader stalls before a start past the start deadline, then its wall clock is set back."""
    _form_calmly(story)
    life = _stall_before_start(story, 5.6, "every-d")
    story.cluster.run(5.65)
    story.cluster.clocks[life.name].wall_offset -= 3.0
    story.cluster.run(3.0)


def form_twice(story: Story) -> None:
    """Two of three are there; then one has lost its disk, the other is down, and the third comes."""
    cluster = story.cluster
    story.load()
    cluster.boot("n1")
    cluster.boot("n2")
    cluster.run(4.0)
    cluster.kill("n1")
    cluster.kill("n2")
    disk = cluster.disks["n1"]
    disk.files.clear()
    disk.rewrites += 1
    cluster.boot("n1")
    cluster.boot("n3")
    cluster.run(4.0)


def deaf_leaders(story: Story) -> None:
    """What a leader sends arrives, but it hears nothing: others commit what it can only call unknown."""
    story.form()
    for _ in range(4):
        leader = _leader(story).name
        for other in story.cluster.names:
            if other != leader:
                story.cluster.network.cut(other, leader)
        story.cluster.run(7.0)
        story.cluster.network.heal()
        story.cluster.run(2.0)


def restart_in_the_midst(story: Story) -> None:
    """Leaders are killed right after their runs began, and start anew at once."""
    story.form()
    for _ in range(12):
        leader = _leader(story)
        _until(story, 3.0, lambda leader=leader: bool(leader.machine.state.on_node.get(leader.name)))  # type: ignore[misc]
        story.cluster.kill(leader.name)
        story.cluster.boot(leader.name)
        story.cluster.run(2.5)


def flip_bits(story: Story) -> None:
    """One node after the other is stopped, a bit of its old bytes rots, and it starts again."""
    story.form()
    for _ in range(6):
        story._flipped_bit()
        story.cluster.run(2.5)


# ---- parts of mutants that are longer than a line or two ---------------------------------------------------------


def end_of_any_record(data: memoryview, offset: int, end: int, salt: int) -> int | None:
    """segment._end_of_record, but the checksum is not looked at."""
    if offset + segment.RECORD_BYTES > end:
        return None
    length = int.from_bytes(data[offset + 4 : offset + 8], "little")
    stop = offset + segment.RECORD_BYTES + length
    return stop if stop <= end else None


def update_though_paused(self: Any, job: Any, policy: Any) -> None:
    """Timeline.update, but a paused job stays on it."""
    was, job.paused = job.paused, False
    try:
        _timeline_update(self, job, policy)
    finally:
        job.paused = was


_timeline_update = Timeline.update
