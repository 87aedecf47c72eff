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
from raftcron.core.model import (
    AT_MOST_ONCE,
    CAUSE_BACKFILL,
    CAUSE_CHAIN,
    ENDED,
    FAILED,
    STARTED,
    TIMED_OUT,
    UNLIMITED,
    Run,
)
from raftcron.core.records import MODULUS, TABLES, Record, record_hash
from raftcron.core.state import State
from raftcron.errors import DamagedError
from raftcron.ports import Attempt
from raftcron.raft.configuration import decode, is_configuration
from raftcron.runtime.conservation import Conservation
from raftcron.runtime.machine import Machine
from raftcron.testing import sim_decisions, sim_steps
from raftcron.testing.sim_decisions import Decisions
from raftcron.testing.sim_disk import Disk
from raftcron.testing.sim_durable import DurableLog
from raftcron.testing.sim_loop import Conductor, NodeLoop, SimClock
from raftcron.testing.sim_steps import Steps
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
I1 = sim_decisions.I1
I2 = sim_steps.I2
I3 = "I3 tokens grow"
I4 = sim_decisions.I4
I5 = sim_decisions.I5
I8 = "I8 on time"
I9 = "I9 no more runs than may"
I6 = "I6 start under the newest token"
REFUSED = "a refused token never starts"
MOVED = "a part of a broadcast does not move"
ONE_ATTEMPT = "one attempt at a time"
I10 = sim_decisions.I10
I11 = sim_decisions.I11
BACKFILL = sim_decisions.BACKFILL
REQUESTED = sim_decisions.REQUESTED
DUE = sim_decisions.DUE
PLACED = sim_steps.PLACED
IN_TIME = sim_steps.IN_TIME
JOINED = sim_steps.JOINED
PATIENT = sim_steps.PATIENT
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
        self._deleted: dict[str, int] = {}  # job -> index of its last delete
        self._cluster_time = 0
        self._limit_ms = float("inf")  # as of the newest entry
        self._epoch = 0
        self._token = 0
        self._started: dict[tuple[str, int], str] = {}
        self._refused: dict[int, str] = {}  # token -> who refused it
        self._running: dict[str, tuple[int, str, Where]] = {}  # run -> token, node and process of its user code
        self._whole: dict[str, tuple[int, str]] = {}  # run or part of one -> its job, and the run
        self._forced: set[str] = set()  # runs by hand that overlap does not judge
        self._unlicensed: set[int] = set()  # tokens of attempts that go on when their node's lease ends
        self._kept: set[str] = set()
        self.entrusted = Entrusted(self.fail, self.counts)
        self.decisions = Decisions(self.fail, self.counts)
        self._steps = Steps(self.fail, self.counts)

    def fail(self, checker: str, text: str) -> None:
        """Note it: the conductor stops at the next look, since here a rim might swallow what is raised."""
        self.violations.append(Violation(checker, f"at {self._conductor.now:.3f} s: {text}"))

    # ---- entries

    def before(self, index: int, state: State) -> None:
        """An entry is about to be applied."""
        if index > self.highest:
            self._kept, state.touched_runs = state.touched_runs, set()
            self.decisions.before(state)

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
        self.decisions.below_the_watermark(command)
        tokens: list[int] = []
        for run_id in touched:
            run = state.runs.get(run_id) or state.noted_runs.get(run_id)  # the bound may have dropped it at once
            if run is not None:
                self._follow_row(index, run, state, command, tokens)
        if tokens:
            if min(tokens) <= self._token or len(set(tokens)) < len(tokens):
                self.fail(I3, f"entry {index} gives tokens {tokens} after {self._token}")
            self._token = max(tokens)
        self._steps.entry(index, command, state)
        self.decisions.entry(index, entry.at, command, state, touched, limit_ms=self._limit_ms, is_new=is_new)

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

    def _follow_row(self, index: int, run: Run, state: State, command: c.Command, tokens: list[int]) -> None:
        known = self._rows.get(run.id)
        if known is None:
            self.decisions.row(index, run, state, type(command).__name__)
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
        self._steps.row(index, known.state, known.attempt, known.token, run, state)
        if run.state in ENDED and row != known:
            self.counts[f"runs {run.state}"] += 1
        self._rows[run.id] = row

    def conserve(self, state: State) -> None:
        """I4, for each job."""
        self.decisions.conserve(state)

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
        token, other, where = self._running.get(attempt.run_id, (0, "", here))
        is_at_work = where is not here and not where.is_dead and where.busy_until <= self._conductor.now
        if is_at_work and token not in self._unlicensed:
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
        if not attempt.self_stop:
            self._unlicensed.add(attempt.fencing_token)
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
        policy = newest.policies.get(run.uid)
        self.counts["rule: isolation continue"] += policy is not None and policy.self_stop is False
        self.counts["starts of runs of the past"] += run.cause == CAUSE_BACKFILL
        self.counts["starts of what follows"] += run.cause == CAUSE_CHAIN
        if attempt.attempt > 1:
            self.counts["retries started"] += 1
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
            for run_id, (token, _, where) in self._running.items()
            if not where.is_dead and where.busy_until <= self._conductor.now and token not in self._unlicensed
            for uid, other in [self._whole.get(run_id, (0, ""))]
            if uid == run.uid
        }
        others |= {self._whole.get(run_id, (0, run_id))[1] for run_id in self.entrusted.of_job(run.uid)}
        others -= {whole, *self._forced}
        since = min((self._rows[run_id].log_index for run_id in (whole, *others) if run_id in self._rows), default=0)
        earlier = [limit for at, limit in self.decisions.limits[run.uid] if at < since][-1:]
        limits = [policy.max_running, *earlier, *(limit for at, limit in self.decisions.limits[run.uid] if at >= since)]
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
                self.fail(NOT_WRITTEN, f"write {marker} was refused, and stands in the end at {self._written[marker]}")
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
