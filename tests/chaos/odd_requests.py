"""Strange but well-formed requests about a few jobs: every policy with every other, short times, odd ends, chains.

Most jobs are such that a node takes them; some are spoilt in one place.  None of them reaches anybody: nobody
listens at their addresses, and nobody has their handlers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

NAMES = tuple(f"odd-{number}" for number in range(8))
SPOILT, DEEP = 0.15, 40

SCHEDULES: tuple[Any, ...] = (
    "@manual",
    "* * * * * *",
    "@every 1s",
    "@every 3s from last_end",
    "0 0 L * *",
    "H H * * *",
    "30 2 * * 7#2",
    "@at 2031-02-28T23:59:59.999Z",
    "0 0 12 1 1 ? 2099",
    ["*/7 * * * * *", "@every 90s", "@hourly"],
)
EXECUTORS: tuple[dict[str, Any], ...] = (
    {"type": "noop"},
    {"type": "http", "url": "http://127.0.0.1:1/refused"},
    {"type": "http", "url": "http://nowhere.invalid/", "async": True, "expect_status": "418"},
    {"type": "python", "handler": "nobody.has.it", "args": {"deep": [[[{}]]]}},
)
FIELDS: dict[str, tuple[Any, ...]] = {
    "timezone": ("Europe/Berlin", "Antarctica/Troll", "Australia/Lord_Howe", "Asia/Kathmandu"),
    "jitter": ("300ms", "2s", "1d"),
    "start_at": ("1970-01-01T00:00:00Z", "2031-01-01T00:00:00+14:00"),
    "end_at": ("2090-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    "max_runs": (1, 2, 1_000_000),
    "overlap": ({"policy": "queue", "queue": 3}, {"policy": "replace", "max_running": 2}, {"policy": "allow"}),
    "misfire": ({"policy": "all", "max": 2, "grace": "0s"}, {"policy": "skip", "window": "1s", "grace": "1s"}),
    "retry": ({"max_attempts": 3, "backoff": "1ms", "max_backoff": "10ms", "on": ["failed", "timed_out", "broken"]},),
    "delivery": ("at_least_once",),
    "placement": (
        {"on": "all"},
        {"on": "any", "shards": 3},
        {"on": "sticky", "priority": 100},
        {"on": "least_loaded", "tags": {"zone": "nowhere"}},
    ),
    "isolation": ("stop", "continue"),
    "start_deadline": ("1ms", "2s"),
    "timeout": ("1ms", "1w"),
    "kill_after": ("0s", "10m"),
    "history": ({"runs": 1}, {"runs": 1000}),
    "dst": ({"gap": "skip", "fold": "both"},),
    "hash_key": ("\N{SNOWMAN}",),
    "group": ("odd",),
    "exclude": (["odd"],),
    "after": ([{"job": NAMES[0], "on": "any"}], [{"job": NAMES[1], "on": "failure"}, {"job": NAMES[2]}]),
    "join": ("any", "all"),
    "labels": ({"k" * 60: "v"}, {"\N{SNOWMAN}": ""}),
    "description": ("\N{RIGHT-TO-LEFT OVERRIDE}\N{PILE OF POO}" * 20, "a line\nand another"),
    "paused": (True, False),
}


class Request(NamedTuple):
    method: str
    path: str
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.body!r:.400}"


def draw(dice: random.Random) -> Request:
    """Any of them."""
    kinds = (_job, _job, _job, _job, *_OTHERS)
    return dice.choice(kinds)(dice, f"/v1/jobs/{dice.choice(NAMES)}")


def _job(dice: random.Random, path: str) -> Request:
    body: dict[str, Any] = {"schedule": dice.choice(SCHEDULES), "executor": dice.choice(EXECUTORS)}
    for name in dice.sample(tuple(FIELDS), dice.randint(0, 6)):
        body[name] = dice.choice(FIELDS[name])
    if dice.random() < SPOILT:
        body[dice.choice(tuple(body))] = dice.choice(_SPOILS)
    return Request("PUT", path, body)


def _deep() -> Any:
    value: Any = None
    for _ in range(DEEP):
        value = {"": [value]}
    return value


_SPOILS = (None, [], {}, -1, 2**63, 1e308, True, "", "x" * 5_000, "\0", _deep())


def _post(action: str, *bodies: Any) -> Callable[[random.Random, str], Request]:
    return lambda dice, path: Request("POST", f"{path}/{action}", dice.choice(bodies))


def _backfill(dice: random.Random, path: str) -> Request:
    until = datetime.now(UTC) - timedelta(seconds=dice.randint(-5, 50))
    since = until - timedelta(seconds=dice.choice((0, 1, 20)))
    return Request("POST", f"{path}/backfill", {"from": since.isoformat(), "to": until.isoformat(), "dry_run": False})


def _put(path: str, *bodies: Mapping[str, Any]) -> Callable[[random.Random, str], Request]:
    return lambda dice, _: Request("PUT", path, dice.choice(bodies))


_OTHERS: tuple[Callable[[random.Random, str], Request], ...] = (
    lambda dice, path: Request("DELETE", path + dice.choice(("", "?cancel_running=1")), None),
    _post("pause", {}, {"note": "n" * 200, "until": "2031-01-01T00:00:00Z"}),
    _post("resume", {}, {"catch_up": True}),
    _post("skip-next", {"count": 1}, {"count": 100}),
    _post("runs", {}, {"overlap": "allow", "args": {"deep": [[1e300, None, "\N{SNOWMAN}"]]}}),
    _backfill,
    _put("/v1/groups/odd", {"max_running": 1}, {"max_running": 1000}),
    _put("/v1/calendars/odd", {"dates": ["2030-02-28"]}, {"schedules": ["*/2 * * * *"], "timezone": "Asia/Kathmandu"}),
)
