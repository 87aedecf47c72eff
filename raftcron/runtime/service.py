"""The use-cases of jobs that write: put, patch, delete, pause, resume, skip; and what is wrong with a job as written.

They run on the leader; how a write goes is in writes.py, many jobs at once in bulk.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Mapping
from typing import Any

import msgspec

from raftcron.core import chains, definition, planner
from raftcron.core.apply.jobs import SKIPS_MAX
from raftcron.core.coming import coming_of
from raftcron.core.commands import (
    Command,
    Decision,
    DeleteJob,
    Done,
    Note,
    PauseJob,
    PutJob,
    ResumeJob,
    SkipNext,
    Summary,
)
from raftcron.core.fields import kind_of, name_fault, near
from raftcron.core.instant import parse_rfc3339, shown
from raftcron.core.judge import ScheduleJudge, never_fires
from raftcron.core.model import THREAD_TAG, Job, Key
from raftcron.core.schedule import ScheduleError
from raftcron.core.times import Times, schedules_of
from raftcron.core.vault import carried, has_plain, plain, references
from raftcron.errors import (
    ConfigurationError,
    ConflictError,
    Fault,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RevisionError,
    TooLargeError,
    UnavailableError,
)
from raftcron.executors.registry import Registry
from raftcron.ports import Log
from raftcron.runtime.alert_routes import url_faults
from raftcron.runtime.clocks import Clocks, TrustedTime
from raftcron.runtime.machine import Machine
from raftcron.runtime.origin import asking, prefix
from raftcron.runtime.patches import merged
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.reads import Reads
from raftcron.runtime.small_bodies import counted, fields_of, flag_of, invalid, refuse_any
from raftcron.runtime.vault import Vault
from raftcron.runtime.writes import Precondition, Writes, refuse, taken

NOTE_MAX = 1_000  # characters of a pause's note


class Service(Writes):
    """All writes of jobs of one node."""

    def __init__(
        self,
        *,
        node: str,
        machine: Machine,
        proposer: Proposer,
        time: TrustedTime,
        reads: Reads,
        log: Log,
        registry: Registry,
        vault: Vault | None = None,
    ) -> None:
        """Without a `vault` no job is taken that holds a secret."""
        super().__init__(node=node, machine=machine, proposer=proposer, time=time, reads=reads)
        self._log = log
        self._registry = registry
        self._vault = vault

    async def put_job(
        self, name: str, body: Any, precondition: Precondition, key: Key | None, *, is_declared: bool = False
    ) -> Done:
        """Create (201) or replace (200).  Raises InvalidError, RevisionError, ConflictError.

        `is_declared`: by the code that has the handler, so that it says itself whether that can be stopped.
        """

        def look() -> Command:
            job = self._machine.state.jobs.get(name)
            precondition.check(name, job)
            checked = self.checked(body, name, job, is_declared=is_declared)
            return self.put_command(name, job, checked, must_create=precondition.must_create, key=key)

        await self.ready_for(body)
        done = await self.write(key, look)
        return done if isinstance(done, Done) else refuse(done, exists=RevisionError)

    async def create_job(self, body: Any, key: Key | None) -> Done:
        """Create (201); the body carries the name.  Raises InvalidError, ConflictError where it exists."""

        def look() -> Command:
            name = body.get("name") if isinstance(body, dict) else None
            job = self._machine.state.jobs.get(name) if isinstance(name, str) else None
            checked = self.checked(body, None, job)
            assert isinstance(name, str), "a checked body without a path carries its name"
            if job is not None:
                raise ConflictError(
                    f"there is a job {name!r} already, at revision {job.revision}: PUT replaces it, PATCH changes it"
                )
            return self.put_command(name, None, checked, must_create=True, key=key)

        await self.ready_for(body)
        return taken(await self.write(key, look))

    async def patch_job(self, name: str, patch: Any, precondition: Precondition, key: Key | None) -> Done:
        """Merge into what was written (RFC 7396).  Raises InvalidError, NotFoundError, RevisionError."""

        def look() -> Command:
            job = self._machine.state.jobs.get(name)
            precondition.check(name, job)
            job = self.found(name, job)
            return self.put_command(name, job, self.checked(merged(job, patch), name, job, is_merged=True), key=key)

        await self.ready_for(patch)
        return taken(await self.write(key, look))

    async def delete_job(self, name: str, *, cancel_running: bool, precondition: Precondition, key: Key | None) -> Done:
        """No start commits after this.  Raises NotFoundError, RevisionError."""

        def look() -> Command:
            job = self._machine.state.jobs.get(name)
            precondition.check(name, job)
            job = self.found(name, job)
            decisions = self.settled(job, self._time.now_ms())
            return DeleteJob(name, decisions, self._machine.state.revision_of(job), None, cancel_running, key)

        return taken(await self.write(key, look))

    async def pause_job(self, name: str, body: Any, precondition: Precondition, key: Key | None) -> Done:
        """The schedule stops; body `{note, until}`.  Raises InvalidError, NotFoundError."""
        fields, faults = fields_of(body, {"note", "until"})
        note = "" if fields.get("note") is None else fields["note"]
        if not isinstance(note, str):
            faults.append(Fault("/note", f"must be a string, not {kind_of(note)}"))
        elif len(note) > NOTE_MAX:
            faults.append(Fault("/note", f"has {len(note)} characters, at most {NOTE_MAX} are taken"))
        until = None if fields.get("until") is None else self._end_of_pause(fields["until"], faults)
        refuse_any(faults)

        def look() -> Command:
            job = self._machine.state.jobs.get(name)
            precondition.check(name, job)
            job = self.found(name, job)
            if until is not None and until <= self._time.now_ms():
                raise invalid(Fault("/until", "lies in the past: name an instant to come, or leave it out"))
            decisions = self.settled(job, self._time.now_ms())
            return PauseJob(name, decisions, self._machine.state.revision_of(job), note, until, key)

        return taken(await self.write(key, look))

    @staticmethod
    def _end_of_pause(text: Any, faults: list[Fault]) -> int | None:
        try:
            return parse_rfc3339(text)
        except ValueError as error:
            faults.append(Fault("/until", str(error)))
            return None

    async def resume_job(self, name: str, body: Any, precondition: Precondition, key: Key | None) -> Done:
        """The schedule goes on from now; body `{catch_up}`.  Raises InvalidError, NotFoundError.

        With `catch_up` what fell into the pause is owed after all, and the misfire policy speaks of it.
        """
        fields, faults = fields_of(body, {"catch_up"})
        catch_up = flag_of(fields, "catch_up", faults)
        refuse_any(faults)

        def look() -> Command:
            job = self._machine.state.jobs.get(name)
            precondition.check(name, job)
            job = self.found(name, job)
            now, revision = self._time.now_ms(), self._machine.state.revision_of(job)
            try:
                paused = self._paused_summary(job, now) if job.paused else None
            except ScheduleError as error:
                raise ConflictError(f"job {name!r} cannot be resumed: its times cannot be told: {error}") from None
            if catch_up:
                return ResumeJob(name, revision, job.decided_through, None, key)
            return ResumeJob(name, revision, now, paused, key)

        return taken(await self.write(key, look))

    async def skip_next(self, name: str, body: Any, precondition: Precondition, key: Key | None) -> Done:
        """The next `count` times will be skipped, instead of those asked for before; body `{count}`, 1 unless said.

        0 takes back what was asked for.  Raises InvalidError, NotFoundError, ConflictError where no time is ahead.
        """
        fields, faults = fields_of(body, {"count"})
        count = fields.get("count", 1)
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= SKIPS_MAX:
            faults.append(Fault("/count", f"is {shown(count)}: use a whole number from 0 to {SKIPS_MAX}"))
        refuse_any(faults)

        def look() -> Command:
            state, now = self._machine.state, self._time.now_ms()
            job = state.jobs.get(name)
            precondition.check(name, job)
            job = self.found(name, job)
            is_asked = count and not job.is_pause_over(now)  # that is ended first, and then this looks again
            ahead = self._ahead(job, count, now) if is_asked else []
            return SkipNext(name, ahead, state.revision_of(job), key)

        return taken(await self.write(key, look))

    def _ahead(self, job: Job, count: int, now: int) -> list[int]:
        """The next times of a job, as many as there are of `count`, but one at least."""
        if job.paused:
            raise ConflictError(f"job {job.name!r} is paused, so no time is ahead of it: resume it first")
        policy, times = self._machine.state.policy(job.uid), self.times(job)
        found = [one.scheduled_time for one in coming_of(job, policy, times, now, count)]
        if not found:
            raise ConflictError(f"no time is ahead of job {job.name!r} that could be skipped")
        if policy.recurrence.end_intervals and len(found) < count:
            raise invalid(Fault("/count", f"times `from last_end` are known one at a time: use at most {len(found)}"))
        return found

    # ---- the time, which is no job but is written the same way

    async def accept_time(self, clocks: Clocks, key: Key | None) -> Done:
        """An operator says that this leader's clock is right; cluster time follows it from the index on.

        Raises ConflictError where a majority of the voters agrees on another time.
        """
        await self._reads.confirm()
        done = self.answered(key)
        if done is None:
            clocks.accept()
            said = Note(f"the clock of {self._node} is accepted", key)
            done = taken(await self._proposer.propose(said, asking.get()))  # at its time: a restart need not ask again
        return done

    # ---- details

    def put_command(
        self,
        name: str,
        job: Job | None,
        checked: definition.Checked,
        *,
        must_create: bool = False,
        owner: str | None = None,
        key: Key | None = None,
    ) -> PutJob:
        """The command that writes a checked body in the place of `job`; `owner` stands in where the body has none."""
        now = self._time.now_ms()
        stored = self.stored(name, job, checked)
        if len(stored) > (most := definition.DEFINITION_BYTES_MAX):
            raise TooLargeError(f"the job takes {len(stored)} bytes, at most {most} are taken")
        owner = owner if checked.owner is None else checked.owner
        through: int | None = now
        unowed: Summary | None = None
        if job is None:
            policy = definition.policy_of(stored)
            through = planner.first_watermark(schedules_of(policy, name), policy, now)
        elif job.paused and (job.definition != stored or checked.paused is False or owner not in (None, job.owner)):
            with contextlib.suppress(ScheduleError):  # it may have been paused for that, and this write mends it
                unowed = self._paused_summary(job, now)
        return PutJob(
            name=name,
            definition=stored,
            decided_through=through,
            decisions=[] if job is None else self.settled(job, now),
            seen_revision=None if job is None else self._machine.state.revision_of(job),
            must_create=must_create,
            paused=checked.paused,
            unowed=unowed,
            owner=owner,
            key=key,
        )

    def stored(self, name: str, job: Job | None, checked: definition.Checked) -> bytes:
        """A checked body as state keeps it, with its secrets sealed; one that is the same as in `job` seals alike."""
        written = dict(checked.written)
        if has_plain(written["executor"]):
            before = None if job is None else definition.executor_of(job.definition)
            if self._vault is None:
                raise UnavailableError("this node keeps no secrets")
            written["executor"] = self._vault.sealed_executor(name, written["executor"], before)
        return definition.canonical(written)

    def settled(self, job: Job, now: int) -> list[Decision]:
        """What was due until now, decided under the definition as it stands."""
        policy, group = self._machine.state.policy(job.uid), self._machine.timeline.group_of(job.uid)
        return planner.settle(job, policy, group, now, self._time.jump)

    def _paused_summary(self, job: Job, now: int) -> Summary | None:
        """What was not owed during a pause.  Raises ScheduleError where this node cannot tell."""
        machine = self._machine
        policy = machine.state.policy(job.uid)
        return planner.paused_summary(job, policy, now, machine.timeline.times(job, policy))

    @staticmethod
    def found(name: str, job: Job | None) -> Job:
        """Raises NotFoundError."""
        if job is None:
            raise NotFoundError(f"there is no job {name[:200]!r}")
        return job

    async def ready_for(self, body: Any) -> None:
        """See to it that what this body holds of secrets can be sealed.  On the leader alone."""
        if isinstance(body, dict) and has_plain(body.get("executor")) and self._vault is not None:
            await self._vault.ready_to_seal()

    def checked(
        self,
        body: Any,
        name: str | None,
        job: Job | None,
        beside: Container[str] | None = None,
        *,
        is_merged: bool = False,
        is_declared: bool = False,
    ) -> definition.Checked:
        """The body, if nothing is wrong with it; unless `is_declared`, with what `_isolated` fills in.

        `job` is what it would replace; `is_merged`: what the body leaves out of its secrets is not to be kept.
        `beside` are the jobs that are written in one entry with it; who does that looks for cycles among them.
        """
        if isinstance(body, dict) and isinstance(body.get("executor"), dict):
            former = None if job is None or is_merged else definition.executor_of(job.definition)
            body = {**body, "executor": carried(body["executor"], former)}
        if isinstance(body, dict):
            named = references(body.get("executor")) | references(body.get("alerts"))
            beyond = sorted(name for name in named if not name.startswith(prefix.get()))
            if beyond:  # whoever writes a job can have it send what it refers to anywhere
                raise ForbiddenError(f"the secret {beyond[0]!r} does not begin with {prefix.get()!r}, as all must")
        kept = None if job is None else self._machine.state.policy(job.uid)
        now, calendars = self._time.now_ms(), self._machine.state.calendars
        judge = ScheduleJudge(name or _name_in(body), now, body, kept, calendars)
        checked = definition.check(body, name, judge, self.judge_executor)
        faults = dict.fromkeys([*checked.faults, *judge.faults, *self._group_faults(checked.written.get("group"))])
        if name is not None and (problem := name_fault(name)) is not None:
            faults = {Fault("/name", f"of the path: {problem}"): None, **faults}
        sound = definition.sound(checked.written, faults)  # what rests on more than the body is judged of the rest
        faults |= dict.fromkeys(url_faults(sound.get("alerts"), self.judge_executor))
        policy = definition.policy_of(definition.canonical({**definition.STAND_INS, **sound}))
        after = () if kept is None else kept.after
        if policy.after != after and beside is not None:
            missing = chains.missing(self._machine.state, _name_in(body), policy.after, after, beside)
            faults |= dict.fromkeys(missing)
        elif policy.after != after:
            faults |= dict.fromkeys(chains.faults(self._machine.state, name or _name_in(body), policy.after, after))
        tells_times = {"schedule"} | (checked.written.keys() & definition.RECURRENCE) <= sound.keys()
        if tells_times and (kept is None or kept.recurrence != policy.recurrence):
            fault = never_fires(policy, name or _name_in(body), now, calendars)
            faults |= {} if fault is None else {fault: None}
        if faults:
            raise InvalidError(f"the job has {counted(len(faults))}; nothing was written", tuple(faults))
        return checked if is_declared else self._isolated(checked)

    def _isolated(self, checked: definition.Checked) -> definition.Checked:
        """What cannot be stopped says so in its definition, unless that says something else (semantics 5.11)."""
        written = checked.written
        if written.get("isolation") is not None or self.thread_on(written["executor"]) is None:
            return checked
        return msgspec.structs.replace(checked, written=written | {"isolation": "continue"})

    def thread_on(self, executor: Mapping[str, Any]) -> str | None:
        """The first member that has announced the handler of this sound executor object as a thread, if any has."""
        if executor["type"] != "python":
            return None
        carried = ((f"{THREAD_TAG}{executor['handler']}", ""),)
        members = sorted(member.name for member in self._log.status().members)
        return next((name for name in members if self._machine.state.carries(name, carried)), None)

    def _group_faults(self, group: Any) -> list[Fault]:
        groups = self._machine.state.groups
        if not isinstance(group, str) or group in groups or name_fault(group) is not None:
            return []
        hint = near(group, groups) or "; PUT it to /v1/groups first"
        return [Fault("/group", f"there is no group {group!r}{hint}")]

    def judge_executor(self, spec: Mapping[str, Any]) -> list[Fault]:
        """What is wrong with an executor object."""
        try:
            return self._registry.validate(plain(spec))
        except ConfigurationError as error:
            return [Fault("/type", error.detail)]

    def times(self, job: Job) -> Times:
        """Raises ConflictError where this node cannot tell them."""
        try:
            return self._machine.timeline.times(job, self._machine.state.policy(job.uid))
        except ScheduleError as error:
            raise ConflictError(f"the times of job {job.name!r} cannot be told: {error}") from None


def _name_in(body: Any) -> str:
    """The name that a body carries, as far as it can be one."""
    name = body.get("name") if isinstance(body, dict) else None
    return name if isinstance(name, str) else ""
