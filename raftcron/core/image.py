"""The state as a snapshot carries it: blocks of bytes, made lazily, and put together again beside what there is.

An image is its head (counters, how many records of each kind), the records of each table in the table's order, the
orders of runs that records do not tell, and its end (the state's digest, the hash of all blocks before).  A block is a
version byte and the msgpack of (name, rows).  Equal states give equal images, also where one of them came out of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from raftcron.core import definition
from raftcron.core.model import ENDED, Job, Policy, Run
from raftcron.core.records import MODULUS, TABLES, Record, encoded, hasher
from raftcron.core.state import ORDERS, State
from raftcron.core.timeline import Timeline
from raftcron.errors import DamagedError, FatalError, NewerVersionError

# Where it rises because the bytes of a record change, records of an older image have to be hashed anew once its own
# digest has been found right: nodes compare digests of what this release would write.
IMAGE_VERSION = 13
OLDEST_VERSION = 13  # that is read; no release has gone out that wrote an older one

BLOCK_BYTES = 256 << 10  # of records, unless one of them alone is larger
BLOCK_WORK = 500  # what a reader does for one block, counted in records of about 5 microseconds
SCHEDULE_WORK = 40  # a schedule that no job before had: it is parsed, and its next instant looked for
PLACES_WORK = 4  # so many places in an order cost a reader as much as one record
POLICIES_KNOWN = 65_536  # that a reader looks up
NUMBERS_KNOWN = 10_000  # instants and log indexes of jobs that it makes one object; those made together come together
WORDS_KNOWN = 65_536  # names of nodes and of deleted jobs, states, causes and the like that it makes one object
UNCOUNTED = ("alert_routes", "alert_marks")  # tables that are not named where they are empty

_encode = msgspec.msgpack.Encoder().encode
_HEAD, _END = "head", "end"
_PREFIX = bytes([IMAGE_VERSION])


class _Head(Struct, array_like=True):
    """The counters of the state, and how many records of each table follow."""

    index: int
    epoch: int
    leader: str
    lead_index: int
    cluster_time: int
    next_token: int
    history_total: int
    counts: dict[str, int]


class _End(Struct, array_like=True):
    """What the whole must come to."""

    digest: bytes  # of the state, 16 bytes little-endian
    blocks: bytes  # blake2b over all blocks before this one


Meant = tuple[Job, Policy]
_Place = Annotated[int, Meta(ge=0)]  # in the table of runs; a row that is gone stands with its id
Order = list[tuple[str | int, list[_Place | str]]]  # ids of runs by what they belong to
_block = msgspec.msgpack.Decoder(tuple[str, Raw]).decode
_rows = msgspec.msgpack.Decoder(list[Raw]).decode
_order = msgspec.msgpack.Decoder(Order).decode
_head = msgspec.msgpack.Decoder(_Head).decode
_end = msgspec.msgpack.Decoder(_End).decode
_tables: dict[str, Callable[[Raw], list[Any]]] = {
    name: msgspec.msgpack.Decoder(list[kind]).decode  # type: ignore[valid-type]
    for name, kind in TABLES.items()
}


# ---- out ------------------------------------------------------------------------------------------------------------


def image(state: State) -> Iterator[bytes]:
    """The blocks of a state, which must not change before the last one is taken."""
    index = state.index
    hashed = blake2b(digest_size=16)
    for name, rows in _parts(state):
        block = _PREFIX + _encode((name, rows))
        hashed.update(block)
        yield block
        assert state.index == index, "the state has changed under its image"
    yield _PREFIX + _encode((_END, _End(state.digest.to_bytes(16, "little"), hashed.digest())))


def _parts(state: State) -> Iterator[tuple[str, Any]]:
    """What each block holds, but for the last one."""
    counts = {name: count for name in TABLES if (count := len(getattr(state, name))) or name not in UNCOUNTED}
    at = (state.index, state.epoch, state.leader, state.lead_index, state.cluster_time, state.next_token)
    yield _HEAD, _Head(*at, state.history_total, counts)
    for name in TABLES:
        for rows in _cut(state, state.runs.encodings() if name == "runs" else getattr(state, name).values()):
            yield name, rows
    yield from _cut_orders(state)


def _cut(state: State, records: Iterable[Record | bytes]) -> Iterator[list[Raw]]:
    """Records as bytes, some of which are bytes already, as many together as a reader takes in one slice."""
    known: set[Any] = set()  # keys of the timeline's groups
    rows: list[Raw] = []
    size = work = 0
    for record in records:
        row, own = record if isinstance(record, bytes) else encoded(record), 1
        if isinstance(record, Job) and not record.paused:
            key = Timeline.key_of(record, state.policies[record.uid])
            if key not in known:
                known.add(key)
                own += SCHEDULE_WORK
        if rows and (size + len(row) > BLOCK_BYTES or work + own > BLOCK_WORK):
            yield rows
            rows, size, work = [], 0, 0
        rows.append(Raw(row))
        size += len(row)
        work += own
    if rows:
        yield rows


def _cut_orders(state: State) -> Iterator[tuple[str, Order]]:
    """Lists of run ids as places in the table of runs, as many together as a reader takes in one slice."""
    orders = {name: list(state.order(name)) for name in ORDERS}
    wanted = {run_id for lists in orders.values() for _, ids in lists for run_id in ids}
    places = {run_id: place for place, run_id in enumerate(state.runs) if run_id in wanted} if wanted else {}
    for name, lists in orders.items():
        order: Order = []
        work = 0
        for key, ids in lists:
            order.append((key, [places.get(run_id, run_id) for run_id in ids]))
            work += 1 + len(ids) // PLACES_WORK
            if work >= BLOCK_WORK:
                yield name, order
                order, work = [], 0
        if order:
            yield name, order


# ---- and back -------------------------------------------------------------------------------------------------------


class Reader:
    """Puts a state together from the blocks of its image."""

    def __init__(self) -> None:
        self.state = State()  # as far as it has come
        self._version = 0  # of all blocks, once the first has come
        self._head: _Head | None = None
        self._end: _End | None = None
        # A large dictionary stops everything where it grows, and those of jobs all grow at the same number of jobs.  So
        # each gets a block's jobs one block later than the one before, and so do those of runs.
        self._line: list[list[Meant]] = [[], [], []]
        self._runs: list[Run] = []
        self._ids: list[str] = []  # of runs, by place
        self._digest = 0  # sum over the records so far
        self._hashed = blake2b(digest_size=16)
        self._meanings = Meanings()
        self._words: dict[Any, Any] = {}

    def feed(self, block: bytes) -> list[Meant]:
        """Take the next block; the jobs that are whole by now.

        Raises NewerVersionError if a newer release wrote it, FatalError if it is too old, DamagedError if it cannot
        be what an image holds here.
        """
        version = block[0] if block else 0
        if version > IMAGE_VERSION:
            raise NewerVersionError(
                f"a snapshot has version {version}, this release knows up to {IMAGE_VERSION}: "
                "a newer release wrote it; upgrade this node"
            )
        if version < OLDEST_VERSION:
            raise FatalError(
                f"a snapshot has version {version}, this release reads {OLDEST_VERSION} to {IMAGE_VERSION}: what "
                "wrote it was no release; save it there with `raftcron backup`, and restore that into a new cluster"
            )
        if version != (self._version or version):
            raise DamagedError(f"a block of a snapshot has version {version}, and those before it {self._version}")
        self._version = version
        try:
            return self._take(block)
        except (msgspec.DecodeError, LookupError, ValueError, RecursionError) as error:
            raise DamagedError(f"a block of a snapshot cannot be read: {error!r}") from error

    def finish(self) -> State:
        """The state, after a look at whether it is whole.  Raises DamagedError."""
        state, head, end = self.state, self._head, self._end
        if head is None or end is None:
            raise DamagedError("a snapshot ends before its last block")
        if self._hashed.digest() != end.blocks:
            raise DamagedError("the blocks of a snapshot are not those that were written, or in another order")
        for name in TABLES:
            held, said = len(getattr(state, name)), head.counts.get(name, 0)
            if held != said:
                raise DamagedError(f"a snapshot holds {held} {name} and says that it holds {said}")
        state.digest = self._digest % MODULUS
        said = int.from_bytes(end.digest, "little")
        if state.digest != said:
            state.seal()  # counts the head in; only a state that has seen no entry yet is without
        if state.digest != said:
            raise DamagedError(f"the records of a snapshot have digest {state.digest:032x}, and it says {said:032x}")
        return state

    def _take(self, block: bytes) -> list[Meant]:
        name, rows = _block(memoryview(block)[1:])
        if (self._head is None) != (name == _HEAD) or self._end is not None:
            raise DamagedError(f"a snapshot has a block of {name[:40]!r} where none can be")
        if name != _END:
            self._hashed.update(block)
        records = self._records(name, rows) if name in TABLES else []
        if name == "jobs":
            found = self._pass_on(list(zip(records, map(self._meanings.of, records), strict=True)))
        else:
            found = [meant for _ in self._line for meant in self._pass_on([])]
        self._take_runs(self._runs)
        self._runs = records if name == "runs" else []
        if name in ORDERS:
            self._take_order(name, _order(rows))
        elif name == _HEAD:
            self._take_head(_head(rows))
        elif name == _END:
            self._end = _end(rows)
        elif name not in TABLES:
            raise DamagedError(f"a snapshot has a block of {name[:40]!r}, which this release does not know")
        return found

    def _take_head(self, head: _Head) -> None:
        state, self._head = self.state, head
        state.index, state.epoch, state.leader, state.lead_index = head.index, head.epoch, head.leader, head.lead_index
        state.cluster_time, state.next_token = head.cluster_time, head.next_token
        state.history_total = head.history_total

    def _records(self, name: str, rows: Raw) -> list[Any]:
        """Records into their table; each has its digest from its bytes as they were read (semantics I7)."""
        records = _tables[name](rows)
        new_hasher, integer = hasher(TABLES[name]).copy, int.from_bytes
        total = 0
        for record, row in zip(records, _rows(rows), strict=True):
            hashing = new_hasher()
            hashing.update(row)
            hashed = hashing.digest()
            record.digest = digest = integer(hashed, "little")
            total += digest
            if name == "runs":
                if record.state in ENDED:
                    self.state.runs.pack(record.id, bytes(row), record, hashed)
                else:
                    self.state.runs.put(record)
        self._digest += total
        if name == "runs":
            return records
        key_of = attrgetter(TABLES[name].__struct_fields__[0])
        getattr(self.state, name).update(zip(map(key_of, records), records, strict=True))
        return records

    def _pass_on(self, jobs: list[Meant]) -> list[Meant]:
        """Every block of jobs that is on its way comes one step further; those that are whole now."""
        self._line.insert(0, jobs)
        state = self.state
        state.by_uid.update([(job.uid, job) for job, _ in self._line[1]])
        for job, policy in self._line[2]:
            if policy.recurrence.exclude or policy.after or policy.group is not None or policy.tells:
                state.know_job(job, policy)
            else:
                state.policies[job.uid] = policy
        return self._line.pop()

    def _take_runs(self, runs: list[Run]) -> None:
        """Index the rows of one block, and make equal values of active ones one object, as entries have.

        A row would take half as much again otherwise.
        """
        jobs, restore, words, numbers = self.state.by_uid, self.state.restore_run, self._words, dict[Any, Any]()
        if len(words) >= WORDS_KNOWN:
            words.clear()
        word, number = words.setdefault, numbers.setdefault
        for run in runs:
            job = jobs.get(run.uid)
            if job is None:
                run.job = word(run.job, run.job)
            else:
                run.uid, run.job = job.uid, job.name
                if job.last_run == run.id:
                    job.last_run = run.id
            if run.state in ENDED:
                restore(run, job)  # it lies packed; this copy goes
                continue
            run.cause = word(run.cause, run.cause)
            run.state = word(run.state, run.state)
            run.node = word(run.node, run.node)
            if run.reason is not None:
                run.reason = word(run.reason, run.reason)
            if run.due_at == run.scheduled_time:
                run.due_at = run.scheduled_time
            run.log_index = number(run.log_index, run.log_index)
            run.queued_at = queued_at = number(run.queued_at, run.queued_at)
            if run.started_at == queued_at:
                run.started_at = queued_at
            run.finished_at = finished_at = number(run.finished_at, run.finished_at)
            for attempt in run.attempts:
                if attempt.fencing_token == run.fencing_token:
                    attempt.fencing_token = run.fencing_token
                attempt.node = word(attempt.node, attempt.node)
                attempt.state = word(attempt.state, attempt.state)
                if attempt.started_at == run.started_at:
                    attempt.started_at = run.started_at
                if attempt.finished_at == finished_at:
                    attempt.finished_at = finished_at
                attempt.started_index = number(attempt.started_index, attempt.started_index)
                attempt.finished_index = number(attempt.finished_index, attempt.finished_index)
            restore(run, job)
        self._ids += [run.id for run in runs]

    def _take_order(self, name: str, order: Order) -> None:
        ids, restore = self._ids, self.state.restore
        for key, places in order:
            restore(name, key, [ids[place] if isinstance(place, int) else place for place in places])


class Meanings:
    """Policies of definitions; much faster than `policy_of` where definitions differ in what no policy depends on."""

    def __init__(self) -> None:
        self._policies: dict[bytes, Policy] = {}
        self._numbers: dict[Any, Any] = {}

    def of(self, job: Job) -> Policy:
        """The job's policy.  Makes equal numbers one object by the way: of the job's own, and of jobs made together."""
        number = self._numbers.setdefault
        if len(self._numbers) >= NUMBERS_KNOWN:
            self._numbers.clear()
        job.uid = number(job.uid, job.uid)
        job.revision = number(job.revision, job.revision)
        job.counted_index = number(job.counted_index, job.counted_index)
        job.created_at = number(job.created_at, job.created_at)
        job.updated_at = number(job.updated_at, job.updated_at)
        job.anchor = number(job.anchor, job.anchor)
        job.counted_from = number(job.counted_from, job.counted_from)
        job.decided_through = number(job.decided_through, job.decided_through)
        job.last_decided = number(job.last_decided, job.last_decided)
        job.last_fired = number(job.last_fired, job.last_fired)
        job.last_success = number(job.last_success, job.last_success)
        job.last_failure = number(job.last_failure, job.last_failure)
        job.unkept_through = number(job.unkept_through, job.unkept_through)
        job.times_index = number(job.times_index, job.times_index)
        try:
            return self.of_definition(job.definition)
        except Exception as error:  # whatever stands there
            raise DamagedError(f"a snapshot's job {job.name!r} has no readable definition: {error!r}") from error

    def of_definition(self, stored: bytes) -> Policy:
        """What a definition means that the log has taken; `policy_of` where it has not."""
        fields = _fields(stored)
        executor = _executor(fields.pop("executor"))
        for field in definition.BESIDE_POLICY:
            fields.pop(field, None)
        key = _encode((executor, fields))  # the log has taken the definition, so what else it holds is in order
        policy = self._policies.get(key)
        if policy is None:
            if len(self._policies) >= POLICIES_KNOWN:
                self._policies.clear()
            policy = self._policies[key] = definition.policy_of(stored)
        return policy


class _Executor(Struct):
    """What a policy depends on of an executor object."""

    type: str
    is_async: Any = msgspec.field(name="async", default=None)  # what another executor means by it is its own
    handler: Any = None


_fields = msgspec.msgpack.Decoder(dict[str, Raw]).decode
_executor = msgspec.msgpack.Decoder(_Executor).decode
