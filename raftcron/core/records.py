"""The records of replicated state by their keys, what jobs name by job, and the digest of it all.

A new kind of record: a struct whose first field is its key, a dictionary by that key in `Records`, a line in TABLES.

The digest (semantics I7) is the sum modulo 2^128 of a hash of each record.  Code that changes a record calls `touch`
or `forget` on it; `seal` (history.py) brings the digest up to date once an entry, so that the cost is one hash a
changed record.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from raftcron.core import placement
from raftcron.core.access import AccessToken
from raftcron.core.archive import StagedChunk
from raftcron.core.audit import AuditChain, AuditItem
from raftcron.core.model import (
    HISTORY_BYTES_KEPT,
    AlertMark,
    AlertRoute,
    Calendar,
    Edition,
    Group,
    Job,
    Key,
    Node,
    Policy,
    Run,
)
from raftcron.core.placement import Tags
from raftcron.core.rows import Rows
from raftcron.core.staging import Staging
from raftcron.core.vault import Secret, VaultKey

MODULUS = 1 << 128

encode = msgspec.msgpack.Encoder().encode

Written = Job | Run | Node | Key | Calendar | Edition | Group | StagedChunk | AlertRoute | AlertMark
Record = Written | AccessToken | AuditItem | AuditChain | Secret | VaultKey
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
    "staged": StagedChunk,
    "alert_routes": AlertRoute,
    "alert_marks": AlertMark,
}
HASHERS = {kind: blake2b(digest_size=16, person=kind.__name__.encode()) for kind in TABLES.values()}


def encoded(record: Record) -> bytes:
    """A record's bytes, as they are hashed and as a snapshot carries them: without its digest."""
    kept, record.digest = record.digest, 0
    data = encode(record)
    record.digest = kept
    return data


def hasher(kind: type[Record]) -> blake2b:
    """Hashes the bytes of one record of this kind, once copied: half as dear as a new one."""
    return HASHERS[kind]


def record_hash(record: Record) -> int:
    """The 128-bit hash of a record's encoded bytes, with its kind in front."""
    hashing = hasher(type(record)).copy()
    hashing.update(encoded(record))
    return int.from_bytes(hashing.digest(), "little")


def head_hash(epoch: int, lead_index: int, cluster_time: int, next_token: int, history_total: int, leader: str) -> int:
    """The 128-bit hash of what the state holds beside its records."""
    data = b"%d %d %d %d %d %s" % (epoch, lead_index, cluster_time, next_token, history_total, leader.encode())
    return int.from_bytes(blake2b(data, digest_size=16, person=b"head").digest(), "little")


class Records:
    """What the log has made, as records; the lowest floor of `State`."""

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
        self.staged: dict[int, StagedChunk] = {}  # of a restore that is on its way, in order
        self.alert_routes: dict[str, AlertRoute] = {}  # the default one, if there is one
        self.alert_marks: dict[str, AlertMark] = {}  # the one, once a job or the default route has named somebody
        # derived
        self.by_uid: dict[int, Job] = {}
        self.policies: dict[int, Policy] = {}
        self.calendar_jobs: dict[str, dict[int, None]] = {}  # by name of the calendar: uids of the jobs that name it
        self.children: dict[str, dict[int, None]] = {}  # by name of a parent: uids of the jobs that are after it
        self.group_jobs: dict[str, dict[int, None]] = {}  # by name of a group: uids of the jobs that name it
        self.telling: set[int] = set()  # uids of the jobs that say who is told of their runs
        self.active: dict[int, dict[str, Run]] = {}  # uid -> runs that have not ended, oldest first; no parts
        self.active_parts: dict[str, dict[str, Run]] = {}  # of a divided run: its parts that have not ended
        self.divided: dict[str, tuple[str, ...]] = {}  # runs that are kept: what their parts are called
        self.staging: Staging | None = None  # what `staged` says, as far as it has been read
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
        self.noted_new_jobs: set[int] = set()  # those of them that it has made
        self.noted_recoveries: set[str] = set()  # runs that succeeded where the one before had failed

    # ---- questions

    def policy(self, uid: int) -> Policy:
        return self.policies[uid]

    def carries(self, node: str, tags: Tags) -> bool:
        """Whether the node is known and has all these tags."""
        record = self.nodes.get(node)
        return record is not None and placement.carries(record, tags)

    def is_alive(self, node: str, incarnation: int) -> bool:
        """Whether `incarnation` is the newest that this node has announced."""
        record = self.nodes.get(node)
        return record is not None and record.incarnation == incarnation

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

    # ---- changes: for core.apply alone

    def forget(self, record: Record) -> None:
        """The record is gone."""
        self._touched.pop(id(record), None)
        self.digest = (self.digest - record.digest) % MODULUS
        record.digest = 0

    def note(self, run: Run) -> None:
        """A change of this row is of interest to those who watch."""
        self.touched_runs.add(run.id)
        self.noted_runs[run.id] = run

    def add_job(self, job: Job, policy: Policy) -> None:
        self.jobs[job.name] = job
        self.know_job(job, policy)
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
        if policy.tells:
            self.telling.add(job.uid)

    def touch_job(self, job: Job) -> None:
        self._touched[id(job)] = job
        self.touched_jobs.add(job.uid)
        self.noted_jobs[job.uid] = job

    def count_job(self, job: Job) -> None:
        """Only the job's counters or its last run have changed: nothing that the timeline follows from."""
        self._touched[id(job)] = job

    def _forget_names(self, job: Job) -> None:
        """What the job's definition names, calendars and parents, is no longer named by it."""
        policy = self.policies.get(job.uid)
        if policy is None:
            return
        self.telling.discard(job.uid)
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
