"""Complaints about others: each once, and not too many of them; what goes on, once in ten minutes."""

from __future__ import annotations

import pytest

from raftcron.raft.complaints import Complaints, Troubles
from raftcron.raft.inbox import Inbox
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


def test_a_members_nonsense_is_told_once_in_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    """All of it is counted; of each member one line, however much comes, and another one if it still goes on."""
    clock = HandClock()
    inbox = Inbox("n1", Troubles("n1", clock).say)
    for _ in range(200):  # for two hundred minutes
        for _ in range(10):
            for peer in ("n2", "n3"):
                inbox.take(peer, "of no kind", None)
        clock.seconds += 60.0
    assert inbox.bad_messages == {"n2": 2000, "n3": 2000}
    line = "raft_bad_message_from_{} node=n1 kind='of no kind' dropped: kind: 'of no kind' is not known"
    assert [record.getMessage() for record in caplog.records] == [line.format(peer) for peer in ("n2", "n3")] * 20


def test_a_member_that_words_its_nonsense_anew_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Ten wordings in ten minutes, each bounded and fit to be printed."""
    clock = HandClock()
    inbox = Inbox("n1", Troubles("n1", clock).say)
    for number in range(6000):  # an hour
        inbox.take("n2", f"kind {number}" + "x" * 1000 + "\n\x1b", number)
        clock.seconds += 0.6
    assert inbox.bad_messages == {"n2": 6000}
    lines = [record.getMessage() for record in caplog.records]
    assert len(set(lines)) == len(lines) == 6 * 10
    assert all(line.isprintable() and len(line) < 300 for line in lines)


def test_a_trouble_that_changes_is_news(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is to be told of it beside what was told, at once."""
    clock = HandClock()
    troubles = Troubles("n1", clock)
    for text in ("waiting for n2, n3", "waiting for n2, n3", "waiting for n3", "waiting for n3"):
        troubles.say("formation", text)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"raft_formation node=n1 waiting for {names}" for names in ("n2, n3", "n3")]


def test_a_trouble_that_may_pass_is_put_off(caplog: pytest.LogCaptureFixture) -> None:
    """It is told if it is there still; others are told meanwhile."""
    clock = HandClock()
    troubles = Troubles("n1", clock)
    troubles.put_off("formation", 1.0)
    troubles.say("formation", "n2 is not there")
    troubles.say("refused", "by n3")
    assert [record.getMessage() for record in caplog.records] == ["raft_refused node=n1 by n3"]
    clock.seconds = 1.0
    troubles.say("formation", "n2 is not there")
    assert caplog.records[-1].getMessage() == "raft_formation node=n1 n2 is not there"
