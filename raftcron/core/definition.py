"""A job's definition: what may be written, what is kept of it, what it means.

`check` walks a decoded JSON body and names every fault; `canonical` makes the bytes that the log holds (what was
written, less what equals a default, keys in order, so that equal definitions are equal bytes); `expand` gives the
whole object back with defaults; `policy_of` parses it for the state machine.

Schedules are judged by core/schedule.py and executor objects by executors/: both are passed in, so that this file
knows neither.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from raftcron.core.cron import uses_hash
from raftcron.core.fields import CHECKS, NAME_RULE, Walk, escape, kind_of, name_fault, near
from raftcron.core.instant import format_duration, parse_duration, parse_rfc3339
from raftcron.core.model import AT_LEAST_ONCE, AT_MOST_ONCE, HANDLER_TAG, PROCESS_TAG, UNLIMITED, Policy, Recurrence
from raftcron.errors import Fault

SCHEDULES_MAX = 16
DEFINITION_BYTES_MAX = 1 << 20  # one command holds a job
REMEMBERED_BYTES = 8 << 10  # the longest definition that is cached
MEANING_BYTES = 1 << 10  # the longest part of one that its policy depends on
PROMPT_MS = 1_000  # to decide and to start take their time: within it no time was missed, whatever the job says

T = TypeVar("T")

SERVER_SET = frozenset(
    {
        "uid",
        "revision",
        "created_at",
        "updated_at",
        "state",
        "next_fire_at",
        "last_run",
        "stats",
        "pause_note",
        "pause_until",
        "skips",
        "secrets",
        "joined",
    }
)

DEFAULTS: Mapping[str, Any] = {
    "timezone": "UTC",
    "timeout": "1h",
    "kill_after": "5s",
    "start_deadline": None,
    "delivery": AT_MOST_ONCE,
    "isolation": None,
    "retry": {"max_attempts": None, "backoff": "1s", "max_backoff": "5m", "on": ["failed"]},
    "misfire": {"policy": "once", "grace": "10s", "window": "24h", "max": 100},
    "overlap": {"policy": "skip", "max_running": None, "queue": 1},
    "placement": {"on": "leader", "tags": {}, "shards": None, "priority": 50},
    "group": None,
    "dst": {"gap": "run_after", "fold": "first"},
    "hash_key": None,
    "exclude": [],
    "jitter": "0s",
    "start_at": None,
    "end_at": None,
    "max_runs": None,
    "after": [],
    "join": "all",
    "labels": {},
    "description": "",
    "history": {"runs": 20},
    "alerts": [],
}

_EVERY = re.compile(r"@every\s+(?P<interval>\S+)(?:\s+from\s+(?P<from>\S+))?", re.ASCII | re.IGNORECASE)

_encode = msgspec.msgpack.Encoder(order="sorted").encode
_encode_as_is = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Checked(msgspec.Struct, frozen=True):
    """What a walk over a body found: `written` is sound where there are no faults."""

    written: dict[str, Any]
    faults: tuple[Fault, ...]
    paused: bool | None
    owner: str | None


STAND_INS: Mapping[str, Any] = {"schedule": "@manual", "executor": {"type": "noop"}}  # for what a job must have
KNOWN = frozenset(DEFAULTS) | {"schedule", "executor"}  # the fields of a job
BESIDE_POLICY = ("labels", "description")  # no policy depends on these
OF_EXECUTOR = ("type", "async", "handler")  # and of an executor object on these alone
RECURRENCE = frozenset({"schedule", "timezone", "hash_key", "dst", "exclude", "jitter", "start_at", "end_at"})

ScheduleCheck = Callable[[str, str], str | None]  # (text, timezone) -> what is wrong
ExecutorCheck = Callable[[Mapping[str, Any]], Iterable[Fault]]  # pointers are relative to the object


def check(body: Any, name: str | None, check_schedule: ScheduleCheck, check_executor: ExecutorCheck) -> Checked:
    """Walk a job's body and name every fault.

    `name` is the one in the path, which a body may repeat; None where the body has to carry it.
    """
    walk = Walk()
    if not isinstance(body, dict):
        walk.fault("", f"must be an object, not {kind_of(body)}")
        return Checked({}, tuple(walk.faults), None, None)
    if "name" in body:
        said = body["name"]
        problem = name_fault(said)
        if problem is not None:
            walk.fault("/name", problem)
        elif name is not None and said != name:
            walk.fault("/name", f"is {said!r}, but the path names {name!r}: leave it out, or make them equal")
    elif name is None:
        walk.fault("/name", f"is missing: {NAME_RULE}")
    written = {
        key: value for key, value in body.items() if key not in SERVER_SET and key not in ("name", "paused", "owner")
    }
    for key in ("schedule", "executor"):
        if key not in written:
            walk.fault(f"/{key}", "is missing")
    for key in sorted(written.keys() - KNOWN):
        walk.fault(f"/{escape(key)}", "is not a field of a job" + near(key, KNOWN))
    paused, owner = body.get("paused"), body.get("owner")
    if paused is not None and not isinstance(paused, bool):
        walk.fault("/paused", f"must be a boolean, not {kind_of(paused)}")
    if owner is not None:
        walk.text("/owner", owner, 256)
    _check_fields(walk, written)
    _check_spans(walk, written)
    _check_placement(walk, written)
    if "executor" in written:
        if not isinstance(written["executor"], dict):
            walk.fault("/executor", f"must be an object, not {kind_of(written['executor'])}")
        else:
            faults = check_executor(written["executor"])
            walk.faults.extend(Fault("/executor" + pointer, message) for pointer, message in faults)
    if "schedule" in written:
        _check_schedules(walk, written, check_schedule)
    return Checked(written, tuple(walk.faults), paused, owner)


def sound(written: Mapping[str, Any], faults: Iterable[Fault]) -> dict[str, Any]:
    """The fields of a job that no fault points into."""
    spoilt = {fault.pointer.split("/")[1] for fault in faults if fault.pointer.startswith("/")}
    return {key: value for key, value in written.items() if key in KNOWN and key not in spoilt}


def _check_schedules(walk: Walk, written: Mapping[str, Any], check_schedule: ScheduleCheck) -> None:
    value, timezone = written["schedule"], written.get("timezone", "UTC")
    if not isinstance(timezone, str):
        timezone = "UTC"
    texts = value if isinstance(value, list) else [value]
    if not 1 <= len(texts) <= SCHEDULES_MAX:
        walk.fault("/schedule", f"has {len(texts)} schedules, allowed are 1 to {SCHEDULES_MAX}")
        return
    for place, text in enumerate(texts):
        pointer = f"/schedule/{place}" if isinstance(value, list) else "/schedule"
        if not isinstance(text, str):
            walk.fault(pointer, f"must be a string, not {kind_of(text)}")
            continue
        problem = check_schedule(text, timezone)
        if problem is not None:
            walk.fault(
                "/timezone" if problem.startswith("timezone:") else pointer, problem.removeprefix("timezone:").strip()
            )


def _check_fields(walk: Walk, written: Mapping[str, Any]) -> None:
    for key, default in DEFAULTS.items():
        if key not in written:
            continue
        value, pointer = written[key], f"/{key}"
        if isinstance(default, dict) and key != "labels":
            if not isinstance(value, dict):
                walk.fault(pointer, f"must be an object, not {kind_of(value)}")
                continue
            for inner in sorted(value.keys() - default.keys()):
                walk.fault(f"{pointer}/{escape(inner)}", f"is not a field of {key}" + near(inner, default.keys()))
            for inner in sorted(default.keys() & value.keys()):
                CHECKS[f"{pointer}/{inner}"](walk, f"{pointer}/{inner}", value[inner])
        else:
            CHECKS[pointer](walk, pointer, value)


def _check_spans(walk: Walk, written: Mapping[str, Any]) -> None:
    """What two fields say together; what one of them says wrongly is said already."""

    def spoilt(*pointers: str) -> bool:
        return any(f"{fault.pointer}/".startswith(tuple(f"{one}/" for one in pointers)) for fault in walk.faults)

    start_at, end_at = written.get("start_at"), written.get("end_at")
    if start_at is not None and end_at is not None and not spoilt("/start_at", "/end_at"):
        _check_order(walk, start_at, end_at)
    misfire = written.get("misfire", {})
    if "jitter" not in written:
        return  # none is no longer than anything
    if spoilt("/jitter", "/start_deadline", "/misfire/window") or not isinstance(misfire, dict):
        return
    jitter = parse_duration(written["jitter"])
    field, deadline = "start_deadline", written.get("start_deadline")
    if deadline is None:
        field, deadline = "misfire.window", misfire.get("window", DEFAULTS["misfire"]["window"])
    if jitter > parse_duration(deadline):
        walk.fault(
            "/jitter",
            f"is {format_duration(jitter)}, longer than {field}, {format_duration(parse_duration(deadline))}, "
            "after which a run may no longer start: make it shorter, or the other longer",
        )


def _check_order(walk: Walk, start_at: str, end_at: str) -> None:
    if parse_rfc3339(end_at) < parse_rfc3339(start_at):
        walk.fault("/end_at", f"{end_at} lies before start_at, {start_at}: no time is between them")


def _check_placement(walk: Walk, written: Mapping[str, Any]) -> None:
    said = written.get("placement")
    if isinstance(said, dict) and said.get("on") == "all" and said.get("shards") is not None:
        text = "a broadcast (`on: all`) has one part for each node: leave it out, or use another `on`"
        walk.fault("/placement/shards", text)


def canonical(written: Mapping[str, Any]) -> bytes:
    """The bytes that the log holds: `written` (which `check` found sound) less what equals a default."""
    kept: dict[str, Any] = {}
    for key, value in written.items():
        default = DEFAULTS.get(key)
        if isinstance(default, dict) and key != "labels":
            inner = {k: v for k, v in value.items() if v != default[k] or type(v) is not type(default[k])}
            if inner:
                kept[key] = inner
        elif key not in DEFAULTS or value != default or type(value) is not type(default):
            kept[key] = value
    return _encode(kept)


def written_of(stored: bytes) -> dict[str, Any]:
    """What was written, less what equals a default."""
    return _decode(stored)


def expand(stored: bytes) -> dict[str, Any]:
    """The whole definition as JSON values, defaults included, in the order of the contract."""
    written = _decode(stored)
    whole: dict[str, Any] = {"schedule": written["schedule"], "timezone": "UTC", "executor": written["executor"]}
    for key, default in DEFAULTS.items():
        if isinstance(default, dict) and key != "labels":
            whole[key] = {**default, **written.get(key, {})}
        else:
            whole[key] = written.get(key, default)
    return whole


def _remembered(count: int, bytes_max: int) -> Callable[[Callable[[bytes], T]], Callable[[bytes], T]]:
    """What short texts mean is cached, so many of them; long ones are read anew, since those could take a GiB."""

    def remembering(parse: Callable[[bytes], T]) -> Callable[[bytes], T]:
        cached = functools.lru_cache(maxsize=count)(parse)

        @functools.wraps(parse)
        def parsed(stored: bytes) -> T:
            return cached(stored) if len(stored) <= bytes_max else parse(stored)

        return parsed

    return remembering


@_remembered(1_024, REMEMBERED_BYTES)
def executor_of(stored: bytes) -> Mapping[str, Any]:
    """The executor object alone; shared, so it must not be changed."""
    executor: dict[str, Any] = _decode(stored)["executor"]
    return MappingProxyType(executor)


@_remembered(1_024, REMEMBERED_BYTES)
def policy_of(stored: bytes) -> Policy:
    """What canonical bytes mean; equal policies are one object.

    Most definitions differ only in what no policy depends on, and are worked out once together.
    """
    written = _decode(stored)
    for field in BESIDE_POLICY:
        written.pop(field, None)
    executor = written.get("executor")
    if isinstance(executor, dict):
        written["executor"] = {key: executor[key] for key in OF_EXECUTOR if key in executor}
    return _meaning_of(_encode_as_is(written))


@_remembered(16_384, MEANING_BYTES)
def _meaning_of(stored: bytes) -> Policy:
    whole = expand(stored)
    retry, misfire, overlap = whole["retry"], whole["misfire"], whole["overlap"]
    schedules = whole["schedule"] if isinstance(whole["schedule"], list) else [whole["schedule"]]
    at_least_once = whole["delivery"] == AT_LEAST_ONCE
    max_running = overlap["max_running"] or (UNLIMITED if overlap["policy"] == "allow" else 1)
    window_ms = parse_duration(misfire["window"])
    said = {
        "recurrence": _recurrence_of(whole, schedules),
        "max_runs": whole["max_runs"] or UNLIMITED,
        "delivery": whole["delivery"],
        "max_attempts": retry["max_attempts"] or (5 if at_least_once else 1),
        "backoff_ms": parse_duration(retry["backoff"]),
        "max_backoff_ms": parse_duration(retry["max_backoff"]),
        "retry_on": frozenset(retry["on"]),
        "grace_ms": max(parse_duration(misfire["grace"]), PROMPT_MS),
        "window_ms": window_ms,
        "misfire": misfire["policy"],
        "misfire_max": misfire["max"],
        "overlap": overlap["policy"],
        "max_running": max_running,
        "queue": overlap["queue"],
        "placement": whole["placement"]["on"],
        "executor_type": whole["executor"]["type"],
        "timeout_ms": parse_duration(whole["timeout"]),
        "kill_after_ms": parse_duration(whole["kill_after"]),
        "start_deadline_ms": _start_deadline_ms(whole["start_deadline"], window_ms),
        "self_stop": _self_stop(whole, max_running),
        "history_runs": whole["history"]["runs"],
        "after": tuple((parent["job"], parent.get("on", "success")) for parent in whole["after"]),
        "join": whole["join"],
        "is_async": whole["executor"].get("async") is True,
        "tags": _demands(whole),
        "shards": whole["placement"]["shards"] or 0,
        "priority": whole["placement"]["priority"],
        "group": whole["group"],
        "has_alerts": bool(whole["alerts"]),
        "tells": any(one.get("type") != "none" for one in whole["alerts"]),
        "process": _process(whole["executor"]),
    }
    return _shared(msgspec.convert(said, Policy))  # which checks the types


def _start_deadline_ms(said: str | None, window_ms: int) -> int:
    return max(window_ms, PROMPT_MS) if said is None else parse_duration(said)


def _demands(whole: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What a node has to carry: the tags that the job names, and the handler that it calls."""
    tags, executor = dict(whole["placement"]["tags"]), whole["executor"]
    if executor["type"] == "python":
        tags[f"{HANDLER_TAG}{executor['handler']}"] = ""
    return tuple(sorted(tags.items()))


