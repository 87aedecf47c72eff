"""Who belongs to the cluster: admission of peers, and the first formation; pure, and without a voice in elections.

The Raft identity of a node is (name, disk id); the disk id is drawn when a data directory is first used.  Members are
static: the configured names.  A cluster forms once, when *every* configured voter has been heard to be empty: with a
majority alone, one lost disk and one crash would form a second cluster beside the first.  The first leader then
commits the formation entry, which gives the cluster its id and records all disk ids; from then on a known name with
another disk, an empty directory for one, is a stranger.

A node that holds nothing has no vote until it has heard all the others to be empty too, or a leader that they elected
has sent it entries: it may be one that has lost its disk, and with it a vote or an acknowledgement.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from raftcron import wire
from raftcron.errors import ConfigurationError, DamagedError, FatalError, NewerVersionError
from raftcron.raft.transport import Hello

FORMATION = b"\x10"  # the first byte of a formation entry
FORMATION_VERSION = 1


class Formation(NamedTuple):
    """What the formation entry says: the cluster's id, and the disk id of each voter."""

    cluster_id: str
    disks: dict[str, str]


def encode_formation(formation: Formation) -> bytes:
    return FORMATION + wire.pack([FORMATION_VERSION, formation.cluster_id, formation.disks])


def decode_formation(command: bytes) -> Formation:
    """Raises NewerVersionError, and DamagedError for what no version wrote."""
    try:
        version, *content = wire.unpack(command[1:])
        if type(version) is int and version > FORMATION_VERSION:
            raise NewerVersionError(
                f"the formation entry has version {version}, this release knows {FORMATION_VERSION}: update it"
            )
        cluster_id, disks = content
        return Formation(str(cluster_id), {str(name): str(disk) for name, disk in disks.items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedError(f"the formation entry in the log cannot be read: {error}") from error


class Membership:
    """One node's view of who the others are."""

    def __init__(self, name: str, voters: Iterable[str], disk_id: str, cluster_id: str | None) -> None:
        self._name = name
        self._voters = sorted(voters)
        self._cluster_id = cluster_id
        self._formation: Formation | None = None
        self._is_permanent = False  # the formation has applied here
        self._disks = {name: disk_id}  # as last heard
        self._empty: set[str] = set()  # voters that were heard to be empty since this process began
        self._turned_away: dict[str, str] = {}  # peers that refuse this node, and why
        if name not in self._voters:
            raise ConfigurationError(f"this node is called {name!r}, but the members are {', '.join(self._voters)}")

    @property
    def cluster_id(self) -> str | None:
        """None until the formation entry has applied here."""
        return self._cluster_id

    @property
    def formation(self) -> Formation | None:
        """From the log, committed or not; None while there is none."""
        return self._formation

    # ---- admission -----------------------------------------------------------------------------------------------

    def admit(self, hello: Hello, connected_disk: str | None) -> str | None:
        """Why a peer is refused; None if it may come in.

        `connected_disk` is the disk id of the peer that is connected under this name now, None if there is none.
        """
        name = hello.name
        if name == self._name:
            return f"two nodes are called {name}: give one of them another name"
        if name not in self._voters:
            return f"{name} is not a member; the members are {', '.join(self._voters)}"
        if self._cluster_id is not None and hello.cluster_id is not None and hello.cluster_id != self._cluster_id:
            return (
                f"{name} belongs to cluster {hello.cluster_id}, {self._name} to cluster {self._cluster_id}: "
                f"one of the two has the data directory of another cluster"
            )
        known = self._formation.disks.get(name) if self._formation is not None else connected_disk
        if known is not None and known != hello.disk_id:
            if self._formation is None:
                return f"two nodes are called {name}: one with disk {known}, one with disk {hello.disk_id}"
            what = "an empty data directory" if hello.is_empty else "another data directory"
            return (
                f"{name} comes with {what} (disk {hello.disk_id}, the cluster knows disk {known}): start it on its own "
                f"directory, or, if that is lost, run: raftcron cluster replace {name}"
            )
        return None

    def turned_away(self, peer: str, reason: str) -> None:
        """A peer does not let this node in.  Raises ConfigurationError once a majority of the voters says so.

        One word is not enough: the peer may be the one that is wrong.
        """
        self._turned_away[peer] = reason
        if len(self._turned_away) > len(self._voters) // 2:
            said = "; ".join(f"{name}: {why}" for name, why in sorted(self._turned_away.items()))
            raise ConfigurationError(f"a majority of the cluster does not let node {self._name} in. {said}")

    def heard(self, hello: Hello) -> None:
        """A peer was admitted with these words."""
        self._turned_away.pop(hello.name, None)
        self._disks[hello.name] = hello.disk_id
        if hello.is_empty:
            self._empty.add(hello.name)

    # ---- formation -----------------------------------------------------------------------------------------------

    def may_vote(self, is_empty: bool) -> bool:
        """Whether this node may vote and stand for election; `is_empty`: it holds no entry and has seen no term."""
        return not is_empty or not self.missing()

    def missing(self) -> list[str]:
        """The voters that have not been heard to be empty: whom a first formation waits for."""
        return [name for name in self._voters if name != self._name and name not in self._empty]

    def unknown(self) -> list[str]:
        """The voters whose disk id is not known: whom a first leader waits for."""
        return [name for name in self._voters if name not in self._disks]

    def propose(self, cluster_id: str) -> Formation:
        """The formation of all voters, once no disk is unknown."""
        return Formation(cluster_id, {name: self._disks[name] for name in self._voters})

    def see(self, formation: Formation | None) -> None:
        """What the log holds now; may be taken back until it has applied."""
        if not self._is_permanent:
            self._formation = formation

    def apply(self, formation: Formation) -> None:
        """The formation is committed.  Raises ConfigurationError, FatalError: this node is not what it says."""
        if self._cluster_id is not None and formation.cluster_id != self._cluster_id:
            raise FatalError(
                f"this data directory belongs to cluster {self._cluster_id}, but the log to cluster "
                f"{formation.cluster_id}: the directory holds files of two clusters"
            )
        if sorted(formation.disks) != self._voters:
            raise ConfigurationError(
                f"the configured members are {', '.join(self._voters)}, but the cluster was formed by "
                f"{', '.join(sorted(formation.disks))}: configure the same members on every node"
            )
        self._cluster_id = formation.cluster_id
        self._formation = formation
        self._is_permanent = True
