"""Which runs take one of a node's process slots: those that are processes of their own where they start."""

from __future__ import annotations

from typing import Any

from raftcron.core.commands import Announce, Assign, Assignment, NotStarted, Outcome, Place, Start, Token
from raftcron.core.model import HANDLER_TAG, PROCESS_TAG, Job, Run
from raftcron.executors.handlers import Handlers
from tests.executors import applied
from tests.unit.machine import NOOP, Machine

SHELL = {"type": "shell", "command": "true"}
PYTHON = {"type": "python", "handler": "f"}
HERE, THERE = Place("n1", 1), Place("n2", 1)


def one_process(*, apart: bool = False) -> Machine:
    """Two nodes with one process slot each and the handler f; `apart`: on n1 it runs in a process of its own."""
    machine = Machine()
    machine.lead()
    announce(machine, "n1", apart=apart)
    announce(machine, "n2", apart=False)
    return machine


def announce(machine: Machine, node: str, *, apart: bool) -> Outcome:
    tags = {f"{HANDLER_TAG}f": ""} | ({f"{PROCESS_TAG}f": ""} if apart else {})
    return machine.write(Announce(node, 1, f"{node}:1", f"{node}:2", "0", 10, 1, tags=tags))


def put(machine: Machine, name: str, executor: dict[str, Any]) -> Job:
    return machine.put(name, executor=executor, overlap={"policy": "allow"})


def fire_nowhere(machine: Machine, job: Job, at: int) -> Run:
    """A run that stays queued: the node it was meant for is of a former life."""
    run = machine.fire(job, at, incarnation=9)
    assert run.state == "queued"
    return run


def assign(machine: Machine, run: Run, place: Place, *, start: bool = True) -> int:
    return machine.done(Assign([Assignment(run.id, place, start=start)])).count


def test_a_queued_run_that_an_edit_makes_a_process_takes_a_process_slot() -> None:
    """It runs under the new definition, so it counts as what that says."""
    machine = one_process()
    run = fire_nowhere(machine, put(machine, "job", NOOP), 2_000)
    put(machine, "job", SHELL)
    assert assign(machine, run, HERE) == 1
    assert machine.state.processes == {"n1": 1}
    assert machine.fire(put(machine, "other", SHELL), 3_000).state == "queued"
    machine.finish(run)
    assert machine.state.processes == {"n1": 0}


def test_a_queued_run_that_an_edit_makes_no_process_waits_for_no_process_slot() -> None:
    """However many processes there are."""
    machine = one_process()
    assert machine.fire(put(machine, "other", SHELL), 2_000).state == "running"
    run = machine.fire(put(machine, "job", SHELL), 3_000)
    assert (run.state, assign(machine, run, HERE)) == ("queued", 0)
    put(machine, "job", NOOP)
    assert assign(machine, run, HERE) == 1
    assert machine.state.processes == {"n1": 1}


def test_an_assigned_run_that_an_edit_makes_a_process_is_queued_again() -> None:
    """Its assignment took no process slot, and there may be none: its token never starts."""
    machine = one_process()
    run = fire_nowhere(machine, put(machine, "job", NOOP), 2_000)
    assign(machine, run, THERE, start=False)
    token = run.fencing_token
    put(machine, "job", SHELL)
    assert (run.state, run.node) == ("queued", None)
    assert machine.done(Start([Token(run.id, token)])).count == 0
    assert assign(machine, run, THERE, start=False) == 1
    assert machine.state.processes == {"n2": 1}


def test_an_edit_of_anything_else_leaves_an_assignment_alone() -> None:
    """Only what counts otherwise than it was placed goes back."""
    machine = one_process()
    run = fire_nowhere(machine, put(machine, "job", SHELL), 2_000)
    assign(machine, run, THERE, start=False)
    put(machine, "job", {**SHELL, "command": "false"})
    assert run.state == "assigned"


def test_a_started_run_counts_as_what_it_was_started_as() -> None:
    """An edit does not change what runs already; its next attempt is what the job says then."""
    machine = one_process()
    run = machine.fire(put(machine, "job", SHELL), 2_000)
    put(machine, "job", NOOP)
    assert machine.state.processes == {"n1": 1}
    machine.done(NotStarted([Token(run.id, run.fencing_token)]))
    assert (run.state, machine.state.processes) == ("queued", {"n1": 0})
    assign(machine, run, HERE)
    assert machine.state.processes == {"n1": 0}


def test_a_handler_in_a_process_of_its_own_takes_a_process_slot() -> None:
    """On the node that runs it so; it has what it announced."""
    machine = one_process(apart=True)
    job = put(machine, "job", PYTHON)
    first, second = machine.fire(job, 2_000), machine.fire(job, 3_000)
    assert (first.state, second.state) == ("running", "queued")
    assert assign(machine, second, HERE) == 0
    assert assign(machine, second, THERE) == 1
    assert machine.state.processes == {"n1": 1}


def test_a_handler_within_the_application_takes_no_process_slot() -> None:
    """Threads and coroutines are bounded by the slots alone."""
    machine = one_process()
    job = put(machine, "job", PYTHON)
    assert {machine.fire(job, at).state for at in (2_000, 3_000, 4_000)} == {"running"}
    assert not any(machine.state.processes.values())


def test_an_application_knows_which_handlers_run_in_a_process() -> None:
    """Its node announces them."""
    handlers = Handlers()
    handlers.add("near", applied.report, process=False)
    assert (handlers.processes, handlers.need_processes) == ([], False)
    handlers.add("far", applied.report, process=True)
    assert (handlers.processes, handlers.need_processes) == (["far"], True)
