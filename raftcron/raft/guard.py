"""Judges Raft's own messages before the engine sees them, as pure functions; who may connect is membership.py's.

Peers are authenticated, but they may be of another version, late, or wrong.  So each message passes two steps: `parse`
checks every field (a message that does not fit is dropped and counted), and `judge_append` or `judge_answer` decides
what the message may do.  The stock engine is too trusting in both places (raft.md, rows 2, 4, 8 and 15):

- it cuts whatever follows `previous_index`, conflict or not, so that acknowledged entries vanish for a while; here
  only a real conflict cuts, and an acknowledgement claims exactly what was checked;
- it believes answers of former terms, lets late ones rewind what is in flight, and is pulled to and fro by the
  refusals of one pipeline; here terms are compared, nothing but a refusal rewinds, and that once per probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, overload

from raftcron.errors import FatalError

Entry = tuple[bytes, int, int]  # what the engine keeps: command (its first byte is its kind), index, term

MAX_NUMBER = 2**62  # terms, indices and probes; far beyond use, and well inside 64 bits with room to count on
TERM_STEP_MAX = 2**32  # that a message may be ahead of our term: an election each 30 ms for four years
MAX_COMMAND_BYTES = 4 << 20  # of an entry, whatever this node's own limit for proposals
MAX_ENTRIES = 1 << 16  # of one append_entries; the sender's bounds in bytes speak long before


class BadMessageError(ValueError):
    """A message that no well-behaved peer of this version sends.  It is dropped and counted, nothing else."""


class AppendEntries(NamedTuple):
    """Entries that follow (previous_index, previous_term); without entries, a heartbeat."""

    term: int
    commit_index: int
    previous_index: int
    previous_term: int
    entries: list[Entry]
    probe: int  # how often this follower has made this leader rewind; the answer names it


class Answer(NamedTuple):
    """To an append_entries: success means "I hold, durably, what you hold before next_index"."""

    term: int
    next_index: int
    reset: bool  # a refusal: please go on from next_index
    success: bool
    probe: int


class VoteRequest(NamedTuple):
    term: int
    last_index: int
    last_term: int


class Vote(NamedTuple):
    term: int


class Offer(NamedTuple):
    """The leader's heartbeat to a follower that needs entries which are gone: the snapshot that has them."""

    term: int
    probe: int
    id: str
    index: int  # type: ignore[assignment]  # of the last entry that is in it (nobody asks for tuple.index), and
    entry_term: int  # the term of that entry
    size: int  # bytes
    cluster_id: str
    configuration: bytes


class TimeoutNow(NamedTuple):
    """The leader asks its successor to hold an election at once."""

    term: int


Message = AppendEntries | Offer | Answer | VoteRequest | Vote | TimeoutNow

OF_NO_MEMBER: dict[type[Message], str] = {
    AppendEntries: "append of no member",
    Offer: "offer of no member",
    Answer: "answer of no member",
    VoteRequest: "vote request of no member",
    Vote: "vote of no member",
    TimeoutNow: "order to stand of no member",
}
BRANCHES = (  # that seam.py counts: all that it may do to a message but take it as it is
    "append of a former term",
    "entry missing",
    "entry forgotten",
    "term differs",
    "conflict cut",
    "held entries skipped",
    "tail left alone",
    "snapshot covered by the log",
    "answer of another term",
    "answer overtaken by a newer term",
    "rewound",
    "late refusal",
    "vote refused (no vote to give)",
    "vote not counted (another term)",
    "vote not counted (twice)",
    "vote not counted (no voter)",
    "order to stand refused (no voter)",
    *OF_NO_MEMBER.values(),
)


# ---- reading -----------------------------------------------------------------------------------------------------


def number(message: Mapping[str, Any], key: str, least: int = 0) -> int:
    """The whole number at `key`, from `least` to MAX_NUMBER.  Raises BadMessageError."""
    value = message.get(key)
    if type(value) is not int or not least <= value <= MAX_NUMBER:
        raise BadMessageError(f"{key}: {value!r:.40} is not a whole number from {least}")
    return value


def judge_term(term: int, ours: int) -> None:
    """What a node may adopt.  Raises BadMessageError where `term` is so far ahead of ours that no cluster came there.

    A term is kept for ever and followed by the next: after one close to MAX_NUMBER there could be no election.  This is
    for a member that is wrong, by one message; one that lies on purpose, step by step, is one that could also lead.
    """
    if term > ours + TERM_STEP_MAX:
        raise BadMessageError(f"term: {term} is more than {TERM_STEP_MAX} beyond ours, {ours}")


