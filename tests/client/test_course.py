"""The course of a request over the nodes, without any network: what is done next after each outcome."""

from __future__ import annotations

import pytest

from raftcron.client.addresses import Addresses, base
from raftcron.client.answers import Answer
from raftcron.client.course import Broken, Late, NotSent, Request, Try, Wait, course
from raftcron.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    RaftcronError,
    UnavailableError,
    UnknownOutcomeError,
)

A, B, C = (f"http://127.0.0.1:{port}" for port in (7101, 7102, 7103))
READ = Request("GET", "/v1/jobs/x", has_key=False)
KEYED = Request("POST", "/v1/jobs", has_key=True)
BARE = Request("POST", "/v1/jobs", has_key=False)
CLUSTER = [
    Request("POST", "/v1/cluster/members", has_key=True),
    Request("DELETE", "/v1/cluster/members/n3", has_key=True),
    Request("POST", "/v1/cluster/members/n3/replace", has_key=True),
    Request("POST", "/v1/cluster/transfer", has_key=True),
    Request("POST", "/v1/cluster/drain", has_key=True),
    Request("POST", "/v1/cluster/accept-time", has_key=True),
]
DOUBTS = [Answer(502, {}, None), Answer(504, {}, {"code": "unknown_outcome", "detail": "said unknown_outcome"})]
OK = Answer(200, {}, {"name": "x"})

Outcome = Answer | NotSent | Broken | Late


def refused(status: int, code: str, wait: str | None = None) -> Answer:
    return Answer(status, {} if wait is None else {"retry-after": wait}, {"code": code, "detail": f"said {code}"})


class Hand:
    """Plays the driver: answers each address as its script says, and moves a clock of its own while waiting."""

    def __init__(self, script: dict[str, list[Outcome]], addresses: Addresses | None = None) -> None:
        self.script = script
        self.addresses = addresses or Addresses([A, B, C])
        self.at = 0.0
        self.tried: list[str] = []
        self.given: list[float | None] = []

    def play(self, request: Request, patience: float = 0.0, leader: str | None = None) -> Answer:
        steps = course(request, self.addresses, leader, patience, lambda: self.at)
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            if isinstance(step, Wait):
                self.at += step.seconds
                outcome = None
            else:
                assert isinstance(step, Try)
                self.tried.append(step.address)
                self.given.append(step.seconds)
                said = self.script[step.address]
                outcome = said.pop(0) if len(said) > 1 else said[0]


def test_the_node_that_answered_is_asked_first_the_next_time() -> None:
    """A dead node is passed over once, not at each request."""
    hand = Hand({A: [NotSent("refused")], B: [OK], C: [OK]})
    assert hand.play(READ) == OK
    assert hand.play(READ) == OK
    assert hand.tried == [A, B, B]


def test_each_node_is_asked_once_without_patience() -> None:
    """Nothing could be reached: the error names each address and why."""
    hand = Hand({one: [NotSent("refused")] for one in (A, B, C)})
    with pytest.raises(UnavailableError, match=r"7101: refused.*7102: refused.*7103: refused"):
        hand.play(READ)
    assert hand.tried == [A, B, C]


def test_patience_outlasts_an_election() -> None:
    """Nodes without a leader are asked again until one has it, within the time that was given."""
    nobody = refused(503, "unavailable")
    hand = Hand({A: [nobody, nobody, OK], B: [nobody], C: [nobody]})
    assert hand.play(KEYED, patience=10.0) == OK
    assert 0 < hand.at < 1


def test_patience_ends() -> None:
    """The last answer is the error, and no more time has passed than was given."""
    hand = Hand({one: [refused(503, "unavailable")] for one in (A, B, C)})
    with pytest.raises(UnavailableError, match="said unavailable"):
        hand.play(KEYED, patience=5.0)
    assert 3 < hand.at <= 5


def test_a_node_that_asks_to_wait_is_heeded() -> None:
    """Retry-After is the least pause between two rounds."""
    hand = Hand({one: [refused(503, "unavailable", "3")] for one in (A, B, C)})
    with pytest.raises(UnavailableError):
        hand.play(KEYED, patience=7.0)
    assert hand.at == 6.0


