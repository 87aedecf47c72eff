"""The narrow interfaces between rooms: the replicated log, and what runs an attempt."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

Entropy = Callable[[int], bytes]  # so many bytes of chance


# ---- the replicated log ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """A command has taken effect, on this node too: `index` in the log, `outcome` as the state machine gave it."""

    index: int
    outcome: Any


class StateMachine(Protocol):
    """What the log drives.  Called on the node's loop only, in log order, each index once in a process's life."""

    @property
    def epoch(self) -> int:
        """Number of leadership entries applied so far."""

    def leadership(self, term: int) -> bytes:
        """The leadership entry that this node commits first when it has been elected."""

    def apply(self, index: int, body: bytes) -> Any:
        """Change the state; total.  An exception ends the process: it must not guess and must not go on."""

    def applied(self, index: int) -> None:
        """A batch of entries up to `index` has been applied; a good place to look at the newest state, once."""

    def snapshot(self) -> Iterator[bytes]:
        """The state as of the last applied entry, in blocks of at most about 256 KiB; only a record that is larger by
        itself, which an entry's bound limits, makes a larger one.

        Made lazily and changes nothing; nothing may be applied before the last block is taken.  So it is called in a
        forked child, or drained at once.  Equal states give equal blocks.
        """

    def restoring(self) -> Restoring:
        """Begin to take in the blocks of a snapshot, beside the state that there is."""


class Restoring(Protocol):
    """A snapshot on its way into the state machine; what is given up before `install` has changed nothing."""

    def feed(self, block: bytes) -> None:
        """The next block, in order; a slice of work, some milliseconds.  DamagedError, NewerVersionError."""

    def install(self) -> None:
        """All blocks are in: from now on the machine has this state, and its observers know.

        The log tells its own index by `applied` afterwards: it may end with entries that are not for the machine.

        DamagedError: they are not all of it, or not what was written, or older than the machine; nothing has changed.
        """


class Role(enum.StrEnum):
    LEADER = "leader"
    FOLLOWER = "follower"
    CANDIDATE = "candidate"


class Standing(enum.StrEnum):
    """What a member is in its cluster."""

    VOTER = "voter"
    LEARNER = "learner"  # gets all entries, and votes once it has caught up
    AWAITED = "awaited"  # nobody has come yet: the next empty data directory under that name


class Member(NamedTuple):
    """One member as this node sees it now."""

    name: str
    address: str  # where its peers reach it
    connected: bool
    match_index: int | None  # what the leader knows the member holds; None where this node does not lead
    standing: Standing = Standing.VOTER
    http: str = ""  # HOST:PORT as the cluster was told; empty where it was not


class LogStatus(NamedTuple):
    """What this node knows, also without a quorum."""

    cluster_id: str | None  # None until the cluster has formed
    role: Role
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    last_index: int
    leading_epoch: int | None  # the epoch this node leads in; None unless its own leadership entry has applied
    members: tuple[Member, ...]


class Log(Protocol):
    """A replicated log among named peers, and messages between those peers.  Used on the node's loop only."""

    incarnation: int  # this life of this node's process, counted in its journal; from 1

    @property
    def leading_epoch(self) -> int | None:
        """As in `status`, and cheap: asked for every command."""

    async def propose(self, body: bytes, epoch: int) -> Applied:
        """Replicate a command that was made under `epoch`; returns when this node has applied it.

        Raises UnavailableError: certainly not written.  UnknownOutcomeError: it may be written, now or later.
        """

    async def read_index(self) -> int:
        """A linearizable read: confirms the lead with a round that begins now, waits until this node has applied
        all that was committed when it began, and gives that index.  Works on any node.  UnavailableError if no
        quorum answers in time (2 s)."""

    def status(self) -> LogStatus: ...

    def send(self, peer: str, kind: str, message: Any) -> bool:
        """One message (msgpack values) to a peer over its authenticated connection; False if it cannot leave now.
        May be lost.  `kind` names the receiver's handler."""

    def on_message(self, kind: str, handler: Callable[[str, Any], None]) -> None:
        """Calls handler(peer, message) for messages of this kind.

        It raises MalformedError for one that no node of this release sends: that is counted, dropped, and said of a
        peer every few seconds at most."""

    def on_leadership(self, handler: Callable[[int | None], None]) -> None:
        """Calls handler(epoch) when this node's leadership entry has applied, handler(None) when it leads no more."""

    async def transfer(self, to: str | None = None) -> None:
        """Hand over the lead to a follower that has all entries (SIGTERM of a leader)."""

    # Changes of the members, on the leader alone; `status` tells who they are.  Each returns when this node has applied
    # it, with its index; with the applied index if there was nothing to do.  `lives`: in how many lives nodes of that
    # name were announced so far, so that the new one counts on.  All raise UnavailableError: certainly not written (no
    # lead, no quorum, another change under way); UnknownOutcomeError: it may be written, now or later.

    async def add(self, name: str, raft: tuple[str, int], http: str, lives: int) -> int:
        """Await a new member: an empty data directory under this name, which learns, and votes once it has caught up.

        ConflictError: it is a member at another address, or another one is at this address.
        """

    async def remove(self, name: str) -> int:
        """The member belongs no more.  NotFoundError; UnsafeChangeError: too few voters that answer would be left."""

    async def replace(self, name: str, raft: tuple[str, int] | None, http: str | None, lives: int) -> int:
        """Give up the member's disk, and await an empty data directory under its name, perhaps at another address.

        Raises as `remove`.
        """


