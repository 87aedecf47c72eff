"""Something else in the place of a name, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import getattr_static
from typing import Any

from raftcron.core import apply as core_apply

Replacement = tuple[Any, str, Any]  # owner, name, value


@contextmanager
def replaced(replacements: list[Replacement]) -> Iterator[None]:
    """All of them hold for a while."""
    with ExitStack() as stack:
        for owner, name, value in replacements:
            stack.callback(setattr, owner, name, getattr_static(owner, name))  # a static method stays one
            setattr(owner, name, value)
        yield


def handled(command: Any, handler: Any) -> Replacement:
    """Commands of this kind are applied so."""
    return core_apply, "_HANDLERS", {**core_apply._HANDLERS, command: handler}
