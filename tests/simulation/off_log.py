"""What stands in the place of mends of the log, of snapshots and of members while they are switched off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raftcron.core import codec
from raftcron.core.commands import Done
from raftcron.errors import UnavailableError
from raftcron.ports import Applied
from raftcron.raft import guard, leadership, membership, replay, roster, seam, segment, snapshot, snapshot_file
from raftcron.raft.configuration import encode
from raftcron.raft.journal import Journal
from raftcron.raft.snapshot_file import Reading
from raftcron.runtime import machine
from tests.simulation.switch import replaced


def flush_without_sync(self: Any) -> None:
    """Core.flush, but what was received is answered before it is durable."""
    waiting, self._waiting = self._waiting, []
    for node, message in waiting:
        if message["term"] == self.term:
            self._host.transmit(node.id, message)
    if self._verified_commit > self._SyncObj__raftCommitIndex and not self.is_leader:
        self._SyncObj__raftCommitIndex = self._verified_commit


def step_without_own_sync(self: Any) -> None:
    """Core.step, but a leader does not wait for its own disk: its copy counts like those of the others (row 5)."""
    seam._clock.current = self._time
    self.flush()
    self.doTick(0)
    if self.is_leader:
        self._replicate(everyone=False)


def commit_index_without_sync(self: Any, index: int) -> None:
    """Journal.setRaftCommitIndex, likewise."""
    self._commit_index = index


def own_vote_without_sync(self: Any, term: int, voted_for: str | None) -> None:
    """Journal.setCurrentTerm, but a vote for itself, and its term, may wait for the next sync (row 5)."""
    with replaced([(Journal, "sync", lambda _self: None)] if voted_for == self.identity.name else []):
        _set_current_term(self, term, voted_for)


def asked_before_the_sync(self: Any, node: Any, message: Any) -> bool:
    """Core._dispatch, but a candidate asks for votes before its own is durable (row 5)."""
    with replaced([(Journal, "sync", lambda _self: None)]):
        return _dispatch(self, node, message)


class NeverSynced:
    """A device whose sync does nothing."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def sync(self, handle: int) -> None:
        """It says that it has."""


class TriedAgain(NeverSynced):
    """A device whose sync is called a second time where it fails."""

    def sync(self, handle: int) -> None:
        """The second call finds nothing to do, as with a kernel that has dropped the pages."""
        try:
            self._device.sync(handle)
        except OSError:
            self._device.sync(handle)


def sync_without_sync(self: Any) -> None:
    """Journal.sync, but what is written is not synced."""
    _sync_by(NeverSynced, self)


def sync_tried_again(self: Any) -> None:
    """Journal.sync, but a sync that fails is tried again (the elections' last line)."""
    _sync_by(TriedAgain, self)


def _sync_by(kind: type[NeverSynced], journal: Any) -> None:
    device, journal._device = journal._device, kind(journal._device)
    try:
        _journal_sync(journal)
    finally:
        journal._device = device


def end_of_any_record(data: memoryview, offset: int, end: int, salt: int) -> int | None:
    """segment._end_of_record, but the checksum is not looked at (row 5)."""
    if offset + segment.RECORD_BYTES > end:
        return None
    length = int.from_bytes(data[offset + 4 : offset + 8], "little")
    stop = offset + segment.RECORD_BYTES + length
    return stop if stop <= end else None


def opened_without_the_last(self: Any, header: Any, data: memoryview) -> None:
    """Replay._take_open, but the last entry, and what follows it, counts as torn however whole it is (row 5)."""
    found = segment.records(data, len(data), header.salt)
    stop = max((offset for offset, kind, _ in found if kind == segment.Kind.ENTRY), default=len(data))
    _take_open(self, header, data[:stop])
    self._torn = len(data) - stop


def append_cuts_whatever_follows(log: Any, committed: int, append: Any) -> Any:
    """guard.judge_append, but as the stock engine judges: what follows goes, conflict or not (row 2)."""
    verdict = _judge_append(log, committed, append)
    if (
        isinstance(verdict, guard.Acceptance)
        and verdict.acknowledged < log[-1][1]
        and append.previous_index >= committed
    ):
        return guard.Acceptance(append.previous_index, append.entries, verdict.acknowledged, True)
    return verdict


