"""Finds the row that speaks for an instant of a job, in slices that never hold the loop, and asks core/why.py."""

from __future__ import annotations

import asyncio
from typing import Any

from raftcron.core.model import Job, Run
from raftcron.core.state import State
from raftcron.core.timeline import Timeline
from raftcron.core.why import Answer, explain, scheduled_time, speaks_for
from raftcron.runtime.views import instant
from raftcron.runtime.waiting import waits_for

SLICE = 500  # rows unpacked in one turn of the loop: about 1 ms


async def why(state: State, timeline: Timeline, job: Job, at: int, now: int) -> Answer:
    """The verdict on one instant of a job.  Raises ScheduleError where this node cannot tell the job's times."""
    policy = state.policy(job.uid)
    times = timeline.times(job, policy)
    row = await _row(state, job, at, scheduled_time(job, times, at))
    answer = explain(job, policy, times, state.calendars, row, at, now)
    waited = None if answer.row is None else waits_for(state, answer.row)
    return answer if waited is None else answer._replace(message=f"{answer.message}, for {waited}")


def why_view(name: str, at: int, answer: Answer) -> dict[str, Any]:
    """As api.md has it, with the scheduled time that is spoken of and when it is due."""
    row = answer.row
    return {
        "job": name,
        "at": instant(at),
        "verdict": answer.verdict,
        "reason": answer.reason,
        "run_id": None if row is None else row.id,
        "blocked_by": None if row is None else row.blocked_by,
        "log_index": None if row is None else row.log_index,
        "epoch": None if row is None else row.epoch,
        "node": None if row is None else row.node,
        "message": answer.message,
        "scheduled_time": instant(answer.scheduled_time),
        "due_at": instant(answer.due_at),
    }


async def _row(state: State, job: Job, at: int, time: int | None) -> Run | None:
    """The row that speaks for the instant, if it is kept."""
    # What a scheduled time became is found by its id; a due instant, or a span, is looked for.
    for one in (at, time):
        row = None if one is None else state.runs.get(f"{job.uid:x}-{one}")
        if row is not None:
            return row
    ids = [*state.ended_of(job.uid), *state.active.get(job.uid, ())]
    for number, run_id in enumerate(ids, start=1):
        row = state.runs.get(run_id)
        if row is not None and speaks_for(row, at, time):
            return row
        if not number % SLICE:
            await asyncio.sleep(0)
    return None