@pytest.mark.parametrize("outcome", [Broken("reset"), *DOUBTS])
@pytest.mark.parametrize("request_", [KEYED, *CLUSTER])
def test_a_keyed_write_whose_outcome_is_not_known_is_asked_again(request_: Request, outcome: Outcome) -> None:
    """The key makes twice do no more than once, of what changes the cluster too."""
    hand = Hand({A: [outcome], B: [OK], C: [OK]})
    assert hand.play(request_) == OK
    assert hand.tried == [A, B]


@pytest.mark.parametrize("outcome", [Broken("reset"), *DOUBTS])
def test_what_may_not_be_repeated_ends_with_the_doubt(outcome: Outcome) -> None:
    """No other node is asked."""
    hand = Hand({A: [outcome], B: [OK], C: [OK]})
    with pytest.raises(UnknownOutcomeError):
        hand.play(BARE)
    assert hand.tried == [A]


@pytest.mark.parametrize("outcome", [Broken("reset"), *DOUBTS])
@pytest.mark.parametrize(
    "after",
    [NotSent("refused"), refused(503, "unavailable"), refused(409, "conflict", "60")],
    ids=["unreached", "not written", "under way"],
)
def test_a_doubt_outlives_what_other_nodes_say(outcome: Outcome, after: Outcome) -> None:
    """The first try may have been written, though every later one certainly was not, or is told to wait for it."""
    hand = Hand({A: [outcome, after], B: [after], C: [after]})
    with pytest.raises(UnknownOutcomeError):
        hand.play(KEYED, patience=5.0)


def test_a_read_that_breaks_off_is_not_in_doubt() -> None:
    """It writes nothing: another node is asked, and what remains is that none could answer."""
    for outcome in (Broken("reset"), *DOUBTS):
        assert Hand({A: [outcome], B: [OK], C: [OK]}).play(READ) == OK
    with pytest.raises(UnavailableError, match="reset"):
        Hand({one: [Broken("reset")] for one in (A, B, C)}).play(READ)


def test_a_read_goes_on_past_a_node_that_is_slow_to_answer() -> None:
    """It is left only while others have not been asked, is asked last then, and has all the time that there is."""
    hand = Hand({A: [Late(), OK], B: [OK], C: [OK]})
    for _ in range(2):
        assert hand.play(READ) == OK
    assert hand.tried == [A, B, B]
    slow = Hand({one: [Late(), OK] for one in (A, B, C)})
    assert slow.play(READ) == OK
    assert slow.tried == [A, B, C, A]
    assert [one is None for one in slow.given] == [False, False, False, True]
    with pytest.raises(UnavailableError, match="timed out"):
        Hand({A: [Late(), Broken("timed out")], B: [NotSent("refused")], C: [NotSent("refused")]}).play(READ)


@pytest.mark.parametrize("request_", [KEYED, BARE, *CLUSTER])
def test_no_write_is_hurried(request_: Request) -> None:
    """Nobody gives up what may have been written before its time; nor a read that has nowhere else to go."""
    hand = Hand({A: [NotSent("refused")], B: [OK], C: [OK]})
    hand.play(request_)
    alone = Hand({A: [OK]}, Addresses([A]))
    alone.play(READ)
    assert hand.given + alone.given == [None, None, None]


def test_a_member_that_is_gone_when_its_removal_is_repeated_was_removed() -> None:
    """The key of a removal is kept behind it: where the leader dies between both, the repeat finds no member."""
    missing = refused(404, "not_found")
    remove, job = CLUSTER[1], Request("DELETE", "/v1/jobs/x", has_key=True)
    assert Hand({A: [Broken("reset")], B: [missing], C: [OK]}).play(remove) == Answer(204, {}, None)
    for request, first in ((remove, missing), (remove, refused(503, "unavailable")), (job, Broken("reset"))):
        with pytest.raises(NotFoundError):
            Hand({A: [first], B: [missing], C: [OK]}).play(request)


