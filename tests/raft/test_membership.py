"""Membership: whom a node lets in, when it may vote, what the log says of the members, and what may change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.errors import (
    ConfigurationError,
    ConflictError,
    DamagedError,
    FatalError,
    NotFoundError,
    UnavailableError,
    UnsafeChangeError,
)
from raftcron.raft.configuration import MAX_MEMBERS, Configuration, Seat, decode, encode, encode_formation
from raftcron.raft.greeting import Hello
from raftcron.raft.membership import CAUGHT_UP_ENTRIES, Ground, Membership

NAMES = ["n1", "n2", "n3"]
PEERS = {name: (f"host-{name}", 7201) for name in NAMES}
DISKS = {name: f"d{name[1:]}" for name in NAMES}
FORMED = Configuration("c1", {name: Seat(DISKS[name], PEERS[name], is_voter=True) for name in NAMES})
HERE = ("host-n4", 7201)
ALL_WELL = Ground(True, NAMES)


def hello(name: str, disk: str | None = None, cluster: str | None = None, is_empty: bool = True) -> Hello:
    return Hello(name, disk or DISKS.get(name, "d9"), cluster, 1, is_empty)


def member(name: str = "n1", disk: str | None = None, cluster_id: str | None = None) -> Membership:
    """One node's view, by default n1's."""
    return Membership(name, {name: HERE} | PEERS, disk or DISKS.get(name, "d4"), cluster_id)


def formed(*later: Configuration, name: str = "n1", disk: str | None = None) -> Membership:
    """A node whose log has the formation and these, all of them applied."""
    membership = member(name, disk)
    for index, configuration in enumerate((FORMED, *later), 1):
        membership.see(index, encode_formation(configuration) if index == 1 else encode(configuration))
        membership.apply(index)
    return membership


def counted(membership: Membership) -> dict[str, int]:
    """Whom it has refused, and why."""
    return {branch: count for branch, count in membership.passes.items() if count}


def after(command: bytes | None) -> Configuration:
    assert command is not None
    return decode(command)


AWAITED = FORMED.added("n4", HERE, "host-n4:7101", 0)
LEARNING = AWAITED.learned("n4", "d4")
FOUR = LEARNING.promoted("n4")
REPLACED = FORMED.replaced("n3", FORMED.seats["n3"])


# ---- admission -------------------------------------------------------------------------------------------------------


def test_members_come_in() -> None:
    """Before the formation with any disk, after it with the one that was recorded."""
    assert member().admit(hello("n2"), None) is None
    assert formed().admit(hello("n2", cluster="c1", is_empty=False), None) is None
    assert formed().admit(hello("n2"), None) is None  # it has not heard of the formation yet


STRANGERS = [
    (hello("n1"), "two nodes are called n1", "our own name"),
    (hello("n9"), "n9 is not a member; the members are n1, n2, n3.*raftcron cluster add n9", "stranger"),
    (hello("n2", cluster="c2", is_empty=False), "n2 belongs to cluster c2, n1 to cluster c1", "another cluster"),
    (
        hello("n2", disk="d8"),
        "an empty data directory .*disk d8, the cluster knows disk d2.*replace n2",
        "another directory",
    ),
    (
        hello("n2", disk="d8", is_empty=False),
        "another data directory .*raftcron cluster replace n2",
        "another directory",
    ),
]


@pytest.mark.parametrize(("greeting", "reason", "branch"), STRANGERS)
def test_strangers_stay_out_with_a_reason(greeting: Hello, reason: str, branch: str) -> None:
    """Each refusal says who, what and what to do; it is counted."""
    membership = formed()
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(membership.admit(greeting, None))
    assert counted(membership) == {f"not admitted ({branch})": 1}


def test_two_disks_under_one_name_do_not_both_come_in() -> None:
    """Before the formation, and for an awaited member, the second one under the name is refused."""
    assert "two nodes are called n2" in (member().admit(hello("n2", disk="d8"), connected_disk="d2") or "")
    assert member().admit(hello("n2"), connected_disk="d2") is None
    awaiting = formed(AWAITED)
    assert "two nodes are called n4" in (awaiting.admit(hello("n4", disk="d8"), connected_disk="d4") or "")
    assert counted(awaiting) == {"not admitted (second disk of a name)": 1}


def test_the_disk_that_has_the_seat_comes_in_whoever_else_has_come_under_its_name() -> None:
    """The other one, which may get its seat back if an entry is cut, waits for it to leave."""
    membership = formed()
    seated = FORMED.replaced("n3", FORMED.seats["n3"]).learned("n3", "d8").promoted("n3")
    membership.see(2, encode(seated))
    old, new = (hello("n3", disk, cluster="c1", is_empty=False) for disk in ("d3", "d8"))
    assert membership.admit(old, None) is None
    assert membership.admit(new, connected_disk="d3") is None
    assert "two nodes are called n3" in (membership.admit(old, connected_disk="d8") or "")
    membership.cut_from(2)
    assert membership.admit(old, connected_disk="d8") is None


def test_only_the_disk_that_has_the_seat_counts() -> None:
    """By the newest entry, committed or not; before there is one, whoever comes under the name."""
    old, new = (hello("n3", disk, cluster="c1", is_empty=False) for disk in ("d3", "d8"))
    assert member().counts(hello("n3", "d9"))
    membership = formed()
    assert membership.counts(old)
    assert not membership.counts(new)
    assert not membership.counts(hello("n7", "d7"))
    assert membership.gone(old) is None
    membership.see(2, encode(REPLACED))
    assert "removed from cluster c1" in (membership.gone(old) or "")
    assert membership.gone(new) is None
    assert not membership.counts(old)
    assert not membership.counts(new)
    membership.see(3, encode(REPLACED.learned("n3", "d8")))
    assert membership.counts(new)
    membership.cut_from(2)
    assert membership.counts(old)


def test_an_awaited_member_comes_with_an_empty_directory() -> None:
    """Not with one that held something before; one of this cluster may have its seat by an entry still to come."""
    awaiting = formed(AWAITED)
    assert awaiting.admit(hello("n4"), None) is None
    assert "awaited with an empty data directory" in (awaiting.admit(hello("n4", is_empty=False), None) or "")
    assert counted(awaiting) == {"not admitted (awaited, but not empty)": 1}
    assert awaiting.admit(hello("n4", cluster="c1", is_empty=False), None) is None


def test_a_disk_of_this_cluster_comes_in_though_it_is_not_known_here() -> None:
    """Its seat stands in entries that this node lacks, and it may be the leader; not so a disk of no cluster."""
    behind = formed()
    for name, disk in (("n2", "d8"), ("n7", "d7")):
        assert behind.admit(hello(name, disk, cluster="c1", is_empty=False), None) is None
        assert behind.admit(hello(name, disk, is_empty=False), None) is not None
    assert "two nodes" in (behind.admit(hello("n2", "d8", cluster="c1", is_empty=False), "d2") or "")


def test_peers_tell_whom_this_node_does_not_know_yet() -> None:
    """Enough to find them and let them in; nothing is counted by it, and what the log says later takes its place."""
    ahead = formed(AWAITED, LEARNING, FOUR)
    assert ahead.words == [(4, encode(FOUR))]
    behind = formed(disk="d1")
    assert not behind.hear(*formed().words[0])
    assert behind.hear(*ahead.words[0])
    assert not behind.hear(*ahead.words[0])
    assert not behind.hear(9, encode(FOUR._replace(cluster_id="c2")))
    with pytest.raises(DamagedError):
        behind.hear(9, b"\x11nonsense")
    assert behind.addresses["n4"] == HERE
    assert behind.voters == NAMES
    moved = FOUR.replaced("n2", FOUR.seats["n2"]._replace(raft=("moved", 1), is_placed=True))
    assert behind.hear(7, encode(moved))
    assert behind.addresses["n2"] == ("moved", 1)
    for index, configuration in enumerate((AWAITED, LEARNING, FOUR, moved), 2):
        behind.see(index if index < 5 else 7, encode(configuration))
    for index in (2, 3, 4, 7):
        behind.apply(index)
    behind.see(8, encode(moved.without("n2")))
    behind.apply(8)
    assert sorted(behind.addresses) == ["n1", "n3", "n4"]


def test_a_node_that_has_just_started_names_whom_its_log_names() -> None:
    """What is committed it will hear from a leader, whom those who do not know each other could not elect."""
    started = formed()
    assert member().words == []
    for index, configuration in enumerate((AWAITED, LEARNING, FOUR), 2):
        started.see(index, encode(configuration))
    assert started.words == [(3, encode(LEARNING)), (4, encode(FOUR))]
    behind = formed()
    assert [behind.hear(*word) for word in started.words] == [True, True]
    assert behind.addresses["n4"] == HERE
    assert behind.voters == NAMES


def test_a_word_that_came_to_nothing_does_not_stand_in_the_way_of_another() -> None:
    """The entry that was told was cut, and one before its index says who belongs."""
    behind = formed()
    assert behind.hear(9, encode(FORMED.without("n3")))
    assert behind.hear(5, encode(FOUR))
    assert sorted(behind.addresses) == [*NAMES, "n4"]
    behind.see(5, encode(FOUR))
    behind.apply(5)
    assert not behind.hear(5, encode(FOUR))


def test_a_newcomer_lets_in_whom_its_peers_have_named() -> None:
    """Its own settings may lag behind the cluster."""
    newcomer = Membership("n4", {"n4": HERE, "n1": PEERS["n1"]}, "d4", None)
    assert "n2 is not a member" in (newcomer.admit(hello("n2", cluster="c1", is_empty=False), None) or "")
    assert newcomer.hear(*formed(AWAITED).words[0])
    assert newcomer.admit(hello("n2", cluster="c1", is_empty=False), None) is None
    assert not newcomer.is_voter or newcomer.newest is None


def test_a_node_whom_a_cluster_calls_founds_none() -> None:
    """Though all that its settings name are as empty as itself: they are being replaced, all of them."""
    replaced = member("n3", "d9")
    replaced.heard(hello("n1", "d7"))
    replaced.heard(hello("n2", "d8"))
    replaced.heard(hello("n4", "d4"))
    assert replaced.may_vote(is_empty=True, has_voted=False)
    assert replaced.admit(hello("n5", cluster="c1", is_empty=False), None) is not None
    assert not replaced.may_vote(is_empty=True, has_voted=False)
    assert not replaced.may_stand(is_empty=True, has_voted=False)


def test_whoever_was_removed_is_told() -> None:
    """With what to do: nothing, or, where another directory has its place, to start on an empty one."""
    removed = formed(FORMED.without("n3"))
    said = removed.admit(hello("n3", cluster="c1", is_empty=False), None) or ""
    assert "removed from cluster c1" in said
    assert "raftcron cluster add n3" in said
    assert counted(removed) == {"not admitted (removed)": 1}
    said = formed(REPLACED).admit(hello("n3", cluster="c1", is_empty=False), None) or ""
    assert "start n3 on an empty data directory" in said
    assert "is not a member" in (removed.admit(hello("n3", disk="d8"), None) or "")


def test_until_a_removal_has_applied_its_node_stays() -> None:
    """The entry may still be cut; and one that is added may come at once."""
    membership = formed()
    membership.see(2, encode(FORMED.without("n3")))
    assert membership.admit(hello("n3", cluster="c1", is_empty=False), None) is None
    assert sorted(membership.addresses) == NAMES
    assert membership.voters == ["n1", "n2"]
    membership.apply(2)
    assert membership.admit(hello("n3", cluster="c1", is_empty=False), None) is not None
    assert sorted(membership.addresses) == ["n1", "n2"]
    membership.see(3, encode(FORMED.without("n3").added("n4", HERE, "", 0)))
    assert membership.admit(hello("n4"), None) is None
    assert membership.addresses["n4"] == HERE


def test_addresses_are_what_was_told_then_the_settings_then_the_formation() -> None:
    """A founder that has moved is followed by the settings alone; an added one is where it was said to be."""
    moved = Membership("n1", {"n1": ("a", 1), "n2": ("b", 2), "n4": ("stale", 4)}, "d1", None)
    moved.see(1, encode_formation(FORMED))
    moved.see(2, encode(AWAITED))
    assert moved.addresses == {"n1": ("a", 1), "n2": ("b", 2), "n3": PEERS["n3"], "n4": HERE}


# ---- being turned away -----------------------------------------------------------------------------------------------


def test_a_node_ends_when_a_majority_does_not_let_it_in() -> None:
    """One word is not enough, a learner has none, and a word of welcome in between makes former ones old."""
    membership = formed(LEARNING)
    membership.turned_away("n2", "go")
    membership.turned_away("n2", "go away")
    membership.turned_away("n4", "go")
    membership.heard(hello("n3"))
    membership.turned_away("n3", "off")
    with pytest.raises(ConfigurationError, match=r"does not let node n1 in\. n2: again; n3: off"):
        membership.turned_away("n2", "again")
    formed(FORMED.without("n2").without("n3")).turned_away("n2", "it is the one voter's cluster")


def test_who_knows_of_a_removal_is_believed() -> None:
    """It is committed where it is told, and where many were removed no majority is left; another's is not ours."""
    lagging = formed(FOUR, name="n4", disk="d4")
    telling = formed(FOUR, FOUR.without("n4"))
    said = telling.admit(hello("n4", disk="d4", cluster="c1", is_empty=False), None) or ""
    lagging.turned_away("n2", said.replace("d4", "d5"))
    with pytest.raises(ConfigurationError, match=r"n4 with disk d4 was removed from cluster c1.*says n9"):
        lagging.turned_away("n9", said)


