"""Finds the row that speaks for an instant of a job, in slices that never hold the loop, and asks core/why.py."""

from __future__ import annotations

import asyncio
from typing import Any

from raftcron.core.model import Job, Run
from raftcron.core.state import State
from raftcron.core.timeline import Timeline
from raftcron.core.why import SURE, Answer, Asked, asked_of, explain
from raftcron.runtime.views import instant
from raftcron.runtime.waiting import waits_for

SLICE = 500  # rows unpacked in one turn of the loop: about 1 ms


async def why(state: State, timeline: Timeline, job: Job, at: int, now: int) -> Answer:
    """The verdict on one instant of a job.  Raises ScheduleError where this node cannot tell the job's times."""
    policy = state.policy(job.uid)
    times = timeline.times(job, policy)
    asked = asked_of(job, policy, times, state.calendars, state.editions_since, at)
    row = await _row(state, job, asked)
    answer = explain(job, policy, times, state.calendars, row, asked, now)
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


async def _row(state: State, job: Job, asked: Asked) -> Run | None:
    """The row that tells best of the instant, of those that are kept."""
    # What a scheduled time became is found by its id; a due instant, or a span, is looked for.
    likely = [f"{job.uid:x}-{one}" for one in dict.fromkeys((asked.at, asked.time)) if one is not None]
    ids = [*likely, *state.ended_of(job.uid), *state.active.get(job.uid, ())]
    best, rank = None, 0
    for number, run_id in enumerate(ids, start=1):
        row = state.runs.get(run_id)
        told = None if row is None else asked.told_by(row)
        if told is not None and told.rank > rank:
            best, rank = row, told.rank
        if rank == SURE:
            break
        if not number % SLICE:
            await asyncio.sleep(0)
    return best
