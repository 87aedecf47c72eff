"""Schemas of what requests bring: from the tables that check it (core/definition.py, core/fields.py, the executors)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raftcron.api import bulk
from raftcron.api.openapi.sketch import INSTANT, NAME_SCHEMA, Schema, accepted, nullable, strict
from raftcron.core import alerts, exclusion, fields, group, route
from raftcron.core.access import ROLES
from raftcron.core.apply.jobs import SKIPS_MAX
from raftcron.core.apply.remote import CONCLUSIONS
from raftcron.core.definition import DEFAULTS, SCHEDULES_MAX, SERVER_SET
from raftcron.core.explain import MAX_NEXT
from raftcron.core.fields import CHECKS
from raftcron.core.vault import SECRET_BYTES_MAX
from raftcron.executors import http_spec, python, shell
from raftcron.runtime import requests, secrets, service, tokens

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
ISOLATION = "left out or null, it becomes `continue` where a member runs the job's handler in a thread"
ADDRESS: Schema = {"type": "string", "description": "host:port", "examples": ["127.0.0.1:7204"]}
TOKEN: Schema = {
    "description": "the request's Raftcron-Fencing-Token, as a number or as its digits",
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": (1 << 64) - 1},
        {"type": "string", "pattern": "^[0-9]{1,19}$"},
    ],
}
SCHEDULE: Schema = {
    "description": "cron with 5, 6 (seconds first) or 7 fields, an alias (@daily), @every 5m, @at INSTANT, or @manual",
    "anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1, "maxItems": SCHEDULES_MAX}],
}


def job_fields() -> dict[str, Schema]:
    """What a job's definition may say, each field with its default, in the order of the contract."""
    found: dict[str, Schema] = {
        "schedule": SCHEDULE,
        "executor": {"$ref": "#/components/schemas/Executor"},
    }
    for key, default in DEFAULTS.items():
        if key == "alerts":
            found[key] = {**_alerts(), "default": default}
        elif isinstance(default, dict) and key != "labels":
            inner = {name: _with_default(f"/{key}/{name}", value) for name, value in default.items()}
            found[key] = {**strict(inner), "default": default}
        else:
            found[key] = _with_default(f"/{key}", default)
    found["isolation"]["description"] = ISOLATION
    return found


def _with_default(pointer: str, default: Any) -> Schema:
    return {**accepted(CHECKS[pointer]), "default": default}


def _alerts() -> Schema:
    """A list of whom to tell, and of what."""
    on = {"type": "array", "items": {"enum": list(fields.ALERT_KINDS)}, "default": list(alerts.TOLD_BY_DEFAULT)}
    texts = {key: {"type": "string", "maxLength": fields.URL_MAX} for key, _, _ in fields.ALERT_TEXTS}
    choices = []
    for kind, names in fields.ALERT_FIELDS.items():
        properties = {"type": {"const": kind}, **{name: on if name == "on" else texts[name] for name in names}}
        required = [*(["type"] if kind != "webhook" else []), *(name for name in ("url", "to") if name in names)]
        choices.append(strict(properties, required))
    return {"type": "array", "items": {"anyOf": choices}, "maxItems": fields.ALERTS_MAX}


def _ignored(names: Iterable[str]) -> dict[str, Schema]:
    """What the server sets: a body may hold it, so that what was got can be put back, and it does not count."""
    return {name: {"readOnly": True} for name in sorted(names)}


