"""The seam: it works with exactly the engine that it mends, and what is shut off cannot be reached."""

from __future__ import annotations

import inspect
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pysyncobj
import pysyncobj.syncobj
import pysyncobj.version
import pytest

from raftcron.errors import ConfigurationError, FatalError
from raftcron.raft import pins, seam
from raftcron.raft.engine_copy import engine
from raftcron.raft.guard import TERM_STEP_MAX, BadMessageError, Offer
from raftcron.raft.host import Host
from raftcron.raft.journal import Journal
from tests.raft.virtual import Disk, VirtualLoop


def test_the_installed_engine_is_the_one_that_is_mended() -> None:
    """Version and pinned sources agree; each pinned name exists."""
    pins.check_engine(pysyncobj.version.VERSION, pins.source_of)


@pytest.mark.parametrize("name", [line.split()[0] for line in pins._PINNED.strip().split("\n")])
def test_the_source_of_a_pinned_name_is_all_of_it(name: str) -> None:
    """What is hashed is what Python's own reader of sources finds."""
    module, *parts = name.split(".")
    found: Any = engine if module == "syncobj" else getattr(pysyncobj, module)
    for part in parts:
        found = getattr(found, f"_SyncObj{part}" if part.startswith("__") and part != "__init__" else part)
    assert pins.source_of(name) == inspect.getsource(found) != ""


def test_another_version_of_the_engine_is_refused() -> None:
    """The message names both versions and what to install."""
    with pytest.raises(ConfigurationError, match=r"version 0\.3\.18.*install exactly pysyncobj==0\.3\.17"):
        pins.check_engine("0.3.18", pins.source_of)


@pytest.mark.parametrize("name", ["syncobj.SyncObj._onTick", "syncobj.SyncObj.__onMessageReceived", "node.Node"])
def test_a_changed_method_is_refused_by_name(name: str) -> None:
    """One changed line in what is relied upon, and the node does not start."""
    with pytest.raises(ConfigurationError, match=name):
        pins.check_engine(
            pins.ENGINE_VERSION, lambda asked: pins.source_of(asked) + ("    pass\n" if asked == name else "")
        )


def test_a_method_that_is_gone_has_no_source() -> None:
    """So that it is refused by name, like a changed one."""
    assert pins.source_of("syncobj.SyncObj.__noSuchMethod") == ""


def test_every_overridden_method_exists_in_the_engine() -> None:
    """An override of a name that the engine does not call would mend nothing."""
    for name in seam.OVERRIDDEN:
        assert callable(getattr(engine.SyncObj, name))
        assert getattr(seam.Core, name) is seam.OVERRIDDEN[name]


def test_pickle_cannot_be_reached() -> None:
    """The engine's module has no pickle any more: not to load and not to dump."""
    for name in ("loads", "dumps", "dump", "load"):
        with pytest.raises(FatalError, match="shut off"):
            getattr(engine.pickle, name)


def test_the_stock_serializer_cannot_be_reached() -> None:
    """The engine's own snapshots have no way in or out."""
    with pytest.raises(FatalError, match="shut off"):
        engine.Serializer("dump", 1, False, None, None, None).deserialize()


