"""msgpack as raftcron uses it between processes and on disk: bounded, no extension types, nothing executable."""

from __future__ import annotations

from typing import Any, cast

import msgpack

MAX_DEPTH_BYTES = 1 << 26  # no buffer that one unpack may hold is larger than 64 MiB


def pack(value: Any) -> bytes:
    """Encode None, bool, int, float, str, bytes, list, tuple (as list) and dict."""
    return cast(bytes, msgpack.packb(value, use_bin_type=True))


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """Decode one value; lists for arrays.  Raises ValueError for anything that is not exactly one bounded value."""
    if len(data) > MAX_DEPTH_BYTES:
        raise ValueError(f"not a msgpack value: {len(data)} bytes are over the limit of {MAX_DEPTH_BYTES}")
    try:
        # lengths inside are bounded by len(data)
        return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=_refuse_extension)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise ValueError(f"not a msgpack value: {error}") from error


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise ValueError(f"extension type {code}")
