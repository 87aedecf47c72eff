"""Pauses that end by themselves: through the log, and as of the instant named, however late the leader comes to it.

What a job owes since that instant is decided under the job as it stands; so a write of such a job ends its pause first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from raftcron.core import planner
from raftcron.core.commands import (
    ApplyJobs,
    Command,
    DeleteJob,
    PauseJob,
    PutCalendar,
    PutJob,
    Restore,
    ResumeJob,
    SkipNext,
)
from raftcron.core.model import Job
from raftcron.core.schedule import ScheduleError
from raftcron.runtime.machine import Machine


def ending(machine: Machine, job: Job) -> ResumeJob:
    """What ends a pause that is over: what was not owed until its end is one row, what comes after it is due."""
    assert job.pause_until is not None, "a pause without an end is never over"
    policy, summary = machine.state.policy(job.uid), None
    with contextlib.suppress(ScheduleError):  # the leader pauses it for that, with a note
        summary = planner.paused_summary(job, policy, job.pause_until, machine.timeline.times(job, policy))
    return ResumeJob(job.name, machine.state.revision_of(job), job.pause_until, summary)


def over_before(machine: Machine, command: Command, now: int) -> list[Job]:
    """Jobs whose pause has to be ended before this is written: it would pass by what they owe since then."""
    return [job for job in _written(machine, command, now) if job.is_pause_over(now)]


def _written(machine: Machine, command: Command, now: int) -> Iterable[Job]:
    """The jobs whose watermark, pause or times a command changes; of a restore's those alone whose pause is over."""
    state = machine.state
    match command:
        case PutJob() | DeleteJob() | PauseJob() | SkipNext():
            names = [command.name]
        case ResumeJob():  # with catch-up it passes nothing by
            job = state.jobs.get(command.name)
            is_late = job is not None and job.pause_until is not None and command.through > job.pause_until
            names = [command.name] if is_late else []
        case ApplyJobs():
            names = [*(one.name for one in command.puts), *(one.name for one in command.deletes)]
        case PutCalendar():
            return map(state.by_uid.__getitem__, state.calendar_jobs.get(command.name, ()))
        case Restore():
            return [state.by_uid[uid] for uid in machine.timeline.paused_until(now)]
        case _:
            return ()
    return [job for name in names if (job := state.jobs.get(name)) is not None]
