"""The one place that knows PySyncObj's private parts: `Core`, the engine with its faults mended; nothing else leaves.

`Core` is a subclass of the engine's `SyncObj`.  It keeps the engine's terms, votes, replication and commit, and
replaces what surrounds them: eight private methods (the table at the end), six module names, transport and poller.
Both what is replaced and what is relied upon is pinned by a hash of its source, checked when this module is imported.

Rules that hold here (raft.md's rows in brackets):
- nothing is counted, committed, applied, answered or voted on the strength of bytes that are not synced [5];
- entries may leave before the leader's own sync, so that disk and network overlap [5];
- only `start_election` and the engine's own TimeoutNow begin an election [14];
- entries are applied by the host, once each; what the host raises ends the process [7];
- the stock snapshots, chunked entries, forwarding and pickle cannot be reached [1, 6, 8].
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import pysyncobj.config
import pysyncobj.transport
import pysyncobj.version

from raftcron.clock import Clock
from raftcron.errors import FatalError
from raftcron.raft import guard, stand_ins
from raftcron.raft.engine_copy import engine
from raftcron.raft.flow import Flow
from raftcron.raft.guard import (
    Answer,
    AppendEntries,
    BadMessageError,
    Entry,
    Offer,
    Refusal,
    TimeoutNow,
    Vote,
    VoteRequest,
)
from raftcron.raft.host import Host, Journal, Role
from raftcron.raft.pins import check_engine
from raftcron.raft.stand_ins import EngineClock, NoPoller, NoResolver, Outlet, Peer, ShutOff

BATCH_BYTES = 512 << 10  # of commands in one append_entries: long enough to be cheap, short enough not to hold the loop
BATCH_ENTRIES = 4096
APPLY_ENTRIES = 4096  # of one slice, whatever the clock says
APPLY_SECONDS = 0.010  # one slice; the rest follows after the loop has had its turn

NO_OP = b"\x01"  # the engine's own first entry of a term


# ---- what replaces the engine's module names ---------------------------------------------------------------------


engine.createJournal = lambda journal: journal  # is given what stands in conf.journalFile
engine.createPoller = lambda _kind: NoPoller()
engine.Serializer = lambda *_settings: ShutOff("Serializer")
engine.monotonicTime = _clock = EngineClock()
engine.pickle = ShutOff("pickle")
engine.globalDnsResolver = NoResolver  # the process's own, whose settings are not a node's to change


# ---- the engine, mended ------------------------------------------------------------------------------------------


class Core(engine.SyncObj):  # type: ignore[misc]  # the engine is not typed
    """One node's engine.  Synchronous: it moves only inside `step`, `receive` and the few calls below."""

    def __init__(
        self,
        name: str,
        journal: Journal,
        host: Host,
        clock: Clock,
        *,
        heartbeat_seconds: float,
        fallback_seconds: float,
        snapshot_index: int,
    ) -> None:
        """`snapshot_index`: the owner has restored what the log up to there has made; 0 if nothing.

        Who the others are is told by `set_members`.
        """
        self._host = host
        self._time = clock
        self._journal = journal
        self._peers: dict[str, Peer] = {}  # all that are replicated to, learners too
        self._flows: dict[str, Flow] = {}
        self._waiting: list[tuple[Peer, dict[str, Any]]] = []  # answers that leave after the next sync
        self._probe_heard = 0  # of the append_entries that the engine is taking
        self._claim: int | None = None  # what its answer may claim, likewise
        self._verified_commit = 1  # committed and checked here, but perhaps not yet synced
        self._voted_in: dict[str, int] = {}  # voter -> the last term in which its vote for us was counted
        self.passes = dict.fromkeys(guard.BRANCHES, 0)  # how often each was taken
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
        super().__init__(Peer(name), [], settings, transport=Outlet(self._dispatch))
        self.restored(snapshot_index)

    def set_members(self, voters: Collection[str], learners: Collection[str]) -> list[str]:
        """The other members from now on; who is neither is forgotten.  Learners are replicated to and do not count.

        Gives the names of those who are new: tell which of them are `connected`.
        """
        names = sorted({*voters, *learners})
        new = [name for name in names if name not in self._peers]
        for gone in set(self._peers) - set(names):
            self._forget(gone)
        self._peers = {name: self._peers.get(name) or Peer(name) for name in names}
        self._SyncObj__otherNodes = {self._peers[name] for name in sorted(voters)}
        self._SyncObj__readonlyNodes = {self._peers[name] for name in sorted(learners)}
        for name, node in self._peers.items():
            if name not in self._flows:
                self._flows[name] = Flow()
            if self.is_leader and node not in self._SyncObj__raftMatchIndex:
                self._SyncObj__raftMatchIndex[node] = 0
                self._SyncObj__raftNextIndex[node] = self.last_index + 1
                self._SyncObj__lastResponseTime[node] = self._time.monotonic()
        return new

    def _forget(self, name: str) -> None:
        node = self._peers[name]
        self._SyncObj__onNodeDisconnected(node)
        for kept in (self._SyncObj__raftMatchIndex, self._SyncObj__raftNextIndex, self._SyncObj__lastResponseTime):
            kept.pop(node, None)
        del self._flows[name]
        self._voted_in.pop(name, None)
        self._waiting = [(other, message) for other, message in self._waiting if other != node]

    def restored(self, index: int) -> None:
        """The owner holds what the log up to `index`, an entry that the journal has, has made: go on behind it.

        A candidate stands no more: its votes were given to another log, perhaps by voters of another configuration.
        """
        if self.role is Role.CANDIDATE:
            self._SyncObj__setState(Role.FOLLOWER)
        if index > self.applied_index:
            self._SyncObj__raftLastApplied = index
        if index > self.commit_index:
            self._SyncObj__raftCommitIndex: int = index
            self._SyncObj__raftLog.setRaftCommitIndex(index)
        self._verified_commit = max(self._verified_commit, self.commit_index)

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
        node = self._peers.get(peer)
        return 0 if node is None else int(self._SyncObj__raftMatchIndex.get(node, 0))

    @property
    def match_indexes(self) -> list[tuple[str, int]]:
        """The same of each peer."""
        match_of = self._SyncObj__raftMatchIndex
        return [(name, match_of.get(node, 0)) for name, node in self._peers.items()]

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
                if message["term"] == self.term:
                    self._host.transmit(node.id, message)
                else:  # a newer leader may have cut what it speaks of
                    self.passes["answer overtaken by a newer term"] += 1
        if self._verified_commit > self._SyncObj__raftCommitIndex and not self.is_leader:
            self._journal.sync()
            self._SyncObj__raftCommitIndex = self._verified_commit
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
        """Somebody is at `term`: if it is higher than ours, adopt it, and lead no more.  Raises BadMessageError."""
        guard.judge_term(term, self.term)
        if term > self.term:
            _clock.current = self._time
            self._SyncObj__setCurrentTerm(term, None)
            self._SyncObj__raftLeader = None
            self._SyncObj__setState(Role.FOLLOWER)

    def hand_over(self, peer: str) -> bool:
        """Leader only: ask a follower that has everything to hold an election at once."""
        return self._host.transmit(peer, {"type": "timeout_now", "term": self.term})

    def connected(self, peer: str) -> None:
        """A new connection: what was in flight on the old one is lost, so go on from what is known to be there.

        Nothing happens for who is no member, here and below: an awaited one has a connection before it is one.
        """
        if (node := self._peers.get(peer)) is None:
            return
        self._SyncObj__onNodeConnected(node)
        self._restart_flow(node)

    def disconnected(self, peer: str) -> None:
        if (node := self._peers.get(peer)) is not None:
            self._SyncObj__onNodeDisconnected(node)
            self._flows[peer].forget()

    def receive(self, peer: str, content: Any) -> None:
        """Take one of the engine's messages; answers leave with the next `flush`.  Raises BadMessageError."""
        _clock.current = self._time
        message = guard.parse(content)
        guard.judge_term(message.term, self.term)
        if (node := self._peers.get(peer)) is None or not self._host.counts(peer):
            self.passes[guard.OF_NO_MEMBER[type(message)]] += 1
            if not isinstance(message, AppendEntries | Offer | VoteRequest):
                return
            node = Peer(peer)  # it may lead, or stand, by a configuration that has not reached this node
        match message:
            case AppendEntries():
                self._take_append(node, message)
            case Offer():
                self._take_offer(node, message)
            case Answer():
                self._take_answer(node, message)
            case VoteRequest(term, last_index, last_term) if self._host.may_vote():
                end = {"last_log_index": last_index, "last_log_term": last_term}
                self._enter(node, {"type": "request_vote", "term": term, **end})
            case VoteRequest():
                self.passes["vote refused (no vote to give)"] += 1
            case Vote() if self._counts(node, message):
                self._enter(node, {"type": "response_vote", "term": message.term})
            case TimeoutNow() if self._host.may_stand():
                self._enter(node, {"type": "timeout_now", "term": message.term})
            case TimeoutNow():
                self.passes["order to stand refused (no voter)"] += 1

    def _enter(self, node: Peer, message: dict[str, Any]) -> None:
        engine.SyncObj._SyncObj__onMessageReceived(self, node, message)

    def _counts(self, node: Peer, vote: Vote) -> bool:
        """One vote a voter and election."""
        is_voter = node in self._SyncObj__otherNodes
        if (flaw := guard.judge_vote(vote, self.term, self._voted_in.get(node.id), is_voter)) is not None:
            self.passes[f"vote not counted ({flaw})"] += 1
            return False
        self._voted_in[node.id] = vote.term
        return True

    # ---- a follower takes entries --------------------------------------------------------------------------------

    def _is_current(self, node: Peer, message: AppendEntries | Offer) -> bool:
        self._probe_heard = message.probe
        if message.term < self.term:
            self.passes["append of a former term"] += 1
            self._answer(node)  # names our term, so that a leader of a former term learns of it [14]
            return False
        if message.term == self.term and self.leader not in (None, node.id):  # of two, whoever was heard first
            raise BadMessageError(f"{node.id} claims to lead term {message.term}, which {self.leader} leads")
        return True

    def _take_offer(self, node: Peer, offer: Offer) -> None:
        """A heartbeat of a leader whose log begins behind ours; it moves no commit index by itself [1].

        What is acknowledged is what has applied here: durable, and the same on every node.
        """
        if not self._is_current(node, offer):
            return
        self._enter(node, {"type": "append_entries", "term": offer.term, "commit_index": 0})
        if self.holds(offer.index, offer.entry_term):
            self.passes["snapshot covered by the log"] += 1
            self._verified_commit = max(self._verified_commit, offer.index)  # it is committed, and so is our copy [3]
            self._answer(node, success=True, next_index=offer.index + 1)
        else:
            self._answer(node, success=True, next_index=self.applied_index + 1)
            if self.applied_index < offer.index:
                self._host.offered(node.id, offer)
        self._host.heard_leader()

    def term_of(self, index: int) -> int:
        """The term of an entry that the log has."""
        return self._journal[index - self._journal[0][1]][2]

    def holds(self, index: int, term: int) -> bool:
        """Whether the log has the entry of this index and term."""
        place = index - self._journal[0][1]
        return 0 <= place < len(self._journal) and self._journal[place][2] == term

    def _take_append(self, node: Peer, append: AppendEntries) -> None:
        if not self._is_current(node, append):
            return
        verdict = guard.judge_append(self._journal, max(self.commit_index, self._verified_commit), append)
        message: dict[str, Any] = {"type": "append_entries", "term": append.term, "commit_index": 0}
        if isinstance(verdict, Refusal):
            if append.previous_index > self.last_index:
                self.passes["entry missing"] += 1
            else:
                is_gone = append.previous_index < self._journal[0][1]  # a snapshot has it
                self.passes["entry forgotten" if is_gone else "term differs"] += 1
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
                self._host.received(verdict.agreed + 1)
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
            # It may be another process, on a disk that was set back: what it holds is what it says from now on.
            self._SyncObj__raftMatchIndex[node] = 0

    def _near_commit(self) -> None:
        """The engine walks from its commit index to the new one, entry by entry; take it to the last step at once.

        An entry of this term that a majority holds is committed with all before it, so its predecessor is.
        """
        if not self.is_leader:
            return
        match_of = self._SyncObj__raftMatchIndex
        held = sorted([self.last_index, *(match_of[node] for node in self._SyncObj__otherNodes)], reverse=True)
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
        connected, next_of = self._SyncObj__connectedNodes, self._SyncObj__raftNextIndex
        last, commit = self.last_index, self.commit_index
        for name, node in self._peers.items():
            flow = self._flows[name]
            if (everyone or flow.told_commit != commit or next_of[node] <= last) and node in connected:
                self._replicate_to(node, flow, everyone, batches)

    def _replicate_to(
        self, node: Peer, flow: Flow, heartbeat: bool, batches: dict[int, tuple[list[Entry], int]]
    ) -> None:
        journal, next_of = self._journal, self._SyncObj__raftNextIndex
        first, last, commit = journal[0][1], self.last_index, self.commit_index
        if next_of[node] <= first:
            if heartbeat:
                self._offer(node, flow)
            return
        heartbeat = heartbeat or flow.told_commit != commit
        while True:
            begin: int = next_of[node]
            entries: list[Entry] = []
            size = 0
            if begin <= last and flow.is_open:
                if begin not in batches:
                    batches[begin] = self._batch(begin - first)
                entries, size = batches[begin]
            if not entries and not heartbeat:
                return
            heartbeat = False
            if not self._send_append(node, flow, begin, entries):
                return
            flow.told_commit = commit
            if entries:
                next_of[node] = entries[-1][1] + 1
                flow.sent(entries[-1][1], size)

    def _send_append(self, node: Peer, flow: Flow, begin: int, entries: list[Entry]) -> bool:
        message = {
            "type": "append_entries",
            "term": self.term,
            "commit_index": self.commit_index,
            "entries": entries,
            "prevLogIdx": begin - 1,
            "prevLogTerm": self.term_of(begin - 1),
            "probe": flow.probe,
        }
        return self._host.transmit(node.id, message)

    def _offer(self, node: Peer, flow: Flow) -> None:
        """The heartbeat of a follower that needs entries which are gone: a snapshot has them [9]."""
        if (offer := self._host.offer(node.id)) is not None:
            message = offer._replace(term=self.term, probe=flow.probe)
            self._host.transmit(node.id, {"type": "offer", **message._asdict()})
        else:  # it has rotted, and another one is being written: who leads is heard all the same, and refused
            self._send_append(node, flow, self._journal[0][1] + 1, [])

    def is_waited_for(self, peer: str) -> bool:
        """Leader only: whether the peer needs entries that are gone, so that only a snapshot brings it on."""
        node = self._peers.get(peer)
        return node is not None and self._SyncObj__raftNextIndex.get(node, math.inf) <= self._journal[0][1]

    def answered_within(self, seconds: float) -> set[str]:
        """Leader only: the other members from which an answer came so recently."""
        latest = self._time.monotonic() - seconds
        times = self._SyncObj__lastResponseTime
        return {name for name, node in self._peers.items() if times.get(node, -math.inf) > latest}

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
            if self._time.monotonic() > deadline:  # an entry may be a thousand jobs
                self._has_more_to_apply = index < self.commit_index
                break
        self._host.applied(self.applied_index)
        return False


OVERRIDDEN = {
    "_SyncObj__onBecomeLeader": Core._become_leader,
    "_SyncObj__sendAppendEntries": Core._send_to_all,
    "_SyncObj__sendNextNodeIdx": Core._engine_answers,
    "_SyncObj__applyLogEntries": Core._apply_slice,
    "_SyncObj__generateRaftTimeout": stand_ins.never,
    "_SyncObj__loadDumpFile": stand_ins.no_dump,
    "_SyncObj__tryLogCompaction": stand_ins.nothing,
    "_checkCommandsToApply": stand_ins.nothing,
}
for _name, _method in OVERRIDDEN.items():
    setattr(Core, _name, _method)


# ---- is this the engine that we know? ----------------------------------------------------------------------------

check_engine(pysyncobj.version.VERSION)
