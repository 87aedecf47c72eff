"""The way of every write: look at the state, make one command, propose it, and look again where the state has moved on.

It runs on the leader.  What a command says of the calendar is worked out by whoever makes it, what depends on the state
is judged in `apply` at the entry's place in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from raftcron.core import planner
from raftcron.core.apply.context import replay
from raftcron.core.commands import ApplyJobs, Command, Decide, Decision, Done, Note, Place, Refused
from raftcron.core.model import AlertRoute, Calendar, Group, Job, Key
from raftcron.errors import (
    ConflictError,
    NotFoundError,
    RaftcronError,
    RevisionError,
    TooManyError,
    UnavailableError,
    UnknownOutcomeError,
)
from raftcron.runtime import pauses
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.machine import Machine
from raftcron.runtime.origin import asking
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.reads import Reads

PARTS_MAX = 1_000  # of what is owed, each decided before a write: some million times
PAUSES_AT_ONCE = 100  # jobs, some 10 ms of looking at their calendars
LOOKS_MAX = 10  # a job that changes more often than this while one request looks at it answers 409


class Precondition(NamedTuple):
    """What the request demands of the revision of a job, calendar or group: If-Match, If-None-Match.  None: nothing."""

    match: frozenset[int] | None = None
    must_exist: bool = False  # If-Match: *
    none_match: frozenset[int] = frozenset()
    must_create: bool = False  # If-None-Match: *

    def check(self, name: str, record: Job | Calendar | Group | AlertRoute | None, kind: str = "job") -> None:
        """Raises RevisionError where the record, as it is, does not meet it."""
        there = f"there is no such {kind}" if record is None else f"it is at revision {record.revision}"
        if self.must_exist and record is None:
            raise RevisionError(f"If-Match: * asks for a {kind} {name!r}: {there}")
        if self.match is not None and (record is None or record.revision not in self.match):
            asked = ", ".join(map(str, sorted(self.match)))
            what = f"{kind} {name!r} is not at revision {asked}"
            if not asked:
                what = f'If-Match names no revision of {kind} {name!r}, as "7" does and a weak W/"7" never does'
            raise RevisionError(f"{what}: {there}; get it again and merge")
        if record is not None and (self.must_create or record.revision in self.none_match):
            raise RevisionError(f"If-None-Match forbids to replace {kind} {name!r}: {there}")


class Writes:
    """The way of the writes of one node."""

    def __init__(self, *, node: str, machine: Machine, proposer: Proposer, time: TrustedTime, reads: Reads) -> None:
        self._node = node
        self._machine = machine
        self._proposer = proposer
        self._time = time
        self._reads = reads
        self._running: dict[str, bytes] = {}  # idempotency keys of requests that are under way here, with body hashes

    async def write(self, key: Key | None, look: Callable[[], Command]) -> Done | Refused:
        """Look, propose, and look again where the state has moved on meanwhile.

        A refusal that rests on a look alone is given only after a quorum has confirmed what was looked at: a leader
        that was deposed without knowing would refuse what the cluster has.
        """
        if key is None:
            return await self._repeat(None, look)
        self._check_running(key)
        self._running[key.scope] = key.body_hash
        try:
            return await self._repeat(key, look)
        finally:
            del self._running[key.scope]

    async def once(self, key: Key | None, act: Callable[[], Awaitable[Done]]) -> Done:
        """For what is changed by no command: `act`, unless it was done before under this key, which is kept after it.

        Raises UnknownOutcomeError where it was done and its key could not be kept: then a repeat is judged anew.
        """
        if key is None:
            return await act()
        self._check_running(key)
        self._running[key.scope] = key.body_hash
        try:
            await self._reads.confirm()
            replayed = replay(self._machine.state, key)
            if replayed is not None:
                return taken(replayed)
            done = await act()
            try:
                return taken(await self._proposer.propose(Note("", key, done.status)))
            except (UnavailableError, TooManyError) as error:
                raise UnknownOutcomeError(
                    f"it was done, but its Idempotency-Key is not kept: {error.detail}"
                ) from error
        finally:
            del self._running[key.scope]

    def is_used(self, key: Key) -> bool:
        """Whether something was done under this key, with whichever body.  Raises TooManyError."""
        try:
            return self.answered(key) is not None
        except ConflictError:
            return True

    def answered(self, key: Key | None) -> Done | None:
        """What was answered when this key was used before, None where it was not.

        Raises ConflictError where it was used, or is in use, with another body, TooManyError where no more are taken.
        """
        if key is None:
            return None
        self._check_running(key)
        replayed = replay(self._machine.state, key)
        return None if replayed is None else taken(replayed)

    def _check_running(self, key: Key) -> None:
        under_way = self._running.get(key.scope)
        if under_way is None:
            return
        if under_way != key.body_hash:
            raise ConflictError("this Idempotency-Key is in use with another body: use a new key for a new request")
        raise ConflictError(
            "a request with this Idempotency-Key is still under way: repeat it a little later", retry_after_seconds=1.0
        )

    async def _repeat(self, key: Key | None, look: Callable[[], Command]) -> Done | Refused:
        confirmed, stale = False, 0
        for _ in range(LOOKS_MAX + PARTS_MAX):
            await self._time.settled()
            replayed = replay(self._machine.state, key)
            if replayed is not None:
                return replayed
            try:
                command = look()
            except RaftcronError:
                if confirmed:
                    raise
                await self._reads.confirm()
                confirmed = True
                continue
            if over := pauses.over_before(self._machine, command, self._time.now_ms()):
                await self._end_pauses(over)
                continue
            if parts := _parts(command):
                for part in parts:
                    await self._proposer.propose(Decide(self.place(), part))
                continue
            outcome = await self._proposer.propose(command, asking.get())
            if not isinstance(outcome, Refused) or outcome.code != "stale":
                return outcome
            confirmed = True
            stale += 1
            if stale == LOOKS_MAX:
                break
        raise ConflictError(
            f"the job changed {stale} times while this request looked at it: nothing was written; repeat it",
            retry_after_seconds=1.0,
        )

    async def _end_pauses(self, over: list[Job]) -> None:
        """End what is over, a slice at a time; what has changed before its turn comes is left to the next look."""
        by_uid = self._machine.state.by_uid
        for begin in range(0, len(over), PAUSES_AT_ONCE):
            now = self._time.now_ms()
            still = [
                job for job in over[begin : begin + PAUSES_AT_ONCE] if job.uid in by_uid and job.is_pause_over(now)
            ]
            await asyncio.gather(*(self._proposer.propose(pauses.ending(self._machine, job)) for job in still))

    async def confirm(self) -> None:
        """A quorum confirms that what this node sees is what the cluster has."""
        await self._reads.confirm()

    async def note(self, text: str, key: Key | None = None) -> Done:
        """What the audit trail has to hold though no command says it."""
        return taken(await self.write(key, lambda: Note(text, key)))

    def place(self) -> Place:
        return Place(self._node, self._machine.incarnation)


def _parts(command: Command) -> list[list[Decision]]:
    """Of each job that owes more than one entry takes the part that is decided before all is looked at again."""
    if isinstance(command, ApplyJobs):
        owed = [*(one.decisions for one in command.puts), *(one.decisions for one in command.deletes)]
    else:
        owed = [getattr(command, "decisions", [])]
    return [decisions for decisions in owed if planner.is_part(decisions)]


def taken(outcome: Done | Refused) -> Done:
    """What took effect, or the error that a refusal stands for."""
    return outcome if isinstance(outcome, Done) else refuse(outcome)


def refuse(refused: Refused, exists: type[RaftcronError] = ConflictError) -> Done:
    """Raises the error that a refusal stands for; `exists` where something is there already."""
    kinds: dict[str, type[RaftcronError]] = {
        "exists": exists,
        "not_found": NotFoundError,
        "revision": RevisionError,
        "key_conflict": ConflictError,
        "conflict": ConflictError,
        "too_many": TooManyError,
    }
    raise kinds.get(refused.code, ConflictError)(refused.message)
