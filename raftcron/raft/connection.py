"""One TCP connection between two nodes: handshake, then sealed msgpack frames; whom it serves is transport.py's matter.

    frame    length u32 of the body | tag 16 of the body | body: msgpack [kind, message]

`kind` is an int between the transports themselves and a str for whoever uses them.  With TLS all of it, the handshake
too, passes through a channel (tls.py).
"""

from __future__ import annotations

import asyncio
import hmac
import struct
from typing import Any, Protocol, cast

import msgspec.msgpack

from raftcron import wire
from raftcron.clock import Clock
from raftcron.raft.handshake import TAG_BYTES, Handshake, HandshakeError, Seal, Session
from raftcron.raft.tls import Channel, ChannelError

_FRAME = struct.Struct(f"<I{TAG_BYTES}s")
_encode = msgspec.msgpack.Encoder().encode  # `wire.pack` byte for byte, in less time; the spawner is spared it
PARTING_SECONDS = 1.0  # so long a connection that is over may take to end


class FrameError(Exception):
    """What came is not what the other side sealed, or nothing that it may send."""


def _decode(body: bytearray) -> tuple[Any, Any]:
    try:
        kind, message = wire.unpack_message(body)
    except (TypeError, ValueError) as error:
        raise FrameError(f"a frame is not a pair of kind and message: {error}") from error
    return kind, message


