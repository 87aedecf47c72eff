"""Commands on their way: the envelope that each travels in, and the table of those that have not come back yet."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from raftcron import wire
from raftcron.core.unreadable import UNREADABLE
from raftcron.errors import DamagedError, NewerVersionError, UnavailableError, UnknownOutcomeError
from raftcron.ports import Applied

COMMAND = b"\x00"  # the first byte of an entry that holds an envelope
ENVELOPE_VERSION = 1
ENVELOPE_BYTES = 512  # an envelope adds less than this to its body (names are at most 253 bytes)

MAX_PENDING = 1 << 16  # commands in flight; more than a leader commits in a second
MAX_PENDING_BYTES = 64 << 20  # of their bodies


class Envelope(Struct, array_like=True, frozen=True, gc=False, tag=ENVELOPE_VERSION, forbid_unknown_fields=True):
    """A command in the log: who proposed it in which life, its number there, and the epoch it was made under.

    As bytes it is a list with the version in front.
    """

    node: str
    incarnation: int
    seq: int
    epoch: int
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


def encode(envelope: Envelope) -> bytes:
    return COMMAND + _encode(envelope)


def decode(index: int, command: bytes) -> Envelope:
    """The envelope of a committed entry.  Raises NewerVersionError, and DamagedError for what no version wrote."""
    envelope = memoryview(command)[1:]
    try:
        return _decode(envelope)
    except UNREADABLE as error:
        try:
            version, *_ = wire.unpack(envelope)
        except (ValueError, TypeError):
            version = ENVELOPE_VERSION
        if version == ENVELOPE_VERSION:
            raise DamagedError(f"entry {index} of the log cannot be read: {error}") from error
        raise newer(index, f"an envelope of version {version!r:.20}") from None


def newer(index: int, what: str) -> NewerVersionError:
    return NewerVersionError(
        f"entry {index} of the log is {what}, written by a newer release than this one: start that release or a later "
        f"one on this node; its data directory is in order"
    )


class _Pending(NamedTuple):
    future: asyncio.Future[Applied]
    epoch: int
    size: int
    due_at: float  # on the monotonic clock


class Proposals:
    """The commands of this process that are in its log but have not applied here; in order of their numbers."""

    def __init__(self) -> None:
        self._pending: dict[int, _Pending] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def is_full(self) -> bool:
        return len(self._pending) >= MAX_PENDING or self._bytes >= MAX_PENDING_BYTES

    def add(self, seq: int, future: asyncio.Future[Applied], epoch: int, size: int, due_at: float) -> None:
        """Numbers, epochs and instants never fall from one call to the next."""
        self._pending[seq] = _Pending(future, epoch, size, due_at)
        self._bytes += size

    def _pop(self, seq: int) -> asyncio.Future[Applied] | None:
        """The future of this command, if somebody still waits for it."""
        pending = self._pending.pop(seq, None)
        if pending is None:
            return None
        self._bytes -= pending.size
        return None if pending.future.done() else pending.future

    def resolve(self, seq: int, index: int, outcome: Any) -> None:
        """This command has applied.  Whoever waits wakes with the loop's next turn, not now."""
        if (future := self._pop(seq)) is not None:
            future.set_result(Applied(index, outcome))

    def void_below(self, epoch: int) -> None:
        """A leadership entry made `epoch` begin: what was made under a lower one and has not applied never will."""
        for seq in self._first(lambda pending: pending.epoch < epoch):
            if (future := self._pop(seq)) is not None:
                future.set_exception(
                    UnavailableError("another leader took over before the command was in the log: not written; retry")
                )

    def expire(self, now: float) -> None:
        """Give up waiting for those whose time is over."""
        for seq in self._first(lambda pending: pending.due_at <= now):
            if (future := self._pop(seq)) is not None:
                future.set_exception(
                    UnknownOutcomeError(
                        "no quorum confirmed the command in time: it may be written, now or later; "
                        "repeat it with the same idempotency key"
                    )
                )

    def abandon(self) -> None:
        """The process ends."""
        self.expire(float("inf"))

    def _first(self, is_over: Any) -> list[int]:
        """The numbers at the front for which it holds; they stand in the order in which they end."""
        numbers: list[int] = []
        for seq, pending in self._pending.items():
            if not is_over(pending):
                break
            numbers.append(seq)
        return numbers
