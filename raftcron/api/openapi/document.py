"""Puts the document together: paths of the routes that there are, and the components that they name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from raftcron import __version__
from raftcron.api import problems, respond
from raftcron.api.auth import ALL, FREE, JOB, NAME, RULES, RUN, SEES, UNKNOWN, WHOLE
from raftcron.api.openapi import answered, taken
from raftcron.api.openapi.operations import OPERATIONS, Answer, Body, Operation, Parameter
from raftcron.api.openapi.sketch import Schema, nullable

VERSION: Final = "3.1.0"
_PATTERN: Final = re.compile(r"\{(\w+):[^{}]+\}")

SCOPES: Final = {
    ALL: "whatever its prefix",
    JOB: "its prefix has to begin the job's name",
    NAME: "its prefix has to begin the name",
    RUN: "its prefix has to begin the name of the run's job",
    SEES: "it sees, or writes, what begins with its prefix",
    WHOLE: "and no prefix",
}
DESCRIPTION: Final = """\
Any node answers everything; writes are carried to the leader and answered after commit. Each GET can be asked as HEAD.
Errors are RFC 9457 problems that name every fault. A node that is reached on loopback alone needs no token; there, and
everywhere a browser asks, Host and Origin are checked (403). 503 was certainly not written; after 504 repeat the same
request with the same Idempotency-Key."""

ETAGS: Schema = {"type": "string", "pattern": r'^(\*|(W/)?"[^"]*"(, *(W/)?"[^"]*")*)$'}
ASKED: Final[dict[str, tuple[Schema, str, Any]]] = {
    "Idempotency-Key": (
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
        "a repeat under the same key and body is answered and not done again, for 24 h",
        "6f1f1d0e",
    ),
    "If-Match": (ETAGS, "only if the ETag is one of these, or there is one (*); else 412", "*"),
    "If-None-Match": (ETAGS, "only if the ETag is none of these, or there is none (*); else 412", '"7"'),
    "Last-Event-ID": ({"type": "string", "pattern": r"^[0-9]{1,18}\.[0-9]{1,9}$"}, "go on behind this event", "42.0"),
}
ANSWERED: Final[dict[str, tuple[Schema, str]]] = {
    respond.NODE_NAME: ({"type": "string"}, "who answers"),
    respond.LEADER: ({"type": "string"}, "who leads; absent while that is not known"),
    respond.INDEX: ({"type": "integer"}, "where the write took effect, or what was applied when the read was served"),
    respond.STALENESS: ({"type": "integer"}, "of a stale read: how old it may be"),
    respond.REPLAYED: ({"const": "true"}, "this is a repeat; it was done before"),
    "Raftcron-Attempt": ({"type": "integer"}, "whose output the answer begins with"),
    "ETag": ({"type": "string"}, "the revision, for If-Match"),
    "Location": ({"type": "string"}, "where what was made is found"),
    "Retry-After": ({"type": "integer"}, "seconds"),
}
EVERY_ANSWER: Final = (respond.NODE_NAME, respond.LEADER, respond.INDEX)
RETRY_AFTER: Final = frozenset({409, 429, 503})


def described(path: str) -> str:
    """A path of the router as the document writes it."""
    return _PATTERN.sub(r"{\1}", path)


def document(routes: Iterable[tuple[str, str]], types: Iterable[str]) -> dict[str, Any]:
    """The document of these routes (method, path of the router) with these executor types."""
    paths: dict[str, dict[str, Any]] = {}
    for method, route in routes:
        path = described(route)
        operation = OPERATIONS.get((method, path))
        if operation is not None:
            paths.setdefault(path, {})[method.lower()] = _operation(method, path, operation)
    statuses = sorted({status for operation in OPERATIONS.values() for status in operation.problems})
    return {
        "openapi": VERSION,
        "info": {
            "title": "raftcron",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": {
                **taken.components(types),
                **answered.components(),
                "Archive": {"type": "string", "format": "binary", "description": "what `GET /v1/backup` answers"},
                "Lines": {"type": "string", "description": "a job a line, as JSON (NDJSON), of any length in all"},
            },
            "headers": {name: _header(name) for name in ANSWERED},
            "responses": {f"Problem{status}": _problem(status) for status in statuses},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _operation(method: str, path: str, operation: Operation) -> dict[str, Any]:
    rule = RULES.get((method, path), UNKNOWN)
    needs = "Needs no token." if path in FREE else f"Needs a token of the role {rule.role}, {SCOPES[rule.scope]}."
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": needs,
        "tags": [operation.tag],
        "parameters": [
            *_path_parameters(path, operation),
            *(_query_parameter(one) for one in operation.query),
            *(_header_parameter(name) for name in operation.headers),
        ],
        "responses": {
            **{str(status): _answer(answer) for status, answer in operation.answers.items()},
            **{str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in operation.problems},
        },
    }
    if operation.body is not None:
        found["requestBody"] = _body(operation.body)
    if path in FREE:
        found["security"] = []
    return found


def _path_parameters(path: str, operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
            "example": operation.name,
        }
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _query_parameter(parameter: Parameter) -> dict[str, Any]:
    schema = {"type": "array", "items": parameter.schema} if parameter.is_repeatable else parameter.schema
    found = {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "required": parameter.is_required,
        "schema": schema,
    }
    if parameter.example is not None:
        found["example"] = [parameter.example] if parameter.is_repeatable else parameter.example
    return found


def _header_parameter(name: str) -> dict[str, Any]:
    schema, description, example = ASKED[name]
    return {"name": name, "in": "header", "description": description, "schema": schema, "example": example}


def _header(name: str) -> dict[str, Any]:
    schema, description = ANSWERED[name]
    return {"description": description, "schema": schema, "required": name in (respond.NODE_NAME, respond.INDEX)}


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*EVERY_ANSWER, *names)}


def _answer(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.description, "headers": _headers(answer.headers)}
    if answer.schema is not None:
        schema = answered.ref(answer.schema) if isinstance(answer.schema, str) else answer.schema
        found["content"] = {answer.media_type: {"schema": schema}}
    return found


def _body(body: Body) -> dict[str, Any]:
    examples = {name: {"value": value} for name, value in body.examples.items()}
    content = {media_type: {"schema": _bodied(body, schema)} for media_type, schema in body.types.items()}
    first = next(iter(content.values()))
    first["examples"] = examples
    return {"required": body.is_required, "content": content}


def _bodied(body: Body, schema: str) -> Schema:
    """Where a body may be left out, null says as much."""
    return answered.ref(schema) if body.is_required else nullable(answered.ref(schema))


def _problem(status: int) -> dict[str, Any]:
    kinds = [kind for kind in answered.error_kinds() if kind.http_status == status]
    codes = sorted({kind.code for kind in kinds})
    own = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
    found: dict[str, Any] = {
        "description": "; ".join(sorted(f"`{kind.code}`: {kind.title}" for kind in kinds)),
        "headers": _headers(("Retry-After",) if status in RETRY_AFTER else ()),
        "content": {problems.CONTENT_TYPE: {"schema": {"allOf": [answered.ref("Problem"), own]}}},
    }
    return found
