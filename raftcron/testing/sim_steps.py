"""What must hold of the steps of a run: where and when an attempt starts, what lets another follow, and what a job that
follows several waits for.  The first node that applies an entry is followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from raftcron.core import commands as c
from raftcron.core.model import (
    AT_LEAST_ONCE,
    CANCELLED,
    CAUSE_BACKFILL,
    CAUSE_CHAIN,
    COUNTED_CAUSES,
    ENDED,
    FAILED,
    LOST,
    ON_A_NODE,
    REASON_DEADLINE,
    REASON_NO_NODE,
    SKIPPED,
    SUCCEEDED,
    TIMED_OUT,
    WAITING_RETRY,
    Policy,
    Run,
)
from raftcron.core.state import State

I2 = "I2 one start an attempt"
PLACED = "an attempt goes to a node that takes it"
IN_TIME = "a start between due and deadline"
JOINED = "what follows several waits for all of them"
PATIENT = "what comes back unstarted is not given away at once for ever"

GIVEN_AT_MOST = 100  # times in one lead, to one attempt: some ten at once, then one a second

BROKEN = "broken"
COUNTING = {  # which ends a job may ask for
    "success": {SUCCEEDED},
    "failure": {FAILED, TIMED_OUT, LOST},
    "any": {SUCCEEDED, FAILED, TIMED_OUT, LOST, CANCELLED},
}


class _Ends(NamedTuple):
    """The newest ends of a job's runs: of one entry, which may have ended several."""

    since: int  # its index
    states: set[str]
    before: _Ends | None  # those of an earlier entry, without their own


class Steps:
    """The steps of all runs of one simulation."""

    def __init__(self, fail: Callable[[str, str], None], counts: Counter[str]) -> None:
        self._fail = fail
        self._counts = counts
        self._ends: dict[str, _Ends] = {}  # by the job's name
        self._followed: dict[int, int] = {}  # job -> index since when ends count for it: its last run, or its pause
        self._joined: list[Run] = []  # that this entry has made
        self._given: dict[str, tuple[int, int, int]] = {}  # run -> epoch, attempt, and how often it got a node there

    def row(self, index: int, was: str, attempt: int, token: int, run: Run, state: State) -> None:
        """An entry has changed a run, which `was` in this state, attempt and token; empty: it is new."""
        policy = state.policies.get(run.uid)
        if policy is not None:
            if run.fencing_token != token and run.node is not None:
                self._follow_place(index, run, policy, state)
            if run.attempts and run.attempts[-1].started_index == index:
                self._follow_start(index, run, policy)
            if run.state == WAITING_RETRY != was or (run.attempt > attempt and was in ON_A_NODE):
                self._follow_retry(index, run, policy)
            if not was and run.cause == CAUSE_CHAIN and policy.join == "all" and len(policy.after) > 1:
                self._joined.append(run)
        if run.state == SKIPPED != was and run.reason in (REASON_DEADLINE, REASON_NO_NODE):
            self._counts[f"rule: start_deadline ({run.reason})"] += 1
        is_end = run.state in ENDED and run.state not in (was, SKIPPED) and run.part is None
        if is_end and run.uid in state.by_uid:  # of a job that is gone nothing follows
            ends = self._ends.get(run.job)
            if ends is None or ends.since < index:
                ends = self._ends[run.job] = _Ends(index, set(), ends and ends._replace(before=None))
            ends.states.add(run.state)

    def entry(self, index: int, command: c.Command, state: State) -> None:
        """All rows of an entry have been seen."""
        for run in self._joined:
            self._follow_joined(index, run, state.policies[run.uid])
        self._joined.clear()
        if isinstance(command, c.PauseJob | c.ResumeJob) and command.name in state.jobs:
            self._followed[state.jobs[command.name].uid] = index
        elif isinstance(command, c.Drain):
            self._counts[f"drains {'begun' if command.drained else 'ended'}"] += 1

    def _follow_place(self, index: int, run: Run, policy: Policy, state: State) -> None:
        """It is given to a node that takes new runs and carries the tags, and not over and over at once."""
        epoch, attempt, times = self._given.get(run.id, (0, 0, 0))
        times = times + 1 if (epoch, attempt) == (state.epoch, run.attempt) else 1
        self._given[run.id] = state.epoch, run.attempt, times
        if times > GIVEN_AT_MOST:
            self._fail(PATIENT, f"attempt {run.attempt} of {run.id} gets a node for the {times}th time at {index}")
        node = state.nodes[run.node or ""]
        if node.drained:
            self._fail(PLACED, f"{run.id} is given to {node.name} at {index}, which is drained")
        if any(node.tags.get(key) != value for key, value in policy.tags):
            self._fail(PLACED, f"{run.id} needs {policy.tags}, and is given at {index} to {node.name}: {node.tags}")
        self._counts["rule: tags"] += bool(policy.tags)

    def _follow_start(self, index: int, run: Run, policy: Policy) -> None:
        """By cluster time a first attempt starts neither too early nor too late."""
        if run.attempt > 1 or run.started_at is None or run.cause == CAUSE_BACKFILL:
            return
        asked_for = run.scheduled_time if run.cause in COUNTED_CAUSES else run.due_at
        if not run.due_at <= run.started_at <= asked_for + policy.start_deadline_ms:
            late_ms = run.started_at - asked_for
            self._fail(IN_TIME, f"{run.id} starts at {index}, {late_ms} ms after {asked_for}, due at {run.due_at}")

    def _follow_retry(self, index: int, run: Run, policy: Policy) -> None:
        """The attempt before it ended in a way that the job lets another follow (semantics 4)."""
        ended = run.attempts[-1].state if run.attempts else ""
        kind = BROKEN if ended == FAILED and run.error_kind == BROKEN else ended
        if policy.delivery != AT_LEAST_ONCE if kind == LOST else kind not in policy.retry_on:
            self._fail(I2, f"{run.id} is to be tried again at {index}: {kind}, {policy.delivery}, {policy.retry_on}")
        if kind in (BROKEN, TIMED_OUT):
            self._counts[f"rule: retry.on {kind}"] += 1

    def _follow_joined(self, index: int, run: Run, policy: Policy) -> None:
        """Each parent has ended since its last run, the newest time as it asks for.

        Of an entry that ends runs of several parents rows do not tell the order: what follows the end of one may come
        before that of another, and go by the end before.
        """
        since = self._followed.get(run.uid, 0)
        for parent, on in policy.after:
            ends = self._ends.get(parent)
            newest = [ends] if ends is None or ends.since < index else [ends, ends.before]
            if not any(one and one.since >= since and one.states & COUNTING[on] for one in newest):
                self._fail(JOINED, f"{run.id} follows at {index} on {run.follows}; of {parent} there is {ends}")
        self._followed[run.uid] = index
        self._counts["rule: join all"] += 1
