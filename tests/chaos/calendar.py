"""When the jobs of a chaos run are due, counted anew by a few lines; nothing of the product is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from tests.chaos.history import Job, milliseconds


def times(schedule: str, created_at: int, after: int, through: int) -> range:
    """All times of a schedule behind `after`, up to `through`, in milliseconds.

    Knows only what the chaos jobs use, in UTC: `@every Ns`, `@every Ns from INSTANT`, `* * * * * *`, `*/N * * * * *`.
    """
    if match := re.fullmatch(r"@every (\d+)s(?: from (\S+))?", schedule):
        step = int(match[1]) * 1000
        # without `from` the anchor is the creation, rounded up to a whole second
        anchor = milliseconds(match[2]) if match[2] else -(-created_at // 1000) * 1000
        earliest = anchor + step
    elif match := re.fullmatch(r"(\*|\*/(\d+)) \* \* \* \* \*", schedule):
        step = int(match[2] or 1) * 1000
        if 60_000 % step:
            raise ValueError(f"{schedule!r}: only steps that divide a minute can be counted here")
        anchor = earliest = 0
    else:
        raise ValueError(f"{schedule!r}: this checker cannot count that")
    return range(max(earliest, anchor + ((after - anchor) // step + 1) * step), through + 1, step)


def due_times(job: Job) -> Sequence[int]:
    """All times that a job owes after it was created, up to when it was closed, ascending."""
    if not job.phases:
        return times(job.schedule, job.created_at, job.created_at, job.closed_at)
    ends = [phase.since for phase in job.phases[1:]] + [job.closed_at]
    return [
        at
        for phase, through in zip(job.phases, ends, strict=True)
        if not phase.is_paused
        for at in times(phase.schedule, job.created_at, phase.since, through)
    ]


def spans_of_pauses(job: Job) -> list[tuple[int, int, Sequence[int]]]:
    """Each pause of a job that is over: behind which instant it was, up to which, and the times inside it."""
    return [
        (phase.since, following.since, times(phase.schedule, job.created_at, phase.since, following.since))
        for phase, following in pairwise(job.phases)
        if phase.is_paused
    ]
