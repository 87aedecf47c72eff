"""Membership: whom a node lets in, when it may vote, and what the formation entry settles."""

from __future__ import annotations

import pytest

from raftcron import wire
from raftcron.errors import ConfigurationError, DamagedError, FatalError, NewerVersionError
from raftcron.raft.membership import FORMATION, Formation, Membership, decode_formation, encode_formation
from raftcron.raft.transport import Hello

NAMES = ["n1", "n2", "n3"]
DISKS = {"n1": "d1", "n2": "d2", "n3": "d3"}
FORMED = Formation("c1", DISKS)


def hello(name: str, disk: str | None = None, cluster: str | None = None, is_empty: bool = True) -> Hello:
    return Hello(name, disk or DISKS.get(name, "d9"), cluster, 1, is_empty)


def member(cluster_id: str | None = None) -> Membership:
    """n1's view."""
    return Membership("n1", NAMES, "d1", cluster_id)


def formed() -> Membership:
    membership = member()
    membership.apply(FORMED)
    return membership


def test_members_come_in() -> None:
    """Before the formation with any disk, after it with the one that was recorded."""
    assert member().admit(hello("n2"), None) is None
    assert formed().admit(hello("n2", cluster="c1", is_empty=False), None) is None
    assert formed().admit(hello("n2"), None) is None  # it has not heard of the formation yet


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [
        (hello("n1"), "two nodes are called n1"),
        (hello("n9"), "n9 is not a member; the members are n1, n2, n3"),
        (hello("n2", cluster="c2", is_empty=False), "n2 belongs to cluster c2, n1 to cluster c1"),
        (hello("n2", disk="d8"), "an empty data directory .*disk d8, the cluster knows disk d2.*replace n2"),
        (hello("n2", disk="d8", is_empty=False), "another data directory .*raftcron cluster replace n2"),
    ],
)
def test_strangers_stay_out_with_a_reason(greeting: Hello, reason: str) -> None:
    """Each refusal says who, what and what to do."""
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(formed().admit(greeting, None))


def test_two_disks_under_one_name_do_not_both_come_in() -> None:
    """Before the formation, too, a second node under the name of one that is connected is refused."""
    assert "two nodes are called n2" in (member().admit(hello("n2", disk="d8"), connected_disk="d2") or "")
    assert member().admit(hello("n2"), connected_disk="d2") is None


def test_an_empty_node_votes_once_all_have_been_heard_to_be_empty() -> None:
    """A majority is not enough, and one that holds something does not count."""
    membership = member()
    membership.heard(hello("n2"))
    assert not membership.may_vote(is_empty=True)
    assert membership.missing() == ["n3"]
    membership.heard(hello("n3", is_empty=False))
    assert not membership.may_vote(is_empty=True)
    membership.heard(hello("n3"))
    assert membership.may_vote(is_empty=True)


def test_a_node_that_holds_something_votes() -> None:
    """It was let in by a leader, or it took part in the first election."""
    assert member().may_vote(is_empty=False)


def test_the_formation_names_every_disk() -> None:
    """The first leader waits until it knows them all."""
    membership = member()
    membership.heard(hello("n2"))
    assert membership.unknown() == ["n3"]
    membership.heard(hello("n3"))
    assert membership.unknown() == []
    assert membership.propose("c1") == FORMED


def test_a_formation_in_the_log_counts_before_it_is_committed() -> None:
    """A leader may be acknowledging on its strength already; if its entry is cut, it is forgotten."""
    membership = member()
    membership.see(FORMED)
    assert membership.admit(hello("n2", disk="d8"), None) is not None
    assert membership.cluster_id is None
    membership.see(None)
    assert membership.admit(hello("n2", disk="d8"), None) is None


def test_a_formation_that_has_applied_stays() -> None:
    """Whatever the log's front looks like later."""
    membership = formed()
    membership.see(None)
    assert membership.formation == FORMED
    assert membership.cluster_id == "c1"


def test_a_log_of_another_cluster_ends_the_process() -> None:
    """The directory holds files of two clusters."""
    with pytest.raises(FatalError, match=r"cluster c7.*cluster c1"):
        member(cluster_id="c7").apply(FORMED)


def test_other_members_than_the_formed_ones_are_a_wrong_configuration() -> None:
    """Members are static."""
    with pytest.raises(ConfigurationError, match=r"n1, n2, but the cluster was formed by n1, n2, n3"):
        Membership("n1", ["n1", "n2"], "d1", None).apply(FORMED)


def test_a_node_must_be_a_member_itself() -> None:
    """Else nobody could reach it."""
    with pytest.raises(ConfigurationError, match="'n7'"):
        Membership("n7", NAMES, "d7", None)


def test_the_formation_entry_is_read_as_written() -> None:
    """Round trip."""
    assert decode_formation(encode_formation(FORMED)) == FORMED


def test_a_formation_entry_of_a_newer_version_is_named() -> None:
    """The node must not guess."""
    with pytest.raises(NewerVersionError, match="version 2"):
        decode_formation(FORMATION + wire.pack([2, "whatever"]))


@pytest.mark.parametrize("body", [b"", b"\xc1", wire.pack(None), wire.pack([1]), wire.pack([1, "c", 5])])
def test_a_formation_entry_that_nobody_wrote_is_damage(body: bytes) -> None:
    """Committed bytes that cannot be read are not skipped."""
    with pytest.raises(DamagedError):
        decode_formation(FORMATION + body)
