"""The only sentences the log may hold: a closed union.

The leader works out calendar moments and puts them into commands; `apply` judges what depends on state.
"""

from __future__ import annotations

from msgspec import Struct

from raftcron.core.model import HISTORY_BYTES_KEPT, Key


class Fire(Struct, array_like=True, frozen=True, gc=False):
    """One scheduled time becomes a run."""

    scheduled_time: int
    due_at: int
    cause: str = "schedule"
    missed_count: int = 0  # scheduled times that were coalesced into this run
    missed_first: int | None = None


class Summary(Struct, array_like=True, frozen=True, gc=False):
    """Many scheduled times become one skipped row."""

    reason: str
    first: int
    last: int
    count: int


class Decision(Struct, array_like=True, frozen=True, gc=False):
    """What becomes of every N of one job in (watermark, through], under one revision of what its times follow from.

    `revision` is the newest of the job's and those of the calendars that it names, as is `seen_revision` below.
    """

    uid: int
    revision: int
    through: int
    fires: list[Fire] = []
    summaries: list[Summary] = []


class Place(Struct, array_like=True, frozen=True, gc=False):
    """Where an attempt shall be: a node in one of its lives."""

    node: str
    incarnation: int


class Lead(Struct, array_like=True, frozen=True, tag=1):
    """A leadership entry: opens the next epoch."""

    node: str
    incarnation: int
    term: int
    version: str
    croniter_version: str
    tzdata_version: str
    history_total: int = HISTORY_BYTES_KEPT  # bytes; a setting of the node that leads bounds what all keep


class Announce(Struct, array_like=True, frozen=True, tag=2):
    """A node's process begins a life."""

    node: str
    incarnation: int
    http: str
    raft: str
    version: str
    slots: int
    process_slots: int
    croniter_version: str = ""
    tzdata_version: str = ""
    tags: dict[str, str] = {}
    life: int = 0  # drawn by the process, and nowhere on its disk; 0: not told


class PutJob(Struct, array_like=True, frozen=True, tag=3):
    """Create or replace; `decisions` are those due until now under the definition that is replaced."""

    name: str
    definition: bytes
    decided_through: int | None  # to where an edit moves the watermark; where a new job's begins, None: at its creation
    decisions: list[Decision] = []
    seen_revision: int | None = None  # the revision that the leader looked at; None: there was no such job
    if_revision: int | None = None  # If-Match
    must_create: bool = False  # If-None-Match: *, or POST
    paused: bool | None = None  # None keeps it
    unowed: Summary | None = None  # what a pause has passed by until now, if the job is paused
    owner: str | None = None
    key: Key | None = None


class DeleteJob(Struct, array_like=True, frozen=True, tag=4):
    name: str
    decisions: list[Decision]
    seen_revision: int
    if_revision: int | None = None
    cancel_running: bool = False
    key: Key | None = None


class PauseJob(Struct, array_like=True, frozen=True, tag=5):
    name: str
    decisions: list[Decision]
    seen_revision: int
    note: str = ""
    until: int | None = None
    key: Key | None = None
    is_forced: bool = False  # by the cluster itself, which cannot tell the job's times: whoever is told of it hears


class ResumeJob(Struct, array_like=True, frozen=True, tag=6):
    """`paused` summarises the times that were not owed while the job was paused."""

    name: str
    seen_revision: int
    through: int
    paused: Summary | None = None
    key: Key | None = None


class Trigger(Struct, array_like=True, frozen=True, tag=7):
    """Run now; `allow_overlap` overrides the job's policy for this run."""

    name: str
    place: Place | None
    args: bytes | None = None
    allow_overlap: bool = False
    key: Key | None = None


class Decide(Struct, array_like=True, frozen=True, tag=8):
    """A batch of decisions; runs placed on the leader start within the same entry, at `place`.

    `live` are the nodes, this one perhaps among them, that runs of other placements may be assigned to.
    """

    place: Place
    decisions: list[Decision]
    live: list[Place] = []


class Assignment(Struct, array_like=True, frozen=True, gc=False):
    run: str
    place: Place
    start: bool  # the leader's own node: assigned and started in one entry


class Assign(Struct, array_like=True, frozen=True, tag=9):
    assignments: list[Assignment]


class Token(Struct, array_like=True, frozen=True, gc=False):
    """A run under one of its fencing tokens."""

    run: str
    fencing_token: int


class Start(Struct, array_like=True, frozen=True, tag=10):
    """A worker asks to start what was assigned to it."""

    starts: list[Token]


class NotStarted(Struct, array_like=True, frozen=True, tag=11):
    """The start gate refused: these tokens will never start."""

    tokens: list[Token]


