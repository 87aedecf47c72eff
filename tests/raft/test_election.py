"""Elections: who stands when, who grants, and whom a broken connection does not depose."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.raft.election import RANK_SECONDS, Elections, PreVote, parse_pre_vote
from raftcron.raft.guard import BadMessageError
from tests.raft.virtual import VirtualLoop

SHORTEST, LONGEST = 0.6, 1.2


class Core:
    """What an election knows of the engine."""

    def __init__(self, leader: str | None) -> None:
        self.is_leader = False
        self.leader = leader
        self.term = 5
        self.last_index = 10
        self.last_term = 4
        self.elections = 0

    def start_election(self) -> None:
        self.elections += 1

    def observe_term(self, term: int) -> None:
        self.term = max(self.term, term)


class Stage:
    """The elections of n2 among n1 to n3 (or more), with what it sends kept."""

    def __init__(self, leader: str | None = "n1", count: int = 3, draw: float = 0.0, may_vote: bool = True) -> None:
        self.loop = VirtualLoop()
        self.core = Core(leader)
        self.peers = [f"n{number}" for number in range(1, count + 1) if number != 2]
        self.dead: set[str] = set()
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        self.uncounted: set[str] = set()  # whose seat is another directory's
        self.may_vote = may_vote
        self.may_stand = may_vote
        self.elections = Elections(
            "n2",
            self.peers,
            self.core,
            send=self.send,
            connected=lambda peer: peer not in self.dead,
            counts=lambda peer: peer not in self.uncounted,
            may_stand=lambda: self.may_stand,
            may_vote=lambda: self.may_vote,
            kick=lambda: None,
            run=lambda function: function(),
            loop=self.loop,
            clock=self.loop,
            draw=lambda: draw,
            timeout_seconds=(SHORTEST, LONGEST),
        )
        self.elections.start()

    def send(self, peer: str, kind: str, message: dict[str, Any]) -> bool:
        self.sent.append((peer, kind, message))
        return True

    def wait(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run_forever()

    def kill(self, peer: str) -> None:
        """The peer's process dies: its connection ends, and a reconnect is refused."""
        self.dead.add(peer)
        self.elections.lost(peer)
        self.elections.refused(peer)

    def ask(self, peer: str, term: int = 6, last_index: int = 10, last_term: int = 4) -> bool | None:
        """What n2 answers to a pre-vote: granted or not; None if it does not answer now."""
        before = len(self.sent)
        self.elections.asked(peer, PreVote(term, 1, last_index, last_term))
        answers = [m["granted"] for to, kind, m in self.sent[before:] if to == peer and kind == "prevoted"]
        return answers[0] if answers else None

    @property
    def asked(self) -> list[str]:
        """Whom n2 has asked for a pre-vote."""
        return [peer for peer, kind, _ in self.sent if kind == "prevote"]


@pytest.fixture
def stage() -> Any:
    """Makes stages, and closes their loops in the end."""
    stages: list[Stage] = []

    def make(*arguments: Any, **named: Any) -> Stage:
        stages.append(Stage(*arguments, **named))
        return stages[-1]

    yield make
    for each in stages:
        each.loop.close()


def test_nobody_stands_while_the_leader_is_heard(stage: Any) -> None:
    """Heartbeats hold the election back for as long as they come."""
    one = stage()
    for _ in range(100):
        one.wait(0.05)
        one.elections.heard_leader()
    assert one.asked == []


def test_a_silent_leader_is_followed_by_pre_votes_not_by_an_election(stage: Any) -> None:
    """After the time-out the term is not raised before a majority has granted."""
    one = stage()
    one.wait(SHORTEST + 0.01)
    assert one.asked == ["n1", "n3"]
    assert one.core.elections == 0
    one.elections.answered("n3", {"term": 5, "round": 1, "granted": True})
    assert one.core.elections == 1


def test_refusals_and_answers_of_former_rounds_do_not_count(stage: Any) -> None:
    """Only a granted answer to the round that is out is a step to the majority; each voter counts once."""
    one = stage(count=5)
    one.wait(SHORTEST + 0.01)
    one.wait(0.2)  # a second round
    one.elections.answered("n1", {"term": 5, "round": 1, "granted": True})
    one.elections.answered("n3", {"term": 5, "round": 2, "granted": False})
    for _ in range(3):
        one.elections.answered("n4", {"term": 5, "round": 2, "granted": True})
    assert one.core.elections == 0
    one.elections.answered("n5", {"term": 5, "round": 2, "granted": True})
    assert one.core.elections == 1


