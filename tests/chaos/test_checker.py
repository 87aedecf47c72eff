"""The checker catches what it is there to catch: hand-made histories, a good one and one broken in each way."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.calendar import due_times
from tests.chaos.checker import RULES, Needs, judge
from tests.chaos.faults import SHORT, SHORT_CLOCKS, STEPS, short_rounds
from tests.chaos.history import Evidence, Fallen, Kill, Remaining, milliseconds
from tests.chaos.made_up import (
    BEGIN,
    ENOUGH,
    SECONDS,
    STEP_AT,
    Change,
    a_job,
    fired_again,
    fired_in_the_pause,
    good,
    run_of,
    silent_after,
    silent_after_last_kill,
    skipped,
    summarised,
    with_arrival,
    with_attempt,
    with_end,
    with_phase,
    with_phases,
    with_read,
    with_remaining,
    with_run,
    with_sample,
    with_told,
    with_write,
    without_arrivals,
    without_run,
)

BROKEN: list[tuple[str, str, Change]] = [
    ("one_decision", "never decided", lambda good: without_run(good, "most-1", 5)),
    ("one_decision", "never decided", lambda good: without_run(good, "most-1", 1)),
    ("one_decision", "never decided", lambda good: without_run(good, "most-1", SECONDS)),
    (
        "one_decision",
        "decided 2 times",
        lambda good: replace(good, runs=(*good.runs, replace(run_of(good, "most-1", 5), id="another"))),
    ),
    (
        "one_decision",
        "nothing was due",
        lambda good: with_run(good, "most-1", 5, scheduled_time=BEGIN + 5_500),
    ),
    (
        "one_decision",
        "nothing was due",
        lambda good: replace(good, jobs=(replace(good.jobs[0], closed_at=BEGIN + 39_500), *good.jobs[1:])),
    ),
    ("one_decision", "says 2 times, the calendar has 3", lambda good: summarised(good, 2)),
    ("one_decision", "decided 2 times", lambda good: with_run(summarised(good, 4), "most-1", 32, last=BEGIN + 33_000)),
    (  # a clock's hour was believed
        "one_decision",
        "nothing was due",
        lambda good: with_run(summarised(good, 3), "most-1", 32, reason="misfire", last=BEGIN + 3_632_000),
    ),
    ("one_decision", "nobody asked", lambda good: with_run(good, "most-1", 5, cause="manual")),
    ("run_ids", "names 2 rows", lambda good: with_run(good, "most-1", 5, id=run_of(good, "most-2", 5).id)),
    ("run_ids", "does not exist", lambda good: with_run(good, "most-1", 5, job="ghost")),
    ("arrivals_recorded", "headers are missing", lambda good: with_arrival(good, "most-1", 5, token=None)),
    ("arrivals_recorded", "no record of run", lambda good: with_arrival(good, "most-1", 5, run_id="unheard-of")),
    (
        "arrivals_recorded",
        "is most-1",
        lambda good: with_arrival(good, "most-1", 5, scheduled_time=BEGIN + 6_000),
    ),
    ("arrivals_recorded", "no record of attempt", lambda good: with_arrival(good, "most-1", 5, node="n3")),
    ("arrivals_recorded", "no record of attempt", lambda good: with_arrival(good, "most-1", 5, token=1)),
    ("at_least_once", "never arrived", lambda good: without_arrivals(good, "least-1", 5)),
    ("at_least_once", "never arrived", lambda good: skipped(good, "least-1", 5, reason="coalesced")),
    ("at_most_once", "arrived 2 times", lambda good: with_arrival(good, "most-1", 5, again=True, attempt=2, token=1)),
    (
        "at_most_once",
        "is recorded as failed",
        lambda good: with_run(without_arrivals(good, "most-1", 5), "most-1", 5, state="failed"),
    ),
    ("at_most_once", "is recorded as succeeded", lambda good: without_arrivals(good, "most-1", 5)),
    ("one_start", "arrived 2 times", lambda good: with_arrival(good, "least-1", 5, again=True)),
    ("duplicates", "arrived as runs", lambda good: with_arrival(good, "least-1", 5, again=True, run_id="other")),
    (
        "tokens",
        "is arrived 2 times",
        lambda good: with_arrival(good, "least-1", 5, token=run_of(good, "most-1", 5).attempts[0].token),
    ),
    (
        "tokens",
        "is recorded 2 times",
        lambda good: with_attempt(good, "most-1", 5, token=run_of(good, "most-1", 6).attempts[0].token),
    ),
    ("tokens", "do not grow", lambda good: with_attempt(good, "least-1", 10, 1, token=3)),
    ("tokens", "carries a lower token", lambda good: with_arrival(good, "least-1", 5, again=True, token=1, attempt=2)),
    ("skip_reasons", "skipped for None", lambda good: skipped(good, "most-1", 5, reason=None)),
    ("skip_reasons", "skipped for 'overlap'", lambda good: skipped(good, "most-1", 5, reason="overlap")),
    ("skip_reasons", "but it was started", lambda good: with_run(good, "most-1", 5, state="skipped", reason="misfire")),
    ("skip_reasons", "which is no run", lambda good: with_run(good, "skip-1", 21, blocked_by=None)),
    (
        "skip_reasons",
        "which is no run",
        lambda good: with_run(good, "skip-1", 21, blocked_by=run_of(good, "most-1", 20).id),
    ),
    (
        "skip_reasons",
        "was active only until",
        lambda good: with_run(good, "skip-1", 21, blocked_by=run_of(good, "skip-1", 18).id),
    ),
    (
        "never_two_active",
        "started at index",
        lambda good: with_attempt(good, "skip-1", 5, finished_index=run_of(good, "skip-1", 6).log_index + 1),
    ),
    ("ends", "has no end", lambda good: with_run(good, "most-1", 5, state="running")),
    ("ends", "gave no reason for that", lambda good: with_run(good, "most-1", 5, state="timed_out")),
    ("ends", "did not answer its last attempt", lambda good: with_arrival(good, "most-1", 5, answered=False)),
    ("ends", "stayed lost", lambda good: with_run(good, "least-1", 10, state="lost")),
    ("ends", "nothing befell n2 then", lambda good: with_attempt(good, "most-1", 20, state="lost")),
    ("resumption", "resumed after 11000 ms", silent_after_last_kill),
    ("resumption", "a majority is whole from", lambda good: silent_after_last_kill(good, 6_000)),
    ("resumption", f"a majority is whole from {STEP_AT}", lambda good: silent_after(good, STEP_AT, 3_500)),
    (
        "resumption",
        "resumed after None ms",
        lambda good: replace(good, kills=(*good.kills, Kill("n1", "leader", BEGIN + 60_000, BEGIN + 61_000))),
    ),
    ("one_state", "did not say", lambda good: replace(good, ends=good.ends[1:])),
    ("one_state", "stand apart", lambda good: with_end(good, index=9101)),
    ("one_state", "stand apart", lambda good: with_end(good, digest="e")),
    ("one_state", "took 31.0 s", lambda good: with_end(good, seconds=31.0)),
    ("one_state", "differ at index 9099", lambda good: with_end(good, digests={9099: "x", 9100: "d"})),
    ("writes", "is there after", lambda good: with_remaining(good, "w-1", None)),
    ("writes", "is there after", lambda good: with_remaining(good, "w-1", Remaining("one", 7))),
    ("writes", "is there after", lambda good: with_remaining(good, "w-1", Remaining("two", 12))),
    ("writes", "is there after", lambda good: with_remaining(good, "w-2", Remaining("one", 9))),
    ("writes", "is there after", lambda good: with_remaining(good, "w-3", Remaining("two", 11))),
    ("writes", "is there after", lambda good: with_remaining(good, "w-5", Remaining("neither", 11))),
    ("writes", "nobody wrote it", lambda good: with_remaining(good, "w-9", Remaining("one", 9))),
    ("writes", "was answered 500", lambda good: with_write(good, 7, status=500)),
    ("reads", "at index 8; since index 8 it was", lambda good: with_read(good, 2, body="one", revision=7)),
    ("reads", "at index 6; since index 0 it was", lambda good: with_read(good, 0, body="one", revision=7)),
    ("reads", "at index 10; since index 10 it was", lambda good: with_read(good, 3, body="one", revision=9)),
    ("reads", "at index 11; since index 11 it was", lambda good: with_read(good, 4, body="two", revision=11)),
    ("reads", "at index 14; since index 13 it was", lambda good: with_read(good, 5, index=14)),
    ("reads", "at index 13; since index 0 it was", lambda good: with_read(good, 6, body="neither")),
    ("reads", "had ended at 7 before", lambda good: with_read(good, 0, began=11, ended=12)),
    ("reads", "had ended at 10 before", lambda good: with_read(good, 3, index=9, body="one", revision=9)),
    ("reads", "had ended at 8 before", lambda good: with_write(good, 2, began=31, index=8)),
    ("edits", "was decided at 20023; edit 20022 was at", lambda good: fired_again(good, 5, 20_023)),
    ("edits", "was decided at 20021; edit 20022 was at", lambda good: with_run(good, "edited", 6, log_index=20_021)),
    ("one_decision", "decided 2 times", lambda good: fired_again(good, 5, 20_021)),
    (
        "edits",
        "was due before edit 20022 was asked for",
        lambda good: with_phase(good, 1, asked_at=BEGIN + 7_100, answered_at=BEGIN + 7_200),
    ),
    ("edits", "and was answered at", lambda good: with_phase(good, 1, answered_at=BEGIN + 3_900)),
    ("edits", "came behind edit 20022", lambda good: with_phase(good, 2, index=20_022)),
    (
        "edits",
        "across edit 20022",
        lambda good: with_run(good, "edited", 6, first=BEGIN + 5_000, last=BEGIN + 6_000, count=2),
    ),
    ("pauses", "and in the pause was decided", fired_in_the_pause),
    ("pauses", "was decided at 20044", fired_in_the_pause),
    (
        "pauses",
        f"{BEGIN + 11_000} arrived",
        lambda good: with_arrival(good, "edited", 10, scheduled_time=BEGIN + 11_000),
    ),
    ("pauses", "of which its rows say", lambda good: with_run(good, "edited", 12, count=1)),
    ("pauses", "of which its rows say []", lambda good: without_run(good, "edited", 12)),
    ("pauses", "paused) was decided at 20051", lambda good: with_run(good, "edited", 12, log_index=20_051)),
    ("pauses", "paused) was decided at", lambda good: with_run(good, "most-1", 5, reason="paused")),
    (
        "time_and_watermarks",
        "back to",
        lambda good: with_sample(good, 2, decided_through=BEGIN + 4_000, fired=4, skipped=0),
    ),
    ("time_and_watermarks", "decided through", lambda good: with_sample(good, 2, seen_at=BEGIN + 5_900)),
    (
        "time_and_watermarks",
        "cluster time is",
        lambda good: with_run(good, "most-1", 5, stamps=((1, BEGIN + 5_000), (2, BEGIN + 4_999))),
    ),
    (
        "time_and_watermarks",
        "cluster time was",
        lambda good: with_attempt(good, "most-1", 5, started_at=BEGIN + 10_500),
    ),
    (
        "time_and_watermarks",
        "before it was due",
        lambda good: with_arrival(good, "most-1", 25, arrived_at=BEGIN + 19_900),
    ),
    ("time_and_watermarks", f"{BEGIN + 19_002} by index 190", lambda good: with_sample(good, 2, index=190)),
    ("time_and_watermarks", "n2 trusts", lambda good: with_told(good, STEP_AT + 7_000)),
    ("time_and_watermarks", "n2 trusts", lambda good: with_told(good, STEP_AT - 5_000)),
    ("counters", "owed 11 from", lambda good: with_sample(good, 2, skipped=0)),
    ("oddities", "answered 500", lambda good: replace(good, odd=(replace(good.odd[0], status=500),))),
    ("oddities", "ended by itself", lambda good: replace(good, fallen=(Fallen("n2", 70, "cannot be applied"),))),
]


def test_a_good_history_passes() -> None:
    """Losses, retries, a skip with its reason, refused and unanswered writes: all as promised, so nothing is said."""
    verdict = judge(good(), ENOUGH)
    assert verdict.violations == ()
    assert verdict.shortfalls == ()
    assert verdict.word == "passed"


@pytest.mark.parametrize(
    ("rule", "message", "change"), BROKEN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_broken_history_fails(rule: str, message: str, change: Change) -> None:
    """The rule that is broken is named, with what is wrong."""
    verdict = judge(change(good()), ENOUGH)
    said = [violation.message for violation in verdict.violations if violation.rule == rule]
    assert any(message in text for text in said), verdict.violations
    assert verdict.word == "failed"


def test_every_rule_has_a_history_that_breaks_it() -> None:
    """A rule that never caught anything is worth nothing."""
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


def test_a_summary_row_counts_for_the_times_it_covers() -> None:
    """Three times in one row of three is three decisions, and none of them is missing."""
    assert judge(summarised(good(), 3), ENOUGH).violations == ()


@pytest.mark.parametrize("is_majority_dead", [True, False], ids=["two dead", "one dead"])
def test_a_long_silence_is_right_only_where_no_majority_is_left(is_majority_dead: bool) -> None:
    """How long the dead take to start is no matter: once two of three are whole fires go on, at once."""
    down = [Kill(name, "leader", BEGIN + 25_500, BEGIN + 36_500) for name in ("n1", "n2")[: 1 + is_majority_dead]]
    silent = silent_after_last_kill(replace(good(), kills=(*good().kills[:2], *down)), 11_500)
    said = [violation.message for violation in judge(silent, ENOUGH).violations if violation.rule == "resumption"]
    assert bool(said) != is_majority_dead, said


def test_what_was_not_acknowledged_may_be_there_or_not() -> None:
    """Both ends of a write without an answer are fine."""
    there = with_remaining(with_remaining(good(), "w-4", Remaining("one", 12)), "w-5", None)
    assert judge(there, ENOUGH).violations == ()


@pytest.mark.parametrize(
    ("change", "short"),
    [
        (lambda good: replace(good, kills=good.kills[:2]), "leader_kills"),
        (lambda good: replace(good, kills=(good.kills[0], good.kills[2])), "follower_kills"),
        (lambda good: replace(good, kills=tuple(replace(kill, ready_at=None) for kill in good.kills)), "leader_kills"),
        (lambda good: replace(good, kills=tuple(replace(kill, at=kill.at + 200) for kill in good.kills)), "kills_in_f"),
        (lambda good: replace(good, jobs=good.jobs[1:]), "counted_jobs"),
        (lambda good: replace(good, jobs=(replace(good.jobs[0], delivery="at_most_once"), *good.jobs[1:])), "each_cl"),
        (
            lambda good: replace(good, jobs=tuple(replace(j, closed_at=BEGIN + 9_000) for j in good.jobs)),
            "due_times 50",
        ),
        (
            lambda good: replace(good, kills=tuple(replace(k, ready_at=k.at) for k in good.kills), faults=()),
            "due_times_in_faults",
        ),
        (lambda good: replace(good, writes=good.writes[5:]), "acknowledged_writes"),
        (lambda good: replace(good, writes=tuple(replace(w, at=BEGIN) for w in good.writes)), "acknowledged_writes 0"),
        (lambda good: replace(good, leaders=("n1", "n1")), "leader_changes"),
        (lambda good: replace(good, reads=good.reads[:3]), "reads"),
        (lambda good: with_phases(good, 2), "edits 1"),
        (lambda good: with_phases(good, 3), "times_in_pauses 0"),
        (lambda good: replace(good, samples=good.samples[1:]), "samples 2"),
        (lambda good: replace(good, odd=good.odd[1:]), "odd_writes 0"),
        (lambda good: replace(good, faults=good.faults[:2]), "clock_steps 0"),
        (lambda good: replace(good, told=good.told[1:]), "times_told 1"),
        (lambda good: replace(good, faults=good.faults[:1]), "no wipe"),
        (
            lambda good: replace(good, faults=(replace(good.faults[0], healed_at=None), good.faults[1])),
            "no cut-leader",
        ),
        (lambda good: replace(good, jobs=(replace(good.jobs[0], history_runs=20), *good.jobs[1:])), "keeps 20 rows"),
    ],
)
def test_too_little_is_inconclusive(change: Change, short: str) -> None:
    """With less than the numbers asked for there is a shortfall, and no pass."""
    verdict = judge(change(good()), ENOUGH)
    assert any(short in text for text in verdict.shortfalls), verdict.shortfalls
    assert verdict.word != "passed"


def test_the_short_form_asks_for_no_less_than_the_contract() -> None:
    """8 leaders and 4 followers killed, half of them in flight, 20 jobs, 1,000 due times."""
    needs = Needs()
    assert (needs.leader_kills, needs.follower_kills, needs.kills_in_flight) == (8, 4, 6)
    assert (needs.counted_jobs, needs.due_times) == (20, 1000)
    assert judge(good()).word == "inconclusive"


@pytest.mark.parametrize("seed", range(5))
def test_the_short_form_sets_clocks_wrong_by_each_amount_once(seed: int) -> None:
    """By a tenth of a second, by more than the skew, by an hour and a year; ahead and back; of leaders and others."""
    rounds = list(short_rounds(seed, SHORT_CLOCKS))
    stepped = [each for each in rounds if each.step_seconds]
    assert sorted(each.step_seconds for each in stepped) == sorted(STEPS)
    assert {abs(seconds) for seconds in STEPS} == {0.1, 6.0, 3_600.0, 31_536_000.0}
    assert {each.kind for each in stepped} == set(SHORT_CLOCKS)
    assert len(rounds) == len(SHORT) + len(stepped)


@pytest.mark.parametrize(
    ("schedule", "created_at", "first"),
    [
        ("@every 1s", BEGIN, BEGIN + 1000),
        ("@every 1s", BEGIN + 1, BEGIN + 2000),
        ("@every 5s", BEGIN + 999, BEGIN + 6000),
        ("@every 1s from 2020-01-01T00:00:00.250Z", BEGIN + 100, BEGIN + 250),
        ("@every 1s from 2020-01-01T00:00:00.250Z", BEGIN + 250, BEGIN + 1250),
        ("@every 2s from 2030-03-17T17:50:00Z", BEGIN - 10_000_000_000, milliseconds("2030-03-17T17:50:02Z")),
        ("* * * * * *", BEGIN, BEGIN + 1000),
        ("*/15 * * * * *", BEGIN + 1, BEGIN + 15_000),
    ],
)
def test_due_times_are_counted_from_the_calendar(schedule: str, created_at: int, first: int) -> None:
    """The first time after the creation, on the schedule's own grid, and the last not after the end."""
    job = replace(a_job("any", "at_most_once"), schedule=schedule, created_at=created_at, closed_at=first + 60_000)
    due = due_times(job)
    assert due[0] == first
    assert due[-1] <= job.closed_at < due[-1] + due.step


