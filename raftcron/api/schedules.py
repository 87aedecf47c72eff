"""/v1/schedules:explain: a schedule in words, its next times, and what about it may surprise; asks no other node."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from raftcron.api import bodies, respond
from raftcron.api.context import NODE
from raftcron.api.query import Query, given_key
from raftcron.core.coming import local_text
from raftcron.core.definition import SCHEDULES_MAX
from raftcron.core.explain import MAX_NEXT, Note, describe_all, notes_among
from raftcron.core.fields import CHECKS, Walk, escape, kind_of, near
from raftcron.core.instant import MAX_MS, parse_rfc3339
from raftcron.core.schedule import Dst, Schedule, ScheduleError, each_of, known_zone, parse
from raftcron.errors import InvalidError
from raftcron.runtime.forecast import in_turns
from raftcron.runtime.views import instant

COUNT = 10  # times that are listed unless the body says how many
FIELDS = ("schedule", "timezone", "dst", "hash_key", "from", "count")


@dataclass(frozen=True)
class Question:
    """A body that is sound: the schedules of one job, and what is asked about them."""

    schedules: tuple[Schedule, ...]
    timezone: str
    from_ms: int
    count: int


async def explain(request: web.Request) -> web.Response:
    """Description, next times after `from`, and notes.  Nothing is written, so that any node can tell at once."""
    query = Query(request, ())
    body = await bodies.read(request, bodies.SMALL_BYTES_MAX, bodies.JSON)
    given_key(request)  # a repeat is answered anew: it is the same question
    asked = await _question(bodies.decode(body), request.app[NODE].time.shown_ms())
    query.refuse_any()
    found: list[Note] = []
    for schedule in asked.schedules:
        found += notes_among(schedule, asked.schedules, asked.from_ms)
        await asyncio.sleep(0)
    times = await in_turns(each_of(asked.schedules, asked.from_ms, MAX_MS, asked.from_ms), asked.count)
    return respond.value(
        {
            "description": describe_all(asked.schedules),
            "timezone": asked.timezone,
            "from": instant(asked.from_ms),
            "next": [instant(at) for at in times],
            "local": [local_text(at, asked.timezone) for at in times],
            "notes": [note._asdict() for note in found],
        }
    )


async def _question(body: Any, now: int) -> Question:
    """What is asked.  Raises InvalidError, which names every fault; what is null counts as left out."""
    walk = Walk()
    if not isinstance(body, dict):
        walk.fault("", f"must be an object, not {kind_of(body)}")
        raise _refused(walk)
    for key in sorted(body.keys() - FIELDS):
        walk.fault(f"/{escape(key)}", "is not a field here" + near(key, FIELDS))
    asked = {key: value for key, value in body.items() if value is not None}
    timezone = _timezone(walk, asked.get("timezone", "UTC"))
    dst, hash_key = _dst(walk, asked.get("dst", {})), asked.get("hash_key", "")
    CHECKS["/hash_key"](walk, "/hash_key", hash_key)
    from_ms, count = now, asked.get("count", COUNT)
    walk.whole("/count", count, 0, MAX_NEXT)
    if "from" in asked:
        try:
            from_ms = parse_rfc3339(asked["from"])
        except ValueError as error:
            walk.fault("/from", str(error))
    schedules: list[Schedule] = []
    for pointer, text in _texts(walk, body.get("schedule")):
        if not isinstance(text, str):
            walk.fault(pointer, f"must be a string such as `*/5 * * * *`, not {kind_of(text)}")
            continue
        try:
            schedules.append(parse(text, timezone, dst=dst, hash_key=hash_key if isinstance(hash_key, str) else ""))
        except ScheduleError as error:
            walk.fault(pointer, str(error))
        await asyncio.sleep(0)
    if walk.faults:
        raise _refused(walk)
    return Question(tuple(dict.fromkeys(schedules)), timezone, from_ms, count)  # equal ones are one object


def _texts(walk: Walk, value: Any) -> list[tuple[str, Any]]:
    """The schedules with their pointers."""
    if value is None:
        walk.fault("/schedule", "is missing: write for instance `*/5 * * * *`, or an array of such texts")
        return []
    if not isinstance(value, list):
        return [("/schedule", value)]
    if not 1 <= len(value) <= SCHEDULES_MAX:
        walk.fault("/schedule", f"has {len(value)} schedules, allowed are 1 to {SCHEDULES_MAX}")
        return []
    return [(f"/schedule/{place}", text) for place, text in enumerate(value)]


def _timezone(walk: Walk, value: Any) -> str:
    """The zone, or UTC where it is at fault."""
    if isinstance(value, str) and known_zone(value):
        return value
    if not isinstance(value, str):
        walk.fault("/timezone", f"must be a string, not {kind_of(value)}")
        return "UTC"
    try:
        parse("@manual", value)
    except ScheduleError as error:
        walk.fault("/timezone", str(error))
    return "UTC"


def _dst(walk: Walk, value: Any) -> Dst:
    """What is said of jumps of the clock, or the default where it is at fault."""
    if not isinstance(value, dict):
        walk.fault("/dst", f'must be an object such as {{"gap": "run_after", "fold": "first"}}, not {kind_of(value)}')
        return Dst()
    faults = len(walk.faults)
    for key in sorted(value.keys() - {"gap", "fold"}):
        walk.fault(f"/dst/{escape(key)}", "is not a field of dst" + near(key, ("gap", "fold")))
    said = {key: value[key] for key in ("gap", "fold") if value.get(key) is not None}
    for key, choice in said.items():
        CHECKS[f"/dst/{key}"](walk, f"/dst/{key}", choice)
    return Dst(**said) if len(walk.faults) == faults else Dst()


def _refused(walk: Walk) -> InvalidError:
    count = "1 fault" if len(walk.faults) == 1 else f"{len(walk.faults)} faults"
    return InvalidError(f"the question has {count}", tuple(walk.faults))
