"""Collects every fault of an executor object; pure, so that any node may judge a job.  The kinds' rules are theirs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from raftcron.core.vault import REFERENCE
from raftcron.errors import Fault

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901) of these steps."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


class Findings:
    """The list in the making."""

    def __init__(self) -> None:
        self.items: list[Fault] = []

    def invalid(self, where: str, message: str) -> None:
        self.items.append(Fault(where, message))

    def unknown_fields(self, spec: Mapping[str, Any], known: Collection[str]) -> None:
        for name in spec:
            if name not in known:
                fields = ", ".join(sorted(known))
                self.invalid(pointer(name), f"unknown field {name!r}; the fields are {fields}")

    def text(self, where: str, value: Any, *, bytes_max: int, nul: bool = False, secret: bool = False) -> bool:
        """Whether it is a string that can be stored and handed on; says what is wrong with it.

        `nul` allows NUL characters, `secret` says that `${secret:name}` is resolved in it; elsewhere it is a mistake.
        """
        before = len(self.items)
        if not isinstance(value, str):
            self.invalid(where, f"must be a string, not {json_type(value)}")
            return False
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            self.invalid(where, "holds half of a surrogate pair, which is not a character")
            return False
        if size > bytes_max:
            self.invalid(where, f"is {size} bytes long; at most {bytes_max} are possible")
        if not nul and "\0" in value:
            self.invalid(where, "must not hold a NUL character")
        if not secret and REFERENCE.search(value):
            self.invalid(where, "${secret:name} is resolved in url, headers, body and env only: put it there")
        return len(self.items) == before


def has_control(value: str) -> bool:
    """Whether it holds a control character, line ends included."""
    return _CONTROL.search(value) is not None


def json_type(value: Any) -> str:
    """The word that JSON has for it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "an array"
        case _:
            return "an object"