def test_an_unknown_schedule_is_refused() -> None:
    """What the checker cannot count it must not pass."""
    with pytest.raises(ValueError, match="cannot count"):
        due_times(replace(a_job("any", "at_most_once"), schedule="*/5 * * * *"))
    with pytest.raises(ValueError, match="divide a minute"):
        due_times(replace(a_job("any", "at_most_once"), schedule="*/7 * * * * *"))


def test_the_table_names_what_failed() -> None:
    """People read the rule, an example and the verdict."""
    table = judge(without_run(good(), "least-1", 5), ENOUGH).table()
    assert "one_decision" in table
    assert f"least-1: {BEGIN + 5000} was never decided" in table
    assert table.endswith("verdict: failed")


def test_the_table_tells_what_was_not_injected(tmp_path: Path) -> None:
    """A line each, though nothing was found and there was enough; a verdict on kept evidence too."""
    lacks = ("power cuts: mount: only root can do that", "wall clocks that step: there is no C compiler")
    replace(good(), not_injected=lacks).save(tmp_path / "evidence.json")
    lines = judge(Evidence.load(tmp_path / "evidence.json"), ENOUGH).table().splitlines()
    assert [line for line in lines if line.startswith("not injected")] == [f"not injected: {lack}" for lack in lacks]
    assert lines[-1] == "verdict: passed"
    assert "not injected" not in judge(good(), ENOUGH).table()


def test_evidence_survives_its_file(tmp_path: Path) -> None:
    """What was saved for a post-mortem is judged alike."""
    good().save(tmp_path / "evidence.json")
    assert Evidence.load(tmp_path / "evidence.json") == good()


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [(lambda good: good, 2, "inconclusive"), (lambda good: without_run(good, "most-1", 5), 1, "failed")],
    ids=["too little", "broken"],
)
def test_the_script_says_by_its_exit_code_what_it_found(tmp_path: Path, change: Change, code: int, word: str) -> None:
    """Kept evidence is judged again by `scripts/chaos --judge`: 1 for violations, 2 for too little to say."""
    change(good()).save(tmp_path / "evidence.json")
    script = Path(__file__).resolve().parents[2] / "scripts" / "chaos"
    command = [sys.executable, str(script), "--judge", str(tmp_path / "evidence.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, f"verdict: {word}"), done.stderr
