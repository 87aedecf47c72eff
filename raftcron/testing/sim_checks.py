"""What must hold at every instant of a simulation, whatever was done to the cluster; each check has a name.

The first node that applies an entry is followed step by step (decisions, watermarks, tokens, attempts, writes); every
other node, and every later life, must have the same entry and the same digest at the same index.  What is said to be
durable is read from the disks' own durable bytes, by code that shares nothing with the journal's.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from raftcron.core import commands as c
from raftcron.core.codec import decode_entry
from raftcron.core.ledger import count
from raftcron.core.model import (
    AT_MOST_ONCE,
    COUNTED_CAUSES,
    ENDED,
    FAILED,
    REASON_PAUSED,
    STARTED,
    TIMED_OUT,
    Run,
)
from raftcron.core.state import State
from raftcron.core.timeline import schedules_of
from raftcron.ports import Attempt
from raftcron.testing.sim_disk import Disk
from raftcron.testing.sim_loop import START_WALL, Conductor

MAX_CLOCK_SKEW_MS = 5_000

ONE_HISTORY = "one history"
ONE_LEADER = "one leader a term"
MATCH = "true match indexes"
DURABLE = "acknowledged is durable"
NOT_WRITTEN = "not written stays unwritten"
LINEARIZABLE = "linearizable reads"
DIGEST = "I7 equal digests"
I1 = "I1 one decision"
I2 = "I2 one start an attempt"
I3 = "I3 tokens grow"
I4 = "I4 conservation"
I5 = "I5 time and watermark"
I6 = "I6 start under the newest token"
I10 = "I10 paused is paused"
FATAL = "no process ends by itself"
NOISE = "nothing fails unseen"
LIVENESS = "I15 all is well afterwards"


class Violation(AssertionError):
    """A check has failed; `checker` is its name."""

    def __init__(self, checker: str, text: str) -> None:
        super().__init__(checker, text)
        self.checker = checker

    def __str__(self) -> str:
        return "[{}] {}".format(*self.args)


class _Row(NamedTuple):
    """What was last seen of a run."""

    state: str
    attempt: int
    token: int
    log_index: int  # of the decision


_HEADER = struct.Struct("<8sIIQQII")
_RECORD = struct.Struct("<IIIB")
_VOTE_KIND, _ENTRY_KIND, _CUT_KIND, _SEALED_KIND = 3, 4, 5, 9


class DurableLog:
    """The log that a disk's durable bytes hold, kept up to date as they grow."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self.terms: list[int] = []  # of the entries, from index 1
        self.term = 0
        self._disk = disk
        self._directory = directory
        self._rewrites = -1
        self._open(1)

    def holds(self, index: int, term: int) -> bool:
        return 0 < index <= len(self.terms) and self.terms[index - 1] == term

    def read(self) -> None:
        """Take in what has become durable."""
        if self._disk.is_aside:
            return
        if self._rewrites != self._disk.rewrites:
            self._rewrites = self._disk.rewrites
            self.terms.clear()
            self.term = 0
            self._open(1)
        while (file := self._disk.files.get(self._path)) is not None and self._offset < len(file.durable):
            if not self._take(file.durable):
                return
            self._open(self._number + 1)

    def _open(self, number: int) -> None:
        self._number, self._offset = number, 0
        self._path = self._directory / f"{number:012d}.segment"

    def _take(self, data: bytearray) -> bool:
        """Whether the segment ends here, and another follows."""
        if len(data) < _HEADER.size:
            return False
        salt = _HEADER.unpack_from(data)[5]
        offset = self._offset or _HEADER.size
        while offset + _RECORD.size <= len(data):
            crc, length, _, kind = _RECORD.unpack_from(data, offset)
            end = offset + _RECORD.size + length
            if end > len(data) or crc32(memoryview(data)[offset + 4 : end], salt) != crc:
                break
            body = offset + _RECORD.size
            if kind == _ENTRY_KIND:
                self.terms.append(struct.unpack_from("<QQ", data, body)[1])
            elif kind == _CUT_KIND:
                del self.terms[struct.unpack_from("<Q", data, body)[0] - 1 :]
            elif kind == _VOTE_KIND:
                self.term = struct.unpack_from("<Q", data, body)[0]
            elif kind == _SEALED_KIND:
                return True
            offset = end
        self._offset = offset
        return False


