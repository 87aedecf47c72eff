"""Why a job fired, or did not, or will: one verdict for any instant, past or to come."""

from __future__ import annotations

from typing import Any

import pytest

from raftcron.core.commands import Decide, Decision, Fire, Place, Summary
from raftcron.core.instant import parse_rfc3339
from tests.api.bench import Bench

# The bench's clock stands at 2027-01-15T08:00:00.250Z, a Friday.
EVERY_MINUTE = {"schedule": "* * * * *", "executor": {"type": "noop"}}


async def why(one: Bench, at: str, name: str = "a") -> dict[str, Any]:
    answer = (await one.ask("GET", f"/v1/jobs/{name}/why?at={at.replace('+', '%2B')}")).expect(200).json
    assert list(answer)[:10] == [
        "job", "at", "verdict", "reason", "run_id", "blocked_by", "log_index", "epoch", "node", "message"
    ]  # fmt: skip
    return dict(answer)


async def verdict(one: Bench, at: str, name: str = "a") -> tuple[str, str | None]:
    answer = await why(one, at, name)
    return answer["verdict"], answer["reason"]


def ms(*texts: str) -> list[int]:
    return [parse_rfc3339(text) for text in texts]


async def test_fired_and_blocked(one: Bench) -> None:
    """With the run, where it ran, and what blocked the other."""
    await one.put("a", **EVERY_MINUTE)
    first, second = ms("2027-01-15T08:01:00Z", "2027-01-15T08:02:00Z")
    await one.fire("a", first, second)
    fired = await why(one, "2027-01-15T09:01:00+01:00")
    assert (fired["verdict"], fired["node"], fired["at"]) == ("fired", "n1", "2027-01-15T08:01:00Z")
    assert fired["log_index"] > 0
    assert fired["epoch"] == 1
    assert "running on n1" in fired["message"]
    skipped = await why(one, "2027-01-15T08:02:00Z")
    assert (skipped["verdict"], skipped["reason"], skipped["blocked_by"]) == ("skipped", "overlap", fired["run_id"])
    assert fired["run_id"] in skipped["message"]


async def test_each_time_inside_a_summary(one: Bench) -> None:
    """One row answers for all that it stands for, and for nothing between them."""
    await one.put("a", **EVERY_MINUTE)
    job = one.n1.machine.state.jobs["a"]
    first, last = ms("2027-01-15T08:01:00Z", "2027-01-15T08:31:00Z")
    row = Summary("expired", first, last, 31)
    await one.n1.propose(Decide(Place("n1", 1), [Decision(job.uid, job.revision, last, [], [row])]))
    inside = await why(one, "2027-01-15T08:17:00Z")
    assert (inside["verdict"], inside["reason"]) == ("skipped", "expired")
    assert "31 times" in inside["message"]
    assert inside["scheduled_time"] == "2027-01-15T08:17:00Z"
    assert await verdict(one, "2027-01-15T08:17:30Z") == ("not_due", "not_scheduled")


async def test_inside_a_summary_of_before_a_change_only_its_ends_are_told(one: Bench) -> None:
    """Of a calendar, or of the schedule; the row is named, and says how many there were and why they were skipped."""
    await one.ask("PUT", "/v1/calendars/days", {"dates": ["2027-01-14"]})
    await one.put("a", exclude=["days"], **EVERY_MINUTE)
    await one.put("b", **EVERY_MINUTE)
    first, last = ms("2027-01-15T08:01:00Z", "2027-01-15T08:31:00Z")
    rows = [Summary("expired", first, last, 31)]
    jobs = [one.n1.machine.state.jobs[name] for name in "ab"]
    await one.n1.propose(Decide(Place("n1", 1), [Decision(job.uid, job.revision, last, [], rows) for job in jobs]))
    one.clock.wall_offset_ms += 32 * 60_000
    for edit in ({"description": "y"}, {"misfire": {"policy": "skip"}}):
        await one.put("b", **EVERY_MINUTE, **edit)
        await one.ask("POST", "/v1/jobs/b/pause", {})
        await one.ask("POST", "/v1/jobs/b/resume", {})
        assert await verdict(one, "2027-01-15T08:17:00Z", "b") == ("skipped", "expired")
    await one.ask("PUT", "/v1/calendars/days", {"schedules": ["17 * * * *"]})
    await one.put("b", schedule="*/2 * * * * *", executor={"type": "noop"})
    for name in "ab":
        assert await verdict(one, "2027-01-15T08:01:00Z", name) == ("skipped", "expired")
        assert await verdict(one, "2027-01-15T08:31:00Z", name) == ("skipped", "expired")
        for at in ("2027-01-15T08:16:00Z", "2027-01-15T08:17:00Z", "2027-01-15T08:17:30Z"):
            inside = await why(one, at, name)
            assert (inside["verdict"], inside["reason"], inside["scheduled_time"]) == ("forgotten", None, None)
            assert inside["run_id"].endswith("-expired")
            assert "31 times from 2027-01-15T08:01:00Z to 2027-01-15T08:31:00Z were skipped" in inside["message"]
        assert (await verdict(one, "2027-01-15T08:31:30Z", name))[0] == "not_due"


