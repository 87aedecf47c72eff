"""What operations are made of: parameters, bodies, answers, and the shapes that most of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raftcron.api import bodies
from raftcron.api.openapi.answered import STATES
from raftcron.api.openapi.sketch import INSTANT, Schema
from raftcron.api.openapi.taken import TEXT
from raftcron.api.query import INDEX_MAX
from raftcron.runtime.listing import PAGE_DEFAULT, PAGE_MAX


@dataclass(frozen=True)
class Parameter:
    """One parameter of the query."""

    name: str
    schema: Schema
    description: str
    is_required: bool = False
    is_repeatable: bool = False
    example: Any = None


@dataclass(frozen=True, kw_only=True)
class Body:
    """What a request brings: a schema by media type, and examples of the first one by name."""

    types: Mapping[str, str]
    examples: Mapping[str, Any]
    is_required: bool = True


@dataclass(frozen=True)
class Answer:
    """One way in which it succeeds; `schema` is a name, a schema, or None for no body."""

    description: str
    schema: str | Schema | None = None
    media_type: str = bodies.JSON
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route; `problems` are the statuses of its errors, `name` is an example of what its path names."""

    id: str
    summary: str
    answers: Mapping[int, Answer]
    problems: tuple[int, ...]
    name: str | None = None
    query: tuple[Parameter, ...] = ()
    headers: tuple[str, ...] = ()
    body: Body | None = None
    tag: str = field(default="jobs")


FLAG_TEXT: Schema = {"type": "string", "enum": ["1", "0", "true", "false"]}


def flag(name: str, description: str) -> Parameter:
    return Parameter(name, FLAG_TEXT, description)


READ = (
    Parameter(
        "consistency",
        {"type": "string", "enum": ["linearizable", "stale"], "default": "linearizable"},
        "stale: what this node has, also without a quorum; Raftcron-Staleness-Ms says how old it may be",
    ),
    Parameter(
        "min_index",
        {"type": "integer", "minimum": 0, "maximum": INDEX_MAX},
        "wait until this node has applied that index",
        example=1,
    ),
)
CURSOR = Parameter("cursor", TEXT, "`next_cursor` of the page before")
LIMIT = Parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT}, "of a page")
PAGE = (LIMIT, CURSOR)
COUNT = flag("count", "count what the filters leave")
SINCE = Parameter("since", INSTANT, "no older scheduled time", example="2026-01-31T09:00:00Z")
RUN_STATE = Parameter("state", {"type": "string", "enum": STATES}, "in this state")

SEES_READ = (400, 401, 403, 422, 503)
FOUND_READ = (400, 401, 403, 404, 422, 503)
LOCAL = (400, 401, 403)
WRITE = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 504)
CONDITIONAL = (*WRITE[:5], 412, *WRITE[5:])
MAKE = tuple(status for status in WRITE if status != 404)  # nothing has to be there
CONDITIONAL_MAKE = tuple(status for status in CONDITIONAL if status != 404)
KEY = ("Idempotency-Key",)
TAGS = ("If-Match", "If-None-Match", *KEY)
WRITTEN = ("Idempotency-Replayed",)
TAGGED = ("ETag", *WRITTEN)
CREATED = ("Location", *TAGGED)
READ_HEADERS = ("Raftcron-Staleness-Ms",)
GONE_SINCE: Schema = {"type": "null"}  # a repeat is answered with what is there now


def one(schema: str, description: str, headers: tuple[str, ...] = ()) -> Answer:
    return Answer(description, schema, headers=headers)


def or_null(schema: str) -> Schema:
    return {"anyOf": [{"$ref": f"#/components/schemas/{schema}"}, GONE_SINCE]}


def json_body(schema: str, examples: Mapping[str, Any], *, is_required: bool = True) -> Body:
    return Body(types={bodies.JSON: schema}, examples=examples, is_required=is_required)


def list_of(what: str, id_: str, page: str, *more: Parameter, tag: str) -> Operation:
    return Operation(
        id=id_,
        summary=f"List {what}",
        tag=tag,
        query=(*READ, *PAGE, *more),
        answers={200: one(page, f"a page of {what}", READ_HEADERS)},
        problems=SEES_READ,
    )


def get_of(what: str, id_: str, schema: str, name: str, *, tag: str, headers: tuple[str, ...] = ()) -> Operation:
    return Operation(
        id=id_,
        summary=f"Get {what}",
        tag=tag,
        name=name,
        query=READ,
        answers={200: one(schema, "it, as it is now", (*READ_HEADERS, *headers))},
        problems=FOUND_READ,
    )


def put_of(what: str, id_: str, schema: str, name: str, body: Body, *, tag: str, is_tagged: bool = True) -> Operation:
    return Operation(
        id=id_,
        summary=f"Create or replace {what}",
        tag=tag,
        name=name,
        headers=TAGS if is_tagged else KEY,
        body=body,
        answers={
            200: Answer("replaced, or the same as before", or_null(schema), headers=TAGGED if is_tagged else WRITTEN),
            201: Answer("created", or_null(schema), headers=CREATED if is_tagged else WRITTEN),
        },
        problems=CONDITIONAL_MAKE if is_tagged else MAKE,
    )


def delete_of(what: str, id_: str, name: str, *query: Parameter, tag: str, is_tagged: bool = True) -> Operation:
    return Operation(
        id=id_,
        summary=f"Delete {what}",
        tag=tag,
        name=name,
        query=query,
        headers=TAGS if is_tagged else KEY,
        answers={204: Answer("it is gone", headers=WRITTEN)},
        problems=CONDITIONAL if is_tagged else WRITE,
    )
