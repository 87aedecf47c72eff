"""Writes of definitions: put, delete, pause, resume, each in one entry with the decisions that were due before it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import msgspec

from raftcron.core import chains, definition
from raftcron.core.apply import alerts
from raftcron.core.apply.context import Context, remember
from raftcron.core.apply.decisions import begin_count, count_anew, holds, summarise, take
from raftcron.core.apply.runs import cancel_run, give_turns, recount
from raftcron.core.commands import (
    ApplyJobs,
    Decision,
    DeleteJob,
    Outcome,
    PauseJob,
    PutJob,
    Refused,
    ResumeJob,
    SkipNext,
)
from raftcron.core.instant import MAX_MS
from raftcron.core.model import (
    COUNTED_CAUSES,
    ENDED,
    REASON_DELETED,
    STARTED,
    Job,
    Policy,
    Recurrence,
)
from raftcron.core.state import State

WRITES_MAX = 1_000  # jobs that one entry writes; some 30 ms of apply
SKIPS_MAX = 100  # times of one job that wait to be skipped, 8 bytes each

STALE = Refused("stale", "the job has changed since the leader looked at it")


def put(state: State, context: Context, command: PutJob) -> Outcome:
    """Create or replace.  An identical definition keeps the revision."""
    refusal = check_put(state, command) or _check_chains(state, [command], [])
    if refusal is not None:
        return refusal
    status = change_put(state, context, command, place=0)
    return remember(state, context, command.key, command.name, status)


def delete(state: State, context: Context, command: DeleteJob) -> Outcome:
    """No start commits after this entry."""
    refusal = check_delete(state, command)
    if refusal is not None:
        return refusal
    change_delete(state, context, command)
    return remember(state, context, command.key, command.name, 204)


def apply_many(state: State, context: Context, command: ApplyJobs) -> Outcome:
    """A chunk of a bulk request: all of it or nothing."""
    names = [one.name for one in command.puts] + [one.name for one in command.deletes]
    if len(set(names)) < len(names) or len(names) > WRITES_MAX:
        return Refused("invalid", f"an entry writes at most {WRITES_MAX} jobs, each once")
    checks = chain(
        (check_put(state, one) for one in command.puts), (check_delete(state, one) for one in command.deletes)
    )
    refusal = next((refused for refused in checks if refused is not None), None)
    refusal = refusal or _check_chains(state, command.puts, command.deletes)
    if refusal is not None:
        return refusal
    results = [change_put(state, context, one, place) for place, one in enumerate(command.puts)]
    for one in command.deletes:
        change_delete(state, context, one)
    done = remember(state, context, command.key, "", 200)
    return msgspec.structs.replace(done, count=len(names), statuses=tuple(results))


def check_put(state: State, command: PutJob) -> Refused | None:
    """What stands against creating or replacing; nothing has changed yet."""
    job = state.jobs.get(command.name)
    refusal = _check(state, job, command.name, command.seen_revision, command.if_revision, command.decisions)
    if refusal is not None:
        return refusal
    if job is not None and command.must_create:
        return Refused("exists", f"there is a job {command.name!r} already, at revision {job.revision}")
    fault = definition.stored_fault(command.definition)
    if fault is not None:
        return Refused("invalid", f"the definition of job {command.name!r} cannot be read: {fault}")
    group = definition.policy_of(command.definition).group
    if group is not None and group not in state.groups:
        return STALE  # it is gone: look again, and name it
    if any(name not in state.calendars for name in definition.policy_of(command.definition).recurrence.exclude):
        return STALE  # one of its calendars is gone: look again, and name it
    return None


def change_put(state: State, context: Context, command: PutJob, place: int) -> int:
    """Create (201) or replace (200); `place` is that of the job in its entry."""
    job = state.jobs.get(command.name)
    if job is None:
        create(state, context, command, place << 48 | context.log_index)
        return 201
    _settle(state, context, job, command.decisions)
    paused = job.paused if command.paused is None else command.paused
    owner = job.owner if command.owner is None else command.owner
    if job.definition != command.definition or paused != job.paused or owner != job.owner:
        replace(state, context, job, command, paused, owner)
    return 200


def check_delete(state: State, command: DeleteJob) -> Refused | None:
    """What stands against deleting; nothing has changed yet."""
    job = state.jobs.get(command.name)
    if job is None:
        return Refused("not_found", f"there is no job {command.name!r}")
    return _check(state, job, command.name, command.seen_revision, command.if_revision, command.decisions)


def change_delete(state: State, context: Context, command: DeleteJob) -> None:
    """End what has not started, and forget the job."""
    job = state.jobs[command.name]
    _settle(state, context, job, command.decisions)
    for run in state.active_with_parts(job.uid):
        if run.state in ENDED:
            continue  # a part that was cancelled with its parent
        if command.cancel_running or run.state not in STARTED:
            cancel_run(state, context, run, REASON_DELETED)
    state.remove_job(job)
    alerts.settle(state, context)


def pause(state: State, context: Context, command: PauseJob) -> Outcome:
    """The schedule stops; manual runs stay allowed."""
    job = state.jobs.get(command.name)
    if job is None:
        return Refused("not_found", f"there is no job {command.name!r}")
    refusal = _check(state, job, command.name, command.seen_revision, None, command.decisions)
    if refusal is not None:
        return refusal
    _settle(state, context, job, command.decisions)
    if not job.paused or job.pause_note != command.note or job.pause_until != command.until:
        set_pause(state, job, True, command.note, command.until)
        stamp(state, context, job)
    return remember(state, context, command.key, job.name, 200)


def resume(state: State, context: Context, command: ResumeJob) -> Outcome:
    """The schedule goes on from now; what was not owed meanwhile is one `paused` row."""
    job = state.jobs.get(command.name)
    if job is None:
        return Refused("not_found", f"there is no job {command.name!r}")
    if state.revision_of(job) != command.seen_revision:
        return STALE
    if job.paused:
        count_anew(state, job)
        if command.paused is not None and command.paused.first > job.decided_through:
            summarise(state, context, job, command.paused)
        job.decided_through = max(job.decided_through, command.through)
        set_pause(state, job, False)
        stamp(state, context, job)
    return remember(state, context, command.key, job.name, 200)


def skip_next(state: State, context: Context, command: SkipNext) -> Outcome:
    """These times will be skipped when they fall due, and no others."""
    job = state.jobs.get(command.name)
    if job is None:
        return Refused("not_found", f"there is no job {command.name!r}")
    if state.revision_of(job) != command.seen_revision or any(at <= job.decided_through for at in command.times):
        return STALE
    if len(command.times) > SKIPS_MAX or any(at > MAX_MS for at in command.times):
        return Refused(
            "invalid", f"{len(command.times)} times to skip: there can be {SKIPS_MAX}, before the year 10000"
        )
    times = tuple(sorted(set(command.times)))
    if times != job.skips:
        job.skips, job.revision, job.updated_at = times, context.log_index, context.at
        state.touch_job(job)
    return remember(state, context, command.key, job.name, 200)


def _check(
    state: State,
    job: Job | None,
    name: str,
    seen_revision: int | None,
    if_revision: int | None,
    decisions: list[Decision],
) -> Refused | None:
    """What stands against a write; nothing has changed yet."""
    if if_revision is not None and (job is None or job.revision != if_revision):
        now = "there is no such job" if job is None else f"it is at revision {job.revision}"
        return Refused("revision", f"job {name!r} is not at revision {if_revision}: {now}; get it again and merge")
    if seen_revision != (None if job is None else state.revision_of(job)):
        return STALE
    if job is not None and any(d.through > job.decided_through and not holds(job, d) for d in decisions):
        return STALE  # the planner decided a part of it meanwhile: look again, so that nothing is dropped
    return None


def _check_chains(state: State, puts: Iterable[PutJob], deletes: Iterable[DeleteJob]) -> Refused | None:
    """Whether these together would make a cycle of jobs, which another write must have made possible meanwhile.

    Stale, so that the leader looks again and names it.
    """
    edits: dict[str, chains.After] = {}
    for command in puts:
        job, after = state.jobs.get(command.name), definition.policy_of(command.definition).after
        if after != (() if job is None else state.policy(job.uid).after):
            edits[command.name] = after
    if not any(edits.values()):
        return None
    edits.update((command.name, ()) for command in deletes)
    return STALE if chains.impossible(state, edits) else None


def _settle(state: State, context: Context, job: Job, decisions: list[Decision]) -> None:
    """Decide what was due under the old definition; what the planner has decided meanwhile stands."""
    count_anew(state, job)
    for decision in decisions:
        if decision.through > job.decided_through:
            take(state, context, job, decision, None)


def create(state: State, context: Context, command: PutJob, uid: int, policy: Policy | None = None) -> Job:
    """A new job, under an id that no other has had; `policy` is what its definition means, where that is known."""
    begin = context.at if command.decided_through is None else command.decided_through
    policy = policy or definition.policy_of(command.definition)
    ends = policy.recurrence.end_intervals
    job = Job(
        name=command.name,
        uid=uid,
        revision=context.log_index,
        created_at=context.at,
        updated_at=context.at,
        definition=command.definition,
        anchor=_whole_second(context.at),
        decided_through=begin,
        counted_from=begin,
        counted_index=context.log_index,
        last_end=_whole_second(context.at) if ends else None,
        paused=bool(command.paused),
        owner=command.owner,
    )
    state.add_job(job, policy)
    state.noted_new_jobs.add(uid)
    alerts.settle(state, context)
    return job


def replace(
    state: State,
    context: Context,
    job: Job,
    command: PutJob,
    paused: bool,
    owner: str | None,
    policy: Policy | None = None,
) -> None:
    """Another definition, pause or owner; what was due until now has been decided.  `policy` as in `create`.

    The watermark moves, also that of a paused job: what the pause has passed by until now is a row of its own.
    """
    stored = command.definition
    if job.paused and command.unowed is not None and command.unowed.first > job.decided_through:
        summarise(state, context, job, command.unowed)
        job.decided_through = command.unowed.last
    if job.definition != stored:
        known = state.policies[job.uid]
        before = known.recurrence
        policy = policy or definition.policy_of(stored)
        after = policy.recurrence
        job.joined = chains.still_joined(job, known.after, policy.after, policy.join)
        job.definition = stored
        state.know_job(job, policy)
        alerts.settle(state, context)
        state.bound_rows(job)
        give_turns(state, job.uid)
        if before != after and anchored(before) != anchored(after):
            job.anchor = job.last_decided if job.last_decided is not None else _whole_second(context.at)
        if not after.end_intervals:
            job.last_end = None
        elif not before.end_intervals:
            job.last_end = last_end_of(state, job, context.at)
        if before != after:
            job.skips = ()
            job.times_index = context.log_index
    if paused != job.paused:
        set_pause(state, job, paused)
    job.owner = owner
    if command.decided_through is not None:
        job.decided_through = max(job.decided_through, command.decided_through)
    stamp(state, context, job)


def set_pause(state: State, job: Job, paused: bool, note: str = "", until: int | None = None) -> None:
    """Begin or end a pause, which holds what is queued (semantics 6)."""
    job.paused, job.pause_note, job.pause_until = paused, note, until
    if paused:
        job.joined = ()  # as it ends, only what has ended since is there
    state.hold(job)


def stamp(state: State, context: Context, job: Job) -> None:
    """A changed job counts anew: what was owed before is no longer asked for."""
    job.revision = context.log_index
    job.updated_at = context.at
    begin_count(job, context.log_index)
    state.touch_job(job)
    state.queue_anew(job)
    recount(state, context, job.uid)


def anchored(recurrence: Recurrence) -> list[str]:
    """The schedules that count from the anchor which the job keeps."""
    texts = (text.strip().lower() for text in recurrence.schedules)
    return sorted(text for text in texts if text.startswith("@every") and " from " not in " ".join(text.split()))


def last_end_of(state: State, job: Job, at: int) -> int | None:
    """What a schedule `from last_end` that is new to the job counts from."""
    if any(run.cause in COUNTED_CAUSES for run in state.active.get(job.uid, {}).values()):
        return None
    last = None if job.last_run is None else state.runs.get(job.last_run)
    if last is None or last.cause not in COUNTED_CAUSES or last.finished_at is None:
        return _whole_second(at)
    return last.finished_at


def _whole_second(at: int) -> int:
    return -(-at // 1000) * 1000