def _process(executor: Mapping[str, Any]) -> str | None:
    """Where its runs take one of a node's process slots: everywhere, or on nodes that run the handler so."""
    if executor["type"] == "python":
        return f"{PROCESS_TAG}{executor['handler']}"
    return "" if executor["type"] == "shell" else None


def _self_stop(whole: Mapping[str, Any], max_running: int) -> bool | None:
    """Whether runs end with their node's lease (semantics 5.7); None: only if a job is chained on their failure."""
    if whole["isolation"] is not None:
        return bool(whole["isolation"] == "stop")
    is_free = whole["overlap"]["policy"] == "allow" and max_running == UNLIMITED and whole["group"] is None
    return None if is_free and whole["delivery"] == AT_MOST_ONCE else True


def _recurrence_of(whole: Mapping[str, Any], schedules: list[str]) -> Recurrence:
    """What a whole definition says of its times.  Reads no calendar: that is for the leader."""
    every = [match for text in schedules if (match := _EVERY.fullmatch(text.strip())) is not None]
    said = {
        "schedules": tuple(schedules),
        "timezone": whole["timezone"],
        "gap": whole["dst"]["gap"],
        "fold": whole["dst"]["fold"],
        "hash_key": whole["hash_key"],
        "start_at": None if whole["start_at"] is None else parse_rfc3339(whole["start_at"]),
        "end_at": None if whole["end_at"] is None else parse_rfc3339(whole["end_at"]),
        "exclude": tuple(whole["exclude"]),
        "jitter_ms": parse_duration(whole["jitter"]),
        "is_anchored": any(match["from"] is None for match in every),
        "is_hashed": any(uses_hash(text) for text in schedules if not text.strip().startswith("@")),
        "end_intervals": tuple(
            parse_duration(match["interval"].lower()) for match in every if (match["from"] or "").lower() == "last_end"
        ),
    }
    recurrence = msgspec.convert(said, Recurrence)
    if len(_recurrences) > 65_536:
        _recurrences.clear()
    return _recurrences.setdefault(recurrence, recurrence)


def stored_fault(stored: bytes) -> str | None:
    """Why bytes that the log holds are no definition; None if they are one."""
    try:
        policy_of(stored)
    except Exception as error:  # whatever they are, apply must not raise
        return repr(error)
    return None


_recurrences: dict[Recurrence, Recurrence] = {}
_policies: dict[Policy, Policy] = {}


def _shared(policy: Policy) -> Policy:
    if len(_policies) > 65_536:
        _policies.clear()
    return _policies.setdefault(policy, policy)
