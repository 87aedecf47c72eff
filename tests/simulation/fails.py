"""The lines by which the simulation's checks fail, as texts: `{}` stands for whatever a line fills in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from raftcron import testing

ANYTHING = "{}"


def lines() -> list[str]:
    """What each call of a `fail(checker, text)` in the rooms of the simulation says."""
    rooms = sorted(Path(testing.__path__[0]).glob("sim_*.py"))
    return [line for room in rooms for line in _lines(ast.parse(room.read_text()))]


def _lines(room: ast.Module) -> Iterator[str]:
    for node in ast.walk(room):
        match node:
            case ast.Call(func=ast.Attribute(attr="fail" | "_fail"), args=[_, text]):
                yield _text_of(text)


def _text_of(text: ast.expr) -> str:
    match text:
        case ast.Constant(value=str(constant)):
            return constant
        case ast.JoinedStr(values=parts):
            return "".join(map(_text_of, parts))
    return ANYTHING


def named(fragment: str, among: list[str]) -> list[str]:
    """The lines that a fragment of one can mean: one that it is the whole of, or those that it is a part of."""
    return [line for line in among if line == fragment] or [line for line in among if fragment in line]


def is_said(fragment: str, text: str) -> bool:
    """Whether a text may be what a line with this fragment has made."""
    return re.search(".*".join(map(re.escape, fragment.split(ANYTHING))), text, re.DOTALL) is not None