# ---- running an attempt ------------------------------------------------------------------------------------------


class Attempt(NamedTuple):
    """One try of a run on this node, with all that user code may be told.  Instants are RFC 3339 UTC text."""

    job: str
    run_id: str
    scheduled_time: str
    attempt: int
    fencing_token: int
    node: str
    executor: Mapping[str, Any]  # the job's executor object, as api.md section 3 has it
    timeout_seconds: float
    kill_after_seconds: float
    args: Any = None  # JSON value of a manual run, None if there is none
    missed_count: int = 0
    previous_time: str | None = None
    shard_index: int | None = None
    shard_count: int | None = None
    traceparent: str = ""
    self_stop: bool = True  # semantics 5.7: stop when the lease ends


class Ending(NamedTuple):
    """What became of an attempt.

    `state` is one of succeeded, failed, timed_out, cancelled, or `not_started`: user code certainly did not start; or
    `taken_over`: the target goes on by itself and will say how it ends.
    `proven` says that the attempt is certainly over (an exit code, a complete answer, a refused connection).
    `error_kind` is a stable word: exit, status, connect, broken, timeout, spawn, lease, shutdown, ...
    """

    state: str
    proven: bool = True
    exit_code: int | None = None
    status_code: int | None = None
    error: str | None = None
    error_kind: str | None = None
    output_tail: bytes = b""


class Control(Protocol):
    """How a running attempt is told to stop, and what is asked right before user code starts."""

    def may_start(self) -> float | None:
        """The start gate (semantics 5.4), to be asked right before exec or before the request is sent.

        The boot-clock instant until which the start is licensed, or None: do not start, end with `not_started`.
        """

    async def stopped(self) -> str:
        """Returns, once, when the attempt has to stop early: `cancelled`, `shutdown` or `lease`."""

    async def overdue(self) -> None:
        """Returns when the grace of this node's shutdown is over: whatever `kill_after` is left, end it at once."""


class Executor(Protocol):
    """Runs attempts of one executor type.  Never raises for what user code or a receiver does."""

    def run(self, attempt: Attempt, control: Control) -> Awaitable[Ending]: ...


def is_cancelled() -> bool:
    """Whether somebody cancels this task: a CancelledError that an executor lets out otherwise is its own failure."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
