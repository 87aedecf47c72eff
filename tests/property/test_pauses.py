"""A paused job fires nothing of its schedule (I10), whatever a leader proposes that knows it well; by hand it does."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core import commands as c
from raftcron.core import definition
from tests.unit.machine import NOOP, Machine

NODE = c.Place("n1", 1)
steps = st.lists(
    st.tuples(st.sampled_from(["pause", "resume", "decide", "summary", "edit", "by hand", "lead"]), st.integers(1, 5)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_a_paused_job_decides_nothing_of_its_schedule(course: list[tuple[str, int]]) -> None:
    """Neither a run nor a summary, and its watermark stays, but for that of an edit; when it goes on, it does all."""
    machine = Machine()
    machine.lead()
    machine.announce("n1", slots=1_000)
    state = machine.state
    job = machine.put("a", schedule="@every 1s", overlap={"policy": "allow"})
    for number, (what, seconds) in enumerate(course):
        at = machine.at = machine.at + seconds * 1_000
        was_paused, watermark, known = job.paused, job.decided_through, set(state.runs)
        revision = state.revision_of(job)
        fields = {"schedule": "@every 1s", "executor": NOOP, "overlap": {"policy": "allow"}, "description": str(number)}
        match what:
            case "pause":
                machine.done(c.PauseJob("a", [], revision))
            case "resume":
                machine.done(c.ResumeJob("a", revision, at))
            case "decide":
                machine.done(c.Decide(NODE, [c.Decision(job.uid, revision, at, [c.Fire(at, at)], [])]))
            case "summary":
                row = c.Summary("misfire", at, at, 1)
                machine.done(c.Decide(NODE, [c.Decision(job.uid, revision, at, [], [row])]))
            case "edit":
                machine.done(c.PutJob("a", definition.canonical(fields), at, [], revision))
            case "by hand":
                machine.done(c.Trigger("a", NODE))
            case "lead":
                machine.lead()
        new = [state.runs[run_id] for run_id in set(state.runs) - known]
        assert len(new) == (what == "by hand" or (what in {"decide", "summary"} and not was_paused))
        assert not any(was_paused and run.cause != "manual" for run in new), "a paused job fires on its schedule"
        if was_paused and what in {"decide", "summary"}:
            assert job.decided_through == watermark