def flag(message: Mapping[str, Any], key: str) -> bool:
    """The boolean at `key`.  Raises BadMessageError."""
    value = message.get(key)
    if type(value) is not bool:
        raise BadMessageError(f"{key}: {value!r:.40} is not true or false")
    return value


def text(message: Mapping[str, Any], key: str, most: int = 256) -> str:
    """The text at `key`, of at most `most` characters.  Raises BadMessageError."""
    value = message.get(key)
    if type(value) is not str or len(value) > most:
        raise BadMessageError(f"{key}: {value!r:.40} is not a text of at most {most} characters")
    return value


def blob(message: Mapping[str, Any], key: str, most: int) -> bytes:
    """The bytes at `key`, at most `most` of them.  Raises BadMessageError."""
    value = message.get(key)
    if type(value) is not bytes or len(value) > most:
        raise BadMessageError(f"{key}: not at most {most} bytes")
    return value


def fields(message: Any) -> Mapping[str, Any]:
    """The message as a mapping.  Raises BadMessageError."""
    if type(message) is not dict:
        raise BadMessageError(f"a message is a map, not {type(message).__name__}")
    return message


def parse(message: Any, max_command_bytes: int = MAX_COMMAND_BYTES) -> Message:
    """One of the engine's own messages, every field checked.  Raises BadMessageError.

    Of the engine's types, `apply_command` and its response are not served: nothing is forwarded.
    """
    content = fields(message)
    match content.get("type"):
        case "append_entries":
            return _parse_append(content, max_command_bytes)
        case "offer":
            offer = Offer(
                number(content, "term", 1),
                number(content, "probe"),
                text(content, "id"),
                number(content, "index", 1),
                number(content, "entry_term"),
                number(content, "size", 1),
                text(content, "cluster_id"),
                blob(content, "configuration", max_command_bytes),
            )
            if offer.entry_term > offer.term:
                raise BadMessageError(f"entry_term: {offer.entry_term} is beyond the sender's own term {offer.term}")
            return offer
        case "next_node_idx":
            answer = Answer(
                number(content, "term"),
                number(content, "next_node_idx", 1),
                flag(content, "reset"),
                flag(content, "success"),
                number(content, "probe"),
            )
            if answer.reset and answer.success:
                raise BadMessageError("an answer is a success or a refusal, not both")
            return answer
        case "request_vote":
            return VoteRequest(
                number(content, "term", 1), number(content, "last_log_index", 1), number(content, "last_log_term")
            )
        case "response_vote":
            return Vote(number(content, "term", 1))
        case "timeout_now":
            return TimeoutNow(number(content, "term", 1))
        case other:
            raise BadMessageError(f"type: {other!r:.40} is not known")


def _parse_append(content: Mapping[str, Any], max_command_bytes: int) -> AppendEntries:
    if "serialized" in content or "transmission" in content:
        raise BadMessageError("the engine's own snapshots and chunked entries are not served")
    term = number(content, "term", 1)
    commit_index = number(content, "commit_index")
    previous_index = number(content, "prevLogIdx", 1)
    previous_term = number(content, "prevLogTerm")
    probe = number(content, "probe")
    listed = content.get("entries")
    if type(listed) is not list or len(listed) > MAX_ENTRIES:
        raise BadMessageError(f"entries: not a list of at most {MAX_ENTRIES}")
    entries: list[Entry] = []
    index, newest = previous_index, previous_term
    for item in listed:
        if type(item) is not list or len(item) != 3:
            raise BadMessageError(f"entries: item {len(entries)} is not [command, index, term]")
        command, at, of = item
        index += 1
        if type(command) is not bytes or not 1 <= len(command) <= max_command_bytes:
            raise BadMessageError(f"entries: the command of {index} is not 1 to {max_command_bytes} bytes")
        if type(at) is not int or at != index:
            raise BadMessageError(f"entries: {at!r:.40} stands where {index} belongs")
        if type(of) is not int or not newest <= of <= term:
            raise BadMessageError(f"entries: term {of!r:.40} of {index} is not from {newest} to {term}")
        newest = of
        entries.append((command, at, of))
    if newest > term:
        raise BadMessageError(f"prevLogTerm: {previous_term} is beyond the sender's own term {term}")
    return AppendEntries(term, commit_index, previous_index, previous_term, entries, probe)


