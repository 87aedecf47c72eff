"""What each field of a job may hold, one check a field; what fields there are, and their defaults: definition.py."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from raftcron.core.instant import format_duration, parse_duration, parse_rfc3339, shown
from raftcron.core.model import AT_LEAST_ONCE, AT_MOST_ONCE
from raftcron.errors import Fault

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
NAME_RULE = "1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or a digit"
TEXT_MAX = 4_096  # characters
LIST_MAX = 64  # labels, tags, calendars, parents, alerts: of each
HISTORY_RUNS_MAX = 100_000
ATTEMPTS_MAX = 1_000
EXCLUDE_MAX = 16  # calendars of one job
COUNT_MAX = 1_000_000
ALERTS_MAX = 8  # targets of one job, or of the default route
URL_MAX = 2_048  # characters
MISFIRE_MAX = 1_000  # missed times that become runs together, in one entry: about 25 bytes and 20 microseconds each
QUEUE_MAX = 10_000  # runs of one job that wait for their turn, about 1 KiB each
DURATION_MAX_MS = 10 * 366 * 86_400_000


ALERT_KINDS = ("failed", "lost", "late", "missed", "recovered", "paused")
# By type, the fields that an alert has beside it; what those that are texts have to look like.
ALERT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "webhook": ("on", "url", "secret"),
    "slack": ("on", "url"),
    "email": ("on", "to"),
    "none": (),
}
ALERT_TEXTS = (
    ("url", re.compile(r"(?:https?://|\$\{secret:)[!-~]+", re.ASCII), "an address such as https://host/path"),
    ("to", re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,253}", re.ASCII), "one mail address such as ops@example.org"),
    ("secret", re.compile(r"\$\{secret:[A-Za-z0-9][A-Za-z0-9._-]{0,127}\}"), "a reference such as ${secret:hook}"),
)


class Walk:
    """Collects faults; each method checks one value at one pointer."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fault(self, pointer: str, message: str) -> None:
        self.faults.append(Fault(pointer, message))

    def text(self, pointer: str, value: Any, longest: int = TEXT_MAX) -> None:
        if not isinstance(value, str):
            self.fault(pointer, f"must be a string, not {kind_of(value)}")
        elif len(value) > longest:
            self.fault(pointer, f"has {len(value)} characters, at most {longest} are taken")

    def name(self, pointer: str, value: Any) -> None:
        problem = name_fault(value)
        if problem is not None:
            self.fault(pointer, problem)

    def duration(self, pointer: str, value: Any, least_ms: int = 0) -> None:
        try:
            milliseconds = parse_duration(value)
        except (ValueError, TypeError) as error:
            self.fault(pointer, f"{error}")
            return
        if not least_ms <= milliseconds <= DURATION_MAX_MS:
            self.fault(pointer, f"is {shown(value)}, which is outside {format_duration(least_ms)} to 10 years")

    def whole(self, pointer: str, value: Any, least: int, most: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            self.fault(
                pointer, f"must be a whole number, not {'a fraction' if isinstance(value, float) else kind_of(value)}"
            )
        elif not least <= value <= most:
            self.fault(pointer, f"is {value}, allowed are {least} to {most}")

    def choice(self, pointer: str, value: Any, allowed: Iterable[str]) -> None:
        if value not in tuple(allowed):
            self.fault(pointer, f"is {shown(value)}, allowed are {', '.join(allowed)}")

    def instant(self, pointer: str, value: Any) -> None:
        try:
            parse_rfc3339(value)
        except (ValueError, TypeError) as error:
            self.fault(pointer, f"{error}")

    def texts(self, pointer: str, value: Any) -> None:
        """An object of strings."""
        if not isinstance(value, dict):
            self.fault(pointer, f"must be an object, not {kind_of(value)}")
            return
        if len(value) > LIST_MAX:
            self.fault(pointer, f"has {len(value)} entries, at most {LIST_MAX} are taken")
            return
        for key, text in value.items():
            if not 1 <= len(key) <= 128:
                self.fault(f"{pointer}/{escape(key)}", "a name here has 1 to 128 characters")
            self.text(f"{pointer}/{escape(key)}", text, 256)

    def each(self, pointer: str, value: Any, check: Check, most: int = LIST_MAX) -> None:
        """An array."""
        if not isinstance(value, list):
            self.fault(pointer, f"must be an array, not {kind_of(value)}")
        elif len(value) > most:
            self.fault(pointer, f"has {len(value)} entries, at most {most} are taken")
        else:
            for place, item in enumerate(value):
                check(self, f"{pointer}/{place}", item)


Check = Callable[[Walk, str, Any], None]


# ---- words of messages ---------------------------------------------------------------------------------------------


def kind_of(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def escape(key: str) -> str:
    """A key as one step of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def near(word: str, known: Iterable[str]) -> str:
    """A hint at the word that was meant."""
    close = difflib.get_close_matches(word[:100], sorted(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def name_fault(name: Any) -> str | None:
    """What is wrong with a name (of a job, a calendar), or None."""
    if not isinstance(name, str):
        return f"must be a string, not {kind_of(name)}"
    if NAME.fullmatch(name) is None:
        return f"{shown(name)} is not a name: {NAME_RULE}"
    return None


# ---- the table -----------------------------------------------------------------------------------------------------


def _text(longest: int = TEXT_MAX) -> Check:
    return lambda walk, pointer, value: walk.text(pointer, value, longest)


def _duration(least_ms: int = 0) -> Check:
    return lambda walk, pointer, value: walk.duration(pointer, value, least_ms)


def _whole(least: int, most: int) -> Check:
    return lambda walk, pointer, value: walk.whole(pointer, value, least, most)


def _choice(*allowed: str) -> Check:
    return lambda walk, pointer, value: walk.choice(pointer, value, allowed)


def _name(walk: Walk, pointer: str, value: Any) -> None:
    walk.name(pointer, value)


def _texts(walk: Walk, pointer: str, value: Any) -> None:
    walk.texts(pointer, value)


def _instant(walk: Walk, pointer: str, value: Any) -> None:
    walk.instant(pointer, value)


def _each(check: Check) -> Check:
    return lambda walk, pointer, value: walk.each(pointer, value, check)


def _or_null(check: Check) -> Check:
    def checked(walk: Walk, pointer: str, value: Any) -> None:
        if value is not None:
            check(walk, pointer, value)

    return checked


def _parent(walk: Walk, pointer: str, value: Any) -> None:
    """One entry of `after`."""
    if not isinstance(value, dict):
        walk.fault(pointer, f'must be an object such as {{"job": "name", "on": "success"}}, not {kind_of(value)}')
        return
    for key in sorted(value.keys() - {"job", "on"}):
        walk.fault(f"{pointer}/{escape(key)}", "is not a field here; there are job and on")
    walk.name(f"{pointer}/job", value.get("job"))
    walk.choice(f"{pointer}/on", value.get("on", "success"), ("success", "failure", "any"))


def _parents(walk: Walk, pointer: str, value: Any) -> None:
    walk.each(pointer, value, _parent)
    names = [item.get("job") if isinstance(item, dict) else None for item in value] if isinstance(value, list) else []
    for place, name in enumerate(names):
        if isinstance(name, str) and name in names[:place]:
            walk.fault(f"{pointer}/{place}/job", f'{shown(name)} is there twice: "on": "any" takes every end of it')


def _calendars(walk: Walk, pointer: str, value: Any) -> None:
    walk.each(pointer, value, _name, EXCLUDE_MAX)
    names = value if isinstance(value, list) else []
    for place, name in enumerate(names):
        if name in names[:place]:
            walk.fault(f"{pointer}/{place}", f"{shown(name)} is there twice")


def _alert(walk: Walk, pointer: str, value: Any) -> None:
    """One entry of `alerts`: what is told, and to whom."""
    if not isinstance(value, dict):
        walk.fault(
            pointer, f'must be an object such as {{"type": "webhook", "url": "https://..."}}, not {kind_of(value)}'
        )
        return
    kind = value.get("type", "webhook")
    walk.choice(f"{pointer}/type", kind, ALERT_FIELDS)
    if not isinstance(kind, str) or kind not in ALERT_FIELDS:
        return
    fields = ALERT_FIELDS[kind]
    for key in sorted(value.keys() - {"type", *fields}):
        walk.fault(f"{pointer}/{escape(key)}", f"is not a field of an alert of type {kind}" + near(key, fields))
    if "on" in fields and "on" in value:
        walk.each(f"{pointer}/on", value["on"], _choice(*ALERT_KINDS))
    for key, pattern, rule in ALERT_TEXTS:
        if key not in fields or (key == "secret" and value.get(key) is None):
            continue
        if key not in value:
            walk.fault(f"{pointer}/{key}", f"is missing: {rule}")
        elif not isinstance(value[key], str) or len(value[key]) > URL_MAX or pattern.fullmatch(value[key]) is None:
            walk.fault(f"{pointer}/{key}", f"must be {rule}")


def _alerts(walk: Walk, pointer: str, value: Any) -> None:
    walk.each(pointer, value, _alert, ALERTS_MAX)
    kinds = [item.get("type") for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    if "none" in kinds and len(kinds) > 1:
        walk.fault(pointer, "holds one of type none, which turns alerts off, and others: leave it out, or them")


# Each asks its walk alone, so that one that notes the questions learns what is taken (api/openapi/sketch.py).
# By JSON pointer: the fields of a job that stand for themselves, and those of its objects.
CHECKS: Mapping[str, Check] = {
    "/timezone": _text(64),
    "/timeout": _duration(1),
    "/kill_after": _duration(),
    "/start_deadline": _or_null(_duration(1)),
    "/delivery": _choice(AT_MOST_ONCE, AT_LEAST_ONCE),
    "/isolation": _or_null(_choice("stop", "continue")),
    "/retry/max_attempts": _or_null(_whole(1, ATTEMPTS_MAX)),
    "/retry/backoff": _duration(),
    "/retry/max_backoff": _duration(),
    "/retry/on": _each(_choice("failed", "timed_out", "broken")),
    "/misfire/policy": _choice("once", "skip", "all"),
    "/misfire/grace": _duration(),
    "/misfire/window": _duration(),
    "/misfire/max": _whole(1, MISFIRE_MAX),
    "/overlap/policy": _choice("skip", "allow", "queue", "replace"),
    "/overlap/max_running": _or_null(_whole(1, COUNT_MAX)),
    "/overlap/queue": _whole(0, QUEUE_MAX),
    "/placement/on": _choice("leader", "any", "all", "least_loaded", "sticky"),
    "/placement/tags": _texts,
    "/placement/shards": _or_null(_whole(1, 1_000)),
    "/placement/priority": _whole(0, 100),
    "/group": _or_null(_name),
    "/dst/gap": _choice("run_after", "skip"),
    "/dst/fold": _choice("first", "last", "both"),
    "/hash_key": _or_null(_text(256)),
    "/exclude": _calendars,
    "/jitter": _duration(),
    "/start_at": _or_null(_instant),
    "/end_at": _or_null(_instant),
    "/max_runs": _or_null(_whole(1, 1 << 53)),
    "/after": _parents,
    "/join": _choice("all", "any"),
    "/labels": _texts,
    "/description": _text(),
    "/history/runs": _whole(0, HISTORY_RUNS_MAX),
    "/alerts": _alerts,
}
