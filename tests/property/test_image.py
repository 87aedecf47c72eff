"""A snapshot at any point of any log: what came out of it goes on exactly as what it was taken of (semantics I14)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core.codec import encode_entry
from raftcron.core.commands import Entry
from tests.property.test_state_machine import NODES, command_of, origins, small, times
from tests.unit.machine import Machine as Hand
from tests.unit.restored import assert_equal, new_machine, restored, undecided


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_restored_machine_goes_on_as_the_one_that_applied_every_entry(data: st.DataObject) -> None:
    """Outcomes, digests, every attribute, every order, the next snapshot, and what is due."""
    hand, whole = Hand(), new_machine()
    machines = [whole]

    def write(body: bytes) -> None:
        hand.append(body)
        index = len(hand.log)
        outcomes = [machine.apply(index, body) for machine in machines]
        for machine, outcome in zip(machines, outcomes, strict=True):
            machine.applied(index)
            assert outcome == outcomes[0]
            assert machine.digests[-1] == whole.digests[-1]

    for node in NODES[:2]:
        hand.lead(node)
        hand.announce(node)
    hand.put("a")
    for index, body in enumerate(hand.log, 1):
        whole.apply(index, body)
    for _ in range(data.draw(st.integers(1, 40))):
        if data.draw(st.integers(0, 9)) == 0:
            machines.append(restored(data.draw(st.sampled_from(machines)).snapshot()))
            assert_equal(whole, machines[-1])
        epoch = hand.state.epoch if data.draw(st.integers(0, 9)) else data.draw(small)
        write(encode_entry(Entry(epoch, data.draw(times), data.draw(command_of(hand)), data.draw(origins))))
    machines.append(restored(whole.snapshot()))
    for machine in machines[1:]:
        assert_equal(whole, machine)
    now = data.draw(times)
    due = undecided(whole, now)
    assert all(undecided(machine, now) == due for machine in machines[1:])
