"""When a node stands for election: time-outs, pre-votes, and the order of rank; the votes themselves are the engine's.

A node asks for *pre-votes* before it raises its term, so that one which was cut off deposes nobody when it comes back.
Whoever still hears the leader refuses; whoever grants holds its own election back for a round.

The end of the live connection to the leader *and* a refused reconnect mean that the leader's process is dead.  The
survivors then need not wait out a time-out: the one of rank k (by name, among those it is connected to) waits
k x 30 ms.  So they do not get in each other's way, and a new leader stands within milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

from raftcron.clock import Clock
from raftcron.raft import guard

RANK_SECONDS = 0.030  # one rank's head start; a pre-vote and a vote with two syncs take less
ROUND_SECONDS = 0.150  # how long a pre-vote round may take; up to as much again is drawn on top
BRANCHES = (  # that are counted: why a node does not stand, why it grants no pre-vote, and why an answer is none
    "does not stand (no voter)",
    "pre-vote refused (no vote to give)",
    "pre-vote refused (hears the leader)",
    "pre-vote refused (leads itself)",
    "pre-vote refused (term is not new)",
    "pre-vote refused (log lacks something)",
    "pre-vote refused (both stand)",
    "pre-vote not counted (another directory)",
)


class Electorate(Protocol):
    """What an election has to know of the engine, and the two things it may do to it (seam.py)."""

    @property
    def is_leader(self) -> bool: ...
    @property
    def leader(self) -> str | None: ...
    @property
    def term(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def last_term(self) -> int: ...
    def start_election(self) -> None: ...
    def observe_term(self, term: int) -> None: ...


class PreVote(NamedTuple):
    """Would you vote for me in `term`, given the end of my log?"""

    term: int
    round: int
    last_index: int
    last_term: int


def parse_pre_vote(message: Any) -> PreVote:
    """Raises BadMessageError."""
    content = guard.fields(message)
    return PreVote(*(guard.number(content, key, least) for key, least in _PRE_VOTE_FIELDS))


_PRE_VOTE_FIELDS = (("term", 1), ("round", 1), ("last_index", 1), ("last_term", 0))


class Elections:
    """One node's elections.  `send(peer, kind, message)` and `connected(peer)` are the transport's.

    `timeout_seconds` is the range from which each patience is drawn, `draw` gives a number from 0 to 1, `may_stand`,
    `may_vote` and `counts(peer)` are the membership's word, `kick` asks for a step of the engine, `run` calls a
    function inside the engine's rim.  `peers` are the other voters, until `set_voters` says otherwise.
    """

    def __init__(
        self,
        name: str,
        peers: list[str],
        core: Electorate,
        *,
        send: Callable[[str, str, Any], bool],
        connected: Callable[[str], bool],
        counts: Callable[[str], bool],
        may_stand: Callable[[], bool],
        may_vote: Callable[[], bool],
        kick: Callable[[], None],
        run: Callable[[Callable[[], None]], None],
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        draw: Callable[[], float],
        timeout_seconds: tuple[float, float],
    ) -> None:
        self._name = name
        self._core = core
        self._send = send
        self._connected = connected
        self._counts = counts
        self._may_stand = may_stand
        self._may_vote = may_vote
        self._kick = kick
        self._loop = loop
        self._clock = clock
        self._draw = draw
        self._shortest, self._longest = timeout_seconds
        self._run = run
        self.passes = dict.fromkeys(BRANCHES, 0)  # how often each was taken
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = clock.monotonic()  # when the leader was last heard, or something as good happened
        self._patience = self._draw_patience()
        self._held_until = self._heard_at  # no election of our own before it
        self._is_broken = False  # the connection to the leader has ended
        self._is_gone = False  # the leader's process is dead
        self._round = 0
        self._grants: set[str] | None = None  # of the round that is out
        self._refused: dict[str, tuple[float, PreVote]] = {}  # whom we refused because we heard the leader, and when
        self.set_voters([name, *peers])

    def set_voters(self, voters: Collection[str]) -> None:
        """Who votes from now on, this node too if it does; of a round that is out only their grants count."""
        self._voters = frozenset(voters)
        self._peers = sorted(self._voters - {self._name})
        self._majority = len(self._voters) // 2 + 1

    # ---- what happens around it ----------------------------------------------------------------------------------

    @property
    def leader(self) -> str | None:
        """Who leads, as far as this node can know: None once the leader was silent for the longest time-out."""
        leader = self._core.leader
        if leader is None or leader == self._name:
            return leader
        is_silent = self._clock.monotonic() - self._heard_at > self._longest
        return None if self._is_gone or is_silent else leader

    def start(self) -> None:
        self._arm(self._patience)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def heard_leader(self) -> None:
        """A message of a current term came from the leader.  Called for each, so it only notes."""
        self._heard_at = self._clock.monotonic()
        if self._is_gone or self._is_broken or self._grants is not None or self._patience < self._shortest:
            self._is_gone = self._is_broken = False
            self._grants = None
            self._patience = self._draw_patience()

    def rest(self) -> None:
        """This node has just voted, or leads no more: a whole time-out passes before it stands itself."""
        self._heard_at = self._clock.monotonic()
        self._patience = self._draw_patience()
        self._grants = None

    def lost(self, peer: str) -> None:
        """A live connection has ended."""
        if peer == self._core.leader:
            self._is_broken = True

    def refused(self, peer: str) -> None:
        """Nobody listens where the peer was."""
        if peer == self._core.leader and self._is_broken and not self._connected(peer):
            self._leader_is_gone()

    def reborn(self, peer: str) -> None:
        """The peer is connected again, in another life of its process."""
        if peer == self._core.leader:
            self._leader_is_gone()

    def back(self, peer: str) -> None:
        """The peer is connected again, in the same life."""
        if peer == self._core.leader:
            self._is_broken = False

    def _leader_is_gone(self) -> None:
        if self._is_gone or self._core.is_leader:
            return
        self._is_gone = True
        refused, self._refused = self._refused, {}
        for peer, (at, asked) in refused.items():  # they saw the leader's end before we did
            if self._clock.monotonic() - at < ROUND_SECONDS:
                self.asked(peer, asked)
        self.soon(without=self._core.leader)

    def soon(self, without: str | None = None) -> None:
        """Stand when those of lower rank have had their chance; `without` the dead."""
        rank = sum(peer < self._name and peer != without and self._connected(peer) for peer in self._peers)
        now = self._heard_at = self._clock.monotonic()
        self._patience = rank * RANK_SECONDS
        wait = max(self._patience, self._held_until - now)
        if wait > 0:
            self._arm(wait)
        else:
            self._stand()

    # ---- standing ------------------------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        self._timer = None
        if self._core.is_leader:
            self._arm(self._shortest)
            return
        wait = max(self._heard_at + self._patience, self._held_until) - self._clock.monotonic()
        if wait > 0:
            self._arm(wait)
        else:
            self._stand()

    def _stand(self) -> None:
        """Ask for pre-votes, or, where nobody else is to be asked, stand at once."""
        self._arm(ROUND_SECONDS * (1 + self._draw()))
        if not self._may_stand():
            self.passes["does not stand (no voter)"] += 1
            return
        if self._core.is_leader:
            return
        self._round += 1
        self._grants = {self._name}
        core = self._core
        asking = {
            "term": core.term + 1,
            "round": self._round,
            "last_index": core.last_index,
            "last_term": core.last_term,
        }
        for peer in self._peers:
            self._send(peer, "prevote", asking)
        self._count()

    def _count(self) -> None:
        if self._grants is None or len(self._grants & self._voters) < self._majority:
            return
        self.rest()
        self._arm(self._patience)
        self._core.start_election()
        self._kick()

    def answered(self, peer: str, message: Any) -> None:
        """A peer's answer to a pre-vote.  Raises BadMessageError."""
        content = guard.fields(message)
        term, number = guard.number(content, "term"), guard.number(content, "round", 1)
        is_granted = guard.flag(content, "granted")
        if not self._counts(peer):
            self.passes["pre-vote not counted (another directory)"] += 1
        elif term > self._core.term:
            self._core.observe_term(term)  # our next round asks for a term that can be granted
            self._grants = None
        elif is_granted and number == self._round and self._grants is not None and not self._core.is_leader:
            self._grants.add(peer)
            self._count()

    # ---- being asked ---------------------------------------------------------------------------------------------

    def asked(self, peer: str, asked: PreVote) -> None:
        """Answer a pre-vote; where only the leader stands against it, once more if the leader proves to be dead."""
        if not self._may_vote():
            self.passes["pre-vote refused (no vote to give)"] += 1
            return
        now = self._clock.monotonic()
        refusal = self._why_not(peer, asked)
        if refusal is None:
            self._grants = None
            self._held_until = now + ROUND_SECONDS
        else:
            self.passes[f"pre-vote refused ({refusal})"] += 1
            self._refused[peer] = (now, asked)
        self._send(peer, "prevoted", {"term": self._core.term, "round": asked.round, "granted": refusal is None})

    def _why_not(self, peer: str, asked: PreVote) -> str | None:
        """Why a pre-vote is not granted; None if it is."""
        core = self._core
        if self._hears_leader():
            return "hears the leader"
        if core.is_leader:
            return "leads itself"
        if asked.term <= core.term:
            return "term is not new"
        theirs, ours = (asked.last_term, asked.last_index), (core.last_term, core.last_index)
        if theirs < ours:
            return "log lacks something"
        # If both stand, the longer log goes first, then the lower name: else each grants the other and splits the vote.
        if self._grants is not None and theirs == ours and peer > self._name:
            return "both stand"
        return None

    def _hears_leader(self) -> bool:
        leader = self._core.leader
        if leader is None or leader == self._name or self._is_gone:
            return False
        return self._clock.monotonic() - self._heard_at < self._shortest

    # ---- time ----------------------------------------------------------------------------------------------------

    def _draw_patience(self) -> float:
        return self._shortest + (self._longest - self._shortest) * self._draw()

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._run, self._on_timer)
