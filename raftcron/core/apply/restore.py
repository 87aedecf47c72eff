"""A restore: chunks of an archive are staged in the state, then one entry puts them in the place of what is there."""

from __future__ import annotations

from hashlib import blake2b

from raftcron.core import archive
from raftcron.core.apply import alerts
from raftcron.core.apply.context import Context, remember
from raftcron.core.apply.decisions import count_anew, holds, take
from raftcron.core.apply.jobs import change_delete, create, replace, set_pause, stamp
from raftcron.core.archive import CalendarRow, GroupRow, JobRow, SecretRow, StagedChunk
from raftcron.core.commands import Decision, DeleteJob, Done, Outcome, PutJob, Refused, Restore, Stage
from raftcron.core.exclusion import CALENDARS_MAX
from raftcron.core.group import GROUPS_MAX
from raftcron.core.instant import MAX_MS
from raftcron.core.model import Calendar, Group, Job
from raftcron.core.staging import Staging
from raftcron.core.state import State
from raftcron.core.unreadable import UNREADABLE
from raftcron.core.vault import SECRETS_MAX, VAULT, Secret

STALE = Refused("stale", "a job has changed since the leader looked")
GONE = Refused("conflict", "what was staged has been dropped for another restore, or for its age: repeat the request")
CHUNK_ROWS_MAX = 1_000  # a place in its chunk is a part of a new job's id


def stage(state: State, context: Context, command: Stage) -> Outcome:
    """Keep one more chunk; the first one of a staging drops the staging before it."""
    kept = [chunk for chunk in state.staged.values() if chunk.staging == command.staging]
    if command.number != len(kept):
        return GONE
    size = sum(len(chunk.rows) for chunk in kept) + len(command.rows)
    if len(kept) >= archive.CHUNKS_MAX or size > archive.STAGED_BYTES_MAX:
        return Refused("invalid", f"a staging is {archive.CHUNKS_MAX} chunks at most")
    try:
        rows = archive.staged_rows(command.kind, command.rows)
    except (*UNREADABLE, KeyError) as error:
        return Refused("invalid", f"a chunk cannot be read: {error!r}")
    fault = next((found for row in rows if (found := archive.row_fault(row)) is not None), None)
    if fault is not None or len(rows) > CHUNK_ROWS_MAX:
        return Refused("invalid", fault or f"a chunk is {CHUNK_ROWS_MAX} rows at most")
    if not kept:
        drop(state)
    chunk = StagedChunk(command.number, command.staging, context.log_index, context.at, command.kind, command.rows)
    state.staged[chunk.number] = chunk
    state.touch(chunk)
    _read(state)
    return Done(command.staging, index=context.log_index)


def drop(state: State) -> None:
    """Nothing is staged any more."""
    for chunk in state.staged.values():
        state.forget(chunk)
    state.staged.clear()
    state.staging = None


def expire(state: State) -> None:
    """A staging that nobody swapped in for an hour of cluster time goes."""
    if state.staged and state.staged[0].at + archive.STAGING_LIFE_MS <= state.cluster_time:
        drop(state)


def _read(state: State) -> Staging:
    """What is staged, of which there is something: mostly it is read as it comes, so that the last entry need not."""
    chunks = list(state.staged.values())
    staging = state.staging
    if staging is None or staging.name != chunks[0].staging or staging.chunks > len(chunks):
        staging = state.staging = Staging(chunks[0].staging)
    for chunk in chunks[staging.chunks :]:
        staging.take(chunk)
    return staging


def seen(state: State) -> tuple[int, int]:
    """What differs once a job was written, made or deleted: how many there are, and the newest revision.

    Of the jobs, and of the calendars that they name.
    """
    newest = max((job.revision for job in state.jobs.values()), default=0)
    return len(state.jobs), max([newest, *(state.calendars[name].revision for name in state.calendar_jobs)])


def digest_of(chunks: list[bytes]) -> bytes:
    """Of the rows of all chunks, in their order."""
    hashed = blake2b(digest_size=archive.DIGEST_BYTES)
    for rows in chunks:
        hashed.update(len(rows).to_bytes(8, "little") + rows)
    return hashed.digest()


def restore(state: State, context: Context, command: Restore) -> Outcome:
    """All that is staged is there, and no other job, calendar, group or route; secrets that are not staged stay.

    What was due is decided first; what is queued of jobs that go ends `skipped: deleted`.
    """
    if not state.staged or state.staged[0].staging != command.staging or len(state.staged) != command.chunks:
        return GONE
    wanted = _read(state)
    if wanted.digest != command.digest:
        return GONE
    if seen(state) != (command.seen_jobs, command.seen_revision):
        return STALE
    owed = [(job, d) for d in command.decisions if (job := state.by_uid.get(d.uid)) is not None]
    if len({d.uid for _, d in owed}) < len(owed) or not 0 <= command.through <= MAX_MS:
        return Refused("invalid", "the decisions, or the time, are none that a leader made")
    if any(d.revision != state.revision_of(job) or not holds(job, d) for job, d in owed):
        return STALE
    fault = _set_fault(state, wanted)
    if fault is not None:
        return Refused("invalid", fault)
    return _change(state, context, command, wanted, owed)


