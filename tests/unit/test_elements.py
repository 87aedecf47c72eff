"""The elements of a JSON array, found one after another (api/elements.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftcron.api.elements import spans

TEXTS = st.text(st.sampled_from('ab"\\[]{}, é\n'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 9999) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


def found(array: bytes, piece_bytes: int) -> list[Any]:
    return [json.loads(array[span[0] : span[1]]) for span in spans(array, piece_bytes) if span is not None]


@given(st.lists(VALUES, max_size=6), st.integers(2, 40), st.sampled_from([None, 1]), st.booleans())
def test_the_elements_are_those_of_the_array(
    values: list[Any], piece_bytes: int, indent: int | None, is_ascii: bool
) -> None:
    """Wherever a piece ends: within a string, an escape, a number or space."""
    assert found(json.dumps(values, indent=indent, ensure_ascii=is_ascii).encode(), piece_bytes) == values


@pytest.mark.parametrize("array", [b"[]", b"[ ]", b"[" + b"\n" * 100 + b"]"])
def test_an_empty_array_has_none(array: bytes) -> None:
    """However much space is in it."""
    assert found(array, 16) == []


@pytest.mark.parametrize(
    "inner",
    [b'"' + b"a" * 10_000 + b'"', b'"' + b"\\\\" * 5_000 + b'"', b" " * 10_000 + b"0", b"[" + b"0," * 5_000 + b"0]"],
    ids=["string", "backslashes", "space", "list"],
)
def test_a_long_element_is_looked_at_in_pieces(inner: bytes) -> None:
    """Each step looks at one piece, so that its caller can let others have their turn."""
    steps = list(spans(b"[" + inner + b", 1]", 100))
    assert steps.count(None) >= 90
    assert [span for span in steps if span is not None] == [(1, 1 + len(inner)), (2 + len(inner), 4 + len(inner))]
