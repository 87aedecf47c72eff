"""What must hold at every instant of a simulation, whatever was done to the cluster; each check has a name.

The first node that applies an entry is followed step by step (decisions, watermarks, tokens, attempts, writes); every
other node, and every later life, must have the same entry and the same digest at the same index.  What is said to be
durable is read from the disks' own durable bytes, by code that shares nothing with the journal's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from raftcron.core import commands as c
from raftcron.core.codec import decode_entry
from raftcron.core.ledger import count
from raftcron.core.model import (
    AT_MOST_ONCE,
    CAUSE_BACKFILL,
    CAUSE_CHAIN,
    COUNTED_CAUSES,
    ENDED,
    FAILED,
    REASON_PAUSED,
    STARTED,
    TIMED_OUT,
    UNLIMITED,
    Run,
)
from raftcron.core.records import MODULUS, TABLES, Record, record_hash
from raftcron.core.schedule import Schedule
from raftcron.core.state import State
from raftcron.core.timeline import schedules_of
from raftcron.errors import DamagedError
from raftcron.ports import Attempt
from raftcron.raft.configuration import decode, is_configuration
from raftcron.runtime.conservation import Conservation
from raftcron.runtime.machine import Machine
from raftcron.testing.sim_disk import Disk
from raftcron.testing.sim_durable import DurableLog
from raftcron.testing.sim_loop import Conductor, NodeLoop, SimClock
from raftcron.testing.sim_targets import Entrusted
from raftcron.testing.wall_time import WallTime

ONE_HISTORY = "one history"
ONE_LEADER = "one leader a term"
MATCH = "true match indexes"
COMMITTED = "applied is durable on a majority"
COVERED = "a snapshot holds what the log has forgotten"
MEMBERS = "majorities of neighbouring configurations meet"
DURABLE = "acknowledged is durable"
NOT_WRITTEN = "not written stays unwritten"
LINEARIZABLE = "linearizable reads"
DIGEST = "I7 equal digests"
I1 = "I1 one decision"
I2 = "I2 one start an attempt"
I3 = "I3 tokens grow"
I4 = "I4 conservation"
I5 = "I5 time and watermark"
I8 = "I8 on time"
I9 = "I9 no more runs than may"
I6 = "I6 start under the newest token"
REFUSED = "a refused token never starts"
MOVED = "a part of a broadcast does not move"
ONE_ATTEMPT = "one attempt at a time"
I10 = "I10 paused is paused"
I11 = "I11 an edit never fires again"
BACKFILL = "a backfill decides nothing"
I14 = "I14 replay gives the same state"
EPOCH = "no entry of another epoch counts"
NEWER = "what a later release writes is refused by name"
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


class Where(Protocol):
    """What user code is a part of: a node's own process, or one that its spawner has started."""

    @property
    def is_dead(self) -> bool: ...

    @property
    def busy_until(self) -> float:
        """Until then it stands still."""


class _Row(NamedTuple):
    """What was last seen of a run."""

    state: str
    attempt: int
    token: int
    log_index: int  # of the decision


class _Known(NamedTuple):
    """What was last seen of a job."""

    watermark: int
    is_paused: bool
    schedules: tuple[Schedule, ...]
    anchor: int
    edited_at: int  # its watermark when it was last written


