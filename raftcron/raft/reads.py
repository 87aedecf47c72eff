"""Linearizable reads: the leader's numbered rounds, a follower's questions, and who waits for which index.

A leader notes its commit index and asks a majority, by a numbered round, whether its term is still theirs: no entry,
no sync.  A follower asks its leader.  A reader may share only a round or question that *begins after it came*: the
answer to an older one may be older than a write that the reader has already been told of.  For the same reason a leader
answers a follower on the connection that it asked on, or not at all: a new life of that follower counts its questions
from 1 again, and would take the answer to its former life's first question for that to its own.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, Protocol

from raftcron.raft import guard

TIDY_WAITERS = 1_000

BRANCHES = (  # that are counted: why an echo confirms no round
    "echo not counted (newer term)",
    "echo not counted (former term)",
    "echo not counted (late)",
    "echo not counted (another directory)",
)


class SharedQuestion:
    """One question at a time; those who come while it is out share the next one.

    `ask(number)` sends question `number`; `answer` and `drop` end it.  The result is an index, or None: ask again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[int], None]) -> None:
        self._loop = loop
        self._ask = ask
        self._number = 0
        self._asked: list[asyncio.Future[int | None]] = []  # who shares the question that is out
        self._next: list[asyncio.Future[int | None]] = []
        self._is_out = False
        self._is_scheduled = False

    @property
    def number(self) -> int | None:
        """Of the question that is out; None if none is."""
        return self._number if self._is_out else None

    def join(self) -> asyncio.Future[int | None]:
        """A future of the caller's own, for the answer to a question that has not been asked yet."""
        future: asyncio.Future[int | None] = self._loop.create_future()
        self._next.append(future)
        self._schedule()
        return future

    def answer(self, number: int, index: int | None) -> None:
        """Question `number` is answered; an answer to another question than the one that is out is too late."""
        if number == self.number:
            self._end(index)

    def drop(self) -> None:
        """What was asked will not be answered: the leader has changed."""
        if self._is_out:
            self._end(None)

    def _end(self, index: int | None) -> None:
        asked, self._asked, self._is_out = self._asked, [], False
        for future in asked:
            if not future.done():
                future.set_result(index)
        self._schedule()

    def _schedule(self) -> None:
        if self._next and not self._is_out and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._is_scheduled = False
        self._asked, self._next = self._next, []
        self._number += 1
        self._is_out = True
        self._ask(self._number)