def test_a_leader_that_cannot_be_reached_is_asked_last() -> None:
    """Until it answers again: where its address is one for other networks, not every write has to wait for it."""
    addresses = Addresses([A, B])
    addresses.learn([{"name": "n3", "http": C.removeprefix("http://")}])
    hand = Hand({A: [OK], B: [NotSent("refused")], C: [NotSent("timed out"), OK]}, addresses)
    for _ in range(2):
        hand.play(KEYED, leader="n3")
    assert hand.tried == [C, A, A]
    hand.script[A] = [NotSent("refused")]
    for _ in range(2):
        hand.play(KEYED, leader="n3")
    assert hand.tried[3:] == [A, B, C, C]


def test_members_that_have_left_are_forgotten() -> None:
    """What the caller named stays; of the rest only those of now are kept, so that their number has a bound."""
    addresses = Addresses([A])
    for port in range(8000, 8100):
        addresses.learn([{"name": f"n{port}", "http": f"127.0.0.1:{port}"}])
    assert addresses.round() == [A, "http://127.0.0.1:8099"]
    addresses.learn([{"name": f"n{port}", "http": f"127.0.0.1:{port}"} for port in range(8000, 8100)])
    for name in ("n8000", "n8099"):
        for address in addresses.round(name):
            addresses.served(address)
    assert len(addresses.round()) == 17


def test_no_member_is_asked_without_the_encryption_that_was_named() -> None:
    """A token that was to travel under TLS does so to every node."""
    addresses = Addresses(["https://127.0.0.1:7101"])
    addresses.learn([{"name": "n2", "http": "127.0.0.1:7102"}, {"name": "n3", "http": C}])
    assert addresses.round() == ["https://127.0.0.1:7101", "https://127.0.0.1:7102"]


def test_a_repeat_waits_for_the_first_try() -> None:
    """409 with Retry-After: the first request of this key is still under way; without it the conflict stands."""
    hand = Hand({A: [Broken("reset")], B: [refused(409, "conflict", "1"), OK], C: [OK]})
    assert hand.play(KEYED, patience=5.0) == OK
    assert hand.at >= 1
    with pytest.raises(ConflictError):
        Hand({A: [refused(409, "conflict")], B: [OK], C: [OK]}).play(KEYED, patience=5.0)


def test_a_refusal_is_final() -> None:
    """What one node knows, all know: nobody else is asked."""
    hand = Hand({A: [refused(404, "not_found")], B: [OK], C: [OK]})
    with pytest.raises(NotFoundError, match="said not_found"):
        hand.play(READ, patience=5.0)
    assert hand.tried == [A]


def test_a_write_goes_to_the_leader_first() -> None:
    """Where the cluster has told which node that is; one hop is saved, and a node that was not named is found."""
    addresses = Addresses([A])
    addresses.learn([{"name": "n1", "http": "127.0.0.1:7101"}, {"name": "n2", "http": B}, {"name": "bad"}])
    hand = Hand({A: [OK], B: [OK]}, addresses)
    hand.play(KEYED, leader="n2")
    hand.play(KEYED, leader="unheard of")
    assert hand.tried == [B, B]


@pytest.mark.parametrize(
    "text", ["", "host", "ftp://host:1", "http://host", "http://host:1/path", "http://u@host:1", "http://host:x"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """With the form that is expected."""
    with pytest.raises(InvalidError, match="http://HOST:PORT"):
        base(text)


def test_a_text_is_one_address() -> None:
    """Not as many as it has letters."""
    assert Addresses(A).round() == Addresses([A]).round() == [A]


def test_a_fault_of_the_cluster_is_an_error_of_the_tree() -> None:
    """Also a code that this release does not know: by its status."""
    with pytest.raises(RaftcronError, match="said odd") as caught:
        Hand({A: [refused(404, "odd")], B: [OK], C: [OK]}).play(READ)
    assert isinstance(caught.value, NotFoundError)