class Counter(pysyncobj.SyncObj):  # type: ignore[misc]  # the engine is not typed
    """What an application that uses the engine itself might have."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = pysyncobj.SyncObjConf(
            autoTick=False, appendEntriesPeriod=0.01, raftMinTimeout=0.05, raftMaxTimeout=0.1, dnsCacheTime=7
        )
        super().__init__(f"127.0.0.1:{port}", [], settings)
        self.value = 0

    @pysyncobj.replicated  # type: ignore[untyped-decorator]  # likewise
    def add(self, count: int) -> None:
        self.value += count


def test_an_application_may_use_the_engine_itself() -> None:
    """Nothing of its own engine is replaced, though a node runs in the same process."""
    counter, loop = Counter(), VirtualLoop()
    try:
        Stage(loop)
        until = time.monotonic() + 10
        counter.add(3, callback=lambda *_: None)
        while counter.value == 0 and time.monotonic() < until:
            counter.doTick(0.01)
            if counter._isLeader() and not counter.value:
                counter.add(3, callback=lambda *_: None)
        assert counter.value >= 3
        assert pysyncobj.syncobj.SyncObj is not engine.SyncObj
        assert pysyncobj.syncobj.pickle is pysyncobj.pickle
        assert pysyncobj.dns_resolver.globalDnsResolver()._DnsCachingResolver__cacheTime == 7
    finally:
        counter.destroy()
        counter.doTick(0)
        loop.close()


def test_nodes_have_one_order_in_every_process() -> None:
    """Their hash is of the name's bytes, not Python's own, which is drawn anew for each process."""
    assert [hash(seam.Peer(name)) for name in ("n1", "n2")] == [0xEB7954EC, 0x72700556]


# ---- one engine by itself ------------------------------------------------------------------------------------------


class Stage:
    """The engine of n1 among n1 to n5; what it sends and applies is kept."""

    def __init__(self, clock: VirtualLoop) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.applied: list[tuple[int, bytes]] = []
        self.snapshot: Offer | None = None
        self.offered: list[tuple[str, Offer]] = []
        self.uncounted: set[str] = set()  # whose seat is another directory's
        self.disk = Disk()
        self.journal = Journal.open(Path("/"), self.disk)
        self.journal.begin("n1", "d1")
        host = Host(
            transmit=self.transmit,
            counts=lambda peer: peer not in self.uncounted,
            may_vote=lambda: True,
            may_stand=lambda: True,
            voted=lambda: None,
            heard_leader=lambda: None,
            received=lambda begin: None,
            offer=lambda peer: self.snapshot,
            offered=lambda peer, offer: self.offered.append((peer, offer)),
            elected=lambda: None,
            role_changed=lambda role: None,
            apply=lambda index, term, command: self.applied.append((index, command)),
            applied=lambda index: None,
        )
        names = ["n2", "n3", "n4", "n5"]
        self.core = seam.Core(
            "n1", self.journal, host, clock, heartbeat_seconds=0.05, fallback_seconds=0.8, snapshot_index=0
        )
        self.core.set_members(names, [])
        for name in names:
            self.core.connected(name)

    def transmit(self, peer: str, message: dict[str, Any]) -> bool:
        self.sent.append((peer, message))
        return True

    def stand(self) -> None:
        self.core.start_election()
        self.core.step()

    def vote(self, peer: str, term: int) -> None:
        self.core.receive(peer, {"type": "response_vote", "term": term})

    def lead(self) -> None:
        self.stand()
        self.vote("n2", 1)
        self.vote("n3", 1)
        self.core.step()

    def answer(self, peer: str, next_index: int, term: int = 1) -> None:
        answer = {"type": "next_node_idx", "term": term, "next_node_idx": next_index}
        self.core.receive(peer, answer | {"reset": False, "success": True, "probe": 0})

    @property
    def counted(self) -> dict[str, int]:
        """Which branches were taken, and how often."""
        return {branch: count for branch, count in self.core.passes.items() if count}

    def probe(self, peer: str) -> int:
        """What the last message to this peer said."""
        return next(message["probe"] for to, message in reversed(self.sent) if to == peer and "probe" in message)

    def append(self, peer: str, term: int, previous: tuple[int, int], *entries: list[Any], commit: int = 0) -> None:
        message = {"type": "append_entries", "term": term, "commit_index": commit, "entries": list(entries), "probe": 0}
        self.core.receive(peer, message | {"prevLogIdx": previous[0], "prevLogTerm": previous[1]})


def _answer(term: int, next_index: int, probe: int, *, reset: bool = False, success: bool = False) -> dict[str, Any]:
    answer = {"type": "next_node_idx", "term": term, "next_node_idx": next_index, "probe": probe}
    return answer | {"reset": reset, "success": success}


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A node that has just started."""
    loop = VirtualLoop()
    yield Stage(loop)
    loop.close()


