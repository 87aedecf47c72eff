"""GET /openapi.json: it is OpenAPI 3.1, every route is in it, it says what handlers take, and its examples work."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from raftcron.api import app as app_module
from raftcron.api import bodies, named
from raftcron.api.app import ROUTES
from raftcron.api.openapi.answered import components, error_kinds
from raftcron.api.openapi.document import described, document
from raftcron.api.openapi.operations import OPERATIONS
from raftcron.api.openapi.sketch import accepted
from raftcron.api.openapi.taken import job_fields
from raftcron.api.query import Query
from raftcron.core.definition import DEFAULTS
from raftcron.core.fields import CHECKS, Walk
from raftcron.executors import http_spec, python, registry, shell
from tests.api.bench import Answer, Bench, bench
from tests.api.test_requests_of_runs import taken_over

TYPES = tuple(sorted(registry.BUILT_IN))
DOCUMENT = document([(method, path) for method, path, _ in ROUTES], TYPES)
WITHOUT = ("/", "/ui")  # the web page is for people
STREAMS = {("GET", "/v1/events")}  # has no end; its own tests read it


def described_routes() -> list[tuple[str, str]]:
    found = [(method, described(path)) for method, path, _ in ROUTES]
    return [one for one in found if one[1] != WITHOUT[0] and not one[1].startswith(WITHOUT[1])]


def test_it_is_valid() -> None:
    """OpenAPI 3.1, and each schema in it a JSON schema."""
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(("method", "path"), described_routes())
def test_each_route_is_in_it(method: str, path: str) -> None:
    """Whoever adds a route describes it in api/openapi/operations/."""
    operation = DOCUMENT["paths"][path][method.lower()]
    assert operation["summary"]
    for status, answer in operation["responses"].items():
        found = resolve(answer)
        assert int(status) < 400 or "application/problem+json" in found["content"]
        assert {"Raftcron-Node", "Raftcron-Leader", "Raftcron-Index"} <= found["headers"].keys()


def test_names_of_operations_are_used_once() -> None:
    names = [operation.id for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))


async def test_it_is_answered(one: Bench) -> None:
    """As JSON, by any node, and HEAD too."""
    answer = (await one.ask("GET", "/openapi.json")).expect(200)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == json.loads(json.dumps(DOCUMENT))
    (await one.ask("HEAD", "/openapi.json")).expect(200)


# ---- it says what is checked ----------------------------------------------------------------------------------------


def test_every_field_of_a_job_is_in_it_with_its_default() -> None:
    """And the default is right by the field's own schema."""
    fields = job_fields()
    assert fields.keys() == DEFAULTS.keys() | {"schedule", "executor"}
    for key, default in DEFAULTS.items():
        assert fields[key]["default"] == default
        Draft202012Validator(fields[key]).validate(default)


VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 101, 1_001, 1 << 60, "", "5m", "1h30m", "later", "first", "skip", "any"),
    "at_most_once",
    *("2026-01-31T09:00:00Z", "2026-01-31", "Europe/Berlin", "a b", "x" * 129, "x" * 5_000),
    *([], ["failed"], ["nothing"], ["a", 1], [None], ["a"] * 70, {}, {"a": "b"}, {"a": 1}, {"": "x"}),
    *([{"job": "a"}], [{"job": "a", "on": "any"}], [{"job": "a", "on": "never"}], [{"on": "any"}]),
    [{"job": "a", "x": 1}],
)  # fmt: skip


@pytest.mark.parametrize("pointer", sorted(CHECKS))
def test_a_schema_takes_what_its_check_takes(pointer: str) -> None:
    """What a check takes its schema takes; what the schema takes and the check does not is a text's inner form."""
    validator = Draft202012Validator(accepted(CHECKS[pointer]))
    agreed = set()
    for value in VALUES:
        walk = Walk()
        CHECKS[pointer](walk, pointer, value)
        is_taken, is_described = not walk.faults, validator.is_valid(value)
        assert is_described or not is_taken, value
        assert is_taken or not is_described or isinstance(value, str | list | float | int), value
        agreed.add((is_taken, is_described))
    assert {(True, True), (False, False)} <= agreed


def test_executors_have_the_fields_that_are_checked() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for name, fields in (("http", http_spec.FIELDS), ("shell", shell.FIELDS), ("python", python.FIELDS)):
        assert schemas[f"Executor_{name}"]["properties"].keys() == set(fields)
    assert len(schemas["Executor"]["oneOf"]) == len(TYPES)