def components(types: Iterable[str]) -> dict[str, Schema]:
    """By name; `types` are the executor types of this installation."""
    fields = job_fields()
    owner = nullable({"type": "string", "maxLength": 256})
    body = {**fields, "paused": nullable(FLAG), "owner": owner, **_ignored(SERVER_SET)}
    return {
        **_executors(types),
        "JobBody": {
            **strict({"name": NAME_SCHEMA, **body}, ("schedule", "executor")),
            "description": "A job as it is written. Without `name` its name is the path's.",
        },
        "JobPatch": {
            **strict({"name": NAME_SCHEMA, **{key: _patched(schema) for key, schema in body.items()}}),
            "description": "A merge patch (RFC 7396): null gives a field its default again.",
        },
        "JobsBody": strict(
            {
                "jobs": {"type": "array", "items": {"$ref": "#/components/schemas/NamedJobBody"}},
                **{name: FLAG if name != "owner" else owner for name in bulk.FIELDS if name != "jobs"},
            },
            ("jobs",),
        ),
        "NamedJobBody": {"allOf": [{"$ref": "#/components/schemas/JobBody"}], "required": ["name"]},
        "PauseBody": strict(
            {
                "note": nullable({"type": "string", "maxLength": service.NOTE_MAX}),
                "until": nullable({**INSTANT, "description": "it lies ahead"}),
            }
        ),
        "ResumeBody": strict({"catch_up": nullable(FLAG)}),
        "SkipNextBody": strict({"count": {"type": "integer", "minimum": 0, "maximum": SKIPS_MAX, "default": 1}}),
        "RunBody": strict({"args": {"description": "any JSON value"}, "overlap": _overlap()}),
        "RetryBody": strict({"overlap": _overlap()}),
        "FinishBody": strict(
            {
                "token": TOKEN,
                "state": {"type": "string", "enum": list(CONCLUSIONS)},
                "message": nullable({"type": "string", "maxLength": requests.MESSAGE_BYTES_MAX}),
            },
            ("token", "state"),
        ),
        "HeartbeatBody": strict({"token": TOKEN}, ("token",)),
        "BackfillBody": strict({"from": INSTANT, "to": INSTANT, "dry_run": nullable(FLAG)}, ("from", "to")),
        "ExplainBody": strict(
            {
                "schedule": SCHEDULE,
                "timezone": nullable(accepted(CHECKS["/timezone"])),
                "dst": nullable(_nullable_fields(fields["dst"])),
                "hash_key": accepted(CHECKS["/hash_key"]),
                "from": nullable(INSTANT),
                "count": nullable({"type": "integer", "minimum": 0, "maximum": MAX_NEXT}),
            },
            ("schedule",),
        ),
        "CalendarBody": strict(
            {
                "name": NAME_SCHEMA,
                "dates": {
                    "type": "array",
                    "items": {"type": "string", "format": "date"},
                    "maxItems": exclusion.DATES_MAX,
                    "default": [],
                },
                "schedules": {"type": "array", "items": TEXT, "maxItems": exclusion.SCHEDULES_MAX, "default": []},
                "timezone": {**accepted(CHECKS["/timezone"]), "default": "UTC"},
                **_ignored(exclusion.SERVER_SET),
            }
        ),
        "GroupBody": strict(
            {
                "name": NAME_SCHEMA,
                "max_running": {"type": "integer", "minimum": 1, "maximum": group.MAX_RUNNING_MAX},
                **_ignored(group.SERVER_SET),
            },
            ("max_running",),
        ),
        "AlertRouteBody": strict({"alerts": _alerts(), **_ignored(route.SERVER_SET)}, ("alerts",)),
        "TokenBody": strict(
            dict(
                zip(
                    tokens.FIELDS,
                    (
                        NAME_SCHEMA,
                        {"type": "string", "enum": list(ROLES)},
                        {"anyOf": [NAME_SCHEMA, {"const": ""}, {"type": "null"}]},
                    ),
                    strict=True,
                )
            ),
            ("name", "role"),
        ),
        "SecretBody": strict(
            {name: {"type": "string", "minLength": 1, "maxLength": SECRET_BYTES_MAX} for name in secrets.FIELDS},
            secrets.FIELDS,
        ),
        "MemberBody": strict({"name": NAME_SCHEMA, "raft": ADDRESS, "http": nullable(ADDRESS)}, ("name", "raft")),
        "ReplaceBody": strict({"raft": nullable(ADDRESS), "http": nullable(ADDRESS)}),
        "TransferBody": strict({"to": nullable(TEXT)}),
        "DrainBody": strict({"node": TEXT, "drain": {**FLAG, "default": True}}, ("node",)),
        "AcceptTimeBody": strict({"leader": nullable(TEXT)}),
    }


def _overlap() -> Schema:
    return {"enum": ["allow", None], "description": "`allow` overrides the job's policy for this run"}


