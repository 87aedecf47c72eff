"""Rules of requests, of what becomes of a run, of its executors and of the watch have stories that go otherwise without
them, too: see test_placement_rules.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from raftcron.core import planner, why
from raftcron.core.apply import admission, decisions, requests, runs
from raftcron.core.commands import Finish, Trigger
from raftcron.core.model import CAUSE_BACKFILL, ENDED, LOST, REASON_OVERLAP
from raftcron.executors import http, python, spawned
from raftcron.ports import Ending
from raftcron.runtime import clocks, machine, reports, statistics, worker
from raftcron.runtime.conservation import Conservation
from raftcron.runtime.requests import Requests
from tests.scenarios.story import goes_otherwise
from tests.scenarios.trouble import forgets
from tests.scenarios.words import BEGIN_MS
from tests.simulation import off_protocol, off_runs, off_spawner, off_time
from tests.simulation.switch import Replacement, handled


async def _backfill_in_earnest(self: Any, name: str, span: Any, key: Any) -> Any:
    return (await _backfill(self, name, span._replace(is_dry=False), key))._replace(done=None)


def _trigger_without_args(state: Any, context: Any, command: Any) -> Any:
    return decisions.trigger(state, context, replace(command, args=None))


def _admit_without_args(state: Any, context: Any, job: Any, policy: Any, run: Any, *rest: Any, **more: Any) -> Any:
    run.args = None
    return admission.admit(state, context, job, policy, run, *rest, **more)


def _finish_but_lost(state: Any, context: Any, command: Any) -> Any:
    kept = [one for one in command.finished if one.run not in state.runs or state.runs[one.run].state != LOST]
    return runs.finish(state, context, replace(command, finished=kept))


def _is_news_under_any_token(run: Any, token: int, report: Any) -> bool:
    return bool(_is_news(run, run.fencing_token if run is not None else token, report))


def _decide_without_jump(job: Any, policy: Any, group: Any, now: int, jump: Any = None) -> Any:
    return _decide(job, policy, group, now)


def _displace_backfills_too(state: Any, context: Any, policy: Any, newcomer: Any) -> None:
    for run in [run for run in state.active[newcomer.uid].values() if run.cause == CAUSE_BACKFILL]:
        runs.cancel_run(state, context, run, REASON_OVERLAP, newcomer.id)


async def _all_is_well(self: Any, job: Any) -> None:
    """Conservation.check, but nothing is found."""


def _every_answer_is_well(spec: Any, code: int, body: bytes) -> Ending:
    return Ending("succeeded", status_code=code)


def _every_end_is_well(result: Any, attempt: Any) -> Ending:
    return Ending("succeeded", exit_code=result.exit_code)


_backfill, _is_news, _decide = Requests.backfill, reports._is_news, planner.decide
_told_by = why.Asked.told_by


def _told_by_what_is_certain(asked: Any, row: Any) -> Any:
    told = _told_by(asked, row)
    return told if told is not None and told.is_certain else None


RULES: dict[str, tuple[list[Replacement], str]] = {
    "a dry backfill writes nothing": ([(Requests, "backfill", _backfill_in_earnest)], "backfill_dry"),
    "what waits of a backfill lets others pass": (
        [(admission, "step_back", lambda state, context, uid: None)],
        "backfill_waits",
    ),
    "nothing displaces a backfill": ([(admission, "_displace", _displace_backfills_too)], "backfill_replace"),
    "what never started is given back to max_runs": (
        [(runs, "is_spent", lambda job, policy: True)],
        "max_runs_skipped",
    ),
    "args go with a run": ([handled(Trigger, _trigger_without_args)], "args"),
    "args go with its repetition": ([(requests, "admit", _admit_without_args)], "args"),
    "a late outcome is kept": ([handled(Finish, _finish_but_lost)], "late_outcome"),
    "an end under an old token is none": (
        [(reports, "_is_news", _is_news_under_any_token), handled(Finish, off_runs.finish_under_any_token)],
        "late_outcome",
    ),
    "entries of another epoch are refused": ([(machine, "apply", off_runs.any_epoch)], "epoch"),
    "the gate asks for a licence": ([(worker.Worker, "_is_valid", off_runs.gate_is_open)], "gate_lease"),
    "the gate asks for the time": ([(worker, "start_deadline", off_protocol.no_deadline)], "gate_deadline"),
    "the spawner kills": (off_spawner.KILLS_NOTHING, "daemon_stopped"),
    "a row of many times speaks for each of them": (
        [(why.Asked, "told_by", lambda asked, row: None if row.count else _told_by(asked, row))],
        "why",
    ),
    "what a row of many stood for is forgotten with the schedule": (
        [(why.Asked, "told_by", _told_by_what_is_certain)],
        "why_inside",
    ),
    "what was cancelled is no figure": ([(statistics, "RAN", ENDED)], "statistics"),
    "no time is dropped": ([forgets(BEGIN_MS + 5_000)], "conservation"),
    "what was dropped is found": ([(Conservation, "check", _all_is_well)], "conservation_broken"),
    "a leader's clock is not its time": ([(clocks.TrustedTime, "now_ms", off_time.wall_time)], "clock_year"),
    "two that differ agree on nothing": ([(clocks, "agree", off_time.own_where_none_agrees)], "clock_year"),
    "what a jump passed by was missed": ([(planner, "decide", _decide_without_jump)], "clock_year_agreed"),
    "http judges the answer": ([(http, "_judge", _every_answer_is_well)], "executor_http"),
    "http knows what broke": (
        [(http, "_failure", lambda kind, text, sending: Ending("failed", error=text, error_kind=kind))],
        "executor_http",
    ),
    "shell judges the exit code": ([(spawned, "_ending", _every_end_is_well)], "executor_shell"),
    "python judges what is raised": ([(python, "_raised", lambda error: Ending("succeeded"))], "executor_python"),
}


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_its_story_goes_otherwise(rule: str) -> None:
    """What is seen is not what is told, or it cannot even be told; with the rule it is (test_stories.py)."""
    assert goes_otherwise(*RULES[rule])
