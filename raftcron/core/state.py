"""All that the log has made: jobs, runs, nodes, keys and counters, with read-only questions and the digest.

Only `core.apply` changes it.  Records, counters and orders are what a snapshot carries (image.py); the rest is derived.

A new kind of record: a struct whose first field is its key, a dictionary by that key in `State`, a line in TABLES.
An index of runs whose order the records do not tell: a line in ORDERS and `restore`.  With either, and with a new
field of a record (behind all others, with a default), IMAGE_VERSION rises: an older release refuses what it would lose.

The digest (semantics I7) is the sum modulo 2^128 of a hash of each record.  Code that changes a record calls `touch`
or `forget` on it; `seal` brings the digest up to date once an entry, so that the cost is one hash a changed record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import msgspec

from raftcron.core import definition, placement
from raftcron.core.access import AccessToken
from raftcron.core.audit import AuditChain, AuditItem
from raftcron.core.model import (
    CAUSE_BACKFILL,
    CAUSE_MANUAL,
    COUNTED_CAUSES,
    ENDED,
    HISTORY_BYTES_KEPT,
    ON_A_NODE,
    QUEUED,
    RUNNING,
    SKIPPED,
    STARTED,
    UNLIMITED,
    Calendar,
    Edition,
    Group,
    Job,
    Key,
    Node,
    Policy,
    Run,
    Split,
)
from raftcron.core.placement import Lane, Tags, lane_of, part_id
from raftcron.core.rows import FAILURES, Line, Rows, end_of
from raftcron.core.vault import Secret, VaultKey

MODULUS = 1 << 128
DIGESTS_KEPT = 1024  # pairs of (index, digest) that a node can be asked for, of each kind
KEYS_KEPT = 200_000  # idempotency keys; about 200 bytes each
KEY_YOUTH_MS = 120_000  # a key younger than this never leaves for want of room
KEY_LIFE_MS = 24 * 3600 * 1000
ORPHANS_KEPT = 10_000  # runs of deleted jobs
TAILS_BYTES_KEPT = 64 << 20  # output tails of all runs together
_NO_CAP = 1 << 30
LEAVING_PER_ROW = 4  # rows that leave beyond the bound of the history, for each that is sealed: no entry takes long
ORDER_SLICE = 2_000  # ids, some 2 ms of work for whoever takes them in

_encode = msgspec.msgpack.Encoder().encode

Record = Job | Run | Node | Key | Calendar | Edition | Group | AccessToken | AuditItem | AuditChain | Secret | VaultKey
TABLES: dict[str, type[Record]] = {  # attributes of State; what a job's times follow from goes before the jobs
    "editions": Edition,
    "calendars": Calendar,
    "groups": Group,
    "jobs": Job,
    "runs": Run,
    "nodes": Node,
    "keys": Key,
    "tokens": AccessToken,
    "audit": AuditItem,
    "audit_chain": AuditChain,
    "secrets": Secret,
    "vault": VaultKey,
}
ORDERS = ("orphans", "tails", "queued", "held", "waiting", "on_node", "taken_over", "history", "ordinary", "failures")
_HASHERS = {kind: blake2b(digest_size=16, person=kind.__name__.encode()) for kind in TABLES.values()}


def newest_first(run: Run) -> tuple[int, int, str]:
    """Sort key of rows: the latest decision first, then the latest scheduled time."""
    return (-run.log_index, -run.scheduled_time, run.id)


def encoded(record: Record) -> bytes:
    """A record's bytes, as they are hashed and as a snapshot carries them: without its digest."""
    kept, record.digest = record.digest, 0
    data = _encode(record)
    record.digest = kept
    return data


def hasher(kind: type[Record]) -> blake2b:
    """Hashes the bytes of one record of this kind, once copied: half as dear as a new one."""
    return _HASHERS[kind]


