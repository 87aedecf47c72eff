"""Configurations: their bytes, and that no step from one to the next lets two majorities pass each other by."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raftcron import wire
from raftcron.errors import DamagedError, NewerVersionError, RaftcronError
from raftcron.raft.configuration import (
    FORMATION,
    MAX_MEMBERS,
    MAX_REMOVED,
    MEMBERS,
    Configuration,
    Seat,
    decode,
    encode,
    encode_formation,
    is_configuration,
)
from raftcron.raft.greeting import Hello
from raftcron.raft.membership import Ground, Membership

NAMES = ["n1", "n2", "n3"]
PEERS = {name: (f"host-{name}", 7201) for name in NAMES}
FORMED = Configuration("c1", {name: Seat(f"d{name[1:]}", PEERS[name], is_voter=True) for name in NAMES})


def test_a_formation_is_read_as_written() -> None:
    """Round trip, addresses too."""
    assert decode(encode_formation(FORMED)) == FORMED


def test_a_formation_of_version_1_has_no_addresses() -> None:
    """Clusters that were formed before have them in their settings."""
    old = FORMATION + wire.pack([1, "c1", {"n1": "d1"}])
    assert decode(old) == Configuration("c1", {"n1": Seat("d1", None, is_voter=True)})


def test_members_are_read_as_written() -> None:
    """Whoever votes, learns or is awaited, and who was removed; an IPv6 address too."""
    changed = (
        FORMED.added("n4", ("::1", 1), "h4:1", 3)
        .learned("n4", "d4")
        .replaced("n3", FORMED.seats["n3"]._replace(lives=7))
        .added("n5", ("h5", 5), "", 0)
        .without("n2")
    )
    assert decode(encode(changed)) == changed
    assert changed.removed == (("n3", "d3"), ("n2", "d2"))
    assert [name for name, seat in changed.seats.items() if seat.is_awaited] == ["n3", "n5"]
    assert changed.voters == ["n1"]


def test_only_entries_of_the_two_kinds_are_configurations() -> None:
    """The log's other entries pass by."""
    assert is_configuration(encode(FORMED))
    assert is_configuration(encode_formation(FORMED))
    assert not any(map(is_configuration, (b"", b"\x01", b"\x02" + encode(FORMED))))


@pytest.mark.parametrize("kind", [FORMATION, MEMBERS])
def test_an_entry_of_a_newer_version_is_named(kind: bytes) -> None:
    """The node must not guess."""
    with pytest.raises(NewerVersionError, match="has version 3"):
        decode(kind + wire.pack([3, "whatever"]))


GOOD_SEAT = ["d1", ["h", 1], "", True, False, 0]


@pytest.mark.parametrize(
    "command",
    [
        *(FORMATION + body for body in (b"", b"\xc1", wire.pack(None), wire.pack([1]), wire.pack([1, "c", 5]))),
        FORMATION + wire.pack([2, "c", {"n1": "d1"}]),
        FORMATION + wire.pack([2, "c", {"n1": ["d1", ["h", "1"]]}]),
        MEMBERS + wire.pack([1, "c", {"n1": GOOD_SEAT}]),
        MEMBERS + wire.pack([1, 5, {"n1": GOOD_SEAT}, []]),
        MEMBERS + wire.pack([1, "c", {"n1": GOOD_SEAT[:-1]}, []]),
        MEMBERS + wire.pack([1, "c", {"n1": [None, *GOOD_SEAT[1:]]}, []]),
        MEMBERS + wire.pack([1, "c", {"n1": [*GOOD_SEAT[:3], 1, False, 0]}, []]),
        MEMBERS + wire.pack([1, "c", {"n1": GOOD_SEAT}, [["n2"]]]),
    ],
)
def test_an_entry_that_nobody_wrote_is_damage(command: bytes) -> None:
    """Committed bytes that cannot be read are not skipped; a voter without a disk is none."""
    with pytest.raises(DamagedError):
        decode(command)


def test_the_removed_are_remembered_up_to_a_bound() -> None:
    """The newest of them; one that had not come has nothing to be told."""
    changed = FORMED
    for number in range(MAX_REMOVED + 1):
        changed = changed.replaced("n3", changed.seats["n3"]).learned("n3", f"disk-{number}")
    assert len(changed.removed) == MAX_REMOVED
    assert changed.removed[-1] == ("n3", f"disk-{MAX_REMOVED - 1}")
    assert ("n3", "d3") not in changed.removed
    assert FORMED.added("n4", ("h", 1), "", 0).without("n4").removed == ()


# ---- every step that a leader may take -------------------------------------------------------------------------------

ALL = [f"n{number}" for number in range(1, 8)]
steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "replace", "due", "due", "due"]),
        st.sampled_from(ALL),
        st.sets(st.sampled_from(ALL), max_size=3),  # who does not answer
        st.integers(0, 3),  # of 4: how far learners are
    ),
    max_size=40,
)


def _majorities(configuration: Configuration) -> list[set[str]]:
    voters = configuration.voters
    return [set(some) for some in combinations(voters, len(voters) // 2 + 1)]


TWO_LEARNERS = [("add", name, set[str](), 0) for name in ("n4", "n5")] + [("due", "n1", set[str](), 3)] * 4


@settings(max_examples=200, deadline=None)
@given(steps)
@example(TWO_LEARNERS)
def test_majorities_of_neighbours_meet_and_changes_leave_a_working_one(
    walk: list[tuple[str, str, set[str], int]],
) -> None:
    """Whatever is asked for, while whoever answers; who learns or is awaited is no voter before its time."""
    leader = Membership("n1", PEERS, "d1", None)
    leader.see(1, encode_formation(FORMED))
    leader.apply(1)
    history = [FORMED]
    disks = 10
    for index, (what, name, silent, progress) in enumerate(walk, 2):
        answered = set(ALL) - silent
        ground = Ground(True, answered - {"n1"})
        disks += 1
        command = None
        try:
            match what:
                case "add":
                    command = leader.add(name, (f"host-{name}", 7201), "", 0, ground)
                case "remove":
                    command = leader.remove(name, ground)
                case "replace":
                    command = leader.replace(name, None, None, 0, ground)
                case "due":
                    command = leader.due(
                        ground,
                        lambda asked: Hello(asked, f"d{disks}", None, 1, True),  # noqa: B023
                        lambda _: 3_000 * progress,  # noqa: B023
                        6_000,
                    )
        except RaftcronError:
            continue
        if command is None:
            continue
        before = history[-1]
        after = decode(command)
        living = (answered | {"n1"}) & set(after.voters)
        assert len(living) > len(after.voters) // 2
        if what == "due" and (new := set(after.voters) - set(before.voters)):
            assert progress >= 2
            assert new <= answered
        if what != "due":
            assert set(after.voters) <= set(before.voters)
        leader.see(index, command)
        leader.apply(index)
        history.append(after)
    for former, later in pairwise(history):
        assert all(ours & theirs for ours in _majorities(former) for theirs in _majorities(later))
        assert len(later.seats) <= MAX_MEMBERS
        assert all(later.seats[name].disk is not None for name in later.voters)