def test_nothing_but_its_owner_starts_an_election(stage: Stage) -> None:
    """Hours of silence do not make it a candidate."""
    for _ in range(100):
        stage.core._time.now += 100  # type: ignore[attr-defined]
        stage.core.step()
    assert (stage.core.role, stage.core.term) == (seam.Role.FOLLOWER, 0)


def test_term_and_own_vote_are_durable_before_votes_are_asked_for(stage: Stage) -> None:
    """A candidate that comes back must not vote again in that term."""
    stage.stand()
    assert [message["type"] for _, message in stage.sent] == ["request_vote"] * 4
    after = Journal.open(Path("/"), stage.disk.crashed())
    assert (after.getCurrentTerm(), after.getVotedForNodeId()) == (1, "n1")


def test_a_vote_is_durable_before_it_is_sent(stage: Stage) -> None:
    """And only one is given in a term."""
    for peer in ("n2", "n3"):
        stage.core.receive(peer, {"type": "request_vote", "term": 4, "last_log_index": 1, "last_log_term": 0})
    assert stage.sent == [("n2", {"type": "response_vote", "term": 4})]
    after = Journal.open(Path("/"), stage.disk.crashed())
    assert (after.getCurrentTerm(), after.getVotedForNodeId()) == (4, "n2")


def test_a_voter_counts_once_an_election_and_again_in_the_next(stage: Stage) -> None:
    """A repeated vote is no second voter; a new election begins at nought."""
    stage.stand()
    for _ in range(3):
        stage.vote("n2", 1)
    assert not stage.core.is_leader
    stage.stand()
    stage.vote("n3", 1)  # of the election before
    stage.vote("n2", 2)
    assert not stage.core.is_leader
    stage.vote("n3", 2)
    assert stage.core.is_leader
    assert stage.counted == {"vote not counted (twice)": 2, "vote not counted (another term)": 1}


def test_a_learner_elects_nobody(stage: Stage) -> None:
    """It votes, since it may be a voter by an entry that has not reached it; it counts where the log says so."""
    stage.core.set_members(["n2", "n3"], ["n6"])
    stage.stand()
    stage.vote("n6", 1)
    assert not stage.core.is_leader
    assert stage.counted == {"vote not counted (no voter)": 1}
    stage.vote("n2", 1)
    assert stage.core.is_leader


def test_a_node_that_may_not_vote_or_stand_does_neither(stage: Stage) -> None:
    """Whatever it is asked, or told; its term is not moved either."""
    stage.core._host = replace(stage.core._host, may_vote=lambda: False, may_stand=lambda: False)
    stage.core.receive("n2", {"type": "request_vote", "term": 4, "last_log_index": 1, "last_log_term": 0})
    stage.core.receive("n2", {"type": "timeout_now", "term": 4})
    stage.core.step()
    assert (stage.sent, stage.core.term, stage.core.role) == ([], 0, seam.Role.FOLLOWER)
    assert stage.counted == {"vote refused (no vote to give)": 1, "order to stand refused (no voter)": 1}


def test_a_term_that_no_cluster_came_to_is_not_adopted(stage: Stage) -> None:
    """By no kind of message; there could be no election after it."""
    for message in (
        {"type": "request_vote", "last_log_index": 1, "last_log_term": 0},
        {"type": "response_vote"},
        {"type": "timeout_now"},
        _answer(0, 2, probe=0),
    ):
        with pytest.raises(BadMessageError, match="beyond ours, 0"):
            stage.core.receive("n2", message | {"term": 1 + TERM_STEP_MAX})
    with pytest.raises(BadMessageError, match="beyond ours, 0"):
        stage.core.observe_term(1 + TERM_STEP_MAX)
    assert (stage.core.term, stage.sent) == (0, [])


def test_an_entry_commits_when_a_majority_holds_it_and_is_applied_once(stage: Stage) -> None:
    """Two of four followers and the leader's own, synced, copy."""
    stage.lead()
    assert stage.core.append(b"\x00a") == 3
    stage.core.step()
    stage.answer("n2", 4)
    stage.core.step()
    assert stage.applied == []
    stage.answer("n3", 4)
    stage.core.step()
    stage.core.step()
    assert stage.applied == [(3, b"\x00a")]
    assert stage.journal.synced_index == 3


