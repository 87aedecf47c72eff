"""Something else in the place of a name, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

Replacement = tuple[Any, str, Any]  # owner, name, value


@contextmanager
def replaced(replacements: list[Replacement]) -> Iterator[None]:
    """All of them hold for a while."""
    with ExitStack() as stack:
        for owner, name, value in replacements:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield
