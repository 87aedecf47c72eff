"""Nodes that end in good order at the same time: who has told all it knew stays as a voter while others have not.

A node alone that ends in a healthy cluster waits for nobody.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from raftcron.clock import Clock
from raftcron.errors import MalformedError
from raftcron.ports import Log, Standing
from raftcron.runtime.machine import Machine

log = logging.getLogger(__name__)

KIND = "ending"
REPEAT_SECONDS = 0.1  # between two times that this node says how it stands
WORD_SECONDS = 2.0  # so long a word is believed: a peer that starts again ends no more
HEAR_SECONDS = 0.5  # for the first word of a peer that was told to end together with this node


class Word(NamedTuple):
    """What a peer said last: whether it has something to tell, and when that was heard (boot clock, seconds)."""

    needs_quorum: bool
    heard_at: float


class Farewell:
    """What this node knows of the others' ends, and says of its own."""

    def __init__(self, *, node: str, machine: Machine, log: Log, clock: Clock) -> None:
        self._node = node
        self._machine = machine
        self._log = log
        self._clock = clock
        self._words: dict[str, Word] = {}  # by peer; the log hands on members' messages alone
        self._needs_quorum = True  # of this node, once it ends
        self._hurried = asyncio.Event()
        log.on_message(KIND, self._heard)

    async def tell(self) -> None:
        """Say again and again that this node ends, until cancelled."""
        while True:
            self._tell_once()
            await asyncio.sleep(REPEAT_SECONDS)

    def successors(self) -> list[str]:
        """The connected voters that do not end: the lead can go there for good."""
        return [peer for peer in self._connected(voters_only=True) if self._word_of(peer) is None]

    def is_ending(self, peer: str) -> bool:
        """Whether a peer has said just now that it ends."""
        return self._word_of(peer) is not None

    async def wait(self, seconds: float) -> None:
        """All of this node is told: stay, at most so long, while a peer that ends too needs this voter to do the same.

        Cut short by `hurry`.
        """
        self._needs_quorum = False
        self._tell_once()
        began = self._clock.boot()
        while not self._hurried.is_set():
            waited = self._clock.boot() - began
            if not self._is_needed() and (waited >= HEAR_SECONDS or not self._others_run()):
                return
            if waited >= seconds:
                log.warning("others_still_end waited_s=%.1f next=end_without_them", waited)
                return
            try:
                await asyncio.wait_for(self._hurried.wait(), REPEAT_SECONDS / 2)
            except TimeoutError:
                continue

    def hurry(self) -> None:
        """Wait for nobody any more."""
        self._hurried.set()

    def _is_needed(self) -> bool:
        """Whether the peers that end need a quorum, and those that stay until they have told are not one."""
        words = [self._word_of(peer) for peer in self._connected(voters_only=True)]
        staying = sum(word is None or word.needs_quorum for word in words)
        quorum = sum(one.standing is Standing.VOTER for one in self._log.status().members) // 2 + 1
        return staying < quorum and any(word is not None and word.needs_quorum for word in words)

    def _others_run(self) -> bool:
        """Whether a connected peer has runs: it may be about to say that it ends."""
        return any(self._machine.state.on_node.get(peer) for peer in self._connected())

    def _connected(self, voters_only: bool = False) -> list[str]:
        return [
            one.name
            for one in self._log.status().members
            if one.connected and one.name != self._node and (one.standing is Standing.VOTER or not voters_only)
        ]

    def _word_of(self, peer: str) -> Word | None:
        """What it said if it ends, else None."""
        word = self._words.get(peer)
        return word if word is not None and self._clock.boot() - word.heard_at < WORD_SECONDS else None

    def _tell_once(self) -> None:
        for peer in self._connected():
            self._log.send(peer, KIND, self._needs_quorum)

    def _heard(self, peer: str, message: Any) -> None:
        if isinstance(message, bool):
            self._words[peer] = Word(message, self._clock.boot())
        else:
            raise MalformedError("an ending is true or false: whether it needs a quorum")
