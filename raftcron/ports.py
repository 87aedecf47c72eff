"""The narrow interfaces between rooms: the replicated log, and what runs an attempt."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

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


class Role(enum.StrEnum):
    LEADER = "leader"
    FOLLOWER = "follower"
    CANDIDATE = "candidate"


class Member(NamedTuple):
    """One configured voter as this node sees it now."""

    name: str
    address: str
    connected: bool
    match_index: int | None  # what the leader knows the member holds; None where this node does not lead


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
        """Calls handler(peer, message) for messages of this kind."""

    def on_leadership(self, handler: Callable[[int | None], None]) -> None:
        """Calls handler(epoch) when this node's leadership entry has applied, handler(None) when it leads no more."""

    async def transfer(self, to: str | None = None) -> None:
        """Hand over the lead to a follower that has all entries (SIGTERM of a leader)."""


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

    `state` is one of succeeded, failed, timed_out, cancelled, or `not_started`: user code certainly did not start.
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


class Executor(Protocol):
    """Runs attempts of one executor type.  Never raises for what user code or a receiver does."""

    def run(self, attempt: Attempt, control: Control) -> Awaitable[Ending]: ...
