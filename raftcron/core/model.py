"""The nouns of replicated state: job, run, attempt, node, and the words their fields may hold.

All instants are integer milliseconds since 1970 UTC.  Records are compact and outside the garbage collector's reach,
because a cluster may hold a million of each.  `digest` is the hash of a record as last sealed (see records.py); it is
zero whenever a record is encoded.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

# ---- words ---------------------------------------------------------------------------------------------------------

QUEUED: Final = "queued"
ASSIGNED: Final = "assigned"
RUNNING: Final = "running"
CANCELLING: Final = "cancelling"
WAITING_RETRY: Final = "waiting_retry"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
TIMED_OUT: Final = "timed_out"
CANCELLED: Final = "cancelled"
LOST: Final = "lost"
SKIPPED: Final = "skipped"

ON_A_NODE: Final = frozenset({ASSIGNED, RUNNING, CANCELLING})
STARTED: Final = frozenset({RUNNING, CANCELLING})
ACTIVE: Final = frozenset({QUEUED, ASSIGNED, RUNNING, CANCELLING, WAITING_RETRY})
ENDED: Final = frozenset({SUCCEEDED, FAILED, TIMED_OUT, CANCELLED, LOST, SKIPPED})
RUN_STATES: Final = ACTIVE | ENDED

CAUSE_SCHEDULE: Final = "schedule"
CAUSE_CATCH_UP: Final = "catch_up"
CAUSE_MANUAL: Final = "manual"
CAUSE_CHAIN: Final = "chain"
CAUSE_BACKFILL: Final = "backfill"
PACED_CAUSES: Final = frozenset({CAUSE_CATCH_UP, CAUSE_BACKFILL})  # first attempts start at the catch-up rate
COUNTED_CAUSES: Final = frozenset({CAUSE_SCHEDULE, CAUSE_CATCH_UP})  # the causes on either side of conservation

REASON_OVERLAP: Final = "overlap"
REASON_LIMIT: Final = "limit"
REASON_QUEUE_FULL: Final = "queue_full"
REASON_MISFIRE: Final = "misfire"
REASON_COALESCED: Final = "coalesced"
REASON_EXPIRED: Final = "expired"
REASON_DEADLINE: Final = "deadline"
REASON_DELETED: Final = "deleted"
REASON_CANCELLED: Final = "cancelled"
REASON_PAUSED: Final = "paused"
REASON_REQUESTED: Final = "requested"
REASON_NO_NODE: Final = "no_node"

ON_LEADER: Final = "leader"
ON_ANY: Final = "any"
ON_ALL: Final = "all"
ON_LEAST_LOADED: Final = "least_loaded"
ON_STICKY: Final = "sticky"
PRIORITY: Final = 50  # unless said

AT_MOST_ONCE: Final = "at_most_once"
AT_LEAST_ONCE: Final = "at_least_once"

HANDLER_TAG: Final = "handler:"  # in front of a name: what a node carries that has this handler; no setting gives it
PROCESS_TAG: Final = "process:"  # likewise, if this handler runs there in a process of its own
THREAD_TAG: Final = "thread:"  # likewise, if it runs there in a thread, which nothing can stop
OF_HANDLERS: Final = (HANDLER_TAG, PROCESS_TAG, THREAD_TAG)

UNLIMITED: Final = 0  # of Policy.max_running and Policy.max_runs
HISTORY_BYTES_KEPT: Final = 200 << 20  # run records beside each job's last one, unless history-total says otherwise


# ---- records -------------------------------------------------------------------------------------------------------


class Recurrence(Struct, frozen=True, gc=False, cache_hash=True):
    """What a definition says of its times; shared between all jobs that say the same."""

    schedules: tuple[str, ...]
    timezone: str
    gap: str
    fold: str
    hash_key: str | None  # None: the job's name
    start_at: int | None  # no time before it is owed
    end_at: int | None  # nor one after it
    exclude: tuple[str, ...]  # names of calendars
    jitter_ms: int
    is_anchored: bool  # some `@every` counts from the anchor that the job keeps
    is_hashed: bool  # some schedule holds an `H`
    end_intervals: tuple[int, ...]  # of `@every ... from last_end`, milliseconds


class Policy(Struct, frozen=True, gc=False, cache_hash=True):
    """What a definition says, parsed and resolved; shared between all jobs that say the same."""

    recurrence: Recurrence
    max_runs: int  # UNLIMITED or at least 1
    delivery: str
    max_attempts: int
    backoff_ms: int
    max_backoff_ms: int
    retry_on: frozenset[str]
    grace_ms: int
    window_ms: int
    misfire: str  # what becomes of times older than the grace, younger than the window
    misfire_max: int  # of those, how many are run under `misfire: all`
    overlap: str
    max_running: int  # UNLIMITED or at least 1
    queue: int  # runs that may wait for their turn, under `overlap: queue`
    placement: str
    executor_type: str
    timeout_ms: int
    kill_after_ms: int
    start_deadline_ms: int  # counted from the scheduled time
    self_stop: bool | None  # whether runs end with their node's lease; None: only if a job is chained on their failure
    history_runs: int
    after: tuple[tuple[str, str], ...] = ()  # names of the jobs whose ends start it, each with `success failure any`
    join: str = "all"  # or `any`: of those
    is_async: bool = False  # a target may take a run over, and ends it with a request of its own
    tags: tuple[tuple[str, str], ...] = ()  # a node has to carry all of them
    shards: int = 0  # parts of a run; 0: it is whole
    priority: int = PRIORITY  # 0 to 100; who has more goes first
    group: str | None = None  # whose cap the runs stand under
    has_alerts: bool = False  # it says itself who is told, or that nobody is
    tells: bool = False  # and somebody is
    process: str | None = None  # what a node carries where its runs are processes; empty: they are everywhere


class Job(Struct, array_like=True, gc=False):
    """A named, durable definition and how far it has been decided."""

    name: str
    uid: int  # never changes; (place in the entry << 48) | log index: low bits that differ make dictionaries fast
    revision: int  # log index of its last change
    created_at: int
    updated_at: int
    definition: bytes  # canonical, see definition.py
    anchor: int  # of @every
    decided_through: int  # the watermark: every N <= this is decided; never goes back
    counted_from: int
    counted_index: int = 0  # log index of the newest change that `counted_from` takes in
    paused: bool = False
    pause_note: str = ""
    pause_until: int | None = None
    last_decided: int | None = None  # the last N decided
    last_fired: int | None = None  # the last N fired
    last_run: str | None = None
    fired: int = 0  # since counted_from
    skipped: int = 0  # since counted_from
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    lost: int = 0
    fire_count: int = 0  # scheduled times that became runs, less what was given back: what max_runs bounds
    skips: tuple[int, ...] = ()  # instants that were asked to be skipped and are not decided yet, ascending
    last_end: int | None = None  # what `from last_end` counts from; None while such a job's scheduled run is active
    owner: str | None = None
    joined: tuple[tuple[str, str], ...] = ()  # of `join: all`: parents whose newest end counts, and the runs that ended
    digest: int = 0
    last_success: int | None = None  # when its newest run that succeeded ended
    last_failure: int | None = None  # when its newest run that failed, timed out or was lost ended
    failures_in_row: int = 0  # such ends since the last success
    last_node: str | None = None  # where the last attempt started, if the placement asks for it
    unkept_through: int = 0  # up to this time rows may lack, having left or never been written; 0: none does
    times_index: int = 0  # log index of the newest edit of what its times follow from; 0: none since it was created

    def is_pause_over(self, at: int) -> bool:
        """Whether it is paused still, and was to be until an instant that has come."""
        return self.paused and self.pause_until is not None and self.pause_until <= at


class Calendar(Struct, array_like=True, gc=False):
    """A named exclusion calendar: when the jobs that name it owe nothing."""

    name: str
    revision: int  # log index of its last change
    created_at: int
    updated_at: int
    definition: bytes  # canonical, see exclusion.py
    holds_from: int  # times up to here were decided under what it said before
    digest: int = 0


class Edition(Struct, array_like=True, gc=False):
    """Which edition of something leaders reckon with (`croniter`, `tzdata`), and since which entry of the log."""

    name: str
    version: str
    since: int
    digest: int = 0


class Group(Struct, array_like=True, gc=False):
    """A named cap: at most so many runs of the jobs that name it are on nodes at once, in the whole cluster."""

    name: str
    revision: int  # log index of its last change
    created_at: int
    updated_at: int
    max_running: int
    digest: int = 0


class AlertRoute(Struct, array_like=True, gc=False):
    """Who is told of the runs of jobs that do not say it themselves; there is one, `default`, or none."""

    name: str
    revision: int  # log index of its last change
    created_at: int
    updated_at: int
    definition: bytes  # msgpack of the list, as a job's `alerts`
    digest: int = 0


class AlertMark(Struct, array_like=True, gc=False):
    """How far alerts are delivered: all those of entries up to `through`; there is one while anybody is to be told.

    `behind` holds targets that have not taken theirs, by the key of each, and up to which entry they have.
    """

    name: str
    through: int
    digest: int = 0
    behind: dict[str, int] = {}


class Part(Struct, array_like=True, frozen=True, gc=False):
    """What makes a row a part of another one."""

    parent: str
    shard_index: int | None = None  # from 0
    shard_count: int | None = None
    node: str | None = None  # of a broadcast: the only node where it may run


class Split(Struct, array_like=True, gc=False):
    """What makes a row a parent: its work is done by parts, and it ends with the last of them."""

    names: tuple[str, ...]  # of the parts: the nodes of a broadcast, frozen when it was split, or numbers of shards
    tally: dict[str, int]  # how many parts have ended in which state


class AttemptRecord(Struct, array_like=True, gc=False):
    """One try of a run on one node."""

    attempt: int
    fencing_token: int
    node: str
    state: str
    started_at: int | None = None
    finished_at: int | None = None
    started_index: int | None = None
    finished_index: int | None = None


class Move(Struct, array_like=True, frozen=True, gc=False):
    """A transition of a run that neither its decision, nor its attempts, nor its end tells of."""

    state: str
    at: int
    index: int  # of the log
    node: str | None  # where it was, or is now


class Run(Struct, array_like=True, gc=False):
    """What a fired scheduled time becomes; or, with `count`, a summary of times that were skipped together."""

    id: str
    uid: int  # of the job
    job: str
    scheduled_time: int
    due_at: int
    cause: str
    state: str
    log_index: int  # of the decision
    epoch: int  # of the decision
    queued_at: int
    reason: str | None = None
    attempt: int = 1
    fencing_token: int = 0
    node: str | None = None
    incarnation: int = 0
    is_process: bool = False  # takes one of its node's process slots, while it is on one
    started_at: int | None = None
    finished_at: int | None = None
    not_before: int = 0  # a waiting retry is queued again from then on; a queued run waits out its jitter
    exit_code: int | None = None
    status_code: int | None = None
    error: str | None = None
    error_kind: str | None = None
    output_tail: bytes = b""
    missed_count: int = 0
    missed_first: int | None = None
    previous_time: int | None = None
    blocked_by: str | None = None
    late_outcome: str | None = None
    args: bytes | None = None  # msgpack of a manual run's JSON value
    first: int | None = None
    last: int | None = None
    count: int | None = None
    attempts: list[AttemptRecord] = []
    follows: str | None = None  # the run of a parent job whose end started this one
    waits_turn: bool = False  # queued behind other runs of its job
    replaced_by: str | None = None  # the run that displaced it
    retry_of: str | None = None  # the run that somebody asked to be run again
    answer_by: int | None = None  # its target has taken it over (202), and times out unless it is heard by then
    heard_at: int | None = None  # when the target that has taken it over was last heard
    digest: int = 0
    group: str | None = None  # whose cap it counts under, while it is on a node
    part: Part | None = None
    split: Split | None = None
    finished_index: int | None = None
    moves: tuple[Move, ...] = ()  # oldest first
    requeued_at: int = 0  # when its present attempt was queued first, if that is a further one; 0: it is not


class Node(Struct, array_like=True, gc=False):
    """A node as it announced itself through the log."""

    name: str
    incarnation: int
    http: str
    raft: str
    version: str
    slots: int
    process_slots: int
    announced_at: int
    announced_index: int
    croniter_version: str = ""
    tzdata_version: str = ""
    digest: int = 0
    tags: dict[str, str] = {}
    drained: bool = False  # it gets no new runs, in this life
    life: int = 0  # which process it is: two lives of one incarnation come from two copies of a disk


class Key(Struct, array_like=True, gc=False):
    """An idempotency key that was used: scope is (principal, method, path, key) as one text."""

    scope: str
    body_hash: bytes
    status: int
    index: int
    at: int
    subject: str = ""  # what the write made or changed: a job's name or a run's id
    digest: int = 0