def append_claims_all(log: Any, committed: int, append: Any) -> Any:
    """guard.judge_append, but an acknowledgement claims all that is held, checked or not (row 2)."""
    verdict = _judge_append(log, committed, append)
    if isinstance(verdict, guard.Acceptance) and not verdict.conflict:
        return verdict._replace(acknowledged=max(verdict.acknowledged, log[-1][1]))
    return verdict


def append_refused_by_two_rules(log: Any, committed: int, append: Any) -> Any:
    """guard.judge_append, but as the stock engine refuses: one index if entries are missing, another if one differs.

    Of a pipeline the first batch meets an entry that differs and the next ones find theirs missing (row 15).
    """
    verdict = _judge_append(log, committed, append)
    if isinstance(verdict, guard.Refusal):
        last = log[-1][1]
        return guard.Refusal(last + 1 if append.previous_index > last else append.previous_index)
    return verdict


def answer_always_rewinds(answer: Any, probe: int, match_index: int, next_index: int, last_index: int) -> Any:
    """guard.judge_answer, but each refusal of a pipeline rewinds, so that the last one wins (row 15)."""
    return _judge_answer(answer._replace(probe=probe), probe, match_index, next_index, last_index)


def answer_never_rewinds(answer: Any, probe: int, match_index: int, next_index: int, last_index: int) -> Any:
    """guard.judge_answer, but a leader goes by no refusal at all: no fault of the stock engine, but the other extreme.

    What rewinds once a probe (row 15) must rewind that once.
    """
    return _judge_answer(answer._replace(reset=False), probe, match_index, next_index, last_index)


def commit_index_of_any_append(self: Any, node: Any, append: Any) -> None:
    """Core._take_append, but the leader's commit index counts for all that is held here, checked or not (row 2)."""
    _take_append(self, node, append)
    if append.term == self.term:
        self._verified_commit = max(self._verified_commit, min(append.commit_index, self.last_index))


def answers_of_any_term(self: Any, node: Any, answer: Any) -> None:
    """Core._take_answer, but an answer of an earlier term is believed (row 4)."""
    _take_answer(self, node, answer._replace(term=max(answer.term, self.term)))


def old_leaders_hear_nothing(self: Any, node: Any, message: Any) -> bool:
    """Core._is_current, but an append of a lower term gets no answer (row 14)."""
    return False if message.term < self.term else _is_current(self, node, message)


def higher_terms_are_not_seen(self: Any, term: int) -> None:
    """Core.observe_term, but nobody learns of a higher term outside the engine's own messages (row 14)."""


def expire_says_not_written(self: Any, now: float) -> None:
    """Proposals.expire, but what is not known is called not written (row 7)."""
    for seq in self._first(lambda pending: pending.due_at <= now):
        if (future := self._pop(seq)) is not None:
            future.set_exception(UnavailableError("not written, perhaps"))


def ended_and_not_written(self: Any) -> None:
    """Leadership.ended, but what is pending is called not written as soon as this node leads no more (row 7)."""
    _leadership_ended(self)
    self._proposals.void_below(1 << 60)


def round_without_a_quorum(self: Any, number: int) -> None:
    """Reads._begin_round, but the leader asks nobody (row 12)."""
    self._rounds.answer(number, self._core.commit_index if self._may_confirm() else None)


async def read_what_is_here(self: Any) -> int:
    """Engine.read_index, but what has applied here is taken for the newest (row 12)."""
    return int(self._core.applied_index)


async def answered_when_appended(self: Any, body: bytes, epoch: int) -> Applied:
    """Engine.propose, but what is in the leader's log is called committed."""
    if self.leading_epoch is None:
        raise UnavailableError("does not lead")
    self._leadership._append(self._core, body, epoch)
    self._kick()
    index = self._core.last_index
    return Applied(index, Done("", 200, index=index))


def vote_forgotten(self: Any, term: int, voted_for: str | None) -> None:
    """Journal.setCurrentTerm, but nothing of it is durable (row 18)."""
    self._kept.term, self._kept.voted_for = term, voted_for


