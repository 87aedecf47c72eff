"""What may surprise about a definition as a whole: its schedules, and policies that give something up.  Pure."""

from __future__ import annotations

from raftcron.core.explain import Note, notes_among
from raftcron.core.model import AT_MOST_ONCE, FAILED, Policy
from raftcron.core.schedule import ScheduleError
from raftcron.core.times import schedules_of

RETRY_UNPROVEN = "retry_unproven"
RETRY_UNUSED = "retry_unused"
ALL_UNDER_SKIP = "all_under_skip"
STOP_IN_THREAD = "stop_in_thread"


def lint(policy: Policy, name: str, now: int, thread_on: str | None = None) -> list[Note]:
    """Notes on a sound definition, as seen from an instant; none where it says what most people mean.

    `thread_on`: a node where the handler that the job calls runs in a thread, None if there is none.
    """
    found: list[Note] = []
    try:
        schedules = schedules_of(policy, name)
    except ScheduleError:
        schedules = ()
    for schedule in schedules:
        found += notes_among(schedule, schedules, now)
    unproven = sorted(policy.retry_on - {FAILED})
    if policy.delivery == AT_MOST_ONCE and policy.max_attempts > 1 and unproven:
        found.append(
            Note(
                RETRY_UNPROVEN,
                f"retry.on names {' and '.join(unproven)}: such an attempt may still be at work when the next one "
                "starts, so at_most_once is given up for it; say at_least_once, or leave it out",
            )
        )
    if policy.max_attempts == 1 and unproven:
        found.append(Note(RETRY_UNUSED, "retry.on is set, but max_attempts is 1: nothing is tried again"))
    if policy.misfire == "all" and policy.overlap == "skip":
        found.append(
            Note(
                ALL_UNDER_SKIP,
                "misfire.policy all runs each missed time, but overlap.policy skip skips those that fall into a run: "
                "queue or allow runs them all",
            )
        )
    if thread_on is not None and policy.self_stop:
        found.append(
            Note(
                STOP_IN_THREAD,
                f"isolation is stop, but on node {thread_on} the handler is a function in a thread, which can be asked "
                "to stop (run.cancelled) and cannot be made to: leave it out, or register it with process=True",
            )
        )
    return found
