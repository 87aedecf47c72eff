"""What is worked out once for many jobs says of each what it would be told by itself."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftcron.core import definition, judge
from raftcron.core.instant import MAX_MS, parse_rfc3339
from raftcron.core.schedule import parse
from raftcron.errors import Fault
from raftcron.executors import http_spec
from raftcron.executors.addresses import BY_DEFAULT, AddressRules
from raftcron.executors.validation import Findings

NOW = parse_rfc3339("2026-06-01T12:00:00Z")
TEXTS = [
    "*/20 * * * *",
    "30 2 * * MON",
    "H H * * *",
    "0 0 29 2 *",
    "0 0 0 1 1 * 2027",
    "@every 37m",
    "@every 5m from last_end",
    "@at 2026-06-01T11:59:00Z",
    "@at 2031-01-01T00:00:00Z",
    "@manual",
]
texts = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3).map(
    lambda found: found[0] if len(found) == 1 else found
)
executors = st.one_of(
    st.builds(lambda url: {"type": "http", "url": f"http://h/{url}"}, st.integers(0, 9)),
    st.builds(lambda flag: {"type": "http", "url": "http://h/", "async": flag}, st.booleans()),
    st.builds(lambda name: {"type": "python", "handler": name, "args": {"a": 1}}, st.sampled_from("ab")),
    st.sampled_from([{"type": "noop"}, {"type": 7}, {}, [], None, {"type": "shell", "handler": ["x"]}]),
)
definitions = st.fixed_dictionaries(
    {"schedule": st.one_of(texts, st.sampled_from([[], 7, None])), "executor": executors},
    optional={
        "labels": st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
        "description": st.sampled_from(["", "what it is for"]),
        "timezone": st.sampled_from(["UTC", "Europe/Berlin"]),
        "retry": st.fixed_dictionaries({}, optional={"max_attempts": st.integers(1, 3), "backoff": st.just("2s")}),
        "placement": st.builds(lambda tag: {"tags": {"rack": tag}}, st.sampled_from("ab")),
        "hash_key": st.sampled_from(["a", "b"]),
        "jitter": st.sampled_from(["5s", 7, "nonsense"]),
        "alerts": st.just([{"type": "none"}]),
        "max_runs": st.integers(1, 3),
    },
)


@given(definitions)
def test_a_definition_means_alone_what_it_means_among_others(written: dict[str, Any]) -> None:
    stored = definition.canonical(written)
    try:
        alone = definition._meaning_of.__wrapped__(stored)  # type: ignore[attr-defined]
    except Exception:
        assert definition.stored_fault(stored) is not None
    else:
        assert definition.policy_of(stored) == alone


hosts = st.sampled_from(
    [
        "h",
        "a-b.example.org",
        "127.0.0.1",
        "169.254.169.254",
        "10.1.2.3",
        "1.2",
        "0",
        "..",
        "-",
        "xn--a",
        "x" * 70,
        "[::1]",
        "u:p@h",
        "",
        "h h",
        "é.org",
        "[fe80::1]",
        "H.Example",
        "${secret:host}",
    ]
)
urls = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "", "http:/"]),
    hosts,
    st.sampled_from(["", ":80", ":0", ":65535", ":65536", ":99999", ":123456", ":", ":x"]),
    st.sampled_from(
        ["", "/", "?", "/a/b?c=d&e=~f", "/%zz", "/ ", "/\n", "#x", "/é", "/x" * 5_000, "?@h", "/${secret:x}"]
    ),
)


@given(st.one_of(urls, st.sampled_from([None, 7, ["http://h"]])), st.booleans())
def test_a_usual_address_is_judged_as_each_other_is(url: Any, is_strict: bool) -> None:
    rules = AddressRules((ip_network("10.0.0.0/8"),), (ip_network("169.254.0.0/16"),)) if is_strict else BY_DEFAULT
    shortly, wholly = Findings(), Findings()
    http_spec._check_url(shortly, url, rules)
    http_spec._walk_url(wholly, url, rules)
    assert shortly.items == wholly.items


def test_an_address_that_is_refused_is_so_wherever_it_points() -> None:
    found: list[list[Fault]] = [
        http_spec.validate({"type": "http", "url": f"http://169.254.169.254/{path}"}) for path in ("", "a", "a/b")
    ]
    assert all(found)
    assert found[0] == found[1] == found[2]


@given(st.sampled_from(TEXTS), st.lists(st.integers(NOW - 10**12, MAX_MS), min_size=1, max_size=6))
def test_whether_a_schedule_ever_fires_does_not_depend_on_what_was_asked_before(text: str, afters: list[int]) -> None:
    schedule = parse(text, hash_key="job")
    for after in afters:
        expected = schedule.kind != "manual" and schedule.next(after, after) is None
        assert schedule.never_fires(after) == expected


@given(texts, st.sampled_from([NOW, MAX_MS - 1, MAX_MS - 10**9, NOW + 10**12]))
def test_times_without_bounds_are_judged_by_their_schedules_as_by_themselves(text: Any, now: int) -> None:
    policy = definition.policy_of(definition.canonical({"schedule": text, "executor": {"type": "noop"}}))
    shortly = judge.never_fires(policy, "job", now, {})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(judge, "_is_free", lambda _recurrence: False)
        assert shortly == judge.never_fires(policy, "job", now, {})