def _set_fault(state: State, wanted: Staging) -> str | None:
    """Why the rows do not stand together; each by itself is right already."""
    fault = archive.set_fault(wanted.policies, wanted.calendars, wanted.groups)
    if wanted.names < wanted.count:
        fault = "a name stands in it twice"
    elif len(wanted.calendars) > CALENDARS_MAX or len(wanted.groups) > GROUPS_MAX:
        fault = f"at most {CALENDARS_MAX} calendars and {GROUPS_MAX} groups are kept"
    elif len(wanted.secrets.keys() | state.secrets.keys()) > SECRETS_MAX:
        fault = f"at most {SECRETS_MAX} secrets are kept, with those that are here"
    elif wanted.secrets and VAULT not in state.vault:
        fault = "there is no key yet that secrets could be sealed with"
    return fault


def _change(
    state: State, context: Context, command: Restore, wanted: Staging, owed: list[tuple[Job, Decision]]
) -> Outcome:
    since, policies = state.editions_since, state.policies
    for job in state.jobs.values():
        if job.counted_index < since or policies[job.uid].recurrence.exclude:  # nothing has changed under the others
            count_anew(state, job)
    for job, decision in owed:
        if decision.through > job.decided_through:
            take(state, context, job, decision, None)
    for calendar_row in wanted.calendars.values():
        _put_calendar(state, context, calendar_row, command.through)
    for group_row in wanted.groups.values():
        _put_group(state, context, group_row)
    gone = [name for name in state.jobs if name not in wanted.jobs]
    for name in gone:
        change_delete(state, context, DeleteJob(name, [], 0))
    for row in wanted.jobs.values():
        _put_job(state, context, row, wanted, command.through)
    for name in [name for name in state.calendars if name not in wanted.calendars]:
        state.forget(state.calendars.pop(name))
        state.touched_calendars.add(name)
    for name in [name for name in state.groups if name not in wanted.groups]:
        state.forget(state.groups.pop(name))
    for secret_row in wanted.secrets.values():
        _put_secret(state, context, secret_row)
    for route_row in wanted.routes.values():
        alerts.set_route(state, context, route_row.definition)
    for name in [name for name in state.alert_routes if name not in wanted.routes]:
        state.forget(state.alert_routes.pop(name))
    alerts.settle(state, context)
    drop(state)
    counts = (len(wanted.jobs), len(wanted.calendars), len(wanted.groups), len(gone))
    return remember(state, context, command.key, said(*counts), 200)


def said(jobs: int, calendars: int, groups: int, deleted: int) -> str:
    """What a restore did, as its outcome, its idempotency key and the audit trail have it."""
    return f"jobs={jobs} calendars={calendars} groups={groups} deleted={deleted}"


def _put_job(state: State, context: Context, row: JobRow, wanted: Staging, through: int) -> None:
    """Nothing before the restore's instant is owed, whatever the job had decided where the archive was made."""
    job = state.jobs.get(row.name)
    if job is None:
        begin = max(through, context.at)
        written = PutJob(row.name, row.definition, begin, paused=row.paused, owner=row.owner)
        job = create(state, context, written, wanted.uids[row.name], wanted.policies[row.name])
    elif (job.definition, job.paused, job.owner) != (row.definition, row.paused, row.owner):
        written = PutJob(row.name, row.definition, through, paused=row.paused, owner=row.owner)
        if job.paused and through > job.decided_through:
            job.unkept_through = max(job.unkept_through, through)  # no row tells of what the pause has passed by
        replace(state, context, job, written, row.paused, row.owner, wanted.policies[row.name])
    if job.paused and (job.pause_note, job.pause_until) != (row.note, row.until):
        set_pause(state, job, True, row.note, row.until)
        stamp(state, context, job)
    if row.fire_count > job.fire_count and state.policies[job.uid].max_runs:
        job.fire_count = row.fire_count
        state.touch_job(job)


def _put_calendar(state: State, context: Context, row: CalendarRow, through: int) -> None:
    calendar = state.calendars.get(row.name)
    if calendar is not None and calendar.definition == row.definition:
        return
    if calendar is None:
        calendar = Calendar(row.name, context.log_index, context.at, context.at, row.definition, through)
        state.calendars[row.name] = calendar
    calendar.revision, calendar.updated_at, calendar.definition = context.log_index, context.at, row.definition
    calendar.holds_from = max(calendar.holds_from, through)
    state.touch(calendar)
    state.touched_calendars.add(row.name)


def _put_group(state: State, context: Context, row: GroupRow) -> None:
    group = state.groups.get(row.name)
    if group is not None and group.max_running == row.max_running:
        return
    if group is None:
        group = state.groups[row.name] = Group(row.name, context.log_index, context.at, context.at, row.max_running)
    group.max_running, group.revision, group.updated_at = row.max_running, context.log_index, context.at
    state.touch(group)


def _put_secret(state: State, context: Context, row: SecretRow) -> None:
    secret = state.secrets.get(row.name)
    if secret is not None and secret.sealed == row.sealed:
        return
    if secret is None:
        secret = state.secrets[row.name] = Secret(row.name, b"", 0, context.at, context.at)
    secret.sealed, secret.revision, secret.updated_at = row.sealed, context.log_index, context.at
    state.touch(secret)
