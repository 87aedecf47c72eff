"""Many jobs in one request: in chunks, each atomic, in order; what each job met is told, and a repeat is harmless.

Where a chunk ends follows from what was sent alone, so that a repeat under the same idempotency key meets the same
chunks and only does what was not done yet.  The request's own key is kept last: once it is, nothing more is written
under it, and a repeat has to end as the first one did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, NamedTuple

from raftcron.clock import Clock
from raftcron.core import chains, definition, planner
from raftcron.core.commands import ApplyJobs, Command, Decide, DeleteJob, Done, Note, PutJob
from raftcron.core.model import Key
from raftcron.errors import (
    ConflictError,
    Fault,
    InvalidError,
    MalformedError,
    RaftcronError,
    TooLargeError,
    TooManyError,
    UnavailableError,
    UnknownOutcomeError,
)
from raftcron.runtime import pauses
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.machine import Machine
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.service import Service
from raftcron.runtime.writes import taken

CHUNK_JOBS: Final = 500  # some 20 ms of apply; apply.jobs.WRITES_MAX is what an entry may hold
CHUNK_BYTES: Final = 768 << 10  # as they were sent; an entry holds 1 MiB, and a job's decisions stand in it too
JOBS_MAX: Final = 1_000_000  # of one request
FAULTY_TOLD: Final = 10_000  # jobs of one request whose faults are kept; of the others, that there are some
SLICE_SECONDS: Final = 0.005  # of checking before the loop gets a turn

NEW, REPLACED, UNCHANGED, DELETED, INVALID = "created", "replaced", "unchanged", "deleted", "invalid"


class Sent(NamedTuple):
    """One job as it was sent: its decoded body or why it cannot be decoded, and its bytes."""

    body: Any
    error: RaftcronError | None
    raw: bytes


class Result(NamedTuple):
    """What one job met: `status` is what its own PUT would have been answered."""

    name: str | None
    status: int
    result: str
    errors: tuple[Fault, ...] = ()


UNTOLD: Final = (Fault("", "is at fault: send it again alone, or once those before it are mended"),)


class Applied(NamedTuple):
    """What a request did: `log_index` is where the last of it took effect, None where nothing was written.

    `is_replayed`: all of it was done before, under the same idempotency key.
    """

    results: list[Result]
    log_index: int | None
    is_replayed: bool


class _Item:
    """A job that nothing is wrong with, as it was last checked."""

    __slots__ = ("body", "checked", "name", "place", "seen")

    def __init__(self, place: int, body: Any, name: str) -> None:
        self.place = place  # among the results
        self.body = body
        self.name = name
        self.checked: definition.Checked
        self.seen: int | None = None  # revision of the job that it would replace


class Bulk:
    """Bulk requests of one node; they run on the leader."""

    def __init__(
        self, *, machine: Machine, proposer: Proposer, service: Service, time: TrustedTime, clock: Clock
    ) -> None:
        self._machine = machine
        self._proposer = proposer
        self._time = time
        self._service = service
        self._clock = clock

    async def apply(
        self, jobs: AsyncIterator[Sent], owner: str | None, *, prune: bool, dry_run: bool, key: Key | None
    ) -> Applied:
        """Create or replace each; with `prune`, delete then what `owner` owns and was not sent, if no job failed.

        Raises UnavailableError where nothing was written; UnknownOutcomeError where the lead was lost on the way; what
        `jobs` raises, where it stands: the chunks before are written.
        """
        results: list[Result] = []
        names: set[str] = set()
        writes: list[Done] = []
        number = judged = faulty = 0
        keys = None if key is None or dry_run else _Keys(key)
        is_over = False
        try:
            if keys is not None:
                await self._service.confirm()
                is_over = self._service.is_used(keys.of_whole())
            async for chunk in _chunks(jobs):
                of_chunk = None if keys is None else keys.of_chunk(chunk)
                self._service.answered(of_chunk)  # also where no job of it is sound
                items = await self._check(chunk, owner, names, results, dry_run=dry_run)
                faulty = _shorten(results, judged, faulty)
                if dry_run:
                    self._foresee(items, owner, results)
                elif items and not is_over:
                    writes.append(await self._write(items, owner, of_chunk, results))
                number, judged = number + 1, len(results)
            if not number and not dry_run:
                self.judge(key)
            if keys is not None and (over := self._service.answered(keys.of_whole())) is not None:
                return Applied(results, over.index, True)
            if is_over:
                raise UnavailableError("its Idempotency-Key has expired since it began: nothing was written; repeat it")
            if prune and all(result.status < 300 for result in results):
                assert owner is not None, "asked for with prune"
                results += await self._prune(owner, names, dry_run, writes)
            if keys is not None and writes:
                writes.append(taken(await self._proposer.propose(Note("", keys.of_whole()))))
        except (InvalidError, MalformedError):
            if not number:
                self.judge(key)
            raise
        except (UnavailableError, UnknownOutcomeError, ConflictError, TooManyError) as error:
            if all(done.replayed for done in writes):
                raise
            raise UnknownOutcomeError(
                f"{judged} jobs were looked at before this: {error.detail}; repeat the whole request, which is harmless"
            ) from error
        index = max((done.index for done in writes), default=None)
        return Applied(results, index, bool(writes) and all(done.replayed for done in writes))

    def judge(self, key: Key | None) -> None:
        """For a request that says nothing: ConflictError where its key was used, by one that then said something."""
        if key is not None:
            keys = _Keys(key)
            self._service.answered(keys.of_whole())
            self._service.answered(keys.of_chunk([]))

    # ---- one chunk

    async def _check(
        self, chunk: list[Sent], owner: str | None, names: set[str], results: list[Result], *, dry_run: bool
    ) -> list[_Item]:
        """The items of a chunk that are sound, in turns with everything else; the others have their result."""
        items: list[_Item] = []
        beside = {sent.body["name"] for sent in chunk if _has_name(sent.body)}
        until = self._clock.monotonic() + SLICE_SECONDS
        for sent in chunk:
            if self._clock.monotonic() > until:
                await asyncio.sleep(0)
                until = self._clock.monotonic() + SLICE_SECONDS
            name = sent.body.get("name") if isinstance(sent.body, dict) else None
            item = _Item(len(results), sent.body, name if isinstance(name, str) else "")
            try:
                if sent.error is not None:
                    raise sent.error
                if item.name in names:
                    raise _invalid("/name", f"{item.name[:200]!r} stands more than once in this request")
                await self._service.ready_for(item.body)
                self._look(item, owner, beside)
            except RaftcronError as error:
                faults = error.faults or (Fault("", error.detail),)
                results.append(Result(item.name[:200] or None, error.http_status, INVALID, faults))
                continue
            names.add(item.name)
            results.append(Result(item.name, 200, UNCHANGED))
            items.append(item)
            if not dry_run:
                await self._decide_much(item)
        return self._without_cycles(items, results)

    def _without_cycles(self, items: list[_Item], results: list[Result]) -> list[_Item]:
        """What is left of a chunk whose jobs would start each other round and round."""
        state = self._machine.state
        edits: dict[str, chains.After] = {}
        for item in items:
            job = state.jobs.get(item.name)
            after = definition.policy_of(definition.canonical(item.checked.written)).after
            if after != (() if job is None else state.policy(job.uid).after):
                edits[item.name] = after
        while edits and (found := chains.impossible(state, edits)):
            for item in items:
                if item.name in found:
                    results[item.place] = Result(item.name, 422, INVALID, tuple(found[item.name]))
                    del edits[item.name]
            items = [item for item in items if item.name not in found]
        return items

    def _look(self, item: _Item, owner: str | None, beside: Container[str]) -> None:
        """Check an item against what is there now.  Raises InvalidError."""
        job = self._machine.state.jobs.get(item.name)
        item.checked = checked = self._service.checked(item.body, None, job, beside)
        if owner is not None and checked.owner not in (None, owner):
            raise _invalid("/owner", f"is {checked.owner!r}, but the request says {owner!r}: leave one of them out")
        item.seen = None if job is None else job.revision

    async def _decide_much(self, item: _Item) -> None:
        """Where a job owes more than an entry holds, or its pause is over, that is decided before its write."""
        while (job := self._machine.state.jobs.get(item.name)) is not None:
            now = self._time.now_ms()
            if job.is_pause_over(now):
                await self._proposer.propose(pauses.ending(self._machine, job))
                continue
            owed = self._service.settled(job, now)
            if not planner.is_part(owed):
                return
            await self._proposer.propose(Decide(self._service.place(), owed))

    async def _write(self, items: list[_Item], owner: str | None, key: Key | None, results: list[Result]) -> Done:

        def look() -> Command:
            beside = {item.name for item in items}
            return ApplyJobs([self._put(item, owner, beside) for item in items], key=key)

        before = [self._machine.state.jobs.get(item.name) for item in items]
        revisions = [None if job is None else job.revision for job in before]
        done = taken(await self._service.write(key, look))
        if done.replayed:
            return done  # the jobs stand as they are
        for item, status, revision in zip(items, done.statuses, revisions, strict=True):
            job = self._machine.state.jobs.get(item.name)
            is_same = job is not None and job.revision == revision
            results[item.place] = Result(
                item.name, status, NEW if status == 201 else UNCHANGED if is_same else REPLACED
            )
        return done

    def _put(self, item: _Item, owner: str | None, beside: Container[str]) -> PutJob:
        job = self._machine.state.jobs.get(item.name)
        if (None if job is None else job.revision) != item.seen:
            self._look(item, owner, beside)  # it has changed since it was checked
        return self._service.put_command(item.name, job, item.checked, owner=owner)

    def _foresee(self, items: list[_Item], owner: str | None, results: list[Result]) -> None:
        """What the writes of a chunk would be answered."""
        for item in items:
            job = self._machine.state.jobs.get(item.name)
            if job is None:
                results[item.place] = Result(item.name, 201, NEW)
            elif (
                job.definition != self._service.stored(item.name, job, item.checked)
                or item.checked.paused not in (None, job.paused)
                or (item.checked.owner or owner) not in (None, job.owner)
            ):
                results[item.place] = Result(item.name, 200, REPLACED)

    # ---- pruning

    async def _prune(self, owner: str, names: set[str], dry_run: bool, writes: list[Done]) -> list[Result]:
        """Delete what this owner owns and has not sent."""
        gone: list[str] = []
        found = iter(list(self._machine.state.jobs.values()))
        while part := list(islice(found, 10_000)):  # some 2 ms
            gone += [job.name for job in part if job.owner == owner and job.name not in names]
            await asyncio.sleep(0)
        if not dry_run:
            for at in range(0, len(gone), CHUNK_JOBS):
                done = await self._delete(gone[at : at + CHUNK_JOBS], owner)
                writes.append(done)  # it counts, whatever becomes of the next
        return [Result(name, 204, DELETED) for name in gone]

    async def _delete(self, names: list[str], owner: str) -> Done:
        for name in names:
            await self._decide_much(_Item(0, None, name))

        def look() -> Command:
            return ApplyJobs(deletes=list(self._deletes(names, owner)))

        return taken(await self._service.write(None, look))

    def _deletes(self, names: list[str], owner: str) -> Iterator[DeleteJob]:
        for name in names:
            job = self._machine.state.jobs.get(name)
            if job is not None and job.owner == owner:
                yield DeleteJob(
                    name, self._service.settled(job, self._time.now_ms()), self._machine.state.revision_of(job)
                )


def _shorten(results: list[Result], start: int, faulty: int) -> int:
    """Keep no more faults than those of FAULTY_TOLD jobs; `faulty` are before `start`, and the answer is how many are.

    A million jobs that are at fault would fill half a GiB.
    """
    for place in range(start, len(results)):
        if results[place].result == INVALID:
            faulty += 1
            if faulty > FAULTY_TOLD:
                results[place] = results[place]._replace(errors=UNTOLD)
    return faulty


async def _chunks(jobs: AsyncIterator[Sent]) -> AsyncIterator[list[Sent]]:
    chunk: list[Sent] = []
    size = count = 0
    async for sent in jobs:
        count += 1
        if count > JOBS_MAX:
            raise TooLargeError(f"a request takes at most {JOBS_MAX:,} jobs; those before are written: split it")
        if chunk and (len(chunk) >= CHUNK_JOBS or size + len(sent.raw) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(sent)
        size += len(sent.raw)
    if chunk:
        yield chunk


class _Keys:
    """The keys of one request's chunks, and of all it has brought so far: a repeat has to bring the same jobs."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._number = 0
        self._all = blake2b(key.body_hash, digest_size=16)

    def of_chunk(self, chunk: list[Sent]) -> Key:
        digest = blake2b(self._key.body_hash, digest_size=16)
        for sent in chunk:
            digest.update(len(sent.raw).to_bytes(4, "little") + sent.raw)
        self._all.update(digest.digest())
        self._number += 1
        return Key(f"{self._key.scope}\n{self._number - 1}", digest.digest(), 0, 0, 0)

    def of_whole(self) -> Key:
        return Key(self._key.scope, self._all.digest(), 0, 0, 0)


def _has_name(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("name"), str)


def _invalid(pointer: str, message: str) -> InvalidError:
    return InvalidError(message, (Fault(pointer, message),))
