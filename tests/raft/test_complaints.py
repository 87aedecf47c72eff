"""Complaints about others: each once, and not too many of them."""

from __future__ import annotations

import pytest

from raftcron.raft.complaints import Complaints
from tests.raft.transport_world import HandClock


def test_complaints_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Each cause is said once of each; beyond a hundred lines in ten minutes the rest is counted, which is said."""
    clock = HandClock()
    complaints = Complaints(clock)
    for number in range(150):
        for _ in range(3):
            complaints.say("somebody", f"cause {number}", "cause %d", number)
    assert len(caplog.records) == 100
    clock.seconds = 600.0
    complaints.say("somebody", "cause 1", "cause 1")
    assert len(caplog.records) == 100
    complaints.say("somebody", "cause 149", "cause 149")
    assert [record.getMessage() for record in caplog.records[100:]] == [
        "peer_complaints_left_out count=150",
        "cause 149",
    ]
    complaints.forget("somebody")
    complaints.say("somebody", "cause 1", "cause 1 again")
    assert caplog.records[-1].getMessage() == "cause 1 again"
