"""The evidence of a chaos run as plain data, with its way to a file and back.  Not here: any judgement.

All instants are integer milliseconds since 1970 UTC by the machine's clock, the true one: all processes share it, but
for nodes whose clocks are set wrong for a while.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

ACTIVE_STATES = frozenset({"queued", "assigned", "running", "cancelling", "waiting_retry"})


def milliseconds(instant: str) -> int:
    """RFC 3339 text with an offset or Z -> milliseconds; ValueError for anything else."""
    parsed = datetime.fromisoformat(instant)
    if parsed.tzinfo is None:
        raise ValueError(f"{instant!r} names no offset")
    return round(parsed.timestamp() * 1000)


def optional_milliseconds(instant: str | None) -> int | None:
    return None if instant is None else milliseconds(instant)


@dataclass(frozen=True)
class Phase:
    """What holds for a job from one change of it to the next: the times behind `since`, its watermark at the change."""

    since: int
    index: int  # of the change in the log
    schedule: str
    is_paused: bool
    asked_at: int  # when the change was first sent,
    answered_at: int  # and acknowledged


@dataclass(frozen=True)
class Job:
    """A job that fires.  Due are the times of `schedule` after `created_at` up to `closed_at`, when it got another.

    One that is edited and paused has phases, the first from its creation, and the last until it was closed.
    """

    name: str
    schedule: str
    delivery: str  # at_most_once | at_least_once
    overlap: str  # allow: it is counted; skip: judged by its recorded reasons
    created_at: int
    closed_at: int
    history_runs: int
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class Arrival:
    """One webhook as the receiver saw it; what a header did not say is None."""

    job: str | None
    run_id: str | None
    scheduled_time: int | None
    attempt: int | None
    token: int | None
    node: str | None
    arrived_at: int
    ended_at: int | None = None  # answered or hung up; None: still open when the evidence was taken
    answered: bool = False


@dataclass(frozen=True)
class Attempt:
    attempt: int
    token: int
    node: str | None
    state: str
    started_at: int | None
    finished_at: int | None
    started_index: int | None
    finished_index: int | None


@dataclass(frozen=True)
class Run:
    """One row of a job's history; a summary row has `first`, `last` and `count` of the times that it covers."""

    id: str
    job: str
    scheduled_time: int
    cause: str
    state: str
    reason: str | None
    log_index: int
    blocked_by: str | None = None
    first: int | None = None
    last: int | None = None
    count: int | None = None
    attempts: tuple[Attempt, ...] = ()
    stamps: tuple[tuple[int, int], ...] = ()  # (log index, cluster time) of each of its transitions

    @staticmethod
    def from_answer(item: dict[str, Any]) -> Run:
        """A run as the HTTP interface shows it (api.md section 3)."""
        return Run(
            id=item["id"],
            job=item["job"],
            scheduled_time=milliseconds(item["scheduled_time"]),
            cause=item["cause"],
            state=item["state"],
            reason=item.get("reason"),
            log_index=item["log_index"],
            blocked_by=item.get("blocked_by"),
            first=optional_milliseconds(item.get("first")),
            last=optional_milliseconds(item.get("last")),
            count=item.get("count"),
            attempts=tuple(
                Attempt(
                    attempt=row["attempt"],
                    token=int(row["fencing_token"]),
                    node=row["node"],
                    state=row["state"],
                    started_at=optional_milliseconds(row["started_at"]),
                    finished_at=optional_milliseconds(row["finished_at"]),
                    started_index=row["started_index"],
                    finished_index=row["finished_index"],
                )
                for row in item["attempts"]
            ),
            stamps=tuple((move["log_index"], milliseconds(move["at"])) for move in item["transitions"]),
        )


@dataclass(frozen=True)
class Write:
    """One write of a job that never fires, sent once; `body` None is a DELETE, `status` None means no answer at all.

    The writes of one name are made one after the other, and a name is left alone after the first that was not
    acknowledged: so what must be there at the end is known exactly.  `began` and `ended` are nanoseconds by the
    client's clock, `index` is where an acknowledged write says that it took effect.
    """

    name: str
    body: str | None  # the text that only this write has
    status: int | None
    node: str
    at: int
    revision: int | None = None
    index: int | None = None
    began: int = 0
    ended: int = 0


@dataclass(frozen=True)
class Read:
    """One linearizable read of a job that some writer writes, answered 200 or 404; `body` None: there is no such job.

    `began` and `ended` as in a Write, `index` is where it was served.
    """

    name: str
    body: str | None
    revision: int | None
    node: str
    index: int
    began: int
    ended: int