def test_an_executor_of_a_package_is_in_it() -> None:
    """Its own fields are its own affair."""
    schemas = document([], [*TYPES, "pigeon"])["components"]["schemas"]
    assert {"$ref": "#/components/schemas/Executor_pigeon"} in schemas["Executor"]["oneOf"]
    assert schemas["Executor_pigeon"]["properties"] == {"type": {"const": "pigeon"}}


def test_every_error_has_its_status_and_code() -> None:
    """Of all that a request can be answered with, but 405, which belongs to no operation."""
    codes = components()["Problem"]["properties"]["code"]["enum"]
    assert set(codes) == {kind.code for kind in error_kinds()}
    statuses = {int(name.removeprefix("Problem")) for name in DOCUMENT["components"]["responses"]}
    assert {kind.http_status for kind in error_kinds()} - {405} <= statuses | {410, 412}


# ---- it says what handlers take -------------------------------------------------------------------------------------


class Seen:
    """What a handler asks of one request."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.query: set[str] = set()
        self.repeatable: set[str] = set()
        self.types: set[str] = set()
        self.headers: set[str] = set()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    query, head = Query.__init__, bodies.check_head

    def noting_query(self: Query, request: web.Request, known: Any, repeatable: Any = ()) -> None:
        found.query, found.repeatable = set(known), set(repeatable)
        query(self, request, known, repeatable)

    def noting_head(request: web.Request, *types: str) -> None:
        found.types |= set(types)
        head(request, *types)

    def noting(names: tuple[str, ...], inner: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            found.headers |= set(names)
            return inner(*given)

        return noted

    monkeypatch.setattr(Query, "__init__", noting_query)
    monkeypatch.setattr(bodies, "check_head", noting_head)
    for module in [*vars(app_module).values(), named]:
        for name, headers in (
            ("idempotency_key", ("Idempotency-Key",)),
            ("given_key", ("Idempotency-Key",)),
            ("precondition", ("If-Match", "If-None-Match")),
            ("_last_seen", ("Last-Event-ID",)),
        ):
            if getattr(module, "__name__", "").startswith("raftcron.api.") and hasattr(module, name):
                monkeypatch.setattr(module, name, noting(headers, getattr(module, name)))
    return found


@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS.keys() & set(described_routes()) - STREAMS))
async def test_handlers_take_what_is_described(method: str, path: str, seen: Seen) -> None:
    """The same parameters, headers and types of bodies: no more, no less."""
    operation = OPERATIONS[method, path]
    examples = iter(() if operation.body is None else operation.body.examples.values())
    async with bench(3, hold_seconds=0.1) as made:
        await prepare(made)
        seen.forget()
        query = "".join(f"?{one.name}={one.example}" for one in operation.query if one.is_required)
        await made.ask(method, target(path, made) + query, next(examples, None), headers=sent(operation))
    assert seen.query == {one.name for one in operation.query}
    assert seen.repeatable == {one.name for one in operation.query if one.is_repeatable}
    assert seen.headers == set(operation.headers)
    if operation.body is not None:
        assert seen.types == set(operation.body.types)


# ---- its examples ---------------------------------------------------------------------------------------------------


def examples() -> Iterator[tuple[str, str, str]]:
    """Method, path, and the name of an example of its body: "" where it has none."""
    for method, path in described_routes():
        operation = OPERATIONS.get((method, path))
        if operation is not None and (method, path) not in STREAMS:
            for name in ["", *operation.body.examples] if operation.body else [""]:
                if name or operation.body is None or not operation.body.is_required:
                    yield method, path, name


@pytest.fixture
async def three() -> AsyncIterator[Bench]:
    async with bench(3, hold_seconds=2.0) as made:
        await prepare(made)
        yield made


@pytest.mark.parametrize(("method", "path", "name"), list(examples()))
async def test_examples_are_right(three: Bench, method: str, path: str, name: str) -> None:
    """By their schemas, and by a node, which answers what is described: its status, headers and every field."""
    operation = DOCUMENT["paths"][path][method.lower()]
    body, media_type = None, None
    if name:
        media_type, content = next(iter(operation["requestBody"]["content"].items()))
        body = content["examples"][name]["value"]
        validator(content["schema"]).validate(body)
        if isinstance(body, dict) and "token" in body:
            body = {**body, "token": three.taken["fencing_token"]}  # type: ignore[attr-defined]
    await make_ready(three, method, path)
    headers = sent(OPERATIONS[method, path]) | ({} if media_type is None else {"Content-Type": media_type})
    answer = await three.ask(method, target(path, three) + asked(operation), body, headers=headers)
    assert 200 <= answer.status < 300, answer.body
    said = resolve(operation["responses"][str(answer.status)])
    for header, meaning in said["headers"].items():
        wanted = resolve(meaning)
        assert header in answer.headers or not wanted["required"]
    unsaid = {one for one in answer.headers if one.startswith("Raftcron-") or one in ("ETag", "Location")}
    assert unsaid <= said["headers"].keys()
    if "content" not in said:
        assert answer.body == b""
        return
    [(media_type, content)] = said["content"].items()
    assert answer.headers["Content-Type"].partition(";")[0] == media_type
    if media_type == "application/json":
        validator(closed(content["schema"])).validate(answer.json)


@pytest.mark.parametrize(
    ("name", "schedule"), [("backup-db", "*/7 * * * *"), ("backup-db", "*/5 * * * *"), ("new", "@daily")]
)
async def test_dry_runs_are_described(three: Bench, name: str, schedule: str) -> None:
    """Of jobs that change, that stay, and that are new."""
    body = {"schedule": schedule, "executor": {"type": "noop"}, "labels": {"team": "db"}}
    answer = (await three.ask("PUT", f"/v1/jobs/{name}?dry_run=1", body)).expect(200)
    validator(closed({"$ref": "#/components/schemas/JobPreview"})).validate(answer.json)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/v1/jobs/a", {"schedule": "never"}, 422),
        ("PUT", "/v1/jobs/a", [], 422),
        ("GET", "/v1/jobs/nobody", None, 404),
        ("GET", "/v1/runs?limit=0", None, 422),
        ("POST", "/v1/tokens", {"name": "ci", "role": "read"}, 409),
        ("POST", "/v1/jobs:apply", {"jobs": [{"name": "a"}]}, 422),
    ],
)
async def test_problems_are_described(three: Bench, method: str, path: str, body: Any, status: int) -> None:
    """Each with the codes that its status may have."""
    answer = await three.ask(method, path, body)
    assert answer.status == status
    judge_problem(answer)


def judge_problem(answer: Answer) -> None:
    """A problem as its status is described."""
    said = DOCUMENT["components"]["responses"][f"Problem{answer.status}"]
    schema = said["content"]["application/problem+json"]["schema"]
    validator(schema).validate(answer.problem(answer.status))


async def prepare(made: Bench) -> None:
    """What the examples speak of."""
    await made.put("backup-db", schedule="*/5 * * * *", labels={"team": "db"})
    for where, body in (
        ("calendars/holidays", {"dates": ["2026-12-25"]}),
        ("groups/database", {"max_running": 2}),
        ("secrets/smtp", {"value": "x"}),
    ):
        (await made.ask("PUT", f"/v1/{where}", body)).expect(201)
    (await made.ask("POST", "/v1/tokens", {"name": "ci", "role": "read"})).expect(201)
    made.taken = await taken_over(made, "remote")  # type: ignore[attr-defined]


async def make_ready(made: Bench, method: str, path: str) -> None:
    """What some routes need besides."""
    if path.endswith("/retry"):
        await made.finish(made.taken["id"])  # type: ignore[attr-defined]
    if path.endswith("/replace"):
        made.cluster.silent.add("n3")
    if path == "/v1/alerts/default" and method != "PUT":
        (await made.ask("PUT", path, {"alerts": []})).expect(201)


def target(path: str, made: Bench) -> str:
    name = {one: operation.name for (_, one), operation in OPERATIONS.items() if operation.name is not None}.get(
        path, ""
    )
    return path.replace("{id}", made.taken["id"]).replace("{name}", name or "")  # type: ignore[attr-defined]


def asked(operation: Mapping[str, Any]) -> str:
    """The query that its examples make."""
    pairs = []
    for one in operation["parameters"]:
        if one["in"] == "query" and "example" in one:
            values = one["example"] if isinstance(one["example"], list) else [one["example"]]
            pairs += [f"{one['name']}={value}" for value in values]
    return "?" + "&".join(pairs) if pairs else ""


def sent(operation: Any) -> dict[str, str]:
    """A key wherever one is taken."""
    return {"Idempotency-Key": "6f1f1d0e"} if "Idempotency-Key" in operation.headers else {}


def resolve(part: Any) -> Any:
    while isinstance(part, Mapping) and "$ref" in part:
        found: Any = DOCUMENT
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


def validator(schema: Any) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def closed(schema: Any) -> Any:
    """The same, where a field that it does not name is a fault: whatever is answered is described."""
    schema = resolve(schema)
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: value if key in ("enum", "const", "default") else closed(value) for key, value in schema.items()}
    properties = found.get("properties")
    if isinstance(properties, dict) and properties.keys() != {"type"} and "additionalProperties" not in found:
        found["additionalProperties"] = False
    return found