# ---- votes and the first formation -----------------------------------------------------------------------------------


def test_an_empty_node_votes_once_all_have_been_heard_to_be_empty() -> None:
    """A majority is not enough, and one that holds something does not count."""
    membership = member()
    membership.heard(hello("n2"))
    assert not membership.may_vote(is_empty=True, has_voted=False)
    assert membership.missing() == ["n3"]
    membership.heard(hello("n3", is_empty=False))
    assert not membership.may_stand(is_empty=True, has_voted=False)
    membership.heard(hello("n3"))
    assert membership.may_vote(is_empty=True, has_voted=False)
    assert membership.may_stand(is_empty=True, has_voted=False)


def test_a_founder_votes_on_after_a_restart() -> None:
    """It has voted, or nobody it knows belongs to a cluster; else it may be one that a cluster was about to take in."""
    assert member().may_vote(is_empty=False, has_voted=True)
    membership = member()
    membership.heard(hello("n2", is_empty=False))
    assert not membership.may_vote(is_empty=False, has_voted=False)
    membership.heard(hello("n3", is_empty=False))
    assert membership.may_vote(is_empty=False, has_voted=False)
    membership.heard(hello("n3", cluster="c1", is_empty=False))
    assert not membership.may_vote(is_empty=False, has_voted=False)
    assert not membership.may_stand(is_empty=False, has_voted=False)