class AppliedWaiters:
    """Who waits until this node has applied an index; who has given up is forgotten before it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0
        self._tidy_at = TIDY_WAITERS  # so many: half of them may have given up

    def add(self, index: int) -> asyncio.Future[None]:
        """Done once `reached` was called with at least `index`."""
        if len(self._heap) >= self._tidy_at:
            self._heap = [waiter for waiter in self._heap if not waiter[2].done()]
            heapq.heapify(self._heap)
            self._tidy_at = max(TIDY_WAITERS, 2 * len(self._heap))
        future: asyncio.Future[None] = self._loop.create_future()
        self._count += 1
        heapq.heappush(self._heap, (index, self._count, future))
        return future

    def reached(self, index: int) -> None:
        while self._heap and self._heap[0][0] <= index:
            future = heapq.heappop(self._heap)[2]
            if not future.done():
                future.set_result(None)


class Confirmed(Protocol):
    """What a read has to know of the engine (seam.py)."""

    @property
    def is_leader(self) -> bool: ...
    @property
    def leader(self) -> str | None: ...
    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    def observe_term(self, term: int) -> None: ...


class Reads:
    """One node's linearizable reads.  `send(peer, kind, message)` and `connected(peer)` are the transport's.

    `may_confirm` says whether this node leads *and* has applied its leadership entry: only then is its commit index
    the newest there is.  `counts(peer)` is the membership's word.  `peers` are the other voters, until `set_voters`
    says otherwise.
    """

    def __init__(
        self,
        name: str,
        peers: list[str],
        core: Confirmed,
        *,
        send: Callable[[str, str, Any], bool],
        connected: Callable[[str], bool],
        counts: Callable[[str], bool],
        may_confirm: Callable[[], bool],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._name = name
        self._core = core
        self._send = send
        self._connected = connected
        self._counts = counts
        self._may_confirm = may_confirm
        self._rounds = SharedQuestion(loop, self._begin_round)
        self._questions = SharedQuestion(loop, self._ask_leader)
        self._waiters = AppliedWaiters(loop)
        self.passes = dict.fromkeys(BRANCHES, 0)  # how often each was taken
        self._connections: Counter[str] = Counter()  # with each peer, so far
        self._echoes: set[str] = set()  # of the round that is out
        self._index = 0  # the commit index when it began
        self.set_voters([name, *peers])
        self.kinds: dict[str, Callable[[str, Any], None]] = {
            "round": self._on_round,
            "echo": self._on_echo,
            "read": self._on_read,
            "index": self._on_index,
        }

    def set_voters(self, voters: Collection[str]) -> None:
        """Who votes from now on, this node too if it does; of a round that is out only their echoes count."""
        self._voters = frozenset(voters)
        self._peers = sorted(self._voters - {self._name})
        self._majority = len(self._voters) // 2 + 1
        if (number := self._rounds.number) is not None:
            self._count(number)  # fewer may be enough now

    async def index(self) -> int | None:
        """An index that covers all that was committed when it was asked for; None: nobody can tell now, ask again."""
        if self._core.is_leader:
            return await self._rounds.join() if self._may_confirm() else None
        leader = self._core.leader
        if leader is None or not self._connected(leader):
            return None
        return await self._questions.join()

    async def until_applied(self, index: int) -> None:
        if self._core.applied_index < index:
            await self._waiters.add(index)

    def applied(self, index: int) -> None:
        """This node has applied up to `index`."""
        self._waiters.reached(index)

    def connected(self, peer: str) -> None:
        """A connection with this peer begins: what it asked on a former one it asks again, if it still waits."""
        self._connections[peer] += 1

    def leadership_changed(self) -> None:
        """What is out will not be answered, or not rightly."""
        self._rounds.drop()
        self._questions.drop()

    def repeat(self) -> None:
        """A heartbeat has passed: ask again what is out, since a message may have been lost with its connection."""
        if (number := self._rounds.number) is not None:
            self._send_round(number)
        if (number := self._questions.number) is not None:
            self._ask_leader(number)

    # ---- the leader's side ---------------------------------------------------------------------------------------

    def _begin_round(self, number: int) -> None:
        if not self._may_confirm():
            self._rounds.answer(number, None)
            return
        self._index = self._core.commit_index
        self._echoes = {self._name}
        self._send_round(number)
        self._count(number)

    def _send_round(self, number: int) -> None:
        for peer in self._peers:
            if peer not in self._echoes:
                self._send(peer, "round", {"term": self._core.term, "number": number})

    def _count(self, number: int) -> None:
        if len(self._echoes & self._voters) >= self._majority:
            self._rounds.answer(number, self._index)

    def _on_echo(self, peer: str, message: Any) -> None:
        content = guard.fields(message)
        term, number = guard.number(content, "term"), guard.number(content, "number", 1)
        if not self._counts(peer):
            self.passes["echo not counted (another directory)"] += 1
        elif term > self._core.term:
            self.passes["echo not counted (newer term)"] += 1
            self._core.observe_term(term)
        elif term < self._core.term:
            self.passes["echo not counted (former term)"] += 1
        elif number != self._rounds.number:
            self.passes["echo not counted (late)"] += 1
        else:
            self._echoes.add(peer)
            self._count(number)

    def _on_read(self, peer: str, message: Any) -> None:
        number = guard.number(guard.fields(message), "number", 1)
        if not self._may_confirm():
            self._send(peer, "index", {"number": number, "index": None})
            return
        connection = self._connections[peer]

        def reply(answer: asyncio.Future[int | None]) -> None:
            if connection == self._connections[peer]:
                self._send(peer, "index", {"number": number, "index": answer.result()})

        self._rounds.join().add_done_callback(reply)

    # ---- a follower's side ---------------------------------------------------------------------------------------

    def _on_round(self, peer: str, message: Any) -> None:
        """A leader of our term is confirmed; one of a lower term learns of ours; of a higher one nothing came yet."""
        content = guard.fields(message)
        term, number = guard.number(content, "term", 1), guard.number(content, "number", 1)
        if term <= self._core.term:
            self._send(peer, "echo", {"term": self._core.term, "number": number})

    def _ask_leader(self, number: int) -> None:
        leader = self._core.leader
        if leader is None or leader == self._name:
            self._questions.answer(number, None)
        else:
            self._send(leader, "read", {"number": number})

    def _on_index(self, _peer: str, message: Any) -> None:
        content = guard.fields(message)
        index = None if content.get("index") is None else guard.number(content, "index", 1)
        self._questions.answer(guard.number(content, "number", 1), index)