class Owner(Protocol):
    """Who a connection tells what happens to it, in this order; `over` comes once, whatever happened."""

    def opened(self, connection: Connection) -> None: ...
    def authenticated(self, connection: Connection) -> None: ...
    def received(self, connection: Connection, kind: Any, message: Any) -> None: ...
    def batch_ended(self, connection: Connection) -> None: ...
    def over(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """A connection as this node sees it.  asyncio switches Nagle's algorithm off by itself."""

    def __init__(
        self,
        owner: Owner,
        handshake: Handshake,
        clock: Clock,
        *,
        dialled: str | None,
        max_frame_bytes: int,
        channel: Channel | None = None,
    ) -> None:
        """`dialled` is the node that was dialled, None for a connection that was accepted."""
        self.dialled = dialled
        self.max_frame_bytes = max_frame_bytes  # both ways; its owner may change it
        self.address = "?"  # host:port of the other end
        self.host = "?"
        self.session: Session | None = None  # once the other side has proved the secret
        self.is_over = False  # nothing is delivered any more
        self.failure: Exception | None = None  # why this side ended it, if it did
        self.lost = asyncio.Event()  # asyncio is done with it
        self.received_at = self.sent_at = clock.monotonic()

        self._owner = owner
        self._clock = clock
        self._handshake = handshake
        self._channel = channel
        self._wait_for = 0
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0
        self._is_flush_due = False

    def __repr__(self) -> str:
        return f"<Connection {'from' if self.dialled is None else 'to'} {self.address}>"

    # ---- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peername = transport.get_extra_info("peername")
        if peername:
            self.host = str(peername[0])
            self.address = f"{peername[0]}:{peername[1]}"
        self._owner.opened(self)
        if self.is_over:
            return
        if self._channel is None:
            self._advance(None)
        else:
            self._take(b"")

    def connection_lost(self, error: Exception | None) -> None:
        self.is_over = True
        self._outgoing.clear()
        self.set_deadline(None)
        self.lost.set()
        self._owner.over(self)

    def data_received(self, data: bytes) -> None:
        if self.is_over:
            return
        self.received_at = self._clock.monotonic()
        self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            if self._channel is not None:
                data = self._open(self._channel, data)
            if data:
                self._buffer += data
                self._take_handshake()
                if self.session is not None:
                    self._take_frames()
        except (HandshakeError, FrameError) as error:
            self.fail(error)

    def _open(self, channel: Channel, data: bytes) -> bytes:
        """What the other side says inside TLS."""
        was_open = channel.is_open
        said = channel.take(data)
        self._leave(channel.outgoing())
        if channel.is_open and not was_open:
            if self.dialled is not None and (mismatch := channel.mismatch(self.dialled)):
                raise HandshakeError(mismatch)  # before it is given anything to guess the secret by
            self._advance(None)
        return said

    def mismatch(self, name: str) -> str | None:
        """Why the other side's certificate is not the node `name`'s; None if it is, or without TLS."""
        return None if self._channel is None else self._channel.mismatch(name)

    # ---- handshake -------------------------------------------------------------------------------------------------

    def _take_handshake(self) -> None:
        while self.session is None and not self.is_over:
            if len(self._buffer) < self._wait_for:
                return
            data = bytes(self._buffer[: self._wait_for])
            del self._buffer[: self._wait_for]
            self._advance(data)

    def _advance(self, data: bytes | None) -> None:
        try:
            step = next(self._handshake) if data is None else self._handshake.send(data)
            while True:
                if step.send:
                    self._write(step.send)
                if step.wait_for:
                    self._wait_for = step.wait_for
                    return
                step = next(self._handshake)
        except StopIteration as end:
            session: Session = end.value
            self._outgoing_seal = Seal(session.send_key)
            self._incoming_seal = Seal(session.receive_key)
            self.session = session
            self._owner.authenticated(self)

    # ---- frames ----------------------------------------------------------------------------------------------------

    def _take_frames(self) -> None:
        buffer, offset, has_delivered = self._buffer, 0, False
        while not self.is_over and len(buffer) - offset >= _FRAME.size:
            length, tag = _FRAME.unpack_from(buffer, offset)
            if length > self.max_frame_bytes:
                raise FrameError(f"a frame of {length} bytes is over the limit of {self.max_frame_bytes}")
            end = offset + _FRAME.size + length
            if end > len(buffer):
                break
            body = buffer[offset + _FRAME.size : end]
            if not hmac.compare_digest(self._incoming_seal.tag(body), tag):
                raise FrameError("a frame does not carry the seal of this connection")
            offset = end
            kind, message = _decode(body)
            self._owner.received(self, kind, message)
            has_delivered = True
        del buffer[:offset]
        if has_delivered:
            self._owner.batch_ended(self)

    def send(self, kind: int | str, message: Any) -> None:
        """Queue a frame.  ValueError if it is over the bound."""
        body = _encode([kind, message])
        if len(body) > self.max_frame_bytes:
            raise ValueError(f"a frame of {len(body)} bytes is over the limit of {self.max_frame_bytes}")
        self._write(_FRAME.pack(len(body), self._outgoing_seal.tag(body)) + body)

    @property
    def backlog_bytes(self) -> int:
        """What has not left this process yet."""
        assert self._transport is not None
        return self._transport.get_write_buffer_size() + self._outgoing_bytes

    def _write(self, data: bytes) -> None:
        """The first write of a turn of the loop leaves at once, what follows in the same turn leaves together."""
        if self._is_flush_due:
            self._outgoing.append(data)
            self._outgoing_bytes += len(data)
        elif not self.is_over:
            self.sent_at = self._clock.monotonic()
            self._seal(data)
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._outgoing:
            data = b"".join(self._outgoing)
            self._outgoing.clear()
            self._outgoing_bytes = 0
            self._seal(data)

    def _seal(self, data: bytes) -> None:
        self._leave(data if self._channel is None else self._channel.seal(data))

    def _leave(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    # ---- the end ---------------------------------------------------------------------------------------------------

    def set_deadline(self, seconds: float | None) -> None:
        """Fail unless the deadline is moved in time; None: there is none."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.fail(HandshakeError("it did not finish the handshake in time"))

    def fail(self, error: Exception) -> None:
        """End it because of the other side, which is told why if it is owed that."""
        self.failure = error
        if not isinstance(error, HandshakeError) or not error.parting or self.session is not None:
            self.abort()
            return
        if isinstance(error, ChannelError):
            self._outgoing.clear()  # nothing can be sealed any more
            self._leave(error.parting)
        else:
            self._write(error.parting)
        self.retire()

    def retire(self) -> None:
        """Deliver nothing more, and leave the end to the other side for a while.

        Closing at once would show as a sudden end there, and could destroy our last words on their way.
        """
        self.is_over = True
        self.set_deadline(None)
        self._deadline = self._loop.call_later(PARTING_SECONDS, self.abort)

    def close(self) -> None:
        """Deliver nothing more, let what is queued leave, then end."""
        self.retire()
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """End it now, whatever is queued."""
        self.is_over = True
        self._outgoing.clear()
        if self._transport is not None:
            self._transport.abort()