async def test_between_two_that_are_a_whole_summary_nothing_was_decided(one: Bench) -> None:
    """First and last are all its times, whatever the schedule says now."""
    await one.put("a", **EVERY_MINUTE)
    job = one.n1.machine.state.jobs["a"]
    first, last = ms("2027-01-15T08:01:00Z", "2027-01-15T08:02:00Z")
    row = Summary("expired", first, last, 2)
    await one.n1.propose(Decide(Place("n1", 1), [Decision(job.uid, job.revision, last, [], [row])]))
    one.clock.wall_offset_ms += 3 * 60_000
    await one.put("a", schedule="*/10 * * * * *", executor={"type": "noop"})
    assert await verdict(one, "2027-01-15T08:01:30Z") == ("not_due", "changed")
    assert await verdict(one, "2027-01-15T08:01:35Z") == ("not_due", "not_scheduled")
    assert await verdict(one, "2027-01-15T08:02:00Z") == ("skipped", "expired")


async def test_what_is_not_due_says_why(one: Bench) -> None:
    """Each reason by its word, with the nearest times where the schedule names none."""
    await one.ask("PUT", "/v1/calendars/weekend", {"schedules": ["* * * * SAT,SUN"]})
    await one.put("a", schedule="0 9 * * *", exclude=["weekend"], start_at="2027-01-18T09:00:00Z",
                  end_at="2027-01-30T00:00:00Z", executor={"type": "noop"})  # fmt: skip
    assert await verdict(one, "2027-01-17T09:00:00Z") == ("not_due", "start_at")
    assert await verdict(one, "2027-02-01T09:00:00Z") == ("not_due", "end_at")
    excluded = await why(one, "2027-01-23T09:00:00Z")
    assert (excluded["verdict"], excluded["reason"]) == ("not_due", "excluded")
    assert "'weekend'" in excluded["message"]
    nothing = await why(one, "2027-01-22T10:00:00Z")
    assert (nothing["verdict"], nothing["reason"]) == ("not_due", "not_scheduled")
    assert "2027-01-22T09:00:00Z" in nothing["message"]
    assert "2027-01-25T09:00:00Z" in nothing["message"]
    await one.put("b", **EVERY_MINUTE)
    assert await verdict(one, "2027-01-15T07:59:00Z", "b") == ("not_due", "not_created")
    await one.ask("POST", "/v1/jobs/b/pause", {"note": "a walk"})
    paused = await why(one, "2027-01-15T08:01:00Z", "b")
    assert (paused["verdict"], paused["reason"]) == ("not_due", "paused")
    assert "a walk" in paused["message"]
    await one.put("c", **EVERY_MINUTE, max_runs=1)
    await one.fire("c", *ms("2027-01-15T08:01:00Z"))
    assert await verdict(one, "2027-01-15T08:02:00Z", "c") == ("not_due", "max_runs")


