"""The bytes between daemon and spawner."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.executors.frames import FRAME_BYTES_MAX, Frames, frame

VALUES = st.lists(st.dictionaries(st.text(max_size=5), st.none() | st.integers(0, 2**63) | st.binary(max_size=99)))


@settings(max_examples=30)
@given(VALUES, st.integers(min_value=1, max_value=50))
def test_values_survive_any_cutting(values: list[object], size: int) -> None:
    """However the stream arrives, the same values come out in order."""
    stream = b"".join(frame(value) for value in values)
    frames = Frames()
    got = [one for begin in range(0, len(stream), size) for one in frames.feed(stream[begin : begin + size])]
    assert got == values


def test_what_is_too_large_or_not_msgpack_is_refused() -> None:
    """Before it is held in memory."""
    with pytest.raises(ValueError, match="over the limit"):
        frame(b"x" * (FRAME_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="over the limit"):
        Frames().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(ValueError, match="not a msgpack value"):
        Frames().feed(b"\0\0\0\x01\xc1")
