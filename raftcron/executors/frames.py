"""The bytes between daemon and spawner: four bytes of length, then one msgpack value.  What they mean is not here."""

from __future__ import annotations

from typing import Any

from raftcron.wire import pack, unpack

FRAME_BYTES_MAX = 8 << 20  # a job is at most 1 MiB; anything near this is a defect, not a request

_PREFIX_BYTES = 4


def frame(value: Any) -> bytes:
    """One value, ready to be written.  ValueError if it is too large to be read on the other side."""
    body = pack(value)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"a message of {len(body)} bytes is over the limit of {FRAME_BYTES_MAX}")
    return len(body).to_bytes(_PREFIX_BYTES, "big") + body


class Frames:
    """Cuts a stream of bytes into values; holds at most one frame that is not whole yet, and what came after it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The values that are whole now.  ValueError for a frame that is too large or not msgpack."""
        self._buffer += data
        values = []
        begin = 0
        while len(self._buffer) - begin >= _PREFIX_BYTES:
            size = int.from_bytes(self._buffer[begin : begin + _PREFIX_BYTES], "big")
            if size > FRAME_BYTES_MAX:
                raise ValueError(f"a message of {size} bytes is over the limit of {FRAME_BYTES_MAX}")
            end = begin + _PREFIX_BYTES + size
            if len(self._buffer) < end:
                break
            values.append(unpack(bytes(self._buffer[begin + _PREFIX_BYTES : end])))
            begin = end
        del self._buffer[:begin]
        return values
