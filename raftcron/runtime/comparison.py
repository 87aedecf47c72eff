"""Whether this node's state is that of the others (semantics I7): what voters say of their digests, and the judgement.

Pure: a pair is an index of the log and the digest of the state there.  Nodes that work hard seldom tell of one index,
so each tells also of the newest one that all of them keep (see machine.py), and what it said last is remembered until
this node has come there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

SAID_KEPT = 32  # pairs of a voter: two a heartbeat

Pair = tuple[int, int]


class Difference(NamedTuple):
    """At `at_index` this node has the digest `own` and others have `theirs`; `is_odd`: a majority of the voters has."""

    at_index: int
    own: int
    theirs: int
    is_odd: bool


class Comparison:
    """What the other voters have said last."""

    def __init__(self) -> None:
        self._said: dict[str, dict[int, int]] = {}

    def hear(self, node: str, pairs: Iterable[Pair]) -> None:
        """What `node` says holds for it, whatever it has said of these indices before."""
        said = self._said.setdefault(node, {})
        for index, digest in pairs:
            said.pop(index, None)
            said[index] = digest
        while len(said) > SAID_KEPT:
            del said[next(iter(said))]

    def judge(self, me: str, own: Mapping[int, int], voters: Collection[str]) -> Difference | None:
        """Where this node differs: first of all where a majority of `voters` has one other digest.

        `own` are the pairs that this node keeps.  Whoever has no vote is forgotten.
        """
        for node in self._said.keys() - voters:
            del self._said[node]
        found: Difference | None = None
        for index in {index for said in self._said.values() for index in said} & own.keys():
            votes = Counter(said[index] for node, said in self._said.items() if index in said and node != me)
            votes.pop(own[index], None)
            for digest, count in votes.items():
                is_odd = count > len(voters) // 2
                if found is None or (is_odd, -index) > (found.is_odd, -found.at_index):
                    found = Difference(index, own[index], digest, is_odd)
        return found
