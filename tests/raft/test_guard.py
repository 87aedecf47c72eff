"""The guard: every field is checked, only a real conflict cuts, an acknowledgement claims what was checked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftcron.errors import FatalError
from raftcron.raft.guard import (
    TERM_STEP_MAX,
    Acceptance,
    Answer,
    AppendEntries,
    BadMessageError,
    Entry,
    Progress,
    Refusal,
    TimeoutNow,
    Vote,
    VoteRequest,
    judge_answer,
    judge_append,
    judge_term,
    parse,
)

LIMIT = 100


def log(*terms: int) -> list[Entry]:
    """A log that begins with the engine's own entry 1 of term 0, followed by one entry for each term."""
    return [(b"%d/%d" % (index, term), index, term) for index, term in enumerate((0, *terms), start=1)]


def append(source: list[Entry], previous: int, stop: int | None = None, commit_index: int = 0) -> AppendEntries:
    """What a leader with this log sends after `previous`."""
    return AppendEntries(9, commit_index, previous, source[previous - 1][2], source[previous:stop], probe=0)


# ---- reading -----------------------------------------------------------------------------------------------------

APPEND = {
    "type": "append_entries",
    "term": 3,
    "commit_index": 1,
    "prevLogIdx": 4,
    "prevLogTerm": 2,
    "entries": [[b"x", 5, 2], [b"y", 6, 3]],
    "probe": 0,
}
ANSWER = {"type": "next_node_idx", "term": 3, "next_node_idx": 7, "reset": False, "success": True, "probe": 0}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (APPEND, AppendEntries(3, 1, 4, 2, [(b"x", 5, 2), (b"y", 6, 3)], 0)),
        (ANSWER, Answer(3, 7, False, True, 0)),
        ({"type": "request_vote", "term": 3, "last_log_index": 4, "last_log_term": 2}, VoteRequest(3, 4, 2)),
        ({"type": "response_vote", "term": 3}, Vote(3)),
        ({"type": "timeout_now", "term": 3}, TimeoutNow(3)),
    ],
)
def test_messages_of_this_version_are_read(message: Any, expected: Any) -> None:
    """Each of the engine's five messages is read field by field."""
    assert parse(message, LIMIT) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"term": 0},
        {"term": -1},
        {"term": True},
        {"term": 3.0},
        {"term": 2**63},
        {"term": None},
        {"term": 2},  # below the terms of its entries
        {"commit_index": "1"},
        {"prevLogIdx": 0},
        {"prevLogIdx": None},
        {"prevLogTerm": 4},  # beyond its own term
        {"probe": None},
        {"entries": None},
        {"entries": {}},
        {"entries": [[b"x", 5]]},
        {"entries": [[b"x", 6, 2]]},  # a gap
        {"entries": [[b"x", 5, 2], [b"y", 5, 2]]},
        {"entries": [[b"x", 5, 1]]},  # terms fall
        {"entries": [["x", 5, 2]]},
        {"entries": [[b"", 5, 2]]},
        {"entries": [[b"x" * (LIMIT + 1), 5, 2]]},
        {"entries": [[b"x", True, 2]]},
        {"serialized": None},
        {"transmission": "start"},
        {"type": "apply_command"},
        {"type": "apply_command_response"},
        {"type": None},
    ],
)
def test_a_message_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    """One wrong field, and nothing of the message reaches the engine."""
    with pytest.raises(BadMessageError):
        parse(APPEND | change, LIMIT)


def test_a_term_is_adopted_unless_none_could_follow_it() -> None:
    """A node that was away for years comes back; a number close to the end of numbers is none of an election."""
    judge_term(5 + TERM_STEP_MAX, 5)
    judge_term(1, 5)
    with pytest.raises(BadMessageError, match="beyond ours, 5"):
        judge_term(6 + TERM_STEP_MAX, 5)


@pytest.mark.parametrize(
    "change", [{"next_node_idx": 0}, {"reset": 0}, {"success": None}, {"reset": True}, {"term": ""}]
)
def test_an_answer_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    """An answer is a success or a refusal, with whole numbers in range."""
    with pytest.raises(BadMessageError):
        parse(ANSWER | change, LIMIT)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.binary() | st.text(), lambda inner: st.lists(inner)))
def test_anything_at_all_is_refused_in_the_same_way(message: Any) -> None:
    """Whatever msgpack can carry, the only error is BadMessageError."""
    for content in (message, {"type": message}, APPEND | {"entries": message}):
        if not (isinstance(content, dict) and content.get("entries") == []):
            with pytest.raises(BadMessageError):
                parse(content, LIMIT)


# ---- appending ---------------------------------------------------------------------------------------------------


def test_new_entries_are_written_and_acknowledged() -> None:
    """The plain case: what follows our end is written, and the acknowledgement names its end."""
    leader = log(1, 1, 2)
    assert judge_append(leader[:2], 1, append(leader, 2)) == Acceptance(2, leader[2:], 4, conflict=False)


def test_entries_that_are_held_are_neither_cut_nor_written_again() -> None:
    """A repeated batch changes nothing, and what follows it in our log stays."""
    leader = log(1, 1, 1, 1)
    assert judge_append(leader, 1, append(leader, 1, stop=3)) == Acceptance(3, [], 3, conflict=False)


def test_a_heartbeat_cuts_nothing_and_claims_only_what_it_checked() -> None:
    """Entries behind the heartbeat's place may be of another leader: they stay, unacknowledged."""
    assert judge_append(log(1, 1, 1), 1, append(log(1, 5), 2, stop=2)) == Acceptance(2, [], 2, conflict=False)