def test_an_answer_from_another_directory_than_the_seats_does_not_count(stage: Any) -> None:
    """Nor is its term taken: whoever has lost its seat and comes back under its name decides nothing."""
    one = stage()
    one.uncounted = {"n3"}
    one.wait(SHORTEST + 0.01)
    one.elections.answered("n3", {"term": 9, "round": 1, "granted": False})
    one.elections.answered("n3", {"term": 5, "round": 1, "granted": True})
    assert (one.core.elections, one.core.term) == (0, 5)
    assert one.elections.passes["pre-vote not counted (another directory)"] == 2
    one.elections.answered("n1", {"term": 5, "round": 1, "granted": True})
    assert one.core.elections == 1


def test_the_first_survivor_of_a_dead_leader_stands_at_once(stage: Any) -> None:
    """The end of the connection and a refused reconnect say that the process is dead: no time-out is waited for."""
    one = stage(leader="n1")
    one.kill("n1")
    assert one.asked == ["n1", "n3"]


def test_the_next_survivor_gives_the_first_one_a_head_start(stage: Any) -> None:
    """Rank counts those before it by name that are connected; without a new leader it stands too."""
    one = stage(leader="n3")
    one.kill("n3")
    one.wait(RANK_SECONDS * 0.9)
    assert one.asked == []
    one.wait(RANK_SECONDS * 0.2)
    assert one.asked == ["n1", "n3"]


def test_a_survivor_that_is_gone_too_has_no_rank(stage: Any) -> None:
    """Nobody waits for the dead."""
    one = stage(leader="n3", count=5)
    one.dead.add("n1")
    one.kill("n3")
    assert one.asked == ["n1", "n3", "n4", "n5"]


def test_a_broken_connection_alone_is_no_death(stage: Any) -> None:
    """Without a refused reconnect the leader may be well, so the ordinary time-out holds."""
    one = stage()
    one.elections.lost("n1")
    one.wait(SHORTEST * 0.9)
    assert one.asked == []


def test_a_refusal_without_a_lost_connection_is_no_death(stage: Any) -> None:
    """Where a connection lives, a refused second one says nothing."""
    one = stage()
    one.elections.refused("n1")
    one.wait(SHORTEST * 0.9)
    assert one.asked == []


def test_a_refusal_by_a_leader_whose_connection_did_not_end_here_is_no_death(stage: Any) -> None:
    """Of one that this node was not connected with, a refusal says nothing new."""
    one = stage()
    one.dead.add("n1")
    one.elections.refused("n1")
    one.wait(SHORTEST * 0.9)
    assert one.asked == []


def test_a_leader_that_comes_back_in_another_life_is_dead(stage: Any) -> None:
    """A process that restarts quickly refuses nobody, but its incarnation tells."""
    one = stage(leader="n1")
    one.elections.reborn("n1")
    assert one.asked == ["n1", "n3"]


def test_whoever_hears_the_leader_refuses(stage: Any) -> None:
    """One node with a broken connection deposes nobody."""
    one = stage()
    assert one.ask("n3") is False


def test_a_leader_grants_nothing(stage: Any) -> None:
    """It hears itself."""
    one = stage(leader="n2")
    one.core.is_leader = True
    one.wait(LONGEST)
    assert one.ask("n3") is False


def test_a_pre_vote_that_comes_before_our_own_news_is_granted_with_it(stage: Any) -> None:
    """Another survivor saw the leader's end first: it is refused, and granted as soon as we see that end too."""
    one = stage(leader="n1")
    assert one.ask("n3") is False
    one.kill("n1")
    assert ("n3", "prevoted", {"term": 5, "round": 1, "granted": True}) in one.sent
    assert one.asked == []


def test_a_pre_vote_that_was_refused_long_ago_is_not_granted_later(stage: Any) -> None:
    """Its round is over."""
    one = stage(leader="n1")
    assert one.ask("n3") is False
    one.wait(0.2)
    one.kill("n1")
    assert [m["granted"] for _, kind, m in one.sent if kind == "prevoted"] == [False]


def test_a_pre_vote_for_a_log_that_lacks_something_is_refused(stage: Any) -> None:
    """By term of the last entry first, then by length; an equal or longer log is granted."""
    one = stage(leader=None)
    assert one.ask("n3", last_index=9) is False
    assert one.ask("n3", last_index=99, last_term=3) is False
    assert one.ask("n3") is True