def record_hash(record: Record) -> int:
    """The 128-bit hash of a record's encoded bytes, with its kind in front."""
    hashing = hasher(type(record)).copy()
    hashing.update(encoded(record))
    return int.from_bytes(hashing.digest(), "little")


def _head_hash(epoch: int, lead_index: int, cluster_time: int, next_token: int, history_total: int, leader: str) -> int:
    """The 128-bit hash of what the state holds beside its records."""
    data = b"%d %d %d %d %d %s" % (epoch, lead_index, cluster_time, next_token, history_total, leader.encode())
    return int.from_bytes(blake2b(data, digest_size=16, person=b"head").digest(), "little")


class State:
    """The state after `index` entries of the log."""

    def __init__(self) -> None:
        # what the log says
        self.index = 0
        self.epoch = 0
        self.leader = ""  # of this epoch
        self.lead_index = 0
        self.cluster_time = 0
        self.next_token = 1
        self.history_total = HISTORY_BYTES_KEPT  # what the leader of this epoch was told
        self.editions: dict[str, Edition] = {}
        self.calendars: dict[str, Calendar] = {}
        self.groups: dict[str, Group] = {}
        self.jobs: dict[str, Job] = {}
        self.runs = Rows()
        self.nodes: dict[str, Node] = {}
        self.keys: dict[str, Key] = {}  # oldest first
        self.tokens: dict[str, AccessToken] = {}
        self.audit: dict[int, AuditItem] = {}  # by log index, oldest first
        self.audit_chain: dict[str, AuditChain] = {}  # the one of `audit`, once there is an item
        self.secrets: dict[str, Secret] = {}
        self.vault: dict[str, VaultKey] = {}  # the one key, once something was to be sealed
        self.orphans: deque[str] = deque()  # runs of deleted jobs, oldest first
        self.tails: deque[str] = deque()  # runs that have an output tail, oldest first
        self.tails_bytes = 0
        self.ordinary = Line()  # ended rows but each job's last run, in the order in which they leave for want of room
        self.failures = Line()  # and these after all of those
        self.history_bytes = 0  # of such rows
        # derived
        self.by_uid: dict[int, Job] = {}
        self.policies: dict[int, Policy] = {}
        self.calendar_jobs: dict[str, dict[int, None]] = {}  # by name of the calendar: uids of the jobs that name it
        self.children: dict[str, dict[int, None]] = {}  # by name of a parent: uids of the jobs that are after it
        self.group_jobs: dict[str, dict[int, None]] = {}  # by name of a group: uids of the jobs that name it
        self.active: dict[int, dict[str, Run]] = {}  # uid -> runs that have not ended, oldest first; no parts
        self.active_parts: dict[str, dict[str, Run]] = {}  # of a divided run: its parts that have not ended
        self.divided: dict[str, tuple[str, ...]] = {}  # runs that are kept: what their parts are called
        # uid -> rows that have ended and are kept, in order of their end; none where that is the last run at most, as
        # for most of a million jobs
        self.history: dict[int, list[str]] = {}
        self.on_node: dict[str, dict[str, Run]] = {}  # assigned, running or cancelling
        self.processes: dict[str, int] = {}  # of those, how many are processes
        self.taken_over: dict[str, Run] = {}  # started, and with their targets instead of a node (apply/remote.py)
        self.group_running: dict[str, int] = {}  # of both, how many count under which group
        self.turns: dict[int, dict[str, Run]] = {}  # uid -> runs that wait for others of their job, oldest first
        self.backfills: dict[int, dict[str, Run]] = {}  # uid -> those of a backfill, which come after all other turns
        self.held: dict[str, Run] = {}  # queued runs that may not start: it is not their turn, or their job is paused
        self.queued: dict[str, Run] = {}  # those that may
        self.lanes: dict[Lane, dict[str, Run]] = {}  # the same by what they wait for; none is empty
        self._lane_of: dict[str, Lane] = {}
        self.ended_parts: list[Run] = []  # within the entry; apply/parts.py tells their parents
        self.waiting: dict[str, Run] = {}  # for a retry's back-off, or for their jitter
        # the digest
        self.digest = 0
        self._head: tuple[int, int, int, int, int, str] | None = None
        self._head_hash = 0
        self._touched: dict[int, Record] = {}
        # what entries have changed since somebody looked; cleared by the runtime
        self.touched_jobs: set[int] = set()
        self.touched_calendars: set[str] = set()
        self.touched_runs: set[str] = set()
        self.noted_runs: dict[str, Run] = {}  # by the newest entry, in order of the first touch, as are these
        self.noted_jobs: dict[int, Job] = {}
        # runs that have ended within the entry and that others may follow, in that order (apply/chains.py)
        self.ended: list[Run] = []
        self.backfills_due: set[int] = set()  # jobs whose backfills may have their turn when the entry is done

    # ---- questions

    def policy(self, uid: int) -> Policy:
        return self.policies[uid]

    def has_slot(self, node: str, *, process: bool) -> bool:
        """Whether one more run fits on this node; on one that is drained none does."""
        record = self.nodes.get(node)
        if record is None or record.drained or len(self.on_node.get(node, ())) >= record.slots:
            return False
        return not process or self.processes.get(node, 0) < record.process_slots

    def carries(self, node: str, tags: Tags) -> bool:
        """Whether the node is known and has all these tags."""
        record = self.nodes.get(node)
        return record is not None and placement.carries(record, tags)

    def load(self, node: str) -> float:
        """The share of a node's slots that is taken, 0 to 1."""
        record = self.nodes.get(node)
        return 1.0 if record is None else len(self.on_node.get(node, ())) / max(1, record.slots)

    def group_room(self, name: str | None) -> int:
        """How many more runs may be on nodes under a group's cap; a group that is gone caps nothing."""
        group = None if name is None else self.groups.get(name)
        return _NO_CAP if group is None else group.max_running - self.group_running.get(group.name, 0)

    def is_alive(self, node: str, incarnation: int) -> bool:
        """Whether `incarnation` is the newest that this node has announced."""
        record = self.nodes.get(node)
        return record is not None and record.incarnation == incarnation

    @property
    def keys_are_full(self) -> bool:
        """Whether a further key could only be kept at the cost of one that is too young to leave."""
        if len(self.keys) < KEYS_KEPT:
            return False
        return next(iter(self.keys.values())).at + KEY_YOUTH_MS > self.cluster_time

    def is_held(self, run: Run) -> bool:
        """Whether a pause holds this queued run; what was asked for by hand goes on (semantics 6)."""
        job = self.by_uid.get(run.uid)
        return job is not None and job.paused and run.cause != CAUSE_MANUAL

    def stops_with_lease(self, uid: int) -> bool:
        """Whether runs of this job end with their node's lease, since their loss would let another start (5.7)."""
        job = self.by_uid.get(uid)
        if job is None or (said := self.policies[uid].self_stop) is True:
            return True
        return said is None and any(
            on != "success" and parent == job.name
            for child in self.children.get(job.name, ())
            for parent, on in self.policies[child].after
        )

    def has_room(self, uid: int) -> bool:
        """Whether one more run of this job may go on beside those that do (semantics 7)."""
        most = self.policies[uid].max_running
        if most == UNLIMITED:
            return True
        waiting = len(self.turns.get(uid, ())) + len(self.backfills.get(uid, ()))
        return len(self.active.get(uid, ())) - waiting < most

    def may_start(self, run: Run) -> bool:
        """Whether a queued run may be given a place: it is its turn among those of its job, and no pause holds it."""
        return not run.waits_turn and not self.is_held(run)

    def revision_of(self, job: Job) -> int:
        """The newest revision of what the job's times follow from: its own, or that of a calendar it names."""
        revision = job.revision
        for name in self.policies[job.uid].recurrence.exclude:
            revision = max(revision, self.calendars[name].revision)
        return revision

    @property
    def editions_since(self) -> int:
        """The log index from which on leaders have reckoned with the present croniter and tz data."""
        return max((edition.since for edition in self.editions.values()), default=0)

    def runs_of(self, uid: int) -> list[Run]:
        """The rows kept for a job, newest first."""
        rows = [self.runs[run_id] for run_id in self.ended_of(uid)]
        rows.extend(self.active.get(uid, {}).values())
        rows.extend([self.runs[run_id] for run_id in self.kept_parts([row.id for row in rows])])
        rows.sort(key=newest_first)
        return rows

    def ended_of(self, uid: int) -> list[str]:
        """The rows of a job that have ended and are kept, in order of their end."""
        rows = self.history.get(uid)
        if rows is not None:
            return rows
        job = self.by_uid.get(uid)
        last = None if job is None else job.last_run
        return [] if last is None or last not in self.runs or last in self.active.get(uid, ()) else [last]

    def kept_parts(self, run_ids: Iterable[str]) -> Iterator[str]:
        """The ids of those parts of divided runs that are kept."""
        for run_id in run_ids:
            for name in self.divided.get(run_id, ()):
                if (part := part_id(run_id, name)) in self.runs:
                    yield part

    # ---- changes: for core.apply alone

    def touch(self, record: Record) -> None:
        """The record has changed or is new."""
        self._touched[id(record)] = record
        if isinstance(record, Run) and (packed := self.runs.packed(record.id)) is not None:
            self.runs.put(record)  # counted again when it is sealed
            if not self._is_last(record):
                self.history_bytes -= end_of(packed)[0]

    def forget(self, record: Record) -> None:
        """The record is gone."""
        self._touched.pop(id(record), None)
        self.digest = (self.digest - record.digest) % MODULUS
        record.digest = 0

    def note(self, run: Run) -> None:
        """A change of this row is of interest to those who watch."""
        self.touched_runs.add(run.id)
        self.noted_runs[run.id] = run

    def add_job(self, job: Job) -> None:
        self.jobs[job.name] = job
        self.know_job(job, definition.policy_of(job.definition))
        self.touch_job(job)

    def know_job(self, job: Job, policy: Policy) -> None:
        """The job is among the jobs, and this is what its definition means now."""
        self._forget_names(job)
        self.by_uid[job.uid] = job
        self.policies[job.uid] = policy
        for name in policy.recurrence.exclude:
            self.calendar_jobs.setdefault(name, {})[job.uid] = None
        for name, _ in policy.after:
            self.children.setdefault(name, {})[job.uid] = None
        if policy.group is not None:
            self.group_jobs.setdefault(policy.group, {})[job.uid] = None

    def touch_job(self, job: Job) -> None:
        self._touched[id(job)] = job
        self.touched_jobs.add(job.uid)
        self.noted_jobs[job.uid] = job

    def count_job(self, job: Job) -> None:
        """Only the job's counters or its last run have changed: nothing that the timeline follows from."""
        self._touched[id(job)] = job

    def remove_job(self, job: Job) -> None:
        """The job goes; its rows stay readable by id among the orphans."""
        rows = self.ended_of(job.uid)
        self._forget_names(job)
        del self.jobs[job.name]
        del self.by_uid[job.uid]
        del self.policies[job.uid]
        self.touched_jobs.add(job.uid)
        self.noted_jobs[job.uid] = job
        self.forget(job)
        if job.last_run is not None:
            self._may_leave(job.last_run)
        self.history.pop(job.uid, None)
        for run_id in rows:
            self._keep_orphan(run_id)

    def set_last_run(self, job: Job, run: Run) -> None:
        """A run of the job is its last one now: kept for ever, while the one before is kept as others are."""
        before = job.last_run
        if before is not None:
            if job.uid not in self.history and (rows := self.ended_of(job.uid)):
                self.history[job.uid] = rows
            self._may_leave(before)
        job.last_run = run.id
        self._touched[id(job)] = job

    def add_run(self, run: Run) -> None:
        """A new row, active or ended already."""
        self.runs.put(run)
        self._touched[id(run)] = run
        self.note(run)
        if run.state in ENDED:
            self._end(run)  # which may drop it at once
            return
        self._note_active(run)
        self._index(run)

    def _note_active(self, run: Run) -> None:
        if run.part is not None:
            self.active_parts.setdefault(run.part.parent, {})[run.id] = run
            return
        active = self.active.get(run.uid)
        if active is None:
            self.active[run.uid] = {run.id: run}
        else:
            active[run.id] = run
        if run.waits_turn:
            self._line_of(run).setdefault(run.uid, {})[run.id] = run

    def move(self, run: Run, state: str, node: str | None = None, group: str | None = None) -> None:
        """Change an active run's state and keep the indexes true.

        For states on a node also its node, and the group under whose cap it counts from then on.
        """
        self._unindex(run)
        if run.answer_by is not None and state not in STARTED:
            run.answer_by = run.heard_at = None
        run.state = state
        if state not in ON_A_NODE:
            run.group = None
        self._touched[id(run)] = run
        self.note(run)
        if state in ENDED:
            if run.part is None:
                active = self.active[run.uid]
                del active[run.id]
                if not active:
                    del self.active[run.uid]
            else:
                parts = self.active_parts[run.part.parent]
                del parts[run.id]
                if not parts:
                    del self.active_parts[run.part.parent]
            if run.waits_turn:
                self._leave_turns(run)
            self._end(run)
        else:
            if state not in ON_A_NODE:
                run.node = None
            elif node is not None:
                run.node, run.group = node, group
            self._index(run)

    def hand_over(self, run: Run, answer_by: int) -> None:
        """A started run is its target's from now on: no node's slot is taken, and no node's loss ends it."""
        self._unindex(run)
        run.answer_by = answer_by
        self._index(run)
        self._touched[id(run)] = run
        self.note(run)

    def divide(self, run: Run, split: Split) -> None:
        """A queued run becomes a parent: from now on its parts, which are added next, do its work."""
        self._unindex(run)
        run.state, run.split = RUNNING, split
        self.divided[run.id] = split.names
        self._touched[id(run)] = run
        self.note(run)

    def queue_anew(self, job: Job) -> None:
        """The job's definition has changed: its queued runs may wait for something else."""
        for run in self.active_with_parts(job.uid):
            lane = self._lane_of.get(run.id)
            if lane is not None and lane != self._lane(run):
                self._unindex(run)
                self._index(run)

    def lane_of(self, run: Run) -> Lane | None:
        """What a queued run waits for; None if it is not in the queue."""
        return self._lane_of.get(run.id)

    def active_with_parts(self, uid: int) -> list[Run]:
        """A job's runs that have not ended, each with its parts behind it."""
        found: list[Run] = []
        for run in self.active.get(uid, {}).values():
            found.append(run)
            if run.split is not None:
                found.extend(self.active_parts.get(run.id, {}).values())
        return found

    def release(self, run: Run) -> None:
        """A run that waits for its back-off or its jitter is queued, and may start."""
        del self.waiting[run.id]
        run.state, run.not_before = QUEUED, 0
        self._index(run)
        self._touched[id(run)] = run
        self.note(run)

    def give_turn(self, run: Run) -> None:
        """A queued run no longer waits for others of its job."""
        self._unindex(run)
        self._leave_turns(run)
        run.blocked_by = None
        self._index(run)
        self._touched[id(run)] = run
        self.note(run)

    def hold(self, job: Job) -> None:
        """The job's pause has begun or ended: what is queued may start no longer, or again."""
        for run in self.active_with_parts(job.uid):
            if run.state == QUEUED:
                self._unindex(run)
                self._index(run)
                self.note(run)

    def keep_tail(self, run: Run, tail: bytes) -> None:
        """Keep the end of a run's output; the oldest tails of the cluster leave first."""
        if not tail:
            return
        if run.output_tail:
            self.tails_bytes -= len(run.output_tail)
        else:
            self.tails.append(run.id)
        run.output_tail = tail
        self.tails_bytes += len(tail)
        if len(self.tails) > 2 * len(self.runs) + 1024:  # rows that left took their tails with them
            self.tails = deque(run_id for run_id in self.tails if run_id in self.runs)
        while self.tails_bytes > TAILS_BYTES_KEPT:
            old = self.runs.get(self.tails.popleft())
            if old is not None and old.output_tail:
                self.tails_bytes -= len(old.output_tail)
                old.output_tail = b""
                self.touch(old)

    def keep_key(self, key: Key) -> None:
        """Remember an idempotency key; keys older than a day of cluster time leave, and the oldest beyond the bound."""
        known = self.keys.pop(key.scope, None)
        if known is not None:
            self.forget(known)
        self.keys[key.scope] = key
        self.touch(key)
        while self.keys:
            oldest = next(iter(self.keys.values()))
            if len(self.keys) <= KEYS_KEPT and oldest.at + KEY_LIFE_MS > self.cluster_time:
                break
            del self.keys[oldest.scope]
            self.forget(oldest)

    def seal(self) -> None:
        """The entry is done: bring the digest up to date, pack what has ended, keep the history within its bound."""
        digest = self.digest
        packed = 0
        for record in self._touched.values():  # record_hash, written out: a third of what a run costs is here
            digest -= record.digest
            record.digest = 0
            hasher = _HASHERS[type(record)].copy()
            data = _encode(record)
            hasher.update(data)
            hashed = hasher.digest()
            record.digest = fresh = int.from_bytes(hashed, "little")
            digest += fresh
            if isinstance(record, Run) and record.state in ENDED:
                self.runs.pack(record.id, data, record, hashed)
                packed += 1
                if not self._is_last(record):
                    self.history_bytes += len(data) - len(record.output_tail)
        self._touched.clear()
        self.digest = digest
        if self.history_bytes > self.history_total:
            self._make_room(packed * LEAVING_PER_ROW)
        digest = self.digest
        head = (self.epoch, self.lead_index, self.cluster_time, self.next_token, self.history_total, self.leader)
        if head != self._head:
            digest -= self._head_hash
            self._head, self._head_hash = head, _head_hash(*head)
            digest += self._head_hash
        self.digest = digest % MODULUS

    def containers(self) -> list[Any]:
        """All that it holds, for whoever lets go of a million records slice by slice."""
        nested = (self.runs, self.ordinary, self.failures)
        return [*vars(self).values(), *(part for one in nested for part in one.containers())]

    # ---- into a snapshot and from it: for image.py alone

    def order(self, name: str) -> Iterable[tuple[str | int, list[str]]]:
        """One of ORDERS as lists of run ids, by node or uid; of the history only what the order of rows does not tell.

        Those that belong to nothing come ORDER_SLICE at a time.
        """
        if name == "on_node":
            return ((node, list(runs)) for node, runs in self.on_node.items())
        if name == "history":
            rows_of = ((job.uid, self.history.get(job.uid, ())) for job in self.jobs.values())
            return ((uid, list(rows)) for uid, rows in rows_of if not self._is_in_order(rows))
        held = getattr(self, name)
        ids = held.ids(self.runs) if isinstance(held, Line) else list(held)
        return (("", ids[at : at + ORDER_SLICE]) for at in range(0, len(ids), ORDER_SLICE))

    def restore_run(self, run: Run, job: Job | None) -> None:
        """The next row, into what the order of rows tells."""
        if run.split is not None:
            self.divided[run.id] = run.split.names
        if run.state not in ENDED:
            self._note_active(run)
        elif job is not None and run.part is None:
            rows = self.history.get(run.uid)
            if rows is not None:
                rows.append(run.id)
            elif job.last_run != run.id:
                last = None if job.last_run is None else self.runs.get(job.last_run)
                is_behind = last is not None and last.state in ENDED and last.log_index < run.log_index
                self.history[run.uid] = [job.last_run, run.id] if is_behind and job.last_run else [run.id]
        if not self._is_last(run) and (packed := self.runs.packed(run.id)) is not None:
            self.history_bytes += end_of(packed)[0]
        self.tails_bytes += len(run.output_tail)

    def restore(self, name: str, key: str | int, ids: list[str]) -> None:
        """The next list of one of ORDERS; all rows are there.  KeyError: one that should be is not."""
        if name == "history":
            self.history[int(key)] = ids
        elif name in ("orphans", "tails", "ordinary", "failures"):
            getattr(self, name).extend(ids)
        else:
            if name == "on_node":
                self.on_node[str(key)] = {}  # also where nothing runs now
            for run_id in ids:
                self._index(self.runs[run_id])

    def _is_in_order(self, rows: Sequence[str]) -> bool:
        """Whether rows of one job ended one after the other as they were decided."""
        if len(rows) < 2:
            return True
        return all(first < second for first, second in pairwise(self.runs[run_id].log_index for run_id in rows))

    # ---- indexes

    def _forget_names(self, job: Job) -> None:
        """What the job's definition names, calendars and parents, is no longer named by it."""
        policy = self.policies.get(job.uid)
        if policy is None:
            return
        for index, names in (
            (self.calendar_jobs, policy.recurrence.exclude),
            (self.children, [name for name, _ in policy.after]),
            (self.group_jobs, [] if policy.group is None else [policy.group]),
        ):
            for name in names:
                users = index[name]
                users.pop(job.uid, None)
                if not users:
                    del index[name]

    def _index(self, run: Run) -> None:
        state = run.state
        if run.split is not None:
            return  # its parts wait and run
        if run.group is not None:
            self.group_running[run.group] = self.group_running.get(run.group, 0) + 1
        if run.answer_by is not None:
            self.taken_over[run.id] = run
        elif state in ON_A_NODE:
            node = run.node or ""
            self.on_node.setdefault(node, {})[run.id] = run
            if run.is_process:
                self.processes[node] = self.processes.get(node, 0) + 1
        elif state == QUEUED and not run.not_before:
            if not self.may_start(run):
                self.held[run.id] = run
                return
            lane = self._lane_of[run.id] = self._lane(run)
            self.queued[run.id] = run
            runs = self.lanes.get(lane)
            if runs is None:
                self.lanes[lane] = {run.id: run}
            else:
                runs[run.id] = run
        else:
            self.waiting[run.id] = run

    def _unindex(self, run: Run) -> None:
        state = run.state
        if run.split is not None:
            return
        if run.group is not None:
            self._leave_group(run.group)
        if run.answer_by is not None:
            del self.taken_over[run.id]
        elif state in ON_A_NODE:
            node = run.node or ""
            del self.on_node[node][run.id]
            if run.is_process:
                self.processes[node] -= 1
        elif state == QUEUED and not run.not_before:
            if self.held.pop(run.id, None) is not None:
                return
            del self.queued[run.id]
            lane = self._lane_of.pop(run.id)
            runs = self.lanes[lane]
            del runs[run.id]
            if not runs:
                del self.lanes[lane]
        else:
            del self.waiting[run.id]

    def _leave_turns(self, run: Run) -> None:
        run.waits_turn = False
        line = self._line_of(run)
        turns = line[run.uid]
        del turns[run.id]
        if not turns:
            del line[run.uid]

    def _line_of(self, run: Run) -> dict[int, dict[str, Run]]:
        return self.backfills if run.cause == CAUSE_BACKFILL else self.turns

    def _lane(self, run: Run) -> Lane:
        return lane_of(self.policies[run.uid], run)

    def _leave_group(self, name: str) -> None:
        count = self.group_running[name] - 1
        if count:
            self.group_running[name] = count
        else:
            del self.group_running[name]

    def _end(self, run: Run) -> None:
        if run.part is not None:
            self._stand_in_line(run.id, is_failure=run.state in FAILURES)
            self.ended_parts.append(run)
            return
        job = self.by_uid.get(run.uid)
        if job is None or job.last_run != run.id:
            self._stand_in_line(run.id, is_failure=run.state in FAILURES)
        if job is None:
            self._keep_orphan(run.id)
            return
        if job.name in self.children and run.state != SKIPPED:
            self.ended.append(run)
        policy = self.policies[run.uid]
        if policy.recurrence.end_intervals and run.cause in COUNTED_CAUSES:
            self._note_end(job, run)
        rows = self.history.get(run.uid)
        if rows is None:
            if job.last_run == run.id:
                return
            rows = self.history[run.uid] = self.ended_of(run.uid)  # a deque would take 600 bytes more a job
        rows.append(run.id)
        kept = max(1, policy.history_runs)
        while len(rows) > kept:
            oldest = rows.pop(0)
            if oldest == job.last_run and len(rows) >= kept:
                rows.append(oldest)  # the last run is kept for ever; one row at most is moved
                oldest = rows.pop(0)
            self._drop(oldest)

    def _note_end(self, job: Job, run: Run) -> None:
        """For schedules `from last_end`: what came of a scheduled time is over, and no other run of it is active."""
        if not any(other.cause in COUNTED_CAUSES for other in self.active.get(job.uid, {}).values()):
            job.last_end = max(job.last_end or 0, run.finished_at or 0)
            self.touch_job(job)

    def _is_last(self, run: Run) -> bool:
        job = self.by_uid.get(run.uid)
        return job is not None and job.last_run == run.id

    def _may_leave(self, run_id: str) -> None:
        """What was the last run of its job is no more; if it is still active it stands in line at its end."""
        packed = self.runs.packed(run_id)
        if packed is not None:
            size, _, is_failure, _ = end_of(packed)
            self.history_bytes += size
            self._stand_in_line(run_id, is_failure=is_failure)
        elif (run := self.runs.get(run_id)) is not None and run.state in ENDED:  # by this very entry
            self._stand_in_line(run_id, is_failure=run.state in FAILURES)

    def _stand_in_line(self, run_id: str, *, is_failure: bool) -> None:
        line = self.failures if is_failure else self.ordinary
        line.append(run_id, self.runs)

    def _make_room(self, most: int) -> None:
        """Rows leave until all fit, or `most` have left: the oldest first, failures after all others."""
        while self.history_bytes > self.history_total and most > 0:
            most -= 1
            run_id = self.ordinary.pop(self.runs) or self.failures.pop(self.runs)
            if run_id is None:
                return
            run = self.runs[run_id]
            rows = self.history.get(run.uid)
            if rows is not None and run.part is None:
                rows.remove(run_id)
            self._drop(run_id)

    def _keep_orphan(self, run_id: str) -> None:
        self.orphans.append(run_id)
        if len(self.orphans) > ORPHANS_KEPT and (oldest := self.orphans.popleft()) in self.runs:
            self._drop(oldest)

    def _drop(self, run_id: str) -> None:
        """A row that is no job's last run leaves, with its parts."""
        for name in self.divided.pop(run_id, ()):
            if (part := part_id(run_id, name)) in self.runs:
                self._drop(part)
        row = self.runs.pop(run_id)
        self.touched_runs.add(run_id)
        if isinstance(row, bytes):
            size, tail_bytes, _, digest = end_of(row)
            self.tails_bytes -= tail_bytes
            self.history_bytes -= size
            self.digest = (self.digest - int.from_bytes(digest, "little")) % MODULUS
        else:
            self.tails_bytes -= len(row.output_tail)
            row.output_tail = b""
            self.forget(row)
