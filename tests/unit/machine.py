"""A state with a hand on its log: applies commands one by one, through the codec, as a node does."""

from __future__ import annotations

from typing import Any

from raftcron.core import definition
from raftcron.core.apply import apply
from raftcron.core.codec import decode_entry, encode_entry
from raftcron.core.commands import (
    Announce,
    Command,
    Decide,
    Decision,
    Done,
    Entry,
    Finish,
    Finished,
    Fire,
    Lead,
    Origin,
    Outcome,
    Place,
    PutJob,
    Refused,
)
from raftcron.core.model import Job, Run
from raftcron.core.state import State

NOOP = {"type": "noop"}


class Machine:
    """The state after what was written to it."""

    def __init__(self) -> None:
        self.state = State()
        self.log: list[bytes] = []
        self.at = 1_000

    def write(
        self, command: Command, *, epoch: int | None = None, at: int | None = None, origin: Origin | None = None
    ) -> Outcome:
        """Append a command as the present epoch's leader would, and apply it."""
        self.at = self.at if at is None else at
        stamped = self.state.epoch if epoch is None else epoch
        return self.append(encode_entry(Entry(stamped, self.at, command, origin)))

    def append(self, body: bytes) -> Outcome:
        self.log.append(body)
        return apply(self.state, len(self.log), decode_entry(body))

    def done(self, command: Command, *, at: int | None = None) -> Done:
        outcome = self.write(command, at=at)
        assert isinstance(outcome, Done), outcome
        return outcome

    def refused(self, command: Command, *, epoch: int | None = None) -> str:
        outcome = self.write(command, epoch=epoch)
        assert isinstance(outcome, Refused), outcome
        return outcome.code

    # ---- what tests need again and again

    def lead(self, node: str = "n1", incarnation: int = 1) -> None:
        self.write(Lead(node, incarnation, 1, "0", "0", "0"))

    def announce(
        self, node: str = "n1", incarnation: int = 1, slots: int = 10, process_slots: int = 5, life: int = 0
    ) -> Outcome:
        return self.write(Announce(node, incarnation, f"{node}:1", f"{node}:2", "0", slots, process_slots, life=life))

    def put(self, name: str = "job", **fields: Any) -> Job:
        stored = definition.canonical({"schedule": "@every 1s", "executor": NOOP, **fields})
        job = self.state.jobs.get(name)
        self.done(PutJob(name, stored, self.at, seen_revision=None if job is None else job.revision))
        return self.state.jobs[name]

    def fire(self, job: Job, scheduled_time: int, *, node: str = "n1", incarnation: int = 1) -> Run:
        """Decide one scheduled time, at that time, placed on a node."""
        decision = Decision(job.uid, job.revision, scheduled_time, [Fire(scheduled_time, scheduled_time)])
        done = self.done(Decide(Place(node, incarnation), [decision]), at=scheduled_time)
        assert done.count == 1, "the decision was not taken"
        return self.state.runs[f"{job.uid:x}-{scheduled_time}"]

    def finish(self, run: Run, state: str = "succeeded", **fields: Any) -> int:
        return self.done(Finish([Finished(run.id, run.fencing_token, state, **fields)])).count


def cluster() -> Machine:
    """A machine whose leader n1 and neighbour n2 have announced themselves."""
    machine = Machine()
    machine.lead()
    machine.announce("n1")
    machine.announce("n2")
    return machine
