"""Which rows are kept and which leave: oldest first, failures last, the last run of a job never."""

from __future__ import annotations

import pytest

from raftcron.core import history
from raftcron.core.commands import DeleteJob, Lead, Lose, Token
from raftcron.core.history import LEAVING_PER_ROW
from raftcron.core.model import Run
from raftcron.core.rows import LOOK_AFTER, Line, Rows
from raftcron.runtime.statistics import statistics
from tests.unit.machine import Machine, cluster
from tests.unit.test_apply import anew

WIDE = {"overlap": {"policy": "allow"}, "history": {"runs": 1_000}}


def lead(machine: Machine, total: int) -> None:
    machine.done(Lead("n1", 1, 1, "0", "0", "0", total))


def ended(machine: Machine, name: str, state: str = "succeeded") -> str:
    """A run of the job, the next second's, that has ended."""
    job = machine.state.jobs.get(name) or machine.put(name, **WIDE)
    run = machine.fire(job, machine.at + 1_000)
    machine.finish(run, state)
    return run.id


def test_beyond_the_bound_the_oldest_rows_leave_and_failures_last() -> None:
    """Whose job they are of does not matter."""
    machine = cluster()
    ids = [ended(machine, "ab"[number % 2], "failed" if number in (1, 4) else "succeeded") for number in range(40)]
    each = machine.state.history_bytes // 38
    lead(machine, each * 10)
    while machine.state.history_bytes > each * 10:
        ids.append(ended(machine, "a"))
    kept = [run_id for run_id in ids if run_id in machine.state.runs and run_id != machine.state.jobs["b"].last_run]
    assert kept[:2] == [ids[1], ids[4]]
    assert kept[2:] == [run_id for run_id in ids if run_id != machine.state.jobs["b"].last_run][2 - len(kept) :]
    lead(machine, each)
    while machine.state.history_bytes > each:
        ended(machine, "a")
    assert ids[1] not in machine.state.runs, "failures leave too, where nothing else is left"


def test_the_last_run_of_each_job_is_kept_whatever_the_bound() -> None:
    """However old it is."""
    machine = cluster()
    lasts = [ended(machine, f"job-{number}") for number in range(20)]
    lead(machine, 0)
    for _ in range(20):
        newest = ended(machine, "busy")
    assert [run_id for run_id in lasts if run_id not in machine.state.runs] == []
    assert [run.id for run in machine.state.runs_of(machine.state.jobs["busy"].uid)] == [newest]
    assert machine.state.history_bytes == 0


def test_a_bound_that_shrinks_is_reached_step_by_step() -> None:
    """So that no entry takes long: each row that ends lets a few leave."""
    machine = cluster()
    for _ in range(60):
        ended(machine, "a")
    before = len(machine.state.runs)
    lead(machine, 0)
    assert len(machine.state.runs) == before
    ended(machine, "a")
    assert len(machine.state.runs) == before + 1 - LEAVING_PER_ROW


def test_rows_of_a_deleted_job_leave_as_all_others() -> None:
    """Its last run too: there is no job any more whose last run it is."""
    machine = cluster()
    ids = [ended(machine, "gone") for _ in range(3)]
    machine.done(DeleteJob("gone", [], machine.state.jobs["gone"].revision))
    assert all(run_id in machine.state.runs for run_id in ids)
    lead(machine, 0)
    while machine.state.history_bytes:
        ended(machine, "other")
    assert not any(run_id in machine.state.runs for run_id in ids)
    assert machine.state.tails_bytes == 0


def test_what_has_ended_can_still_be_changed() -> None:
    """A late outcome, twice told in one entry and then again: the first stands, and the digest follows."""
    machine = cluster()
    run = machine.fire(machine.put(), 2_000)
    machine.done(Lose("n1", 1, [Token(run.id, run.fencing_token)]))
    machine.finish(run, "failed")
    machine.finish(run, "succeeded")
    assert machine.state.runs[run.id].late_outcome == "failed"