@dataclass(frozen=True)
class Sample:
    """One look at a job that fires, linearizable; `seen_at` when it was answered."""

    job: str
    schedule: str
    is_paused: bool
    counted_from: int
    decided_through: int
    fired: int
    skipped: int
    seen_at: int
    index: int = 0  # of the log, at which it was served


@dataclass(frozen=True)
class Told:
    """The time that a node trusts, by its own word; `asked_at` and `seen_at` by the true clock."""

    node: str
    time: int
    asked_at: int
    seen_at: int


@dataclass(frozen=True)
class Odd:
    """One strange request; None: no answer."""

    what: str
    status: int | None
    node: str


@dataclass(frozen=True)
class Fallen:
    """A node that ended though nobody ended it."""

    node: str
    code: int | None
    last_words: str


@dataclass(frozen=True)
class Kill:
    """One SIGKILL; `at` is the receiver's clock right before it, `ready_at` when the node's next life was ready."""

    node: str
    role: str  # leader | follower
    at: int
    ready_at: int | None


@dataclass(frozen=True)
class Fault:
    """One fault, of one node or several; `healed_at` when nothing of it was left: the dead were ready again."""

    kind: str
    nodes: tuple[str, ...]
    at: int
    healed_at: int | None
    ends_leases: bool = False  # it may last longer than a lease, so that what ran there may be lost
    step_ms: int = 0  # by so much a wall clock was set wrong


@dataclass(frozen=True)
class NodeEnd:
    """Where a node stood at the end; `seconds` after all faults had ended.  `digests` are its kept pairs."""

    node: str
    index: int
    digest: str
    seconds: float
    digests: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Remaining:
    """A job that never fires, as it was read at the end."""

    body: str
    revision: int


@dataclass(frozen=True)
class Evidence:
    """All that the checker is given.  `nodes` are the names of all configured nodes."""

    nodes: tuple[str, ...]
    jobs: tuple[Job, ...]
    arrivals: tuple[Arrival, ...]  # in the order of arrival
    runs: tuple[Run, ...]
    writes: tuple[Write, ...]  # of each name in the order in which they were sent
    remaining: dict[str, Remaining]
    kills: tuple[Kill, ...]
    ends: tuple[NodeEnd, ...]
    leaders: tuple[str, ...] = ()  # as seen before each fault and at the end
    reads: tuple[Read, ...] = ()
    faults: tuple[Fault, ...] = ()
    not_injected: tuple[str, ...] = ()  # what this machine did not allow
    samples: tuple[Sample, ...] = ()  # one after the other
    odd: tuple[Odd, ...] = ()
    fallen: tuple[Fallen, ...] = ()
    told: tuple[Told, ...] = ()

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self)))

    @staticmethod
    def load(path: Path) -> Evidence:
        raw = json.loads(path.read_text())
        return Evidence(
            nodes=tuple(raw["nodes"]),
            jobs=tuple(
                Job(**{**row, "phases": tuple(Phase(**phase) for phase in row["phases"])}) for row in raw["jobs"]
            ),
            arrivals=tuple(Arrival(**row) for row in raw["arrivals"]),
            runs=tuple(
                Run(
                    **{
                        **row,
                        "attempts": tuple(Attempt(**attempt) for attempt in row["attempts"]),
                        "stamps": tuple((index, at) for index, at in row["stamps"]),
                    }
                )
                for row in raw["runs"]
            ),
            writes=tuple(Write(**row) for row in raw["writes"]),
            remaining={name: Remaining(**row) for name, row in raw["remaining"].items()},
            kills=tuple(Kill(**row) for row in raw["kills"]),
            ends=tuple(
                NodeEnd(**{**row, "digests": {int(index): digest for index, digest in row["digests"].items()}})
                for row in raw["ends"]
            ),
            leaders=tuple(raw["leaders"]),
            reads=tuple(Read(**row) for row in raw["reads"]),
            faults=tuple(Fault(**{**row, "nodes": tuple(row["nodes"])}) for row in raw["faults"]),
            not_injected=tuple(raw["not_injected"]),
            samples=tuple(Sample(**row) for row in raw["samples"]),
            odd=tuple(Odd(**row) for row in raw["odd"]),
            fallen=tuple(Fallen(**row) for row in raw["fallen"]),
            told=tuple(Told(**row) for row in raw["told"]),
        )
