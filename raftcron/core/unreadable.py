"""What reading msgpack or JSON raises where the bytes are none: not only msgspec's own errors."""

from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