@pytest.mark.parametrize(
    ("disk", "log", "votes", "stands"),
    [
        ("d3", [FORMED], True, True),
        ("d9", [FORMED], False, False),  # it came with another disk
        ("d3", [FORMED, REPLACED], False, False),
        ("d9", [FORMED, REPLACED], False, False),
        ("d9", [FORMED, REPLACED, REPLACED.learned("n3", "d9")], True, False),
        (
            "d9",
            [FORMED, REPLACED, REPLACED.learned("n3", "d9"), REPLACED.learned("n3", "d9").promoted("n3")],
            True,
            True,
        ),
        ("d3", [FORMED, FORMED.without("n3")], False, False),
    ],
)
def test_who_votes_is_what_the_log_says_of_this_very_disk(
    disk: str, log: list[Configuration], votes: bool, stands: bool
) -> None:
    """From append on, whatever the node has voted before; a learner may be asked, and does not stand."""
    membership = member("n3", disk)
    for name in ("n1", "n2"):
        membership.heard(hello(name))
    for index, configuration in enumerate(log, 1):
        membership.see(index, encode(configuration))
    assert membership.may_vote(is_empty=False, has_voted=True) is votes
    assert membership.may_stand(is_empty=False, has_voted=True) is stands
    assert membership.is_voter is stands


