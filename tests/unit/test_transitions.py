"""Every transition of a run is told: the state, the node, the cluster time and the log index (semantics 3)."""

from __future__ import annotations

from raftcron.core import commands as c
from raftcron.core.model import Run
from raftcron.core.transitions import transitions
from tests.unit.machine import Machine, cluster

PLACE = c.Place("n2", 1)


def story(machine: Machine, run: Run) -> list[tuple[str, str | None, int]]:
    """What is told of a run as it stands, and that all of it is of the entries that the machine counted."""
    told = transitions(machine.state.runs[run.id])
    assert [move.at for move in told] == sorted(move.at for move in told)
    return [(move.state, move.node, move.index) for move in told]


def step(machine: Machine, command: c.Command) -> int:
    """One entry, a second later; its index."""
    machine.at += 1_000
    machine.done(command)
    return len(machine.log)


def token(machine: Machine, run: Run) -> list[c.Token]:
    return [c.Token(run.id, machine.state.runs[run.id].fencing_token)]


def test_a_run_that_starts_with_its_decision_has_three_transitions() -> None:
    """On the leader: decided, running, ended."""
    machine = cluster()
    run = machine.fire(machine.put(), 2_000)
    begun = len(machine.log)
    machine.finish(run)
    assert story(machine, run) == [("queued", None, begun), ("running", "n1", begun), ("succeeded", "n1", begun + 1)]
    assert machine.state.runs[run.id].finished_index == begun + 1


def test_a_run_may_be_assigned_by_its_decision() -> None:
    """To a node that then has to ask."""
    machine = cluster()
    job = machine.put(placement={"on": "any", "tags": {"zone": "a"}})
    machine.write(c.Announce("n3", 1, "", "", "0", 10, 5, tags={"zone": "a"}))
    fire = c.Decision(job.uid, job.revision, 2_000, [c.Fire(2_000, 2_000)])
    machine.done(c.Decide(c.Place("n1", 1), [fire], [PLACE, c.Place("n3", 1)]), at=2_000)
    (run,) = machine.state.active[job.uid].values()
    assert story(machine, run) == [("queued", None, len(machine.log)), ("assigned", "n3", len(machine.log))]


def test_the_whole_way_of_a_run_can_be_read() -> None:
    """Assigned in vain, refused at the gate, failed, tried again, lost, tried again, cancelled."""
    machine = cluster()
    job = machine.put(placement={"on": "any"}, delivery="at_least_once", retry={"max_attempts": 5, "backoff": "1s"})
    run = machine.fire(job, 2_000, node="nobody")
    log = [("queued", None, len(machine.log))]

    def then(state: str, node: str | None, command: c.Command) -> None:
        log.append((state, node, step(machine, command)))

    def assign(*, start: bool) -> c.Assign:
        return c.Assign([c.Assignment(run.id, PLACE, start)])

    then("assigned", "n2", assign(start=False))
    then("queued", "n2", c.Unassign(token(machine, run)))
    then("running", "n2", assign(start=True))
    then("queued", "n2", c.NotStarted(token(machine, run)))
    then("assigned", "n2", assign(start=False))
    then("running", "n2", c.Start(token(machine, run)))
    then("waiting_retry", "n2", c.Finish([c.Finished(run.id, token(machine, run)[0].fencing_token, "failed")]))
    machine.at += 60_000
    then("queued", None, c.Requeue([run.id]))
    then("running", "n2", assign(start=True))
    then("queued", "n2", c.Lose("n2", 1, token(machine, run)))
    then("running", "n2", assign(start=True))
    then("cancelling", "n2", c.Cancel(run.id))
    then("cancelled", "n2", c.Finish([c.Finished(run.id, token(machine, run)[0].fencing_token, "cancelled")]))
    assert story(machine, run) == log


def test_an_end_that_is_no_attempts_has_its_place_too() -> None:
    """Skipped at once, skipped later, a summary, cancelled between two attempts, a parent."""
    machine = cluster()
    job = machine.put("busy")
    machine.fire(job, 2_000)
    skipped = machine.fire(job, 3_000)
    assert story(machine, skipped) == [("skipped", None, len(machine.log))]

    late = machine.fire(machine.put("late"), 4_000, node="nobody")
    decided = len(machine.log)
    cancelled = step(machine, c.Cancel(late.id))
    assert story(machine, late) == [("queued", None, decided), ("skipped", None, cancelled)]

    owed = machine.put("owed")
    machine.done(
        c.Decide(PLACE, [c.Decision(owed.uid, owed.revision, 9_000, [], [c.Summary("expired", 8_000, 9_000, 2)])])
    )
    (row,) = machine.state.runs_of(owed.uid)
    assert story(machine, row) == [("skipped", None, len(machine.log))]

    waits = machine.fire(machine.put("waits", retry={"max_attempts": 2}), 10_000)
    machine.finish(waits, "failed")
    assert story(machine, waits)[-1] == ("waiting_retry", "n1", len(machine.log))
    ended = step(machine, c.Cancel(waits.id))
    assert story(machine, waits)[-1] == ("cancelled", None, ended)

    parent = machine.fire(machine.put("parted", placement={"shards": 1}), machine.at + 1_000)
    decided = len(machine.log)
    divided = step(machine, c.Divide([c.Parting(parent.id, ["n1"])]))
    (part,) = machine.state.active_parts[parent.id].values()
    started = step(machine, c.Assign([c.Assignment(part.id, PLACE, True)]))
    ended = step(machine, c.Finish([c.Finished(part.id, part.fencing_token, "succeeded")]))
    assert story(machine, parent) == [("queued", None, decided), ("running", None, divided), ("succeeded", None, ended)]
    assert story(machine, part) == [("queued", None, divided), ("running", "n2", started), ("succeeded", "n2", ended)]


def test_only_the_newest_moves_are_kept() -> None:
    """A run that is assigned in vain for ever stays small, and ends as others do."""
    machine = cluster()
    run = machine.fire(machine.put(placement={"on": "any"}), 2_000, node="nobody")
    for _ in range(200):
        machine.done(c.Assign([c.Assignment(run.id, PLACE, False)]))
        machine.done(c.Unassign(token(machine, run)))
    told = story(machine, run)
    assert len(told) == 1 + 100
    assert told[-1] == ("queued", "n2", len(machine.log))