def test_an_entry_of_a_former_term_does_not_commit_by_counting(stage: Stage) -> None:
    """Only one of the leader's own term does, and takes those before it along."""
    stage.append("n2", 1, (1, 0), [b"\x00old", 2, 1])
    stage.stand()
    for peer in ("n2", "n3"):
        stage.vote(peer, 2)
    for peer in ("n2", "n3"):
        stage.answer(peer, 3, term=2)
    stage.core.step()
    assert stage.applied == []
    for peer in ("n2", "n3"):
        stage.answer(peer, 4, term=2)
    stage.core.step()
    assert stage.applied == [(2, b"\x00old")]


def test_a_leader_that_hears_of_a_higher_term_leads_no_more(stage: Stage) -> None:
    """Whatever the answer says otherwise."""
    stage.lead()
    stage.answer("n2", 1, term=7)
    assert (stage.core.role, stage.core.term) == (seam.Role.FOLLOWER, 7)


def test_answers_of_a_former_term_are_not_believed(stage: Stage) -> None:
    """They speak of another leader's log."""
    stage.append("n2", 3, (1, 0), [b"\x00a", 2, 3], [b"\x00b", 3, 3])
    stage.stand()
    for peer in ("n2", "n3"):
        stage.vote(peer, 4)
    stage.answer("n2", 4, term=3)
    assert stage.core.match_index("n2") == 0


def test_an_answer_that_a_newer_term_has_overtaken_does_not_leave(stage: Stage) -> None:
    """The leader of that term may have cut off, in the same batch, what the answer claims to hold."""
    stage.append("n2", 3, (1, 0), [b"\x00a", 2, 3])
    stage.core.observe_term(4)
    stage.core.flush()
    assert stage.sent == []
    assert stage.counted == {"answer overtaken by a newer term": 1}


def test_an_answer_beyond_the_end_of_the_log_is_a_bad_message(stage: Stage) -> None:
    """Nobody can hold what its leader does not; nothing is counted or moved by it."""
    stage.lead()
    with pytest.raises(BadMessageError, match="9 is beyond the end of the log, 2"):
        stage.answer("n2", 9)
    assert stage.core.match_index("n2") == 0


def test_an_append_of_a_lower_term_is_refused_with_ours(stage: Stage) -> None:
    """So that its sender learns of the term and steps down."""
    stage.core.observe_term(5)
    stage.append("n2", 4, (1, 0), [b"\x00a", 2, 4])
    stage.core.flush()
    ((peer, answer),) = stage.sent
    assert (peer, answer["term"], answer["success"]) == ("n2", 5, False)
    assert stage.core.last_index == 1


def test_an_answer_leaves_after_the_sync_and_once_for_a_run_of_batches(stage: Stage) -> None:
    """Nothing is acknowledged on the strength of bytes that are not synced; one sync serves the whole batch."""
    stage.core.observe_term(1)
    before = stage.disk.syncs
    for index in (2, 3, 4):
        stage.append("n2", 1, (index - 1, int(index > 2)), [b"\x00a", index, 1])
    assert (stage.sent, stage.disk.syncs) == ([], before)
    stage.core.flush()
    assert stage.disk.syncs == before + 1
    ((peer, answer),) = stage.sent
    assert (peer, answer["next_node_idx"], answer["success"]) == ("n2", 5, True)


def test_nothing_is_applied_before_it_is_synced(stage: Stage) -> None:
    """Not even what the leader says is committed."""
    stage.append("n2", 1, (1, 0), [b"\x00a", 2, 1], commit=2)
    assert stage.core.commit_index == 1
    stage.core.step()
    assert stage.applied == [(2, b"\x00a")]
    assert Journal.open(Path("/"), stage.disk.crashed())[-1] == (b"\x00a", 2, 1)


def test_the_loop_gets_its_turn_between_entries_that_take_long(stage: Stage) -> None:
    """However few they are: each may be a chunk of a thousand jobs."""
    clock = stage.core._time

    def apply(index: int, term: int, command: bytes) -> None:
        stage.applied.append((index, command))
        clock.now += 2 * seam.APPLY_SECONDS  # type: ignore[attr-defined]

    stage.core._host = replace(stage.core._host, apply=apply)
    stage.append("n2", 1, (1, 0), [b"\x00a", 2, 1], [b"\x00b", 3, 1], [b"\x00c", 4, 1], commit=4)
    for count in (1, 2, 3):
        stage.core.step()
        assert len(stage.applied) == count
        assert stage.core.has_more_to_apply is (count < 3)


def test_a_leader_sends_before_its_own_sync(stage: Stage) -> None:
    """Disk and network overlap: when the entries leave, the leader's own copy is not durable yet."""
    stage.lead()
    seen: list[int] = []
    transmit = stage.transmit
    object.__setattr__(
        stage.core._host, "transmit", lambda peer, m: seen.append(stage.journal.synced_index) or transmit(peer, m)
    )
    index = stage.core.append(b"\x00a")
    stage.core.step()
    assert set(seen) == {index - 1}
    assert stage.journal.synced_index == index


def test_two_leaders_of_one_term_are_not_believed(stage: Stage) -> None:
    """A leader takes no entries of its own term from another."""
    stage.lead()
    with pytest.raises(BadMessageError, match="n2 claims to lead term 1, which n1 leads"):
        stage.append("n2", 1, (1, 0))


def test_a_follower_believes_one_leader_a_term(stage: Stage) -> None:
    """The first it hears; it acknowledges no entries of another one, nor an offer.  The next term has its own."""
    stage.append("n2", 3, (1, 0), [b"\x00a", 2, 3])
    stage.core.flush()
    stage.sent.clear()
    with pytest.raises(BadMessageError, match="n3 claims to lead term 3, which n2 leads"):
        stage.append("n3", 3, (1, 0), [b"\x00b", 2, 3])
    with pytest.raises(BadMessageError, match="n3 claims to lead term 3, which n2 leads"):
        stage.core.receive("n3", _offer(3, 50, 2))
    stage.core.flush()
    assert (stage.sent, stage.offered, stage.core.leader) == ([], [], "n2")
    stage.append("n3", 4, (2, 3), [b"\x00c", 3, 4])
    assert (stage.core.leader, stage.core.last_index) == ("n3", 3)


def test_a_silent_follower_is_not_sent_without_bound(stage: Stage) -> None:
    """Beyond the window only heartbeats leave until it answers."""
    stage.lead()
    for _ in range(20):
        stage.core.append(b"\x00" + bytes(1 << 20))
    stage.core.step()
    size = sum(len(entry[0]) for peer, m in stage.sent if peer == "n2" for entry in m.get("entries", ()))
    assert 8 << 20 <= size <= 10 << 20
    stage.answer("n2", stage.core.last_index - 10)
    before = len(stage.sent)
    stage.core.step()
    assert any(m.get("entries") for peer, m in stage.sent[before:] if peer == "n2")


# ---- behind a snapshot ---------------------------------------------------------------------------------------------


def _offer(term: int, index: int, entry_term: int) -> dict[str, Any]:
    offer = Offer(term, 0, f"{index}-{entry_term}-{'0' * 32}", index, entry_term, 100, "c1", b"")
    return {"type": "offer", **offer._asdict()}


def _lead_and_forget(stage: Stage) -> None:
    """A leader whose log begins with entry 15, and n4, which has come with entry 1 alone."""
    stage.lead()
    for number in range(20):
        stage.core.append(b"\x00%d" % number)
    stage.core.step()
    for peer in ("n2", "n3"):
        stage.answer(peer, 22)
    stage.core.step()
    stage.journal.compact(15)
    stage.core.connected("n4")  # of which nothing is known: goes on from entry 2
    stage.core.receive("n4", _answer(1, 2, probe=stage.core._flows["n4"].probe, reset=True))


