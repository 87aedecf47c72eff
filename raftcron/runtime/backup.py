"""Backups: all jobs, calendars, groups and secrets as of one index of the log; and their way back, all or nothing.

A restore runs on the leader: the whole archive is checked, staged in the log chunk by chunk, and swapped in by one
entry.  What is sealed is sealed anew where the archive comes from a cluster with another key but the same secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from raftcron.clock import Clock
from raftcron.core import archive, definition, planner
from raftcron.core.apply import restore as applied
from raftcron.core.apply.context import replay
from raftcron.core.archive import CalendarRow, GroupRow, Head, JobRow, Reader, RouteRow, Row, SecretRow
from raftcron.core.commands import Command, Decide, Decision, Done, Restore, Stage
from raftcron.core.image import Meanings
from raftcron.core.model import Job, Key
from raftcron.core.state import State
from raftcron.core.vault import VAULT, places
from raftcron.errors import ConflictError, UnavailableError
from raftcron.ports import Entropy
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.machine import Machine
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.service import Service
from raftcron.runtime.vault import Vault, place_in_job, place_of
from raftcron.runtime.writes import taken

SLICE_SECONDS: Final = 0.005  # of work before the loop gets a turn
CHUNK_ROWS: Final = 500  # of an entry that stages, some 20 ms of apply
CHUNK_BYTES: Final = 768 << 10  # an entry holds 1 MiB
OWED_MAX: Final = 2_000  # decisions in the entry that swaps in; more are decided before it

T = TypeVar("T")
Open = Callable[[bytes, str], str | None]


@dataclass(frozen=True)
class Restored:
    """What a restore did, or would do; `missing_secrets` are paths of what no key of this cluster opens."""

    jobs: int
    calendars: int
    groups: int
    deleted: int
    index: int
    missing_secrets: list[str]
    replayed: bool = False


class Backups:
    """Backups of one node, and restores, which run on the leader."""

    def __init__(
        self,
        *,
        machine: Machine,
        proposer: Proposer,
        service: Service,
        time: TrustedTime,
        clock: Clock,
        vault: Vault,
        entropy: Entropy,
    ) -> None:
        self._machine = machine
        self._proposer = proposer
        self._service = service
        self._time = time
        self._clock = clock
        self._vault = vault
        self._entropy = entropy
        self._restoring = asyncio.Lock()

    # ---- out

    async def take(self, cluster_id: str) -> tuple[int, Iterator[bytes]]:
        """The index of a backup, and its pieces, each made in some milliseconds; what happens meanwhile is not in it.

        Raises UnavailableError: no quorum confirms what this node has.
        """
        await self._service.confirm()
        rows, state = await self._jobs()
        key = state.vault.get(VAULT)  # from here to the return nothing else runs
        of_kind: dict[str, list[Row]] = {
            "calendars": [CalendarRow(one.name, one.definition) for one in state.calendars.values()],
            "groups": [GroupRow(one.name, one.max_running) for one in state.groups.values()],
            "secrets": [SecretRow(one.name, one.sealed) for one in state.secrets.values()],
            "routes": [RouteRow(one.name, one.definition) for one in state.alert_routes.values()],
            "jobs": list(rows.values()),
        }
        head = Head(
            cluster_id=cluster_id,
            index=state.index,
            created_at=self._time.shown_ms(),
            counts={kind: len(found) for kind, found in of_kind.items()},
            wrapped=b"" if key is None else key.wrapped,
            salt=b"" if key is None else key.salt,
        )
        return state.index, archive.write(head, of_kind.items())

    async def _jobs(self) -> tuple[dict[int, Row], State]:
        """All jobs as of now: read slice by slice, and those that were changed meanwhile once more, in one piece."""
        while True:
            state, since = self._machine.state, self._machine.state.index
            rows: dict[int, Row] = {}
            limited: list[Job] = []  # their count of runs changes without a revision
            async for job in self._in_slices(list(state.jobs.values())):
                rows[job.uid] = _row(job)
                policy = state.policies.get(job.uid)
                if policy is not None and policy.max_runs:
                    limited.append(job)
            if state is not self._machine.state:
                continue  # a snapshot has come: begin again
            changed = [job for job in state.jobs.values() if job.revision > since]
            for job in (*changed, *limited):
                rows[job.uid] = _row(job)
            if len(rows) > len(state.by_uid):
                rows = {uid: row for uid, row in rows.items() if uid in state.by_uid}
            return rows, state

    # ---- and back

    async def restore(self, pieces: AsyncIterator[bytes], *, dry_run: bool, key: Key | None) -> Restored:
        """Put what the archive holds in the place of what is there.

        Raises InvalidError (what is wrong with it, and where), TooLargeError, ConflictError (another restore is under
        way), UnavailableError (nothing was written), UnknownOutcomeError.
        """
        if self._restoring.locked():
            raise ConflictError("another restore is under way: repeat this one a little later", retry_after_seconds=1.0)
        async with self._restoring:
            reader = Reader()
            rows = await self._read(reader, pieces)
            head = reader.finish()
            await self._check(rows)
            if key is not None:
                key = Key(key.scope, reader.digest, 0, 0, 0)
            missing = await self._seal_anew(rows, head, dry_run=dry_run)
            if dry_run:
                return self._foreseen(rows, missing)
            return await self._write(rows, missing, key)

    async def _read(self, reader: Reader, pieces: AsyncIterator[bytes]) -> dict[str, list[Any]]:
        rows: dict[str, list[Any]] = {kind: [] for kind in archive.KINDS}
        async for piece in pieces:
            async for block in self._in_slices(reader.feed(piece)):
                rows[block.kind] += block.rows
        return rows

    async def _check(self, rows: dict[str, list[Any]]) -> None:
        """Whether the rows stand together; each by itself is right already."""
        names = {kind: {row.name for row in found} for kind, found in rows.items()}
        twice = next((kind for kind in rows if len(names[kind]) < len(rows[kind])), None)
        fault = None if twice is None else f"a name stands twice among its {twice}"
        of = Meanings().of_definition
        policies = {row.name: of(row.definition) async for row in self._in_slices(rows["jobs"])}
        fault = fault or archive.set_fault(policies, names["calendars"], names["groups"])
        if fault is not None:
            raise archive.refused(fault)

    async def _seal_anew(self, rows: dict[str, list[Any]], head: Head, *, dry_run: bool) -> list[str]:
        """What this cluster's key does not open is sealed with it, if the archive's key can be had; paths of the rest.

        They stay as they are: what needs them fails, and says why, until they are written again.
        """
        if not head.wrapped:
            return []
        if VAULT in self._machine.state.vault:
            await self._vault.ready()
        theirs = await self._vault.opener(head.wrapped, head.salt)
        if not dry_run and (theirs is not None or rows["secrets"]):
            await self._vault.ready_to_seal()
        missing: list[str] = []
        secrets: list[Any] = []
        for row in rows["secrets"]:
            sealed = self._again(row.sealed, place_of(row.name), theirs, dry_run=dry_run)
            if sealed is not None:
                secrets.append(SecretRow(row.name, sealed))
            else:
                missing.append(f"/secrets/{row.name}")
        rows["secrets"] = secrets
        rows["jobs"] = [
            self._job_again(row, theirs, missing, dry_run=dry_run) async for row in self._in_slices(rows["jobs"])
        ]
        return missing

    def _job_again(self, row: JobRow, theirs: Open | None, missing: list[str], *, dry_run: bool) -> JobRow:
        if not any(True for _ in places(definition.executor_of(row.definition))):
            return row
        written = definition.written_of(row.definition)
        for pointer, holder, key in list(places(written["executor"])):
            if isinstance(holder[key], bytes):
                sealed = self._again(holder[key], place_in_job(row.name, pointer), theirs, dry_run=dry_run)
                if sealed is None:
                    missing.append(f"/jobs/{row.name}/executor{pointer}")
                else:
                    holder[key] = sealed  # type: ignore[index]
        return msgspec.structs.replace(row, definition=definition.canonical(written))

    def _again(self, sealed: bytes, place: str, theirs: Open | None, *, dry_run: bool) -> bytes | None:
        if self._vault.open(sealed, place) is not None:
            return sealed
        text = None if theirs is None else theirs(sealed, place)
        if text is None:
            return None
        return sealed if dry_run else self._vault.seal(text, place)

    def _foreseen(self, rows: dict[str, list[Any]], missing: list[str]) -> Restored:
        state, names = self._machine.state, {row.name for row in rows["jobs"]}
        deleted = sum(name not in names for name in state.jobs)
        return Restored(len(names), len(rows["calendars"]), len(rows["groups"]), deleted, state.index, missing)

    async def _write(self, rows: dict[str, list[Any]], missing: list[str], key: Key | None) -> Restored:
        staging, staged = self._entropy(8).hex(), list[bytes]()
        if not isinstance(replay(self._machine.state, key), Done):
            for kind, found in rows.items():
                for raws in archive.cut(found, CHUNK_ROWS, CHUNK_BYTES):
                    chunk = msgspec.msgpack.encode(raws)
                    taken(await self._proposer.propose(Stage(staging, len(staged), kind, chunk)))
                    staged.append(chunk)
            if not staged:  # an archive of nothing
                chunk = msgspec.msgpack.encode([])
                taken(await self._proposer.propose(Stage(staging, 0, "jobs", chunk)))
                staged.append(chunk)
            await self._decide_much()
        digest = applied.digest_of(staged)

        def look() -> Command:
            state, now = self._machine.state, self._time.now_ms()
            owed = self._owed(now)
            if len(owed) >= OWED_MAX or planner.is_part(owed):
                raise UnavailableError("more falls due than one entry decides: nothing was changed; repeat the request")
            return Restore(staging, len(staged), digest, now, *applied.seen(state), owed, key)

        done = taken(await self._service.write(key, look))
        counts = dict(part.split("=") for part in done.subject.split())
        return Restored(
            **{name: int(counts[name]) for name in ("jobs", "calendars", "groups", "deleted")},
            index=done.index,
            missing_secrets=missing,
            replayed=done.replayed,
        )

    async def _decide_much(self) -> None:
        """What is owed by now is decided before; then the last entry has little to decide."""
        while len(owed := self._owed(self._time.now_ms())) >= OWED_MAX or planner.is_part(owed):
            await self._proposer.propose(Decide(self._service.place(), owed))

    def _owed(self, now: int) -> list[Decision]:
        """What all jobs owe until now; a part of it where it is very much."""
        state, timeline = self._machine.state, self._machine.timeline
        decisions: list[Decision] = []
        for job in timeline.owing(state.jobs.values(), now):
            decisions += self._service.settled(job, now)
            if len(decisions) >= OWED_MAX or planner.is_part(decisions):
                break
        return decisions

    async def _in_slices(self, items: Iterable[T]) -> AsyncIterator[T]:
        """The items, with turns for everything else."""
        until = self._clock.monotonic() + SLICE_SECONDS
        for item in items:
            yield item
            if self._clock.monotonic() > until:
                await asyncio.sleep(0)
                until = self._clock.monotonic() + SLICE_SECONDS


def _row(job: Job) -> JobRow:
    note, until = (job.pause_note, job.pause_until) if job.paused else ("", None)
    return JobRow(job.name, job.definition, job.paused, note, until, job.owner, job.fire_count)
