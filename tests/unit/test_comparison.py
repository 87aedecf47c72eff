"""Which node stops by its digest: never one of a majority, always the odd one once it knows enough."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftcron.runtime.comparison import SAID_KEPT, Comparison, Difference

ABC = ("a", "b", "c")
FIVE = ("a", "b", "c", "d", "e")


def test_the_odd_one_of_three_differs_from_a_majority_and_the_others_do_not() -> None:
    """Two against one: the one is told where, and both digests; of the two each sees one that differs, no more."""
    digests = {"a": 7, "b": 7, "c": 8}
    found = {}
    for me in ABC:
        comparison = Comparison()
        for node in ABC:
            comparison.hear(node, [(10, digests[node])])
        found[me] = comparison.judge(me, {10: digests[me]}, ABC)
    assert found == {
        "a": Difference(10, 7, 8, False),
        "b": Difference(10, 7, 8, False),
        "c": Difference(10, 8, 7, True),
    }


def test_one_against_one_and_three_that_all_differ_have_no_majority() -> None:
    """Nobody can tell who is right."""
    comparison = Comparison()
    comparison.hear("b", [(10, 1)])
    found = comparison.judge("a", {10: 2}, ("a", "b"))
    assert found is not None and not found.is_odd
    comparison.hear("c", [(10, 3)])
    found = comparison.judge("a", {10: 2}, ABC)
    assert found is not None and not found.is_odd


def test_a_voter_that_repeats_itself_counts_once_and_its_newest_word_counts() -> None:
    """Of five, one voter's word said three times is no majority; a word taken back is none at all."""
    comparison = Comparison()
    for _ in range(3):
        comparison.hear("b", [(10, 1), (10, 1)])
    found = comparison.judge("a", {10: 2}, FIVE)
    assert found is not None and not found.is_odd
    comparison.hear("b", [(10, 2)])
    assert comparison.judge("a", {10: 2}, FIVE) is None


def test_a_learner_has_no_vote_and_may_be_the_odd_one() -> None:
    """What a node without a vote says is forgotten; a majority of the voters judges it all the same."""
    comparison = Comparison()
    comparison.hear("x", [(10, 1)])
    comparison.hear("y", [(10, 1)])
    assert comparison.judge("a", {10: 2}, ABC) is None
    comparison = Comparison()
    comparison.hear("a", [(10, 1)])
    comparison.hear("b", [(10, 1)])
    found = comparison.judge("x", {10: 2}, ABC)
    assert found is not None and found.is_odd


def test_what_is_said_of_an_index_ahead_counts_once_this_node_is_there() -> None:
    """A node that is behind, or starts again, compares when it comes to the index."""
    comparison = Comparison()
    comparison.hear("b", [(1024, 1)])
    comparison.hear("c", [(1024, 1)])
    assert comparison.judge("a", {1000: 5}, ABC) is None
    assert comparison.judge("a", {1000: 5, 1024: 2}, ABC) == Difference(1024, 2, 1, True)


def test_what_is_remembered_of_a_voter_is_bounded() -> None:
    """Its last words are kept, however much it says."""
    comparison = Comparison()
    comparison.hear("b", [(index, 1) for index in range(10_000)])
    assert {node: len(said) for node, said in comparison._said.items()} == {"b": SAID_KEPT}
    assert comparison.judge("a", {9_999: 2}, ABC) == Difference(9_999, 2, 1, False)


@given(
    digests=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    heard=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=40),
)
def test_no_member_of_a_majority_ever_stops(digests: list[int], heard: list[tuple[int, int]]) -> None:
    """Whatever is heard, in any order, any number of times; and who knows all and is odd does stop."""
    voters = [str(number) for number in range(len(digests))]
    for me in voters:
        comparison = Comparison()
        own = digests[int(me)]
        for number, index in heard:
            if number < len(digests):
                comparison.hear(str(number), [(index, digests[number])])
        found = comparison.judge(me, dict.fromkeys(range(4), own), voters)
        stops = found is not None and found.is_odd
        assert not (stops and 2 * digests.count(own) > len(digests))
        for voter in voters:
            comparison.hear(voter, [(0, digests[int(voter)])])
        found = comparison.judge(me, {0: own}, voters)
        most = max(digests, key=digests.count)
        is_odd = 2 * digests.count(most) > len(digests) and own != most
        assert (found is not None and found.is_odd) == is_odd