def vote_without_a_mark(self: Any, term: int, voted_for: str | None) -> None:
    """Journal.setCurrentTerm, but nothing says that a vote was synced: one that is damaged is a torn tail (row 18)."""

    def all_but_marks(journal: Any, kind: int, body: bytes) -> None:
        if kind != segment.Kind.MARK:
            _record(journal, kind, body)

    with replaced([(Journal, "_record", all_but_marks)]):
        _set_current_term(self, term, voted_for)


def nothing_is_damaged(self: Any, hello: Any, connected_disk: str | None) -> None:
    """Membership.admit, but a wiped disk is no stranger (row 18)."""


def whoever_has_the_name_counts(self: Any, hello: Any) -> bool:
    """Membership.counts, but a directory that was replaced votes and acknowledges for its successor (row 18)."""
    return True


def anybody_votes(self: Any, is_empty: bool, has_voted: bool) -> bool:
    """Membership.may_vote, but a node that holds nothing votes at once (row 18)."""
    return True


def majority_is_enough(self: Any) -> list[str]:
    """Membership.missing, but a majority of empty voters is enough to form a cluster (row 18)."""
    names = _missing(self)
    return names if len(names) > (len(self._peers) - 1) // 2 else []


def form_of_those_known(self: Any, cluster_id: str) -> bytes:
    """Membership.form, likewise."""
    self._disks.update({name: "later" for name in self._peers if name not in self._disks})
    return _form(self, cluster_id)


def anybody_stands(self: Any, is_empty: bool, has_voted: bool) -> bool:
    """Membership._is_founder, likewise: whom a cluster calls may found another one."""
    return not self.missing() or not is_empty


# ---- snapshots and members ---------------------------------------------------------------------------------------


def cut_and_rewind(answer: Any, probe: int, match_index: int, next_index: int, last_index: int) -> Any:
    """guard.judge_answer, but each refusal rewinds, late or not, below what was confirmed too (row 2)."""
    if answer.reset:
        return guard.Progress(match_index, answer.next_index, True)
    return _judge_answer(answer, probe, match_index, next_index, last_index)


def install_without_watermarks(self: Any) -> None:
    """Restoring.install, but the watermarks are not those of the snapshot."""
    _restoring_install(self)
    for job in self._machine.state.by_uid.values():
        job.decided_through = job.counted_from


def voided_by_a_snapshot(self: Any) -> None:
    """Leadership.installed, but what is pending is called not written (row 7)."""
    self._applied_epoch = self._machine.epoch
    self._proposals.void_below(self._applied_epoch)


def offer_moves_the_commit_index(self: Any, node: Any, offer: Any) -> None:
    """Core._take_offer, but what is in the snapshot counts as committed here (row 1)."""
    _take_offer(self, node, offer)
    if offer.term == self.term:
        self._verified_commit = max(self._verified_commit, min(offer.index, self.last_index))


def aligned_with_blanks(self: Any, index: int, term: int) -> None:
    """Journal.align, but a log that ends before the snapshot is drawn out to it by entries that say nothing (row 3)."""
    while self.last_index < index:
        self.add(seam.NO_OP, self.last_index + 1, term)
    _align(self, index, term)


def aligned_by_clearing(self: Any, index: int, term: int) -> None:
    """Journal.align, but whatever the log holds gives way to the snapshot (row 3)."""
    if index > self._commit_index:
        with replaced([(type(self._kept), "holds", lambda *_: False)]):
            self.reset(index, term)
    else:
        _align(self, index, term)


class Trusting(Reading):
    """snapshot_file.Reading, but no checksum is looked at (row 21)."""

    def _frame(self) -> tuple[int, bytes]:
        head = self._bytes(self.offset, snapshot_file._FRAME.size)
        _, length, kind = snapshot_file._FRAME.unpack(head)
        body = self._bytes(self.offset + len(head), length)
        self.offset += len(head) + length
        if kind != snapshot_file.FOOTER:
            self._hash.update(head + body)
        return kind, body

    def blocks(self) -> Iterator[bytes]:
        while (frame := self._frame())[0] == snapshot_file.BLOCK:
            yield frame[1]