async def test_what_is_to_come(one: Bench) -> None:
    """Undecided, and whether it will be skipped; with jitter, asked for by either instant."""
    await one.put("a", schedule="*/10 * * * *", jitter="5m", executor={"type": "noop"})
    answer = await why(one, "2027-01-15T08:10:00Z")
    assert (answer["verdict"], answer["run_id"], answer["log_index"]) == ("undecided", None, None)
    assert answer["due_at"] > answer["at"]
    by_due = await why(one, answer["due_at"])
    assert by_due["scheduled_time"] == "2027-01-15T08:10:00Z"
    assert by_due["verdict"] == "undecided"
    await one.ask("POST", "/v1/jobs/a/skip-next", {"count": 1})
    assert await verdict(one, "2027-01-15T08:10:00Z") == ("undecided", "requested")
    job = one.n1.machine.state.jobs["a"]
    [time], due_at = ms("2027-01-15T08:10:00Z"), parse_rfc3339(answer["due_at"])
    await one.ask("POST", "/v1/jobs/a/skip-next", {"count": 0})
    decision = Decision(job.uid, job.revision, time, [Fire(time, due_at)])
    await one.n1.propose(Decide(Place("n1", 1), [decision]))
    assert (await why(one, answer["due_at"]))["verdict"] == "fired"


async def test_what_is_no_longer_kept_is_forgotten(one: Bench) -> None:
    """It was decided; the record has left. What lies before an edit and before the oldest row too."""
    await one.put("a", **EVERY_MINUTE, history={"runs": 1})
    for minute in (1, 2, 3):
        await one.fire("a", *ms(f"2027-01-15T08:0{minute}:00Z"))
        await one.finish(one.n1.machine.state.jobs["a"].last_run or "")
    assert await verdict(one, "2027-01-15T08:03:00Z") == ("fired", None)
    assert await verdict(one, "2027-01-15T08:01:00Z") == ("forgotten", None)
    await one.put("a", schedule="*/1 * * * *", executor={"type": "noop"}, history={"runs": 1})
    assert await verdict(one, "2027-01-15T08:01:00Z") == ("forgotten", None)


async def test_what_an_edit_leaves_of_what_the_bound_has_dropped_is_forgotten(one: Bench) -> None:
    """Nobody can tell any more what was a time before: also what the job's new fields leave out, or name no more."""
    await one.put("a", history={"runs": 1}, overlap={"policy": "allow"}, **EVERY_MINUTE)
    for minute in range(1, 5):
        await one.fire("a", *ms(f"2027-01-15T08:0{minute}:00Z"))
        await one.finish(next(iter(one.n1.machine.state.active[one.n1.machine.state.jobs["a"].uid])))
    for edit in (
        {"schedule": "7 9 * * *"},
        {"schedule": "* * * * *", "start_at": "2027-02-01T00:00:00Z"},
        {"schedule": "* * * * *", "end_at": "2027-01-15T08:00:30Z"},
    ):
        await one.put("a", history={"runs": 1}, executor=EVERY_MINUTE["executor"], **edit)
        assert await verdict(one, "2027-01-15T08:02:00Z") == ("forgotten", None), edit
        assert await verdict(one, "2027-01-15T08:04:00Z") == ("fired", None), edit
        assert (await verdict(one, "2027-01-14T08:02:00Z"))[0] == "not_due", edit


async def test_what_max_runs_may_use_up_before_is_said(one: Bench) -> None:
    """The next one is sure to come; those behind it depend on which fire."""
    await one.put("a", max_runs=2, **EVERY_MINUTE)
    assert (await why(one, "2027-01-15T08:01:00Z"))["message"].endswith("due at 2027-01-15T08:01:00Z")
    later = await why(one, "2027-01-15T08:09:00Z")
    assert later["verdict"] == "undecided"
    assert "unless the 2 more runs that max_runs allows are used up before" in later["message"]


async def test_what_was_never_owed_before_an_edit(one: Bench) -> None:
    """Nothing was dropped, so nothing was due there."""
    await one.put("a", schedule="0 9 * * *", executor={"type": "noop"})
    one.clock.wall_offset_ms += 3 * 60_000
    await one.put("a", **EVERY_MINUTE)
    assert await verdict(one, "2027-01-15T08:02:00Z") == ("not_due", "changed")


async def test_rows_that_skipped_and_have_left_are_remembered(one: Bench) -> None:
    """By the bound of the job as it was then: later instants stay exact, also where the bound grows with an edit."""
    await one.put("a", history={"runs": 2}, **EVERY_MINUTE)
    await one.fire("a", *ms(*(f"2027-01-15T08:0{minute}:00Z" for minute in range(1, 7))))  # the first goes on
    one.clock.wall_offset_ms += 7 * 60_000
    await one.put("a", history={"runs": 20}, **EVERY_MINUTE)
    assert await verdict(one, "2027-01-15T08:02:00Z") == ("forgotten", None)
    assert await verdict(one, "2027-01-15T08:06:00Z") == ("skipped", "overlap")
    await one.put("a", history={"runs": 20}, schedule="30 9 * * *", executor={"type": "noop"})
    assert await verdict(one, "2027-01-15T08:02:00Z") == ("forgotten", None)
    assert await verdict(one, "2027-01-15T08:06:00Z") == ("skipped", "overlap")
    assert await verdict(one, "2027-01-15T08:06:30Z") == ("not_due", "not_scheduled")