# ---- whether a vote counts ------------------------------------------------------------------------------------------


def judge_vote(vote: Vote, term: int, counted_in: int | None, is_voter: bool) -> str | None:
    """Why a vote for us does not count in our `term`; None if it does.

    `counted_in`: the last term in which one of the same node did.
    """
    if vote.term != term:
        return "another term"
    if counted_in == vote.term:
        return "twice"
    return None if is_voter else "no voter"


# ---- what an append_entries may do to the log --------------------------------------------------------------------


class LogView(Protocol):
    """The entries that are held, by place; the first is not necessarily index 1, the indices have no gaps."""

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Entry]: ...
    def __len__(self) -> int: ...


class Refusal(NamedTuple):
    """The entry before does not match; the leader shall go on from `next_index`."""

    next_index: int


class Acceptance(NamedTuple):
    """All up to `acknowledged` agrees with the leader once `entries`, which begin after `agreed`, are written.

    `conflict` says that an entry of our own stands where the first of `entries` belongs, and is cut with its tail.
    """

    agreed: int
    entries: list[Entry]
    acknowledged: int
    conflict: bool


def judge_append(log: LogView, committed: int, append: AppendEntries) -> Refusal | Acceptance:
    """What an append_entries of a current term may do to `log`, of which all up to `committed` is committed.

    Raises FatalError if the leader contradicts a committed entry: one of the two histories is wrong, and going on
    would only spread it.
    """
    first, last = log[0][1], log[-1][1]
    previous = append.previous_index
    if previous < first or previous > last:
        return Refusal(rewind_to(log, committed, previous))
    if log[previous - first][2] != append.previous_term:
        if previous <= committed:
            raise _contradiction(previous, log[previous - first][2], append.previous_term)
        return Refusal(rewind_to(log, committed, previous))
    entries, held = append.entries, 0
    while held < len(entries) and previous + held < last and log[previous + held + 1 - first][2] == entries[held][2]:
        held += 1
    agreed = previous + held
    conflict = held < len(entries) and agreed < last
    if conflict and agreed + 1 <= committed:
        raise _contradiction(agreed + 1, log[agreed + 1 - first][2], entries[held][2])
    return Acceptance(agreed, entries[held:] if held else entries, previous + len(entries), conflict)


def rewind_to(log: LogView, committed: int, previous: int) -> int:
    """The index from which the leader shall go on after `previous` did not match; never at or below `committed`.

    Where `previous` is missing that is the end of our log; where its term differs, the first entry of our term
    there, since the leader disagrees with that whole term at least from here on.  So a walk back takes one round a
    term, and a node that has just started, and knows of no commit yet, need not be sent all it holds.
    """
    first, last = log[0][1], log[-1][1]
    floor = max(committed, first) + 1
    if previous > last:
        return max(floor, last + 1)
    if previous < first:
        return floor
    differing = log[previous - first][2]
    low, high = floor, previous  # terms never fall along a log, so the first entry of a term is found by halving
    while low < high:
        middle = (low + high) // 2
        if log[middle - first][2] < differing:
            low = middle + 1
        else:
            high = middle
    return max(floor, low)


def _contradiction(index: int, ours: int, theirs: int) -> FatalError:
    return FatalError(
        f"entry {index} is committed here with term {ours}, but the leader holds term {theirs} there. One of the two "
        f"logs is not a copy of the other. Stop this node, keep its data directory, and compare the nodes' journals"
    )


# ---- what an answer may do on the leader -------------------------------------------------------------------------


class Progress(NamedTuple):
    """What an answer changes on the leader; `rewound` says that the probe number goes up by one."""

    match_index: int
    next_index: int
    rewound: bool


def judge_answer(answer: Answer, probe: int, match_index: int, next_index: int, last_index: int) -> Progress:
    """What an answer of the leader's own term may do to what it knows of the follower.  Raises BadMessageError.

    A success never moves `next_index` back: what is in flight stays there.  A refusal rewinds only if it answers the
    present probe, since all batches of a refused pipeline are refused; and never to what the follower has confirmed.
    """
    if answer.next_index > last_index + 1:
        raise BadMessageError(f"next_node_idx: {answer.next_index} is beyond the end of the log, {last_index}")
    if answer.success:
        return Progress(max(match_index, answer.next_index - 1), max(next_index, answer.next_index), False)
    if answer.reset and answer.probe == probe:
        return Progress(match_index, max(answer.next_index, match_index + 1), True)
    return Progress(match_index, next_index, False)