def verified_without_a_look(self: Any, snapshot_id: str) -> Any:
    """SnapshotStore._verified, but the file is what its name says."""
    reading = Trusting(self.device, self._path(snapshot_id))
    for _ in reading.blocks():
        pass
    return reading.info._replace(id=snapshot_id)


def blocks_without_a_look(self: Any, info: Any) -> Iterator[bytes]:
    """SnapshotStore.blocks, likewise."""
    yield from Trusting(self.device, self._path(info.id)).blocks()


def finished_without_a_look(self: Any) -> Any:
    """image.Reader.finish, but whatever came is what was written."""
    self.state.digest = int.from_bytes(self._end.digest, "little")
    return self.state


def written_and_not_read(self: Any) -> Iterator[None]:
    """Writing.check, but what is on the disk is taken for what was written."""
    self._complete()
    if self._handle is not None:
        self._device.sync(self._handle)
        self._close()
    reading = Trusting(self._device, self._path)
    yield from (None for _ in reading.blocks())
    self._info = reading.info._replace(id=f"{reading.header.index}-{reading.header.term}-{self._encoder.digest}")


def store_that_never_syncs(self: Any, directory: Any, device: Any, *rest: Any) -> None:
    """SnapshotStore, but it takes for durable what is only written (row 3)."""
    _store_init(self, directory, NeverSynced(device), *rest)


def offer_without_an_answer(self: Any, node: Any, offer: Any) -> None:
    """Core._take_offer, but the leader hears nothing of who loads a snapshot (row 9)."""
    waiting = list(self._waiting)
    _take_offer(self, node, offer)
    self._waiting = waiting


def offer_that_does_not_fit(self: Any, node: Any, flow: Any) -> None:
    """Core._offer, but what is sent is not what the guard lets through (row 8)."""
    if (offer := self._host.offer(node.id)) is not None:
        message = offer._replace(term=self.term, probe=flow.probe, size=0)
        self._host.transmit(node.id, {"type": "offer", **message._asdict()})


def decoded_of_any_version(body: bytes) -> Any:
    """codec.decode_entry, but the version is not looked at (row 19)."""
    return decode_entry(bytes([codec.ENTRY_VERSION]) + bytes(body[1:]))


def learners_count(self: Any, voters: Any, learners: Any) -> Any:
    """Core.set_members, but learners are as good as voters (row 17)."""
    return _set_members(self, [*voters, *learners], [])


def change_at_any_time(self: Any, ground: Any) -> Any:
    """Membership._may_change, but another change need not be committed (row 17)."""
    return self.newest


async def change_beside_another(self: Any, core: Any, make: Any, seconds: float) -> int:
    """Roster.change, likewise."""
    self._changing = None
    return await _change(self, core, make, seconds)


def promoted_at_once(self: Any, ground: Any, *rest: Any) -> Any:
    """Membership.due, but all learners vote from one and the same entry on (row 17)."""
    due = _due(self, ground, *rest)
    if due is None or self.awaited or len(self.learners) < 2:
        return due
    configuration = self._may_change(ground)
    for name in self.learners:
        configuration = configuration.promoted(name)
    return encode(self._told(configuration))


_missing, _form = membership.Membership.missing, membership.Membership.form
_restoring_install, _take_offer, _align = machine.Restoring.install, seam.Core._take_offer, Journal.align
_due, _take_open = membership.Membership.due, replay.Replay._take_open
_set_members, _change = seam.Core.set_members, roster.Roster.change


_judge_append, _judge_answer, _take_answer = guard.judge_append, guard.judge_answer, seam.Core._take_answer
_is_current, _journal_sync = seam.Core._is_current, Journal.sync
_take_append, _leadership_ended = seam.Core._take_append, leadership.Leadership.ended
_dispatch, _set_current_term, _record = seam.Core._dispatch, Journal.setCurrentTerm, Journal._record
_store_init, decode_entry = snapshot.SnapshotStore.__init__, codec.decode_entry
