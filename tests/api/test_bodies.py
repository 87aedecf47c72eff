"""A body that is decoded quickly has the value, and the faults, that a look at each of its values finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raftcron.api import bodies
from raftcron.errors import RaftcronError

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(1 << 65), 1 << 65),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["", '"', "\\", "é", "\ud800", "a/b"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.builds(lambda pairs: _Twice(pairs), st.lists(st.tuples(st.sampled_from("ab"), inner), max_size=3)),
    ),
    max_leaves=12,
)


class _Twice(dict[str, Any]):
    """An object that is written with all of its pairs, equal keys or not."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def items(self) -> Any:
        return self.pairs


def _outcome(decode: Any, body: bytes) -> tuple[str, Any]:
    try:
        return ("value", repr(decode(body)))  # which tells 1 from 1.0 and True, and the order of keys
    except RaftcronError as error:
        return (type(error).__name__, (error.detail, error.faults))


def _agree(body: bytes) -> None:
    assert _outcome(bodies.decode, body) == _outcome(bodies._walked, body)


@given(values, st.booleans())
def test_a_body_is_decoded_quickly_to_what_it_is_decoded_to_slowly(value: Any, is_ascii: bool) -> None:
    _agree(json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"))


@given(st.binary(min_size=1, max_size=40))
@example(b'{"a":1,"a":2}')
@example(b'{"a":"x","a":"x"}')
@example(b"[-0, 0, 1e3, 1E400, -0.0, 18446744073709551615, 18446744073709551616, -9223372036854775809]")
@example(b"-0")
@example(b"\xef\xbb\xbf{}")
@example(b" [1] \n")
@example(b"\x0c[1]")
@example(b'{"a":1}x')
@example(b'"\xed\xa0\x80"')
@example(b'"\xff"')
@example(b'"a\nb"')
@example(b'"\x7f"')
@example(b"NaN")
@example(b"[1,]")
@example(b"01")
@example(b"\xff\xfe[\x00]\x00")
@example(b"[" * 15 + b"]" * 15)
@example(b"[" * 70 + b"]" * 70)
@example(b"[" * 5_000 + b"]" * 5_000)
@example(b"[" + b"1," * 50_000 + b"1]")
def test_whatever_bytes_come_are_judged_alike_quickly_and_slowly(body: bytes) -> None:
    _agree(body)


@given(st.text('{}[]:,"a1-0.eEtrufalsn \\\n', min_size=1, max_size=30))
def test_whatever_looks_like_json_is_judged_alike_quickly_and_slowly(text: str) -> None:
    _agree(text.encode())


@pytest.mark.parametrize("body", [b'{"name":"a","n":[1,{"b":null}]}', '{"labels":{"é":"ü"}}'.encode()])
def test_a_usual_body_is_decoded_quickly(body: bytes) -> None:
    assert bodies._usual(body) == json.loads(body)
