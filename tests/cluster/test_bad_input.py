"""Bad input over HTTP: a clear answer that names every fault, never a 500, and everything is still there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster.harness import Answer, Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEVER = "0 0 29 2 *"
WEBHOOK = {"type": "http", "url": "http://127.0.0.1:9/hook"}
GOOD: dict[str, Any] = {"schedule": NEVER, "executor": WEBHOOK}
MIB = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """Three nodes with three jobs; at the end all of that must still be there, on each node."""
    failed_before = request.session.testsfailed
    async with Cluster(tmp_path_factory.mktemp("bad_input")) as made:
        await made.start()
        for place in range(3):
            await made.put_job("n1", f"kept-{place}", **GOOD, description=f"as it was {place}")
        yield made
        if request.session.testsfailed > failed_before:
            print(made.tails())


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_is_lost(cluster: Cluster) -> AsyncIterator[None]:
    """After each test every node still runs and holds exactly the jobs that it held, as they were."""
    before = await cluster.pages("n1", "/v1/jobs")
    assert [job["description"] for job in before] == [f"as it was {place}" for place in range(3)]
    yield
    assert cluster.alive == ["n1", "n2", "n3"]
    for name in cluster.nodes:
        assert await cluster.pages(name, "/v1/jobs") == before


def problem(answer: Answer, status: int, code: str | None = None) -> Any:
    """The problem document of an answer, after a look at its form (RFC 9457, api.md section 2)."""
    document = answer.expect(status).json
    assert answer.headers["Content-Type"].split(";")[0] == "application/problem+json"
    assert document["status"] == status
    assert document["type"]
    assert document["title"]
    assert document["detail"]
    assert code in (None, document["code"]), document
    assert answer.node is not None
    return document


def pointers(document: Any) -> set[str]:
    for fault in document["errors"]:
        assert fault["message"]
    return {fault["pointer"] for fault in document["errors"]}


async def put(cluster: Cluster, changes: dict[str, Any], node: str = "n2") -> Answer:
    return await cluster.request(node, "PUT", "/v1/jobs/bad", body={**GOOD, **changes})


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"not json", b'{"schedule": }', b"\xff\xfe{}", b'{"a": 1} trailing', b"[" * 100_000, b'{"a": NaN}'],
    ids=["empty", "cut", "words", "no value", "no UTF-8", "more after it", "deep", "NaN"],
)
@pytest.mark.parametrize("node", ["n1", "n3"])
async def test_what_is_no_json_is_malformed(cluster: Cluster, node: str, text: bytes) -> None:
    """400 on leader and follower alike."""
    for method, path in (("PUT", "/v1/jobs/bad"), ("POST", "/v1/jobs"), ("PATCH", "/v1/jobs/kept-0")):
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind}
        problem(await cluster.request(node, method, path, data=text, headers=headers), 400, "malformed")


@pytest.mark.parametrize("value", [[], "text", 7, None, True])
async def test_a_body_that_is_no_object_is_invalid(cluster: Cluster, value: Any) -> None:
    """A job is an object; anything else is said to be none."""
    answer = await cluster.request("n1", "PUT", "/v1/jobs/bad", data=json.dumps(value).encode())
    assert answer.status in (400, 422), answer
    problem(answer, answer.status)


async def test_unknown_fields_are_named(cluster: Cluster) -> None:
    """Every one of them, nested ones too, and all other faults of the body in the same answer."""
    document = problem(
        await put(
            cluster,
            {
                "shedule": "* * * * *",
                "misfire": {"polizy": "once"},
                "executor": {**WEBHOOK, "verb": "POST"},
                "timeout": "soon",
            },
        ),
        422,
        "invalid",
    )
    assert pointers(document) >= {"/shedule", "/misfire/polizy", "/executor/verb", "/timeout"}


@pytest.mark.parametrize(
    ("pointer", "changes"),
    [
        ("/schedule", {"schedule": 5}),
        ("/schedule", {"schedule": None}),
        ("/schedule", {"schedule": {}}),
        ("/executor", {"executor": "curl"}),
        ("/executor/type", {"executor": {"type": "pigeon"}}),
        ("/executor/url", {"executor": {"type": "http"}}),
        ("/executor/url", {"executor": {"type": "http", "url": "file:///etc/passwd"}}),
        ("/executor/url", {"executor": {"type": "http", "url": 7}}),
        ("/executor/headers", {"executor": {**WEBHOOK, "headers": ["a"]}}),
        ("/executor/expect_status", {"executor": {**WEBHOOK, "expect_status": "two hundred"}}),
        ("/timezone", {"timezone": 1}),
        ("/timeout", {"timeout": True}),
        ("/timeout", {"timeout": "-1s"}),
        ("/timeout", {"timeout": "5 parsecs"}),
        ("/delivery", {"delivery": "exactly_once"}),
        ("/overlap/policy", {"overlap": {"policy": "maybe"}}),
        ("/overlap/max_running", {"overlap": {"policy": "allow", "max_running": 0}}),
        ("/misfire/policy", {"misfire": {"policy": "twice"}}),
        ("/misfire/grace", {"misfire": {"grace": "x"}}),
        ("/retry/max_attempts", {"retry": {"max_attempts": 0}}),
        ("/retry/max_attempts", {"retry": {"max_attempts": "many"}}),
        ("/paused", {"paused": "no"}),
        ("/labels", {"labels": {"a": 1}}),
        ("/labels", {"labels": "a"}),
        ("/description", {"description": 3}),
        ("/history/runs", {"history": {"runs": -1}}),
        ("/history/runs", {"history": {"runs": 1.5}}),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else value,
)
async def test_wrong_types_and_values_are_pointed_at(cluster: Cluster, pointer: str, changes: dict[str, Any]) -> None:
    """422 with a pointer to the field."""
    document = problem(await put(cluster, changes), 422)
    assert document["code"] == "invalid"
    found = pointers(document)
    assert any(place == pointer or place.startswith(pointer + "/") for place in found), found


@pytest.mark.parametrize("missing", ["schedule", "executor"])
async def test_what_is_required_is_asked_for(cluster: Cluster, missing: str) -> None:
    """A job without a schedule or an executor is refused by that name."""
    body = {key: value for key, value in GOOD.items() if key != missing}
    document = problem(await cluster.request("n3", "PUT", "/v1/jobs/bad", body=body), 422, "invalid")
    assert f"/{missing}" in pointers(document)


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "*",
        "* * * *",
        "61 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1-3 * * * *",
        "a b c d e",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "@every",
        "@every 0s",
        "@every 1ms",
        "@every -5m",
        "@every 1s from yesterday",
        "@sometimes",
        "@reboot",
        "* * * * * * * *",
        "*" * 300,
        "1," * 5000 + "1 * * * *",
        "\u0665 * * * *",
        "* * * * *\n* * * * *",
    ],
)
async def test_impossible_schedules_are_refused(cluster: Cluster, schedule: str) -> None:
    """422 that points at the schedule, whether it cannot be read or can never fire."""
    assert "/schedule" in pointers(problem(await put(cluster, {"schedule": schedule}), 422, "invalid"))


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "", "../../etc/passwd", "/etc/localtime", "Europe/Berlin ", "europe/berlin\0", "UTC+1"]
)
async def test_impossible_zones_are_refused(cluster: Cluster, zone: str) -> None:
    """Only names of the zone database count, and none of them is a path."""
    assert "/timezone" in pointers(problem(await put(cluster, {"timezone": zone}), 422, "invalid"))


@pytest.mark.parametrize(
    "name", ["-leads", ".hidden", "_x", "two%20words", "sl%2Fash", "%C3%A4", "x" * 129, "a%00b", "semi%3Bcolon", "a:b"]
)
async def test_names_out_of_the_alphabet_are_refused(cluster: Cluster, name: str) -> None:
    """1-128 of A-Z a-z 0-9 . _ - with a letter or digit first; in the path and in a body."""
    answer = await cluster.request("n2", "PUT", f"/v1/jobs/{name}", body=GOOD)
    assert answer.status in (404, 422), answer
    problem(answer, answer.status)


async def test_a_name_in_a_body_is_looked_at_too(cluster: Cluster) -> None:
    """POST refuses what PUT refuses, a PUT whose body names another job, and a name that is taken."""
    problem(await cluster.request("n2", "POST", "/v1/jobs", body={**GOOD, "name": "-x"}), 422, "invalid")
    problem(await cluster.request("n2", "POST", "/v1/jobs", body=GOOD), 422, "invalid")
    problem(await put(cluster, {"name": "another"}), 422, "invalid")
    problem(await cluster.request("n2", "POST", "/v1/jobs", body={**GOOD, "name": "kept-0"}), 409)


async def test_bodies_over_the_limit_are_refused(cluster: Cluster) -> None:
    """413 for a job of more than 1 MiB and for a body of more than 32 MiB, announced or not."""
    large = json.dumps({**GOOD, "description": "x" * (MIB + 1)}).encode()
    problem(await cluster.request("n1", "PUT", "/v1/jobs/bad", data=large), 413)
    problem(await cluster.request("n3", "PUT", "/v1/jobs/bad", data=large), 413)
    huge = b'{"description": "' + b"x" * (33 * MIB) + b'"}'
    problem(await cluster.request("n2", "PUT", "/v1/jobs/bad", data=huge, timeout=30), 413)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_types_that_a_form_can_send_are_refused(cluster: Cluster, kind: str) -> None:
    """A write with a body needs the type of its route."""
    body = json.dumps(GOOD).encode()
    answer = await cluster.request("n1", "PUT", "/v1/jobs/bad", data=body, headers={"Content-Type": kind})
    problem(answer, 415)


@pytest.mark.parametrize(("header", "value"), [("Host", "evil.example"), ("Origin", "https://evil.example")])
async def test_other_hosts_and_origins_are_refused(cluster: Cluster, header: str, value: str) -> None:
    """Without tokens the Host and the Origin of each request must be this machine."""
    problem(await cluster.request("n1", "PUT", "/v1/jobs/bad", body=GOOD, headers={header: value}), 403)


@pytest.mark.parametrize(
    "changes",
    [
        {"placement": {"on": "any"}},
        {"placement": {"shards": 4}},
        {"overlap": {"policy": "queue"}},
        {"overlap": {"policy": "replace"}},
        {"misfire": {"policy": "all"}},
        {"misfire": {"policy": "skip"}},
        {"alerts": [{"type": "webhook", "url": "http://127.0.0.1:9/"}]},
    ],
    ids=json.dumps,
)
async def test_what_is_taken_is_given_back(cluster: Cluster, changes: dict[str, Any]) -> None:
    """A policy that was written is answered as it was written: none is passed over in silence."""
    answer = (await put(cluster, changes)).expect(201)
    for key, value in changes.items():
        given = answer.json[key]
        assert value.items() <= given.items() if isinstance(value, dict) else value == given
    (await cluster.request("n2", "DELETE", "/v1/jobs/bad")).expect(204)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"exclude": ["holidays"]}, "/exclude/0"),
        ({"jitter": "2d"}, "/jitter"),
        ({"max_runs": 0}, "/max_runs"),
        ({"start_at": "2030-01-02T00:00:00Z", "end_at": "2030-01-01T00:00:00Z"}, "/end_at"),
    ],
    ids=json.dumps,
)
async def test_bounds_that_make_no_sense_are_refused(cluster: Cluster, changes: dict[str, Any], pointer: str) -> None:
    """A calendar that is not there, a jitter beyond the window, no run at all, an end before the start."""
    assert pointer in pointers(problem(await put(cluster, changes), 422))


async def test_defaults_are_taken(cluster: Cluster) -> None:
    """Every field of the contract at its default is fine, and what is answered can be put back."""
    defaults: dict[str, Any] = {
        "timezone": "UTC",
        "timeout": "1h",
        "kill_after": "5s",
        "start_deadline": None,
        "delivery": "at_most_once",
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
        "paused": False,
        "after": [],
        "join": "all",
        "labels": {},
        "description": "",
        "history": {"runs": 20},
        "alerts": [],
    }
    created = (await put(cluster, defaults)).expect(201).json
    again = (await cluster.request("n3", "PUT", "/v1/jobs/bad", body=created)).expect(200).json
    assert again == created
    assert {key: created[key] for key in defaults} == defaults
    bare = (await put(cluster, {})).expect(200).json
    assert bare["revision"] == created["revision"]
    (await cluster.request("n2", "DELETE", "/v1/jobs/bad")).expect(204)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs/nobody", 404),
        ("DELETE", "/v1/jobs/nobody", 404),
        ("GET", "/v1/jobs/nobody/runs", 404),
        ("POST", "/v1/jobs/nobody/runs", 404),
        ("POST", "/v1/jobs/nobody/pause", 404),
        ("POST", "/v1/jobs/nobody/resume", 404),
        ("GET", "/v1/runs/no-such-run", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/jobs?limit=-1", 422),
        ("GET", "/v1/jobs?limit=many", 422),
        ("GET", "/v1/jobs?cursor=%00broken", 422),
        ("GET", "/v1/jobs/kept-0?consistency=perhaps", 422),
        ("GET", "/v1/jobs/kept-0?min_index=x", 422),
        ("POST", "/v1/jobs/kept-0", 405),
    ],
)
async def test_what_does_not_exist_is_said_so(cluster: Cluster, method: str, path: str, status: int) -> None:
    """Unknown names, routes, methods and parameters are problem documents too."""
    body: dict[str, Any] | None = {} if method == "POST" else None
    answer = await cluster.request("n3", method, path, body=body)
    assert answer.status in {status, 400 if status == 422 else status}, answer
    problem(answer, answer.status)


async def test_another_revision_is_refused(cluster: Cluster) -> None:
    """If-Match with a revision that is not the present one, and If-None-Match on a job that exists: 412."""
    changed = {**GOOD, "description": "changed"}
    for headers in ({"If-Match": '"1"'}, {"If-None-Match": "*"}):
        answer = await cluster.request("n2", "PUT", "/v1/jobs/kept-0", body=changed, headers=headers)
        problem(answer, 412)


async def test_a_bad_patch_changes_nothing(cluster: Cluster) -> None:
    """The merged job is what is judged; required fields cannot be patched away."""
    headers = {"Content-Type": "application/merge-patch+json"}
    patches: list[Any] = [{"schedule": None}, {"schedule": "61 * * * *"}, {"unknown": 1}, {"executor": {"type": None}}]
    for patch in (*patches, []):
        data = json.dumps(patch).encode()
        answer = await cluster.request("n1", "PATCH", "/v1/jobs/kept-0", data=data, headers=headers)
        assert answer.status in (400, 422), answer
        problem(answer, answer.status)
