"""Rules beside placement have stories that go otherwise without them, too: see test_placement_rules.py."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core import alerts as core_alerts
from raftcron.core import chains, events
from raftcron.core.alerts import kind_of_run
from raftcron.core.model import SUCCEEDED
from raftcron.runtime import clocks
from raftcron.runtime.alerts import Alerts
from tests.scenarios.story import goes_otherwise
from tests.simulation.switch import Replacement


async def _no_move(alerts: Any, mark: Any) -> None:
    """The log does not learn what is delivered."""


async def _given_up(alerts: Any, alert: Any) -> str | None:
    """One try and no other."""
    problem: str | None = await alerts._send(alert)
    return problem


def _each_success(state: Any, index: int, run: Any) -> str | None:
    return "recovered" if run.state == SUCCEEDED and run.part is None else kind_of_run(state, index, run)


RULES: dict[str, tuple[list[Replacement], str]] = {
    "an alert is told once": ([(Alerts, "_move", _no_move)], "alerts"),
    "an alert is sent until it is taken": ([(Alerts, "_send_until_over", _given_up)], "alerts"),
    "the first success alone is a recovery": ([(events, "kind_of_run", _each_success)], "alerts"),
    "a late start is told of": ([(core_alerts, "_began_late", lambda state, index, run: False)], "alerts_lost"),
    "what was missed is told of": ([(core_alerts, "MISSED", frozenset())], "alerts_lost"),
    "no chain is a ring": ([(chains._Graph, "cycles", lambda graph, names: [])], "chain_cycle"),
    "the lead is handed over once a minute": ([(clocks, "HAND_OVER_SECONDS", 0.0)], "clock_hand_over_once"),
}


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_its_story_goes_otherwise(rule: str) -> None:
    """What is seen is not what is told; with the rule it is (test_stories.py)."""
    assert goes_otherwise(*RULES[rule])