def test_the_overlapping_part_is_skipped() -> None:
    """Of a batch that overlaps our end only the new part is written."""
    leader = log(1, 1, 2, 2)
    assert judge_append(leader[:3], 1, append(leader, 1)) == Acceptance(3, leader[3:], 5, conflict=False)


def test_a_real_conflict_cuts_from_the_first_differing_entry() -> None:
    """Where terms differ, our tail goes and the leader's takes its place; what agrees before it stays."""
    leader = log(1, 3, 3)
    assert judge_append(log(1, 2, 2, 2), 2, append(leader, 1)) == Acceptance(2, leader[2:], 4, conflict=True)


def test_a_conflict_with_a_committed_entry_is_fatal() -> None:
    """A leader that contradicts what is committed here ends the process, whether in its entries or before them."""
    with pytest.raises(FatalError, match="entry 3 is committed here with term 2"):
        judge_append(log(1, 2, 2), 3, append(log(1, 3, 3), 1))
    with pytest.raises(FatalError, match="entry 3 is committed here with term 2"):
        judge_append(log(1, 2, 2), 3, append(log(1, 3, 3), 3))


def test_a_missing_entry_is_refused_with_the_end_of_our_log() -> None:
    """The leader goes on right behind what we hold."""
    assert judge_append(log(1), 1, append(log(1, 1, 1, 1), 4)) == Refusal(3)


def test_a_differing_term_is_refused_with_the_beginning_of_that_term() -> None:
    """The whole of our differing term is in doubt, so it is walked over in one round."""
    assert judge_append(log(1, 2, 2, 2), 1, append(log(1, 1, 3, 3), 4)) == Refusal(3)


def test_a_refusal_never_names_what_is_committed() -> None:
    """The walk back ends behind the commit index: up to there the leader must agree."""
    assert judge_append(log(2, 2, 2, 2), 3, append(log(1, 1, 1, 3), 5)) == Refusal(4)
    assert judge_append(log(1, 1)[1:], 2, append(log(1, 1), 1)) == Refusal(3)


@st.composite
def two_logs(draw: st.DrawFn) -> tuple[list[Entry], list[Entry], int]:
    """A leader's log, a follower's that shares a beginning with it, and what of that beginning is committed."""
    shared = draw(st.lists(st.integers(1, 3), max_size=6))
    theirs, ours = (sorted(draw(st.lists(st.integers(start, stop), max_size=8))) for start, stop in ((7, 9), (4, 6)))
    shared.sort()
    return log(*shared, *theirs), log(*shared, *ours), draw(st.integers(1, len(shared) + 1))


@given(two_logs(), st.integers(1, 4), st.data())
def test_a_pipeline_converges_whatever_the_logs_and_batches(
    logs: tuple[list[Entry], list[Entry], int], batch: int, data: st.DataObject
) -> None:
    """Row 15: a leader that sends several batches ahead of each answer brings the follower to its own log, and at no
    time counts on an entry that the follower does not hold."""
    leader, follower, committed = logs
    match_index, next_index, probe = 0, data.draw(st.integers(2, len(leader) + 1)), 0
    for _ in range(40):
        flying = []
        for _ in range(3):  # batches ahead of the first answer
            entries = leader[next_index - 1 : next_index - 1 + batch]
            flying.append(AppendEntries(9, 0, next_index - 1, leader[next_index - 2][2], entries, probe))
            next_index += len(entries)
        answers = []
        for message in flying:
            verdict = judge_append(follower, committed, message)
            if isinstance(verdict, Refusal):
                answers.append(Answer(9, verdict.next_index, True, False, message.probe))
                continue
            if verdict.conflict:
                del follower[verdict.agreed :]
            follower.extend(verdict.entries)
            answers.append(Answer(9, verdict.acknowledged + 1, False, True, message.probe))
        for answer in answers:
            progress = judge_answer(answer, probe, match_index, next_index, len(leader))
            match_index, next_index = progress.match_index, progress.next_index
            probe += progress.rewound
            assert follower[:match_index] == leader[:match_index]
    assert match_index == len(leader)
    assert follower[: len(leader)] == leader


# ---- answers -----------------------------------------------------------------------------------------------------


def test_a_success_never_rewinds_what_is_in_flight() -> None:
    """An early answer moves the match index only; the batches that were sent since stay sent."""
    assert judge_answer(Answer(1, 5, False, True, 0), 0, 3, 9, 10) == Progress(4, 9, False)


def test_only_the_first_refusal_of_a_pipeline_rewinds() -> None:
    """The refusals of the batches behind it answer a probe that is over."""
    assert judge_answer(Answer(1, 5, True, False, 2), 2, 3, 9, 10) == Progress(3, 5, True)
    assert judge_answer(Answer(1, 4, True, False, 2), 3, 3, 5, 10) == Progress(3, 5, False)


def test_a_refusal_does_not_rewind_below_what_was_confirmed() -> None:
    """What the follower holds durably it need not be sent again."""
    assert judge_answer(Answer(1, 2, True, False, 0), 0, 6, 9, 10) == Progress(6, 7, True)


def test_an_answer_about_entries_that_do_not_exist_is_refused() -> None:
    """A follower cannot hold, in our term, what we never had."""
    with pytest.raises(BadMessageError):
        judge_answer(Answer(1, 12, False, True, 0), 0, 3, 9, 10)
