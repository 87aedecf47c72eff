"""The audit trail in replicated state: what is recorded, how a chain shows what was done to it, the bound."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from raftcron.core import commands as c
from raftcron.core.apply import audit as recording
from raftcron.core.audit import CHAIN, SAID, UNRECORDED, AuditChain, AuditItem, faults, summary_of
from tests.unit.machine import Machine

CI = c.Origin("ci", "n2", "10.0.0.9", "POST", "/v1/jobs/a/pause")


def written(count: int) -> Machine:
    """So many notes by one principal, beside what nobody asked for."""
    machine = Machine()
    machine.lead()
    machine.announce("n1")
    machine.put("a")
    for number in range(count):
        machine.write(c.Note(f"note {number}"), origin=CI)
    return machine


def chain_of(machine: Machine) -> tuple[list[AuditItem], AuditChain]:
    return [*machine.state.audit.values()], machine.state.audit_chain[CHAIN]


def test_a_write_that_somebody_asked_for_is_recorded_and_no_other() -> None:
    """Who, where, from where, what and when; commands of loops and refusals leave no trace."""
    machine = written(0)
    assert not machine.state.audit
    job = machine.state.jobs["a"]
    machine.write(c.PauseJob("a", [], job.revision), at=5_000, origin=CI)
    machine.write(c.PauseJob("none", [], 1), origin=CI)
    (item,) = machine.state.audit.values()
    assert (item.index, item.at, item.principal, item.node, item.remote) == (4, 5_000, "ci", "n2", "10.0.0.9")
    assert (item.method, item.path, item.summary) == ("POST", "/v1/jobs/a/pause", "job a paused")


def test_a_repeat_under_its_key_is_recorded_once() -> None:
    """A stored answer is no second write."""
    machine = written(0)
    note = c.Note("once", c.Key("scope", b"h", 0, 0, 0))
    machine.write(note, origin=CI)
    assert machine.done(note).replayed
    machine.write(note, origin=CI)
    assert len(machine.state.audit) == 1


@pytest.mark.parametrize("field", ["principal", "node", "remote", "method", "path", "summary"])
def test_a_changed_item_shows(field: str) -> None:
    """Whatever of it is changed, the chain names its index."""
    items, chain = chain_of(written(3))
    assert faults(items, chain) == []
    items[1] = msgspec.structs.replace(items[1], **{field: "another"})
    assert any(f"index {items[1].index}" in fault for fault in faults(items, chain))


def test_a_changed_item_with_a_hash_made_anew_shows_at_the_next() -> None:
    """Who changes one item has to change all that follow, and the head."""
    items, chain = chain_of(written(3))
    items[1] = msgspec.structs.replace(items[1], at=1)
    items[1].hash = recording.link(items[0].hash, items[1])
    assert any(f"index {items[2].index}" in fault for fault in faults(items, chain))


def test_removed_items_show_wherever_they_stood() -> None:
    """The first, one between, the last, and all."""
    for place in (0, 1, 2):
        items, chain = chain_of(written(3))
        del items[place]
        assert faults(items, chain)
    _, chain = chain_of(written(3))
    assert faults([], chain)


def test_the_oldest_leave_and_the_chain_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded; the hash before the oldest is kept, and so is their number."""
    monkeypatch.setattr(recording, "AUDIT_KEPT", 5)
    items, chain = chain_of(written(12))
    assert [item.summary for item in items] == [f"note {number}" for number in range(7, 12)]
    assert (chain.count, chain.dropped) == (12, 7)
    assert faults(items, chain) == []
    assert faults(items[1:], chain)


PUT = c.PutJob("a", b"", None)


@pytest.mark.parametrize(
    ("command", "done", "said"),
    [
        (c.Drain("n3", True), c.Done("n3"), "node n3 drained: it gets no new runs"),
        (c.Drain("n3", False), c.Done("n3"), "node n3 drained no more: it gets new runs again"),
        (c.PutGroup("g1", 3), c.Done("g1", 201), "group g1 created"),
        (c.PutGroup("g1", 3, 7), c.Done("g1"), "group g1 written"),
        (c.DeleteGroup("g1", 7), c.Done("g1", 204), "group g1 deleted"),
        (c.Trigger("a", None), c.Done("m2b1-0", 202), "run m2b1-0 asked for by hand"),
        (c.Rerun("m2a0-0", None), c.Done("m2b1-0", 202), "run m2b1-0 asked for by hand"),
        (c.ApplyJobs([PUT] * 2), c.Done(count=2, statuses=(200, 200)), "jobs: 2 replaced or unchanged, in one piece"),
        (
            c.ApplyJobs([PUT] * 3, [c.DeleteJob("b", [], 1)]),
            c.Done(count=4, statuses=(201, 200, 201)),
            "jobs: 2 created, 1 replaced or unchanged, 1 deleted, in one piece",
        ),
    ],
)
def test_an_item_says_what_was_done_and_no_more(command: c.Command, done: c.Done, said: str) -> None:
    """Which way a switch was thrown; and nothing of what the outcome does not tell: whether a run was then skipped,
    whether a definition was another one.
    """
    assert summary_of(command, done) == said


def test_whatever_can_be_asked_for_is_told_in_words() -> None:
    """No item shows the name of a class; what people ask for may have a key."""
    asked = {one for one in get_args(c.Command) if "key" in one.__struct_fields__} - set(UNRECORDED)
    assert asked - set(SAID) == set()


def test_nothing_in_an_item_is_obeyed_by_a_terminal() -> None:
    """Line ends, escape codes and half characters are shown as what they are not; long text is cut."""
    machine = written(0)
    machine.write(c.Note("a\r\n\x1b[31mb" + "x" * 500), origin=c.Origin("ci\n", "n\x1b", "r", "GET", "/\x00"))
    (item,) = machine.state.audit.values()
    assert item.summary.startswith("a\ufffd\ufffd\ufffd[31mb")
    assert len(item.summary) <= 200
    assert (item.principal, item.node, item.path) == ("ci\ufffd", "n\ufffd", "/\ufffd")
