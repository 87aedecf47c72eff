"""Each rule of placement has a story that goes otherwise without it: so the stories can fail.

A row switches one rule off, by putting something else in the place of the function that holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raftcron.core import placement
from raftcron.core.apply import parts, placing, runs
from raftcron.core.model import HANDLER_TAG, ON_ANY, ON_LEADER, ON_LEAST_LOADED, ON_STICKY, PRIORITY, Part
from raftcron.core.queues import Queues
from raftcron.runtime import assigner
from raftcron.runtime.assigner import Assigner
from tests.scenarios.story import goes_otherwise
from tests.simulation.switch import Replacement

MANY = 1_000_000


def chosen(change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Replacement]:
    """placement.choose, with other arguments, for whoever asks."""

    def choose(on: str, *rest: Any, **named: Any) -> str | None:
        changed = change({"on": on, **named})
        return placement.choose(changed.pop("on"), *rest, **changed)

    return [(placing, "choose", choose), (assigner, "choose", choose)]


def instead(one: str, other: str) -> list[Replacement]:
    """What is placed like `one` is placed like `other`."""
    return chosen(lambda asked: asked | {"on": other if asked["on"] == one else asked["on"]})


def carries_but(ignored: Callable[[str], bool]) -> list[Replacement]:
    """placement.carries, but some tags are not asked for."""
    real = placement.carries
    return [(placement, "carries", lambda node, tags: real(node, [tag for tag in tags if not ignored(tag[0])]))]


def lanes_but(**fields: Any) -> list[Replacement]:
    """placement.lane_of, but all lanes have this in common."""
    from raftcron.core import queues

    real = placement.lane_of
    return [(queues, "lane_of", lambda policy, run: real(policy, run)._replace(**fields))]


def retries_but(kept: Callable[[Any], bool], otherwise: Callable[..., bool]) -> list[Replacement]:
    """policy.may_retry, but of some runs something else is true."""
    real = runs.may_retry
    return [(runs, "may_retry", lambda policy, run, *rest: (real if kept(run) else otherwise)(policy, run, *rest))]


def loads_but(load: Callable[..., float]) -> list[Replacement]:
    """What `least_loaded` goes by, but otherwise."""
    return [(Queues, "load", load), (assigner._Room, "load", load)]


def may_retry_anyhow(policy: Any, run: Any, state: str, error_kind: str | None) -> bool:
    return bool(run.attempt < policy.max_attempts)


def of_first_attempts(judge: Any, owner: Any, name: str) -> Replacement:
    """A judgement on runs, but of further attempts it is never so."""
    return owner, name, lambda first, run, *rest: run.attempt == 1 and judge(first, run, *rest)


RULES: dict[str, tuple[list[Replacement], str]] = {
    "tags": (carries_but(lambda name: not name.startswith(HANDLER_TAG)), "placement_tags"),
    "handlers": (carries_but(lambda name: name.startswith(HANDLER_TAG)), "placement_handlers"),
    "leader": (instead(ON_LEADER, ON_ANY), "retry_by_class"),
    "any takes turns": (chosen(lambda asked: asked | {"turn": 0}), "placement_any"),
    "least_loaded is not any": (instead(ON_LEAST_LOADED, ON_ANY), "placement_least_loaded"),
    "least_loaded counts": (loads_but(lambda room, node: 0.0), "placement_least_loaded"),
    "sticky": (instead(ON_STICKY, ON_LEAST_LOADED), "placement_sticky"),
    "sticky stays where it went": (instead(ON_STICKY, ON_ANY), "placement_sticky_return"),
    "sticky knows where it ran": ([(runs, "_note_node", lambda state, run: None)], "placement_sticky"),
    "the nodes of a broadcast are frozen": (
        [(parts, "part_of", lambda policy, parent, name: Part(parent))],
        "placement_all",
    ),
    "a part of a broadcast does not move": (
        retries_but(lambda run: run.part is None, may_retry_anyhow),
        "placement_all",
    ),
    "a shard fails over": (retries_but(lambda run: run.part is None, lambda *asked: False), "placement_shards"),
    "shards are parts of one run": ([(parts, "part_names", lambda policy, run, nodes: ("0",))], "placement_shards"),
    "a part is run again alone": (
        [
            (owner, "part_names", lambda policy, run, nodes: placement.part_names(policy, _asked_anew(run), nodes))
            for owner in (parts, assigner)
        ],
        "retry_part",
    ),
    "priority": (lanes_but(priority=PRIORITY), "placement_waits"),
    "groups cap": ([(Queues, "group_room", lambda state, name: MANY)], "placement_group"),
    "slots": (
        [(owner, "has_slot", lambda room, node, *, process: True) for owner in (Queues, assigner._Room)],
        "placement_waits",
    ),
    "a drained node gets nothing": (
        [
            (Queues, "has_slot", lambda state, node, *, process: True),
            (assigner._Room, "has_slot", lambda room, node, *, process: True),
            (Assigner, "_takes_runs", lambda self, name, *, fresh: self._leases.is_fresh(name) or name == self._node),
        ],
        "placement_drain",
    ),
    "no_node is not deadline": ([(Assigner, "_is_unmatched", lambda self, run: False)], "placement_tags"),
    "further attempts have a deadline": (
        [
            (runs, "_is_past_deadline", lambda state, run, at: run.attempt == 1 and _is_past(state, run, at)),
            (Assigner, "is_expired", lambda self, run, now: run.attempt == 1 and _is_expired(self, run, now)),
        ],
        "retry_no_node",
    ),
}
_is_past, _is_expired = runs._is_past_deadline, Assigner.is_expired


def _asked_anew(run: Any) -> Any:
    """The run, as if it were no retry."""
    from msgspec.structs import replace

    return replace(run, retry_of=None)


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_its_story_goes_otherwise(rule: str) -> None:
    """What is seen is not what is told, or it cannot even be told; with the rule it is (test_stories.py)."""
    assert goes_otherwise(*RULES[rule])
