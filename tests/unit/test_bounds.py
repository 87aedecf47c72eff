"""However many runs there have been, what a node holds of them stays within its bounds (semantics 11)."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from raftcron.core import commands as c
from raftcron.core import definition, history
from raftcron.core.codec import encode_entry
from raftcron.core.history import LEAVING_PER_ROW
from raftcron.core.model import Job, Key, Run
from raftcron.core.rows import Line, Rows
from raftcron.core.state import State
from raftcron.runtime.machine import Machine
from tests.unit.restored import assert_equal, new_machine, restored
from tests.unit.test_apply import anew

ROUNDS = 2_500
STARTS_PER_ROUND = 10
STEP_MS = 60_000
ORPHANS = 100
SLACK = 40  # things by which a container may breathe
ROW_BYTES = 2_000  # more than any row here has without its tail
HERE = c.Place("n1", 1)


class Node:
    """A machine, and a round of all that makes runs."""

    def __init__(self, history_bytes: int, rows: int) -> None:
        """`history_bytes` of all rows together are kept, and `rows` of each job."""
        self.rows = rows
        self.machine: Machine = new_machine()
        self.at = 1_000
        self.index = 0
        self.write(c.Lead("n1", 1, 1, "", "", "", history_bytes))
        self.write(c.Announce("n1", 1, "", "", "", 100, 100))

    @property
    def state(self) -> State:
        return self.machine.state

    def write(self, command: c.Command) -> Any:
        self.index += 1
        outcome = self.machine.apply(self.index, encode_entry(c.Entry(self.state.epoch, self.at, command)))
        self.machine.applied(self.index)
        assert isinstance(outcome, c.Done), outcome
        return outcome

    def put(self, name: str, **fields: Any) -> Job:
        body = {"schedule": "@every 60s", "executor": {"type": "noop"}, "history": {"runs": self.rows}, **fields}
        self.write(c.PutJob(name, definition.canonical(body), self.at))
        return self.state.jobs[name]

    def fire(self, name: str) -> Run:
        job = self.state.jobs[name]
        self.write(c.Decide(HERE, [c.Decision(job.uid, job.revision, self.at, [c.Fire(self.at, self.at)])]))
        return self.state.runs[f"{job.uid:x}-{self.at}"]

    def finish(self, run: Run, state: str = "succeeded") -> None:
        self.write(c.Finish([c.Finished(run.id, run.fencing_token, state, output_tail=b"x" * 500)]))

    def round(self, number: int) -> None:
        """Ten starts and a summary: of a busy job, one that fails, one that is tried again; two parts of a run, one by
        hand under a key, one that follows it, and two of a job that is deleted."""
        self.at += STEP_MS
        self.finish(self.fire("busy"))
        self.finish(self.fire("fails"), "failed")
        retried = self.fire("retried")
        self.finish(retried, "failed")
        self.at += 5_000
        self.write(c.Requeue([retried.id]))
        self.write(c.Assign([c.Assignment(retried.id, HERE, True)]))
        self.finish(self.state.runs[retried.id], "lost")
        parent = self.fire("parted")
        self.write(c.Divide([c.Parting(parent.id, [])]))
        for part in list(self.state.active_parts[parent.id].values()):
            self.write(c.Assign([c.Assignment(part.id, HERE, True)]))
            self.finish(self.state.runs[part.id])
        key = Key(f"k{number}", b"", 0, 0, 0)
        self.write(c.Trigger("by-hand", HERE, key=key))
        for name in ("by-hand", "chained"):  # the second follows the first
            [run] = list(self.state.active[self.state.jobs[name].uid].values())
            if run.state == "queued":
                self.write(c.Assign([c.Assignment(run.id, HERE, True)]))
            self.finish(self.state.runs[run.id])
        missed = self.state.jobs["missed"]
        summary = c.Summary("expired", self.at - 1_000, self.at, 2)
        self.write(c.Decide(HERE, [c.Decision(missed.uid, missed.revision, self.at, [], [summary])]))
        gone = self.put("gone")
        self.at += 1_000
        for _ in range(2):
            self.finish(self.fire("gone"))
            self.at += 1_000
        self.write(c.DeleteJob("gone", [], gone.revision))


def test_a_job_knows_up_to_when_its_rows_have_left_for_want_of_room() -> None:
    """Skipped ones too, by the bound of all together: a function of the log, which the digest and a snapshot hold."""
    node = Node(1_500, 20)
    job = node.put("a")
    for _ in range(3):
        node.at += STEP_MS
        skipped = c.Summary("misfire", node.at - 1_000, node.at, 1)
        node.write(c.Decide(HERE, [c.Decision(job.uid, job.revision, node.at, [], [skipped])]))
    last = node.at
    node.put("busy")
    assert (job.unkept_through, len(node.state.ended_of(job.uid))) == (0, 3)
    through = []
    for _ in range(20):
        node.at += STEP_MS
        node.finish(node.fire("busy"))
        through.append(job.unkept_through)
        assert node.state.digest == anew(node.state)
    assert node.state.ended_of(job.uid) == []
    assert sorted(through) == through
    assert through[-1] == last
    assert set(through) <= {0, last - 2 * STEP_MS, last - STEP_MS, last}
    assert_equal(restored(node.machine.snapshot()), node.machine)


def sizes(state: State) -> dict[str, int]:
    """How many things each container of the state holds, one level down too."""
    found = {}
    for name, value in vars(state).items():
        if isinstance(value, dict | set | list | deque | Rows | Line):
            found[name] = len(value)
        if isinstance(value, dict):
            found[f"{name}, each"] = sum(len(one) for one in value.values() if isinstance(one, dict | list | set))
    return found


@pytest.mark.parametrize("world", ["all together", "each job"])
def test_after_twenty_thousand_runs_all_is_within_its_bounds(monkeypatch: pytest.MonkeyPatch, world: str) -> None:
    """Rows, output tails, each index over them, keys and the snapshot: the second half of the runs adds nothing.

    Rows leave, and tails with them, by the bound of all together in one world, and by that of their job in the other.
    """
    tails_bytes, history_bytes, rows = (50_000, 100_000, 1_000) if world == "all together" else (10**9, 10**9, 10)
    monkeypatch.setattr(history, "TAILS_BYTES_KEPT", tails_bytes)
    monkeypatch.setattr(history, "ORPHANS_KEPT", ORPHANS)
    node = Node(history_bytes, rows)
    for name in ("busy", "fails", "missed"):
        node.put(name)
    node.put("retried", retry={"max_attempts": 2, "backoff": "1s"})
    node.put("parted", placement={"shards": 2})
    node.put("by-hand", schedule="@manual")
    node.put("chained", schedule="@manual", after=[{"job": "by-hand"}])
    half: dict[str, int] = {}
    for number in range(ROUNDS):
        node.round(number)
        state = node.state
        assert state.history_bytes <= history_bytes + LEAVING_PER_ROW * ROW_BYTES
        assert state.tails_bytes <= tails_bytes
        if number == ROUNDS // 2:
            half = sizes(state) | {"snapshot": sum(map(len, node.machine.snapshot()))}
    end = sizes(state) | {"snapshot": sum(map(len, node.machine.snapshot()))}
    assert {name: (half[name], size) for name, size in end.items() if size > half[name] * 1.1 + SLACK} == {}
    assert state.next_token > ROUNDS * STARTS_PER_ROUND > 20_000
    assert len(state.runs) < 1_000, "what is kept is a small part of what there was"
    assert state.digest == anew(state)
    assert_equal(restored(node.machine.snapshot()), node.machine)
