"""This node's turns as leader: its leadership entry, the epoch that it leads in, and its commands until they come back.

The engine is given no callbacks and forwards nothing: a command is proposed on the leader's node or not at all, and
comes back when this node applies it.  Nobody leads before its own leadership entry of the term has applied here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from raftcron.clock import Clock
from raftcron.errors import FatalError, RaftcronError, TooLargeError, UnavailableError
from raftcron.ports import Applied, StateMachine
from raftcron.raft import proposals
from raftcron.raft.proposals import Envelope, Proposals


class Engine(Protocol):
    """What it has to know of the engine, and asks of it (seam.py)."""

    @property
    def term(self) -> int: ...
    def append(self, command: bytes) -> int: ...


class Leadership:
    """Proposals and leadership of one life of one node.

    `lives` counts the lives of nodes of this name, this one too; `why_not` says why this node does not lead; `kick`
    asks for a step of the engine; `changed` is told of each leadership that begins, with its epoch, and of its end.
    """

    def __init__(
        self,
        name: str,
        machine: StateMachine,
        *,
        lives: Callable[[], int],
        why_not: Callable[[], str],
        kick: Callable[[], None],
        changed: Callable[[int | None], None],
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        max_command_bytes: int,
        request_seconds: float,
    ) -> None:
        self.epoch: int | None = None  # that this node leads in
        self._name = name
        self._machine = machine
        self._lives = lives
        self._why_not = why_not
        self._kick = kick
        self._changed = changed
        self._clock = clock
        self._loop = loop
        self._max_command_bytes = max_command_bytes
        self._request_seconds = request_seconds
        self._seq = 0
        self._applied_epoch = machine.epoch  # as of the last entry that has applied
        self._entry: int | None = None  # number of our leadership entry, while it is on its way
        self._proposals = Proposals()
        self._hold: asyncio.Future[None] | None = None  # proposals wait while a successor is made ready

    # ---- leading -------------------------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether the leadership entry of this node's term is in the log."""
        return self._entry is not None or self.epoch is not None

    def begin(self, core: Engine) -> None:
        """Put this node's leadership entry into the log; it leads once that has applied."""
        self._entry = self._append(core, self._machine.leadership(core.term), self._applied_epoch)
        self._kick()

    def ended(self) -> None:
        """This node is no leader any more."""
        self._entry = None
        if self.epoch is not None:
            self.epoch = None
            self._changed(None)

    @property
    def applied_epoch(self) -> int:
        """That of the last leadership entry, anybody's, that has applied here."""
        return self._applied_epoch

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Proposals wait as long as this lasts."""
        self._hold = self._loop.create_future()
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        if self._hold is not None:
            self._hold.set_result(None)
            self._hold = None

    # ---- proposing -----------------------------------------------------------------------------------------------

    async def propose(self, core: Engine, body: bytes, epoch: int) -> Applied:
        """See `ports.Log`.  Raises TooLargeError too, beyond `max_command_bytes`: certainly not written."""
        if len(body) > self._max_command_bytes:
            raise TooLargeError(
                f"a command of {len(body)} bytes is over the limit of {self._max_command_bytes}: split it"
            )
        while self._hold is not None:
            await asyncio.shield(self._hold)
        if self.epoch is None:
            raise UnavailableError(self._why_not())
        if epoch != self.epoch:
            raise UnavailableError(f"the command was made under epoch {epoch}, now is {self.epoch}; make it anew")
        if self._proposals.is_full:
            raise UnavailableError("too many commands are in flight on this node; retry a little later")
        future: asyncio.Future[Applied] = self._loop.create_future()
        seq = self._append(core, body, epoch)
        self._proposals.add(seq, future, epoch, len(body), self._clock.monotonic() + self._request_seconds)
        self._kick()
        return await future

    def _append(self, core: Engine, body: bytes, epoch: int) -> int:
        self._seq += 1
        core.append(proposals.encode(Envelope(self._name, self._lives(), self._seq, epoch, body)))
        return self._seq

    def expire(self) -> None:
        """Give up waiting for commands whose time is over."""
        self._proposals.expire(self._clock.monotonic())

    def end(self) -> None:
        """The process ends: what is pending has an unknown outcome."""
        self.epoch = None
        self._proposals.abandon()
        self._release()

    # ---- applying ------------------------------------------------------------------------------------------------

    def apply(self, core: Engine, index: int, term: int, command: bytes) -> None:
        """A committed command: apply it, and answer whoever waits for it.

        Raises FatalError and its kin: the process must not go on.
        """
        envelope = proposals.decode(index, command)
        try:
            outcome = self._machine.apply(index, envelope.body)
        except RaftcronError:
            raise
        except Exception as error:
            raise FatalError(
                f"entry {index} cannot be applied: {error!r}. Every node would fail on it alike: stop, keep the data "
                f"directories, and report it"
            ) from error
        if envelope.node == self._name and envelope.incarnation == self._lives():
            self._proposals.resolve(envelope.seq, index, outcome)
            if envelope.seq == self._entry and term == core.term:
                self._entry = None
                self.epoch = self._machine.epoch
                self._changed(self.epoch)
        if self._machine.epoch != self._applied_epoch:
            self._applied_epoch = self._machine.epoch
            self._proposals.void_below(self._applied_epoch)

    def installed(self) -> None:
        """A snapshot has taken the place of entries that this node has not seen: what is pending may be in it."""
        self._applied_epoch = self._machine.epoch
        self._proposals.abandon()