class Finished(Struct, array_like=True, frozen=True, gc=False):
    run: str
    fencing_token: int
    state: str  # succeeded failed timed_out cancelled lost
    exit_code: int | None = None
    status_code: int | None = None
    error: str | None = None
    error_kind: str | None = None
    output_tail: bytes = b""


class Finish(Struct, array_like=True, frozen=True, tag=12):
    """What became of attempts."""

    finished: list[Finished]


class Lose(Struct, array_like=True, frozen=True, tag=13):
    """The lease of `node` has ended: what ran there is lost, what had not started is queued again."""

    node: str
    incarnation: int
    tokens: list[Token]


class Expire(Struct, array_like=True, frozen=True, tag=14):
    """Runs that could not start before their start deadline; for `unmatched` ones the leader saw no node at all."""

    runs: list[str]
    unmatched: list[str] = []


class Requeue(Struct, array_like=True, frozen=True, tag=15):
    """Waiting retries whose back-off is over."""

    runs: list[str]


class Cancel(Struct, array_like=True, frozen=True, tag=16):
    run: str
    key: Key | None = None


class PutCalendar(Struct, array_like=True, frozen=True, tag=17):
    """Create or replace; `decisions` are those of all its jobs due through `holds_from`, under what it said before."""

    name: str
    definition: bytes
    holds_from: int
    decisions: list[Decision] = []
    seen_revision: int | None = None  # of the calendar; None: there was none
    key: Key | None = None
    seen_index: int | None = None  # of the log, as the decisions were made; None: not told


class DeleteCalendar(Struct, array_like=True, frozen=True, tag=18):
    """Refused while a job names it."""

    name: str
    seen_revision: int
    key: Key | None = None


class SkipNext(Struct, array_like=True, frozen=True, tag=19):
    """The undecided times of a job that will be skipped, instead of those that were asked for before."""

    name: str
    times: list[int]
    seen_revision: int
    key: Key | None = None


class ApplyJobs(Struct, array_like=True, frozen=True, tag=40):
    """A chunk of a bulk request: all of these writes or none, each under what the leader saw; their keys are unused."""

    puts: list[PutJob] = []
    deletes: list[DeleteJob] = []
    key: Key | None = None


class Parting(Struct, array_like=True, frozen=True, gc=False):
    """A queued run whose parts do its work; `nodes` are those of a broadcast."""

    run: str
    nodes: list[str] = []


class Divide(Struct, array_like=True, frozen=True, tag=80):
    """Runs become parents."""

    partings: list[Parting]


class Unassign(Struct, array_like=True, frozen=True, tag=81):
    """Assignments whose node does not ask for the start: they are void, unless it has asked meanwhile."""

    tokens: list[Token]


class PutGroup(Struct, array_like=True, frozen=True, tag=82):
    """Create or replace."""

    name: str
    max_running: int
    seen_revision: int | None = None  # of the group; None: there was none
    key: Key | None = None


class DeleteGroup(Struct, array_like=True, frozen=True, tag=83):
    """Refused while a job names it."""

    name: str
    seen_revision: int
    key: Key | None = None


class TakenOver(Struct, array_like=True, frozen=True, gc=False):
    """The answer (202) of a target that goes on with the run by itself."""

    run: str
    fencing_token: int
    timeout_ms: int  # the target is heard within it
    status_code: int | None = None
    output_tail: bytes = b""


class TakeOver(Struct, array_like=True, frozen=True, tag=50):
    """Attempts that their targets have taken over: no node runs them any more."""

    taken: list[TakenOver]


class TimeOut(Struct, array_like=True, frozen=True, tag=51):
    """Runs whose targets have taken them over and were not heard in time."""

    tokens: list[Token]


class Conclude(Struct, array_like=True, frozen=True, tag=52):
    """A target ends the run that it has taken over."""

    run: str
    fencing_token: int
    state: str  # succeeded failed cancelled
    message: str = ""
    key: Key | None = None


class Hear(Struct, array_like=True, frozen=True, tag=53):
    """A target is still at work on the run that it has taken over."""

    run: str
    fencing_token: int
    key: Key | None = None


class Rerun(Struct, array_like=True, frozen=True, tag=54):
    """A new run of what an ended run was for, asked for by hand."""

    run: str
    place: Place | None
    allow_overlap: bool = False
    key: Key | None = None


class CreateToken(Struct, array_like=True, frozen=True, tag=60):
    """Only the hash of a token is told; `replaces`: another token of this name may be there, and goes."""

    name: str
    hash: bytes
    role: str
    prefix: str
    created_by: str
    replaces: bool = False
    key: Key | None = None


