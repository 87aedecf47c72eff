"""Each rule of the run protocol: without it a checker fires, with it none does; and the table of them is whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.protocol import RULES, Elsewhere, Shown, play

ROOT = Path(__file__).resolve().parent.parent.parent

# The rules of the model from which semantics 5.2 to 5.8 were written; behind them, what it has as a part of others.
MODELLED = [
    "plan_after_applied",
    "epoch_check",
    "void",
    "snapshot_unknown",
    "not_written_waits",
    "start_deadline",
    "gate_state",
    "gate_inc",
    "gate_started",
    "gate_refused",
    "gate_lease",
    "gate_epoch",
    "gate_index",
    "gate_deadline",
    "sent",
    "leader_lease",
    "new_leader_lease",
    "quorum_round",
    "own_round",
    "round_after",
    "margin",
    "spawner_kills",
    "spawner_refuses",
    "pipe_kill",
    "start_kill",
    "inc_order",
    "inc_life",
    "lost_by_inc",
    "watermark",
    "token_check",
    "start_check",
    "answer_after_lost",
    "kill_spawner",
    "exec_lease",
    "verify_dead",
    "expire_assigned",
    "assign_inc",
    "self_stop",
]
# Those in which the model has a trace written by hand: too rare for dice.
TRACED = [
    "answer_after_lost",
    "gate_index",
    "own_round",
    "inc_order",
    "quorum_round",
    "spawner_kills",
    "margin",
    "sent",
    "exec_lease",
    "kill_spawner",
    "round_after",
]
SHOWN = [name for name, rule in RULES.items() if isinstance(rule, Shown)]

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("name", SHOWN)
def test_a_rule_that_is_switched_off_is_missed(name: str) -> None:
    """In one course of events nothing fires with the rule, and a checker that promises to does without it."""
    rule = RULES[name]
    assert isinstance(rule, Shown)
    assert play(name, is_kept=True) is None
    assert play(name, is_kept=False) in rule.checkers


def test_every_rule_is_in_the_table() -> None:
    """None is left out, and those that the model needs a trace for have a course of events here."""
    assert sorted(RULES) == sorted(MODELLED)
    assert [name for name in TRACED if not isinstance(RULES[name], Shown)] == []


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if isinstance(rule, Elsewhere)])
def test_what_is_shown_elsewhere_is_there(name: str) -> None:
    """It is a mutant, or a test that has this name still."""
    rule = RULES[name]
    assert isinstance(rule, Elsewhere)
    path, _, test = rule.where.partition("::")
    if test:
        assert re.search(rf"def {test}\(", (ROOT / path).read_text()), rule.where
    else:
        assert rule.where in MUTANTS


def test_the_documentation_names_every_rule() -> None:
    """docs/simulation.md has a row for each."""
    text = (ROOT / "docs" / "simulation.md").read_text()
    assert [name for name in RULES if f"| `{name}` |" not in text] == []
