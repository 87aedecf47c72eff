"""msgpack as raftcron uses it between processes and on disk: bounded, no extension types, nothing executable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgpack

MAX_DEPTH_BYTES = 1 << 26  # no buffer that one unpack may hold is larger than 64 MiB
MAX_MESSAGE_CONTAINERS = 1 << 17  # lists and maps in one message: a batch of 65,536 entries, and as much again
MAX_MESSAGE_DEPTH = 32  # lists and maps within each other in one message; far below where repr and the like give up


def pack(value: Any) -> bytes:
    """Encode None, bool, int, float, str, bytes, list, tuple (as list) and dict."""
    return cast(bytes, msgpack.packb(value, use_bin_type=True))


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """Decode one value; lists for arrays.  Raises ValueError for anything that is not exactly one bounded value."""
    return _unpack(data)


def _unpack(data: bytes | bytearray | memoryview, **hooks: Callable[[Any], Any]) -> Any:
    if len(data) > MAX_DEPTH_BYTES:
        raise ValueError(f"not a msgpack value: {len(data)} bytes are over the limit of {MAX_DEPTH_BYTES}")
    try:
        # lengths inside are bounded by len(data)
        return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=_refuse_extension, **hooks)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise ValueError(f"not a msgpack value: {error}") from error


def unpack_message(data: bytes | bytearray | memoryview) -> Any:
    """As `unpack`, for what another process says: with bounds on what a few of its bytes can make of our memory.

    A byte can ask for a list of its own, 70 times its size; so can a thousand of them for one inside the other.
    """
    left = MAX_MESSAGE_CONTAINERS

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"over {MAX_MESSAGE_CONTAINERS} lists and maps")
        return container

    value = _unpack(data, list_hook=count, object_hook=count)
    if MAX_MESSAGE_CONTAINERS - left > MAX_MESSAGE_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_MESSAGE_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is list or type(inner) is dict
        ]
        if not level:
            return
    raise ValueError(f"not a msgpack value: over {MAX_MESSAGE_DEPTH} lists and maps within each other")


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise ValueError(f"extension type {code}")