class Checks:
    """All of them, for one simulation."""

    def __init__(self, conductor: Conductor, disks: dict[str, Disk], journal: Path, snapshots: Path) -> None:
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()
        self.leaders: dict[int, str] = {}  # term -> who leads it
        self.committed: dict[int, tuple[bytes, int, int]] = {}  # index -> entry
        self.highest = 0  # index that has applied somewhere
        self.acknowledged: dict[str, int] = {}  # marker -> index
        self.unwritten: set[str] = set()
        self.acknowledged_index = 0
        self.set_back: set[str] = set()  # whose disk has forgotten what a leader may count on until they meet
        self.spoilt: set[str] = set()  # whose records were changed behind its back: the node has to find out itself
        self.durable = {name: DurableLog(disk, journal, snapshots) for name, disk in disks.items()}
        self.voters: frozenset[str] = frozenset()  # as of the newest configuration that has applied somewhere, and
        self.configured = 0  # its index
        self.in_force: Callable[[], set[frozenset[str]]] = set  # the voters by which a leader may count now
        self.time_limit_ms: Callable[[], float] = lambda: float("inf")  # what trusted time may have reached
        self.began: Callable[[str, Run, State], None] = lambda *_: None  # user code of a node's own process starts
        self._conductor = conductor
        self._bodies: dict[int, bytes] = {}
        self._digests: dict[int, int] = {}
        self._written: defaultdict[str, list[int]] = defaultdict(list)  # marker -> indices at which it took effect
        self._rows: dict[str, _Row] = {}
        self._endings: dict[tuple[str, int], str] = {}  # (run, attempt) -> how it ended, as committed
        self._jobs: dict[int, _Known] = {}
        self._uids: dict[str, int] = {}  # of the jobs that are there
        self._deleted: dict[str, int] = {}  # job -> index of its last delete
        self._cluster_time = 0
        self._limit_ms = float("inf")  # as of the newest entry
        self._epoch = 0
        self._token = 0
        self._started: dict[tuple[str, int], str] = {}
        self._refused: dict[int, str] = {}  # token -> who refused it
        self._running: dict[str, tuple[int, str, Where]] = {}  # run -> token, node and process of its user code
        self._whole: dict[str, tuple[int, str]] = {}  # run or part of one -> its job, and the run
        self._limits: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # job -> (from which index, limit)
        self._forced: set[str] = set()  # runs by hand that overlap does not judge
        self._kept: set[str] = set()
        self.entrusted = Entrusted(self.fail, self.counts)

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
        if node not in self.spoilt:
            digest = self._digests.setdefault(index, state.digest)
            if digest != state.digest:
                self.fail(DIGEST, f"{node} has digest {state.digest:x} at {index}, another node {digest:x}")
        if index > self.highest:
            touched, state.touched_runs = state.touched_runs, self._kept
            self._kept |= touched
            self._kept = set()
            self.highest = index
            try:
                entry = decode_entry(body)
            except DamagedError:
                self.counts["unreadable entries"] += 1
                if touched or not isinstance(outcome, c.Refused):
                    self.fail(I1, f"entry {index} cannot be read, and changed {sorted(touched)}")
            else:
                self._follow(index, entry, state, outcome, sorted(touched))

    def _follow(self, index: int, entry: c.Entry, state: State, outcome: c.Outcome, touched: list[str]) -> None:
        command = entry.command
        is_new = isinstance(outcome, c.Done) and not outcome.replayed
        self.counts[f"entries {type(command).__name__}"] += 1
        if isinstance(outcome, c.Refused):
            self.counts[f"refused {outcome.code}"] += 1
            if touched:
                self.fail(I1, f"entry {index} was refused ({outcome.code}) and changed {touched}")
        elif entry.epoch != self._epoch and not isinstance(command, c.Lead):
            self.fail(EPOCH, f"entry {index} was made in epoch {entry.epoch} and counts in epoch {self._epoch}")
        elif not outcome.replayed:
            if isinstance(command, c.Conclude):
                self.stopped(command.run, command.fencing_token)
            elif isinstance(command, c.Hear):
                self.entrusted.heard(command.run, state.cluster_time)
            if (key := getattr(command, "key", None)) is not None:
                self._written[key.scope].append(index)
            if isinstance(command, c.DeleteJob):
                self._deleted[command.name] = index
            if isinstance(command, c.Trigger | c.Rerun) and command.allow_overlap:
                self._forced.add(outcome.subject)
        self._follow_time(index, state)
        self._follow_tokens(index, command, touched)
        for decision in getattr(command, "decisions", ()):
            below = self._jobs.get(decision.uid)
            self.counts["decisions below the watermark"] += below is not None and decision.through <= below.watermark
        tokens: list[int] = []
        decided: Counter[int] = Counter()
        for run_id in touched:
            run = state.runs.get(run_id) or state.noted_runs.get(run_id)  # the bound may have dropped it at once
            if run is not None:
                self._follow_row(index, run, state, command, tokens, decided)
        if tokens:
            if min(tokens) <= self._token or len(set(tokens)) < len(tokens):
                self.fail(I3, f"entry {index} gives tokens {tokens} after {self._token}")
            self._token = max(tokens)
        if isinstance(command, c.PutJob | c.DeleteJob | c.PauseJob) and is_new:
            self._follow_edit(index, entry.at, self._uids.get(command.name), decided)
            if isinstance(command, c.DeleteJob):
                self._uids.pop(command.name, None)
        if isinstance(command, c.Backfill) and is_new:
            self._follow_backfill(index, command, state, touched)
        if isinstance(command, c.Decide | c.PutJob | c.DeleteJob | c.PauseJob | c.ResumeJob):
            self._follow_jobs(index, state, command, decided)

    def _follow_tokens(self, index: int, command: c.Command, touched: list[str]) -> None:
        """A report under another token than the run's newest changes nothing."""
        told: list[Any] = []
        match command:
            case c.Start():
                told = list(command.starts)
            case c.NotStarted() | c.Lose():
                told = list(command.tokens)
            case c.TimeOut():
                told = list(command.tokens)
            case c.Finish():
                told = list(command.finished)
            case c.TakeOver():
                told = list(command.taken)
            case c.Conclude() | c.Hear():
                told = [command]
        current = {report.run for report in told if self._token_of(report.run) == report.fencing_token}
        for report in told:
            if report.run not in current:
                self.counts["reports under old tokens"] += 1
                if report.run in touched:
                    self.fail(I3, f"entry {index} changes {report.run} under old token {report.fencing_token}")

    def _token_of(self, run: str) -> int:
        known = self._rows.get(run)
        return 0 if known is None else known.token

    def _follow_time(self, index: int, state: State) -> None:
        if state.cluster_time < self._cluster_time or state.epoch < self._epoch:
            self.fail(I5, f"cluster time or epoch went back at {index}")
        self._limit_ms = limit = self.time_limit_ms()
        if state.cluster_time > limit:
            self.fail(I5, f"cluster time is {state.cluster_time - limit:.0f} ms beyond the bound at {index}")
        self._cluster_time, self._epoch = state.cluster_time, state.epoch

    def _follow_row(
        self, index: int, run: Run, state: State, command: c.Command, tokens: list[int], decided: Counter[int]
    ) -> None:
        known = self._rows.get(run.id)
        if known is None:
            self._follow_decision(index, run, state, command, decided)
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
        self.entrusted.follow(index, command, state.cluster_time, run)
        if run.state in ENDED and row != known:
            self.counts[f"runs {run.state}"] += 1
        self._rows[run.id] = row

    def _follow_decision(self, index: int, run: Run, state: State, command: c.Command, decided: Counter[int]) -> None:
        if run.cause not in COUNTED_CAUSES or run.part is not None:
            return
        first = run.scheduled_time if run.first is None else run.first
        last = run.scheduled_time if run.last is None else run.last
        known = self._jobs.get(run.uid)
        if known is None or first <= known.watermark:
            through = None if known is None else known.watermark
            checker = I11 if known is not None and first <= known.edited_at else I1
            self.fail(checker, f"{first} of job {run.job} is decided at {index}, decided through {through} already")
        job = state.by_uid.get(run.uid)
        if job is not None and last > job.decided_through:
            self.fail(I5, f"{last} of job {run.job} is decided at {index} beyond the watermark {job.decided_through}")
        if run.reason != REASON_PAUSED:
            if known is not None and known.is_paused:
                self.fail(I10, f"{run.job} is paused, and {run.id} was decided at {index} by {type(command).__name__}")
            decided[run.uid] += 1 if run.count is None else run.count
        self.counts["decisions"] += 1

    def _follow_jobs(self, index: int, state: State, command: c.Command, decided: Counter[int]) -> None:
        is_edit = not isinstance(command, c.Decide)
        for uid, job in state.by_uid.items():
            known = self._jobs.get(uid)
            if known is not None and job.decided_through == known.watermark and job.revision != index:
                continue
            if known is not None:
                if job.decided_through > self._limit_ms:
                    beyond = job.decided_through - self._limit_ms
                    self.fail(I5, f"the watermark of {job.name} is {beyond:.0f} ms beyond the bound at {index}")
                if job.decided_through < known.watermark:
                    self.fail(I5, f"the watermark of {job.name} goes from {known.watermark} to {job.decided_through}")
                if not known.is_paused:
                    owed = count(known.schedules, known.watermark, job.decided_through, known.anchor)
                    if owed != decided[uid]:
                        self.fail(I4, f"entry {index} moves {job.name} past {owed} times and decides {decided[uid]}")
            edited_at = job.decided_through if is_edit or known is None else known.edited_at
            schedules = schedules_of(state.policies[uid], job.name)
            if known is None or job.revision == index:
                self._limits[uid].append((index, state.policies[uid].max_running))
            self._jobs[uid] = _Known(job.decided_through, job.paused, schedules, job.anchor, edited_at)
            self._uids[job.name] = uid

    def _follow_edit(self, index: int, at: int, uid: int | None, decided: Counter[int]) -> None:
        """What a job owed as its edit was made is decided in that very entry."""
        known = self._jobs.get(uid or 0)
        if known is not None and not known.is_paused:
            owed = count(known.schedules, known.watermark, max(at, known.watermark), known.anchor)
            if owed != decided[uid or 0]:
                self.fail(I4, f"entry {index} edits a job that owes {owed} times, and decides {decided[uid or 0]}")

    def _follow_backfill(self, index: int, command: c.Backfill, state: State, touched: list[str]) -> None:
        """A run for each time of the calendar in the span that was asked for; nothing is decided by it."""
        uid, times = self._uids[command.name], command.times
        known, job = self._jobs[uid], state.by_uid[uid]
        made = sorted(state.runs[run].scheduled_time for run in touched if state.runs[run].log_index == index)
        owed = count(known.schedules, times[0] - 1, times[-1], known.anchor) if times else 0
        if made != times or owed != len(times) or (times and times[-1] > state.cluster_time):
            self.fail(BACKFILL, f"entry {index} makes runs for {made}, asked for were {times}, {owed} were due there")
        if job.decided_through != known.watermark:
            self.fail(BACKFILL, f"entry {index} moves {job.name} from {known.watermark} to {job.decided_through}")
        self._conserve(state, uid)

    def conserve(self, state: State) -> None:
        """I4, for each job: what the calendar counts since it counts is what its counters say."""
        for uid in state.by_uid:
            self._conserve(state, uid)

    def _conserve(self, state: State, uid: int) -> None:
        job = state.by_uid[uid]
        owed = count(schedules_of(state.policies[uid], job.name), job.counted_from, job.decided_through, job.anchor)
        if not job.paused and owed != job.fired + job.skipped:
            self.fail(I4, f"job {job.name} owed {owed}, fired {job.fired}, skipped {job.skipped} at {state.index}")

    def watched(self, node: str, watch: Conservation) -> None:
        """I4, as the shipped watch of a node sees it: it cries wolf never."""
        self.counts["jobs recounted by nodes"] = max(self.counts["jobs recounted by nodes"], watch.checked)
        if watch.difference:
            self.fail(I4, f"the watch of {node} sees {watch.difference} times too many or too few")

    # ---- starts of user code

    def refused(self, node: str, life: int, attempt: Attempt) -> None:
        """The start gate refuses a token, for ever."""
        self.counts["starts refused by the gate"] += 1
        self._refused[attempt.fencing_token] = f"{node} in its life {life}"

    def stopped(self, run: str, token: int) -> None:
        """User code is over, or its target has said so."""
        running = self._running.get(run)
        if running is not None and running[0] == token:
            del self._running[run]

    def _started_beside(self, node: str, attempt: Attempt, here: Where) -> None:
        """What another process runs has to be over; one that stands still cannot see to that itself (semantics 5.7)."""
        _, other, where = self._running.get(attempt.run_id, (0, "", here))
        if where is not here and not where.is_dead and where.busy_until <= self._conductor.now:
            self.fail(
                ONE_ATTEMPT, f"attempt {attempt.attempt} of {attempt.run_id} starts on {node}, one runs on {other}"
            )
        self._running[attempt.run_id] = (attempt.fencing_token, node, here)

    def started(self, node: str, life: int, attempt: Attempt, newest: State, where: Where) -> None:
        """User code starts; `newest` is the state of the node that has applied most."""
        what = (attempt.run_id, attempt.attempt)
        self.counts["starts"] += 1
        if (other := self._started.get(what)) is not None:
            self.fail(I2, f"attempt {attempt.attempt} of {attempt.run_id} starts on {node}, and did on {other}")
        self._started[what] = f"{node} in its life {life}"
        self._started_beside(node, attempt, where)
        if (who := self._refused.get(attempt.fencing_token)) is not None:
            self.fail(REFUSED, f"{attempt.run_id} starts under {attempt.fencing_token}, which {who} has refused")
        run = newest.runs.get(attempt.run_id)
        if run is None or run.fencing_token != attempt.fencing_token or run.state not in STARTED or run.node != node:
            seen = "gone" if run is None else f"{run.state} on {run.node} under token {run.fencing_token}"
            self.fail(I6, f"{attempt.run_id} starts on {node} under token {attempt.fencing_token}, and is {seen}")
            return
        self._started_among(node, run, newest)
        if isinstance(where, NodeLoop):
            self.began(node, run, newest)
        if run.part is not None:
            self.counts["starts of parts"] += 1
            if run.part.node not in (None, node):
                self.fail(MOVED, f"{attempt.run_id} starts on {node}, a part of a broadcast to {run.part.node}")
        self.counts["starts away from the leader"] += node != newest.leader
        self.counts["starts of runs of the past"] += run.cause == CAUSE_BACKFILL
        self.counts["starts of what follows"] += run.cause == CAUSE_CHAIN
        if attempt.attempt > 1:
            self.counts["retries started"] += 1
            policy = newest.policies.get(run.uid)
            ended = self._endings.get((attempt.run_id, attempt.attempt - 1))
            if policy is not None and policy.delivery == AT_MOST_ONCE and ended not in (FAILED, TIMED_OUT):
                self.fail(I2, f"{attempt.run_id} is tried again, its attempt {attempt.attempt - 1} ended {ended}")

    def _started_among(self, node: str, run: Run, newest: State) -> None:
        """Of one job no more runs are at work than may be, also beyond a cut (I9); processes that stand still aside.

        An edit that allows fewer ends nothing, so that the widest limit counts that any of them has lived under.
        """
        whole = run.id if run.part is None else run.part.parent
        self._whole[run.id] = (run.uid, whole)
        policy = newest.policies.get(run.uid)
        if policy is None or policy.max_running == UNLIMITED or whole in self._forced:
            return
        others = {
            other
            for run_id, (_, _, where) in self._running.items()
            if not where.is_dead and where.busy_until <= self._conductor.now
            for uid, other in [self._whole.get(run_id, (0, ""))]
            if uid == run.uid
        }
        others |= {self._whole.get(run_id, (0, run_id))[1] for run_id in self.entrusted.of_job(run.uid)}
        others -= {whole, *self._forced}
        since = min((self._rows[run_id].log_index for run_id in (whole, *others) if run_id in self._rows), default=0)
        earlier = [limit for at, limit in self._limits[run.uid] if at < since][-1:]
        limits = [policy.max_running, *earlier, *(limit for at, limit in self._limits[run.uid] if at >= since)]
        if UNLIMITED not in limits and len(others) >= max(limits):
            self.fail(I9, f"{run.id} of {run.job} starts on {node} beside {sorted(others)}")

    # ---- what clients were told

    def acknowledge(self, marker: str, index: int, term: int) -> None:
        """A client was told that its write stands at `index`, which is of `term`."""
        self.counts["acknowledged"] += 1
        self.acknowledged[marker] = index
        self.acknowledged_index = max(self.acknowledged_index, index)
        if self._written.get(marker) != [index]:
            self.fail(DURABLE, f"write {marker} was acknowledged at {index} and stands at {self._written.get(marker)}")
        if not self._are_enough(holders := self._holders(index, term)):
            self.fail(DURABLE, f"write {marker} at {index} was acknowledged, and is durable on {holders} only")

    def refuse(self, marker: str) -> None:
        """A client was told that its write was certainly not written."""
        self.counts["not written"] += 1
        self.unwritten.add(marker)
        if marker in self._written:
            self.fail(NOT_WRITTEN, f"write {marker} was refused, and stands at {self._written[marker]}")

    def read(self, before: int, index: int, applied: int, name: str, written: int, revision: int | None) -> None:
        """A read was served at `index`; `before` had been acknowledged when it was asked.

        Of the job `name` that had been `written`, it saw this revision; None: no such job.
        """
        self.counts["reads"] += 1
        if index < before or applied < index:
            self.fail(LINEARIZABLE, f"a read is served at {index} of {applied} applied; {before} was acknowledged")
        if (self._deleted.get(name, 0) if revision is None else revision) < written:
            self.fail(LINEARIZABLE, f"a read of {name} sees revision {revision}; {written} was acknowledged")

    def close(self, states: dict[str, State]) -> None:
        """At the end: the history holds what it should, and gives the states that the nodes have."""
        for marker, index in self.acknowledged.items():
            if self._written.get(marker) != [index]:
                self.fail(DURABLE, f"write {marker}, acknowledged at {index}, stands at {self._written.get(marker)}")
        for marker in sorted(self.unwritten):
            if marker in self._written:
                self.fail(NOT_WRITTEN, f"write {marker} was refused, and stands at {self._written[marker]}")
        for node, state in states.items():
            self._same(state, node)
        machine = Machine("replay", WallTime(SimClock(self._conductor)))
        for index in sorted(self._bodies):
            machine.apply(index, self._bodies[index])
        for node, state in states.items():
            if (state.index, state.digest) != (machine.state.index, machine.state.digest):
                self.fail(I14, f"{node} has digest {state.digest:x}, its log gives {machine.state.digest:x}")

    def _same(self, state: State, node: str) -> None:
        """The digest is that of the records, counted anew (I7)."""
        records: list[Record] = [record for table in TABLES for record in getattr(state, table).values()]
        fresh = (sum(map(record_hash, records)) + state._head_hash) % MODULUS
        if fresh != state.digest:
            self.fail(DIGEST, f"{node} has digest {state.digest:x} at {state.index}, its records give {fresh:x}")

    # ---- the log beneath

    def entry(self, node: str, entry: tuple[bytes, int, int]) -> None:
        """A node counts this entry as applied."""
        known = self.committed.get(entry[1])
        if known is None:
            self.committed[entry[1]] = entry
            if is_configuration(entry[0]):
                self._follow_members(entry)
            if not self._are_enough(holders := self._holders(entry[1], entry[2])):
                self.fail(COMMITTED, f"{node} has applied {entry[1]}, which is durable on {holders} only")
        elif known != entry:
            self.fail(ONE_HISTORY, f"{node} has {entry!r:.200} at {entry[1]}, another node {known!r:.200}")

    def _holders(self, index: int, term: int) -> list[str]:
        """On whose disks the entry is durable."""
        holders = []
        for name, log in self.durable.items():
            log.read()
            if log.has_gap:
                self.fail(COVERED, f"the log of {name} begins behind {log.base}, its snapshots end at {log.snapshot}")
            if log.holds(index, term):
                holders.append(name)
        return holders

    def still_durable(self) -> None:
        """What was acknowledged last has not been lost again."""
        entry = self.committed.get(self.acknowledged_index)
        if entry is not None and not self._are_enough(holders := self._holders(entry[1], entry[2])):
            self.fail(DURABLE, f"entry {entry[1]}, acknowledged long ago, is durable on {holders} only")

    def _are_enough(self, holders: list[str]) -> bool:
        """Whether they are a majority of a configuration by which a leader may count now."""
        return any(len(voters.intersection(holders)) > len(voters) // 2 for voters in self.in_force())

    def _follow_members(self, entry: tuple[bytes, int, int]) -> None:
        voters = frozenset(decode(entry[0]).voters)
        if self.configured and len(voters ^ self.voters) > 1:
            self.fail(MEMBERS, f"entry {entry[1]} makes {sorted(voters)} of {sorted(self.voters)}")
        self.counts["changes of members"] += 1
        self.voters, self.configured = voters, entry[1]

    def members(self, node: str, configurations: list[tuple[int, Any]]) -> None:
        """The log of a node holds these, the last of which it goes by."""
        pending = [index for index, _ in configurations if index not in self.committed]
        if len(pending) > 1:
            self.fail(MEMBERS, f"in the log of {node} none of the configurations {pending} is committed")
        for (_, one), (index, other) in pairwise(configurations):
            if len(set(one.voters) ^ set(other.voters)) > 1:
                self.fail(MEMBERS, f"entry {index} of {node} makes {other.voters} of {one.voters}")

    def installed(self, node: str, state: State) -> None:
        """A snapshot has taken the place of a node's state: as of its index all others had this very state."""
        digest = self._digests.get(state.index)
        if digest != state.digest:
            known = "nobody has applied that" if digest is None else f"another node had {digest:x}"
            self.fail(DIGEST, f"{node} has digest {state.digest:x} at {state.index} from a snapshot, {known}")
        self._same(state, node)

    def leads(self, node: str, term: int) -> None:
        if term not in self.leaders:
            self.counts["elections"] += 1
        if (other := self.leaders.setdefault(term, node)) != node:
            self.fail(ONE_LEADER, f"{node} and {other} lead term {term}")

    def match(self, leader: str, term: int, log: Any, matches: list[tuple[str, int]]) -> None:
        """A leader counts on these entries of the others."""
        for peer, index in matches:
            if peer in self.set_back:
                continue
            durable = self.durable[peer]
            durable.read()
            place = index - log[0][1]
            if place > 0 and durable.term == term and not durable.holds(index, log[place][2]):
                self.fail(MATCH, f"{leader} counts on entry {index} of {peer}, which has {durable.last} durably")
