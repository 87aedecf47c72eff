"""Jobs of other schedulers as jobs of this one: pure text to definitions, with a warning for every peculiarity."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from raftcron.core.schedule import ScheduleError, parse

NAME_MAX = 100  # characters that a derived name has, before a number


class Imported(NamedTuple):
    """Definitions as `job apply` takes them, and what does not mean the same here, in words."""

    jobs: list[dict[str, Any]]
    warnings: list[str]


def name_of(text: str, taken: set[str]) -> str:
    """A job's name out of any text, which nothing else of this import has."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:NAME_MAX] or "job"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name


def schedule_fault(schedule: str, timezone: str) -> str | None:
    """Why a schedule would be refused; None if it is taken."""
    try:
        parse(schedule, timezone)
    except ScheduleError as error:
        return str(error)
    return None