def test_a_line_holds_no_more_than_three_times_what_is_there() -> None:
    """However many come and go, and whatever stays in front."""
    rows, line = Rows(), Line()
    for number in range(10_000):
        run = Run(str(number), 1, "job", 0, 0, "schedule", "succeeded", 1, 1, 0)
        rows.put(run)
        line.append(run.id, rows)
        if number >= 20:
            rows.pop(str(number - 10))  # the first ten stay
    there = [run_id for run_id in map(str, range(10_000)) if run_id in rows]
    assert line.ids(rows) == there
    assert len(line) <= 3 * len(there) + 2 * LOOK_AFTER
    assert [line.pop(rows) for _ in there] == there
    assert line.pop(rows) is None


def test_the_oldest_tails_leave_beyond_the_bound_of_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows stay, those of last runs too; only what they said goes."""
    monkeypatch.setattr(history, "TAILS_BYTES_KEPT", 10_000)
    machine = cluster()
    ids = []
    for number in range(12):
        name = f"job-{number}"
        run = machine.fire(machine.put(name, **WIDE), machine.at + 1_000)
        machine.finish(run, output_tail=b"%d" % (number % 10) * 1_000)
        ids.append(run.id)
        assert machine.state.tails_bytes <= 10_000
        assert machine.state.digest == anew(machine.state)
    rows = [machine.state.runs[run_id] for run_id in ids]
    assert [len(row.output_tail) for row in rows] == [0, 0, *[1_000] * 10]
    machine.finish(machine.fire(machine.state.jobs["job-0"], machine.at + 1_000), output_tail=b"x" * 4_096)
    assert [len(machine.state.runs[run_id].output_tail) for run_id in ids] == [*[0] * 7, *[1_000] * 5]
    assert machine.state.tails_bytes == 9_096


def test_of_deleted_jobs_so_many_rows_are_kept_and_the_oldest_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures too: the bound of all rows together is not this one."""
    monkeypatch.setattr(history, "ORPHANS_KEPT", 5)
    machine = cluster()
    ids = [ended(machine, "gone", "failed" if number == 0 else "succeeded") for number in range(7)]
    machine.done(DeleteJob("gone", [], machine.state.jobs["gone"].revision))
    assert [run_id for run_id in ids if run_id in machine.state.runs] == ids[2:]
    assert machine.state.digest == anew(machine.state)


def test_statistics_are_of_the_rows_that_ran() -> None:
    """Durations of the last attempt, lateness of the first; none where nothing has run."""
    machine = cluster()
    job = machine.put(**WIDE)
    assert statistics([], machine.state.runs) == {"durations_ms": None, "lateness_ms": None}
    for number in range(1, 5):
        run = machine.fire(job, number * 10_000)
        machine.at += number * 100
        machine.finish(run, "failed" if number == 3 else "succeeded")
    found = statistics(machine.state.ended_of(job.uid), machine.state.runs)
    assert found["durations_ms"] == {
        "count": 4, "last": 400, "mean": 250, "p50": 300, "p90": 400, "p99": 400, "max": 400
    }  # fmt: skip
    assert found["lateness_ms"]["max"] == 0
    assert (job.last_success, job.last_failure, job.failures_in_row) == (40_400, 30_300, 0)


def test_an_edit_that_keeps_fewer_rows_lets_the_others_leave_at_once() -> None:
    """The oldest first; the last run stays."""
    machine = cluster()
    ids = [ended(machine, "a") for _ in range(5)]
    job = machine.put("a", overlap={"policy": "allow"}, history={"runs": 2})
    assert machine.state.ended_of(job.uid) == ids[3:]
    assert list(machine.state.runs) == ids[3:]
    assert machine.put("a", history={"runs": 1}).last_run == ids[4]
    assert machine.state.ended_of(job.uid) == ids[4:]
