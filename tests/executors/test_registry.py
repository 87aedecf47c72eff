"""Names of executor types, and the validation of executor objects."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftcron.errors import ConfigurationError
from raftcron.executors.http_spec import StatusSet
from raftcron.executors.noop import NoopExecutor
from raftcron.executors.registry import GROUP, Registry, Surroundings
from raftcron.executors.validation import Findings
from raftcron.ports import Attempt, Control, Ending
from tests.executors.doubles import HandControl, make_attempt

HTTP = {"type": "http", "url": "http://127.0.0.1:9000/hook"}
SHELL = {"type": "shell", "command": "true"}


class EchoExecutor:
    """What a package of somebody else may bring."""

    @classmethod
    def create(cls, surroundings: Surroundings) -> EchoExecutor:
        return cls()

    @staticmethod
    def validate(spec: Mapping[str, Any]) -> list[Any]:
        findings = Findings()
        findings.unknown_fields(spec, {"type", "say"})
        return findings.items

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        return Ending("succeeded", output_tail=attempt.executor["say"].encode())

    async def close(self) -> None:
        """Holds nothing."""


def faults(spec: Any) -> set[str]:
    """Pointers to all that is wrong."""
    return {fault.pointer for fault in Registry().validate(spec)}


async def test_a_third_party_executor_by_entry_point() -> None:
    """It is validated and run by its name; it cannot replace a built-in one."""
    value = "tests.executors.test_registry:EchoExecutor"
    registry = Registry([EntryPoint("echo", value, GROUP), EntryPoint("noop", value, GROUP)])
    assert registry.types == ["echo", "http", "noop", "python", "shell"]
    assert registry.kind("noop") is NoopExecutor
    assert [fault.pointer for fault in registry.validate({"type": "echo", "says": 1})] == ["/says"]
    executors = registry.executors(Surroundings())
    ending = await executors.run(make_attempt({"type": "echo", "say": "hi"}), HandControl())
    assert ending.output_tail == b"hi"
    await executors.close()


class BrokenExecutor(EchoExecutor):
    """What goes wrong in somebody else's code."""

    made = 0

    @classmethod
    def create(cls, surroundings: Surroundings) -> BrokenExecutor:
        cls.made += 1
        if cls.made == 1:
            raise KeyError("no room")
        return cls()

    @staticmethod
    def validate(spec: Mapping[str, Any]) -> list[Any]:
        return ["nonsense"] if spec.get("bad") else spec["missing"]

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        return "done"  # type: ignore[return-value]  # as somebody else may


async def test_what_goes_wrong_in_a_third_partys_code_stays_there() -> None:
    """It is an error that names the type, and an end that is proven only where nothing has begun."""
    registry = Registry([EntryPoint("broken", "tests.executors.test_registry:BrokenExecutor", GROUP)])
    for spec in ({"type": "broken"}, {"type": "broken", "bad": True}):
        with pytest.raises(ConfigurationError, match="type 'broken' cannot judge this"):
            registry.validate(spec)
    executors = registry.executors(Surroundings())
    endings = [await executors.run(make_attempt({"type": "broken"}), HandControl()) for _ in range(2)]
    assert [(one.state, one.proven, one.error_kind) for one in endings] == [
        ("failed", True, "executor"),
        ("failed", False, "executor"),
    ]
    assert "'done' and no Ending" in (endings[1].error or "")


class CancelledExecutor(EchoExecutor):
    """A library of its gives up a task of its own, or waits."""

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        inner = asyncio.ensure_future(asyncio.sleep(300))
        if attempt.executor["say"] == "give up":
            inner.cancel()
        await inner
        return Ending("succeeded")


