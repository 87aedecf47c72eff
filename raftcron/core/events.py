"""What an entry of the log changed, as events for those who watch; derived alike on every node, and never replicated.

One event for each run, job or other record that the entry touched, in the order of the first touch: what it is after
the entry.  So the place of an event within its entry (the `n` of its id `<index>.<n>`) is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from raftcron.core.alerts import PAUSED, kind_of_run
from raftcron.core.commands import Announce, Command, DeleteCalendar, Lead, PauseJob, PutCalendar
from raftcron.core.model import Run
from raftcron.core.state import State

CREATED, CHANGED, DELETED = "created", "changed", "deleted"


class RunEvent(Struct, array_like=True, frozen=True, gc=False, tag="run"):
    """A run has moved, or a row of skipped times stands."""

    at: int
    id: str
    job: str
    state: str
    reason: str | None
    cause: str
    scheduled_time: int
    attempt: int
    fencing_token: int
    node: str | None
    error: str | None
    error_kind: str | None
    blocked_by: str | None
    count: int | None
    uid: int = 0  # of the job
    alert: str | None = None  # what this is to whoever wants to be told, see alerts.py


class JobEvent(Struct, array_like=True, frozen=True, gc=False, tag="job"):
    """A definition was written, paused, resumed or deleted."""

    at: int
    name: str
    uid: int
    change: str
    revision: int
    paused: bool
    note: str = ""  # of the pause
    alert: str | None = None  # what this is to whoever wants to be told, see alerts.py


class LeaderEvent(Struct, array_like=True, frozen=True, gc=False, tag="leader"):
    """Another epoch began."""

    at: int
    node: str
    epoch: int
    term: int


class NodeEvent(Struct, array_like=True, frozen=True, gc=False, tag="node"):
    """A node's process began a life."""

    at: int
    name: str
    incarnation: int
    version: str


class CalendarEvent(Struct, array_like=True, frozen=True, gc=False, tag="calendar"):
    """An exclusion calendar was written or deleted."""

    at: int
    name: str
    change: str
    revision: int


Event = RunEvent | JobEvent | LeaderEvent | NodeEvent | CalendarEvent


def events_of(state: State, index: int, command: Command) -> Iterator[Event]:
    """The events of the entry that `state` has just taken; empty where it changed nothing that is watched."""
    at = state.cluster_time
    if isinstance(command, Lead):
        yield LeaderEvent(at, command.node, state.epoch, command.term)
    elif isinstance(command, Announce):
        node = state.nodes.get(command.node)
        if node is not None and node.announced_index == index:
            yield NodeEvent(at, node.name, node.incarnation, node.version)
    elif isinstance(command, PutCalendar | DeleteCalendar):
        calendar = state.calendars.get(command.name)
        if command.name in state.touched_calendars:
            if calendar is None:
                yield CalendarEvent(at, command.name, DELETED, index)
            elif calendar.revision == index:
                yield CalendarEvent(at, command.name, CHANGED, index)
    for job in state.noted_jobs.values():
        if state.by_uid.get(job.uid) is not job:
            yield JobEvent(at, job.name, job.uid, DELETED, index, job.paused)
        elif job.revision == index:
            alert = PAUSED if job.paused and isinstance(command, PauseJob) and command.is_forced else None
            change = CREATED if job.uid in state.noted_new_jobs else CHANGED
            yield JobEvent(at, job.name, job.uid, change, index, job.paused, job.pause_note, alert)
    for run in state.noted_runs.values():
        yield _run_event(at, run, kind_of_run(state, index, run))


def _run_event(at: int, run: Run, alert: str | None) -> RunEvent:
    return RunEvent(
        at,
        run.id,
        run.job,
        run.state,
        run.reason,
        run.cause,
        run.scheduled_time,
        run.attempt,
        run.fencing_token,
        run.node,
        run.error,
        run.error_kind,
        run.blocked_by,
        run.count,
        run.uid,
        alert,
    )
