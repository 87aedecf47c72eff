"""What a dry run says of a definition that is sound and may still surprise."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core import definition
from raftcron.core.lint import lint

PLAIN: dict[str, Any] = {"schedule": "30 3 * * *", "executor": {"type": "noop"}}


@pytest.mark.parametrize(
    ("fields", "codes"),
    [
        ({}, []),
        ({"schedule": "*/7 * * * *"}, ["uneven_step"]),
        ({"schedule": ["0 0 13 * FRI", "0 0 31 * *"]}, ["dom_and_dow", "short_months"]),
        ({"retry": {"max_attempts": 3}}, []),
        ({"retry": {"max_attempts": 3, "on": ["failed", "timed_out"]}}, ["retry_unproven"]),
        ({"retry": {"max_attempts": 3, "on": ["broken"]}, "delivery": "at_least_once"}, []),
        ({"retry": {"on": ["broken"]}}, ["retry_unused"]),
        ({"misfire": {"policy": "all"}}, ["all_under_skip"]),
        ({"misfire": {"policy": "all"}, "overlap": {"policy": "queue"}}, []),
    ],
)
def test_what_may_surprise_is_said(fields: dict[str, Any], codes: list[str]) -> None:
    """Each in words that say what would be meant instead."""
    policy = definition.policy_of(definition.canonical(PLAIN | fields))
    found = lint(policy, "a", 1_800_000_000_000)
    assert [note.code for note in found] == codes
    assert all(len(note.message) > 20 for note in found)


@pytest.mark.parametrize(("isolation", "codes"), [("stop", ["stop_in_thread"]), ("continue", [])])
def test_a_thread_that_shall_be_stopped_is_told_of(isolation: str, codes: list[str]) -> None:
    """By its handler and node; nothing is said where no node runs the handler in a thread."""
    policy = definition.policy_of(definition.canonical(PLAIN | {"isolation": isolation}))
    found = lint(policy, "a", 1_800_000_000_000, thread_on="web-1")
    assert [note.code for note in found] == codes
    assert all("web-1" in note.message for note in found)
    assert lint(policy, "a", 1_800_000_000_000) == []
