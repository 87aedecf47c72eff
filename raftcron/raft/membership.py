"""Who belongs to the cluster, as one node sees it: first formation, admission, who votes, and what may change; pure.

The Raft identity of a node is (name, disk id); the disk id is drawn when a data directory is first used.  Until the
cluster has formed, the members are the configured names.  It forms once, when *every* configured voter has been heard
to be empty: with a majority alone, one lost disk and one crash would form a second cluster beside the first.  From the
formation entry on, the log's configuration entries alone say who belongs (configuration.py).  One counts from the
moment it stands in the log, and no more if it is cut off again; so this room follows the log entry by entry.

Who has lost its disk has lost votes and acknowledgements, so it comes back as another: its seat is given up in one
entry and awaits an empty directory, which learns until it has caught up, and votes then.  A node that holds nothing has
no vote until the log gives it a seat, unless it founds the cluster with all the others.

What changes: one thing at a time, by a leader whose leadership entry has applied and of which a majority of the voters
was heard within the last second; and never so that those who are heard would be less than a majority afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from operator import itemgetter
from typing import NamedTuple

from raftcron.errors import (
    ConfigurationError,
    ConflictError,
    FatalError,
    NotFoundError,
    UnavailableError,
    UnsafeChangeError,
)
from raftcron.raft.configuration import (
    MAX_MEMBERS,
    Address,
    Configuration,
    Seat,
    decode,
    encode,
    encode_formation,
    is_configuration,
)
from raftcron.raft.transport import Hello

logger = logging.getLogger(__name__)

MAX_WORDS = 2 * MAX_MEMBERS  # of peers that are kept, the newest
CAUGHT_UP_ENTRIES = 1_000  # so many are on their way to a follower that keeps up; they take a fraction of a second

BRANCHES = (  # of `admit` that are counted: why somebody does not come in
    "not admitted (our own name)",
    "not admitted (another cluster)",
    "not admitted (stranger)",
    "not admitted (removed)",
    "not admitted (awaited, but not empty)",
    "not admitted (another directory)",
    "not admitted (second disk of a name)",
)

Entry = tuple[bytes, int, int]  # command, index, term: as the journal has them


class Ground(NamedTuple):
    """What a leader stands on while it changes the members."""

    is_confirmed: bool  # its leadership entry of this term has applied
    answered: Collection[str]  # the members, voters and learners, that answered within the last second


class Membership:
    """One node's view of who the members are."""

    def __init__(self, name: str, peers: Mapping[str, Address], disk_id: str, cluster_id: str | None) -> None:
        """`peers` are the configured voters, this one too, with their addresses; `cluster_id` is the journal's."""
        self._name = name
        self._peers = dict(sorted(peers.items()))
        self._disk = disk_id
        self._cluster_id = cluster_id
        self._seen: list[tuple[int, Configuration]] = []  # in the log; at most the first of them has applied
        self._applied_index = 0  # of the last configuration that has applied
        self._words: list[tuple[int, Configuration]] = []  # of peers, about what has not applied here
        self._disks = {name: disk_id}  # as last heard
        self._is_late = False  # a node that belongs to a cluster has come before this one had heard of any
        self._empty: set[str] = set()  # who was heard to be empty since this process began
        self._strange: dict[str, bool] = {}  # who was heard, and whether it belonged to no cluster then
        self._turned_away: dict[str, str] = {}  # voters that refuse this node, and why
        self._is_warned = False
        self.passes = dict.fromkeys(BRANCHES, 0)  # how often each was taken
        if name not in self._peers:
            raise ConfigurationError(f"this node is called {name!r}, but the members are {', '.join(self._peers)}")

    # ---- what holds now ------------------------------------------------------------------------------------------

    @property
    def cluster_id(self) -> str | None:
        """None until a configuration has applied here."""
        return self._cluster_id

    @property
    def newest(self) -> Configuration | None:
        """From the log, committed or not; None while it has none."""
        return self._seen[-1][1] if self._seen else None

    @property
    def settled(self) -> Configuration | None:
        """The last one that has applied here in this process; None before."""
        return self._seen[0][1] if self._seen and self._seen[0][0] <= self._applied_index else None

    @property
    def seats(self) -> Mapping[str, Seat]:
        """All members now, by name; before the formation the configured voters, whose disks are not known."""
        if (newest := self.newest) is not None:
            return newest.seats
        return {name: Seat(None, raft, is_voter=True) for name, raft in self._peers.items()}

    @property
    def voters(self) -> list[str]:
        """All voters now, by name, this node too if it is one."""
        return sorted(name for name, seat in self.seats.items() if seat.is_voter)

    @property
    def learners(self) -> list[str]:
        """Who is replicated to and does not vote.

        Only once the entry with its disk has applied: else that entry could be cut, and the learner, not empty any
        more, would come in nowhere.
        """
        newest, settled = self.newest, self.settled
        if newest is None or settled is None:
            return []
        return sorted(
            name
            for name, seat in newest.seats.items()
            if not seat.is_voter and seat.disk is not None and settled.has(name, seat.disk)
        )

    @property
    def awaited(self) -> list[str]:
        """Seats without a disk."""
        newest = self.newest
        return [] if newest is None else sorted(name for name, seat in newest.seats.items() if seat.is_awaited)

    @property
    def is_voter(self) -> bool:
        """Whether this very node votes, as the log has it; before the formation, as configured."""
        return self._name in self.voters and (self.newest is None or self.newest.has(self._name, self._disk))

    @property
    def lives(self) -> int:
        """Of former nodes of this name: this node's incarnations are counted on from there."""
        seat = self.seats.get(self._name)
        return seat.lives if seat is not None and seat.disk == self._disk else 0

    @property
    def addresses(self) -> dict[str, Address]:
        """Where others are reached that are members or may be, this node too.

        Where this node is behind, the leader may be one of those whom only its settings, or its peers, know; and a
        member that has been taken out stays until that has applied.  What was told to the cluster goes first, then this
        node's settings, then what the formation says.
        """
        gone = {name for name, _ in self.newest.removed} if self.newest is not None else set[str]()
        found = {name: address for name, address in self._peers.items() if name not in gone}
        told = [configuration for _, configuration in self._words]
        for configuration in (self.settled, self.newest, *told):
            for name, seat in () if configuration is None else configuration.seats.items():
                address = seat.raft if seat.is_placed else self._peers.get(name, seat.raft)
                if address is not None:
                    found[name] = address
        return dict(sorted(found.items()))

    # ---- what peers say, to find and to let in who is a member; nothing is counted by it ---------------------------

    @property
    def words(self) -> list[tuple[int, bytes]]:
        """What a peer that is behind should know: the newest two configurations of the log, with their indices.

        The newest one may not be committed, and then the one before it is: members are changed one at a time.  After a
        start, though, nobody knows what is committed until somebody leads, and to elect a leader those who vote may
        have to hear of each other first.
        """
        return [] if self.settled is None else [(index, encode(one)) for index, one in self._seen[-2:]]

    def hear(self, index: int, configuration: bytes) -> bool:
        """A peer's word; True if it says what this node has not heard.

        Raises FatalError of any kind for bytes that are no configuration to this release; nothing has changed then.
        """
        if index <= self._applied_index:
            return False
        heard = index, decode(configuration)
        if self._cluster_id not in (None, heard[1].cluster_id) or heard in self._words or heard in self._seen:
            return False
        self._words = sorted([*self._words, heard][-MAX_WORDS:], key=itemgetter(0))  # what is told last goes first
        return True

    # ---- the log -------------------------------------------------------------------------------------------------

    def received(self, begin: int, entries: Iterable[Entry]) -> bool:
        """From index `begin` on the log holds these entries now; True if the configuration has changed.

        At start: with the whole journal.  Raises NewerVersionError, DamagedError.
        """
        before = self.newest
        self.cut_from(begin)
        for command, index, _term in entries:
            if is_configuration(command):
                self.see(index, command)
        return self.newest is not before

    def see(self, index: int, command: bytes) -> None:
        """The log holds this configuration entry behind what was seen before; it counts at once.

        Raises NewerVersionError, DamagedError.
        """
        self._seen.append((index, decode(command)))

    def cut_from(self, index: int) -> None:
        """The log has lost its entries from `index` on, and with them what they said."""
        if index <= self._applied_index:
            raise FatalError(
                f"the log is cut from {index} on, and a configuration at {self._applied_index} has applied"
            )
        while self._seen and self._seen[-1][0] >= index:
            self._seen.pop()

    def apply(self, index: int) -> None:
        """The configuration entry of this index, which was seen, is committed.

        Raises ConfigurationError, FatalError: this node is not what it says, or belongs no more.
        """
        while len(self._seen) > 1 and self._seen[1][0] <= index:
            del self._seen[0]
        if not self._seen or self._seen[0][0] != index:
            raise FatalError(f"a configuration that nobody saw applies at {index}; this is a defect of raft/")
        self._settle(index, self._seen[0][1])

    def encoded(self, index: int) -> bytes:
        """The configuration as of `index`, at least the last one that applied, for a snapshot; empty if none is."""
        of = [configuration for at, configuration in self._seen if at <= index]
        if self._applied_index > index:
            raise FatalError(f"the configuration of {index} is asked for after that of {self._applied_index} applied")
        return encode(of[-1]) if of else b""

    def restore(self, index: int, configuration: bytes) -> None:
        """What `encoded` gave for `index` holds there: a snapshot was restored.

        What was seen behind the index stays; if the log has lost it, `cut_from` comes first.  Raises as `apply`,
        NewerVersionError and DamagedError.
        """
        self._seen = [(at, one) for at, one in self._seen if at > index]
        if configuration:
            self._seen.insert(0, (index, decode(configuration)))
            self._settle(index, self._seen[0][1])

    def _settle(self, index: int, configuration: Configuration) -> None:
        if self._cluster_id is not None and configuration.cluster_id != self._cluster_id:
            raise FatalError(
                f"this data directory belongs to cluster {self._cluster_id}, but the log to cluster "
                f"{configuration.cluster_id}: the directory holds files of two clusters"
            )
        if (self._name, self._disk) in configuration.removed:
            raise ConfigurationError(_gone(self._name, self._disk, configuration))
        self._cluster_id = configuration.cluster_id
        self._applied_index = index
        self._words = [word for word in self._words if word[0] > index]
        if self.newest is configuration:
            self._compare_settings(configuration)

    def _compare_settings(self, configuration: Configuration) -> None:
        """Founders have to agree on who founds; later settings may lag behind what the cluster has decided."""
        if sorted(configuration.seats) == list(self._peers) or not configuration.has(self._name, self._disk):
            return
        configured, actual = ", ".join(self._peers), ", ".join(sorted(configuration.seats))
        if configuration.is_first:
            raise ConfigurationError(
                f"the configured members are {configured}, but the cluster was formed by {actual}: configure the same "
                f"members on every node; to add one to a cluster, run: raftcron cluster add NAME"
            )
        if not self._is_warned:
            self._is_warned = True
            logger.warning(
                "members_differ node=%s configured=%s cluster=%s next=the_cluster_counts;_mend_the_settings",
                self._name,
                configured,
                actual,
            )

    # ---- admission -----------------------------------------------------------------------------------------------

    def admit(self, hello: Hello, connected_disk: str | None) -> str | None:
        """Why a peer is refused; None if it may come in.

        `connected_disk` is the disk id of the peer that is connected under this name now, None if there is none.

        A disk of this cluster that is not known here was given its seat by entries that this node does not have yet,
        and may well be the leader's; one that has lost its seat is to be told so.  Neither of them `counts`.
        """
        name = hello.name
        if name == self._name:
            self.passes["not admitted (our own name)"] += 1
            return f"two nodes are called {name}: give one of them another name"
        if self._cluster_id is not None and hello.cluster_id is not None and hello.cluster_id != self._cluster_id:
            self.passes["not admitted (another cluster)"] += 1
            return (
                f"{name} belongs to cluster {hello.cluster_id}, {self._name} to cluster {self._cluster_id}: "
                f"one of the two has the data directory of another cluster"
            )
        newest = self.newest
        if newest is None:
            self._is_late = self._is_late or hello.cluster_id is not None
            if name not in (known := self.addresses):
                self.passes["not admitted (stranger)"] += 1
                return _stranger(name, known)
        elif newest.has(name, hello.disk_id):
            return None  # whoever else has come under its name makes room
        elif any(configuration.has(name, hello.disk_id) for _, configuration in self._seen):
            pass  # its seat may be in force again, if an entry is cut
        elif (name, hello.disk_id) in newest.removed:
            self.passes["not admitted (removed)"] += 1
            return _gone(name, hello.disk_id, newest)
        elif hello.cluster_id is None and (reason := self._why_not_taken(hello, newest)) is not None:
            return reason
        if connected_disk is not None and connected_disk != hello.disk_id:
            self.passes["not admitted (second disk of a name)"] += 1
            return f"two nodes are called {name}: one with disk {connected_disk}, one with disk {hello.disk_id}"
        return None

    def counts(self, hello: Hello) -> bool:
        """Whether a peer's votes, acknowledgements and confirmations count: it has the disk that the log seats.

        Who has lost its seat may come back, with all that it held then, beside members that have not heard of that; it
        would make a majority that lacks what was acknowledged since.
        """
        newest = self.newest
        return newest is None or newest.has(hello.name, hello.disk_id)

    def gone(self, hello: Hello) -> str | None:
        """Why a peer was a member and is none any more, by an entry that may still be cut; None if it is none such."""
        newest = self.newest
        if newest is None or (hello.name, hello.disk_id) not in newest.removed:
            return None
        return _gone(hello.name, hello.disk_id, newest)

    def _why_not_taken(self, hello: Hello, newest: Configuration) -> str | None:
        """Why no seat is for a node that belongs to no cluster yet; None if one is."""
        name = hello.name
        if name not in newest.seats:
            self.passes["not admitted (stranger)"] += 1
            return _stranger(name, newest.seats)
        seat = newest.seats[name]
        if seat.is_awaited:
            if hello.is_empty:
                return None
            self.passes["not admitted (awaited, but not empty)"] += 1
            return (
                f"{name} is awaited with an empty data directory, and comes with another one (disk {hello.disk_id}): "
                f"move what is in it away, and start {name} again"
            )
        self.passes["not admitted (another directory)"] += 1
        what = "an empty data directory" if hello.is_empty else "another data directory"
        return (
            f"{name} comes with {what} (disk {hello.disk_id}, the cluster knows disk {seat.disk}): start it on its own "
            f"directory, or, if that is lost, run: raftcron cluster replace {name}"
        )

    def turned_away(self, peer: str, reason: str) -> None:
        """A peer does not let this node in.  Raises ConfigurationError once a majority of the voters says so.

        One word is not enough: the peer may be the one that is wrong.  It is enough for the removal of this very disk,
        which is committed where it is told: where many were removed no majority is left to tell it.
        """
        if reason.startswith(_gone_begins(self._name, self._disk)):
            raise ConfigurationError(f"{reason} (says {peer})")
        voters = self.voters
        if peer not in voters:
            return
        self._turned_away[peer] = reason
        said = {name: why for name, why in sorted(self._turned_away.items()) if name in voters}
        if len(said) > len(voters) // 2:
            words = "; ".join(f"{name}: {why}" for name, why in said.items())
            raise ConfigurationError(f"a majority of the cluster does not let node {self._name} in. {words}")

    def heard(self, hello: Hello) -> None:
        """A peer was admitted with these words, and has let this node in; what others said before may be old."""
        self._turned_away.clear()
        self._disks[hello.name] = hello.disk_id
        self._strange[hello.name] = hello.cluster_id is None
        if hello.is_empty:
            self._empty.add(hello.name)

    # ---- votes ---------------------------------------------------------------------------------------------------

    def may_stand(self, is_empty: bool, has_voted: bool) -> bool:
        """Whether this node may stand for election.  Arguments as of `may_vote`."""
        return self.is_voter if self._seen else self._is_founder(is_empty, has_voted)

    def may_vote(self, is_empty: bool, has_voted: bool) -> bool:
        """Whether this node may grant a vote or a pre-vote; who counts it is for the candidate to know.

        A learner may: it may be a voter already by an entry that has not reached it, and be needed.  Candidates know
        it by its disk, so that it is no other than the one that the entry means.

        `is_empty`: it holds no entry and has seen no term.  `has_voted`: its journal has a vote in its term.
        """
        newest = self.newest
        return self._is_founder(is_empty, has_voted) if newest is None else newest.has(self._name, self._disk)

    def _is_founder(self, is_empty: bool, has_voted: bool) -> bool:
        """Without a configuration in its log a node votes as a founder of the cluster, and only if it certainly is.

        It is if all the others were empty, or if it has voted before; an empty one whom a cluster calls is none.  One
        that has only heard of a term may also have been let in by a cluster: it is a founder if none of the others
        belongs to one.
        """
        if self._is_late and is_empty:
            return False
        if not self.missing():
            return True
        is_among_strangers = all(self._strange.get(name, False) for name in self._peers if name != self._name)
        return not is_empty and (has_voted or is_among_strangers)

    # ---- formation -----------------------------------------------------------------------------------------------

    def missing(self) -> list[str]:
        """The configured voters that have not been heard to be empty: whom a first formation waits for."""
        return [name for name in self._peers if name != self._name and name not in self._empty]

    def unknown(self) -> list[str]:
        """The configured voters whose disk id is not known: whom a first leader waits for."""
        return [name for name in self._peers if name not in self._disks]

    def form(self, cluster_id: str) -> bytes:
        """The formation entry of all configured voters, once no disk is unknown."""
        seats = {name: Seat(self._disks[name], raft, is_voter=True) for name, raft in self._peers.items()}
        return encode_formation(Configuration(cluster_id, seats))

    # ---- changes: the next entry, or None if there is nothing to do ------------------------------------------------

    def add(self, name: str, raft: Address, http: str, lives: int, ground: Ground) -> bytes | None:
        """Await a new member, which learns and then votes.

        `lives`: of former nodes of this name, 0 if there was none.  Raises ConflictError, UnavailableError.
        """
        newest = self._may_change(ground)
        if (seat := newest.seats.get(name)) is not None:
            at = self.addresses.get(name, raft)
            if (at, seat.http or http) == (raft, http):
                return None
            raise ConflictError(
                f"{name} is a member already, reached by its peers at {_shown(at)}. If it has moved, and its data "
                f"directory with it, tell each node by --peer; else: raftcron cluster replace {name} --raft HOST:PORT"
            )
        if len(newest.seats) >= MAX_MEMBERS:
            raise ConflictError(
                f"the cluster has {len(newest.seats)} members, at most {MAX_MEMBERS} are taken: remove one first"
            )
        self._check_address(name, raft)
        return encode(self._told(newest).added(name, raft, http, lives))

    def remove(self, name: str, ground: Ground) -> bytes | None:
        """The member belongs no more.  Raises NotFoundError, ConflictError, UnsafeChangeError, UnavailableError."""
        newest = self._may_change(ground)
        self._seat(newest, name)
        changed = newest.without(name)
        self._check_quorum(f"remove {name}", name, changed, ground)
        return encode(self._told(changed))

    def replace(self, name: str, raft: Address | None, http: str | None, lives: int, ground: Ground) -> bytes | None:
        """Give up the member's disk, and await an empty directory under its name, perhaps at other addresses.

        Raises as `remove`.
        """
        newest = self._may_change(ground)
        seat = self._seat(newest, name)
        if raft is not None:
            self._check_address(name, raft)
            seat = seat._replace(raft=raft, is_placed=True)
        if http is not None:
            seat = seat._replace(http=http)
        if seat.is_awaited and seat == newest.seats[name]:
            return None
        changed = newest.replaced(name, seat._replace(lives=max(lives, seat.lives)))
        self._check_quorum(f"replace {name}", name, changed, ground)
        return encode(self._told(changed))

    def due(
        self,
        ground: Ground,
        hello_of: Callable[[str], Hello | None],
        match_index: Callable[[str], int],
        commit_index: int,
    ) -> bytes | None:
        """What a leader changes by itself; to be asked on each heartbeat.

        An awaited member that is connected with an empty directory takes its seat; a learner that has caught up votes
        from now on, if it answers.
        `hello_of` is what a connected member said of itself; `match_index` what a learner holds.
        """
        try:
            newest = self._may_change(ground)
        except UnavailableError:
            return None
        for name in self.awaited:
            hello = hello_of(name)
            if hello is not None and hello.is_empty and (name, hello.disk_id) not in newest.removed:
                return encode(self._told(newest).learned(name, hello.disk_id))
        for name in self.learners:
            enough = max(self._applied_index, commit_index - CAUGHT_UP_ENTRIES)  # its seat, and nearly all
            if name in ground.answered and match_index(name) >= enough:
                return encode(self._told(newest.promoted(name)))
        return None

    def _may_change(self, ground: Ground) -> Configuration:
        """Raises UnavailableError: not now; nothing is written."""
        newest = self.newest
        if newest is None or not ground.is_confirmed:
            raise UnavailableError(f"node {self._name} has just been elected and is not ready to lead yet; repeat it")
        if newest is not self.settled:
            raise UnavailableError(
                f"another change of the members, entry {self._seen[-1][0]}, is not committed yet: repeat it a little "
                f"later; if that lasts, too few of {', '.join(newest.voters)} are up"
            )
        if len(self._living(newest, ground)) < _majority(newest):
            raise UnavailableError(f"no majority of {', '.join(newest.voters)} has answered within the last second")
        return newest

    def _living(self, configuration: Configuration, ground: Ground) -> set[str]:
        """The voters that were just heard, this node among them."""
        return set(configuration.voters) & {self._name, *ground.answered}

    def _check_quorum(self, what: str, name: str, changed: Configuration, ground: Ground) -> None:
        voters = changed.voters
        if not voters:
            raise UnsafeChangeError(f"cannot {what}: it is the only voter, and without it there is no cluster")
        if name == self._name:
            raise UnavailableError(f"cannot {what}: it leads; hand over the lead first: raftcron cluster transfer")
        living = self._living(changed, ground)
        if len(living) < _majority(changed):
            silent = sorted(set(voters) - living)
            raise UnsafeChangeError(
                f"cannot {what}: of the voters that stay ({', '.join(voters)}) {_majority(changed)} have to answer, "
                f"and {' and '.join(silent)} {'does' if len(silent) == 1 else 'do'} not: nothing could be committed "
                f"any more. Start {' and '.join(silent)} first, or add a member"
            )

    def _check_address(self, name: str, raft: Address) -> None:
        for other, address in self.addresses.items():
            if address == raft and other != name:
                raise ConflictError(f"{other} is reached at {_shown(raft)}: {name} needs an address of its own")

    @staticmethod
    def _seat(configuration: Configuration, name: str) -> Seat:
        if name not in configuration.seats:
            raise NotFoundError(f"{name} is not a member; the members are {', '.join(configuration.seats)}")
        return configuration.seats[name]

    def _told(self, configuration: Configuration) -> Configuration:
        """With the addresses that a formation of version 1 has left to nodes' settings."""
        seats = {
            name: seat if seat.raft is not None else seat._replace(raft=self._peers.get(name))
            for name, seat in configuration.seats.items()
        }
        return configuration._replace(seats=seats)


def _shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _majority(configuration: Configuration) -> int:
    return len(configuration.voters) // 2 + 1


def _stranger(name: str, members: Collection[str]) -> str:
    return (
        f"{name} is not a member; the members are {', '.join(sorted(members))}. To add it, run: "
        f"raftcron cluster add {name} --raft HOST:PORT --http HOST:PORT"
    )


def _gone_begins(name: str, disk: str) -> str:
    return f"{name} with disk {disk} was "


def _gone(name: str, disk: str, configuration: Configuration) -> str:
    """Why a node that was a member is none any more."""
    begins = f"{_gone_begins(name, disk)}removed from cluster {configuration.cluster_id}"
    if name in configuration.seats:
        return f"{begins}, and another directory has its place: start {name} on an empty data directory"
    return f"{begins}: end it; to have {name} again, add it with an empty data directory: raftcron cluster add {name}"