@pytest.mark.parametrize("way", ["PUT", "PATCH", "apply", "owner", "resumed by it"])
async def test_whatever_writes_a_paused_job_tells_what_the_pause_has_passed_by(one: Bench, way: str) -> None:
    """One row, from the pause to the write, which the next one does not repeat; a write that changes nothing has none.

    The owner alone changes by a bulk request; a write may end the pause.
    """
    await one.put("a", **EVERY_MINUTE)
    await one.ask("POST", "/v1/jobs/a/pause", {})
    one.clock.wall_offset_ms += 3 * 60_000
    await one.put("a", **EVERY_MINUTE)
    state = one.n1.machine.state
    assert not state.runs_of(state.jobs["a"].uid)
    changed = EVERY_MINUTE | {"description": "y"}
    match way:
        case "PUT":
            await one.put("a", **changed)
        case "PATCH":
            (await one.ask("PATCH", "/v1/jobs/a", {"description": "y"})).expect(200)
        case "apply":
            (await one.ask("POST", "/v1/jobs:apply", {"jobs": [{"name": "a", **changed}]})).expect(200)
        case "owner":
            (await one.ask("POST", "/v1/jobs:apply?owner=o", {"jobs": [{"name": "a", **EVERY_MINUTE}]})).expect(200)
        case _:
            await one.put("a", **EVERY_MINUTE, paused=False)
    assert await verdict(one, "2027-01-15T08:02:00Z") == ("not_due", "paused")
    one.clock.wall_offset_ms += 2 * 60_000
    if state.jobs["a"].paused:
        (await one.ask("POST", "/v1/jobs/a/resume", {})).expect(200)
    counts = [row.count for row in state.runs_of(state.jobs["a"].uid) if row.reason == "paused"]
    assert counts == ([3] if way == "resumed by it" else [2, 3])


async def test_what_a_pause_has_passed_by_as_something_else_changed_is_no_less_told(one: Bench) -> None:
    """A calendar, before and after the job takes it in, or a restore: no row, so nobody says that nothing was due."""
    await one.ask("PUT", "/v1/calendars/days", {"schedules": ["* * * * SAT"]})
    await one.put("a", exclude=["days"], **EVERY_MINUTE)
    await one.ask("POST", "/v1/jobs/a/pause", {"note": "a walk"})
    data = (await one.ask("GET", "/v1/backup")).expect(200).body
    one.clock.wall_offset_ms += 3 * 60_000
    await one.ask("PUT", "/v1/calendars/days", {"schedules": ["* * * * SUN"]})
    assert await verdict(one, "2027-01-15T08:02:00Z") == ("not_due", "paused")
    await one.put("a", exclude=["days"], description="y", **EVERY_MINUTE)
    assert await verdict(one, "2027-01-15T08:02:00Z") == ("forgotten", None)
    one.clock.wall_offset_ms += 3 * 60_000
    headers = {"Content-Type": "application/vnd.raftcron.backup"}
    (await one.ask("POST", "/v1/restore", data=data, headers=headers)).expect(200)
    assert await verdict(one, "2027-01-15T08:05:00Z") == ("forgotten", None)
    assert await verdict(one, "2027-01-15T08:07:00Z") == ("not_due", "paused")


@pytest.mark.parametrize("query", ["", "?at=", "?at=yesterday", "?at=2027-01-15T08:00:00Z&to=x"])
async def test_an_instant_has_to_be_named(one: Bench, query: str) -> None:
    """And nothing else."""
    await one.put("a", **EVERY_MINUTE)
    (await one.ask("GET", f"/v1/jobs/a/why{query}")).problem(422, "invalid")


async def test_only_of_a_job_that_is_there(one: Bench) -> None:
    """404 as for any other question about it."""
    (await one.ask("GET", "/v1/jobs/none/why?at=2027-01-15T08:00:00Z")).problem(404, "not_found")
