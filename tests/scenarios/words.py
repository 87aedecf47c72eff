"""How stories write instants, JSON and figures; and what they say when nobody can play them."""

from __future__ import annotations

import json
from typing import Any

from tests.scenarios.scene import START_MS

BEGIN_MS = START_MS + 2_000  # both nodes are announced by then


class StoryError(Exception):
    """A story cannot be played: what is wrong with it, and where."""


def read(text: str) -> Any:
    """JSON of a story."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise StoryError(f"{text} is no JSON: {error}") from error


def instant(second: str) -> int:
    """Seconds since the story began, in ms since the epoch."""
    try:
        return BEGIN_MS + int(float(second) * 1000)
    except ValueError as error:
        raise StoryError(f"{second}s are no seconds") from error


def at(ms: int | None) -> str:
    """An instant as seconds since the story began, to a tenth."""
    return "never" if ms is None else seconds(ms - BEGIN_MS)


def seconds(ms: float) -> str:
    """To a tenth."""
    return f"{round(ms / 1000, 1) + 0.0:.1f}".removesuffix(".0") + "s"


def figures(found: dict[str, int] | None) -> str:
    """Of a job's statistics, in words."""
    if found is None:
        return "none"
    return f"{found['count']} counted, " + ", ".join(
        f"{word} {seconds(value)}" for word, value in found.items() if word != "count"
    )