def test_a_follower_whose_entries_are_gone_is_offered_a_snapshot_with_each_heartbeat(stage: Stage) -> None:
    """It gets no entries, and its answers count like those of others."""
    _lead_and_forget(stage)
    stage.snapshot = Offer(0, 0, "15-1-" + "0" * 32, 15, 1, 100, "c1", b"")
    stage.sent.clear()
    stage.core._time.now += 0.1  # type: ignore[attr-defined]
    stage.core.step()
    (offer,) = [message for peer, message in stage.sent if peer == "n4"]
    assert (offer["type"], offer["index"], offer["term"]) == ("offer", 15, 1)
    assert stage.core.is_waited_for("n4")
    stage.core.receive("n4", _answer(1, 16, probe=stage.probe("n4"), success=True))
    assert not stage.core.is_waited_for("n4")
    stage.core.step()
    entries = [message for peer, message in stage.sent if peer == "n4" and message["type"] != "offer"]
    assert [message["prevLogIdx"] for message in entries] == [15]


def test_a_follower_whose_entries_are_gone_hears_a_leader_that_has_no_snapshot(stage: Stage) -> None:
    """Its newest one has rotted, and another is being written: both stay in office and in touch meanwhile."""
    _lead_and_forget(stage)
    for _ in range(3):
        stage.sent.clear()
        stage.core._time.now += 0.1  # type: ignore[attr-defined]
        stage.core.step()
        (append,) = [message for peer, message in stage.sent if peer == "n4"]
        assert (append["type"], append["prevLogIdx"], append["entries"]) == ("append_entries", 15, [])
        stage.core.receive("n4", _answer(1, 2, probe=append["probe"], reset=True))  # as its log ends with entry 1
        assert stage.core.is_waited_for("n4")
        assert "n4" in stage.core.answered_within(0.05)


def test_an_offer_moves_no_commit_index_and_acknowledges_only_what_has_applied(stage: Stage) -> None:
    """What the log holds beyond that was never checked against this leader."""
    stage.core.receive("n2", _offer(3, 50, 2))
    stage.core.step()
    ((peer, answer),) = [(peer, message) for peer, message in stage.sent if message["type"] == "next_node_idx"]
    assert (peer, answer["term"], answer["success"], answer["next_node_idx"]) == ("n2", 3, True, 2)
    assert stage.core.commit_index == 1
    assert [(peer, offer.index) for peer, offer in stage.offered] == [("n2", 50)]


def test_an_offer_of_an_entry_beyond_its_senders_term_is_none(stage: Stage) -> None:
    """No leader holds such an entry, and a log that began with it could not be continued."""
    with pytest.raises(BadMessageError, match="entry_term: 4 is beyond the sender's own term 3"):
        stage.core.receive("n2", _offer(3, 50, 4))
    assert (stage.core.term, stage.offered) == (0, [])


def test_votes_for_a_log_that_a_snapshot_has_replaced_elect_nobody(stage: Stage) -> None:
    """They were given to another log, by voters of another configuration, who may have elected another one since."""
    stage.core.observe_term(3)
    stage.stand()
    stage.vote("n2", 4)
    stage.journal.align(50, 2)
    stage.core.restored(50)
    stage.core.set_members(["n4", "n5"], [])  # of whom n4 alone is no majority
    stage.vote("n4", 4)
    assert (stage.core.role, stage.core.applied_index) == (seam.Role.FOLLOWER, 50)
    stage.stand()
    stage.vote("n4", 5)
    assert stage.core.is_leader


def test_each_kind_of_refusal_is_counted(stage: Stage) -> None:
    """An entry that is not there yet, one that a snapshot has replaced, and one of another term."""
    stage.append("n2", 1, (1, 0), [b"\x00a", 2, 1])
    stage.journal.align(50, 2)
    stage.core.restored(50)
    stage.append("n2", 3, (50, 2), [b"\x00a", 51, 2])
    for previous in ((60, 3), (40, 1), (51, 3)):
        stage.append("n2", 3, previous)
    assert stage.counted == dict.fromkeys(("entry missing", "entry forgotten", "term differs"), 1)