def test_the_formation_names_every_disk_and_address() -> None:
    """The first leader waits until it knows them all."""
    membership = Membership("n1", PEERS, "d1", None)
    membership.heard(hello("n2"))
    assert membership.unknown() == ["n3"]
    membership.heard(hello("n3"))
    assert membership.unknown() == []
    assert after(membership.form("c1")) == FORMED


def test_a_log_of_another_cluster_ends_the_process() -> None:
    """The directory holds files of two clusters."""
    membership = member(cluster_id="c7")
    membership.see(1, encode_formation(FORMED))
    with pytest.raises(FatalError, match=r"cluster c7.*cluster c1"):
        membership.apply(1)


def test_founders_agree_on_who_founds() -> None:
    """As long as the members are those of the formation, other settings are a mistake."""
    membership = Membership("n1", {"n1": ("a", 1), "n2": ("b", 2)}, "d1", None)
    membership.see(1, encode_formation(FORMED))
    with pytest.raises(ConfigurationError, match=r"are n1, n2, but the cluster was formed by n1, n2, n3.*cluster add"):
        membership.apply(1)


def test_settings_that_lag_behind_the_cluster_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The cluster counts; a newcomer that is catching up knows better than the entries it passes."""
    with caplog.at_level(logging.WARNING):
        membership = Membership("n1", PEERS, "d1", None)
        for index, configuration in enumerate((FORMED, AWAITED, LEARNING), 1):
            membership.see(index, encode(configuration))
        for index in (1, 2, 3):
            membership.apply(index)
        membership.see(4, encode(FOUR))
        membership.apply(4)
        newcomer = Membership("n4", {"n4": HERE, "n1": PEERS["n1"]}, "d9", None)
        newcomer.see(1, encode_formation(FORMED))
        newcomer.apply(1)
    assert [record.getMessage().split()[:2] for record in caplog.records] == [["members_differ", "node=n1"]]


def test_a_node_must_be_a_member_itself() -> None:
    """Else nobody could reach it."""
    with pytest.raises(ConfigurationError, match="'n7'"):
        Membership("n7", PEERS, "d7", None)


# ---- what the log says -----------------------------------------------------------------------------------------------


def test_a_configuration_counts_before_it_is_committed() -> None:
    """A leader may be acknowledging on its strength already; if its entry is cut, it is forgotten."""
    membership = member()
    membership.see(1, encode_formation(FORMED))
    assert membership.admit(hello("n2", disk="d8"), None) is not None
    assert membership.cluster_id is None
    membership.cut_from(1)
    assert membership.admit(hello("n2", disk="d8"), None) is None


def test_what_has_applied_is_not_cut() -> None:
    """That would be a defect elsewhere."""
    with pytest.raises(FatalError):
        formed().cut_from(1)


def test_entries_that_came_take_the_place_of_those_that_were_there() -> None:
    """Whether that changes anything is told."""
    membership = formed()
    assert membership.received(5, [(b"\x02x", 5, 1), (encode(AWAITED), 6, 1)])
    assert membership.awaited == ["n4"]
    assert not membership.received(7, [(b"\x02x", 7, 1)])
    assert membership.received(6, [(b"\x02x", 6, 2)])
    assert membership.awaited == []


def test_a_learner_is_replicated_to_once_its_disk_is_committed() -> None:
    """An entry that could still be cut would leave it outside, and not empty any more."""
    membership = formed(AWAITED)
    membership.see(3, encode(LEARNING))
    assert membership.learners == []
    membership.apply(3)
    assert membership.learners == ["n4"]
    membership.see(4, encode(FOUR))
    assert membership.learners == []
    assert membership.voters == ["n1", "n2", "n3", "n4"]


def test_a_node_that_finds_itself_removed_ends() -> None:
    """This disk, once the entry is committed; one that came later under the same name does not."""
    membership = formed(name="n3")
    membership.see(2, encode(FORMED.without("n3")))
    with pytest.raises(ConfigurationError, match="n3 with disk d3 was removed"):
        membership.apply(2)
    formed(REPLACED, REPLACED.learned("n3", "d9"), name="n3", disk="d9")


def test_lives_are_those_of_this_very_disk() -> None:
    """A node's incarnations are counted on from those of the nodes that had its name."""
    seventh = FORMED.replaced("n3", FORMED.seats["n3"]._replace(lives=7))
    membership = formed(seventh, name="n3", disk="d9")
    assert membership.lives == 0
    membership.see(3, encode(seventh.learned("n3", "d9")))
    assert membership.lives == 7


