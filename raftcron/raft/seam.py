"""The one place that knows PySyncObj's private parts: `Core`, the engine with its faults mended; nothing else leaves.

`Core` is a subclass of the engine's `SyncObj`.  It keeps the engine's terms, votes, replication and commit, and
replaces what surrounds them: six private methods (the table at the end), five module names, transport and poller.
Both what is replaced and what is relied upon is pinned by a hash of its source, checked when this module is imported.

Rules that hold here (raft.md's rows in brackets):
- nothing is counted, committed, applied, answered or voted on the strength of bytes that are not synced [5];
- entries may leave before the leader's own sync, so that disk and network overlap [5];
- only `start_election` and the engine's own TimeoutNow begin an election [14];
- entries are applied by the host, once each; what the host raises ends the process [7];
- the stock snapshots, chunked entries, forwarding and pickle cannot be reached [1, 6, 8].
"""

from __future__ import annotations

import enum
import hashlib
import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import pysyncobj.config
import pysyncobj.syncobj as engine
import pysyncobj.transport
import pysyncobj.version

from raftcron.clock import Clock
from raftcron.errors import ConfigurationError, FatalError
from raftcron.raft import guard
from raftcron.raft.flow import Flow
from raftcron.raft.guard import (
    Answer,
    AppendEntries,
    BadMessageError,
    Entry,
    Refusal,
    TimeoutNow,
    Vote,
    VoteRequest,
)
from raftcron.raft.stand_ins import EngineClock, NoPoller, Outlet, Peer, ShutOff

ENGINE_VERSION = "0.3.17"

BATCH_BYTES = 512 << 10  # of commands in one append_entries: long enough to be cheap, short enough not to hold the loop
BATCH_ENTRIES = 4096
APPLY_ENTRIES = 4096  # of one slice, whatever the clock says
APPLY_SECONDS = 0.010  # one slice; the rest follows after the loop has had its turn

NO_OP = b"\x01"  # the engine's own first entry of a term