class Checks:
    """All of them, for one simulation."""

    def __init__(self, conductor: Conductor, disks: dict[str, Disk], directory: Path) -> None:
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()
        self.leaders: dict[int, str] = {}  # term -> who leads it
        self.committed: dict[int, tuple[bytes, int, int]] = {}  # index -> entry
        self.highest = 0  # index that has applied somewhere
        self.acknowledged: dict[str, int] = {}  # marker -> index
        self.unwritten: set[str] = set()
        self.acknowledged_index = 0
        self.durable = {name: DurableLog(disk, directory) for name, disk in disks.items()}
        self._conductor = conductor
        self._majority = len(disks) // 2 + 1
        self._bodies: dict[int, bytes] = {}
        self._digests: dict[int, int] = {}
        self._written: defaultdict[str, list[int]] = defaultdict(list)  # marker -> indices at which it took effect
        self._rows: dict[str, _Row] = {}
        self._endings: dict[tuple[str, int], str] = {}  # (run, attempt) -> how it ended, as committed
        self._watermarks: dict[int, int] = {}
        self._paused: dict[int, bool] = {}
        self._cluster_time = 0
        self._epoch = 0
        self._token = 0
        self._started: dict[tuple[str, int], str] = {}
        self._kept: set[str] = set()

    def fail(self, checker: str, text: str) -> None:
        """Note it: the conductor stops at the next look, since here a rim might swallow what is raised."""
        self.violations.append(Violation(checker, f"at {self._conductor.now:.3f} s: {text}"))

    # ---- entries

    def before(self, index: int, state: State) -> None:
        """An entry is about to be applied."""
        if index > self.highest:
            self._kept, state.touched_runs = state.touched_runs, set()

    def after(self, node: str, index: int, body: bytes, state: State, outcome: c.Outcome) -> None:
        """An entry has been applied."""
        known = self._bodies.setdefault(index, body)
        if known != body:
            self.fail(ONE_HISTORY, f"{node} applied {body!r:.200} at {index}, another node {known!r:.200}")
        digest = self._digests.setdefault(index, state.digest)
        if digest != state.digest:
            self.fail(DIGEST, f"{node} has digest {state.digest:x} at {index}, another node {digest:x}")
        if index > self.highest:
            touched, state.touched_runs = state.touched_runs, self._kept
            self._kept |= touched
            self._kept = set()
            self.highest = index
            self._follow(index, decode_entry(body), state, outcome, sorted(touched))

    def _follow(self, index: int, entry: c.Entry, state: State, outcome: c.Outcome, touched: list[str]) -> None:
        command = entry.command
        self.counts[f"entries {type(command).__name__}"] += 1
        if isinstance(outcome, c.Refused):
            self.counts[f"refused {outcome.code}"] += 1
            if touched:
                self.fail(I1, f"entry {index} was refused ({outcome.code}) and changed {touched}")
        key = getattr(command, "key", None)
        if key is not None and isinstance(outcome, c.Done):
            self._written[key.scope].append(index)
        self._follow_time(index, state)
        tokens: list[int] = []
        for run_id in touched:
            run = state.runs.get(run_id)
            if run is not None:
                self._follow_row(index, run, state, command, tokens)
        if tokens:
            if min(tokens) <= self._token or len(set(tokens)) < len(tokens):
                self.fail(I3, f"entry {index} gives tokens {tokens} after {self._token}")
            self._token = max(tokens)
        if isinstance(command, c.Decide | c.PutJob | c.DeleteJob | c.PauseJob | c.ResumeJob):
            self._follow_jobs(index, state)

    def _follow_time(self, index: int, state: State) -> None:
        if state.cluster_time < self._cluster_time or state.epoch < self._epoch:
            self.fail(I5, f"cluster time or epoch went back at {index}")
        limit = (START_WALL + self._conductor.now) * 1000 + MAX_CLOCK_SKEW_MS
        if state.cluster_time > limit:
            self.fail(I5, f"cluster time is {state.cluster_time - limit:.0f} ms beyond the bound at {index}")
        self._cluster_time, self._epoch = state.cluster_time, state.epoch

    def _follow_row(self, index: int, run: Run, state: State, command: c.Command, tokens: list[int]) -> None:
        known = self._rows.get(run.id)
        if known is None:
            self._follow_decision(index, run, state, command)
            known = _Row("", 1, 0, run.log_index)
        elif run.log_index != known.log_index:
            self.fail(I1, f"run {run.id} was decided at {known.log_index}, and again at {run.log_index}")
        row = _Row(run.state, run.attempt, run.fencing_token, run.log_index)
        if known.state in ENDED and row != known:
            self.fail(I2, f"run {run.id} had ended ({known.state}) and is {run.state} at {index}")
        if run.attempt not in (known.attempt, known.attempt + 1):
            self.fail(I2, f"run {run.id} goes from attempt {known.attempt} to {run.attempt} at {index}")
        if run.fencing_token != known.token:
            tokens.append(run.fencing_token)
        for record in run.attempts:
            if record.finished_at is not None:
                ending = self._endings.setdefault((run.id, record.attempt), record.state)
                if ending != record.state:
                    self.fail(I2, f"attempt {record.attempt} of {run.id} ended {ending}, then {record.state}")
        if run.state in ENDED and row != known:
            self.counts[f"runs {run.state}"] += 1
        self._rows[run.id] = row

    def _follow_decision(self, index: int, run: Run, state: State, command: c.Command) -> None:
        if run.cause not in COUNTED_CAUSES:
            return
        first = run.scheduled_time if run.first is None else run.first
        last = run.scheduled_time if run.last is None else run.last
        before = self._watermarks.get(run.uid)
        if before is None or first <= before:
            self.fail(I1, f"{first} of job {run.job} is decided at {index}, decided through {before} already")
        job = state.by_uid.get(run.uid)
        if job is not None and last > job.decided_through:
            self.fail(I5, f"{last} of job {run.job} is decided at {index} beyond the watermark {job.decided_through}")
        was_owed = run.reason != REASON_PAUSED
        if was_owed and self._paused.get(run.uid):
            self.fail(I10, f"job {run.job} is paused, and {run.id} was decided at {index} by {type(command).__name__}")
        self.counts["decisions"] += 1

    def _follow_jobs(self, index: int, state: State) -> None:
        for uid, job in state.by_uid.items():
            before = self._watermarks.get(uid, job.decided_through)
            if job.decided_through < before:
                self.fail(I5, f"the watermark of {job.name} goes from {before} to {job.decided_through} at {index}")
            self._watermarks[uid] = job.decided_through
            self._paused[uid] = job.paused

    def conserve(self, state: State) -> None:
        """I4, for each job that owes anything: what the calendar counts is what was decided."""
        for uid, job in state.by_uid.items():
            owed = count(schedules_of(state.policies[uid], job.name), job.counted_from, job.decided_through, job.anchor)
            if not job.paused and owed != job.fired + job.skipped:
                self.fail(I4, f"job {job.name} owed {owed}, fired {job.fired}, skipped {job.skipped} at {state.index}")

    # ---- starts of user code

    def started(self, node: str, attempt: Attempt, newest: State) -> None:
        """User code starts; `newest` is the state of the node that has applied most."""
        what = (attempt.run_id, attempt.attempt)
        self.counts["starts"] += 1
        if (other := self._started.get(what)) is not None:
            self.fail(I2, f"attempt {attempt.attempt} of {attempt.run_id} starts on {node}, and did on {other}")
        self._started[what] = node
        run = newest.runs.get(attempt.run_id)
        if run is None or run.fencing_token != attempt.fencing_token or run.state not in STARTED or run.node != node:
            seen = "gone" if run is None else f"{run.state} on {run.node} under token {run.fencing_token}"
            self.fail(I6, f"{attempt.run_id} starts on {node} under token {attempt.fencing_token}, and is {seen}")
        elif attempt.attempt > 1:
            self.counts["retries started"] += 1
            policy = newest.policies.get(run.uid)
            ended = self._endings.get((attempt.run_id, attempt.attempt - 1))
            if policy is not None and policy.delivery == AT_MOST_ONCE and ended not in (FAILED, TIMED_OUT):
                self.fail(I2, f"{attempt.run_id} is tried again, its attempt {attempt.attempt - 1} ended {ended}")

    # ---- what clients were told

    def acknowledge(self, marker: str, index: int, term: int) -> None:
        """A client was told that its write stands at `index`, which is of `term`."""
        self.counts["acknowledged"] += 1
        self.acknowledged[marker] = index
        self.acknowledged_index = max(self.acknowledged_index, index)
        if self._written.get(marker) != [index]:
            self.fail(DURABLE, f"write {marker} was acknowledged at {index} and stands at {self._written.get(marker)}")
        holders = []
        for name, log in self.durable.items():
            log.read()
            if log.holds(index, term):
                holders.append(name)
        if len(holders) < self._majority:
            self.fail(DURABLE, f"write {marker} at {index} was acknowledged, and is durable on {holders} only")

    def refuse(self, marker: str) -> None:
        """A client was told that its write was certainly not written."""
        self.counts["not written"] += 1
        self.unwritten.add(marker)
        if marker in self._written:
            self.fail(NOT_WRITTEN, f"write {marker} was refused, and stands at {self._written[marker]}")

    def read(self, before: int, index: int, applied: int) -> None:
        """A read was served at `index`; `before` had been acknowledged when it was asked."""
        self.counts["reads"] += 1
        if index < before or applied < index:
            self.fail(LINEARIZABLE, f"a read is served at {index} of {applied} applied; {before} was acknowledged")

    def close(self) -> None:
        """At the end: the history holds what it should."""
        for marker, index in self.acknowledged.items():
            if self._written.get(marker) != [index]:
                self.fail(DURABLE, f"write {marker}, acknowledged at {index}, stands at {self._written.get(marker)}")
        for marker in sorted(self.unwritten):
            if marker in self._written:
                self.fail(NOT_WRITTEN, f"write {marker} was refused, and stands at {self._written[marker]}")

    # ---- the log beneath

    def entry(self, node: str, entry: tuple[bytes, int, int]) -> None:
        """A node counts this entry as applied."""
        known = self.committed.setdefault(entry[1], entry)
        if known != entry:
            self.fail(ONE_HISTORY, f"{node} has {entry!r:.200} at {entry[1]}, another node {known!r:.200}")

    def leads(self, node: str, term: int) -> None:
        if term not in self.leaders:
            self.counts["elections"] += 1
        if (other := self.leaders.setdefault(term, node)) != node:
            self.fail(ONE_LEADER, f"{node} and {other} lead term {term}")

    def match(self, leader: str, term: int, log: Any, matches: dict[str, int]) -> None:
        """The leader of the highest term counts on these entries of the others."""
        for peer, index in matches.items():
            durable = self.durable[peer]
            durable.read()
            if index and durable.term == term and not durable.holds(index, log[index - 1][2]):
                self.fail(MATCH, f"{leader} counts on entry {index} of {peer}, which has {len(durable.terms)} durably")