def test_a_pre_vote_for_a_term_that_is_not_new_is_refused_with_ours(stage: Any) -> None:
    """The asker learns of the term, and asks for the next one."""
    one = stage(leader=None)
    assert one.ask("n3", term=5) is False
    assert one.sent[-1][2]["term"] == 5
    one.elections.answered("n1", {"term": 8, "round": 1, "granted": False})
    assert one.core.term == 8


def test_whoever_grants_holds_back(stage: Any) -> None:
    """The one that was granted has a round's time before this node stands itself."""
    one = stage(leader="n1")
    one.wait(SHORTEST - 0.05)
    one.core.leader = None
    assert one.ask("n3") is True
    one.wait(0.1)
    assert one.asked == []
    one.wait(0.1)
    assert one.asked == ["n1", "n3"]


def test_of_two_that_stand_one_gives_way(stage: Any) -> None:
    """With equal logs the lower name goes first, lest the two split the vote; a longer log goes before all."""
    one = stage(leader=None)
    one.wait(SHORTEST + 0.01)
    assert one.ask("n3") is False
    assert one.ask("n1") is True
    two = stage(leader=None)
    two.wait(SHORTEST + 0.01)
    assert two.ask("n3", last_index=11) is True


def test_a_node_without_a_vote_neither_stands_nor_answers(stage: Any) -> None:
    """An empty node waits until it is known not to have lost its disk."""
    one = stage(leader=None, may_vote=False)
    one.wait(2 * LONGEST)
    assert one.asked == []
    assert one.ask("n3") is None


def test_a_learner_answers_and_does_not_stand(stage: Any) -> None:
    """A candidate may count it already, by an entry that has not reached it; it knows itself to be no voter."""
    one = stage(leader="n1")
    one.may_stand = False
    one.elections.set_voters(["n1", "n3"])
    one.kill("n1")
    one.wait(2 * LONGEST)
    assert one.asked == []
    assert one.ask("n3") is True


def test_only_voters_are_asked_and_counted(stage: Any) -> None:
    """A learner's grant is none, and neither is that of one that was removed while the round was out."""
    one = stage()
    one.elections.set_voters(["n1", "n2", "n3", "n4"])
    one.wait(SHORTEST + 0.01)
    assert one.asked == ["n1", "n3", "n4"]
    one.elections.answered("n4", {"term": 5, "round": 1, "granted": True})
    one.elections.set_voters(["n1", "n2", "n3", "n5"])
    one.elections.answered("n6", {"term": 5, "round": 1, "granted": True})
    one.elections.answered("n3", {"term": 5, "round": 1, "granted": True})
    assert one.core.elections == 0
    one.elections.answered("n5", {"term": 5, "round": 1, "granted": True})
    assert one.core.elections == 1


def test_a_last_voter_stands_without_asking(stage: Any) -> None:
    """Of a cluster that has shrunk to one; and what it grants itself is nothing once it votes no more."""
    one = stage(leader=None)
    one.elections.set_voters(["n2"])
    one.wait(SHORTEST + 0.01)
    assert (one.asked, one.core.elections) == ([], 1)
    two = stage(leader=None, count=2)
    two.elections.set_voters(["n1", "n3"])  # not this node, whatever may_stand says
    two.wait(SHORTEST + 0.01)
    two.elections.answered("n1", {"term": 5, "round": 1, "granted": True})
    assert two.core.elections == 0


def test_rank_is_counted_among_voters(stage: Any) -> None:
    """A learner of a lesser name stands in nobody's way."""
    one = stage(leader="n3")
    one.elections.set_voters(["n2", "n3", "n4"])
    one.kill("n3")
    assert one.asked == ["n3", "n4"]


def test_a_silent_leader_is_not_named_for_ever(stage: Any) -> None:
    """Past the longest time-out nobody knows who leads; past its death neither."""
    one = stage(leader="n1")
    assert one.elections.leader == "n1"
    one.wait(LONGEST + 0.01)
    assert one.elections.leader is None
    one.elections.heard_leader()
    one.kill("n1")
    assert one.elections.leader is None


@pytest.mark.parametrize("message", [None, {}, {"term": 1, "round": 1, "last_index": 1}, {"term": "1"}])
def test_a_pre_vote_that_does_not_fit_is_refused(message: Any) -> None:
    """Every field is checked."""
    with pytest.raises(BadMessageError):
        parse_pre_vote(message)


@pytest.mark.parametrize("message", [[], {"term": 5, "round": 1}, {"term": 5, "round": 1, "granted": 1}])
def test_an_answer_that_does_not_fit_is_refused(stage: Any, message: Any) -> None:
    """Every field is checked."""
    with pytest.raises(BadMessageError):
        stage().elections.answered("n1", message)