def test_an_offer_of_a_former_term_learns_of_ours(stage: Stage) -> None:
    """A deposed leader that offers snapshots must step down too."""
    stage.core.receive("n2", _offer(5, 50, 2))
    stage.core.step()
    stage.sent.clear()
    stage.offered.clear()
    stage.core.receive("n3", _offer(4, 60, 2))
    stage.core.step()
    assert [(message["term"], message["success"]) for _, message in stage.sent] == [(5, False)]
    assert stage.offered == []


def test_members_come_and_go(stage: Stage) -> None:
    """A learner is replicated to and does not count; who is gone is forgotten, and its messages say nothing."""
    stage.lead()
    stage.core.set_members(["n2", "n3"], ["n6"])
    stage.core.connected("n6")
    stage.core.append(b"\x00a")
    stage.core.step()
    assert {peer for peer, message in stage.sent if message.get("entries")} >= {"n2", "n3", "n6"}
    last = stage.core.last_index
    stage.core.receive("n6", _answer(1, last + 1, probe=stage.probe("n6"), success=True))
    stage.core.receive("n5", _answer(1, last + 1, probe=0, success=True))
    stage.core.step()
    assert stage.core.commit_index < last
    assert stage.core.match_index("n6") == last
    stage.answer("n2", last + 1)
    stage.core.step()
    assert stage.core.commit_index == last


def test_whoever_is_no_member_here_may_lead_or_stand(stage: Stage) -> None:
    """By a configuration that has not reached this node: entries, offers and requests for votes are taken."""
    stage.append("n9", 3, (1, 0), [b"\x00a", 2, 3])
    assert (stage.core.leader, stage.core.last_index) == ("n9", 2)
    stage.core.receive("n9", _offer(3, 50, 2))
    assert [(peer, offer.index) for peer, offer in stage.offered] == [("n9", 50)]
    stage.core.receive("n8", {"type": "request_vote", "term": 4, "last_log_index": 2, "last_log_term": 3})
    stage.core.flush()
    assert ("n8", {"type": "response_vote", "term": 4}) in stage.sent
    assert {"append of no member", "offer of no member", "vote request of no member"} <= stage.counted.keys()


def test_whoever_is_no_member_here_neither_elects_nor_counts_nor_commands(stage: Stage) -> None:
    """Its votes, answers and orders to stand are dropped."""
    stage.core.receive("n9", {"type": "timeout_now", "term": 1})
    stage.core.step()
    assert (stage.core.role, stage.core.term) == (seam.Role.FOLLOWER, 0)
    stage.stand()
    stage.vote("n2", 1)
    stage.vote("n9", 1)
    assert not stage.core.is_leader
    stage.vote("n3", 1)
    assert stage.core.is_leader
    for peer in ("n2", "n9"):
        stage.answer(peer, 3)
    stage.core.step()
    assert stage.core.commit_index == 1
    stage.answer("n3", 3)
    stage.core.step()
    assert stage.core.commit_index == 2
    dropped = ("order to stand of no member", "vote of no member", "answer of no member")
    assert stage.counted == dict.fromkeys(dropped, 1)


def test_whoever_comes_with_another_directory_than_its_seats_is_no_member(stage: Stage) -> None:
    """It is heard as a stranger is: its votes, answers and orders are dropped, its entries are taken."""
    stage.uncounted = {"n4", "n5"}
    stage.core.receive("n4", {"type": "timeout_now", "term": 1})
    stage.stand()
    for peer in ("n2", "n4", "n5"):
        stage.vote(peer, 1)
    assert not stage.core.is_leader
    stage.vote("n3", 1)
    assert stage.core.is_leader
    for peer in ("n2", "n4", "n5"):
        stage.answer(peer, 3)
    stage.core.step()
    assert stage.core.commit_index == 1
    stage.uncounted = {"n5"}
    stage.answer("n4", 3)
    stage.core.step()
    assert stage.core.commit_index == 2
    dropped = {"order to stand of no member": 1, "vote of no member": 2, "answer of no member": 2}
    assert stage.counted == dropped
