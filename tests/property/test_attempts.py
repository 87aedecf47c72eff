"""Attempts over random logs: one start each, under the newest token, another one only after an end (I2, I3, I6)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core import commands as c
from raftcron.core.model import AT_LEAST_ONCE, FAILED, STARTED, TIMED_OUT, AttemptRecord, Run
from raftcron.core.records import encoded
from tests.property.test_state_machine import command_of, origins, small, times
from tests.unit.machine import Machine


def told_by(command: c.Command) -> list[tuple[str, int]]:
    """The runs that a report is about, each with the token that it carries."""
    match command:
        case c.Start():
            told = command.starts
        case c.NotStarted() | c.Lose() | c.Unassign() | c.TimeOut():
            told = command.tokens
        case c.Finish():
            told = command.finished  # type: ignore[assignment]
        case c.TakeOver():
            told = command.taken  # type: ignore[assignment]
        case c.Conclude() | c.Hear():
            told = [command]  # type: ignore[list-item]
        case _:
            told = []
    return [(one.run, one.fencing_token) for one in told]


class Court:
    """What is known of every start there was."""

    def __init__(self) -> None:
        self.starts: dict[tuple[str, int], tuple[int, str, int | None]] = {}
        self.ever_again: set[int] = set()  # jobs that were at_least_once at some time

    def judge(self, machine: Machine, command: c.Command, given: dict[str, int]) -> None:
        """`given` are the tokens as they were before the command."""
        for uid, policy in machine.state.policies.items():
            if policy.delivery == AT_LEAST_ONCE:
                self.ever_again.add(uid)
        if isinstance(command, c.NotStarted):  # no code has begun: the attempt keeps its number, and has no record
            kept = machine.state.runs
            for run in [kept[token.run] for token in command.tokens if token.run in kept]:
                if run.attempt not in [record.attempt for record in run.attempts]:
                    self.starts.pop((run.id, run.attempt), None)
        for run in machine.state.runs.values():
            numbers = [record.attempt for record in run.attempts]
            assert numbers == list(range(1, len(numbers) + 1)), "each attempt has one record, and none is left out"
            for record in run.attempts:
                what = (record.fencing_token, record.node, record.started_index)
                if (run.id, record.attempt) not in self.starts:
                    self.begun(machine, command, run, record, given)
                assert self.starts.setdefault((run.id, record.attempt), what) == what, "an attempt starts once"

    def begun(
        self, machine: Machine, command: c.Command, run: Run, record: AttemptRecord, given: dict[str, int]
    ) -> None:
        """A start that this very command has made."""
        assert record.started_index == machine.state.index
        assert (run.state in STARTED, record.fencing_token) == (True, run.fencing_token)
        if isinstance(command, c.Start):
            assert record.fencing_token == given[run.id]
        else:
            assert record.fencing_token > max(given.values(), default=0), "a start without a question has a new token"
        earlier = [one.fencing_token for one in run.attempts[:-1]]
        assert all(token < record.fencing_token for token in earlier)
        if earlier:
            before = run.attempts[-2]
            assert before.finished_at is not None
            assert before.state in (FAILED, TIMED_OUT) or run.uid in self.ever_again


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_an_attempt_starts_once_under_the_newest_token_and_old_ones_change_nothing(data: st.DataObject) -> None:
    """I2, I3 and I6, whatever is reported twice, late or in vain."""
    machine, court = Machine(), Court()
    machine.lead()
    for node in ("n1", "n2"):
        machine.announce(node)
    machine.write(c.PutGroup("g", 3))
    machine.put("a", overlap={"policy": "allow"}, retry={"max_attempts": 3, "backoff": "1s"})
    for _ in range(data.draw(st.integers(1, 40))):
        command = data.draw(report_of(machine)) if data.draw(st.booleans()) else data.draw(command_of(machine))
        given = {run.id: run.fencing_token for run in machine.state.runs.values()}
        before = {
            run_id: encoded(machine.state.runs[run_id])
            for run_id, token in told_by(command)
            if run_id in given and given[run_id] != token
        }
        epoch = machine.state.epoch if data.draw(st.integers(0, 9)) else data.draw(small)
        machine.write(command, epoch=epoch, at=data.draw(times), origin=data.draw(origins))
        for run_id, was in before.items():
            assert encoded(machine.state.runs[run_id]) == was, "a report under an old token changes nothing"
        court.judge(machine, command, given)


@st.composite
def report_of(draw: st.DrawFn, machine: Machine) -> c.Command:
    """What moves a run on; mostly true."""
    runs = list(machine.state.runs.values())
    if not runs:
        return c.Trigger("a", draw(st.sampled_from([c.Place("n1", 1), None])))
    run = draw(st.sampled_from(runs))
    token = c.Token(run.id, max(0, run.fencing_token - draw(st.sampled_from([0, 0, 0, 1]))))
    place = c.Place(draw(st.sampled_from(["n1", "n2"])), 1)
    options: list[c.Command] = [
        c.Trigger("a", draw(st.sampled_from([place, None]))),
        c.Assign([c.Assignment(run.id, place, draw(st.booleans()))]),
        c.Start([token]),
        c.Start([token, token]),
        c.NotStarted([token]),
        c.Unassign([token]),
        c.Finish([c.Finished(run.id, token.fencing_token, draw(st.sampled_from(["succeeded", "failed", "failed"])))]),
        c.Lose(run.node or "n1", 1, [token]),
        c.Requeue([run.id]),
    ]
    return draw(st.sampled_from(options))
