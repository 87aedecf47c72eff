"""A journal beside a plain model of what it must hold, through lives, crashes and power cuts; for tests."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from raftcron.errors import FatalError
from raftcron.raft.journal import Journal
from tests.raft.memory_disk import MemoryDisk

DIRECTORY = Path("/data/journal")

Entry = tuple[bytes, int, int]


class State(NamedTuple):
    """What a journal holds.  `log` has all entries that may come back, those before `through` too."""

    log: tuple[Entry, ...] = ()
    through: int = 0  # entries up to it may be gone
    term: int = 0
    voted_for: str | None = None
    cluster_id: str | None = None
    lives: int = 0

    @property
    def first(self) -> int:
        return self.log[0][1] if self.log else 0

    @property
    def last(self) -> int:
        return self.log[-1][1] if self.log else 0

    def term_of(self, index: int) -> int | None:
        return self.log[index - self.first][2] if self.first <= index <= self.last else None

    def allows(self, found: State) -> bool:
        """Whether an opened journal may hold `found`: all of this, but that entries before `through` may be gone."""
        if found._replace(log=(), through=0) != self._replace(log=(), through=0) or bool(found.log) != bool(self.log):
            return False
        if not self.log or found.log == self.log:
            return True
        index = found.first
        return (
            self.first <= index <= self.through
            and found.log[0] in {(b"", index, self.term_of(index)), self.log[index - self.first]}
            and found.log[1:] == self.log[index - self.first + 1 :]
        )


def found_in(journal: Journal) -> State:
    """What a journal that has just been opened holds."""
    found = State(
        tuple(journal),
        journal.first_index if journal.needs_snapshot else 0,
        journal.getCurrentTerm(),
        journal.getVotedForNodeId(),
    )
    with suppress(FatalError):  # it has no name yet
        identity = journal.identity
        assert identity[:2] == ("n1", "disk-1")
        return found._replace(cluster_id=identity.cluster_id, lives=identity.incarnation)
    return found


class Model:
    """One node's journal.  Every method may raise Died, if the disk was told so; then `recover` goes on."""

    def __init__(self, disk: MemoryDisk, segment_bytes: int) -> None:
        self.disk = disk
        self.segment_bytes = segment_bytes
        self.state = State()
        self.possible = [self.state]  # what may be found after a crash now
        self.commit = 1
        self.snapshot: tuple[int, int] = (0, 0)  # index and term of its last entry; durable
        self.in_memory: list[Entry] = []
        self.history = [(DIRECTORY / "000000000001.segment", self.state)]  # each state, and the newest segment then

    # ---- lives ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.disk.fails.clear()
        self.journal = Journal.open(DIRECTORY, self.disk, self.segment_bytes)
        journal = self.journal
        found = found_in(journal)
        assert any(state.allows(found) for state in self.possible), (
            f"found {found}\nwhere one of these was possible:\n" + "\n".join(map(str, self.possible))
        )
        self.state = found
        self.possible = [found]
        self.in_memory = list(journal)
        self.commit = max(found.first, 1)
        self._align()
        assert (journal.begin("n1", "disk-1").name, journal.begin("n1", "disk-2").disk_id) == ("n1", "disk-1")
        self._do(self.state._replace(lives=found.lives + 1), journal.next_incarnation, durable=True)
        self.check()

    def _align(self) -> None:
        """As at every start: the newest snapshot may be ahead of the log."""
        index, term = self.snapshot
        if index and self.state.term_of(index) != term:
            self._restart(lambda: self.journal.align(index, term))
        else:
            self.journal.align(index, term)
            self.commit = max(self.commit, index)

    def close(self) -> None:
        self._do(self.state, self.journal._destroy, durable=True)
        self.open()

    def recover(self, reaches_disk: Callable[[], bool] | None) -> None:
        """The process is gone; with `reaches_disk` the power too.  The next life finds what it may."""
        if reaches_disk is None:
            self.disk.kill()
        else:
            self.disk.cut_power(reaches_disk)
        self.open()

    # ---- writing -------------------------------------------------------------------------------------------------

    def _do(self, then: State, action: Callable[[], object], durable: bool = False) -> None:
        if then != self.state:
            self.possible.append(then)
        action()
        self.state = then
        self.history.append((max(self.disk.files), then))
        if durable:
            self.possible = [then]

    def add(self, command: bytes, newer_term: int = 0) -> None:
        index = self.state.last + 1
        term = max(self.state.term, self.state.log[-1][2] if self.state.log else 0) + newer_term
        entry = (command, index, term)
        self._do(self.state._replace(log=(*self.state.log, entry)), lambda: self.journal.add(*entry))
        self.in_memory.append(entry)

    def can_cut(self) -> bool:
        return self.state.last > max(self.commit, self.journal.first_index)

    def cut(self, share: float) -> None:
        """Take back some of what is not committed."""
        least = max(self.commit, self.journal.first_index) + 1
        index = least + int(share * (self.state.last + 1 - least))
        then = self.state._replace(log=self.state.log[: index - self.state.first])
        self._do(then, lambda: self.journal.deleteEntriesFrom(index - self.journal.first_index))
        del self.in_memory[index - self.in_memory[0][1] :]

    def vote(self, step: int, voted_for: str | None) -> None:
        term = self.state.term + step
        then = self.state._replace(term=term, voted_for=voted_for)
        self._do(then, lambda: self.journal.setCurrentTerm(term, voted_for), durable=True)

    def join(self) -> None:
        then = self.state._replace(cluster_id="c-1")
        self._do(then, lambda: self.journal.set_cluster_id("c-1"), durable=then != self.state)

    def sync(self) -> None:
        self._do(self.state, self.journal.sync, durable=True)
        assert self.journal.synced_index == self.state.last
        assert self.journal.pending_bytes == 0

    def commit_all(self) -> None:
        if self.state.last > self.journal.synced_index:
            self.sync()
        self.journal.setRaftCommitIndex(max(self.state.last, 1))
        self.commit = max(self.state.last, 1)

    def second(self) -> None:
        self.journal.onOneSecondTimer()

    def shortage(self) -> None:
        """There is no descriptor for another file, or there are some again."""
        if self.disk.fails.pop("create", None) is None:
            self.disk.fails["create"] = OSError(errno.EMFILE, "Too many open files")

    # ---- snapshots -----------------------------------------------------------------------------------------------

    def can_compact(self) -> bool:
        return self.journal.first_index <= self.commit <= self.state.last and self.state.last > 0

    def _hear_a_term(self) -> None:
        if not self.state.term:
            self.vote(1, None)  # nobody has a snapshot before there was a leader

    def compact(self, snapshot: float, kept: float) -> None:
        """A snapshot is durable somewhere in what is committed; entries before it are kept, some."""
        self._hear_a_term()
        first = self.journal.first_index
        index = max(self.snapshot[0], first + int(snapshot * (self.commit - first)))
        through = first + int(kept * (index - first))
        self.snapshot = (index, self.state.term_of(index))
        # what is not synced may be lost, and segments be gone
        self.possible += [state._replace(through=max(state.through, through)) for state in self.possible]
        then = self.state._replace(through=max(self.state.through, through))
        self._do(then, lambda: self.journal.compact(through))
        del self.in_memory[: through - first]

    def reset(self, ahead: int) -> None:
        """A snapshot of others is durable here that the log does not join, beyond its end or in place of an entry."""
        self._hear_a_term()
        least = max(self.commit, self.state.first) + 1
        index = least + ahead
        self.snapshot = (index, (self.state.term_of(index) or self.state.term) + 1)
        self._restart(lambda: self.journal.reset(*self.snapshot))

    def _restart(self, action: Callable[[], None]) -> None:
        index, term = self.snapshot
        self.disk.fails.clear()  # a shortage here is the end, until there are some again
        self._do(self.state._replace(log=((b"", index, term),), through=index), action, durable=True)
        self.commit = index
        self.in_memory = [(b"", index, term)]

    # ---- what always holds ---------------------------------------------------------------------------------------

    def check(self) -> None:
        journal, log = self.journal, self.in_memory
        assert journal[:] == list(journal) == log
        assert len(journal) == len(log)
        assert (journal.first_index, journal.last_index) == ((log[0][1], log[-1][1]) if log else (0, 0))
        assert journal.log_bytes == sum(len(command) for command, _, _ in log)
        assert journal.getRaftCommitIndex() == self.commit
        assert journal.synced_index <= journal.last_index
        assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (self.state.term, self.state.voted_for)
        written = sum(len(data) for data in self.disk.files.values())
        assert journal.disk_bytes == written