class DeleteToken(Struct, array_like=True, frozen=True, tag=61):
    """Revoke a token."""

    name: str
    key: Key | None = None


class Note(Struct, array_like=True, frozen=True, tag=62):
    """Changes nothing: for what the audit trail has to hold, or under which key something was done, though no other
    command says it.
    """

    text: str
    key: Key | None = None
    status: int = 200  # what was answered under the key


class KeepKey(Struct, array_like=True, frozen=True, tag=63):
    """The cluster's key, wrapped; `seen`: the index of the wrapping that is replaced, 0: there was no key."""

    wrapped: bytes
    salt: bytes
    seen: int = 0


class PutSecret(Struct, array_like=True, frozen=True, tag=64):
    """Create or replace; sealed already.  `seen`: its revision, 0: there was none."""

    name: str
    sealed: bytes
    seen: int
    key: Key | None = None


class DeleteSecret(Struct, array_like=True, frozen=True, tag=65):
    name: str
    key: Key | None = None


class Backfill(Struct, array_like=True, frozen=True, tag=55):
    """A run for each of these past times of a job, one after the other; the watermark does not move."""

    name: str
    times: list[int]  # ascending
    seen_revision: int
    key: Key | None = None


class Drain(Struct, array_like=True, frozen=True, tag=84):
    """A node gets no new runs any more, in this life of it; or may have them again."""

    node: str
    drained: bool
    key: Key | None = None


class Stage(Struct, array_like=True, frozen=True, tag=90):
    """One more chunk of a restore; `rows` are those of core.archive, of one kind.  Number 0 drops what was staged."""

    staging: str
    number: int
    kind: str
    rows: bytes


class Restore(Struct, array_like=True, frozen=True, tag=91):
    """What is staged takes the place of all jobs, calendars and groups.

    `decisions` are those of all jobs due until `through`.  The leader saw `seen_jobs` jobs, and `seen_revision` was the
    newest of theirs.
    """

    staging: str
    chunks: int
    digest: bytes
    through: int
    seen_jobs: int
    seen_revision: int
    decisions: list[Decision] = []
    key: Key | None = None


class PutAlertRoute(Struct, array_like=True, frozen=True, tag=93):
    """Create or replace."""

    name: str
    definition: bytes
    seen_revision: int | None = None  # of the route; None: there was none
    key: Key | None = None


class DeleteAlertRoute(Struct, array_like=True, frozen=True, tag=94):
    name: str
    seen_revision: int
    key: Key | None = None


class MarkAlerts(Struct, array_like=True, frozen=True, tag=95):
    """All alerts of the entries up to `through` are delivered, or given up; to targets that are `behind`, fewer."""

    through: int
    behind: dict[str, int] = {}


Command = (
    Lead
    | Announce
    | PutJob
    | DeleteJob
    | PauseJob
    | ResumeJob
    | Trigger
    | Decide
    | Assign
    | Start
    | NotStarted
    | Finish
    | Lose
    | Expire
    | Requeue
    | Cancel
    | PutCalendar
    | DeleteCalendar
    | SkipNext
    | Divide
    | Unassign
    | PutGroup
    | DeleteGroup
    | Drain
    | ApplyJobs
    | TakeOver
    | TimeOut
    | Conclude
    | Hear
    | Rerun
    | CreateToken
    | DeleteToken
    | Note
    | KeepKey
    | PutSecret
    | DeleteSecret
    | Backfill
    | Stage
    | Restore
    | PutAlertRoute
    | DeleteAlertRoute
    | MarkAlerts
)


class Origin(Struct, array_like=True, frozen=True, gc=False):
    """Who asked for a command: the principal, the node that took the request and from where, and the request."""

    principal: str
    node: str
    remote: str
    method: str
    path: str


class Entry(Struct, array_like=True, frozen=True):
    """A command as it stands in the log: stamped by the leader that made it."""

    epoch: int  # the epoch it was made in; a leadership entry carries the one before it
    at: int  # the leader's time
    command: Command
    origin: Origin | None = None  # None: nobody asked, the leader itself did


# ---- outcomes: what apply answers to the proposer; none of this is replicated ---------------------------------------


class Refused(Struct, frozen=True):
    """A recorded refusal: nothing changed.  `code` is a stable word."""

    code: str
    message: str


class Done(Struct, frozen=True):
    """It took effect.  `subject` is the name or id of what was made or changed; of a batch, `count` is how many, and
    `statuses` what each of its writes would have been answered.
    """

    subject: str = ""
    status: int = 200
    count: int = 0
    replayed: bool = False
    index: int = 0  # where a replayed write took effect
    statuses: tuple[int, ...] = ()


Outcome = Refused | Done