def _nullable_fields(schema: Mapping[str, Any]) -> Schema:
    inner = {
        name: nullable({k: v for k, v in one.items() if k != "default"}) for name, one in schema["properties"].items()
    }
    return strict(inner)


def _patched(schema: Mapping[str, Any]) -> Schema:
    """A field in a merge patch: it may be null, and an object may say a part of itself."""
    if schema.get("readOnly"):
        return dict(schema)
    bare = {key: value for key, value in schema.items() if key != "default"}
    if bare.get("$ref", "").endswith("/Executor"):
        return {"type": "object", "description": "merged into what was written of the executor"}
    if "properties" in bare:
        bare["properties"] = {name: _patched(inner) for name, inner in bare["properties"].items()}
    return nullable(bare) if not _takes_null(bare) else bare


def _takes_null(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return (isinstance(kind, list) and "null" in kind) or {"type": "null"} in schema.get("anyOf", ())


# ---- executors -------------------------------------------------------------------------------------------------------


def _executors(types: Iterable[str]) -> dict[str, Schema]:
    """One schema for each built-in type; what others hold their own packages check."""
    known = {"http": _http(), "shell": _shell(), "python": _python(), "noop": ({}, ())}
    found = {
        f"Executor_{name}": strict({"type": {"const": name}, **fields}, ("type", *required))
        for name, (fields, required) in known.items()
    }
    for name in sorted(set(types) - known.keys()):
        found[f"Executor_{name}"] = {
            "type": "object",
            "properties": {"type": {"const": name}},
            "required": ["type"],
            "description": "of an installed package, which checks the rest",
        }
    choice = [{"$ref": f"#/components/schemas/{name}"} for name in found]
    return {"Executor": {"oneOf": choice}, **found}


def _text(bytes_max: int, description: str | None = None) -> Schema:
    """Its length is counted in bytes of UTF-8, of which a character has one at least."""
    schema: Schema = {"type": "string", "maxLength": bytes_max}
    return nullable(schema if description is None else {**schema, "description": description})


def _http() -> tuple[dict[str, Schema], tuple[str, ...]]:
    return {
        "url": {"type": "string", "format": "uri", "maxLength": http_spec.URL_BYTES},
        "method": {"enum": [*http_spec.METHODS, None], "default": http_spec.DEFAULT_METHOD},
        "headers": {
            "type": ["object", "null"],
            "maxProperties": http_spec.HEADERS,
            "additionalProperties": {"type": "string", "maxLength": http_spec.HEADER_BYTES},
        },
        "body": _text(http_spec.BODY_BYTES),
        "expect_status": {
            "type": ["string", "integer", "null"],
            "maxLength": 200,
            "default": http_spec.DEFAULT_STATUS,
            "description": "which statuses mean success: 200-299, or 200,204",
        },
        "expect_body": _text(http_spec.ANSWER_BYTES, "a text that the answer has to hold"),
        "secret": _text(http_spec.HEADER_BYTES, "whsec_..., of Standard Webhooks; never answered"),
        "async": nullable({**FLAG, "description": "a 202 leaves the run running until /finish"}),
    }, ("url",)


def _shell() -> tuple[dict[str, Schema], tuple[str, ...]]:
    argument: Schema = {"type": "string", "maxLength": shell.ARGUMENT_BYTES}
    return {
        "command": {
            "description": "a text for /bin/sh -c, or program and arguments",
            "anyOf": [argument, {"type": "array", "items": argument, "minItems": 1, "maxItems": shell.ARGUMENTS}],
        },
        "cwd": _text(4_095, "an absolute path"),
        "env": {
            "type": ["object", "null"],
            "maxProperties": shell.VARIABLES,
            "additionalProperties": argument,
        },
        "stdin": _text(shell.STDIN_BYTES),
        "user": _text(256),
        "group": _text(256),
        "memory_limit": {"type": ["string", "integer", "null"], "description": "bytes, or a text such as 512 MiB"},
    }, ("command",)


def _python() -> tuple[dict[str, Schema], tuple[str, ...]]:
    return {
        "handler": {**NAME_SCHEMA, "description": "as the embedding application has registered it"},
        "args": {"description": f"any JSON value of at most {python.ARGS_BYTES} bytes"},
    }, ("handler",)
