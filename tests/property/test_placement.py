"""Where attempts go: deterministic, balanced, never where they may not; and the queue's work does not grow with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from raftcron.core.placement import Tags, choose

NODES = ("n1", "n2", "n3", "n4", "n5")
ONS = ("leader", "any", "least_loaded", "sticky", "all")
TAGS: tuple[Tags, ...] = ((), (("zone", "a"),), (("disk", "ssd"), ("zone", "a")))


@dataclass
class Rooms:
    """Nodes with tags and slots, some of them taken."""

    tags: dict[str, dict[str, str]]
    slots: dict[str, int]
    taken: Counter[str] = field(default_factory=Counter)

    def carries(self, node: str, tags: Tags) -> bool:
        return all(self.tags[node].get(key) == value for key, value in tags)

    def has_slot(self, node: str, *, process: str | None) -> bool:
        return self.taken[node] < self.slots[node]

    def load(self, node: str) -> float:
        return self.taken[node] / self.slots[node]


rooms = st.builds(
    Rooms,
    st.fixed_dictionaries(
        {
            node: st.fixed_dictionaries(
                {}, optional={"zone": st.sampled_from("ab"), "disk": st.sampled_from(["ssd", "hdd"])}
            )
            for node in NODES
        }
    ),
    st.fixed_dictionaries({node: st.integers(1, 6) for node in NODES}),
    st.fixed_dictionaries({node: st.integers(0, 6) for node in NODES}).map(Counter),
)
lives = st.sets(st.sampled_from(NODES)).map(sorted)
turns = st.integers(0, 1 << 64)


@given(rooms, lives, st.sampled_from(ONS), st.sampled_from(TAGS), turns, st.none() | st.sampled_from(NODES))
def test_an_attempt_goes_only_where_it_may(
    room: Rooms, live: list[str], on: str, tags: Tags, turn: int, other: str | None
) -> None:
    """Live, with all the tags, with a slot; where there is such a node one is found, the same for all who ask."""
    asked = {"leader": "n1", "last": other, "turn": turn}
    found = choose(on, tags, live, room, **asked)  # type: ignore[arg-type]
    assert choose(on, tags, list(live), room, **asked) == found  # type: ignore[arg-type]
    fitting = [node for node in live if room.carries(node, tags) and room.has_slot(node, process=None)]
    if on == "leader":
        fitting = [node for node in fitting if node == "n1"]
    if on == "sticky" and other in live and room.carries(other, tags):
        fitting = [node for node in fitting if node == other]
    assert (found in fitting) if fitting else found is None
    if found is not None and on == "least_loaded":
        assert room.load(found) == min(map(room.load, fitting))


@given(st.integers(1, 5), st.integers(1, 7), turns)
def test_any_goes_round(count: int, step: int, first: int) -> None:
    """Whoever takes only every second or seventh turn, since other jobs fall due with it, reaches all nodes alike."""
    live = list(NODES[:count])
    room = Rooms({node: {} for node in NODES}, dict.fromkeys(NODES, 10**6))
    rounds = 60
    picked = Counter(
        choose("any", (), live, room, leader="n1", turn=first + number * step) for number in range(rounds * count)
    )
    assert set(picked) == set(live)
    assert max(picked.values()) - min(picked.values()) <= rounds // 5


@given(st.lists(st.integers(1, 50), min_size=2, max_size=5))
def test_least_loaded_fills_nodes_by_the_share_of_their_slots(slots: list[int]) -> None:
    """All are full at the same moment, give or take one run."""
    live = list(NODES[: len(slots)])
    room = Rooms({node: {} for node in live}, dict(zip(live, slots, strict=True)))
    for turn in range(sum(slots)):
        found = choose("least_loaded", (), live, room, leader="n1", turn=turn)
        assert found is not None
        assert room.load(found) == min(map(room.load, live))
        room.taken[found] += 1
    assert choose("least_loaded", (), live, room, leader="n1", turn=0) is None


@given(rooms, lives, st.sampled_from(TAGS), turns, st.sampled_from(NODES))
def test_a_part_of_a_broadcast_goes_to_its_node_alone(
    room: Rooms, live: list[str], tags: Tags, turn: int, only: str
) -> None:
    """Or nowhere."""
    assert choose("all", tags, live, room, leader="n1", only=only, turn=turn) in (None, only)
