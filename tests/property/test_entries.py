"""No content of a known version makes a node fail (I13): bytes that are cut, flipped or anything are refused or taken.

An entry of a newer version ends the node, by name, and changes nothing.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core import commands as c
from raftcron.core.codec import ENTRY_VERSION, encode_entry
from raftcron.core.commands import Done, Entry, Refused
from raftcron.errors import NewerVersionError
from raftcron.runtime.machine import Machine as Node
from raftcron.testing.virtual_time import VirtualClock, VirtualLoop
from raftcron.testing.wall_time import WallTime
from tests.property.test_state_machine import check, command_of, origins, times
from tests.unit.machine import Machine

KNOWN = bytes([ENTRY_VERSION])


@st.composite
def spoilt(draw: st.DrawFn, body: bytes) -> bytes:
    """These bytes with a few changes behind their version; or any others."""
    data = bytearray(body)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                del data[at:]
            case 1:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 2:
                data[at:at] = draw(st.binary(max_size=4))
            case 3:
                data[at:at] = data[: draw(st.integers(0, len(data)))]
    return KNOWN + draw(st.one_of(st.just(bytes(data)), st.just(bytes(data)), st.binary(max_size=40)))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_an_entry_holds_a_node_goes_on(data: st.DataObject) -> None:
    """What could be read, if only just, is judged as ever; the state stays sound, and a replay gives the same."""
    script = Machine()
    script.lead()
    script.announce("n1")
    script.put("a")
    loop = VirtualLoop()
    time = WallTime(VirtualClock(loop))
    nodes = [Node("n1", time), Node("n2", time)]
    loop.close()
    for index, body in enumerate(script.log, 1):
        nodes[0].apply(index, body)
    bodies = list(script.log)
    for _ in range(data.draw(st.integers(1, 12))):
        script.state = nodes[0].state
        entry = Entry(script.state.epoch, data.draw(times), data.draw(command_of(script)), data.draw(origins))
        whole = encode_entry(entry)
        bodies.append(data.draw(spoilt(whole[1:])) if data.draw(st.integers(0, 3)) else whole)
        outcome = nodes[0].apply(len(bodies), bodies[-1])
        assert isinstance(outcome, Done | Refused)
        check(nodes[0].state)
    for index, body in enumerate(bodies, 1):
        nodes[1].apply(index, body)
    assert nodes[0].state.digest == nodes[1].state.digest
    assert nodes[0].state.index == nodes[1].state.index == len(bodies)


@given(st.integers(ENTRY_VERSION + 1, 255), st.binary(max_size=40))
def test_an_entry_of_a_newer_version_is_refused_by_name(version: int, rest: bytes) -> None:
    """Whatever stands in it: this release must not guess, and must not go on."""
    loop = VirtualLoop()
    node = Node("n1", WallTime(VirtualClock(loop)))
    loop.close()
    script = Machine()
    script.lead()
    node.apply(1, script.log[0])
    before = (node.state.index, node.state.digest)
    with pytest.raises(NewerVersionError, match=f"version {version}.*upgrade this node"):
        node.apply(2, bytes([version]) + rest)
    assert (node.state.index, node.state.digest) == before


NO_TEXT = b"\xa1\x80"  # a string of one byte that is no UTF-8
DEEP = b"\x91" * 5_000 + b"\xc0"
WRONG = [b"\x81" + NO_TEXT + b"\x01", b"\x91" + NO_TEXT, b"\x81\xa5dates\x91" + NO_TEXT, b"\x81\xa5dates" + DEEP, DEEP]


@pytest.mark.parametrize("wrong", WRONG, ids=["a key", "a list", "dates", "deep dates", "deep"])
def test_bytes_inside_an_entry_that_cannot_be_read_are_refused(wrong: bytes) -> None:
    """Of a definition, a calendar, a route or a chunk: text that is none, and what is nested too deep."""
    script = Machine()
    script.lead()
    for command in (
        c.PutJob("a", wrong, None),
        c.PutCalendar("x", wrong, 0),
        c.PutAlertRoute("default", wrong, None),
        *(c.Stage("s", 0, kind, wrong) for kind in ("jobs", "calendars", "groups", "secrets", "routes", "nonsense")),
    ):
        assert script.refused(command) in {"invalid", "stale"}, command
    check(script.state)