histories = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["configure", "adopt"]), st.just(0)),
        st.tuples(st.sampled_from(["cut", "apply", "restart", "install"]), st.integers(0, 6)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(histories)
def test_any_history_of_the_log_leaves_what_a_fresh_look_at_it_gives(history: list[tuple[str, int]]) -> None:
    """Appends, cuts, applied entries, snapshots written and taken in, restarts: newest, settled and encoded agree."""
    log: dict[int, Configuration | None] = {1: FORMED}  # index -> the configuration in that entry
    base, applied = (0, None), 0  # the snapshot: its index, and the configuration as of it
    membership = member()
    membership.see(1, encode(FORMED))
    number = 0

    def of(index: int) -> Any:
        """The configuration as of an index, by looking through everything."""
        found = base[1]
        for at in sorted(log):
            if at <= index and log[at] is not None:
                found = log[at]
        return found

    for what, count in history:
        last = max(log, default=base[0])
        match what:
            case "append":
                entries = range(last + 1, last + 1 + count)
                log.update(dict.fromkeys(entries))
                membership.received(last + 1, [(b"\x02", at, 1) for at in entries])
            case "configure":
                number += 1
                log[last + 1] = configuration = FORMED.added(f"m{number}", (f"h{number}", 1), "", 0)
                membership.received(last + 1, [(encode(configuration), last + 1, 1)])
            case "cut":
                begin = max(applied, last - count) + 1
                log = {at: one for at, one in log.items() if at < begin}
                membership.received(begin, [])
            case "apply":
                for at in range(applied + 1, min(last, applied + count) + 1):
                    applied = at
                    if log[at] is not None:
                        membership.apply(at)
            case "restart":  # from a snapshot of what has applied, and from what stands behind it
                taken = membership.encoded(applied)
                assert taken == (b"" if of(applied) is None else encode(of(applied)))
                base = (applied, of(applied))
                log = {at: one for at, one in log.items() if at > applied}
                membership = member(cluster_id=membership.cluster_id)
                membership.restore(applied, taken)
                membership.received(
                    applied + 1,
                    [(b"\x02" if one is None else encode(one), at, 1) for at, one in sorted(log.items())],
                )
            case "adopt":  # a snapshot that the log covers
                membership.restore(applied, membership.encoded(applied))
            case "install":  # of a leader that is ahead: the log ends before it, and begins anew behind it
                number += 1
                base = (last + 1 + count, FORMED.added(f"m{number}", (f"h{number}", 1), "", 0))
                log, applied = {}, base[0]
                membership.cut_from(applied + 1)
                membership.restore(applied, encode(base[1]))
        last = max(log, default=base[0])
        assert membership.newest == of(last)
        assert membership.settled == of(applied)
        for index in range(applied, last + 1):
            assert membership.encoded(index) == (b"" if of(index) is None else encode(of(index)))


# ---- changes ---------------------------------------------------------------------------------------------------------


def test_a_cluster_grows_member_by_member() -> None:
    """Awaited, learning, voting: each by an entry of its own; from a lone node to three."""
    leader = Membership("n1", {"n1": PEERS["n1"]}, "d1", None)
    leader.heard(hello("n1"))
    entries = [leader.form("c1")]
    leader.see(1, entries[0])
    leader.apply(1)
    for name in ("n2", "n3"):
        steps: list[Callable[[Ground], bytes | None]] = [
            lambda ground: leader.add(name, PEERS[name], "", 0, ground),  # noqa: B023
            lambda ground: leader.due(ground, lambda _: hello(name), lambda _: 0, 5_000),  # noqa: B023
            lambda ground: leader.due(ground, lambda _: None, lambda _: 5_000, 5_000),
        ]
        for step in steps:
            entries.append(encode(after(step(Ground(True, ["n2", "n3"])))))
            leader.see(len(entries), entries[-1])
            leader.apply(len(entries))
    assert leader.voters == NAMES
    assert leader.newest is not None
    assert {name: seat.disk for name, seat in leader.newest.seats.items()} == DISKS


@pytest.mark.parametrize(
    ("ground", "reason"),
    [
        (Ground(False, NAMES), "not ready to lead"),
        (Ground(True, []), "no majority of n1, n2, n3 has answered"),
        (Ground(True, ["n4"]), "no majority"),  # a learner's answer is none
    ],
)
def test_a_leader_changes_nothing_without_firm_ground(ground: Ground, reason: str) -> None:
    """Its leadership entry must have applied, and a majority of the voters answered; 503, certainly not written."""
    leader = formed(LEARNING)
    for change in (
        lambda: leader.add("n5", ("h", 5), "", 0, ground),
        lambda: leader.remove("n3", ground),
        lambda: leader.replace("n3", None, None, 0, ground),
    ):
        with pytest.raises(UnavailableError, match=reason):
            change()
    assert leader.due(ground, lambda _: hello("n4"), lambda _: 9_999, 1) is None


def test_one_change_at_a_time() -> None:
    """The next one waits until the former one has been committed; what is due by itself too."""
    leader = formed()
    leader.see(2, encode(AWAITED))
    with pytest.raises(UnavailableError, match="entry 2, is not committed yet"):
        leader.remove("n3", ALL_WELL)
    assert leader.due(ALL_WELL, lambda _: hello("n4"), lambda _: 0, 1) is None
    leader.apply(2)
    assert leader.remove("n3", ALL_WELL) is not None
    assert leader.due(ALL_WELL, lambda _: hello("n4"), lambda _: 0, 1) is not None


def test_adding_twice_is_adding_once() -> None:
    """The same again changes nothing; another address under a name, or another name at an address, is refused."""
    leader = formed(AWAITED)
    assert leader.add("n4", HERE, "host-n4:7101", 0, ALL_WELL) is None
    assert leader.add("n2", PEERS["n2"], "wherever:1", 0, ALL_WELL) is None  # a founder's is as it announces it
    with pytest.raises(ConflictError, match="n4 is a member already, reached by its peers at host-n4:7201"):
        leader.add("n4", ("elsewhere", 7201), "host-n4:7101", 0, ALL_WELL)
    with pytest.raises(ConflictError, match="n2 is reached at host-n2:7201"):
        leader.add("n5", PEERS["n2"], "", 0, ALL_WELL)


def test_a_cluster_has_a_largest_size() -> None:
    """Beyond it the refusal says so."""
    many = FORMED
    for number in range(4, MAX_MEMBERS + 1):
        many = many.added(f"n{number}", (f"h{number}", 1), "", 0)
    with pytest.raises(ConflictError, match=f"at most {MAX_MEMBERS}"):
        formed(many).add("late", ("late", 1), "", 0, ALL_WELL)


def test_removing_a_member() -> None:
    """Gone, and remembered; a learner too; 404 for a stranger, and the only voter stays."""
    assert after(formed().remove("n3", ALL_WELL)) == FORMED.without("n3")
    assert after(formed(LEARNING).remove("n4", ALL_WELL)) == LEARNING.without("n4")
    with pytest.raises(NotFoundError, match="n7 is not a member; the members are n1, n2, n3"):
        formed().remove("n7", ALL_WELL)
    with pytest.raises(UnsafeChangeError, match="the only voter"):
        formed(FORMED.without("n2").without("n3")).remove("n1", Ground(True, []))


def test_a_leader_does_not_remove_itself() -> None:
    """It hands over first."""
    for change in (
        lambda: formed().remove("n1", ALL_WELL),
        lambda: formed().replace("n1", None, None, 0, ALL_WELL),
    ):
        with pytest.raises(UnavailableError, match="hand over the lead first"):
            change()


def test_what_would_leave_no_working_majority_is_refused() -> None:
    """With the names of those who do not answer; the dead one itself may go."""
    with pytest.raises(UnsafeChangeError, match=r"cannot remove n2: .*n1, n3.* 2 have to answer, and n3 does not"):
        formed().remove("n2", Ground(True, ["n2"]))
    with pytest.raises(UnsafeChangeError, match="cannot replace n2"):
        formed().replace("n2", None, None, 0, Ground(True, ["n2"]))
    assert after(formed().remove("n3", Ground(True, ["n2"]))).voters == ["n1", "n2"]
    assert after(formed().replace("n3", None, None, 0, Ground(True, ["n2"]))).voters == ["n1", "n2"]
    assert after(formed(LEARNING).remove("n4", Ground(True, ["n2"]))) == LEARNING.without("n4")


def test_replacing_a_member() -> None:
    """One entry: its disk is given up, its seat awaits an empty directory, here or elsewhere, with no vote."""
    changed = after(formed().replace("n3", None, None, 7, ALL_WELL))
    assert changed == FORMED.replaced("n3", FORMED.seats["n3"]._replace(lives=7))
    assert changed.removed == (("n3", "d3"),)
    assert changed.seats["n3"].is_awaited
    moved = after(formed().replace("n3", ("new", 1), "new:2", 0, ALL_WELL)).seats["n3"]
    assert (moved.raft, moved.http, moved.is_placed) == (("new", 1), "new:2", True)
    assert formed(changed).replace("n3", None, None, 7, ALL_WELL) is None
    assert formed(changed).replace("n3", ("new", 1), None, 7, ALL_WELL) is not None
    with pytest.raises(ConflictError, match="n2 is reached at"):
        formed().replace("n3", PEERS["n2"], None, 0, ALL_WELL)
    with pytest.raises(NotFoundError):
        formed().replace("n7", None, None, 0, ALL_WELL)


def test_a_formation_without_addresses_gets_them_with_the_first_change() -> None:
    """The leader's settings have them; a newcomer has to know them."""
    bare = Configuration("c1", {name: seat._replace(raft=None) for name, seat in FORMED.seats.items()})
    leader = Membership("n1", PEERS, "d1", None)
    leader.see(1, encode(bare))
    leader.apply(1)
    assert leader.addresses == PEERS
    assert {name: seat.raft for name, seat in after(leader.add("n4", HERE, "", 0, ALL_WELL)).seats.items()} == {
        **PEERS,
        "n4": HERE,
    }


@pytest.mark.parametrize(
    ("greeting", "is_taken"),
    [
        (hello("n4", disk="d4"), True),
        (hello("n4", disk="d4", is_empty=False), False),
        (hello("n4", disk="d4", cluster="c1", is_empty=False), False),
        (None, False),
    ],
)
def test_an_empty_directory_takes_the_seat(greeting: Hello | None, is_taken: bool) -> None:
    """As soon as it is connected; nothing else does."""
    command = formed(AWAITED).due(ALL_WELL, lambda _: greeting, lambda _: 0, 9_999)
    assert (command is not None and after(command) == LEARNING) is is_taken


def test_a_disk_that_was_given_up_takes_no_seat() -> None:
    """A node that is being replaced may be connected still, from the time when it was empty."""
    assert formed(REPLACED).due(ALL_WELL, lambda _: hello("n3"), lambda _: 0, 9_999) is None
    assert formed(REPLACED).due(ALL_WELL, lambda _: hello("n3", disk="d9"), lambda _: 0, 9_999) is not None


@pytest.mark.parametrize(
    ("match_index", "answered", "is_promoted"),
    [
        (9_999, ["n2", "n3", "n4"], True),
        (9_999, ["n2", "n4"], True),
        (9_999, ["n2", "n3"], False),  # it does not answer
        (9_999 - CAUGHT_UP_ENTRIES - 1, ["n2", "n3", "n4"], False),
    ],
)
def test_a_learner_that_has_caught_up_votes(match_index: int, answered: list[str], is_promoted: bool) -> None:
    """If it answers, and has at least the entry that gave it its seat."""
    leader, ground = formed(AWAITED, LEARNING), Ground(True, answered)
    command = leader.due(ground, lambda _: None, lambda _: match_index, 9_999)
    assert (command is not None and after(command) == FOUR) is is_promoted
    assert leader.due(Ground(True, [*NAMES, "n4"]), lambda _: None, lambda _: 2, 3) is None
    assert leader.due(Ground(True, [*NAMES, "n4"]), lambda _: None, lambda _: 3, 3) is not None