async def test_an_executor_that_says_it_was_cancelled_has_failed() -> None:
    """Where nobody has cancelled the attempt its end is not proven; where somebody does, it is cancelled."""
    point = EntryPoint("given-up", "tests.executors.test_registry:CancelledExecutor", GROUP)
    executors = Registry([point]).executors(Surroundings())
    ending = await executors.run(make_attempt({"type": "given-up", "say": "give up"}), HandControl())
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", False, "executor")
    assert "'given-up' itself failed: CancelledError()" in (ending.error or "")
    waiting = asyncio.ensure_future(executors.run(make_attempt({"type": "given-up", "say": "wait"}), HandControl()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()


async def test_a_type_that_is_not_here_is_named() -> None:
    """Asked for by name, run or validated: the answer says what there is."""
    with pytest.raises(ConfigurationError, match=r"'fax' here; there are http, noop, python, shell"):
        Registry().kind("fax")
    with pytest.raises(ConfigurationError, match=r"'fax' \(no_such_module:Fax\) cannot be loaded"):
        Registry([EntryPoint("fax", "no_such_module:Fax", GROUP)]).kind("fax")
    ending = await Registry().executors(Surroundings()).run(make_attempt({"type": "fax"}), HandControl())
    assert (ending.state, ending.error_kind) == ("failed", "not_allowed")
    assert faults({"type": "fax"}) == {"/type"}
    assert faults({"type": "python", "handler": "f", "args": {"a": 1}}) == set()


async def test_installed_types_include_the_built_in_ones() -> None:
    """Also where a package's metadata is older than its code."""
    assert {"http", "shell", "noop"} <= set(Registry.installed().types)


async def test_noop_asks_the_gate_and_succeeds() -> None:
    """Or does not start."""
    noop = NoopExecutor.create(Surroundings())
    assert await noop.run(make_attempt({"type": "noop"}), HandControl()) == Ending("succeeded")
    assert (await noop.run(make_attempt({"type": "noop"}), HandControl(None))).state == "not_started"
    assert faults({"type": "noop", "sleep": 1}) == {"/sleep"}


@pytest.mark.parametrize(
    "spec",
    [
        HTTP,
        HTTP | {"method": "GET", "headers": {"X-Team": "db", "host": "a"}, "body": "", "expect_status": "200-299"},
        HTTP | {"method": None, "headers": None, "body": None, "expect_status": None, "secret": None, "async": True},
        HTTP | {"url": "https://example.org/a?b=%20#c", "expect_status": 204},
        HTTP | {"url": "http://[::1]:80/"},
        SHELL,
        SHELL | {"command": ["a", ""], "cwd": "/tmp", "env": {"A_1": ""}, "stdin": "a\0b", "user": "www-data"},
        SHELL | {"group": "adm", "memory_limit": "512MiB"},
        SHELL | {"command": "echo ${secret:-none}", "cwd": None, "env": None, "stdin": None, "user": None},
        {"type": "noop"},
    ],
)
def test_good_objects_have_no_fault(spec: dict[str, Any]) -> None:
    """What api.md shows, and null for what may be left out."""
    assert faults(spec) == set()


@pytest.mark.parametrize("spec", [None, [], "http", 5, {}, {"type": None}, {"type": ["http"]}, {"type": {}}])
def test_what_is_no_executor_object_is_refused(spec: Any) -> None:
    """One fault, no exception."""
    assert len(faults(spec)) == 1


def test_every_fault_of_an_http_object_is_named() -> None:
    """Not only the first one."""
    spec = {
        "type": "http",
        "method": "get",
        "url": "ftp://example.org/",
        "headers": {
            "Bad Name": "x",
            "X-A": "line\r\nInjected: yes",
            "x-a": "again",
            "X/~": 5,
            "Authorization": "Bearer x",
            "raftcron-job": "other",
            "Content-Length": "1",
            "X-S": "${secret:key}",
        },
        "body": 7,
        "expect_status": "2xx",
        "expect_body": "",
        "secret": "whsec_1",
        "async": "yes",
        "retries": 3,
        "time~out": 1,
    }
    assert faults(spec) == {
        "/method",
        "/url",
        "/headers/Bad Name",
        "/headers/X-A",
        "/headers/x-a",
        "/headers/X~1~0",
        "/headers/raftcron-job",
        "/headers/Content-Length",
        "/body",
        "/expect_status",
        "/expect_body",
        "/secret",
        "/async",
        "/retries",
        "/time~0out",
    }


@pytest.mark.parametrize(
    "url",
    [
        None, 5, "", "x", "//h/", "http://", "http:///a", "http://h:port/", "http://h:99999/", "http://[::1/",
        "http://a b/", "http://h/\n", "http://h/\0", "http://user:pass@h/", "http://169.254.169.254/",
        "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fd00:ec2::254]/", "http://[::ffff:a9fe:a9fe]/",
        "http://2852039166/", "http://169.16689662/", "http://" + "a" * 9000, "http://\ud800/",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_called_is_refused(url: Any) -> None:
    """When the job is written, not when it is due."""
    assert faults({"type": "http", "url": url}) == {"/url"}


def test_a_body_that_cannot_come_is_not_expected() -> None:
    """HEAD has none, and every body holds an empty text."""
    assert faults(HTTP | {"expect_body": "ok", "method": "HEAD"}) == {"/expect_body"}
    assert faults(HTTP | {"expect_body": ""}) == {"/expect_body"}
    assert faults(HTTP | {"expect_body": "ok", "method": "GET"}) == set()


def test_every_fault_of_a_shell_object_is_named() -> None:
    """Not only the first one."""
    spec = {
        "type": "shell",
        "command": ["", 5, "a\0", "\ud800", "x" * 200_000, "${secret:key}"],
        "cwd": "relative",
        "env": {"1A": "x", "B": 5, "C": "\0", "RAFTCRON_JOB": "x", "D=E": "", "F": "${secret:key}"},
        "stdin": 5,
        "user": "a b",
        "group": "",
        "memory_limit": "1G",
        "shell": "/bin/bash",
    }
    assert faults(spec) == {
        "/command/0",
        "/command/1",
        "/command/2",
        "/command/3",
        "/command/4",
        "/command/5",
        "/cwd",
        "/env/1A",
        "/env/B",
        "/env/C",
        "/env/RAFTCRON_JOB",
        "/env/D=E",
        "/stdin",
        "/user",
        "/group",
        "/memory_limit",
        "/shell",
    }
    for command in (None, "", " \n", [], {}, 5, ["x"] * 2000):
        assert faults({"type": "shell", "command": command}) == {"/command"}


@pytest.mark.parametrize(
    ("spec", "pointers"),
    [
        ({}, {"/handler"}),
        ({"handler": "a b"}, {"/handler"}),
        ({"handler": 5, "kwargs": {}}, {"/handler", "/kwargs"}),
        ({"handler": "f", "args": "x" * 70_000}, {"/args"}),
    ],
)
def test_every_fault_of_a_python_object_is_named(spec: dict[str, Any], pointers: set[str]) -> None:
    """A handler that no node has is none: the application may come later."""
    assert faults({"type": "python"} | spec) == pointers


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "method",
        "url",
        "headers",
        "body",
        "expect_status",
        "expect_body",
        "secret",
        "async",
        "command",
        "cwd",
        "env",
        "stdin",
        "user",
    ]
)


@given(st.sampled_from(["http", "shell", "noop", "python"]), st.dictionaries(NAMES, JSON))
def test_no_json_makes_validation_raise(kind: str, fields: dict[str, Any]) -> None:
    """Whatever is sent, the answer is a list of faults, each below the object."""
    assert all(pointer.startswith("/") for pointer in faults({"type": kind} | fields))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (None, [200, 299], [199, 300]),
        ("200", [200], [201]),
        ("200,204", [200, 204], [203]),
        (" 200 - 201 , 404 ", [200, 201, 404], [202]),
        (204, [204], [200]),
    ],
)
def test_expected_statuses(text: str | int | None, inside: list[int], outside: list[int]) -> None:
    """Single ones and spans."""
    expected = StatusSet.parse(text)
    assert all(code in expected for code in inside)
    assert not any(code in expected for code in outside)


@pytest.mark.parametrize(
    "text", ["", ",", "200,", "2xx", "99", "600", "300-200", "200-", "-200", "200--204", "٢٠٠", "1e2"]
)
def test_statuses_that_mean_nothing(text: str) -> None:
    """Each is refused with what it should look like."""
    with pytest.raises(ValueError, match=r"status|span"):
        StatusSet.parse(text)
