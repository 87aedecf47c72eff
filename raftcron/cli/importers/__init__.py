"""Jobs of other schedulers as jobs of this one: pure text to definitions, with a warning for every peculiarity."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from raftcron.core.explain import explain
from raftcron.core.schedule import Dst, ScheduleError, parse

NAME_MAX: Final = 100  # characters that a derived name has, before a number
LABEL_MAX: Final = 128  # characters of a label's key; its value has 256
NO_LIMIT: Final = "7d"  # the timeout of what had none
DST_CODES: Final = frozenset({"dst_gap", "dst_fold"})


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


def meets_dst(schedule: str, timezone: str, now_ms: int) -> bool:
    """Whether a change of the clocks within the next 400 days touches it."""
    found = explain(schedule, timezone, Dst(), "", now_ms, 0)
    return any(note.code in DST_CODES for note in found.notes)


def differs_from_go(schedule: str) -> str | None:
    """What the cron library of Go programs reads otherwise than Vixie's cron, whose way this is."""
    fields = schedule.split()
    if schedule.startswith("@") or len(fields) not in (5, 6):
        return None
    of_month, of_week = fields[-3], fields[-1]
    stepped = [field for field in (of_month, of_week) if re.match(r"\*/(?!1\b)", field)]
    if stepped and "*" not in (of_month, of_week) and "?" not in (of_month, of_week):
        return f"`{stepped[0]}` beside the other day field: either one was enough, here both must match"
    return None


def labels_of(found: Mapping[Any, Any]) -> dict[str, str]:
    """Labels, cut to what is taken."""
    return {str(key)[:LABEL_MAX]: str(value)[:256] for key, value in list(found.items())[:64] if str(key)}


def mapping(value: Any) -> dict[str, Any]:
    """An object, empty where there is none."""
    return value if isinstance(value, dict) else {}