class Role(enum.IntEnum):
    """The engine's own numbers."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2


class Journal(guard.LogView, Protocol):
    """What the engine and `Core` use of the journal (journal.py)."""

    def sync(self) -> None:
        """All that was written is durable when this returns; nothing happens if it was so already."""


@dataclass(frozen=True, slots=True)
class Host:
    """What `Core` asks and tells its owner.  Called inside `step` and `receive`; must not call back into those."""

    transmit: Callable[[str, dict[str, Any]], bool]  # a message to a peer; False if it cannot leave now
    may_vote: Callable[[], bool]  # whether this node may vote at all (membership.py)
    voted: Callable[[], None]  # this node has voted for another
    heard_leader: Callable[[], None]  # a message of a current term has come from the leader
    received: Callable[[], None]  # entries of the leader have been written, perhaps others cut for them
    elected: Callable[[], None]  # this node leads now; its owner appends its first entries
    role_changed: Callable[[Role], None]
    apply: Callable[[int, int, bytes], None]  # index, term, command: committed; in order, each once; no no-ops
    applied: Callable[[int], None]  # a slice of entries up to this index has been applied


# ---- what replaces the engine's module names ---------------------------------------------------------------------


engine.createJournal = lambda journal: journal  # is given what stands in conf.journalFile
engine.createPoller = lambda _kind: NoPoller()
engine.Serializer = lambda *_settings: ShutOff("Serializer")
engine.monotonicTime = _clock = EngineClock()
engine.pickle = ShutOff("pickle")


# ---- the engine, mended ------------------------------------------------------------------------------------------


class Core(engine.SyncObj):  # type: ignore[misc]  # the engine is not typed
    """One node's engine.  Synchronous: it moves only inside `step`, `receive` and the few calls below."""

    def __init__(
        self,
        name: str,
        others: Iterable[str],
        journal: Journal,
        host: Host,
        clock: Clock,
        *,
        heartbeat_seconds: float,
        fallback_seconds: float,
    ) -> None:
        self._host = host
        self._time = clock
        self._journal = journal
        self._peers = {other: Peer(other) for other in sorted(others)}
        self._flows = {other: Flow() for other in self._peers}
        self._waiting: list[tuple[Peer, dict[str, Any]]] = []  # answers that leave after the next sync
        self._probe_heard = 0  # of the append_entries that the engine is taking
        self._claim: int | None = None  # what its answer may claim, likewise
        self._verified_commit = 1  # committed and checked here, but perhaps not yet synced
        self._voted_in: dict[str, int] = {}  # voter -> the last term in which its vote for us was counted
        self.passes: Counter[str] = Counter()  # how often each branch of the guard but the plain ones was taken
        self._has_more_to_apply = False
        self._is_rising = False
        _clock.current = clock
        settings = pysyncobj.config.SyncObjConf(
            autoTick=False,
            commandsWaitLeader=False,
            appendEntriesUseBatch=True,
            appendEntriesPeriod=heartbeat_seconds,
            raftMinTimeout=4 * heartbeat_seconds,  # not used; the engine insists on more than three periods
            raftMaxTimeout=5 * heartbeat_seconds,
            connectionTimeout=5 * heartbeat_seconds,
            leaderFallbackTimeout=fallback_seconds,
            dynamicMembershipChange=False,
            fullDumpFile=None,
            journalFile=journal,
            onStateChanged=self._on_state_changed,
        )
        super().__init__(Peer(name), list(self._peers.values()), settings, transport=Outlet(self._dispatch))

    # ---- what it knows -------------------------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        return Role(self._SyncObj__raftState)

    @property
    def is_leader(self) -> bool:
        return bool(self._SyncObj__raftState == Role.LEADER)

    @property
    def leader(self) -> str | None:
        """The name of the leader of the current term, as far as this node has heard."""
        node = self._SyncObj__raftLeader
        return None if node is None else str(node.id)

    @property
    def term(self) -> int:
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def commit_index(self) -> int:
        index: int = self._SyncObj__raftCommitIndex
        return index

    @property
    def applied_index(self) -> int:
        return int(self._SyncObj__raftLastApplied)

    @property
    def last_index(self) -> int:
        return self._journal[-1][1]

    @property
    def last_term(self) -> int:
        return self._journal[-1][2]

    @property
    def has_more_to_apply(self) -> bool:
        """Whether the last slice ended before the commit index: step again soon."""
        return self._has_more_to_apply

    def match_index(self, peer: str) -> int:
        """What a leader knows the peer to hold durably."""
        return int(self._SyncObj__raftMatchIndex.get(self._peers[peer], 0))

    # ---- what moves it -------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One turn: sync, count, apply a slice, send what is new, sync what was sent."""
        _clock.current = self._time
        self.flush()
        self._near_commit()
        self.doTick(0)
        if self.is_leader:
            self._replicate(everyone=False)
            self._journal.sync()

    def flush(self) -> None:
        """Make what has been received durable, then answer it and let its commit index count."""
        waiting = self._waiting
        if waiting:
            self._journal.sync()
            self._waiting = []
            for node, message in waiting:
                if message["term"] == self.term:  # else a newer leader may have cut what it speaks of
                    self._host.transmit(node.id, message)
        if self._verified_commit > self._SyncObj__raftCommitIndex and not self.is_leader:
            self._journal.sync()
            self._SyncObj__raftCommitIndex: int = self._verified_commit
            self._SyncObj__raftLog.setRaftCommitIndex(self._verified_commit)

    def append(self, command: bytes) -> int:
        """Leader only: put a command at the end of the log; it leaves with the next step.  Gives its index."""
        if not self.is_leader:
            raise FatalError("only a leader appends to the log; this is a defect of raft/engine.py")
        index = self.last_index + 1
        self._SyncObj__raftLog.add(command, index, self.term)
        return index

    def start_election(self) -> None:
        """Stand for election with the next step.  For election.py alone."""
        if not self.is_leader:
            self._SyncObj__raftElectionDeadline = -math.inf

    def observe_term(self, term: int) -> None:
        """Somebody is at `term`: if it is higher than ours, adopt it, and lead no more."""
        if term > self.term:
            _clock.current = self._time
            self._SyncObj__setCurrentTerm(term, None)
            self._SyncObj__raftLeader = None
            self._SyncObj__setState(Role.FOLLOWER)

    def hand_over(self, peer: str) -> bool:
        """Leader only: ask a follower that has everything to hold an election at once."""
        return self._host.transmit(peer, {"type": "timeout_now", "term": self.term})

    def connected(self, peer: str) -> None:
        """A new connection: what was in flight on the old one is lost, so go on from what is known to be there."""
        node = self._peers[peer]
        self._SyncObj__onNodeConnected(node)
        self._restart_flow(node)

    def disconnected(self, peer: str) -> None:
        self._SyncObj__onNodeDisconnected(self._peers[peer])
        self._flows[peer].forget()

    def receive(self, peer: str, content: Any) -> None:
        """Take one of the engine's messages; answers leave with the next `flush`.  Raises BadMessageError."""
        _clock.current = self._time
        node = self._peers[peer]
        message = guard.parse(content)
        match message:
            case AppendEntries():
                self._take_append(node, message)
            case Answer():
                self._take_answer(node, message)
            case VoteRequest() if self._host.may_vote():
                self._enter(
                    node,
                    {
                        "type": "request_vote",
                        "term": message.term,
                        "last_log_index": message.last_index,
                        "last_log_term": message.last_term,
                    },
                )
            case Vote() if self._counts(node, message):
                self._enter(node, {"type": "response_vote", "term": message.term})
            case TimeoutNow() if self._host.may_vote():
                self._enter(node, {"type": "timeout_now", "term": message.term})

    def _enter(self, node: Peer, message: dict[str, Any]) -> None:
        engine.SyncObj._SyncObj__onMessageReceived(self, node, message)

    def _counts(self, node: Peer, vote: Vote) -> bool:
        """One vote a voter and election."""
        if vote.term != self.term or self._voted_in.get(node.id) == vote.term:
            return False
        self._voted_in[node.id] = vote.term
        return True

    # ---- a follower takes entries --------------------------------------------------------------------------------

    def _take_append(self, node: Peer, append: AppendEntries) -> None:
        self._probe_heard = append.probe
        if append.term < self.term:
            self.passes["append of a former term"] += 1
            self._answer(node)  # names our term, so that a leader of a former term learns of it [14]
            return
        if append.term == self.term and self.is_leader:
            raise BadMessageError(f"{node.id} claims to lead term {append.term}, which this node leads")
        verdict = guard.judge_append(self._journal, max(self.commit_index, self._verified_commit), append)
        message: dict[str, Any] = {"type": "append_entries", "term": append.term, "commit_index": 0}
        if isinstance(verdict, Refusal):
            self.passes["entry missing" if append.previous_index > self.last_index else "term differs"] += 1
            self._enter(node, message)  # without a previous entry it tells term and leader, no more
            self._answer(node, reset=True, next_index=verdict.next_index)
        else:
            last = self.last_index
            self.passes["conflict cut"] += verdict.conflict
            self.passes["held entries skipped"] += len(verdict.entries) < len(append.entries)
            self.passes["tail left alone"] += verdict.acknowledged < last and not verdict.conflict
            at = verdict.agreed if verdict.entries else last  # with nothing to write, nothing may be cut
            message["prevLogIdx"] = at
            message["prevLogTerm"] = self._journal[at - self._journal[0][1]][2]
            message["entries"] = verdict.entries
            self._claim = verdict.acknowledged
            try:
                self._enter(node, message)
            finally:
                self._claim = None
            self._verified_commit = max(self._verified_commit, min(append.commit_index, verdict.acknowledged))
            if verdict.entries:
                self._host.received()
        self._host.heard_leader()

    def _engine_answers(self, node: Peer, **what: Any) -> None:
        """Replaces `__sendNextNodeIdx`: claims what was checked, not all that we hold."""
        if self._claim is None or what.get("reset") or not what.get("success"):
            raise FatalError(f"the engine refuses what the guard let through ({what}); this is a defect of raft/")
        self._answer(node, success=True, next_index=self._claim + 1)

    def _answer(self, node: Peer, reset: bool = False, next_index: int = 1, success: bool = False) -> None:
        """Stamped with term and probe, and held back until all is synced."""
        message = {
            "type": "next_node_idx",
            "term": self.term,
            "next_node_idx": next_index,
            "reset": reset,
            "success": success,
            "probe": self._probe_heard,
        }
        if success and self._waiting:
            other, before = self._waiting[-1]
            if other == node and before["success"] and before["term"] == self.term:
                message["next_node_idx"] = max(next_index, before["next_node_idx"])
                self._waiting.pop()  # one answer for a run of batches
        self._waiting.append((node, message))

    # ---- the leader takes answers, and sends ---------------------------------------------------------------------

    def _take_answer(self, node: Peer, answer: Answer) -> None:
        if answer.term > self.term:
            self.observe_term(answer.term)
        if answer.term != self.term or not self.is_leader:
            self.passes["answer of another term"] += 1
            return
        flow = self._flows[node.id]
        match_of, next_of = self._SyncObj__raftMatchIndex, self._SyncObj__raftNextIndex
        progress = guard.judge_answer(answer, flow.probe, match_of[node], next_of[node], self.last_index)
        message = {"type": "next_node_idx", "next_node_idx": answer.next_index, "reset": False}
        self._enter(node, message | {"success": answer.success})
        match_of[node], next_of[node] = progress.match_index, progress.next_index
        if progress.rewound:
            self.passes["rewound"] += 1
            flow.probe += 1
            flow.forget()
        else:
            self.passes["late refusal"] += answer.reset
            flow.answered(progress.match_index)

    def _restart_flow(self, node: Peer) -> None:
        flow = self._flows[node.id]
        flow.forget()
        flow.probe += 1
        matched = self._SyncObj__raftMatchIndex.get(node, 0)
        if self.is_leader and matched:
            self._SyncObj__raftNextIndex[node] = matched + 1

    def _near_commit(self) -> None:
        """The engine walks from its commit index to the new one, entry by entry; take it to the last step at once.

        An entry of this term that a majority holds is committed with all before it, so its predecessor is.
        """
        if not self.is_leader:
            return
        match_of = self._SyncObj__raftMatchIndex
        held = sorted([self.last_index, *(match_of[node] for node in self._peers.values())], reverse=True)
        agreed = held[len(held) // 2]
        if agreed > self.commit_index + 1 and self._journal[agreed - self._journal[0][1]][2] == self.term:
            self._journal.sync()  # our own copy counts too
            self._SyncObj__raftCommitIndex = agreed - 1

    def _send_to_all(self) -> None:
        """Replaces `__sendAppendEntries`: called by the engine when a heartbeat is due."""
        if self._is_rising:
            return
        self._SyncObj__newAppendEntriesTime = self._time.monotonic() + self.conf.appendEntriesPeriod * 0.9
        self._replicate(everyone=True)

    def _replicate(self, everyone: bool) -> None:
        """Send each follower what it does not have; with `everyone`, a heartbeat to those who have all."""
        batches: dict[int, tuple[list[Entry], int]] = {}  # followers in step share one
        connected = self._SyncObj__connectedNodes
        for node in self._peers.values():
            if node in connected:
                self._replicate_to(node, self._flows[node.id], everyone, batches)

    def _replicate_to(
        self, node: Peer, flow: Flow, heartbeat: bool, batches: dict[int, tuple[list[Entry], int]]
    ) -> None:
        journal, next_of = self._journal, self._SyncObj__raftNextIndex
        first, last, commit = journal[0][1], self.last_index, self.commit_index
        heartbeat = heartbeat or flow.told_commit != commit
        while True:
            begin: int = next_of[node]
            if begin <= first:
                raise FatalError(f"{node.id} asks for entry {begin}, but the log begins with {first}; a defect")
            entries: list[Entry] = []
            size = 0
            if begin <= last and flow.is_open:
                if begin not in batches:
                    batches[begin] = self._batch(begin - first)
                entries, size = batches[begin]
            if not entries and not heartbeat:
                return
            heartbeat = False
            message = {
                "type": "append_entries",
                "term": self.term,
                "commit_index": commit,
                "entries": entries,
                "prevLogIdx": begin - 1,
                "prevLogTerm": journal[begin - 1 - first][2],
                "probe": flow.probe,
            }
            if not self._host.transmit(node.id, message):
                return
            flow.told_commit = commit
            if entries:
                next_of[node] = entries[-1][1] + 1
                flow.sent(entries[-1][1], size)

    def _batch(self, place: int) -> tuple[list[Entry], int]:
        entries: list[Entry] = []
        size = 0
        for entry in self._journal[place : place + BATCH_ENTRIES]:
            entries.append(entry)
            size += len(entry[0])
            if size >= BATCH_BYTES:
                break
        return entries, size

    def _dispatch(self, node: Peer, message: dict[str, Any]) -> bool:
        """What the engine itself sends: requests for votes, and votes.  Its own term and vote are durable first."""
        if message["type"] not in {"request_vote", "response_vote"}:
            raise FatalError(f"the engine sends {message['type']!r} by itself; this is a defect of raft/seam.py")
        self._journal.sync()
        if message["type"] == "response_vote":
            self._host.voted()
        return self._host.transmit(node.id, message)

    # ---- what the engine calls -----------------------------------------------------------------------------------

    def _on_state_changed(self, _old: int, new: int) -> None:
        self._host.role_changed(Role(new))

    def _become_leader(self) -> None:
        """Wraps `__onBecomeLeader`, so that the host's first entries leave together with the engine's no-op."""
        for flow in self._flows.values():
            flow.forget()
            flow.probe += 1
        self._is_rising = True
        try:
            engine.SyncObj._SyncObj__onBecomeLeader(self)
        finally:
            self._is_rising = False
        self._host.elected()
        self._SyncObj__newAppendEntriesTime = -math.inf  # the next step speaks to everyone

    def _apply_slice(self) -> bool:
        """Replaces `__applyLogEntries`: bounded slices, each entry once, and no exception is survived."""
        journal = self._journal
        first, applied = journal[0][1], self.applied_index
        stop = min(self.commit_index, applied + APPLY_ENTRIES)
        self._has_more_to_apply = stop < self.commit_index
        if stop <= applied:
            return False
        deadline = self._time.monotonic() + APPLY_SECONDS
        for entry in journal[applied + 1 - first : stop + 1 - first]:
            command, index, term = entry
            if command != NO_OP:
                self._host.apply(index, term, command)
            self._SyncObj__raftLastApplied = index
            if index % 32 == 0 and self._time.monotonic() > deadline:
                self._has_more_to_apply = index < self.commit_index
                break
        self._host.applied(self.applied_index)
        return False

    def _never(self) -> float:
        """Replaces `__generateRaftTimeout`: the engine by itself never finds that it is time for an election."""
        return math.inf

    def _nothing(self) -> None:
        """Replaces what is not used: forwarding (`_checkCommandsToApply`) and compaction (`__tryLogCompaction`)."""

    def _no_dump(self, *_arguments: Any, **_named: Any) -> NoReturn:
        raise FatalError("the engine tried to load its own kind of snapshot, which raftcron never writes; a defect")


OVERRIDDEN = {
    "_SyncObj__onBecomeLeader": Core._become_leader,
    "_SyncObj__sendAppendEntries": Core._send_to_all,
    "_SyncObj__sendNextNodeIdx": Core._engine_answers,
    "_SyncObj__applyLogEntries": Core._apply_slice,
    "_SyncObj__generateRaftTimeout": Core._never,
    "_SyncObj__loadDumpFile": Core._no_dump,
    "_SyncObj__tryLogCompaction": Core._nothing,
    "_checkCommandsToApply": Core._nothing,
}
for _name, _method in OVERRIDDEN.items():
    setattr(Core, _name, _method)


# ---- is this the engine that we know? ----------------------------------------------------------------------------

# The first 16 hex digits of the SHA-256 of the source of everything that is replaced, wrapped or relied upon.
_PINNED = """
syncobj.SyncObj.__init__ 09df12cd7fd7d727
syncobj.SyncObj.doTick bef78c2ba06d784b
syncobj.SyncObj._onTick cc9eb08232d005ba
syncobj.SyncObj.__onMessageReceived ddfe34b6c0282179
syncobj.SyncObj.__onBecomeLeader 5a3fd97bc17dc1cf
syncobj.SyncObj.__setCurrentTerm 0ad5bf456ac06bd3
syncobj.SyncObj.__setState 2c1f239f7bd79b39
syncobj.SyncObj.__onLeaderChanged 53b7685e1d897887
syncobj.SyncObj.__onNodeConnected 2655afb481b4c69b
syncobj.SyncObj.__onNodeDisconnected a81c0475ba2218cc
syncobj.SyncObj.__connectedToAnyone acd40e9e3ac6c4cc
syncobj.SyncObj.__getCurrentLogIndex e5af22ca246686bd
syncobj.SyncObj.__getCurrentLogTerm 1cb8867e6a13d397
syncobj.SyncObj.__getEntries e29c4b33293b2101
syncobj.SyncObj.__deleteEntriesFrom 3b23c411bb903d36
syncobj.SyncObj.__onSetCodeVersion 17b050edb193c853
syncobj.SyncObj.__sendAppendEntries 9cb9073128c392fa
syncobj.SyncObj.__sendNextNodeIdx 68aaeefc267b8896
syncobj.SyncObj.__applyLogEntries 073db677773b5a2d
syncobj.SyncObj.__doApplyCommand 1ea7aa506e950d0a
syncobj.SyncObj.__generateRaftTimeout 92ed37d3620e781a
syncobj.SyncObj.__loadDumpFile ec66e83905de703b
syncobj.SyncObj.__tryLogCompaction c2f8a0ec14cc7312
syncobj.SyncObj._checkCommandsToApply a386a8079361d204
syncobj._RAFT_STATE 38948a15e3da01ce
syncobj._COMMAND_TYPE 58f27851ee19fca3
config.SyncObjConf e8d5f06ea6435e2c
node.Node 08d57d1bfde2aca1
transport.Transport 9b0212a7af6123e7
"""


def check_engine(version: str, source_of: Callable[[str], str]) -> None:
    """Raises ConfigurationError unless `version` and the source of every pinned name are the ones that are mended."""
    remedy = f"install exactly pysyncobj=={ENGINE_VERSION} (pip install --force-reinstall pysyncobj=={ENGINE_VERSION})"
    if version != ENGINE_VERSION:
        raise ConfigurationError(f"pysyncobj is of version {version}, raftcron knows {ENGINE_VERSION} only: {remedy}")
    for line in _PINNED.split("\n")[1:-1]:
        name, pinned = line.split()
        if hashlib.sha256(source_of(name).encode()).hexdigest()[:16] != pinned:
            raise ConfigurationError(f"{name} of pysyncobj is not the one that raftcron mends: {remedy}")


def source_of(name: str) -> str:
    """The source of a pinned name, `module.Class.method` inside pysyncobj; empty if there is none."""
    found: Any = pysyncobj
    for part in name.split("."):
        found = getattr(found, f"_{found.__name__}{part}" if part.startswith("__") and part[-1] != "_" else part, None)
        if found is None:
            return ""
    return inspect.getsource(found)


check_engine(pysyncobj.version.VERSION, source_of)
